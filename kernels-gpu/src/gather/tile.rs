//! Which tile a warp has.

use crate::args::{GatherArgs, Level, TileOfWarp};
use crate::block::{Place, WARP};
use crate::limits::WARP_LANES;
use crate::memory;
use crate::rows::load_map;
use crate::unroll::array4;
use cuda_std::warp;

/// A tile of 2 by 2 pixels: words that a lane can hand to another.
#[derive(Clone, Copy)]
pub(super) struct Tile {
    /// The number of the map it is on; [`NONE`](TileOfWarp::NONE) for a tile without pixels.
    pub(super) map: u32,
    /// Line and column of the top left pixel.
    pub(super) top: u32,
    pub(super) left: u32,
    /// What touches it.
    pub(super) list: List,
}

/// A list of points, or a part of one, by its place among the lists of a batch item.
#[derive(Clone, Copy)]
pub(super) struct List {
    pub(super) first: u32,
    pub(super) count: u32,
}

impl List {
    const EMPTY: Self = Self { first: 0, count: 0 };

    /// The part of this number, of so many that the list is cut into.
    #[inline(always)]
    pub(super) fn part(self, number: u32, parts: u32) -> Self {
        let size = self.count.div_ceil(parts.max(1));
        let from = (number * size).min(self.count);
        let to = (from + size).min(self.count);
        Self { first: self.first + from, count: to - from }
    }

    /// What is left behind so many points.
    #[inline(always)]
    pub(super) fn behind(self, points: u32) -> Self {
        Self { first: self.first + points, count: self.count - points }
    }
}

impl Tile {
    /// Without pixels and points.
    const NONE: Self = Self { map: TileOfWarp::NONE, top: 0, left: 0, list: List::EMPTY };

    /// The tile of the calling warp in a block of work of a batch item, whose warps may share it; without pixels and points behind
    /// the last one of a map and behind the last block of work.
    ///
    /// # Safety
    ///
    /// The pointers of `args` are valid as it says.
    #[inline(always)]
    pub(super) unsafe fn new<T>(
        args: &GatherArgs<T>,
        place: Place,
        item: u32,
        block: u32,
        is_shared: bool,
    ) -> Self {
        if block >= args.blocks {
            return Self::NONE;
        }
        let first = block * place.warps;
        let number = if is_shared { first } else { first + place.warp };
        // SAFETY: the table has the tiles of each block, in four words aligned to 16 bytes; each has a range, written by
        // earlier launches, also where there is no tile.
        unsafe {
            let at = (first + place.warp) as usize;
            let [map, top, left, _] = memory::load_words(args.tiles.wrapping_add(at).cast());
            let range = memory::load_pair(args.lists.range(item, number).cast());
            let [begin, end] = range.map(f32::to_bits);
            Self { map, top, left, list: List { first: begin, count: end - begin } }
        }
    }

    /// What another lane has.
    ///
    /// # Safety
    ///
    /// All lanes of the warp make the call together, for the same lane.
    #[inline(always)]
    pub(super) unsafe fn of_lane(&self, lane: u32) -> Self {
        // SAFETY: the caller's promise.
        let take = |own| unsafe { warp::warp_shuffle_idx(WARP, own, lane, WARP_LANES).0 };
        // SAFETY: as above.
        let list = unsafe { self.list_of_lane(lane) };
        Self { map: take(self.map), top: take(self.top), left: take(self.left), list }
    }

    /// The list of another lane's tile.
    ///
    /// # Safety
    ///
    /// As for [`of_lane`](Self::of_lane).
    #[inline(always)]
    pub(super) unsafe fn list_of_lane(&self, lane: u32) -> List {
        // SAFETY: the caller's promise.
        let take = |own| unsafe { warp::warp_shuffle_idx(WARP, own, lane, WARP_LANES).0 };
        List { first: take(self.list.first), count: take(self.list.count) }
    }

    /// The map it is on, if it has pixels.
    ///
    /// # Safety
    ///
    /// The pointers of `args` are valid as it says.
    #[inline(always)]
    pub(super) unsafe fn map<T>(&self, args: &GatherArgs<T>) -> Level {
        // SAFETY: a map of the table.
        unsafe { load_map(args.maps.add(self.map as usize)) }
    }

    /// The feature rows of its pixels: top left, top right, bottom left, bottom right; nothing for one that is not on the map.
    ///
    /// # Safety
    ///
    /// As for [`map`](Self::map).
    #[inline(always)]
    pub(super) unsafe fn rows<T>(&self, args: &GatherArgs<T>) -> [Option<u32>; 4] {
        if self.map == TileOfWarp::NONE {
            return [None; 4];
        }
        // SAFETY: the caller's promise.
        let map = unsafe { self.map(args) };
        array4(|pixel| {
            let (line, column) = (self.top + (pixel as u32 >> 1), self.left + (pixel as u32 & 1));
            let exists = line < map.height && column < map.width;
            exists.then_some(map.start + line * map.width + column)
        })
    }
}
