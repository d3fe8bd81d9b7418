//! Forward, one thread per sample and channel.

use super::Item;
use crate::args::ForwardArgs;
use crate::memory;
use crate::storage::Storage;

/// Adds every sample's channels to the output.
///
/// Grid: enough threads for every sample and channel, over x and y.
///
/// # Safety
///
/// The pointers of `args` are valid as it says, for the sizes it gives.
#[inline(always)]
pub(crate) unsafe fn forward<T: Storage>(args: ForwardArgs<T, f32>) {
    // SAFETY: the caller's promise.
    let item = unsafe { Item::of_thread(&args.sizes, args.maps, args.locations) };
    let Some(item) = item else { return };
    let coefficients = item.corners.coefficients();
    let mut value = 0.0;
    for corner in 0..4 {
        if item.corners.has(corner) {
            let at = item.at(corner, args.sizes.channels);
            // SAFETY: a present corner's pixel.
            let pixel = unsafe { T::load(args.features.wrapping_add(at)) };
            value += coefficients[corner as usize] * pixel;
        }
    }
    // SAFETY: the sample's weight and the anchor's output, which all threads only add to.
    unsafe {
        let weight = T::load(args.weights.wrapping_add(item.weight));
        memory::add_f32(args.output.wrapping_add(item.output), weight * value);
    }
}
