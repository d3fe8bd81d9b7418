//! From a configuration and the sizes of a call to launch shapes and memory.

use kernels_gpu::args::Divisor;
use kernels_gpu::block_args::{BlockSizes, Generator, generator};
use kernels_gpu::{
    BlockKernels, Kernels, Tiles, WARP_LANES, camera_bytes, weights_bytes, weights_gradient_bytes,
};

use crate::algorithm::Algorithm;
use crate::block::{BlockConfig, KeyPointsConfig, ResidualMode};
use crate::error::Result;
use crate::kernels::block::memory::{Place, Places};
use crate::kernels::block::tensors::Tensors;
use crate::kernels::plan::{Launch, MAX_GRID_Y, Plan, within};
use crate::kernels::{backward_scratch, forward_scratch};
use crate::shape::AggregationShape;

/// Parts that the rows are dealt out in for the gradients of the linear layers' parameters: few enough that adding them
/// up is cheap, enough to fill a GPU.
const MAX_PARTS: usize = 16;

/// Rows that make a part worth a block.
const MIN_PART_ROWS: usize = 256;

/// Blocks that fill a large GPU.
const BLOCKS: usize = 256;

/// Parts of the points for the gradient of the projection matrices.
const PROJECTION_PARTS: usize = 32;

/// Bytes of shared memory that a kernel may have without asking for more.
const MAX_SHARED_BYTES: usize = 48 << 10;

/// Threads of a block of the kernels that have one thread or one warp per item.
const ITEM_THREADS: u32 = 128;

/// Most warps of a block that sums, and parts of a sum that make a warp worth while: as many as are under way together.
const SUM_WARPS: u32 = 8;
const PARTS_OF_WARP: u32 = 8;

/// Most warps of a block of the camera encoder: cameras are few, so each gets all the threads there can be.
const CAMERA_WARPS: u32 = 32;

/// Channels of the camera encoder for which a block has a warp.
const CHANNELS_OF_WARP: u32 = 8;

/// Most warps of a block of the softmax's backward kernel: so many that several blocks fit a multiprocessor.
const GRADIENT_WARPS: u32 = 8;

/// Most warps of a block that makes weights, each for an anchor at a time.
const WEIGHT_WARPS: u32 = 4;

/// Blocks that make weights, as far as each has an anchor for every warp: few, for each makes a table of its own.
const WEIGHT_BLOCKS: usize = 1024;

/// How linear layers are multiplied out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Products {
    /// In fp32.
    Exact,
    /// On tensor cores.
    Tensor,
}

/// How anchors are dealt out to blocks that make weights.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Weigher {
    pub(crate) warps: u32,
    /// Anchors of a block.
    pub(crate) run: u32,
    /// Whether it has a table of the cameras' logits.
    pub(crate) has_table: bool,
}

impl Weigher {
    /// For so many anchors of all batch items, if a table of so many logits is of use.
    fn new(rows: usize, groups: usize, table: Option<usize>) -> Result<Self> {
        let bytes = |warps: u32, logits: usize| weights_bytes(warps, groups as u32, logits as u32);
        let fits = |warps: &u32| bytes(*warps, 0) as usize <= MAX_SHARED_BYTES;
        within("num_groups", bytes(1, 0) as usize, MAX_SHARED_BYTES)?;
        let warps = (1..=WEIGHT_WARPS).rev().find(fits).unwrap_or(1);
        let run = rows.div_ceil(WEIGHT_BLOCKS).next_multiple_of(warps as usize) as u32;
        let room = |logits: usize| {
            logits <= MAX_SHARED_BYTES && bytes(warps, logits) as usize <= MAX_SHARED_BYTES
        };
        Ok(Self { warps, run: run.max(warps), has_table: table.is_some_and(room) })
    }
}

/// A call of the block that the kernels can take.
#[derive(Clone, Debug)]
pub(crate) struct BlockPlan<K> {
    /// The operator in the middle.
    pub(crate) operator: Plan,
    pub(crate) algorithm: Algorithm,
    pub(crate) products: Products,
    pub(crate) sizes: BlockSizes,
    /// How key points are made; its table is not set.
    pub(crate) generator: Generator,
    pub(crate) tensors: Tensors,
    /// Whether instance feature and output stand side by side.
    pub(crate) concatenates: bool,
    pub(crate) filters_outliers: bool,
    /// Anchors of all batch items.
    pub(crate) rows: usize,
    /// Cameras of all batch items with an embedding: 0 without one.
    pub(crate) camera_rows: usize,
    /// Logits of an anchor: for one camera if they have embeddings, else for all.
    pub(crate) logits: usize,
    /// Numbers of an anchor's learned offsets.
    pub(crate) offsets: usize,
    /// Anchors of a run, and runs of a batch item, in the backward kernel of the softmax.
    pub(crate) run: u32,
    pub(crate) runs: u32,
    pub(crate) weights: Weigher,
    /// Parts of the rows and rows of a part, in the gradients of the linear layers' parameters.
    pub(crate) parts: usize,
    pub(crate) part_rows: usize,
    pub(crate) projection_parts: u32,
    pub(crate) saved: Saved<K>,
    pub(crate) scratch: Scratch<K>,
    /// Bytes of workspace of the forward pass alone.
    pub(crate) forward_bytes: usize,
}

/// What the forward pass leaves for the backward pass.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Saved<K> {
    /// `(R, offsets)`
    pub(crate) offsets: Place<f32>,
    /// `(R, P, 3)`
    pub(crate) key_points: Place<f32>,
    /// `(R, P, N, 2)`
    pub(crate) locations: Place<f32>,
    /// `(R, P, N)`, if outliers are filtered.
    pub(crate) hidden: Place<u32>,
    /// `(R, logits)`, behind them `(B * N, logits)` if cameras have embeddings.
    pub(crate) logits: Place<f32>,
    /// `(R, G, 2)`
    pub(crate) statistics: Place<f32>,
    /// `(R, P, N, L, G)`
    pub(crate) weights: Place<K>,
    /// `(R, C)`
    pub(crate) features: Place<K>,
    /// `(B * N, 2, E)`, `(B * N, E)`, `(B * N, 2, 2)`, `(B * N, E)`: the camera encoder's stages.
    pub(crate) rectified: Place<f32>,
    pub(crate) middle: Place<f32>,
    pub(crate) moments: Place<f32>,
    pub(crate) cameras: Place<f32>,
    /// Bytes of all.
    pub(crate) bytes: usize,
}

/// What the backward pass needs memory for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Scratch<K> {
    /// `(R, E)` gradient before the dropout of the projected output.
    pub(crate) projected: Place<K>,
    /// `(R, C)` gradient of the operator's output.
    pub(crate) features: Place<K>,
    /// `(R, P, N, 2)`
    pub(crate) locations: Place<f32>,
    /// `(R, P, N, L, G)`
    pub(crate) weights: Place<K>,
    /// As [`Saved::logits`].
    pub(crate) logits: Place<f32>,
    /// `(B, runs, N, L * P * G)`
    pub(crate) camera_parts: Place<f32>,
    /// `(R, offsets)`
    pub(crate) offsets: Place<f32>,
    /// `(R, E)` gradient of the instance features from the learned offsets.
    pub(crate) from_offsets: Place<f32>,
    /// `(B * N, parts, 12)`
    pub(crate) projection_parts: Place<f32>,
    /// `(B * N, E)`, `(B * N, 2, E)`, `(B * N, E)`: the camera encoder's stages.
    pub(crate) cameras: Place<f32>,
    pub(crate) camera_linear: Place<f32>,
    pub(crate) camera_middle: Place<f32>,
    /// `(parts, linear words)` sums of parameter gradients.
    pub(crate) parameter_parts: Place<f32>,
    /// The operator's.
    pub(crate) operator: Place<f32>,
    /// Bytes of all.
    pub(crate) bytes: usize,
}

impl<K: Kernels + BlockKernels> BlockPlan<K> {
    /// Checks that the sizes are within the kernels' reach.
    pub(crate) fn new(
        config: &BlockConfig,
        shape: &AggregationShape,
        anchor_dims: usize,
        algorithm: Algorithm,
        products: Products,
    ) -> Result<Self> {
        let operator = Plan::new(shape, config.border_rule())?;
        let cameras = shape.layout().cameras();
        let rows = shape.batch() * shape.anchors();
        let (channels, points) = (shape.embed_dims(), shape.points());
        let of_pair = shape.layout().levels() * shape.groups();
        let of_camera = of_pair * points;
        within("numbers of an anchor", anchor_dims, u32::MAX as usize)?;
        within("learned offsets of an anchor", config.kps_generator.offsets(), i32::MAX as usize)?;
        within("batch times cameras", shape.batch() * cameras, MAX_GRID_Y as usize)?;
        within("points of a batch item", shape.anchors() * points, i32::MAX as usize)?;
        let camera = camera_bytes(channels as u32, camera_warps(channels as u32));
        within("embed_dims", camera as usize, MAX_SHARED_BYTES)?;
        let camera_rows = if config.use_camera_embed { shape.batch() * cameras } else { 0 };
        let logits = if config.use_camera_embed { of_camera } else { cameras * of_camera };
        let columns = Tiles::ALL[0].columns() as usize;
        within("logits of an anchor", logits, MAX_GRID_Y as usize * columns)?;
        let offsets = config.kps_generator.offsets();

        let of_anchor =
            weights_gradient_bytes(gradient_threads(of_camera as u32), shape.groups() as u32);
        within("num_groups", of_anchor as usize, MAX_SHARED_BYTES)?;
        let most = MAX_SHARED_BYTES / of_anchor as usize;
        let run = rows.div_ceil(BLOCKS).clamp(1, most.max(1)).min(shape.anchors().max(1));
        let all_rows = rows + camera_rows;
        let parts = all_rows.div_ceil(MIN_PART_ROWS).clamp(1, MAX_PARTS);
        let part_rows = all_rows.div_ceil(parts).max(1);
        let parts = all_rows.div_ceil(part_rows).max(1);
        within("anchors of a part of the batch", part_rows, i32::MAX as usize)?;
        let of_block = ITEM_THREADS as usize;
        let projection_parts =
            (shape.anchors() * points).div_ceil(of_block).clamp(1, PROJECTION_PARTS);

        let has_table = config.use_camera_embed && !config.filter_outlier;
        let tensors = Tensors::new(config);
        let pairs = rows * points * cameras;
        let mut places = Places::default();
        let mut saved = Saved {
            offsets: places.take(rows * offsets),
            key_points: places.take(rows * points * 3),
            locations: places.take(pairs * 2),
            hidden: places.take(if config.filter_outlier { pairs } else { 0 }),
            logits: places.take(all_rows * logits),
            statistics: places.take(rows * shape.groups() * 2),
            weights: places.take(operator.weights),
            features: places.take(rows * channels),
            rectified: places.take(camera_rows * 2 * channels),
            middle: places.take(camera_rows * channels),
            moments: places.take(camera_rows * 4),
            cameras: places.take(camera_rows * channels),
            bytes: 0,
        };
        saved.bytes = places.bytes;
        let runs = shape.anchors().div_ceil(run);
        let mut places = Places::default();
        let mut scratch = Scratch {
            projected: places.take(rows * channels),
            features: places.take(rows * channels),
            locations: places.take(pairs * 2),
            weights: places.take(operator.weights),
            logits: places.take(all_rows * logits),
            camera_parts: places.take(camera_rows * runs * of_camera),
            offsets: places.take(rows * offsets),
            from_offsets: places.take(if offsets > 0 { rows * channels } else { 0 }),
            projection_parts: places.take(shape.batch() * cameras * projection_parts * 12),
            cameras: places.take(camera_rows * channels),
            camera_linear: places.take(camera_rows * 2 * channels),
            camera_middle: places.take(camera_rows * channels),
            parameter_parts: places.take(parts * tensors.linear_words),
            operator: places.take(backward_scratch::<K>(&operator, algorithm)),
            bytes: 0,
        };
        scratch.bytes = places.bytes;
        Ok(Self {
            algorithm,
            products,
            sizes: BlockSizes {
                batch: shape.batch() as u32,
                anchors: shape.anchors() as u32,
                points: points as u32,
                cameras: cameras as u32,
                levels: shape.layout().levels() as u32,
                groups: shape.groups() as u32,
                channels: channels as u32,
                rule: operator.sizes.rule,
                by_points: Divisor::new(points as u32),
                by_cameras: Divisor::new(cameras as u32),
                by_groups: Divisor::new(shape.groups() as u32),
                weight_lanes: of_pair.next_power_of_two().min(WARP_LANES as usize) as u32,
            },
            generator: generator_of(&config.kps_generator, anchor_dims),
            tensors,
            concatenates: config.residual_mode == ResidualMode::Cat,
            filters_outliers: config.filter_outlier,
            rows,
            camera_rows,
            logits,
            offsets,
            run: run as u32,
            runs: runs as u32,
            weights: Weigher::new(rows, shape.groups(), has_table.then_some(of_camera))?,
            parts,
            part_rows,
            projection_parts: projection_parts as u32,
            saved,
            scratch,
            forward_bytes: 4 * forward_scratch::<K>(&operator, algorithm),
            operator,
        })
    }

    /// Channels of the block's output.
    pub(crate) fn output_dims(&self) -> usize {
        self.sizes.channels as usize * if self.concatenates { 2 } else { 1 }
    }

    /// The kernels of linear layers.
    pub(crate) fn products(&self) -> kernels_gpu::Products<K> {
        match self.products {
            Products::Exact => K::EXACT,
            Products::Tensor => K::TENSOR,
        }
    }

    /// A thread for each key point.
    pub(crate) fn points_launch(&self) -> Launch {
        let points = self.sizes.anchors * self.sizes.points;
        let grid = (points.div_ceil(ITEM_THREADS).max(1), self.sizes.batch);
        Launch { grid, threads: ITEM_THREADS, shared_bytes: 0 }
    }

    /// A warp for each anchor.
    pub(crate) fn points_gradient_launch(&self) -> Launch {
        let blocks = self.rows.div_ceil((ITEM_THREADS / WARP_LANES) as usize);
        Launch { grid: (blocks as u32, 1), threads: ITEM_THREADS, shared_bytes: 0 }
    }

    /// A block for each camera and part of the points.
    pub(crate) fn projection_launch(&self) -> Launch {
        let shared_bytes = ITEM_THREADS / WARP_LANES * 12 * 4;
        let grid = (self.projection_parts, self.sizes.batch * self.sizes.cameras);
        Launch { grid, threads: ITEM_THREADS, shared_bytes }
    }

    /// A block for each run of anchors.
    pub(crate) fn weights_launch(&self) -> Launch {
        let Weigher { warps, run, has_table } = self.weights;
        let table = if has_table { self.sizes.logits() } else { 0 };
        let shared_bytes = weights_bytes(warps, self.sizes.groups, table);
        let grid = (self.sizes.anchors.div_ceil(run), self.sizes.batch);
        Launch { grid, threads: warps * WARP_LANES, shared_bytes }
    }

    /// A block for each run of anchors and stretch of logits.
    pub(crate) fn weights_gradient_launch(&self) -> Launch {
        let logits = self.sizes.logits();
        let threads = gradient_threads(logits);
        let shared_bytes = self.run * weights_gradient_bytes(threads, self.sizes.groups);
        let grid = (self.runs * logits.div_ceil(threads).max(1), self.sizes.batch);
        Launch { grid, threads, shared_bytes }
    }

    /// A block for every 32 numbers, with a warp for some of the parts.
    pub(crate) fn sum_launch(length: usize, parts: u32, batch: u32) -> Launch {
        let threads = parts.div_ceil(PARTS_OF_WARP).clamp(1, SUM_WARPS) * WARP_LANES;
        let grid = (length.div_ceil(WARP_LANES as usize) as u32, batch);
        Launch { grid, threads, shared_bytes: threads * 4 }
    }

    /// A block for each camera.
    pub(crate) fn camera_launch(&self) -> Launch {
        let warps = camera_warps(self.sizes.channels);
        let shared_bytes = camera_bytes(self.sizes.channels, warps);
        let grid = (self.sizes.batch * self.sizes.cameras, 1);
        Launch { grid, threads: warps * WARP_LANES, shared_bytes }
    }

    /// A block for each channel: a thread for each of its weights, and five warps for what else it has.
    pub(crate) fn camera_parameters_launch(&self) -> Launch {
        let warps = (self.sizes.channels.div_ceil(WARP_LANES) + 5).min(CAMERA_WARPS);
        Launch { grid: (self.sizes.channels, 1), threads: warps * WARP_LANES, shared_bytes: 0 }
    }
}

/// Warps of a block of the camera encoder.
fn camera_warps(channels: u32) -> u32 {
    channels.div_ceil(CHANNELS_OF_WARP).clamp(1, CAMERA_WARPS)
}

/// Threads of a block of the softmax's backward kernel: one for each logit, dealt out to blocks of the same size.
fn gradient_threads(logits: u32) -> u32 {
    let blocks = logits.div_ceil(GRADIENT_WARPS * WARP_LANES).max(1);
    logits.div_ceil(blocks).div_ceil(WARP_LANES).max(1) * WARP_LANES
}

/// The generator as the kernels see it, without its table.
fn generator_of(config: &KeyPointsConfig, anchor_dims: usize) -> Generator {
    let table = std::ptr::null();
    let anchor_dims = anchor_dims as u32;
    match config {
        KeyPointsConfig::Box(points) => Generator {
            table,
            kind: generator::BOX,
            fixed: points.fix_scale.len() as u32,
            learned: points.num_learnable_pts as u32,
            vertices: 0,
            anchor_dims,
            ground: 0.0,
        },
        KeyPointsConfig::Polyline(points) => Generator {
            table,
            kind: generator::POLYLINE,
            fixed: points.fix_height.len() as u32,
            learned: points.num_learnable_pts.max(1) as u32,
            vertices: points.num_sample as u32,
            anchor_dims,
            ground: points.ground_height as f32,
        },
    }
}
