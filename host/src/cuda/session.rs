//! A problem that lives on the GPU.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use ndarray::{Array, Array3, ArrayView3, Dimension};

use crate::algorithm::Algorithm;
use crate::cuda::array::DeviceArray;
use crate::cuda::device::Device;
use crate::cuda::graph::Graph;
use crate::cuda::operator::{BackwardPointers, ForwardPointers, Operator};
use crate::cuda::stream::Stream;
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
    /// Shared with the graphs recorded from it.
    parts: Arc<Parts<T>>,
}

/// Everything a session's calls use.
struct Parts<T: GpuElement> {
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

impl<T: GpuElement> fmt::Debug for Session<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session")
            .field("device", &self.parts.device)
            .field("shape", &self.parts.shape)
            .finish_non_exhaustive()
    }
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
        let parts = Parts {
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
        };
        Ok(Self { parts: Arc::new(parts) })
    }

    /// The sizes.
    #[must_use]
    pub fn shape(&self) -> &AggregationShape {
        &self.parts.shape
    }

    /// What counts at the border.
    #[must_use]
    pub fn border_rule(&self) -> BorderRule {
        self.parts.rule
    }

    /// The operator that a pass with this algorithm calls: its workspace and its launches.
    #[must_use]
    pub fn operator(&self, algorithm: Algorithm) -> &Operator<T> {
        match algorithm {
            Algorithm::Fast => &self.parts.fast,
            Algorithm::Repeatable => &self.parts.repeatable,
            Algorithm::Naive => &self.parts.naive,
        }
    }

    /// Replaces the inputs and the output gradient where they lie. What is recorded in a [`SessionGraph`] reads the new ones.
    ///
    /// # Errors
    ///
    /// [`Error::Dimensions`](crate::Error::Dimensions) if an array does not fit the shape, and then nothing is replaced;
    /// [`Error::BackendFailed`](crate::Error::BackendFailed) if the driver fails.
    pub fn update(&self, inputs: Inputs<'_, T>, grad_output: ArrayView3<'_, T>) -> Result<()> {
        let Parts { shape, rule, .. } = &*self.parts;
        shape.check_inputs(&inputs)?;
        shape.check_grad_output(grad_output.shape())?;
        let inputs = Contiguous::new(inputs)?;
        let problem = inputs.problem(shape, *rule);
        self.parts.feature_maps.write(problem.feature_maps)?;
        self.parts.sampling_locations.write(problem.sampling_locations)?;
        self.parts.weights.write(problem.weights)?;
        self.parts.grad_output.write(slice(&contiguous(grad_output)?))
    }

    /// Starts the forward pass; does not wait for it.
    ///
    /// # Errors
    ///
    /// [`Error::BackendFailed`](crate::Error::BackendFailed) if a kernel cannot be loaded or launched.
    pub fn forward(&self, algorithm: Algorithm) -> Result<()> {
        self.forward_on(self.parts.device.stream(), algorithm)
    }

    fn forward_on(&self, stream: &Stream, algorithm: Algorithm) -> Result<()> {
        let parts = &*self.parts;
        let pointers = ForwardPointers {
            feature_maps: parts.feature_maps.pointer(),
            sampling_locations: parts.sampling_locations.pointer(),
            weights: parts.weights.pointer(),
            output: parts.output.pointer(),
            workspace: parts.workspace.pointer(),
        };
        // SAFETY: the session's arrays have the shape's sizes and live in the device's context. All its work goes
        // to one stream, that of the device, at once or recorded in a graph that keeps the arrays; and freeing an
        // array waits for it.
        unsafe { self.operator(algorithm).forward(stream, &pointers) }
    }

    /// Starts the backward pass; does not wait for it.
    ///
    /// # Errors
    ///
    /// [`Error::BackendFailed`](crate::Error::BackendFailed) if a kernel cannot be loaded or launched.
    pub fn backward(&self, algorithm: Algorithm) -> Result<()> {
        self.backward_on(self.parts.device.stream(), algorithm)
    }

    fn backward_on(&self, stream: &Stream, algorithm: Algorithm) -> Result<()> {
        let parts = &*self.parts;
        let pointers = BackwardPointers {
            feature_maps: parts.feature_maps.pointer(),
            sampling_locations: parts.sampling_locations.pointer(),
            weights: parts.weights.pointer(),
            grad_output: parts.grad_output.pointer(),
            grad_feature_maps: parts.grad_feature_maps.pointer(),
            grad_sampling_locations: parts.grad_sampling_locations.pointer(),
            grad_weights: parts.grad_weights.pointer(),
            workspace: parts.workspace.pointer(),
        };
        // SAFETY: as in `forward_on`.
        unsafe { self.operator(algorithm).backward(stream, &pointers) }
    }

    /// The forward pass as a CUDA graph, after one run that loads the kernels.
    ///
    /// # Errors
    ///
    /// Those of [`forward`](Self::forward), and [`Error::BackendFailed`](crate::Error::BackendFailed) if the driver cannot
    /// record the pass.
    pub fn forward_graph(&self, algorithm: Algorithm) -> Result<SessionGraph<T>> {
        self.forward(algorithm)?;
        self.recorded(|stream| self.forward_on(stream, algorithm))
    }

    /// The backward pass as a CUDA graph, after one run that loads the kernels.
    ///
    /// # Errors
    ///
    /// As for [`forward_graph`](Self::forward_graph).
    pub fn backward_graph(&self, algorithm: Algorithm) -> Result<SessionGraph<T>> {
        self.backward(algorithm)?;
        self.recorded(|stream| self.backward_on(stream, algorithm))
    }

    fn recorded(&self, enqueue: impl FnOnce(&Stream) -> Result<()>) -> Result<SessionGraph<T>> {
        let graph = self.parts.device.capture(enqueue)?;
        Ok(SessionGraph { graph, parts: Arc::clone(&self.parts) })
    }

    /// The device's time for what `enqueue` starts.
    ///
    /// # Errors
    ///
    /// What `enqueue` returns, or [`Error::BackendFailed`](crate::Error::BackendFailed) if the driver fails.
    pub fn time(&self, enqueue: impl FnOnce(&Self) -> Result<()>) -> Result<Duration> {
        self.parts.device.time(self.parts.device.stream(), || enqueue(self))
    }

    /// Fills output and gradients with NaN, so that an element a kernel does not write is seen.
    ///
    /// # Errors
    ///
    /// [`Error::BackendFailed`](crate::Error::BackendFailed) if the driver fails.
    pub fn poison(&self) -> Result<()> {
        self.parts.output.poison()?;
        self.parts.grad_feature_maps.poison()?;
        self.parts.grad_sampling_locations.poison()?;
        self.parts.grad_weights.poison()
    }

    /// The output of the last forward pass, (batch, anchors, embed_dims).
    ///
    /// # Errors
    ///
    /// [`Error::BackendFailed`](crate::Error::BackendFailed) with what went wrong on the device.
    pub fn output(&self) -> Result<Array3<T>> {
        download(&self.parts.output, self.parts.shape.output_dim())
    }

    /// The gradients of the last backward pass.
    ///
    /// # Errors
    ///
    /// [`Error::BackendFailed`](crate::Error::BackendFailed) with what went wrong on the device.
    pub fn gradients(&self) -> Result<Gradients<T>> {
        Ok(Gradients {
            feature_maps: download(
                &self.parts.grad_feature_maps,
                self.parts.shape.feature_maps_dim(),
            )?,
            sampling_locations: download(
                &self.parts.grad_sampling_locations,
                self.parts.shape.sampling_locations_dim(),
            )?,
            weights: download(&self.parts.grad_weights, self.parts.shape.weights_dim())?,
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

/// A pass of a [`Session`], recorded by [`Session::forward_graph`] or [`Session::backward_graph`] and launched again as one. It
/// keeps the session's arrays, so it may outlive the session.
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
/// let ones = Array3::<f32>::ones(shape.feature_maps_dim());
/// let sampling_locations = Array5::from_elem(shape.sampling_locations_dim(), 0.5);
/// let weights = Array6::<f32>::ones(shape.weights_dim());
/// let grad_output = Array3::ones(shape.output_dim());
/// let inputs = |feature_maps| Inputs {
///     feature_maps,
///     sampling_locations: sampling_locations.view(),
///     weights: weights.view(),
/// };
/// let first = inputs(ones.view());
/// let session = device.session(&shape, BorderRule::Operator, first, grad_output.view())?;
/// let graph = session.forward_graph(Algorithm::Fast)?;
///
/// let twos = &ones + 1.0;
/// session.update(inputs(twos.view()), grad_output.view())?;
/// graph.launch()?;
/// assert!(session.output()?.iter().all(|&value| value == 6.0));
/// # Ok(())
/// # }
/// ```
pub struct SessionGraph<T: GpuElement> {
    graph: Graph,
    parts: Arc<Parts<T>>,
}

impl<T: GpuElement> fmt::Debug for SessionGraph<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SessionGraph").field("graph", &self.graph).finish_non_exhaustive()
    }
}

impl<T: GpuElement> SessionGraph<T> {
    /// How many kernel launches and clearings of arrays the pass consists of.
    #[must_use]
    pub fn nodes(&self) -> usize {
        self.graph.nodes()
    }

    /// Starts the pass again; does not wait for it.
    ///
    /// # Errors
    ///
    /// [`Error::BackendFailed`](crate::Error::BackendFailed) if the driver fails.
    pub fn launch(&self) -> Result<()> {
        // SAFETY: the arrays and operators are in `parts`; everything that uses them goes to the device's stream.
        unsafe { self.graph.launch(self.parts.device.stream()) }
    }
}
