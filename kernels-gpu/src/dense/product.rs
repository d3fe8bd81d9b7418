//! A tile of a product of matrices: 64 by 64 sums over `depth`, by a block of four warps.
//!
//! Both operands pass through shared memory, 16 steps of depth at a time, in two buffers: while the block multiplies
//! what is in one, it has the next steps already in flight and then writes them to the other.

use core::ops::Range;

use crate::dense::arithmetic::{Arithmetic, Sums};
use crate::limits::{PRODUCT_DEPTH, PRODUCT_PITCH, PRODUCT_TILE};
use crate::memory::SharedWords;
use crate::unroll::{array4, each4, each8};
use cuda_std::thread;

/// A matrix as a product reads it: lines, which are rows or columns of the product, by depth.
pub(crate) trait Operand {
    /// Whether neighbours in memory are neighbours in depth, or else neighbouring lines.
    const ALONG_DEPTH: bool;

    /// Eight neighbours in memory, from the given line and depth on; zeros outside the matrix.
    ///
    /// # Safety
    ///
    /// The pointers of the matrix are valid as it says.
    unsafe fn load8(&self, line: u64, depth: u64) -> [f32; 8];
}

/// The eight elements of an operand that one thread moves, counted from the tile's first line and depth.
#[derive(Clone, Copy)]
struct Share {
    line: u32,
    depth: u32,
}

impl Share {
    #[inline(always)]
    fn new<O: Operand>(thread: u32) -> Self {
        if O::ALONG_DEPTH {
            // Neighbouring threads write neighbouring words.
            Self { line: thread % PRODUCT_TILE, depth: thread / PRODUCT_TILE * 8 }
        } else {
            let eights = PRODUCT_TILE / 8;
            Self { line: thread % eights * 8, depth: thread / eights }
        }
    }

    /// Writes the elements to a buffer: the word of a line and depth is at `depth * PITCH + line`.
    ///
    /// # Safety
    ///
    /// The buffer is not being read, and every thread writes its own share.
    #[inline(always)]
    unsafe fn put<M: Arithmetic, O: Operand>(self, buffer: SharedWords, values: &[f32; 8]) {
        let at = self.depth * PRODUCT_PITCH + self.line;
        // SAFETY: the share's own words.
        unsafe {
            if O::ALONG_DEPTH {
                each8(|index| {
                    buffer.set(at + index as u32 * PRODUCT_PITCH, M::word(values[index]));
                });
            } else {
                buffer.set4(at, array4(|index| M::word(values[index])));
                buffer.set4(at + 4, array4(|index| M::word(values[4 + index])));
            }
        }
    }
}

/// Loads the shares of both operands.
///
/// # Safety
///
/// The operands' pointers are valid as they say.
#[inline(always)]
unsafe fn load<L: Operand, R: Operand>(
    (left, right): (&L, &R),
    shares: [Share; 2],
    lines: [u64; 2],
    depth: u64,
) -> [[f32; 8]; 2] {
    let [of_left, of_right] = shares;
    // SAFETY: the caller's promise.
    unsafe {
        [
            left.load8(lines[0] + u64::from(of_left.line), depth + u64::from(of_left.depth)),
            right.load8(lines[1] + u64::from(of_right.line), depth + u64::from(of_right.depth)),
        ]
    }
}

/// The sums of a tile over a range of depth: of the lines from `lines[0]` on of the left operand by those from
/// `lines[1]` on of the right one. `look` is called with every share of the left operand as it goes by, with its
/// depth.
///
/// # Safety
///
/// A block of [`PRODUCT_THREADS`](crate::limits::PRODUCT_THREADS) makes the call together, with
/// [`PRODUCT_BYTES`](crate::limits::PRODUCT_BYTES) of shared memory; the operands' pointers are valid as they say.
#[inline(always)]
pub(crate) unsafe fn product<M: Arithmetic, L: Operand, R: Operand>(
    operands: (&L, &R),
    lines: [u64; 2],
    depths: Range<u64>,
    mut look: impl FnMut(u64, &[f32; 8]),
) -> Sums {
    const OPERAND: u32 = PRODUCT_DEPTH * PRODUCT_PITCH;
    let thread = thread::thread_idx_x();
    let shares = [Share::new::<L>(thread), Share::new::<R>(thread)];
    let mut sums = [0.0; 32];
    let (mut depth, mut buffer) = (depths.start, 0);
    let mut staged = [[0.0; 8]; 2];
    if depth < depths.end {
        // SAFETY: the caller's promise.
        staged = unsafe { load(operands, shares, lines, depth) };
    }
    while depth < depths.end {
        let left = SharedWords::new(2 * buffer * OPERAND);
        let right = SharedWords::new((2 * buffer + 1) * OPERAND);
        // SAFETY: the last reads of this buffer were before the barrier of the round before.
        unsafe {
            shares[0].put::<M, L>(left, &staged[0]);
            shares[1].put::<M, R>(right, &staged[1]);
        }
        look(depth + u64::from(shares[0].depth), &staged[0]);
        thread::sync_threads();
        depth += u64::from(PRODUCT_DEPTH);
        if depth < depths.end {
            // SAFETY: the caller's promise.
            staged = unsafe { load(operands, shares, lines, depth) };
        }
        // SAFETY: both operands are complete, and not written before the next round's barrier.
        unsafe { M::multiply(left, right, thread, &mut sums) };
        buffer ^= 1;
    }
    sums
}

/// Leaves the block's sums in shared memory, row after row of the tile.
///
/// # Safety
///
/// The whole block makes the call, after [`product`].
#[inline(always)]
pub(crate) unsafe fn share<M: Arithmetic>(sums: &Sums) -> SharedWords {
    let (thread, shared) = (thread::thread_idx_x(), SharedWords::new(0));
    // The buffers may still be read.
    thread::sync_threads();
    each8(|i| {
        each4(|j| {
            let [row, column] = M::place(thread, 4 * i + j);
            // SAFETY: every sum has a word of its own.
            unsafe { shared.set(row * PRODUCT_TILE + column, sums[4 * i + j].to_bits()) };
        });
    });
    thread::sync_threads();
    shared
}
