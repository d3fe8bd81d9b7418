//! What every backend is handed: checked sizes and contiguous slices.

use crate::element::Element;
use crate::rule::BorderRule;
use crate::shape::AggregationShape;

/// The inputs of one aggregation. Each slice is as long as `shape` says, row-major.
pub(crate) struct Problem<'a, T: Element> {
    pub(crate) shape: &'a AggregationShape,
    pub(crate) rule: BorderRule,
    pub(crate) feature_maps: &'a [T],
    pub(crate) sampling_locations: &'a [T::Location],
    pub(crate) weights: &'a [T],
}

/// Where a backend puts the gradients of the three inputs. It writes every element, zeros included.
pub(crate) struct GradientSlices<'a, T: Element> {
    pub(crate) feature_maps: &'a mut [T],
    pub(crate) sampling_locations: &'a mut [T::Location],
    pub(crate) weights: &'a mut [T],
}

impl<T: Element> Problem<'_, T> {
    /// The location (x, y) of a (batch, anchor, point, camera) pair, counted through in that order.
    pub(crate) fn location(&self, pair: usize) -> [T::Location; 2] {
        [self.sampling_locations[2 * pair], self.sampling_locations[2 * pair + 1]]
    }
}
