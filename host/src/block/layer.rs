//! The block: checks a call once and hands it to a backend.

use ndarray::{Array3, ArrayView3};

use super::config::BlockConfig;
use super::dropout::{Dropouts, Mode};
#[cfg(any(cuda_backend, feature = "emulator"))]
use super::gpu;
use super::gradients::BlockGradients;
use super::host::{self, Pass};
use super::inputs::{BlockInputs, CheckedInputs};
use super::key_points::KeyPointsGenerator;
use super::parameters::BlockParameters;
use super::precision::LinearPrecision;
use crate::algorithm::Algorithm;
use crate::backend::Backend;
use crate::element::{Element, Scalar};
use crate::error::Result;
use crate::operator::{DeformableAggregation, contiguous, slice};
use crate::shape::{AggregationShape, check_dim};

/// The attention block of Sparse4D and SparseDrive, `DeformableFeatureAggregation`: where anchors are seen, what attention is paid to
/// what is seen there, and what comes out.
///
/// 1. Every anchor gets key points in 3D ([`KeyPointsGenerator`]).
/// 2. They are projected into every camera.
/// 3. A linear layer predicts an attention weight for every camera, level, point and group from the instance feature, the
///    anchor embedding and, if configured, the camera; a softmax makes the weights of a group sum to 1.
/// 4. The [operator](DeformableAggregation) samples the feature maps and adds up.
/// 5. A linear layer projects the result, and the instance feature is added or put beside it.
///
/// `R` is the type of parameters and geometry: `f32` for activations of `f32`, `f16` and `bf16`, chosen per call, `f64` for `f64`.
///
/// ```
/// use deformable_aggregation::block::{
///     BlockConfig, BlockInputs, DeformableFeatureAggregation, FeatureMaps, Mode,
/// };
/// use deformable_aggregation::ndarray::{Array3, Array4, Array5, s};
///
/// // Two cameras, one level of 4 × 8 pixels, 16 channels in 2 groups, the key point in the middle of the box.
/// let config = BlockConfig {
///     embed_dims: 16,
///     num_groups: 2,
///     num_levels: 1,
///     num_cams: 2,
///     use_deformable_func: true,
///     ..BlockConfig::default()
/// };
/// let mut block = DeformableFeatureAggregation::<f32>::new(config, 7)?;
///
/// // Five boxes around (0, 0, 10); both cameras look along z.
/// let instance_feature = Array3::<f32>::ones((1, 5, 16));
/// let mut anchor = Array3::<f32>::zeros((1, 5, 11));
/// anchor.slice_mut(s![.., .., 2]).fill(10.0);
/// let mut projection_mat = Array4::<f32>::zeros((1, 2, 4, 4));
/// for axis in 0..4 {
///     projection_mat.slice_mut(s![.., .., axis, axis]).fill(1.0);
/// }
/// // The principal point is the middle of the image.
/// projection_mat.slice_mut(s![.., .., ..2, 2]).fill(0.5);
/// let maps = Array5::<f32>::ones((1, 2, 16, 4, 8));
/// let levels = [maps.view()];
/// let inputs = BlockInputs {
///     instance_feature: instance_feature.view(),
///     anchor: anchor.view(),
///     anchor_embed: None,
///     feature_maps: FeatureMaps::Levels(&levels),
///     projection_mat: projection_mat.view(),
///     image_wh: None,
/// };
///
/// let (output, context) = block.forward_with_context(inputs, Mode::Training { seed: 1 })?;
/// assert_eq!(output.dim(), (1, 5, 16));
/// let gradients = context.backward(Array3::ones(output.dim()).view())?;
///
/// // One step of gradient descent.
/// let step = gradients.parameters.named();
/// for ((_, mut tensor), (_, gradient)) in block.parameters_mut().named_mut().into_iter().zip(step) {
///     tensor.scaled_add(-0.01, &gradient);
/// }
/// # Ok::<(), deformable_aggregation::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct DeformableFeatureAggregation<R> {
    config: BlockConfig,
    parameters: BlockParameters<R>,
    backend: Backend,
    algorithm: Algorithm,
    linear_precision: LinearPrecision,
}

impl<R: Scalar> DeformableFeatureAggregation<R> {
    /// A block with [initial](BlockParameters::init) parameters; otherwise as [`with_parameters`](Self::with_parameters).
    ///
    /// # Errors
    ///
    /// Those of [`BlockConfig::check`], and [`Error::OutOfMemory`](crate::Error::OutOfMemory).
    pub fn new(config: BlockConfig, seed: u64) -> Result<Self> {
        let parameters = BlockParameters::init(&config, seed)?;
        Self::with_parameters(config, parameters)
    }

    /// A block with these parameters, such as [loaded](BlockParameters::load) ones, on [`Backend::auto`]; with `f64`, which GPUs do
    /// not take, on the CPU.
    ///
    /// # Errors
    ///
    /// Those of [`BlockParameters::check`].
    pub fn with_parameters(config: BlockConfig, parameters: BlockParameters<R>) -> Result<Self> {
        parameters.check(&config)?;
        let double = size_of::<R>() == size_of::<f64>();
        let backend = if double { Backend::Cpu } else { Backend::auto() };
        Ok(Self {
            config,
            parameters,
            backend,
            algorithm: Algorithm::default(),
            linear_precision: LinearPrecision::default(),
        })
    }

    /// The same, computed by `backend`.
    #[must_use]
    pub fn with_backend(self, backend: Backend) -> Self {
        Self { backend, ..self }
    }

    /// The same, with other GPU kernels. The CPU backends have one algorithm and ignore this.
    #[must_use]
    pub fn with_algorithm(self, algorithm: Algorithm) -> Self {
        Self { algorithm, ..self }
    }

    /// The same, with linear layers of fp32 activations multiplied out in another way. The CPU backends ignore this.
    ///
    /// ```
    /// use deformable_aggregation::block::{
    ///     BlockConfig, DeformableFeatureAggregation, LinearPrecision,
    /// };
    ///
    /// let block = DeformableFeatureAggregation::<f32>::new(BlockConfig::default(), 0)?
    ///     .with_linear_precision(LinearPrecision::Tf32);
    /// assert_eq!(block.linear_precision(), LinearPrecision::Tf32);
    /// # Ok::<(), deformable_aggregation::Error>(())
    /// ```
    #[must_use]
    pub fn with_linear_precision(self, linear_precision: LinearPrecision) -> Self {
        Self { linear_precision, ..self }
    }

    /// The settings.
    #[must_use]
    pub fn config(&self) -> &BlockConfig {
        &self.config
    }

    /// What computes.
    #[must_use]
    pub fn backend(&self) -> &Backend {
        &self.backend
    }

    /// How linear layers of fp32 activations are multiplied out on a GPU.
    #[must_use]
    pub fn linear_precision(&self) -> LinearPrecision {
        self.linear_precision
    }

    /// The parameters.
    #[must_use]
    pub fn parameters(&self) -> &BlockParameters<R> {
        &self.parameters
    }

    /// The parameters, to train them. Every call checks that they still have their sizes.
    pub fn parameters_mut(&mut self) -> &mut BlockParameters<R> {
        &mut self.parameters
    }

    /// What makes the key points.
    #[must_use]
    pub fn key_points_generator(&self) -> KeyPointsGenerator<'_, R> {
        KeyPointsGenerator::new(&self.config.kps_generator, &self.parameters)
    }

    /// The output: (batch, anchors, embed_dims), or twice the channels with [`ResidualMode::Cat`](super::ResidualMode::Cat).
    ///
    /// # Errors
    ///
    /// [`Error::Dimensions`](crate::Error::Dimensions) if an array does not fit the configuration or the others, the errors of
    /// [`feature_maps_format`](crate::feature_maps_format) for maps that are not packed, those of [`BlockParameters::check`] if
    /// parameters were given other sizes, [`Error::OutOfMemory`](crate::Error::OutOfMemory), and what the backend reports.
    pub fn forward<T: Element<Location = R>>(
        &self,
        inputs: BlockInputs<'_, T>,
        mode: Mode<'_>,
    ) -> Result<Array3<T>> {
        Ok(self.forward_with_context(inputs, mode)?.0)
    }

    /// The output, and what is needed to compute the gradients later.
    ///
    /// # Errors
    ///
    /// Those of [`forward`](Self::forward).
    pub fn forward_with_context<'b, 'a, T: Element<Location = R>>(
        &'b self,
        inputs: BlockInputs<'a, T>,
        mode: Mode<'_>,
    ) -> Result<(Array3<T>, BlockContext<'b, 'a, T>)> {
        T::block_forward(self, inputs, mode)
    }

    /// [`Compiled::block_forward`](crate::compiled::Compiled::block_forward).
    pub(crate) fn run_forward<'b, 'a, T: Element<Location = R>>(
        &'b self,
        inputs: BlockInputs<'a, T>,
        mode: Mode<'_>,
    ) -> Result<(Array3<T>, BlockContext<'b, 'a, T>)> {
        self.parameters.check(&self.config)?;
        let inputs = CheckedInputs::new(&self.config, inputs)?;
        mode.check(&inputs.shape)?;
        let (output, saved) = match &self.backend {
            Backend::Reference | Backend::Cpu => {
                let operator = self.operator(&inputs.shape);
                let dropouts = Dropouts::new(mode, &self.config, &inputs.shape)?;
                let (output, saved) = host::forward(&self.pass(&operator, &inputs), dropouts)?;
                (output, Saved::Host(Box::new(saved)))
            }
            #[cfg(any(cuda_backend, feature = "emulator"))]
            _ => {
                let (output, saved) = gpu::forward(&self.gpu_pass(&inputs), mode)?;
                (output, Saved::Gpu(saved))
            }
        };
        Ok((output, BlockContext { block: self, inputs, saved }))
    }

    fn operator(&self, shape: &AggregationShape) -> DeformableAggregation {
        DeformableAggregation::new(shape.clone())
            .with_backend(self.backend.clone())
            .with_border_rule(self.config.border_rule())
            .with_algorithm(self.algorithm)
    }

    fn pass<'p, 'a, T: Element<Location = R>>(
        &'p self,
        operator: &'p DeformableAggregation,
        inputs: &'p CheckedInputs<'a, T>,
    ) -> Pass<'p, 'a, T> {
        Pass { config: &self.config, parameters: &self.parameters, operator, inputs }
    }

    #[cfg(any(cuda_backend, feature = "emulator"))]
    fn gpu_pass<'p, 'a, T: Element<Location = R>>(
        &'p self,
        inputs: &'p CheckedInputs<'a, T>,
    ) -> gpu::Pass<'p, 'a, T> {
        gpu::Pass {
            backend: &self.backend,
            algorithm: self.algorithm,
            linear_precision: self.linear_precision,
            config: &self.config,
            parameters: &self.parameters,
            inputs,
        }
    }
}

/// What [`DeformableFeatureAggregation::forward_with_context`] keeps for the backward pass. See
/// [`DeformableFeatureAggregation`] for an example.
///
/// Block and inputs are borrowed, so the compiler sees to it that they do not change in between.
#[derive(Clone, Debug)]
pub struct BlockContext<'b, 'a, T: Element> {
    block: &'b DeformableFeatureAggregation<T::Location>,
    inputs: CheckedInputs<'a, T>,
    saved: Saved<T>,
}

/// What a backend keeps.
#[derive(Clone, Debug)]
enum Saved<T: Element> {
    Host(Box<host::Saved<T>>),
    #[cfg(any(cuda_backend, feature = "emulator"))]
    Gpu(gpu::Saved),
}

impl<T: Element> BlockContext<'_, '_, T> {
    /// The gradients of `sum(output * grad_output)` with respect to all inputs and parameters; `grad_output` has the dimensions of
    /// the output.
    ///
    /// # Errors
    ///
    /// [`Error::Dimensions`](crate::Error::Dimensions), [`Error::OutOfMemory`](crate::Error::OutOfMemory), and what the backend
    /// reports.
    pub fn backward(&self, grad_output: ArrayView3<'_, T>) -> Result<BlockGradients<T>> {
        T::block_backward(self, grad_output)
    }

    /// [`Compiled::block_backward`](crate::compiled::Compiled::block_backward).
    pub(crate) fn run_backward(&self, grad_output: ArrayView3<'_, T>) -> Result<BlockGradients<T>> {
        let Self { block, inputs, saved } = self;
        let shape = &inputs.shape;
        let expected = [shape.batch(), shape.anchors(), block.config.output_dims()];
        let axes = "(batch, anchors, output_dims)";
        check_dim("grad_output", axes, &expected, grad_output.shape())?;
        let grad_output = contiguous(grad_output)?;
        let grad_output = slice(&grad_output);
        match saved {
            Saved::Host(saved) => {
                let operator = block.operator(shape);
                host::backward(&block.pass(&operator, inputs), saved, grad_output)
            }
            #[cfg(any(cuda_backend, feature = "emulator"))]
            Saved::Gpu(saved) => gpu::backward(&block.gpu_pass(inputs), saved, grad_output),
        }
    }
}
