//! Weights from logits: for each group the softmax over cameras, levels and points. One block for each anchor.
//!
//! Weights are written only where their location counts; the operator reads no others.

use crate::attention::logits::{CAMERAS, LOG2_E, OfAnchor, Pairs, exponential};
use crate::block::{Place, WARP};
use crate::block_args::{BlockSizes, WeightsArgs};
use crate::limits::{PAIRS_AT_A_TIME, WARP_LANES, weights_words};
use crate::memory::{self, SharedWords};
use crate::storage::Storage;
use crate::unroll::{array4, each4, upto8};
use crate::visible::{Visible, is_visible};
use cuda_std::{thread, warp};

/// The largest of some logits times log₂ e, and the sum of `exp(logit - largest)` over them.
#[derive(Clone, Copy)]
struct Statistics {
    largest: f32,
    sum: f32,
}

impl Statistics {
    /// Those of no logits. Finite, so that the difference to a logit of minus infinity is a number.
    const NONE: Self = Self { largest: f32::MIN, sum: 0.0 };

    /// Those of the logits of both.
    #[inline(always)]
    fn and(self, other: Self) -> Self {
        let largest = self.largest.max(other.largest);
        let rescaled = |part: Self| part.sum * memory::exp2(part.largest - largest);
        Self { largest, sum: rescaled(self) + rescaled(other) }
    }
}

/// Which logits a thread takes: those of one group, of every so many (level, point)s. Neighbouring threads have
/// neighbouring groups, as many times over as there is room for.
struct Share {
    group: u32,
    /// Number of the group among those that the block works on.
    within: u32,
    first: u32,
    /// How many threads have each group.
    copies: u32,
    /// Groups that the block works on.
    span: u32,
    live: bool,
}

impl Share {
    /// Of the groups from `first_group` on.
    #[inline(always)]
    fn new(sizes: &BlockSizes, first_group: u32, place: Place) -> Self {
        let span = (sizes.groups - first_group).clamp(1, place.threads);
        // All groups at once are the usual case, and by them no division is needed.
        let ((copies, _), (first, within)) = if span == sizes.groups {
            (sizes.by_groups.divide(place.threads), sizes.by_groups.divide(place.thread))
        } else {
            let divide = |number: u32| (number / span, number % span);
            (divide(place.threads), divide(place.thread))
        };
        Self { group: first_group + within, within, first, copies, span, live: first < copies }
    }
}

/// Writes the statistics of an anchor and its weights.
///
/// Grid: `(A, B)`. Block: whole warps, at most [`MAX_WARPS`](crate::limits::MAX_WARPS). Shared memory:
/// [`weights_bytes`](crate::limits::weights_bytes).
///
/// # Safety
///
/// The pointers of `args` are valid as it says, for the sizes it gives.
#[inline(always)]
pub(crate) unsafe fn weights<T: Storage>(args: WeightsArgs<T>) {
    let sizes = &args.sizes;
    let item = u64::from(thread::block_idx_y());
    let row = item * u64::from(sizes.anchors) + u64::from(thread::block_idx_x());
    let shared = !args.logits.camera.is_null();
    let logits = |shared| OfAnchor::new(&args.logits, sizes, item, row, shared);
    let of_pairs = Pairs::new(&args.logits, sizes, row);
    let place = Place::with_lanes(sizes.weight_lanes);
    let pairs = sizes.pairs();
    let locations = args.locations.wrapping_add(2 * (row * u64::from(pairs)) as usize);
    let sees = |pair: u32| is_visible(locations, pair, sizes.rule);
    // Under way together with the logits.
    let own_seen = place.thread < pairs && sees(place.thread);
    let mut first_group = 0;
    while first_group < sizes.groups {
        let share = Share::new(sizes, first_group, place);
        // SAFETY: the whole block is here with the same groups.
        unsafe {
            let own = if shared {
                of_thread(&logits(true), &of_pairs, sizes, &share)
            } else {
                of_thread(&logits(false), &of_pairs, sizes, &share)
            };
            let Statistics { largest, sum } = of_block(place, &share, own);
            if place.thread < share.span {
                let statistics = [largest, 1.0 / sum];
                let at = SharedWords::new(weights_words::STATISTICS + 2 * share.group);
                at.set(0, statistics[0].to_bits());
                at.set(1, statistics[1].to_bits());
                let at = 2 * (row * u64::from(sizes.groups) + u64::from(share.group)) as usize;
                memory::store_pair(args.statistics.wrapping_add(at), statistics);
            }
        }
        first_group += place.threads;
    }
    let target = (row * u64::from(pairs) * u64::from(sizes.weights_of_pair())) as usize;
    let target = args.weights.wrapping_add(target);
    let (visible, mut first) = (Visible::new(), 0);
    while first < pairs {
        // SAFETY: the whole block is here. The list's barriers have passed since the statistics were written, and the
        // barrier below since the list was read.
        unsafe {
            let seen = |pair| if pair == place.thread { own_seen } else { sees(pair) };
            let found = visible.collect(place, first, pairs, seen);
            if shared {
                write_weights(&logits(true), &of_pairs, sizes, place, visible, found, target);
            } else {
                write_weights(&logits(false), &of_pairs, sizes, place, visible, found, target);
            }
        }
        thread::sync_threads();
        first += PAIRS_AT_A_TIME;
    }
}

/// The statistics of the thread's logits.
///
/// # Safety
///
/// As for [`weights`].
#[inline(always)]
unsafe fn of_thread(logits: &OfAnchor<'_>, of_pairs: &Pairs<'_>, sizes: &BlockSizes, share: &Share) -> Statistics {
    let mut all = Statistics::NONE;
    let end = if share.live { sizes.levels * sizes.points } else { 0 };
    let index_of = |entry: u32| entry * sizes.groups + share.group;
    let mut entry = share.first;
    // One step ahead: nothing of the anchor is in a cache.
    let mut next = 0.0;
    if entry < end {
        // SAFETY: the index exists.
        next = unsafe { logits.common(index_of(entry)) };
    }
    while entry < end {
        let (index, common) = (index_of(entry), next);
        if entry + share.copies < end {
            // SAFETY: the index exists.
            next = unsafe { logits.common(index_of(entry + share.copies)) };
        }
        let mut first_camera = 0;
        while first_camera < sizes.cameras {
            let mut values = [f32::NEG_INFINITY; CAMERAS];
            let exists = |slot: usize| first_camera + (slot as u32) < sizes.cameras;
            upto8(CAMERAS, |slot| {
                if exists(slot) {
                    // SAFETY: camera and index exist.
                    values[slot] =
                        common + unsafe { logits.own(first_camera + slot as u32, index) };
                }
            });
            if of_pairs.may_hide() {
                let (_, point) = sizes.by_points.divide(entry);
                upto8(CAMERAS, |slot| {
                    let camera = first_camera + slot as u32;
                    // SAFETY: camera and point exist.
                    if exists(slot) && unsafe { of_pairs.is_hidden(camera, point) } {
                        values[slot] = f32::NEG_INFINITY;
                    }
                });
            }
            let mut largest = f32::NEG_INFINITY;
            upto8(CAMERAS, |slot| largest = largest.max(values[slot]));
            let largest = all.largest.max(largest * LOG2_E);
            let mut sum = all.sum * memory::exp2(all.largest - largest);
            upto8(CAMERAS, |slot| sum += exponential(values[slot], largest));
            all = Statistics { largest, sum };
            first_camera += CAMERAS as u32;
        }
        entry += share.copies;
    }
    all
}

/// The statistics over all threads of the block that have the calling one's group, combined in a fixed order.
///
/// # Safety
///
/// The whole block makes the call.
#[inline(always)]
unsafe fn of_block(place: Place, share: &Share, own: Statistics) -> Statistics {
    // A power of two of groups stands in every warp in the same places: there lanes can combine theirs first.
    let in_warps = share.span.is_power_of_two() && share.span <= WARP_LANES;
    let mut all = own;
    let mut distance = if in_warps { share.span } else { WARP_LANES };
    while distance < WARP_LANES {
        // SAFETY: the whole warp is here: the distance is the same for all.
        let other = unsafe {
            Statistics {
                largest: warp::warp_shuffle_xor(WARP, all.largest, distance, WARP_LANES).0,
                sum: warp::warp_shuffle_xor(WARP, all.sum, distance, WARP_LANES).0,
            }
        };
        all = all.and(other);
        distance *= 2;
    }
    let (count, step) = if in_warps { (place.warps, WARP_LANES) } else { (share.copies, share.span) };
    let shared = SharedWords::new(weights_words::PARTS);
    // SAFETY: the thread's own words.
    unsafe {
        shared.set(2 * place.thread, all.largest.to_bits());
        shared.set(2 * place.thread + 1, all.sum.to_bits());
    }
    thread::sync_threads();
    let part = |number: u32| {
        let at = 2 * (number * step + share.within);
        // SAFETY: written before the barrier.
        unsafe {
            Statistics {
                largest: f32::from_bits(shared.get(at)),
                sum: f32::from_bits(shared.get(at + 1)),
            }
        }
    };
    all = part(0);
    for number in 1..count {
        all = all.and(part(number));
    }
    // The words may be written again after this.
    thread::sync_threads();
    all
}

/// Writes the weights of the listed pairs, four at a time, for the loads of all to be under way together.
///
/// # Safety
///
/// The list has `found` pairs, the statistics of all groups are in shared memory, and `target` points to the anchor's
/// weights.
#[inline(always)]
unsafe fn write_weights<T: Storage>(
    logits: &OfAnchor<'_>,
    of_pairs: &Pairs<'_>,
    sizes: &BlockSizes,
    place: Place,
    visible: Visible,
    found: u32,
    target: *mut T,
) {
    let of_pair = sizes.weights_of_pair();
    let workers = place.warps * place.workers;
    let mut entry = place.lane;
    while entry < of_pair {
        let (level, group) = sizes.by_groups.divide(entry);
        let of_level = level * sizes.points * sizes.groups + group;
        let statistics = SharedWords::new(weights_words::STATISTICS + 2 * group);
        // SAFETY: the caller's promise.
        let [largest, scale] = unsafe { [statistics.get(0), statistics.get(1)].map(f32::from_bits) };
        let mut first = place.warp * place.workers + place.worker;
        while first < found {
            let number = |slot: usize| first + slot as u32 * workers;
            let values = array4(|slot| {
                if number(slot) >= found {
                    return (0, 0, 0, 0.0);
                }
                // SAFETY: of the list; point, camera and index exist.
                unsafe {
                    let pair = visible.pair(number(slot));
                    let (point, camera) = sizes.by_cameras.divide(pair);
                    let index = of_level + point * sizes.groups;
                    let logit = logits.common(index) + logits.own(camera, index);
                    (pair, point, camera, logit)
                }
            });
            each4(|slot| {
                if number(slot) < found {
                    let (pair, point, camera, logit) = values[slot];
                    // SAFETY: point and camera exist; the weight is this lane's own.
                    unsafe {
                        let factor = of_pairs.dropout(camera, point);
                        let weight = exponential(logit, largest) * scale * factor;
                        let weight = if of_pairs.is_hidden(camera, point) { 0.0 } else { weight };
                        T::store(target.wrapping_add((pair * of_pair + entry) as usize), weight);
                    }
                }
            });
            first += 4 * workers;
        }
        entry += place.lanes;
    }
}
