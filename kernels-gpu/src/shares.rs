//! Shares: what an anchor counts for at the pixels of a tile, for each weight group.
//!
//! An anchor's samples meet in the same pixels, so that its shares are fewer than its samples, and the gather has less to
//! do. Marks say which shares there are. Each vector of marks gets the number of its first share; where in memory a
//! vector's shares lie depends on the run, their order within a tile does not.

use crate::args::{BackwardArgs, NumberArgs, Shares, Sizes};
use crate::block::Place;
use crate::limits::{UNTOUCHED, window_words};
use crate::marks::{Mark, load_grid};
use crate::memory::{self, SharedWords};
use crate::rows::{Window, load_map};
use cuda_std::thread;

impl Shares {
    /// Whether there is room for all. Numbers are of use only then.
    ///
    /// # Safety
    ///
    /// With a capacity, `total` points to a word that earlier launches have written.
    #[inline(always)]
    pub(crate) unsafe fn fit(&self) -> bool {
        // SAFETY: the caller's promise.
        self.capacity > 0 && unsafe { memory::load_u32(self.total) } <= self.capacity
    }

    /// Where the four pixels of a share and group are.
    #[inline(always)]
    pub(crate) fn pixels(&self, sizes: &Sizes, share: u32, group: u32) -> *mut f32 {
        let at = share as usize * sizes.groups as usize + group as usize;
        self.words.wrapping_add(4 * at)
    }
}

/// Numbers the shares of the vectors of marks, and clears them.
///
/// Grid: `vectors` in blocks of [`MARK_THREADS`](crate::MARK_THREADS). Shared memory: the counts of warps.
///
/// # Safety
///
/// The pointers of `args` are valid as it says, for the sizes it gives; `shares.total` was 0 before the launch.
#[inline(always)]
pub(crate) unsafe fn number(args: NumberArgs) {
    let place = Place::new(&args.sizes);
    let vector = u64::from(thread::block_idx_x()) * u64::from(place.threads) + u64::from(place.thread);
    let target = args.marks.words.wrapping_add(4 * vector as usize);
    let shares = &args.shares;
    // SAFETY: the vector exists where it is read; marks were set by an earlier launch, and first words are written by the
    // vector's thread alone. The whole block makes the calls.
    unsafe {
        let mut count = 0;
        if vector < args.vectors {
            // Past the cache that does not see writes: the threads of neighbouring vectors write.
            let [_, low, middle, high] = memory::load_words_far(target);
            count = low.count_ones() + middle.count_ones() + high.count_ones();
        }
        let (before, total) = place.before_thread(count);
        let first = SharedWords::new(window_words::VISIBLE);
        if place.thread == 0 && total > 0 {
            // Once there is no room, what is beyond does not matter, and must not overflow.
            let taken = memory::fetch_add(shares.total, 0);
            let taken = if taken > shares.capacity { taken } else { memory::fetch_add(shares.total, total) };
            first.set(0, taken);
        }
        thread::sync_threads();
        if total == 0 {
            return;
        }
        let first = first.get(0);
        if count > 0 {
            memory::store_u32(target, first.wrapping_add(before));
        }
        if u64::from(first) + u64::from(total) <= u64::from(shares.capacity) {
            clear(&args, place, first, total);
        }
    }
}

/// Clears `count` shares from `first` on.
///
/// # Safety
///
/// The whole block makes the call; the shares are its own.
#[inline(always)]
unsafe fn clear(args: &NumberArgs, place: Place, first: u32, count: u32) {
    let target = args.shares.pixels(&args.sizes, first, 0);
    let vectors = count as usize * args.sizes.groups as usize;
    let mut vector = place.thread as usize;
    while vector < vectors {
        // SAFETY: four words of a share.
        unsafe { memory::store_words(target.wrapping_add(4 * vector).cast(), [UNTOUCHED; 4]) };
        vector += place.threads as usize;
    }
}

/// Leaves what the rows of a window count for, `known` of them with the table's weights, in the shares of an anchor. An
/// `earlier` window may have left something for the same rows.
///
/// # Safety
///
/// The whole block makes the call; the anchor, by its batch item and number, is the block's, and its tiles are marked. The
/// table is complete, and a barrier passes before it or the window are changed.
#[inline(always)]
pub(crate) unsafe fn leave<T>(
    args: &BackwardArgs<T>,
    place: Place,
    [item, anchor]: [u32; 2],
    window: &Window,
    known: u32,
    earlier: bool,
) {
    let sizes = &args.sizes;
    let (table, pixels) = (window.table(), window.spare());
    let mark = Mark::new(anchor);
    let mut number = place.thread;
    while number < known {
        // SAFETY: the row is known, and lies on its map; its tile has the anchor's mark.
        unsafe {
            let map = window.map_of_row(number) as usize;
            let grid = load_grid(args.grids.add(map));
            let map = load_map(args.maps.add(map));
            let pixel = window.row(number) - map.start;
            let (line, column) = (pixel / map.width.max(1), pixel % map.width.max(1));
            let vector = args.marks.vector(item as usize, grid.tile(column, line), mark.vector);
            let share = mark.share(memory::load_words(vector));
            pixels.set(number, share * 4 + line % 2 * 2 + column % 2);
        }
        number += place.threads;
    }
    thread::sync_threads();
    let mut word = place.thread;
    while word < known * sizes.groups {
        let (number, group) = sizes.by_groups.divide(word);
        // SAFETY: the share is the block's anchor's, and one thread's is the pixel and group.
        unsafe {
            let pixel = pixels.get(number);
            let target = args.shares.pixels(sizes, pixel / 4, group).wrapping_add((pixel % 4) as usize);
            let mut value = table.at(table.place(number), group);
            if earlier {
                value += memory::reload_f32(target);
            }
            // Minus zero says that the pixel is not touched.
            memory::store_f32(target, if value == 0.0 { 0.0 } else { value });
        }
        word += place.threads;
    }
}
