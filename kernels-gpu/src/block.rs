//! How the threads of a block stand: warps, workers and lanes.

use crate::args::Sizes;
use crate::channels::Tile;
use crate::limits::{CHANNELS_PER_LANE, WARP_LANES};
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
        let (thread, threads) = (thread::thread_idx_x(), thread::block_dim_x());
        let warp_lane = warp::lane_id();
        // A power of two: shifts and masks instead of divisions.
        let shift = sizes.lanes.trailing_zeros();
        Self {
            thread,
            threads,
            warp: thread / WARP_LANES,
            warps: threads / WARP_LANES,
            warp_lane,
            worker: warp_lane >> shift,
            workers: WARP_LANES >> shift,
            lane: warp_lane & (sizes.lanes - 1),
            lanes: sizes.lanes,
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
}
