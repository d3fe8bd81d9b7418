//! The attention block on the GPU kernels, whoever runs them.
//!
//! [`BlockPlan`] turns a configuration and the sizes of a call into launch shapes and memory, [`forward`] and
//! [`backward`] say which kernels make up a call. As for the operator, an [`Executor`](super::Executor) carries the
//! launches out. Everything a stage makes stays where the kernels run until the next one reads it.

mod backward;
mod call;
mod forward;
mod memory;
mod plan;
mod products;
mod tensors;

pub(crate) use backward::{BlockGradientArrays, backward};
pub(crate) use call::{BlockDropout, BlockGradientSlices, BlockSlices};
pub(crate) use forward::{BlockArrays, forward};
pub(crate) use plan::{BlockPlan, Products};
