//! The forward pass: one task for each (batch, anchor).

use num_traits::Zero;
use rayon::prelude::*;

use crate::element::Element;
use crate::error::Result;
use crate::problem::Problem;

use super::rows::{FeatureRows, add_scaled, add_scaled_4, prefetch_rows};
use super::simd::{self, Work};
use super::{Sample, Samples, is_empty};

/// Writes the output, (batch, anchors, embed_dims).
pub(crate) fn forward<T: Element>(problem: &Problem<'_, T>, output: &mut [T]) -> Result<()> {
    if is_empty(problem) {
        output.fill(T::zero());
        return Ok(());
    }
    let channels = problem.shape.embed_dims();
    output.par_chunks_exact_mut(channels).enumerate().for_each_init(
        || (vec![T::Accumulator::zero(); channels], FeatureRows::new(channels), Vec::new()),
        |(sums, rows, samples), (instance, output)| {
            simd::run(Instance { problem, instance, sums, rows, samples, output });
        },
    );
    Ok(())
}

/// One instance with what a task has for all of its instances.
struct Instance<'a, T: Element> {
    problem: &'a Problem<'a, T>,
    instance: usize,
    sums: &'a mut [T::Accumulator],
    rows: &'a mut FeatureRows<T>,
    samples: &'a mut Vec<Sample<T>>,
    output: &'a mut [T],
}

impl<T: Element> Work for Instance<'_, T> {
    #[inline(always)]
    fn run(self) {
        self.sums.fill(T::Accumulator::zero());
        let mut instance = Samples::of(self.problem, self.instance);
        while instance.next_some(self.samples) {
            for (number, sample) in self.samples.iter().enumerate() {
                if let Some(next) = self.samples.get(number + 1) {
                    prefetch_rows(self.problem, next);
                }
                add_sample(self.problem, sample, self.rows, self.sums);
            }
        }
        T::narrow(self.sums, self.output);
    }
}

/// Adds the weighted sample to the sums of its instance.
#[inline(always)]
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
            let factors = [weight * p.share, weight * q.share, weight * r.share, weight * s.share];
            let channels = group * length..(group + 1) * length;
            let rows =
                [&a[channels.clone()], &b[channels.clone()], &c[channels.clone()], &d[channels]];
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
