//! A linear layer, `output = input * weightᵀ + bias`, and the gradients of input, weight and bias.

use crate::block_args::{LinearArgs, LinearWeightArgs, Target};
use crate::dense::arithmetic::{Arithmetic, Sums};
use crate::dense::product::{product, share};
use crate::dense::rows::{ByColumn, ByRow};
use crate::limits::{PRODUCT_TILE, PRODUCT_THREADS};
use crate::memory::{self, SharedWords};
use crate::storage::Storage;
use crate::unroll::{array4, each8};
use cuda_std::thread;

/// Words of a tile's sums.
const TILE_WORDS: u32 = PRODUCT_TILE * PRODUCT_TILE;

/// First row and column of the block's tile of the product.
#[inline(always)]
fn tile() -> [u64; 2] {
    [thread::block_idx_x(), thread::block_idx_y()].map(|tile| u64::from(tile * PRODUCT_TILE))
}

/// Writes the block's sums to their places. Neighbouring threads write neighbouring columns.
///
/// # Safety
///
/// The whole block makes the call, after [`product`]; the target's pointers are valid as it says.
#[inline(always)]
unsafe fn write<T: Storage, M: Arithmetic>(target: &Target<T>, [row, column]: [u64; 2], sums: &Sums) {
    // SAFETY: the whole block is here.
    let shared = unsafe { share::<M>(sums) };
    let mut index = thread::thread_idx_x();
    while index < TILE_WORDS {
        let (i, j) = (u64::from(index / PRODUCT_TILE), u64::from(index % PRODUCT_TILE));
        // SAFETY: the sums are complete; one thread for each.
        unsafe { target.write(row + i, column + j, f32::from_bits(shared.get(index))) };
        index += PRODUCT_THREADS;
    }
}

/// The layer.
///
/// Grid: `(tiles of rows, tiles of columns)`. Block: [`PRODUCT_THREADS`]. Shared memory:
/// [`PRODUCT_BYTES`](crate::limits::PRODUCT_BYTES).
///
/// # Safety
///
/// The pointers of `args` are valid as it says, for the sizes it gives.
#[inline(always)]
pub(crate) unsafe fn linear<T: Storage, M: Arithmetic>(args: LinearArgs<T>) {
    let [row, column] = tile();
    let (input, weight) = (ByRow(&args.input), ByRow(&args.weight));
    let depths = 0..u64::from(args.input.columns);
    // SAFETY: the whole block is here; the caller's promise.
    unsafe {
        let sums = product::<M, _, _>((&input, &weight), [row, column], depths, |_, _| {});
        write::<T, M>(&args.target, [row, column], &sums);
    }
}

/// The gradient of the layer's input.
///
/// Grid, block, shared memory: as for [`linear`].
///
/// # Safety
///
/// The pointers of `args` are valid as it says, for the sizes it gives.
#[inline(always)]
pub(crate) unsafe fn linear_input<T: Storage, M: Arithmetic>(args: LinearArgs<T>) {
    let [row, column] = tile();
    let (upstream, weight) = (ByRow(&args.input), ByColumn(&args.weight));
    let depths = 0..u64::from(args.input.columns);
    // SAFETY: the whole block is here; the caller's promise.
    unsafe {
        let sums = product::<M, _, _>((&upstream, &weight), [row, column], depths, |_, _| {});
        write::<T, M>(&args.target, [row, column], &sums);
    }
}

/// The gradients of the layer's weight and bias, summed over one part of the rows.
///
/// Grid: `(tiles of out * tiles of in, parts)`. Block, shared memory: as for [`linear`].
///
/// # Safety
///
/// The pointers of `args` are valid as it says, for the sizes it gives.
#[inline(always)]
pub(crate) unsafe fn linear_weight<T: Storage, M: Arithmetic>(args: LinearWeightArgs<T>) {
    let (outs, ins) = (u64::from(args.upstream.columns), u64::from(args.input.columns));
    let tiles_in = args.input.columns.div_ceil(PRODUCT_TILE).max(1);
    let part = u64::from(thread::block_idx_y());
    let out = u64::from(thread::block_idx_x() / tiles_in * PRODUCT_TILE);
    let inside = u64::from(thread::block_idx_x() % tiles_in * PRODUCT_TILE);
    let depths = part * args.part_rows..((part + 1) * args.part_rows).min(args.upstream.rows);
    let weight = args.weight.wrapping_add((part * args.part_words) as usize);
    // The thread's share of the upstream matrix is always the same eight columns.
    let mut columns = [0.0; 8];
    // SAFETY: the whole block is here; the caller's promise.
    let sums = unsafe {
        let (upstream, input) = (ByColumn(&args.upstream), ByColumn(&args.input));
        product::<M, _, _>((&upstream, &input), [out, inside], depths, |row, values| {
            if row < args.bias_rows {
                each8(|index| columns[index] += values[index]);
            }
        })
    };
    // SAFETY: the whole block is here.
    let shared = unsafe { share::<M>(&sums) };
    let mut index = thread::thread_idx_x();
    while index < TILE_WORDS {
        let i = out + u64::from(index / PRODUCT_TILE);
        let j = inside + u64::from(index % PRODUCT_TILE);
        if i < outs && j < ins {
            // SAFETY: an element of the part's weight, one thread's own.
            unsafe {
                let sum = f32::from_bits(shared.get(index));
                memory::store_f32(weight.wrapping_add((i * ins + j) as usize), sum);
            }
        }
        index += PRODUCT_THREADS;
    }
    if inside == 0 {
        let bias = args.bias.wrapping_add((part * args.part_words + out) as usize);
        // SAFETY: the condition is the same for the whole block; the columns exist.
        unsafe { write_bias(bias, outs - out, &columns) };
    }
}

/// Adds up the threads' sums of each column of the tile and writes those that exist, `count` of them.
///
/// # Safety
///
/// The whole block makes the call, and is done with shared memory otherwise; `bias` points to the tile's first column.
#[inline(always)]
unsafe fn write_bias(bias: *mut f32, count: u64, columns: &[f32; 8]) {
    const EIGHTS: u32 = PRODUCT_TILE / 8;
    let (thread, shared) = (thread::thread_idx_x(), SharedWords::new(0));
    // The sums may still be read.
    thread::sync_threads();
    let at = thread / EIGHTS * PRODUCT_TILE + thread % EIGHTS * 8;
    // SAFETY: eight words of the thread's own.
    unsafe {
        shared.set4(at, array4(|index| columns[index].to_bits()));
        shared.set4(at + 4, array4(|index| columns[4 + index].to_bits()));
    }
    thread::sync_threads();
    if thread < PRODUCT_TILE && u64::from(thread) < count {
        let mut sum = 0.0;
        for row in 0..PRODUCT_THREADS / EIGHTS {
            // SAFETY: written before the barrier.
            sum += f32::from_bits(unsafe { shared.get(row * PRODUCT_TILE + thread) });
        }
        // SAFETY: the column exists; one thread for each.
        unsafe { memory::store_f32(bias.wrapping_add(thread as usize), sum) };
    }
}
