//! What one thread of a block moves to shared memory.

use core::marker::PhantomData;

use crate::dense::arithmetic::Arithmetic;
use crate::dense::operand::{Operand, RunOf, Side};
use crate::dense::rows::{Matrix, Plain};
use crate::memory::{self, SharedWords};
use crate::tiles::Tiles;
use crate::unroll::upto8;
use cuda_std::thread;

/// Most runs of four words that a thread moves in a step of depth.
const RUNS: usize = 2;

/// What a thread has loaded: the runs of even number belong to the first depth of a word, the others to the second.
pub(crate) type Loaded<O> = [RunOf<O>; 2 * RUNS];

/// The words of a step of depth that one thread moves: runs of four, at equal distances.
pub(crate) struct Share<O: Operand, S> {
    operand: O,
    /// Where the next step has them; where they have no line, where the last one has. Where lines are neighbours, only the first.
    pointers: [*const <O::Matrix as Matrix>::Element; RUNS],
    /// Depths of a step before each; all there can be where it has no line. Where lines are neighbours, only the first.
    before: [u32; RUNS],
    /// Depths between them.
    apart: u32,
    /// The block's first line, and how many lines a block has.
    line: u64,
    of_block: u32,
    /// Where the first goes in a step's panels, and how far behind it the next.
    place: SharedWords,
    to_next: u32,
    count: usize,
    side: PhantomData<S>,
}

impl<O: Operand, S: Side> Share<O, S> {
    /// The share of an operand of which the block's lines begin at `line`, and its depth at `depth`.
    #[inline(always)]
    pub(crate) fn new<M: Arithmetic>(operand: O, line: u64, depth: u64, tiles: Tiles) -> Self {
        let &Plain { pointer, rows, columns, stride, .. } = operand.matrix().plain();
        // Computed anew for every product, which costs less than the registers that keep what products have in common.
        let thread = memory::opaque(thread::thread_idx_x());
        let lines = S::lines(tiles);
        let words = Tiles::DEPTH * tiles.panels();
        // Neighbouring threads have neighbours in memory: as many of them as this power of two.
        let along = (if O::ALONG_DEPTH { words } else { lines } / 4).trailing_zeros();
        let (across, first) = (thread >> along, (thread & ((1 << along) - 1)) * 4);
        let distance = Tiles::THREADS >> along;
        let panel_words = tiles.panel_words();
        let at = |row: u64, column: u64| {
            pointer.wrapping_add((row * u64::from(stride) + column) as usize)
        };
        let (pointers, before, apart, place, to_next);
        if O::ALONG_DEPTH {
            let (word, of_lines) = (first, [across, across + distance].map(|of| line + u64::from(of)));
            let skipped = word * M::DEPTHS;
            let last = rows.saturating_sub(1);
            pointers = of_lines.map(|line| at(line.min(last), depth + u64::from(skipped)));
            before = of_lines.map(|line| if line < rows { skipped } else { u32::MAX });
            place = word / Tiles::DEPTH * panel_words + S::line(across) + word % Tiles::DEPTH;
            apart = 0;
            // So many lines that the gaps between them are the same from wherever one counts.
            to_next = S::line(distance);
        } else {
            let (word, line) = (across, line + u64::from(first));
            let skipped = word * M::DEPTHS;
            let (exists, last) = (line < u64::from(columns), columns.saturating_sub(4));
            let there = if exists { line } else { u64::from(last) };
            pointers = [at(depth + u64::from(skipped), there); RUNS];
            before = [if exists { skipped } else { u32::MAX }; RUNS];
            apart = distance * M::DEPTHS;
            place = word / Tiles::DEPTH * panel_words + word % Tiles::DEPTH * S::pitch(tiles) + first;
            // Whole panels.
            to_next = distance / Tiles::DEPTH * panel_words;
        }
        Self {
            operand,
            pointers,
            before,
            apart,
            line,
            of_block: lines,
            place: SharedWords::new(S::start(tiles) + place),
            to_next,
            count: (lines * words / (4 * Tiles::THREADS)) as usize,
            side: PhantomData,
        }
    }

    /// Calls `body` with the number of each of the thread's runs.
    #[inline(always)]
    fn each(count: usize, mut body: impl FnMut(usize)) {
        // Every thread has one.
        body(0);
        upto8(RUNS - 1, |index| {
            if index + 1 < count {
                body(index + 1);
            }
        });
    }

    /// Whether all runs are aligned to their size, and whole or outside.
    #[inline(always)]
    pub(crate) fn is_wide(&self) -> bool {
        self.operand.matrix().plain().wide
    }

    /// Loads the runs of a step of `count` depths, and goes on to what comes behind them. Beyond these depths there are zeros.
    ///
    /// # Safety
    ///
    /// The pointers of the operand are valid as it says; `WIDE` as for [`Matrix::load`].
    #[inline(always)]
    pub(crate) unsafe fn load<M: Arithmetic, const WIDE: bool>(&mut self, count: u32) -> Loaded<O> {
        let mut runs = [O::Matrix::ZEROS; 2 * RUNS];
        let matrix = self.operand.matrix();
        // No branch around the second run: what is loaded behind one would be moved to where the branches meet, and so waited for.
        upto8(RUNS, |index| {
            let before = if index < self.count { self.before(index) } else { u32::MAX };
            let (near, far) = if O::ALONG_DEPTH {
                let near = count.saturating_sub(before);
                (near, near.saturating_sub(4))
            } else {
                let lines = |before: u32| match before < count {
                    true if WIDE => 4,
                    true => self.lines(),
                    false => 0,
                };
                (lines(before), lines(before.saturating_add(1)))
            };
            // SAFETY: the caller's promise; so many elements of the line, or lines, exist.
            runs[2 * index] = unsafe { matrix.load::<WIDE>(self.near(index), near) };
            if M::DEPTHS == 2 {
                // SAFETY: the caller's promise.
                runs[2 * index + 1] = unsafe { matrix.load::<WIDE>(self.far(index), far) };
            }
        });
        self.go_on(count);
        runs
    }

    /// As [`load`](Self::load), of a step whose depths all exist, for a matrix that is wide. Where a run has no line, another one's
    /// numbers come for it: nobody takes the sums that they go into.
    ///
    /// # Safety
    ///
    /// As for [`load`](Self::load); the operand has lines.
    #[inline(always)]
    pub(crate) unsafe fn load_whole<M: Arithmetic>(&mut self, step: u32) -> Loaded<O> {
        let mut runs = [O::Matrix::ZEROS; 2 * RUNS];
        let matrix = self.operand.matrix();
        upto8(RUNS, |index| {
            // Every thread has a first one.
            let live = index == 0 || index < self.count;
            let pointer = self.near(index);
            // SAFETY: the caller's promise; eight neighbours in depth begin at a multiple of eight.
            unsafe {
                if O::ALONG_DEPTH && M::DEPTHS == 2 {
                    [runs[2 * index], runs[2 * index + 1]] = matrix.load_two(pointer, live);
                } else {
                    let count = if live { 4 } else { 0 };
                    runs[2 * index] = matrix.load::<true>(pointer, count);
                    if M::DEPTHS == 2 {
                        runs[2 * index + 1] = matrix.load::<true>(self.far(index), count);
                    }
                }
            }
        });
        self.go_on(step);
        runs
    }

    /// Where the first depths of a run's words are.
    #[inline(always)]
    fn near(&self, index: usize) -> *const <O::Matrix as Matrix>::Element {
        if O::ALONG_DEPTH {
            return self.pointers[index];
        }
        // Computed anew, which costs less than the registers that keep it.
        let stride = self.operand.matrix().plain().stride;
        self.pointers[0].wrapping_add(index * self.apart as usize * stride as usize)
    }

    /// Where the second depths are.
    #[inline(always)]
    fn far(&self, index: usize) -> *const <O::Matrix as Matrix>::Element {
        let stride = self.operand.matrix().plain().stride;
        self.near(index).wrapping_add(if O::ALONG_DEPTH { 4 } else { stride as usize })
    }

    /// Depths of a step before a run.
    #[inline(always)]
    fn before(&self, index: usize) -> u32 {
        if O::ALONG_DEPTH {
            return self.before[index];
        }
        self.before[0].saturating_add(index as u32 * self.apart)
    }

    /// Goes on to the next step.
    #[inline(always)]
    fn go_on(&mut self, step: u32) {
        let stride = self.operand.matrix().plain().stride;
        let distance = step as usize * if O::ALONG_DEPTH { 1 } else { stride as usize };
        // Otherwise the compiler counts how far it has come, and adds that to where it began: twice the work.
        self.pointers =
            self.pointers.map(|pointer| memory::opaque_pointer(pointer.wrapping_add(distance)));
    }

    /// Elements of each run that exist, at most four, where lines are neighbours in memory. Computed anew, for it is for matrices
    /// only that are read one by one.
    #[inline(always)]
    fn lines(&self) -> u32 {
        let thread = memory::opaque(thread::thread_idx_x());
        let first = self.line + u64::from((thread & (self.of_block / 4 - 1)) * 4);
        let columns = u64::from(self.operand.matrix().plain().columns);
        columns.saturating_sub(first).min(4) as u32
    }

    /// Calls `look` with every run's numbers and how many depths of the step come before them.
    #[inline(always)]
    pub(crate) fn look<M: Arithmetic>(&self, runs: &Loaded<O>, mut look: impl FnMut(u32, [f32; 4])) {
        let matrix = self.operand.matrix();
        Self::each(self.count, |index| {
            look(self.before(index), matrix.values(runs[2 * index]));
            if M::DEPTHS == 2 {
                let far = if O::ALONG_DEPTH { 4 } else { 1 };
                look(self.before(index).saturating_add(far), matrix.values(runs[2 * index + 1]));
            }
        });
    }

    /// Writes the runs to the panels that begin at word `panels`.
    ///
    /// # Safety
    ///
    /// Nobody reads there meanwhile, and every thread writes its own share.
    #[inline(always)]
    pub(crate) unsafe fn put<M: Arithmetic>(&self, runs: &Loaded<O>, panels: u32) {
        let place = self.place.from(panels);
        Self::each(self.count, |index| {
            let words = self.operand.words::<M>([runs[2 * index], runs[2 * index + 1]]);
            // SAFETY: the share's own words.
            unsafe { place.set4(self.to_next * index as u32, words) };
        });
    }
}
