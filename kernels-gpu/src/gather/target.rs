//! Adding up the workers of a warp and the warps of a block, and writing the rows of a tile.

use super::Sums;
use super::piece::Share;
use super::tile::Rows;
use crate::args::GatherArgs;
use crate::block::{Place, WARP};
use crate::channels::{Channels, Lane, Tile as ChannelTile};
use crate::limits::{CHANNELS_PER_LANE, WARP_LANES};
use crate::memory::SharedWords;
use crate::storage::Storage;
use crate::unroll::{array8, each4, each8};
use cuda_std::{thread, warp};

/// Adds up the workers of the warp: each has the sums of all afterwards.
///
/// # Safety
///
/// All lanes of the warp make the call together.
#[inline(always)]
pub(super) unsafe fn add_workers(place: Place, sums: &mut Sums) {
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

/// The gradient that the lanes of a worker write: a batch item's, and the channels of theirs.
#[derive(Clone, Copy)]
pub(super) struct Target<'a, T> {
    args: &'a GatherArgs<T>,
    place: Place,
    grad_features: *mut T,
    channels: ChannelTile,
}

impl<'a, T: Storage> Target<'a, T> {
    /// That of a batch item, and the tile of channels of the calling block.
    #[inline(always)]
    pub(super) fn new(args: &'a GatherArgs<T>, place: Place, item: u32) -> Self {
        let elements = args.sizes.rows as usize * args.sizes.channels as usize;
        Self {
            args,
            place,
            grad_features: args.grad_features.wrapping_add(item as usize * elements),
            channels: place.tile(&args.sizes, thread::block_idx_y()),
        }
    }

    /// Writes the row of a pixel, if it is on the map.
    ///
    /// # Safety
    ///
    /// The pixel is the calling worker's alone.
    #[inline(always)]
    pub(super) unsafe fn write<C: Channels<T>>(self, row: Option<u32>, sums: &Lane) {
        if let Some(row) = row {
            let at = row as usize * self.channels.channels as usize;
            // SAFETY: a row of the gradient, on the map, and this worker's.
            unsafe { C::store(self.grad_features.wrapping_add(at), self.channels, sums) };
        }
    }

    /// Writes the rows of a tile's pixels, of which each worker of the warp has the sums.
    ///
    /// # Safety
    ///
    /// The tile is the warp's alone.
    #[inline(always)]
    pub(super) unsafe fn write_tile<C: Channels<T>>(&self, rows: Rows, sums: &Sums) {
        let place = self.place;
        each4(|pixel| {
            // Pixels go round the workers.
            if pixel as u32 & (place.workers - 1) == place.worker {
                // SAFETY: the pixel is this worker's.
                unsafe { self.write::<C>(rows.of_pixel(pixel), &sums[pixel]) };
            }
        });
    }

    /// Whether a pixel of a tile that a block shares is the calling worker's.
    #[inline(always)]
    pub(super) fn is_turn(self, pixel: usize) -> bool {
        let place = self.place;
        place.warp == pixel as u32 % place.warps.max(1) && place.worker == 0
    }

    /// Adds up the warps of a block that shares a tile, and writes the tile's rows, or keeps the sums if its list was cut.
    ///
    /// # Safety
    ///
    /// The whole block makes the call, its warps are done with their samples; the tile, or the share, is its own.
    #[inline(always)]
    pub(super) unsafe fn write_shared_tile<C: Channels<T>>(
        self,
        rows: Rows,
        share: Option<Share>,
        sums: &Sums,
    ) {
        let place = self.place;
        // In the place of the warp's samples. Neighbouring lanes, neighbouring words.
        let scratch = SharedWords::new(0);
        let word = |warp: u32, index: usize| {
            warp * self.args.words_per_warp + index as u32 * place.lanes + place.lane
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
            if self.is_turn(pixel) {
                let mut total = [0.0; CHANNELS_PER_LANE as usize];
                for other in 0..place.warps {
                    // SAFETY: written before the barrier.
                    total = array8(|index| unsafe {
                        total[index] + f32::from_bits(scratch.get(word(other, index)))
                    });
                }
                // SAFETY: one worker per pixel.
                unsafe {
                    match share {
                        Some(share) => share.keep(pixel, &total),
                        None => self.write::<C>(rows.of_pixel(pixel), &total),
                    }
                }
            }
            // The scratch may be written again after this.
            thread::sync_threads();
        });
    }
}
