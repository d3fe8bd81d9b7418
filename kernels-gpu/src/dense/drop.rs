//! Dropout, and a gradient back through it.

use crate::attention::random;
use crate::block_args::{DropArgs, Dropout};
use crate::memory;
use crate::storage::Storage;
use cuda_std::thread;

impl Dropout {
    /// What the element of this number is multiplied with.
    ///
    /// # Safety
    ///
    /// The pointer is valid as the structure says, and the element exists.
    #[inline(always)]
    pub(crate) unsafe fn factor(&self, index: u64) -> f32 {
        if !self.is_active() {
            return 1.0;
        }
        // SAFETY: the caller's promise.
        let is_kept = unsafe { self.keeps(index) };
        if is_kept { self.scale } else { 0.0 }
    }

    /// A bit for each of eight neighbouring elements, of which the first `count` exist: whether it is kept.
    ///
    /// # Safety
    ///
    /// As for [`factor`](Self::factor), of those that exist; there is dropout.
    #[inline(always)]
    pub(crate) unsafe fn kept_of_eight(&self, first: u64, count: u32) -> u32 {
        let (mut index, mut kept) = (0, 0);
        // A loop also in the machine code: the generator is long, and most layers drop nothing.
        while index < count.min(8) {
            let of_turn = memory::turn(index);
            // SAFETY: the caller's promise.
            kept |= u32::from(unsafe { self.keeps(first + u64::from(of_turn)) }) << of_turn;
            index = of_turn + 1;
        }
        kept
    }

    /// Whether the element of this number is kept where some are dropped.
    ///
    /// # Safety
    ///
    /// As for [`factor`](Self::factor).
    #[inline(always)]
    unsafe fn keeps(&self, index: u64) -> bool {
        let number = if self.numbers.is_null() {
            random::uniform(self.seed, self.stream, index)
        } else {
            // SAFETY: the caller's promise.
            unsafe { memory::load_f32(self.numbers.wrapping_add(index as usize)) }
        };
        number > self.threshold || (number == self.threshold && self.zero_equal == 0)
    }
}

/// Writes every element of the target.
///
/// Grid: one-dimensional, any number of threads.
///
/// # Safety
///
/// The pointers of `args` are valid as it says, for the sizes it gives.
#[inline(always)]
pub(crate) unsafe fn drop<T: Storage>(args: DropArgs<T>) {
    let threads = u64::from(thread::grid_dim_x()) * u64::from(thread::block_dim_x());
    let mut index = u64::from(thread::block_idx_x()) * u64::from(thread::block_dim_x())
        + u64::from(thread::thread_idx_x());
    let columns = u64::from(args.columns.max(1));
    while index < args.rows * u64::from(args.columns) {
        let at = index / columns * u64::from(args.stride) + index % columns;
        // SAFETY: an element of the row; one thread for each.
        unsafe {
            let value = T::load(args.source.wrapping_add(at as usize));
            let value = value * args.dropout.factor(index);
            T::store(args.target.wrapping_add(index as usize), value);
        }
        index += threads;
    }
}
