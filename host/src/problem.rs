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

#[cfg(any(cuda_backend, feature = "emulator"))]
impl<'a, T: Element> Problem<'a, T> {
    /// The same with its element type under another name: `U` is `T` where this is called.
    pub(crate) fn cast<U: Element>(&self) -> Problem<'a, U> {
        Problem {
            shape: self.shape,
            rule: self.rule,
            feature_maps: bytemuck::cast_slice(self.feature_maps),
            sampling_locations: bytemuck::cast_slice(self.sampling_locations),
            weights: bytemuck::cast_slice(self.weights),
        }
    }
}

#[cfg(any(cuda_backend, feature = "emulator"))]
impl<'a, T: Element> GradientSlices<'a, T> {
    /// The same with its element type under another name: `U` is `T` where this is called.
    pub(crate) fn cast<U: Element>(self) -> GradientSlices<'a, U> {
        GradientSlices {
            feature_maps: bytemuck::cast_slice_mut(self.feature_maps),
            sampling_locations: bytemuck::cast_slice_mut(self.sampling_locations),
            weights: bytemuck::cast_slice_mut(self.weights),
        }
    }
}
