//! The GPU kernels, whoever runs them: what a call launches, in which shape, with which scratch memory.
//!
//! [`Plan`] turns an [`AggregationShape`](crate::AggregationShape) into launch shapes, [`forward`] and
//! [`backward`] say which kernels make up a call, and an [`Executor`] carries the launches out: the CUDA driver
//! (`cuda`) or the emulator (`emulated`).

mod backward;
pub(crate) mod block;
#[cfg(any(cuda_backend, test))]
mod count;
mod element;
mod executor;
mod forward;
mod numbering;
mod plan;
mod sums;

pub(crate) use backward::{Backward, BackwardArrays, backward, backward_scratch};
#[cfg(cuda_backend)]
pub(crate) use count::{backward_launches, forward_launches};
pub use element::GpuElement;
pub(crate) use element::dispatch;
pub(crate) use executor::{Begins, Executor};
pub(crate) use forward::{ForwardArrays, forward, forward_scratch};
pub(crate) use plan::{Launch, Plan};
