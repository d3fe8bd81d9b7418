//! The element types a kernel reads and writes: fp32, fp16 and bf16 in memory, fp32 in registers.

use crate::args::{Bf16, F16};
use crate::memory::{self, SharedWords};
use crate::unroll::{array4, array8};

/// An element type in memory. Arithmetic is fp32 whatever the storage.
pub(crate) trait Storage: Copy + 'static {
    /// Elements in one 16-byte access.
    const PER_VECTOR: usize;

    /// Reads one element that no thread writes during the launch.
    ///
    /// # Safety
    ///
    /// `pointer` is aligned, and valid for reads of an element nobody writes meanwhile.
    unsafe fn load(pointer: *const Self) -> f32;

    /// Reads one element as [`load`](Self::load) does, or a zero when not `live`.
    ///
    /// # Safety
    ///
    /// When `live`, as for [`load`](Self::load).
    unsafe fn load_if(pointer: *const Self, live: bool) -> f32;

    /// Reads the bits of one element, as [`load`](Self::load) reads its value.
    ///
    /// # Safety
    ///
    /// As for [`load`](Self::load).
    unsafe fn fetch(pointer: *const Self) -> u32;

    /// Reads element `index` of an array in shared memory.
    ///
    /// # Safety
    ///
    /// As for [`SharedWords::get`].
    unsafe fn get(array: SharedWords, index: u32) -> f32;

    /// Writes the bits of element `index` of an array in shared memory.
    ///
    /// # Safety
    ///
    /// As for [`SharedWords::set`].
    unsafe fn set(array: SharedWords, index: u32, bits: u32);

    /// The value of the element of these bits.
    fn widen(bits: u32) -> f32;

    /// The values of the elements of 16 bytes. Only the first [`PER_VECTOR`](Self::PER_VECTOR) results carry elements.
    fn widen_vector(words: [u32; 4]) -> [f32; 8];

    /// Reads the elements of the 16 bytes at `pointer`, as [`widen_vector`](Self::widen_vector) gives them.
    ///
    /// # Safety
    ///
    /// `pointer` is aligned to 16 bytes, and valid for reads of 16 bytes nobody writes meanwhile.
    #[inline(always)]
    unsafe fn load_vector(pointer: *const Self) -> [f32; 8] {
        // SAFETY: the caller's promise is the same.
        Self::widen_vector(unsafe { memory::load_words(pointer.cast()) })
    }

    /// Reads as [`load_vector`](Self::load_vector) does, or zeros when not `live`.
    ///
    /// # Safety
    ///
    /// When `live`, as for [`load_vector`](Self::load_vector).
    #[inline(always)]
    unsafe fn load_vector_if(pointer: *const Self, live: bool) -> [f32; 8] {
        // SAFETY: the caller's promise is the same.
        Self::widen_vector(unsafe { memory::load_words_if(pointer.cast(), live) })
    }

    /// The 16 bytes of the first [`PER_VECTOR`](Self::PER_VECTOR) values, rounded to nearest even.
    fn round_vector(values: [f32; 8]) -> [u32; 4];

    /// Writes one element, rounded to nearest even.
    ///
    /// # Safety
    ///
    /// `pointer` is aligned, valid for writes, and no other thread touches the element meanwhile.
    unsafe fn store(pointer: *mut Self, value: f32);
}

impl Storage for f32 {
    const PER_VECTOR: usize = 4;

    #[inline(always)]
    unsafe fn load(pointer: *const Self) -> f32 {
        // SAFETY: the caller's promise is the same.
        unsafe { memory::load_f32(pointer) }
    }

    #[inline(always)]
    unsafe fn load_if(pointer: *const Self, live: bool) -> f32 {
        // SAFETY: the caller's promise is the same.
        unsafe { memory::load_f32_if(pointer, live) }
    }

    #[inline(always)]
    unsafe fn fetch(pointer: *const Self) -> u32 {
        // SAFETY: the caller's promise is the same.
        unsafe { memory::load_u32(pointer.cast()) }
    }

    #[inline(always)]
    unsafe fn get(array: SharedWords, index: u32) -> f32 {
        // SAFETY: the caller's promise is the same.
        f32::from_bits(unsafe { array.get(index) })
    }

    #[inline(always)]
    unsafe fn set(array: SharedWords, index: u32, bits: u32) {
        // SAFETY: the caller's promise is the same.
        unsafe { array.set(index, bits) };
    }

    #[inline(always)]
    fn widen(bits: u32) -> f32 {
        f32::from_bits(bits)
    }

    #[inline(always)]
    fn widen_vector(words: [u32; 4]) -> [f32; 8] {
        let [a, b, c, d] = words.map(f32::from_bits);
        [a, b, c, d, 0., 0., 0., 0.]
    }

    #[inline(always)]
    fn round_vector(values: [f32; 8]) -> [u32; 4] {
        array4(|index| values[index].to_bits())
    }

    #[inline(always)]
    unsafe fn store(pointer: *mut Self, value: f32) {
        // SAFETY: the caller's promise is the same.
        unsafe { memory::store_f32(pointer, value) }
    }
}

/// Gives a 16-bit type its storage, from the functions that widen and round one element, and round two.
macro_rules! sixteen_bit_storage {
    ($type:ident, $widen:path, $round:path, $round_pair:path) => {
        impl Storage for $type {
            const PER_VECTOR: usize = 8;

            #[inline(always)]
            unsafe fn load(pointer: *const Self) -> f32 {
                // SAFETY: the caller's promise is the same; the type is a transparent `u16`.
                $widen(unsafe { memory::load_u16(pointer.cast()) })
            }

            #[inline(always)]
            unsafe fn load_if(pointer: *const Self, live: bool) -> f32 {
                // SAFETY: the caller's promise is the same; the type is a transparent `u16`. Zero bits are a zero.
                $widen(unsafe { memory::load_u16_if(pointer.cast(), live) })
            }

            #[inline(always)]
            unsafe fn fetch(pointer: *const Self) -> u32 {
                // SAFETY: the caller's promise is the same; the type is a transparent `u16`.
                u32::from(unsafe { memory::load_u16(pointer.cast()) })
            }

            #[inline(always)]
            unsafe fn get(array: SharedWords, index: u32) -> f32 {
                // SAFETY: the caller's promise is the same.
                $widen(unsafe { array.get_half(index) })
            }

            #[inline(always)]
            unsafe fn set(array: SharedWords, index: u32, bits: u32) {
                // SAFETY: the caller's promise is the same.
                unsafe { array.set_half(index, bits as u16) };
            }

            #[inline(always)]
            fn widen(bits: u32) -> f32 {
                $widen(bits as u16)
            }

            #[inline(always)]
            fn widen_vector(words: [u32; 4]) -> [f32; 8] {
                // Little endian: the element with the lower address is the lower half.
                array8(|index| $widen((words[index / 2] >> (16 * (index % 2))) as u16))
            }

            #[inline(always)]
            fn round_vector(values: [f32; 8]) -> [u32; 4] {
                // Little endian, as in `widen_vector`.
                array4(|index| $round_pair(values[2 * index], values[2 * index + 1]))
            }

            #[inline(always)]
            unsafe fn store(pointer: *mut Self, value: f32) {
                // SAFETY: the caller's promise is the same; the type is a transparent `u16`.
                unsafe { memory::store_u16(pointer.cast(), $round(value)) }
            }
        }
    };
}

sixteen_bit_storage!(F16, memory::f16_to_f32, memory::f32_to_f16, memory::f32_pair_to_f16);
sixteen_bit_storage!(Bf16, memory::bf16_to_f32, memory::f32_to_bf16, memory::f32_pair_to_bf16);
