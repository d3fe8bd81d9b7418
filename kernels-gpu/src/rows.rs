//! The distinct feature rows that an anchor's samples touch.
//!
//! The key points of an anchor lie close together, so its samples meet in the same pixels: on driving data 250
//! corners are about 100 rows, on the coarsest level six corners share one. A block therefore finds the distinct
//! rows first, in a hash table in shared memory, and does what is expensive once per row: reading it, and
//! multiplying it with all channels. What is left per sample are a few numbers per weight group, in a [`Table`] of
//! distinct rows by groups.
//!
//! Samples come in *rounds*, a thread for each corner. Rounds add to the same *window* of rows until it is full.
//! Rows are numbered in the order in which samples and corners first name them, which does not depend on how the
//! threads race for slots: everything that follows is the same bit for bit in every run.

use crate::args::{Level, Sizes};
use crate::block::{Place, WARP};
use crate::limits::{LOOKUP_SLOTS, WARP_LANES, window_words as words};
use crate::memory::{self, SharedWords};
use crate::sample::Corners;
use crate::storage::Storage;
use crate::unroll::array4;
use crate::visible::Visible;
#[cfg(target_arch = "nvptx64")]
use cuda_std::GpuFloat;
use cuda_std::{thread, warp};

/// Key of a slot that no row has; greater than every row.
const EMPTY: u32 = u32::MAX;

/// Slot of a corner that is off the map, or of a sample that does not count.
const ABSENT: u32 = u32::MAX;

/// Values of the lookup from here on are not a row's number yet, but this plus the corner that named it first.
const UNNUMBERED: u32 = 1 << 16;

/// Bit of a corner's slot: the corner is the first that named its row.
const FIRST: u32 = 1 << 31;

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

/// Where the weights of an anchor come from.
pub(crate) trait Weights: Copy {
    /// The weight of a sample for a group.
    ///
    /// # Safety
    ///
    /// The pair, the level and the group exist.
    unsafe fn load(&self, pair: u32, level: u32, group: u32) -> f32;
}

/// The weights of an anchor as they lie in memory, `(P, N, L, G)`.
#[derive(Clone, Copy)]
pub(crate) struct Stored<T> {
    pub(crate) start: *const T,
    pub(crate) levels: u32,
    pub(crate) groups: u32,
}

impl<T: Storage> Weights for Stored<T> {
    #[inline(always)]
    unsafe fn load(&self, pair: u32, level: u32, group: u32) -> f32 {
        let at = (pair * self.levels + level) * self.groups + group;
        // SAFETY: the caller's promise.
        unsafe { T::load(self.start.wrapping_add(at as usize)) }
    }
}

/// The samples of one anchor and how to look at them.
#[derive(Clone, Copy)]
pub(crate) struct Samples<W> {
    /// `(N, L)` maps.
    pub(crate) maps: *const Level,
    /// The anchor's locations, `(P, N, 2)`.
    pub(crate) locations: *const f32,
    /// The anchor's weights.
    pub(crate) weights: W,
    /// The visible pairs of which the samples are; each has one on every level.
    pub(crate) visible: Visible,
}

/// Some of an anchor's samples, each corner of which has a thread: those from `first` on among the visible pairs
/// times the levels.
#[derive(Clone, Copy)]
pub(crate) struct Round {
    pub(crate) first: u32,
    pub(crate) count: u32,
}

/// A sample by its pair and level.
#[derive(Clone, Copy)]
pub(crate) struct Named {
    pub(crate) pair: u32,
    pub(crate) level: u32,
}

impl<W: Weights> Samples<W> {
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

    /// The corner of a sample with which the thread is concerned.
    ///
    /// # Safety
    ///
    /// As for [`name`](Self::name).
    #[inline(always)]
    pub(crate) unsafe fn corner(&self, sizes: &Sizes, number: u32, which: u32) -> Corner {
        // SAFETY: the caller's promise; the pair is one of the anchor's.
        unsafe {
            let Named { pair, level } = self.name(sizes, number);
            let [x, y] = memory::load_pair(self.locations.add(2 * pair as usize));
            let map = sizes.by_cameras.divide(pair).1 * sizes.levels + level;
            let corners = Corners::new(x, y, load_map(self.maps.add(map as usize)), sizes.rule);
            Corner { pair, map, which, corners }
        }
    }
}

/// One corner of a sample.
#[derive(Clone, Copy)]
pub(crate) struct Corner {
    pub(crate) pair: u32,
    pub(crate) map: u32,
    pub(crate) which: u32,
    pub(crate) corners: Corners,
}

impl Corner {
    /// Column and row of the corner's pixel; meaningful when it is on the map.
    #[inline(always)]
    pub(crate) fn pixel(&self) -> (u32, u32) {
        let (right, below) = ((self.which & 1) as i32, (self.which >> 1) as i32);
        ((self.corners.column + right) as u32, (self.corners.line + below) as u32)
    }
}

/// The rows a block works on at a time, in shared memory: see the module.
#[derive(Clone, Copy)]
pub(crate) struct Window {
    /// Most rows it holds.
    pub(crate) capacity: u32,
    /// Weight groups.
    groups: u32,
    /// Lanes that stage or combine the groups of one sample, a power of two.
    group_lanes: u32,
    keys: SharedWords,
    values: SharedWords,
    rows: SharedWords,
    slots: SharedWords,
    coefficients: SharedWords,
    maps: SharedWords,
    weights: SharedWords,
}

impl Window {
    /// The window of a block, for so many weight groups.
    #[inline(always)]
    pub(crate) fn new(capacity: u32, groups: u32) -> Self {
        Self {
            capacity,
            groups,
            group_lanes: groups.next_power_of_two().min(WARP_LANES),
            keys: SharedWords::new(words::KEYS),
            values: SharedWords::new(words::VALUES),
            rows: SharedWords::new(words::ROWS),
            slots: SharedWords::new(words::SLOTS),
            coefficients: SharedWords::new(words::COEFFICIENTS),
            maps: SharedWords::new(words::MAPS),
            weights: SharedWords::new(words::WEIGHTS),
        }
    }

    /// Where the block's table lies: behind the staged weights.
    #[inline(always)]
    pub(crate) fn table(&self) -> Table {
        let base = words::WEIGHTS + words::samples(self.capacity) * self.groups;
        Table { words: SharedWords::new(base), stride: self.stride() }
    }

    #[inline(always)]
    fn stride(&self) -> u32 {
        words::stride(self.groups)
    }

    /// Samples in a full round.
    #[inline(always)]
    pub(crate) fn samples_of_round(&self, place: Place) -> u32 {
        (self.capacity / 4).min(place.threads / 4)
    }

    /// Forgets all rows. Complete after the block's next barrier.
    ///
    /// # Safety
    ///
    /// The whole block makes the call, and nobody uses the window until the barrier.
    #[inline(always)]
    pub(crate) unsafe fn clear(&self, place: Place) {
        let mut slot = place.thread;
        while slot < LOOKUP_SLOTS {
            // SAFETY: one thread per slot.
            unsafe {
                self.keys.set(slot, EMPTY);
                self.values.set(slot, UNNUMBERED | (UNNUMBERED - 1));
            }
            slot += place.threads;
        }
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

    /// Looks up the thread's corner and stages it; `sight` is told each corner that is on its map. Complete after the
    /// block's next barrier.
    ///
    /// # Safety
    ///
    /// The whole block makes the call with the same round, which has no more samples than
    /// [`samples_of_round`](Self::samples_of_round); the window has room for four rows each.
    #[inline(always)]
    pub(crate) unsafe fn stage_corners<W: Weights>(
        &self,
        sizes: &Sizes,
        place: Place,
        samples: &Samples<W>,
        round: Round,
        sight: impl Fn(&Corner),
    ) {
        let (sample, which) = (place.thread / 4, place.thread % 4);
        if sample >= round.count {
            return;
        }
        // SAFETY: the sample is one of the round's; its words are this thread's.
        unsafe {
            let corner = samples.corner(sizes, round.first + sample, which);
            let mut slot = ABSENT;
            if corner.corners.has(which) {
                slot = self.slot(corner.corners.row_of(which));
                self.values.lower(slot, UNNUMBERED + place.thread);
                sight(&corner);
            }
            self.slots.set(place.thread, slot);
            let coefficient = corner.corners.coefficient(which);
            self.coefficients.set(place.thread, coefficient.to_bits());
            if which == 0 {
                self.maps.set(sample, corner.map);
            }
        }
    }

    /// Stages the weights of the round's samples. Complete after the block's next barrier.
    ///
    /// # Safety
    ///
    /// As for [`stage_corners`](Self::stage_corners).
    #[inline(always)]
    pub(crate) unsafe fn stage_weights<W: Weights>(
        &self,
        sizes: &Sizes,
        place: Place,
        samples: &Samples<W>,
        round: Round,
    ) {
        let shift = self.group_lanes.trailing_zeros();
        let mut sample = place.thread >> shift;
        while sample < round.count {
            // SAFETY: the sample is one of the round's, the group exists; one thread per word.
            unsafe {
                let Named { pair, level } = samples.name(sizes, round.first + sample);
                let mut group = place.thread & (self.group_lanes - 1);
                while group < self.groups {
                    let weight = samples.weights.load(pair, level, group);
                    self.weights.set(sample * self.groups + group, weight.to_bits());
                    group += self.group_lanes;
                }
            }
            sample += place.threads >> shift;
        }
    }

    /// Numbers the rows that the round was the first to name, behind the `known` ones, and returns how many are known
    /// then.
    ///
    /// # Safety
    ///
    /// The whole block makes the call, after a barrier behind [`stage_corners`](Self::stage_corners).
    #[inline(always)]
    pub(crate) unsafe fn number(&self, place: Place, round: Round, known: u32) -> u32 {
        let staged = place.thread < 4 * round.count;
        // SAFETY: words of this thread's corner.
        let slot = if staged { unsafe { self.slots.get(place.thread) } } else { ABSENT };
        let first = slot != ABSENT
            // SAFETY: the slot is the corner's row's.
            && unsafe { self.values.get(slot) } == UNNUMBERED + place.thread;
        // SAFETY: the whole block is here; barriers have passed since the counts were read.
        let (rank, found) = unsafe { place.rank(first) };
        if first {
            let number = known + rank;
            // SAFETY: the first corner of a row is one thread's; numbers are distinct and below the capacity.
            unsafe {
                self.rows.set(number, self.keys.get(slot));
                self.values.set(slot, number * self.stride());
                self.slots.set(place.thread, slot | FIRST);
            }
        }
        thread::sync_threads();
        known + found
    }

    /// The place in the table of the rows of a sample's four corners; nothing for those off the map.
    ///
    /// # Safety
    ///
    /// The sample is one of the round's, whose rows are numbered.
    #[inline(always)]
    pub(crate) unsafe fn places(&self, sample: u32) -> [Option<RowPlace>; 4] {
        array4(|which| {
            // SAFETY: the caller's promise.
            unsafe {
                let slot = self.slots.get(sample * 4 + which as u32);
                (slot != ABSENT).then(|| RowPlace(self.values.get(slot & !FIRST)))
            }
        })
    }

    /// A staged corner's bilinear coefficient.
    ///
    /// # Safety
    ///
    /// The corner is one of the round's, after a barrier.
    #[inline(always)]
    pub(crate) unsafe fn coefficient(&self, sample: u32, which: u32) -> f32 {
        // SAFETY: the caller's promise.
        f32::from_bits(unsafe { self.coefficients.get(sample * 4 + which) })
    }

    /// A staged weight, by its group.
    ///
    /// # Safety
    ///
    /// The sample is one of the round's, after a barrier behind [`stage_weights`](Self::stage_weights).
    #[inline(always)]
    pub(crate) unsafe fn weight(&self, sample: u32, group: u32) -> f32 {
        // SAFETY: the caller's promise.
        f32::from_bits(unsafe { self.weights.get(sample * self.groups + group) })
    }

    /// The map of a staged sample.
    ///
    /// # Safety
    ///
    /// The sample is one of the round's, after a barrier.
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

    /// Adds the round's samples to the table: coefficient times weight, for each corner and group. Complete after the
    /// block's next barrier.
    ///
    /// Samples of different maps touch different rows, unless maps share them, and the samples of one map are one
    /// warp's: a corner and group have a lane each, and samples go one after the other, so nothing is added
    /// atomically and the order is always the same.
    ///
    /// # Safety
    ///
    /// The whole block makes the call, after [`number`](Self::number) and a barrier behind
    /// [`stage_weights`](Self::stage_weights).
    #[inline(always)]
    pub(crate) unsafe fn add_weights(&self, place: Place, round: Round, table: Table, owner: Owner) {
        let which = place.warp_lane / 8;
        let mut group = place.warp_lane % 8;
        // Eight groups at a time; as often for every lane of the warp, so that they meet inside.
        while group - place.warp_lane % 8 < self.groups {
            let mut begin = 0;
            while begin < round.count {
                let sample = begin + place.warp_lane;
                // SAFETY: a sample of the round.
                let mine =
                    sample < round.count && unsafe { owner.is(place, self.maps.get(sample)) };
                // SAFETY: all lanes of the warp are here: the bounds are the block's.
                let mut samples = unsafe { warp::warp_vote_ballot(WARP, mine) };
                while samples != 0 {
                    let sample = begin + samples.trailing_zeros();
                    samples &= samples - 1;
                    // SAFETY: the sample is the warp's. The lanes of its corners add to different rows; corners of the
                    // warp's next sample may be among them, hence the meeting.
                    unsafe {
                        let slot = self.slots.get(sample * 4 + which);
                        if slot != ABSENT && group < self.groups {
                            let row = RowPlace(self.values.get(slot & !FIRST));
                            let before =
                                if slot & FIRST != 0 { 0.0 } else { table.at(row, group) };
                            let weight = self.weight(sample, group);
                            let sum = self.coefficient(sample, which).mul_add(weight, before);
                            table.put(row, group, sum);
                        }
                        warp::sync_warp(WARP);
                    }
                }
                begin += WARP_LANES;
            }
            group += 8;
        }
    }

    /// Lanes that stage or combine the groups of one sample, a power of two.
    #[inline(always)]
    pub(crate) fn group_lanes(&self) -> u32 {
        self.group_lanes
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
    /// # Safety
    ///
    /// Row and group are in the table and were written.
    #[inline(always)]
    pub(crate) unsafe fn get(&self, row: u32, group: u32) -> f32 {
        // SAFETY: the caller's promise.
        unsafe { self.at(RowPlace(row * self.stride), group) }
    }

    /// # Safety
    ///
    /// Row and group are in the table, and nobody else touches the number meanwhile.
    #[inline(always)]
    pub(crate) unsafe fn set(&self, row: u32, group: u32, value: f32) {
        // SAFETY: the caller's promise.
        unsafe { self.put(RowPlace(row * self.stride), group, value) };
    }

    /// As [`get`](Self::get), for the place of a row.
    ///
    /// # Safety
    ///
    /// As for [`get`](Self::get).
    #[inline(always)]
    pub(crate) unsafe fn at(&self, row: RowPlace, group: u32) -> f32 {
        // SAFETY: the caller's promise.
        f32::from_bits(unsafe { self.words.get(row.0 + group) })
    }

    /// As [`set`](Self::set), for the place of a row.
    ///
    /// # Safety
    ///
    /// As for [`set`](Self::set).
    #[inline(always)]
    unsafe fn put(&self, row: RowPlace, group: u32, value: f32) {
        // SAFETY: the caller's promise.
        unsafe { self.words.set(row.0 + group, value.to_bits()) };
    }
}
