//! The tiles of a block in a product of matrices: sums over `depth`.
//!
//! The block moves its lines of both operands through shared memory, in panels of eight words of depth. While some are
//! multiplied, the next ones are under way to registers, and from there they go to panels that nobody reads. Each warp has a
//! tile, and where there are fewer tiles than warps, every so many panels of one: then the warps' sums are added up in the end, in a
//! fixed order.
//!
//! Lane `4 g + t` has columns `8 t` to `8 t + 7` of four rows: see [`Side::of_lane`].

use crate::dense::arithmetic::Arithmetic;
use crate::dense::operand::{Left, Operand, Right, Side};
use crate::dense::rows::Matrix;
use crate::dense::share::Share;
use crate::dense::staged::Staged;
use crate::limits::WARP_LANES;
use crate::memory::{self, SharedWords};
use crate::tiles::Tiles;
use crate::unroll::{array4, each4, upto8};
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
        [
            Staged::new(SharedWords::new(panel + left), left_pitch),
            Staged::new(SharedWords::new(panel + right), right_pitch),
        ]
    }
}

/// Where a product begins: in each operand, with which line and which depth.
#[derive(Clone, Copy)]
pub(crate) struct Start {
    pub(crate) lines: [u64; 2],
    pub(crate) depths: [u64; 2],
}

/// Adds to a lane's sums of the warp's tile the products of `depths` depths, as far as they are the warp's. The threads call
/// `look` with all numbers of the block's lines of the left operand, as they go by, four neighbours in memory at a time, and how
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
    look: impl FnMut(u32, [f32; 4]),
) {
    // Two loops, and not a choice in one: what is loaded would be moved to where both have it, and so waited for.
    // SAFETY: the caller's promise; wide accesses only where both operands have them.
    unsafe {
        if operands.0.matrix().plain().wide && operands.1.matrix().plain().wide {
            multiply::<M, L, R, true>(operands, start, depths, tiles, sums, look);
        } else {
            multiply::<M, L, R, false>(operands, start, depths, tiles, sums, look);
        }
    }
}

/// As [`product`].
///
/// # Safety
///
/// As for [`product`]; `WIDE` only if both operands are [wide](crate::dense::rows::Plain::wide).
#[inline(always)]
unsafe fn multiply<M: Arithmetic, L: Operand, R: Operand, const WIDE: bool>(
    (left, right): (L, R),
    start: Start,
    depths: u32,
    tiles: Tiles,
    sums: &mut Sums,
    mut look: impl FnMut(u32, [f32; 4]),
) {
    let mut of_left = Share::<L, Left>::new::<M>(left, start.lines[0], start.depths[0], tiles);
    let mut of_right = Share::<R, Right>::new::<M>(right, start.lines[1], start.depths[1], tiles);
    let [staged_left, staged_right] = Place::new(tiles).staged::<M, L, R>();
    let step = Tiles::DEPTH * tiles.panels() * M::DEPTHS;
    let (mut left, mut done) = (depths, 0);
    // The panels that are multiplied; the next ones go to the others.
    let (mut panels, mut others) = (0, tiles.step_words());
    let mut is_staged = false;
    while is_staged || left > 0 {
        // In the last round zeros, and no memory is touched.
        // SAFETY: the caller's promise.
        let (lefts, rights) = unsafe {
            (of_left.load::<M, WIDE>(step, left), of_right.load::<M, WIDE>(step, left))
        };
        if is_staged {
            let mut panel = panels;
            for _ in 0..tiles.panels_of_part() {
                // SAFETY: the panels are complete since the barrier, and not written before the next.
                unsafe {
                    M::multiply::<L, R>(staged_left.from(panel), staged_right.from(panel), sums);
                }
                panel += tiles.parts() * tiles.panel_words();
            }
        }
        is_staged = left > 0;
        if is_staged {
            // SAFETY: the last reads of what was there were before the barrier.
            unsafe {
                of_left.put::<M>(&lefts, others);
                of_right.put::<M>(&rights, others);
            }
            of_left.look::<M>(&lefts, |before, numbers| {
                look(before.saturating_add(done), numbers);
            });
        }
        thread::sync_threads();
        (panels, others) = (others, panels);
        left = left.saturating_sub(step);
        done += step;
    }
}

/// Adds up the sums of the warps of each tile, and calls `take` with the lane's share of the results: a row and a column of the
/// block, and the row's eight sums from that column on. `along_depth` is the left operand's.
///
/// # Safety
///
/// The whole block makes the call, after [`product`].
#[inline(always)]
pub(crate) unsafe fn add_up(
    tiles: Tiles,
    along_depth: bool,
    sums: &Sums,
    mut take: impl FnMut([u32; 2], [f32; 8]),
) {
    let place = Place::new(tiles);
    let Place { warp, lane, .. } = place;
    // Four neighbouring sums of every lane of a warp are neighbours in memory.
    let at = |warp: u32, four: u32| {
        SharedWords::new(warp * Tiles::SUMS + (four * WARP_LANES + lane) * 4)
    };
    upto8(8, |four| {
        let words = array4(|index| sums[4 * four + index].to_bits());
        // SAFETY: the lane's own words; the barrier behind the product has passed since they were read.
        unsafe { at(warp, four as u32).set4(0, words) };
    });
    thread::sync_threads();
    // The rows of all tiles are dealt out to the warps.
    let exponent = tiles.exponent();
    let mut unit = warp;
    while unit < 4 << exponent {
        let (tile, index) = (unit & ((1 << exponent) - 1), unit >> exponent);
        let mut row = [0.0; 8];
        for part in 0..tiles.parts() {
            let other = (part << exponent) + tile;
            // SAFETY: written before the barrier.
            let [low, high] = unsafe { [at(other, 2 * index).get4(0), at(other, 2 * index + 1).get4(0)] };
            each4(|column| row[column] += f32::from_bits(low[column]));
            each4(|column| row[4 + column] += f32::from_bits(high[column]));
        }
        let [down, across] = place.corner(tile);
        let down = down + Left::of_lane(along_depth, lane, index);
        take([down, across + Right::of_lane(along_depth, lane, 0)], row);
        unit += Tiles::THREADS / WARP_LANES;
    }
}
