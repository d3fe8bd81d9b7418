//! The operator on all cores.
//!
//! Results do not depend on the number of threads: every sum is computed by one task, in the order of the samples. Sums of
//! very many samples are cut into runs of a fixed length, and what those come to is added up in their order.

mod backward;
mod forward;
mod rows;
mod simd;

pub(crate) use backward::backward;
pub(crate) use forward::forward;

use std::ops::Range;

use crate::element::Element;
use crate::problem::Problem;
use crate::sample::{Corner, corners, may_count};

/// A (batch, anchor, point, camera, level) sample that counts.
struct Sample<T: Element> {
    /// Samples counted through in the order of the weights, so its weights are `groups` elements from
    /// `index * groups` on.
    index: usize,
    /// Index of the (batch, anchor, point, camera) pair.
    pair: usize,
    corners: [Option<Corner<T::Accumulator>>; 4],
    /// First row of the map in the feature maps of the whole batch.
    first_row: usize,
}

impl<T: Element> Sample<T> {
    /// Sample number `index`, which must be one of the problem.
    #[inline(always)]
    fn new(problem: &Problem<'_, T>, index: usize) -> Self {
        let (shape, layout) = (problem.shape, problem.shape.layout());
        let (pair, level) = (index / layout.levels(), index % layout.levels());
        let (point, camera) = (pair / layout.cameras(), pair % layout.cameras());
        let batch = point / shape.points() / shape.anchors();
        Self {
            index,
            pair,
            corners: corners(problem.rule, layout.shape(camera, level), problem.location(pair)),
            first_row: batch * layout.num_feat() + layout.start(camera, level),
        }
    }

    /// The corners on the map, each with its row in the feature maps of the whole batch.
    #[inline(always)]
    fn rows(&self) -> impl Iterator<Item = (usize, Corner<T::Accumulator>)> {
        self.corners.iter().flatten().map(|corner| (self.first_row + corner.pixel, *corner))
    }

    #[inline(always)]
    fn weights<'a>(&self, problem: &Problem<'a, T>) -> &'a [T] {
        let groups = problem.shape.groups();
        &problem.weights[self.index * groups..][..groups]
    }
}

/// Samples that are listed at a time.
const LISTED: usize = 256;

/// Most (point, camera) pairs of a task. Instances with more are cut into runs of so many.
const RUN_PAIRS: usize = 1 << 12;

/// The samples of some (batch, anchor, point, camera) pairs that count, in order, some at a time.
struct Samples<'a, T: Element> {
    problem: &'a Problem<'a, T>,
    /// The pairs not looked at.
    pairs: Range<usize>,
}

impl<'a, T: Element> Samples<'a, T> {
    #[inline(always)]
    fn of(problem: &'a Problem<'a, T>, pairs: Range<usize>) -> Self {
        Self { problem, pairs }
    }

    /// Lists the next ones; `false` if there are none left.
    #[inline(always)]
    fn next_some(&mut self, list: &mut Vec<Sample<T>>) -> bool {
        list.clear();
        let levels = self.problem.shape.layout().levels();
        while list.len() < LISTED
            && let Some(pair) = self.pairs.next()
        {
            if may_count(self.problem.rule, self.problem.location(pair)) {
                for level in 0..levels {
                    let sample = Sample::new(self.problem, pair * levels + level);
                    if sample.corners.iter().any(Option::is_some) {
                        list.push(sample);
                    }
                }
            }
        }
        !list.is_empty()
    }
}

/// (point, camera) pairs of an instance (batch, anchor).
fn pairs_of_instance<T: Element>(problem: &Problem<'_, T>) -> usize {
    problem.shape.points() * problem.shape.layout().cameras()
}

/// Whether there is nothing to sum: then all results are zero. Otherwise every size is at least one.
fn is_empty<T: Element>(problem: &Problem<'_, T>) -> bool {
    problem.weights.is_empty()
}
