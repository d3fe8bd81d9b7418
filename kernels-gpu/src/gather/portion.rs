//! The lists of a warp's tiles, portion by portion.
//!
//! The next points of every list are in shared memory, a word for each lane and tile, and those behind them are on their way there
//! as soon as they are taken.

use super::tile::{List, Tile, Tiles};
use crate::args::GatherArgs;
use crate::block::{Place, WARP};
use crate::limits::{MAX_TILES_AT_A_TIME, WARP_LANES, gather_words};
use crate::memory::SharedWords;
use crate::unroll::each8;
use cuda_std::warp;

/// Points that a warp takes together, of the list of one of its tiles.
#[derive(Clone, Copy)]
pub(super) struct Portion {
    /// The number of the tile.
    pub(super) tile: u32,
    /// How many points there are; none behind the last portion.
    pub(super) count: u32,
    /// What comes behind them in the list.
    behind: List,
}

impl Portion {
    /// The first points of what is left of a list.
    #[inline(always)]
    fn new(tile: u32, list: List, most: u32) -> Self {
        let count = list.count.min(most);
        Self { tile, count, behind: list.behind(count) }
    }

    /// Behind the last portion.
    const NONE: Self = Self { tile: 0, count: 0, behind: List::EMPTY };

    /// Whether the list ends with it.
    #[inline(always)]
    pub(super) fn is_last(&self) -> bool {
        self.behind.count == 0
    }
}

/// What is left of the lists of a warp's tiles.
pub(super) struct Portions<'a, T> {
    args: &'a GatherArgs<T>,
    item: u32,
    /// The next point of this lane's, in the list of each tile.
    points: SharedWords,
    tiles: Tiles,
    /// A bit for each tile from whose list nothing was taken, but for those of empty lists.
    left: u32,
}

impl<'a, T> Portions<'a, T> {
    /// All of the lists of the tiles that are kept, of which each lane has its own, those behind the last tile one with an empty
    /// list.
    ///
    /// # Safety
    ///
    /// All lanes of the warp make the call together, and wait for its copies before they take a portion. The pointers of the
    /// arguments are valid; the lists are the item's.
    #[inline(always)]
    pub(super) unsafe fn new(
        args: &'a GatherArgs<T>,
        place: Place,
        item: u32,
        tiles: Tiles,
        own: &Tile,
    ) -> Self {
        const _: () = assert!(MAX_TILES_AT_A_TIME == 8);
        let first = place.warp * args.words_per_warp + gather_words::POINTS;
        let points = SharedWords::new(first + place.warp_lane);
        // SAFETY: all lanes of the warp are here.
        let left = unsafe { warp::warp_vote_ballot(WARP, own.list.count > 0) };
        let portions = Self { args, item, points, tiles, left };
        each8(|tile| {
            // SAFETY: all lanes of the warp are here. The list is the item's.
            unsafe { portions.ask(place.warp_lane, tile as u32, tiles.get(tile as u32).list) };
        });
        portions
    }

    /// Asks for the first points of what is left of a tile's list.
    ///
    /// # Safety
    ///
    /// The list is one of the item's, or a part of one.
    #[inline(always)]
    unsafe fn ask(&self, lane: u32, tile: u32, list: List) {
        if lane < list.count {
            let point = self.args.lists.point(self.item, list.first + lane);
            // SAFETY: a place of the list; the word is this lane's.
            unsafe { self.points.copy(tile * WARP_LANES, point) };
        }
    }

    /// The first portion of the next list.
    ///
    /// # Safety
    ///
    /// All lanes of the warp make the call together.
    #[inline(always)]
    pub(super) unsafe fn next_list(&mut self) -> Portion {
        if self.left == 0 {
            return Portion::NONE;
        }
        let tile = self.left.trailing_zeros();
        self.left &= self.left - 1;
        // SAFETY: all lanes of the warp are here.
        Portion::new(tile, unsafe { self.tiles.get(tile).list }, self.args.samples)
    }

    /// The portion behind another.
    ///
    /// # Safety
    ///
    /// As for [`next_list`](Self::next_list).
    #[inline(always)]
    pub(super) unsafe fn next(&mut self, before: Portion) -> Portion {
        if before.is_last() {
            // SAFETY: the caller's promise.
            unsafe { self.next_list() }
        } else {
            Portion::new(before.tile, before.behind, self.args.samples)
        }
    }

    /// The lane's point of a portion, or point 0 where it has none, and asks for the point behind it.
    ///
    /// # Safety
    ///
    /// The copies that bring the points were waited for; nobody has taken the portion.
    #[inline(always)]
    pub(super) unsafe fn take(&self, lane: u32, portion: Portion) -> u32 {
        let mut point = 0;
        // SAFETY: the lane has asked for the word, which is its own, and waited.
        unsafe {
            if lane < portion.count {
                point = self.points.get(portion.tile * WARP_LANES);
            }
            self.ask(lane, portion.tile, portion.behind);
        }
        point
    }
}
