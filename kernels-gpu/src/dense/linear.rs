//! A linear layer, `output = input * weightᵀ + bias`, and the gradients of input, weight and bias.

use core::ops::Range;

use crate::block_args::{LinearArgs, LinearWeightArgs, Rows};
use crate::dense::arithmetic::Arithmetic;
use crate::dense::operand::{ByColumn, ByRow, Operand};
use crate::dense::product::{Start, Sums, Totals, product};
use crate::dense::rows::{Matrix, Numbers, Part, Summed};
use crate::dense::run::Runs;
use crate::dense::target::store_run;
use crate::memory::{self, SharedWords};
use crate::tiles::Tiles;
use crate::unroll::each4;
use cuda_std::thread;

/// Adds the product of two matrices to a lane's sums. The block's lines of the left operand begin with `line`.
///
/// # Safety
///
/// A block of [`Tiles::THREADS`] makes the call together; the pointers of the operands are valid as they say.
#[inline(always)]
unsafe fn multiply<T, M: Arithmetic, L: Operand, R: Operand>(
    args: &LinearArgs<T>,
    operands: (L, R),
    line: u64,
    sums: &mut Sums,
) {
    let start = Start { lines: [line, first_column(args)], depths: [0; 2] };
    let nobody = None::<fn(u32, [f32; 4])>;
    // SAFETY: the caller's promise.
    unsafe { product::<M, _, _>(operands, start, args.input.columns, args.tiles, sums, nobody) };
}

/// The block's first column.
#[inline(always)]
fn first_column<T>(args: &LinearArgs<T>) -> u64 {
    u64::from(thread::block_idx_y()) * u64::from(args.tiles.columns())
}

/// Writes the sums of the block's rows to their places: of the rows from `row` on that come before `end`.
///
/// # Safety
///
/// The whole block makes the call, after [`multiply`], whose left operand's rows are the product's; the pointers of the target are
/// valid as it says.
#[inline(always)]
unsafe fn write<T: Runs, M: Arithmetic>(args: &LinearArgs<T>, row: u64, end: u64, sums: &Sums) {
    let column = first_column(args);
    // SAFETY: the caller's promise.
    unsafe {
        let mut totals = Totals::new::<M>(args.tiles, true, sums);
        while let Some(([down, across], sums)) = totals.next() {
            let row = row + u64::from(down);
            if row < end {
                args.target.write(row, column + u64::from(across), &sums);
            }
        }
    }
}

/// The layer.
///
/// Grid: `(rows, columns)`, each over those of a block's tiles; rows of numbers begin with a block of their own. Block:
/// [`Tiles::THREADS`]. Shared memory: [`Tiles::shared_bytes`].
///
/// # Safety
///
/// The pointers of `args` are valid as it says, for the sizes it gives.
#[inline(always)]
pub(crate) unsafe fn linear<T: Runs, M: Arithmetic>(args: LinearArgs<T>) {
    let weight = ByRow(Numbers::of(&args.weight));
    let Rows { first_rows, rows, .. } = args.input;
    let own = u64::from(args.tiles.rows());
    let line = u64::from(thread::block_idx_x()) * own;
    let before = args.tiles.rows_of_blocks(first_rows);
    let mut sums = [0.0; 32];
    // SAFETY: the whole block is here; the caller's promise.
    unsafe {
        let (row, end) = if line < before {
            let input = ByRow(Summed::of(&args.input));
            multiply::<T, M, _, _>(&args, (input, weight), line, &mut sums);
            (line, first_rows)
        } else {
            let (input, line) = (ByRow(Numbers::of(&args.input)), line - before);
            multiply::<T, M, _, _>(&args, (input, weight), line, &mut sums);
            (first_rows + line, rows)
        };
        write::<T, M>(&args, row, end, &sums);
    }
}

/// The gradient of the layer's input, from that of its output, which is the part `U` of the rows it comes in.
///
/// Grid: `(rows, columns)`, each over those of a block's tiles. Block, shared memory: as for [`linear`].
///
/// # Safety
///
/// The pointers of `args` are valid as it says, for the sizes it gives.
#[inline(always)]
pub(crate) unsafe fn linear_input<T: Runs, M: Arithmetic, U: Part<T>>(args: LinearArgs<T>) {
    let operands = (ByRow(U::of(&args.input)), ByColumn(Numbers::of(&args.weight)));
    let row = u64::from(thread::block_idx_x()) * u64::from(args.tiles.rows());
    let mut sums = [0.0; 32];
    // SAFETY: the whole block is here; the caller's promise.
    unsafe {
        multiply::<T, M, _, _>(&args, operands, row, &mut sums);
        write::<T, M>(&args, row, args.input.rows, &sums);
    }
}

/// The gradients of the layer's weight and bias, summed over one part of the rows, from the gradient of its output, which is the
/// part `U` of the rows it comes in.
///
/// Grid: `(out * in, parts)`, where `out` and `in` are each over the rows and columns of a block's tiles. Block, shared memory: as
/// for [`linear`].
///
/// # Safety
///
/// The pointers of `args` are valid as it says, for the sizes it gives.
#[inline(always)]
pub(crate) unsafe fn linear_weight<T: Runs, M: Arithmetic, U: Part<T>>(args: LinearWeightArgs<T>) {
    let first = u64::from(thread::block_idx_y()) * u64::from(args.part_rows);
    let end = (first + u64::from(args.part_rows)).min(args.input.rows);
    // Rows of the input's elements come before those of its numbers.
    let middle = args.input.first_rows.max(first).min(end);
    let (mut sums, mut of_bias) = ([0.0; 32], [0.0; 4]);
    // SAFETY: the whole block is here; the caller's promise.
    unsafe {
        let elements = U::input(&args.input);
        add_rows::<T, M, U, _>(&args, elements, 0, first..middle, &mut sums, &mut of_bias);
        let (numbers, before) = (Numbers::of(&args.input), args.input.first_rows);
        add_rows::<T, M, U, _>(&args, numbers, before, middle..end, &mut sums, &mut of_bias);
        store::<T, M>(&args, &sums, &of_bias);
    }
}

/// The first row and column of the block's tiles in the gradient of a weight. Computed anew where they are needed, which costs
/// less than the registers that keep them.
#[inline(always)]
fn corner<T>(args: &LinearWeightArgs<T>) -> [u32; 2] {
    let across = args.tiles.blocks_across(args.input.columns).max(1);
    let block = memory::opaque(thread::block_idx_x());
    [block / across * args.tiles.rows(), block % across * args.tiles.columns()]
}

/// Adds the products of some rows to the sums of the weight, and the rows that have the bias to those of the bias. The thread's
/// share of the upstream matrix, and so of the bias, is always the same four columns. `input` begins with row `before`.
///
/// # Safety
///
/// As for [`linear_weight`].
#[inline(always)]
unsafe fn add_rows<T: Runs, M: Arithmetic, U: Part<T>, I: Matrix>(
    args: &LinearWeightArgs<T>,
    input: I,
    before: u64,
    rows: Range<u64>,
    sums: &mut Sums,
    of_bias: &mut [f32; 4],
) {
    let count = rows.end.saturating_sub(rows.start);
    let biased = args.bias_rows.saturating_sub(rows.start).min(count) as u32;
    let corner = corner(args);
    let start = Start {
        lines: corner.map(u64::from),
        depths: [rows.start, rows.start.saturating_sub(before)],
    };
    let operands = (ByColumn(U::of(&args.upstream)), ByColumn(input));
    let look = |depth: u32, values: [f32; 4]| {
        if depth < biased {
            each4(|index| of_bias[index] += values[index]);
        }
    };
    // The blocks side by side have the same rows of the upstream matrix: the first one's bias is stored.
    let look = if biased > 0 && corner[1] == 0 { Some(look) } else { None };
    // SAFETY: the caller's promise.
    unsafe { product::<M, _, _>(operands, start, count as u32, args.tiles, sums, look) };
}

/// Stores the sums of a part of the rows: those of the weight, and those of the bias.
///
/// # Safety
///
/// As for [`linear_weight`].
#[inline(always)]
unsafe fn store<T, M: Arithmetic>(
    args: &LinearWeightArgs<T>,
    sums: &Sums,
    of_bias: &[f32; 4],
) {
    let (outs, ins) = (args.upstream.columns, args.input.columns);
    let [out, inside] = corner(args);
    // Computed only now, when registers are free.
    let before = u64::from(memory::opaque(thread::block_idx_y())) * args.part_words;
    let weight = args.weight.wrapping_add(before as usize);
    // SAFETY: the caller's promise.
    unsafe {
        let mut totals = Totals::new::<M>(args.tiles, false, sums);
        while let Some(([down, across], sums)) = totals.next() {
            let (i, j) = (out + down, inside + across);
            if i < outs && j < ins {
                let at = u64::from(i) * u64::from(ins) + u64::from(j);
                store_run(weight.wrapping_add(at as usize), ins - j, &sums);
            }
        }
        if inside == 0 {
            let bias = args.bias.wrapping_add((before + u64::from(out)) as usize);
            write_bias(bias, args.tiles.rows(), outs.saturating_sub(out), of_bias);
        }
    }
}

/// Adds up the threads' sums of each of the block's `columns`, a power of two, and writes those that exist, `count` of them.
///
/// # Safety
///
/// The whole block makes the call, and is done with shared memory otherwise; `bias` points to the block's first column.
#[inline(always)]
unsafe fn write_bias(bias: *mut f32, columns: u32, count: u32, sums: &[f32; 4]) {
    let (thread, shared) = (thread::thread_idx_x(), SharedWords::new(0));
    // The sums of the product may still be read.
    thread::sync_threads();
    // SAFETY: four words of the thread's own.
    unsafe { shared.set4(thread * 4, sums.map(f32::to_bits)) };
    thread::sync_threads();
    if thread < columns.min(count) {
        let mut sum = 0.0;
        for row in 0..(4 * Tiles::THREADS) >> columns.trailing_zeros() {
            // SAFETY: written before the barrier.
            sum += f32::from_bits(unsafe { shared.get(row * columns + thread) });
        }
        // SAFETY: the column exists; one thread for each.
        unsafe { memory::store_f32(bias.wrapping_add(thread as usize), sum) };
    }
}
