//! Locations and weights of samples, on their way to shared memory while others are added up.

use super::portion::Portion;
use super::tile::Tile;
use crate::args::GatherArgs;
use crate::block::{Place, WARP};
use crate::limits::{GATHER_WEIGHTS, WARP_LANES, gather_words};
use crate::memory::{self, SharedWords};
use crate::storage::Storage;
use crate::unroll::{array8, each8, upto8};
use cuda_std::{thread, warp};

/// Most weights that a lane brings.
const WEIGHTS_PER_LANE: usize = (GATHER_WEIGHTS / WARP_LANES) as usize;

/// One of the two places where a warp stages samples.
#[derive(Clone, Copy)]
pub(super) struct Staged {
    words: SharedWords,
}

impl Staged {
    /// That of a number, 0 or 1.
    #[inline(always)]
    pub(super) fn new<T>(args: &GatherArgs<T>, place: Place, number: u32) -> Self {
        let first = place.warp * args.words_per_warp + gather_words::STAGED;
        Self { words: SharedWords::new(first + number * gather_words::STAGED_WORDS) }
    }

    /// The location of a sample.
    ///
    /// # Safety
    ///
    /// It is staged.
    #[inline(always)]
    pub(super) unsafe fn location(self, sample: u32) -> [f32; 2] {
        // SAFETY: the caller's promise.
        unsafe { self.words.get2(gather_words::LOCATIONS + 2 * sample) }.map(f32::from_bits)
    }

    /// A weight, by its number: sample times staged groups plus group, counted from the first of the tile of channels.
    ///
    /// # Safety
    ///
    /// It is staged.
    #[inline(always)]
    pub(super) unsafe fn weight<T: Storage>(self, number: u32) -> f32 {
        const _: () = assert!(gather_words::WEIGHTS == 0);
        // SAFETY: the caller's promise.
        unsafe { T::get(self.words, number) }
    }
}

/// Brings samples of one camera and level, of one batch item.
pub(super) struct Source<'a, T> {
    args: &'a GatherArgs<T>,
    item: u32,
    camera: u32,
    level: u32,
    place: Place,
}

impl<'a, T: Storage> Source<'a, T> {
    /// Those of a tile.
    #[inline(always)]
    pub(super) fn new(args: &'a GatherArgs<T>, place: Place, item: u32, tile: &Tile) -> Self {
        let (camera, level) = args.sizes.by_levels.divide(tile.map);
        Self { args, item, camera, level, place }
    }

    /// Stages the samples of a portion, of which the lanes have the points, and point 0 where they have none.
    ///
    /// # Safety
    ///
    /// All lanes of the warp make the call together. Nobody reads what was staged before, or reads this before the copies were
    /// waited for. The pointers of the arguments are valid.
    #[inline(always)]
    pub(super) unsafe fn stage(&self, portion: Portion, point: u32, staged: Staged) {
        let (words, lane) = (staged.words, self.place.warp_lane);
        // SAFETY: one lane per location; the caller's promise.
        unsafe {
            if lane < portion.count {
                let location = self.args.locations.wrapping_add(2 * self.pair(point));
                words.copy2(gather_words::LOCATIONS + 2 * lane, location);
            }
            if self.args.vectors != 0 {
                self.stage_vectors(portion.count, point, words);
            } else {
                self.stage_one_by_one(portion.count, point, words);
            }
        }
    }

    /// Stages weights, dealt out to the lanes in whole vectors.
    ///
    /// # Safety
    ///
    /// As for [`stage`](Self::stage).
    #[inline(always)]
    unsafe fn stage_vectors(&self, count: u32, point: u32, words: SharedWords) {
        upto8(WEIGHTS_PER_LANE / T::PER_VECTOR, |turn| {
            let number = self.lane_of_turn(turn);
            let (sample, vector) = self.args.by_vectors.divide(number);
            // SAFETY: all lanes of the warp are here. One lane per vector of a sample that there is.
            unsafe {
                let point = warp::warp_shuffle_idx(WARP, point, sample, WARP_LANES).0;
                if sample < count {
                    let at = self.first_weight(point) + vector as usize * T::PER_VECTOR;
                    let target = gather_words::WEIGHTS + 4 * number;
                    words.copy4(target, self.args.weights.wrapping_add(at).cast());
                }
            }
        });
    }

    /// Stages weights, dealt out to the lanes one by one.
    ///
    /// # Safety
    ///
    /// As for [`stage`](Self::stage).
    #[inline(always)]
    unsafe fn stage_one_by_one(&self, count: u32, point: u32, words: SharedWords) {
        let sizes = &self.args.sizes;
        let channels = self.place.tile(sizes, thread::block_idx_y());
        let first_group = sizes.by_group.quotient(channels.first);
        let staged = self.args.by_staged.value;
        // On the last tile of channels there may be fewer groups.
        let exists = |sample, group| sample < count && first_group + group < sizes.groups;
        // All of them are on their way before any is waited for.
        let bits = array8(|turn| {
            // The same for every lane.
            if turn as u32 * WARP_LANES >= count * staged {
                return 0;
            }
            let (sample, group) = self.args.by_staged.divide(self.lane_of_turn(turn));
            // SAFETY: all lanes of the warp are here. A weight that exists.
            unsafe {
                let point = warp::warp_shuffle_idx(WARP, point, sample, WARP_LANES).0;
                if !exists(sample, group) {
                    return 0;
                }
                let at = self.first_weight(point) + (first_group + group) as usize;
                T::fetch(self.args.weights.wrapping_add(at))
            }
        });
        each8(|turn| {
            let number = self.lane_of_turn(turn);
            let (sample, group) = self.args.by_staged.divide(number);
            if exists(sample, group) {
                // SAFETY: one lane per weight.
                unsafe { T::set(words, number, bits[turn]) };
            }
        });
    }

    /// The number of what the lane brings in a turn, counted over all lanes. Opaque, so that what follows from it is not kept
    /// from one call to the next.
    #[inline(always)]
    fn lane_of_turn(&self, turn: usize) -> u32 {
        turn as u32 * WARP_LANES + memory::opaque(self.place.warp_lane)
    }

    /// The (point, camera) pair of a point and the tile's camera, counted over the batch.
    #[inline(always)]
    fn pair(&self, point: u32) -> usize {
        let sizes = &self.args.sizes;
        let point = self.item as usize * (sizes.anchors * sizes.points) as usize + point as usize;
        point * sizes.cameras as usize + self.camera as usize
    }

    /// Where the weights of the sample of a point begin.
    #[inline(always)]
    fn first_weight(&self, point: u32) -> usize {
        let sizes = &self.args.sizes;
        let sample = self.pair(point) * sizes.levels as usize + self.level as usize;
        sample * sizes.groups as usize
    }
}
