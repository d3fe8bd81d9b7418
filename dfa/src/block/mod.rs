//! The attention block: the arrays of a call, calls on the camera rig and from files, and what they take.

pub mod scene;
pub mod times;
pub mod vectors;

mod data;

pub use data::{BlockData, NamedArrays, wide};
