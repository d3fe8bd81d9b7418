//! Deformable aggregation (Sparse4D, SparseDrive): forward and backward, on the CPU and on CUDA GPUs, without nvcc.

#![allow(clippy::needless_pass_by_value, reason = "array views go by value, as in ndarray itself")]

mod algorithm;
mod backend;
mod cpu;
mod element;
mod error;
mod format;
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
pub use layout::{FeatureLayout, LevelShape};
pub use ndarray;
pub use operator::{
    DeformableAggregation, Gradients, Inputs, SavedContext, deformable_aggregation_function,
};
pub use rule::BorderRule;
pub use shape::AggregationShape;
