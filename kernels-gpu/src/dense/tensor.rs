//! Multiplication on tensor cores.

use core::marker::PhantomData;

use crate::dense::arithmetic::Arithmetic;
use crate::dense::product::{Operand, Staged, Sums};
use crate::dense::run::Runs;
use crate::mma::Factor;
use crate::unroll::{array4, each4};

pub(crate) use crate::mma::Tf32;

/// Tensor cores with factors of the type `F`; the sums are fp32.
pub(crate) struct Tensor<F>(PhantomData<F>);

impl<F: Factor> Arithmetic for Tensor<F> {
    const DEPTHS: u32 = F::DEPTHS;

    #[inline(always)]
    fn word(first: f32, second: f32) -> u32 {
        F::word(first, second)
    }

    #[inline(always)]
    fn takes<S: Runs>() -> bool {
        F::DEPTHS == 2 && S::BYTES == 2 && S::IEEE_HALF == F::IEEE_HALF
    }

    #[inline(always)]
    unsafe fn multiply<L: Operand, R: Operand>(left: &Staged, right: &Staged, sums: &mut Sums) {
        // Four times four products of 16 lines by 8. Which eight lines of the right operand one takes is chosen so that a lane's sums
        // are those of neighbouring columns; which words of depth a lane has as its first and second, so that they are neighbours.
        // SAFETY: the caller's promise.
        let (lefts, rights) = unsafe { (left.left_pairs::<L>(), right.right_pairs::<R>()) };
        each4(|i| {
            let [upper, lower] = [lefts[2 * i], lefts[2 * i + 1]];
            let factors = [upper[0], lower[0], upper[1], lower[1]];
            each4(|j| {
                let at = |index: usize| 8 * (2 * i + index / 2) + 4 * (index % 2) + j;
                let before = array4(|index| sums[at(index)]);
                // SAFETY: the whole warp is here.
                let after = unsafe { F::multiply(factors, rights[j], before) };
                each4(|index| sums[at(index)] = after[index]);
            });
        });
    }
}
