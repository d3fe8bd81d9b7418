//! Tests of the kernels and the library against the fp64 reference.
//!
//! This library holds what the tests share: cases, golden vectors, the list of backends, the bench for single kernels, and the comparison. The
//! tests themselves are in `tests/tests`.

mod backends;
mod block;
mod cases;
mod compare;
mod golden;
mod lab;

pub use backends::Subject;
pub use block::{BlockCase, GoldenBlock, MapsForm, NamedResults, named};
pub use cases::{Case, Sizes};
pub use compare::{Bound, Mismatch, check, compare};
pub use golden::{GoldenOperator, array, golden_path, open_golden};
#[cfg(lab_cuda)]
pub use lab::cuda_device;
pub use lab::{Addresses, Array, Bench, Lab};
