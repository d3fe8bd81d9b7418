//! The published algorithm as it is: one thread per sample and channel, atomics for every sum.
//!
//! The baseline that benchmarks and readers compare the real kernels with. It differs from the
//! published kernels where those are wrong: indices are 64-bit, a NaN location is skipped, and every
//! sum is fp32 whatever the storage. Its outputs must hold zeros before the launch.

pub(crate) mod backward;
pub(crate) mod forward;

use crate::args::{Level, Sizes};
use crate::rows::load_map;
use crate::memory;
use crate::sample::Corners;
use cuda_std::thread;

/// One (sample, channel) of the problem, the work of one thread.
pub(crate) struct Item {
    /// Index of the (point, camera) pair over all anchors.
    pub(crate) pair: usize,
    /// Index of the sample's weight for the channel's group.
    pub(crate) weight: usize,
    /// Index of the channel in the anchor's row of the output.
    pub(crate) output: usize,
    /// Offset of the channel in its batch item's first row.
    pub(crate) feature: usize,
    pub(crate) corners: Corners,
    pub(crate) map: Level,
}

impl Item {
    /// The thread's item, if it has one and its sample counts.
    ///
    /// # Safety
    ///
    /// `maps` and `locations` are the arrays of the sizes.
    #[inline(always)]
    pub(crate) unsafe fn of_thread(
        sizes: &Sizes,
        maps: *const Level,
        locations: *const f32,
    ) -> Option<Self> {
        let block = u64::from(thread::block_idx_y()) * u64::from(thread::grid_dim_x())
            + u64::from(thread::block_idx_x());
        let index = block * u64::from(thread::block_dim_x()) + u64::from(thread::thread_idx_x());
        // Sizes of zero leave no items; the maxima only keep the divisions' panics out.
        let channels = u64::from(sizes.channels.max(1));
        let levels = u64::from(sizes.levels.max(1));
        let cameras = u64::from(sizes.cameras.max(1));
        let pairs = u64::from(sizes.batch) * u64::from(sizes.anchors) * u64::from(sizes.pairs());
        let count = pairs * u64::from(sizes.levels) * u64::from(sizes.channels);
        if index >= count {
            return None;
        }
        let (sample, channel) = (index / channels, (index % channels) as usize);
        let (pair, level) = (sample / levels, sample % levels);
        let camera = pair % cameras;
        let anchor = pair / u64::from(sizes.pairs().max(1));
        // SAFETY: the pair exists.
        let [x, y] = unsafe { memory::load_pair(locations.wrapping_add(2 * pair as usize)) };
        // SAFETY: the table has a row per camera and an entry per level.
        let map = unsafe { load_map(maps.wrapping_add((camera * levels + level) as usize)) };
        let corners = Corners::new(x, y, map, sizes.rule);
        if corners.present == 0 {
            return None;
        }
        let group = channel / (sizes.channels_per_group().max(1) as usize);
        let batch = (anchor / u64::from(sizes.anchors.max(1))) as usize;
        Some(Self {
            pair: pair as usize,
            weight: sample as usize * sizes.groups as usize + group,
            output: anchor as usize * sizes.channels as usize + channel,
            feature: batch * sizes.rows as usize * sizes.channels as usize + channel,
            corners,
            map,
        })
    }

    /// Offset of the channel at one corner.
    #[inline(always)]
    pub(crate) fn at(&self, corner: u32, channels: u32) -> usize {
        self.feature + self.corners.row_of(corner) as usize * channels as usize
    }
}
