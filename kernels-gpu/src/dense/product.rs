//! The tiles of a block in a product of matrices: sums over `depth`.
//!
//! The block moves its lines of both operands through shared memory, in panels of eight words of depth. While some are
//! multiplied, the next ones are under way to registers, and from there they go to panels that nobody reads. Each warp has a
//! tile, and where there are fewer tiles than warps, every so many panels of one: then the warps' sums are added up in the end, in a
//! fixed order.
//!
//! A lane has eight columns of four rows: which ones, [`Left::of_lane`] and [`Arithmetic::put_row`] say.

use crate::dense::arithmetic::Arithmetic;
use crate::dense::operand::{Left, Operand, Right, Side};
use crate::dense::share::{Loaded, Share};
use crate::dense::staged::Staged;
use crate::limits::WARP_LANES;
use crate::memory::{self, SharedWords};
use crate::tiles::Tiles;
use crate::unroll::{array8, each4};
use cuda_std::thread;

/// A lane's sums: four rows of eight columns.
pub(crate) type Sums = [f32; 32];

/// What of a block's product a warp computes.
#[derive(Clone, Copy)]
struct Place {
    tiles: Tiles,
    warp: u32,
    lane: u32,
}

impl Place {
    /// The calling warp's place in a block that has these tiles. Computed anew where it is needed, which costs less than the
    /// registers that keep it.
    #[inline(always)]
    fn new(tiles: Tiles) -> Self {
        let thread = memory::opaque(thread::thread_idx_x());
        Self { tiles, warp: thread / WARP_LANES, lane: thread % WARP_LANES }
    }

    /// The first row and column of a tile of the block.
    #[inline(always)]
    fn corner(self, tile: u32) -> [u32; 2] {
        let across = self.tiles.across();
        [tile >> across, tile & ((1 << across) - 1)].map(|number| number * Tiles::SIDE)
    }

    /// What the warp has of the operands in the first panels: of its tile, where its part of the depth begins.
    #[inline(always)]
    fn staged<M: Arithmetic, L: Operand, R: Operand>(self) -> [Staged; 2] {
        let Self { tiles, warp, lane } = self;
        let tile = warp & ((1 << tiles.exponent()) - 1);
        let panel = (warp >> tiles.exponent()) * tiles.panel_words();
        let [row, column] = self.corner(tile);
        let [left_pitch, right_pitch] = [Left::pitch(tiles), Right::pitch(tiles)];
        let left = if L::ALONG_DEPTH { Left::line(row) } else { row };
        let left = left + M::left_start::<L>(lane, left_pitch);
        let right = if R::ALONG_DEPTH { Right::line(column) } else { column };
        let right = right + Right::start(tiles) + M::right_start::<R>(lane, right_pitch);
        // Kept, and not computed anew in every step.
        let [left, right] = [panel + left, panel + right].map(memory::opaque);
        [
            Staged::new(SharedWords::new(left), left_pitch),
            Staged::new(SharedWords::new(right), right_pitch),
        ]
    }
}

/// Where a product begins: in each operand, with which line and which depth.
#[derive(Clone, Copy)]
pub(crate) struct Start {
    pub(crate) lines: [u64; 2],
    pub(crate) depths: [u64; 2],
}

/// Adds to a lane's sums of the warp's tile the products of `depths` depths, as far as they are the warp's. Where there is a
/// `look`, the threads call it with all numbers of the block's lines of the left operand, as they go by, four neighbours in memory at a time, and how
/// many depths come before them. Beyond these depths both operands are zeros.
///
/// # Safety
///
/// A block of [`Tiles::THREADS`] makes the call together, with [`Tiles::shared_bytes`] of shared memory, which nobody uses
/// otherwise meanwhile; the operands' pointers are valid as they say, and have these depths.
#[inline(always)]
pub(crate) unsafe fn product<M: Arithmetic, L: Operand, R: Operand>(
    operands: (L, R),
    start: Start,
    depths: u32,
    tiles: Tiles,
    sums: &mut Sums,
    look: Option<impl FnMut(u32, [f32; 4])>,
) {
    if depths == 0 {
        return;
    }
    let steps = Steps::new::<M>(operands, start, tiles);
    // SAFETY: the caller's promise; wide accesses only where both operands have them.
    unsafe {
        if steps.are_wide() {
            multiply_wide::<M, L, R>(steps, depths, sums, look);
        } else {
            multiply_narrow::<M, L, R>(steps, depths, sums, look);
        }
    }
    // The panels may be written again.
    thread::sync_threads();
}

/// As [`product`], where both operands are wide: while a step is multiplied the next one is under way.
///
/// # Safety
///
/// As for [`product`]; the operands [are wide](Steps::are_wide), and there are depths.
#[inline(always)]
unsafe fn multiply_wide<M: Arithmetic, L: Operand, R: Operand>(
    mut steps: Steps<L, R>,
    depths: u32,
    sums: &mut Sums,
    mut look: Option<impl FnMut(u32, [f32; 4])>,
) {
    // The first step has what is left over when all others are whole, so that nothing has to ask in those which depths exist. It is
    // loaded before the loop, and the last one multiplied behind it: a choice inside would move all sums to where its ways meet.
    // A step's depths are a power of two.
    let over = ((depths - 1) & (steps.depths - 1)) + 1;
    let mut left = depths - over;
    // SAFETY: the caller's promise. Panels are read when they are complete, and written when everyone has read them.
    unsafe {
        let loaded = steps.load::<M, true>(over);
        steps.put::<M>(&loaded, over, &mut look);
        while left > 0 {
            let loaded = steps.load_whole::<M>();
            steps.multiply::<M>(sums);
            steps.put::<M>(&loaded, steps.depths, &mut look);
            left -= steps.depths;
        }
        steps.multiply::<M>(sums);
    }
}

/// As [`product`], for any operands: one step after the other.
///
/// # Safety
///
/// As for [`product`].
#[inline(always)]
unsafe fn multiply_narrow<M: Arithmetic, L: Operand, R: Operand>(
    mut steps: Steps<L, R>,
    depths: u32,
    sums: &mut Sums,
    mut look: Option<impl FnMut(u32, [f32; 4])>,
) {
    let mut left = depths;
    while left > 0 {
        let count = left.min(steps.depths);
        // SAFETY: the caller's promise; as above.
        unsafe {
            let loaded = steps.load::<M, false>(count);
            steps.put::<M>(&loaded, count, &mut look);
            steps.multiply::<M>(sums);
        }
        left -= count;
    }
}

/// What a thread has loaded of both operands.
type LoadedOf<L, R> = (Loaded<L>, Loaded<R>);

/// A block's way through the depth.
struct Steps<L: Operand, R: Operand> {
    tiles: Tiles,
    /// Depths of a step.
    depths: u32,
    shares: (Share<L, Left>, Share<R, Right>),
    /// What the warp has of the operands in the first panels.
    staged: [Staged; 2],
    /// Where the panels begin that are complete, and those that nobody reads.
    panels: [u32; 2],
    /// Depths that have been staged.
    done: u32,
}

impl<L: Operand, R: Operand> Steps<L, R> {
    #[inline(always)]
    fn new<M: Arithmetic>((left, right): (L, R), start: Start, tiles: Tiles) -> Self {
        Self {
            tiles,
            // Kept, and not computed anew in every step.
            depths: memory::opaque(Tiles::DEPTH * tiles.panels() * M::DEPTHS),
            shares: (
                Share::new::<M>(left, start.lines[0], start.depths[0], tiles),
                Share::new::<M>(right, start.lines[1], start.depths[1], tiles),
            ),
            staged: Place::new(tiles).staged::<M, L, R>(),
            panels: [tiles.step_words(), 0],
            done: 0,
        }
    }

    /// Whether all runs of both operands are aligned, and whole or outside.
    #[inline(always)]
    fn are_wide(&self) -> bool {
        let (of_left, of_right) = &self.shares;
        of_left.is_wide() && of_right.is_wide()
    }

    /// Loads the thread's share of a step of `count` depths, which are a whole step at most.
    ///
    /// # Safety
    ///
    /// The operands are valid as they say; `WIDE` only if they [are](Self::are_wide).
    #[inline(always)]
    unsafe fn load<M: Arithmetic, const WIDE: bool>(&mut self, count: u32) -> LoadedOf<L, R> {
        let (of_left, of_right) = &mut self.shares;
        // SAFETY: the caller's promise.
        unsafe { (of_left.load::<M, WIDE>(count), of_right.load::<M, WIDE>(count)) }
    }

    /// As [`load`](Self::load), of a whole step of wide operands.
    ///
    /// # Safety
    ///
    /// As for [`load`](Self::load).
    #[inline(always)]
    unsafe fn load_whole<M: Arithmetic>(&mut self) -> LoadedOf<L, R> {
        let (of_left, of_right) = &mut self.shares;
        // SAFETY: the caller's promise.
        unsafe { (of_left.load_whole::<M>(self.depths), of_right.load_whole::<M>(self.depths)) }
    }

    /// Moves what was loaded of `count` depths to the panels that nobody reads, shows it to `look`, and waits until all threads have.
    /// From then on those are the panels that are complete.
    ///
    /// # Safety
    ///
    /// The whole block makes the call.
    #[inline(always)]
    unsafe fn put<M: Arithmetic>(
        &mut self,
        (lefts, rights): &LoadedOf<L, R>,
        count: u32,
        look: &mut Option<impl FnMut(u32, [f32; 4])>,
    ) {
        let [complete, free] = self.panels;
        let (of_left, of_right) = &self.shares;
        // SAFETY: the last reads of what was there were before the barrier.
        unsafe {
            of_left.put::<M>(lefts, free);
            of_right.put::<M>(rights, free);
        }
        if let Some(look) = look {
            of_left.look::<M>(lefts, |before, numbers| {
                look(before.saturating_add(self.done), numbers);
            });
        }
        thread::sync_threads();
        self.panels = [free, complete];
        self.done += count;
    }

    /// Adds the products of the panels that are complete, as far as they are the warp's, to its sums.
    ///
    /// # Safety
    ///
    /// The whole block makes the call, after [`put`](Self::put).
    #[inline(always)]
    unsafe fn multiply<M: Arithmetic>(&self, sums: &mut Sums) {
        let [left, right] = self.staged;
        let mut panel = self.panels[0];
        let mut turn = 0;
        // A loop also in the machine code: over its ends the assembler carries neither the loads that are under way, which it would put
        // behind the products, nor what is made of them, which would wait for them before the products.
        while turn < self.tiles.panels_of_part() {
            turn = memory::turn(turn) + 1;
            // SAFETY: the panels are complete since the barrier, and not written before the next.
            unsafe { M::multiply::<L, R>(left.from(panel), right.from(panel), sums) };
            panel += self.tiles.parts() * self.tiles.panel_words();
        }
    }
}

/// What the warps of a block have summed up, row by row: first each warp's sums, and then those of the warps of each tile, added up in a
/// fixed order.
pub(crate) struct Totals {
    tiles: Tiles,
    /// The eight rows of a tile whose turn it is.
    unit: u32,
}

impl Totals {
    /// Of the sums of all lanes. `along_depth` is the left operand's.
    ///
    /// # Safety
    ///
    /// The whole block makes the call, after [`product`].
    #[inline(always)]
    pub(crate) unsafe fn new<M: Arithmetic>(tiles: Tiles, along_depth: bool, sums: &Sums) -> Self {
        let Place { warp, lane, .. } = Place::new(tiles);
        each4(|index| {
            let row = Self::row(warp, Left::of_lane(along_depth, lane, index as u32));
            // SAFETY: the lane's own sums; the barrier behind the product has passed since the words were read.
            unsafe { M::put_row(row, lane, array8(|column| sums[8 * index + column])) };
        });
        thread::sync_threads();
        // The rows of all tiles are dealt out to the warps, eight at a time.
        Self { tiles, unit: warp }
    }

    /// Where a row of a warp's sums begins.
    #[inline(always)]
    fn row(warp: u32, row: u32) -> SharedWords {
        SharedWords::new(warp * Tiles::SUMS + row * Tiles::SUMS_ROW)
    }

    /// The lane's next share of the results: a row and a column of the block, and the row's eight sums from that column on.
    ///
    /// # Safety
    ///
    /// The whole warp makes the call, and nobody has written to shared memory since [`new`](Self::new).
    #[inline(always)]
    pub(crate) unsafe fn next(&mut self) -> Option<([u32; 2], [f32; 8])> {
        let exponent = self.tiles.exponent();
        if self.unit >= 4 << exponent {
            return None;
        }
        let (tile, index) = (self.unit & ((1 << exponent) - 1), self.unit >> exponent);
        let place = Place::new(self.tiles);
        let (row, column) = (place.lane / 4 + 8 * index, place.lane % 4 * 8);
        let mut total = [0.0; 8];
        for part in 0..self.tiles.parts() {
            let words = Self::row((part << exponent) + tile, row).from(column);
            // SAFETY: written before the barrier.
            let [low, high] = unsafe { [words.get4(0), words.get4(4)] };
            each4(|column| total[column] += f32::from_bits(low[column]));
            each4(|column| total[4 + column] += f32::from_bits(high[column]));
        }
        self.unit += Tiles::THREADS / WARP_LANES;
        let [down, across] = place.corner(tile);
        Some(([down + row, across + column], total))
    }
}
