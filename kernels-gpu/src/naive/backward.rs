//! Backward, one thread per sample and channel: seven atomics each.

use super::Item;
use crate::args::BackwardArgs;
use crate::memory;
use crate::storage::Storage;

/// Adds every sample's and channel's part to all three gradients.
///
/// Grid: enough threads for every sample and channel, over x and y.
///
/// # Safety
///
/// The pointers of `args` are valid as it says, for the sizes it gives.
#[inline(always)]
pub(crate) unsafe fn backward<T: Storage>(args: BackwardArgs<T, f32>) {
    // SAFETY: the caller's promise.
    let item = unsafe { Item::of_thread(&args.sizes, args.maps, args.locations) };
    let Some(item) = item else { return };
    // SAFETY: the sample's weight and the anchor's output gradient.
    let (weight, upstream) = unsafe {
        (
            T::load(args.weights.wrapping_add(item.weight)),
            T::load(args.grad_output.wrapping_add(item.output)),
        )
    };
    let coefficients = item.corners.coefficients();
    let mut pixels = [0.0; 4];
    for corner in 0..4 {
        if item.corners.has(corner) {
            let at = item.at(corner, args.sizes.channels);
            let gradient = weight * upstream * coefficients[corner as usize];
            // SAFETY: a present corner's pixel and its gradient, which all threads only add to.
            unsafe {
                pixels[corner as usize] = T::load(args.features.wrapping_add(at));
                memory::add_f32(args.grad_features.wrapping_add(at), gradient);
            }
        }
    }
    let mut value = 0.0;
    for corner in 0..4 {
        value += coefficients[corner] * pixels[corner];
    }
    let (s, t) = (item.corners.s, item.corners.t);
    let across = (1.0 - t) * (pixels[1] - pixels[0]) + t * (pixels[3] - pixels[2]);
    let down = (1.0 - s) * (pixels[2] - pixels[0]) + s * (pixels[3] - pixels[1]);
    let scale = weight * upstream;
    // SAFETY: the sample's gradients, which all threads only add to.
    unsafe {
        memory::add_f32(args.grad_weights.wrapping_add(item.weight), upstream * value);
        let location = args.grad_locations.wrapping_add(2 * item.pair);
        memory::add_f32(location, item.map.width as f32 * scale * across);
        memory::add_f32(location.wrapping_add(1), item.map.height as f32 * scale * down);
    }
}
