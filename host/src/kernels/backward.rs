//! Which kernels make up a backward call.

use std::ptr;

use kernels_gpu::args::{BackwardArgs, Divisor, GatherArgs, Level, ListArgs, Lists, Pieces};
use kernels_gpu::{COUNT_POINTS, Entry, FILL_LISTS, Kernels, MANY_POINTS, PLACE_LISTS, SORT_LISTS};

use crate::algorithm::Algorithm;
use crate::error::{Error, Result};
use crate::kernels::executor::{Begins, Executor};
use crate::kernels::numbering::Numbering;
use crate::kernels::plan::{Plan, Rows};
use crate::kernels::sums::{Sums, aligned};

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
    let call = Backward::new(plan, algorithm, arrays)?;
    // SAFETY: the caller's promise.
    unsafe {
        if call.adds() {
            call.prepare(executor)?;
            call.visit(executor)?;
        } else {
            call.visit_beside(executor, |_| Ok(()))?;
        }
        call.finish(executor)
    }
}

/// A backward call in three parts, for who has something to do beside one of them.
///
/// The safety of each is that of [`backward`].
pub(crate) struct Backward<'a, K> {
    plan: &'a Plan,
    way: Way<'a>,
    arrays: BackwardArrays<K>,
}

/// Where the feature gradient comes from.
#[derive(Clone, Copy)]
enum Way<'a> {
    /// The published algorithm adds to it, and to the other gradients.
    Naive,
    /// A block for each anchor adds to it.
    Scatter,
    /// Each tile of pixels adds up what is in its list.
    Gather(&'a Numbering),
}

impl<'a, K: Kernels> Backward<'a, K> {
    /// Chooses how.
    pub(crate) fn new(
        plan: &'a Plan,
        algorithm: Algorithm,
        arrays: BackwardArrays<K>,
    ) -> Result<Self> {
        let way = match (algorithm, gathered::<K>(plan, algorithm)?) {
            (Algorithm::Naive, _) => Way::Naive,
            (_, None) => Way::Scatter,
            (_, Some(numbering)) => Way::Gather(numbering),
        };
        Ok(Self { plan, way, arrays })
    }

    /// Whether [`visit`](Self::visit) adds to what [`prepare`](Self::prepare) has cleared.
    fn adds(&self) -> bool {
        !matches!(self.way, Way::Gather(_))
    }

    /// [`prepare`](Self::prepare), and beside it what `before` launches; and [`visit`](Self::visit), which comes after the latter.
    ///
    /// # Safety
    ///
    /// As for [`backward`]; of its arrays `before` writes the output gradient only.
    pub(crate) unsafe fn visit_beside<E: Executor>(
        &self,
        executor: &E,
        before: impl FnOnce(&E) -> Result<()>,
    ) -> Result<()> {
        // A block of `visit` has all points of an anchor.
        let many = self.plan.sizes.points >= MANY_POINTS;
        let begins = if many { Begins::Second } else { Begins::First };
        let visits_after = self.adds();
        // SAFETY: the caller's promise; the lists, which nobody looks at before `finish`, or sums that wait for `visit`.
        unsafe {
            executor.together(
                begins,
                |executor| {
                    before(executor)?;
                    if visits_after { Ok(()) } else { self.visit(executor) }
                },
                |executor| self.prepare(executor),
            )?;
            if visits_after { self.visit(executor) } else { Ok(()) }
        }
    }

    /// What needs no output gradient: the lists of what touches each tile, or zeros to add to.
    ///
    /// # Safety
    ///
    /// As for [`backward`].
    unsafe fn prepare<E: Executor>(&self, executor: &E) -> Result<()> {
        let Self { plan, way, arrays } = self;
        // SAFETY: the caller's promise.
        unsafe {
            match way {
                Way::Naive => {
                    let [features, weights] = self.sums();
                    let locations = arrays.grad_locations.cast();
                    features.clear(executor, "feature gradient")?;
                    weights.clear(executor, "weight gradient")?;
                    executor.zero("location gradient", locations, 4 * plan.locations)
                }
                Way::Scatter => self.sums()[0].clear(executor, "feature gradient"),
                Way::Gather(numbering) => {
                    if numbering.has_gaps {
                        let bytes = plan.features * size_of::<K>();
                        executor.zero("feature gradient", arrays.grad_features.cast(), bytes)?;
                    }
                    self.list(executor, numbering)
                }
            }
        }
    }

    /// The gradients of locations and weights, and what is added to that of the features.
    ///
    /// # Safety
    ///
    /// As for [`backward`].
    unsafe fn visit<E: Executor>(&self, executor: &E) -> Result<()> {
        let Self { plan, way, arrays } = self;
        if !plan.has_anchors() {
            return Ok(());
        }
        let [features, weights] = self.sums();
        // SAFETY: the caller's promise.
        unsafe {
            match way {
                Way::Naive => {
                    let args = arrays.args(plan, features.target, weights.target);
                    executor.launch(K::BACKWARD_NAIVE, plan.naive_launch(), args)?;
                    weights.round(executor)
                }
                Way::Scatter => {
                    let entries = [K::SCATTER_WIDE, K::SCATTER_UNEVEN, K::SCATTER_ANY];
                    self.visit_anchors(executor, entries, features.target)
                }
                Way::Gather(_) => {
                    let entries = [K::BACKWARD_WIDE, K::BACKWARD_UNEVEN, K::BACKWARD_ANY];
                    self.visit_anchors(executor, entries, ptr::null_mut())
                }
            }
        }
    }

    /// What comes after both: the feature gradient, where it is not the sums themselves.
    ///
    /// # Safety
    ///
    /// As for [`backward`].
    pub(crate) unsafe fn finish<E: Executor>(&self, executor: &E) -> Result<()> {
        // SAFETY: the caller's promise.
        unsafe {
            match self.way {
                Way::Naive | Way::Scatter => self.sums()[0].round(executor),
                Way::Gather(numbering) => self.gather(executor, numbering),
            }
        }
    }

    /// What the feature and the weight gradient are added up in, where they are.
    fn sums(&self) -> [Sums<K>; 2] {
        let Self { plan, arrays, .. } = self;
        let behind = arrays.scratch.wrapping_add(plan.features);
        [
            Sums::new(arrays.scratch, arrays.grad_features, plan.features),
            Sums::new(behind, arrays.grad_weights, plan.weights),
        ]
    }

    /// Launches a kernel with a block per anchor, which adds to `sums` if it adds.
    ///
    /// # Safety
    ///
    /// As for [`backward`].
    unsafe fn visit_anchors<E: Executor>(
        &self,
        executor: &E,
        [wide, uneven, any]: [Entry<BackwardArgs<K>>; 3],
        sums: *mut f32,
    ) -> Result<()> {
        let Self { plan, arrays, .. } = self;
        let pointers = [arrays.features.addr(), arrays.grad_output.addr(), sums.addr()];
        let rows = plan.backward_rows::<K>(aligned(&pointers));
        let entry = match rows {
            Rows::Wide => wide,
            Rows::Uneven => uneven,
            Rows::Any => any,
        };
        let args = arrays.args(plan, sums, arrays.grad_weights);
        // SAFETY: the caller's promise.
        unsafe { executor.launch(entry, plan.backward_launch(rows), args) }
    }

    /// Makes the lists of what touches each tile.
    ///
    /// # Safety
    ///
    /// As for [`backward`].
    unsafe fn list<E: Executor>(&self, executor: &E, numbering: &Numbering) -> Result<()> {
        let Self { plan, arrays, .. } = self;
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
    unsafe fn gather<E: Executor>(&self, executor: &E, numbering: &Numbering) -> Result<()> {
        let Self { plan, arrays, .. } = self;
        if numbering.blocks * plan.sizes.batch == 0 {
            return Ok(());
        }
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
        let wide =
            plan.forward_is_wide::<K>() && aligned(&[grad_output.addr(), grad_features.addr()]);
        let entry = if wide { K::GATHER_WIDE } else { K::GATHER_ANY };
        // SAFETY: the caller's promise.
        unsafe { executor.launch(entry, plan.gather_launch(numbering), args) }
    }
}

impl<K> BackwardArrays<K> {
    fn args<W>(
        &self,
        plan: &Plan,
        grad_features: *mut f32,
        grad_weights: *mut W,
    ) -> BackwardArgs<K, W> {
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
            grad_weights,
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
