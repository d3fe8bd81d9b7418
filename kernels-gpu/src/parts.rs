//! Anchors of many points, cut into parts: a block has some of an anchor's points, so that few anchors keep a GPU busy too.
//!
//! Points lie one behind the other, so a part is like an anchor of its own: its gradients of locations and weights are
//! nobody else's. Only the output is a sum over parts, and the gradient of the output all parts of an anchor have in common.

use crate::args::{AddPartsArgs, Sizes};
use crate::memory;
use crate::storage::Storage;
use crate::unroll::sum_in_eights;
use cuda_std::thread;

/// The part of an anchor that is a block's.
#[derive(Clone, Copy)]
pub(crate) struct Part {
    /// The batch item.
    pub(crate) item: usize,
    /// The anchor, counted over the batch.
    pub(crate) anchor: usize,
    /// The first of its (point, camera) pairs, counted over the batch.
    pub(crate) first_pair: usize,
    /// How many of them it has.
    pub(crate) pairs: u32,
}

impl Part {
    /// The part of this number over the batch.
    #[inline(always)]
    pub(crate) fn new(sizes: &Sizes, number: u32) -> Self {
        let (anchor, part) = sizes.by_parts.divide(number);
        let item = sizes.by_anchors.quotient(anchor);
        let first = part * sizes.by_part.value;
        let points = (sizes.points - first).min(sizes.by_part.value);
        Self {
            item: item as usize,
            anchor: anchor as usize,
            first_pair: anchor as usize * sizes.pairs() as usize + (first * sizes.cameras) as usize,
            pairs: points * sizes.cameras,
        }
    }
}

/// Adds the parts of each anchor's output up, in their order.
///
/// Grid: `B * A`. Block: any number of threads.
///
/// # Safety
///
/// The pointers of `args` are valid as it says.
#[inline(always)]
pub(crate) unsafe fn add_parts<T: Storage>(args: AddPartsArgs<T>) {
    let anchor = thread::block_idx_x() as usize;
    let channels = args.channels as usize;
    let mut channel = thread::thread_idx_x() as usize;
    while channel < channels {
        let first = args.partials.wrapping_add(anchor * args.parts as usize * channels + channel);
        // SAFETY: the anchor's parts and channel; one thread per channel.
        unsafe {
            let sum = sum_in_eights(args.parts, |part| {
                memory::load_f32(first.wrapping_add(part as usize * channels))
            });
            T::store(args.output.wrapping_add(anchor * channels + channel), sum);
        }
        channel += thread::block_dim_x() as usize;
    }
}
