//! The block on the GPU kernels, in the emulator or on a device: arrays in host memory over, run, back.

use bytemuck::{cast_slice, cast_slice_mut};
use ndarray::Array3;

use super::config::BlockConfig;
use super::dropout::Mode;
use super::gradients::BlockGradients;
use super::inputs::CheckedInputs;
use super::parameters::BlockParameters;
use super::precision::LinearPrecision;
use super::random::stream;
use crate::algorithm::Algorithm;
use crate::backend::Backend;
use crate::element::{DType, Element};
use crate::error::Result;
use crate::kernels::block::{BlockDropout, BlockGradientSlices, BlockPlan, BlockSlices, Products};
use crate::kernels::{GpuElement, dispatch};
use crate::memory::{zero_array, zeros};

/// What both directions work on.
pub(super) struct Pass<'p, 'a, T: Element> {
    pub(super) backend: &'p Backend,
    pub(super) algorithm: Algorithm,
    pub(super) linear_precision: LinearPrecision,
    pub(super) config: &'p BlockConfig,
    pub(super) parameters: &'p BlockParameters<T::Location>,
    pub(super) inputs: &'p CheckedInputs<'a, T>,
}

/// What the backward pass needs of the forward pass.
#[derive(Clone, Debug)]
pub(super) struct Saved {
    /// The parameters as the kernels have them.
    parameters: Vec<f32>,
    dropouts: [Option<BlockDropout>; 2],
    memory: Memory,
}

/// What the kernels left.
#[derive(Clone, Debug)]
enum Memory {
    /// In words of 16 bytes.
    #[cfg(feature = "emulator")]
    Emulator(Vec<u128>),
    #[cfg(cuda_backend)]
    Device(std::sync::Arc<crate::cuda::DeviceArray<u8>>),
}

/// The output, (batch, anchors, output_dims), and what the backward pass needs.
pub(super) fn forward<T: Element>(
    pass: &Pass<'_, '_, T>,
    mode: Mode<'_>,
) -> Result<(Array3<T>, Saved)> {
    let shape = &pass.inputs.shape;
    let dimensions = (shape.batch(), shape.anchors(), pass.config.output_dims());
    let mut output = zero_array("output", dimensions)?;
    let values = output.as_slice_mut().expect("made row-major");
    let saved = dispatch!(T, pass.backend.name(), G => {
        let plan = pass.plan::<G>()?;
        let parameters = plan.tensors.pack(pass.parameters)?;
        let dropouts = dropouts(pass.config, mode);
        let slices = slices::<T, G>(pass.inputs, &parameters, &dropouts);
        let memory = run_forward::<G>(pass.backend, &plan, &slices, cast_slice_mut(values))?;
        Ok(Saved { parameters, dropouts, memory })
    })?;
    Ok((output, saved))
}

/// The gradients of `sum(output * grad_output)`; `grad_output` is row-major.
pub(super) fn backward<T: Element>(
    pass: &Pass<'_, '_, T>,
    saved: &Saved,
    grad_output: &[T],
) -> Result<BlockGradients<T>> {
    let mut gradients = zero_gradients(pass.config, pass.parameters, pass.inputs)?;
    dispatch!(T, pass.backend.name(), G => {
        let plan = pass.plan::<G>()?;
        let mut parameters = zeros("parameter gradient", plan.tensors.all_words())?;
        let targets = gradient_slices::<T, G>(&mut gradients, &mut parameters);
        let slices = slices::<T, G>(pass.inputs, &saved.parameters, &saved.dropouts);
        let grad_output = cast_slice(grad_output);
        run_backward::<G>(pass.backend, &plan, &slices, &saved.memory, grad_output, targets)?;
        plan.tensors.unpack(&parameters, &mut gradients.parameters);
        Ok(())
    })?;
    Ok(gradients)
}

/// Zeros of the dimensions of the gradients.
pub(crate) fn zero_gradients<T: Element>(
    config: &BlockConfig,
    parameters: &BlockParameters<T::Location>,
    inputs: &CheckedInputs<'_, T>,
) -> Result<BlockGradients<T>> {
    let shape = &inputs.shape;
    let features = (shape.batch(), shape.anchors(), config.embed_dims);
    let anchors = (shape.batch(), shape.anchors(), inputs.anchor_dims);
    let matrices = (shape.batch(), shape.layout().cameras(), 4, 4);
    Ok(BlockGradients {
        instance_feature: zero_array("instance feature gradient", features)?,
        anchor: zero_array("anchor gradient", anchors)?,
        anchor_embed: inputs
            .anchor_embed()
            .map(|_| zero_array("anchor embedding gradient", features))
            .transpose()?,
        feature_maps: zero_array("feature map gradient", shape.feature_maps_dim())?,
        layout: shape.layout().clone(),
        projection_mat: zero_array("projection matrix gradient", matrices)?,
        parameters: parameters.zeros_like(),
    })
}

/// Where gradients go, with their element type under another name: `G` is `T` where this is called.
pub(crate) fn gradient_slices<'g, T: Element, G: GpuElement>(
    gradients: &'g mut BlockGradients<T>,
    parameters: &'g mut [f32],
) -> BlockGradientSlices<'g, G> {
    BlockGradientSlices {
        instance_feature: cast_slice_mut(row_major(&mut gradients.instance_feature)),
        anchor: cast_slice_mut(row_major(&mut gradients.anchor)),
        anchor_embed: gradients
            .anchor_embed
            .as_mut()
            .map(|gradient| cast_slice_mut(row_major(gradient))),
        feature_maps: cast_slice_mut(row_major(&mut gradients.feature_maps)),
        projection_mat: cast_slice_mut(row_major(&mut gradients.projection_mat)),
        parameters,
    }
}

/// The arrays of a call, with their element type under another name: `G` is `T` where this is called.
pub(crate) fn slices<'s, T: Element, G: GpuElement>(
    inputs: &'s CheckedInputs<'_, T>,
    parameters: &'s [f32],
    dropouts: &'s [Option<BlockDropout>; 2],
) -> BlockSlices<'s, G> {
    BlockSlices {
        parameters,
        instance_feature: cast_slice(inputs.instance_feature()),
        anchor: cast_slice(inputs.anchor()),
        anchor_embed: inputs.anchor_embed().map(cast_slice),
        feature_maps: cast_slice(
            inputs.feature_maps().to_slice().expect("made row-major on the way in"),
        ),
        projection_mat: cast_slice(inputs.projection_mat()),
        image_wh: inputs.image_wh().map(cast_slice),
        dropouts: dropouts.each_ref().map(Option::as_ref),
    }
}

/// How linear layers of this element type are multiplied out: exactly where that means something and is chosen.
pub(crate) fn products<T: Element>(precision: LinearPrecision) -> Products {
    match precision {
        LinearPrecision::Full if T::DTYPE == DType::F32 => Products::Exact,
        _ => Products::Tensor,
    }
}

fn run_forward<T: GpuElement>(
    backend: &Backend,
    plan: &BlockPlan<T::Kernel>,
    slices: &BlockSlices<'_, T>,
    output: &mut [T],
) -> Result<Memory> {
    match backend {
        Backend::Reference | Backend::Cpu => unreachable!("they have no kernels"),
        #[cfg(feature = "emulator")]
        Backend::Emulator => {
            crate::emulated::block::forward(plan, slices, output).map(Memory::Emulator)
        }
        #[cfg(cuda_backend)]
        Backend::Cuda(device) => {
            crate::cuda::block_forward(device, plan, slices, output).map(Memory::Device)
        }
    }
}

fn run_backward<T: GpuElement>(
    backend: &Backend,
    plan: &BlockPlan<T::Kernel>,
    slices: &BlockSlices<'_, T>,
    saved: &Memory,
    grad_output: &[T],
    gradients: BlockGradientSlices<'_, T>,
) -> Result<()> {
    match (backend, saved) {
        #[cfg(feature = "emulator")]
        (Backend::Emulator, Memory::Emulator(saved)) => {
            crate::emulated::block::backward(plan, slices, saved, grad_output, gradients)
        }
        #[cfg(cuda_backend)]
        (Backend::Cuda(device), Memory::Device(saved)) => {
            crate::cuda::block_backward(device, plan, slices, saved, grad_output, gradients)
        }
        _ => unreachable!("the backend of the forward pass"),
    }
}

impl<T: Element> Pass<'_, '_, T> {
    fn plan<G: GpuElement>(&self) -> Result<BlockPlan<G::Kernel>> {
        let Self { config, inputs, algorithm, .. } = self;
        let products = products::<G>(self.linear_precision);
        BlockPlan::new(config, &inputs.shape, inputs.anchor_dims, *algorithm, products)
    }
}

/// The dropouts of weights and projected output of a checked mode.
pub(crate) fn dropouts(config: &BlockConfig, mode: Mode<'_>) -> [Option<BlockDropout>; 2] {
    let probabilities = [config.attn_drop, config.proj_drop];
    match mode {
        Mode::Evaluation => [None, None],
        Mode::Training { seed } => {
            let seeded = |index: usize, stream, zero_equal| {
                (probabilities[index] > 0.0)
                    .then(|| BlockDropout::seeded(seed, stream, probabilities[index], zero_equal))
            };
            [seeded(0, stream::ATTENTION, true), seeded(1, stream::PROJECTION, false)]
        }
        Mode::Masks(masks) => [
            BlockDropout::given(masks.attention.iter().copied(), probabilities[0]),
            BlockDropout::given(masks.projection.iter().copied(), probabilities[1]),
        ]
        .map(Some),
    }
}

fn row_major<A, D: ndarray::Dimension>(array: &mut ndarray::Array<A, D>) -> &mut [A] {
    array.as_slice_mut().expect("made row-major")
}
