//! The same code for processors with and without wide vectors.

/// Work that is compiled once for every instruction set.
///
/// Implementations mark [`run`](Self::run), and what it calls in its inner loops, `#[inline(always)]`: only what is inlined is
/// compiled for the instruction set of its caller. The code is the same, and so are the results: nothing here asks for sums
/// in another order or for fused operations.
pub(super) trait Work {
    /// Does it.
    fn run(self);
}

/// Does the work with the widest vectors that this processor has.
#[inline]
pub(super) fn run(work: impl Work) {
    #[cfg(target_arch = "x86_64")]
    if std::arch::is_x86_feature_detected!("avx2") {
        // SAFETY: the processor has the instructions.
        unsafe { run_avx2(work) };
        return;
    }
    work.run();
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
fn run_avx2(work: impl Work) {
    work.run();
}

/// Asks for the cache line of a value, to be read soon.
#[inline(always)]
pub(super) fn prefetch<A>(value: &A) {
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        // SAFETY: every x86-64 processor has the instruction; it reads nothing that the program can see, and the address is
        // a value's.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(std::ptr::from_ref(value).cast()) };
    }
    // Other processors do without.
    #[cfg(not(target_arch = "x86_64"))]
    let _ = value;
}
