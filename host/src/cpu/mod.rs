//! The operator on all cores.
//!
//! Results do not depend on the number of threads: every sum is computed by one task, in the order of the samples.

mod backward;
mod forward;
mod rows;
mod simd;

pub(crate) use backward::backward;
pub(crate) use forward::forward;

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

/// The samples of an instance (batch, anchor) that count, in order, some at a time.
struct Samples<'a, T: Element> {
    problem: &'a Problem<'a, T>,
    /// The first pair not looked at, and the end of the instance.
    pair: usize,
    end: usize,
}

impl<'a, T: Element> Samples<'a, T> {
    #[inline(always)]
    fn of(problem: &'a Problem<'a, T>, instance: usize) -> Self {
        let pairs = problem.shape.points() * problem.shape.layout().cameras();
        Self { problem, pair: instance * pairs, end: (instance + 1) * pairs }
    }

    /// Lists the next ones; `false` if there are none left.
    #[inline(always)]
    fn next_some(&mut self, list: &mut Vec<Sample<T>>) -> bool {
        list.clear();
        let levels = self.problem.shape.layout().levels();
        while self.pair < self.end && list.len() < LISTED {
            if may_count(self.problem.rule, self.problem.location(self.pair)) {
                for level in 0..levels {
                    let sample = Sample::new(self.problem, self.pair * levels + level);
                    if sample.corners.iter().any(Option::is_some) {
                        list.push(sample);
                    }
                }
            }
            self.pair += 1;
        }
        !list.is_empty()
    }
}

/// Whether there is nothing to sum: then all results are zero. Otherwise every size is at least one.
fn is_empty<T: Element>(problem: &Problem<'_, T>) -> bool {
    problem.weights.is_empty()
}
