//! Which kernels make up a forward and a backward call.

use kernels_gpu::args::{BackwardArgs, ForwardArgs, Level, RoundArgs};
use kernels_gpu::{Entry, Kernels};

use crate::algorithm::Algorithm;
use crate::error::Result;
use crate::kernels::plan::{Launch, Plan};

/// Runs kernels, one after the other.
pub(crate) trait Executor {
    /// Launches a kernel.
    ///
    /// # Safety
    ///
    /// The pointers of `args` are valid where the kernel runs, as its type says, and stay so until the launch
    /// is through.
    unsafe fn launch<A: Copy + Send + Sync>(
        &self,
        entry: Entry<A>,
        launch: Launch,
        args: A,
    ) -> Result<()>;

    /// Fills an array with zeros.
    ///
    /// # Safety
    ///
    /// `array` points to `length` words where the kernels run, until the launch is through.
    unsafe fn zero(&self, name: &'static str, array: *mut f32, length: usize) -> Result<()>;
}

/// The arrays of a forward call, where the kernels run.
#[derive(Clone, Copy)]
pub(crate) struct ForwardArrays<K> {
    pub(crate) maps: *const Level,
    pub(crate) features: *const K,
    pub(crate) locations: *const f32,
    pub(crate) weights: *const K,
    pub(crate) output: *mut K,
    /// [`forward_scratch`] words.
    pub(crate) scratch: *mut f32,
}

/// The arrays of a backward call, where the kernels run.
#[derive(Clone, Copy)]
pub(crate) struct BackwardArrays<K> {
    pub(crate) maps: *const Level,
    pub(crate) features: *const K,
    pub(crate) locations: *const f32,
    pub(crate) weights: *const K,
    pub(crate) grad_output: *const K,
    pub(crate) grad_features: *mut K,
    pub(crate) grad_locations: *mut f32,
    pub(crate) grad_weights: *mut K,
    /// [`backward_scratch`] words.
    pub(crate) scratch: *mut f32,
}

/// Words of scratch memory a forward call needs: where 16-bit outputs are summed with atomics.
pub(crate) fn forward_scratch<K: Kernels>(plan: &Plan, algorithm: Algorithm) -> usize {
    match (K::ROUND, algorithm) {
        (Some(_), Algorithm::Naive) => plan.outputs,
        _ => 0,
    }
}

/// Words of scratch memory a backward call needs: where 16-bit gradients are summed with atomics.
pub(crate) fn backward_scratch<K: Kernels>(plan: &Plan, algorithm: Algorithm) -> usize {
    match (K::ROUND, algorithm) {
        (None, _) => 0,
        (Some(_), Algorithm::Fast) => plan.features,
        (Some(_), Algorithm::Naive) => plan.features + plan.weights,
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
    let ForwardArrays { maps, features, locations, weights, output, scratch } = arrays;
    let sizes = plan.sizes;
    match algorithm {
        Algorithm::Fast => {
            let wide = plan.forward_is_wide::<K>() && aligned(&[features.addr()]);
            let entry = if wide { K::FORWARD_WIDE } else { K::FORWARD_ANY };
            let args = ForwardArgs { sizes, maps, features, locations, weights, output };
            // SAFETY: the caller's promise.
            unsafe { executor.launch(entry, plan.forward_launch(), args) }
        }
        Algorithm::Naive => {
            let sums = Sums::new(scratch, output, plan.outputs);
            let args =
                ForwardArgs { sizes, maps, features, locations, weights, output: sums.target };
            // SAFETY: the caller's promise.
            unsafe {
                executor.zero("output", sums.target, plan.outputs)?;
                executor.launch(K::FORWARD_NAIVE, plan.naive_launch(), args)?;
                sums.round(executor)
            }
        }
    }
}

/// The gradients of the operator.
///
/// # Safety
///
/// The arrays are valid for the plan's sizes until the launches are through; the gradients and the scratch
/// are nobody else's.
pub(crate) unsafe fn backward<K: Kernels, E: Executor>(
    executor: &E,
    plan: &Plan,
    algorithm: Algorithm,
    arrays: BackwardArrays<K>,
) -> Result<()> {
    let BackwardArrays { maps, features, locations, weights, grad_output, .. } = arrays;
    let BackwardArrays { grad_features, grad_locations, grad_weights, scratch, .. } = arrays;
    let sizes = plan.sizes;
    let feature_sums = Sums::new(scratch, grad_features, plan.features);
    // SAFETY: the caller's promise.
    unsafe { executor.zero("feature gradient", feature_sums.target, plan.features)? };
    if plan.has_anchors() {
        match algorithm {
            Algorithm::Fast => {
                let pointers = [features.addr(), grad_output.addr(), feature_sums.target.addr()];
                let wide = plan.backward_is_wide::<K>() && aligned(&pointers);
                let entry = if wide { K::BACKWARD_WIDE } else { K::BACKWARD_ANY };
                let grad_features = feature_sums.target;
                let args = BackwardArgs {
                    sizes,
                    maps,
                    features,
                    locations,
                    weights,
                    grad_output,
                    grad_features,
                    grad_locations,
                    grad_weights,
                };
                // SAFETY: the caller's promise.
                unsafe { executor.launch(entry, plan.backward_launch(), args)? };
            }
            Algorithm::Naive => {
                let sums =
                    Sums::new(scratch.wrapping_add(plan.features), grad_weights, plan.weights);
                let args = BackwardArgs {
                    sizes,
                    maps,
                    features,
                    locations,
                    weights,
                    grad_output,
                    grad_features: feature_sums.target,
                    grad_locations,
                    grad_weights: sums.target,
                };
                // SAFETY: the caller's promise.
                unsafe {
                    executor.zero("weight gradient", sums.target, plan.weights)?;
                    executor.zero("location gradient", grad_locations, plan.locations)?;
                    executor.launch(K::BACKWARD_NAIVE, plan.naive_launch(), args)?;
                    sums.round(executor)?;
                }
            }
        }
    }
    // SAFETY: the caller's promise.
    unsafe { feature_sums.round(executor) }
}

/// Whether 16-byte accesses may start at every one of the addresses.
fn aligned(addresses: &[usize]) -> bool {
    addresses.iter().all(|address| address.is_multiple_of(16))
}

/// An array the kernels add to in fp32: the result itself, or scratch that is rounded to it.
struct Sums<K> {
    target: *mut f32,
    round: Option<(Entry<RoundArgs<K>>, *mut K)>,
    length: usize,
}

impl<K: Kernels> Sums<K> {
    fn new(scratch: *mut f32, result: *mut K, length: usize) -> Self {
        match K::ROUND {
            // No rounding kernel: the element type is fp32 itself.
            None => Self { target: result.cast(), round: None, length },
            Some(entry) => Self { target: scratch, round: Some((entry, result)), length },
        }
    }

    /// # Safety
    ///
    /// Both arrays are valid until the launch is through.
    unsafe fn round<E: Executor>(&self, executor: &E) -> Result<()> {
        let Some((entry, target)) = self.round else { return Ok(()) };
        let args = RoundArgs { length: self.length as u64, source: self.target, target };
        // SAFETY: the caller's promise.
        unsafe { executor.launch(entry, Plan::element_launch(self.length), args) }
    }
}
