//! Backward for locations and weights: one block per anchor. It finds the distinct rows of the anchor's samples
//! ([`rows`](crate::rows)); its workers read each row once and multiply it with the output gradient, which leaves one
//! number per row and weight group; from these each sample has the gradients of its weights and location.
//!
//! The gradient of the features is a sum over the samples of all anchors. Where maps do not share pixels it is the
//! business of `gather.rs`, and the kernels here mark where it has to look ([`marks`](crate::marks)). Where they do
//! share pixels, the kernels here do it as well (`SCATTER`): they add to memory by the widest vector reduction the
//! architecture has, in no fixed order.

use crate::args::{BackwardArgs, Sizes};
use crate::block::{Place, WARP};
use crate::channels::{Any, Channels, Lane, Tile, Wide};
use crate::limits::{CHANNELS_PER_LANE, PAIRS_AT_A_TIME, window_words};
use crate::marks;
use crate::memory::{self, SharedWords};
use crate::rows::{Named, Owner, Round, Samples, Stored, Table, Weights, Window, load_map};
use crate::storage::Storage;
use crate::unroll::{array4, array8, each4, each8, upto8};
use crate::visible::{Visible, is_visible};
#[cfg(target_arch = "nvptx64")]
use cuda_std::GpuFloat;
use cuda_std::{thread, warp};

/// Adds a value over neighbouring lanes, `width` of them, a power of two; every lane gets the sum.
#[inline(always)]
fn sum_over_lanes(mut value: f32, width: u32) -> f32 {
    let mut distance = width / 2;
    while distance > 0 {
        // SAFETY: the callers keep all lanes of the warp together.
        value += unsafe { warp::warp_shuffle_xor(WARP, value, distance, 32) }.0;
        distance /= 2;
    }
    value
}

/// Four rows of a window: a first one, and others at equal distances.
pub(crate) struct Numbers {
    first: u32,
    step: u32,
    /// Rows of the window.
    known: u32,
}

impl Numbers {
    #[inline(always)]
    fn get(&self, index: u32) -> u32 {
        self.first + index * self.step
    }

    /// Whether there is such a row.
    #[inline(always)]
    fn is_live(&self, index: u32) -> bool {
        self.get(index) < self.known
    }
}

/// Sums over the channels of each weight group.
pub(crate) trait GroupSums<T: Storage>: Channels<T> {
    /// Adds up the `products` of four rows over each group's channels of the tile, for the table's rows of these numbers.
    /// Sums of a group that begins in an earlier tile are added to what is there.
    ///
    /// # Safety
    ///
    /// All lanes of the warp make the call together, tile after tile. Rows that are live are the worker's own; `scratch`
    /// is the worker's own in any case.
    unsafe fn add_up(
        products: &[Lane; 4],
        table: Table,
        numbers: &Numbers,
        part: &Part,
        channels_per_group: u32,
        scratch: SharedWords,
    );
}

impl<T: Storage> GroupSums<T> for Wide {
    /// The host chooses [`Wide`] only where a tile holds whole groups.
    #[inline(always)]
    unsafe fn add_up(
        products: &[Lane; 4],
        table: Table,
        numbers: &Numbers,
        part: &Part,
        channels_per_group: u32,
        _: SharedWords,
    ) {
        let (slots, tile) = (<Self as Channels<T>>::SLOTS, part.tile);
        // Lanes a group spreads over within a slot.
        let span = channels_per_group / T::PER_VECTOR as u32;
        let whole_tile = span > tile.lanes;
        let span = span.min(tile.lanes);
        upto8(slots, |slot| {
            let mut sums = array4(|row| {
                let mut sum = 0.0;
                upto8(<Self as Channels<T>>::PER_SLOT, |within| {
                    sum += products[row][slot * <Self as Channels<T>>::PER_SLOT + within];
                });
                sum
            });
            let mut first_of_group = tile.lane & (span - 1) == 0;
            if whole_tile {
                // The group has all slots of all lanes.
                sums = array4(|row| {
                    let mut sum = 0.0;
                    each8(|channel| sum += products[row][channel]);
                    sum
                });
                first_of_group &= slot == 0;
            }
            let channel = <Self as Channels<T>>::channel(tile, slot * <Self as Channels<T>>::PER_SLOT);
            let exists = channel < tile.channels;
            if span >= 4 {
                let (row, sum) = sum_four_over_lanes(sums, tile.lane, span);
                let stores = tile.lane & (span - 1) < 4 && !(whole_tile && slot > 0);
                if stores && exists && numbers.is_live(row) {
                    // SAFETY: the row is the worker's, the group and row one lane's.
                    unsafe { table.set(numbers.get(row), part.groups[slot], sum) };
                }
            } else {
                each4(|row| {
                    let sum = sum_over_lanes(sums[row], span);
                    if numbers.is_live(row as u32) && first_of_group && exists {
                        // SAFETY: the row is the worker's, the group one lane's.
                        unsafe { table.set(numbers.get(row as u32), part.groups[slot], sum) };
                    }
                });
            }
        });
    }
}

/// Adds four values, each over neighbouring lanes, `width` of them, a power of two from 4 on. Lane `i` gets the sum of
/// value `i % 4`, which is returned with it: half of the shuffles that four separate sums take.
#[inline(always)]
fn sum_four_over_lanes(values: [f32; 4], lane: u32, width: u32) -> (u32, f32) {
    // SAFETY: the callers keep all lanes of the warp together.
    let swap = |value: f32, distance| unsafe { warp::warp_shuffle_xor(WARP, value, distance, 32) }.0;
    // Each lane keeps two of the values and hands the other two to the lane that keeps those.
    let upper = lane & 2 != 0;
    let (keep, give) = if upper {
        ([values[2], values[3]], [values[0], values[1]])
    } else {
        ([values[0], values[1]], [values[2], values[3]])
    };
    let two = [keep[0] + swap(give[0], 2), keep[1] + swap(give[1], 2)];
    let odd = lane & 1 != 0;
    let (keep, give) = if odd { (two[1], two[0]) } else { (two[0], two[1]) };
    let mut sum = keep + swap(give, 1);
    let mut distance = 4;
    while distance < width {
        sum += swap(sum, distance);
        distance *= 2;
    }
    (lane & 3, sum)
}

impl<T: Storage> GroupSums<T> for Any {
    #[inline(always)]
    unsafe fn add_up(
        products: &[Lane; 4],
        table: Table,
        numbers: &Numbers,
        part: &Part,
        channels_per_group: u32,
        scratch: SharedWords,
    ) {
        each4(|row| {
            // SAFETY: the caller's promise.
            unsafe {
                let number = numbers.get(row as u32);
                let live = numbers.is_live(row as u32);
                add_up_row(&products[row], table, number, part, channels_per_group, scratch, live);
            }
        });
    }
}

/// As [`GroupSums::add_up`] for one row and [`Any`]: the lanes leave their products in shared memory, and each adds up
/// some of the groups.
///
/// # Safety
///
/// As for [`GroupSums::add_up`].
#[inline(always)]
unsafe fn add_up_row(
    products: &Lane,
    table: Table,
    number: u32,
    part: &Part,
    channels_per_group: u32,
    scratch: SharedWords,
    live: bool,
) {
    let tile = part.tile;
    each8(|index| {
        let at = index as u32 * tile.lanes + tile.lane;
        // SAFETY: the word is this lane's own.
        unsafe { scratch.set(at, products[index].to_bits()) };
    });
    // SAFETY: all lanes of the warp are here.
    unsafe { warp::sync_warp(WARP) };
    let size = channels_per_group.max(1);
    let end = (tile.first + tile.width()).min(tile.channels);
    let mut group = tile.first / size + tile.lane;
    while live && group * size < end {
        let from = (group * size).max(tile.first);
        let to = ((group + 1) * size).min(end);
        // SAFETY: the row is the worker's, the group this lane's; the part of it in the tile before was stored by a
        // lane of the warp that has met since.
        let mut sum = if from == group * size { 0.0 } else { unsafe { table.get(number, group) } };
        for channel in from..to {
            // SAFETY: a channel of this tile, written before the warp met.
            sum += f32::from_bits(unsafe { scratch.get(channel - tile.first) });
        }
        // SAFETY: as above.
        unsafe { table.set(number, group, sum) };
        group += tile.lanes;
    }
    // SAFETY: all lanes of the warp are here; the scratch may be written again after this.
    unsafe { warp::sync_warp(WARP) };
}

/// The backward kernel for one element type and one way to deal out channels.
///
/// Grid: `B * A`. Block: whole warps. Shared memory:
/// [`backward_shared_bytes`](crate::backward_shared_bytes).
///
/// # Safety
///
/// The pointers of `args` are valid as it says, for the sizes it gives.
#[inline(always)]
pub(crate) unsafe fn backward<T: Storage, C: GroupSums<T>, const SCATTER: bool>(
    args: BackwardArgs<T>,
) {
    let sizes = &args.sizes;
    let number = thread::block_idx_x() as usize;
    let pairs = sizes.pairs() as usize;
    let weight_count = pairs * (sizes.levels * sizes.groups) as usize;
    let (item, anchor) = sizes.by_anchors.divide(thread::block_idx_x());
    let item = item as usize;
    let features = item * sizes.rows as usize * sizes.channels as usize;
    let anchor = Anchor {
        item,
        number: anchor,
        features: args.features.wrapping_add(features),
        grad_features: args.grad_features.wrapping_add(features),
        grad_locations: args.grad_locations.wrapping_add(number * pairs * 2),
        grad_weights: args.grad_weights.wrapping_add(number * weight_count),
        grad_output: args.grad_output.wrapping_add(number * sizes.channels as usize),
        samples: Samples {
            maps: args.maps,
            locations: args.locations.wrapping_add(number * pairs * 2),
            weights: Stored {
                start: args.weights.wrapping_add(number * weight_count),
                levels: sizes.levels,
                groups: sizes.groups,
            },
            visible: Visible::new(),
        },
    };
    // SAFETY: the caller's promise.
    unsafe {
        let place = Place::new(sizes);
        clear(&args, place, number);
        differentiate::<T, C, _, SCATTER>(&args, place, &anchor);
    }
}

/// The parts of the arrays that belong to one anchor.
struct Anchor<T, W> {
    /// The batch item, and the number of the anchor in it.
    item: usize,
    number: u32,
    features: *const T,
    grad_features: *mut f32,
    grad_locations: *mut f32,
    grad_weights: *mut T,
    grad_output: *const T,
    samples: Samples<W>,
}

/// Writes zeros to the gradients of the locations and weights of the anchor of this number over the batch: what no
/// sample counts for stays so. Complete after the block's next barrier.
///
/// # Safety
///
/// The whole block makes the call; the anchor's part of the arrays is its own.
#[inline(always)]
unsafe fn clear<T>(args: &BackwardArgs<T>, place: Place, number: usize) {
    let sizes = &args.sizes;
    let weights = (sizes.pairs() * sizes.levels * sizes.groups) as usize * size_of::<T>();
    let locations = 2 * size_of::<f32>() * sizes.pairs() as usize;
    let (thread, threads) = (place.thread, place.threads);
    // SAFETY: the anchor's elements.
    unsafe {
        memory::zero(args.grad_weights.cast(), number * weights, weights, thread, threads);
        memory::zero(args.grad_locations.cast(), number * locations, locations, thread, threads);
    }
}

/// What all rows of an anchor have in common on one tile of channels.
#[derive(Clone, Copy)]
pub(crate) struct Part {
    tile: Tile,
    groups: [u32; CHANNELS_PER_LANE as usize],
    /// Gradient of the anchor's output.
    upstream: Lane,
}

/// The gradients of one anchor's locations and weights, and with `SCATTER` its part of the features' one.
///
/// # Safety
///
/// The whole block makes the call, after [`clear`]; the arrays of `args` and `anchor` are valid.
#[inline(always)]
unsafe fn differentiate<T: Storage, C: GroupSums<T>, W: Weights, const SCATTER: bool>(
    args: &BackwardArgs<T>,
    place: Place,
    anchor: &Anchor<T, W>,
) {
    let sizes = &args.sizes;
    let pairs = sizes.pairs();
    let samples = &anchor.samples;
    let window = Window::new(args.window, sizes.groups);
    let mut first = 0;
    while first < pairs {
        // SAFETY: the whole block is here with the same arguments, and a barrier has passed since the last list was
        // read. The barriers of the first call also order the zeros before what follows.
        unsafe {
            window.clear(place);
            let seen = samples.visible.collect(place, first, pairs, |pair| {
                is_visible(samples.locations, pair, sizes.rule)
            });
            let gradients = LocationGradients::new();
            gradients.clear(place, seen);
            let (mut start, end) = (0, seen * sizes.levels);
            while start < end {
                start = take_window::<T, C, W, SCATTER>(args, place, anchor, &window, start, end);
            }
            gradients.store(place, samples.visible, seen, anchor.grad_locations);
        }
        first += PAIRS_AT_A_TIME;
        thread::sync_threads();
    }
}

/// Takes samples from `start` on, as many as the window holds and at most to `end`, and does everything that is to be
/// done for them. Returns the first sample that is left.
///
/// # Safety
///
/// The whole block makes the call. The list of visible pairs is complete and the window cleared, both before a barrier;
/// so it is on return.
#[inline(always)]
unsafe fn take_window<T: Storage, C: GroupSums<T>, W: Weights, const SCATTER: bool>(
    args: &BackwardArgs<T>,
    place: Place,
    anchor: &Anchor<T, W>,
    window: &Window,
    start: u32,
    end: u32,
) -> u32 {
    let sizes = &args.sizes;
    let full = window.samples_of_round(place);
    let owner = Owner::of_maps(sizes.shared_rows != 0);
    let table = window.table();
    let (mut next, mut known, mut rounds) = (start, 0, 0);
    // SAFETY: the whole block is here with the same arguments; the barriers are those the calls ask for.
    unsafe {
        while next < end {
            let place = Place::again(sizes);
            let round = Round { first: next, count: full.min(end - next) };
            if known + 4 * round.count > window.capacity {
                break;
            }
            window.stage_corners(sizes, place, &anchor.samples, round, |corner| {
                if !SCATTER {
                    marks::set(args, anchor.item, anchor.number, corner);
                }
            });
            window.stage_weights(sizes, place, &anchor.samples, round);
            thread::sync_threads();
            known = window.number(place, round, known);
            if SCATTER {
                window.add_weights(place, round, table, owner);
                thread::sync_threads();
            }
            next += round.count;
            rounds += 1;
        }
        if SCATTER {
            add_to_features::<T, C, W>(args, Place::again(sizes), anchor, window, known);
            thread::sync_threads();
        }
        multiply_rows::<T, C, W>(args, Place::again(sizes), anchor, window, known);
        thread::sync_threads();
        let mut first = start;
        while first < next {
            let place = Place::again(sizes);
            let round = Round { first, count: full.min(next - first) };
            if rounds > 1 {
                // Only the last round is staged still.
                window.stage_corners(sizes, place, &anchor.samples, round, |_| ());
                window.stage_weights(sizes, place, &anchor.samples, round);
                thread::sync_threads();
            }
            sample_gradients(sizes, place, anchor, window, round);
            thread::sync_threads();
            LocationGradients::new().add(sizes, place, round);
            thread::sync_threads();
            first += round.count;
        }
        if next < end {
            window.clear(place);
            thread::sync_threads();
        }
    }
    next
}

/// Multiplies every row of the window with the output gradient: the table has the sums over the channels of each group
/// afterwards.
///
/// # Safety
///
/// The whole block makes the call; the window has `known` rows, all in the features.
#[inline(always)]
unsafe fn multiply_rows<T: Storage, C: GroupSums<T>, W>(
    args: &BackwardArgs<T>,
    place: Place,
    anchor: &Anchor<T, W>,
    window: &Window,
    known: u32,
) {
    let sizes = &args.sizes;
    let workers = place.warps * place.workers;
    let scratch = SharedWords::new(
        window_words::end(window.capacity, sizes.groups)
            + place.warp * window_words::PER_WARP
            + place.worker * place.lanes * CHANNELS_PER_LANE,
    );
    let table = window.table();
    let row_bytes = sizes.channels * size_of::<T>() as u32;
    let mut tile = 0;
    while tile * place.lanes * CHANNELS_PER_LANE < sizes.channels {
        // SAFETY: the tile exists.
        let part = unsafe { Part::new::<T, C>(sizes, anchor.grad_output, place, tile) };
        let mut begin = place.warp * place.workers;
        // The loop runs as often for every lane of a warp: its lanes meet inside.
        while begin < known {
            // Four rows on their way at a time. Behind the last one it is read again, and not used.
            let numbers = Numbers { first: begin + place.worker, step: workers, known };
            // SAFETY: the numbers are known.
            let pixels = array4(|index| unsafe {
                let number = numbers.get(index as u32).min(known - 1);
                let offset = window.row(number) as usize * row_bytes as usize;
                C::load_row(anchor.features, offset, part.tile)
            });
            let products = array4(|index| {
                array8(|channel| part.upstream[channel] * pixels[index][channel])
            });
            // SAFETY: all lanes of the warp are here; rows go round the workers.
            unsafe {
                C::add_up(&products, table, &numbers, &part, sizes.channels_per_group(), scratch);
            }
            begin += 4 * workers;
        }
        tile += 1;
    }
}

impl Part {
    /// # Safety
    ///
    /// The tile exists, and `grad_output` is the anchor's row of output gradients.
    #[inline(always)]
    unsafe fn new<T: Storage, C: Channels<T>>(
        sizes: &Sizes,
        grad_output: *const T,
        place: Place,
        number: u32,
    ) -> Self {
        let tile = place.tile(sizes, number);
        let groups = C::groups(tile, &sizes.by_group);
        // SAFETY: the caller's promise.
        let upstream = unsafe { C::load(grad_output, 0, tile, true) };
        Self { tile, groups, upstream }
    }
}

/// Adds the output gradient, times what each row counts for, to the gradient of the features.
///
/// # Safety
///
/// The whole block makes the call; the window has `known` rows, all in the features, and the table what they count
/// for.
#[inline(always)]
unsafe fn add_to_features<T: Storage, C: Channels<T>, W>(
    args: &BackwardArgs<T>,
    place: Place,
    anchor: &Anchor<T, W>,
    window: &Window,
    known: u32,
) {
    let sizes = &args.sizes;
    let table = window.table();
    let mut tile = 0;
    while tile * place.lanes * CHANNELS_PER_LANE < sizes.channels {
        // SAFETY: the tile exists.
        let part = unsafe { Part::new::<T, C>(sizes, anchor.grad_output, place, tile) };
        let mut number = place.warp * place.workers + place.worker;
        while number < known {
            let mut values = part.upstream;
            upto8(C::SLOTS, |slot| {
                // SAFETY: the row and the group are in the table.
                let weight = unsafe { table.get(number, part.groups[slot]) };
                upto8(C::PER_SLOT, |within| values[slot * C::PER_SLOT + within] *= weight);
            });
            // SAFETY: a row of the gradient, only ever added to.
            unsafe {
                let row = window.row(number) as usize * sizes.channels as usize;
                C::add(anchor.grad_features.wrapping_add(row), part.tile, &values);
            }
            number += place.warps * place.workers;
        }
        tile += 1;
    }
}

/// The gradients of the weights of a round's samples, and the derivatives by their locations. Complete after the block's
/// next barrier.
///
/// # Safety
///
/// The whole block makes the call; the round is staged, and the table has its rows' products with the output gradient.
#[inline(always)]
unsafe fn sample_gradients<T: Storage, W: Weights>(
    sizes: &Sizes,
    place: Place,
    anchor: &Anchor<T, W>,
    window: &Window,
    round: Round,
) {
    let table = window.table();
    let slopes = SharedWords::new(window_words::SLOPES);
    let shift = window.group_lanes().trailing_zeros();
    let lane = place.warp_lane & (window.group_lanes() - 1);
    let (of_warp, per_warp) = (place.warp_lane >> shift, 32 >> shift);
    let mut begin = place.warp * per_warp;
    // The loop runs as often for every lane of a warp: its lanes meet inside.
    while begin < round.count {
        let sample = begin + of_warp;
        let (mut across, mut down) = (0.0, 0.0);
        if sample < round.count {
            // SAFETY: the sample is one of the round's.
            unsafe {
                let rows = window.places(sample);
                if rows.iter().any(Option::is_some) {
                    let Named { pair, level } =
                        anchor.samples.name(sizes, round.first + sample);
                    let first = ((pair * sizes.levels + level) * sizes.groups) as usize;
                    let coefficients = array4(|which| {
                        window.coefficient(sample, which as u32)
                    });
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
                        T::store(anchor.grad_weights.wrapping_add(first + group as usize), gradient);
                        let weight = window.weight(sample, group);
                        let right = (1.0 - t) * (dots[1] - dots[0]) + t * (dots[3] - dots[2]);
                        let below = (1.0 - s) * (dots[2] - dots[0]) + s * (dots[3] - dots[1]);
                        across = weight.mul_add(right, across);
                        down = weight.mul_add(below, down);
                        group += window.group_lanes();
                    }
                }
            }
        }
        let across = sum_over_lanes(across, window.group_lanes());
        let down = sum_over_lanes(down, window.group_lanes());
        if lane == 0 && sample < round.count {
            // SAFETY: the sample's map exists; its words are this lane's.
            unsafe {
                let map = load_map(
                    anchor.samples.maps.add(window.map(sample) as usize),
                );
                slopes.set(2 * sample, (map.width as f32 * across).to_bits());
                slopes.set(2 * sample + 1, (map.height as f32 * down).to_bits());
            }
        }
        begin += place.warps * per_warp;
    }
}

/// Gradients of the locations of the listed pairs, in shared memory: sums over levels.
struct LocationGradients(SharedWords);

impl LocationGradients {
    #[inline(always)]
    fn new() -> Self {
        Self(SharedWords::new(window_words::LOCATIONS))
    }

    /// Sets them to zero. Complete after the block's next barrier.
    ///
    /// # Safety
    ///
    /// The whole block makes the call; nobody uses them until the barrier.
    #[inline(always)]
    unsafe fn clear(&self, place: Place, seen: u32) {
        let mut index = place.thread;
        while index < 2 * seen {
            // SAFETY: one thread per word.
            unsafe { self.0.set(index, 0) };
            index += place.threads;
        }
    }

    /// Adds the derivatives of a round's samples, level after level.
    ///
    /// # Safety
    ///
    /// The whole block makes the call, after a barrier behind [`sample_gradients`].
    #[inline(always)]
    unsafe fn add(&self, sizes: &Sizes, place: Place, round: Round) {
        let slopes = SharedWords::new(window_words::SLOPES);
        let levels = sizes.levels;
        let end = round.first + round.count;
        // A thread for each coordinate of each pair of the round.
        let mut index = sizes.by_levels.quotient(round.first) * 2 + place.thread;
        while index / 2 * levels < end {
            let from = (index / 2 * levels).max(round.first);
            let to = ((index / 2 + 1) * levels).min(end);
            // SAFETY: the pair is listed and its coordinate this thread's; the slopes are the round's.
            unsafe {
                let mut sum = f32::from_bits(self.0.get(index));
                for sample in from..to {
                    let slope = slopes.get(2 * (sample - round.first) + index % 2);
                    sum += f32::from_bits(slope);
                }
                self.0.set(index, sum.to_bits());
            }
            index += place.threads;
        }
    }

    /// Stores them.
    ///
    /// # Safety
    ///
    /// The whole block makes the call, after a barrier; `target` is the anchor's part of the gradient.
    #[inline(always)]
    unsafe fn store(&self, place: Place, visible: Visible, seen: u32, target: *mut f32) {
        let mut index = place.thread;
        while index < 2 * seen {
            // SAFETY: the pair is listed; one thread per coordinate.
            unsafe {
                let at = 2 * visible.pair(index / 2) + index % 2;
                memory::store_f32(target.wrapping_add(at as usize), f32::from_bits(self.0.get(index)));
            }
            index += place.threads;
        }
    }
}
