//! Backward for locations and weights: one block per anchor, or [part](crate::parts) of one. It finds the distinct rows of
//! the anchor's samples ([`rows`](crate::rows)) and multiplies each once with the output gradient, which leaves one number per
//! row and weight group; from these each sample has the gradients of its weights and location.
//!
//! | file | what it is |
//! |---|---|
//! | `take_rows.rs` | what is done with the rows: a worker takes a few at a time |
//! | `group_sums.rs` | the products of a worker's rows, summed over each weight group |
//!
//! The gradient of the features is a sum over the samples of all anchors. Where each pixel belongs to one map it may be left
//! to [`gather`](crate::gather). Otherwise the kernels here do it as well ([`Scatter`]): they add to memory by the widest
//! vector reduction the architecture has, in no fixed order, once for each distinct row.

mod group_sums;
mod take_rows;

use crate::args::{BackwardArgs, Sizes};
use crate::block::Place;
use crate::lane_sums::sum_two_over_lanes;
use crate::limits::{PAIRS_AT_A_TIME, window_words};
use crate::memory::{self, SharedWords};
use crate::parts::Part;
use crate::rows::{Named, Owner, Run, Samples, Window, load_map};
use crate::storage::Storage;
use crate::unroll::array4;
use crate::visible::{Visible, is_visible};
#[cfg(target_arch = "nvptx64")]
use cuda_std::GpuFloat;
use cuda_std::thread;

pub(crate) use group_sums::{ByLanes, ByMemory};
pub(crate) use take_rows::{Multiply, Scatter, TakeRows};

/// The backward kernel for one element type and one way to take rows.
///
/// Grid: `B * A * parts`. Block: whole warps. Shared memory:
/// [`backward_shared_bytes`](crate::backward_shared_bytes).
///
/// # Safety
///
/// The pointers of `args` are valid as it says, for the sizes it gives.
#[inline(always)]
pub(crate) unsafe fn backward<T: Storage, R: TakeRows<T>>(args: BackwardArgs<T>) {
    let sizes = &args.sizes;
    let part = Part::new(sizes, thread::block_idx_x());
    let weights = part.first_pair * (sizes.levels * sizes.groups) as usize;
    let features = part.item * sizes.rows as usize * sizes.channels as usize;
    let anchor = Anchor {
        part,
        features: args.features.wrapping_add(features),
        grad_features: args.grad_features.wrapping_add(features),
        grad_locations: args.grad_locations.wrapping_add(part.first_pair * 2),
        grad_weights: args.grad_weights.wrapping_add(weights),
        grad_output: args.grad_output.wrapping_add(part.anchor * sizes.channels as usize),
        samples: Samples {
            maps: args.maps,
            locations: args.locations.wrapping_add(part.first_pair * 2),
            weights: args.weights.wrapping_add(weights),
            visible: Visible::new(),
        },
    };
    // SAFETY: the caller's promise.
    unsafe {
        let place = Place::new(sizes);
        if args.leaves_unseen == 0 {
            clear(&args, place, part);
        }
        differentiate::<T, R>(&args, place, &anchor);
    }
}

/// An anchor, or a part of one, and what of the arrays belongs to it.
pub(crate) struct Anchor<T> {
    part: Part,
    features: *const T,
    grad_features: *mut f32,
    grad_locations: *mut f32,
    grad_weights: *mut T,
    grad_output: *const T,
    samples: Samples<T>,
}

/// Writes zeros to the gradients of the locations and weights of a part of an anchor: what no sample counts for stays so.
/// Complete after the block's next barrier.
///
/// # Safety
///
/// The whole block makes the call; the part of the arrays is its own.
#[inline(always)]
unsafe fn clear<T>(args: &BackwardArgs<T>, place: Place, part: Part) {
    let sizes = &args.sizes;
    let of_pair = (sizes.levels * sizes.groups) as usize * size_of::<T>();
    let [weights_before, weights] =
        [part.first_pair, part.pairs as usize].map(|pairs| pairs * of_pair);
    let [locations_before, locations] =
        [part.first_pair, part.pairs as usize].map(|pairs| pairs * 2 * size_of::<f32>());
    let (thread, threads) = (place.thread, place.threads);
    // SAFETY: the anchor's elements.
    unsafe {
        memory::zero(args.grad_weights.cast(), weights_before, weights, thread, threads);
        memory::zero(args.grad_locations.cast(), locations_before, locations, thread, threads);
    }
}

/// The gradients of one anchor's locations and weights, and its part of the features' one where rows are scattered.
///
/// # Safety
///
/// The whole block makes the call, after [`clear`]; the arrays of `args` and `anchor` are valid.
#[inline(always)]
unsafe fn differentiate<T: Storage, R: TakeRows<T>>(
    args: &BackwardArgs<T>,
    place: Place,
    anchor: &Anchor<T>,
) {
    let sizes = &args.sizes;
    let pairs = anchor.part.pairs;
    let samples = &anchor.samples;
    let window = Window::new(args.window, sizes.groups);
    let mut first = 0;
    while first < pairs {
        // SAFETY: the whole block is here with the same arguments, and a barrier has passed since the last list and the
        // window were read. The barriers of the first call also order the zeros and the cleared window before what follows.
        unsafe {
            window.clear(Place::again(sizes));
            let seen = samples.visible.collect(place, first, pairs, |pair| {
                is_visible(samples.locations, pair, sizes.rule)
            });
            let (mut start, end) = (0, seen * sizes.levels);
            while start < end {
                start = take_window::<T, R>(args, anchor, &window, start, end);
            }
        }
        first += PAIRS_AT_A_TIME;
    }
}

/// Takes samples from `start` on, as many as the window holds and at most to `end`, and does everything that is to be
/// done for them. Returns the first sample that is left.
///
/// # Safety
///
/// The whole block makes the call. The list of visible pairs is complete, the window is cleared, and nobody uses it; it is
/// again when samples are left.
#[inline(always)]
unsafe fn take_window<T: Storage, R: TakeRows<T>>(
    args: &BackwardArgs<T>,
    anchor: &Anchor<T>,
    window: &Window,
    start: u32,
    end: u32,
) -> u32 {
    let sizes = &args.sizes;
    let samples = &anchor.samples;
    let (mut run, mut known) = (Run { first: start, count: 0 }, 0);
    // SAFETY: the whole block is here with the same arguments; the barriers are those the calls ask for.
    unsafe {
        loop {
            let place = Place::again(sizes);
            let next = start + run.count;
            let count = window.round(place, run.count, known, end - next);
            if count == 0 {
                break;
            }
            let round = Run { first: next, count };
            // Weights are on their way while rows are looked up.
            let weights = window.fetch_weights(sizes, place, samples, round, 0);
            let slots = window.stage(sizes, place, samples, round, run.count);
            window.stage_weights(sizes, place, samples, round, run.count, weights);
            thread::sync_threads();
            known = window.number(place, round, run.count, slots, known);
            run.count += count;
        }
        if R::SCATTERS {
            let owner = Owner::of_maps(sizes.shared_rows != 0);
            window.add_weights(Place::again(sizes), run.count, owner);
            thread::sync_threads();
        }
        R::take(args, anchor, window, known);
        thread::sync_threads();
        sample_gradients(sizes, Place::again(sizes), anchor, window, run);
        if start + run.count < end {
            window.clear(Place::again(sizes));
        }
        thread::sync_threads();
        store_location_gradients(sizes, Place::again(sizes), anchor, run);
        thread::sync_threads();
    }
    start + run.count
}

/// The gradients of the weights of the window's samples, and the derivatives by their locations. Complete after the
/// block's next barrier.
///
/// # Safety
///
/// The whole block makes the call; the window has the samples of the run with their weights, and the table has the rows'
/// products with the output gradient.
#[inline(always)]
unsafe fn sample_gradients<T: Storage>(
    sizes: &Sizes,
    place: Place,
    anchor: &Anchor<T>,
    window: &Window,
    run: Run,
) {
    let table = window.table();
    let slopes = SharedWords::new(window_words::SLOPES);
    let width = window.group_lanes();
    let shift = width.trailing_zeros();
    let lane = place.warp_lane & (width - 1);
    let (of_warp, per_warp) = (place.warp_lane >> shift, 32 >> shift);
    let mut begin = place.warp * per_warp;
    // The loop runs as often for every lane of a warp: its lanes meet inside.
    while begin < run.count {
        let sample = begin + of_warp;
        let (mut across, mut down) = (0.0, 0.0);
        let mut sides = [0; 2];
        if sample < run.count {
            // SAFETY: the sample is one of the run's, its map exists.
            unsafe {
                // Wanted at the end, and on its way until then.
                let map = load_map(anchor.samples.maps.add(window.map(sample) as usize));
                sides = [map.width, map.height];
                let rows = window.places(sample);
                let Named { pair, level } = anchor.samples.name(sizes, run.first + sample);
                let first = ((pair * sizes.levels + level) * sizes.groups) as usize;
                let target = anchor.grad_weights.wrapping_add(first);
                if rows.iter().any(Option::is_some) {
                    let coefficients = window.coefficients(sample);
                    // The fractions between the corners.
                    let s = coefficients[1] + coefficients[3];
                    let t = coefficients[2] + coefficients[3];
                    let mut group = lane;
                    while group < window.groups() {
                        let dots = array4(|which| {
                            rows[which].map_or(0.0, |row| table.at(row, group))
                        });
                        let mut gradient = coefficients[0] * dots[0];
                        gradient = coefficients[1].mul_add(dots[1], gradient);
                        gradient = coefficients[2].mul_add(dots[2], gradient);
                        gradient = coefficients[3].mul_add(dots[3], gradient);
                        T::store(target.wrapping_add(group as usize), gradient);
                        let weight = window.weight(sample, group);
                        let right = (1.0 - t) * (dots[1] - dots[0]) + t * (dots[3] - dots[2]);
                        let below = (1.0 - s) * (dots[2] - dots[0]) + s * (dots[3] - dots[1]);
                        across = weight.mul_add(right, across);
                        down = weight.mul_add(below, down);
                        group += width;
                    }
                } else {
                    // Seen on another level only.
                    let mut group = lane;
                    while group < window.groups() {
                        T::store(target.wrapping_add(group as usize), 0.0);
                        group += width;
                    }
                }
            }
        }
        let slope = sum_two_over_lanes([across, down], lane, width);
        if lane < 2 && sample < run.count {
            let side = if lane == 0 { sides[0] } else { sides[1] };
            // SAFETY: one of the sample's words is this lane's.
            unsafe { slopes.set(2 * sample + lane, (side as f32 * slope).to_bits()) };
        }
        begin += place.warps * per_warp;
    }
}

/// Stores the gradients of the locations of the run's pairs: sums over levels. What an earlier run has left for a pair is
/// added to.
///
/// # Safety
///
/// The whole block makes the call, after a barrier behind [`sample_gradients`]; another passes before the next run.
#[inline(always)]
unsafe fn store_location_gradients<T: Storage>(sizes: &Sizes, place: Place, anchor: &Anchor<T>, run: Run) {
    let slopes = SharedWords::new(window_words::SLOPES);
    let (levels, end) = (sizes.levels, run.first + run.count);
    // A thread for each coordinate of each pair of the run.
    let mut index = sizes.by_levels.quotient(run.first) * 2 + place.thread;
    while index / 2 * levels < end {
        let begin = index / 2 * levels;
        let from = begin.max(run.first);
        // SAFETY: the pair is listed and its coordinate this thread's; the slopes are the run's.
        unsafe {
            let at = 2 * anchor.samples.visible.pair(index / 2) + index % 2;
            let target = anchor.grad_locations.wrapping_add(at as usize);
            let mut sum = if from > begin { memory::reload_f32(target) } else { 0.0 };
            for sample in from..(begin + levels).min(end) {
                sum += f32::from_bits(slopes.get(2 * (sample - run.first) + index % 2));
            }
            memory::store_f32(target, sum);
        }
        index += place.threads;
    }
}
