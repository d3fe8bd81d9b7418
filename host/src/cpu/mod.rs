//! The operator on all cores.
//!
//! Results do not depend on the number of threads: every sum is computed by one task, in the order of the samples.

mod backward;
mod forward;
mod rows;

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
    #[inline]
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
    #[inline]
    fn rows(&self) -> impl Iterator<Item = (usize, Corner<T::Accumulator>)> {
        self.corners.iter().flatten().map(|corner| (self.first_row + corner.pixel, *corner))
    }

    #[inline]
    fn weights<'a>(&self, problem: &Problem<'a, T>) -> &'a [T] {
        let groups = problem.shape.groups();
        &problem.weights[self.index * groups..][..groups]
    }
}

/// Calls `visit` for every sample of an instance (batch, anchor) that counts, in order.
#[inline]
fn for_each_sample<T: Element>(
    problem: &Problem<'_, T>,
    instance: usize,
    mut visit: impl FnMut(&Sample<T>),
) {
    let layout = problem.shape.layout();
    let pairs = problem.shape.points() * layout.cameras();
    for pair in instance * pairs..(instance + 1) * pairs {
        if !may_count(problem.rule, problem.location(pair)) {
            continue;
        }
        for level in 0..layout.levels() {
            let sample = Sample::new(problem, pair * layout.levels() + level);
            if sample.corners.iter().any(Option::is_some) {
                visit(&sample);
            }
        }
    }
}

/// Whether there is nothing to sum: then all results are zero. Otherwise every size is at least one.
fn is_empty<T: Element>(problem: &Problem<'_, T>) -> bool {
    problem.weights.is_empty()
}
