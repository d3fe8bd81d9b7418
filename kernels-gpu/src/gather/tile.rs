//! Which tile a warp has.

use crate::args::{GatherArgs, Level, TileOfWarp};
use crate::block::Place;
use crate::memory;
use crate::rows::load_map;

/// A tile of 2 by 2 pixels.
pub(super) struct Tile {
    pub(super) item: usize,
    /// Its number in the batch item.
    pub(super) number: u32,
    /// The map it is on, and that one's number.
    pub(super) map: Level,
    pub(super) map_number: u32,
    /// Line and column of the top left pixel.
    pub(super) top: u32,
    pub(super) left: u32,
    /// Whether the warps of the block have it together.
    pub(super) shared: bool,
}

impl Tile {
    /// The warp's tile of a block of work; nothing behind the last one.
    ///
    /// # Safety
    ///
    /// The pointers of `args` are valid as it says, and there is such a block.
    #[inline(always)]
    pub(super) unsafe fn new<T>(args: &GatherArgs<T>, place: Place, block: u32) -> Option<Self> {
        let (of_item, item) = args.by_batch.divide(block);
        let at = of_item as usize * place.warps as usize + place.warp as usize;
        // SAFETY: the table has the tiles of each block of an item, in four words aligned to 16 bytes.
        let [number, map_number, top, left] =
            unsafe { memory::load_words(args.tiles.wrapping_add(at).cast()) };
        if number == TileOfWarp::NONE {
            return None;
        }
        let shared = map_number & TileOfWarp::SHARED != 0;
        let map_number = map_number & !TileOfWarp::SHARED;
        // SAFETY: a map of the table.
        let map = unsafe { load_map(args.maps.add(map_number as usize)) };
        Some(Self { item: item as usize, number, map, map_number, top, left, shared })
    }
}
