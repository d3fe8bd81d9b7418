//! Backward for locations and weights: one block per anchor, one worker per visible pair, which takes the
//! pair's levels in turn.
//!
//! The gradients of locations and weights are sums over channels: they are reduced inside the warp
//! and stored once.
//!
//! The gradient of the features is a sum over samples of all anchors. Where maps do not share pixels it is
//! the business of `sort.rs` and `gather.rs`. Where they do, the kernels here do it as well (`SCATTER`): they add
//! to memory by the widest vector reduction the architecture has, in no fixed order.

use crate::args::{BackwardArgs, Sizes};
use crate::block::{Place, WARP};
use crate::channels::{Any, Channels, Lane, Tile, Wide};
use crate::forward::load_map;
use crate::limits::{CHANNELS_PER_LANE, PAIRS_AT_A_TIME, shared_words};
use crate::memory::{self, SharedWords};
use crate::sample::Corners;
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

/// Sums over the channels of each weight group, for the gradient of the weights.
pub(crate) trait GroupSums<T: Storage>: Channels<T> {
    /// What has been summed so far of a group that the tiles cut in two.
    type Carry: Copy + Default;

    /// Adds up `products` (one per slot) over each group of the tile and stores the groups that are
    /// complete at `target`.
    ///
    /// # Safety
    ///
    /// All lanes of the warp make the call together, tile after tile. When `live`, `target` points to
    /// the worker's `G` elements of this sample; `scratch` is the worker's own.
    unsafe fn store_sums(
        products: &Lane,
        carry: &mut Self::Carry,
        target: *mut T,
        part: &Part,
        channels_per_group: u32,
        scratch: SharedWords,
        live: bool,
    );
}

impl<T: Storage> GroupSums<T> for Wide {
    /// The host chooses [`Wide`] only where a tile holds whole groups.
    type Carry = ();

    #[inline(always)]
    unsafe fn store_sums(
        products: &Lane,
        _: &mut (),
        target: *mut T,
        part: &Part,
        channels_per_group: u32,
        _: SharedWords,
        live: bool,
    ) {
        let (slots, tile) = (<Self as Channels<T>>::SLOTS, part.tile);
        // Lanes a group spreads over within a slot.
        let span = channels_per_group / T::PER_VECTOR as u32;
        let whole_tile = span > tile.lanes;
        let mut products = *products;
        if whole_tile {
            upto8(slots - 1, |other| products[0] += products[other + 1]);
        }
        let span = span.min(tile.lanes);
        upto8(slots, |slot| {
            let sum = sum_over_lanes(products[slot], span);
            let channel = <Self as Channels<T>>::channel(tile, slot * (8 / slots));
            let first_of_group = tile.lane & (span - 1) == 0 && !(whole_tile && slot > 0);
            if live && first_of_group && channel < tile.channels {
                // SAFETY: the group exists; one lane writes it.
                unsafe { T::store(target.wrapping_add(part.groups[slot] as usize), sum) };
            }
        });
    }
}

impl<T: Storage> GroupSums<T> for Any {
    type Carry = f32;

    #[inline(always)]
    unsafe fn store_sums(
        products: &Lane,
        carry: &mut f32,
        target: *mut T,
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
        // Group `g` is the business of lane `g % lanes` in every tile.
        let begin = tile.first / size;
        let mut group = begin + (tile.lane.wrapping_sub(begin) & (tile.lanes - 1));
        while group * size < end {
            let from = (group * size).max(tile.first);
            let to = ((group + 1) * size).min(end);
            let mut sum = if from == group * size { 0.0 } else { *carry };
            for channel in from..to {
                // SAFETY: a channel of this tile, written before the warp met.
                sum += f32::from_bits(unsafe { scratch.get(channel - tile.first) });
            }
            if to == (group + 1) * size {
                if live {
                    // SAFETY: the group exists; one lane writes it.
                    unsafe { T::store(target.wrapping_add(group as usize), sum) };
                }
            } else {
                *carry = sum;
            }
            group += tile.lanes;
        }
        // SAFETY: all lanes of the warp are here; the scratch may be written again after this.
        unsafe { warp::sync_warp(WARP) };
    }
}

/// The backward kernel for one element type and one way to deal out channels.
///
/// Grid: `B * A`. Block: whole warps. Shared memory: [`shared_words::bytes`].
///
/// # Safety
///
/// The pointers of `args` are valid as it says, for the sizes it gives.
#[inline(always)]
pub(crate) unsafe fn backward<T: Storage, C: GroupSums<T>, const SCATTER: bool>(
    args: BackwardArgs<T>,
) {
    let sizes = &args.sizes;
    let place = Place::new(sizes);
    let anchor = Anchor::new(&args, thread::block_idx_x() as usize);
    // SAFETY: the first tile exists.
    let start = unsafe { Part::new::<T, C>(sizes, &anchor, place, 0) };
    let visible = Visible::new();
    // SAFETY: these arrays are this block's alone.
    unsafe { anchor.clear(place) };

    let mut first = 0;
    while first < anchor.pairs {
        // SAFETY: the whole block is here with the same arguments, and the barrier at the end of the
        // loop has passed since the last list was read. The first call's barriers also order the
        // zeros of `clear` before what follows.
        let seen = unsafe {
            visible.collect(place, first, anchor.pairs, |pair| {
                is_visible(anchor.locations, pair, sizes.rule)
            })
        };
        let mut index = place.warp * place.workers + place.worker;
        // The loop runs as often for every lane of a warp: its lanes meet inside.
        let mut of_warp = place.warp * place.workers;
        while of_warp < seen {
            let live = index < seen;
            // SAFETY: the index is below `seen` when `live`, else not used; index 0 exists.
            let pair = unsafe { visible.pair(if live { index } else { 0 }) };
            // SAFETY: all lanes of the warp are here.
            unsafe { pair_gradients::<T, C, SCATTER>(&args, &anchor, &start, place, pair, live) };
            index += place.warps * place.workers;
            of_warp += place.warps * place.workers;
        }
        first += PAIRS_AT_A_TIME;
        thread::sync_threads();
    }
}

/// The parts of the arrays that belong to one anchor.
struct Anchor<T> {
    pairs: u32,
    features: *const T,
    grad_features: *mut f32,
    locations: *const f32,
    grad_locations: *mut f32,
    weights: *const T,
    grad_weights: *mut T,
    grad_output: *const T,
    /// Weights of the anchor.
    weight_count: u32,
}

impl<T: Storage> Anchor<T> {
    #[inline(always)]
    fn new(args: &BackwardArgs<T>, anchor: usize) -> Self {
        let sizes = &args.sizes;
        let pairs = sizes.pairs();
        let weight_count = pairs * sizes.levels * sizes.groups;
        let batch = anchor / sizes.anchors.max(1) as usize;
        let item = batch * sizes.rows as usize * sizes.channels as usize;
        Self {
            pairs,
            features: args.features.wrapping_add(item),
            grad_features: args.grad_features.wrapping_add(item),
            locations: args.locations.wrapping_add(anchor * pairs as usize * 2),
            grad_locations: args.grad_locations.wrapping_add(anchor * pairs as usize * 2),
            weights: args.weights.wrapping_add(anchor * weight_count as usize),
            grad_weights: args.grad_weights.wrapping_add(anchor * weight_count as usize),
            grad_output: args.grad_output.wrapping_add(anchor * sizes.channels as usize),
            weight_count,
        }
    }

    /// Writes zeros to the gradients of the anchor's locations and weights: what no sample counts
    /// for stays so.
    ///
    /// # Safety
    ///
    /// The whole block makes the call; the arrays are its own.
    #[inline(always)]
    unsafe fn clear(&self, place: Place) {
        let mut index = place.thread;
        while index < self.weight_count {
            // SAFETY: one thread per element.
            unsafe { T::store(self.grad_weights.wrapping_add(index as usize), 0.0) };
            index += place.threads;
        }
        let mut index = place.thread;
        while index < self.pairs * 2 {
            // SAFETY: one thread per element.
            unsafe { memory::store_f32(self.grad_locations.wrapping_add(index as usize), 0.0) };
            index += place.threads;
        }
    }
}

/// What all samples of an anchor have in common on one tile of channels.
#[derive(Clone, Copy)]
pub(crate) struct Part {
    tile: Tile,
    groups: [u32; CHANNELS_PER_LANE as usize],
    /// Gradient of the anchor's output.
    upstream: Lane,
}

impl Part {
    /// # Safety
    ///
    /// The tile exists.
    #[inline(always)]
    unsafe fn new<T: Storage, C: Channels<T>>(
        sizes: &Sizes,
        anchor: &Anchor<T>,
        place: Place,
        number: u32,
    ) -> Self {
        let tile = place.tile(sizes, number);
        let groups = C::groups(tile, sizes.channels_per_group());
        // SAFETY: the anchor's row of output gradients.
        let upstream = unsafe { C::load(anchor.grad_output, tile, true) };
        Self { tile, groups, upstream }
    }
}

/// All gradients one visible pair gives rise to.
///
/// # Safety
///
/// All lanes of the warp make the call together; `pair` is a pair of the anchor, the worker's own
/// when `live`.
#[inline(always)]
unsafe fn pair_gradients<T: Storage, C: GroupSums<T>, const SCATTER: bool>(
    args: &BackwardArgs<T>,
    anchor: &Anchor<T>,
    start: &Part,
    place: Place,
    pair: u32,
    live: bool,
) {
    let sizes = &args.sizes;
    // SAFETY: the pair is one of the anchor's.
    let [x, y] = unsafe { memory::load_pair(anchor.locations.add(2 * pair as usize)) };
    let camera = pair % sizes.cameras.max(1);
    let (mut grad_x, mut grad_y) = (0.0, 0.0);
    for level in 0..sizes.levels {
        // SAFETY: the table has a row per camera and an entry per level.
        let map = unsafe { load_map(args.maps.add((camera * sizes.levels + level) as usize)) };
        let corners =
            if live { Corners::new(x, y, map, sizes.rule) } else { Corners::NONE };
        // SAFETY: all lanes of the warp are here.
        if !unsafe { warp::warp_vote_any(WARP, corners.present != 0) } {
            continue;
        }
        let weight = (pair * sizes.levels + level) * sizes.groups;
        // SAFETY: the rows of present corners and the sample's weights are inside the arrays, and
        // all lanes of the warp are here.
        let dots = unsafe {
            sample_gradients::<T, C, SCATTER>(
                sizes,
                anchor,
                start,
                place,
                &corners,
                weight as usize,
            )
        };
        if corners.present != 0 {
            let (s, t) = (corners.s, corners.t);
            let across = (1.0 - t) * (dots[1] - dots[0]) + t * (dots[3] - dots[2]);
            let down = (1.0 - s) * (dots[2] - dots[0]) + s * (dots[3] - dots[1]);
            grad_x = (map.width as f32).mul_add(across, grad_x);
            grad_y = (map.height as f32).mul_add(down, grad_y);
        }
    }
    let grad_x = sum_over_lanes(grad_x, place.lanes);
    let grad_y = sum_over_lanes(grad_y, place.lanes);
    if live && place.lane == 0 {
        // SAFETY: the pair is this worker's alone.
        unsafe {
            memory::store_f32(anchor.grad_locations.add(2 * pair as usize), grad_x);
            memory::store_f32(anchor.grad_locations.add(2 * pair as usize + 1), grad_y);
        }
    }
}

/// The gradients of one sample's pixels and weights; returns, for each corner, the lane's part of
/// `sum over c of weight * grad_output * pixel`, from which the gradient of the location follows.
///
/// # Safety
///
/// All lanes of the warp make the call together. Rows of present corners lie in the anchor's batch
/// item, and `weight` is the sample's first weight.
#[inline(always)]
unsafe fn sample_gradients<T: Storage, C: GroupSums<T>, const SCATTER: bool>(
    sizes: &Sizes,
    anchor: &Anchor<T>,
    start: &Part,
    place: Place,
    corners: &Corners,
    weight: usize,
) -> [f32; 4] {
    let counts = corners.present != 0;
    let coefficients = corners.coefficients();
    let mut dots = [0.0; 4];
    let mut carry = C::Carry::default();
    let scratch = SharedWords::new(
        shared_words::SCRATCH
            + place.warp * shared_words::SCRATCH_PER_WARP
            + place.worker * place.lanes * CHANNELS_PER_LANE,
    );
    let mut number = 0;
    while number * place.lanes * CHANNELS_PER_LANE < sizes.channels {
        let mut part = *start;
        if number > 0 {
            // SAFETY: the tile exists.
            part = unsafe { Part::new::<T, C>(sizes, anchor, place, number) };
        }
        let Part { tile, groups, upstream } = part;
        let rows =
            array4(|corner| corners.row_of(corner as u32) as usize * sizes.channels as usize);
        // SAFETY: rows of present corners lie on their map.
        let pixels = array4(|corner| unsafe {
            C::load(anchor.features.wrapping_add(rows[corner]), tile, corners.has(corner as u32))
        });
        let mut products = [0.0; CHANNELS_PER_LANE as usize];
        let mut scaled = upstream;
        upto8(C::SLOTS, |slot| {
            // A sample that does not count is skipped whatever its weight, NaN included.
            let factor = if counts {
                // SAFETY: the group exists, and so does the sample's weight for it.
                unsafe { T::load(anchor.weights.wrapping_add(weight + groups[slot] as usize)) }
            } else {
                0.0
            };
            let first = slot * C::PER_SLOT;
            each4(|corner| {
                let mut dot = 0.0;
                upto8(C::PER_SLOT, |channel| {
                    dot = upstream[first + channel].mul_add(pixels[corner][first + channel], dot);
                });
                products[slot] = coefficients[corner].mul_add(dot, products[slot]);
                dots[corner] = factor.mul_add(dot, dots[corner]);
            });
            upto8(C::PER_SLOT, |channel| scaled[first + channel] *= factor);
        });
        each4(|corner| {
            if SCATTER && corners.has(corner as u32) {
                let values = array8(|channel| scaled[channel] * coefficients[corner]);
                // SAFETY: a present corner's row of the gradient, only ever added to.
                unsafe { C::add(anchor.grad_features.wrapping_add(rows[corner]), tile, &values) };
            }
        });
        // SAFETY: all lanes of the warp are here; the sample's weights are this worker's alone.
        unsafe {
            let target = anchor.grad_weights.wrapping_add(weight);
            let size = sizes.channels_per_group();
            C::store_sums(&products, &mut carry, target, &part, size, scratch, counts);
        }
        number += 1;
    }
    dots
}
