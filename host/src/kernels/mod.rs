//! The GPU kernels, whoever runs them: what a call launches, in which shape, with which scratch memory.
//!
//! [`Plan`] turns an [`AggregationShape`](crate::AggregationShape) into launch shapes, [`forward`] and
//! [`backward`] say which kernels make up a call, and an [`Executor`] carries the launches out: the CUDA driver
//! (`cuda`) or the emulator (`emulated`).

pub(crate) mod block;
mod calls;
#[cfg(any(cuda_backend, test))]
mod count;
mod element;
mod numbering;
mod plan;

pub(crate) use calls::{
    BackwardArrays, Begins, Executor, ForwardArrays, backward, backward_scratch, forward,
    forward_scratch,
};
#[cfg(cuda_backend)]
pub(crate) use count::{backward_launches, forward_launches};
pub use element::GpuElement;
pub(crate) use element::dispatch;
pub(crate) use plan::{Launch, Plan};
