//! The attention block around the operator, `DeformableFeatureAggregation` of the PyTorch projects.

mod checkpoint;
mod config;
mod dropout;
mod inputs;
mod parameters;
mod random;

pub use config::{BlockConfig, BoxKeyPoints, KeyPointsConfig, PolylineKeyPoints, ResidualMode};
pub use dropout::{DropoutMasks, Mode};
pub use inputs::{BlockInputs, FeatureMaps};
pub use parameters::{BlockParameters, CameraEncoder, LayerNorm, Linear, expected_tensors};
