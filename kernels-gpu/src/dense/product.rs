//! A tile of a product of matrices: 64 by 32 sums over `depth`, by warps that share the depth.
//!
//! Each warp of a block computes all sums of the tile, eight by eight a lane, over every eighth word of depth and its neighbours:
//! the block moves eight words of depth for each of its warps through shared memory at a time, with the next ones already under
//! way, and in the end the warps' sums are added up, in a fixed order. So a small product has eight warps a tile that load
//! long stretches of its lines at the same time. Of a large one, where there are tiles enough, a block computes two side by
//! side, with half of the warps for each.
//!
//! Lane `4 g + t` has columns `8 t` to `8 t + 7` of eight rows: see [`Side::of_lane`].

use core::ops::Range;

use crate::dense::arithmetic::Arithmetic;
use crate::limits::{PRODUCT_COLUMNS, PRODUCT_ROWS, PRODUCT_THREADS, WARP_LANES, product_words};
use crate::memory::SharedWords;
use crate::unroll::{array4, array8, each4, each8, upto8};
use cuda_std::thread;

/// A lane's sums: eight rows of eight columns.
pub(crate) type Sums = [f32; 64];

/// A matrix as a product reads it: lines, which are rows or columns of the product, by depth.
pub(crate) trait Operand {
    /// A line.
    type Line: Copy;
    /// Four neighbours in memory, as they come from there.
    type Run: Copy;

    /// Whether neighbours in memory are neighbours in depth, or else neighbouring lines.
    const ALONG_DEPTH: bool;

    /// Nothing but zeros.
    const ZEROS: Self::Run;

    /// A line, which need not exist.
    fn line(&self, line: u64) -> Self::Line;

    /// Whether all runs are aligned to their size, and whole or outside.
    fn is_wide(&self) -> bool;

    /// Four neighbours in memory, from the given line and depth on; zeros outside the matrix.
    ///
    /// # Safety
    ///
    /// The pointers of the matrix are valid as it says; `WIDE` only if it [is](Self::is_wide).
    unsafe fn load<const WIDE: bool>(&self, line: Self::Line, depth: u64) -> Self::Run;

    /// The words of a step of depth that two runs make, or one where a word has one depth.
    fn words<M: Arithmetic>(runs: [Self::Run; 2]) -> [u32; 4];
}

/// Which operand of a product.
pub(crate) trait Side {
    /// Most runs of four words that a thread moves in a step of depth.
    const RUNS: usize;
    /// Words between neighbours in depth, where lines are neighbours in memory.
    const PITCH: u32;
    /// First word of the operand among those of a warp.
    const START: u32;
    /// Lines of a warp.
    const LINES: u32;

    /// Lines of a block. Tiles side by side have the left operand in common.
    fn lines(paired: u32) -> u32;

    /// The line of a tile that a lane has as its line `index` of eight.
    fn of_lane(along_depth: bool, lane: u32, index: u32) -> u32;

    /// Where the words of a line begin, where depths are neighbours in memory. The gaps see to it that what the lanes of a warp
    /// read together lies in different banks.
    fn line(line: u32) -> u32;
}

/// The left operand: 64 lines.
pub(crate) struct Left;

impl Side for Left {
    const RUNS: usize = 4;
    const PITCH: u32 = 68;
    const START: u32 = 0;
    const LINES: u32 = PRODUCT_ROWS;

    #[inline(always)]
    fn lines(_: u32) -> u32 {
        Self::LINES
    }

    #[inline(always)]
    fn of_lane(along_depth: bool, lane: u32, index: u32) -> u32 {
        let group = lane / 4;
        // Lines that are neighbours in memory are read four at a time.
        if along_depth { group + 8 * index } else { index / 4 * 32 + 4 * group + index % 4 }
    }

    #[inline(always)]
    fn line(line: u32) -> u32 {
        product_words::DEPTH * line + line / 4 * 4
    }
}

/// The right operand: 32 lines.
pub(crate) struct Right;

impl Side for Right {
    const RUNS: usize = 2;
    const PITCH: u32 = 36;
    const START: u32 = product_words::RIGHT;
    const LINES: u32 = PRODUCT_COLUMNS;

    #[inline(always)]
    fn lines(paired: u32) -> u32 {
        Self::LINES << paired
    }

    #[inline(always)]
    fn of_lane(_: bool, lane: u32, index: u32) -> u32 {
        lane % 4 * 8 + index
    }

    #[inline(always)]
    fn line(line: u32) -> u32 {
        product_words::DEPTH * line + line / 4 * 8 + line / 16 * 4
    }
}

/// The words of a step of depth that one thread moves: runs of four.
#[derive(Clone, Copy)]
struct Share<O: Operand> {
    lines: [O::Line; 4],
    /// Words of depth before the runs.
    words: [u32; 4],
    /// Where they go in shared memory.
    places: [u32; 4],
    count: usize,
}

impl<O: Operand> Share<O> {
    /// The share of an operand of which the block's lines begin at `line`.
    #[inline(always)]
    fn new<S: Side>(operand: &O, line: u64, paired: u32) -> Self {
        let thread = thread::thread_idx_x();
        let parts = product_words::WARPS >> paired;
        let of_block = S::lines(paired);
        // Neighbouring threads have neighbours in memory: as many of them as this power of two.
        let along = if O::ALONG_DEPTH {
            (2 * product_words::WARPS).trailing_zeros() - paired
        } else {
            (S::LINES / 4).trailing_zeros() + of_block / S::LINES - 1
        };
        let places = array4(|index| {
            let run = thread + PRODUCT_THREADS * index as u32;
            let (across, along) = (run >> along, (run & ((1 << along) - 1)) * 4);
            if O::ALONG_DEPTH { [across, along] } else { [along, across] }
        });
        Self {
            lines: array4(|index| operand.line(line + u64::from(places[index][0]))),
            words: array4(|index| places[index][1]),
            places: array4(|index| {
                let [line, word] = places[index];
                let (tile, line) = (line / S::LINES, line % S::LINES);
                let (part, word) = (word / product_words::DEPTH, word % product_words::DEPTH);
                let in_warp = if O::ALONG_DEPTH { S::line(line) + word } else { word * S::PITCH + line };
                ((part << paired) + tile) * product_words::PER_WARP + S::START + in_warp
            }),
            count: (of_block * parts / (PRODUCT_THREADS / 2)) as usize,
        }
    }

    /// Loads the runs: those of even number in the array belong to the first depth of a word, the others to the second.
    ///
    /// # Safety
    ///
    /// The pointers of the operand are valid as it says.
    #[inline(always)]
    unsafe fn load<M: Arithmetic, S: Side>(&self, operand: &O, depth: u64) -> [O::Run; 8] {
        // SAFETY: the caller's promise.
        unsafe {
            if operand.is_wide() {
                self.load_all::<M, S, true>(operand, depth)
            } else {
                self.load_all::<M, S, false>(operand, depth)
            }
        }
    }

    /// # Safety
    ///
    /// As for [`load`](Self::load); `WIDE` as for [`Operand::load`].
    #[inline(always)]
    unsafe fn load_all<M: Arithmetic, S: Side, const WIDE: bool>(
        &self,
        operand: &O,
        depth: u64,
    ) -> [O::Run; 8] {
        let mut runs = [O::ZEROS; 8];
        upto8(S::RUNS, |index| {
            if index < self.count {
                let depth = depth + u64::from(self.words[index] * M::DEPTHS);
                // SAFETY: the caller's promise.
                runs[2 * index] = unsafe { operand.load::<WIDE>(self.lines[index], depth) };
                if M::DEPTHS == 2 {
                    let depth = depth + if O::ALONG_DEPTH { 4 } else { 1 };
                    // SAFETY: the caller's promise.
                    runs[2 * index + 1] = unsafe { operand.load::<WIDE>(self.lines[index], depth) };
                }
            }
        });
        runs
    }

    /// Writes the runs to shared memory.
    ///
    /// # Safety
    ///
    /// Nobody reads there meanwhile, and every thread writes its own share.
    #[inline(always)]
    unsafe fn put<M: Arithmetic, S: Side>(&self, runs: &[O::Run; 8]) {
        let shared = SharedWords::new(0);
        upto8(S::RUNS, |index| {
            if index < self.count {
                let words = O::words::<M>([runs[2 * index], runs[2 * index + 1]]);
                // SAFETY: the share's own words.
                unsafe { shared.set4(self.places[index], words) };
            }
        });
    }
}

/// A warp's operand in shared memory.
pub(crate) struct Staged {
    pub(crate) words: SharedWords,
    pub(crate) lane: u32,
}

impl Staged {
    /// Of the lane's eight lines, words `4 * half` to `4 * half + 3`: by word, then by line.
    ///
    /// # Safety
    ///
    /// The operand is complete, and nobody writes it meanwhile.
    #[inline(always)]
    pub(crate) unsafe fn fours<O: Operand, S: Side>(&self, half: u32) -> [[u32; 8]; 4] {
        let mut words = [[0; 8]; 4];
        if O::ALONG_DEPTH {
            each8(|index| {
                let at = S::line(S::of_lane(O::ALONG_DEPTH, self.lane, index as u32)) + 4 * half;
                // SAFETY: the caller's promise.
                let line = unsafe { self.words.get4(at) };
                each4(|word| words[word][index] = line[word]);
            });
        } else {
            let (low, high) = (S::of_lane(O::ALONG_DEPTH, self.lane, 0), S::of_lane(O::ALONG_DEPTH, self.lane, 4));
            each4(|word| {
                let at = (4 * half + word as u32) * S::PITCH;
                // SAFETY: the caller's promise.
                let [low, high] = unsafe { [self.words.get4(at + low), self.words.get4(at + high)] };
                words[word] = array8(|index| if index < 4 { low[index] } else { high[index - 4] });
            });
        }
        words
    }

    /// Of the lane's eight lines of the left operand as tensor cores take it, the words `2 t` and `2 t + 1`.
    ///
    /// # Safety
    ///
    /// As for [`fours`](Self::fours).
    #[inline(always)]
    pub(crate) unsafe fn left_pairs<O: Operand>(&self) -> [[u32; 2]; 8] {
        let word = self.lane % 4 * 2;
        let line = |index| Left::of_lane(O::ALONG_DEPTH, self.lane, index);
        if O::ALONG_DEPTH {
            array8(|index| {
                let at = Left::line(line(index as u32)) + word;
                // SAFETY: the caller's promise.
                unsafe { self.words.get2(at) }
            })
        } else {
            // SAFETY: the caller's promise.
            let [low, high] = unsafe {
                [self.across::<Left>(line(0), word), self.across::<Left>(line(4), word)]
            };
            array8(|index| if index < 4 { low[index] } else { high[index - 4] })
        }
    }

    /// Of four lines of the right operand, `4 g` to `4 g + 3`, the words `2 t` and `2 t + 1`.
    ///
    /// # Safety
    ///
    /// As for [`fours`](Self::fours).
    #[inline(always)]
    pub(crate) unsafe fn right_pairs<O: Operand>(&self) -> [[u32; 2]; 4] {
        let (line, word) = (self.lane / 4 * 4, self.lane % 4 * 2);
        if O::ALONG_DEPTH {
            // SAFETY: the caller's promise.
            array4(|index| unsafe { self.words.get2(Right::line(line) + 8 * index as u32 + word) })
        } else {
            // SAFETY: the caller's promise.
            unsafe { self.across::<Right>(line, word) }
        }
    }

    /// Two neighbouring words of depth of four neighbouring lines, which are neighbours in memory.
    ///
    /// # Safety
    ///
    /// As for [`fours`](Self::fours).
    #[inline(always)]
    unsafe fn across<S: Side>(&self, line: u32, word: u32) -> [[u32; 2]; 4] {
        let at = word * S::PITCH + line;
        // SAFETY: the caller's promise.
        let [near, far] = unsafe { [self.words.get4(at), self.words.get4(at + S::PITCH)] };
        array4(|index| [near[index], far[index]])
    }
}

/// What of a product a warp computes.
#[derive(Clone, Copy)]
pub(crate) struct Place {
    warp: u32,
    lane: u32,
    /// 1 where the block has two tiles, 0 where it has one.
    paired: u32,
}

impl Place {
    /// The calling warp's place in a block of one tile, or of two where `paired` is 1.
    #[inline(always)]
    pub(crate) fn new(paired: u32) -> Self {
        let thread = thread::thread_idx_x();
        Self { warp: thread / WARP_LANES, lane: thread % WARP_LANES, paired: paired & 1 }
    }

    #[inline(always)]
    pub(crate) fn lane(self) -> u32 {
        self.lane
    }

    /// 1 where the block has two tiles, 0 where it has one.
    #[inline(always)]
    pub(crate) fn paired(self) -> u32 {
        self.paired
    }

    /// The warp's operand of a side.
    #[inline(always)]
    fn staged<S: Side>(self) -> Staged {
        let warp = if S::lines(1) == S::LINES { self.warp & !self.paired } else { self.warp };
        let words = SharedWords::new(warp * product_words::PER_WARP + S::START);
        Staged { words, lane: self.lane }
    }
}

/// A lane's sums of the warp's tile over the warp's part of a range of depth: of the lines from `lines[0]` on of the left
/// operand by those from `lines[1]` on of the right one, where the block's first tile begins. Between them the threads call `look`
/// with every run of the block's lines of the left operand, as it goes by, and its depth. Beyond the range of depth both operands are
/// zeros.
///
/// # Safety
///
/// A block of [`PRODUCT_THREADS`] makes the call together, with [`PRODUCT_BYTES`](crate::limits::PRODUCT_BYTES) of shared
/// memory; the operands' pointers are valid as they say.
#[inline(always)]
pub(crate) unsafe fn product<M: Arithmetic, L: Operand, R: Operand>(
    (left, right): (&L, &R),
    lines: [u64; 2],
    depths: Range<u64>,
    place: Place,
    mut look: impl FnMut(u64, L::Run),
) -> Sums {
    let of_left = Share::new::<Left>(left, lines[0], place.paired);
    let of_right = Share::new::<Right>(right, lines[1], place.paired);
    let (left_words, right_words) = (place.staged::<Left>(), place.staged::<Right>());
    let step = u64::from((product_words::DEPTH * product_words::WARPS * M::DEPTHS) >> place.paired);
    let mut sums = [0.0; 64];
    let Range { start: mut depth, end } = depths;
    let mut is_staged = false;
    while is_staged || depth < end {
        // The next step is under way while the last one is multiplied.
        let (mut lefts, mut rights) = ([L::ZEROS; 8], [R::ZEROS; 8]);
        if depth < end {
            // SAFETY: the caller's promise.
            unsafe {
                lefts = of_left.load::<M, Left>(left, depth);
                rights = of_right.load::<M, Right>(right, depth);
            }
        }
        if is_staged {
            thread::sync_threads();
            // SAFETY: both operands are complete, and not written before the barrier.
            unsafe { M::multiply::<L, R>(&left_words, &right_words, &mut sums) };
            thread::sync_threads();
        }
        is_staged = depth < end;
        if is_staged {
            // SAFETY: the last reads of what was there were before the barrier.
            unsafe {
                of_left.put::<M, Left>(&lefts);
                of_right.put::<M, Right>(&rights);
            }
            upto8(Left::RUNS, |index| {
                let depth = depth + u64::from(of_left.words[index] * M::DEPTHS);
                look(depth, lefts[2 * index]);
                if M::DEPTHS == 2 {
                    look(depth + if L::ALONG_DEPTH { 4 } else { 1 }, lefts[2 * index + 1]);
                }
            });
        }
        depth += step;
    }
    sums
}

/// Adds up the sums of the warps of each tile, and calls `take` with the lane's share of the results: the number of the tile, the
/// row's number as [`Operand::row`] takes it, and the row's eight columns from `8 * (lane % 4)` on.
///
/// # Safety
///
/// The whole block makes the call, after [`product`], which leaves shared memory unread.
#[inline(always)]
pub(crate) unsafe fn add_up(place: Place, sums: &Sums, mut take: impl FnMut(u32, u32, [f32; 8])) {
    const HALF: u32 = product_words::WARPS / 2;
    let Place { warp, lane, paired } = place;
    let mut sums = *sums;
    // Four neighbouring sums of every lane of a warp are neighbours in memory.
    let at = |warp: u32, four: u32| {
        SharedWords::new(warp * product_words::SUMS + (four * WARP_LANES + lane) * 4)
    };
    let put = |sums: &Sums| {
        each8(|row| {
            upto8(2, |half| {
                let four = 2 * row + half;
                let words = array4(|index| sums[4 * four + index].to_bits());
                // SAFETY: the lane's own words.
                unsafe { at(warp % HALF, four as u32).set4(0, words) };
            });
        });
    };
    // First the upper half of the warps, which the lower half adds to its own, then that one.
    if warp >= HALF {
        put(&sums);
    }
    thread::sync_threads();
    if warp < HALF {
        each8(|row| {
            upto8(2, |half| {
                let four = 2 * row + half;
                // SAFETY: written before the barrier.
                let other = unsafe { at(warp, four as u32).get4(0) };
                each4(|index| sums[4 * four + index] += f32::from_bits(other[index]));
            });
        });
        // The words that the warp has just read, and no other warp.
        put(&sums);
    }
    thread::sync_threads();
    // The rows of all tiles are dealt out to the warps.
    let mut unit = warp;
    while unit < (PRODUCT_ROWS / 8) << paired {
        let (tile, row) = (unit & paired, unit >> paired);
        let mut row_sums = [0.0; 8];
        let mut other = tile;
        while other < HALF {
            // SAFETY: written before the barrier.
            let [low, high] = unsafe { [at(other, 2 * row).get4(0), at(other, 2 * row + 1).get4(0)] };
            each4(|index| row_sums[index] += f32::from_bits(low[index]));
            each4(|index| row_sums[4 + index] += f32::from_bits(high[index]));
            other += 1 + paired;
        }
        take(tile, row, row_sums);
        unit += product_words::WARPS;
    }
}
