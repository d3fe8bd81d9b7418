//! How a tile's operands are multiplied.

use crate::dense::product::{Left, Operand, Right, Staged, Sums};
use crate::dense::run::Runs;
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

    /// Adds the products of what a warp has in shared memory to its lanes' sums.
    ///
    /// # Safety
    ///
    /// The whole warp makes the call; both operands are complete and nobody writes them meanwhile.
    unsafe fn multiply<L: Operand, R: Operand>(left: &Staged, right: &Staged, sums: &mut Sums);
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
    unsafe fn multiply<L: Operand, R: Operand>(left: &Staged, right: &Staged, sums: &mut Sums) {
        for half in 0..2 {
            // SAFETY: the caller's promise.
            let (lefts, rights) = unsafe { (left.fours::<L, Left>(half), right.fours::<R, Right>(half)) };
            each4(|word| {
                let down = lefts[word].map(f32::from_bits);
                let across = rights[word].map(f32::from_bits);
                each8(|i| {
                    each8(|j| sums[8 * i + j] = down[i].mul_add(across[j], sums[8 * i + j]));
                });
            });
        }
    }
}
