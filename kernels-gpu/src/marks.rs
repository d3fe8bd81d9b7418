//! Which tiles of pixels the samples of which points touch: what backward leaves for the gather.
//!
//! Every 2 by 2 pixels have a row of bits, one for every [`unit`](Marks::points_per_mark) of neighbouring points of the
//! batch item. Backward sets the bits in any order; the gather reads them in theirs, so its sums are the same in every
//! run without anything being sorted.

use crate::args::{BackwardArgs, MapGrid, Marks};
use crate::limits::TILE_SIDE;
use crate::memory;
use crate::rows::Sample;

/// The numbering of a map, from the table.
///
/// # Safety
///
/// `grid` points to a [`MapGrid`] nobody writes during the launch.
#[inline(always)]
pub(crate) unsafe fn load_grid(grid: *const MapGrid) -> MapGrid {
    // SAFETY: a `MapGrid` is four words, aligned to 16 bytes.
    let [first_tile, tiles_across, tiles, blocks] = unsafe { memory::load_words(grid.cast()) };
    MapGrid { first_tile, tiles_across, tiles, blocks }
}

impl Marks {
    /// The first word of a tile's marks.
    #[inline(always)]
    pub(crate) fn of_tile(&self, item: usize, tile: u32) -> *mut u32 {
        let tile = item * self.tiles as usize + tile as usize;
        self.words.wrapping_add(tile * self.words_per_tile as usize)
    }
}

/// Marks the tile of a sample's corner, unless another corner of the sample is in the same tile and does.
///
/// # Safety
///
/// The corner is on its map, the pair the anchor's; `args` is valid as it says.
#[inline(always)]
pub(crate) unsafe fn set<T>(
    args: &BackwardArgs<T>,
    item: usize,
    anchor: u32,
    sample: &Sample,
    corner: u32,
) {
    let sizes = &args.sizes;
    let [column, row] = sample.corners.pixel(corner);
    // A right corner in an odd column has its left one in the same tile, and so on.
    let has_left = corner & 1 != 0 && column % TILE_SIDE != 0;
    let has_upper = corner & 2 != 0 && row % TILE_SIDE != 0;
    if has_left || has_upper {
        return;
    }
    // SAFETY: the table has a row per map, the marks a word for every unit of points.
    unsafe {
        let grid = load_grid(args.grids.add(sample.map as usize));
        let tile = grid.first_tile + row / TILE_SIDE * grid.tiles_across + column / TILE_SIDE;
        let point = anchor * sizes.points + sizes.by_cameras.quotient(sample.pair);
        let mark = point >> args.marks.mark_shift;
        let word = args.marks.of_tile(item, tile).wrapping_add((mark / 32) as usize);
        memory::set_bits(word, 1 << (mark % 32));
    }
}
