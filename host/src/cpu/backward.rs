//! The backward pass, without contention: every gradient is summed and written by one task.
//!
//! 1. Locations and weights belong to an instance (batch, anchor): one task for each.
//! 2. A feature row belongs to a block of neighbouring rows. The samples are sorted into the blocks they touch (count,
//!    sum up, fill), which keeps their order; then one task for each block adds up the shares of its samples.

use std::any::TypeId;
use std::borrow::Cow;
use std::sync::atomic::{AtomicUsize, Ordering};

use num_traits::Zero;
use rayon::prelude::*;

use crate::element::Element;
use crate::error::Result;
use crate::memory::zeros;
use crate::problem::{GradientSlices, Problem};

use super::rows::{FeatureRows, WideRow, add_scaled, dot};
use super::{Sample, for_each_sample, is_empty};

/// Feature rows of a block. At 256 channels its sums are 64 KiB, which a core's second-level cache holds with room for the
/// rows of the output gradient.
const BLOCK_ROWS: usize = 64;

/// Into how many runs the instances of a batch item are cut to sort their samples.
const RUNS: usize = 64;

/// Writes the gradients of `sum(output * grad_output)`.
pub(crate) fn backward<T: Element>(
    problem: &Problem<'_, T>,
    grad_output: &[T],
    gradients: GradientSlices<'_, T>,
) -> Result<()> {
    if is_empty(problem) {
        gradients.feature_maps.fill(T::zero());
        gradients.sampling_locations.fill(T::Location::zero());
        gradients.weights.fill(T::zero());
        return Ok(());
    }
    locations_and_weights(problem, grad_output, gradients.sampling_locations, gradients.weights);
    feature_maps(problem, grad_output, gradients.feature_maps)
}

fn locations_and_weights<T: Element>(
    problem: &Problem<'_, T>,
    grad_output: &[T],
    grad_locations: &mut [T::Location],
    grad_weights: &mut [T],
) {
    let (shape, channels) = (problem.shape, problem.shape.embed_dims());
    let instances = shape.batch() * shape.anchors();
    let per_instance = |length: usize| length / instances;
    let locations =
        grad_locations.par_chunks_exact_mut(per_instance(problem.sampling_locations.len()));
    let weights = grad_weights.par_chunks_exact_mut(per_instance(problem.weights.len()));
    let upstream = grad_output.par_chunks_exact(channels);
    (upstream, locations, weights).into_par_iter().enumerate().for_each_init(
        || (WideRow::new(channels), FeatureRows::new(channels)),
        |(wide, rows), (instance, (upstream, locations, weights))| {
            locations.fill(T::Location::zero());
            weights.fill(T::zero());
            let upstream = wide.of(upstream);
            let first_pair = instance * locations.len() / 2;
            let first_sample = instance * weights.len() / shape.groups();
            for_each_sample(problem, instance, |sample| {
                let weights = &mut weights[(sample.index - first_sample) * shape.groups()..];
                let slope = sample_gradients(problem, sample, upstream, rows, weights);
                let location = &mut locations[(sample.pair - first_pair) * 2..][..2];
                for (location, slope) in location.iter_mut().zip(slope) {
                    *location += slope.into();
                }
            });
        },
    );
}

/// Writes the gradients of the weights of a sample, one for each group, and returns its share of that of the location.
#[inline]
fn sample_gradients<T: Element>(
    problem: &Problem<'_, T>,
    sample: &Sample<T>,
    upstream: &[T::Accumulator],
    rows: &mut FeatureRows<T>,
    grad_weights: &mut [T],
) -> [T::Accumulator; 2] {
    let length = problem.shape.channels_per_group();
    let rows = rows.of(problem, sample);
    let mut grad_location = [T::Accumulator::zero(); 2];
    let groups = upstream.chunks_exact(length).zip(sample.weights(problem)).zip(grad_weights);
    for (group, ((upstream, weight), grad_weight)) in groups.enumerate() {
        let mut value = T::Accumulator::zero();
        let mut slope = [T::Accumulator::zero(); 2];
        for (row, corner) in rows.iter().zip(&sample.corners) {
            if let (Some(row), Some(corner)) = (row, corner) {
                let product = dot(upstream, &row[group * length..][..length]);
                value += corner.share * product;
                slope[0] += corner.slope[0] * product;
                slope[1] += corner.slope[1] * product;
            }
        }
        *grad_weight = T::from_accumulator(value);
        grad_location[0] += weight.to_accumulator() * slope[0];
        grad_location[1] += weight.to_accumulator() * slope[1];
    }
    grad_location
}

fn feature_maps<T: Element>(
    problem: &Problem<'_, T>,
    grad_output: &[T],
    grad_feature_maps: &mut [T],
) -> Result<()> {
    let (shape, channels) = (problem.shape, problem.shape.embed_dims());
    let num_feat = shape.layout().num_feat();
    let upstream = widened(grad_output)?;
    for (batch, gradient) in grad_feature_maps.chunks_exact_mut(num_feat * channels).enumerate() {
        let blocks = Blocks::sort(problem, batch)?;
        gradient.par_chunks_mut(BLOCK_ROWS * channels).enumerate().for_each_init(
            || vec![T::Accumulator::zero(); BLOCK_ROWS * channels],
            |sums, (block, gradient)| {
                let sums = &mut sums[..gradient.len()];
                sums.fill(T::Accumulator::zero());
                let first_row = batch * num_feat + block * BLOCK_ROWS;
                for sample in blocks.samples(block) {
                    let sample = Sample::new(problem, sample);
                    add_to_block(problem, &sample, &upstream, first_row, sums);
                }
                T::narrow(sums, gradient);
            },
        );
    }
    Ok(())
}

/// Adds the shares of a sample to those of its rows that lie in the block `sums`, whose first row is `first_row`.
#[inline]
fn add_to_block<T: Element>(
    problem: &Problem<'_, T>,
    sample: &Sample<T>,
    upstream: &[T::Accumulator],
    first_row: usize,
    sums: &mut [T::Accumulator],
) {
    let (shape, channels) = (problem.shape, problem.shape.embed_dims());
    let length = shape.channels_per_group();
    let instance = sample.pair / shape.layout().cameras() / shape.points();
    let upstream = &upstream[instance * channels..][..channels];
    let weights = sample.weights(problem);
    let block_rows = sums.len() / channels;
    for (row, corner) in sample.rows() {
        let Some(row) = row.checked_sub(first_row).filter(|&row| row < block_rows) else {
            continue;
        };
        let sums = &mut sums[row * channels..][..channels];
        let groups = sums.chunks_exact_mut(length).zip(upstream.chunks_exact(length));
        for ((sums, upstream), weight) in groups.zip(weights) {
            add_scaled(sums, weight.to_accumulator() * corner.share, upstream);
        }
    }
}

/// The samples of one batch item by block of feature rows, in order. A sample is listed in every block that it touches.
struct Blocks {
    /// Block `b` has the entries from `ends[b - 1]` (0 for the first) to `ends[b]`.
    ends: Vec<usize>,
    /// Numbers of samples. Atomic because the tasks that fill them in share the list; they write different entries.
    samples: Vec<AtomicUsize>,
}

impl Blocks {
    fn sort<T: Element>(problem: &Problem<'_, T>, batch: usize) -> Result<Self> {
        let blocks = problem.shape.layout().num_feat().div_ceil(BLOCK_ROWS);
        let anchors = problem.shape.anchors();
        let run_length = anchors.div_ceil(RUNS);
        let runs = anchors.div_ceil(run_length);
        // The instances of a run.
        let instances = |run: usize| {
            let first = batch * anchors;
            first + run * run_length..first + anchors.min((run + 1) * run_length)
        };

        // For every run, how many entries each block gets from it ...
        let mut positions: Vec<usize> = zeros("sample counts", runs * blocks)?;
        positions.par_chunks_exact_mut(blocks).enumerate().for_each(|(run, counts)| {
            for instance in instances(run) {
                for_each_entry(problem, batch, instance, |block, _| counts[block] += 1);
            }
        });
        // ... then where they go: block after block, in each run after run.
        let mut ends = zeros("sample positions", blocks)?;
        let mut total = 0;
        for (block, end) in ends.iter_mut().enumerate() {
            for run in 0..runs {
                total += std::mem::replace(&mut positions[run * blocks + block], total);
            }
            *end = total;
        }
        let samples: Vec<AtomicUsize> = zeros("samples by feature row", total)?;
        positions.par_chunks_exact_mut(blocks).enumerate().for_each(|(run, positions)| {
            for instance in instances(run) {
                for_each_entry(problem, batch, instance, |block, sample| {
                    samples[positions[block]].store(sample, Ordering::Relaxed);
                    positions[block] += 1;
                });
            }
        });
        Ok(Self { ends, samples })
    }

    fn samples(&self, block: usize) -> impl Iterator<Item = usize> {
        let first = block.checked_sub(1).map_or(0, |before| self.ends[before]);
        self.samples[first..self.ends[block]].iter().map(|sample| sample.load(Ordering::Relaxed))
    }
}

/// Calls `visit(block, sample)` for every sample of an instance and every block of its batch item that the sample touches, once each.
#[inline]
fn for_each_entry<T: Element>(
    problem: &Problem<'_, T>,
    batch: usize,
    instance: usize,
    mut visit: impl FnMut(usize, usize),
) {
    let first_row = batch * problem.shape.layout().num_feat();
    for_each_sample(problem, instance, |sample| {
        // Corners come in the order of their rows, so equal blocks are neighbours.
        let mut last = None;
        for (row, _) in sample.rows() {
            let block = (row - first_row) / BLOCK_ROWS;
            if last != Some(block) {
                visit(block, sample.index);
                last = Some(block);
            }
        }
    });
}

/// All of `values` as accumulators: `values` themselves where the types are the same.
fn widened<T: Element>(values: &[T]) -> Result<Cow<'_, [T::Accumulator]>> {
    const RUN: usize = 1 << 14;
    if TypeId::of::<T>() == TypeId::of::<T::Accumulator>() {
        return Ok(Cow::Borrowed(bytemuck::cast_slice(values)));
    }
    let mut wide = zeros("output gradient in fp32", values.len())?;
    values.par_chunks(RUN).zip(wide.par_chunks_mut(RUN)).for_each(|(values, wide)| {
        T::widen(values, wide);
    });
    Ok(Cow::Owned(wide))
}
