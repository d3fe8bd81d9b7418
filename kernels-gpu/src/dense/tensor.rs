//! Multiplication on tensor cores.

use core::marker::PhantomData;

use crate::dense::arithmetic::Arithmetic;
use crate::dense::operand::Operand;
use crate::dense::product::Sums;
use crate::dense::run::Runs;
use crate::dense::staged::Staged;
use crate::memory::SharedWords;
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
    fn left_start<L: Operand>(lane: u32, pitch: u32) -> u32 {
        Staged::left_factors_start::<L>(lane, pitch)
    }

    #[inline(always)]
    fn right_start<R: Operand>(lane: u32, pitch: u32) -> u32 {
        Staged::right_factors_start::<R>(lane, pitch)
    }

    #[inline(always)]
    unsafe fn multiply<L: Operand, R: Operand>(left: Staged, right: Staged, sums: &mut Sums) {
        // Two times four products of 16 lines by 8. Of each a lane has two neighbouring columns of two rows.
        // SAFETY: the whole warp is here; the caller's promise.
        unsafe {
            let lefts = [left.left_factors::<L>(0), left.left_factors::<L>(1)];
            let rights = right.right_factors::<R>();
            each4(|j| {
                let mut add = |i: usize| {
                    let at = |index: usize| 8 * (2 * i + index / 2) + 2 * j + index % 2;
                    let before = array4(|index| sums[at(index)]);
                    let after = F::multiply(lefts[i], rights[j], before);
                    each4(|index| sums[at(index)] = after[index]);
                };
                add(0);
                add(1);
            });
        }
    }

    #[inline(always)]
    unsafe fn put_row(row: SharedWords, lane: u32, sums: [f32; 8]) {
        each4(|product| {
            let two = [sums[2 * product], sums[2 * product + 1]].map(f32::to_bits);
            // SAFETY: the caller's promise.
            unsafe { row.set2(8 * product as u32 + lane % 4 * 2, two) };
        });
    }
}
