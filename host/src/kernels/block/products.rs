//! The launches of the linear layers.

use kernels_gpu::block_args::{LinearArgs, LinearWeightArgs, Rows, Target};
use kernels_gpu::{
    BlockKernels, Entry, Kernels, PRODUCT_BYTES, PRODUCT_COLUMNS, PRODUCT_ROWS, PRODUCT_THREADS,
};

use crate::error::Result;
use crate::kernels::Executor;
use crate::kernels::block::plan::BlockPlan;
use crate::kernels::plan::Launch;

/// Blocks that keep a large GPU busy, about one for each multiprocessor.
const BLOCKS: usize = 96;

/// 1 where the blocks of a product have two tiles side by side, as they do where there are enough of them, else 0; and the tiles,
/// or pairs of tiles, down and across.
fn grid(rows: usize, columns: usize, parts: usize) -> (u32, [u32; 2]) {
    let down = rows.div_ceil(PRODUCT_ROWS as usize);
    let across = columns.div_ceil(PRODUCT_COLUMNS as usize);
    let pairs = across.div_ceil(2);
    let paired = down * pairs * parts >= BLOCKS;
    (paired.into(), [down as u32, if paired { pairs } else { across } as u32])
}

fn launch(grid: (u32, u32)) -> Launch {
    Launch { grid, threads: PRODUCT_THREADS, shared_bytes: PRODUCT_BYTES }
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
    let (paired, [down, across]) = grid(target.rows as usize, target.columns as usize, 1);
    let args = LinearArgs { input, weight, target, paired };
    // SAFETY: the caller's promise.
    unsafe { executor.launch(kernel, launch((down, across)), args) }
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
    let (paired, [down, across]) = grid(outputs, inputs, plan.parts);
    let launch = launch((down * across, plan.parts as u32));
    let kernels = plan.products();
    let kernel = if upstream.first_rows == 0 { kernels.weight_of_numbers } else { kernels.weight };
    let args = LinearWeightArgs {
        upstream,
        input,
        // The cameras' rows have no bias.
        bias_rows: plan.rows as u64,
        weight,
        bias: weight.wrapping_add(outputs * inputs),
        part_rows: plan.part_rows as u64,
        part_words: plan.tensors.linear_words as u64,
        paired,
    };
    // SAFETY: the caller's promise.
    unsafe { executor.launch(kernel, launch, args) }
}
