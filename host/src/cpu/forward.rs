//! The forward pass: one task for each (batch, anchor).

use num_traits::Zero;
use rayon::prelude::*;

use crate::element::Element;
use crate::error::Result;
use crate::problem::Problem;

use super::rows::{FeatureRows, add_scaled, add_scaled_4};
use super::{Sample, for_each_sample, is_empty};

/// Writes the output, (batch, anchors, embed_dims).
pub(crate) fn forward<T: Element>(problem: &Problem<'_, T>, output: &mut [T]) -> Result<()> {
    if is_empty(problem) {
        output.fill(T::zero());
        return Ok(());
    }
    let channels = problem.shape.embed_dims();
    output.par_chunks_exact_mut(channels).enumerate().for_each_init(
        || (vec![T::Accumulator::zero(); channels], FeatureRows::new(channels)),
        |(sums, rows), (instance, output)| {
            sums.fill(T::Accumulator::zero());
            for_each_sample(problem, instance, |sample| add_sample(problem, sample, rows, sums));
            T::narrow(sums, output);
        },
    );
    Ok(())
}

/// Adds the weighted sample to the sums of its instance.
#[inline]
fn add_sample<T: Element>(
    problem: &Problem<'_, T>,
    sample: &Sample<T>,
    rows: &mut FeatureRows<T>,
    sums: &mut [T::Accumulator],
) {
    let length = problem.shape.channels_per_group();
    let weights = sample.weights(problem);
    let rows = rows.of(problem, sample);
    let groups = sums.chunks_exact_mut(length).zip(weights).enumerate();
    if let ([Some(a), Some(b), Some(c), Some(d)], [Some(p), Some(q), Some(r), Some(s)]) =
        (rows, sample.corners)
    {
        for (group, (sums, weight)) in groups {
            let weight = weight.to_accumulator();
            let factors = [p, q, r, s].map(|corner| weight * corner.share);
            let rows = [a, b, c, d].map(|row| &row[group * length..][..length]);
            add_scaled_4(sums, factors, rows);
        }
    } else {
        for (group, (sums, weight)) in groups {
            for (row, corner) in rows.iter().zip(sample.corners) {
                if let (Some(row), Some(corner)) = (row, corner) {
                    let row = &row[group * length..][..length];
                    add_scaled(sums, weight.to_accumulator() * corner.share, row);
                }
            }
        }
    }
}
