//! Forward: one block per anchor (or [part](crate::parts) of one) and tile of channels, one worker per sample, sums in registers, one
//! write per output.
//!
//! The samples of the anchor's visible pairs go round the warps in a fixed order and the warps' sums
//! are added in a fixed order, so the result is the same bit for bit in every run.

use crate::args::ForwardArgs;
use crate::block::{Place, WARP};
use crate::channels::{Channels, Lane, Tile};
use crate::limits::{
    CHANNELS_PER_LANE, PAIRS_AT_A_TIME, SAMPLE_WORDS, WARP_LANES, forward_words,
};
use crate::memory::{self, SharedWords};
use crate::parts::Part;
use crate::rows::load_map;
use crate::sample::Corners;
use crate::storage::Storage;
use crate::unroll::{array4, array8, each8, upto8};
use crate::visible::{Visible, is_visible};
#[cfg(target_arch = "nvptx64")]
use cuda_std::GpuFloat;
use cuda_std::{thread, warp};

/// A sample as the warp's lanes hand it to each other: everything about it but the channels.
struct Sample {
    /// The four corners' coefficients.
    coefficients: [f32; 4],
    /// The corners.
    row: u32,
    pitch: u32,
    present: u32,
    /// First of its weights, counted from the anchor's first.
    weight: u32,
}

impl Sample {
    /// Computes the sample of one visible pair on one level.
    ///
    /// # Safety
    ///
    /// The pointers of `args` are valid as it says, `pair` and `level` exist.
    #[inline(always)]
    unsafe fn new<T>(args: &ForwardArgs<T>, locations: *const f32, pair: u32, level: u32) -> Self {
        let sizes = &args.sizes;
        // SAFETY: the pair is one of the anchor's.
        let [x, y] = unsafe { memory::load_pair(locations.add(2 * pair as usize)) };
        let (_, camera) = sizes.by_cameras.divide(pair);
        // SAFETY: the table has a row per camera and an entry per level.
        let map = unsafe { load_map(args.maps.add((camera * sizes.levels + level) as usize)) };
        let corners = Corners::new(x, y, map, sizes.rule);
        Self {
            coefficients: corners.coefficients(),
            row: corners.row,
            pitch: corners.pitch,
            present: corners.present,
            weight: (pair * sizes.levels + level) * sizes.groups,
        }
    }

    /// Leaves the sample in shared memory.
    ///
    /// # Safety
    ///
    /// The slot is the calling lane's own.
    #[inline(always)]
    unsafe fn stage(&self, scratch: SharedWords, slot: u32) {
        let at = slot * SAMPLE_WORDS;
        // SAFETY: the slot's eight words are the caller's.
        unsafe {
            scratch.set4(at, self.coefficients.map(f32::to_bits));
            scratch.set4(at + 4, [self.row, self.pitch, self.present, self.weight]);
        }
    }

    /// Takes a sample another lane of the warp staged.
    ///
    /// # Safety
    ///
    /// The slot was staged and the warp has met since.
    #[inline(always)]
    unsafe fn staged(scratch: SharedWords, slot: u32) -> Self {
        let at = slot * SAMPLE_WORDS;
        // SAFETY: the caller's promise.
        let (coefficients, [row, pitch, present, weight]) =
            unsafe { (scratch.get4(at), scratch.get4(at + 4)) };
        Self { coefficients: coefficients.map(f32::from_bits), row, pitch, present, weight }
    }
}

/// The forward kernel for one element type and one way to deal out channels.
///
/// Grid: `(B * A * parts, tiles)`. Block: whole warps. Shared memory: [`forward_shared_bytes`](crate::forward_shared_bytes).
///
/// # Safety
///
/// The pointers of `args` are valid as it says, for the sizes it gives.
#[inline(always)]
pub(crate) unsafe fn forward<T: Storage, C: Channels<T>>(args: ForwardArgs<T>) {
    let sizes = &args.sizes;
    let place = Place::new(sizes);
    let tile = place.tile(sizes, thread::block_idx_y());
    let groups = C::groups(tile, &sizes.by_group);
    let number = thread::block_idx_x();
    let part = Part::new(sizes, number);
    let pairs = part.pairs;
    let locations = args.locations.wrapping_add(part.first_pair * 2);
    let weights =
        args.weights.wrapping_add(part.first_pair * (sizes.levels * sizes.groups) as usize);
    let features =
        args.features.wrapping_add(part.item * sizes.rows as usize * sizes.channels as usize);
    let visible = Visible::new();
    let scratch =
        SharedWords::new(forward_words::SCRATCH + place.warp * forward_words::SCRATCH_PER_WARP);

    let mut sums = [0.0; CHANNELS_PER_LANE as usize];
    let mut first = 0;
    while first < pairs {
        // SAFETY: the whole block is here with the same arguments, and the barrier at the end of the
        // loop has passed since the last list was read.
        let seen = unsafe {
            visible.collect(place, first, pairs, |pair| is_visible(locations, pair, sizes.rule))
        };
        let samples = seen * sizes.levels;
        // Sample `round + i * warps + warp` is staged by lane `i` of the warp.
        let mut round = 0;
        while round < samples {
            let mine = round + place.warp_lane * place.warps + place.warp;
            if mine < samples {
                let (index, level) = sizes.by_levels.divide(mine);
                // SAFETY: `index` is below `seen`, `level` below the levels; the slot is this lane's.
                unsafe {
                    Sample::new(&args, locations, visible.pair(index), level)
                        .stage(scratch, place.warp_lane);
                }
            }
            // SAFETY: all lanes of the warp are here.
            unsafe { warp::sync_warp(WARP) };
            // The warps of a block are a power of two.
            let staged = (samples - round + place.warps - 1).saturating_sub(place.warp)
                >> place.warps.trailing_zeros();
            let staged = staged.min(WARP_LANES);
            let mut begin = 0;
            // The loop runs as often for every lane of the warp: its lanes meet inside.
            while begin < staged {
                let slot = begin + place.worker;
                // SAFETY: lane `slot` staged its sample before the warp met; its rows and weights
                // are inside the arrays `args` speaks of. All lanes of the warp are here.
                unsafe {
                    let mut sample = Sample::staged(scratch, slot.min(staged - 1));
                    if slot >= staged {
                        sample.present = 0;
                    }
                    add_sample::<T, C>(&mut sums, &sample, features, weights, tile, groups);
                }
                begin += place.workers;
            }
            // SAFETY: all lanes of the warp are here; the slots may be staged again after this.
            unsafe { warp::sync_warp(WARP) };
            round += place.warps * WARP_LANES;
        }
        first += PAIRS_AT_A_TIME;
        thread::sync_threads();
    }
    // SAFETY: the whole block is here, and done with its scratch.
    unsafe { write_sums::<T, C>(&args, Place::again(sizes), tile, number, &sums) };
}

/// Pixel row of a corner; meaningful when the corner is present.
#[inline(always)]
fn row_of(sample: &Sample, corner: u32) -> u32 {
    sample.row.wrapping_add(corner & 1).wrapping_add((corner >> 1) * sample.pitch)
}

/// Adds one sample's channels to the lane's sums, if it counts.
///
/// # Safety
///
/// All lanes of the warp make the call together. `features` and `weights` are the arrays of the sample's batch item and
/// anchor; it has weights there also if it does not count.
#[inline(always)]
unsafe fn add_sample<T: Storage, C: Channels<T>>(
    sums: &mut Lane,
    sample: &Sample,
    features: *const T,
    weights: *const T,
    tile: Tile,
    groups: [u32; CHANNELS_PER_LANE as usize],
) {
    let row_bytes = tile.channels * size_of::<T>() as u32;
    // SAFETY: rows of corners that are present lie on the map, the map in the features.
    let rows = array4(|corner| unsafe {
        let offset = row_of(sample, corner as u32) as usize * row_bytes as usize;
        C::fetch(features, offset, tile, sample.present >> corner & 1 != 0)
    });
    let factors = array8(|slot| {
        if slot >= C::SLOTS {
            return 0;
        }
        // SAFETY: the group exists, and so does the sample's weight for it.
        unsafe { T::fetch(weights.wrapping_add((sample.weight + groups[slot]) as usize)) }
    });
    // All of it is on its way before any of it is waited for: the assembler moves nothing over a meeting.
    // SAFETY: all lanes of the warp are here.
    unsafe { warp::sync_warp(WARP) };
    let pixels = rows.map(C::widen);
    upto8(C::SLOTS, |slot| {
        // The pixels of a sample that does not count are zeros; its weight may be anything, NaN included. A branch would
        // have the assembler ask for the weights behind it.
        let weight = if sample.present == 0 { 0.0 } else { T::widen(factors[slot]) };
        upto8(C::PER_SLOT, |within| {
            let channel = slot * C::PER_SLOT + within;
            let mut value = sample.coefficients[0] * pixels[0][channel];
            upto8(3, |other| {
                let corner = other + 1;
                value = sample.coefficients[corner].mul_add(pixels[corner][channel], value);
            });
            sums[channel] = weight.mul_add(value, sums[channel]);
        });
    });
}

/// Adds the workers' sums in their order and writes the channels of the tile: those of the anchor, or what the part of this
/// number adds to them.
///
/// # Safety
///
/// The whole block makes the call, and the scratch of its warps is free.
#[inline(always)]
unsafe fn write_sums<T: Storage, C: Channels<T>>(
    args: &ForwardArgs<T>,
    place: Place,
    tile: Tile,
    number: u32,
    sums: &Lane,
) {
    let has_parts = args.sizes.by_parts.value > 1;
    let scratch = SharedWords::new(forward_words::SCRATCH);
    let worker = place.warp * place.workers + place.worker;
    each8(|index| {
        let at = worker * tile.width() + index as u32 * place.lanes + place.lane;
        // SAFETY: each lane of each worker has words of its own.
        unsafe { scratch.set(at, sums[index].to_bits()) };
    });
    thread::sync_threads();
    let mut position = place.thread;
    while position < tile.width() {
        // Position `index * lanes + lane` of a worker's words is that lane's channel `index`.
        let lane = Tile { lane: position & (place.lanes - 1), ..tile };
        let channel = C::channel(lane, (position >> place.lanes.trailing_zeros()) as usize);
        if channel < tile.channels {
            let mut sum = 0.0;
            for worker in 0..place.warps * place.workers {
                // SAFETY: written before the barrier.
                sum += f32::from_bits(unsafe { scratch.get(worker * tile.width() + position) });
            }
            let at = number as usize * tile.channels as usize + channel as usize;
            // SAFETY: one thread per channel, one block per part of an anchor and tile.
            unsafe {
                if has_parts {
                    memory::store_f32(args.partials.wrapping_add(at), sum);
                } else {
                    T::store(args.output.wrapping_add(at), sum);
                }
            }
        }
        position += place.threads;
    }
}
