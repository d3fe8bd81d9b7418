//! Sorting lists: a warp has some tiles, and sorts the lists of those that have several points one after the other.
//!
//! A point is in a list once. So a list of up to 32 points is sorted by counting, for each, how many are less. For a longer one
//! the points set bits in shared memory, which are read in their order: as many points as there are bits at a time.

use crate::args::ListArgs;
use crate::block::WARP;
use crate::limits::WARP_LANES;
use crate::memory::{self, SharedWords};
use crate::unroll::{array4, each4};
use cuda_std::{thread, warp};

/// Sorts the lists.
///
/// Grid: along x a warp for up to 32 tiles, and along y any number of blocks for the batch items. Block: whole warps. Shared
/// memory: `bitmap_words` words for each warp.
///
/// # Safety
///
/// The pointers of `args` are valid as it says, for the sizes it gives; the lists are filled.
#[inline(always)]
pub(crate) unsafe fn sort(args: ListArgs) {
    let thread = thread::thread_idx_x();
    let (warp, lane) = (thread / WARP_LANES, thread % WARP_LANES);
    let warps = thread::grid_dim_x() * thread::block_dim_x() / WARP_LANES;
    // Neighbouring tiles are as long as each other: a warp has some from everywhere.
    let tile = thread::block_idx_x() * thread::block_dim_x() / WARP_LANES + warp + lane * warps;
    let bitmap = SharedWords::new(warp * args.bitmap_words);
    let mut item = thread::block_idx_y();
    while item < args.sizes.batch {
        let (mut begin, mut count) = (0, 0);
        if tile < args.lists.tiles {
            // SAFETY: the tile has a range, which nobody writes any more.
            let range = unsafe { memory::load_pair(args.lists.range(item, tile).cast()) };
            begin = range[0].to_bits();
            count = range[1].to_bits() - begin;
        }
        // SAFETY: all lanes of the warp are here, also below: the ballot's result is the same for all of them.
        let mut left = unsafe { warp::warp_vote_ballot(WARP, count > 1) };
        while left != 0 {
            let next = left.trailing_zeros();
            left &= left - 1;
            // SAFETY: as above; the lists are the warp's.
            unsafe {
                let begin = warp::warp_shuffle_idx(WARP, begin, next, WARP_LANES).0;
                let count = warp::warp_shuffle_idx(WARP, count, next, WARP_LANES).0;
                let list = List { words: args.lists.point(item, begin), count, lane };
                if count <= WARP_LANES {
                    list.sort_few();
                } else {
                    list.sort_many(bitmap, args.bitmap_words);
                }
                // Lists lie one behind the other, and the bitmap may be cleared again after this.
                warp::sync_warp(WARP);
            }
        }
        item += thread::grid_dim_y();
    }
}

/// A list, as a lane of its warp sees it.
#[derive(Clone, Copy)]
struct List {
    words: *mut u32,
    count: u32,
    lane: u32,
}

impl List {
    /// What is at this place of the list.
    ///
    /// # Safety
    ///
    /// The place is one of the list, and no other lane writes it until the warp has met.
    #[inline(always)]
    unsafe fn get(&self, at: u32) -> u32 {
        // SAFETY: the caller's promise.
        unsafe { memory::reload_u32(self.words.wrapping_add(at as usize)) }
    }

    /// Puts a point at this place of the list.
    ///
    /// # Safety
    ///
    /// The place is one of the list, and no other lane touches it until the warp has met.
    #[inline(always)]
    unsafe fn set(&self, at: u32, point: u32) {
        // SAFETY: the caller's promise.
        unsafe { memory::store_u32(self.words.wrapping_add(at as usize), point) };
    }

    /// Sorts at most as many points as there are lanes.
    ///
    /// # Safety
    ///
    /// All lanes of the warp make the call together; the list is the warp's.
    #[inline(always)]
    unsafe fn sort_few(self) {
        let is_live = self.lane < self.count;
        // SAFETY: a place of the list; all lanes of the warp are here. Every lane has read its point when the warp has met, and
        // ranks are distinct, because points are.
        unsafe {
            let point = if is_live { self.get(self.lane) } else { 0 };
            let mut rank = 0;
            let mut other = 0;
            while other < self.count {
                rank += u32::from(warp::warp_shuffle_idx(WARP, point, other, WARP_LANES).0 < point);
                other += 1;
            }
            warp::sync_warp(WARP);
            if is_live {
                self.set(rank, point);
            }
        }
    }

    /// Sorts any number of points by way of a bitmap of `words` words.
    ///
    /// # Safety
    ///
    /// As for [`sort_few`](Self::sort_few); the bitmap is the warp's.
    #[inline(always)]
    unsafe fn sort_many(self, bitmap: SharedWords, words: u32) {
        let (mut sorted, mut least) = (0, 0);
        while sorted < self.count {
            // SAFETY: all lanes of the warp are here, with the same numbers.
            unsafe {
                let mut word = self.lane;
                while word < words {
                    bitmap.set(word, 0);
                    word += WARP_LANES;
                }
                warp::sync_warp(WARP);
                self.note(bitmap, words, sorted, least);
                warp::sync_warp(WARP);
                sorted = self.write_noted(bitmap, words, sorted, least);
                warp::sync_warp(WARP);
            }
            least = least.saturating_add(words * u32::BITS);
        }
    }

    /// Sets the bits of the points from `least` on for which there are bits, and moves the others to the end of the list. The
    /// first `sorted` are left alone.
    ///
    /// # Safety
    ///
    /// As for [`sort_many`](Self::sort_many), whose bitmap is cleared.
    #[inline(always)]
    unsafe fn note(&self, bitmap: SharedWords, words: u32, sorted: u32, least: u32) {
        // From the end of the list on: what is moved is never moved over what is not read yet.
        let (mut end, mut free) = (self.count, self.count);
        while end > sorted {
            let begin = end.saturating_sub(4 * WARP_LANES).max(sorted);
            // SAFETY: places of the list. All lanes of the warp are here: every one has read before any writes, and written
            // before any reads again.
            unsafe {
                // Four points on their way at a time.
                let points = array4(|turn| {
                    let at = begin + turn as u32 * WARP_LANES + self.lane;
                    if at < end { Some(self.get(at)) } else { None }
                });
                warp::sync_warp(WARP);
                each4(|turn| {
                    let bit = points[turn].unwrap_or(0).wrapping_sub(least);
                    let is_live = points[turn].is_some();
                    let is_near = bit / u32::BITS < words;
                    if is_live && is_near {
                        bitmap.set_bits(bit / u32::BITS, 1 << (bit % u32::BITS));
                    }
                    let far = warp::warp_vote_ballot(WARP, is_live && !is_near);
                    if is_live && !is_near {
                        let before = (far & ((1 << self.lane) - 1)).count_ones();
                        self.set(free - 1 - before, least.wrapping_add(bit));
                    }
                    free -= far.count_ones();
                });
                warp::sync_warp(WARP);
            }
            end = begin;
        }
    }

    /// Writes the points that have bits, from place `sorted` on, and returns where they end.
    ///
    /// # Safety
    ///
    /// As for [`note`](Self::note), which has set the bits.
    #[inline(always)]
    unsafe fn write_noted(&self, bitmap: SharedWords, words: u32, sorted: u32, least: u32) -> u32 {
        let (mut first, mut written) = (0, sorted);
        // The loops run as often for every lane of the warp: its lanes meet inside.
        while first < words {
            let word = first + self.lane;
            // SAFETY: a word of the bitmap, written before the warp met; all lanes of the warp are here. A place of the list for
            // each bit.
            unsafe {
                let bits = if word < words { bitmap.get(word) } else { 0 };
                let mut left = warp::warp_vote_ballot(WARP, bits != 0);
                while left != 0 {
                    let next = left.trailing_zeros();
                    left &= left - 1;
                    // A lane for each bit of the next word that has some.
                    let (bits, _) = warp::warp_shuffle_idx(WARP, bits, next, WARP_LANES);
                    if bits >> self.lane & 1 != 0 {
                        let before = (bits & ((1 << self.lane) - 1)).count_ones();
                        self.set(written + before, least + (first + next) * u32::BITS + self.lane);
                    }
                    written += bits.count_ones();
                }
            }
            first += WARP_LANES;
        }
        written
    }
}
