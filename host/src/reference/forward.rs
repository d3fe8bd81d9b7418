//! The forward pass.

use crate::element::{Element, Scalar};
use crate::error::Result;
use crate::memory::zeros;
use crate::problem::Problem;
use crate::sample::corners;

use super::Terms;

/// Writes the output, (batch, anchors, embed_dims).
pub(crate) fn forward<T: Element>(problem: &Problem<'_, T>, output: &mut [T]) -> Result<()> {
    let sums = forward_sums::<T, T::Accumulator>(problem, Terms::Signed)?;
    for (output, sum) in output.iter_mut().zip(sums) {
        *output = T::from_accumulator(sum);
    }
    Ok(())
}

/// The output before it is rounded to `T`.
pub(super) fn forward_sums<T: Element, A: Scalar>(
    problem: &Problem<'_, T>,
    terms: Terms,
) -> Result<Vec<A>> {
    let shape = problem.shape;
    let (layout, channels) = (shape.layout(), shape.embed_dims());
    let (cameras, levels, groups) = (layout.cameras(), layout.levels(), shape.groups());
    let number = |value: T| terms.apply(A::from_f64(value.to_f64()));
    let mut output = zeros("sums of the output", shape.output_dim().iter().product())?;

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
                            let weight = problem.weights[(pair * levels + level) * groups + group];
                            let mut sample = A::zero();
                            for corner in corners.iter().flatten() {
                                let row = first_row + corner.pixel;
                                let feature = problem.feature_maps[row * channels + channel];
                                sample += corner.share * number(feature);
                            }
                            output[instance * channels + channel] += number(weight) * sample;
                        }
                    }
                }
            }
        }
    }
    Ok(output)
}
