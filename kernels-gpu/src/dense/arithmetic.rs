//! How a tile's operands are multiplied.

use crate::dense::operand::Operand;
use crate::dense::product::Sums;
use crate::dense::run::Runs;
use crate::dense::staged::Staged;
use crate::memory::SharedWords;
use crate::unroll::{each4, each8};
#[cfg(target_arch = "nvptx64")]
use cuda_std::GpuFloat;

/// A way to multiply.
pub(crate) trait Arithmetic {
    /// Depths in a word.
    const DEPTHS: u32;

    /// A word of factors as it lies in shared memory; the second factor counts where a word has two.
    fn word(first: f32, second: f32) -> u32;

    /// Whether two numbers of this type, as they lie in memory one after the other, are a word.
    fn takes<S: Runs>() -> bool;

    /// Where a lane begins to read the left operand of its warp's tile in a panel, whose neighbours in depth lie `pitch` apart where
    /// lines are neighbours.
    fn left_start<L: Operand>(lane: u32, pitch: u32) -> u32;

    /// Where it begins to read the right operand.
    fn right_start<R: Operand>(lane: u32, pitch: u32) -> u32;

    /// Adds the products of a panel to a warp's sums.
    ///
    /// # Safety
    ///
    /// The whole warp makes the call; both operands are complete and nobody writes them meanwhile.
    unsafe fn multiply<L: Operand, R: Operand>(left: Staged, right: Staged, sums: &mut Sums);

    /// Writes a lane's sums of a row to the row's words in shared memory.
    ///
    /// # Safety
    ///
    /// No other lane has these sums, and nobody reads the words meanwhile.
    unsafe fn put_row(row: SharedWords, lane: u32, sums: [f32; 8]);
}

/// fp32, rounded once for each product and sum: `fma`.
pub(crate) struct Exact;

impl Arithmetic for Exact {
    const DEPTHS: u32 = 1;

    #[inline(always)]
    fn word(first: f32, _: f32) -> u32 {
        first.to_bits()
    }

    #[inline(always)]
    fn takes<S: Runs>() -> bool {
        false
    }

    #[inline(always)]
    fn left_start<L: Operand>(lane: u32, _: u32) -> u32 {
        Staged::left_start::<L>(lane)
    }

    #[inline(always)]
    fn right_start<R: Operand>(lane: u32, _: u32) -> u32 {
        Staged::right_start::<R>(lane)
    }

    #[inline(always)]
    unsafe fn multiply<L: Operand, R: Operand>(left: Staged, right: Staged, sums: &mut Sums) {
        for half in 0..2 {
            let mut down = [[0.0; 4]; 4];
            each4(|piece| {
                // SAFETY: the caller's promise.
                let words = unsafe { left.left_piece::<L>(half, piece) };
                each4(|index| {
                    let [line, word] = Staged::of_left::<L>(piece, index);
                    down[line][word] = f32::from_bits(words[index]);
                });
            });
            each8(|piece| {
                // SAFETY: the caller's promise.
                let words = unsafe { right.right_piece::<R>(half, piece) };
                each4(|index| {
                    let [line, word] = Staged::of_right::<R>(piece, index);
                    let across = f32::from_bits(words[index]);
                    each4(|i| {
                        let sum = &mut sums[8 * i + line];
                        *sum = down[i][word].mul_add(across, *sum);
                    });
                });
            });
        }
    }

    #[inline(always)]
    unsafe fn put_row(row: SharedWords, lane: u32, sums: [f32; 8]) {
        let [a, b, c, d, e, f, g, h] = sums.map(f32::to_bits);
        // SAFETY: the caller's promise.
        unsafe {
            row.set4(lane % 4 * 8, [a, b, c, d]);
            row.set4(lane % 4 * 8 + 4, [e, f, g, h]);
        }
    }
}
