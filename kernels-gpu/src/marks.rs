//! Which tiles of pixels the samples of which anchors touch.
//!
//! Every 2 by 2 pixels have a row of bits, one for each anchor of the batch item (or one for several anchors, when there
//! are very many). They are set in any order and read in theirs, so that what follows is the same in every run without
//! anything being sorted.

use crate::args::{MapGrid, MarkArgs, Marks};
use crate::block::WARP;
use crate::limits::{MANY_POINTS, MARKS_PER_VECTOR, TILE_SIDE, WARP_LANES};
use crate::memory::{self, SharedWords};
use crate::rows::load_map;
use crate::sample::Corners;
use crate::unroll::each4;
use crate::visible::is_visible;
use cuda_std::{thread, warp};

/// The numbering of a map, from the table.
///
/// # Safety
///
/// `grid` points to a [`MapGrid`] nobody writes during the launch.
#[inline(always)]
pub(crate) unsafe fn load_grid(grid: *const MapGrid) -> MapGrid {
    // SAFETY: a `MapGrid` is four words, aligned to 16 bytes.
    let [first_tile, tiles_across, reserved @ ..] = unsafe { memory::load_words(grid.cast()) };
    MapGrid { first_tile, tiles_across, reserved }
}

impl MapGrid {
    /// The number of the tile of a pixel, counted over the maps of a batch item.
    #[inline(always)]
    pub(crate) fn tile(&self, column: u32, line: u32) -> u32 {
        self.first_tile + line / TILE_SIDE * self.tiles_across + column / TILE_SIDE
    }
}

/// A mark: its vector among those of a tile, the word of 32 marks in it, the bit.
#[derive(Clone, Copy)]
pub(crate) struct Mark {
    pub(crate) vector: u32,
    word: u32,
    bit: u32,
}

impl Mark {
    #[inline(always)]
    pub(crate) fn new(number: u32) -> Self {
        let within = number % MARKS_PER_VECTOR;
        Self { vector: number / MARKS_PER_VECTOR, word: within / 32, bit: within % 32 }
    }

    /// The number of its share, by the words of its vector.
    #[inline(always)]
    pub(crate) fn share(&self, [first, low, middle, high]: [u32; 4]) -> u32 {
        let lower = (1 << self.bit) - 1;
        let (full, word) = match self.word {
            0 => (0, low),
            1 => (low.count_ones(), middle),
            _ => (low.count_ones() + middle.count_ones(), high),
        };
        first + full + (word & lower).count_ones()
    }
}

impl Marks {
    /// The first word of a vector of a tile's marks.
    #[inline(always)]
    pub(crate) fn vector(&self, item: usize, tile: u32, vector: u32) -> *mut u32 {
        let tile = item * self.tiles as usize + tile as usize;
        self.words.wrapping_add(4 * (tile * self.vectors_per_tile as usize + vector as usize))
    }
}

/// Marks the tiles that the samples of each visible pair touch.
///
/// Grid: any number of blocks along x, and along y for the batch items. Block: whole warps. Shared memory: a word for each
/// thread.
///
/// # Safety
///
/// The pointers of `args` are valid as it says, for the sizes it gives.
#[inline(always)]
pub(crate) unsafe fn mark(args: MarkArgs) {
    let sizes = &args.sizes;
    let pairs = sizes.anchors * sizes.pairs();
    let lane = thread::thread_idx_x() % WARP_LANES;
    let mut item = thread::block_idx_y();
    while item < sizes.batch {
        let locations = args.locations.wrapping_add(item as usize * pairs as usize * 2);
        let mut first = thread::index_1d() - lane;
        // The loop runs as often for every lane of a warp: its lanes meet inside.
        while first < pairs {
            let pair = first + lane;
            let seen = pair < pairs && is_visible(locations, pair, sizes.rule);
            // SAFETY: the whole warp is here; the pairs are the item's.
            unsafe { mark_pairs(&args, item as usize, locations, pair, seen) };
            first += thread::grid_dim_x() * thread::block_dim_x();
        }
        item += thread::grid_dim_y();
    }
}

/// Marks the tiles of those pairs of the lanes that are `seen`, on every level. One pair in six is, so the samples are
/// dealt out to the lanes anew.
///
/// # Safety
///
/// The whole warp makes the call. The pointers of `args` are valid as it says; a pair that is seen exists.
#[inline(always)]
unsafe fn mark_pairs(args: &MarkArgs, item: usize, locations: *const f32, pair: u32, seen: bool) {
    let levels = args.sizes.levels;
    let thread = thread::thread_idx_x();
    let lane = thread % WARP_LANES;
    let list = SharedWords::new(thread - lane);
    // SAFETY: the whole warp is here; each lane that sees a pair has a place of its own in the warp's list.
    unsafe {
        let ballot = warp::warp_vote_ballot(WARP, seen);
        if seen {
            list.set((ballot & ((1 << lane) - 1)).count_ones(), pair);
        }
        warp::sync_warp(WARP);
        let mut sample = lane;
        while sample < ballot.count_ones() * levels {
            let (place, level) = args.sizes.by_levels.divide(sample);
            mark_sample(args, item, locations, list.get(place), level);
            sample += WARP_LANES;
        }
        // The list may be written again after this.
        warp::sync_warp(WARP);
    }
}

/// Marks the tiles of the sample of a pair, counted over the batch item, on one level.
///
/// # Safety
///
/// The pointers of `args` are valid as it says; pair and level exist.
#[inline(always)]
unsafe fn mark_sample(args: &MarkArgs, item: usize, locations: *const f32, pair: u32, level: u32) {
    let sizes = &args.sizes;
    let (point, camera) = sizes.by_cameras.divide(pair);
    let mark = Mark::new(args.marks.by_anchors.quotient(sizes.part_of(point)));
    let map = (camera * sizes.levels + level) as usize;
    // SAFETY: the tables have a row per map, a tile the vector of every mark.
    unsafe {
        let [x, y] = memory::load_pair(locations.wrapping_add(2 * pair as usize));
        let corners = Corners::new(x, y, load_map(args.maps.add(map)), sizes.rule);
        let grid = load_grid(args.grids.add(map));
        each4(|corner| {
            let corner = corner as u32;
            let [column, line] = corners.pixel(corner);
            // A right corner in an odd column has its left one in the same tile, and so on.
            let has_left = corner & 1 != 0 && column % TILE_SIDE != 0;
            let has_upper = corner & 2 != 0 && line % TILE_SIDE != 0;
            if corners.has(corner) && !has_left && !has_upper {
                let vector = args.marks.vector(item, grid.tile(column, line), mark.vector);
                let word = vector.wrapping_add(1 + mark.word as usize);
                // Where many points meet in a tile, setting a bit takes longer than to see that it is set.
                let is_set = sizes.points >= MANY_POINTS
                    && memory::peek_bits(word) & 1 << mark.bit != 0;
                if !is_set {
                    memory::set_bits(word, 1 << mark.bit);
                }
            }
        });
    }
}
