//! Forward: one block per anchor (or [part](crate::parts) of one) and tile of channels, sums in registers, one write per
//! output.
//!
//! | file | what it is |
//! |---|---|
//! | `sample.rs` | a sample, as the lanes of a warp hand it to each other |
//! | `by_workers.rs` | sums in fp32, a sample for each worker |
//! | `by_tensor.rs` | sums of 16-bit features on tensor cores, four samples for each warp |
//!
//! The samples of the anchor's visible pairs go round the warps in a fixed order and the warps' sums
//! are added in a fixed order, so the result is the same bit for bit in every run.

#[cfg(any(not(target_arch = "nvptx64"), cuda_arch_ge_80))]
mod by_tensor;
mod by_workers;
mod sample;

use crate::args::ForwardArgs;
use crate::block::{Place, WARP};
use crate::channels::Tile;
use crate::limits::{PAIRS_AT_A_TIME, WARP_LANES, forward_words, window_words};
use crate::memory::{self, SharedWords};
use crate::parts::Part;
use crate::storage::Storage;
use crate::unroll::sum_in_eights;
use crate::visible::{Visible, is_visible};
use cuda_std::{thread, warp};

#[cfg(any(not(target_arch = "nvptx64"), cuda_arch_ge_80))]
pub(crate) use by_tensor::ByTensor;
pub(crate) use by_workers::ByWorkers;
use sample::Sample;

/// Architectures whose tensor cores do not have both types take the same tiles without.
#[cfg(all(target_arch = "nvptx64", not(cuda_arch_ge_80)))]
pub(crate) type ByTensor = ByWorkers<crate::channels::Wide>;

/// The arrays that samples are added up from.
#[derive(Clone, Copy)]
pub(crate) struct Arrays<T> {
    /// Features of the batch item.
    features: *const T,
    /// Weights of the anchor, or of the part of one.
    weights: *const T,
}

/// A way to add up a warp's samples: sums of a tile's channels, in registers.
pub(crate) trait Sums<T: Storage>: Sized {
    /// Adds up what these cannot.
    type Instead: Sums<T>;

    /// Whether there may be sums that these cannot make.
    const MAY_FAIL: bool;

    /// Sums of no sample.
    fn new(args: &ForwardArgs<T>, place: Place, tile: Tile) -> Self;

    /// Leaves a sample in the warp's scratch, or nothing behind the last one.
    ///
    /// # Safety
    ///
    /// The slot is the calling lane's own. Each lane of the warp makes the call.
    unsafe fn stage(sample: Option<Sample>, scratch: SharedWords, slot: u32);

    /// Adds the samples that the lanes of the warp have staged, `staged` of them.
    ///
    /// # Safety
    ///
    /// All lanes of the warp make the call together, and have met since the samples were staged; at least one was. Rows and
    /// weights of the samples are in the arrays.
    unsafe fn add(&mut self, arrays: Arrays<T>, place: Place, scratch: SharedWords, staged: u32);

    /// Leaves the sums in the warp's scratch, in lines of the tile's width. Returns whether they are what they should be.
    ///
    /// # Safety
    ///
    /// All lanes of the warp make the call together.
    unsafe fn leave(&self, place: Place, scratch: SharedWords) -> bool;

    /// Lines that a warp leaves.
    fn lines(place: Place) -> u32;

    /// The channel of a position in a line.
    fn channel(tile: Tile, position: u32) -> u32;
}

/// The forward kernel for one element type and one way to add up.
///
/// Grid: `(B * A * parts, tiles)`. Block: whole warps. Shared memory: [`forward_shared_bytes`](crate::forward_shared_bytes).
///
/// # Safety
///
/// The pointers of `args` are valid as it says, for the sizes it gives.
#[inline(always)]
pub(crate) unsafe fn forward<T: Storage, S: Sums<T>>(args: ForwardArgs<T>) {
    // SAFETY: the caller's promise; the whole block makes the calls, as what it decides on is the same for all.
    unsafe {
        let block = [thread::block_idx_x(), thread::block_idx_y()];
        let is_done = add_up::<T, S>(&args, Place::new(&args.sizes), block);
        if S::MAY_FAIL && !is_done {
            thread::sync_threads();
            // What follows from these is computed anew, which costs less than the registers that would keep it.
            add_up::<T, S::Instead>(&args, Place::again(&args.sizes), block.map(memory::opaque));
        }
    }
}

/// Adds up the samples of the block of this number and tile, and writes its outputs, if the sums are what they should be.
/// Returns whether they were.
///
/// # Safety
///
/// The whole block makes the call, and nobody uses its shared memory. The pointers of `args` are valid as it says, for the
/// sizes it gives.
#[inline(always)]
unsafe fn add_up<T: Storage, S: Sums<T>>(
    args: &ForwardArgs<T>,
    place: Place,
    [number, tile]: [u32; 2],
) -> bool {
    let sizes = &args.sizes;
    let tile = place.tile(sizes, tile);
    let part = Part::new(sizes, number);
    let pairs = part.pairs;
    let locations = args.locations.wrapping_add(part.first_pair * 2);
    let features = part.item * sizes.rows as usize * sizes.channels as usize;
    let weights = part.first_pair * (sizes.levels * sizes.groups) as usize;
    let arrays = Arrays {
        features: args.features.wrapping_add(features),
        weights: args.weights.wrapping_add(weights),
    };
    let scratch =
        SharedWords::new(forward_words::SCRATCH + place.warp * forward_words::SCRATCH_PER_WARP);
    let visible = Visible::new();
    let mut sums = S::new(args, place, tile);
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
            let sample = (mine < samples).then(|| {
                let (index, level) = sizes.by_levels.divide(mine);
                // SAFETY: `index` is below `seen`, `level` below the levels.
                unsafe { Sample::new(args, locations, visible.pair(index), level) }
            });
            // SAFETY: the slot is this lane's.
            unsafe { S::stage(sample, scratch, place.warp_lane) };
            // SAFETY: all lanes of the warp are here.
            unsafe { warp::sync_warp(WARP) };
            // The warps of a block are a power of two.
            let staged = (samples - round + place.warps - 1).saturating_sub(place.warp)
                >> place.warps.trailing_zeros();
            let staged = staged.min(WARP_LANES);
            // SAFETY: all lanes of the warp are here with the same number, and each staged its sample before they met; rows
            // and weights are inside the arrays `args` speaks of. The slots may be staged again after the meeting.
            unsafe {
                if staged > 0 {
                    sums.add(arrays, place, scratch, staged);
                }
                warp::sync_warp(WARP);
            }
            round += place.warps * WARP_LANES;
        }
        first += PAIRS_AT_A_TIME;
        thread::sync_threads();
    }
    // SAFETY: the whole block is here, and done with its scratch and its counts.
    unsafe { write_sums::<T, S>(args, Place::again(sizes), tile, number, &sums) }
}

/// Adds the warps' sums in their order and writes the channels of the tile: those of the anchor, or what the part of this
/// number adds to them. But if sums of some warp are not what they should be, it does not. Returns whether they are.
///
/// # Safety
///
/// The whole block makes the call; the scratch of its warps is free, and so are their counts.
#[inline(always)]
unsafe fn write_sums<T: Storage, S: Sums<T>>(
    args: &ForwardArgs<T>,
    place: Place,
    tile: Tile,
    number: u32,
    sums: &S,
) -> bool {
    let has_parts = args.sizes.by_parts.value > 1;
    let (scratch, counts) =
        (SharedWords::new(forward_words::SCRATCH), SharedWords::new(window_words::COUNTS));
    let lines = S::lines(place);
    let first_line = place.warp * lines * tile.width();
    // SAFETY: all lanes of the warp are here; lines and word are the warp's own.
    unsafe {
        let counts_for = sums.leave(place, SharedWords::new(forward_words::SCRATCH + first_line));
        if S::MAY_FAIL {
            let failed = warp::warp_vote_ballot(WARP, !counts_for);
            if place.warp_lane == 0 {
                counts.set(place.warp, failed);
            }
        }
    }
    thread::sync_threads();
    if S::MAY_FAIL {
        let mut failed = 0;
        for warp in 0..place.warps {
            // SAFETY: written before the barrier.
            failed |= unsafe { counts.get(warp) };
        }
        if failed != 0 {
            return false;
        }
    }
    let mut position = place.thread;
    while position < tile.width() {
        let channel = S::channel(tile, position);
        if channel < tile.channels {
            let sum = sum_in_eights(place.warps * lines, |line| {
                // SAFETY: written before the barrier.
                f32::from_bits(unsafe { scratch.get(line * tile.width() + position) })
            });
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
    true
}
