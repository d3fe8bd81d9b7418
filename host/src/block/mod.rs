//! The attention block around the operator: [`DeformableFeatureAggregation`].
//!
//! Also on their own: the key points of anchors ([`KeyPointsGenerator`]) and their way into other frames
//! ([`move_key_points`], [`project_anchors`]).

mod attention;
mod camera;
mod checkpoint;
mod config;
mod dropout;
#[cfg(any(cuda_backend, feature = "emulator"))]
pub(crate) mod gpu;
mod gradients;
mod host;
mod inputs;
mod key_points;
mod layer;
mod linear;
mod motion;
mod parameters;
mod precision;
mod projection;
mod random;
mod storage;

pub use config::{BlockConfig, BoxKeyPoints, KeyPointsConfig, PolylineKeyPoints, ResidualMode};
pub use dropout::{DropoutMasks, Mode};
pub use gradients::BlockGradients;
#[cfg(cuda_backend)]
pub(crate) use inputs::CheckedInputs;
pub use inputs::{BlockInputs, FeatureMaps};
pub use key_points::{KeyPointGradients, KeyPointsGenerator};
pub use layer::{BlockContext, DeformableFeatureAggregation};
pub use motion::{
    Motion, YawOrder, move_key_points, move_key_points_backward, project_anchors,
    project_anchors_backward, time_intervals,
};
pub use parameters::{BlockParameters, CameraEncoder, LayerNorm, Linear, expected_tensors};
pub use precision::LinearPrecision;
