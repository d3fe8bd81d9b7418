//! Which kernels make up a forward call.

use std::ptr;

use kernels_gpu::Kernels;
use kernels_gpu::args::{AddPartsArgs, ForwardArgs, Level};

use crate::algorithm::Algorithm;
use crate::error::Result;
use crate::kernels::executor::Executor;
use crate::kernels::plan::{Plan, Samples};
use crate::kernels::sums::{Sums, aligned};

/// The arrays of a forward call, where the kernels run.
#[derive(Clone, Copy)]
pub(crate) struct ForwardArrays<K> {
    /// The plan's table.
    pub(crate) table: *const Level,
    pub(crate) features: *const K,
    pub(crate) locations: *const f32,
    pub(crate) weights: *const K,
    pub(crate) output: *mut K,
    /// [`forward_scratch`] words.
    pub(crate) scratch: *mut f32,
}

/// Words of scratch memory a forward call needs: for what parts of anchors add to the output, or where 16-bit outputs are
/// summed with atomics.
pub(crate) fn forward_scratch<K: Kernels>(plan: &Plan, algorithm: Algorithm) -> usize {
    match (K::ROUND, algorithm) {
        (_, Algorithm::Fast | Algorithm::Repeatable) => plan.partials(),
        (Some(_), Algorithm::Naive) => plan.outputs,
        (None, Algorithm::Naive) => 0,
    }
}

/// The output of the operator.
///
/// # Safety
///
/// The arrays are valid for the plan's sizes until the launches are through; the output and the scratch are
/// nobody else's.
pub(crate) unsafe fn forward<K: Kernels, E: Executor>(
    executor: &E,
    plan: &Plan,
    algorithm: Algorithm,
    arrays: ForwardArrays<K>,
) -> Result<()> {
    if !plan.has_anchors() {
        return Ok(());
    }
    let ForwardArrays { table: maps, features, locations, weights, output, scratch } = arrays;
    match algorithm {
        Algorithm::Fast | Algorithm::Repeatable => {
            let samples = plan.forward_samples::<K>(aligned(&[features.addr()]));
            let entry = match (samples, K::FORWARD_TENSOR) {
                (Samples::Tensor, Some(tensor)) => tensor,
                (Samples::Any, _) => K::FORWARD_ANY,
                _ => K::FORWARD_WIDE,
            };
            let sizes = plan.forward_sizes(samples, K::PER_VECTOR);
            let launch = plan.forward_launch(samples, &sizes);
            let args = ForwardArgs {
                sizes,
                maps,
                features,
                locations,
                weights,
                output,
                partials: scratch,
            };
            // SAFETY: the caller's promise; the scratch has room for the parts.
            unsafe {
                executor.launch(entry, launch, args)?;
                if plan.partials() == 0 {
                    return Ok(());
                }
                let args = AddPartsArgs {
                    partials: scratch,
                    output,
                    parts: sizes.by_parts.value,
                    channels: sizes.channels,
                };
                executor.launch(K::ADD_PARTS, plan.add_parts_launch(), args)
            }
        }
        Algorithm::Naive => {
            let sums = Sums::new(scratch, output, plan.outputs);
            let args = ForwardArgs {
                sizes: plan.sizes,
                maps,
                features,
                locations,
                weights,
                output: sums.target,
                partials: ptr::null_mut(),
            };
            // SAFETY: the caller's promise.
            unsafe {
                sums.clear(executor, "output")?;
                executor.launch(K::FORWARD_NAIVE, plan.naive_launch(), args)?;
                sums.round(executor)
            }
        }
    }
}
