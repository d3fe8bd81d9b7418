//! Backward for the features, by ownership: a warp owns a tile of 2 by 2 pixels, adds up what touches it and writes each of
//! its rows once, zeros included.
//!
//! Nothing is added to memory, so there is nothing to clear before and the result is the same in every run. Which samples touch
//! a tile is in its [list](crate::lists).
//!
//! | file | what it is |
//! |---|---|
//! | `work.rs`, `tile.rs` | what a block has to do, and which tiles its warps have |
//! | `portion.rs` | which points of its list come next |
//! | `staged.rs` | bringing their locations and weights to shared memory |
//! | `samples.rs`, `runs.rs` | adding up samples, those of an anchor together |
//! | `target.rs` | adding up workers and warps, and writing the rows |
//! | `piece.rs` | adding up the pieces of a long list |
//!
//! Most tiles have a few samples or none, so what takes time is not the sums but waiting for memory, once for each step that
//! has to know the result of the one before. A warp therefore has several tiles, looks up where all of their lists are at
//! once, a tile for each lane, and asks for the first points of all of them. While it adds up a portion of a list, what it
//! needs of the next one is on its way to shared memory, past the registers.
//!
//! The tiles of a map of few pixels have many samples each; there a whole block shares a tile, each warp takes a part of
//! the list, and the warps' sums are added in their order. A list that is longer still is cut into [pieces](crate::lists::pieces),
//! a block for each.

mod piece;
mod portion;
mod runs;
mod samples;
mod staged;
mod target;
mod tile;
mod work;

use crate::args::GatherArgs;
use crate::block::{Place, WARP};
use crate::channels::{Channels, Lane};
use crate::limits::{CHANNELS_PER_LANE, MAX_TILES_AT_A_TIME, TILE_SIDE};
use crate::memory;
use crate::storage::Storage;
use cuda_std::{thread, warp};
use piece::Share;
use portion::{Portion, Portions};
use samples::Samples;
use staged::{Source, Staged};
use target::Target;
use tile::Tiles;
use work::Work;

/// Sums of a lane for the four pixels of a tile: top left, top right, bottom left, bottom right.
type Sums = [Lane; (TILE_SIDE * TILE_SIDE) as usize];

const NO_SUMS: Sums = [[0.0; CHANNELS_PER_LANE as usize]; (TILE_SIDE * TILE_SIDE) as usize];

/// The gather for one element type and way to deal channels out.
///
/// Grid: along x a block for each piece there may be, then, for each batch item, one for each block of work whose warps share a
/// tile, then `step` blocks for the others; along y the channel tiles. Block: whole warps. Shared memory: `words_per_warp` words for
/// each warp.
///
/// # Safety
///
/// The pointers of `args` are valid as it says, for the sizes it gives; the lists are sorted.
#[inline(always)]
pub(crate) unsafe fn gather<T: Storage, C: Channels<T>>(args: GatherArgs<T>) {
    // SAFETY: all lanes of the warp are here: the loop runs as often for each, and for each warp of the block. The item and the
    // blocks of work exist.
    unsafe {
        let place = Place::new(&args.sizes);
        let lane = place.warp_lane;
        let share = Share::new(&args, place);
        if share.is_none() && thread::block_idx_x() < args.pieces.most {
            // There are fewer pieces than blocks for them.
            return;
        }
        let Work { item, is_shared, tiles, own } = Work::new(&args, place, share);
        let kept = Tiles::new(&args, place);
        if lane < MAX_TILES_AT_A_TIME {
            kept.keep(lane, &own);
        }
        warp::sync_warp(WARP);
        let item = memory::opaque(item);
        let mut portions = Portions::new(&args, place, item, kept, &own);
        memory::await_copies();
        let mut portion = portions.next_list();
        let mut point = portions.take(lane, portion);
        stage(&args, item, portion, point, 0);
        // While the first samples are on their way.
        if !is_shared {
            write_zeros::<T, C>(&args, item, lane < tiles && own.list.count == 0);
        }
        let mut sums = NO_SUMS;
        let mut number = 0;
        while portion.count > 0 {
            let place = Place::again(&args.sizes);
            let lane = place.warp_lane;
            let samples = Samples::new::<C>(&args, place, item);
            let tile = Tiles::new(&args, place).get(portion.tile);
            let map = tile.map(&args);
            let at_hand = samples.take::<C>(portion.count, point);
            memory::await_copies();
            warp::sync_warp(WARP);
            let next = portions.next(portion);
            point = portions.take(lane, next);
            stage(&args, item, next, point, number ^ 1);
            let staged = Staged::new(&args, place, number);
            samples.add::<C>(&tile, map, portion.count, staged, at_hand, &mut sums);
            if portion.is_last() && !is_shared {
                let place = Place::again(&args.sizes);
                target::add_workers(place, &mut sums);
                Target::new(&args, place, item).write_tile::<C>(tile.rows, &sums);
                sums = NO_SUMS;
            }
            (portion, number) = (next, number ^ 1);
        }
        if is_shared {
            write_shared_tile::<T, C>(&args, item, &mut sums);
        }
    }
}

/// Adds up the workers and warps of a block that shares a tile, and writes the tile's rows; where the block has a piece of a list,
/// the last block that has one does.
///
/// # Safety
///
/// The whole block makes the call, its warps are done with their samples.
#[inline(always)]
unsafe fn write_shared_tile<T: Storage, C: Channels<T>>(
    args: &GatherArgs<T>,
    item: u32,
    sums: &mut Sums,
) {
    let place = Place::again(&args.sizes);
    // SAFETY: the whole block is here; the tile, or the piece, is its own.
    unsafe {
        target::add_workers(place, sums);
        // Where other blocks have the pieces, there are no rows.
        let rows = Tiles::new(args, place).get(0).rows;
        let target = Target::new(args, place, item);
        let share = Share::new(args, place);
        target.write_shared_tile::<C>(rows, share, sums);
        if let Some(share) = share {
            share.finish::<T, C>(target, rows);
        }
    }
}

/// Stages the samples of a portion, of which the lanes have the points, in one of the warp's two places.
///
/// # Safety
///
/// As for [`Source::stage`].
#[inline(always)]
unsafe fn stage<T: Storage>(
    args: &GatherArgs<T>,
    item: u32,
    portion: Portion,
    point: u32,
    number: u32,
) {
    let place = Place::again(&args.sizes);
    // SAFETY: the caller's promise.
    unsafe {
        let source = Source::new(args, place, item, &Tiles::new(args, place).get(portion.tile));
        source.stage(portion, point, Staged::new(args, place, number));
    }
}

/// Writes the rows of the kept tiles that nothing touches: `is_empty` for the lane of a tile's number.
///
/// # Safety
///
/// All lanes of the warp make the call together; the tiles are the warp's alone.
#[inline(always)]
unsafe fn write_zeros<T: Storage, C: Channels<T>>(
    args: &GatherArgs<T>,
    item: u32,
    is_empty: bool,
) {
    let place = Place::again(&args.sizes);
    let target = Target::new(args, place, item);
    // SAFETY: all lanes of the warp are here.
    unsafe {
        let mut left = warp::warp_vote_ballot(WARP, is_empty);
        while left != 0 {
            let tile = Tiles::new(args, place).get(left.trailing_zeros());
            target.write_tile::<C>(tile.rows, &NO_SUMS);
            left &= left - 1;
        }
    }
}
