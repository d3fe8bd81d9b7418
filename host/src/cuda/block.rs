//! The attention block on the GPU.

use std::cell::RefCell;
use std::ptr;
use std::sync::Arc;
use std::time::Duration;

use kernels_gpu::Entry;
use kernels_gpu::block_args::Dropout;
use ndarray::{Array3, ArrayView3};

use crate::algorithm::Algorithm;
use crate::block::{
    BlockConfig, BlockGradients, BlockInputs, BlockParameters, CheckedInputs, LinearPrecision,
    Mode, gpu,
};
use crate::cuda::array::DeviceArray;
use crate::cuda::device::Device;
use crate::cuda::graph::Graph;
use crate::cuda::operator::{Queue, device_pointer, device_pointer_mut};
use crate::cuda::side::{Forked, Side};
use crate::cuda::stream::Event;
use crate::error::Result;
use crate::kernels::block::{
    self, BlockArrays, BlockDropout, BlockGradientArrays, BlockGradientSlices, BlockPlan,
    BlockSlices,
};
use crate::kernels::{Executor, GpuElement, Launch};
use crate::operator::{contiguous, slice};
use crate::shape::check_dim;

/// What both passes read, in device memory.
struct Resident<T: GpuElement> {
    table: DeviceArray<u32>,
    parameters: DeviceArray<f32>,
    instance_feature: DeviceArray<T>,
    anchor: DeviceArray<f32>,
    anchor_embed: Option<DeviceArray<T>>,
    feature_maps: DeviceArray<T>,
    projection_mat: DeviceArray<f32>,
    image_wh: Option<DeviceArray<f32>>,
    dropouts: [Option<(BlockDropout, DeviceArray<f32>)>; 2],
}

impl<T: GpuElement> Resident<T> {
    fn upload(
        device: &Device,
        plan: &BlockPlan<T::Kernel>,
        slices: &BlockSlices<'_, T>,
    ) -> Result<Self> {
        let dropout = |dropout: Option<&BlockDropout>| -> Result<_> {
            let Some(dropout) = dropout else { return Ok(None) };
            Ok(Some((dropout.clone(), device.upload("dropout mask", dropout.numbers())?)))
        };
        let anchor_embed = slices.anchor_embed;
        let image_wh = slices.image_wh;
        Ok(Self {
            table: device.upload("table of maps", plan.operator.table.as_flattened())?,
            parameters: device.upload("parameters", slices.parameters)?,
            instance_feature: device.upload("instance features", slices.instance_feature)?,
            anchor: device.upload("anchors", slices.anchor)?,
            anchor_embed: anchor_embed
                .map(|embed| device.upload("anchor embedding", embed))
                .transpose()?,
            feature_maps: device.upload("feature maps", slices.feature_maps)?,
            projection_mat: device.upload("projection matrices", slices.projection_mat)?,
            image_wh: image_wh.map(|sizes| device.upload("image sizes", sizes)).transpose()?,
            dropouts: [dropout(slices.dropouts[0])?, dropout(slices.dropouts[1])?],
        })
    }

    /// The arrays as the kernels see them.
    fn arrays(&self, saved: &DeviceArray<u8>) -> BlockArrays<T::Kernel> {
        let dropout = |dropout: &Option<(BlockDropout, DeviceArray<f32>)>| {
            dropout.as_ref().map_or(Dropout::NONE, |(dropout, numbers)| {
                dropout.args(device_pointer(numbers.pointer()))
            })
        };
        let [attention, projection] = &self.dropouts;
        BlockArrays {
            table: device_pointer(self.table.pointer()),
            parameters: device_pointer(self.parameters.pointer()),
            instance_feature: device_pointer(self.instance_feature.pointer()),
            anchor: device_pointer(self.anchor.pointer()),
            anchor_embed: optional(self.anchor_embed.as_ref()),
            feature_maps: device_pointer(self.feature_maps.pointer()),
            projection_mat: device_pointer(self.projection_mat.pointer()),
            image_wh: optional(self.image_wh.as_ref()),
            dropouts: [dropout(attention), dropout(projection)],
            saved: device_pointer_mut(saved.pointer()),
        }
    }
}

/// The address of an array that may be missing.
fn optional<A, K>(array: Option<&DeviceArray<A>>) -> *const K {
    array.map_or(ptr::null(), |array| device_pointer(array.pointer()))
}

/// The gradients, in device memory.
struct Gradients<T: GpuElement> {
    instance_feature: DeviceArray<T>,
    anchor: DeviceArray<f32>,
    anchor_embed: Option<DeviceArray<T>>,
    feature_maps: DeviceArray<T>,
    projection_mat: DeviceArray<f32>,
    parameters: DeviceArray<f32>,
    scratch: DeviceArray<u8>,
}

impl<T: GpuElement> Gradients<T> {
    fn new(device: &Device, plan: &BlockPlan<T::Kernel>, resident: &Resident<T>) -> Result<Self> {
        let anchor_embed = resident.anchor_embed.as_ref();
        let features = resident.instance_feature.len();
        Ok(Self {
            instance_feature: device.poisoned("instance feature gradient", features)?,
            anchor: device.poisoned("anchor gradient", resident.anchor.len())?,
            anchor_embed: anchor_embed
                .map(|_| device.poisoned("anchor embedding gradient", features))
                .transpose()?,
            feature_maps: device.poisoned("feature map gradient", resident.feature_maps.len())?,
            projection_mat: device
                .poisoned("projection matrix gradient", resident.projection_mat.len())?,
            parameters: device.poisoned("parameter gradient", plan.tensors.all_words())?,
            scratch: device.poisoned("workspace", plan.scratch.bytes)?,
        })
    }

    fn arrays(&self, output: &DeviceArray<T>) -> BlockGradientArrays<T::Kernel> {
        BlockGradientArrays {
            output: device_pointer(output.pointer()),
            instance_feature: device_pointer_mut(self.instance_feature.pointer()),
            anchor: device_pointer_mut(self.anchor.pointer()),
            anchor_embed: optional::<T, T::Kernel>(self.anchor_embed.as_ref()).cast_mut(),
            feature_maps: device_pointer_mut(self.feature_maps.pointer()),
            projection_mat: device_pointer_mut(self.projection_mat.pointer()),
            parameters: device_pointer_mut(self.parameters.pointer()),
            scratch: device_pointer_mut(self.scratch.pointer()),
        }
    }

    /// Copies the gradients back once they are there.
    fn download(&self, slices: BlockGradientSlices<'_, T>) -> Result<()> {
        self.instance_feature.download_into(slices.instance_feature)?;
        self.anchor.download_into(slices.anchor)?;
        if let (Some(gradient), Some(slice)) = (&self.anchor_embed, slices.anchor_embed) {
            gradient.download_into(slice)?;
        }
        self.feature_maps.download_into(slices.feature_maps)?;
        self.projection_mat.download_into(slices.projection_mat)?;
        self.parameters.download_into(slices.parameters)
    }

    fn poison(&self) -> Result<()> {
        self.instance_feature.poison()?;
        self.anchor.poison()?;
        self.anchor_embed.as_ref().map_or(Ok(()), DeviceArray::poison)?;
        self.feature_maps.poison()?;
        self.projection_mat.poison()?;
        self.parameters.poison()?;
        self.scratch.poison()
    }
}

/// The block on arrays in host memory: writes the output, returns what the backward pass needs.
pub(crate) fn block_forward<T: GpuElement>(
    device: &Device,
    plan: &BlockPlan<T::Kernel>,
    slices: &BlockSlices<'_, T>,
    output: &mut [T],
) -> Result<Arc<DeviceArray<u8>>> {
    let resident = Resident::upload(device, plan, slices)?;
    let saved = device.poisoned("saved for backward", plan.saved.bytes)?;
    let result = device.poisoned::<T>("output", output.len())?;
    let scratch = device.poisoned::<u8>("workspace", plan.forward_bytes)?;
    let queue = Queue { device, stream: device.stream() };
    // SAFETY: the arrays have the sizes of the plan, and live until the download has waited for the device.
    unsafe {
        let target = device_pointer_mut(result.pointer());
        let scratch = device_pointer_mut(scratch.pointer());
        block::forward(&queue, plan, &resident.arrays(&saved), target, scratch)?;
    }
    result.download_into(output)?;
    Ok(Arc::new(saved))
}

/// The block's gradients on arrays in host memory. `saved` is what [`block_forward`] returned for the same plan and
/// slices.
pub(crate) fn block_backward<T: GpuElement>(
    device: &Device,
    plan: &BlockPlan<T::Kernel>,
    slices: &BlockSlices<'_, T>,
    saved: &DeviceArray<u8>,
    grad_output: &[T],
    gradients: BlockGradientSlices<'_, T>,
) -> Result<()> {
    let resident = Resident::upload(device, plan, slices)?;
    let grad_output = device.upload("output gradient", grad_output)?;
    let results = Gradients::new(device, plan, &resident)?;
    let queue = Queue { device, stream: device.stream() };
    // SAFETY: as in `block_forward`.
    unsafe {
        block::backward(&queue, plan, &resident.arrays(saved), &results.arrays(&grad_output))?;
    }
    results.download(gradients)
}

/// How a [`BlockSession`] computes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BlockOptions {
    /// The operator's kernels.
    pub algorithm: Algorithm,
    /// How the linear layers of `f32` activations are multiplied out.
    pub linear_precision: LinearPrecision,
}

/// A call of the attention block with all its arrays in device memory: inputs and parameters uploaded once, output and
/// gradients kept there, forward and backward as often as wanted. Nothing waits for the host between the stages, and
/// nothing is allocated after construction. Made by [`Device::block_session`].
pub struct BlockSession<T: GpuElement> {
    device: Device,
    /// For what runs beside the rest, and beside that.
    sides: [Side; 2],
    config: BlockConfig,
    plan: BlockPlan<T::Kernel>,
    resident: Resident<T>,
    saved: DeviceArray<u8>,
    workspace: DeviceArray<u8>,
    output: DeviceArray<T>,
    grad_output: DeviceArray<T>,
    gradients: Gradients<T>,
    /// What gradients are copied into: zeros of the right dimensions.
    empty: BlockGradients<T>,
}

impl<T: GpuElement> BlockSession<T> {
    pub(super) fn new(
        device: &Device,
        config: &BlockConfig,
        parameters: &BlockParameters<f32>,
        inputs: BlockInputs<'_, T>,
        mode: Mode<'_>,
        grad_output: ArrayView3<'_, T>,
        options: BlockOptions,
    ) -> Result<Self> {
        parameters.check(config)?;
        let inputs = CheckedInputs::new(config, inputs)?;
        mode.check(&inputs.shape)?;
        let expected = [inputs.shape.batch(), inputs.shape.anchors(), config.output_dims()];
        let axes = "(batch, anchors, output_dims)";
        check_dim("grad_output", axes, &expected, grad_output.shape())?;
        let BlockOptions { algorithm, linear_precision } = options;
        let products = gpu::products::<T>(linear_precision);
        let plan = BlockPlan::new(config, &inputs.shape, inputs.anchor_dims, algorithm, products)?;
        let packed = plan.tensors.pack(parameters)?;
        let dropouts = gpu::dropouts(config, mode);
        let slices = gpu::slices::<T, T>(&inputs, &packed, &dropouts);
        let resident = Resident::upload(device, &plan, &slices)?;
        let gradients = Gradients::new(device, &plan, &resident)?;
        Ok(Self {
            sides: [Side::new()?, Side::new()?],
            saved: device.poisoned("saved for backward", plan.saved.bytes)?,
            workspace: device.poisoned("workspace", plan.forward_bytes)?,
            output: device.poisoned("output", grad_output.len())?,
            grad_output: device.upload("output gradient", slice(&contiguous(grad_output)?))?,
            empty: gpu::zero_gradients(config, parameters, &inputs)?,
            device: device.clone(),
            config: config.clone(),
            plan,
            resident,
            gradients,
        })
    }

    /// The settings.
    #[must_use]
    pub fn config(&self) -> &BlockConfig {
        &self.config
    }

    /// Replaces the parameters, as after a step of training.
    ///
    /// # Errors
    ///
    /// Those of [`BlockParameters::check`], and [`Error::BackendFailed`](crate::Error::BackendFailed) if the driver fails.
    pub fn set_parameters(&mut self, parameters: &BlockParameters<f32>) -> Result<()> {
        parameters.check(&self.config)?;
        let packed = self.plan.tensors.pack(parameters)?;
        self.resident.parameters = self.device.upload("parameters", &packed)?;
        Ok(())
    }

    /// Starts the forward pass; does not wait for it.
    ///
    /// # Errors
    ///
    /// [`Error::BackendFailed`](crate::Error::BackendFailed) if a kernel cannot be loaded or launched.
    pub fn forward(&self) -> Result<()> {
        self.device.make_current()?;
        self.forward_with(&self.forked())
    }

    fn forked(&self) -> Forked<'_> {
        let queue = Queue { device: &self.device, stream: self.device.stream() };
        Forked { queue, sides: &self.sides }
    }

    fn forward_with(&self, executor: &impl Executor) -> Result<()> {
        let arrays = self.resident.arrays(&self.saved);
        let output = device_pointer_mut(self.output.pointer());
        let scratch = device_pointer_mut(self.workspace.pointer());
        // SAFETY: the session's arrays have the plan's sizes and live in the device's context. All its work goes to one
        // stream, or to another that this one waits for, and freeing an array waits for it.
        unsafe { block::forward(executor, &self.plan, &arrays, output, scratch) }
    }

    /// Starts the backward pass, after a forward pass; does not wait for it.
    ///
    /// # Errors
    ///
    /// [`Error::BackendFailed`](crate::Error::BackendFailed) if a kernel cannot be loaded or launched.
    pub fn backward(&self) -> Result<()> {
        self.device.make_current()?;
        self.backward_with(&self.forked())
    }

    fn backward_with(&self, executor: &impl Executor) -> Result<()> {
        let arrays = self.resident.arrays(&self.saved);
        let gradients = self.gradients.arrays(&self.grad_output);
        // SAFETY: as in `forward_with`.
        unsafe { block::backward(executor, &self.plan, &arrays, &gradients) }
    }

    /// Runs forward and backward once, and tells how long each kernel and each clearing of an array took, in their order, with an
    /// event between any two: a little more than without. The kernels are loaded before.
    ///
    /// # Errors
    ///
    /// [`Error::BackendFailed`](crate::Error::BackendFailed) if the driver fails.
    pub fn profile(&self) -> Result<[Vec<(&'static str, Duration)>; 2]> {
        self.forward()?;
        self.backward()?;
        let timed = |run: &dyn Fn(&Stopwatch<'_>) -> Result<()>| -> Result<_> {
            let queue = Queue { device: &self.device, stream: self.device.stream() };
            let watch = Stopwatch { queue, marks: RefCell::new(Vec::new()) };
            watch.mark("start")?;
            run(&watch)?;
            watch.times()
        };
        Ok([timed(&|watch| self.forward_with(watch))?, timed(&|watch| self.backward_with(watch))?])
    }

    /// A forward and a backward pass recorded as one CUDA graph, after one run that loads the kernels. Launches of the graph work on
    /// the session's arrays.
    ///
    /// # Errors
    ///
    /// [`Error::BackendFailed`](crate::Error::BackendFailed) if the driver cannot record the passes.
    pub fn graph(&self) -> Result<BlockGraph<'_, T>> {
        self.forward()?;
        self.backward()?;
        // Streams of its own beside the recorded one: another thread's call may use the session's meanwhile.
        let sides = [Side::new()?, Side::new()?];
        let graph = self.device.capture(|stream| {
            let queue = Queue { device: &self.device, stream };
            let forked = Forked { queue, sides: &sides };
            self.forward_with(&forked)?;
            self.backward_with(&forked)
        })?;
        Ok(BlockGraph { graph, session: self })
    }

    /// The device's time for what `enqueue` starts.
    ///
    /// # Errors
    ///
    /// What `enqueue` returns, or [`Error::BackendFailed`](crate::Error::BackendFailed) if the driver fails.
    pub fn time(&self, enqueue: impl FnOnce(&Self) -> Result<()>) -> Result<Duration> {
        self.device.time(self.device.stream(), || enqueue(self))
    }

    /// Fills output, gradients and workspaces with NaN, so that an element a kernel does not write is seen.
    ///
    /// # Errors
    ///
    /// [`Error::BackendFailed`](crate::Error::BackendFailed) if the driver fails.
    pub fn poison(&self) -> Result<()> {
        self.saved.poison()?;
        self.output.poison()?;
        self.gradients.poison()
    }

    /// The output of the last forward pass, (batch, anchors, output_dims).
    ///
    /// # Errors
    ///
    /// [`Error::BackendFailed`](crate::Error::BackendFailed) with what went wrong on the device.
    pub fn output(&self) -> Result<Array3<T>> {
        let (batch, anchors, _) = self.empty.instance_feature.dim();
        let dimensions = (batch, anchors, self.config.output_dims());
        let values = self.output.download()?;
        Ok(Array3::from_shape_vec(dimensions, values).expect("the array was made for these sizes"))
    }

    /// The gradients of the last backward pass.
    ///
    /// # Errors
    ///
    /// [`Error::BackendFailed`](crate::Error::BackendFailed) with what went wrong on the device.
    pub fn gradients(&self) -> Result<BlockGradients<T>> {
        let mut gradients = self.empty.clone();
        let mut parameters = vec![0.0; self.gradients.parameters.len()];
        self.gradients.download(gpu::gradient_slices(&mut gradients, &mut parameters))?;
        self.plan.tensors.unpack(&parameters, &mut gradients.parameters);
        Ok(gradients)
    }
}

/// A forward and a backward pass of a [`BlockSession`] as one CUDA graph. Made by [`BlockSession::graph`].
pub struct BlockGraph<'s, T: GpuElement> {
    graph: Graph,
    session: &'s BlockSession<T>,
}

impl<T: GpuElement> BlockGraph<'_, T> {
    /// Starts both passes; does not wait for them.
    ///
    /// # Errors
    ///
    /// [`Error::BackendFailed`](crate::Error::BackendFailed) if the driver fails.
    pub fn launch(&self) -> Result<()> {
        // SAFETY: the session, whose arrays the graph works on, is borrowed; all its work goes to one stream.
        unsafe { self.graph.launch(self.session.device.stream()) }
    }
}

/// A stream with an event behind everything that is put on it.
struct Stopwatch<'a> {
    queue: Queue<'a>,
    marks: RefCell<Vec<(&'static str, Event)>>,
}

impl Stopwatch<'_> {
    fn mark(&self, name: &'static str) -> Result<()> {
        let event = Event::new()?;
        event.record(self.queue.stream)?;
        self.marks.borrow_mut().push((name, event));
        Ok(())
    }

    /// The times between the marks, by the name of the later one.
    fn times(&self) -> Result<Vec<(&'static str, Duration)>> {
        let marks = self.marks.borrow();
        marks.windows(2).map(|pair| Ok((pair[1].0, pair[1].1.since(&pair[0].1)?))).collect()
    }
}

impl Executor for Stopwatch<'_> {
    unsafe fn launch<A: Copy + Send + Sync>(
        &self,
        entry: Entry<A>,
        launch: Launch,
        args: A,
    ) -> Result<()> {
        // SAFETY: the caller's promise.
        unsafe { self.queue.launch(entry, launch, args)? };
        self.mark(entry.name)
    }

    unsafe fn zero(&self, name: &'static str, array: *mut u8, bytes: usize) -> Result<()> {
        // SAFETY: the caller's promise.
        unsafe { self.queue.zero(name, array, bytes)? };
        self.mark(name)
    }
}
