//! Multiplication on tensor cores.

use core::marker::PhantomData;

use crate::args::{Bf16, F16};
use crate::dense::arithmetic::Arithmetic;
use crate::dense::mma;
use crate::dense::product::{Operand, Staged, Sums};
use crate::dense::run::Runs;
use crate::memory;
use crate::unroll::{array4, each4};

/// A type of factors that tensor cores have.
pub(crate) trait Factor {
    /// Depths in a word.
    const DEPTHS: u32;

    /// As [`Arithmetic::word`].
    fn word(first: f32, second: f32) -> u32;

    /// As [`Arithmetic::takes`].
    fn takes<S: Runs>() -> bool;

    /// Adds the product of 16 lines by 8 to the sums, eight words deep, spread over the lanes of a warp as [`mma`] says.
    ///
    /// # Safety
    ///
    /// All lanes of the warp make the call together.
    unsafe fn multiply(left: [u32; 4], right: [u32; 2], sums: [f32; 4]) -> [f32; 4];
}

/// 10 bits behind the point and the exponents of fp32.
pub(crate) struct Tf32;

impl Factor for Tf32 {
    const DEPTHS: u32 = 1;

    #[inline(always)]
    fn word(first: f32, _: f32) -> u32 {
        mma::tf32(first)
    }

    #[inline(always)]
    fn takes<S: Runs>() -> bool {
        false
    }

    #[inline(always)]
    unsafe fn multiply(left: [u32; 4], right: [u32; 2], sums: [f32; 4]) -> [f32; 4] {
        // SAFETY: the caller's promise.
        unsafe { mma::tf32_16x8x8(left, right, sums) }
    }
}

/// Gives a 16-bit type its factors.
macro_rules! sixteen_bit_factor {
    ($type:ident, $round:path, $multiply:path) => {
        impl Factor for $type {
            const DEPTHS: u32 = 2;

            #[inline(always)]
            fn word(first: f32, second: f32) -> u32 {
                u32::from($round(first)) | u32::from($round(second)) << 16
            }

            #[inline(always)]
            fn takes<S: Runs>() -> bool {
                S::BYTES == 2 && S::IEEE_HALF == Self::IEEE_HALF
            }

            #[inline(always)]
            unsafe fn multiply(left: [u32; 4], right: [u32; 2], sums: [f32; 4]) -> [f32; 4] {
                // SAFETY: the caller's promise.
                unsafe { $multiply(left, right, sums) }
            }
        }
    };
}

sixteen_bit_factor!(F16, memory::f32_to_f16, mma::f16_16x8x16);
sixteen_bit_factor!(Bf16, memory::f32_to_bf16, mma::bf16_16x8x16);

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
        F::takes::<S>()
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
