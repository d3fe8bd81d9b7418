//! Which kernels make up a forward and a backward call.

use std::ptr;

use kernels_gpu::args::{
    AddPartsArgs, BackwardArgs, Divisor, ForwardArgs, GatherArgs, Level, ListArgs, Lists, Pieces,
    RoundArgs,
};
use kernels_gpu::{COUNT_POINTS, Entry, FILL_LISTS, Kernels, MANY_POINTS, PLACE_LISTS, SORT_LISTS};

use crate::algorithm::Algorithm;
use crate::error::{Error, Result};
use crate::kernels::numbering::Numbering;
use crate::kernels::plan::{Launch, Plan, Rows, Samples};

/// Channels from which on a feature row is long, where it is read 16 bytes at a time.
const LONG_ROW: u32 = 256;

/// The same where it is read one element at a time.
const LONG_ROW_OF_ELEMENTS: u32 = 512;

/// Points of an anchor up to which the lists of a few tiles do not become too long.
const MOST_POINTS: u32 = 2048;

/// Anchors of a batch item up to which it pays to make lists.
const MOST_ANCHORS: u32 = 16_384;

/// Channels from which on a weight group is large.
const LARGE_GROUP: u32 = 16;

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
    /// reads or writes. What is launched afterwards comes after both. `begins` says whose launches are put on their way first,
    /// where it is at the same time.
    fn together(
        &self,
        begins: Begins,
        first: impl FnOnce(&Self) -> Result<()>,
        second: impl FnOnce(&Self) -> Result<()>,
    ) -> Result<()> {
        // Only the order of launches on a GPU can tell.
        let _ = begins;
        first(self)?;
        second(self)
    }
}

/// Which of two sequences of launches begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Begins {
    /// The one that takes longer, if its blocks make way for others soon: the GPU has something to do while launches of the other
    /// are made.
    First,
    /// The one that others wait for, if blocks of the first would keep it from beginning.
    Second,
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
    /// Whether nobody reads the gradients of (point, camera) pairs that count on no level, so that they need not be zeroed.
    pub(crate) leaves_unseen: bool,
    /// [`backward_scratch`] words.
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

/// Words of scratch memory a backward call needs: for the lists of the gather, or where 16-bit gradients are summed
/// with atomics.
pub(crate) fn backward_scratch<K: Kernels>(plan: &Plan, algorithm: Algorithm) -> usize {
    if let Ok(Some(numbering)) = gathered::<K>(plan, algorithm) {
        return numbering.words();
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
/// the faster way. So it is for anchors of many points, which meet in the same pixels, and for long rows of large groups, unless
/// there are so few anchors that its launches take longer than what they save. Thousands of points on one anchor make long lists that
/// have to be sorted, while a block adds rows that its points have in common once; and with very many anchors, of few points each,
/// adding was measured to take less time.
fn gathered<K: Kernels>(plan: &Plan, algorithm: Algorithm) -> Result<Option<&Numbering>> {
    match algorithm {
        Algorithm::Naive => Ok(None),
        Algorithm::Fast => {
            let long_row =
                if plan.forward_is_wide::<K>() { LONG_ROW } else { LONG_ROW_OF_ELEMENTS };
            let has_long_rows =
                plan.sizes.channels >= long_row && plan.sizes.channels_per_group() >= LARGE_GROUP;
            let pays = K::ROUND.is_some()
                || plan.sizes.points >= MANY_POINTS
                || has_long_rows && !plan.has_few_anchors();
            let are_few = plan.sizes.points <= MOST_POINTS && plan.sizes.anchors <= MOST_ANCHORS;
            let gathers = pays && are_few;
            Ok(plan.numbering.as_ref().filter(|_| gathers))
        }
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
        BackwardArgs {
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
            leaves_unseen: self.leaves_unseen.into(),
        }
    }

    /// What long lists are cut into, in the scratch memory.
    fn pieces(&self, numbering: &Numbering) -> Pieces {
        let words = self.scratch.cast::<u32>();
        let header = words.wrapping_add(numbering.range_end());
        Pieces {
            header,
            done: header.wrapping_add(4),
            entries: words.wrapping_add(numbering.cleared_words()),
            sums: self.scratch.wrapping_add(numbering.entry_end()),
            most: numbering.pieces,
        }
    }

    /// The lists, in the scratch memory: totals and ranges at its beginning, points at its end.
    fn lists(&self, numbering: &Numbering) -> Lists {
        let totals = self.scratch.cast::<u32>();
        Lists {
            totals,
            ranges: totals.wrapping_add(numbering.total_words()),
            points: totals.wrapping_add(numbering.sum_end()),
            capacity: numbering.capacity,
            tiles: numbering.tiles,
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
    rows: Rows,
    [wide, uneven, any]: [Entry<BackwardArgs<K>>; 3],
    args: BackwardArgs<K>,
) -> Result<()> {
    if !plan.has_anchors() {
        return Ok(());
    }
    // SAFETY: the caller's promise.
    unsafe {
        let entry = match rows {
            Rows::Wide => wide,
            Rows::Uneven => uneven,
            Rows::Any => any,
        };
        executor.launch(entry, plan.backward_launch(rows), args)
    }
}

/// All three gradients, that of the features by ownership: each tile of pixels adds up what is in its list.
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
    let &BackwardArrays { features, grad_output, grad_features, .. } = arrays;
    let rows = plan.backward_rows::<K>(aligned(&[features.addr(), grad_output.addr()]));
    let entries = [K::BACKWARD_WIDE, K::BACKWARD_UNEVEN, K::BACKWARD_ANY];
    // SAFETY: the caller's promise; the scratch holds the lists, which no other launch but the gather looks at.
    unsafe {
        // A block of backward has all points of an anchor.
        let begins = if plan.sizes.points >= MANY_POINTS { Begins::Second } else { Begins::First };
        executor.together(
            begins,
            |executor| {
                let args = arrays.args(plan, ptr::null_mut());
                launch_per_anchor(executor, plan, rows, entries, args)
            },
            |executor| list(executor, plan, numbering, arrays),
        )?;
        if numbering.has_gaps {
            let bytes = plan.features * size_of::<K>();
            executor.zero("feature gradient", grad_features.cast(), bytes)?;
        }
        if numbering.blocks * plan.sizes.batch == 0 {
            return Ok(());
        }
        launch_gather(executor, plan, numbering, arrays)
    }
}

/// Makes the lists of what touches each tile.
///
/// # Safety
///
/// As for [`backward`].
unsafe fn list<K: Kernels, E: Executor>(
    executor: &E,
    plan: &Plan,
    numbering: &Numbering,
    arrays: &BackwardArrays<K>,
) -> Result<()> {
    // SAFETY: the caller's promise.
    unsafe {
        executor.zero("lists", arrays.scratch.cast(), 4 * numbering.cleared_words())?;
        if plan.locations == 0 || numbering.tiles == 0 {
            return Ok(());
        }
        let maps = (plan.sizes.cameras * plan.sizes.levels) as usize;
        let args = ListArgs {
            sizes: plan.sizes,
            maps: arrays.table,
            grids: arrays.table.wrapping_add(maps).cast(),
            locations: arrays.locations,
            lists: arrays.lists(numbering),
            pieces: arrays.pieces(numbering),
            bitmap_words: plan.bitmap_words(),
        };
        executor.launch(COUNT_POINTS, plan.list_launch(), args)?;
        executor.launch(PLACE_LISTS, plan.place_launch(numbering), args)?;
        executor.launch(FILL_LISTS, plan.list_launch(), args)?;
        executor.launch(SORT_LISTS, plan.sort_launch(numbering), args)
    }
}

/// Adds up what belongs to each tile.
///
/// # Safety
///
/// As for [`backward`].
unsafe fn launch_gather<K: Kernels, E: Executor>(
    executor: &E,
    plan: &Plan,
    numbering: &Numbering,
    arrays: &BackwardArrays<K>,
) -> Result<()> {
    let maps = (plan.sizes.cameras * plan.sizes.levels) as usize;
    let &BackwardArrays { weights, grad_output, grad_features, .. } = arrays;
    let (blocks_at_a_time, step) = plan.gather_steps(numbering);
    let vectors = plan.weight_vectors::<K>(aligned(&[weights.addr()]));
    let args = GatherArgs {
        sizes: plan.sizes,
        maps: arrays.table,
        tiles: arrays.table.wrapping_add(2 * maps).cast(),
        shared_blocks: numbering.shared_blocks,
        blocks_at_a_time,
        step,
        by_batch: Divisor::new(plan.sizes.batch),
        lists: arrays.lists(numbering),
        pieces: arrays.pieces(numbering),
        samples: plan.gather_samples(),
        by_staged: Divisor::new(plan.groups_of_tile()),
        vectors,
        by_vectors: Divisor::new(vectors),
        words_per_warp: plan.gather_warp_words(),
        locations: arrays.locations,
        weights,
        grad_output,
        grad_features,
    };
    let wide = plan.forward_is_wide::<K>() && aligned(&[grad_output.addr(), grad_features.addr()]);
    let entry = if wide { K::GATHER_WIDE } else { K::GATHER_ANY };
    // SAFETY: the caller's promise.
    unsafe { executor.launch(entry, plan.gather_launch(numbering), args) }
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
    let rows = plan.backward_rows::<K>(aligned(&pointers));
    let entries = [K::SCATTER_WIDE, K::SCATTER_UNEVEN, K::SCATTER_ANY];
    let args = arrays.args(plan, sums.target);
    // SAFETY: the caller's promise.
    unsafe {
        sums.clear(executor, "feature gradient")?;
        launch_per_anchor(executor, plan, rows, entries, args)?;
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
        window: plan.backward_window(),
        leaves_unseen: 0,
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
