//! Runs of neighbouring samples of one anchor, among those that a warp has at hand.

use crate::block::{Place, WARP};
use crate::limits::WARP_LANES;
use cuda_std::warp;

/// Neighbouring samples at hand, of one anchor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Run {
    pub(super) begin: u32,
    pub(super) end: u32,
}

impl Run {
    /// Without a sample.
    pub(super) const EMPTY: Self = Self { begin: 0, end: 0 };

    /// A bit for each of the samples.
    #[inline(always)]
    pub(super) fn bits(self) -> u32 {
        let upto = |end: u32| if end < u32::BITS { (1 << end) - 1 } else { u32::MAX };
        upto(self.end) & !upto(self.begin)
    }
}

/// The samples at hand that are a worker's and not added yet.
#[derive(Clone, Copy)]
pub(super) struct Left {
    begin: u32,
    end: u32,
    /// A bit for each sample at hand, but the first, with which a run begins.
    starts: u32,
}

impl Left {
    /// Deals `count` samples at hand out to the workers of the warp, neighbours together: the calling worker's. The lanes have
    /// their anchors.
    ///
    /// # Safety
    ///
    /// All lanes of the warp make the call together.
    #[inline(always)]
    pub(super) unsafe fn deal_out(place: Place, count: u32, anchor: u32) -> Self {
        // SAFETY: all lanes of the warp are here.
        let starts = unsafe {
            let (before, _) = warp::warp_shuffle_up(WARP, anchor, 1, WARP_LANES);
            warp::warp_vote_ballot(WARP, place.warp_lane < count && before != anchor)
        };
        // Workers are a power of two.
        let share = (count + place.workers - 1) >> place.workers.trailing_zeros();
        let begin = (place.worker * share).min(count);
        Self { begin, end: (begin + share).min(count), starts }
    }

    #[inline(always)]
    pub(super) fn is_empty(&self) -> bool {
        self.begin >= self.end
    }

    /// Takes the next run, an empty one when none is left.
    #[inline(always)]
    pub(super) fn take(&mut self) -> Run {
        let behind = self.starts & !Run { begin: 0, end: self.begin + 1 }.bits();
        let next = if behind == 0 { self.end } else { behind.trailing_zeros().min(self.end) };
        let run = Run { begin: self.begin, end: next };
        self.begin = next;
        run
    }
}

#[cfg(test)]
mod tests {
    extern crate std;

    use super::*;
    use std::vec::Vec;

    fn runs(begin: u32, end: u32, starts: u32) -> Vec<(u32, u32, u32)> {
        let mut left = Left { begin, end, starts };
        let mut runs = Vec::new();
        while !left.is_empty() {
            let run = left.take();
            runs.push((run.begin, run.end, run.bits()));
        }
        assert_eq!(left.take().bits(), 0);
        runs
    }

    #[test]
    fn a_worker_takes_its_samples_run_by_run() {
        assert_eq!(runs(0, 0, 0), []);
        assert_eq!(runs(0, 5, 0), [(0, 5, 0b11111)]);
        assert_eq!(runs(0, 5, 0b01010), [(0, 1, 1), (1, 3, 0b110), (3, 5, 0b11000)]);
        // Runs that began before its samples, and go on behind them.
        assert_eq!(runs(8, 16, 1 << 3 | 1 << 10 | 1 << 20), [(8, 10, 3 << 8), (10, 16, 63 << 10)]);
        assert_eq!(runs(30, 32, 1 << 31), [(30, 31, 1 << 30), (31, 32, 1 << 31)]);
        assert_eq!(runs(0, 32, 0), [(0, 32, u32::MAX)]);
    }
}
