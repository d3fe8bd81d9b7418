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
        arithmetic::{Exact, Tensor},
        drop::drop,
        linear::{linear, linear_input, linear_weight},
        sum::sum,
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
    /// The gradient of its input.
    pub input: Entry<LinearArgs<T>>,
    /// The gradients of its weight and bias, summed over parts of the rows.
    pub weight: Entry<LinearWeightArgs<T>>,
}

/// The block's kernels of one element type.
#[cfg(not(target_arch = "nvptx64"))]
pub trait BlockKernels: Copy + Sized + 'static {
    /// Products in fp32.
    const EXACT: Products<Self>;
    /// Products on tensor cores.
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
    linear_exact_f16(LinearArgs<F16>) = linear::<F16, Exact>;
    linear_exact_bf16(LinearArgs<Bf16>) = linear::<Bf16, Exact>;
    linear_tensor_f32(LinearArgs<f32>) = linear::<f32, Tensor>;
    linear_tensor_f16(LinearArgs<F16>) = linear::<F16, Tensor>;
    linear_tensor_bf16(LinearArgs<Bf16>) = linear::<Bf16, Tensor>;
    linear_input_exact_f32(LinearArgs<f32>) = linear_input::<f32, Exact>;
    linear_input_exact_f16(LinearArgs<F16>) = linear_input::<F16, Exact>;
    linear_input_exact_bf16(LinearArgs<Bf16>) = linear_input::<Bf16, Exact>;
    linear_input_tensor_f32(LinearArgs<f32>) = linear_input::<f32, Tensor>;
    linear_input_tensor_f16(LinearArgs<F16>) = linear_input::<F16, Tensor>;
    linear_input_tensor_bf16(LinearArgs<Bf16>) = linear_input::<Bf16, Tensor>;
    linear_weight_exact_f32(LinearWeightArgs<f32>) = linear_weight::<f32, Exact>;
    linear_weight_exact_f16(LinearWeightArgs<F16>) = linear_weight::<F16, Exact>;
    linear_weight_exact_bf16(LinearWeightArgs<Bf16>) = linear_weight::<Bf16, Exact>;
    linear_weight_tensor_f32(LinearWeightArgs<f32>) = linear_weight::<f32, Tensor>;
    linear_weight_tensor_f16(LinearWeightArgs<F16>) = linear_weight::<F16, Tensor>;
    linear_weight_tensor_bf16(LinearWeightArgs<Bf16>) = linear_weight::<Bf16, Tensor>;
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

/// The kernels of an element type, by the names they have.
#[cfg(not(target_arch = "nvptx64"))]
macro_rules! block_kernels {
    (
        $type:ty, $exact:ident, $exact_input:ident, $exact_weight:ident,
        $tensor:ident, $tensor_input:ident, $tensor_weight:ident, $drop:ident, $weights:ident, $gradient:ident
    ) => {
        impl BlockKernels for $type {
            const EXACT: Products<Self> = Products {
                linear: entry!($exact),
                input: entry!($exact_input),
                weight: entry!($exact_weight),
            };
            const TENSOR: Products<Self> = Products {
                linear: entry!($tensor),
                input: entry!($tensor_input),
                weight: entry!($tensor_weight),
            };
            const DROP: Entry<DropArgs<Self>> = entry!($drop);
            const WEIGHTS: Entry<WeightsArgs<Self>> = entry!($weights);
            const WEIGHTS_GRADIENT: Entry<WeightsGradientArgs<Self>> = entry!($gradient);
        }
    };
}

#[cfg(not(target_arch = "nvptx64"))]
block_kernels!(
    f32,
    linear_exact_f32,
    linear_input_exact_f32,
    linear_weight_exact_f32,
    linear_tensor_f32,
    linear_input_tensor_f32,
    linear_weight_tensor_f32,
    drop_f32,
    attention_weights_f32,
    attention_weights_gradient_f32
);
#[cfg(not(target_arch = "nvptx64"))]
block_kernels!(
    F16,
    linear_exact_f16,
    linear_input_exact_f16,
    linear_weight_exact_f16,
    linear_tensor_f16,
    linear_input_tensor_f16,
    linear_weight_tensor_f16,
    drop_f16,
    attention_weights_f16,
    attention_weights_gradient_f16
);
#[cfg(not(target_arch = "nvptx64"))]
block_kernels!(
    Bf16,
    linear_exact_bf16,
    linear_input_exact_bf16,
    linear_weight_exact_bf16,
    linear_tensor_bf16,
    linear_input_tensor_bf16,
    linear_weight_tensor_bf16,
    drop_bf16,
    attention_weights_bf16,
    attention_weights_gradient_bf16
);
