//! How the threads of a block stand: warps, workers and lanes.

use crate::args::Sizes;
use crate::channels::Tile;
use crate::lane_sums::sum_upto_lane;
use crate::limits::{CHANNELS_PER_LANE, WARP_LANES, window_words};
use crate::memory::{self, SharedWords};
use cuda_std::{thread, warp};

/// Every lane of a warp.
pub(crate) const WARP: u32 = u32::MAX;

/// One thread's place in its block.
///
/// A *worker* is the group of `lanes` lanes that share a sample; a warp holds `32 / lanes` of them.
#[derive(Clone, Copy)]
pub(crate) struct Place {
    /// Thread of the block.
    pub thread: u32,
    /// Threads of the block, a multiple of 32.
    pub threads: u32,
    /// Warp of the block.
    pub warp: u32,
    /// Warps of the block.
    pub warps: u32,
    /// Lane of the warp.
    pub warp_lane: u32,
    /// Worker of the warp.
    pub worker: u32,
    /// Workers of a warp.
    pub workers: u32,
    /// Lane of the worker.
    pub lane: u32,
    /// Lanes of a worker.
    pub lanes: u32,
}

impl Place {
    /// The calling thread's place.
    #[inline(always)]
    pub(crate) fn new(sizes: &Sizes) -> Self {
        Self::of(sizes.lanes, thread::thread_idx_x())
    }

    /// The calling thread's place in a block whose workers have that many lanes, a power of two up to 32.
    #[inline(always)]
    pub(crate) fn with_lanes(lanes: u32) -> Self {
        Self::of(lanes, thread::thread_idx_x())
    }

    /// The calling thread's place once more. What follows from it is computed anew, which costs less than the registers
    /// that keep it over other work.
    #[inline(always)]
    pub(crate) fn again(sizes: &Sizes) -> Self {
        Self::of(sizes.lanes, memory::opaque(thread::thread_idx_x()))
    }

    #[inline(always)]
    fn of(lanes: u32, thread: u32) -> Self {
        let threads = thread::block_dim_x();
        let warp_lane = thread % WARP_LANES;
        // A power of two: shifts and masks instead of divisions.
        let shift = lanes.trailing_zeros();
        Self {
            thread,
            threads,
            warp: thread / WARP_LANES,
            warps: threads / WARP_LANES,
            warp_lane,
            worker: warp_lane >> shift,
            workers: WARP_LANES >> shift,
            lane: warp_lane & (lanes - 1),
            lanes,
        }
    }

    /// The tile of channels with the given number, as this lane sees it.
    #[inline(always)]
    pub(crate) fn tile(&self, sizes: &Sizes, number: u32) -> Tile {
        Tile {
            first: number * self.lanes * CHANNELS_PER_LANE,
            lanes: self.lanes,
            lane: self.lane,
            channels: sizes.channels,
        }
    }

    /// The places of what the threads have `chosen` in the order of threads, and of each thread's own, and how many there
    /// are in the block.
    ///
    /// # Safety
    ///
    /// The whole block makes the call, and is done with the counts of the call before: a barrier has passed since.
    #[inline(always)]
    pub(crate) unsafe fn rank<const N: usize>(&self, chosen: [bool; N]) -> ([u32; N], u32) {
        // SAFETY: all lanes of the warp are here.
        let ballots = chosen.map(|one| unsafe { warp::warp_vote_ballot(WARP, one) });
        let count = ballots.iter().map(|ballot| ballot.count_ones()).sum();
        // SAFETY: the caller's promise.
        let (before, total) = unsafe { self.before_warp(count) };
        let lower = (1 << self.warp_lane) - 1;
        let mut rank = before + ballots.iter().map(|ballot| (ballot & lower).count_ones()).sum::<u32>();
        let ranks = chosen.map(|one| {
            let own = rank;
            rank += u32::from(one);
            own
        });
        (ranks, total)
    }

    /// The sum of the counts of all threads before the calling one, and of all threads of the block.
    ///
    /// # Safety
    ///
    /// As for [`rank`](Self::rank).
    #[inline(always)]
    pub(crate) unsafe fn before_thread(&self, count: u32) -> (u32, u32) {
        let upto = sum_upto_lane(count, self.warp_lane, WARP_LANES);
        // SAFETY: all lanes of the warp are here; the caller's promise.
        let (before, total) = unsafe {
            self.before_warp(warp::warp_shuffle_idx(WARP, upto, WARP_LANES - 1, WARP_LANES).0)
        };
        (before + upto - count, total)
    }

    /// The sum of the counts of all warps before the calling one, and of all warps of the block.
    ///
    /// # Safety
    ///
    /// As for [`rank`](Self::rank).
    #[inline(always)]
    unsafe fn before_warp(&self, count: u32) -> (u32, u32) {
        let counts = SharedWords::new(window_words::COUNTS);
        if self.warp_lane == 0 {
            // SAFETY: the warp's own word.
            unsafe { counts.set(self.warp, count) };
        }
        thread::sync_threads();
        // Lane `i` has the count of warp `i`, and after the loop those of the warps up to it.
        let mut upto = 0;
        if self.warp_lane < self.warps {
            // SAFETY: written before the barrier.
            upto = unsafe { counts.get(self.warp_lane) };
        }
        let upto = sum_upto_lane(upto, self.warp_lane, self.warps);
        // SAFETY: all lanes of the warp are here.
        let (before, total) = unsafe {
            (
                warp::warp_shuffle_idx(WARP, upto, self.warp.wrapping_sub(1) % WARP_LANES, WARP_LANES).0,
                warp::warp_shuffle_idx(WARP, upto, self.warps - 1, WARP_LANES).0,
            )
        };
        (if self.warp == 0 { 0 } else { before }, total)
    }
}
