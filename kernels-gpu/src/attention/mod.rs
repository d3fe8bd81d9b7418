//! The attention block around the operator: where an anchor looks, and how much each place counts.
//!
//! | file | what it is |
//! |---|---|
//! | `points.rs` | key points of an anchor and their places in the images |
//! | `points_gradient.rs` | the way back: anchors, learned offsets, projection matrices |
//! | `logits.rs` | the logits of an anchor and its cameras |
//! | `statistics.rs` | the largest of many logits, and the sum of exponentials |
//! | `weights.rs` | logits to weights: the softmax over cameras, levels and points |
//! | `weights_gradient.rs` | the way back |
//! | `camera.rs`, `camera_gradient.rs` | the camera encoder |
//! | `random.rs` | the numbers of dropout |

pub(crate) mod camera;
pub(crate) mod camera_gradient;
pub(crate) mod logits;
pub(crate) mod points;
pub(crate) mod points_gradient;
pub(crate) mod random;
mod statistics;
pub(crate) mod weights;
pub(crate) mod weights_gradient;

use crate::block::WARP;
#[cfg(target_arch = "nvptx64")]
use cuda_std::GpuFloat;
use cuda_std::warp;

/// Adds a value over all lanes of the warp; every lane gets the sum.
///
/// # Safety
///
/// All lanes of the warp make the call together.
#[inline(always)]
unsafe fn sum_over_warp(mut value: f32) -> f32 {
    let mut distance = 16;
    while distance > 0 {
        // SAFETY: the caller has all lanes here.
        value += unsafe { warp::warp_shuffle_xor(WARP, value, distance, 32) }.0;
        distance /= 2;
    }
    value
}

/// `1 / (1 + exp(-x))`.
#[inline(always)]
fn sigmoid(x: f32) -> f32 {
    1.0 / (1.0 + (-x).exp())
}
