//! A gradient back through dropout.

use crate::block_args::DropArgs;
use crate::storage::Storage;
use cuda_std::thread;

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
