//! A problem that lives on the GPU.

use std::time::Duration;

use ndarray::{Array, Array3, ArrayView3, Dimension};

use crate::algorithm::Algorithm;
use crate::cuda::array::DeviceArray;
use crate::cuda::device::Device;
use crate::cuda::operator::{BackwardPointers, ForwardPointers, Operator};
use crate::error::Result;
use crate::kernels::GpuElement;
use crate::operator::{Contiguous, Gradients, Inputs, contiguous, slice};
use crate::rule::BorderRule;
use crate::shape::AggregationShape;

/// A problem with all its arrays in device memory: inputs uploaded once, outputs and gradients kept there, forward and
/// backward as often as wanted. Made by [`Device::session`].
///
/// ```
/// use deformable_aggregation::cuda::Device;
/// use deformable_aggregation::{
///     AggregationShape, Algorithm, BorderRule, FeatureLayout, Inputs, LevelShape,
/// };
/// use ndarray::{Array3, Array5, Array6};
///
/// # fn main() -> Result<(), deformable_aggregation::Error> {
/// let Ok(device) = Device::new(0) else {
///     println!("skipped: no CUDA device");
///     return Ok(());
/// };
/// let layout = FeatureLayout::uniform(1, &[LevelShape { height: 4, width: 4 }])?;
/// let shape = AggregationShape::new(layout, 1, 10, 3, 32, 8)?;
/// let feature_maps = Array3::<f32>::ones(shape.feature_maps_dim());
/// let sampling_locations = Array5::from_elem(shape.sampling_locations_dim(), 0.5);
/// let weights = Array6::<f32>::ones(shape.weights_dim());
/// let inputs = Inputs {
///     feature_maps: feature_maps.view(),
///     sampling_locations: sampling_locations.view(),
///     weights: weights.view(),
/// };
/// let grad_output = Array3::ones(shape.output_dim());
/// let session = device.session(&shape, BorderRule::Operator, inputs, grad_output.view())?;
/// let time = session.time(|session| session.forward(Algorithm::Fast))?;
/// println!("{time:?}");
/// assert!(session.output()?.iter().all(|&value| value == 3.0));
/// # Ok(())
/// # }
/// ```
pub struct Session<T: GpuElement> {
    device: Device,
    shape: AggregationShape,
    rule: BorderRule,
    feature_maps: DeviceArray<T>,
    sampling_locations: DeviceArray<f32>,
    weights: DeviceArray<T>,
    grad_output: DeviceArray<T>,
    output: DeviceArray<T>,
    grad_feature_maps: DeviceArray<T>,
    grad_sampling_locations: DeviceArray<f32>,
    grad_weights: DeviceArray<T>,
    fast: Operator<T>,
    repeatable: Operator<T>,
    naive: Operator<T>,
    /// Large enough for each pass of all.
    workspace: DeviceArray<u8>,
}

impl<T: GpuElement> Session<T> {
    pub(super) fn new(
        device: &Device,
        shape: &AggregationShape,
        rule: BorderRule,
        inputs: Inputs<'_, T>,
        grad_output: ArrayView3<'_, T>,
    ) -> Result<Self> {
        shape.check_inputs(&inputs)?;
        shape.check_grad_output(grad_output.shape())?;
        let inputs = Contiguous::new(inputs)?;
        let problem = inputs.problem(shape, rule);
        let (features, weights) = (problem.feature_maps, problem.weights);
        let locations = problem.sampling_locations;
        let operator =
            |algorithm| Ok(Operator::new(device, shape, rule)?.with_algorithm(algorithm));
        let fast: Operator<T> = operator(Algorithm::Fast)?;
        let repeatable: Operator<T> = operator(Algorithm::Repeatable)?;
        let naive: Operator<T> = operator(Algorithm::Naive)?;
        let workspace_bytes = [&fast, &repeatable, &naive]
            .map(|operator| {
                operator.forward_workspace_bytes().max(operator.backward_workspace_bytes())
            })
            .into_iter()
            .max()
            .unwrap_or(0);
        Ok(Self {
            feature_maps: device.upload("feature maps", features)?,
            sampling_locations: device.upload("sampling locations", locations)?,
            weights: device.upload("weights", weights)?,
            grad_output: device.upload("output gradient", slice(&contiguous(grad_output)?))?,
            output: device.poisoned("output", shape.output_dim().iter().product())?,
            grad_feature_maps: device.poisoned("feature map gradient", features.len())?,
            grad_sampling_locations: device
                .poisoned("sampling location gradient", locations.len())?,
            grad_weights: device.poisoned("weight gradient", weights.len())?,
            workspace: device.poisoned("workspace", workspace_bytes)?,
            fast,
            repeatable,
            naive,
            device: device.clone(),
            shape: shape.clone(),
            rule,
        })
    }

    /// The sizes.
    #[must_use]
    pub fn shape(&self) -> &AggregationShape {
        &self.shape
    }

    /// What counts at the border.
    #[must_use]
    pub fn border_rule(&self) -> BorderRule {
        self.rule
    }

    fn operator(&self, algorithm: Algorithm) -> &Operator<T> {
        match algorithm {
            Algorithm::Fast => &self.fast,
            Algorithm::Repeatable => &self.repeatable,
            Algorithm::Naive => &self.naive,
        }
    }

    /// Starts the forward pass; does not wait for it.
    ///
    /// # Errors
    ///
    /// [`Error::BackendFailed`](crate::Error::BackendFailed) if a kernel cannot be loaded or launched.
    pub fn forward(&self, algorithm: Algorithm) -> Result<()> {
        let pointers = ForwardPointers {
            feature_maps: self.feature_maps.pointer(),
            sampling_locations: self.sampling_locations.pointer(),
            weights: self.weights.pointer(),
            output: self.output.pointer(),
            workspace: self.workspace.pointer(),
        };
        // SAFETY: the session's arrays have the shape's sizes and live in the device's context. All its work goes
        // to one stream, and freeing an array waits for it.
        unsafe { self.operator(algorithm).forward(self.device.stream(), &pointers) }
    }

    /// Starts the backward pass; does not wait for it.
    ///
    /// # Errors
    ///
    /// [`Error::BackendFailed`](crate::Error::BackendFailed) if a kernel cannot be loaded or launched.
    pub fn backward(&self, algorithm: Algorithm) -> Result<()> {
        let pointers = BackwardPointers {
            feature_maps: self.feature_maps.pointer(),
            sampling_locations: self.sampling_locations.pointer(),
            weights: self.weights.pointer(),
            grad_output: self.grad_output.pointer(),
            grad_feature_maps: self.grad_feature_maps.pointer(),
            grad_sampling_locations: self.grad_sampling_locations.pointer(),
            grad_weights: self.grad_weights.pointer(),
            workspace: self.workspace.pointer(),
        };
        // SAFETY: as in `forward`.
        unsafe { self.operator(algorithm).backward(self.device.stream(), &pointers) }
    }

    /// The device's time for what `enqueue` starts.
    ///
    /// # Errors
    ///
    /// What `enqueue` returns, or [`Error::BackendFailed`](crate::Error::BackendFailed) if the driver fails.
    pub fn time(&self, enqueue: impl FnOnce(&Self) -> Result<()>) -> Result<Duration> {
        self.device.time(self.device.stream(), || enqueue(self))
    }

    /// Fills output and gradients with NaN, so that an element a kernel does not write is seen.
    ///
    /// # Errors
    ///
    /// [`Error::BackendFailed`](crate::Error::BackendFailed) if the driver fails.
    pub fn poison(&self) -> Result<()> {
        self.output.poison()?;
        self.grad_feature_maps.poison()?;
        self.grad_sampling_locations.poison()?;
        self.grad_weights.poison()
    }

    /// The output of the last forward pass, (batch, anchors, embed_dims).
    ///
    /// # Errors
    ///
    /// [`Error::BackendFailed`](crate::Error::BackendFailed) with what went wrong on the device.
    pub fn output(&self) -> Result<Array3<T>> {
        download(&self.output, self.shape.output_dim())
    }

    /// The gradients of the last backward pass.
    ///
    /// # Errors
    ///
    /// [`Error::BackendFailed`](crate::Error::BackendFailed) with what went wrong on the device.
    pub fn gradients(&self) -> Result<Gradients<T>> {
        Ok(Gradients {
            feature_maps: download(&self.grad_feature_maps, self.shape.feature_maps_dim())?,
            sampling_locations: download(
                &self.grad_sampling_locations,
                self.shape.sampling_locations_dim(),
            )?,
            weights: download(&self.grad_weights, self.shape.weights_dim())?,
        })
    }
}

fn download<A: bytemuck::Pod, D: Dimension>(
    array: &DeviceArray<A>,
    dimensions: impl ndarray::ShapeBuilder<Dim = D>,
) -> Result<Array<A, D>> {
    let values = array.download()?;
    Ok(Array::from_shape_vec(dimensions, values).expect("the array was made for this shape"))
}
