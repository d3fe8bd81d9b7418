//! From the sizes of a problem to the shapes of its launches.

use kernels_gpu::args::{Divisor, Sizes, rule};
use kernels_gpu::{
    CHANNELS_PER_LANE, GATHER_WEIGHTS, Kernels, LIST_THREADS, MANY_POINTS, MAX_BITMAP_WORDS,
    MAX_GROUPS, MAX_TILES_AT_A_TIME, PLACE_SHARED_BYTES, TENSOR_CHANNELS, WARP_LANES, WindowSizes,
    backward_shared_bytes, forward_shared_bytes, gather_warp_words, sort_shared_bytes,
};

use crate::error::{Error, Result};
use crate::kernels::numbering::Numbering;
use crate::rule::BorderRule;
use crate::shape::AggregationShape;

/// Warps of a block with much to do.
const WARPS: u32 = 8;

/// Warps of a block with little to do, and of the kernels that take many registers, of which smaller blocks leave fewer
/// unused: backward and gather.
const SMALL_WARPS: u32 = 4;

/// Blocks that keep a GPU busy: where there are fewer anchors, those of many points are cut into parts.
const BUSY: usize = 2048;

/// Fewest points of a part, so that its work is large beside what each block has to do.
const POINTS_OF_PART: usize = 64;

/// Up to so many anchors of the batch they are few. The blocks of backward are the larger ones then: there are too few to
/// fill a GPU otherwise.
const FEW_ANCHORS: u32 = 2048;

/// Most blocks for each batch item of the kernels that go through all samples to make lists.
const MOST_LIST_BLOCKS: u32 = 4096;

/// Tiles of a warp that sorts lists, at most as many as it has lanes.
const TILES_TO_SORT: u32 = 8;

/// Blocks of the gather that are enough to fill a GPU some times over, so that those with more to do find their place.
const ENOUGH_BLOCKS: u32 = 4096;

/// Threads of a block of the kernels that have one thread per item.
const THREADS_PER_ITEM_BLOCK: u32 = 256;

/// Blocks a grid may have along y.
pub(super) const MAX_GRID_Y: u64 = 65_535;

/// Blocks a grid may have along x.
const MAX_GRID_X: u64 = 0x7fff_ffff;

/// Largest side of a map: every pixel position must be exact in fp32.
const MAX_SIDE: usize = 1 << 24;

/// The shape of one launch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Launch {
    /// Blocks along x and y.
    pub(crate) grid: (u32, u32),
    /// Threads of a block.
    pub(crate) threads: u32,
    /// Bytes of dynamic shared memory of a block.
    pub(crate) shared_bytes: u32,
}

/// How the forward kernels add samples up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Samples {
    /// On tensor cores, 16 bytes at a time; blocks have [`TENSOR_CHANNELS`] each.
    Tensor,
    /// 16 bytes at a time, each within one weight group.
    Wide,
    /// One element at a time.
    Any,
}

/// How the backward kernels take rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Rows {
    /// 16 bytes at a time; a group has a power of two of vectors, all in one tile, which neighbouring lanes add up.
    Wide,
    /// 16 bytes at a time; a group has any number of vectors, which are added up by way of shared memory.
    Uneven,
    /// One element at a time.
    Any,
}

/// A problem the kernels can take: its sizes in their words, and the table of its maps.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    /// The sizes as the kernels see them.
    pub(crate) sizes: Sizes,
    /// The `(N, L)` maps, as rows of four words, and behind them the rows of `numbering`.
    pub(crate) table: Vec<[u32; 4]>,
    /// How pixels and samples are numbered for the gather; `None` where the maps do not allow it.
    pub(crate) numbering: Option<Numbering>,
    /// Elements of the feature maps, `B * F * C`.
    pub(crate) features: usize,
    /// Elements of the sampling locations, `B * A * P * N * 2`.
    pub(crate) locations: usize,
    /// Elements of the weights, `B * A * P * N * L * G`.
    pub(crate) weights: usize,
    /// Elements of the output, `B * A * C`.
    pub(crate) outputs: usize,
}

impl Plan {
    /// Checks that the sizes are within the kernels' reach.
    ///
    /// Arrays may be as large as memory; what is held in 32 bits is what one batch item or one anchor has of
    /// something.
    pub(crate) fn new(shape: &AggregationShape, border: BorderRule) -> Result<Self> {
        let layout = shape.layout();
        let (cameras, levels) = (layout.cameras(), layout.levels());
        let weights_of_anchor = [shape.points(), cameras, levels, shape.groups()];
        within("weights per anchor", weights_of_anchor.iter().product(), u32::MAX as usize)?;
        within("points times cameras", shape.points() * cameras, u32::MAX as usize / 2)?;
        within("num_feat", layout.num_feat(), u32::MAX as usize)?;
        within("batch times anchors", shape.batch() * shape.anchors(), MAX_GRID_X as usize)?;
        within("embed_dims", shape.embed_dims(), MAX_GRID_Y as usize * 256)?;
        within("groups", shape.groups(), MAX_GROUPS as usize)?;
        let mut table = Vec::with_capacity(cameras * levels);
        for camera in 0..cameras {
            for level in 0..levels {
                let size = layout.shape(camera, level);
                within("height of a level", size.height, MAX_SIDE)?;
                within("width of a level", size.width, MAX_SIDE)?;
                let start = layout.start(camera, level);
                table.push([start as u32, size.height as u32, size.width as u32, 0]);
            }
        }
        let channels = shape.embed_dims() as u32;
        let parts = parts(shape);
        let sizes = Sizes {
            rows: layout.num_feat() as u64,
            batch: shape.batch() as u32,
            anchors: shape.anchors() as u32,
            points: shape.points() as u32,
            cameras: cameras as u32,
            levels: levels as u32,
            groups: shape.groups() as u32,
            channels,
            rule: match border {
                BorderRule::Operator => rule::OPERATOR,
                BorderRule::GridSample => rule::GRID_SAMPLE,
            },
            lanes: channels.div_ceil(CHANNELS_PER_LANE).next_power_of_two().min(WARP_LANES),
            shared_rows: u32::from(layout.has_shared_rows()),
            by_anchors: Divisor::new(shape.anchors() as u32),
            by_points: Divisor::new(shape.points() as u32),
            by_parts: Divisor::new(parts as u32),
            by_part: Divisor::new(shape.points().div_ceil(parts) as u32),
            by_cameras: Divisor::new(cameras as u32),
            by_levels: Divisor::new(levels as u32),
            by_groups: Divisor::new(shape.groups() as u32),
            by_group: Divisor::new(channels / shape.groups() as u32),
        };
        let numbering = Numbering::new(shape, SMALL_WARPS, sizes.lanes * CHANNELS_PER_LANE);
        if let Some(numbering) = &numbering {
            table.extend(&numbering.rows);
        }
        Ok(Self {
            sizes,
            table,
            numbering,
            features: shape.feature_maps_dim().iter().product(),
            locations: shape.sampling_locations_dim().iter().product(),
            weights: shape.weights_dim().iter().product(),
            outputs: shape.output_dim().iter().product(),
        })
    }

    /// Whether there is an anchor at all; with none there is no output to write.
    pub(crate) fn has_anchors(&self) -> bool {
        self.sizes.batch > 0 && self.sizes.anchors > 0
    }

    /// Whether there are few anchors.
    pub(super) fn has_few_anchors(&self) -> bool {
        self.sizes.batch * self.sizes.anchors <= FEW_ANCHORS
    }

    /// Whether lists should get free places on the GPU before backward's blocks: where these are few and short, the lists are what is
    /// waited for. Otherwise going first would take more from them than it saves.
    #[cfg(cuda_backend)]
    pub(crate) fn hurries_lists(&self) -> bool {
        self.has_few_anchors() && self.sizes.points < MANY_POINTS
    }

    /// Blocks of the kernels that have one for each part of each anchor.
    fn part_blocks(&self) -> u32 {
        self.sizes.batch * self.sizes.anchors * self.sizes.by_parts.value
    }

    /// Words of what the parts of anchors add to the output: none where each has one.
    pub(super) fn partials(&self) -> usize {
        match self.sizes.by_parts.value {
            1 => 0,
            parts => self.outputs * parts as usize,
        }
    }

    /// Channels of a tile.
    fn tile(&self) -> u32 {
        self.sizes.lanes * CHANNELS_PER_LANE
    }

    /// Whether every 16-byte vector of channels lies within one weight group.
    pub(crate) fn forward_is_wide<K: Kernels>(&self) -> bool {
        self.sizes.channels_per_group().is_multiple_of(K::PER_VECTOR)
    }

    /// How the forward kernels add samples up. Tensor cores take tiles that should be mostly full.
    pub(crate) fn forward_samples<K: Kernels>(&self, aligned: bool) -> Samples {
        let channels = self.sizes.channels;
        let missing = channels.next_multiple_of(TENSOR_CHANNELS) - channels;
        if !aligned || !self.forward_is_wide::<K>() {
            Samples::Any
        } else if K::FORWARD_TENSOR.is_some() && missing * 3 <= channels {
            Samples::Tensor
        } else {
            Samples::Wide
        }
    }

    /// How the backward kernels take rows: 16 bytes at a time, where groups allow it and the arrays are aligned.
    pub(crate) fn backward_rows<K: Kernels>(&self, aligned: bool) -> Rows {
        let size = self.sizes.channels_per_group();
        if !aligned || !self.forward_is_wide::<K>() {
            Rows::Any
        } else if (size / K::PER_VECTOR).is_power_of_two() && size <= self.tile() {
            Rows::Wide
        } else {
            Rows::Uneven
        }
    }

    /// What a block of the backward kernels holds at a time.
    pub(crate) fn backward_window(&self) -> WindowSizes {
        WindowSizes::new(self.sizes.groups)
    }

    /// The sizes as the forward kernels see them, for elements of so many to a vector.
    ///
    /// A block reads the same rows again and again, and is the faster the more of them stay in the first-level cache. So
    /// blocks with much to read, because elements are fp32 or points many, have half of the channels each.
    pub(crate) fn forward_sizes(&self, samples: Samples, per_vector: u32) -> Sizes {
        let is_large = per_vector <= 4 || self.sizes.points >= MANY_POINTS;
        let lanes = match samples {
            Samples::Tensor => TENSOR_CHANNELS / CHANNELS_PER_LANE,
            _ if is_large => self.sizes.lanes.min(WARP_LANES / 2),
            _ => self.sizes.lanes,
        };
        Sizes { lanes, ..self.sizes }
    }

    /// One block per part of an anchor and tile, for the [`forward_sizes`](Self::forward_sizes).
    pub(crate) fn forward_launch(&self, samples: Samples, sizes: &Sizes) -> Launch {
        let tiles = sizes.channels.div_ceil(sizes.lanes * CHANNELS_PER_LANE);
        let grid = (self.part_blocks(), tiles);
        let has_much_to_do = sizes.points >= MANY_POINTS && samples != Samples::Tensor;
        let warps = if has_much_to_do { WARPS } else { SMALL_WARPS };
        Self::block_launch(grid, warps, forward_shared_bytes(warps))
    }

    /// One block per anchor.
    pub(crate) fn add_parts_launch(&self) -> Launch {
        let grid = (self.sizes.batch * self.sizes.anchors, 1);
        Launch { grid, threads: THREADS_PER_ITEM_BLOCK, shared_bytes: 0 }
    }

    /// One block per part of an anchor.
    pub(crate) fn backward_launch(&self, rows: Rows) -> Launch {
        let blocks = self.part_blocks();
        let is_wide = rows == Rows::Wide;
        let warps = if is_wide && blocks <= FEW_ANCHORS { WARPS } else { SMALL_WARPS };
        let scratch_warps = if is_wide { 0 } else { warps };
        let bytes = backward_shared_bytes(self.backward_window(), self.sizes.groups, scratch_warps);
        Self::block_launch((blocks, 1), warps, bytes)
    }

    /// A warp for as many points as it has lanes and each camera, or for several such.
    pub(crate) fn list_launch(&self) -> Launch {
        let turns = self.points_of_item().div_ceil(WARP_LANES) * self.sizes.cameras;
        let blocks = turns.div_ceil(LIST_THREADS / WARP_LANES).min(MOST_LIST_BLOCKS);
        self.launch_for_items(blocks, LIST_THREADS, 0)
    }

    /// A thread for each tile.
    pub(crate) fn place_launch(&self, numbering: &Numbering) -> Launch {
        let blocks = numbering.tiles.div_ceil(LIST_THREADS);
        self.launch_for_items(blocks, LIST_THREADS, PLACE_SHARED_BYTES)
    }

    /// A warp for some tiles.
    pub(crate) fn sort_launch(&self, numbering: &Numbering) -> Launch {
        let blocks = numbering.tiles.div_ceil(TILES_TO_SORT * SMALL_WARPS);
        let bytes = sort_shared_bytes(SMALL_WARPS, self.bitmap_words());
        self.launch_for_items(blocks, SMALL_WARPS * WARP_LANES, bytes)
    }

    /// Words of the bitmap of each warp that sorts lists: one bit for each point of a batch item, if they are not too many.
    pub(crate) fn bitmap_words(&self) -> u32 {
        self.points_of_item().div_ceil(u32::BITS).min(MAX_BITMAP_WORDS)
    }

    /// Points of a batch item.
    fn points_of_item(&self) -> u32 {
        self.sizes.anchors * self.sizes.points
    }

    /// So many blocks for each batch item, or for some at a time, when there are very many.
    fn launch_for_items(&self, blocks: u32, threads: u32, shared_bytes: u32) -> Launch {
        let items = u64::from(self.sizes.batch).min(MAX_GRID_Y) as u32;
        Launch { grid: (blocks, items), threads, shared_bytes }
    }

    /// Weight groups that the channels of a tile belong to, at most.
    pub(crate) fn groups_of_tile(&self) -> u32 {
        let (tile, size) = (self.tile(), self.sizes.channels_per_group());
        let spread = if tile.is_multiple_of(size) {
            tile / size
        } else if size.is_multiple_of(tile) {
            1
        } else {
            (tile - 1) / size + 2
        };
        spread.min(self.sizes.groups)
    }

    /// Vectors that the weights of a sample are for the gather, where a tile has all channels; 0 where they have to be read one by
    /// one.
    pub(crate) fn weight_vectors<K: Kernels>(&self, aligned: bool) -> u32 {
        let groups = self.sizes.groups;
        // Of several tiles of channels, all but the first would begin within a sample's weights.
        let are_whole = groups.is_multiple_of(K::PER_VECTOR) && self.sizes.channels <= self.tile();
        if aligned && are_whole { groups / K::PER_VECTOR } else { 0 }
    }

    /// Words of shared memory of a warp of the gather.
    pub(crate) fn gather_warp_words(&self) -> u32 {
        gather_warp_words(self.sizes.lanes, self.groups_of_tile())
    }

    /// Samples that a warp of the gather takes at a time.
    pub(crate) fn gather_samples(&self) -> u32 {
        (GATHER_WEIGHTS / self.groups_of_tile()).clamp(1, WARP_LANES)
    }

    /// How many blocks of work, besides those whose warps share a tile, a block of the gather takes, as many as leave enough
    /// blocks to fill a GPU some times over, and how far apart they are: as many blocks there are for each batch item.
    pub(crate) fn gather_steps(&self, numbering: &Numbering) -> (u32, u32) {
        let others = numbering.blocks - numbering.shared_blocks;
        let at_a_time = (others * self.sizes.batch / ENOUGH_BLOCKS).clamp(1, MAX_TILES_AT_A_TIME);
        (at_a_time, others.div_ceil(at_a_time))
    }

    /// A block for each piece there may be, the blocks of work one by one where their warps share a tile, then several at a time.
    pub(crate) fn gather_launch(&self, numbering: &Numbering) -> Launch {
        let (_, step) = self.gather_steps(numbering);
        let blocks = numbering.pieces + (numbering.shared_blocks + step) * self.sizes.batch;
        let grid = (blocks, self.sizes.channels.div_ceil(self.tile()));
        Self::block_launch(grid, SMALL_WARPS, 4 * SMALL_WARPS * self.gather_warp_words())
    }

    fn block_launch(grid: (u32, u32), warps: u32, shared_bytes: u32) -> Launch {
        Launch { grid, threads: warps * WARP_LANES, shared_bytes }
    }

    /// One thread per sample and channel.
    pub(crate) fn naive_launch(&self) -> Launch {
        let samples = (self.weights / self.sizes.groups as usize) as u64;
        let items = samples * u64::from(self.sizes.channels);
        let blocks = items.div_ceil(u64::from(THREADS_PER_ITEM_BLOCK)).max(1);
        // The kernel numbers the blocks row after row, so any rectangle that holds them will do.
        let rows = blocks.div_ceil(MAX_GRID_X);
        let grid = (blocks.div_ceil(rows) as u32, rows.min(MAX_GRID_Y) as u32);
        Launch { grid, threads: THREADS_PER_ITEM_BLOCK, shared_bytes: 0 }
    }

    /// Enough threads to fill a GPU; each takes many of the `length` elements.
    pub(crate) fn element_launch(length: usize) -> Launch {
        let blocks = length.div_ceil(THREADS_PER_ITEM_BLOCK as usize).clamp(1, 4096);
        Launch { grid: (blocks as u32, 1), threads: THREADS_PER_ITEM_BLOCK, shared_bytes: 0 }
    }
}

/// Parts into which the points of each anchor are cut: as many as keep a GPU busy, if there are points enough for them.
fn parts(shape: &AggregationShape) -> usize {
    let anchors = (shape.batch() * shape.anchors()).max(1);
    let wanted = if anchors < BUSY { BUSY.div_ceil(anchors) } else { 1 };
    let most = (shape.points() / POINTS_OF_PART).max(1);
    let points = shape.points().div_ceil(wanted.min(most)).max(1);
    // None without a point, however they are rounded.
    shape.points().div_ceil(points).max(1)
}

/// An error unless `actual` is at most `limit`.
pub(super) fn within(argument: &'static str, actual: usize, limit: usize) -> Result<()> {
    if actual > limit {
        return Err(Error::KernelLimit { argument, limit, actual });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layout::{FeatureLayout, LevelShape};
    use kernels_gpu::args::F16;

    fn plan(anchors: usize, points: usize, channels: usize, groups: usize) -> Result<Plan> {
        let layout = FeatureLayout::uniform(2, &[LevelShape { height: 3, width: 4 }])?;
        let shape = AggregationShape::new(layout, 1, anchors, points, channels, groups)?;
        Plan::new(&shape, BorderRule::Operator)
    }

    #[test]
    fn a_worker_is_as_wide_as_the_channels_need() {
        let lanes = |channels| plan(1, 1, channels, 1).unwrap().sizes.lanes;
        assert_eq!([1, 8, 9, 24, 64, 129, 256, 1024].map(lanes), [1, 1, 2, 4, 8, 32, 32, 32]);
    }

    #[test]
    fn few_anchors_of_many_points_are_cut_into_parts_none_of_which_is_empty() {
        let parts = |anchors, points| {
            let Divisor { value, .. } = plan(anchors, points, 8, 1).unwrap().sizes.by_parts;
            let of_part = plan(anchors, points, 8, 1).unwrap().sizes.by_part.value;
            assert!((value - 1) * of_part < (points as u32).max(1), "{anchors} x {points}");
            (value, of_part)
        };
        assert_eq!(parts(1, 13), (1, 13));
        assert_eq!(parts(1, 127), (1, 127));
        assert_eq!(parts(1, 129), (2, 65));
        assert_eq!(parts(1, 100_000), (1539, 65));
        assert_eq!(parts(800, 300), (3, 100));
        assert_eq!(parts(2047, 1000), (2, 500));
        assert_eq!(parts(2048, 1000), (1, 1000));
        assert_eq!(parts(1, 0), (1, 1));
    }

    #[test]
    fn wide_kernels_need_groups_of_whole_vectors() {
        let common = plan(1, 1, 256, 8).unwrap();
        assert!(common.forward_is_wide::<f32>());
        assert_eq!(common.backward_rows::<F16>(true), Rows::Wide);
        assert_eq!(common.backward_rows::<F16>(false), Rows::Any);
        let threes = plan(1, 1, 24, 8).unwrap();
        assert!(!threes.forward_is_wide::<f32>());
        assert_eq!(threes.backward_rows::<f32>(true), Rows::Any);
        // Twelve channels are three fp32 vectors: wide in forward, no power of two in backward.
        let twelve = plan(1, 1, 24, 2).unwrap();
        assert!(twelve.forward_is_wide::<f32>());
        assert_eq!(twelve.backward_rows::<f32>(true), Rows::Uneven);
        let beyond_a_tile = plan(1, 1, 1024, 2).unwrap();
        assert_eq!(beyond_a_tile.backward_rows::<f32>(true), Rows::Uneven);
    }

    #[test]
    fn a_warp_of_the_gather_holds_the_weights_of_its_samples() {
        for (channels, groups, of_tile, samples) in [
            (256, 8, 8, 32),
            (256, 1, 1, 32),
            (256, 256, 256, 1),
            (1024, 8, 2, 32),
            (1024, 2, 1, 32),
            (1024, 1024, 256, 1),
            (768, 2, 2, 32),
            // Groups of 25 channels on tiles of 256.
            (400, 16, 12, 21),
            (24, 8, 8, 32),
        ] {
            let plan = plan(1, 1, channels, groups).unwrap();
            let sizes = (plan.groups_of_tile(), plan.gather_samples());
            assert_eq!(sizes, (of_tile, samples), "{channels} channels, {groups} groups");
        }
    }

    #[test]
    fn weights_are_read_as_vectors_where_all_are_wanted() {
        let vectors = |channels, groups| {
            let plan = plan(1, 1, channels, groups).unwrap();
            [plan.weight_vectors::<f32>(true), plan.weight_vectors::<F16>(true)]
        };
        assert_eq!(vectors(256, 8), [2, 1]);
        assert_eq!(vectors(256, 4), [1, 0]);
        assert_eq!(vectors(252, 9), [0, 0]);
        assert_eq!(vectors(96, 96), [24, 12]);
        // Two tiles of channels, of which both have channels of the eighth group.
        assert_eq!(vectors(264, 8), [0, 0]);
        assert_eq!(vectors(1024, 8), [0, 0]);
        assert_eq!(plan(1, 1, 256, 8).unwrap().weight_vectors::<f32>(false), 0);
    }

    #[test]
    fn tensor_cores_take_sixteen_bits_in_tiles_that_are_mostly_full() {
        let samples = |channels| plan(1, 1, channels, 8).unwrap().forward_samples::<F16>(true);
        assert_eq!([192, 256, 384, 1024].map(samples), [Samples::Tensor; 4]);
        assert_eq!([64, 128, 320].map(samples), [Samples::Wide; 3]);
        let common = plan(1, 1, 256, 8).unwrap();
        assert_eq!(common.forward_samples::<F16>(false), Samples::Any);
        assert_eq!(common.forward_samples::<f32>(true), Samples::Wide);
        assert_eq!(common.forward_sizes(Samples::Tensor, 8).lanes, 32);
        assert_eq!(common.forward_sizes(Samples::Wide, 8).lanes, 32);
        assert_eq!(common.forward_sizes(Samples::Wide, 4).lanes, 16);
    }

    #[test]
    fn sizes_beyond_the_kernels_are_refused_by_name() {
        let error = plan(1, 1 << 30, 64, 8).unwrap_err();
        let Error::KernelLimit { argument, actual, .. } = error else { panic!("{error}") };
        assert_eq!((argument, actual), ("weights per anchor", (1 << 30) * 2 * 8));
    }

    #[test]
    fn a_divisor_divides() {
        let largest = (1 << 31) - 1;
        for value in [1, 2, 3, 5, 6, 7, 13, 32, 255, 641, 1_220, 65_537, largest - 1, largest] {
            let divisor = Divisor::new(value);
            let near = [0, 1, value - 1, value, value + 1, 2 * (value / 2) + 1, 1_000_003];
            let multiples = [largest / value * value, (largest / value * value).saturating_sub(1)];
            for number in near.into_iter().chain(multiples).chain([largest]) {
                if number <= largest {
                    let expected = (number / value, number % value);
                    assert_eq!(divisor.divide(number), expected, "{number} by {value}");
                }
            }
        }
        assert_eq!(Divisor::new(0), Divisor::new(1));
    }

    #[test]
    fn naive_grids_hold_every_item() {
        let launch = plan(1000, 100, 256, 8).unwrap().naive_launch();
        let threads = u64::from(launch.grid.0) * u64::from(launch.grid.1) * 256;
        assert!(threads >= 1000 * 100 * 2 * 256);
    }
}
