//! Adding up the samples that touch a tile: weight times coefficient times output gradient.
//!
//! A warp takes up to 32 samples of a list at a time. A lane computes the coefficients of one; the weights of all of them are in
//! shared memory. The list is sorted, so the samples of an anchor are neighbours, a [run](Run). What the anchor *counts* for is
//! summed first, a lane for each pixel and weight group, and then multiplied with the output gradient once.

use super::Sums;
use super::runs::{Left, Run};
use super::staged::Staged;
use super::tile::Tile;
use crate::args::{GatherArgs, Level};
use crate::block::{Place, WARP};
use crate::channels::{Channels, Fetched, Tile as ChannelTile};
use crate::limits::{CHANNELS_PER_LANE, RUNS_AT_A_TIME, WARP_LANES, gather_words};
use crate::memory::{self, SharedWords};
use crate::sample;
use crate::storage::Storage;
use crate::unroll::{array4, each4, upto8};
#[cfg(target_arch = "nvptx64")]
use cuda_std::GpuFloat;
use cuda_std::{thread, warp};

/// Most runs of which a worker has the output gradients on their way at a time.
const AT_A_TIME: usize = RUNS_AT_A_TIME as usize;

/// Runs that a worker with so many slots has on their way at a time: output gradients take registers for each slot.
const fn at_a_time(slots: usize) -> usize {
    if slots < AT_A_TIME { AT_A_TIME / slots } else { 1 }
}

/// Bilinear coefficients of two neighbouring pixels for a sample so far behind the first, along one axis; zero where the sample
/// does not touch a pixel.
#[inline(always)]
fn hats(behind: f32) -> [f32; 2] {
    [behind, behind - 1.0].map(|distance| (1.0 - distance.abs()).max(0.0))
}

/// Runs, and the output gradients of their anchors.
type Runs = [(Run, Fetched); AT_A_TIME];

/// Adds samples up for the channels of a lane, of one batch item.
pub(super) struct Samples<'a, T> {
    args: &'a GatherArgs<T>,
    place: Place,
    item: u32,
    channels: ChannelTile,
    /// The group of the first channel of the tile.
    first_group: u32,
    /// The group of each slot, counted from the first one.
    groups: [u32; CHANNELS_PER_LANE as usize],
    /// The warp's words.
    words: SharedWords,
}

/// The samples at hand: a portion of a tile's list.
#[derive(Clone, Copy)]
pub(super) struct AtHand {
    left: Left,
    runs: Runs,
    /// The anchor of the lane's sample.
    anchor: u32,
}

impl<'a, T: Storage> Samples<'a, T> {
    #[inline(always)]
    pub(super) fn new<C: Channels<T>>(
        args: &'a GatherArgs<T>,
        place: Place,
        item: u32,
    ) -> Self {
        let channels = place.tile(&args.sizes, thread::block_idx_y());
        let first_group = args.sizes.by_group.quotient(channels.first);
        Self {
            args,
            place,
            item,
            channels,
            first_group,
            groups: C::groups(channels, &args.sizes.by_group).map(|group| group.wrapping_sub(first_group)),
            words: SharedWords::new(place.warp * args.words_per_warp),
        }
    }

    /// Takes `count` samples, each of a lane's point, and asks for the output gradients of their first anchors. Lanes without a
    /// sample have point 0.
    ///
    /// # Safety
    ///
    /// All lanes of the warp make the call together; the pointers of the arguments are valid.
    #[inline(always)]
    pub(super) unsafe fn take<C: Channels<T>>(&self, count: u32, point: u32) -> AtHand {
        let anchor = self.args.sizes.by_points.quotient(point);
        // SAFETY: all lanes of the warp are here.
        unsafe {
            let mut left = Left::deal_out(self.place, count, anchor);
            let runs = self.fetch_runs::<C>(&mut left, anchor);
            AtHand { left, runs, anchor }
        }
    }

    /// Adds `count` samples of a tile on its map, whose locations and weights are staged, to the sums of the workers.
    ///
    /// # Safety
    ///
    /// As for [`take`](Self::take), which has taken the samples.
    #[inline(always)]
    pub(super) unsafe fn add<C: Channels<T>>(
        &self,
        tile: &Tile,
        map: Level,
        count: u32,
        staged: Staged,
        at_hand: AtHand,
        sums: &mut Sums,
    ) {
        let lane = self.place.warp_lane;
        let AtHand { mut left, mut runs, anchor } = at_hand;
        // SAFETY: all lanes of the warp are here, also below.
        unsafe {
            let mut coefficients = [0.0; 4];
            if lane < count {
                coefficients = self.coefficients_of(tile, map, staged.location(lane));
            }
            let touched = coefficients.map(|one| warp::warp_vote_ballot(WARP, one > 0.0));
            let at = gather_words::COEFFICIENTS + 4 * lane;
            self.words.set4(at, coefficients.map(f32::to_bits));
            warp::sync_warp(WARP);
            loop {
                upto8(at_a_time(C::SLOTS), |turn| self.count::<C>(turn, staged, runs[turn].0));
                warp::sync_warp(WARP);
                upto8(at_a_time(C::SLOTS), |turn| {
                    let (run, upstream) = runs[turn];
                    self.add_run::<C>(turn, run, touched, upstream, sums);
                });
                // What is staged or counted may be written again after this.
                warp::sync_warp(WARP);
                if !warp::warp_vote_any(WARP, !left.is_empty()) {
                    break;
                }
                runs = self.fetch_runs::<C>(&mut left, anchor);
            }
        }
    }

    /// Takes the worker's next runs, and asks for the output gradients of their anchors.
    ///
    /// # Safety
    ///
    /// All lanes of the warp make the call together; lanes of samples at hand have their anchors.
    #[inline(always)]
    unsafe fn fetch_runs<C: Channels<T>>(&self, left: &mut Left, anchor: u32) -> Runs {
        let sizes = &self.args.sizes;
        let row_bytes = sizes.channels as usize * size_of::<T>();
        let mut runs = [(Run::EMPTY, [0; CHANNELS_PER_LANE as usize]); AT_A_TIME];
        upto8(at_a_time(C::SLOTS), |turn| {
            let run = left.take();
            // An empty run has a row as well, which is not used.
            let lane = run.begin.min(WARP_LANES - 1);
            // SAFETY: all lanes of the warp are here. A row of output gradients of the item: a lane without a sample has point 0.
            unsafe {
                let anchor = warp::warp_shuffle_idx(WARP, anchor, lane, WARP_LANES).0;
                let anchor = self.item as usize * sizes.anchors as usize + anchor as usize;
                let rows = self.args.grad_output;
                runs[turn] = (run, C::fetch_row(rows, anchor * row_bytes, self.channels));
            }
        });
        // SAFETY: all lanes of the warp are here.
        unsafe { warp::sync_warp(WARP) };
        runs
    }

    /// What the sample at a location counts for at each pixel of the tile; zero where it does not touch it.
    #[inline(always)]
    fn coefficients_of(&self, tile: &Tile, map: Level, [x, y]: [f32; 2]) -> [f32; 4] {
        let Some([u, v]) = sample::position(x, y, map, self.args.sizes.rule) else { return [0.0; 4] };
        // The differences are exact, wherever a coefficient is not zero.
        let across = hats(u - memory::opaque(tile.left) as f32);
        let down = hats(v - memory::opaque(tile.top) as f32);
        array4(|pixel| across[pixel % 2] * down[pixel / 2])
    }

    /// The first word of what run `turn` of the worker, of those it takes together, counts for: four pixels for each group of
    /// the tile.
    #[inline(always)]
    fn counts<C: Channels<T>>(&self, turn: usize, group: u32) -> u32 {
        let of_worker = self.place.worker * self.args.by_staged.value + group;
        gather_words::COUNTS + 4 * (of_worker * at_a_time(C::SLOTS) as u32 + turn as u32)
    }

    /// Adds up what a run counts for, dealt out to the worker's lanes. Complete after the warp's next meeting.
    ///
    /// # Safety
    ///
    /// The samples are staged; nobody reads what was counted before.
    #[inline(always)]
    unsafe fn count<C: Channels<T>>(&self, turn: usize, staged: Staged, run: Run) {
        let groups = self.args.by_staged.value;
        let mut word = self.place.lane;
        // On the last tile of channels there may be fewer groups.
        while word < 4 * groups.min(self.args.sizes.groups - self.first_group) {
            let word_of_turn = memory::turn(word);
            let (group, pixel) = (word_of_turn / 4, word_of_turn % 4);
            let mut sum = 0.0;
            let mut coefficient = gather_words::COEFFICIENTS + 4 * run.begin + pixel;
            let mut weight = groups * run.begin + group;
            let end = gather_words::COEFFICIENTS + 4 * run.end;
            while coefficient < end {
                let at = memory::turn(coefficient);
                // SAFETY: the sample is staged; the word is this lane's.
                unsafe {
                    let coefficient = f32::from_bits(self.words.get(at));
                    let weight = staged.weight::<T>(weight);
                    // A pixel that the sample does not touch is left alone whatever the weight, NaN included.
                    if coefficient > 0.0 {
                        sum = coefficient.mul_add(weight, sum);
                    }
                }
                coefficient = at + 4;
                weight += groups;
            }
            // SAFETY: the word is this lane's.
            unsafe { self.words.set(self.counts::<C>(turn, group) + pixel, sum.to_bits()) };
            word = word_of_turn + self.place.lanes;
        }
    }

    /// Adds run `turn` of the worker to its sums. `touched` says for each pixel which samples at hand touch it.
    ///
    /// # Safety
    ///
    /// It is known what the run counts for.
    #[inline(always)]
    unsafe fn add_run<C: Channels<T>>(
        &self,
        turn: usize,
        run: Run,
        touched: [u32; 4],
        upstream: Fetched,
        sums: &mut Sums,
    ) {
        let upstream = C::widen(upstream);
        let mut of_slots = [[0.0; 4]; CHANNELS_PER_LANE as usize];
        upto8(C::SLOTS, |slot| {
            // SAFETY: the group is one of the tile's.
            let counts = unsafe { self.words.get4(self.counts::<C>(turn, self.groups[slot])) };
            of_slots[slot] = counts.map(f32::from_bits);
        });
        each4(|pixel| {
            // A pixel that no sample touches is left alone whatever the gradient.
            if touched[pixel] & run.bits() != 0 {
                upto8(C::SLOTS, |slot| {
                    upto8(C::PER_SLOT, |within| {
                        let channel = slot * C::PER_SLOT + within;
                        sums[pixel][channel] = of_slots[slot][pixel]
                            .mul_add(upstream[channel], sums[pixel][channel]);
                    });
                });
            }
        });
    }
}
