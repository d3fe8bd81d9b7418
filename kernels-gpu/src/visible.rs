//! The (point, camera) pairs of an anchor that are seen at all.
//!
//! On driving data about one pair in six is. A block first writes the seen ones of up to
//! [`PAIRS_AT_A_TIME`] pairs into a list in shared memory, in ascending order, so that afterwards all
//! its warps have work and the order of every sum is the same in every run.

use crate::block::Place;
use crate::limits::{PAIRS_AT_A_TIME, window_words};
use crate::memory::{self, SharedWords};
use crate::sample;
use cuda_std::thread;

/// The list in shared memory.
#[derive(Clone, Copy)]
pub(crate) struct Visible {
    pairs: SharedWords,
}

impl Visible {
    /// The block's list.
    #[inline(always)]
    pub(crate) fn new() -> Self {
        Self { pairs: SharedWords::new(window_words::VISIBLE) }
    }

    /// Lists those of the numbers `first`, `first + 1`, … up to [`PAIRS_AT_A_TIME`] of them or `end`, that are
    /// `seen`, and returns how many they are. The list is complete for every thread on return.
    ///
    /// # Safety
    ///
    /// Every thread of the block makes the call with the same arguments, and is done reading the previous list.
    #[inline(always)]
    pub(crate) unsafe fn collect(
        self,
        place: Place,
        first: u32,
        end: u32,
        seen: impl Fn(u32) -> bool,
    ) -> u32 {
        let end = end.min(first + PAIRS_AT_A_TIME);
        let mut total = 0;
        let mut start = first;
        while start < end {
            let pair = start + place.thread;
            let seen = pair < end && seen(pair);
            // SAFETY: the whole block is here: the loop's bounds are its own. The barrier below has passed since the
            // counts were read.
            let ([rank], found) = unsafe { place.rank([seen]) };
            if seen {
                // SAFETY: ranks are distinct, and there are no more of them than pairs.
                unsafe { self.pairs.set(total + rank, pair) };
            }
            total += found;
            // The counts may be written again, and the list read, after this.
            thread::sync_threads();
            start += place.threads;
        }
        total
    }

    /// The number at `index` of the list.
    ///
    /// # Safety
    ///
    /// `index` is below what [`collect`](Self::collect) returned.
    #[inline(always)]
    pub(crate) unsafe fn pair(self, index: u32) -> u32 {
        // SAFETY: written by `collect`, which ended with a barrier.
        unsafe { self.pairs.get(index) }
    }
}

/// Whether a pair of an anchor can count on some level.
#[inline(always)]
pub(crate) fn is_visible(locations: *const f32, pair: u32, rule: u32) -> bool {
    // SAFETY: the callers pass the anchor's locations and one of its pairs.
    let [x, y] = unsafe { memory::load_pair(locations.wrapping_add(2 * pair as usize)) };
    sample::may_count(x, y, rule)
}
