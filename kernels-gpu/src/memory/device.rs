//! The wrappers on the GPU: PTX instructions.

use core::arch::asm;

/// Reads a word that no thread writes during the launch.
///
/// # Safety
///
/// `pointer` is aligned and valid for reads; nobody writes it meanwhile.
#[inline(always)]
pub(crate) unsafe fn load_f32(pointer: *const f32) -> f32 {
    let value;
    // SAFETY: the caller vouches for the address; the instruction only reads it.
    unsafe {
        asm!(
            "{{ .reg .b64 %a; cvta.to.global.u64 %a, {p}; ld.global.nc.f32 {v}, [%a]; }}",
            p = in(reg64) pointer, v = out(reg32) value,
            options(pure, readonly, nostack, preserves_flags),
        );
    }
    value
}

/// Reads a word that no thread writes during the launch.
///
/// # Safety
///
/// `pointer` is aligned and valid for reads; nobody writes it meanwhile.
#[inline(always)]
pub(crate) unsafe fn load_u32(pointer: *const u32) -> u32 {
    // SAFETY: the caller's promise is the same.
    unsafe { load_f32(pointer.cast()) }.to_bits()
}

/// Reads a word that no thread writes during the launch; a zero when not `live`, and then no memory is touched.
///
/// # Safety
///
/// When `live`, as for [`load_f32`].
#[inline(always)]
pub(crate) unsafe fn load_f32_if(pointer: *const f32, live: bool) -> f32 {
    let value;
    // SAFETY: the caller vouches for the address when `live`; the load is predicated on it.
    unsafe {
        asm!(
            "{{ .reg .pred %l; .reg .b64 %a; setp.ne.u32 %l, {l}, 0;",
            "cvta.to.global.u64 %a, {p}; mov.b32 {v}, 0;",
            "@%l ld.global.nc.f32 {v}, [%a]; }}",
            p = in(reg64) pointer, l = in(reg32) u32::from(live), v = out(reg32) value,
            options(pure, readonly, nostack, preserves_flags),
        );
    }
    value
}

/// Reads a half word that no thread writes during the launch; a zero when not `live`, and then no memory is touched.
///
/// # Safety
///
/// When `live`, as for [`load_u16`].
#[inline(always)]
pub(crate) unsafe fn load_u16_if(pointer: *const u16, live: bool) -> u16 {
    let value;
    // SAFETY: the caller vouches for the address when `live`; the load is predicated on it.
    unsafe {
        asm!(
            "{{ .reg .pred %l; .reg .b64 %a; setp.ne.u32 %l, {l}, 0;",
            "cvta.to.global.u64 %a, {p}; mov.b16 {v}, 0;",
            "@%l ld.global.nc.u16 {v}, [%a]; }}",
            p = in(reg64) pointer, l = in(reg32) u32::from(live), v = out(reg16) value,
            options(pure, readonly, nostack, preserves_flags),
        );
    }
    value
}

/// Two to the power of `value`, within two units in the last place; 0 where that would be subnormal.
#[inline(always)]
pub(crate) fn exp2(value: f32) -> f32 {
    let power;
    // SAFETY: a register to register operation.
    unsafe {
        asm!("ex2.approx.ftz.f32 {p}, {v};", v = in(reg32) value, p = out(reg32) power,
            options(pure, nomem, nostack, preserves_flags));
    }
    power
}

/// Reads a half word that no thread writes during the launch.
///
/// # Safety
///
/// `pointer` is aligned and valid for reads; nobody writes it meanwhile.
#[inline(always)]
pub(crate) unsafe fn load_u16(pointer: *const u16) -> u16 {
    let value;
    // SAFETY: the caller vouches for the address; the instruction only reads it.
    unsafe {
        asm!(
            "{{ .reg .b64 %a; cvta.to.global.u64 %a, {p}; ld.global.nc.u16 {v}, [%a]; }}",
            p = in(reg64) pointer, v = out(reg16) value,
            options(pure, readonly, nostack, preserves_flags),
        );
    }
    value
}

/// Reads two words that no thread writes during the launch.
///
/// # Safety
///
/// `pointer` is aligned to 8 bytes and valid for reads of 8; nobody writes them meanwhile.
#[inline(always)]
pub(crate) unsafe fn load_pair(pointer: *const f32) -> [f32; 2] {
    let (a, b);
    // SAFETY: the caller vouches for the address; the instruction only reads it.
    unsafe {
        asm!(
            "{{ .reg .b64 %a; cvta.to.global.u64 %a, {p};",
            "ld.global.nc.v2.f32 {{{a}, {b}}}, [%a]; }}",
            p = in(reg64) pointer, a = out(reg32) a, b = out(reg32) b,
            options(pure, readonly, nostack, preserves_flags),
        );
    }
    [a, b]
}

/// Reads 16 bytes that no thread writes during the launch.
///
/// # Safety
///
/// `pointer` is aligned to 16 bytes and valid for reads of 16; nobody writes them meanwhile.
#[inline(always)]
pub(crate) unsafe fn load_words(pointer: *const u32) -> [u32; 4] {
    let (a, b, c, d);
    // SAFETY: the caller vouches for the address; the instruction only reads it.
    unsafe {
        asm!(
            "{{ .reg .b64 %a; cvta.to.global.u64 %a, {p};",
            "ld.global.nc.v4.b32 {{{a}, {b}, {c}, {d}}}, [%a]; }}",
            p = in(reg64) pointer,
            a = out(reg32) a, b = out(reg32) b, c = out(reg32) c, d = out(reg32) d,
            options(pure, readonly, nostack, preserves_flags),
        );
    }
    [a, b, c, d]
}

/// Reads 16 bytes that no thread writes during the launch; zeros when not `live`, and then no
/// memory is touched.
///
/// # Safety
///
/// When `live`, `pointer` is aligned to 16 bytes and valid for reads of 16; nobody writes them
/// meanwhile.
#[inline(always)]
pub(crate) unsafe fn load_words_if(pointer: *const u32, live: bool) -> [u32; 4] {
    let (a, b, c, d);
    // SAFETY: the caller vouches for the address when `live`; the load is predicated on it.
    unsafe {
        asm!(
            "{{ .reg .pred %l; .reg .b64 %a; setp.ne.u32 %l, {l}, 0;",
            "cvta.to.global.u64 %a, {p};",
            "mov.b32 {a}, 0; mov.b32 {b}, 0; mov.b32 {c}, 0; mov.b32 {d}, 0;",
            "@%l ld.global.nc.v4.b32 {{{a}, {b}, {c}, {d}}}, [%a]; }}",
            p = in(reg64) pointer, l = in(reg32) u32::from(live),
            a = out(reg32) a, b = out(reg32) b, c = out(reg32) c, d = out(reg32) d,
            options(pure, readonly, nostack, preserves_flags),
        );
    }
    [a, b, c, d]
}

/// As [`load_words_if`], where it stands in the source: loads that may be done at any time are put where what they bring is needed,
/// and there it is waited for.
///
/// # Safety
///
/// As for [`load_words_if`].
#[inline(always)]
pub(crate) unsafe fn load_words_ahead_if(pointer: *const u32, live: bool) -> [u32; 4] {
    let (a, b, c, d);
    // SAFETY: as in `load_words_if`. Not `pure`, and no load of what never changes: it must stay where it is.
    unsafe {
        asm!(
            "{{ .reg .pred %l; .reg .b64 %a; setp.ne.u32 %l, {l}, 0;",
            "cvta.to.global.u64 %a, {p};",
            "mov.b32 {a}, 0; mov.b32 {b}, 0; mov.b32 {c}, 0; mov.b32 {d}, 0;",
            "@%l ld.global.v4.b32 {{{a}, {b}, {c}, {d}}}, [%a]; }}",
            p = in(reg64) pointer, l = in(reg32) u32::from(live),
            a = out(reg32) a, b = out(reg32) b, c = out(reg32) c, d = out(reg32) d,
            options(readonly, nostack, preserves_flags),
        );
    }
    [a, b, c, d]
}

/// As [`load_words_ahead_if`], of 8 bytes.
///
/// # Safety
///
/// When `live`, `pointer` is aligned to 8 bytes and valid for reads of 8; nobody writes them meanwhile.
#[inline(always)]
pub(crate) unsafe fn load_word_pair_ahead_if(pointer: *const u32, live: bool) -> [u32; 2] {
    let (a, b);
    // SAFETY: as in `load_words_ahead_if`.
    unsafe {
        asm!(
            "{{ .reg .pred %l; .reg .b64 %a; setp.ne.u32 %l, {l}, 0;",
            "cvta.to.global.u64 %a, {p}; mov.b32 {a}, 0; mov.b32 {b}, 0;",
            "@%l ld.global.v2.b32 {{{a}, {b}}}, [%a]; }}",
            p = in(reg64) pointer, l = in(reg32) u32::from(live),
            a = out(reg32) a, b = out(reg32) b,
            options(readonly, nostack, preserves_flags),
        );
    }
    [a, b]
}

/// Reads 16 bytes that no thread writes during the launch, past the first-level cache: from the second, or from memory.
///
/// # Safety
///
/// `pointer` is aligned to 16 bytes and valid for reads of 16; nobody writes them meanwhile.
#[inline(always)]
pub(crate) unsafe fn load_words_far(pointer: *const u32) -> [u32; 4] {
    let (a, b, c, d);
    // SAFETY: the caller vouches for the address. Not `pure`: every read is to happen.
    unsafe {
        asm!(
            "{{ .reg .b64 %a; cvta.to.global.u64 %a, {p};",
            "ld.global.cg.v4.b32 {{{a}, {b}, {c}, {d}}}, [%a]; }}",
            p = in(reg64) pointer,
            a = out(reg32) a, b = out(reg32) b, c = out(reg32) c, d = out(reg32) d,
            options(readonly, nostack, preserves_flags),
        );
    }
    [a, b, c, d]
}

/// Waits for the launches before on the stream, whose results may be read behind it: the kernel may have been started
/// before they were through. The launch behind may from now on be started too, when there is room. Nothing to do before
/// sm_90, where launches follow each other.
#[inline(always)]
pub(crate) fn await_launches_before() {
    #[cfg(cuda_arch_ge_90)]
    // SAFETY: both are about the order of launches alone.
    unsafe {
        asm!("griddepcontrol.launch_dependents; griddepcontrol.wait;", options(nostack, preserves_flags));
    }
}

/// Writes a word.
///
/// # Safety
///
/// `pointer` is aligned and valid for writes; no other thread touches it meanwhile.
#[inline(always)]
pub(crate) unsafe fn store_f32(pointer: *mut f32, value: f32) {
    // SAFETY: the caller vouches for the address.
    unsafe {
        asm!(
            "{{ .reg .b64 %a; cvta.to.global.u64 %a, {p}; st.global.f32 [%a], {v}; }}",
            p = in(reg64) pointer, v = in(reg32) value,
            options(nostack, preserves_flags),
        );
    }
}

/// Reads a word that the calling thread has written in this launch.
///
/// # Safety
///
/// `pointer` is aligned and valid for reads; no other thread writes it meanwhile.
#[inline(always)]
pub(crate) unsafe fn reload_f32(pointer: *const f32) -> f32 {
    let value;
    // SAFETY: the caller vouches for the address. Not `pure`: the thread itself writes it.
    unsafe {
        asm!(
            "{{ .reg .b64 %a; cvta.to.global.u64 %a, {p}; ld.global.f32 {v}, [%a]; }}",
            p = in(reg64) pointer, v = out(reg32) value,
            options(readonly, nostack, preserves_flags),
        );
    }
    value
}

/// Reads a word that the calling thread, or its warp before it met, has written in this launch, or that it will write.
///
/// # Safety
///
/// `pointer` is aligned and valid for reads; no other thread writes it meanwhile.
#[inline(always)]
pub(crate) unsafe fn reload_u32(pointer: *const u32) -> u32 {
    // SAFETY: the caller's promise is the same.
    unsafe { reload_f32(pointer.cast()) }.to_bits()
}

/// Writes a half word.
///
/// # Safety
///
/// `pointer` is aligned and valid for writes; no other thread touches it meanwhile.
#[inline(always)]
pub(crate) unsafe fn store_u16(pointer: *mut u16, value: u16) {
    // SAFETY: the caller vouches for the address.
    unsafe {
        asm!(
            "{{ .reg .b64 %a; cvta.to.global.u64 %a, {p}; st.global.u16 [%a], {v}; }}",
            p = in(reg64) pointer, v = in(reg16) value,
            options(nostack, preserves_flags),
        );
    }
}

/// Writes a word.
///
/// # Safety
///
/// `pointer` is aligned and valid for writes; no other thread touches it meanwhile.
#[inline(always)]
pub(crate) unsafe fn store_u32(pointer: *mut u32, value: u32) {
    // SAFETY: the caller's promise is the same.
    unsafe { store_f32(pointer.cast(), f32::from_bits(value)) }
}

/// Writes two words.
///
/// # Safety
///
/// `pointer` is aligned to 8 bytes and valid for writes of 8; no other thread touches them meanwhile.
#[inline(always)]
pub(crate) unsafe fn store_pair(pointer: *mut f32, [a, b]: [f32; 2]) {
    // SAFETY: the caller vouches for the address.
    unsafe {
        asm!(
            "{{ .reg .b64 %a; cvta.to.global.u64 %a, {p}; st.global.v2.f32 [%a], {{{a}, {b}}}; }}",
            p = in(reg64) pointer, a = in(reg32) a, b = in(reg32) b,
            options(nostack, preserves_flags),
        );
    }
}

/// Writes 16 bytes.
///
/// # Safety
///
/// `pointer` is aligned to 16 bytes and valid for writes of 16; no other thread touches them meanwhile.
#[inline(always)]
pub(crate) unsafe fn store_words(pointer: *mut u32, values: [u32; 4]) {
    let [a, b, c, d] = values;
    // SAFETY: the caller vouches for the address.
    unsafe {
        asm!(
            "{{ .reg .b64 %a; cvta.to.global.u64 %a, {p};",
            "st.global.v4.b32 [%a], {{{a}, {b}, {c}, {d}}}; }}",
            p = in(reg64) pointer,
            a = in(reg32) a, b = in(reg32) b, c = in(reg32) c, d = in(reg32) d,
            options(nostack, preserves_flags),
        );
    }
}

/// Writes 16 bytes that are not read soon: they make way for others in the second-level cache.
///
/// # Safety
///
/// As for [`store_words`].
#[inline(always)]
pub(crate) unsafe fn store_words_away(pointer: *mut u32, values: [u32; 4]) {
    let [a, b, c, d] = values;
    // SAFETY: the caller vouches for the address.
    unsafe {
        asm!(
            "{{ .reg .b64 %a; cvta.to.global.u64 %a, {p};",
            "st.global.cs.v4.b32 [%a], {{{a}, {b}, {c}, {d}}}; }}",
            p = in(reg64) pointer,
            a = in(reg32) a, b = in(reg32) b, c = in(reg32) c, d = in(reg32) d,
            options(nostack, preserves_flags),
        );
    }
}

/// Adds to a word, atomically towards every thread of the device, and returns what it was.
///
/// # Safety
///
/// `pointer` is aligned, valid for reads and writes, and only ever added to during the launch.
#[inline(always)]
pub(crate) unsafe fn fetch_add(pointer: *mut u32, value: u32) -> u32 {
    let before;
    // SAFETY: the caller vouches for the address.
    unsafe {
        asm!(
            "{{ .reg .b64 %a; cvta.to.global.u64 %a, {p}; atom.global.add.u32 {b}, [%a], {v}; }}",
            p = in(reg64) pointer, v = in(reg32) value, b = out(reg32) before,
            options(nostack, preserves_flags),
        );
    }
    before
}

/// The same number, of which the compiler does not know that it is.
#[inline(always)]
pub(crate) fn opaque(value: u32) -> u32 {
    let same;
    // SAFETY: a move from register to register. Not `pure`: it must stay where it is.
    unsafe {
        asm!("mov.b32 {s}, {v};", v = in(reg32) value, s = out(reg32) same,
            options(nomem, nostack, preserves_flags));
    }
    same
}

/// As [`opaque`], for an address.
#[inline(always)]
pub(crate) fn opaque_pointer<T>(pointer: *const T) -> *const T {
    let same;
    // SAFETY: as in `opaque`.
    unsafe {
        asm!("mov.b64 {s}, {p};", p = in(reg64) pointer, s = out(reg64) same,
            options(nomem, nostack, preserves_flags));
    }
    same
}

/// The counter of a loop, at the beginning of its body. Neither the compiler nor the assembler writes several turns of the
/// loop out then: they are few, and the registers wanted elsewhere.
#[inline(always)]
pub(crate) fn turn(counter: u32) -> u32 {
    let same;
    // SAFETY: a directive to the assembler, and a move from register to register. Not `pure`: it must stay where it is.
    unsafe {
        asm!(".pragma \"nounroll\"; mov.b32 {s}, {v};", v = in(reg32) counter, s = out(reg32) same,
            options(nomem, nostack, preserves_flags));
    }
    same
}

/// Adds to a word, atomically towards every thread of the device.
///
/// # Safety
///
/// `pointer` is aligned, valid for reads and writes, and only ever added to during the launch.
#[inline(always)]
pub(crate) unsafe fn add_f32(pointer: *mut f32, value: f32) {
    // SAFETY: the caller vouches for the address.
    unsafe {
        asm!(
            "{{ .reg .b64 %a; cvta.to.global.u64 %a, {p}; red.global.add.f32 [%a], {v}; }}",
            p = in(reg64) pointer, v = in(reg32) value,
            options(nostack, preserves_flags),
        );
    }
}

/// Adds to four neighbouring words, each atomically: one instruction from sm_90 on, four before.
///
/// # Safety
///
/// As for [`add_f32`], for 16 bytes aligned to 16.
#[inline(always)]
pub(crate) unsafe fn add_f32x4(pointer: *mut f32, values: [f32; 4]) {
    let [a, b, c, d] = values;
    #[cfg(cuda_arch_ge_90)]
    // SAFETY: the caller vouches for the address.
    unsafe {
        asm!(
            "{{ .reg .b64 %a; cvta.to.global.u64 %a, {p};",
            "red.global.add.v4.f32 [%a], {{{a}, {b}, {c}, {d}}}; }}",
            p = in(reg64) pointer,
            a = in(reg32) a, b = in(reg32) b, c = in(reg32) c, d = in(reg32) d,
            options(nostack, preserves_flags),
        );
    }
    #[cfg(not(cuda_arch_ge_90))]
    // SAFETY: the caller vouches for the address.
    unsafe {
        asm!(
            "{{ .reg .b64 %a; cvta.to.global.u64 %a, {p};",
            "red.global.add.f32 [%a], {a}; red.global.add.f32 [%a+4], {b};",
            "red.global.add.f32 [%a+8], {c}; red.global.add.f32 [%a+12], {d}; }}",
            p = in(reg64) pointer,
            a = in(reg32) a, b = in(reg32) b, c = in(reg32) c, d = in(reg32) d,
            options(nostack, preserves_flags),
        );
    }
}

/// Widens an IEEE half.
#[inline(always)]
pub(crate) fn f16_to_f32(bits: u16) -> f32 {
    let value;
    // SAFETY: a register to register conversion.
    unsafe {
        asm!("cvt.f32.f16 {v}, {h};", h = in(reg16) bits, v = out(reg32) value,
            options(pure, nomem, nostack, preserves_flags));
    }
    value
}

/// Rounds to an IEEE half, to nearest even.
#[inline(always)]
pub(crate) fn f32_to_f16(value: f32) -> u16 {
    let bits;
    // SAFETY: a register to register conversion.
    unsafe {
        asm!("cvt.rn.f16.f32 {h}, {v};", v = in(reg32) value, h = out(reg16) bits,
            options(pure, nomem, nostack, preserves_flags));
    }
    bits
}

/// Rounds two numbers to IEEE halves, to nearest even: the first is the lower half of the word.
#[inline(always)]
pub(crate) fn f32_pair_to_f16(low: f32, high: f32) -> u32 {
    #[cfg(cuda_arch_ge_80)]
    {
        let halves;
        // SAFETY: a register to register conversion.
        unsafe {
            asm!("cvt.rn.f16x2.f32 {h}, {b}, {a};", a = in(reg32) low, b = in(reg32) high,
                h = out(reg32) halves, options(pure, nomem, nostack, preserves_flags));
        }
        halves
    }
    #[cfg(not(cuda_arch_ge_80))]
    {
        u32::from(f32_to_f16(low)) | u32::from(f32_to_f16(high)) << 16
    }
}

/// Rounds two numbers to the upper halves of fp32 numbers, to nearest even: the first is the lower half of the word.
#[inline(always)]
pub(crate) fn f32_pair_to_bf16(low: f32, high: f32) -> u32 {
    #[cfg(cuda_arch_ge_80)]
    {
        let halves;
        // SAFETY: a register to register conversion.
        unsafe {
            asm!("cvt.rn.bf16x2.f32 {h}, {b}, {a};", a = in(reg32) low, b = in(reg32) high,
                h = out(reg32) halves, options(pure, nomem, nostack, preserves_flags));
        }
        halves
    }
    #[cfg(not(cuda_arch_ge_80))]
    {
        u32::from(super::f32_to_bf16(low)) | u32::from(super::f32_to_bf16(high)) << 16
    }
}

/// The sums of two pairs of half-precision numbers, rounded to nearest even.
#[inline(always)]
pub(crate) fn add_f16_pairs(first: u32, second: u32) -> u32 {
    let sums;
    // SAFETY: a register to register operation.
    unsafe {
        asm!("add.rn.f16x2 {s}, {a}, {b};", a = in(reg32) first, b = in(reg32) second,
            s = out(reg32) sums, options(pure, nomem, nostack, preserves_flags));
    }
    sums
}

/// The sums of two pairs of upper halves of fp32 numbers, rounded to nearest even.
#[inline(always)]
pub(crate) fn add_bf16_pairs(first: u32, second: u32) -> u32 {
    #[cfg(cuda_arch_ge_80)]
    {
        let sums;
        // One for both factors: there is an addition of these pairs only from sm_90 on.
        // SAFETY: a register to register operation.
        unsafe {
            asm!("fma.rn.bf16x2 {s}, {a}, {o}, {b};", a = in(reg32) first, b = in(reg32) second,
                o = in(reg32) 0x3f80_3f80_u32, s = out(reg32) sums,
                options(pure, nomem, nostack, preserves_flags));
        }
        sums
    }
    #[cfg(not(cuda_arch_ge_80))]
    {
        super::sums_of_bf16(first, second)
    }
}

/// The lower halves of two words, the first one's below the second one's.
#[inline(always)]
pub(crate) fn low_halves(first: u32, second: u32) -> u32 {
    let halves;
    // SAFETY: a register to register permutation of bytes.
    unsafe {
        asm!("prmt.b32 {h}, {a}, {b}, 0x5410;", a = in(reg32) first, b = in(reg32) second,
            h = out(reg32) halves, options(pure, nomem, nostack, preserves_flags));
    }
    halves
}

/// The upper halves of two words, the first one's below the second one's.
#[inline(always)]
pub(crate) fn high_halves(first: u32, second: u32) -> u32 {
    let halves;
    // SAFETY: a register to register permutation of bytes.
    unsafe {
        asm!("prmt.b32 {h}, {a}, {b}, 0x7632;", a = in(reg32) first, b = in(reg32) second,
            h = out(reg32) halves, options(pure, nomem, nostack, preserves_flags));
    }
    halves
}

/// The block's dynamic shared memory as an array of words, from word `base` on.
#[derive(Clone, Copy)]
pub(crate) struct SharedWords {
    /// Address within the shared window.
    address: u32,
}

impl SharedWords {
    /// The words from `base` on.
    #[inline(always)]
    pub(crate) fn new(base: u32) -> Self {
        let start: u64;
        // SAFETY: an address conversion; the pointer is into shared memory by definition.
        unsafe {
            asm!("cvta.to.shared.u64 {a}, {p};",
                p = in(reg64) cuda_std::shared::dynamic_shared_mem::<u32>(), a = out(reg64) start,
                options(pure, nomem, nostack, preserves_flags));
        }
        Self { address: start as u32 + base * 4 }
    }

    /// The words from `index` on.
    #[inline(always)]
    pub(crate) fn from(self, index: u32) -> Self {
        Self { address: self.address + index * 4 }
    }

    /// Reads four matrices of eight rows of four words. Row `l % 8` of matrix `l / 8` begins at the word that lane `l` gives; lane
    /// `4 g + t` gets word `t` of row `g` of each.
    ///
    /// # Safety
    ///
    /// All lanes of the warp make the call together. The rows begin at multiples of four words and lie in the launch's shared memory,
    /// were written, and nobody writes them meanwhile.
    #[cfg(cuda_arch_ge_80)]
    #[inline(always)]
    pub(crate) unsafe fn get_matrices(self, row: u32) -> [u32; 4] {
        let (a, b, c, d);
        // SAFETY: the caller vouches for the address. Not `pure`: others write between barriers.
        unsafe {
            asm!("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {{{a}, {b}, {c}, {d}}}, [{p}];",
                p = in(reg32) self.address + row * 4,
                a = out(reg32) a, b = out(reg32) b, c = out(reg32) c, d = out(reg32) d,
                options(readonly, nostack, preserves_flags));
        }
        [a, b, c, d]
    }

    /// Reads word `index`.
    ///
    /// # Safety
    ///
    /// The word lies in the launch's shared memory, was written, and nobody writes it meanwhile.
    #[inline(always)]
    pub(crate) unsafe fn get(self, index: u32) -> u32 {
        let value;
        // SAFETY: the caller vouches for the address. Not `pure`: others write between barriers.
        unsafe {
            asm!("ld.shared.b32 {v}, [{a}];", a = in(reg32) self.address + index * 4,
                v = out(reg32) value, options(readonly, nostack, preserves_flags));
        }
        value
    }

    /// Writes word `index`.
    ///
    /// # Safety
    ///
    /// The word lies in the launch's shared memory and nobody else touches it meanwhile.
    #[inline(always)]
    pub(crate) unsafe fn set(self, index: u32, value: u32) {
        // SAFETY: the caller vouches for the address.
        unsafe {
            asm!("st.shared.b32 [{a}], {v};", a = in(reg32) self.address + index * 4,
                v = in(reg32) value, options(nostack, preserves_flags));
        }
    }

    /// Writes word `index` if it is `expected`, atomically towards the block; returns what it was before.
    ///
    /// # Safety
    ///
    /// The word lies in the launch's shared memory, was written, and is only accessed atomically meanwhile.
    #[inline(always)]
    pub(crate) unsafe fn exchange_if(self, index: u32, expected: u32, value: u32) -> u32 {
        let before;
        // SAFETY: the caller vouches for the address.
        unsafe {
            asm!("atom.shared.cas.b32 {b}, [{a}], {e}, {v};",
                a = in(reg32) self.address + index * 4, e = in(reg32) expected,
                v = in(reg32) value, b = out(reg32) before,
                options(nostack, preserves_flags));
        }
        before
    }

    /// Lowers word `index` to `value` if that is less, atomically towards the block.
    ///
    /// # Safety
    ///
    /// As for [`exchange_if`](Self::exchange_if).
    #[inline(always)]
    pub(crate) unsafe fn lower(self, index: u32, value: u32) {
        // SAFETY: the caller vouches for the address.
        unsafe {
            asm!("red.shared.min.u32 [{a}], {v};", a = in(reg32) self.address + index * 4,
                v = in(reg32) value, options(nostack, preserves_flags));
        }
    }

    /// Sets bits of word `index`, atomically towards the block.
    ///
    /// # Safety
    ///
    /// As for [`exchange_if`](Self::exchange_if).
    #[inline(always)]
    pub(crate) unsafe fn set_bits(self, index: u32, bits: u32) {
        // SAFETY: the caller vouches for the address.
        unsafe {
            asm!("red.shared.or.b32 [{a}], {v};", a = in(reg32) self.address + index * 4,
                v = in(reg32) bits, options(nostack, preserves_flags));
        }
    }

    /// Reads words `index` and `index + 1`.
    ///
    /// # Safety
    ///
    /// As for [`get`](Self::get), for two words aligned to 8 bytes.
    #[inline(always)]
    pub(crate) unsafe fn get2(self, index: u32) -> [u32; 2] {
        let (a, b);
        // SAFETY: the caller vouches for the address.
        unsafe {
            asm!("ld.shared.v2.b32 {{{a}, {b}}}, [{p}];", p = in(reg32) self.address + index * 4,
                a = out(reg32) a, b = out(reg32) b,
                options(readonly, nostack, preserves_flags));
        }
        [a, b]
    }

    /// Reads words `index` to `index + 3`.
    ///
    /// # Safety
    ///
    /// As for [`get`](Self::get), for four words aligned to 16 bytes.
    #[inline(always)]
    pub(crate) unsafe fn get4(self, index: u32) -> [u32; 4] {
        let (a, b, c, d);
        // SAFETY: the caller vouches for the address.
        unsafe {
            asm!("ld.shared.v4.b32 {{{a}, {b}, {c}, {d}}}, [{p}];",
                p = in(reg32) self.address + index * 4,
                a = out(reg32) a, b = out(reg32) b, c = out(reg32) c, d = out(reg32) d,
                options(readonly, nostack, preserves_flags));
        }
        [a, b, c, d]
    }

    /// Writes words `index` and `index + 1`.
    ///
    /// # Safety
    ///
    /// As for [`set`](Self::set), for two words aligned to 8 bytes.
    #[inline(always)]
    pub(crate) unsafe fn set2(self, index: u32, values: [u32; 2]) {
        let [a, b] = values;
        // SAFETY: the caller vouches for the address.
        unsafe {
            asm!("st.shared.v2.b32 [{p}], {{{a}, {b}}};",
                p = in(reg32) self.address + index * 4, a = in(reg32) a, b = in(reg32) b,
                options(nostack, preserves_flags));
        }
    }

    /// Writes words `index` to `index + 3`.
    ///
    /// # Safety
    ///
    /// As for [`set`](Self::set), for four words aligned to 16 bytes.
    #[inline(always)]
    pub(crate) unsafe fn set4(self, index: u32, values: [u32; 4]) {
        let [a, b, c, d] = values;
        // SAFETY: the caller vouches for the address.
        unsafe {
            asm!("st.shared.v4.b32 [{p}], {{{a}, {b}, {c}, {d}}};",
                p = in(reg32) self.address + index * 4,
                a = in(reg32) a, b = in(reg32) b, c = in(reg32) c, d = in(reg32) d,
                options(nostack, preserves_flags));
        }
    }

    /// Reads the lower half of word `index / 2` where the index is even, else the upper one.
    ///
    /// # Safety
    ///
    /// As for [`get`](Self::get).
    #[inline(always)]
    pub(crate) unsafe fn get_half(self, index: u32) -> u16 {
        let value;
        // SAFETY: the caller vouches for the address. Not `pure`: others write between barriers.
        unsafe {
            asm!("ld.shared.b16 {v}, [{a}];", a = in(reg32) self.address + index * 2,
                v = out(reg16) value, options(readonly, nostack, preserves_flags));
        }
        value
    }

    /// Writes the lower half of word `index / 2` where the index is even, else the upper one.
    ///
    /// # Safety
    ///
    /// As for [`set`](Self::set).
    #[inline(always)]
    pub(crate) unsafe fn set_half(self, index: u32, value: u16) {
        // SAFETY: the caller vouches for the address.
        unsafe {
            asm!("st.shared.b16 [{a}], {v};", a = in(reg32) self.address + index * 2,
                v = in(reg16) value, options(nostack, preserves_flags));
        }
    }

    /// Copies a word from the device's memory to word `index`, by [`await_copies`]. The thread goes on meanwhile from sm_80 on.
    ///
    /// # Safety
    ///
    /// As for [`load_f32`] and [`set`](Self::set), until the copies were awaited.
    #[inline(always)]
    pub(crate) unsafe fn copy(self, index: u32, pointer: *const u32) {
        #[cfg(cuda_arch_ge_80)]
        // SAFETY: the caller vouches for both addresses.
        unsafe {
            asm!("{{ .reg .b64 %a; cvta.to.global.u64 %a, {p}; cp.async.ca.shared.global [{s}], [%a], 4; }}",
                p = in(reg64) pointer, s = in(reg32) self.address + index * 4,
                options(nostack, preserves_flags));
        }
        #[cfg(not(cuda_arch_ge_80))]
        // SAFETY: as above.
        unsafe {
            self.set(index, load_u32(pointer));
        }
    }

    /// Copies two words, as [`copy`](Self::copy) does one.
    ///
    /// # Safety
    ///
    /// As for [`copy`](Self::copy), for two words aligned to 8 bytes on both sides.
    #[inline(always)]
    pub(crate) unsafe fn copy2(self, index: u32, pointer: *const f32) {
        #[cfg(cuda_arch_ge_80)]
        // SAFETY: the caller vouches for both addresses.
        unsafe {
            asm!("{{ .reg .b64 %a; cvta.to.global.u64 %a, {p}; cp.async.ca.shared.global [{s}], [%a], 8; }}",
                p = in(reg64) pointer, s = in(reg32) self.address + index * 4,
                options(nostack, preserves_flags));
        }
        #[cfg(not(cuda_arch_ge_80))]
        // SAFETY: as above.
        unsafe {
            let [a, b] = load_pair(pointer).map(f32::to_bits);
            self.set(index, a);
            self.set(index + 1, b);
        }
    }

    /// Copies four words, as [`copy`](Self::copy) does one.
    ///
    /// # Safety
    ///
    /// As for [`copy`](Self::copy), for four words aligned to 16 bytes on both sides.
    #[inline(always)]
    pub(crate) unsafe fn copy4(self, index: u32, pointer: *const u32) {
        #[cfg(cuda_arch_ge_80)]
        // SAFETY: the caller vouches for both addresses.
        unsafe {
            asm!("{{ .reg .b64 %a; cvta.to.global.u64 %a, {p}; cp.async.cg.shared.global [{s}], [%a], 16; }}",
                p = in(reg64) pointer, s = in(reg32) self.address + index * 4,
                options(nostack, preserves_flags));
        }
        #[cfg(not(cuda_arch_ge_80))]
        // SAFETY: as above.
        unsafe {
            self.set4(index, load_words(pointer));
        }
    }
}

/// Waits for all copies to shared memory that the calling thread has begun. Others see them when they have met it after that.
#[inline(always)]
pub(crate) fn await_copies() {
    #[cfg(cuda_arch_ge_80)]
    // SAFETY: it waits, and nothing else.
    unsafe {
        asm!("cp.async.wait_all;", options(nostack, preserves_flags));
    }
}
