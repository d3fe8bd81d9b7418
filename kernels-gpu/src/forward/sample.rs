//! A sample of one visible pair on one level.

use crate::args::ForwardArgs;
use crate::memory;
use crate::rows::load_map;
use crate::sample::Corners;

/// A sample: everything about it but the channels.
pub(crate) struct Sample {
    pub(super) corners: Corners,
    /// First of its weights, counted from the anchor's first.
    pub(super) weight: u32,
}

impl Sample {
    /// Computes the sample.
    ///
    /// # Safety
    ///
    /// The pointers of `args` are valid as it says, `pair` and `level` exist.
    #[inline(always)]
    pub(super) unsafe fn new<T>(
        args: &ForwardArgs<T>,
        locations: *const f32,
        pair: u32,
        level: u32,
    ) -> Self {
        let sizes = &args.sizes;
        // SAFETY: the pair is one of the anchor's.
        let [x, y] = unsafe { memory::load_pair(locations.add(2 * pair as usize)) };
        let (_, camera) = sizes.by_cameras.divide(pair);
        // SAFETY: the table has a row per camera and an entry per level.
        let map = unsafe { load_map(args.maps.add((camera * sizes.levels + level) as usize)) };
        Self {
            corners: Corners::new(x, y, map, sizes.rule),
            weight: (pair * sizes.levels + level) * sizes.groups,
        }
    }
}
