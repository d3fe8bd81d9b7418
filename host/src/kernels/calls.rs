//! Which kernels make up a forward and a backward call.

use std::ptr;

use kernels_gpu::args::{BackwardArgs, ForwardArgs, GatherArgs, Level, Marks, RoundArgs};
use kernels_gpu::{Entry, Kernels};

use crate::algorithm::Algorithm;
use crate::error::{Error, Result};
use crate::kernels::numbering::Numbering;
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
    /// `array` points to that many bytes where the kernels run, until the launch is through.
    unsafe fn zero(&self, name: &'static str, array: *mut u8, bytes: usize) -> Result<()>;

    /// Launches what either closure does, the one's after the other's or at the same time: neither may write what the other
    /// reads or writes. What is launched afterwards comes after both.
    fn together(
        &self,
        first: impl FnOnce(&Self) -> Result<()>,
        second: impl FnOnce(&Self) -> Result<()>,
    ) -> Result<()> {
        first(self)?;
        second(self)
    }
}

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

/// The arrays of a backward call, where the kernels run.
#[derive(Clone, Copy)]
pub(crate) struct BackwardArrays<K> {
    /// The plan's table.
    pub(crate) table: *const Level,
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

/// Words of scratch memory a backward call needs: for the marks of the gather, or where 16-bit gradients are summed with
/// atomics.
pub(crate) fn backward_scratch<K: Kernels>(plan: &Plan, algorithm: Algorithm) -> usize {
    if let Ok(Some(numbering)) = gathered::<K>(plan, algorithm) {
        return numbering.words;
    }
    match (algorithm, K::ROUND) {
        (_, None) => 0,
        (Algorithm::Naive, Some(_)) => plan.features + plan.weights,
        (_, Some(_)) => plan.features,
    }
}

/// The numbering to gather the feature gradient with; `None` where it is added to memory.
///
/// Adding needs an fp32 array, which for 16-bit gradients is scratch to be cleared and rounded: then the gather is
/// the faster way.
fn gathered<K: Kernels>(plan: &Plan, algorithm: Algorithm) -> Result<Option<&Numbering>> {
    match algorithm {
        Algorithm::Naive => Ok(None),
        Algorithm::Fast => Ok(plan.numbering.as_ref().filter(|_| K::ROUND.is_some())),
        Algorithm::Repeatable => plan.numbering.as_ref().map(Some).ok_or(Error::NotRepeatable),
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
    let sizes = plan.sizes;
    match algorithm {
        Algorithm::Fast | Algorithm::Repeatable => {
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
                sums.clear(executor, "output")?;
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
    let numbering = gathered::<K>(plan, algorithm)?;
    // SAFETY: the caller's promise.
    unsafe {
        match (algorithm, numbering) {
            (Algorithm::Naive, _) => backward_naive(executor, plan, &arrays),
            (_, None) => scatter(executor, plan, &arrays),
            (_, Some(numbering)) => gather(executor, plan, numbering, &arrays),
        }
    }
}

impl<K> BackwardArrays<K> {
    fn args(&self, plan: &Plan, grad_features: *mut f32) -> BackwardArgs<K> {
        let maps = (plan.sizes.cameras * plan.sizes.levels) as usize;
        BackwardArgs {
            grids: self.table.wrapping_add(maps).cast(),
            marks: self.marks(plan.numbering.as_ref()),
            window: plan.backward_window(),
            sizes: plan.sizes,
            maps: self.table,
            features: self.features,
            locations: self.locations,
            weights: self.weights,
            grad_output: self.grad_output,
            grad_features,
            grad_locations: self.grad_locations,
            grad_weights: self.grad_weights,
        }
    }

    /// The marks, in the scratch memory; none without a numbering.
    fn marks(&self, numbering: Option<&Numbering>) -> Marks {
        Marks {
            words: self.scratch.cast(),
            tiles: numbering.map_or(0, |numbering| numbering.tiles),
            words_per_tile: numbering.map_or(0, |numbering| numbering.words_per_tile),
            mark_shift: numbering.map_or(0, |numbering| numbering.mark_shift),
        }
    }
}

/// Launches a backward kernel with a block per anchor, if there is an anchor.
///
/// # Safety
///
/// As for [`backward`].
unsafe fn launch_per_anchor<K: Kernels, E: Executor>(
    executor: &E,
    plan: &Plan,
    entry: Entry<BackwardArgs<K>>,
    args: BackwardArgs<K>,
) -> Result<()> {
    if !plan.has_anchors() {
        return Ok(());
    }
    // SAFETY: the caller's promise.
    unsafe { executor.launch(entry, plan.backward_launch::<K>(), args) }
}

/// All three gradients, that of the features by ownership: those of locations and weights, which marks where each
/// tile of pixels has to look, and then the tiles.
///
/// # Safety
///
/// As for [`backward`].
unsafe fn gather<K: Kernels, E: Executor>(
    executor: &E,
    plan: &Plan,
    numbering: &Numbering,
    arrays: &BackwardArrays<K>,
) -> Result<()> {
    let &BackwardArrays { table, features, weights, grad_output, grad_features, .. } = arrays;
    let args = arrays.args(plan, ptr::null_mut());
    let wide = plan.backward_is_wide::<K>() && aligned(&[features.addr(), grad_output.addr()]);
    let entry = if wide { K::BACKWARD_WIDE } else { K::BACKWARD_ANY };
    // SAFETY: the caller's promise; the scratch holds the marks.
    unsafe {
        executor.zero("marks", arrays.scratch.cast(), 4 * numbering.words)?;
        launch_per_anchor(executor, plan, entry, args)?;
        if numbering.has_gaps {
            let bytes = plan.features * size_of::<K>();
            executor.zero("feature gradient", grad_features.cast(), bytes)?;
        }
        if numbering.blocks == 0 {
            return Ok(());
        }
        let maps = (plan.sizes.cameras * plan.sizes.levels) as usize;
        let args = GatherArgs {
            sizes: plan.sizes,
            maps: table,
            grids: args.grids,
            stretches: table.wrapping_add(2 * maps).cast(),
            marks: args.marks,
            locations: arrays.locations,
            weights,
            grad_output,
            grad_features,
        };
        let addresses = [grad_output.addr(), grad_features.addr()];
        let wide = plan.forward_is_wide::<K>() && aligned(&addresses);
        let entry = if wide { K::GATHER_WIDE } else { K::GATHER_ANY };
        executor.launch(entry, plan.gather_launch(numbering), args)
    }
}

/// All three gradients where maps share pixels: the feature gradient is added to memory.
///
/// # Safety
///
/// As for [`backward`].
unsafe fn scatter<K: Kernels, E: Executor>(
    executor: &E,
    plan: &Plan,
    arrays: &BackwardArrays<K>,
) -> Result<()> {
    let sums = Sums::new(arrays.scratch, arrays.grad_features, plan.features);
    let pointers = [arrays.features.addr(), arrays.grad_output.addr(), sums.target.addr()];
    let wide = plan.backward_is_wide::<K>() && aligned(&pointers);
    let entry = if wide { K::SCATTER_WIDE } else { K::SCATTER_ANY };
    // SAFETY: the caller's promise.
    unsafe {
        sums.clear(executor, "feature gradient")?;
        launch_per_anchor(executor, plan, entry, arrays.args(plan, sums.target))?;
        sums.round(executor)
    }
}

/// All three gradients by the published algorithm.
///
/// # Safety
///
/// As for [`backward`].
unsafe fn backward_naive<K: Kernels, E: Executor>(
    executor: &E,
    plan: &Plan,
    arrays: &BackwardArrays<K>,
) -> Result<()> {
    let features = Sums::new(arrays.scratch, arrays.grad_features, plan.features);
    let behind = arrays.scratch.wrapping_add(plan.features);
    let weights = Sums::new(behind, arrays.grad_weights, plan.weights);
    let args = BackwardArgs {
        sizes: plan.sizes,
        maps: arrays.table,
        features: arrays.features,
        locations: arrays.locations,
        weights: arrays.weights,
        grad_output: arrays.grad_output,
        grad_features: features.target,
        grad_locations: arrays.grad_locations,
        grad_weights: weights.target,
        grids: ptr::null(),
        marks: arrays.marks(None),
        window: plan.backward_window(),
    };
    // SAFETY: the caller's promise.
    unsafe {
        features.clear(executor, "feature gradient")?;
        weights.clear(executor, "weight gradient")?;
        executor.zero("location gradient", arrays.grad_locations.cast(), 4 * plan.locations)?;
        if plan.has_anchors() {
            executor.launch(K::BACKWARD_NAIVE, plan.naive_launch(), args)?;
        }
        weights.round(executor)?;
        features.round(executor)
    }
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

    /// Fills the sums with zeros.
    ///
    /// # Safety
    ///
    /// The array is valid until the launch is through.
    unsafe fn clear<E: Executor>(&self, executor: &E, name: &'static str) -> Result<()> {
        // SAFETY: the caller's promise.
        unsafe { executor.zero(name, self.target.cast(), 4 * self.length) }
    }

    /// Writes the result, where it is not the sums themselves.
    ///
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
