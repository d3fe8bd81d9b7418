//! Weights from logits: for each group the softmax over cameras, levels and points. One block for each anchor.
//!
//! With a camera embedding the linear layer's input is `f + cam_n`, and as the layer is linear its output is the sum of
//! what it makes of `f` and of `cam_n`. Those two are stored, and added here for every camera: there is no array of all
//! logits.
//!
//! Weights are written only where their location counts; the operator reads no others.

use crate::attention::sum_over_warp;
use crate::block::WARP;
use crate::block_args::{BlockSizes, Logits, WeightsArgs};
use crate::limits::WARP_LANES;
use crate::memory::{self, SharedWords};
use crate::storage::Storage;
use crate::visible::is_visible;
#[cfg(target_arch = "nvptx64")]
use cuda_std::GpuFloat;
use cuda_std::{thread, warp};

/// The logits of one anchor.
pub(crate) struct OfAnchor<'a> {
    logits: &'a Logits,
    anchor: *const f32,
    /// Distance between the anchor's logits of two cameras; 0 when they share them.
    stride: u32,
    camera: *const f32,
    /// The anchor's row, and what it has of each thing.
    row: u64,
    cameras: u32,
    points: u32,
    count: u32,
}

impl<'a> OfAnchor<'a> {
    /// The logits of the anchor in `row`.
    #[inline(always)]
    pub(crate) fn new(logits: &'a Logits, sizes: &BlockSizes, row: u64) -> Self {
        let count = sizes.logits();
        let shared = !logits.camera.is_null();
        let of_row = if shared { u64::from(count) } else { u64::from(count) * u64::from(sizes.cameras) };
        let item = row / u64::from(sizes.anchors.max(1));
        let first_camera = item * u64::from(sizes.cameras) * u64::from(count);
        Self {
            logits,
            anchor: logits.anchor.wrapping_add((row * of_row) as usize),
            stride: if shared { 0 } else { count },
            camera: logits.camera.wrapping_add(if shared { first_camera as usize } else { 0 }),
            row,
            cameras: sizes.cameras,
            points: sizes.points,
            count,
        }
    }

    /// What the camera adds to the logit `index` of `(L, P, G)`.
    ///
    /// # Safety
    ///
    /// The pointers of the logits are valid as they say; camera and index exist.
    #[inline(always)]
    pub(crate) unsafe fn of_camera(&self, camera: u32, index: u32) -> f32 {
        if self.logits.camera.is_null() {
            return 0.0;
        }
        let at = camera as usize * self.count as usize + index as usize;
        // SAFETY: the caller's promise.
        unsafe { memory::load_f32(self.camera.wrapping_add(at)) }
    }

    /// What the anchor has for that logit.
    ///
    /// # Safety
    ///
    /// As for [`of_camera`](Self::of_camera).
    #[inline(always)]
    pub(crate) unsafe fn of_anchor(&self, camera: u32, index: u32) -> f32 {
        let at = camera as usize * self.stride as usize + index as usize;
        // SAFETY: the caller's promise.
        unsafe { memory::load_f32(self.anchor.wrapping_add(at)) }
    }

    /// Whether the camera's logits of a point are minus infinity.
    ///
    /// # Safety
    ///
    /// As for [`of_camera`](Self::of_camera).
    #[inline(always)]
    pub(crate) unsafe fn is_hidden(&self, camera: u32, point: u32) -> bool {
        if self.logits.hidden.is_null() {
            return false;
        }
        let pair = (self.row * u64::from(self.points) + u64::from(point)) * u64::from(self.cameras)
            + u64::from(camera);
        // SAFETY: the caller's promise.
        unsafe { memory::load_u32(self.logits.hidden.wrapping_add(pair as usize)) != 0 }
    }

    /// What dropout multiplies the camera's weights of a point with.
    ///
    /// # Safety
    ///
    /// As for [`of_camera`](Self::of_camera).
    #[inline(always)]
    pub(crate) unsafe fn dropout(&self, camera: u32, point: u32) -> f32 {
        let number = (self.row * u64::from(self.cameras) + u64::from(camera))
            * u64::from(self.points)
            + u64::from(point);
        // SAFETY: the caller's promise.
        unsafe { self.logits.dropout.factor(number) }
    }
}

/// Most warps of a block of the weights' kernels.
const MAX_WARPS: u32 = 32;

/// Word of the shared memory where the groups' statistics begin, two words each, in batches of 32.
const STATISTICS: u32 = MAX_WARPS * WARP_LANES;

/// How the lanes of a warp stand towards up to 32 groups: neighbouring lanes have neighbouring groups, as many times
/// over as there is room for.
struct Spread {
    group: u32,
    /// Which of the (level, point)s the lane takes, and their distance.
    first: u32,
    step: u32,
    /// Groups of this batch, and the lanes with work.
    span: u32,
    copies: u32,
    live: bool,
}

impl Spread {
    #[inline(always)]
    fn new(groups: u32, first_group: u32, warp: u32, warps: u32, lane: u32) -> Self {
        let span = (groups - first_group).clamp(1, WARP_LANES);
        let copies = WARP_LANES / span;
        Self {
            group: first_group + lane % span,
            first: warp * copies + lane / span,
            step: warps * copies,
            span,
            copies,
            live: lane < span * copies,
        }
    }
}

/// Writes the statistics of an anchor and its weights.
///
/// Grid: `R`. Block: whole warps, at most 32. Shared memory: [`weights_bytes`](crate::limits::weights_bytes).
///
/// # Safety
///
/// The pointers of `args` are valid as it says, for the sizes it gives.
#[inline(always)]
pub(crate) unsafe fn weights<T: Storage>(args: WeightsArgs<T>) {
    let sizes = &args.sizes;
    let row = u64::from(thread::block_idx_x());
    let logits = OfAnchor::new(&args.logits, sizes, row);
    let shared = SharedWords::new(0);
    let thread = thread::thread_idx_x();
    let (warp, lane) = (thread / WARP_LANES, thread % WARP_LANES);
    let warps = thread::block_dim_x() / WARP_LANES;
    let mut first_group = 0;
    while first_group < sizes.groups {
        let spread = Spread::new(sizes.groups, first_group, warp, warps, lane);
        // SAFETY: the whole block is here with the same groups.
        unsafe {
            let largest = reduce(shared, &spread, warps, lane, largest(&logits, sizes, &spread), f32::max);
            let sum = sum_of_exponentials(&logits, sizes, &spread, largest);
            let sum = reduce(shared, &spread, warps, lane, sum, |a, b| a + b);
            if warp == 0 && lane < spread.span {
                let at = STATISTICS + 2 * spread.group;
                shared.set(at, largest.to_bits());
                shared.set(at + 1, (1.0 / sum).to_bits());
                let at = 2 * (row * u64::from(sizes.groups) + u64::from(spread.group)) as usize;
                memory::store_f32(args.statistics.wrapping_add(at), largest);
                memory::store_f32(args.statistics.wrapping_add(at + 1), 1.0 / sum);
            }
        }
        first_group += WARP_LANES;
    }
    thread::sync_threads();
    // SAFETY: the statistics are complete; the whole warp is here.
    unsafe { write_weights(&args, &logits, row, warp, warps, lane) };
}

/// The largest of the lane's logits.
///
/// # Safety
///
/// As for [`weights`].
#[inline(always)]
unsafe fn largest(logits: &OfAnchor<'_>, sizes: &BlockSizes, spread: &Spread) -> f32 {
    let mut largest = f32::NEG_INFINITY;
    // SAFETY: the caller's promise.
    unsafe {
        each_logit(logits, sizes, spread, |logit| largest = largest.max(logit));
    }
    largest
}

/// The sum of `exp(logit - largest)` over the lane's logits.
///
/// # Safety
///
/// As for [`weights`].
#[inline(always)]
unsafe fn sum_of_exponentials(
    logits: &OfAnchor<'_>,
    sizes: &BlockSizes,
    spread: &Spread,
    largest: f32,
) -> f32 {
    let mut sum = 0.0;
    // SAFETY: the caller's promise.
    unsafe {
        each_logit(logits, sizes, spread, |logit| sum += (logit - largest).exp());
    }
    sum
}

/// Calls `visit` with every logit of the lane that is not hidden.
///
/// # Safety
///
/// As for [`weights`].
#[inline(always)]
unsafe fn each_logit(
    logits: &OfAnchor<'_>,
    sizes: &BlockSizes,
    spread: &Spread,
    mut visit: impl FnMut(f32),
) {
    let mut entry = if spread.live { spread.first } else { u32::MAX };
    while entry < sizes.levels * sizes.points {
        let index = entry * sizes.groups + spread.group;
        let point = entry % sizes.points.max(1);
        for camera in 0..sizes.cameras {
            // SAFETY: camera, point and index exist.
            unsafe {
                if !logits.is_hidden(camera, point) {
                    visit(logits.of_anchor(camera, index) + logits.of_camera(camera, index));
                }
            }
        }
        entry += spread.step;
    }
}

/// Combines the values of all lanes of the block that have the same group, in a fixed order; every lane gets the result.
///
/// # Safety
///
/// The whole block makes the call.
#[inline(always)]
unsafe fn reduce(
    shared: SharedWords,
    spread: &Spread,
    warps: u32,
    lane: u32,
    value: f32,
    combine: impl Fn(f32, f32) -> f32,
) -> f32 {
    // SAFETY: the thread's own word.
    unsafe { shared.set(thread::thread_idx_x(), value.to_bits()) };
    thread::sync_threads();
    // SAFETY: written before the barrier.
    let get = |warp: u32, copy: u32| unsafe {
        f32::from_bits(shared.get(warp * WARP_LANES + copy * spread.span + lane % spread.span))
    };
    let mut result = get(0, 0);
    for warp in 0..warps {
        for copy in u32::from(warp == 0)..spread.copies {
            result = combine(result, get(warp, copy));
        }
    }
    // The words may be written again after this.
    thread::sync_threads();
    result
}

/// Writes the weights of the anchor's visible pairs.
///
/// # Safety
///
/// The whole warp makes the call, after the statistics of all groups are in shared memory.
#[inline(always)]
unsafe fn write_weights<T: Storage>(
    args: &WeightsArgs<T>,
    logits: &OfAnchor<'_>,
    row: u64,
    warp: u32,
    warps: u32,
    lane: u32,
) {
    let sizes = &args.sizes;
    let pairs = sizes.pairs();
    let locations = args.locations.wrapping_add((row * u64::from(pairs) * 2) as usize);
    let mut first = warp * WARP_LANES;
    while first < pairs {
        let pair = first + lane;
        let visible = pair < pairs && is_visible(locations, pair, sizes.rule);
        // SAFETY: the whole warp is here.
        let mut left = unsafe { warp::warp_vote_ballot(WARP, visible) };
        while left != 0 {
            let pair = first + left.trailing_zeros();
            left &= left - 1;
            let (point, camera) = (pair / sizes.cameras.max(1), pair % sizes.cameras.max(1));
            // SAFETY: point and camera exist.
            let (factor, hidden) =
                unsafe { (logits.dropout(camera, point), logits.is_hidden(camera, point)) };
            let of_pair = sizes.levels * sizes.groups;
            let target = (row * u64::from(pairs) + u64::from(pair)) * u64::from(of_pair);
            let mut entry = lane;
            while entry < of_pair {
                let (level, group) = (entry / sizes.groups.max(1), entry % sizes.groups.max(1));
                let index = (level * sizes.points + point) * sizes.groups + group;
                // SAFETY: index and group exist; the weight is this lane's own.
                unsafe {
                    let at = SharedWords::new(STATISTICS + 2 * group);
                    let (largest, scale) = (f32::from_bits(at.get(0)), f32::from_bits(at.get(1)));
                    let logit = logits.of_anchor(camera, index) + logits.of_camera(camera, index);
                    let weight = if hidden { 0.0 } else { (logit - largest).exp() * scale * factor };
                    T::store(args.weights.wrapping_add((target + u64::from(entry)) as usize), weight);
                }
                entry += WARP_LANES;
            }
        }
        first += warps * WARP_LANES;
    }
}

/// For each of the anchors `first`, `first + 1`, … below `end`, and each group, the sum over the group's channels of
/// feature times gradient, into shared memory: `(anchors, G)`.
///
/// It equals the sum of weight times gradient of the weight over everything the softmax runs over.
///
/// # Safety
///
/// The whole block makes the call; the anchors exist.
#[inline(always)]
pub(crate) unsafe fn inner_products<T: Storage>(
    shared: SharedWords,
    sizes: &BlockSizes,
    [features, gradients]: [*const T; 2],
    first: u64,
    end: u64,
) {
    let thread = thread::thread_idx_x();
    let (lane, warps) = (thread % WARP_LANES, thread::block_dim_x() / WARP_LANES);
    let size = sizes.channels / sizes.groups.max(1);
    let count = (end - first) as u32 * sizes.groups;
    let mut index = thread / WARP_LANES;
    while index < count {
        let begin = first * u64::from(sizes.channels) + u64::from(index) * u64::from(size);
        let mut sum = 0.0;
        let mut channel = lane;
        while channel < size {
            let at = (begin + u64::from(channel)) as usize;
            // SAFETY: a channel of the group.
            unsafe {
                sum += T::load(features.wrapping_add(at)) * T::load(gradients.wrapping_add(at));
            }
            channel += WARP_LANES;
        }
        // SAFETY: the whole warp is here; the word is its own.
        unsafe {
            let sum = sum_over_warp(sum);
            if lane == 0 {
                shared.set(index, sum.to_bits());
            }
        }
        index += warps;
    }
}
