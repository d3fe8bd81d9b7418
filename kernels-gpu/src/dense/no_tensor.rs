//! What stands for the tensor cores on an architecture that does not have them for the types: fp32.

use core::marker::PhantomData;

use crate::dense::arithmetic::{Arithmetic, Exact};
use crate::dense::operand::Operand;
use crate::dense::product::Sums;
use crate::dense::run::Runs;
use crate::dense::staged::Staged;
use crate::memory::SharedWords;

/// 10 bits behind the point and the exponents of fp32.
pub(crate) struct Tf32;

/// Factors of the type `F`, where there are tensor cores for it.
pub(crate) struct Tensor<F>(PhantomData<F>);

impl<F> Arithmetic for Tensor<F> {
    const DEPTHS: u32 = Exact::DEPTHS;

    #[inline(always)]
    fn word(first: f32, second: f32) -> u32 {
        Exact::word(first, second)
    }

    #[inline(always)]
    fn takes<S: Runs>() -> bool {
        Exact::takes::<S>()
    }

    #[inline(always)]
    fn left_start<L: Operand>(lane: u32, pitch: u32) -> u32 {
        Exact::left_start::<L>(lane, pitch)
    }

    #[inline(always)]
    fn right_start<R: Operand>(lane: u32, pitch: u32) -> u32 {
        Exact::right_start::<R>(lane, pitch)
    }

    #[inline(always)]
    unsafe fn multiply<L: Operand, R: Operand>(left: Staged, right: Staged, sums: &mut Sums) {
        // SAFETY: the caller's promise is the same.
        unsafe { Exact::multiply::<L, R>(left, right, sums) }
    }

    #[inline(always)]
    unsafe fn put_row(row: SharedWords, lane: u32, sums: [f32; 8]) {
        // SAFETY: the caller's promise is the same.
        unsafe { Exact::put_row(row, lane, sums) };
    }
}
