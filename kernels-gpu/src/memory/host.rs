//! The wrappers in the emulator: the access is reported, and then done.
//!
//! Wide accesses are unaligned on the host: the emulator counts alignment from the start of a buffer, as
//! allocations on a GPU do, and a host buffer may start anywhere.

use core::sync::atomic::{self as std_atomic, Ordering};
use cuda_std::atomic::{AtomicF32, AtomicU32};
use cuda_std::{emulator, warp};

/// Reads a word that no thread writes during the launch.
///
/// # Safety
///
/// `pointer` is aligned and valid for reads; nobody writes it meanwhile.
pub(crate) unsafe fn load_f32(pointer: *const f32) -> f32 {
    emulator::global_read(pointer.cast(), 4);
    // SAFETY: the caller's promise, and the emulator has checked the address.
    unsafe { pointer.read() }
}

/// Reads a word that no thread writes during the launch.
///
/// # Safety
///
/// `pointer` is aligned and valid for reads; nobody writes it meanwhile.
pub(crate) unsafe fn load_u32(pointer: *const u32) -> u32 {
    // SAFETY: the caller's promise is the same.
    unsafe { load_f32(pointer.cast()) }.to_bits()
}

/// Reads a half word that no thread writes during the launch.
///
/// # Safety
///
/// `pointer` is aligned and valid for reads; nobody writes it meanwhile.
pub(crate) unsafe fn load_u16(pointer: *const u16) -> u16 {
    emulator::global_read(pointer.cast(), 2);
    // SAFETY: the caller's promise, and the emulator has checked the address.
    unsafe { pointer.read() }
}

/// Reads a word that no thread writes during the launch; a zero when not `live`, and then no memory is touched.
///
/// # Safety
///
/// When `live`, as for [`load_f32`].
pub(crate) unsafe fn load_f32_if(pointer: *const f32, live: bool) -> f32 {
    // SAFETY: the caller's promise is the same.
    if live { unsafe { load_f32(pointer) } } else { 0.0 }
}

/// Reads a half word that no thread writes during the launch; a zero when not `live`, and then no memory is touched.
///
/// # Safety
///
/// When `live`, as for [`load_u16`].
pub(crate) unsafe fn load_u16_if(pointer: *const u16, live: bool) -> u16 {
    // SAFETY: the caller's promise is the same.
    if live { unsafe { load_u16(pointer) } } else { 0 }
}

/// Two to the power of `value`; 0 where that would be subnormal.
pub(crate) fn exp2(value: f32) -> f32 {
    let power = value.exp2();
    if power.is_subnormal() { 0.0 } else { power }
}

/// Reads two words that no thread writes during the launch.
///
/// # Safety
///
/// `pointer` is aligned to 8 bytes and valid for reads of 8; nobody writes them meanwhile.
pub(crate) unsafe fn load_pair(pointer: *const f32) -> [f32; 2] {
    emulator::global_read(pointer.cast(), 8);
    // SAFETY: the caller's promise, and the emulator has checked the address.
    unsafe { pointer.cast::<[f32; 2]>().read_unaligned() }
}

/// Reads 16 bytes that no thread writes during the launch.
///
/// # Safety
///
/// `pointer` is aligned to 16 bytes and valid for reads of 16; nobody writes them meanwhile.
pub(crate) unsafe fn load_words(pointer: *const u32) -> [u32; 4] {
    // SAFETY: the caller's promise is the same.
    unsafe { load_words_if(pointer, true) }
}

/// Reads 16 bytes that no thread writes during the launch; zeros when not `live`, and then no
/// memory is touched.
///
/// # Safety
///
/// When `live`, `pointer` is aligned to 16 bytes and valid for reads of 16; nobody writes them
/// meanwhile.
pub(crate) unsafe fn load_words_if(pointer: *const u32, live: bool) -> [u32; 4] {
    if !live {
        return [0; 4];
    }
    emulator::global_read(pointer.cast(), 16);
    // SAFETY: the caller's promise, and the emulator has checked the address.
    unsafe { pointer.cast::<[u32; 4]>().read_unaligned() }
}

/// As [`load_words_if`]: in the emulator loads are done at once.
///
/// # Safety
///
/// As for [`load_words_if`].
pub(crate) unsafe fn load_words_ahead_if(pointer: *const u32, live: bool) -> [u32; 4] {
    // SAFETY: the caller's promise is the same.
    unsafe { load_words_if(pointer, live) }
}

/// As [`load_words_ahead_if`], of 8 bytes.
///
/// # Safety
///
/// When `live`, `pointer` is aligned to 8 bytes and valid for reads of 8; nobody writes them meanwhile.
pub(crate) unsafe fn load_word_pair_ahead_if(pointer: *const u32, live: bool) -> [u32; 2] {
    if !live {
        return [0; 2];
    }
    // SAFETY: the caller's promise is the same.
    unsafe { load_pair(pointer.cast()) }.map(f32::to_bits)
}

/// Reads 16 bytes that no thread writes during the launch, past the first-level cache.
///
/// # Safety
///
/// `pointer` is aligned to 16 bytes and valid for reads of 16; nobody writes them meanwhile.
pub(crate) unsafe fn load_words_far(pointer: *const u32) -> [u32; 4] {
    // SAFETY: the caller's promise is the same.
    unsafe { load_words(pointer) }
}

/// Nothing to do: in the emulator, launches follow each other.
pub(crate) fn await_launches_before() {}

/// Writes a word.
///
/// # Safety
///
/// `pointer` is aligned and valid for writes; no other thread touches it meanwhile.
pub(crate) unsafe fn store_f32(pointer: *mut f32, value: f32) {
    emulator::global_write(pointer.cast(), 4);
    // SAFETY: the caller's promise, and the emulator has checked the address.
    unsafe { pointer.write(value) }
}

/// Reads a word that the calling thread has written in this launch.
///
/// # Safety
///
/// `pointer` is aligned and valid for reads; no other thread writes it meanwhile.
pub(crate) unsafe fn reload_f32(pointer: *const f32) -> f32 {
    // SAFETY: the caller's promise is more than is asked for.
    unsafe { load_f32(pointer) }
}

/// Reads a word that the calling thread, or its warp before it met, has written in this launch, or that it will write.
///
/// # Safety
///
/// `pointer` is aligned and valid for reads; no other thread writes it meanwhile.
pub(crate) unsafe fn reload_u32(pointer: *const u32) -> u32 {
    // SAFETY: the caller's promise is the same.
    unsafe { reload_f32(pointer.cast()) }.to_bits()
}

/// Writes a half word.
///
/// # Safety
///
/// `pointer` is aligned and valid for writes; no other thread touches it meanwhile.
pub(crate) unsafe fn store_u16(pointer: *mut u16, value: u16) {
    emulator::global_write(pointer.cast(), 2);
    // SAFETY: the caller's promise, and the emulator has checked the address.
    unsafe { pointer.write(value) }
}

/// Writes a word.
///
/// # Safety
///
/// `pointer` is aligned and valid for writes; no other thread touches it meanwhile.
pub(crate) unsafe fn store_u32(pointer: *mut u32, value: u32) {
    // SAFETY: the caller's promise is the same.
    unsafe { store_f32(pointer.cast(), f32::from_bits(value)) }
}

/// Writes two words.
///
/// # Safety
///
/// `pointer` is aligned to 8 bytes and valid for writes of 8; no other thread touches them meanwhile.
pub(crate) unsafe fn store_pair(pointer: *mut f32, values: [f32; 2]) {
    emulator::global_write(pointer.cast(), 8);
    // SAFETY: the caller's promise, and the emulator has checked the address.
    unsafe { pointer.cast::<[f32; 2]>().write_unaligned(values) }
}

/// Writes 16 bytes.
///
/// # Safety
///
/// `pointer` is aligned to 16 bytes and valid for writes of 16; no other thread touches them meanwhile.
pub(crate) unsafe fn store_words(pointer: *mut u32, values: [u32; 4]) {
    emulator::global_write(pointer.cast(), 16);
    // SAFETY: the caller's promise, and the emulator has checked the address.
    unsafe { pointer.cast::<[u32; 4]>().write_unaligned(values) }
}

/// Writes 16 bytes that are not read soon.
///
/// # Safety
///
/// As for [`store_words`].
pub(crate) unsafe fn store_words_away(pointer: *mut u32, values: [u32; 4]) {
    // SAFETY: the caller's promise is the same.
    unsafe { store_words(pointer, values) };
}

/// Adds to a word, atomically towards every thread of the device, and returns what it was.
///
/// # Safety
///
/// `pointer` is aligned, valid for reads and writes, and only ever added to during the launch.
pub(crate) unsafe fn fetch_add(pointer: *mut u32, value: u32) -> u32 {
    emulator::global_atomic(pointer.cast(), 4);
    // SAFETY: the caller's promise, and the emulator has checked the address.
    unsafe { std_atomic::AtomicU32::from_ptr(pointer) }.fetch_add(value, Ordering::Relaxed)
}

/// The same number, of which the compiler does not know that it is.
pub(crate) fn opaque(value: u32) -> u32 {
    core::hint::black_box(value)
}

/// As [`opaque`], for an address.
pub(crate) fn opaque_pointer<T>(pointer: *const T) -> *const T {
    pointer
}

/// The counter of a loop: how often the machine code has its body does not matter here.
pub(crate) fn turn(counter: u32) -> u32 {
    counter
}

/// Adds to a word, atomically towards every thread of the device.
///
/// # Safety
///
/// `pointer` is aligned, valid for reads and writes, and only ever added to during the launch.
pub(crate) unsafe fn add_f32(pointer: *mut f32, value: f32) {
    emulator::global_atomic(pointer.cast(), 4);
    // SAFETY: the caller's promise, and the emulator has checked the address; an `AtomicF32` has
    // the layout of the `f32` it stands for.
    unsafe { &*pointer.cast::<AtomicF32>() }
        .fetch_add(value, Ordering::Relaxed);
}

/// Adds to four neighbouring words, each atomically.
///
/// # Safety
///
/// As for [`add_f32`], for 16 bytes aligned to 16.
pub(crate) unsafe fn add_f32x4(pointer: *mut f32, values: [f32; 4]) {
    emulator::global_atomic(pointer.cast(), 16);
    for (index, value) in values.into_iter().enumerate() {
        // SAFETY: within the 16 bytes the caller vouches for.
        unsafe { add_f32(pointer.add(index), value) };
    }
}

/// Widens an IEEE half.
pub(crate) fn f16_to_f32(bits: u16) -> f32 {
    half::f16::from_bits(bits).to_f32()
}

/// Rounds to an IEEE half, to nearest even.
pub(crate) fn f32_to_f16(value: f32) -> u16 {
    half::f16::from_f32(value).to_bits()
}

/// Rounds two numbers to IEEE halves, to nearest even: the first is the lower half of the word.
pub(crate) fn f32_pair_to_f16(low: f32, high: f32) -> u32 {
    u32::from(f32_to_f16(low)) | u32::from(f32_to_f16(high)) << 16
}

/// Rounds two numbers to the upper halves of fp32 numbers, to nearest even: the first is the lower half of the word.
pub(crate) fn f32_pair_to_bf16(low: f32, high: f32) -> u32 {
    u32::from(super::f32_to_bf16(low)) | u32::from(super::f32_to_bf16(high)) << 16
}

/// The sums of two pairs of half-precision numbers, rounded to nearest even.
pub(crate) fn add_f16_pairs(first: u32, second: u32) -> u32 {
    let sum = |shift: u32| {
        f16_to_f32((first >> shift) as u16) + f16_to_f32((second >> shift) as u16)
    };
    f32_pair_to_f16(sum(0), sum(16))
}

/// The sums of two pairs of upper halves of fp32 numbers, rounded to nearest even.
pub(crate) fn add_bf16_pairs(first: u32, second: u32) -> u32 {
    super::sums_of_bf16(first, second)
}

/// The lower halves of two words, the first one's below the second one's.
pub(crate) fn low_halves(first: u32, second: u32) -> u32 {
    first & 0xffff | second << 16
}

/// The upper halves of two words, the first one's below the second one's.
pub(crate) fn high_halves(first: u32, second: u32) -> u32 {
    first >> 16 | second & 0xffff_0000
}

/// The block's dynamic shared memory as an array of words, from word `base` on.
#[derive(Clone, Copy)]
pub(crate) struct SharedWords {
    start: *mut u32,
}

impl SharedWords {
    /// The words from `base` on.
    pub(crate) fn new(base: u32) -> Self {
        let start = cuda_std::shared::dynamic_shared_mem::<u32>();
        Self { start: start.wrapping_add(base as usize) }
    }

    /// The words from `index` on.
    pub(crate) fn from(self, index: u32) -> Self {
        Self { start: self.start.wrapping_add(index as usize) }
    }

    /// Reads four matrices of eight rows of four words. Row `l % 8` of matrix `l / 8` begins at the word that lane `l` gives; lane
    /// `4 g + t` gets word `t` of row `g` of each.
    ///
    /// # Safety
    ///
    /// All lanes of the warp make the call together. The rows begin at multiples of four words and lie in the launch's shared memory,
    /// were written, and nobody writes them meanwhile.
    pub(crate) unsafe fn get_matrices(self, row: u32) -> [u32; 4] {
        let lane = warp::lane_id();
        [0, 1, 2, 3].map(|matrix| {
            // SAFETY: the caller's promise.
            unsafe {
                let from = 8 * matrix + lane / 4;
                let start = self.start.wrapping_add(row as usize).addr() as u64;
                let (start, _) = warp::warp_shuffle_idx(u32::MAX, start, from, 32);
                let start = self.start.with_addr(start as usize);
                Self { start }.get(lane % 4)
            }
        })
    }

    /// Reads word `index`.
    ///
    /// # Safety
    ///
    /// The word lies in the launch's shared memory, was written, and nobody writes it meanwhile.
    pub(crate) unsafe fn get(self, index: u32) -> u32 {
        let pointer = self.start.wrapping_add(index as usize);
        emulator::shared_read(pointer.cast(), 4);
        // SAFETY: the caller's promise, and the emulator has checked the address.
        unsafe { pointer.read() }
    }

    /// Writes word `index`.
    ///
    /// # Safety
    ///
    /// The word lies in the launch's shared memory and nobody else touches it meanwhile.
    pub(crate) unsafe fn set(self, index: u32, value: u32) {
        let pointer = self.start.wrapping_add(index as usize);
        emulator::shared_write(pointer.cast(), 4);
        // SAFETY: the caller's promise, and the emulator has checked the address.
        unsafe { pointer.write(value) }
    }

    /// Writes word `index` if it is `expected`, atomically towards the block; returns what it was before.
    ///
    /// # Safety
    ///
    /// The word lies in the launch's shared memory, was written, and is only accessed atomically meanwhile.
    pub(crate) unsafe fn exchange_if(self, index: u32, expected: u32, value: u32) -> u32 {
        // SAFETY: the caller's promise; an `AtomicU32` has the layout of a `u32` and checks the access.
        let word = unsafe { &*self.start.wrapping_add(index as usize).cast::<AtomicU32>() };
        let order = Ordering::Relaxed;
        word.compare_exchange(expected, value, order, order).unwrap_or_else(|actual| actual)
    }

    /// Lowers word `index` to `value` if that is less, atomically towards the block.
    ///
    /// # Safety
    ///
    /// As for [`exchange_if`](Self::exchange_if).
    pub(crate) unsafe fn lower(self, index: u32, value: u32) {
        // SAFETY: as for `exchange_if`.
        let word = unsafe { &*self.start.wrapping_add(index as usize).cast::<AtomicU32>() };
        word.fetch_min(value, Ordering::Relaxed);
    }

    /// Sets bits of word `index`, atomically towards the block.
    ///
    /// # Safety
    ///
    /// As for [`exchange_if`](Self::exchange_if).
    pub(crate) unsafe fn set_bits(self, index: u32, bits: u32) {
        // SAFETY: as for `exchange_if`.
        let word = unsafe { &*self.start.wrapping_add(index as usize).cast::<AtomicU32>() };
        word.fetch_or(bits, Ordering::Relaxed);
    }

    /// Reads words `index` and `index + 1`.
    ///
    /// # Safety
    ///
    /// As for [`get`](Self::get), for two words aligned to 8 bytes.
    pub(crate) unsafe fn get2(self, index: u32) -> [u32; 2] {
        let pointer = self.start.wrapping_add(index as usize);
        emulator::shared_read(pointer.cast(), 8);
        // SAFETY: the caller's promise, and the emulator has checked the address.
        unsafe { pointer.cast::<[u32; 2]>().read_unaligned() }
    }

    /// Reads words `index` to `index + 3`.
    ///
    /// # Safety
    ///
    /// As for [`get`](Self::get), for four words aligned to 16 bytes.
    pub(crate) unsafe fn get4(self, index: u32) -> [u32; 4] {
        let pointer = self.start.wrapping_add(index as usize);
        emulator::shared_read(pointer.cast(), 16);
        // SAFETY: the caller's promise, and the emulator has checked the address.
        unsafe { pointer.cast::<[u32; 4]>().read_unaligned() }
    }

    /// Writes words `index` and `index + 1`.
    ///
    /// # Safety
    ///
    /// As for [`set`](Self::set), for two words aligned to 8 bytes.
    pub(crate) unsafe fn set2(self, index: u32, values: [u32; 2]) {
        let pointer = self.start.wrapping_add(index as usize);
        emulator::shared_write(pointer.cast(), 8);
        // SAFETY: the caller's promise, and the emulator has checked the address.
        unsafe { pointer.cast::<[u32; 2]>().write_unaligned(values) }
    }

    /// Writes words `index` to `index + 3`.
    ///
    /// # Safety
    ///
    /// As for [`set`](Self::set), for four words aligned to 16 bytes.
    pub(crate) unsafe fn set4(self, index: u32, values: [u32; 4]) {
        let pointer = self.start.wrapping_add(index as usize);
        emulator::shared_write(pointer.cast(), 16);
        // SAFETY: the caller's promise, and the emulator has checked the address.
        unsafe { pointer.cast::<[u32; 4]>().write_unaligned(values) }
    }

    /// Reads the lower half of word `index / 2` where the index is even, else the upper one.
    ///
    /// # Safety
    ///
    /// As for [`get`](Self::get).
    pub(crate) unsafe fn get_half(self, index: u32) -> u16 {
        let pointer = self.start.cast::<u16>().wrapping_add(index as usize);
        emulator::shared_read(pointer.cast(), 2);
        // SAFETY: the caller's promise, and the emulator has checked the address.
        unsafe { pointer.read() }
    }

    /// Writes the lower half of word `index / 2` where the index is even, else the upper one.
    ///
    /// # Safety
    ///
    /// As for [`set`](Self::set).
    pub(crate) unsafe fn set_half(self, index: u32, value: u16) {
        let pointer = self.start.cast::<u16>().wrapping_add(index as usize);
        emulator::shared_write(pointer.cast(), 2);
        // SAFETY: the caller's promise, and the emulator has checked the address.
        unsafe { pointer.write(value) }
    }

    /// Copies a word from the device's memory to word `index`: at once.
    ///
    /// # Safety
    ///
    /// As for [`load_f32`] and [`set`](Self::set), until the copies were awaited.
    pub(crate) unsafe fn copy(self, index: u32, pointer: *const u32) {
        // SAFETY: the caller's promise is more than is asked for.
        unsafe { self.set(index, load_u32(pointer)) };
    }

    /// Copies two words, as [`copy`](Self::copy) does one.
    ///
    /// # Safety
    ///
    /// As for [`copy`](Self::copy), for two words aligned to 8 bytes on both sides.
    pub(crate) unsafe fn copy2(self, index: u32, pointer: *const f32) {
        let target = self.start.wrapping_add(index as usize);
        emulator::shared_write(target.cast(), 8);
        // SAFETY: the caller's promise, and the emulator has checked the address.
        unsafe { target.cast::<[f32; 2]>().write_unaligned(load_pair(pointer)) };
    }

    /// Copies four words, as [`copy`](Self::copy) does one.
    ///
    /// # Safety
    ///
    /// As for [`copy`](Self::copy), for four words aligned to 16 bytes on both sides.
    pub(crate) unsafe fn copy4(self, index: u32, pointer: *const u32) {
        // SAFETY: the caller's promise is more than is asked for.
        unsafe { self.set4(index, load_words(pointer)) };
    }
}

/// Nothing to wait for: in the emulator, copies are done at once.
pub(crate) fn await_copies() {}
