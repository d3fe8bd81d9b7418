//! Sums over neighbouring lanes of a warp.

use crate::block::WARP;
use cuda_std::warp;

/// The value of the lane whose number differs in this bit.
#[inline(always)]
fn swap(value: f32, distance: u32) -> f32 {
    // SAFETY: the callers keep all lanes of the warp together.
    unsafe { warp::warp_shuffle_xor(WARP, value, distance, 32) }.0
}

/// Adds a value over lanes `first`, `2 * first` and so on apart, up to a width, a power of two; every lane gets the sum.
#[inline(always)]
fn sum_from(mut value: f32, first: u32, width: u32) -> f32 {
    let mut distance = first;
    while distance < width {
        value += swap(value, distance);
        distance *= 2;
    }
    value
}

/// Adds two values over two lanes that are so far apart. The lane with that bit of its number clear keeps the first, the
/// other one the second, and they hand each other the rest.
#[inline(always)]
fn halve([first, second]: [f32; 2], lane: u32, distance: u32) -> f32 {
    let (keep, give) = if lane & distance == 0 { (first, second) } else { (second, first) };
    keep + swap(give, distance)
}

/// Adds a value over neighbouring lanes, `width` of them, a power of two; every lane gets the sum.
///
/// As all functions here, for all lanes of a warp together.
#[inline(always)]
pub(crate) fn sum_over_lanes(value: f32, width: u32) -> f32 {
    sum_from(value, 1, width)
}

/// Adds two values, each over neighbouring lanes, `width` of them, a power of two from 2 on. Lane `i` gets the sum of value
/// `i % 2`.
#[inline(always)]
pub(crate) fn sum_two_over_lanes(values: [f32; 2], lane: u32, width: u32) -> f32 {
    sum_from(halve(values, lane, 1), 2, width)
}

/// Adds four values, each over neighbouring lanes, `width` of them, a power of two from 4 on. Lane `i` gets the sum of
/// value `i % 4`: half of the shuffles that four separate sums take.
#[inline(always)]
pub(crate) fn sum_four_over_lanes(values: [f32; 4], lane: u32, width: u32) -> f32 {
    let [a, b, c, d] = values;
    let two = [halve([a, c], lane, 2), halve([b, d], lane, 2)];
    sum_from(halve(two, lane, 1), 4, width)
}

/// The sum of the values of the lanes up to the calling one, where those from lane `width` on are zeros.
#[inline(always)]
pub(crate) fn sum_upto_lane(value: u32, lane: u32, width: u32) -> u32 {
    let mut sum = value;
    let mut distance = 1;
    while distance < width {
        // SAFETY: the callers keep all lanes of the warp together.
        let (below, _) = unsafe { warp::warp_shuffle_up(WARP, sum, distance, 32) };
        sum += if lane >= distance { below } else { 0 };
        distance *= 2;
    }
    sum
}
