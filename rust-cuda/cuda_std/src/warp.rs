//! The threads of a warp talk to each other.
//!
//! A warp is 32 consecutive threads of a block; a thread's place in it is its lane. Every function
//! with a `mask` is a meeting: bit `i` stands for lane `i`, the lanes in the mask all have to call
//! the same function with the same mask, and each goes on only when all have come.
//!
//! # Panics
//!
//! On the host, every function panics when called outside a launch of the emulator.

use crate::platform;

mod sealed {
    pub trait Sealed {}
}

/// A value of 1, 2, 4 or 8 bytes that [`warp_shuffle_idx`] and its relatives can carry.
pub trait WarpShuffleValue: Copy + sealed::Sealed {
    /// Whether the value needs more than one 32-bit register.
    #[doc(hidden)]
    const WIDE: bool = size_of::<Self>() > 4;
    /// The value's bits, zero-extended.
    #[doc(hidden)]
    fn into_bits(self) -> u64;
    /// The value of the low bits.
    #[doc(hidden)]
    fn from_bits(bits: u64) -> Self;
}

macro_rules! shuffle_integers {
    ($($int:ty as $unsigned:ty),*) => {$(
        impl sealed::Sealed for $int {}
        impl WarpShuffleValue for $int {
            #[inline(always)]
            fn into_bits(self) -> u64 {
                u64::from(self as $unsigned)
            }
            #[inline(always)]
            fn from_bits(bits: u64) -> Self {
                bits as Self
            }
        }
    )*};
}

macro_rules! shuffle_floats {
    ($($float:ty as $unsigned:ty),*) => {$(
        impl sealed::Sealed for $float {}
        impl WarpShuffleValue for $float {
            #[inline(always)]
            fn into_bits(self) -> u64 {
                u64::from(self.to_bits())
            }
            #[inline(always)]
            fn from_bits(bits: u64) -> Self {
                Self::from_bits(bits as $unsigned)
            }
        }
    )*};
}

shuffle_integers!(u8 as u8, i8 as u8, u16 as u16, i16 as u16, u32 as u32, i32 as u32);
shuffle_integers!(u64 as u64, i64 as u64);
shuffle_floats!(f32 as u32, f64 as u64);

/// This thread's place in its warp, 0 to 31.
#[inline(always)]
#[must_use]
pub fn lane_id() -> u32 {
    platform::lane_id()
}

/// The lanes of the warp that execute this call together with this one.
#[inline(always)]
#[track_caller]
#[must_use]
pub fn activemask() -> u32 {
    platform::activemask()
}

/// Waits until all lanes of `mask` are here; what they wrote before is then visible to them.
///
/// # Safety
/// - This lane is in `mask`, and no lane in `mask` has returned from the kernel.
/// - All lanes in `mask` call this function with the same mask.
#[inline(always)]
pub unsafe fn sync_warp(mask: u32) {
    // SAFETY: the caller's promise is what the instruction asks for.
    unsafe { platform::sync_warp(mask) }
}

/// Whether `predicate` is true in all lanes of `mask`.
///
/// # Safety
/// - This lane is in `mask`, and no lane in `mask` has returned from the kernel.
/// - All lanes in `mask` call this function with the same mask.
#[inline(always)]
#[must_use]
pub unsafe fn warp_vote_all(mask: u32, predicate: bool) -> bool {
    // SAFETY: the caller's promise is what the instruction asks for.
    unsafe { platform::vote_all(mask, predicate) }
}

/// Whether `predicate` is true in any lane of `mask`.
///
/// # Safety
/// - This lane is in `mask`, and no lane in `mask` has returned from the kernel.
/// - All lanes in `mask` call this function with the same mask.
#[inline(always)]
#[must_use]
pub unsafe fn warp_vote_any(mask: u32, predicate: bool) -> bool {
    // SAFETY: the caller's promise is what the instruction asks for.
    unsafe { platform::vote_any(mask, predicate) }
}

/// The lanes of `mask` in which `predicate` is true, as bits.
///
/// # Safety
/// - This lane is in `mask`, and no lane in `mask` has returned from the kernel.
/// - All lanes in `mask` call this function with the same mask.
#[inline(always)]
#[must_use]
pub unsafe fn warp_vote_ballot(mask: u32, predicate: bool) -> u32 {
    // SAFETY: the caller's promise is what the instruction asks for.
    unsafe { platform::vote_ballot(mask, predicate) }
}

/// The lanes of `mask` whose `value` is the same as this lane's, as bits.
///
/// # Safety
/// - This lane is in `mask`, and no lane in `mask` has returned from the kernel.
/// - All lanes in `mask` call this function with the same mask.
#[inline(always)]
#[must_use]
pub unsafe fn warp_match_any(mask: u32, value: u32) -> u32 {
    // SAFETY: the caller's promise is what the instruction asks for.
    unsafe { platform::match_any(mask, value) }
}

/// The four ways of naming the lane to read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Direction {
    Down,
    Up,
    Index,
    Xor,
}

impl Direction {
    /// The lane that lane `lane` reads, and whether it lies in the segment.
    ///
    /// It is the definition in the PTX manual (`shfl.sync`): outside the segment a lane reads
    /// itself, except that `Xor` may reach into the segments before its own.
    #[inline(always)]
    pub(crate) fn source(self, lane: u32, argument: u32, width: u32) -> (u32, bool) {
        let argument = argument & 31;
        let first = lane & !(width - 1);
        let last = lane | (width - 1);
        let (source, in_range) = match self {
            Self::Down => (lane + argument, lane + argument <= last),
            Self::Up => (lane.wrapping_sub(argument), lane >= first + argument),
            Self::Index => (first | (argument & (width - 1)), true),
            Self::Xor => (lane ^ argument, lane ^ argument <= last),
        };
        (if in_range { source } else { lane }, in_range)
    }
}

macro_rules! shuffles {
    ($($(#[$doc:meta])* $name:ident, $direction:ident, $argument:ident;)*) => {$(
        $(#[$doc])*
        ///
        /// The warp is seen as segments of `width` lanes (1, 2, 4, 8, 16 or 32) that keep to
        /// themselves. The second result tells whether the named lane lies in the segment; if
        /// not, the first is this lane's own `value`. Only the low five bits of the lane or
        /// distance count.
        ///
        /// # Safety
        /// - This lane is in `mask`, and no lane in `mask` has returned from the kernel.
        /// - All lanes in `mask` call this function with the same mask.
        /// - The lane that is read is in `mask`; otherwise the result has no meaning.
        /// - `width` is a power of two, at most 32.
        #[inline(always)]
        #[must_use]
        pub unsafe fn $name<T: WarpShuffleValue>(
            mask: u32,
            value: T,
            $argument: u32,
            width: u32,
        ) -> (T, bool) {
            // SAFETY: the caller's promise is what the instruction asks for.
            unsafe { platform::shuffle(Direction::$direction, mask, value, $argument, width) }
        }
    )*};
}

shuffles! {
    /// The `value` of the lane `delta` places further on.
    warp_shuffle_down, Down, delta;
    /// The `value` of the lane `delta` places back.
    warp_shuffle_up, Up, delta;
    /// The `value` of lane `index` of the segment (modulo `width`).
    warp_shuffle_idx, Index, index;
    /// The `value` of the lane whose number differs from this lane's in the bits of `lane_mask`.
    warp_shuffle_xor, Xor, lane_mask;
}
