//! Four neighbouring elements, as they come from memory and as numbers.

use crate::args::{Bf16, F16};
use crate::memory;
use crate::storage::Storage;
use crate::unroll::{array4, each4};

/// An element type that is read four neighbours at a time.
///
/// A run stays as memory has it until it is needed: what is made of it at once would wait for it at once.
pub(crate) trait Runs: Storage {
    /// Four neighbours in memory.
    type Run: Copy;

    /// Four zeros.
    const ZEROS: Self::Run;

    /// Bytes of an element.
    const BYTES: u32;

    /// Whether it is IEEE half precision; of the types of two bytes only this one and bf16 are there.
    const IEEE_HALF: bool;

    /// Four neighbours; zeros when not `live`, and then no memory is touched.
    ///
    /// # Safety
    ///
    /// When `live`, the four are valid for reads, nobody writes them during the launch, and the first one is aligned to the four.
    unsafe fn load_run(pointer: *const Self, live: bool) -> Self::Run;

    /// The first `count` of four neighbours, one by one, and zeros for the others.
    ///
    /// # Safety
    ///
    /// Those are aligned and valid for reads, and nobody writes them during the launch.
    unsafe fn load_some(pointer: *const Self, count: u32) -> Self::Run;

    /// Eight neighbours, as two runs; zeros when not `live`, and then no memory is touched.
    ///
    /// # Safety
    ///
    /// As for [`load_run`](Self::load_run), of eight; the first one is aligned to 16 bytes.
    unsafe fn load_two_runs(pointer: *const Self, live: bool) -> [Self::Run; 2];

    /// The numbers.
    fn values(run: Self::Run) -> [f32; 4];

    /// Two words of two elements each, where an element has 16 bits.
    fn pairs(run: Self::Run) -> [u32; 2];

    /// The sums of the elements of two such words each, rounded to elements, to nearest even.
    fn add_pairs(first: [u32; 2], second: [u32; 2]) -> [u32; 2];
}

impl Runs for f32 {
    type Run = [u32; 4];

    const ZEROS: Self::Run = [0; 4];
    const BYTES: u32 = 4;
    const IEEE_HALF: bool = false;

    #[inline(always)]
    unsafe fn load_run(pointer: *const Self, live: bool) -> Self::Run {
        // SAFETY: the caller's promise is the same.
        unsafe { memory::load_words_ahead_if(pointer.cast(), live) }
    }

    #[inline(always)]
    unsafe fn load_some(pointer: *const Self, count: u32) -> Self::Run {
        let mut run = Self::ZEROS;
        each4(|index| {
            if (index as u32) < count {
                // SAFETY: the caller's promise.
                run[index] = unsafe { memory::load_u32(pointer.wrapping_add(index).cast()) };
            }
        });
        run
    }

    #[inline(always)]
    unsafe fn load_two_runs(pointer: *const Self, live: bool) -> [Self::Run; 2] {
        // SAFETY: the caller's promise is the same.
        unsafe { [Self::load_run(pointer, live), Self::load_run(pointer.wrapping_add(4), live)] }
    }

    #[inline(always)]
    fn values(run: Self::Run) -> [f32; 4] {
        run.map(f32::from_bits)
    }

    #[inline(always)]
    fn pairs(_: Self::Run) -> [u32; 2] {
        [0; 2]
    }

    #[inline(always)]
    fn add_pairs(_: [u32; 2], _: [u32; 2]) -> [u32; 2] {
        [0; 2]
    }
}

/// Reads a 16-bit type in runs, from the function that widens one element.
macro_rules! sixteen_bit_runs {
    ($type:ident, $widen:path, $add:path, $half:literal) => {
        impl Runs for $type {
            type Run = [u32; 2];

            const ZEROS: Self::Run = [0; 2];
            const BYTES: u32 = 2;
            const IEEE_HALF: bool = $half;

            #[inline(always)]
            unsafe fn load_run(pointer: *const Self, live: bool) -> Self::Run {
                // SAFETY: the caller's promise is the same.
                unsafe { memory::load_word_pair_ahead_if(pointer.cast(), live) }
            }

            #[inline(always)]
            unsafe fn load_some(pointer: *const Self, count: u32) -> Self::Run {
                let mut run = Self::ZEROS;
                each4(|index| {
                    if (index as u32) < count {
                        // SAFETY: the caller's promise; the type is a transparent `u16`.
                        let bits = unsafe { memory::load_u16(pointer.wrapping_add(index).cast()) };
                        // Little endian: the element with the lower address is the lower half.
                        run[index / 2] |= u32::from(bits) << (16 * (index % 2));
                    }
                });
                run
            }

            #[inline(always)]
            unsafe fn load_two_runs(pointer: *const Self, live: bool) -> [Self::Run; 2] {
                // SAFETY: the caller's promise is the same.
                let [a, b, c, d] = unsafe { memory::load_words_ahead_if(pointer.cast(), live) };
                [[a, b], [c, d]]
            }

            #[inline(always)]
            fn values(run: Self::Run) -> [f32; 4] {
                array4(|index| $widen((run[index / 2] >> (16 * (index % 2))) as u16))
            }

            #[inline(always)]
            fn pairs(run: Self::Run) -> [u32; 2] {
                run
            }

            #[inline(always)]
            fn add_pairs(first: [u32; 2], second: [u32; 2]) -> [u32; 2] {
                [$add(first[0], second[0]), $add(first[1], second[1])]
            }
        }
    };
}

sixteen_bit_runs!(F16, memory::f16_to_f32, memory::add_f16_pairs, true);
sixteen_bit_runs!(Bf16, memory::bf16_to_f32, memory::add_bf16_pairs, false);
