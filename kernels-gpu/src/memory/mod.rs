//! What CUDA has and `cuda_std` does not: wide cached loads, vector reductions, 16-bit floats and
//! typed shared memory, each as one small wrapper.
//!
//! On the GPU a wrapper is one PTX instruction (or the few it takes); in the emulator it is the same
//! operation with the access reported first, so that an address outside the buffers, a misaligned one
//! or shared memory nobody wrote ends the launch with a message.

#[cfg(target_arch = "nvptx64")]
mod device;
#[cfg(not(target_arch = "nvptx64"))]
mod host;

#[cfg(target_arch = "nvptx64")]
pub(crate) use device::*;
#[cfg(not(target_arch = "nvptx64"))]
pub(crate) use host::*;

/// Widens a bf16: its bits are the upper half of the fp32 number.
#[inline(always)]
pub(crate) fn bf16_to_f32(bits: u16) -> f32 {
    f32::from_bits(u32::from(bits) << 16)
}

/// The sums of two pairs of bf16 numbers, rounded to nearest even.
#[cfg(any(not(target_arch = "nvptx64"), not(cuda_arch_ge_80)))]
#[inline(always)]
fn sums_of_bf16(first: u32, second: u32) -> u32 {
    let sum = |shift: u32| bf16_to_f32((first >> shift) as u16) + bf16_to_f32((second >> shift) as u16);
    f32_pair_to_bf16(sum(0), sum(16))
}

/// Rounds to a bf16, to nearest even; a NaN stays one.
#[inline(always)]
pub(crate) fn f32_to_bf16(value: f32) -> u16 {
    let bits = value.to_bits();
    if value.is_nan() {
        // The quiet bit keeps a NaN whose payload lies in the dropped half from becoming infinite.
        return (bits >> 16) as u16 | 0x40;
    }
    // Half a unit in the last place, less one when the kept part is even, then truncate.
    let half = 0x7fff + (bits >> 16 & 1);
    (bits.wrapping_add(half) >> 16) as u16
}

/// Writes zeros over `bytes` bytes from `offset` on, with the `threads` threads of a block: 16 bytes at a time where
/// the array and the offset are aligned to that.
///
/// # Safety
///
/// The bytes are whole elements of two or four bytes of the array that begins at `base`, aligned to their size; nobody
/// else touches them meanwhile. The calling thread's number is below `threads`, and all of them make the call.
#[inline(always)]
pub(crate) unsafe fn zero(base: *mut u8, offset: usize, bytes: usize, thread: u32, threads: u32) {
    let aligned_to = |alignment| (base.addr() | offset).is_multiple_of(alignment);
    let target = base.wrapping_add(offset);
    let (thread, threads) = (thread as usize, threads as usize);
    let vectors = if aligned_to(16) { bytes / 16 } else { 0 };
    let mut index = thread;
    while index < vectors {
        // SAFETY: aligned, below the end, and this thread's.
        unsafe { store_words_away(target.wrapping_add(16 * index).cast(), [0; 4]) };
        index += threads;
    }
    let words = if aligned_to(4) { bytes / 4 } else { 0 };
    let mut index = 4 * vectors + thread;
    while index < words {
        // SAFETY: as above.
        unsafe { store_u32(target.wrapping_add(4 * index).cast(), 0) };
        index += threads;
    }
    let mut index = 2 * words.max(4 * vectors) + thread;
    while index < bytes / 2 {
        // SAFETY: as above.
        unsafe { store_u16(target.wrapping_add(2 * index).cast(), 0) };
        index += threads;
    }
}
