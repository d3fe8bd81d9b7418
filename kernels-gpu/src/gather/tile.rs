//! Which tile a warp has.

use crate::args::{GatherArgs, Level, TileOfWarp};
use crate::block::{Place, WARP};
use crate::limits::{WARP_LANES, gather_words};
use crate::memory::{self, SharedWords};
use crate::rows::load_map;
use cuda_std::warp;

/// A tile of 2 by 2 pixels.
#[derive(Clone, Copy)]
pub(super) struct Tile {
    /// The number of the map it is on; [`NONE`](TileOfWarp::NONE) for a tile without pixels.
    pub(super) map: u32,
    /// Line and column of the top left pixel.
    pub(super) top: u32,
    pub(super) left: u32,
    /// The feature rows of its pixels.
    pub(super) rows: Rows,
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
    pub(super) const EMPTY: Self = Self { first: 0, count: 0 };

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
    pub(super) const NONE: Self =
        Self { map: TileOfWarp::NONE, top: 0, left: 0, rows: Rows::NONE, list: List::EMPTY };

    /// That of a number in a batch item; without pixels and points behind the last one of a map and behind the last block of work.
    ///
    /// # Safety
    ///
    /// The pointers of `args` are valid as it says.
    #[inline(always)]
    pub(super) unsafe fn new<T>(args: &GatherArgs<T>, item: u32, number: u32) -> Self {
        if number >= args.lists.tiles {
            return Self::NONE;
        }
        // SAFETY: the table has the tile, in four words aligned to 16 bytes; it has a range, written by earlier launches, also
        // where it has no pixels.
        unsafe {
            let entry = args.tiles.wrapping_add(number as usize);
            let [map, top, left, _] = memory::load_words(entry.cast());
            let range = memory::load_pair(args.lists.range(item, number).cast());
            let [begin, end] = range.map(f32::to_bits);
            let rows = if map == TileOfWarp::NONE {
                Rows::NONE
            } else {
                Rows::new(load_map(args.maps.wrapping_add(map as usize)), top, left)
            };
            Self { map, top, left, rows, list: List { first: begin, count: end - begin } }
        }
    }

    /// The map it is on, if it has pixels.
    ///
    /// # Safety
    ///
    /// The pointers of `args` are valid as it says.
    #[inline(always)]
    pub(super) unsafe fn map<T>(&self, args: &GatherArgs<T>) -> Level {
        // SAFETY: a map of the table.
        unsafe { load_map(args.maps.wrapping_add(self.map as usize)) }
    }
}

/// The tiles of a warp, in shared memory.
#[derive(Clone, Copy)]
pub(super) struct Tiles {
    words: SharedWords,
}

impl Tiles {
    /// The place of those of the calling warp.
    #[inline(always)]
    pub(super) fn new<T>(args: &GatherArgs<T>, place: Place) -> Self {
        let first = place.warp * args.words_per_warp + gather_words::TILES;
        Self { words: SharedWords::new(first) }
    }

    /// Keeps a tile under a number. The warp can read it after its next meeting.
    ///
    /// # Safety
    ///
    /// The number is below that of the most tiles of a warp, and no other lane's.
    #[inline(always)]
    pub(super) unsafe fn keep(self, number: u32, tile: &Tile) {
        let Tile { map, top, left, rows: Rows { first, down, across }, list } = *tile;
        let at = number * gather_words::TILE_WORDS;
        // SAFETY: the words are this lane's.
        unsafe {
            self.words.set4(at, [map, top, left, across]);
            self.words.set4(at + 4, [first, down, list.first, list.count]);
        }
    }

    /// The tile of a number.
    ///
    /// # Safety
    ///
    /// All lanes of the warp make the call together, for the same number. The tile is kept.
    #[inline(always)]
    pub(super) unsafe fn get(self, number: u32) -> Tile {
        let at = number * gather_words::TILE_WORDS;
        // SAFETY: the caller's promise.
        unsafe {
            let [map, top, left, across] = uniform(self.words.get4(at));
            let [first, down, begin, count] = uniform(self.words.get4(at + 4));
            let rows = Rows { first, down, across };
            Tile { map, top, left, rows, list: List { first: begin, count } }
        }
    }
}

/// The same words, which all lanes of the warp have, so that the assembler knows that they do: a register keeps a word for all
/// of them then.
///
/// # Safety
///
/// All lanes of the warp make the call together.
#[inline(always)]
unsafe fn uniform(words: [u32; 4]) -> [u32; 4] {
    // SAFETY: the caller's promise.
    words.map(|word| unsafe { warp::warp_shuffle_idx(WARP, word, 0, WARP_LANES).0 })
}

/// The feature rows of a tile's pixels.
#[derive(Clone, Copy)]
pub(super) struct Rows {
    /// That of the top left pixel.
    first: u32,
    /// How far behind it that of the pixel below is; 0 where there is none.
    down: u32,
    /// Pixels side by side.
    across: u32,
}

impl Rows {
    const NONE: Self = Self { first: 0, down: 0, across: 0 };

    #[inline(always)]
    fn new(map: Level, top: u32, left: u32) -> Self {
        Self {
            first: map.start + top * map.width + left,
            down: if top + 1 < map.height { map.width } else { 0 },
            across: if left + 1 < map.width { 2 } else { 1 },
        }
    }

    /// That of a pixel: top left, top right, bottom left, bottom right; nothing for one that is not on the map.
    #[inline(always)]
    pub(super) fn of_pixel(self, pixel: usize) -> Option<u32> {
        let (line, column) = (pixel as u32 >> 1, pixel as u32 & 1);
        let exists = column < self.across && (line == 0 || self.down > 0);
        exists.then_some(self.first + line * self.down + column)
    }
}
