//! The operator in plain loops: what every other backend is compared against.

mod backward;
mod forward;

use ndarray::{Array, Array3, ArrayView3, Dimension, ShapeBuilder};

pub(crate) use backward::backward;
pub(crate) use forward::forward;

use backward::backward_sums;
use forward::forward_sums;

use crate::element::{Element, Scalar};
use crate::error::Result;
use crate::operator::{Contiguous, Gradients, Inputs, contiguous, slice};
use crate::rule::BorderRule;
use crate::shape::AggregationShape;

/// Whether terms are summed as they are, or by absolute value (see [`magnitudes`]).
#[derive(Clone, Copy, PartialEq, Eq)]
enum Terms {
    Signed,
    Absolute,
}

impl Terms {
    fn apply<A: Scalar>(self, factor: A) -> A {
        match self {
            Self::Signed => factor,
            Self::Absolute => factor.abs(),
        }
    }
}

/// Output and gradients in `f64`: the results themselves ([`exact`]) or the size of their terms ([`magnitudes`]).
#[derive(Clone, Debug, PartialEq)]
pub struct Sums {
    /// (batch, anchors, embed_dims)
    pub output: Array3<f64>,
    /// Each of the dimensions of its input.
    pub gradients: Gradients<f64>,
}

/// Output and gradients summed in `f64`, for inputs of any element type.
///
/// Positions are computed in the type of the locations, as every backend does: a location next to a pixel centre
/// falls on the same side of it. The rest is exact up to `f64` rounding. Comparing a backend with this shows the
/// backend's own rounding, not that of the inputs.
///
/// # Errors
///
/// [`Error::Dimensions`](crate::Error::Dimensions) if an array does not have the dimensions of the shape,
/// [`Error::OutOfMemory`](crate::Error::OutOfMemory).
///
/// ```
/// use deformable_aggregation::ndarray::{Array3, Array5, Array6};
/// use deformable_aggregation::{
///     AggregationShape, BorderRule, FeatureLayout, Inputs, LevelShape, reference,
/// };
///
/// let layout = FeatureLayout::uniform(1, &[LevelShape { height: 2, width: 2 }])?;
/// let shape = AggregationShape::new(layout, 1, 1, 1, 2, 1)?;
/// let feature_maps = Array3::from_elem((1, 4, 2), -1.0_f32);
/// let sampling_locations = Array5::from_elem((1, 1, 1, 1, 2), 0.5);
/// let weights = Array6::from_elem((1, 1, 1, 1, 1, 1), 3.0);
/// let inputs = Inputs {
///     feature_maps: feature_maps.view(),
///     sampling_locations: sampling_locations.view(),
///     weights: weights.view(),
/// };
/// let grad_output = Array3::ones((1, 1, 2));
/// let rule = BorderRule::Operator;
/// let exact = reference::exact(&shape, rule, inputs, grad_output.view())?;
/// let scale = reference::magnitudes(&shape, rule, inputs, grad_output.view())?;
/// assert_eq!(exact.output[[0, 0, 1]], -3.0);
/// assert_eq!(scale.output[[0, 0, 1]], 3.0);
/// // The slope of a constant map is zero, but its terms are not.
/// assert_eq!(exact.gradients.sampling_locations[[0, 0, 0, 0, 0]], 0.0);
/// assert_eq!(scale.gradients.sampling_locations[[0, 0, 0, 0, 0]], 24.0);
/// # Ok::<(), deformable_aggregation::Error>(())
/// ```
pub fn exact<T: Element>(
    shape: &AggregationShape,
    rule: BorderRule,
    inputs: Inputs<'_, T>,
    grad_output: ArrayView3<'_, T>,
) -> Result<Sums> {
    sums(shape, rule, inputs, grad_output, Terms::Signed)
}

/// For every entry of the output and the gradients, the sum of the absolute values of all its terms: the scale
/// that an error bound goes with.
///
/// A sum of `k` terms with magnitude `m` in a type of relative rounding error `e` is off by about `k·e·m` at most, whatever the
/// order, and the sum itself may be far smaller than `m`. A term is a product of (a share of) a feature, a weight
/// and an output gradient; those of the location gradient carry the size of the map as well.
///
/// # Errors
///
/// Those of [`exact`], which has an example.
pub fn magnitudes<T: Element>(
    shape: &AggregationShape,
    rule: BorderRule,
    inputs: Inputs<'_, T>,
    grad_output: ArrayView3<'_, T>,
) -> Result<Sums> {
    sums(shape, rule, inputs, grad_output, Terms::Absolute)
}

fn sums<T: Element>(
    shape: &AggregationShape,
    rule: BorderRule,
    inputs: Inputs<'_, T>,
    grad_output: ArrayView3<'_, T>,
    terms: Terms,
) -> Result<Sums> {
    shape.check_inputs(&inputs)?;
    shape.check_grad_output(grad_output.shape())?;
    let inputs = Contiguous::new(inputs)?;
    let grad_output = contiguous(grad_output)?;
    let problem = inputs.problem(shape, rule);
    let output = forward_sums(&problem, terms)?;
    let gradients = backward_sums(&problem, slice(&grad_output), terms)?;
    Ok(Sums {
        output: array(shape.output_dim(), output),
        gradients: Gradients {
            feature_maps: array(shape.feature_maps_dim(), gradients.feature_maps),
            sampling_locations: array(shape.sampling_locations_dim(), gradients.sampling_locations),
            weights: array(shape.weights_dim(), gradients.weights),
        },
    })
}

fn array<I, D>(dimensions: I, values: Vec<f64>) -> Array<f64, D>
where
    D: Dimension,
    I: ShapeBuilder<Dim = D>,
{
    let shape = dimensions.into_shape_with_order();
    Array::from_shape_vec(shape, values).expect("one value for each entry of the shape")
}
