//! A linear layer, `output = input * weightᵀ + bias`, and the gradients of input, weight and bias.

use crate::block_args::{LinearArgs, LinearWeightArgs, Rows};
use crate::dense::arithmetic::Arithmetic;
use crate::dense::product::{Left, Operand, Place, Side as _, add_up, product};
use crate::dense::rows::{ByColumn, ByRow, Matrix as _, Numbers, Part, Uniform};
use crate::dense::run::Runs;
use crate::dense::target::store_run;
use crate::limits::{PRODUCT_COLUMNS, PRODUCT_ROWS, PRODUCT_THREADS};
use crate::memory::{self, SharedWords};
use crate::unroll::each4;
use cuda_std::thread;

/// The product of two matrices, to its places.
///
/// # Safety
///
/// A block of [`PRODUCT_THREADS`] makes the call together; the pointers of target and operands are valid as they say.
#[inline(always)]
unsafe fn multiply<T: Runs, M: Arithmetic, L: Operand, R: Operand>(
    args: &LinearArgs<T>,
    operands: (&L, &R),
) {
    let place = Place::new(args.paired);
    let row = u64::from(thread::block_idx_x() * PRODUCT_ROWS);
    let first = thread::block_idx_y() << place.paired();
    let column = |tile: u32| u64::from((first + tile) * PRODUCT_COLUMNS);
    let lines = [row, column(0)];
    let depths = 0..u64::from(args.input.columns);
    let lane = place.lane();
    // SAFETY: the whole block is here; the caller's promise.
    unsafe {
        let sums = product::<M, _, _>(operands, lines, depths, place, |_, _| {});
        add_up(place, &sums, |tile, index, sums| {
            let row = row + u64::from(Left::of_lane(L::ALONG_DEPTH, lane, index));
            args.target.write(row, column(tile) + u64::from(lane % 4 * 8), &sums);
        });
    }
}

/// The layer.
///
/// Grid: `(tiles of rows, tiles of columns, or pairs of them)`. Block: [`PRODUCT_THREADS`]. Shared memory:
/// [`PRODUCT_BYTES`](crate::limits::PRODUCT_BYTES).
///
/// # Safety
///
/// The pointers of `args` are valid as it says, for the sizes it gives.
#[inline(always)]
pub(crate) unsafe fn linear<T: Runs, M: Arithmetic>(args: LinearArgs<T>) {
    let (input, weight) = (ByRow(args.input), ByRow(Numbers::of(&args.weight)));
    // SAFETY: the whole block is here; the caller's promise.
    unsafe { multiply::<T, M, _, _>(&args, (&input, &weight)) }
}

/// The gradient of the layer's input, from that of its output, which is the part `U` of the rows it comes in.
///
/// Grid, block, shared memory: as for [`linear`].
///
/// # Safety
///
/// The pointers of `args` are valid as it says, for the sizes it gives.
#[inline(always)]
pub(crate) unsafe fn linear_input<T: Runs, M: Arithmetic, U: Part<T>>(args: LinearArgs<T>) {
    let (upstream, weight) = (ByRow(U::of(&args.input)), ByColumn(Numbers::of(&args.weight)));
    // SAFETY: the whole block is here; the caller's promise.
    unsafe { multiply::<T, M, _, _>(&args, (&upstream, &weight)) }
}

/// The gradients of the layer's weight and bias, summed over one part of the rows, from the gradient of its output, which is the
/// part `U` of the rows it comes in.
///
/// Grid: `(tiles of out * tiles of in or pairs of them, parts)`. Block, shared memory: as for [`linear`].
///
/// # Safety
///
/// The pointers of `args` are valid as it says, for the sizes it gives.
#[inline(always)]
pub(crate) unsafe fn linear_weight<T: Runs, M: Arithmetic, U: Part<T>>(args: LinearWeightArgs<T>) {
    let place = Place::new(args.paired);
    let (outs, ins) = (u64::from(args.upstream.columns), u64::from(args.input.columns));
    let tiles = args.input.columns.div_ceil(PRODUCT_COLUMNS);
    let across = tiles.div_ceil(1 + place.paired()).max(1);
    let part = u64::from(thread::block_idx_y());
    let out = u64::from(thread::block_idx_x() / across * PRODUCT_ROWS);
    let first = (thread::block_idx_x() % across) << place.paired();
    let inside = |tile: u32| u64::from((first + tile) * PRODUCT_COLUMNS);
    let depths = part * args.part_rows..((part + 1) * args.part_rows).min(args.upstream.rows);
    let weight = args.weight.wrapping_add((part * args.part_words) as usize);
    let end = depths.end;
    let upstream = ByColumn(U::of(&args.upstream).before(end));
    let input = ByColumn(Rows { rows: end, ..args.input });
    // The thread's share of the upstream matrix is always the same four columns.
    let mut columns = [0.0; 4];
    let lane = place.lane();
    // SAFETY: the whole block is here; the caller's promise.
    unsafe {
        let sums = product::<M, _, _>((&upstream, &input), [out, inside(0)], depths, place, |row, run| {
            let values = Uniform::<U::Element>::values(run);
            if row < args.bias_rows {
                each4(|index| columns[index] += values[index]);
            }
        });
        add_up(place, &sums, |tile, index, sums| {
            let i = out + u64::from(Left::of_lane(false, lane, index));
            let j = inside(tile) + u64::from(lane % 4 * 8);
            if i < outs && j < ins {
                store_run(weight.wrapping_add((i * ins + j) as usize), (ins - j) as u32, &sums);
            }
        });
        if first == 0 {
            let bias = args.bias.wrapping_add((part * args.part_words + out) as usize);
            write_bias(bias, outs - out, &columns);
        }
    }
}

/// Adds up the threads' sums of each column of the tile and writes those that exist, `count` of them.
///
/// # Safety
///
/// The whole block makes the call, and is done with shared memory otherwise; `bias` points to the tile's first column.
#[inline(always)]
unsafe fn write_bias(bias: *mut f32, count: u64, columns: &[f32; 4]) {
    const RUNS: u32 = PRODUCT_ROWS / 4;
    let (thread, shared) = (thread::thread_idx_x(), SharedWords::new(0));
    // The sums may still be read.
    thread::sync_threads();
    // SAFETY: four words of the thread's own.
    unsafe { shared.set4(thread * 4, columns.map(f32::to_bits)) };
    thread::sync_threads();
    if thread < PRODUCT_ROWS && u64::from(thread) < count {
        let mut sum = 0.0;
        for row in 0..PRODUCT_THREADS / RUNS {
            // SAFETY: written before the barrier.
            sum += f32::from_bits(unsafe { shared.get(row * PRODUCT_ROWS + thread) });
        }
        // SAFETY: the column exists; one thread for each.
        unsafe { memory::store_f32(bias.wrapping_add(thread as usize), sum) };
    }
}
