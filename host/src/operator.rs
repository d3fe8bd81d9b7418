//! The operator: checks the arrays once and hands contiguous slices to a backend.

use bytemuck::Pod;
#[cfg(any(cuda_backend, feature = "emulator"))]
use bytemuck::{cast_slice, cast_slice_mut};
use ndarray::{
    Array, Array3, Array5, Array6, ArrayView, ArrayView2, ArrayView3, ArrayView5, ArrayView6,
    CowArray, Dimension, Ix3, Ix5, Ix6,
};

use crate::algorithm::Algorithm;
use crate::backend::Backend;
use crate::element::Element;
use crate::error::Result;
#[cfg(any(cuda_backend, feature = "emulator"))]
use crate::kernels;
use crate::layout::FeatureLayout;
use crate::memory::zero_array;
use crate::problem::{GradientSlices, Problem};
use crate::rule::BorderRule;
use crate::shape::AggregationShape;
use crate::{cpu, reference};

/// The three arrays that the operator reads. Row-major arrays are used where they lie; others are copied first.
///
/// ```
/// use deformable_aggregation::Inputs;
/// use deformable_aggregation::half::f16;
/// use deformable_aggregation::ndarray::{Array3, Array5, Array6};
///
/// // Half-precision elements; locations stay fp32. 30 rows of 8 channels; 5 anchors, 3 points, 2 cameras, 1 level, 4 groups.
/// let feature_maps = Array3::<f16>::zeros((1, 30, 8));
/// let sampling_locations = Array5::<f32>::zeros((1, 5, 3, 2, 2));
/// let weights = Array6::<f16>::zeros((1, 5, 3, 2, 1, 4));
/// let inputs = Inputs {
///     feature_maps: feature_maps.view(),
///     sampling_locations: sampling_locations.view(),
///     weights: weights.view(),
/// };
/// let copy = inputs;
/// assert_eq!(copy.weights.dim(), inputs.weights.dim());
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Inputs<'a, T: Element> {
    /// Packed feature maps, (batch, num_feat, embed_dims).
    pub feature_maps: ArrayView3<'a, T>,
    /// Where each point is seen, (batch, anchors, points, cameras, 2): x before y, in fractions of the image.
    pub sampling_locations: ArrayView5<'a, T::Location>,
    /// Attention weights, (batch, anchors, points, cameras, levels, groups).
    pub weights: ArrayView6<'a, T>,
}

/// The gradients of a scalar with respect to the three [`Inputs`], each of the dimensions of its input. See
/// [`DeformableAggregation`] for an example.
#[derive(Clone, Debug, PartialEq)]
pub struct Gradients<T: Element> {
    /// (batch, num_feat, embed_dims); zero for rows that nothing sampled.
    pub feature_maps: Array3<T>,
    /// (batch, anchors, points, cameras, 2), per image fraction; zero for skipped samples.
    pub sampling_locations: Array5<T::Location>,
    /// (batch, anchors, points, cameras, levels, groups); zero for skipped samples.
    pub weights: Array6<T>,
}

/// Deformable aggregation of one shape, on one backend.
///
/// For every anchor it sums, over its key points, the cameras and the levels, a bilinear sample of the feature map
/// times a weight:
///
/// ```text
/// output[b, a, c] = Σ over p, n, l of weights[b, a, p, n, l, c / (C / G)] · S(map of b, n, l, c; sampling_locations[b, a, p, n])
/// ```
///
/// # Example
///
/// ```
/// use deformable_aggregation::{
///     AggregationShape, Backend, DeformableAggregation, FeatureLayout, Inputs, LevelShape,
/// };
/// use ndarray::{Array3, Array5, Array6, array};
///
/// // One camera, one level of 2 × 2 pixels, one channel.
/// let layout = FeatureLayout::uniform(1, &[LevelShape { height: 2, width: 2 }])?;
/// let shape = AggregationShape::new(layout, 1, 1, 1, 1, 1)?;
/// let operator = DeformableAggregation::new(shape).with_backend(Backend::Cpu);
///
/// let feature_maps = array![[[1.0_f32], [2.0], [4.0], [8.0]]];
/// let sampling_locations = Array5::from_elem((1, 1, 1, 1, 2), 0.5);
/// let weights = Array6::from_elem((1, 1, 1, 1, 1, 1), 2.0);
/// let inputs = Inputs {
///     feature_maps: feature_maps.view(),
///     sampling_locations: sampling_locations.view(),
///     weights: weights.view(),
/// };
/// // The centre of the image is the mean of the four pixels.
/// let (output, context) = operator.forward_with_context(inputs)?;
/// assert_eq!(output[[0, 0, 0]], 2.0 * 3.75);
///
/// let gradients = context.backward(Array3::ones((1, 1, 1)).view())?;
/// assert_eq!(gradients.weights[[0, 0, 0, 0, 0, 0]], 3.75);
/// assert_eq!(gradients.feature_maps, array![[[0.5], [0.5], [0.5], [0.5]]]);
/// # Ok::<(), deformable_aggregation::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct DeformableAggregation {
    shape: AggregationShape,
    backend: Backend,
    border_rule: BorderRule,
    algorithm: Algorithm,
}

impl DeformableAggregation {
    /// An aggregation on [`Backend::auto`] with [`BorderRule::Operator`] and [`Algorithm::Fast`].
    #[must_use]
    pub fn new(shape: AggregationShape) -> Self {
        Self {
            shape,
            backend: Backend::auto(),
            border_rule: BorderRule::default(),
            algorithm: Algorithm::default(),
        }
    }

    /// The same, computed by `backend`.
    #[must_use]
    pub fn with_backend(self, backend: Backend) -> Self {
        Self { backend, ..self }
    }

    /// The same, with another rule for samples at the border.
    #[must_use]
    pub fn with_border_rule(self, border_rule: BorderRule) -> Self {
        Self { border_rule, ..self }
    }

    /// The same, with other GPU kernels. The CPU backends have one algorithm and ignore this.
    #[must_use]
    pub fn with_algorithm(self, algorithm: Algorithm) -> Self {
        Self { algorithm, ..self }
    }

    /// The sizes.
    #[must_use]
    pub fn shape(&self) -> &AggregationShape {
        &self.shape
    }

    /// What computes.
    #[must_use]
    pub fn backend(&self) -> &Backend {
        &self.backend
    }

    /// What counts at the border.
    #[must_use]
    pub fn border_rule(&self) -> BorderRule {
        self.border_rule
    }

    /// Which GPU kernels run.
    #[must_use]
    pub fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    /// The output, (batch, anchors, embed_dims). Bit for bit the same on every run.
    ///
    /// # Errors
    ///
    /// [`Error::Dimensions`](crate::Error::Dimensions) if an array does not have the dimensions of the shape,
    /// [`Error::OutOfMemory`](crate::Error::OutOfMemory), and what the backend reports.
    pub fn forward<T: Element>(&self, inputs: Inputs<'_, T>) -> Result<Array3<T>> {
        Ok(self.forward_with_context(inputs)?.0)
    }

    /// The output, and what is needed to compute the gradients later: the pair that an autograd function saves.
    ///
    /// # Errors
    ///
    /// Those of [`forward`](Self::forward).
    pub fn forward_with_context<'a, T: Element>(
        &self,
        inputs: Inputs<'a, T>,
    ) -> Result<(Array3<T>, SavedContext<'a, T>)> {
        T::aggregate(self, inputs)
    }

    /// The gradients of `sum(output * grad_output)` with respect to the three inputs.
    ///
    /// `grad_output` has the dimensions of the output. Nothing has to be kept from [`forward`](Self::forward).
    ///
    /// # Errors
    ///
    /// [`Error::Dimensions`](crate::Error::Dimensions) if an array does not have the dimensions of the shape,
    /// [`Error::OutOfMemory`](crate::Error::OutOfMemory), and what the backend reports.
    pub fn backward<T: Element>(
        &self,
        inputs: Inputs<'_, T>,
        grad_output: ArrayView3<'_, T>,
    ) -> Result<Gradients<T>> {
        self.shape.check_inputs(&inputs)?;
        let inputs = Contiguous::new(inputs)?;
        SavedContext { operator: self.clone(), inputs }.backward(grad_output)
    }

    /// [`Compiled::aggregate`](crate::compiled::Compiled::aggregate).
    pub(crate) fn run_forward<'a, T: Element>(
        &self,
        inputs: Inputs<'a, T>,
    ) -> Result<(Array3<T>, SavedContext<'a, T>)> {
        self.shape.check_inputs(&inputs)?;
        let inputs = Contiguous::new(inputs)?;
        let mut output = zero_array("output", self.shape.output_dim())?;
        let problem = inputs.problem(&self.shape, self.border_rule);
        let values = slice_mut(&mut output);
        match &self.backend {
            Backend::Reference => reference::forward(&problem, values)?,
            Backend::Cpu => cpu::forward(&problem, values)?,
            #[cfg(feature = "emulator")]
            Backend::Emulator => kernels::dispatch!(T, "emulator", G => {
                crate::emulated::forward::<G>(self.algorithm, &problem.cast(), cast_slice_mut(values))
            })?,
            #[cfg(cuda_backend)]
            Backend::Cuda(device) => kernels::dispatch!(T, "cuda", G => {
                let output = cast_slice_mut(values);
                crate::cuda::forward::<G>(device, self.algorithm, &problem.cast(), output)
            })?,
        }
        Ok((output, SavedContext { operator: self.clone(), inputs }))
    }
}

/// What [`DeformableAggregation::forward_with_context`] keeps for the backward pass: the operator and its inputs. See
/// [`DeformableAggregation`] for an example.
///
/// The inputs are borrowed, so the compiler sees to it that they do not change in between.
#[derive(Clone, Debug)]
pub struct SavedContext<'a, T: Element> {
    operator: DeformableAggregation,
    inputs: Contiguous<'a, T>,
}

impl<T: Element> SavedContext<'_, T> {
    /// The gradients of `sum(output * grad_output)` with respect to the three inputs; `grad_output` is
    /// (batch, anchors, embed_dims).
    ///
    /// # Errors
    ///
    /// Those of [`DeformableAggregation::backward`].
    pub fn backward(&self, grad_output: ArrayView3<'_, T>) -> Result<Gradients<T>> {
        T::aggregate_backward(self, grad_output)
    }

    /// [`Compiled::aggregate_backward`](crate::compiled::Compiled::aggregate_backward).
    pub(crate) fn run_backward(&self, grad_output: ArrayView3<'_, T>) -> Result<Gradients<T>> {
        let Self { operator, inputs } = self;
        let shape = &operator.shape;
        shape.check_grad_output(grad_output.shape())?;
        let grad_output = contiguous(grad_output)?;
        let mut gradients = Gradients {
            feature_maps: zero_array("feature map gradient", shape.feature_maps_dim())?,
            sampling_locations: zero_array(
                "sampling location gradient",
                shape.sampling_locations_dim(),
            )?,
            weights: zero_array("weight gradient", shape.weights_dim())?,
        };
        let problem = inputs.problem(shape, operator.border_rule);
        let slices = GradientSlices {
            feature_maps: slice_mut(&mut gradients.feature_maps),
            sampling_locations: slice_mut(&mut gradients.sampling_locations),
            weights: slice_mut(&mut gradients.weights),
        };
        let grad_output = slice(&grad_output);
        match &operator.backend {
            Backend::Reference => reference::backward(&problem, grad_output, slices)?,
            Backend::Cpu => cpu::backward(&problem, grad_output, slices)?,
            #[cfg(feature = "emulator")]
            Backend::Emulator => kernels::dispatch!(T, "emulator", G => {
                let grad_output = cast_slice(grad_output);
                let problem = problem.cast();
                crate::emulated::backward::<G>(operator.algorithm, &problem, grad_output, slices.cast())
            })?,
            #[cfg(cuda_backend)]
            Backend::Cuda(device) => kernels::dispatch!(T, "cuda", G => {
                let (problem, grad_output) = (problem.cast(), cast_slice(grad_output));
                crate::cuda::backward::<G>(device, operator.algorithm, &problem, grad_output, slices.cast())
            })?,
        }
        Ok(gradients)
    }
}

/// One call from the five arrays to the output, (batch, anchors, embed_dims): like `DeformableAggregationFunction.apply` of the
/// PyTorch projects.
///
/// - `feature_maps`: (batch, num_feat, embed_dims)
/// - `spatial_shapes`: (cameras, levels, 2), each (height, width)
/// - `scale_start_index`: (cameras, levels), the first row of each map
/// - `sampling_locations`: (batch, anchors, points, cameras, 2), x before y, in fractions of the image
/// - `weights`: (batch, anchors, points, cameras, levels, groups)
///
/// The other sizes are read off the arrays; it runs on [`Backend::auto`] with [`BorderRule::Operator`]. To choose, or for the
/// gradients, use [`DeformableAggregation`].
///
/// # Errors
///
/// Those of [`FeatureLayout::new`], [`AggregationShape::infer`] and [`DeformableAggregation::forward`].
///
/// ```
/// use deformable_aggregation::deformable_aggregation_function;
/// use ndarray::{Array5, Array6, array};
///
/// let output = deformable_aggregation_function(
///     array![[[1.0_f32], [2.0], [4.0], [8.0]]].view(),
///     array![[[2, 2]]].view(),
///     array![[0]].view(),
///     Array5::from_elem((1, 1, 1, 1, 2), 0.5).view(),
///     Array6::from_elem((1, 1, 1, 1, 1, 1), 1.0).view(),
/// )?;
/// assert_eq!(output, array![[[3.75]]]);
/// # Ok::<(), deformable_aggregation::Error>(())
/// ```
pub fn deformable_aggregation_function<T: Element>(
    feature_maps: ArrayView3<'_, T>,
    spatial_shapes: ArrayView3<'_, i64>,
    scale_start_index: ArrayView2<'_, i64>,
    sampling_locations: ArrayView5<'_, T::Location>,
    weights: ArrayView6<'_, T>,
) -> Result<Array3<T>> {
    let num_feat = feature_maps.shape()[1];
    let layout = FeatureLayout::new(spatial_shapes, scale_start_index, num_feat)?;
    let inputs = Inputs { feature_maps, sampling_locations, weights };
    let shape = AggregationShape::infer(layout, &inputs)?;
    DeformableAggregation::new(shape).forward(inputs)
}

/// The inputs in row-major order, borrowed if they lay so.
#[derive(Clone, Debug)]
pub(crate) struct Contiguous<'a, T: Element> {
    feature_maps: CowArray<'a, T, Ix3>,
    sampling_locations: CowArray<'a, T::Location, Ix5>,
    weights: CowArray<'a, T, Ix6>,
}

impl<'a, T: Element> Contiguous<'a, T> {
    pub(crate) fn new(inputs: Inputs<'a, T>) -> Result<Self> {
        Ok(Self {
            feature_maps: contiguous(inputs.feature_maps)?,
            sampling_locations: contiguous(inputs.sampling_locations)?,
            weights: contiguous(inputs.weights)?,
        })
    }

    pub(crate) fn problem<'s>(
        &'s self,
        shape: &'s AggregationShape,
        rule: BorderRule,
    ) -> Problem<'s, T> {
        Problem {
            shape,
            rule,
            feature_maps: slice(&self.feature_maps),
            sampling_locations: slice(&self.sampling_locations),
            weights: slice(&self.weights),
        }
    }
}

/// `array` itself if it is row-major, else a copy that is.
pub(crate) fn contiguous<A: Pod, D: Dimension>(
    array: ArrayView<'_, A, D>,
) -> Result<CowArray<'_, A, D>> {
    if array.is_standard_layout() {
        return Ok(CowArray::from(array));
    }
    let mut copy = zero_array("row-major copy of an argument", array.raw_dim())?;
    copy.assign(&array);
    Ok(CowArray::from(copy))
}

pub(crate) fn slice<'s, A, D: Dimension>(array: &'s CowArray<'_, A, D>) -> &'s [A] {
    array.as_slice().expect("made row-major on the way in")
}

fn slice_mut<A, D: Dimension>(array: &mut Array<A, D>) -> &mut [A] {
    array.as_slice_mut().expect("made row-major")
}
