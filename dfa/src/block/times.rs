//! Times of the attention block on an engine.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use deformable_aggregation::block::BlockGradients;
use ndarray::Array3;

use super::BlockData;
use crate::engines::Engine;
use crate::gpu::Number;
use crate::timing::{Limits, Timing, repeated};

/// Times of the attention block.
#[derive(Clone, Debug)]
pub struct BlockTimes {
    /// The forward pass.
    pub forward: Timing,
    /// Forward and backward.
    pub both: Timing,
    /// What a GPU has besides.
    pub on_gpu: Option<GpuTimes>,
}

/// Times of the attention block that only a GPU has.
#[derive(Clone, Debug)]
pub struct GpuTimes {
    /// Forward and backward as one CUDA graph.
    pub graph: Timing,
    /// Every kernel of forward and of backward, in their order: the median over some runs.
    pub kernels: [Vec<(&'static str, Duration)>; 2],
}

/// What a measured block computed, beside its times.
pub type MeasuredBlock<T> = (BlockTimes, Array3<T>, BlockGradients<T>);

/// Measures the attention block: on a GPU with all arrays in its memory, timed by the device; on other backends by the clock,
/// with what a user of the library pays for, checks of the sizes and memory for the results.
///
/// # Errors
///
/// What the backend reports.
pub fn measured_block<T: Number>(
    engine: &Engine,
    data: &BlockData<T>,
    tensor_cores: bool,
    limits: Limits,
) -> Result<MeasuredBlock<T>> {
    if let Some(measured) = T::gpu_block(&engine.backend, data, tensor_cores, limits)? {
        return Ok(measured);
    }
    let block = data.block(engine)?;
    let forward = repeated(limits, || {
        let start = Instant::now();
        let output = block.forward(data.inputs(), data.mode())?;
        let time = start.elapsed();
        drop(output);
        Ok(time)
    })?;
    let mut results = None;
    let both = repeated(limits, || {
        results = None;
        let start = Instant::now();
        let (output, context) = block.forward_with_context(data.inputs(), data.mode())?;
        let gradients = context.backward(data.grad_output.view())?;
        let time = start.elapsed();
        results = Some((output, gradients));
        Ok(time)
    })?;
    let (output, gradients) = results.context("at least one run")?;
    Ok((BlockTimes { forward, both, on_gpu: None }, output, gradients))
}
