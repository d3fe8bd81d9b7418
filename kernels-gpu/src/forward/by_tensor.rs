//! Sums of 16-bit features on tensor cores: the lanes of a warp have eight channels each of one sample at a time.
//!
//! ```text
//!            lane 4 g, its      lane 4 g + 1, its                     lane, twice each
//!             corners           corners                               4 g  4 g + 1  …
//!            0  1  2  3         0  1  2  3         …
//!          ┌───────────────────────────────────────┐                ┌──────────────────┐
//!      g   │ one channel of each lane              │   0 1 2 3   x  │ the coefficients │
//!          │                                       │                │            the … │
//!    8 + g │ another one                           │                │                  │
//!          └───────────────────────────────────────┘                └──────────────────┘
//! ```
//!
//! In a product of 16 rows, 16 depths and eight columns, the depths are the four corners of four lanes, and the columns are
//! those lanes again: a column has the coefficients where the depths are its lane's, and zeros elsewhere. So each lane gets
//! the interpolated features of its own channels, two at a time.
//!
//! The features are multiplied as they are. A coefficient is fp32, and takes two factors of 16 bits: itself rounded, and what
//! that leaves, each in a column. What comes out is fp32, and is multiplied by the weight there. All that is lost beside fp32
//! is what two factors cannot hold of a coefficient.
//!
//! A corner off the map has a coefficient of zero, and a pixel beside it is read. An infinite feature times zero is no number,
//! so that sums which are not finite are not to be trusted, and are made anew without tensor cores.

use crate::args::ForwardArgs;
use crate::block::{Place, WARP};
use crate::channels::{Channels, Tile, Wide};
use crate::forward::sample::Sample;
use crate::forward::{Arrays, ByWorkers, Sums};
use crate::limits::{CHANNELS_PER_LANE, SAMPLE_WORDS};
use crate::memory::{self, SharedWords};
use crate::mma::Factor;
use crate::sample::Corners;
use crate::storage::Storage;
use crate::unroll::{array4, each4, upto8};
#[cfg(target_arch = "nvptx64")]
use cuda_std::GpuFloat;
use cuda_std::warp;

/// Samples whose pixels are asked for together.
const TOGETHER: u32 = 2;

/// What the second factor of a coefficient is multiplied by, so that it has all its bits: a power of two.
const SCALE: f32 = 2048.0;

/// Bit of a staged sample's steps: it counts.
const COUNTS: u32 = 2;

/// The sums of a lane.
pub(crate) struct ByTensor {
    /// First of the lane's channels; where the tile has fewer, others of the row.
    first: u32,
    group: u32,
    /// Bytes of a row.
    row_bytes: u32,
    sums: [f32; CHANNELS_PER_LANE as usize],
}

/// The factors of four coefficients: two words for the corners, rounded, and two for what that leaves.
#[inline(always)]
fn factors<T: Storage + Factor>(corners: &Corners) -> [u32; 4] {
    let coefficients = array4(|corner| {
        if corners.has(corner as u32) { corners.coefficient(corner as u32) } else { 0.0 }
    });
    let rounded = [0, 2].map(|first| T::word(coefficients[first], coefficients[first + 1]));
    let left = array4(|corner| {
        let bits = rounded[corner / 2] >> (16 * (corner % 2)) & 0xffff;
        (coefficients[corner] - T::widen(bits)) * SCALE
    });
    [rounded[0], rounded[1], T::word(left[0], left[1]), T::word(left[2], left[3])]
}

impl ByTensor {
    /// Adds a sample, from the lane's channels of its four corners and the factors of the lane's column.
    ///
    /// # Safety
    ///
    /// All lanes of the warp make the call together.
    #[inline(always)]
    unsafe fn add_sample<T: Factor>(
        &mut self,
        pixels: &[[u32; 4]; 4],
        weight: f32,
        factors: [u32; 2],
    ) {
        each4(|word| {
            let [upper, lower] = [0, 2].map(|first| [pixels[first][word], pixels[first + 1][word]]);
            let left = [
                memory::low_halves(upper[0], upper[1]),
                memory::high_halves(upper[0], upper[1]),
                memory::low_halves(lower[0], lower[1]),
                memory::high_halves(lower[0], lower[1]),
            ];
            // SAFETY: all lanes of the warp are here.
            let products = unsafe { T::multiply(left, factors, [0.0; 4]) };
            upto8(2, |odd| {
                let value = products[2 * odd + 1].mul_add(1.0 / SCALE, products[2 * odd]);
                let sum = &mut self.sums[2 * word + odd];
                *sum = weight.mul_add(value, *sum);
            });
        });
    }
}

impl<T: Storage + Factor> Sums<T> for ByTensor {
    type Instead = ByWorkers<Wide>;

    const MAY_FAIL: bool = true;

    #[inline(always)]
    fn new(args: &ForwardArgs<T>, _: Place, tile: Tile) -> Self {
        let first = <Wide as Channels<T>>::channel(tile, 0).min(tile.channels - CHANNELS_PER_LANE);
        Self {
            first,
            group: args.sizes.by_group.quotient(first),
            row_bytes: tile.channels * size_of::<T>() as u32,
            sums: [0.0; CHANNELS_PER_LANE as usize],
        }
    }

    #[inline(always)]
    unsafe fn stage(sample: Option<Sample>, scratch: SharedWords, slot: u32) {
        let Some(Sample { corners, weight }) = sample else { return };
        // Corners that are off the map read the ones beside them.
        let [left, right] = [0b0101, 0b1010].map(|side| corners.present & side != 0);
        let [above, below] = [0b0011, 0b1100].map(|side| corners.present & side != 0);
        let mut row = corners.row;
        if below && !above {
            row = row.wrapping_add(corners.pitch);
        }
        if right && !left {
            row = row.wrapping_add(1);
        }
        let down = if above && below { corners.pitch } else { 0 };
        let steps = u32::from(left && right) | if corners.present != 0 { COUNTS } else { 0 };
        let at = slot * SAMPLE_WORDS;
        // SAFETY: the slot's eight words are the caller's.
        unsafe {
            scratch.set4(at, factors::<T>(&corners));
            scratch.set4(at + 4, [row, down, steps, weight]);
        }
    }

    #[inline(always)]
    unsafe fn add(&mut self, arrays: Arrays<T>, place: Place, scratch: SharedWords, staged: u32) {
        let (g, t) = (place.warp_lane / 4, place.warp_lane % 4);
        let is_own = g / 2 == t;
        let mut begin = 0;
        // The loop runs as often for every lane of the warp: its lanes meet inside. Behind the last sample it is taken again,
        // and does not count.
        while begin < staged {
            let fetched = [begin, begin + 1].map(|slot| {
                let at = slot.min(staged - 1) * SAMPLE_WORDS;
                // SAFETY: the sample was staged. Its rows are in the features, its weights are the anchor's.
                unsafe {
                    let factors = scratch.get2(at + 2 * (g % 2));
                    let [row, down, steps, weight] = scratch.get4(at + 4);
                    let right = steps & 1;
                    let counts = slot < staged && steps & COUNTS != 0;
                    let weight = arrays.weights.wrapping_add((weight + self.group) as usize);
                    let first = arrays.features.wrapping_add(self.first as usize);
                    let pixels = [row, row + right, row + down, row + down + right].map(|row| {
                        let offset = row as usize * self.row_bytes as usize;
                        memory::load_words(first.wrapping_byte_add(offset).cast())
                    });
                    let factors = factors.map(|word| if is_own { word } else { 0 });
                    (pixels, T::fetch(weight), counts, factors)
                }
            });
            // All of it is on its way before any of it is waited for: the assembler moves nothing over a meeting.
            // SAFETY: all lanes of the warp are here.
            unsafe { warp::sync_warp(WARP) };
            upto8(TOGETHER as usize, |which| {
                let (pixels, weight, counts, factors) = &fetched[which];
                // The weight of a sample that does not count may be anything, NaN included.
                let weight = if *counts { T::widen(*weight) } else { 0.0 };
                // SAFETY: all lanes of the warp are here.
                unsafe { self.add_sample::<T>(pixels, weight, *factors) };
            });
            begin += TOGETHER;
        }
    }

    #[inline(always)]
    unsafe fn leave(&self, place: Place, scratch: SharedWords) -> bool {
        upto8(2, |half| {
            let at = CHANNELS_PER_LANE * place.warp_lane + 4 * half as u32;
            // SAFETY: the words are this lane's own.
            unsafe { scratch.set4(at, array4(|index| self.sums[4 * half + index].to_bits())) };
        });
        self.sums.iter().all(|sum| sum.abs() < f32::INFINITY)
    }

    #[inline(always)]
    fn lines(_: Place) -> u32 {
        1
    }

    #[inline(always)]
    fn channel(tile: Tile, position: u32) -> u32 {
        tile.first + position
    }
}
