//! The distinct feature rows that an anchor's samples touch.
//!
//! The key points of an anchor lie close together, so its samples meet in the same pixels: on driving data 250
//! corners are about 100 rows, on the coarsest level six corners share one. A block therefore finds the distinct
//! rows first, in a hash table in shared memory, and does what is expensive once per row: reading it, and
//! multiplying it with all channels. What is left per sample are a few numbers per weight group, in a [`Table`] of
//! distinct rows by groups.
//!
//! Samples come in *rounds*, a thread for each. Rounds add to the same *window* of samples and rows until it is full.
//! Rows are numbered in the order in which samples and corners first name them, which does not depend on how the
//! threads race for slots: everything that follows is the same bit for bit in every run.

use crate::args::{Level, Sizes};
use crate::block::{Place, WARP};
use crate::limits::{LOOKUP_SLOTS, WARP_LANES, WindowSizes, window_words as words};
use crate::memory::{self, SharedWords};
use crate::sample::Corners;
use crate::storage::Storage;
use crate::unroll::{array4, each4};
use crate::visible::Visible;
#[cfg(target_arch = "nvptx64")]
use cuda_std::GpuFloat;
use cuda_std::{thread, warp};

/// Key of a slot that no row has; greater than every row.
const EMPTY: u32 = u32::MAX;

/// Slot, and place, of a corner that is off the map, or of a sample that does not count.
const ABSENT: u32 = u32::MAX;

/// Values of the lookup from here on are not a row's place yet, but this plus the corner that named it first.
const UNNUMBERED: u32 = 1 << 16;

/// Bit of a corner's place: the corner is the first that named its row.
const FIRST: u32 = 1 << 31;

/// Fewest samples for which a window that has some takes another round, if there are as many.
const WORTH_A_ROUND: u32 = 16;

/// Reads a map of the `(N, L)` table.
///
/// # Safety
///
/// `map` points to a [`Level`] nobody writes during the launch.
#[inline(always)]
pub(crate) unsafe fn load_map(map: *const Level) -> Level {
    // SAFETY: a `Level` is four words, aligned to 16 bytes.
    let [start, height, width, reserved] = unsafe { memory::load_words(map.cast()) };
    Level { start, height, width, reserved }
}

/// The samples of one anchor: those of its visible pairs, each of which has one on every level.
#[derive(Clone, Copy)]
pub(crate) struct Samples<T> {
    /// `(N, L)` maps.
    pub(crate) maps: *const Level,
    /// The anchor's locations, `(P, N, 2)`.
    pub(crate) locations: *const f32,
    /// The anchor's weights, `(P, N, L, G)`.
    pub(crate) weights: *const T,
    /// The visible pairs.
    pub(crate) visible: Visible,
}

/// A run of an anchor's samples, by their numbers: visible pairs times levels.
#[derive(Clone, Copy)]
pub(crate) struct Run {
    pub(crate) first: u32,
    pub(crate) count: u32,
}

/// A sample by its pair and level.
#[derive(Clone, Copy)]
pub(crate) struct Named {
    pub(crate) pair: u32,
    pub(crate) level: u32,
}

impl<T: Storage> Samples<T> {
    /// The pair and level of the sample of this number.
    ///
    /// # Safety
    ///
    /// The list of visible pairs is complete and has the sample.
    #[inline(always)]
    pub(crate) unsafe fn name(&self, sizes: &Sizes, number: u32) -> Named {
        let (pair, level) = sizes.by_levels.divide(number);
        // SAFETY: the caller's promise.
        Named { pair: unsafe { self.visible.pair(pair) }, level }
    }

    /// The map of the sample of this number, and its corners there.
    ///
    /// # Safety
    ///
    /// As for [`name`](Self::name); the pointers are valid as they say.
    #[inline(always)]
    unsafe fn corners(&self, sizes: &Sizes, number: u32) -> (u32, Corners) {
        // SAFETY: the caller's promise; the pair is one of the anchor's.
        unsafe {
            let Named { pair, level } = self.name(sizes, number);
            let [x, y] = memory::load_pair(self.locations.add(2 * pair as usize));
            let map = sizes.by_cameras.divide(pair).1 * sizes.levels + level;
            (map, Corners::new(x, y, load_map(self.maps.add(map as usize)), sizes.rule))
        }
    }
}

/// The samples and rows a block works on at a time, in shared memory: see the module.
#[derive(Clone, Copy)]
pub(crate) struct Window {
    /// Most it holds.
    sizes: WindowSizes,
    /// Weight groups.
    groups: u32,
    keys: SharedWords,
    values: SharedWords,
    rows: SharedWords,
    places: SharedWords,
    coefficients: SharedWords,
    maps: SharedWords,
    weights: SharedWords,
}

/// The slots of a thread's sample's corners in the lookup, before they are numbered.
#[derive(Clone, Copy)]
pub(crate) struct Slots([u32; 4]);

impl Window {
    /// The window of a block, for so many weight groups.
    #[inline(always)]
    pub(crate) fn new(sizes: WindowSizes, groups: u32) -> Self {
        Self {
            sizes,
            groups,
            keys: SharedWords::new(words::KEYS),
            values: SharedWords::new(words::VALUES),
            rows: SharedWords::new(words::ROWS),
            places: SharedWords::new(words::PLACES),
            coefficients: SharedWords::new(words::COEFFICIENTS),
            maps: SharedWords::new(words::MAPS),
            weights: SharedWords::new(words::WEIGHTS),
        }
    }

    /// The block's table: behind the weights.
    #[inline(always)]
    pub(crate) fn table(&self) -> Table {
        let words = SharedWords::new(words::table(self.sizes, self.groups));
        Table { words, stride: words::stride(self.groups) }
    }

    /// Forgets all rows. Complete after the block's next barrier.
    ///
    /// # Safety
    ///
    /// The whole block makes the call, and nobody uses the lookup until the barrier.
    #[inline(always)]
    pub(crate) unsafe fn clear(&self, place: Place) {
        let mut slot = place.thread * 4;
        while slot < LOOKUP_SLOTS {
            // SAFETY: one thread per slot.
            unsafe {
                self.keys.set4(slot, [EMPTY; 4]);
                self.values.set4(slot, [UNNUMBERED | (UNNUMBERED - 1); 4]);
            }
            slot += place.threads * 4;
        }
    }

    /// How many of `left` samples the next round takes, when the window has so many samples and knows so many rows; 0
    /// when it is full. An empty window takes at least one.
    #[inline(always)]
    pub(crate) fn round(&self, place: Place, samples: u32, known: u32, left: u32) -> u32 {
        let room = ((self.sizes.rows - known) / 4).min(self.sizes.samples - samples);
        let count = room.min(place.threads).min(left);
        if samples > 0 && count < left.min(WORTH_A_ROUND) { 0 } else { count }
    }

    /// The slot of a row, which takes a free one if it has none yet.
    ///
    /// # Safety
    ///
    /// The window is cleared and has room.
    #[inline(always)]
    unsafe fn slot(&self, row: u32) -> u32 {
        // The upper bits of a product with an odd constant: neighbouring rows spread over the slots.
        let mut slot = row.wrapping_mul(0x9e37_79b1) >> (32 - LOOKUP_SLOTS.trailing_zeros());
        loop {
            // SAFETY: a slot of the lookup.
            let found = unsafe { self.keys.exchange_if(slot, EMPTY, row) };
            if found == EMPTY || found == row {
                return slot;
            }
            slot = (slot + 1) & (LOOKUP_SLOTS - 1);
        }
    }

    /// Stages the thread's sample of a round, behind the `staged` ones the window has, and looks its rows up. Complete
    /// after the block's next barrier.
    ///
    /// # Safety
    ///
    /// The whole block makes the call with the same round, for which the window has room.
    #[inline(always)]
    pub(crate) unsafe fn stage<T: Storage>(
        &self,
        sizes: &Sizes,
        place: Place,
        samples: &Samples<T>,
        round: Run,
        staged: u32,
    ) -> Slots {
        let mut slots = [ABSENT; 4];
        if place.thread < round.count {
            // SAFETY: the sample is one of the round's; its words are this thread's.
            unsafe {
                let (map, corners) = samples.corners(sizes, round.first + place.thread);
                each4(|which| {
                    let corner = which as u32;
                    if corners.has(corner) {
                        let slot = self.slot(corners.row_of(corner));
                        self.values.lower(slot, UNNUMBERED + place.thread * 4 + corner);
                        slots[which] = slot;
                    }
                });
                let at = staged + place.thread;
                self.coefficients.set4(4 * at, corners.coefficients().map(f32::to_bits));
                self.maps.set(at, map);
            }
        }
        Slots(slots)
    }

    /// Numbers the rows that the round was the first to name, behind the `known` ones, and returns how many are known
    /// then. Complete on return.
    ///
    /// # Safety
    ///
    /// The whole block makes the call, after a barrier behind [`stage`](Self::stage), with what that returned.
    #[inline(always)]
    pub(crate) unsafe fn number(
        &self,
        place: Place,
        round: Run,
        staged: u32,
        Slots(slots): Slots,
        known: u32,
    ) -> u32 {
        let table = self.table();
        let first = array4(|which| {
            slots[which] != ABSENT
                // SAFETY: the slot is the corner's row's.
                && unsafe { self.values.get(slots[which]) } == UNNUMBERED + place.thread * 4 + which as u32
        });
        // SAFETY: the whole block is here; barriers have passed since the counts were read.
        let (ranks, found) = unsafe { place.rank(first) };
        each4(|which| {
            if first[which] {
                let number = known + ranks[which];
                // SAFETY: the first corner of a row is one thread's; numbers are distinct and below the capacity.
                unsafe {
                    self.rows.set(number, self.keys.get(slots[which]));
                    self.values.set(slots[which], number * table.stride);
                }
            }
        });
        thread::sync_threads();
        if place.thread < round.count {
            let places = array4(|which| {
                if slots[which] == ABSENT {
                    return ABSENT;
                }
                // SAFETY: the row is numbered.
                let place = unsafe { self.values.get(slots[which]) };
                if first[which] { place | FIRST } else { place }
            });
            // SAFETY: words of the thread's sample.
            unsafe { self.places.set4(4 * (staged + place.thread), places) };
        }
        thread::sync_threads();
        known + found
    }

    /// Reads four weights of a round's samples, or fewer: those from word `first` on that are the thread's. They wait to be
    /// kept, while something else is done.
    ///
    /// # Safety
    ///
    /// The whole block makes the call; the round's samples exist.
    #[inline(always)]
    pub(crate) unsafe fn fetch_weights<T: Storage>(
        &self,
        sizes: &Sizes,
        place: Place,
        samples: &Samples<T>,
        round: Run,
        first: u32,
    ) -> [u32; 4] {
        array4(|index| {
            let word = first + place.thread + index as u32 * place.threads;
            if word >= round.count * self.groups {
                return 0;
            }
            let (sample, group) = sizes.by_groups.divide(word);
            // SAFETY: the sample is one of the round's, the group exists.
            unsafe {
                let Named { pair, level } = samples.name(sizes, round.first + sample);
                let at = (pair * sizes.levels + level) * self.groups + group;
                T::fetch(samples.weights.wrapping_add(at as usize))
            }
        })
    }

    /// Keeps what [`fetch_weights`](Self::fetch_weights) has read, for samples behind the `staged` ones of the window.
    /// Complete after the block's next barrier.
    ///
    /// # Safety
    ///
    /// The whole block makes the call, with the same round, for which the window has room.
    #[inline(always)]
    unsafe fn keep_weights<T: Storage>(
        &self,
        place: Place,
        round: Run,
        staged: u32,
        first: u32,
        weights: [u32; 4],
    ) {
        each4(|index| {
            let word = first + place.thread + index as u32 * place.threads;
            if word < round.count * self.groups {
                let weight = T::widen(weights[index]);
                // SAFETY: one thread per word.
                unsafe { self.weights.set(staged * self.groups + word, weight.to_bits()) };
            }
        });
    }

    /// Stages the weights of a round's samples, behind the `staged` ones of the window, of which the first call of
    /// [`fetch_weights`](Self::fetch_weights) has read some. Complete after the block's next barrier.
    ///
    /// # Safety
    ///
    /// The whole block makes the call with the same round, for which the window has room.
    #[inline(always)]
    pub(crate) unsafe fn stage_weights<T: Storage>(
        &self,
        sizes: &Sizes,
        place: Place,
        samples: &Samples<T>,
        round: Run,
        staged: u32,
        mut weights: [u32; 4],
    ) {
        let mut first = 0;
        loop {
            // SAFETY: the caller's promise.
            unsafe { self.keep_weights::<T>(place, round, staged, first, weights) };
            first += 4 * place.threads;
            if first >= round.count * self.groups {
                break;
            }
            // SAFETY: the caller's promise.
            weights = unsafe { self.fetch_weights(sizes, place, samples, round, first) };
        }
    }

    /// The places in the table of the rows of a sample's four corners; nothing for those off the map.
    ///
    /// # Safety
    ///
    /// The sample is one of the window's.
    #[inline(always)]
    pub(crate) unsafe fn places(&self, sample: u32) -> [Option<RowPlace>; 4] {
        // SAFETY: the caller's promise.
        let places = unsafe { self.places.get4(4 * sample) };
        places.map(|place| (place != ABSENT).then_some(RowPlace(place & !FIRST)))
    }

    /// The bilinear coefficients of a sample's corners.
    ///
    /// # Safety
    ///
    /// The sample is one of the window's.
    #[inline(always)]
    pub(crate) unsafe fn coefficients(&self, sample: u32) -> [f32; 4] {
        // SAFETY: the caller's promise.
        unsafe { self.coefficients.get4(4 * sample) }.map(f32::from_bits)
    }

    /// A weight of a sample, by its group.
    ///
    /// # Safety
    ///
    /// The sample is one of the window's, after a barrier behind [`stage_weights`](Self::stage_weights).
    #[inline(always)]
    pub(crate) unsafe fn weight(&self, sample: u32, group: u32) -> f32 {
        // SAFETY: the caller's promise.
        f32::from_bits(unsafe { self.weights.get(sample * self.groups + group) })
    }

    /// The map of a sample.
    ///
    /// # Safety
    ///
    /// The sample is one of the window's.
    #[inline(always)]
    pub(crate) unsafe fn map(&self, sample: u32) -> u32 {
        // SAFETY: the caller's promise.
        unsafe { self.maps.get(sample) }
    }

    /// A row by its number.
    ///
    /// # Safety
    ///
    /// The number is known.
    #[inline(always)]
    pub(crate) unsafe fn row(&self, number: u32) -> u32 {
        // SAFETY: the caller's promise.
        unsafe { self.rows.get(number) }
    }

    /// Adds the window's samples, `count` of them, to the table: coefficient times weight, for each corner and group.
    /// Complete after the block's next barrier.
    ///
    /// Samples of different maps touch different rows, unless maps share them, and the samples of one map are one
    /// warp's: a corner and group have a lane each, and samples go one after the other, so nothing is added
    /// atomically and the order is always the same.
    ///
    /// # Safety
    ///
    /// The whole block makes the call, after a barrier behind [`stage_weights`](Self::stage_weights).
    #[inline(always)]
    pub(crate) unsafe fn add_weights(&self, place: Place, count: u32, owner: Owner) {
        let table = self.table();
        let which = place.warp_lane / 8;
        let mut group = place.warp_lane % 8;
        // Eight groups at a time; as often for every lane of the warp, so that they meet inside.
        while group - place.warp_lane % 8 < self.groups {
            let mut begin = 0;
            while begin < count {
                let sample = begin + place.warp_lane;
                // SAFETY: a sample of the window.
                let mine = sample < count && unsafe { owner.is(place, self.maps.get(sample)) };
                // SAFETY: all lanes of the warp are here: the bounds are the block's.
                let mut samples = unsafe { warp::warp_vote_ballot(WARP, mine) };
                while samples != 0 {
                    let sample = begin + samples.trailing_zeros();
                    samples &= samples - 1;
                    // SAFETY: the sample is the warp's. The lanes of its corners add to different rows; corners of the
                    // warp's next sample may be among them, hence the meeting.
                    unsafe {
                        let at = self.places.get(sample * 4 + which);
                        if at != ABSENT && group < self.groups {
                            let row = RowPlace(at & !FIRST);
                            let before = if at & FIRST != 0 { 0.0 } else { table.at(row, group) };
                            let weight = self.weight(sample, group);
                            let coefficient =
                                f32::from_bits(self.coefficients.get(sample * 4 + which));
                            table.put(row, group, coefficient.mul_add(weight, before));
                        }
                        warp::sync_warp(WARP);
                    }
                }
                begin += WARP_LANES;
            }
            group += 8;
        }
    }

    /// Lanes that combine the groups of one sample, a power of two from 2 on.
    #[inline(always)]
    pub(crate) fn group_lanes(&self) -> u32 {
        self.groups.next_power_of_two().clamp(2, WARP_LANES)
    }

    /// Groups of the window.
    #[inline(always)]
    pub(crate) fn groups(&self) -> u32 {
        self.groups
    }
}

/// Which warp a map's samples belong to.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Owner {
    /// The maps in turn.
    EachMap,
    /// The first warp for all, because rows of several maps may be the same.
    OneWarp,
}

impl Owner {
    /// The owners for maps that share rows, or do not.
    #[inline(always)]
    pub(crate) fn of_maps(shared_rows: bool) -> Self {
        if shared_rows { Self::OneWarp } else { Self::EachMap }
    }

    #[inline(always)]
    fn is(self, place: Place, map: u32) -> bool {
        match self {
            // The warps of a block are a power of two.
            Self::EachMap => map & (place.warps - 1) == place.warp,
            Self::OneWarp => place.warp == 0,
        }
    }
}

/// Distinct rows by weight groups, one number each, in shared memory.
#[derive(Clone, Copy)]
pub(crate) struct Table {
    words: SharedWords,
    stride: u32,
}

/// Where a row begins in a [`Table`].
#[derive(Clone, Copy)]
pub(crate) struct RowPlace(u32);

impl Table {
    /// The place of the row of this number.
    #[inline(always)]
    pub(crate) fn place(&self, row: u32) -> RowPlace {
        RowPlace(row * self.stride)
    }

    /// # Safety
    ///
    /// Row and group are in the table and were written.
    #[inline(always)]
    pub(crate) unsafe fn at(&self, row: RowPlace, group: u32) -> f32 {
        // SAFETY: the caller's promise.
        f32::from_bits(unsafe { self.words.get(row.0 + group) })
    }

    /// # Safety
    ///
    /// Row and group are in the table, and nobody else touches the number meanwhile.
    #[inline(always)]
    pub(crate) unsafe fn put(&self, row: RowPlace, group: u32, value: f32) {
        // SAFETY: the caller's promise.
        unsafe { self.words.set(row.0 + group, value.to_bits()) };
    }
}
