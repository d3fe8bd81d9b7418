//! Sorts the visible samples of each map by the cell they lie in, for the gather.
//!
//! One block per band of cells and batch item, and nothing between blocks: it counts its samples with one
//! counter per cell in shared memory, turns the counts into offsets, and fills in the samples in the order of
//! anchors and points. The order within a cell is thus the same in every run.

use crate::args::{Band, Level, MapGrid, SortArgs};
use crate::block::{Place, WARP};
use crate::forward::load_map;
use crate::limits::{PAIRS_AT_A_TIME, WARP_LANES, shared_words, sort_words};
use crate::memory::{self, SharedWords};
use crate::sample;
use crate::visible::Visible;
#[cfg(target_arch = "nvptx64")]
use cuda_std::GpuFloat;
use cuda_std::{thread, warp};

/// What a block sorts.
struct Job {
    band: Band,
    map: Level,
    rule: u32,
    /// The item's locations for the band's camera, and the distance from one point to the next.
    locations: *const f32,
    stride: usize,
    /// Points of a batch item, `A * P`.
    points: u32,
}

impl Job {
    /// # Safety
    ///
    /// The pointers of `args` are valid as it says, and the block is one of the grid the host makes.
    #[inline(always)]
    unsafe fn new(args: &SortArgs) -> Self {
        let sizes = &args.sizes;
        // SAFETY: there is a block per band; a `Band` is four words, aligned to 16 bytes.
        let [map, first_cell, cells, last] = unsafe {
            memory::load_words(args.bins.bands.add(thread::block_idx_x() as usize).cast(), true)
        };
        let camera = map / sizes.levels.max(1);
        let points = sizes.anchors * sizes.points;
        let item = thread::block_idx_y() as usize * points as usize;
        let stride = 2 * sizes.cameras as usize;
        Self {
            band: Band { map, first_cell, cells, last },
            // SAFETY: a band's map exists.
            map: unsafe { load_map(args.bins.maps.add(map as usize)) },
            rule: sizes.rule,
            locations: args.locations.wrapping_add(item * stride + 2 * camera as usize),
            stride,
            points,
        }
    }

    /// Where a point lies on the map, in pixels, if it counts there.
    #[inline(always)]
    fn position(&self, point: u32) -> Option<[f32; 2]> {
        // SAFETY: the callers pass points of the item.
        let [x, y] = unsafe {
            memory::load_pair(self.locations.wrapping_add(point as usize * self.stride))
        };
        sample::position(x, y, self.map, self.rule)
    }

    /// The cell of a position, counted from the first of the map.
    #[inline(always)]
    fn cell(&self, [u, v]: [f32; 2]) -> u32 {
        // From -1 on: the first row and column of cells lie before the first pixel centres.
        let (column, row) = ((u.floor() as i32 + 1) as u32, (v.floor() as i32 + 1) as u32);
        row * (self.map.width + 1) + column
    }

    /// Whether a cell of the map is one of the band's.
    #[inline(always)]
    fn has(&self, cell: u32) -> bool {
        cell.wrapping_sub(self.band.first_cell) < self.band.cells
    }
}

/// The sorting kernel.
///
/// Grid: `(bands, B)`. Block: whole warps. Shared memory: [`sort_words::BYTES`].
///
/// # Safety
///
/// The pointers of `args` are valid as it says, for the sizes it gives.
#[inline(always)]
pub(crate) unsafe fn sort(args: SortArgs) {
    let place = Place::new(&args.sizes);
    let counters = SharedWords::new(sort_words::CELLS);
    // SAFETY: the whole block makes these calls, each with a barrier at its end.
    unsafe {
        let job = Job::new(&args);
        count(&job, place, counters);
        offsets(&args, &job, place, counters);
        fill(&args, &job, place, counters);
    }
    if place.thread == 0 && thread::block_idx_x() == 0 && thread::block_idx_y() == 0 {
        // SAFETY: the list's length; the next kernel is the first to add to it.
        unsafe { memory::store_u32(args.bins.crowded, 0) };
    }
}

/// Counts the samples of each of the band's cells, and those of the cells before.
///
/// # Safety
///
/// The whole block makes the call.
#[inline(always)]
unsafe fn count(job: &Job, place: Place, counters: SharedWords) {
    let earlier_word = SharedWords::new(sort_words::EARLIER);
    let mut cell = place.thread;
    while cell < job.band.cells {
        // SAFETY: one thread per counter.
        unsafe { counters.set(cell, 0) };
        cell += place.threads;
    }
    if place.thread == 0 {
        // SAFETY: one thread.
        unsafe { earlier_word.set(0, 0) };
    }
    thread::sync_threads();
    let mut earlier = 0;
    let mut point = place.thread;
    while point < job.points {
        if let Some(position) = job.position(point) {
            let cell = job.cell(position);
            if job.has(cell) {
                // SAFETY: a counter of the band, cleared before the barrier.
                unsafe { counters.add(cell - job.band.first_cell, 1) };
            } else if cell < job.band.first_cell {
                earlier += 1;
            }
        }
        point += place.threads;
    }
    // SAFETY: cleared before the barrier.
    unsafe { earlier_word.add(0, earlier) };
    thread::sync_threads();
}

/// Turns the counts into the places where the cells' samples begin: in shared memory, and for the gather.
///
/// # Safety
///
/// The whole block makes the call, after [`count`].
#[inline(always)]
unsafe fn offsets(args: &SortArgs, job: &Job, place: Place, counters: SharedWords) {
    let totals = SharedWords::new(shared_words::COUNTS);
    let share = job.band.cells.div_ceil(place.warps.max(1)).next_multiple_of(WARP_LANES);
    let (first, end) = (place.warp * share, ((place.warp + 1) * share).min(job.band.cells));
    // First every warp by itself: each counter becomes the sum of those before it in the warp's share.
    let mut sum = 0;
    let mut row = first;
    while row < end {
        let cell = row + place.warp_lane;
        // SAFETY: counters of this warp's share; all its lanes are here.
        unsafe {
            let value = if cell < end { counters.get(cell) } else { 0 };
            let upto = sum_upto_lane(value, place.warp_lane);
            if cell < end {
                counters.set(cell, sum + upto - value);
            }
            sum += warp::warp_shuffle_idx(WARP, upto, WARP_LANES - 1, WARP_LANES).0;
        }
        row += WARP_LANES;
    }
    if place.warp_lane == 0 {
        // SAFETY: the warp's own word.
        unsafe { totals.set(place.warp, sum) };
    }
    thread::sync_threads();
    // Then all shares one behind the other, and the band behind the earlier bands and maps.
    let earlier = SharedWords::new(sort_words::EARLIER);
    // SAFETY: written before the barrier.
    let mut base = job.band.map * job.points + unsafe { earlier.get(0) };
    let mut all = base;
    for other in 0..place.warps {
        // SAFETY: written before the barrier.
        let total = unsafe { totals.get(other) };
        base += if other < place.warp { total } else { 0 };
        all += total;
    }
    // SAFETY: a band's map exists.
    let first_cell =
        unsafe { load_grid(args.bins.grids.add(job.band.map as usize)) }.first_cell;
    let item = thread::block_idx_y() as usize * args.bins.cells as usize;
    let target =
        args.bins.offsets.wrapping_add(item + (first_cell + job.band.first_cell) as usize);
    let mut cell = first + place.warp_lane;
    while cell < end {
        // SAFETY: counters and offsets of this warp's share.
        unsafe {
            let offset = base + counters.get(cell);
            counters.set(cell, offset);
            memory::store_u32(target.wrapping_add(cell as usize), offset);
        }
        cell += WARP_LANES;
    }
    if job.band.last != 0 && place.thread == 0 {
        // SAFETY: the offset behind the map's last cell.
        unsafe { memory::store_u32(target.wrapping_add(job.band.cells as usize), all) };
    }
    thread::sync_threads();
}

/// The sum of the lane's value and those of the lanes below it.
///
/// # Safety
///
/// All lanes of the warp make the call together.
#[inline(always)]
unsafe fn sum_upto_lane(mut value: u32, lane: u32) -> u32 {
    let mut distance = 1;
    while distance < WARP_LANES {
        // SAFETY: the caller has all lanes here.
        let (below, _) = unsafe { warp::warp_shuffle_up(WARP, value, distance, WARP_LANES) };
        value += if lane >= distance { below } else { 0 };
        distance *= 2;
    }
    value
}

/// Writes the band's samples to their places.
///
/// The block lists them in order and finds their cells; its first warp, 32 at a time, gives each the next place of
/// its cell; the block writes them there. Only the step in the middle is one after the other, and it stays within
/// shared memory.
///
/// # Safety
///
/// The whole block makes the call, after [`offsets`].
#[inline(always)]
unsafe fn fill(args: &SortArgs, job: &Job, place: Place, counters: SharedWords) {
    let list = Visible::new();
    let places = SharedWords::new(sort_words::PLACES);
    let mut first = 0;
    while first < job.points {
        // SAFETY: the whole block is here with the same arguments, and the barrier at the end of the loop has
        // passed since the last list was read.
        let listed = unsafe {
            list.collect(place, first, job.points, |point| {
                job.position(point).is_some_and(|position| job.has(job.cell(position)))
            })
        };
        let mut index = place.thread;
        while index < listed {
            // SAFETY: the list is complete; one thread per entry.
            unsafe {
                if let Some(position) = job.position(list.pair(index)) {
                    places.set(index, job.cell(position) - job.band.first_cell);
                }
            }
            index += place.threads;
        }
        thread::sync_threads();
        if place.warp == 0 {
            let mut index = 0;
            while index < listed {
                // SAFETY: all lanes of the warp are here, and no other warp touches counters and places.
                unsafe { next_places(place.warp_lane, counters, places, index, listed) };
                index += WARP_LANES;
            }
        }
        thread::sync_threads();
        let mut index = place.thread;
        while index < listed {
            // SAFETY: the places are complete and each is one sample's.
            unsafe { write_sample(args, job, list.pair(index), places.get(index)) };
            index += place.threads;
        }
        first += PAIRS_AT_A_TIME;
        thread::sync_threads();
    }
}

/// Turns 32 entries of the list from their cell to its next place, lower entries first.
///
/// # Safety
///
/// All lanes of the warp make the call together; no other warp touches counters and places meanwhile.
#[inline(always)]
unsafe fn next_places(
    lane: u32,
    counters: SharedWords,
    places: SharedWords,
    index: u32,
    listed: u32,
) {
    let mine = index + lane;
    let live = mine < listed;
    // SAFETY: an entry of the list.
    let counter = if live { unsafe { places.get(mine) } } else { u32::MAX };
    // SAFETY: all lanes are here.
    let alike = unsafe { memory::lanes_alike(counter) };
    let mut next = 0;
    if live {
        let rank = (alike & ((1 << lane) - 1)).count_ones();
        // SAFETY: a counter of the band; its next places are for these lanes, one each.
        unsafe {
            next = counters.get(counter) + rank;
            places.set(mine, next);
        }
    }
    // SAFETY: all lanes are here; the counters may be written after this, and read again after the next.
    unsafe {
        warp::sync_warp(WARP);
        if live && alike >> lane == 1 {
            // The highest of the lanes alike moves the counter on for all of them.
            counters.set(counter, next + 1);
        }
        warp::sync_warp(WARP);
    }
}

/// Writes a point's sample on the job's map.
///
/// # Safety
///
/// The point counts on the map, and the place is its own.
#[inline(always)]
unsafe fn write_sample(args: &SortArgs, job: &Job, point: u32, place: u32) {
    let sizes = &args.sizes;
    let Some([u, v]) = job.position(point) else { return };
    let (anchor, of_anchor) = (point / sizes.points.max(1), point % sizes.points.max(1));
    let pair = of_anchor * sizes.cameras + job.band.map / sizes.levels.max(1);
    let maps = (sizes.cameras * sizes.levels) as usize;
    let item = thread::block_idx_y() as usize * maps * job.points as usize;
    // SAFETY: places lie within the item's samples, four words each, aligned to 16 bytes.
    unsafe {
        memory::store_words(
            args.bins.samples.wrapping_add(4 * (item + place as usize)),
            [anchor, pair, u.to_bits(), v.to_bits()],
        );
    }
}

/// The numbering of a map, from the table.
///
/// # Safety
///
/// `grid` points to a [`MapGrid`] nobody writes during the launch.
#[inline(always)]
pub(crate) unsafe fn load_grid(grid: *const MapGrid) -> MapGrid {
    // SAFETY: a `MapGrid` is four words, aligned to 16 bytes.
    let [first_tile, tiles_across, first_cell, reserved] =
        unsafe { memory::load_words(grid.cast(), true) };
    MapGrid { first_tile, tiles_across, first_cell, reserved }
}
