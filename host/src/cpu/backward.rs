//! The backward pass, without contention: every gradient is summed and written by one task.
//!
//! 1. Locations and weights belong to an instance (batch, anchor): one task for each, or for each run of its points.
//! 2. A feature row belongs to a block of neighbouring rows. The samples are sorted into the blocks they touch (count,
//!    sum up, fill), which keeps their order; then one task for each block adds up the shares of its samples, or one for each
//!    run of them where there are very many.

use std::any::TypeId;
use std::borrow::Cow;
use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};

use num_traits::Zero;
use rayon::prelude::*;

use crate::element::{Element, Scalar};
use crate::error::Result;
use crate::memory::zeros;
use crate::problem::{GradientSlices, Problem};

use super::rows::{FeatureRows, LANES, Lanes, WideRow, add_scaled, dot, prefetch_rows, total};
use super::simd::{self, Work};
use super::{RUN_PAIRS, Sample, Samples, is_empty, pairs_of_instance};

/// Feature rows of a block. At 256 channels its sums are 16 KiB, which a core's first-level cache holds with room for the
/// rows of the output gradient.
const BLOCK_ROWS: usize = 16;

/// How many samples ahead of its use a block asks for a weight.
const AHEAD: usize = 4;

/// Samples of a block from which on they are cut into runs of so many, each with sums of its own.
const RUN_SAMPLES: usize = 1 << 13;

/// Into how many runs the pairs of a batch item are cut to sort their samples, for each thread, and how many pairs of a run
/// there are at least. The order of the samples does not depend on it.
const RUNS_PER_THREAD: usize = 4;
const MIN_RUN_PAIRS: usize = 256;

/// Writes the gradients of `sum(output * grad_output)`. The slices hold zeros before: what no sample touches is not written.
pub(crate) fn backward<T: Element>(
    problem: &Problem<'_, T>,
    grad_output: &[T],
    gradients: GradientSlices<'_, T>,
) -> Result<()> {
    if is_empty(problem) {
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
    let pairs = pairs_of_instance(problem);
    let of_pair = problem.weights.len() / (problem.sampling_locations.len() / 2);
    // Each run of each instance.
    let mut runs = Vec::new();
    let locations = grad_locations.chunks_exact_mut(2 * pairs);
    let weights = grad_weights.chunks_exact_mut(of_pair * pairs);
    let upstream = grad_output.chunks_exact(channels);
    for (instance, ((upstream, locations), weights)) in
        upstream.zip(locations).zip(weights).enumerate()
    {
        let locations = locations.chunks_mut(2 * RUN_PAIRS);
        let weights = weights.chunks_mut(of_pair * RUN_PAIRS);
        for (run, (locations, weights)) in locations.zip(weights).enumerate() {
            runs.push((instance * pairs + run * RUN_PAIRS, upstream, locations, weights));
        }
    }
    runs.into_par_iter().for_each_init(
        || {
            let products = vec![[T::Accumulator::zero(); LANES]; 4 * shape.groups() + 4];
            (WideRow::new(channels), FeatureRows::new(channels), products, Vec::new())
        },
        |(wide, rows, products, samples), (first_pair, upstream, grad_locations, grad_weights)| {
            let upstream = wide.of(upstream);
            simd::run(Run {
                problem,
                first_pair,
                upstream,
                rows,
                products,
                samples,
                grad_locations,
                grad_weights,
            });
        },
    );
}

/// Some pairs of an instance with what a task has for all of its runs.
struct Run<'a, T: Element> {
    problem: &'a Problem<'a, T>,
    first_pair: usize,
    upstream: &'a [T::Accumulator],
    rows: &'a mut FeatureRows<T>,
    /// For each corner and group the products of a sample, and for each corner their weighted sum.
    products: &'a mut [Lanes<T::Accumulator>],
    samples: &'a mut Vec<Sample<T>>,
    grad_locations: &'a mut [T::Location],
    grad_weights: &'a mut [T],
}

impl<T: Element> Work for Run<'_, T> {
    /// Writes the gradients of locations and weights where samples count; the others are zero already.
    #[inline(always)]
    fn run(self) {
        let Self { problem, upstream, rows, products, samples, grad_locations, .. } = self;
        let (first_pair, grad_weights) = (self.first_pair, self.grad_weights);
        let groups = problem.shape.groups();
        let first_sample = first_pair * problem.shape.layout().levels();
        let mut run = Samples::of(problem, first_pair..first_pair + grad_locations.len() / 2);
        while run.next_some(samples) {
            for (number, sample) in samples.iter().enumerate() {
                if let Some(next) = samples.get(number + 1) {
                    prefetch_rows(problem, next);
                }
                let weights = &mut grad_weights[(sample.index - first_sample) * groups..];
                let slope = sample_gradients(problem, sample, upstream, rows, products, weights);
                let location = &mut grad_locations[(sample.pair - first_pair) * 2..][..2];
                for (location, slope) in location.iter_mut().zip(slope) {
                    *location += slope.into();
                }
            }
        }
    }
}

/// Writes the gradients of the weights of a sample, one for each group, and returns its share of that of the location.
#[inline(always)]
fn sample_gradients<T: Element>(
    problem: &Problem<'_, T>,
    sample: &Sample<T>,
    upstream: &[T::Accumulator],
    rows: &mut FeatureRows<T>,
    products: &mut [Lanes<T::Accumulator>],
    grad_weights: &mut [T],
) -> [T::Accumulator; 2] {
    let shape = problem.shape;
    let length = shape.channels_per_group();
    let weights = sample.weights(problem);
    let rows = rows.of(problem, sample);
    // A corner that is not on the map has products of zero besides.
    let mut shares = [T::Accumulator::zero(); 4];
    let mut slopes = [[T::Accumulator::zero(); 4]; 2];
    for (number, corner) in sample.corners.iter().enumerate() {
        if let Some(corner) = corner {
            shares[number] = corner.share;
            slopes[0][number] = corner.slope[0];
            slopes[1][number] = corner.slope[1];
        }
    }
    // What the slopes multiply: for each corner the products, times the weights.
    let (products, weighted) = products.split_at_mut(4 * shape.groups());
    weighted.fill([T::Accumulator::zero(); LANES]);
    for corner in 0..4 {
        let products = &mut products[corner * shape.groups()..][..shape.groups()];
        let Some(row) = rows[corner] else {
            products.fill([T::Accumulator::zero(); LANES]);
            continue;
        };
        let groups = upstream.chunks_exact(length).zip(row.chunks_exact(length));
        for (products, (upstream, row)) in products.iter_mut().zip(groups) {
            dot(products, upstream, row);
        }
        for (weight, products) in weights.iter().zip(&*products) {
            add_scaled(&mut weighted[corner], weight.to_accumulator(), products);
        }
    }
    for (group, grad_weight) in grad_weights.iter_mut().take(shape.groups()).enumerate() {
        let mut value = [T::Accumulator::zero(); LANES];
        for corner in 0..4 {
            add_scaled(&mut value, shares[corner], &products[corner * shape.groups() + group]);
        }
        *grad_weight = T::from_accumulator(total(value));
    }
    let mut slope = [[T::Accumulator::zero(); LANES]; 2];
    for (slope, slopes) in slope.iter_mut().zip(slopes) {
        for (factor, products) in slopes.into_iter().zip(&*weighted) {
            add_scaled(slope, factor, products);
        }
    }
    [total(slope[0]), total(slope[1])]
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
        let upstream = &*upstream;
        gradient.par_chunks_mut(BLOCK_ROWS * channels).enumerate().for_each_init(
            || {
                vec![
                    T::Accumulator::zero();
                    if sums_in_place::<T>() { 0 } else { BLOCK_ROWS * channels }
                ]
            },
            |sums, (block, gradient)| {
                let samples = blocks.samples(block);
                // Pages of zeros that nobody touches cost nothing.
                if samples.is_empty() {
                    return;
                }
                let first_row = batch * num_feat + block * BLOCK_ROWS;
                let add = |samples: &[AtomicUsize], sums: &mut [T::Accumulator]| {
                    simd::run(Block { problem, samples, upstream, first_row, sums });
                };
                if samples.len() > RUN_SAMPLES {
                    T::narrow(&sum_in_runs(samples, gradient.len(), add), gradient);
                } else if sums_in_place::<T>() {
                    add(samples, bytemuck::cast_slice_mut(gradient));
                } else {
                    let sums = &mut sums[..gradient.len()];
                    sums.fill(T::Accumulator::zero());
                    add(samples, sums);
                    T::narrow(sums, gradient);
                }
            },
        );
    }
    Ok(())
}

/// Whether the feature gradient is of the type of its sums.
fn sums_in_place<T: Element>() -> bool {
    TypeId::of::<T>() == TypeId::of::<T::Accumulator>()
}

/// The sums of so many words that `add` makes of the samples, a task for each run of them, whose sums are added up in order.
fn sum_in_runs<A: Scalar>(
    samples: &[AtomicUsize],
    length: usize,
    add: impl Fn(&[AtomicUsize], &mut [A]) + Sync,
) -> Vec<A> {
    let of_run = |samples| {
        let mut sums = vec![A::zero(); length];
        add(samples, &mut sums);
        sums
    };
    let runs: Vec<_> = samples.par_chunks(RUN_SAMPLES).map(of_run).collect();
    let mut total = vec![A::zero(); length];
    for sums in runs {
        total.iter_mut().zip(sums).for_each(|(total, sum)| *total += sum);
    }
    total
}

/// Some of the samples that touch a block of feature rows.
struct Block<'a, T: Element> {
    problem: &'a Problem<'a, T>,
    samples: &'a [AtomicUsize],
    upstream: &'a [T::Accumulator],
    /// The first row of the block.
    first_row: usize,
    /// The block's rows, to be added to.
    sums: &'a mut [T::Accumulator],
}

impl<T: Element> Work for Block<'_, T> {
    /// Adds the shares of the samples to those of their rows that lie in the block.
    #[inline(always)]
    fn run(self) {
        let Self { problem, samples, upstream, first_row, sums } = self;
        let (shape, channels) = (problem.shape, problem.shape.embed_dims());
        let length = shape.channels_per_group();
        let block_rows = sums.len() / channels;
        for (number, sample) in samples.iter().enumerate() {
            if let Some(ahead) = samples.get(number + AHEAD) {
                // The samples of a block lie anywhere in their arrays.
                let ahead = ahead.load(Ordering::Relaxed);
                simd::prefetch(&problem.weights[ahead * shape.groups()]);
                simd::prefetch(&problem.sampling_locations[ahead / shape.layout().levels() * 2]);
            }
            let sample = Sample::new(problem, sample.load(Ordering::Relaxed));
            let instance = sample.pair / shape.layout().cameras() / shape.points();
            let upstream = &upstream[instance * channels..][..channels];
            let weights = sample.weights(problem);
            for corner in sample.corners.iter().flatten() {
                let row = sample.first_row + corner.pixel;
                // A row before the block wraps around to a large number.
                let row = row.wrapping_sub(first_row);
                if row >= block_rows {
                    continue;
                }
                let sums = &mut sums[row * channels..][..channels];
                let groups = sums.chunks_exact_mut(length).zip(upstream.chunks_exact(length));
                for ((sums, upstream), weight) in groups.zip(weights) {
                    add_scaled(sums, weight.to_accumulator() * corner.share, upstream);
                }
            }
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
        let all = problem.shape.anchors() * pairs_of_instance(problem);
        let run_length = all.div_ceil(RUNS_PER_THREAD * rayon::current_num_threads());
        let run_length = run_length.max(MIN_RUN_PAIRS);
        let runs = all.div_ceil(run_length);
        let pairs = |run: usize| {
            batch * all + run * run_length..batch * all + all.min((run + 1) * run_length)
        };

        // For every run, how many entries each block gets from it ...
        let mut positions: Vec<usize> = zeros("sample counts", runs * blocks)?;
        positions.par_chunks_exact_mut(blocks).enumerate().for_each(|(run, counts)| {
            let visit = |block: usize, _| counts[block] += 1;
            simd::run(Entries { problem, batch, pairs: pairs(run), visit });
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
            let visit = |block: usize, sample| {
                samples[positions[block]].store(sample, Ordering::Relaxed);
                positions[block] += 1;
            };
            simd::run(Entries { problem, batch, pairs: pairs(run), visit });
        });
        Ok(Self { ends, samples })
    }

    fn samples(&self, block: usize) -> &[AtomicUsize] {
        let first = block.checked_sub(1).map_or(0, |before| self.ends[before]);
        &self.samples[first..self.ends[block]]
    }
}

/// Goes through every sample of some pairs and every block of its batch item that the sample touches, once each, in order.
struct Entries<'a, T: Element, V> {
    problem: &'a Problem<'a, T>,
    batch: usize,
    pairs: Range<usize>,
    /// Is called with block and sample.
    visit: V,
}

impl<T: Element, V: FnMut(usize, usize)> Work for Entries<'_, T, V> {
    #[inline(always)]
    fn run(self) {
        let Self { problem, batch, pairs, mut visit } = self;
        let first_row = batch * problem.shape.layout().num_feat();
        let mut samples = Vec::new();
        let mut pairs = Samples::of(problem, pairs);
        while pairs.next_some(&mut samples) {
            for sample in &samples {
                // Corners come in the order of their rows, so equal blocks are neighbours.
                let mut last = None;
                for (row, _) in sample.rows() {
                    let block = (row - first_row) / BLOCK_ROWS;
                    if last != Some(block) {
                        visit(block, sample.index);
                        last = Some(block);
                    }
                }
            }
        }
    }
}

/// All of `values` as accumulators: `values` themselves where the types are the same.
fn widened<T: Element>(values: &[T]) -> Result<Cow<'_, [T::Accumulator]>> {
    const RUN: usize = 1 << 14;
    if sums_in_place::<T>() {
        return Ok(Cow::Borrowed(bytemuck::cast_slice(values)));
    }
    let mut wide = zeros("output gradient in fp32", values.len())?;
    values.par_chunks(RUN).zip(wide.par_chunks_mut(RUN)).for_each(|(values, wide)| {
        T::widen(values, wide);
    });
    Ok(Cow::Owned(wide))
}
