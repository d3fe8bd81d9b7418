//! Shares: what an anchor counts for at the pixels of a tile, for each weight group.
//!
//! An anchor's samples meet in the same pixels, so that its shares are fewer than its samples, and the gather has less to
//! do. Marks say which shares there are. Those of a tile lie side by side, in the order of the anchors; where in memory
//! depends on the run. Each vector of marks gets the number of its first share, by which an anchor finds its own, and each
//! tile the range of its shares, by which the gather does.

use crate::args::{BackwardArgs, NumberArgs, Shares, Sizes};
use crate::block::Place;
use crate::limits::{MARKS_PER_VECTOR, UNTOUCHED, number_words};
use crate::marks::{Mark, load_grid};
use crate::memory::{self, SharedWords};
use crate::rows::{Window, load_map};
use crate::unroll::upto8;
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

/// Numbers the shares that marks stand for, tile after tile, and clears them.
///
/// Grid: the tiles of the batch in blocks of `tiles_per_block`. Block: [`MARK_THREADS`](crate::MARK_THREADS), one for each
/// vector of its tiles. Shared memory: [`number_shared_bytes`](crate::number_shared_bytes).
///
/// # Safety
///
/// The pointers of `args` are valid as it says, for the sizes it gives; `shares.total` was 0 before the launch.
#[inline(always)]
pub(crate) unsafe fn number(args: NumberArgs) {
    let place = Place::new(&args.sizes);
    let shares = &args.shares;
    let first_tile = u64::from(thread::block_idx_x()) * u64::from(args.tiles_per_block);
    let tiles = (args.tiles - first_tile).min(u64::from(args.tiles_per_block)) as u32;
    let (tile, vector) = args.by_vectors.divide(place.thread);
    let at = (first_tile as usize * args.marks.vectors_per_tile as usize + place.thread as usize) * 4;
    let target = args.marks.words.wrapping_add(at);
    let (block, before_tile) =
        (SharedWords::new(number_words::FIRST), SharedWords::new(number_words::BEFORE));
    // SAFETY: the vector exists where it is read; marks were set by an earlier launch, and first words are written by the
    // vector's thread alone. The whole block makes the calls; words of shared memory are one thread's each.
    unsafe {
        let mut marks = [0; 3];
        if tile < tiles {
            // Past the cache that does not see writes: the threads of neighbouring vectors write.
            let [_, low, middle, high] = memory::load_words_far(target);
            marks = [low, middle, high];
        }
        let count = marks.iter().map(|word| word.count_ones()).sum();
        let (before, total) = place.before_thread(count);
        if vector == 0 && tile < tiles {
            before_tile.set(tile, before);
        }
        if place.thread == 0 {
            before_tile.set(tiles, total);
            // Once there is no room, what is beyond does not matter, and must not overflow.
            let taken = if total > 0 { memory::fetch_add(shares.total, 0) } else { 0 };
            let is_full = total == 0 || taken > shares.capacity;
            block.set(0, if is_full { taken } else { memory::fetch_add(shares.total, total) });
        }
        thread::sync_threads();
        let first = block.get(0);
        let mut tile = place.thread;
        while tile < tiles {
            let (begin, end) = (before_tile.get(tile), before_tile.get(tile + 1));
            let range = [first.wrapping_add(begin), end - begin].map(f32::from_bits);
            let tile_of_batch = first_tile as usize + tile as usize;
            memory::store_pair(shares.ranges.wrapping_add(2 * tile_of_batch).cast(), range);
            tile += place.threads;
        }
        if count > 0 {
            memory::store_u32(target, first.wrapping_add(before));
        }
        if total > 0 && u64::from(first) + u64::from(total) <= u64::from(shares.capacity) {
            name_owners(shares, first + before, vector, marks);
            clear(&args, place, first, total);
        }
    }
}

/// Writes down whose the shares of a vector of a tile's marks are, from `first` on.
///
/// # Safety
///
/// There is room for the shares, and they are the calling thread's.
#[inline(always)]
unsafe fn name_owners(shares: &Shares, first: u32, vector: u32, marks: [u32; 3]) {
    let mut share = first;
    upto8(marks.len(), |word| {
        let mut left = marks[word];
        while left != 0 {
            let anchor = vector * MARKS_PER_VECTOR + 32 * word as u32 + left.trailing_zeros();
            // SAFETY: the caller's promise.
            unsafe { memory::store_u32(shares.owners.wrapping_add(share as usize), anchor) };
            share += 1;
            left &= left - 1;
        }
    });
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

/// Finds the shares of an anchor that the rows of a window belong to, `known` of them: the window's spare words are the number
/// of each row's share and pixel, after the block's next barrier.
///
/// # Safety
///
/// The whole block makes the call; the anchor, by its batch item and number, is the block's, and its tiles are marked.
#[inline(always)]
pub(crate) unsafe fn locate<T>(
    args: &BackwardArgs<T>,
    place: Place,
    [item, anchor]: [u32; 2],
    window: &Window,
    known: u32,
) {
    let (pixels, mark) = (window.spare(), Mark::new(anchor));
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
}

/// Leaves what the rows of a window count for, `known` of them with the table's weights, in their shares. An `earlier` window may
/// have left something for the same rows.
///
/// # Safety
///
/// The whole block makes the call, after a barrier behind [`locate`]. The table is complete, and a barrier passes before it or the
/// window are changed.
#[inline(always)]
pub(crate) unsafe fn leave<T>(
    args: &BackwardArgs<T>,
    place: Place,
    window: &Window,
    known: u32,
    earlier: bool,
) {
    let sizes = &args.sizes;
    let (table, pixels) = (window.table(), window.spare());
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
