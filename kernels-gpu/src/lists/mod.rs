//! Lists of what touches each tile of 2 by 2 pixels: the points that have a sample there, in ascending order.
//!
//! Three passes make them, and a fourth sorts them:
//!
//! | kernel | what it does |
//! |---|---|
//! | [`count`] | counts the points of each tile |
//! | [`place`] | says where the list of each tile begins |
//! | [`fill`] | writes the points into the lists, in any order |
//! | [`sort`] | sorts each list |
//!
//! Long lists are cut into [`pieces`]: the gather has a block for each.
//!
//! Where a list lies in memory, and in which order it is filled, depends on how threads race. A sorted list does not, so what
//! is added up along it is the same in every run.

pub(crate) mod pieces;
mod place;
mod sort;

use crate::args::{ListArgs, Lists, MapGrid};
use crate::block::WARP;
use crate::limits::{TILE_SIDE, WARP_LANES};
use crate::memory;
use crate::rows::load_map;
use crate::sample::{Corners, may_count};
use crate::unroll::{array4, each4};
use cuda_std::{thread, warp};
pub(crate) use place::place;
pub(crate) use sort::sort;

impl Lists {
    /// The two words that say where the list of a tile begins and ends.
    #[inline(always)]
    pub(crate) fn range(&self, item: u32, tile: u32) -> *mut u32 {
        self.ranges.wrapping_add(2 * (item as usize * self.tiles as usize + tile as usize))
    }

    /// What is at this place of the lists of a batch item.
    #[inline(always)]
    pub(crate) fn point(&self, item: u32, at: u32) -> *mut u32 {
        self.points.wrapping_add(item as usize * self.capacity as usize + at as usize)
    }
}

/// The numbering of a map, from the table.
///
/// # Safety
///
/// `grid` points to a [`MapGrid`] nobody writes during the launch.
#[inline(always)]
unsafe fn load_grid(grid: *const MapGrid) -> MapGrid {
    // SAFETY: a `MapGrid` is four words, aligned to 16 bytes.
    let [first_tile, tiles_across, step, reserved] = unsafe { memory::load_words(grid.cast()) };
    MapGrid { first_tile, tiles_across, step, reserved }
}

impl MapGrid {
    /// The number of the tile of a pixel.
    #[inline(always)]
    fn tile(&self, column: u32, line: u32) -> u32 {
        let of_map = line / TILE_SIDE * self.tiles_across + column / TILE_SIDE;
        self.first_tile + of_map * self.step
    }
}

/// Tile of a corner that no tile has to be looked up for.
const ABSENT: u32 = u32::MAX;

/// The tiles that the lanes' samples touch: of a lane's sample at most four.
#[derive(Clone, Copy)]
struct Touched {
    item: u32,
    /// The sample's point, counted over the batch item.
    point: u32,
    tiles: [u32; 4],
}

/// Counts the points of each tile, in the second word of its range.
///
/// Grid: any number of blocks along x, and along y for the batch items. Block: whole warps.
///
/// # Safety
///
/// The pointers of `args` are valid as it says, for the sizes it gives; ranges are zeros.
#[inline(always)]
pub(crate) unsafe fn count(args: ListArgs) {
    // SAFETY: the caller's promise; a tile has a range.
    unsafe {
        each_touched(&args, |Touched { item, tiles, .. }| {
            each4(|corner| {
                reserve(&args, item, tiles[corner]);
            });
        });
    }
}

/// Writes the points of each tile into its list, and moves the end of its range behind each.
///
/// Grid and block: as for [`count`].
///
/// # Safety
///
/// As for [`count`], but for the ranges, of which [`place`] has made those of empty lists.
#[inline(always)]
pub(crate) unsafe fn fill(args: ListArgs) {
    // SAFETY: the caller's promise. There is room for as many points as were counted, and a place is one lane's.
    unsafe {
        each_touched(&args, |Touched { item, point, tiles }| {
            // All of them are on their way before any is waited for.
            let reserved = array4(|corner| reserve(&args, item, tiles[corner]));
            each4(|corner| {
                let at = reserved[corner].of_lane();
                if tiles[corner] != ABSENT {
                    memory::store_u32(args.lists.point(item, at), point);
                }
            });
        });
    }
}

/// Places in the list of a tile, for all lanes of a warp whose samples touch it.
#[derive(Clone, Copy)]
struct Reserved {
    /// The first place, as the first of those lanes knows it.
    begin: u32,
    /// A bit for each of those lanes.
    lanes: u32,
}

/// Moves the end of the range of each lane's tile behind as many places as there are lanes that have it: once for all of them.
///
/// # Safety
///
/// The whole warp makes the call. The pointers of `args` are valid as it says; tiles exist, or are [`ABSENT`].
#[inline(always)]
unsafe fn reserve(args: &ListArgs, item: u32, tile: u32) -> Reserved {
    // SAFETY: the whole warp is here; the tile has a range.
    unsafe {
        let lanes = warp::warp_match_any(WARP, tile);
        let mut begin = 0;
        if tile != ABSENT && lanes.trailing_zeros() == warp::lane_id() {
            let end = args.lists.range(item, tile).wrapping_add(1);
            begin = memory::fetch_add(end, lanes.count_ones());
        }
        Reserved { begin, lanes }
    }
}

impl Reserved {
    /// The place of the calling lane.
    ///
    /// # Safety
    ///
    /// The whole warp makes the call.
    #[inline(always)]
    unsafe fn of_lane(self) -> u32 {
        let first = self.lanes.trailing_zeros();
        // SAFETY: the whole warp is here.
        let (begin, _) = unsafe { warp::warp_shuffle_idx(WARP, self.begin, first, WARP_LANES) };
        begin + (self.lanes & ((1 << warp::lane_id()) - 1)).count_ones()
    }
}

/// Calls `visit` for the samples of 32 neighbouring points in one camera on one level, over and over until all samples have
/// been visited, but for those that nobody sees. The points of an anchor are neighbours and meet in the same tiles.
///
/// # Safety
///
/// The whole block makes the call; the pointers of `args` are valid as it says, for the sizes it gives.
#[inline(always)]
unsafe fn each_touched(args: &ListArgs, visit: impl Fn(Touched)) {
    let sizes = &args.sizes;
    let points = sizes.anchors * sizes.points;
    let (first, lane) = (thread::index_1d() / WARP_LANES, thread::thread_idx_x() % WARP_LANES);
    let warps = thread::grid_dim_x() * thread::block_dim_x() / WARP_LANES;
    let mut item = thread::block_idx_y();
    while item < sizes.batch {
        let pairs = points as usize * sizes.cameras as usize;
        let locations = args.locations.wrapping_add(item as usize * pairs * 2);
        let mut turn = first;
        // The loops run as often for every lane of a warp: its lanes meet inside.
        while turn < points.div_ceil(WARP_LANES) * sizes.cameras {
            let (run, camera) = sizes.by_cameras.divide(turn);
            let point = run * WARP_LANES + lane;
            let pair = point.min(points - 1) * sizes.cameras + camera;
            // SAFETY: the pair is one of the item's.
            let location = unsafe { memory::load_pair(locations.wrapping_add(2 * pair as usize)) };
            let seen = point < points && may_count(location[0], location[1], sizes.rule);
            // SAFETY: the whole warp is here, also below; the map exists.
            if unsafe { warp::warp_vote_any(WARP, seen) } {
                for level in 0..sizes.levels {
                    let map = camera * sizes.levels + level;
                    // SAFETY: as above.
                    let tiles = unsafe { tiles_of(args, map, location, seen) };
                    visit(Touched { item, point, tiles });
                }
            }
            turn += warps;
        }
        item += thread::grid_dim_y();
    }
}

/// The tiles that the sample at a location touches on a map, each once; none if nobody sees it.
///
/// # Safety
///
/// The pointers of `args` are valid as it says; the map exists.
#[inline(always)]
unsafe fn tiles_of(args: &ListArgs, map: u32, [x, y]: [f32; 2], seen: bool) -> [u32; 4] {
    // SAFETY: the tables have a row per map.
    let (corners, grid) = unsafe {
        let size = load_map(args.maps.add(map as usize));
        (Corners::new(x, y, size, args.sizes.rule), load_grid(args.grids.add(map as usize)))
    };
    array4(|corner| {
        let corner = corner as u32;
        let [column, line] = corners.pixel(corner);
        // A right corner in an odd column has its left one in the same tile, and so on.
        let has_left = corner & 1 != 0 && column % TILE_SIDE != 0;
        let has_upper = corner & 2 != 0 && line % TILE_SIDE != 0;
        let is_first = seen && corners.has(corner) && !has_left && !has_upper;
        if is_first { grid.tile(column, line) } else { ABSENT }
    })
}
