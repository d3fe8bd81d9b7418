//! Backward for the features, by ownership: a warp owns a tile of 2 by 2 pixels, adds up what touches it and writes each of
//! its rows once, zeros included.
//!
//! Nothing is added to memory, so there is nothing to clear before and the result is the same in every run. Which samples touch
//! a tile is in its [list](crate::lists).
//!
//! | file | what it is |
//! |---|---|
//! | `tile.rs` | which tile a warp has |
//! | `samples.rs`, `runs.rs` | adding up samples, those of an anchor together |
//! | `target.rs` | adding up workers and warps, and writing the rows |
//!
//! Most tiles have a few samples or none, so what takes time is not the sums but waiting for memory, once for each step that
//! has to know the result of the one before. A warp therefore has several tiles, looks up where all of their lists are at
//! once, a tile for each lane, asks for the first points of all of them, and for all that it needs of several samples together.
//!
//! The tiles of a map of few pixels have many samples each; there a whole block shares a tile, each warp takes a part of
//! the list, and the warps' sums are added in their order.

mod runs;
mod samples;
mod target;
mod tile;

use crate::args::GatherArgs;
use crate::block::Place;
use crate::channels::{Channels, Lane};
use crate::limits::{CHANNELS_PER_LANE, MAX_TILES_AT_A_TIME, TILE_SIDE, WARP_LANES, gather_words};
use crate::memory::{self, SharedWords};
use crate::storage::Storage;
use crate::unroll::{array8, each8};
use cuda_std::thread;
use samples::{Samples, lane_points};
use target::Target;
use tile::Tile;

/// Sums of a lane for the four pixels of a tile: top left, top right, bottom left, bottom right.
type Sums = [Lane; (TILE_SIDE * TILE_SIDE) as usize];

const NO_SUMS: Sums = [[0.0; CHANNELS_PER_LANE as usize]; (TILE_SIDE * TILE_SIDE) as usize];

/// The gather for one element type and way to deal channels out.
///
/// Grid: along x, for each batch item, a block for each block of work whose warps share a tile, then `step` blocks for the
/// others; along y the channel tiles. Block: whole warps. Shared memory: `words_per_warp` words for each warp.
///
/// # Safety
///
/// The pointers of `args` are valid as it says, for the sizes it gives; the lists are sorted.
#[inline(always)]
pub(crate) unsafe fn gather<T: Storage, C: Channels<T>>(args: GatherArgs<T>) {
    let (block, item) = args.by_batch.divide(thread::block_idx_x());
    let is_shared = block < args.shared_blocks;
    let tiles = if is_shared { 1 } else { args.blocks_at_a_time };
    // SAFETY: all lanes of the warp are here: the loop runs as often for each, and for each warp of the block. The item and the
    // blocks of work exist.
    unsafe {
        let place = Place::new(&args.sizes);
        let lane = place.warp_lane;
        // The tiles of the blocks of work `block`, `block + step`, …: from maps of every size, so that warps that wait for
        // samples run beside warps that write zeros.
        let number = if lane < tiles { block + lane * args.step } else { args.blocks };
        let mut listed = Tile::new(&args, place, item, number, is_shared);
        if is_shared {
            listed.list = listed.list.part(place.warp, place.warps);
        }
        const _: () = assert!(MAX_TILES_AT_A_TIME == 8);
        // Lanes behind those of the tiles have empty ones.
        let points = array8(|turn| lane_points(&args, item, listed.list_of_lane(turn as u32)));
        // Each lane reads what it has written.
        let kept = SharedWords::new(place.warp * args.words_per_warp + gather_words::POINTS + lane);
        each8(|turn| kept.set(turn as u32 * WARP_LANES, points[turn]));
        let mut turn = 0;
        while turn < tiles {
            let tile = listed.of_lane(turn);
            let place = Place::again(&args.sizes);
            let target = Target::new(&args, place, memory::opaque(item));
            if tile.list.count == 0 && !is_shared {
                target.write_tile::<C>(&tile, &NO_SUMS);
                turn += 1;
                continue;
            }
            let mut sums = NO_SUMS;
            if tile.list.count > 0 {
                let place = Place::again(&args.sizes);
                let samples = Samples::new::<C>(&args, place, memory::opaque(item));
                let points = kept.get(turn * WARP_LANES);
                samples.add_list::<C>(&tile, points, &mut sums);
                target::add_workers(place, &mut sums);
            }
            let place = Place::again(&args.sizes);
            let target = Target::new(&args, place, memory::opaque(item));
            if is_shared {
                target.write_shared_tile::<C>(&tile, &sums);
            } else {
                target.write_tile::<C>(&tile, &sums);
            }
            turn += 1;
        }
    }
}
