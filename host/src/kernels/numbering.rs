//! How the pixels of all maps are numbered for the gather of the feature gradient.

use kernels_gpu::args::TileOfWarp;
use kernels_gpu::{MARKS_PER_VECTOR, TILE_SIDE};

use crate::shape::AggregationShape;

/// When every point is seen, the samples per tile from which on a block's warps share a tile.
const SHARED_FROM: usize = 64;

/// Up to so many anchors of a batch item, or parts of them, each has a mark of its own, and with it shares.
pub(super) const MOST_ANCHORS: usize = 4096;

/// Marks of a tile when anchors share them.
const MARKS: usize = 1024;

/// Most shares: a limit of their numbers.
const MOST_SHARES: usize = 1 << 28;

/// Shares to have memory for in any case, if there can be so many.
const FEW_SHARES: usize = 4096;

/// Tiles of a batch item, the blocks that work on them, and the memory of their marks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Numbering {
    /// One `MapGrid` for each map, then one `TileOfWarp` for each warp of a batch item's blocks, as rows of four words.
    pub(crate) rows: Vec<[u32; 4]>,
    /// Blocks of work of a batch item.
    pub(crate) blocks: u32,
    /// The first of them, whose warps share a tile.
    pub(crate) shared_blocks: u32,
    /// Tiles of a batch item.
    pub(crate) tiles: u32,
    /// Vectors of marks of a tile.
    pub(crate) vectors_per_tile: u32,
    /// Neighbouring anchors of a batch item, or parts of them, that share a mark.
    pub(crate) anchors_per_mark: u32,
    /// Whether some feature rows belong to no map, so that no tile writes their gradient.
    pub(crate) has_gaps: bool,
    /// Tiles of the batch.
    pub(crate) tiles_of_batch: usize,
    /// Shares to have memory for; 0 where anchors share marks.
    pub(crate) shares: u32,
}

impl Numbering {
    /// Words in front of the marks, of which the first is the number of shares.
    pub(crate) const TOTAL_WORDS: usize = 4;

    /// Words of the marks of the batch.
    pub(crate) fn mark_words(&self) -> usize {
        4 * self.tiles_of_batch * self.vectors_per_tile as usize
    }

    /// Words of what the shares are, for so many groups.
    pub(crate) fn share_words(&self, groups: u32) -> usize {
        4 * self.shares as usize * groups as usize
    }

    /// Words of the ranges of the tiles' shares.
    pub(crate) fn range_words(&self) -> usize {
        if self.shares > 0 { 2 * self.tiles_of_batch } else { 0 }
    }

    /// Words for all: marks, shares, their ranges, and their owners.
    pub(crate) fn words(&self, groups: u32) -> usize {
        let of_shares = self.share_words(groups) + self.range_words() + self.shares as usize;
        Self::TOTAL_WORDS + self.mark_words() + of_shares
    }

    /// The numbering of a shape whose anchors have so many parts, for blocks of `warps` warps; `None` where maps share pixels, so that no tile has a
    /// pixel for itself, or where a number would not fit 32 bits.
    pub(crate) fn new(shape: &AggregationShape, parts: usize, warps: u32) -> Option<Self> {
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
            let sides = [size.height, size.width].map(|side| side.div_ceil(TILE_SIDE as usize));
            grids.push([fitting(tiles)?, fitting(sides[1])?, 0, 0]);
            maps.push((sides[0] * sides[1], map, sides[1], tiles));
            tiles += sides[0] * sides[1];
        }
        // Those of the smallest maps have the most samples. They come first, so that the last blocks to start are short
        // ones.
        maps.sort_unstable();
        let (mut rows, mut shared_blocks) = (grids, 0);
        for (of_map, map, across, first) in maps {
            let tile_of = |tile: usize, shared| {
                let [top, left] =
                    [tile / across, tile % across].map(|side| side as u32 * TILE_SIDE);
                [(first + tile) as u32, map as u32 | shared, top, left]
            };
            // The tiles with the most samples are shared by the warps of a block.
            if points >= SHARED_FROM * of_map {
                shared_blocks += of_map;
                for tile in 0..of_map {
                    rows.extend(vec![tile_of(tile, TileOfWarp::SHARED); warps as usize]);
                }
            } else {
                rows.extend((0..of_map).map(|tile| tile_of(tile, 0)));
                let behind = of_map.next_multiple_of(warps as usize) - of_map;
                rows.extend(vec![[TileOfWarp::NONE; 4]; behind]);
            }
        }
        let blocks = (rows.len() - cameras * levels) / warps as usize;
        fitting(blocks * shape.batch())?;
        let anchors = shape.anchors() * parts;
        let anchors_per_mark = if anchors <= MOST_ANCHORS { 1 } else { anchors.div_ceil(MARKS) };
        let marks = anchors.div_ceil(anchors_per_mark);
        let vectors_per_tile = marks.div_ceil(MARKS_PER_VECTOR as usize);
        Some(Self {
            rows,
            blocks: fitting(blocks)?,
            shared_blocks: fitting(shared_blocks)?,
            tiles: fitting(tiles)?,
            vectors_per_tile: fitting(vectors_per_tile)?,
            anchors_per_mark: fitting(anchors_per_mark)?,
            has_gaps: covered < layout.num_feat(),
            tiles_of_batch: shape.batch() * tiles,
            shares: if anchors_per_mark == 1 { most_shares(shape) } else { 0 },
        })
    }
}

/// How many shares to have memory for. On driving data one camera of six sees a point, two of twelve: 100 samples make 67
/// shares on the maps of images of 256 x 704, and 106 on maps twice as fine. With a single camera every sample may make one.
/// With many groups a share is large: all together take no more memory than the gradient they are for would in fp32.
fn most_shares(shape: &AggregationShape) -> u32 {
    let layout = shape.layout();
    let gradient = shape.batch() * layout.num_feat() * shape.embed_dims();
    let in_memory = gradient / (4 * shape.groups());
    let seen_by_one = shape.batch() * shape.anchors() * shape.points() * layout.levels();
    let samples = seen_by_one as u128 * layout.cameras() as u128;
    // Of a thousand samples, were all points seen by all cameras.
    let shares = |share: u128| (samples * share / 1000).min(MOST_SHARES as u128) as usize;
    // Enough for fine maps, where that is little beside their gradient.
    let expected = shares(170).max(shares(220).min(in_memory * 9 / 100));
    seen_by_one.max(expected).min(in_memory.clamp(FEW_SHARES, MOST_SHARES)) as u32
}

/// The number in 32 bits, with room for one more step.
fn fitting(number: usize) -> Option<u32> {
    u32::try_from(number).ok().filter(|&number| number < u32::MAX / 2)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layout::{FeatureLayout, LevelShape};
    use crate::rule::BorderRule;
    use crate::sample::corners;
    use camera_rig::Scene;
    use ndarray::array;
    use rand::SeedableRng;
    use rand_chacha::ChaCha8Rng;
    use std::collections::HashSet;

    fn numbering(layout: FeatureLayout, points: usize) -> Option<Numbering> {
        Numbering::new(&AggregationShape::new(layout, 2, 3, points, 8, 1).unwrap(), 1, 8)
    }

    #[test]
    fn tiles_are_counted_map_after_map_and_the_smallest_come_first() {
        let levels = [(5, 4), (1, 1)].map(|(height, width)| LevelShape { height, width });
        let numbering = numbering(FeatureLayout::uniform(2, &levels).unwrap(), 22).unwrap();
        // 5 by 4 pixels are 3 by 2 tiles.
        // 66 points are enough to share a tile, if it is the only one.
        let grids = [[0, 2, 0, 0], [6, 1, 0, 0], [7, 2, 0, 0], [13, 1, 0, 0]];
        assert_eq!(numbering.rows[..4], grids);
        let shared = |number, map: u32| [number, map | TileOfWarp::SHARED, 0, 0];
        assert_eq!(numbering.rows[4..12], [shared(6, 1); 8]);
        assert_eq!(numbering.rows[12..20], [shared(13, 3); 8]);
        assert_eq!(numbering.rows[20..23], [[0, 0, 0, 0], [1, 0, 0, 2], [2, 0, 2, 0]]);
        assert_eq!(
            numbering.rows[25..28],
            [[5, 0, 4, 2], [TileOfWarp::NONE; 4], [TileOfWarp::NONE; 4]]
        );
        assert_eq!(numbering.rows[33], [12, 2, 4, 2]);
        assert_eq!(numbering.rows.len(), 4 + 4 * 8);
        assert_eq!((numbering.tiles, numbering.has_gaps), (14, false));
        assert_eq!((numbering.blocks, numbering.shared_blocks), (4, 2));
        assert_eq!((numbering.vectors_per_tile, numbering.anchors_per_mark), (1, 1));
        assert_eq!(numbering.tiles_of_batch, 2 * 14);
    }

    #[test]
    fn many_anchors_share_marks_and_have_no_shares() {
        let levels = [(4, 4), (2, 2)].map(|(height, width)| LevelShape { height, width });
        let marks = |anchors, cameras| {
            let layout = FeatureLayout::uniform(cameras, &levels).unwrap();
            let shape = AggregationShape::new(layout, 2, anchors, 3, 8, 1).unwrap();
            let numbering = Numbering::new(&shape, 1, 8).unwrap();
            (numbering.vectors_per_tile, numbering.anchors_per_mark, numbering.shares)
        };
        assert_eq!(marks(0, 1), (0, 1, 0));
        assert_eq!(marks(97, 1), (2, 1, 2 * 97 * 3 * 2));
        assert_eq!(marks(2000, 12), (21, 1, 4096));
        assert_eq!(marks(4097, 1), (9, 5, 0));
    }

    #[test]
    fn memory_for_shares_follows_the_samples_and_ends_with_the_gradient() {
        let levels = [(64, 176), (32, 88)].map(|(height, width)| LevelShape { height, width });
        let shares = |cameras, groups| {
            let layout = FeatureLayout::uniform(cameras, &levels).unwrap();
            let shape = AggregationShape::new(layout, 2, 900, 13, 256, groups).unwrap();
            Numbering::new(&shape, 1, 4).unwrap().shares as usize
        };
        let (seen_by_one, gradient) = (2 * 900 * 13 * 2, 2 * (64 * 176 + 32 * 88) * 256);
        assert_eq!(shares(1, 8), seen_by_one);
        assert_eq!(shares(6, 8), seen_by_one * 6 * 220 / 1000);
        // As many would take more than 9 % of the gradient.
        assert_eq!(shares(6, 16), 6 * gradient / (4 * 16) * 9 / 100);
        assert_eq!(shares(6, 32), seen_by_one * 6 * 170 / 1000);
        assert_eq!(shares(1, 256), gradient / (4 * 256));
    }

    /// Of a batch item of random boxes in a ring of cameras.
    struct OnRig {
        samples: usize,
        shares: usize,
        /// The part of the tiles that have shares.
        touched: f64,
        /// Shares that there is memory for.
        room: usize,
    }

    impl OnRig {
        /// `height` and `width` are those of the finest of four levels; an anchor has as many parts.
        fn new(
            cameras: usize,
            [height, width]: [usize; 2],
            anchors: usize,
            points: usize,
            parts: usize,
        ) -> Self {
            let levels = [0, 1, 2, 3]
                .map(|level| LevelShape { height: height >> level, width: width >> level });
            let layout = FeatureLayout::uniform(cameras, &levels).unwrap();
            let shape = AggregationShape::new(layout, 1, anchors, points, 256, 8).unwrap();
            let numbering = Numbering::new(&shape, parts, 4).unwrap();
            let scene = Scene::random(cameras, anchors, points, &mut ChaCha8Rng::seed_from_u64(1));
            let (mut samples, mut touched) = (0, HashSet::new());
            for (anchor, points) in scene.key_points.iter().enumerate() {
                let of_part = points.len().div_ceil(parts);
                for (map, (number, &point)) in (0..cameras * 4)
                    .flat_map(|map| points.iter().enumerate().map(move |point| (map, point)))
                {
                    let (seen, size) = (scene.cameras[map / 4].project(point), levels[map % 4]);
                    let corners = corners::<f64, f64>(BorderRule::Operator, size, [seen.x, seen.y]);
                    samples += usize::from(seen.is_inside());
                    touched.extend(corners.iter().flatten().map(|corner| {
                        let place = [corner.pixel / size.width, corner.pixel % size.width];
                        (
                            map,
                            place.map(|side| side / TILE_SIDE as usize),
                            [anchor, number / of_part],
                        )
                    }));
                }
            }
            let shares = touched.len();
            let tiles: HashSet<_> = touched.iter().map(|&(map, tile, _)| (map, tile)).collect();
            let touched = tiles.len() as f64 / f64::from(numbering.tiles);
            Self { samples, shares, touched, room: numbering.shares as usize }
        }
    }

    #[test]
    fn there_is_memory_for_the_shares_of_driving_data() {
        // Sparse4D v3 in training, SparseDrive's map head, Sparse4D with images of 512 x 1408, and twelve cameras.
        let denoising = OnRig::new(6, [64, 176], 1220, 13, 1);
        let lines = OnRig::new(6, [64, 176], 100, 300, 3);
        let large = OnRig::new(6, [128, 352], 900, 13, 1);
        let many_cameras = OnRig::new(12, [128, 352], 2180, 13, 1);
        for OnRig { shares, room, .. } in [&denoising, &lines, &large, &many_cameras] {
            assert!(shares * 105 / 100 <= *room, "{shares} of {room}");
        }
        let per_sample = |of: &OnRig| of.shares as f64 / of.samples as f64;
        assert!((0.62..0.72).contains(&per_sample(&denoising)), "{}", per_sample(&denoising));
        assert!((1.0..1.1).contains(&per_sample(&many_cameras)), "{}", per_sample(&many_cameras));
        assert!((0.28..0.38).contains(&denoising.touched), "{}", denoising.touched);
    }

    #[test]
    fn all_takes_at_most_fifteen_hundredths_of_the_gradient_in_training() {
        let levels =
            [0, 1, 2, 3].map(|level| LevelShape { height: 64 >> level, width: 176 >> level });
        let layout = FeatureLayout::uniform(6, &levels).unwrap();
        let gradient = 6 * layout.num_feat() * 256;
        let shape = AggregationShape::new(layout, 6, 1220, 13, 256, 8).unwrap();
        let words = Numbering::new(&shape, 1, 4).unwrap().words(8);
        assert!(words * 100 <= gradient * 15, "{words} of {gradient}");
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
