//! The kernels of the attention block by name.

use crate::args::{Bf16, F16};
use crate::block_args::{
    CameraArgs, CameraGradientArgs, DropArgs, LinearArgs, LinearWeightArgs, PointsArgs,
    PointsGradientArgs, SumArgs, WeightsArgs, WeightsGradientArgs,
};
#[cfg(not(target_arch = "nvptx64"))]
use crate::entry::Entry;
#[cfg(any(target_arch = "nvptx64", feature = "emulator"))]
use crate::{
    attention::{
        camera::camera,
        camera_gradient::{camera_gradient, camera_parameters},
        points::points,
        points_gradient::{points_gradient, projection_gradient},
        weights::weights,
        weights_gradient::weights_gradient,
    },
    dense::{
        arithmetic::Exact,
        drop::drop,
        linear::{linear, linear_input, linear_weight},
        rows::{Either, Elements, Numbers},
        sum::sum,
        tensor::{Tensor, Tf32},
    },
};
#[cfg(any(target_arch = "nvptx64", feature = "emulator"))]
use cuda_std::kernel;

/// The kernels of a linear layer in one arithmetic.
#[cfg(not(target_arch = "nvptx64"))]
#[derive(Clone, Copy, Debug)]
pub struct Products<T> {
    /// The layer.
    pub linear: Entry<LinearArgs<T>>,
    /// The gradient of its input, from elements.
    pub input: Entry<LinearArgs<T>>,
    /// The gradient of its input, from fp32 numbers.
    pub input_of_numbers: Entry<LinearArgs<T>>,
    /// The gradients of its weight and bias, summed over parts of the rows, from elements.
    pub weight: Entry<LinearWeightArgs<T>>,
    /// The gradients of its weight and bias, summed over parts of the rows, from fp32 numbers.
    pub weight_of_numbers: Entry<LinearWeightArgs<T>>,
}

/// The block's kernels of one element type.
#[cfg(not(target_arch = "nvptx64"))]
pub trait BlockKernels: Copy + Sized + 'static {
    /// Products in fp32.
    const EXACT: Products<Self>;
    /// Products on tensor cores: of factors of the type, and of `tf32` where the type is fp32 or a gradient comes in fp32.
    const TENSOR: Products<Self>;
    /// A gradient back through dropout.
    const DROP: Entry<DropArgs<Self>>;
    /// Weights from logits.
    const WEIGHTS: Entry<WeightsArgs<Self>>;
    /// The gradient of the logits.
    const WEIGHTS_GRADIENT: Entry<WeightsGradientArgs<Self>>;
}

/// Adds up partial sums.
#[cfg(not(target_arch = "nvptx64"))]
pub const SUM: Entry<SumArgs> = entry!(sum_parts);
/// Key points and their places in the images.
#[cfg(not(target_arch = "nvptx64"))]
pub const POINTS: Entry<PointsArgs> = entry!(key_points);
/// The gradients of anchors and learned offsets.
#[cfg(not(target_arch = "nvptx64"))]
pub const POINTS_GRADIENT: Entry<PointsGradientArgs> = entry!(key_points_gradient);
/// The gradient of the projection matrices, summed over parts of the points.
#[cfg(not(target_arch = "nvptx64"))]
pub const PROJECTION_GRADIENT: Entry<PointsGradientArgs> = entry!(projection_gradients);
/// The camera encoder.
#[cfg(not(target_arch = "nvptx64"))]
pub const CAMERA: Entry<CameraArgs> = entry!(camera_encoder);
/// What the camera encoder passes on backward.
#[cfg(not(target_arch = "nvptx64"))]
pub const CAMERA_GRADIENT: Entry<CameraGradientArgs> = entry!(camera_encoder_gradient);
/// The gradients of the camera encoder's parameters.
#[cfg(not(target_arch = "nvptx64"))]
pub const CAMERA_PARAMETERS: Entry<CameraGradientArgs> = entry!(camera_encoder_parameters);

entries! {
    sum_parts(SumArgs) = sum;
    key_points(PointsArgs) = points;
    key_points_gradient(PointsGradientArgs) = points_gradient;
    projection_gradients(PointsGradientArgs) = projection_gradient;
    camera_encoder(CameraArgs) = camera;
    camera_encoder_gradient(CameraGradientArgs) = camera_gradient;
    camera_encoder_parameters(CameraGradientArgs) = camera_parameters;
    linear_exact_f32(LinearArgs<f32>) = linear::<f32, Exact>;
    linear_input_exact_f32(LinearArgs<f32>) = linear_input::<f32, Exact, Either>;
    linear_weight_exact_f32(LinearWeightArgs<f32>) = linear_weight::<f32, Exact, Either>;
    linear_exact_f16(LinearArgs<F16>) = linear::<F16, Exact>;
    linear_input_exact_f16(LinearArgs<F16>) = linear_input::<F16, Exact, Elements>;
    linear_input_exact_numbers_f16(LinearArgs<F16>) = linear_input::<F16, Exact, Numbers>;
    linear_weight_exact_f16(LinearWeightArgs<F16>) = linear_weight::<F16, Exact, Elements>;
    linear_weight_exact_numbers_f16(LinearWeightArgs<F16>) = linear_weight::<F16, Exact, Numbers>;
    linear_exact_bf16(LinearArgs<Bf16>) = linear::<Bf16, Exact>;
    linear_input_exact_bf16(LinearArgs<Bf16>) = linear_input::<Bf16, Exact, Elements>;
    linear_input_exact_numbers_bf16(LinearArgs<Bf16>) = linear_input::<Bf16, Exact, Numbers>;
    linear_weight_exact_bf16(LinearWeightArgs<Bf16>) = linear_weight::<Bf16, Exact, Elements>;
    linear_weight_exact_numbers_bf16(LinearWeightArgs<Bf16>) = linear_weight::<Bf16, Exact, Numbers>;
    linear_tensor_f32(LinearArgs<f32>) = linear::<f32, Tensor<Tf32>>;
    linear_input_tensor_f32(LinearArgs<f32>) = linear_input::<f32, Tensor<Tf32>, Either>;
    linear_weight_tensor_f32(LinearWeightArgs<f32>) = linear_weight::<f32, Tensor<Tf32>, Either>;
    linear_tensor_f16(LinearArgs<F16>) = linear::<F16, Tensor<F16>>;
    linear_input_tensor_f16(LinearArgs<F16>) = linear_input::<F16, Tensor<F16>, Elements>;
    linear_input_tensor_numbers_f16(LinearArgs<F16>) = linear_input::<F16, Tensor<Tf32>, Numbers>;
    linear_weight_tensor_f16(LinearWeightArgs<F16>) = linear_weight::<F16, Tensor<F16>, Elements>;
    linear_weight_tensor_numbers_f16(LinearWeightArgs<F16>) = linear_weight::<F16, Tensor<Tf32>, Numbers>;
    linear_tensor_bf16(LinearArgs<Bf16>) = linear::<Bf16, Tensor<Bf16>>;
    linear_input_tensor_bf16(LinearArgs<Bf16>) = linear_input::<Bf16, Tensor<Bf16>, Elements>;
    linear_input_tensor_numbers_bf16(LinearArgs<Bf16>) = linear_input::<Bf16, Tensor<Tf32>, Numbers>;
    linear_weight_tensor_bf16(LinearWeightArgs<Bf16>) = linear_weight::<Bf16, Tensor<Bf16>, Elements>;
    linear_weight_tensor_numbers_bf16(LinearWeightArgs<Bf16>) = linear_weight::<Bf16, Tensor<Tf32>, Numbers>;
    drop_f32(DropArgs<f32>) = drop::<f32>;
    drop_f16(DropArgs<F16>) = drop::<F16>;
    drop_bf16(DropArgs<Bf16>) = drop::<Bf16>;
    attention_weights_f32(WeightsArgs<f32>) = weights::<f32>;
    attention_weights_f16(WeightsArgs<F16>) = weights::<F16>;
    attention_weights_bf16(WeightsArgs<Bf16>) = weights::<Bf16>;
    attention_weights_gradient_f32(WeightsGradientArgs<f32>) = weights_gradient::<f32>;
    attention_weights_gradient_f16(WeightsGradientArgs<F16>) = weights_gradient::<F16>;
    attention_weights_gradient_bf16(WeightsGradientArgs<Bf16>) = weights_gradient::<Bf16>;
}

/// The kernels of a linear layer, by the names they have.
#[cfg(not(target_arch = "nvptx64"))]
macro_rules! products {
    ($linear:ident, $input:ident, $input_of_numbers:ident, $weight:ident, $weight_of_numbers:ident) => {
        Products {
            linear: entry!($linear),
            input: entry!($input),
            input_of_numbers: entry!($input_of_numbers),
            weight: entry!($weight),
            weight_of_numbers: entry!($weight_of_numbers),
        }
    };
}

#[cfg(not(target_arch = "nvptx64"))]
impl BlockKernels for f32 {
    const EXACT: Products<Self> = products!(
        linear_exact_f32,
        linear_input_exact_f32,
        linear_input_exact_f32,
        linear_weight_exact_f32,
        linear_weight_exact_f32
    );
    const TENSOR: Products<Self> = products!(
        linear_tensor_f32,
        linear_input_tensor_f32,
        linear_input_tensor_f32,
        linear_weight_tensor_f32,
        linear_weight_tensor_f32
    );
    const DROP: Entry<DropArgs<Self>> = entry!(drop_f32);
    const WEIGHTS: Entry<WeightsArgs<Self>> = entry!(attention_weights_f32);
    const WEIGHTS_GRADIENT: Entry<WeightsGradientArgs<Self>> =
        entry!(attention_weights_gradient_f32);
}

#[cfg(not(target_arch = "nvptx64"))]
impl BlockKernels for F16 {
    const EXACT: Products<Self> = products!(
        linear_exact_f16,
        linear_input_exact_f16,
        linear_input_exact_numbers_f16,
        linear_weight_exact_f16,
        linear_weight_exact_numbers_f16
    );
    const TENSOR: Products<Self> = products!(
        linear_tensor_f16,
        linear_input_tensor_f16,
        linear_input_tensor_numbers_f16,
        linear_weight_tensor_f16,
        linear_weight_tensor_numbers_f16
    );
    const DROP: Entry<DropArgs<Self>> = entry!(drop_f16);
    const WEIGHTS: Entry<WeightsArgs<Self>> = entry!(attention_weights_f16);
    const WEIGHTS_GRADIENT: Entry<WeightsGradientArgs<Self>> =
        entry!(attention_weights_gradient_f16);
}

#[cfg(not(target_arch = "nvptx64"))]
impl BlockKernels for Bf16 {
    const EXACT: Products<Self> = products!(
        linear_exact_bf16,
        linear_input_exact_bf16,
        linear_input_exact_numbers_bf16,
        linear_weight_exact_bf16,
        linear_weight_exact_numbers_bf16
    );
    const TENSOR: Products<Self> = products!(
        linear_tensor_bf16,
        linear_input_tensor_bf16,
        linear_input_tensor_numbers_bf16,
        linear_weight_tensor_bf16,
        linear_weight_tensor_numbers_bf16
    );
    const DROP: Entry<DropArgs<Self>> = entry!(drop_bf16);
    const WEIGHTS: Entry<WeightsArgs<Self>> = entry!(attention_weights_bf16);
    const WEIGHTS_GRADIENT: Entry<WeightsGradientArgs<Self>> =
        entry!(attention_weights_gradient_bf16);
}
