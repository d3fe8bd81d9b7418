//! How the pixels of all maps are numbered for the gather of the feature gradient.

use kernels_gpu::args::TileOfWarp;
use kernels_gpu::{LONG_LIST, MAX_PIECES, TILE_SIDE};

use crate::shape::AggregationShape;

/// Points for each tile of a map from which on a block's warps share a tile. On driving data one point in six is seen, and a sample
/// touches two or three tiles.
const SHARED_FROM: usize = 256;

/// Tiles of a batch item, the blocks that work on them, and the memory of their lists.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Numbering {
    /// One `MapGrid` for each map, then one `TileOfWarp` for each warp of a batch item's blocks, as rows of four words.
    pub(crate) rows: Vec<[u32; 4]>,
    /// Blocks of work of a batch item.
    pub(crate) blocks: u32,
    /// The first of them, whose warps share a tile.
    pub(crate) shared_blocks: u32,
    /// Numbers of tiles of a batch item.
    pub(crate) tiles: u32,
    /// Most points that the lists of a batch item can have.
    pub(crate) capacity: u32,
    /// Most pieces that long lists are cut into: none where no list can be long.
    pub(crate) pieces: u32,
    /// Tiles of channels, and channels of each.
    tiles_of_channels: [usize; 2],
    /// Whether some feature rows belong to no map, so that no tile writes their gradient.
    pub(crate) has_gaps: bool,
    /// Batch items.
    batch: usize,
}

impl Numbering {
    /// Words of the lists' totals, as many as keep what is behind them aligned.
    pub(crate) fn total_words(&self) -> usize {
        self.batch.next_multiple_of(4)
    }

    /// Words of the header of the pieces, and of how many of them are done.
    fn piece_words(&self) -> usize {
        4 + self.pieces as usize * self.tiles_of_channels[0]
    }

    /// Words that are cleared before lists are made, at the beginning: the totals, the ranges of the lists, and of the pieces the
    /// header and how many are done.
    pub(crate) fn cleared_words(&self) -> usize {
        self.range_end() + self.piece_words().next_multiple_of(4)
    }

    /// The first word behind the ranges.
    pub(crate) fn range_end(&self) -> usize {
        self.total_words() + (2 * self.batch * self.tiles as usize).next_multiple_of(4)
    }

    /// The first word behind the table of the pieces.
    pub(crate) fn entry_end(&self) -> usize {
        self.cleared_words() + 4 * self.pieces as usize
    }

    /// The first word behind the sums of the pieces, four pixels each.
    pub(crate) fn sum_end(&self) -> usize {
        let [tiles, channels] = self.tiles_of_channels;
        self.entry_end()
            + self.pieces as usize * (TILE_SIDE * TILE_SIDE) as usize * tiles * channels
    }

    /// Words for all: those that are cleared, the pieces, and the lists.
    pub(crate) fn words(&self) -> usize {
        self.sum_end() + self.batch * self.capacity as usize
    }

    /// The numbering of a shape, for blocks of `warps` warps and tiles of so many channels; `None` where maps share pixels, so that
    /// no tile has a pixel for itself, or where a number would not fit 32 bits.
    pub(crate) fn new(shape: &AggregationShape, warps: u32, channels: u32) -> Option<Self> {
        let layout = shape.layout();
        let (cameras, levels) = (layout.cameras(), layout.levels());
        if layout.has_shared_rows() {
            return None;
        }
        let covered: usize = layout.sorted_extents().iter().map(|(start, end)| end - start).sum();
        let points = shape.anchors() * shape.points();
        fitting(points * cameras)?;

        let mut maps = Vec::new();
        let mut lists_of_point = 0;
        for map in 0..cameras * levels {
            let size = layout.shape(map / levels, map % levels);
            let sides = [size.height, size.width].map(|side| side.div_ceil(TILE_SIDE as usize));
            maps.push((sides[0] * sides[1], map, sides[1]));
            // A sample touches two neighbours along each side at most.
            lists_of_point += sides[0].min(2) * sides[1].min(2);
        }
        // Those of the smallest maps have the most samples. They come first, so that the last blocks to start are short
        // ones.
        maps.sort_unstable();
        let (mut rows, mut shared_blocks) = (vec![[0; 4]; maps.len()], 0);
        for (of_map, map, across) in maps {
            let tile_of = |tile: usize| {
                let [top, left] =
                    [tile / across, tile % across].map(|side| side as u32 * TILE_SIDE);
                [map as u32, top, left, 0]
            };
            // The tiles with the most samples are shared by the warps of a block.
            let is_shared = points >= SHARED_FROM * of_map;
            let step = if is_shared { warps } else { 1 };
            let first = rows.len() - cameras * levels;
            rows[map] = [fitting(first)?, fitting(across)?, step, 0];
            for tile in 0..of_map {
                rows.extend(vec![tile_of(tile); step as usize]);
            }
            let behind = rows.len() - cameras * levels;
            let behind = behind.next_multiple_of(warps as usize) - behind;
            rows.extend(vec![[TileOfWarp::NONE; 4]; behind]);
            shared_blocks += if is_shared { of_map } else { 0 };
        }
        let tiles = rows.len() - cameras * levels;
        let blocks = tiles / warps as usize;
        fitting(blocks * shape.batch())?;
        Some(Self {
            rows,
            blocks: fitting(blocks)?,
            shared_blocks: fitting(shared_blocks)?,
            tiles: fitting(tiles)?,
            capacity: fitting(points.checked_mul(lists_of_point)?)?,
            // A point is in a list once.
            pieces: if points > LONG_LIST as usize { MAX_PIECES } else { 0 },
            tiles_of_channels: [shape.embed_dims().div_ceil(channels as usize), channels as usize],
            has_gaps: covered < layout.num_feat(),
            batch: shape.batch(),
        })
    }
}

/// The number in 32 bits, with room for one more step.
fn fitting(number: usize) -> Option<u32> {
    u32::try_from(number).ok().filter(|&number| number < u32::MAX / 2)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layout::{FeatureLayout, LevelShape};
    use ndarray::array;

    fn numbering(layout: FeatureLayout, points: usize) -> Option<Numbering> {
        Numbering::new(&AggregationShape::new(layout, 2, 3, points, 8, 1).unwrap(), 8, 8)
    }

    #[test]
    fn tiles_are_counted_map_after_map_and_the_smallest_come_first() {
        let levels = [(5, 4), (1, 1)].map(|(height, width)| LevelShape { height, width });
        let numbering = numbering(FeatureLayout::uniform(2, &levels).unwrap(), 88).unwrap();
        // 5 by 4 pixels are 3 by 2 tiles.
        // 264 points are enough to share a tile, if it is the only one.
        let grids = [[16, 2, 1, 0], [0, 1, 8, 0], [24, 2, 1, 0], [8, 1, 8, 0]];
        assert_eq!(numbering.rows[..4], grids);
        assert_eq!(numbering.rows[4..12], [[1, 0, 0, 0]; 8]);
        assert_eq!(numbering.rows[12..20], [[3, 0, 0, 0]; 8]);
        assert_eq!(numbering.rows[20..23], [[0, 0, 0, 0], [0, 0, 2, 0], [0, 2, 0, 0]]);
        assert_eq!(
            numbering.rows[25..28],
            [[0, 4, 2, 0], [TileOfWarp::NONE; 4], [TileOfWarp::NONE; 4]]
        );
        assert_eq!(numbering.rows[33], [2, 4, 2, 0]);
        assert_eq!(numbering.rows.len(), 4 + 4 * 8);
        assert_eq!((numbering.tiles, numbering.has_gaps), (32, false));
        assert_eq!((numbering.blocks, numbering.shared_blocks), (4, 2));
        // On the larger maps a sample touches four tiles at most, on the others the only one.
        assert_eq!(numbering.capacity, 2 * (4 + 1) * 264);
        assert_eq!((numbering.range_end(), numbering.pieces), (4 + 2 * 2 * 32, 0));
        assert_eq!(numbering.cleared_words(), numbering.range_end() + 4);
        assert_eq!(numbering.words(), numbering.cleared_words() + 2 * 2640);
    }

    #[test]
    fn all_takes_at_most_fifteen_hundredths_of_a_gradient_of_16_bits_in_training() {
        let levels =
            [0, 1, 2, 3].map(|level| LevelShape { height: 64 >> level, width: 176 >> level });
        let layout = FeatureLayout::uniform(6, &levels).unwrap();
        let bytes_of_gradient = 2 * 6 * layout.num_feat() * 256;
        let shape = AggregationShape::new(layout, 6, 1220, 13, 256, 8).unwrap();
        let bytes = 4 * Numbering::new(&shape, 4, 256).unwrap().words();
        assert!(bytes * 100 <= bytes_of_gradient * 15, "{bytes} of {bytes_of_gradient}");
    }

    #[test]
    fn shared_pixels_have_no_owner_and_gaps_are_noticed() {
        let shapes = array![[[2, 2]], [[2, 2]]];
        let layout = |second, rows| {
            FeatureLayout::new(shapes.view(), array![[0], [second]].view(), rows).unwrap()
        };
        assert_eq!(numbering(layout(3, 8), 5), None);
        assert!(!numbering(layout(4, 8), 5).unwrap().has_gaps);
        assert!(numbering(layout(5, 9), 5).unwrap().has_gaps);
    }
}
