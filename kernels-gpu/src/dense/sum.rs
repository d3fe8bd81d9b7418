//! Adds up partial sums in a fixed order.

use crate::block_args::SumArgs;
use crate::limits::WARP_LANES;
use crate::memory::{self, SharedWords};
use crate::unroll::sum_in_eights;
use cuda_std::thread;

/// Writes every total.
///
/// A block has 32 neighbouring numbers; its warps take turns with the parts, and the first one adds up what they have.
///
/// Grid: `(numbers / 32, batch)`. Block: any number of whole warps. Shared memory: a word for each thread.
///
/// # Safety
///
/// The pointers of `args` are valid as it says, for the sizes it gives.
#[inline(always)]
pub(crate) unsafe fn sum(args: SumArgs) {
    let (thread, shared) = (thread::thread_idx_x(), SharedWords::new(0));
    let (warp, lane) = (thread / WARP_LANES, thread % WARP_LANES);
    let warps = thread::block_dim_x() / WARP_LANES;
    let number = u64::from(thread::block_idx_x()) * u64::from(WARP_LANES) + u64::from(lane);
    let item = u64::from(thread::block_idx_y());
    let partial =
        args.partial.wrapping_add((item * u64::from(args.parts) * args.length + number) as usize);
    let mut total = 0.0;
    if number < args.length {
        let parts = (args.parts.saturating_sub(warp)).div_ceil(warps.max(1));
        total = sum_in_eights(parts, |index| {
            let at = (u64::from(warp + index * warps) * args.length) as usize;
            // SAFETY: a number of a part.
            unsafe { memory::load_f32(partial.wrapping_add(at)) }
        });
    }
    // SAFETY: the thread's own word.
    unsafe { shared.set(thread, total.to_bits()) };
    thread::sync_threads();
    if warp == 0 && number < args.length {
        for other in 1..warps {
            // SAFETY: written before the barrier.
            total += f32::from_bits(unsafe { shared.get(other * WARP_LANES + lane) });
        }
        let at = (item * args.length + number) as usize;
        // SAFETY: one thread for each number.
        unsafe { memory::store_f32(args.total.wrapping_add(at), total) };
    }
}
