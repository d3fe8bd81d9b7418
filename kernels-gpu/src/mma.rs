//! The tensor cores: one instruction on the GPU; in the emulator the same sums, over what the lanes of the warp tell
//! each other.

use crate::args::{Bf16, F16};
use crate::memory;
#[cfg(target_arch = "nvptx64")]
use device::*;
#[cfg(not(target_arch = "nvptx64"))]
use host::*;

/// A type of factors that tensor cores have.
pub(crate) trait Factor {
    /// Depths in a word.
    const DEPTHS: u32;

    /// Whether it is IEEE half precision; of the types of two depths only this one and bf16 are there.
    const IEEE_HALF: bool;

    /// A word of factors; the second counts where a word has two.
    fn word(first: f32, second: f32) -> u32;

    /// Adds the product of 16 lines by 8 to the sums, eight words deep, spread over the lanes of a warp.
    ///
    /// With `g = lane / 4` and `t = lane % 4` a lane has lines `g` and `g + 8` of words `t` and then `t + 4` of the left
    /// matrix, words `t` and `t + 4` of line `g` of the right one, and columns `2 t` and `2 t + 1` of rows `g` and then
    /// `g + 8` of the sums. Where a word has two depths, the first is in its lower half.
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
    const IEEE_HALF: bool = false;

    #[inline(always)]
    fn word(first: f32, _: f32) -> u32 {
        tf32(first)
    }

    #[inline(always)]
    unsafe fn multiply(left: [u32; 4], right: [u32; 2], sums: [f32; 4]) -> [f32; 4] {
        // SAFETY: the caller's promise.
        unsafe { tf32_16x8x8(left, right, sums) }
    }
}

/// Gives a 16-bit type its factors.
macro_rules! sixteen_bit_factor {
    ($type:ident, $half:literal, $round:path, $multiply:path) => {
        impl Factor for $type {
            const DEPTHS: u32 = 2;
            const IEEE_HALF: bool = $half;

            #[inline(always)]
            fn word(first: f32, second: f32) -> u32 {
                $round(first, second)
            }

            #[inline(always)]
            unsafe fn multiply(left: [u32; 4], right: [u32; 2], sums: [f32; 4]) -> [f32; 4] {
                // SAFETY: the caller's promise.
                unsafe { $multiply(left, right, sums) }
            }
        }
    };
}

sixteen_bit_factor!(F16, true, memory::f32_pair_to_f16, f16_16x8x16);
sixteen_bit_factor!(Bf16, false, memory::f32_pair_to_bf16, bf16_16x8x16);

/// A number rounded to 10 bits behind the point, to nearest even; a NaN stays one.
#[cfg(any(not(target_arch = "nvptx64"), not(cuda_arch_ge_90)))]
#[inline(always)]
pub(crate) fn rounded(value: f32) -> u32 {
    let bits = value.to_bits();
    // Half a unit in the last place, less one when the kept part is even, then truncate.
    let half = 0xfff + (bits >> 13 & 1);
    if value.is_nan() { bits } else { bits.wrapping_add(half) & !0x1fff }
}

#[cfg(target_arch = "nvptx64")]
mod device {
    use core::arch::asm;

    /// A number as a factor: rounded to 10 bits behind the point, to nearest even.
    #[cfg(cuda_arch_ge_90)]
    #[inline(always)]
    pub(crate) fn tf32(value: f32) -> u32 {
        let word;
        // SAFETY: a register to register conversion.
        unsafe {
            asm!("cvt.rn.tf32.f32 {w}, {v};", v = in(reg32) value, w = out(reg32) word,
                options(pure, nomem, nostack, preserves_flags));
        }
        word
    }

    /// A number as a factor. There is an instruction for it only from sm_90 on.
    #[cfg(not(cuda_arch_ge_90))]
    pub(crate) use super::rounded as tf32;

    /// One instruction of this kind.
    macro_rules! product {
        ($(#[$text:meta])* $name:ident, $instruction:literal) => {
            $(#[$text])*
            #[inline(always)]
            pub(crate) unsafe fn $name(left: [u32; 4], right: [u32; 2], sums: [f32; 4]) -> [f32; 4] {
                let [mut a, mut b, mut c, mut d] = sums;
                // SAFETY: the caller has all lanes here; the instruction touches registers only.
                unsafe {
                    asm!(
                        concat!($instruction, " {{{a}, {b}, {c}, {d}}},"),
                        "{{{l0}, {l1}, {l2}, {l3}}}, {{{r0}, {r1}}}, {{{a}, {b}, {c}, {d}}};",
                        a = inout(reg32) a, b = inout(reg32) b, c = inout(reg32) c, d = inout(reg32) d,
                        l0 = in(reg32) left[0], l1 = in(reg32) left[1],
                        l2 = in(reg32) left[2], l3 = in(reg32) left[3],
                        r0 = in(reg32) right[0], r1 = in(reg32) right[1],
                        options(nostack, preserves_flags),
                    );
                }
                [a, b, c, d]
            }
        };
    }

    product! {
        /// [`Factor::multiply`](super::Factor::multiply) for tf32.
        ///
        /// # Safety
        ///
        /// All lanes of the warp make the call together.
        tf32_16x8x8, "mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32"
    }

    product! {
        /// [`Factor::multiply`](super::Factor::multiply) for fp16.
        ///
        /// # Safety
        ///
        /// All lanes of the warp make the call together.
        f16_16x8x16, "mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32"
    }

    product! {
        /// [`Factor::multiply`](super::Factor::multiply) for bf16.
        ///
        /// # Safety
        ///
        /// All lanes of the warp make the call together.
        bf16_16x8x16, "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32"
    }
}

#[cfg(not(target_arch = "nvptx64"))]
mod host {
    use crate::memory;
    use cuda_std::warp;

    /// A number as a factor.
    pub(crate) use super::rounded as tf32;

    /// [`Factor::multiply`](super::Factor::multiply) for tf32.
    ///
    /// # Safety
    ///
    /// All lanes of the warp make the call together.
    pub(crate) unsafe fn tf32_16x8x8(left: [u32; 4], right: [u32; 2], sums: [f32; 4]) -> [f32; 4] {
        // SAFETY: the caller's promise.
        unsafe { product(left, right, sums, |word| [f32::from_bits(word), 0.0]) }
    }

    /// [`Factor::multiply`](super::Factor::multiply) for fp16.
    ///
    /// # Safety
    ///
    /// All lanes of the warp make the call together.
    pub(crate) unsafe fn f16_16x8x16(left: [u32; 4], right: [u32; 2], sums: [f32; 4]) -> [f32; 4] {
        let halves = |word: u32| [word as u16, (word >> 16) as u16].map(memory::f16_to_f32);
        // SAFETY: the caller's promise.
        unsafe { product(left, right, sums, halves) }
    }

    /// [`Factor::multiply`](super::Factor::multiply) for bf16.
    ///
    /// # Safety
    ///
    /// All lanes of the warp make the call together.
    pub(crate) unsafe fn bf16_16x8x16(left: [u32; 4], right: [u32; 2], sums: [f32; 4]) -> [f32; 4] {
        let halves = |word: u32| [word as u16, (word >> 16) as u16].map(memory::bf16_to_f32);
        // SAFETY: the caller's promise.
        unsafe { product(left, right, sums, halves) }
    }

    /// The sums of either instruction, from what a word's factors are.
    ///
    /// # Safety
    ///
    /// All lanes of the warp make the call together.
    unsafe fn product(
        left: [u32; 4],
        right: [u32; 2],
        sums: [f32; 4],
        factors: impl Fn(u32) -> [f32; 2],
    ) -> [f32; 4] {
        let lane = warp::lane_id();
        let (group, within) = (lane / 4, lane % 4);
        // Two words at a time: rows `g` and `g + 8` of a column, rows `t` and `t + 4` of a column.
        let pair = |low: u32, high: u32| u64::from(high) << 32 | u64::from(low);
        // SAFETY: the caller has all lanes here.
        let ask = |value: u64, lane: u32| unsafe {
            let (answer, _) = warp::warp_shuffle_idx(u32::MAX, value, lane, 32);
            [factors(answer as u32), factors((answer >> 32) as u32)]
        };
        let dot = |a: [f32; 2], b: [f32; 2]| a[0] * b[0] + a[1] * b[1];
        let mut sums = sums;
        for column in 0..4 {
            // Words of depth `column` and `column + 4`.
            let near = ask(pair(left[0], left[1]), group * 4 + column);
            let far = ask(pair(left[2], left[3]), group * 4 + column);
            for side in 0..2 {
                let of_column = (within * 2 + side) * 4 + column;
                let [first, second] = ask(pair(right[0], right[1]), of_column);
                for row in 0..2 {
                    let index = row * 2 + side as usize;
                    sums[index] += dot(near[row], first) + dot(far[row], second);
                }
            }
        }
        sums
    }
}
