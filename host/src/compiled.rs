//! What is compiled here for each element type, once, and not anew in every crate that calls it.
//!
//! The compiler makes the instances of a generic function where its types are named: in the crates of those who use this one. A
//! method that a type has of a trait is compiled with the trait's implementation. So operator and block, as they are called with
//! arrays of the host, call [`Compiled`], and their passes on every backend stay in this crate. What keeps arrays on a GPU
//! (`cuda::Operator`, `cuda::Session`, `cuda::BlockSession`) is compiled by who uses it.

use half::{bf16, f16};
use ndarray::{Array3, ArrayView3};

use crate::block::{BlockContext, BlockGradients, BlockInputs, DeformableFeatureAggregation, Mode};
use crate::element::Element;
use crate::error::Result;
use crate::operator::{DeformableAggregation, Gradients, Inputs, SavedContext};

/// The passes of an element type.
pub trait Compiled: Sized {
    /// [`DeformableAggregation::forward_with_context`].
    fn aggregate<'a>(
        operator: &DeformableAggregation,
        inputs: Inputs<'a, Self>,
    ) -> Result<(Array3<Self>, SavedContext<'a, Self>)>
    where
        Self: Element;

    /// [`SavedContext::backward`].
    fn aggregate_backward(
        context: &SavedContext<'_, Self>,
        grad_output: ArrayView3<'_, Self>,
    ) -> Result<Gradients<Self>>
    where
        Self: Element;

    /// [`DeformableFeatureAggregation::forward_with_context`].
    fn block_forward<'b, 'a>(
        block: &'b DeformableFeatureAggregation<Self::Location>,
        inputs: BlockInputs<'a, Self>,
        mode: Mode<'_>,
    ) -> Result<(Array3<Self>, BlockContext<'b, 'a, Self>)>
    where
        Self: Element;

    /// [`BlockContext::backward`].
    fn block_backward(
        context: &BlockContext<'_, '_, Self>,
        grad_output: ArrayView3<'_, Self>,
    ) -> Result<BlockGradients<Self>>
    where
        Self: Element;
}

macro_rules! compiled {
    ($($type:ty),*) => {$(
        impl Compiled for $type {
            fn aggregate<'a>(
                operator: &DeformableAggregation,
                inputs: Inputs<'a, Self>,
            ) -> Result<(Array3<Self>, SavedContext<'a, Self>)> {
                operator.run_forward(inputs)
            }

            fn aggregate_backward(
                context: &SavedContext<'_, Self>,
                grad_output: ArrayView3<'_, Self>,
            ) -> Result<Gradients<Self>> {
                context.run_backward(grad_output)
            }

            fn block_forward<'b, 'a>(
                block: &'b DeformableFeatureAggregation<<Self as Element>::Location>,
                inputs: BlockInputs<'a, Self>,
                mode: Mode<'_>,
            ) -> Result<(Array3<Self>, BlockContext<'b, 'a, Self>)> {
                block.run_forward(inputs, mode)
            }

            fn block_backward(
                context: &BlockContext<'_, '_, Self>,
                grad_output: ArrayView3<'_, Self>,
            ) -> Result<BlockGradients<Self>> {
                context.run_backward(grad_output)
            }
        }
    )*};
}

compiled!(f64, f32, f16, bf16);
