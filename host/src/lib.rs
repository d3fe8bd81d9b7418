//! Deformable aggregation (Sparse4D, SparseDrive): forward and backward, on the CPU and on CUDA GPUs, without nvcc.
//!
//! The operator looks at feature maps of several cameras at the places where the key points of an anchor are seen, and
//! adds up what it finds there, weighted. This crate computes it and its gradients in `f32`, `f16`, `bf16` (and `f64` on
//! the CPU), checks every size before anything runs, and says what is wrong in a typed [`Error`].
//!
//! # Tutorial
//!
//! Two cameras, two levels, four channels in two groups, three anchors of two points:
//!
//! ```
//! use deformable_aggregation::ndarray::{Array3, Array5, Array6};
//! use deformable_aggregation::{
//!     AggregationShape, Backend, DeformableAggregation, FeatureLayout, Inputs, LevelShape,
//!     feature_maps_format,
//! };
//!
//! // 1. A network gives one array for each level: (batch, cameras, channels, height, width).
//! let level_0 = Array5::<f32>::ones((1, 2, 4, 8, 16));
//! let level_1 = Array5::<f32>::ones((1, 2, 4, 4, 8));
//!
//! // 2. Pack them: channels last, all pixels on one axis. The layout knows where each map lies.
//! let packed = feature_maps_format(&[vec![level_0.view(), level_1.view()]])?;
//! assert_eq!(packed.feature_maps.dim(), (1, 2 * (8 * 16 + 4 * 8), 4));
//!
//! // 3. All sizes are checked against each other, once.
//! let shape = AggregationShape::new(packed.layout, 1, 3, 2, 4, 2)?;
//!
//! // 4. Where each point is seen by each camera, in fractions of the image. Camera 1 does not see any.
//! let mut sampling_locations = Array5::from_elem(shape.sampling_locations_dim(), 0.5);
//! sampling_locations.slice_mut(deformable_aggregation::ndarray::s![.., .., .., 1, ..]).fill(-1.0);
//! // Points, cameras and levels share one softmax, so the weights sum to 1 over 2 · 2 · 2.
//! let weights = Array6::from_elem(shape.weights_dim(), 1.0 / 8.0);
//! let inputs = Inputs {
//!     feature_maps: packed.feature_maps.view(),
//!     sampling_locations: sampling_locations.view(),
//!     weights: weights.view(),
//! };
//!
//! // 5. Forward. `Backend::auto()`, the default, takes a GPU if there is one.
//! let operator = DeformableAggregation::new(shape).with_backend(Backend::Cpu);
//! let (output, context) = operator.forward_with_context(inputs)?;
//! // Ones everywhere, and half of the weights on camera 0.
//! assert_eq!(output, Array3::from_elem((1, 3, 4), 0.5));
//!
//! // 6. Backward.
//! let gradients = context.backward(Array3::ones((1, 3, 4)).view())?;
//! // The two channels of the group, each with a sample of 1.
//! assert_eq!(gradients.weights[[0, 0, 0, 0, 0, 0]], 2.0);
//! assert_eq!(gradients.weights[[0, 0, 0, 1, 0, 0]], 0.0);
//! # Ok::<(), deformable_aggregation::Error>(())
//! ```
//!
//! If you have the five tensors of the PyTorch projects, [`deformable_aggregation_function`] takes them in one call.
//!
//! The whole attention block of these projects, from anchors to the output, with its parameters, is in [`block`].
//!
//! # Shapes
//!
//! Arrays are row-major, the last axis contiguous; views in another order are accepted and copied first.
//!
//! | array | axes | type |
//! |---|---|---|
//! | `feature_maps` | (batch, num_feat, embed_dims) | `T` |
//! | `spatial_shapes` | (cameras, levels, 2): height, width | `i64` |
//! | `scale_start_index` | (cameras, levels): first row on the num_feat axis | `i64` |
//! | `sampling_locations` | (batch, anchors, points, cameras, 2): x, y in image fractions | `T::Location` |
//! | `weights` | (batch, anchors, points, cameras, levels, groups) | `T` |
//! | output | (batch, anchors, embed_dims) | `T` |
//!
//! Channel `c` has the weights of group `c / (embed_dims / groups)`. Starts may be in any order, with gaps, and
//! cameras may share maps. A batch, anchors, points, cameras or levels of zero are valid and give zeros.
//!
//! # What counts
//!
//! A location (x, y) is at the pixel position `(x · width − 0.5, y · height − 0.5)` of a level, so whole numbers are pixel
//! centres. Of the four pixels around it, those off the map count as zero, and are not read.
//!
//! [`BorderRule::Operator`], the default, skips a (point, camera) pair unless 0 < x < 1 and 0 < y < 1.
//! [`BorderRule::GridSample`] has the rule of `grid_sample`: every level fades out over half a pixel outside the image. Locations that are
//! NaN or infinite are skipped under both. A skipped pair reads nothing, not even a weight that is NaN, and all its
//! gradients are zero. NaN and infinities in what is counted spread to what depends on it.
//!
//! At a pixel centre, where the derivative jumps, the location gradient is that of the right-hand side. There is none
//! for the jump at the border of the image.
//!
//! # Numerics
//!
//! - Sums are `f32` for `f32`, `f16` and `bf16`, and `f64` for `f64`. Results are rounded to the element type once, at the end.
//! - Positions are computed with two roundings (product, difference), never fused, on every backend.
//! - Forward is bit for bit repeatable. So is backward on the CPU backends, whatever the number of threads, and on the GPU
//!   with [`Algorithm::Repeatable`].
//! - [`reference::exact`] sums in `f64`, and [`reference::magnitudes`] gives the scale that an error bound goes with.
//!
//! # Features
//!
//! | feature | what it adds | needs |
//! |---|---|---|
//! | none | [`Backend::Reference`], [`Backend::Cpu`] | nothing |
//! | `cuda` | `Backend::Cuda`: NVIDIA GPUs from compute capability 7.5 on | a driver, at run time only; without one the CPU computes |
//! | `emulator` | `Backend::Emulator`: the GPU kernels on the CPU, every access checked | nothing |
//!
//! [`Backend::available`] tells which can be used, and if not, why and what to do.

#![allow(clippy::needless_pass_by_value, reason = "array views go by value, as in ndarray itself")]

mod algorithm;
mod backend;
pub mod block;
mod compiled;
mod cpu;
#[cfg(cuda_backend)]
pub mod cuda;
mod element;
#[cfg(feature = "emulator")]
mod emulated;
mod error;
mod format;
#[cfg(any(cuda_backend, feature = "emulator"))]
mod kernels;
mod layout;
mod memory;
mod operator;
mod problem;
pub mod reference;
mod rule;
mod sample;
mod shape;

pub use algorithm::Algorithm;
pub use backend::{Backend, BackendStatus};
pub use element::{DType, Element, Scalar};
pub use error::{Error, Result};
pub use format::{FormattedFeatureMaps, feature_maps_format, feature_maps_unformat};
pub use half;
#[cfg(any(cuda_backend, feature = "emulator"))]
pub use kernels::GpuElement;
pub use layout::{FeatureLayout, LevelShape};
pub use ndarray;
pub use operator::{
    DeformableAggregation, Gradients, Inputs, SavedContext, deformable_aggregation_function,
};
pub use rule::BorderRule;
pub use shape::AggregationShape;

/// The examples of the pages are tests, too.
#[cfg(doctest)]
mod pages {
    #[doc = include_str!("../../docs/block.md")]
    mod block {}

    #[cfg(cuda_backend)]
    #[doc = include_str!("../../docs/integration.md")]
    mod integration {}

    #[cfg(feature = "emulator")]
    #[doc = include_str!("../../docs/kernels.md")]
    mod kernels {}

    #[doc = include_str!("../../README.md")]
    mod readme {}
}
