//! Which tile a warp has, and writing its pixels.

use crate::args::{GatherArgs, Level, TileOfWarp};
use crate::block::Place;
use crate::channels::{Channels, Lane, Tile as ChannelTile};
use crate::memory;
use crate::rows::load_map;
use crate::storage::Storage;
use cuda_std::thread;

/// A tile of 2 by 2 pixels.
pub(super) struct Tile {
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
    /// The tile of a warp in a block of work of any batch item; nothing behind the last one of a map.
    ///
    /// # Safety
    ///
    /// The pointers of `args` are valid as it says, and there is such a block.
    #[inline(always)]
    pub(super) unsafe fn new<T>(args: &GatherArgs<T>, place: Place, block: u32) -> Option<Self> {
        let at = block as usize * place.warps as usize + place.warp as usize;
        // SAFETY: the table has the tiles of each block, in four words aligned to 16 bytes.
        let [number, map_number, top, left] =
            unsafe { memory::load_words(args.tiles.wrapping_add(at).cast()) };
        if number == TileOfWarp::NONE {
            return None;
        }
        let shared = map_number & TileOfWarp::SHARED != 0;
        let map_number = map_number & !TileOfWarp::SHARED;
        // SAFETY: a map of the table.
        let map = unsafe { load_map(args.maps.add(map_number as usize)) };
        Some(Self { number, map, map_number, top, left, shared })
    }

    /// The tile's pixels.
    #[inline(always)]
    pub(super) fn pixels(&self) -> Pixels {
        let mut shape = self.map.width | Pixels::EXIST;
        if self.left + 1 < self.map.width {
            shape |= Pixels::RIGHT;
        }
        if self.top + 1 < self.map.height {
            shape |= Pixels::BELOW;
        }
        Pixels { row: self.map.start + self.top * self.map.width + self.left, shape }
    }
}

/// Where the pixels of a tile are: two words, that a lane can hand to another.
#[derive(Clone, Copy)]
pub(super) struct Pixels {
    /// The feature row of the top left one.
    pub(super) row: u32,
    /// The width of the map, which is at most 2^24, and which of the pixels are on it.
    pub(super) shape: u32,
}

impl Pixels {
    const WIDTH: u32 = (1 << 25) - 1;
    const EXIST: u32 = 1 << 25;
    const RIGHT: u32 = 1 << 26;
    const BELOW: u32 = 1 << 27;

    /// Of no tile.
    pub(super) const NONE: Self = Self { row: 0, shape: 0 };

    /// The feature row of a pixel: top left, top right, bottom left, bottom right; nothing for one that is not on the map.
    #[inline(always)]
    fn row_of(&self, pixel: u32) -> Option<u32> {
        let needed = Self::EXIST
            | if pixel & 1 != 0 { Self::RIGHT } else { 0 }
            | if pixel & 2 != 0 { Self::BELOW } else { 0 };
        let down = if pixel & 2 != 0 { self.shape & Self::WIDTH } else { 0 };
        (self.shape & needed == needed).then_some(self.row + (pixel & 1) + down)
    }
}

/// The gradient that the lanes of a worker write: a batch item's, and the channels of theirs.
pub(super) struct Target<T> {
    grad_features: *mut T,
    pub(super) channels: ChannelTile,
}

impl<T: Storage> Target<T> {
    /// That of a batch item, and the tile of channels of the calling block.
    #[inline(always)]
    pub(super) fn new(args: &GatherArgs<T>, place: Place, item: u32) -> Self {
        let elements = args.sizes.rows as usize * args.sizes.channels as usize;
        Self {
            grad_features: args.grad_features.wrapping_add(item as usize * elements),
            channels: place.tile(&args.sizes, thread::block_idx_y()),
        }
    }

    /// Writes the row of one of a tile's pixels, if it is on the map.
    ///
    /// # Safety
    ///
    /// The pixel is the calling worker's alone.
    #[inline(always)]
    pub(super) unsafe fn write<C: Channels<T>>(&self, pixels: Pixels, pixel: u32, sums: &Lane) {
        if let Some(row) = pixels.row_of(pixel) {
            let at = row as usize * self.channels.channels as usize;
            // SAFETY: a row of the gradient, on the map, and this worker's.
            unsafe { C::store(self.grad_features.wrapping_add(at), self.channels, sums) };
        }
    }
}
