//! Adding up shares: each is a number per weight group and pixel, times the anchor's output gradient.
//!
//! Most tiles have a few shares or none, so what takes time is not the sums but waiting for memory, once for each step that
//! has to know the result of the one before. A warp therefore has several tiles, looks up where all of their shares are at
//! once, a tile for each lane, asks for the owners of the next tile's shares before it adds up those of this one, and for
//! several shares together.

use super::tile::{Pixels, Target, Tile};
use super::{NO_SUMS, Sums, add_workers, part_of_warp, write_shared_tile, write_tile};
use crate::args::GatherArgs;
use crate::block::{Place, WARP};
use crate::channels::{Channels, Fetched};
use crate::limits::{CHANNELS_PER_LANE, UNTOUCHED, WARP_LANES};
use crate::memory;
use crate::storage::Storage;
use crate::unroll::{each4, upto8};
#[cfg(target_arch = "nvptx64")]
use cuda_std::GpuFloat;
use cuda_std::{thread, warp};

/// Most shares that a worker has on their way at a time.
const AT_A_TIME: usize = 4;

/// Shares that a worker with so many slots has on their way at a time: weights and output gradient take registers for each
/// slot.
const fn at_a_time(slots: usize) -> usize {
    if slots < AT_A_TIME { AT_A_TIME / slots } else { 1 }
}

/// A run of shares.
#[derive(Clone, Copy)]
struct Range {
    first: u32,
    count: u32,
}

/// A tile and its shares, as a lane looks them up.
#[derive(Clone, Copy)]
struct Listed {
    pixels: Pixels,
    shares: Range,
}

impl Listed {
    /// The tile of the calling warp in a block of work of a batch item; without pixels and shares behind the last one of a
    /// map.
    ///
    /// # Safety
    ///
    /// The pointers of `args` are valid as it says; there is such a block if it is below `args.blocks`.
    #[inline(always)]
    unsafe fn new<T>(args: &GatherArgs<T>, place: Place, item: u32, block: u32) -> Self {
        let mut listed = Self { pixels: Pixels::NONE, shares: Range { first: 0, count: 0 } };
        if block < args.blocks {
            // SAFETY: the block exists, and the tile has a range.
            if let Some(tile) = unsafe { Tile::new(args, place, block) } {
                let at = item as usize * args.marks.tiles as usize + tile.number as usize;
                let range = args.shares.ranges.wrapping_add(2 * at);
                // SAFETY: the range was written by an earlier launch.
                let [first, count] = unsafe { memory::load_pair(range.cast()) }.map(f32::to_bits);
                listed = Self { pixels: tile.pixels(), shares: Range { first, count } };
            }
        }
        listed
    }

    /// What another lane has looked up.
    ///
    /// # Safety
    ///
    /// All lanes of the warp make the call together, for the same lane.
    #[inline(always)]
    unsafe fn of_lane(&self, lane: u32) -> Self {
        // SAFETY: the caller's promise.
        let take = |own| unsafe { warp::warp_shuffle_idx(WARP, own, lane, WARP_LANES).0 };
        Self {
            pixels: Pixels { row: take(self.pixels.row), shape: take(self.pixels.shape) },
            shares: Range { first: take(self.shares.first), count: take(self.shares.count) },
        }
    }
}

/// The gather where there are shares.
///
/// Grid: along x, for each batch item, a block for each block of work whose warps share a tile, then `step` blocks for the
/// others; along y the channel tiles. Block: whole warps. Shared memory:
/// [`gather_shared_bytes`](crate::gather_shared_bytes).
///
/// # Safety
///
/// The pointers of `args` are valid as it says, for the sizes it gives; the shares are numbered, and left if they fit.
#[inline(always)]
pub(crate) unsafe fn gather<T: Storage, C: Channels<T>>(args: GatherArgs<T>) {
    // SAFETY: the caller's promise.
    if !unsafe { args.shares.fit() } {
        return;
    }
    let place = Place::new(&args.sizes);
    let (block, item) = args.by_batch.divide(thread::block_idx_x());
    // SAFETY: all lanes of the warp make the calls together, those of one block the same; the blocks exist.
    unsafe {
        let gather = Gather::new::<C>(&args, place, item);
        if block < args.shared_blocks {
            gather.take_shared_tile::<C>(block);
        } else {
            gather.take_tiles::<C>(block);
        }
    }
}

/// What a warp adds up, and for whom.
struct Gather<'a, T> {
    args: &'a GatherArgs<T>,
    place: Place,
    item: u32,
    target: Target<T>,
    groups: [u32; CHANNELS_PER_LANE as usize],
}

impl<'a, T: Storage> Gather<'a, T> {
    #[inline(always)]
    fn new<C: Channels<T>>(args: &'a GatherArgs<T>, place: Place, item: u32) -> Self {
        let target = Target::new(args, place, item);
        let groups = C::groups(target.channels, &args.sizes.by_group);
        Self { args, place, item, target, groups }
    }

    /// Does the tile that the warps of the block share.
    ///
    /// # Safety
    ///
    /// The whole block makes the call; there is such a block of work.
    #[inline(always)]
    unsafe fn take_shared_tile<C: Channels<T>>(&self, block: u32) {
        let mut sums = NO_SUMS;
        // SAFETY: the caller's promise; the warps' parts are parts of the tile's shares.
        unsafe {
            let Listed { pixels, shares } = Listed::new(self.args, self.place, self.item, block);
            let (from, to) = part_of_warp(self.place, shares.count);
            let part = Range { first: shares.first + from, count: to - from };
            self.add_shares::<C>(part, self.owners(part), &mut sums);
            add_workers(self.place, &mut sums);
            write_shared_tile::<T, C>(self.place, &self.target, pixels, &sums);
        }
    }

    /// Does the warp's tiles of the blocks of work `block`, `block + step`, …: from maps of every size, so that warps that
    /// wait for shares run beside warps that write zeros.
    ///
    /// # Safety
    ///
    /// All lanes of the warp make the call together.
    #[inline(always)]
    unsafe fn take_tiles<C: Channels<T>>(&self, block: u32) {
        let tiles = self.args.blocks_at_a_time;
        let lane = self.place.warp_lane;
        // SAFETY: all lanes of the warp are here: the loop runs as often for each. Ranges are the tiles'.
        unsafe {
            let number = if lane < tiles { block + lane * self.args.step } else { self.args.blocks };
            let listed = Listed::new(self.args, self.place, self.item, number);
            let mut this = listed.of_lane(0);
            let mut owners = self.owners(this.shares);
            let mut turn = 0;
            while turn < tiles {
                // The lane behind those of the tiles has one without shares; behind the last lane the first is asked again, and
                // not used.
                let next = listed.of_lane((turn + 1) % WARP_LANES);
                let owners_of_next = self.owners(next.shares);
                let mut sums = NO_SUMS;
                if this.shares.count > 0 {
                    self.add_shares::<C>(this.shares, owners, &mut sums);
                    add_workers(self.place, &mut sums);
                }
                write_tile::<T, C>(self.place, &self.target, this.pixels, &sums);
                (this, owners) = (next, owners_of_next);
                turn += 1;
            }
        }
    }

    /// The owners of the first shares of a range, one in each lane.
    ///
    /// # Safety
    ///
    /// The shares are numbered, and fit.
    #[inline(always)]
    unsafe fn owners(&self, range: Range) -> u32 {
        let lane = self.place.warp_lane;
        let at = range.first as usize + lane as usize;
        // SAFETY: the share is one of the range, if it is read.
        unsafe {
            memory::load_f32_if(self.args.shares.owners.wrapping_add(at).cast(), lane < range.count)
        }
        .to_bits()
    }

    /// Adds shares to the sums of the workers, which take them in turn. The lanes have the `owners` of the first ones.
    ///
    /// # Safety
    ///
    /// All lanes of the warp make the call together; the pointers of the arguments are valid.
    #[inline(always)]
    unsafe fn add_shares<C: Channels<T>>(&self, range: Range, owners: u32, sums: &mut Sums) {
        let step = at_a_time(C::SLOTS) as u32 * self.place.workers;
        let (mut left, mut owners) = (range, owners);
        while left.count > 0 {
            let lanes = left.count.min(WARP_LANES);
            let mut begin = 0;
            while begin < lanes {
                // SAFETY: all lanes of the warp are here, also below; the lanes' owners are those of the shares.
                unsafe {
                    let first = begin + self.place.worker;
                    self.add_some::<C>(left.first, first, lanes, owners, sums);
                }
                begin += step;
            }
            left = Range { first: left.first + lanes, count: left.count - lanes };
            // SAFETY: as above.
            owners = unsafe { self.owners(left) };
        }
    }

    /// Adds the shares `index`, `index + workers`, … below `lanes`, counted from `first`, to the worker's sums.
    ///
    /// # Safety
    ///
    /// As for [`add_shares`](Self::add_shares); there is a share at `lanes - 1`, and its owner in that lane.
    #[inline(always)]
    unsafe fn add_some<C: Channels<T>>(
        &self,
        first: u32,
        index: u32,
        lanes: u32,
        owners: u32,
        sums: &mut Sums,
    ) {
        let sizes = &self.args.sizes;
        let row_bytes = sizes.channels as usize * size_of::<T>();
        let gradients = self.args.grad_output;
        let mut upstream: [Fetched; AT_A_TIME] = [[0; CHANNELS_PER_LANE as usize]; AT_A_TIME];
        let mut weights = [[[UNTOUCHED; 4]; CHANNELS_PER_LANE as usize]; AT_A_TIME];
        upto8(at_a_time(C::SLOTS), |turn| {
            // Behind the last share it is read again, and not used.
            let from = (index + turn as u32 * self.place.workers).min(lanes - 1);
            // SAFETY: all lanes of the warp are here. The anchor's row of output gradients, and a group of its share.
            unsafe {
                let owner = warp::warp_shuffle_idx(WARP, owners, from, WARP_LANES).0;
                let anchor = sizes.by_parts.quotient(owner);
                let anchor = self.item as usize * sizes.anchors as usize + anchor as usize;
                upstream[turn] = C::fetch_row(gradients, anchor * row_bytes, self.target.channels);
                upto8(C::SLOTS, |slot| {
                    let pixels = self.args.shares.pixels(sizes, first + from, self.groups[slot]);
                    weights[turn][slot] = memory::load_words(pixels.cast());
                });
            }
        });
        // All of them are on their way before any is waited for: the assembler moves nothing over a meeting.
        // SAFETY: all lanes of the warp are here.
        unsafe { warp::sync_warp(WARP) };
        upto8(at_a_time(C::SLOTS), |turn| {
            if index + turn as u32 * self.place.workers < lanes {
                let upstream = C::widen(upstream[turn]);
                upto8(C::SLOTS, |slot| {
                    each4(|pixel| {
                        let weight = weights[turn][slot][pixel];
                        // A pixel that no sample touches is left alone, whatever the gradient.
                        if weight != UNTOUCHED {
                            upto8(C::PER_SLOT, |within| {
                                let channel = slot * C::PER_SLOT + within;
                                sums[pixel][channel] = f32::from_bits(weight)
                                    .mul_add(upstream[channel], sums[pixel][channel]);
                            });
                        }
                    });
                });
            }
        });
    }
}
