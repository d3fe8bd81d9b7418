//! Adding up shares: each is a number per weight group and pixel, times the anchor's output gradient.

use super::{Gather, Source, Sums};
use crate::block::WARP;
use crate::channels::Channels;
use crate::limits::{CHANNELS_PER_LANE, UNTOUCHED, WARP_LANES};
use crate::memory;
use crate::storage::Storage;
use crate::unroll::{each4, upto8};
#[cfg(target_arch = "nvptx64")]
use cuda_std::GpuFloat;
use cuda_std::warp;

/// Shares that a worker has on their way at a time.
const AT_A_TIME: usize = 1;

/// Adds up the shares that the marks stand for. Runs when all fit.
pub(crate) struct ByShares;

/// A share and whose it is.
#[derive(Clone, Copy)]
struct Share {
    number: u32,
    anchor: u32,
}

impl<T: Storage, C: Channels<T>> Source<T, C> for ByShares {
    const OF_SHARES: bool = true;

    #[inline(always)]
    unsafe fn add(gather: &Gather<'_, T>, chosen: u32, mark: u32, share: u32, sums: &mut Sums) {
        let mut left = chosen;
        while left != 0 {
            // Shares go round the workers.
            let mut lanes = [None; AT_A_TIME];
            upto8(AT_A_TIME, |turn| {
                for worker in 0..gather.place.workers {
                    if left != 0 && worker == gather.place.worker {
                        lanes[turn] = Some(left.trailing_zeros());
                    }
                    left &= left.wrapping_sub(1);
                }
            });
            let shares = lanes.map(|lane| {
                let from = lane.unwrap_or(0);
                // SAFETY: all lanes of the warp are here.
                let [number, anchor] = [share, mark]
                    .map(|own| unsafe { warp::warp_shuffle_idx(WARP, own, from, WARP_LANES).0 });
                // Each anchor has a mark of its own where there are shares.
                lane.map(|_| Share { number, anchor })
            });
            // SAFETY: shares of the tile.
            unsafe { add_shares::<T, C>(gather, shares, sums) };
        }
    }
}

/// Adds shares to the worker's sums.
///
/// # Safety
///
/// The shares are the tile's; the pointers of the arguments are valid.
#[inline(always)]
unsafe fn add_shares<T: Storage, C: Channels<T>>(
    gather: &Gather<'_, T>,
    shares: [Option<Share>; AT_A_TIME],
    sums: &mut Sums,
) {
    let sizes = &gather.args.sizes;
    let row_bytes = sizes.channels as usize * size_of::<T>();
    let mut weights = [[[UNTOUCHED; 4]; CHANNELS_PER_LANE as usize]; AT_A_TIME];
    let mut upstream = [[0.0; CHANNELS_PER_LANE as usize]; AT_A_TIME];
    upto8(AT_A_TIME, |turn| {
        if let Some(Share { number, anchor }) = shares[turn] {
            let anchor = gather.tile.item * sizes.anchors as usize + anchor as usize;
            // SAFETY: the anchor's row of output gradients, and a group of its share.
            unsafe {
                upstream[turn] =
                    C::load_row(gather.args.grad_output, anchor * row_bytes, gather.channels);
                upto8(C::SLOTS, |slot| {
                    let pixels = gather.args.shares.pixels(sizes, number, gather.groups[slot]);
                    weights[turn][slot] = memory::load_words(pixels.cast());
                });
            }
        }
    });
    upto8(AT_A_TIME, |turn| {
        upto8(C::SLOTS, |slot| {
            each4(|pixel| {
                let weight = weights[turn][slot][pixel];
                // A pixel that no sample touches is left alone, whatever the gradient.
                if weight != UNTOUCHED {
                    upto8(C::PER_SLOT, |within| {
                        let channel = slot * C::PER_SLOT + within;
                        sums[pixel][channel] = f32::from_bits(weight)
                            .mul_add(upstream[turn][channel], sums[pixel][channel]);
                    });
                }
            });
        });
    });
}
