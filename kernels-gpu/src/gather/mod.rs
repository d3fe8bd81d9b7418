//! Backward for the features, by ownership: a warp owns a tile of 2 by 2 pixels, adds up what touches it and writes each of
//! its rows once, zeros included.
//!
//! Nothing is added to memory, so there is nothing to clear before and the result is the same in every run. Where to look
//! the [`marks`](crate::marks) say, anchor by anchor. What an anchor counts for at the tile is a [share](crate::shares),
//! and where there is no memory for shares the samples themselves are added up: two sources.
//!
//! The tiles of a map of few pixels have many anchors each; there a whole block shares a tile, each warp takes a part of
//! the marks, and the warps' sums are added in their order.

mod by_samples;
mod by_shares;
mod tile;

use crate::args::GatherArgs;
use crate::block::{Place, WARP};
use crate::channels::{Channels, Lane, Tile as ChannelTile};
use crate::limits::{CHANNELS_PER_LANE, MARKS_PER_VECTOR, TILE_SIDE, WARP_LANES};
use crate::memory::{self, SharedWords};
use crate::storage::Storage;
use crate::unroll::{array8, each4, each8};
pub(crate) use by_samples::BySamples;
pub(crate) use by_shares::ByShares;
use cuda_std::{thread, warp};
use tile::Tile;

/// Sums of a lane for the four pixels of a tile: top left, top right, bottom left, bottom right.
pub(crate) type Sums = [Lane; (TILE_SIDE * TILE_SIDE) as usize];

const NO_SUMS: Sums = [[0.0; CHANNELS_PER_LANE as usize]; (TILE_SIDE * TILE_SIDE) as usize];

/// What a warp adds up, and for whom.
pub(crate) struct Gather<'a, T> {
    args: &'a GatherArgs<T>,
    place: Place,
    tile: Tile,
    channels: ChannelTile,
    groups: [u32; CHANNELS_PER_LANE as usize],
}

/// What is added up.
pub(crate) trait Source<T: Storage, C: Channels<T>> {
    /// Whether it is shares, which must fit, or else what stands in for them.
    const OF_SHARES: bool;

    /// Adds what some marks stand for to the sums of the workers: those of the lanes of `chosen`, which is not 0. A lane
    /// has the number of its mark, and that of the mark's share.
    ///
    /// # Safety
    ///
    /// All lanes of the warp make the call together; the pointers of the arguments are valid.
    unsafe fn add(gather: &Gather<'_, T>, chosen: u32, mark: u32, share: u32, sums: &mut Sums);
}

impl<'a, T: Storage> Gather<'a, T> {
    /// What the warp has to do for its tile.
    #[inline(always)]
    fn new<C: Channels<T>>(args: &'a GatherArgs<T>, place: Place, tile: Tile) -> Self {
        let channels = place.tile(&args.sizes, thread::block_idx_y());
        Self { args, place, tile, channels, groups: C::groups(channels, &args.sizes.by_group) }
    }

    /// The vectors of marks that are the warp's: all, or its part of those of a tile that it shares.
    #[inline(always)]
    fn vectors(&self) -> (u32, u32) {
        let all = self.args.marks.vectors_per_tile;
        if !self.tile.shared {
            return (0, all);
        }
        let part = all.div_ceil(self.place.warps.max(1));
        let from = (self.place.warp * part).min(all);
        (from, (from + part).min(all))
    }

    /// Adds what is marked in the vectors `from`, `from + 1`, … below `to` to the sums of the workers.
    ///
    /// # Safety
    ///
    /// All lanes of the warp make the call together; the pointers of the arguments are valid.
    #[inline(always)]
    unsafe fn add_marked<C: Channels<T>, S: Source<T, C>>(&self, from: u32, to: u32, sums: &mut Sums) {
        let marks = self.args.marks.vector(self.tile.item, self.tile.number, 0);
        let mut begin = from;
        while begin < to {
            // A vector for each lane.
            let mine = begin + self.place.warp_lane;
            let at = marks.wrapping_add(4 * mine as usize);
            // SAFETY: a vector of the tile's marks, written by earlier launches.
            let [mut share, mut low, mut middle, mut high] =
                unsafe { memory::load_words_if(at, mine < to) };
            loop {
                // SAFETY: all lanes of the warp are here.
                let chosen = unsafe { warp::warp_vote_ballot(WARP, (low | middle | high) != 0) };
                if chosen == 0 {
                    break;
                }
                // Each lane takes the lowest mark it has left.
                let (word, first) = match (low, middle) {
                    (0, 0) => (high, 64),
                    (0, _) => (middle, 32),
                    _ => (low, 0),
                };
                let rest = word & word.wrapping_sub(1);
                match first {
                    0 => low = rest,
                    32 => middle = rest,
                    _ => high = rest,
                }
                let mark = mine * MARKS_PER_VECTOR + first + word.trailing_zeros();
                // SAFETY: as above.
                unsafe { S::add(self, chosen, mark, share, sums) };
                share = share.wrapping_add(1);
            }
            begin += WARP_LANES;
        }
    }

    /// Adds up the workers of the warp: each has the sums of all afterwards.
    ///
    /// # Safety
    ///
    /// All lanes of the warp make the call together.
    #[inline(always)]
    unsafe fn add_workers(&self, sums: &mut Sums) {
        let mut distance = self.place.lanes;
        while distance < WARP_LANES {
            each4(|pixel| {
                each8(|channel| {
                    let own = sums[pixel][channel];
                    // SAFETY: all lanes of the warp are here.
                    let (other, _) =
                        unsafe { warp::warp_shuffle_xor(WARP, own, distance, WARP_LANES) };
                    sums[pixel][channel] = own + other;
                });
            });
            distance *= 2;
        }
    }

    /// Writes the row of one of the tile's pixels, if it is on the map.
    ///
    /// # Safety
    ///
    /// The pixel is the calling worker's alone.
    #[inline(always)]
    unsafe fn write<C: Channels<T>>(&self, pixel: u32, sums: &Lane) {
        let (row, column) = (self.tile.top + pixel / 2, self.tile.left + pixel % 2);
        let map = self.tile.map;
        if row < map.height && column < map.width {
            let sizes = &self.args.sizes;
            let feature = self.tile.item * sizes.rows as usize
                + (map.start + row * map.width + column) as usize;
            let target = self.args.grad_features.wrapping_add(feature * sizes.channels as usize);
            // SAFETY: a row of the gradient, on the map, and this worker's.
            unsafe { C::store(target, self.channels, sums) };
        }
    }
}

/// The gather.
///
/// Grid: `(up to the blocks of work, channel tiles)`. Block: whole warps. Shared memory:
/// [`gather_shared_bytes`](crate::gather_shared_bytes).
///
/// # Safety
///
/// The pointers of `args` are valid as it says, for the sizes it gives; the tiles are marked, and shares that fit are
/// left.
#[inline(always)]
pub(crate) unsafe fn gather<T: Storage, C: Channels<T>, S: Source<T, C>>(args: GatherArgs<T>) {
    // SAFETY: the caller's promise.
    if unsafe { args.shares.fit() } != S::OF_SHARES {
        return;
    }
    let mut block = thread::block_idx_x();
    while block < args.blocks {
        // SAFETY: the whole block is here.
        unsafe { gather_block::<T, C, S>(&args, block) };
        block += thread::grid_dim_x();
    }
}

/// One block of work.
///
/// # Safety
///
/// The whole block makes the call; otherwise as for [`gather`].
#[inline(always)]
unsafe fn gather_block<T: Storage, C: Channels<T>, S: Source<T, C>>(args: &GatherArgs<T>, block: u32) {
    let mut sums = NO_SUMS;
    // SAFETY: all lanes of the warp make the calls together; there is such a block.
    unsafe {
        let place = Place::again(&args.sizes);
        let Some(tile) = Tile::new(args, place, block) else { return };
        let gather = Gather::new::<C>(args, place, tile);
        let (from, to) = gather.vectors();
        gather.add_marked::<C, S>(from, to, &mut sums);
        gather.add_workers(&mut sums);
    }
    // SAFETY: as above. The tile is looked up anew, which costs less than the registers that keep it.
    unsafe {
        let place = Place::again(&args.sizes);
        let Some(tile) = Tile::new(args, place, memory::opaque(block)) else { return };
        let gather = Gather::new::<C>(args, place, tile);
        if gather.tile.shared {
            add_warps::<T, C>(&gather, &sums);
        } else {
            each4(|pixel| {
                if pixel as u32 & (place.workers - 1) == place.worker {
                    gather.write::<C>(pixel as u32, &sums[pixel]);
                }
            });
        }
    }
}

/// Adds up the warps of a block that shares a tile, and writes the tile's rows.
///
/// # Safety
///
/// The whole block makes the call; the tile is its own.
#[inline(always)]
unsafe fn add_warps<T: Storage, C: Channels<T>>(gather: &Gather<'_, T>, sums: &Sums) {
    let place = gather.place;
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
            unsafe { gather.write::<C>(pixel as u32, &total) };
        }
        // The scratch may be written again after this.
        thread::sync_threads();
    });
}
