//! The parameters of the block: names, sizes and initial values.

use ndarray::{Array1, Array2, ArrayViewD, ArrayViewMutD};

use super::config::{BlockConfig, KeyPointsConfig};
use super::random::{stream, uniform};
use crate::element::Scalar;
use crate::error::{Error, Result};
use crate::memory::zero_array;

/// A linear layer, `y = weight · x + bias`.
#[derive(Clone, Debug, PartialEq)]
pub struct Linear<R> {
    /// (outputs, inputs)
    pub weight: Array2<R>,
    /// (outputs)
    pub bias: Array1<R>,
}

/// The factors and terms of a layer normalisation with ε = 10⁻⁵ and biased variance.
#[derive(Clone, Debug, PartialEq)]
pub struct LayerNorm<R> {
    /// (channels)
    pub weight: Array1<R>,
    /// (channels)
    pub bias: Array1<R>,
}

/// Encodes the twelve upper entries of a projection matrix: twice a linear layer, ReLU and layer normalisation.
#[derive(Clone, Debug, PartialEq)]
pub struct CameraEncoder<R> {
    /// `camera_encoder.0`, 12 to `embed_dims`.
    pub linear_0: Linear<R>,
    /// `camera_encoder.2`.
    pub norm_2: LayerNorm<R>,
    /// `camera_encoder.3`, `embed_dims` to `embed_dims`.
    pub linear_3: Linear<R>,
    /// `camera_encoder.5`.
    pub norm_5: LayerNorm<R>,
}

/// The parameters of a block, or their gradients. `R` is `f32`, or `f64` where activations are `f64`.
///
/// ```
/// use deformable_aggregation::block::{BlockConfig, BlockParameters};
///
/// let parameters = BlockParameters::<f32>::init(&BlockConfig::default(), 7)?;
/// let names: Vec<_> = parameters.named().iter().map(|(name, _)| *name).collect();
/// assert_eq!(
///     names,
///     [
///         "kps_generator.fix_scale",
///         "output_proj.weight",
///         "output_proj.bias",
///         "weights_fc.weight",
///         "weights_fc.bias",
///     ]
/// );
/// // 6 cameras · 4 levels · 1 point · 8 groups.
/// assert_eq!(parameters.weights_fc.weight.dim(), (192, 256));
/// # Ok::<(), deformable_aggregation::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct BlockParameters<R> {
    /// Places of the fixed points of a box, (fixed points, 3). Saved with the others but not trained: its gradient is 0.
    /// `None` with a polyline.
    pub fix_scale: Option<Array2<R>>,
    /// Predicts the learned points: 3 outputs for each of a box, 2 for each of a polyline. `None` if there are none.
    pub learnable_fc: Option<Linear<R>>,
    /// `embed_dims` to `embed_dims`.
    pub output_proj: Linear<R>,
    /// `None` without camera embedding.
    pub camera_encoder: Option<CameraEncoder<R>>,
    /// `embed_dims` to levels × points × groups, with that order of the outputs; cameras × all that, cameras outermost, without
    /// camera embedding.
    pub weights_fc: Linear<R>,
}

/// All tensors in the order of the names' first appearance in the PyTorch module.
macro_rules! named {
    ($self:ident, $option:ident, $view:ident) => {{
        let mut tensors = Vec::new();
        let mut push = |name, view| tensors.push((name, view));
        if let Some(points) = $self.fix_scale.$option() {
            push("kps_generator.fix_scale", points.$view().into_dyn());
        }
        if let Some(linear) = $self.learnable_fc.$option() {
            push("kps_generator.learnable_fc.weight", linear.weight.$view().into_dyn());
            push("kps_generator.learnable_fc.bias", linear.bias.$view().into_dyn());
        }
        push("output_proj.weight", $self.output_proj.weight.$view().into_dyn());
        push("output_proj.bias", $self.output_proj.bias.$view().into_dyn());
        if let Some(encoder) = $self.camera_encoder.$option() {
            push("camera_encoder.0.weight", encoder.linear_0.weight.$view().into_dyn());
            push("camera_encoder.0.bias", encoder.linear_0.bias.$view().into_dyn());
            push("camera_encoder.2.weight", encoder.norm_2.weight.$view().into_dyn());
            push("camera_encoder.2.bias", encoder.norm_2.bias.$view().into_dyn());
            push("camera_encoder.3.weight", encoder.linear_3.weight.$view().into_dyn());
            push("camera_encoder.3.bias", encoder.linear_3.bias.$view().into_dyn());
            push("camera_encoder.5.weight", encoder.norm_5.weight.$view().into_dyn());
            push("camera_encoder.5.bias", encoder.norm_5.bias.$view().into_dyn());
        }
        push("weights_fc.weight", $self.weights_fc.weight.$view().into_dyn());
        push("weights_fc.bias", $self.weights_fc.bias.$view().into_dyn());
        tensors
    }};
}

impl<R: Scalar> BlockParameters<R> {
    /// Initial values: `weights_fc` 0, so that attention begins uniform; `output_proj` and `learnable_fc` Xavier uniform with bias 0;
    /// the linear layers of the camera encoder Xavier uniform with biases uniform within 1/√inputs; layer normalisations 1 and 0;
    /// `fix_scale` as configured.
    ///
    /// Xavier uniform is uniform within √(6 / (inputs + outputs)). The same seed gives the same numbers everywhere.
    ///
    /// # Errors
    ///
    /// Those of [`BlockConfig::check`], and [`Error::OutOfMemory`].
    pub fn init(config: &BlockConfig, seed: u64) -> Result<Self> {
        let mut parameters = Self::zeros(config)?;
        let places = parameters.fix_scale.take();
        for (number, (name, tensor)) in (0..).zip(parameters.named_mut()) {
            let stream = stream::PARAMETERS + number;
            match name {
                "camera_encoder.2.weight" | "camera_encoder.5.weight" => fill(tensor, R::one()),
                // The first layer has 12 inputs, the second as many as it has outputs.
                "camera_encoder.0.bias" => {
                    fill_uniform(tensor, seed, stream, 1.0 / 12.0_f64.sqrt());
                }
                "camera_encoder.3.bias" => {
                    let inputs = tensor.len() as f64;
                    fill_uniform(tensor, seed, stream, 1.0 / inputs.sqrt());
                }
                "kps_generator.learnable_fc.weight"
                | "output_proj.weight"
                | "camera_encoder.0.weight"
                | "camera_encoder.3.weight" => {
                    let sizes = tensor.shape()[0] + tensor.shape()[1];
                    fill_uniform(tensor, seed, stream, (6.0 / sizes as f64).sqrt());
                }
                _ => {}
            }
        }
        parameters.fix_scale = places;
        Ok(parameters)
    }

    /// All 0, except `fix_scale`, which is as configured.
    pub(crate) fn zeros(config: &BlockConfig) -> Result<Self> {
        config.check()?;
        let channels = config.embed_dims;
        let fix_scale = match &config.kps_generator {
            KeyPointsConfig::Box(points) => {
                let places = &points.fix_scale;
                Some(Array2::from_shape_fn((places.len(), 3), |(point, axis)| {
                    R::from_f64(places[point][axis])
                }))
            }
            KeyPointsConfig::Polyline(_) => None,
        };
        let offsets = config.kps_generator.offsets();
        let learnable_fc = if offsets > 0 { Some(Linear::zeros(offsets, channels)?) } else { None };
        let camera_encoder = if config.use_camera_embed {
            Some(CameraEncoder {
                linear_0: Linear::zeros(channels, 12)?,
                norm_2: LayerNorm::zeros(channels)?,
                linear_3: Linear::zeros(channels, channels)?,
                norm_5: LayerNorm::zeros(channels)?,
            })
        } else {
            None
        };
        Ok(Self {
            fix_scale,
            learnable_fc,
            output_proj: Linear::zeros(channels, channels)?,
            camera_encoder,
            weights_fc: Linear::zeros(config.weights_outputs(), channels)?,
        })
    }

    /// Zeros of the same sizes.
    #[must_use]
    pub fn zeros_like(&self) -> Self {
        let mut zeros = self.clone();
        for (_, tensor) in zeros.named_mut() {
            fill(tensor, R::zero());
        }
        zeros
    }

    /// The tensors by their names in the PyTorch module, always in the same order.
    #[must_use]
    pub fn named(&self) -> Vec<(&'static str, ArrayViewD<'_, R>)> {
        named!(self, as_ref, view)
    }

    /// The tensors by name, to change them: an optimiser walks through these and the [`named`](Self::named) gradients together.
    pub fn named_mut(&mut self) -> Vec<(&'static str, ArrayViewMutD<'_, R>)> {
        named!(self, as_mut, view_mut)
    }

    /// Whether these are all the tensors that a block of this configuration has, in their sizes.
    ///
    /// # Errors
    ///
    /// [`Error::MissingTensors`], [`Error::UnexpectedTensors`], [`Error::TensorDimensions`], and those of [`BlockConfig::check`].
    pub fn check(&self, config: &BlockConfig) -> Result<()> {
        config.check()?;
        let sizes = |list: &[(&'static str, Vec<usize>)]| -> Vec<(String, Vec<usize>)> {
            list.iter().map(|(name, size)| ((*name).to_owned(), size.clone())).collect()
        };
        let actual: Vec<_> =
            self.named().iter().map(|(name, tensor)| (*name, tensor.shape().to_vec())).collect();
        compare(&sizes(&expected_tensors(config)), &sizes(&actual))
    }
}

/// Names and sizes of the tensors of a block, in the order of [`BlockParameters::named`].
///
/// ```
/// use deformable_aggregation::block::{BlockConfig, expected_tensors};
///
/// let config = BlockConfig { use_camera_embed: true, ..BlockConfig::default() };
/// for (name, dimensions) in expected_tensors(&config) {
///     println!("{name} {dimensions:?}");
/// }
/// assert_eq!(expected_tensors(&config)[3].0, "camera_encoder.0.weight");
/// assert_eq!(expected_tensors(&config)[3].1, [256, 12]);
/// ```
#[must_use]
pub fn expected_tensors(config: &BlockConfig) -> Vec<(&'static str, Vec<usize>)> {
    let channels = config.embed_dims;
    let mut tensors = Vec::new();
    let mut push = |name, size: &[usize]| tensors.push((name, size.to_vec()));
    if let KeyPointsConfig::Box(points) = &config.kps_generator {
        push("kps_generator.fix_scale", &[points.fix_scale.len(), 3]);
    }
    let offsets = config.kps_generator.offsets();
    if offsets > 0 {
        push("kps_generator.learnable_fc.weight", &[offsets, channels]);
        push("kps_generator.learnable_fc.bias", &[offsets]);
    }
    push("output_proj.weight", &[channels, channels]);
    push("output_proj.bias", &[channels]);
    if config.use_camera_embed {
        push("camera_encoder.0.weight", &[channels, 12]);
        push("camera_encoder.0.bias", &[channels]);
        push("camera_encoder.2.weight", &[channels]);
        push("camera_encoder.2.bias", &[channels]);
        push("camera_encoder.3.weight", &[channels, channels]);
        push("camera_encoder.3.bias", &[channels]);
        push("camera_encoder.5.weight", &[channels]);
        push("camera_encoder.5.bias", &[channels]);
    }
    push("weights_fc.weight", &[config.weights_outputs(), channels]);
    push("weights_fc.bias", &[config.weights_outputs()]);
    tensors
}

/// Compares two lists of names and sizes.
pub(crate) fn compare(
    expected: &[(String, Vec<usize>)],
    actual: &[(String, Vec<usize>)],
) -> Result<()> {
    let without = |list: &[(String, Vec<usize>)], other: &[(String, Vec<usize>)]| -> Vec<String> {
        list.iter()
            .map(|(name, _)| name.clone())
            .filter(|name| other.iter().all(|(other, _)| other != name))
            .collect()
    };
    let missing = without(expected, actual);
    if !missing.is_empty() {
        return Err(Error::MissingTensors { names: missing });
    }
    let unexpected = without(actual, expected);
    if !unexpected.is_empty() {
        return Err(Error::UnexpectedTensors { names: unexpected });
    }
    for (name, size) in expected {
        let found = actual.iter().find(|(other, _)| other == name);
        if let Some((_, found)) = found.filter(|(_, found)| found != size) {
            return Err(Error::TensorDimensions {
                name: name.clone(),
                expected: size.clone(),
                actual: found.clone(),
            });
        }
    }
    Ok(())
}

impl<R: Scalar> Linear<R> {
    fn zeros(outputs: usize, inputs: usize) -> Result<Self> {
        Ok(Self {
            weight: zero_array("weights of a linear layer", (outputs, inputs))?,
            bias: zero_array("biases of a linear layer", outputs)?,
        })
    }
}

impl<R: Scalar> LayerNorm<R> {
    fn zeros(channels: usize) -> Result<Self> {
        let zeros = || -> Result<Array1<R>> { zero_array("layer normalisation", channels) };
        Ok(Self { weight: zeros()?, bias: zeros()? })
    }
}

fn fill<R: Scalar>(mut tensor: ArrayViewMutD<'_, R>, value: R) {
    tensor.fill(value);
}

/// Uniform within ±`limit`.
fn fill_uniform<R: Scalar>(mut tensor: ArrayViewMutD<'_, R>, seed: u64, stream: u32, limit: f64) {
    for (value, index) in tensor.iter_mut().zip(0..) {
        *value = R::from_f64((2.0 * f64::from(uniform(seed, stream, index)) - 1.0) * limit);
    }
}
