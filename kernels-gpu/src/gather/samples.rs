//! Adding up the samples that touch a tile: weight times coefficient times output gradient.
//!
//! A warp takes up to 32 samples of a list at a time. A lane computes the coefficients of one, and the warp moves the weights
//! of all of them to shared memory. The list is sorted, so the samples of an anchor are neighbours, a [run](Run). What the anchor
//! *counts* for is summed first, a lane for each pixel and weight group, and then multiplied with the output gradient once.

use super::Sums;
use super::runs::{Left, Run};
use super::tile::{List, Tile};
use crate::args::{GatherArgs, Level};
use crate::block::{Place, WARP};
use crate::channels::{Channels, Fetched, Tile as ChannelTile};
use crate::limits::{
    CHANNELS_PER_LANE, GATHER_WEIGHTS, RUNS_AT_A_TIME, WARP_LANES, gather_words,
};
use crate::memory::{self, SharedWords};
use crate::sample;
use crate::storage::Storage;
use crate::unroll::{array4, each4, each8, upto8};
#[cfg(target_arch = "nvptx64")]
use cuda_std::GpuFloat;
use cuda_std::{thread, warp};

/// Most runs of which a worker has the output gradients on their way at a time.
const AT_A_TIME: usize = RUNS_AT_A_TIME as usize;

/// Runs that a worker with so many slots has on their way at a time: output gradients take registers for each slot.
const fn at_a_time(slots: usize) -> usize {
    if slots < AT_A_TIME { AT_A_TIME / slots } else { 1 }
}

/// Most weights that a lane reads at a time.
const WEIGHTS_PER_LANE: usize = (GATHER_WEIGHTS / WARP_LANES) as usize;

/// What a lane has read of the weights, as it lies in memory.
type Weights = [u32; WEIGHTS_PER_LANE];

/// Bilinear coefficients of two neighbouring pixels for a sample so far behind the first, along one axis; zero where the sample
/// does not touch a pixel.
#[inline(always)]
fn hats(behind: f32) -> [f32; 2] {
    [behind, behind - 1.0].map(|distance| (1.0 - distance.abs()).max(0.0))
}

/// The first points of a list of a batch item, one in each lane.
///
/// # Safety
///
/// The list is one of the item's, or a part of one.
#[inline(always)]
pub(super) unsafe fn lane_points<T>(args: &GatherArgs<T>, item: u32, list: List) -> u32 {
    let lane = thread::thread_idx_x() % WARP_LANES;
    let at = args.lists.point(item, list.first + lane);
    // SAFETY: the place is one of the list, if it is read.
    unsafe { memory::load_f32_if(at.cast(), lane < list.count) }.to_bits()
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
    staged: SharedWords,
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
            staged: SharedWords::new(place.warp * args.words_per_warp),
        }
    }

    /// Adds the samples in the list of a tile to the sums of the workers. The lanes have its first `points`.
    ///
    /// # Safety
    ///
    /// All lanes of the warp make the call together; the pointers of the arguments are valid.
    #[inline(always)]
    pub(super) unsafe fn add_list<C: Channels<T>>(
        &self,
        tile: &Tile,
        points: u32,
        sums: &mut Sums,
    ) {
        let (mut list, mut points) = (tile.list, points);
        while list.count > 0 {
            let count = list.count.min(self.args.samples);
            list = list.behind(count);
            // SAFETY: all lanes of the warp are here, with the same list; the lanes' points are the first ones of what was left.
            unsafe {
                let later = lane_points(self.args, self.item, list);
                self.add_some::<C>(tile, count, points, sums);
                points = later;
            }
        }
    }

    /// Adds `count` samples, each of a lane's point.
    ///
    /// # Safety
    ///
    /// As for [`add_list`](Self::add_list); there is a sample.
    #[inline(always)]
    unsafe fn add_some<C: Channels<T>>(&self, tile: &Tile, count: u32, point: u32, sums: &mut Sums) {
        let lane = self.place.warp_lane;
        let anchor = self.args.sizes.by_points.quotient(point);
        // SAFETY: all lanes of the warp are here, also below. Every lane has a point of the item, be it the first.
        unsafe {
            let mut left = Left::deal_out(self.place, count, anchor);
            // All of these are on their way before any is waited for: the assembler moves nothing over a meeting.
            let mut runs = self.fetch_runs::<C>(&mut left, anchor);
            let first = self.first_weight(tile, point);
            let weights = self.fetch_weights(count, first);
            let map = tile.map(self.args);
            let [x, y] = self.location(tile, point);
            warp::sync_warp(WARP);
            let mut coefficients = [0.0; 4];
            if lane < count {
                coefficients = self.coefficients_of(tile, map, [x, y]);
            }
            let touched = coefficients.map(|one| warp::warp_vote_ballot(WARP, one > 0.0));
            let at = gather_words::COEFFICIENTS + 4 * lane;
            self.staged.set4(at, coefficients.map(f32::to_bits));
            self.stage_weights(count, weights);
            warp::sync_warp(WARP);
            loop {
                upto8(at_a_time(C::SLOTS), |turn| self.count::<C>(turn, runs[turn].0));
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

    /// The (point, camera) pair of a point and the tile's camera, counted over the batch.
    #[inline(always)]
    fn pair(&self, camera: u32, point: u32) -> usize {
        let sizes = &self.args.sizes;
        let point = self.item as usize * (sizes.anchors * sizes.points) as usize + point as usize;
        point * sizes.cameras as usize + camera as usize
    }

    /// The location of a point in the tile's camera.
    ///
    /// # Safety
    ///
    /// The point is one of the item's.
    #[inline(always)]
    unsafe fn location(&self, tile: &Tile, point: u32) -> [f32; 2] {
        let camera = self.args.sizes.by_levels.quotient(tile.map);
        let at = 2 * self.pair(camera, point);
        // SAFETY: the caller's promise.
        unsafe { memory::load_pair(self.args.locations.wrapping_add(at)) }
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

    /// Where the weights of the lane's sample begin, for the tile's groups.
    #[inline(always)]
    fn first_weight(&self, tile: &Tile, point: u32) -> usize {
        let sizes = &self.args.sizes;
        let (camera, level) = sizes.by_levels.divide(tile.map);
        let sample = self.pair(camera, point) * sizes.levels as usize + level as usize;
        sample * sizes.groups as usize + self.first_group as usize
    }

    /// Reads the weights of the samples at hand, dealt out to the lanes: whole vectors, where the host says so, or one by one.
    /// They wait to be staged, while something else is done. The lanes know where the weights of their samples begin.
    ///
    /// # Safety
    ///
    /// All lanes of the warp make the call together.
    #[inline(always)]
    unsafe fn fetch_weights(&self, count: u32, first: usize) -> Weights {
        let mut weights = [0; WEIGHTS_PER_LANE];
        // SAFETY: all lanes of the warp are here. Weights of a sample at hand: of the first one, where there is no other.
        unsafe {
            if self.args.vectors != 0 {
                upto8(WEIGHTS_PER_LANE / T::PER_VECTOR, |turn| {
                    let (sample, vector) = self.vector(turn);
                    let sample = if sample < count { sample } else { 0 };
                    let first = warp::warp_shuffle_idx(WARP, first as u64, sample, WARP_LANES).0;
                    let at = first as usize + vector as usize * T::PER_VECTOR;
                    let words = memory::load_words(self.args.weights.wrapping_add(at).cast());
                    each4(|word| weights[4 * turn + word] = words[word]);
                });
            } else {
                each8(|turn| {
                    // The same for every lane.
                    if turn as u32 * WARP_LANES < count * self.args.by_staged.value {
                        let word = self.word(turn, count);
                        let (sample, group) = word.unwrap_or((0, 0));
                        let first = warp::warp_shuffle_idx(WARP, first as u64, sample, WARP_LANES).0;
                        let at = first as usize + group as usize;
                        weights[turn] = T::fetch(self.args.weights.wrapping_add(at));
                    }
                });
            }
        }
        weights
    }

    /// Stages the weights that [`fetch_weights`](Self::fetch_weights) has read. Complete after the warp's next meeting.
    ///
    /// # Safety
    ///
    /// As for [`fetch_weights`](Self::fetch_weights); nobody reads what was staged before.
    #[inline(always)]
    unsafe fn stage_weights(&self, count: u32, weights: Weights) {
        // SAFETY: one lane per word.
        unsafe {
            if self.args.vectors != 0 {
                upto8(WEIGHTS_PER_LANE / T::PER_VECTOR, |turn| {
                    if self.vector(turn).0 < count {
                        let vector = T::widen_vector(array4(|word| weights[4 * turn + word]));
                        let at = self.lane_of_turn(turn) * T::PER_VECTOR as u32;
                        upto8(T::PER_VECTOR / 4, |half| {
                            let values = array4(|word| vector[4 * half + word].to_bits());
                            self.staged.set4(gather_words::WEIGHTS + at + 4 * half as u32, values);
                        });
                    }
                });
            } else {
                each8(|turn| {
                    let word = gather_words::WEIGHTS + self.lane_of_turn(turn);
                    if self.word(turn, count).is_some() {
                        self.staged.set(word, T::widen(weights[turn]).to_bits());
                    }
                });
            }
        }
    }

    /// The number of what the lane reads in a turn, counted over all lanes. Opaque, so that what follows from it is not kept from
    /// one call to the next.
    #[inline(always)]
    fn lane_of_turn(&self, turn: usize) -> u32 {
        turn as u32 * WARP_LANES + memory::opaque(self.place.warp_lane)
    }

    /// The sample of a vector of weights that the lane reads, and the vector's number in the sample.
    #[inline(always)]
    fn vector(&self, turn: usize) -> (u32, u32) {
        self.args.by_vectors.divide(self.lane_of_turn(turn))
    }

    /// The sample and group of a weight that the lane reads, the group counted from the first one of the tile; nothing behind the
    /// last of `count` samples, and for a group that does not exist.
    #[inline(always)]
    fn word(&self, turn: usize, count: u32) -> Option<(u32, u32)> {
        let (sample, group) = self.args.by_staged.divide(self.lane_of_turn(turn));
        let exists = sample < count && self.first_group + group < self.args.sizes.groups;
        exists.then_some((sample, group))
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
    unsafe fn count<C: Channels<T>>(&self, turn: usize, run: Run) {
        let groups = self.args.by_staged.value;
        let mut word = self.place.lane;
        // On the last tile of channels there may be fewer groups.
        while word < 4 * groups.min(self.args.sizes.groups - self.first_group) {
            let word_of_turn = memory::turn(word);
            let (group, pixel) = (word_of_turn / 4, word_of_turn % 4);
            let mut sum = 0.0;
            let mut coefficient = gather_words::COEFFICIENTS + 4 * run.begin + pixel;
            let mut weight = gather_words::WEIGHTS + groups * run.begin + group;
            let end = gather_words::COEFFICIENTS + 4 * run.end;
            while coefficient < end {
                let at = memory::turn(coefficient);
                // SAFETY: the sample is staged; the word is this lane's.
                unsafe {
                    let coefficient = f32::from_bits(self.staged.get(at));
                    let weight = f32::from_bits(self.staged.get(weight));
                    // A pixel that the sample does not touch is left alone whatever the weight, NaN included.
                    if coefficient > 0.0 {
                        sum = coefficient.mul_add(weight, sum);
                    }
                }
                coefficient = at + 4;
                weight += groups;
            }
            // SAFETY: the word is this lane's.
            unsafe { self.staged.set(self.counts::<C>(turn, group) + pixel, sum.to_bits()) };
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
            let counts = unsafe { self.staged.get4(self.counts::<C>(turn, self.groups[slot])) };
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
