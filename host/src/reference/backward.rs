//! The backward pass.

use crate::element::{Element, Scalar};
use crate::error::Result;
use crate::memory::zeros;
use crate::problem::{GradientSlices, Problem};
use crate::sample::corners;

use super::Terms;

/// Writes the gradients of `sum(output * grad_output)`.
pub(crate) fn backward<T: Element>(
    problem: &Problem<'_, T>,
    grad_output: &[T],
    gradients: GradientSlices<'_, T>,
) -> Result<()> {
    let sums = backward_sums::<T, T::Accumulator>(problem, grad_output, Terms::Signed)?;
    for (gradient, sum) in gradients.feature_maps.iter_mut().zip(sums.feature_maps) {
        *gradient = T::from_accumulator(sum);
    }
    for (gradient, sum) in gradients.sampling_locations.iter_mut().zip(sums.sampling_locations) {
        *gradient = sum.into();
    }
    for (gradient, sum) in gradients.weights.iter_mut().zip(sums.weights) {
        *gradient = T::from_accumulator(sum);
    }
    Ok(())
}

/// The gradients before they are rounded to `T`, row-major in the dimensions of their inputs.
pub(super) struct GradientSums<A> {
    pub(super) feature_maps: Vec<A>,
    pub(super) sampling_locations: Vec<A>,
    pub(super) weights: Vec<A>,
}

pub(super) fn backward_sums<T: Element, A: Scalar>(
    problem: &Problem<'_, T>,
    grad_output: &[T],
    terms: Terms,
) -> Result<GradientSums<A>> {
    let shape = problem.shape;
    let (layout, channels) = (shape.layout(), shape.embed_dims());
    let (cameras, levels, groups) = (layout.cameras(), layout.levels(), shape.groups());
    let number = |value: T| terms.apply(A::from_f64(value.to_f64()));
    let mut sums = GradientSums {
        feature_maps: zeros("sums of the feature map gradient", problem.feature_maps.len())?,
        sampling_locations: zeros(
            "sums of the sampling location gradient",
            problem.sampling_locations.len(),
        )?,
        weights: zeros("sums of the weight gradient", problem.weights.len())?,
    };

    for batch in 0..shape.batch() {
        for anchor in 0..shape.anchors() {
            let instance = batch * shape.anchors() + anchor;
            for point in 0..shape.points() {
                for camera in 0..cameras {
                    let pair = (instance * shape.points() + point) * cameras + camera;
                    let location = problem.location(pair);
                    for level in 0..levels {
                        let map = layout.shape(camera, level);
                        let first_row = batch * layout.num_feat() + layout.start(camera, level);
                        let corners = corners::<_, A>(problem.rule, map, location);
                        if corners.iter().all(Option::is_none) {
                            continue;
                        }
                        for channel in 0..channels {
                            let group = channel / shape.channels_per_group();
                            let weight = (pair * levels + level) * groups + group;
                            let upstream = number(grad_output[instance * channels + channel]);
                            let weighted = upstream * number(problem.weights[weight]);
                            let mut sample = A::zero();
                            let mut slope = [A::zero(); 2];
                            for corner in corners.iter().flatten() {
                                let element = (first_row + corner.pixel) * channels + channel;
                                let feature = number(problem.feature_maps[element]);
                                sample += corner.share * feature;
                                slope[0] += terms.apply(corner.slope[0]) * feature;
                                slope[1] += terms.apply(corner.slope[1]) * feature;
                                sums.feature_maps[element] += corner.share * weighted;
                            }
                            sums.weights[weight] += upstream * sample;
                            sums.sampling_locations[2 * pair] += weighted * slope[0];
                            sums.sampling_locations[2 * pair + 1] += weighted * slope[1];
                        }
                    }
                }
            }
        }
    }
    Ok(sums)
}
