//! The launches of the linear layers.

use kernels_gpu::block_args::{LinearArgs, LinearWeightArgs, Rows, Target};
use kernels_gpu::{BlockKernels, Entry, Kernels, Tiles};

use crate::error::Result;
use crate::kernels::Executor;
use crate::kernels::block::plan::BlockPlan;
use crate::kernels::plan::Launch;

/// Blocks that keep a large GPU busy, between one and two for each multiprocessor.
const BLOCKS: usize = 200;

/// The blocks of a product, the largest that keep a GPU busy; of a sum in parts each part has so many.
struct Blocks {
    tiles: Tiles,
    down: u32,
    across: u32,
}

impl Blocks {
    /// For rows of elements, and of numbers behind them, which begin with a block of their own.
    fn new(rows: [usize; 2], columns: usize, parts: usize) -> Self {
        let of = |tiles: Tiles| Self {
            tiles,
            down: rows.map(|rows| rows.div_ceil(tiles.rows() as usize) as u32).iter().sum(),
            across: columns.div_ceil(tiles.columns() as usize) as u32,
        };
        let [smallest, larger @ ..] = Tiles::ALL;
        let fits = |blocks: &Self| blocks.down as usize * blocks.across as usize * parts >= BLOCKS;
        larger.into_iter().rev().map(of).find(fits).unwrap_or_else(|| of(smallest))
    }

    fn launch(&self, grid: (u32, u32)) -> Launch {
        Launch { grid, threads: Tiles::THREADS, shared_bytes: self.tiles.shared_bytes() }
    }
}

/// A product of the rows of `input` with `weight`, to `target`.
///
/// # Safety
///
/// The arrays are valid as the arguments say until the launch is through.
pub(super) unsafe fn multiply<K: Kernels + BlockKernels, E: Executor>(
    executor: &E,
    kernel: Entry<LinearArgs<K>>,
    input: Rows<K>,
    weight: Rows<K>,
    target: Target<K>,
) -> Result<()> {
    let blocks = Blocks::new(
        [input.first_rows, input.rows - input.first_rows].map(|rows| rows as usize),
        target.columns as usize,
        1,
    );
    let launch = blocks.launch((blocks.down, blocks.across));
    let args = LinearArgs { input, weight, target, tiles: blocks.tiles };
    // SAFETY: the caller's promise.
    unsafe { executor.launch(kernel, launch, args) }
}

/// The gradients of the weight, and of the bias behind it, of a layer that took `input`, for each of the plan's parts of the rows.
///
/// # Safety
///
/// As for [`multiply`].
pub(super) unsafe fn weigh<K: Kernels + BlockKernels, E: Executor>(
    executor: &E,
    plan: &BlockPlan<K>,
    upstream: Rows<K>,
    input: Rows<K>,
    weight: *mut f32,
) -> Result<()> {
    let (outputs, inputs) = (upstream.columns as usize, input.columns as usize);
    let blocks = Blocks::new([outputs, 0], inputs, plan.parts);
    let launch = blocks.launch((blocks.down * blocks.across, plan.parts as u32));
    let kernels = plan.products();
    let kernel = if upstream.first_rows == 0 { kernels.weight_of_numbers } else { kernels.weight };
    let args = LinearWeightArgs {
        upstream,
        input,
        // The cameras' rows have no bias.
        bias_rows: plan.rows as u64,
        weight,
        bias: weight.wrapping_add(outputs * inputs),
        part_rows: plan.part_rows as u32,
        part_words: plan.tensors.linear_words as u64,
        tiles: blocks.tiles,
    };
    // SAFETY: the caller's promise.
    unsafe { executor.launch(kernel, launch, args) }
}
