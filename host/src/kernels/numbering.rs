//! How the pixels and samples of all maps are numbered for the gather of the feature gradient.

use kernels_gpu::{MAX_BAND_CELLS, TILE_SIDE};

use crate::shape::AggregationShape;

/// Words of a sorted sample.
const SAMPLE_WORDS: usize = 4;

/// Most batch items: the sorting kernel has them along y.
const MAX_BATCH: usize = 65_535;

/// Tiles, cells and bands of a batch item, and the memory their samples take.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Numbering {
    /// One `MapGrid` for each map, then the `Band`s, as rows of four words.
    pub(crate) rows: Vec<[u32; 4]>,
    /// Bands of a batch item.
    pub(crate) bands: u32,
    /// Offsets of a batch item.
    pub(crate) cells: u32,
    /// Tiles of a batch item.
    pub(crate) tiles: u32,
    /// Whether some feature rows belong to no map, so that no tile writes their gradient.
    pub(crate) has_gaps: bool,
    /// Words for the samples of the batch, if all of them are seen.
    pub(crate) sample_words: usize,
    /// Words for the offsets of the batch.
    pub(crate) offset_words: usize,
    /// Words for the list of crowded tiles.
    pub(crate) crowded_words: usize,
}

impl Numbering {
    /// The numbering of a shape; `None` where maps share pixels, so that no tile has a pixel for itself, or where a
    /// number would not fit 32 bits.
    pub(crate) fn new(shape: &AggregationShape) -> Option<Self> {
        let layout = shape.layout();
        let (cameras, levels) = (layout.cameras(), layout.levels());
        let maps = || (0..cameras).flat_map(|camera| (0..levels).map(move |level| (camera, level)));
        if layout.has_shared_rows() {
            return None;
        }
        let covered: usize = layout.sorted_extents().iter().map(|(start, end)| end - start).sum();

        let (mut grids, mut bands) = (Vec::new(), Vec::new());
        let (mut cells, mut tiles) = (0, 0);
        for (map, (camera, level)) in (0..).zip(maps()) {
            let size = layout.shape(camera, level);
            let tiles_across = size.width.div_ceil(TILE_SIDE as usize);
            grids.push([fitting(tiles)?, fitting(tiles_across)?, fitting(cells)?, 0]);
            tiles += size.height.div_ceil(TILE_SIDE as usize) * tiles_across;
            let of_map = (size.height + 1) * (size.width + 1);
            cells += of_map + 1;
            for first in (0..of_map).step_by(MAX_BAND_CELLS as usize) {
                let count = (of_map - first).min(MAX_BAND_CELLS as usize);
                let last = u32::from(first + count == of_map);
                bands.push([map, fitting(first)?, count as u32, last]);
            }
        }
        let samples_of_item = cameras * levels * shape.anchors() * shape.points();
        fitting(samples_of_item)?;
        fitting(shape.batch() * tiles)?;
        if shape.batch() > MAX_BATCH {
            return None;
        }
        Some(Self {
            bands: fitting(bands.len())?,
            cells: fitting(cells)?,
            tiles: fitting(tiles)?,
            has_gaps: covered < layout.num_feat(),
            sample_words: SAMPLE_WORDS * shape.batch() * samples_of_item,
            offset_words: shape.batch() * cells,
            crowded_words: 1 + shape.batch() * tiles,
            rows: [grids, bands].concat(),
        })
    }

    /// Words of workspace, the three parts one behind the other.
    pub(crate) fn words(&self) -> usize {
        self.sample_words + self.offset_words + self.crowded_words
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

    fn numbering(layout: FeatureLayout) -> Option<Numbering> {
        Numbering::new(&AggregationShape::new(layout, 2, 3, 5, 8, 1).unwrap())
    }

    #[test]
    fn tiles_and_cells_are_counted_map_after_map() {
        let levels = [(5, 4), (1, 1)].map(|(height, width)| LevelShape { height, width });
        let numbering = numbering(FeatureLayout::uniform(2, &levels).unwrap()).unwrap();
        // 5 by 4 pixels are 3 by 2 tiles and 6 by 5 cells; a pixel is a tile and 2 by 2 cells.
        let grids = [[0, 2, 0, 0], [6, 1, 31, 0], [7, 2, 36, 0], [13, 1, 67, 0]];
        let bands = [[0, 0, 30, 1], [1, 0, 4, 1], [2, 0, 30, 1], [3, 0, 4, 1]];
        assert_eq!(numbering.rows, [grids, bands].concat());
        assert_eq!((numbering.tiles, numbering.cells, numbering.has_gaps), (14, 72, false));
        assert_eq!(numbering.sample_words, 4 * 2 * (2 * 2) * (3 * 5));
    }

    #[test]
    fn large_maps_take_several_bands() {
        let level = LevelShape { height: 127, width: 127 };
        let numbering = numbering(FeatureLayout::uniform(1, &[level]).unwrap()).unwrap();
        assert_eq!(numbering.rows[1..], [[0, 0, 8192, 0], [0, 8192, 8192, 1]]);
    }

    #[test]
    fn shared_pixels_have_no_owner_and_gaps_are_noticed() {
        let shapes = array![[[2, 2]], [[2, 2]]];
        let layout = |second, rows| {
            FeatureLayout::new(shapes.view(), array![[0], [second]].view(), rows).unwrap()
        };
        assert_eq!(numbering(layout(3, 8)), None);
        assert!(!numbering(layout(4, 8)).unwrap().has_gaps);
        assert!(numbering(layout(5, 9)).unwrap().has_gaps);
    }
}
