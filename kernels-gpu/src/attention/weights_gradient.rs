//! From the gradient of the weights back to that of the logits.
//!
//! With `s` the softmax and bars for gradients, `z̄ = s (s̄ - D)` where `D` is the sum of `s s̄` over all cameras, levels
//! and points of the group. It needs no pass over them: as the output is linear in the weights, `D` is the sum of output
//! times output gradient over the group's channels. And `s̄` is 0 except for the few pairs that are seen, so that the others'
//! is not read.
//!
//! A block has a run of anchors of one batch item. A thread has one of the logits `(L, P, G)`, and for that all cameras
//! and all anchors of the run, so that it adds up the cameras' gradient in registers, in a fixed order.

use crate::attention::logits::{CAMERAS, LOG2_E, OfAnchor, Pairs, exponential};
use crate::attention::sum_over_warp;
use crate::block::Place;
use crate::block_args::{BlockSizes, WeightsGradientArgs};
use crate::lane_sums::sum_over_lanes;
use crate::limits::{CHANNELS_PER_LANE, WARP_LANES, gradient_entries};
use crate::memory::{self, SharedWords};
use crate::storage::Storage;
use crate::unroll::{array4, each4, upto8};
use crate::visible::is_visible;
#[cfg(target_arch = "nvptx64")]
use cuda_std::GpuFloat;
use cuda_std::thread;

/// The run of anchors of a block, and where it keeps what all its threads need of them.
#[derive(Clone, Copy)]
struct Run {
    item: u64,
    /// Which of the runs of the batch item it is.
    number: u32,
    /// Row of the first anchor.
    first: u64,
    anchors: u32,
    /// `(anchors, G)` of four words each: the two of the statistics, `D`, and one that fills up.
    groups: SharedWords,
    /// `(anchors, entries)`: what there is to know of the pairs of those (level, point)s, [`Marks`].
    marks: SharedWords,
    /// (level, point)s that the block's logits belong to: the first of them, and how many they are at most.
    first_entry: u32,
    entries: u32,
}

impl Run {
    /// What is noted of an anchor of the run: the marks of a (level, point), and the largest logit, the scale and `D` of a group.
    ///
    /// # Safety
    ///
    /// The notes are complete, and have the anchor, the (level, point) and the group.
    #[inline(always)]
    unsafe fn notes(&self, sizes: &BlockSizes, anchor: u32, entry: u32, group: u32) -> (Marks, [f32; 3]) {
        // SAFETY: the caller's promise.
        unsafe {
            let marks = self.marks.get(anchor * self.entries + (entry - self.first_entry));
            let [largest, scale, inner, _] = self.groups.get4(4 * (anchor * sizes.groups + group));
            (Marks(marks), [largest, scale, inner].map(f32::from_bits))
        }
    }
}

/// What there is to know of the pairs of one point and up to [`CAMERAS`] cameras: a bit each.
#[derive(Clone, Copy)]
struct Marks(u32);

impl Marks {
    /// Whether the gradient of the weights has to be read: the pair is seen, and dropout keeps it.
    #[inline(always)]
    fn counts(self, slot: usize) -> bool {
        self.0 >> slot & 1 != 0
    }

    /// Whether the logits are minus infinity.
    #[inline(always)]
    fn is_hidden(self, slot: usize) -> bool {
        self.0 >> (CAMERAS + slot) & 1 != 0
    }
}

/// Writes the gradient of the anchors' logits, and that of the cameras' summed over runs of anchors.
///
/// Grid: `(stretches * runs, B)`, where a stretch is as many logits as a block has threads. Block: whole warps, at most 16.
/// Shared memory: [`weights_gradient_bytes`](crate::limits::weights_gradient_bytes) for each anchor of a run.
///
/// # Safety
///
/// The pointers of `args` are valid as it says, for the sizes it gives.
#[inline(always)]
pub(crate) unsafe fn weights_gradient<T: Storage>(args: WeightsGradientArgs<T>) {
    let sizes = &args.sizes;
    let place = Place::with_lanes(WARP_LANES);
    let item = u64::from(thread::block_idx_y());
    let (stretch, number) = args.runs.divide(thread::block_idx_x());
    let first = number * args.run;
    let first_index = stretch * place.threads;
    let run = Run {
        item,
        number,
        first: item * u64::from(sizes.anchors) + u64::from(first),
        anchors: args.run.min(sizes.anchors - first),
        groups: SharedWords::new(0),
        marks: SharedWords::new(4 * args.run * sizes.groups),
        first_entry: sizes.by_groups.quotient(first_index),
        entries: gradient_entries(place.threads, sizes.groups),
    };
    // SAFETY: the whole block is here, and the anchors exist.
    unsafe { note_groups(&args, &run, place) };
    let mut camera = 0;
    while camera < sizes.cameras {
        // SAFETY: the whole block is here: the loop's bounds are its own. The barrier at its end has passed since the
        // marks were read.
        unsafe { note_marks(&args, &run, place, camera) };
        thread::sync_threads();
        let index = first_index + place.thread;
        if index < sizes.logits() {
            // SAFETY: the logit exists and is this thread's own; what the block keeps is complete.
            unsafe {
                if args.logits.camera.is_null() {
                    logit_gradient::<T, false>(&args, &run, index, camera);
                } else if !args.logits.hidden.is_null() {
                    logit_gradient::<T, true>(&args, &run, index, camera);
                } else {
                    shared_logit_gradient(&args, &run, index, camera);
                }
            }
        }
        thread::sync_threads();
        camera += CAMERAS as u32;
    }
}

/// Notes the statistics and `D` for each anchor of the run and each group.
///
/// # Safety
///
/// The whole block makes the call; the anchors exist.
#[inline(always)]
unsafe fn note_groups<T: Storage>(args: &WeightsGradientArgs<T>, run: &Run, place: Place) {
    let sizes = &args.sizes;
    let count = run.anchors * sizes.groups;
    let mut number = place.thread;
    while number < count {
        let at = run.first * u64::from(sizes.groups) + u64::from(number);
        // SAFETY: an anchor and a group; the words are this thread's.
        unsafe {
            let [largest, scale] = memory::load_pair(args.statistics.wrapping_add(2 * at as usize));
            run.groups.set(4 * number, largest.to_bits());
            run.groups.set(4 * number + 1, scale.to_bits());
            run.groups.set(4 * number + 3, 0);
        }
        number += place.threads;
    }
    let size = sizes.channels / sizes.groups.max(1);
    let start = (run.first * u64::from(sizes.channels)) as usize;
    let arrays = [args.features, args.grad_features].map(|array| array.wrapping_add(start));
    let lanes = size / CHANNELS_PER_LANE;
    let is_whole = size.is_multiple_of(CHANNELS_PER_LANE) && lanes.is_power_of_two() && lanes <= WARP_LANES;
    let [features, gradients] = arrays.map(<*const T>::addr);
    // SAFETY: the whole block is here; the groups' channels lie one behind the other, also from anchor to anchor.
    unsafe {
        if is_whole && (features | gradients).is_multiple_of(16) {
            note_inner_by_lanes(run, place, count, lanes, arrays);
        } else {
            note_inner(run, place, count, size, arrays);
        }
    }
}

/// Notes `D` for `count` groups of the run, of any number of channels.
///
/// # Safety
///
/// The whole block makes the call; so many groups of this size lie one behind the other in both arrays.
#[inline(always)]
unsafe fn note_inner<T: Storage>(
    run: &Run,
    place: Place,
    count: u32,
    size: u32,
    [features, gradients]: [*const T; 2],
) {
    let mut first = place.warp;
    while first < count {
        let number = |slot: usize| first + slot as u32 * place.warps;
        // Four at a time, for the loads of all to be under way together.
        let mut sums = [0.0; 4];
        let mut channel = place.warp_lane;
        while channel < size {
            let products = array4(|slot| {
                let at = (number(slot).min(count - 1) * size + channel) as usize;
                // SAFETY: a channel of the group.
                unsafe { T::load(features.wrapping_add(at)) * T::load(gradients.wrapping_add(at)) }
            });
            each4(|slot| sums[slot] += products[slot]);
            channel += WARP_LANES;
        }
        each4(|slot| {
            // SAFETY: the whole warp is here.
            let sum = unsafe { sum_over_warp(sums[slot]) };
            if place.warp_lane == 0 && number(slot) < count {
                // SAFETY: the word is this warp's.
                unsafe { run.groups.set(4 * number(slot) + 2, sum.to_bits()) };
            }
        });
        first += 4 * place.warps;
    }
}

/// The same for groups of eight channels for each of so many neighbouring lanes, a power of two, read 16 bytes at a time.
///
/// # Safety
///
/// As for [`note_inner`]; both arrays are aligned to 16 bytes.
#[inline(always)]
unsafe fn note_inner_by_lanes<T: Storage>(
    run: &Run,
    place: Place,
    count: u32,
    lanes: u32,
    arrays: [*const T; 2],
) {
    let exponent = lanes.trailing_zeros();
    let mut first = place.warp * WARP_LANES;
    // The loop runs as often for every lane of a warp: its lanes meet inside.
    while first < count << exponent {
        let own = first + place.warp_lane;
        let (number, is_live) = (own >> exponent, own < count << exponent);
        let mut sum = 0.0;
        if is_live {
            let at = (own * CHANNELS_PER_LANE) as usize;
            upto8(CHANNELS_PER_LANE as usize / T::PER_VECTOR, |vector| {
                let at = at + vector * T::PER_VECTOR;
                // SAFETY: channels of the group.
                let [a, b] = arrays.map(|array| unsafe { T::load_vector(array.wrapping_add(at)) });
                upto8(T::PER_VECTOR, |index| sum = a[index].mul_add(b[index], sum));
            });
        }
        let sum = sum_over_lanes(sum, lanes);
        if is_live && own & (lanes - 1) == 0 {
            // SAFETY: the word is this lane's.
            unsafe { run.groups.set(4 * number + 2, sum.to_bits()) };
        }
        first += place.threads;
    }
}

/// Notes the marks of the run's pairs with up to [`CAMERAS`] cameras from `first_camera` on.
///
/// # Safety
///
/// The whole block makes the call; the anchors exist.
#[inline(always)]
unsafe fn note_marks<T: Storage>(
    args: &WeightsGradientArgs<T>,
    run: &Run,
    place: Place,
    first_camera: u32,
) {
    let sizes = &args.sizes;
    let cameras = (sizes.cameras - first_camera).min(CAMERAS as u32) as usize;
    let special = args.logits.dropout.is_active() || !args.logits.hidden.is_null();
    // A lane has the same (level, point) of all anchors.
    let mut own = place.warp_lane;
    while own < run.entries {
        let (level, point) = sizes.by_points.divide(run.first_entry + own);
        let anchors = if level < sizes.levels { run.anchors } else { 0 };
        let mut anchor = place.warp;
        while anchor < anchors {
            let row = run.first + u64::from(anchor);
            let of_pairs = Pairs::new(&args.logits, sizes, row);
            let first = row * u64::from(sizes.pairs()) + u64::from(point * sizes.cameras + first_camera);
            let locations = args.locations.wrapping_add(2 * first as usize);
            let mut marks = 0;
            upto8(cameras, |slot| {
                let seen = is_visible(locations, slot as u32, sizes.rule);
                marks |= u32::from(seen) << slot;
            });
            // Not written out: the numbers of dropout take many instructions, and most calls have neither.
            for slot in 0..if special { cameras as u32 } else { 0 } {
                let camera = first_camera + slot;
                // SAFETY: point and camera exist.
                unsafe {
                    if marks >> slot & 1 != 0 && of_pairs.dropout(camera, point) == 0.0 {
                        marks ^= 1 << slot;
                    }
                    marks |= u32::from(of_pairs.is_hidden(camera, point)) << (CAMERAS as u32 + slot);
                }
            }
            // SAFETY: the word is this thread's.
            unsafe { run.marks.set(anchor * run.entries + own, marks) };
            anchor += place.warps;
        }
        own += WARP_LANES;
    }
}

/// The gradient of one logit of all anchors of the run, towards up to [`CAMERAS`] cameras from `first_camera` on, which
/// share the anchors' logits if `SHARED`.
///
/// # Safety
///
/// The pointers of `args` are valid as it says; the logit is the thread's own.
#[inline(always)]
unsafe fn logit_gradient<T: Storage, const SHARED: bool>(
    args: &WeightsGradientArgs<T>,
    run: &Run,
    index: u32,
    first_camera: u32,
) {
    let sizes = &args.sizes;
    let (entry, group) = sizes.by_groups.divide(index);
    let (mut weights, of_row) = weights_of(args, run, index, first_camera);
    let kept = args.logits.dropout.kept();
    let cameras = (sizes.cameras - first_camera).min(CAMERAS as u32) as usize;
    let logits = |row| OfAnchor::new(&args.logits, sizes, run.item, row, SHARED);
    let mut of_cameras = [0.0; CAMERAS];
    if SHARED {
        // SAFETY: the index exists.
        of_cameras = unsafe { own_logits(&logits(run.first), index, first_camera, cameras) };
    }
    let mut sums = [0.0; CAMERAS];
    for anchor in 0..run.anchors {
        let logits = logits(run.first + u64::from(anchor));
        // SAFETY: the anchor exists, the index, and its (level, point) among those that the marks are for.
        let (common, (marks, [largest, scale, inner])) =
            unsafe { (logits.common(index), run.notes(sizes, anchor, entry, group)) };
        // SAFETY: the pairs exist that count.
        let upstream = unsafe { load_upstream(args, weights, marks) };
        if !SHARED {
            // SAFETY: the index exists.
            of_cameras = unsafe { own_logits(&logits, index, first_camera, cameras) };
        }
        let mut total = 0.0;
        upto8(CAMERAS, |slot| {
            let softmax = exponential(common + of_cameras[slot], largest) * scale;
            let softmax = if marks.is_hidden(slot) { 0.0 } else { softmax };
            let gradient = softmax * (upstream[slot] * kept - inner);
            sums[slot] += gradient;
            total += gradient;
            if !SHARED && slot < cameras {
                let at = logits.place(first_camera + slot as u32, index);
                // SAFETY: camera and index exist, and the logit is this thread's own.
                unsafe { memory::store_f32(args.grad_anchor.wrapping_add(at), gradient) };
            }
        });
        if SHARED {
            // SAFETY: the logit is this thread's own.
            unsafe { store_total(args, &logits, index, first_camera, total) };
        }
        weights = weights.wrapping_add(of_row);
    }
    if SHARED {
        // SAFETY: the sums are this thread's own.
        unsafe { store_sums(args, run, index, first_camera, &sums) };
    }
}

/// The same where anchors and cameras have logits that are added, and none is minus infinity. With `p` the exponential of the anchor's
/// logit and the largest of the cameras', and `e` that of a camera's logit less this largest one, `s = p e`. So there is one
/// exponential for an anchor, and what `D` has to do with takes no loop over cameras, only over those that see the point.
///
/// # Safety
///
/// As for [`logit_gradient`].
#[inline(always)]
unsafe fn shared_logit_gradient<T: Storage>(
    args: &WeightsGradientArgs<T>,
    run: &Run,
    index: u32,
    first_camera: u32,
) {
    let sizes = &args.sizes;
    let (entry, group) = sizes.by_groups.divide(index);
    let (mut weights, of_row) = weights_of(args, run, index, first_camera);
    let kept = args.logits.dropout.kept();
    let cameras = (sizes.cameras - first_camera).min(CAMERAS as u32) as usize;
    let logits = |row| OfAnchor::new(&args.logits, sizes, run.item, row, true);
    // SAFETY: the index exists.
    let mut powers = unsafe { own_logits(&logits(run.first), index, first_camera, cameras) };
    // Finite, so that the difference to a logit of minus infinity is a number.
    let mut largest = f32::MIN;
    upto8(CAMERAS, |slot| largest = largest.max(powers[slot] * LOG2_E));
    let mut all = 0.0;
    upto8(CAMERAS, |slot| {
        powers[slot] = exponential(powers[slot], largest);
        all += powers[slot];
    });
    let (mut sums, mut inner_sum) = ([0.0; CAMERAS], 0.0);
    for anchor in 0..run.anchors {
        let logits = logits(run.first + u64::from(anchor));
        // SAFETY: the anchor exists, the index, and its (level, point) among those that the marks are for.
        let (common, (marks, [of_anchor, scale, inner])) =
            unsafe { (logits.common(index), run.notes(sizes, anchor, entry, group)) };
        // SAFETY: the pairs exist that count.
        let upstream = unsafe { load_upstream(args, weights, marks) };
        let power = memory::exp2(common.mul_add(LOG2_E, largest - of_anchor)) * scale;
        let (kept_power, of_inner) = (power * kept, power * inner);
        let mut total = all * -of_inner;
        upto8(CAMERAS, |slot| {
            let gradient = kept_power * powers[slot] * upstream[slot];
            sums[slot] += gradient;
            total += gradient;
        });
        inner_sum += of_inner;
        // SAFETY: the logit is this thread's own.
        unsafe { store_total(args, &logits, index, first_camera, total) };
        weights = weights.wrapping_add(of_row);
    }
    upto8(CAMERAS, |slot| sums[slot] = powers[slot].mul_add(-inner_sum, sums[slot]));
    // SAFETY: the sums are this thread's own.
    unsafe { store_sums(args, run, index, first_camera, &sums) };
}

/// What the logit `index` of `cameras` cameras from `first_camera` on is more than their common part. Those that do not exist have
/// logits of minus infinity: their softmax is 0, and no branch leaves them out.
///
/// # Safety
///
/// The pointers of the logits are valid as they say; the cameras and the index exist.
#[inline(always)]
unsafe fn own_logits(
    logits: &OfAnchor<'_>,
    index: u32,
    first_camera: u32,
    cameras: usize,
) -> [f32; CAMERAS] {
    let mut own = [f32::NEG_INFINITY; CAMERAS];
    upto8(cameras, |slot| {
        // SAFETY: camera and index exist.
        own[slot] = unsafe { logits.own(first_camera + slot as u32, index) };
    });
    own
}

/// The gradients of an anchor's weights from `weights` on for up to [`CAMERAS`] cameras; 0 where they do not count.
///
/// # Safety
///
/// Those that count exist, and nobody writes them during the launch.
#[inline(always)]
unsafe fn load_upstream<T: Storage>(
    args: &WeightsGradientArgs<T>,
    weights: *const T,
    marks: Marks,
) -> [f32; CAMERAS] {
    // Computed anew for every anchor, which costs less than the registers that keep the addresses.
    let distance = memory::opaque(args.sizes.weights_of_pair()) as usize;
    let mut upstream = [0.0; CAMERAS];
    upto8(CAMERAS, |slot| {
        let at = weights.wrapping_add(slot * distance);
        // SAFETY: the pair exists if it counts.
        upstream[slot] = unsafe { T::load_if(at, marks.counts(slot)) };
    });
    upstream
}

/// Where the gradients of the weights of a logit begin, for the run's first anchor and the camera, and how far from one anchor
/// to the next.
#[inline(always)]
fn weights_of<T>(
    args: &WeightsGradientArgs<T>,
    run: &Run,
    index: u32,
    first_camera: u32,
) -> (*const T, usize) {
    let sizes = &args.sizes;
    let (entry, group) = sizes.by_groups.divide(index);
    let (level, point) = sizes.by_points.divide(entry);
    let of_pair = sizes.weights_of_pair();
    let of_row = sizes.pairs() as usize * of_pair as usize;
    let weight = (point * sizes.cameras + first_camera) * of_pair + level * sizes.groups + group;
    (args.grad_weights.wrapping_add(run.first as usize * of_row + weight as usize), of_row)
}

/// Stores the gradient of a logit that cameras share: added to what earlier cameras have left.
///
/// # Safety
///
/// The pointers of `args` are valid as it says; the logit is the thread's own.
#[inline(always)]
unsafe fn store_total<T>(
    args: &WeightsGradientArgs<T>,
    logits: &OfAnchor<'_>,
    index: u32,
    first_camera: u32,
    mut total: f32,
) {
    let at = args.grad_anchor.wrapping_add(logits.place(0, index));
    // SAFETY: the logit is this thread's own, so it is this thread that wrote it for earlier cameras.
    unsafe {
        if first_camera > 0 {
            total += memory::reload_f32(at);
        }
        memory::store_f32(at, total);
    }
}

/// Stores the run's sums of a logit's gradients for up to [`CAMERAS`] cameras.
///
/// # Safety
///
/// The pointers of `args` are valid as it says; the sums are the thread's own.
#[inline(always)]
unsafe fn store_sums<T>(
    args: &WeightsGradientArgs<T>,
    run: &Run,
    index: u32,
    first_camera: u32,
    sums: &[f32; CAMERAS],
) {
    let sizes = &args.sizes;
    let cameras = (sizes.cameras - first_camera).min(CAMERAS as u32) as usize;
    let number = run.item as usize * args.runs.value as usize + run.number as usize;
    let first = number * sizes.cameras as usize + first_camera as usize;
    let distance = memory::opaque(sizes.logits()) as usize;
    let target = args.camera_parts.wrapping_add(first * distance + index as usize);
    upto8(cameras, |slot| {
        // SAFETY: the sum is this thread's own.
        unsafe { memory::store_f32(target.wrapping_add(slot * distance), sums[slot]) };
    });
}
