//! Rounds an fp32 array to 16-bit floats: the last step of gradients summed in fp32.

use crate::args::RoundArgs;
use crate::memory;
use crate::storage::Storage;
use cuda_std::thread;

/// Writes every element of the target.
///
/// Grid: one-dimensional, any number of threads.
///
/// # Safety
///
/// The pointers of `args` are valid for its length.
#[inline(always)]
pub(crate) unsafe fn round<T: Storage>(args: RoundArgs<T>) {
    let threads = u64::from(thread::grid_dim_x()) * u64::from(thread::block_dim_x());
    let mut index = u64::from(thread::block_idx_x()) * u64::from(thread::block_dim_x())
        + u64::from(thread::thread_idx_x());
    while index < args.length {
        // SAFETY: below the length; one thread per element.
        unsafe {
            let value = memory::load_f32(args.source.wrapping_add(index as usize));
            T::store(args.target.wrapping_add(index as usize), value);
        }
        index += threads;
    }
}
