//! The forward pass: one task for each (batch, anchor), or for each run of the points of one that has very many.

use std::ops::Range;

use num_traits::Zero;
use rayon::prelude::*;

use crate::element::Element;
use crate::error::Result;
use crate::memory::zeros;
use crate::problem::Problem;

use super::rows::{FeatureRows, add_scaled, add_scaled_4, prefetch_rows};
use super::simd::{self, Work};
use super::{RUN_PAIRS, Sample, Samples, is_empty, pairs_of_instance};

/// Writes the output, (batch, anchors, embed_dims).
pub(crate) fn forward<T: Element>(problem: &Problem<'_, T>, output: &mut [T]) -> Result<()> {
    if is_empty(problem) {
        output.fill(T::zero());
        return Ok(());
    }
    let (channels, pairs) = (problem.shape.embed_dims(), pairs_of_instance(problem));
    if pairs > RUN_PAIRS {
        return forward_in_runs(problem, output);
    }
    output.par_chunks_exact_mut(channels).enumerate().for_each_init(
        || (vec![T::Accumulator::zero(); channels], FeatureRows::new(channels), Vec::new()),
        |(sums, rows, samples), (instance, output)| {
            sums.fill(T::Accumulator::zero());
            let pairs = instance * pairs..(instance + 1) * pairs;
            simd::run(Run { problem, pairs, sums, rows, samples });
            T::narrow(sums, output);
        },
    );
    Ok(())
}

/// The same for instances of several runs.
fn forward_in_runs<T: Element>(problem: &Problem<'_, T>, output: &mut [T]) -> Result<()> {
    let (channels, pairs) = (problem.shape.embed_dims(), pairs_of_instance(problem));
    let runs = pairs.div_ceil(RUN_PAIRS);
    let instances = output.len() / channels;
    let mut sums: Vec<T::Accumulator> = zeros("sums of runs", instances * runs * channels)?;
    sums.par_chunks_exact_mut(channels).enumerate().for_each_init(
        || (FeatureRows::new(channels), Vec::new()),
        |(rows, samples), (number, sums)| {
            let (first, run) = (number / runs * pairs, number % runs);
            let pairs = first + run * RUN_PAIRS..first + pairs.min((run + 1) * RUN_PAIRS);
            simd::run(Run { problem, pairs, sums, rows, samples });
        },
    );
    let sums = sums.par_chunks_exact_mut(runs * channels);
    output.par_chunks_exact_mut(channels).zip(sums).for_each(|(output, sums)| {
        let (total, others) = sums.split_at_mut(channels);
        for other in others.chunks_exact(channels) {
            total.iter_mut().zip(other).for_each(|(total, &sum)| *total += sum);
        }
        T::narrow(total, output);
    });
    Ok(())
}

/// Some pairs of an instance with what a task has for all of its runs.
struct Run<'a, T: Element> {
    problem: &'a Problem<'a, T>,
    pairs: Range<usize>,
    /// What is added to.
    sums: &'a mut [T::Accumulator],
    rows: &'a mut FeatureRows<T>,
    samples: &'a mut Vec<Sample<T>>,
}

impl<T: Element> Work for Run<'_, T> {
    #[inline(always)]
    fn run(self) {
        let mut run = Samples::of(self.problem, self.pairs);
        while run.next_some(self.samples) {
            for (number, sample) in self.samples.iter().enumerate() {
                if let Some(next) = self.samples.get(number + 1) {
                    prefetch_rows(self.problem, next);
                }
                add_sample(self.problem, sample, self.rows, self.sums);
            }
        }
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
