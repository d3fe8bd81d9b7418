//! Weights from logits: for each group the softmax over cameras, levels and points. One warp for each anchor.
//!
//! Where anchors and cameras have logits that are added, the sum of exponentials over the cameras is the anchor's exponential times
//! that of the cameras, which is the same for all anchors of a batch item: a block computes it once ([`Table`]), and for an anchor
//! there is one exponential for each level, point and group.
//!
//! Weights are written only where their location counts; the operator reads no others.

use crate::attention::logits::{CAMERAS, LOG2_E, OfAnchor, Pairs, exponential};
use crate::attention::statistics::Statistics;
use crate::block::{Place, WARP};
use crate::block_args::{BlockSizes, WeightsArgs};
use crate::limits::{WARP_LANES, weights_words};
use crate::memory::{self, SharedWords};
use crate::sample;
use crate::storage::Storage;
use crate::unroll::{array4, each4, upto8};
use cuda_std::{thread, warp};
#[cfg(target_arch = "nvptx64")]
use cuda_std::GpuFloat;

/// The statistics over cameras of each of the cameras' logits, in shared memory.
#[derive(Clone, Copy)]
struct Table {
    words: SharedWords,
}

impl Table {
    /// Fills the table. Complete after the block's next barrier.
    ///
    /// # Safety
    ///
    /// The whole block makes the call, and nobody reads the table meanwhile.
    #[inline(always)]
    unsafe fn fill(self, cameras: &OfAnchor<'_>, of_pairs: &Pairs<'_>, sizes: &BlockSizes) {
        let mut index = thread::thread_idx_x();
        while index < sizes.logits() {
            // SAFETY: the logit exists; the words are this thread's.
            unsafe {
                let Statistics { largest, sum } = over_cameras(cameras, of_pairs, sizes, index, 0.0, 0);
                self.words.set(2 * index, largest.to_bits());
                self.words.set(2 * index + 1, sum.to_bits());
            }
            index += thread::block_dim_x();
        }
    }

    /// The statistics of a logit over the cameras.
    ///
    /// # Safety
    ///
    /// The table is complete, and has the logit.
    #[inline(always)]
    unsafe fn get(self, index: u32) -> Statistics {
        // SAFETY: the caller's promise.
        let [largest, sum] = unsafe { self.words.get2(2 * index) }.map(f32::from_bits);
        Statistics { largest, sum }
    }
}

/// Which logits a lane takes: those of one group, of every so many (level, point)s. Neighbouring lanes have neighbouring
/// groups, as many times over as there is room for.
struct Share {
    group: u32,
    /// Number of the group among those that the warp works on.
    within: u32,
    first: u32,
    /// How many lanes have each group.
    copies: u32,
    /// Groups that the warp works on.
    span: u32,
    live: bool,
}

impl Share {
    /// Of the groups from `first_group` on.
    #[inline(always)]
    fn new(sizes: &BlockSizes, first_group: u32, lane: u32) -> Self {
        let span = (sizes.groups - first_group).clamp(1, WARP_LANES);
        // All groups at once are the usual case, and by them no division is needed.
        let ((copies, _), (first, within)) = if span == sizes.groups {
            (sizes.by_groups.divide(WARP_LANES), sizes.by_groups.divide(lane))
        } else {
            ((WARP_LANES / span, 0), (lane / span, lane % span))
        };
        Self { group: first_group + within, within, first, copies, span, live: first < copies }
    }
}

/// Writes the statistics of anchors and their weights.
///
/// Grid: `(runs of anchors, B)`. Block: whole warps. Shared memory: [`weights_bytes`](crate::limits::weights_bytes).
///
/// # Safety
///
/// The pointers of `args` are valid as it says, for the sizes it gives.
#[inline(always)]
pub(crate) unsafe fn weights<T: Storage>(args: WeightsArgs<T>) {
    // SAFETY: the caller's promise.
    unsafe {
        if args.logits.camera.is_null() {
            of_run::<T, false>(&args);
        } else {
            of_run::<T, true>(&args);
        }
    }
}

/// The same for a block, where anchors share their logits with cameras if `SHARED`.
///
/// # Safety
///
/// As for [`weights`].
#[inline(always)]
unsafe fn of_run<T: Storage, const SHARED: bool>(args: &WeightsArgs<T>) {
    let sizes = &args.sizes;
    let place = Place::with_lanes(sizes.weight_lanes);
    let item = u64::from(thread::block_idx_y());
    let first = thread::block_idx_x() * args.run;
    let row = |anchor: u32| item * u64::from(sizes.anchors) + u64::from(anchor);
    let table = Table { words: SharedWords::new(0) };
    if SHARED && args.has_table != 0 {
        let cameras = OfAnchor::new(&args.logits, sizes, item, row(first), true);
        // SAFETY: the whole block is here.
        unsafe { table.fill(&cameras, &Pairs::new(&args.logits, sizes, row(first)), sizes) };
        thread::sync_threads();
    }
    let end = (first + args.run).min(sizes.anchors);
    let mut anchor = first + place.warp;
    while anchor < end {
        // SAFETY: the whole warp is here; the anchor exists.
        unsafe { of_anchor::<T, SHARED>(args, place, table, item, row(anchor)) };
        anchor += place.warps;
    }
}

/// Writes the statistics of an anchor and its weights.
///
/// # Safety
///
/// The whole warp makes the call; the anchor exists, and the table is complete if there is one.
#[inline(always)]
unsafe fn of_anchor<T: Storage, const SHARED: bool>(
    args: &WeightsArgs<T>,
    place: Place,
    table: Table,
    item: u64,
    row: u64,
) {
    let sizes = &args.sizes;
    let logits = OfAnchor::new(&args.logits, sizes, item, row, SHARED);
    let of_pairs = Pairs::new(&args.logits, sizes, row);
    let pairs = sizes.pairs();
    let locations = args.locations.wrapping_add(2 * (row * u64::from(pairs)) as usize);
    let of_table = if args.has_table != 0 { weights_words::table(sizes.logits()) } else { 0 };
    let of_warp = of_table + place.warp * weights_words::of_warp(sizes.groups);
    let list = SharedWords::new(of_warp);
    let statistics = list.from(weights_words::STATISTICS);
    let mut first_group = 0;
    while first_group < sizes.groups {
        let share = Share::new(sizes, first_group, place.warp_lane);
        // SAFETY: the whole warp is here with the same groups.
        unsafe {
            let own = if SHARED && args.has_table != 0 {
                of_lane_by_table(&logits, table, sizes, &share)
            } else {
                of_lane(&logits, &of_pairs, sizes, &share)
            };
            let Statistics { largest, sum } = over_warp(&share, own);
            if place.warp_lane < share.span {
                let [largest, scale] = [largest, 1.0 / sum];
                statistics.set(2 * share.group, largest.to_bits());
                statistics.set(2 * share.group + 1, scale.to_bits());
                let at = 2 * (row * u64::from(sizes.groups) + u64::from(share.group)) as usize;
                memory::store_pair(args.statistics.wrapping_add(at), [largest, scale]);
            }
        }
        first_group += WARP_LANES;
    }
    let target = (row * u64::from(pairs) * u64::from(sizes.weights_of_pair())) as usize;
    let target = args.weights.wrapping_add(target);
    let mut first = 0;
    while first < pairs {
        // SAFETY: the whole warp is here, and meets before list and statistics are read, and after.
        unsafe {
            let places = load_locations(locations, place, first, pairs);
            let found = collect(list, place, &logits, sizes, places, first);
            warp::sync_warp(WARP);
            write_weights(&logits, &of_pairs, sizes, place, (statistics, list), found, target);
            warp::sync_warp(WARP);
        }
        first += weights_words::LIST;
    }
}

/// The locations of the lane's four of the pairs from `first` on; what no location is where there is none.
///
/// # Safety
///
/// The locations are the anchor's.
#[inline(always)]
unsafe fn load_locations(locations: *const f32, place: Place, first: u32, pairs: u32) -> [[f32; 2]; 4] {
    array4(|slot| {
        let pair = first + slot as u32 * WARP_LANES + place.warp_lane;
        if pair < pairs {
            // SAFETY: the pair exists.
            unsafe { memory::load_pair(locations.wrapping_add(2 * pair as usize)) }
        } else {
            [f32::NAN; 2]
        }
    })
}

/// Lists those of the pairs from `first` on, whose locations the lanes have, that can count on some level, and returns how many
/// they are: their numbers, and where their logits of the first level and group lie among those that the cameras share and among
/// their own. The list is complete when the warp has met.
///
/// # Safety
///
/// The whole warp makes the call, and nobody reads the list meanwhile.
#[inline(always)]
unsafe fn collect(
    list: SharedWords,
    place: Place,
    logits: &OfAnchor<'_>,
    sizes: &BlockSizes,
    locations: [[f32; 2]; 4],
    first: u32,
) -> u32 {
    let mut found = 0;
    each4(|slot| {
        let [x, y] = locations[slot];
        let seen = sample::may_count(x, y, sizes.rule);
        // SAFETY: all lanes of the warp are here.
        let ballot = unsafe { warp::warp_vote_ballot(WARP, seen) };
        if seen {
            let before = (ballot & ((1 << place.warp_lane) - 1)).count_ones();
            let pair = first + slot as u32 * WARP_LANES + place.warp_lane;
            let (point, camera) = sizes.by_cameras.divide(pair);
            let common = point * sizes.groups;
            let words = [pair, common, logits.of_camera(camera, common), 0];
            // SAFETY: every lane has words of its own.
            unsafe { list.set4(4 * (found + before), words) };
        }
        found += ballot.count_ones();
    });
    found
}

/// The statistics of the lane's logits, four (level, point)s at a time, for the loads of all to be under way together.
///
/// # Safety
///
/// As for [`weights`]; the table is complete.
#[inline(always)]
unsafe fn of_lane_by_table(
    logits: &OfAnchor<'_>,
    table: Table,
    sizes: &BlockSizes,
    share: &Share,
) -> Statistics {
    let mut all = Statistics::NONE;
    let end = if share.live { sizes.levels * sizes.points } else { 0 };
    let mut first = share.first;
    while first < end {
        let entry = |slot: usize| first + slot as u32 * share.copies;
        let commons = array4(|slot| {
            // SAFETY: the index exists.
            unsafe { logits.common_if(entry(slot) * sizes.groups + share.group, entry(slot) < end) }
        });
        let parts = array4(|slot| {
            if entry(slot) >= end {
                return Statistics::NONE;
            }
            // SAFETY: the index exists.
            let cameras = unsafe { table.get(entry(slot) * sizes.groups + share.group) };
            Statistics { largest: commons[slot].mul_add(LOG2_E, cameras.largest), ..cameras }
        });
        all = all.and_four(parts);
        first += 4 * share.copies;
    }
    all
}

/// The statistics of the lane's logits, from each camera's.
///
/// # Safety
///
/// As for [`weights`].
#[inline(always)]
unsafe fn of_lane(logits: &OfAnchor<'_>, of_pairs: &Pairs<'_>, sizes: &BlockSizes, share: &Share) -> Statistics {
    let mut all = Statistics::NONE;
    let end = if share.live { sizes.levels * sizes.points } else { 0 };
    let mut entry = share.first;
    while entry < end {
        let index = entry * sizes.groups + share.group;
        // SAFETY: the index exists.
        unsafe {
            let common = logits.common(index);
            let (_, point) = sizes.by_points.divide(entry);
            all = all.and(over_cameras(logits, of_pairs, sizes, index, common, point));
        }
        entry += share.copies;
    }
    all
}

/// The statistics of a logit over the cameras, of which some may be hidden from the point. `common` is what they share of it.
///
/// # Safety
///
/// The pointers of the logits are valid as they say; index and point exist.
#[inline(always)]
unsafe fn over_cameras(
    logits: &OfAnchor<'_>,
    of_pairs: &Pairs<'_>,
    sizes: &BlockSizes,
    index: u32,
    common: f32,
    point: u32,
) -> Statistics {
    let mut all = Statistics::NONE;
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
    all
}

/// The statistics over all lanes of the warp that have the calling one's group, combined in a fixed order.
///
/// # Safety
///
/// The whole warp makes the call.
#[inline(always)]
unsafe fn over_warp(share: &Share, own: Statistics) -> Statistics {
    // SAFETY: the whole warp is here: the arguments of the shuffles are the same for all, but for lanes.
    let of_lane = |lane: u32| unsafe {
        Statistics {
            largest: warp::warp_shuffle_idx(WARP, own.largest, lane % WARP_LANES, WARP_LANES).0,
            sum: warp::warp_shuffle_idx(WARP, own.sum, lane % WARP_LANES, WARP_LANES).0,
        }
    };
    if !share.span.is_power_of_two() {
        let mut all = of_lane(share.within);
        for copy in 1..share.copies {
            all = all.and(of_lane(share.within + copy * share.span));
        }
        return all;
    }
    let mut all = own;
    let mut distance = share.span;
    while distance < WARP_LANES {
        // SAFETY: as above.
        let other = unsafe {
            Statistics {
                largest: warp::warp_shuffle_xor(WARP, all.largest, distance, WARP_LANES).0,
                sum: warp::warp_shuffle_xor(WARP, all.sum, distance, WARP_LANES).0,
            }
        };
        all = all.and(other);
        distance *= 2;
    }
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
    (statistics, list): (SharedWords, SharedWords),
    found: u32,
    target: *mut T,
) {
    let of_pair = sizes.weights_of_pair();
    let workers = place.workers;
    let mut entry = place.lane;
    while entry < of_pair {
        let (level, group) = sizes.by_groups.divide(entry);
        let of_level = level * sizes.points * sizes.groups + group;
        // SAFETY: the caller's promise.
        let [largest, scale] = unsafe {
            [statistics.get(2 * group), statistics.get(2 * group + 1)].map(f32::from_bits)
        };
        let mut first = place.worker;
        while first < found {
            let number = |slot: usize| first + slot as u32 * workers;
            let values = array4(|slot| {
                if number(slot) >= found {
                    return (0, 0.0);
                }
                // SAFETY: of the list; point, camera and index exist.
                unsafe {
                    let [pair, common, own, _] = list.get4(4 * number(slot));
                    (pair, logits.common(of_level + common) + logits.own_at(of_level + own))
                }
            });
            each4(|slot| {
                if number(slot) < found {
                    let (pair, logit) = values[slot];
                    let mut weight = exponential(logit, largest) * scale;
                    // SAFETY: the pair exists; the weight is this lane's own.
                    unsafe {
                        if of_pairs.are_special() {
                            let (point, camera) = sizes.by_cameras.divide(pair);
                            weight *= of_pairs.dropout(camera, point);
                            if of_pairs.is_hidden(camera, point) {
                                weight = 0.0;
                            }
                        }
                        T::store(target.wrapping_add((pair * of_pair + entry) as usize), weight);
                    }
                }
            });
            first += 4 * workers;
        }
        entry += place.lanes;
    }
}
