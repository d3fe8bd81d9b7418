//! Sums in fp32: one worker per sample, whose lanes have eight channels each.

use core::marker::PhantomData;

use crate::args::ForwardArgs;
use crate::block::{Place, WARP};
use crate::channels::{Channels, Lane, Tile};
use crate::forward::sample::Sample;
use crate::forward::{Arrays, Sums};
use crate::limits::{CHANNELS_PER_LANE, SAMPLE_WORDS};
use crate::memory::SharedWords;
use crate::storage::Storage;
use crate::unroll::{array4, array8, each8, upto8};
#[cfg(target_arch = "nvptx64")]
use cuda_std::GpuFloat;
use cuda_std::warp;

/// The sums of a lane of a worker, for a way to deal the channels out.
pub(crate) struct ByWorkers<C> {
    tile: Tile,
    groups: [u32; CHANNELS_PER_LANE as usize],
    sums: Lane,
    channels: PhantomData<C>,
}

impl<T: Storage, C: Channels<T>> Sums<T> for ByWorkers<C> {
    type Instead = Self;

    const MAY_FAIL: bool = false;

    #[inline(always)]
    fn new(args: &ForwardArgs<T>, _: Place, tile: Tile) -> Self {
        let groups = C::groups(tile, &args.sizes.by_group);
        Self { tile, groups, sums: [0.0; CHANNELS_PER_LANE as usize], channels: PhantomData }
    }

    #[inline(always)]
    unsafe fn stage(sample: Option<Sample>, scratch: SharedWords, slot: u32) {
        let Some(Sample { corners, weight }) = sample else { return };
        let at = slot * SAMPLE_WORDS;
        // SAFETY: the slot's eight words are the caller's.
        unsafe {
            scratch.set4(at, corners.coefficients().map(f32::to_bits));
            scratch.set4(at + 4, [corners.row, corners.pitch, corners.present, weight]);
        }
    }

    #[inline(always)]
    unsafe fn add(&mut self, arrays: Arrays<T>, place: Place, scratch: SharedWords, staged: u32) {
        let mut begin = 0;
        // The loop runs as often for every lane of the warp: its lanes meet inside.
        while begin < staged {
            let slot = begin + place.worker;
            // SAFETY: the caller's promise. All lanes of the warp are here.
            unsafe {
                let sample = Staged::get(scratch, slot, staged);
                add_sample::<T, C>(&mut self.sums, &sample, arrays, self.tile, self.groups);
            }
            begin += place.workers;
        }
    }

    #[inline(always)]
    unsafe fn leave(&self, place: Place, scratch: SharedWords) -> bool {
        each8(|index| {
            let line = place.worker * self.tile.width();
            let at = line + index as u32 * place.lanes + place.lane;
            // SAFETY: each lane of each worker has words of its own.
            unsafe { scratch.set(at, self.sums[index].to_bits()) };
        });
        true
    }

    #[inline(always)]
    fn lines(place: Place) -> u32 {
        place.workers
    }

    #[inline(always)]
    fn channel(tile: Tile, position: u32) -> u32 {
        // Position `index * lanes + lane` of a worker's words is that lane's channel `index`.
        let lane = Tile { lane: position & (tile.lanes - 1), ..tile };
        C::channel(lane, (position >> tile.lanes.trailing_zeros()) as usize)
    }
}

/// A sample that a lane of the warp has staged.
struct Staged {
    /// The four corners' coefficients.
    coefficients: [f32; 4],
    /// The corners.
    row: u32,
    pitch: u32,
    present: u32,
    /// First of its weights, counted from the anchor's first.
    weight: u32,
}

impl Staged {
    /// The sample of a slot; behind the last one, of `staged`, one that does not count.
    ///
    /// # Safety
    ///
    /// At least one was staged, and the warp has met since.
    #[inline(always)]
    unsafe fn get(scratch: SharedWords, slot: u32, staged: u32) -> Self {
        let at = slot.min(staged - 1) * SAMPLE_WORDS;
        // SAFETY: the caller's promise.
        let (coefficients, [row, pitch, present, weight]) =
            unsafe { (scratch.get4(at), scratch.get4(at + 4)) };
        Self {
            coefficients: coefficients.map(f32::from_bits),
            row,
            pitch,
            present: if slot < staged { present } else { 0 },
            weight,
        }
    }

    /// Pixel row of a corner; meaningful when the corner is present.
    #[inline(always)]
    fn row_of(&self, corner: u32) -> u32 {
        self.row.wrapping_add(corner & 1).wrapping_add((corner >> 1) * self.pitch)
    }

    /// Whether a corner is on the map.
    #[inline(always)]
    fn has(&self, corner: u32) -> bool {
        self.present >> corner & 1 != 0
    }
}

/// Adds one sample's channels to the lane's sums, if it counts.
///
/// # Safety
///
/// All lanes of the warp make the call together. The arrays are those of the sample's batch item and anchor; it has
/// weights there also if it does not count.
#[inline(always)]
unsafe fn add_sample<T: Storage, C: Channels<T>>(
    sums: &mut Lane,
    sample: &Staged,
    arrays: Arrays<T>,
    tile: Tile,
    groups: [u32; CHANNELS_PER_LANE as usize],
) {
    let row_bytes = tile.channels * size_of::<T>() as u32;
    // SAFETY: rows of corners that are present lie on the map, the map in the features.
    let rows = array4(|corner| unsafe {
        let offset = sample.row_of(corner as u32) as usize * row_bytes as usize;
        C::fetch(arrays.features, offset, tile, sample.has(corner as u32))
    });
    let factors = array8(|slot| {
        if slot >= C::SLOTS {
            return 0;
        }
        // SAFETY: the group exists, and so does the sample's weight for it.
        unsafe { T::fetch(arrays.weights.wrapping_add((sample.weight + groups[slot]) as usize)) }
    });
    // All of it is on its way before any of it is waited for: the assembler moves nothing over a meeting.
    // SAFETY: all lanes of the warp are here.
    unsafe { warp::sync_warp(WARP) };
    let pixels = rows.map(C::widen);
    upto8(C::SLOTS, |slot| {
        // The pixels of a sample that does not count are zeros; its weight may be anything, NaN included. A branch would
        // have the assembler ask for the weights behind it.
        let weight = if sample.present != 0 { T::widen(factors[slot]) } else { 0.0 };
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

