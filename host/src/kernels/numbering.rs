//! How the pixels of all maps are numbered for the gather of the feature gradient.

use kernels_gpu::args::Divisor;
use kernels_gpu::{MAX_MARKS, POINTS_PER_UNIT, TILE_SIDE};

use crate::shape::AggregationShape;

/// When every point is seen, the samples per tile from which on a block's warps share a tile.
const SHARED_FROM: usize = 64;

/// Tiles of a batch item, the blocks that work on them, and the memory of their marks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Numbering {
    /// One `MapGrid` for each map, then one `Stretch` for each, as rows of four words: a stretch has two.
    pub(crate) rows: Vec<[u32; 4]>,
    /// Blocks of the gather.
    pub(crate) blocks: u32,
    /// Tiles of a batch item.
    pub(crate) tiles: u32,
    /// Words of marks of a tile.
    pub(crate) words_per_tile: u32,
    /// Binary logarithm of the number of neighbouring points of a batch item that share a mark.
    pub(crate) mark_shift: u32,
    /// Whether some feature rows belong to no map, so that no tile writes their gradient.
    pub(crate) has_gaps: bool,
    /// Words for the marks of the batch.
    pub(crate) words: usize,
}

impl Numbering {
    /// The numbering of a shape, for blocks of `warps` warps; `None` where maps share pixels, so that no tile has a
    /// pixel for itself, or where a number would not fit 32 bits.
    pub(crate) fn new(shape: &AggregationShape, warps: u32) -> Option<Self> {
        let layout = shape.layout();
        let (cameras, levels) = (layout.cameras(), layout.levels());
        if layout.has_shared_rows() {
            return None;
        }
        let covered: usize = layout.sorted_extents().iter().map(|(start, end)| end - start).sum();
        let points = shape.anchors() * shape.points();
        fitting(points * cameras)?;

        let (mut grids, mut maps) = (Vec::new(), Vec::new());
        let mut tiles = 0;
        for map in 0..cameras * levels {
            let size = layout.shape(map / levels, map % levels);
            let across = size.width.div_ceil(TILE_SIDE as usize);
            let of_map = size.height.div_ceil(TILE_SIDE as usize) * across;
            // The tiles with the most samples are shared by the warps of a block.
            let shared = points >= SHARED_FROM * of_map;
            let blocks = if shared { of_map } else { of_map.div_ceil(warps as usize) };
            grids.push([fitting(tiles)?, fitting(across)?, fitting(of_map)?, fitting(blocks)?]);
            tiles += of_map;
            maps.push((of_map, map, shared, blocks, across));
        }
        // And they come first, so that the last blocks to start are short ones.
        maps.sort_unstable();
        let (mut stretches, mut all_blocks) = (Vec::new(), 0);
        for (_, map, shared, blocks, across) in maps {
            let [blocks_by, across_by] = [blocks, across].map(|value| Divisor::new(value as u32));
            stretches.push([fitting(all_blocks)?, map as u32, u32::from(shared), 0]);
            stretches.push([blocks_by.magic, blocks_by.shift, across_by.magic, across_by.shift]);
            all_blocks += blocks * shape.batch();
        }
        let units = points.div_ceil(POINTS_PER_UNIT as usize);
        let units_per_mark = units.div_ceil(MAX_MARKS as usize).max(1).next_power_of_two();
        let words_per_tile = units.div_ceil(units_per_mark).div_ceil(32);
        fitting(units_per_mark * POINTS_PER_UNIT as usize * MAX_MARKS as usize)?;
        Some(Self {
            rows: [grids, stretches].concat(),
            blocks: fitting(all_blocks)?,
            tiles: fitting(tiles)?,
            words_per_tile: fitting(words_per_tile)?,
            mark_shift: (units_per_mark * POINTS_PER_UNIT as usize).trailing_zeros(),
            has_gaps: covered < layout.num_feat(),
            words: shape.batch() * tiles * words_per_tile,
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
        Numbering::new(&AggregationShape::new(layout, 2, 3, points, 8, 1).unwrap(), 8)
    }

    #[test]
    fn tiles_are_counted_map_after_map_and_the_smallest_come_first() {
        let levels = [(5, 4), (1, 1)].map(|(height, width)| LevelShape { height, width });
        let numbering = numbering(FeatureLayout::uniform(2, &levels).unwrap(), 22).unwrap();
        // 5 by 4 pixels are 3 by 2 tiles.
        // 66 points are enough to share a tile, if it is the only one.
        let grids = [[0, 2, 6, 1], [6, 1, 1, 1], [7, 2, 6, 1], [13, 1, 1, 1]];
        assert_eq!(numbering.rows[..4], grids);
        let stretches: Vec<_> = numbering.rows[4..].iter().step_by(2).copied().collect();
        assert_eq!(stretches, [[0, 1, 1, 0], [2, 3, 1, 0], [4, 0, 0, 0], [6, 2, 0, 0]]);
        assert_eq!((numbering.tiles, numbering.blocks, numbering.has_gaps), (14, 8, false));
        assert_eq!((numbering.words_per_tile, numbering.mark_shift), (1, 5));
        assert_eq!(numbering.words, 2 * 14);
    }

    #[test]
    fn many_points_share_marks() {
        let level = LevelShape { height: 2, width: 2 };
        let marks = |points| {
            let numbering =
                numbering(FeatureLayout::uniform(1, &[level]).unwrap(), points).unwrap();
            (numbering.words_per_tile, numbering.mark_shift)
        };
        assert_eq!(marks(0), (0, 5));
        assert_eq!(marks(1024 * 32 / 3), (32, 5));
        assert_eq!(marks(1024 * 32), (24, 7));
        assert_eq!(marks(1024 * 32 + 11), (25, 7));
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
