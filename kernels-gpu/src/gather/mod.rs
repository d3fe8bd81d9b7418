//! Backward for the features, by ownership: a warp owns a tile of 2 by 2 pixels, adds up what touches it and writes each of
//! its rows once, zeros included.
//!
//! Nothing is added to memory, so there is nothing to clear before and the result is the same in every run. What an anchor
//! counts for at a tile is a [share](crate::shares), and the shares of a tile lie side by side (`by_shares.rs`). Where there
//! is no memory for shares the samples themselves are added up, of the anchors that have [marks](crate::marks) at the tile
//! (`by_samples.rs`).
//!
//! The tiles of a map of few pixels have many anchors each; there a whole block shares a tile, each warp takes a part of
//! the anchors, and the warps' sums are added in their order.

mod by_samples;
mod by_shares;
mod tile;

use crate::block::{Place, WARP};
use crate::channels::{Channels, Lane};
use crate::limits::{CHANNELS_PER_LANE, TILE_SIDE, WARP_LANES};
use crate::memory::SharedWords;
use crate::storage::Storage;
use crate::unroll::{array8, each4, each8};
pub(crate) use by_samples::gather_samples;
pub(crate) use by_shares::gather;
use cuda_std::{thread, warp};
use tile::{Pixels, Target};

/// Sums of a lane for the four pixels of a tile: top left, top right, bottom left, bottom right.
type Sums = [Lane; (TILE_SIDE * TILE_SIDE) as usize];

const NO_SUMS: Sums = [[0.0; CHANNELS_PER_LANE as usize]; (TILE_SIDE * TILE_SIDE) as usize];

/// The part of so many things that is the warp's when the warps of the block share them: the first, and the one behind the
/// last.
#[inline(always)]
fn part_of_warp(place: Place, all: u32) -> (u32, u32) {
    let part = all.div_ceil(place.warps.max(1));
    let from = (place.warp * part).min(all);
    (from, (from + part).min(all))
}

/// Adds up the workers of the warp: each has the sums of all afterwards.
///
/// # Safety
///
/// All lanes of the warp make the call together.
#[inline(always)]
unsafe fn add_workers(place: Place, sums: &mut Sums) {
    let mut distance = place.lanes;
    while distance < WARP_LANES {
        each4(|pixel| {
            each8(|channel| {
                let own = sums[pixel][channel];
                // SAFETY: all lanes of the warp are here.
                let (other, _) = unsafe { warp::warp_shuffle_xor(WARP, own, distance, WARP_LANES) };
                sums[pixel][channel] = own + other;
            });
        });
        distance *= 2;
    }
}

/// Writes the rows of a tile's pixels, of which each worker of the warp has the sums.
///
/// # Safety
///
/// The tile is the warp's alone.
#[inline(always)]
unsafe fn write_tile<T: Storage, C: Channels<T>>(
    place: Place,
    target: &Target<T>,
    pixels: Pixels,
    sums: &Sums,
) {
    each4(|pixel| {
        // Pixels go round the workers.
        if pixel as u32 & (place.workers - 1) == place.worker {
            // SAFETY: the pixel is this worker's.
            unsafe { target.write::<C>(pixels, pixel as u32, &sums[pixel]) };
        }
    });
}

/// Adds up the warps of a block that shares a tile, and writes the tile's rows.
///
/// # Safety
///
/// The whole block makes the call; the tile is its own.
#[inline(always)]
unsafe fn write_shared_tile<T: Storage, C: Channels<T>>(
    place: Place,
    target: &Target<T>,
    pixels: Pixels,
    sums: &Sums,
) {
    let scratch = SharedWords::new(0);
    // Word `(warp * 8 + index) * lanes + lane`: neighbouring lanes, neighbouring words.
    let word = |warp: u32, index: usize| {
        (warp * CHANNELS_PER_LANE + index as u32) * place.lanes + place.lane
    };
    each4(|pixel| {
        if place.worker == 0 {
            each8(|index| {
                // SAFETY: each lane of each warp's first worker has words of its own.
                unsafe { scratch.set(word(place.warp, index), sums[pixel][index].to_bits()) };
            });
        }
        thread::sync_threads();
        // Each pixel is another warp's business.
        if place.warp == pixel as u32 % place.warps.max(1) && place.worker == 0 {
            let mut total = [0.0; CHANNELS_PER_LANE as usize];
            for other in 0..place.warps {
                // SAFETY: written before the barrier.
                total = array8(|index| unsafe {
                    total[index] + f32::from_bits(scratch.get(word(other, index)))
                });
            }
            // SAFETY: one worker per pixel.
            unsafe { target.write::<C>(pixels, pixel as u32, &total) };
        }
        // The scratch may be written again after this.
        thread::sync_threads();
    });
}
