//! Sorting lists: a warp has some tiles, and sorts the lists of those that have several points one after the other; long lists are
//! sorted by the whole block, and cut into [pieces](super::pieces).
//!
//! A point is in a list once. So a list of up to 32 points is sorted by counting, for each, how many are less. For a longer one
//! the points set bits in shared memory, which are read in their order: as many points as there are bits at a time.

use super::pieces::cut;
use crate::args::ListArgs;
use crate::block::{Place, WARP};
use crate::limits::{LONG_LIST, WARP_LANES, sort_words};
use crate::memory::{self, SharedWords};
use crate::unroll::{array4, each4};
use cuda_std::{thread, warp};

/// Sorts the lists, and cuts long ones into pieces.
///
/// Grid: along x a warp for up to 32 tiles, and along y any number of blocks for the batch items. Block: whole warps. Shared
/// memory: [`sort_shared_bytes`](crate::sort_shared_bytes).
///
/// # Safety
///
/// The pointers of `args` are valid as it says, for the sizes it gives; the lists are filled.
#[inline(always)]
pub(crate) unsafe fn sort(args: ListArgs) {
    let mut item = thread::block_idx_y();
    while item < args.sizes.batch {
        let place = Place::again(&args.sizes);
        // SAFETY: the pointers are valid.
        let own = unsafe { Own::new(&args, place, item) };
        // SAFETY: all lanes of the warp are here, also below: the ballot's result is the same for all of them.
        let mut left = unsafe { warp::warp_vote_ballot(WARP, own.count > 1 && !own.is_long()) };
        let bits = sort_words::bits(place.threads) + place.warp * args.bitmap_words;
        let bitmap = Bitmap { bits: SharedWords::new(bits), words: args.bitmap_words };
        while left != 0 {
            let next = left.trailing_zeros();
            left &= left - 1;
            // SAFETY: as above; the lists are the warp's.
            unsafe {
                let begin = warp::warp_shuffle_idx(WARP, own.begin, next, WARP_LANES).0;
                let count = warp::warp_shuffle_idx(WARP, own.count, next, WARP_LANES).0;
                let team = Lanes { lane: place.warp_lane };
                let list = List { words: args.lists.point(item, begin), count, team };
                if count <= WARP_LANES {
                    list.sort_few();
                } else {
                    list.sort_many(bitmap);
                }
                // Lists lie one behind the other, and the bitmap may be cleared again after this.
                warp::sync_warp(WARP);
            }
        }
        if thread::sync_threads_or(u32::from(own.is_long())) != 0 {
            // SAFETY: the whole block is here: the barrier's result is the same for all of it.
            unsafe { sort_long(&args, item) };
        }
        item += thread::grid_dim_y();
    }
}

/// The list of the calling lane's tile.
#[derive(Clone, Copy)]
struct Own {
    tile: u32,
    begin: u32,
    count: u32,
}

impl Own {
    /// That of a batch item; an empty one if there is no tile.
    ///
    /// # Safety
    ///
    /// The pointers of `args` are valid as it says; the lists are filled.
    #[inline(always)]
    unsafe fn new(args: &ListArgs, place: Place, item: u32) -> Self {
        let warps = thread::grid_dim_x() * place.warps;
        // Neighbouring tiles are as long as each other: a warp has some from everywhere.
        let tile = thread::block_idx_x() * place.warps + place.warp + place.warp_lane * warps;
        if tile >= args.lists.tiles {
            return Self { tile, begin: 0, count: 0 };
        }
        // SAFETY: the tile has a range, which nobody writes any more.
        let range = unsafe { memory::load_pair(args.lists.range(item, tile).cast()) };
        let [begin, end] = range.map(f32::to_bits);
        Self { tile, begin, count: end - begin }
    }

    #[inline(always)]
    fn is_long(&self) -> bool {
        self.count > LONG_LIST
    }
}

/// Sorts the long lists of the block's tiles, and cuts them into pieces.
///
/// # Safety
///
/// The whole block makes the call, as for [`sort`].
#[inline(always)]
unsafe fn sort_long(args: &ListArgs, item: u32) {
    let place = Place::again(&args.sizes);
    let queue = SharedWords::new(sort_words::QUEUE);
    let bitmap = Bitmap {
        bits: SharedWords::new(sort_words::bits(place.threads)),
        words: place.warps * args.bitmap_words,
    };
    // SAFETY: the whole block is here, and meets before any thread reads what another has written, and before that is
    // written again.
    unsafe {
        let own = Own::new(args, place, item);
        let ([rank], lists) = place.rank([own.is_long()]);
        if own.is_long() {
            queue.set4(4 * rank, [own.tile, own.begin, own.count, 0]);
        }
        thread::sync_threads();
        let mut next = 0;
        while next < lists {
            let [tile, begin, count, _] = queue.get4(4 * next);
            let words = args.lists.point(item, begin);
            List { words, count, team: Block }.sort_many(bitmap);
            cut(args, item, tile, count);
            thread::sync_threads();
            next += 1;
        }
    }
}

/// Threads that sort a list together.
trait Team: Copy {
    /// The calling thread's number.
    fn thread(self) -> u32;

    /// How many there are, whole warps.
    fn threads(self) -> u32;

    /// Waits for all of them.
    ///
    /// # Safety
    ///
    /// All of them make the call.
    unsafe fn meet(self);

    /// For each `chosen`, how many there are before it, those of lower threads first, and how many there are in all.
    ///
    /// # Safety
    ///
    /// All of them make the call, and meet between two.
    unsafe fn rank_each(self, chosen: [bool; 4]) -> ([u32; 4], u32);

    /// The sum of the counts of all threads of lower warps, and of all threads if it is more than the calling warp.
    ///
    /// # Safety
    ///
    /// As for [`rank_each`](Self::rank_each).
    unsafe fn before_warp(self, count: u32) -> (u32, Option<u32>);
}

/// The lanes of a warp.
#[derive(Clone, Copy)]
struct Lanes {
    lane: u32,
}

impl Team for Lanes {
    #[inline(always)]
    fn thread(self) -> u32 {
        self.lane
    }

    #[inline(always)]
    fn threads(self) -> u32 {
        WARP_LANES
    }

    #[inline(always)]
    unsafe fn meet(self) {
        // SAFETY: all lanes of the warp are here.
        unsafe { warp::sync_warp(WARP) };
    }

    #[inline(always)]
    unsafe fn rank_each(self, chosen: [bool; 4]) -> ([u32; 4], u32) {
        let lower = (1 << self.lane) - 1;
        let mut before = 0;
        let ranks = chosen.map(|one| {
            // SAFETY: all lanes of the warp are here.
            let ballot = unsafe { warp::warp_vote_ballot(WARP, one) };
            let rank = before + (ballot & lower).count_ones();
            before += ballot.count_ones();
            rank
        });
        (ranks, before)
    }

    #[inline(always)]
    unsafe fn before_warp(self, _: u32) -> (u32, Option<u32>) {
        (0, None)
    }
}

/// The threads of a block. What they are asked for is computed anew each time: registers are few.
#[derive(Clone, Copy)]
struct Block;

impl Block {
    #[inline(always)]
    fn place() -> Place {
        Place::with_lanes(WARP_LANES)
    }
}

impl Team for Block {
    #[inline(always)]
    fn thread(self) -> u32 {
        memory::opaque(thread::thread_idx_x())
    }

    #[inline(always)]
    fn threads(self) -> u32 {
        thread::block_dim_x()
    }

    #[inline(always)]
    unsafe fn meet(self) {
        thread::sync_threads();
    }

    #[inline(always)]
    unsafe fn rank_each(self, chosen: [bool; 4]) -> ([u32; 4], u32) {
        // SAFETY: the caller's promise.
        unsafe { Self::place().rank(chosen) }
    }

    #[inline(always)]
    unsafe fn before_warp(self, count: u32) -> (u32, Option<u32>) {
        // SAFETY: the caller's promise.
        unsafe {
            let (before, all) = Self::place().before_thread(count);
            (warp::warp_shuffle_idx(WARP, before, 0, WARP_LANES).0, Some(all))
        }
    }
}

/// Words in shared memory with a bit for each of so many neighbouring points.
#[derive(Clone, Copy)]
struct Bitmap {
    bits: SharedWords,
    words: u32,
}

/// A list, as a thread of its team sees it.
#[derive(Clone, Copy)]
struct List<T> {
    words: *mut u32,
    count: u32,
    team: T,
}

impl<T: Team> List<T> {
    /// What is at this place of the list.
    ///
    /// # Safety
    ///
    /// The place is one of the list, and no other thread writes it until the team has met.
    #[inline(always)]
    unsafe fn get(&self, at: u32) -> u32 {
        // SAFETY: the caller's promise.
        unsafe { memory::reload_u32(self.words.wrapping_add(at as usize)) }
    }

    /// Puts a point at this place of the list.
    ///
    /// # Safety
    ///
    /// The place is one of the list, and no other thread touches it until the team has met.
    #[inline(always)]
    unsafe fn set(&self, at: u32, point: u32) {
        // SAFETY: the caller's promise.
        unsafe { memory::store_u32(self.words.wrapping_add(at as usize), point) };
    }

    /// Sorts any number of points.
    ///
    /// # Safety
    ///
    /// The whole team makes the call; the list and the bitmap are its own.
    #[inline(always)]
    unsafe fn sort_many(self, bitmap: Bitmap) {
        let (mut sorted, mut least) = (0, 0);
        while sorted < self.count {
            // SAFETY: the whole team is here, with the same numbers.
            unsafe {
                let mut word = self.team.thread();
                while word < bitmap.words {
                    bitmap.bits.set(word, 0);
                    word += self.team.threads();
                }
                self.team.meet();
                self.note(bitmap, sorted, least);
                self.team.meet();
                sorted = self.write_noted(bitmap, sorted, least);
                self.team.meet();
            }
            least = least.saturating_add(bitmap.words * u32::BITS);
        }
    }

    /// Sets the bits of the points from `least` on for which there are bits, and moves the others to the end of the list. The
    /// first `sorted` are left alone.
    ///
    /// # Safety
    ///
    /// As for [`sort_many`](Self::sort_many), whose bitmap is cleared.
    #[inline(always)]
    unsafe fn note(&self, bitmap: Bitmap, sorted: u32, least: u32) {
        // From the end of the list on: what is moved is never moved over what is not read yet.
        let (mut end, mut free) = (self.count, self.count);
        while end > sorted {
            let begin = end.saturating_sub(4 * self.team.threads()).max(sorted);
            // SAFETY: places of the list. The whole team is here: everyone has read before any writes, and written before any
            // reads again.
            unsafe {
                // Four points on their way at a time.
                let points = array4(|turn| {
                    let at = begin + turn as u32 * self.team.threads() + self.team.thread();
                    if at < end { Some(self.get(at)) } else { None }
                });
                self.team.meet();
                let bits = points.map(|point| point.unwrap_or(0).wrapping_sub(least));
                let is_near = bits.map(|bit| bit / u32::BITS < bitmap.words);
                let is_far = array4(|turn| points[turn].is_some() && !is_near[turn]);
                let (ranks, far) = self.team.rank_each(is_far);
                each4(|turn| {
                    let bit = bits[turn];
                    if is_far[turn] {
                        self.set(free - 1 - ranks[turn], least.wrapping_add(bit));
                    } else if points[turn].is_some() {
                        bitmap.bits.set_bits(bit / u32::BITS, 1 << (bit % u32::BITS));
                    }
                });
                free -= far;
                self.team.meet();
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
    unsafe fn write_noted(&self, bitmap: Bitmap, sorted: u32, least: u32) -> u32 {
        let lane = self.team.thread() % WARP_LANES;
        let (mut first, mut written) = (0, sorted);
        // The loops run as often for every thread of the team: it meets inside.
        while first < bitmap.words {
            let word = first + self.team.thread();
            // SAFETY: a word of the bitmap, written before the team met; the whole team is here. A place of the list for each
            // bit.
            unsafe {
                let bits = if word < bitmap.words { bitmap.bits.get(word) } else { 0 };
                let (before, all) = self.team.before_warp(bits.count_ones());
                let mut at = written + before;
                let mut left = warp::warp_vote_ballot(WARP, bits != 0);
                while left != 0 {
                    let next = left.trailing_zeros();
                    left &= left - 1;
                    // A lane for each bit of the next word that has some.
                    let bits = warp::warp_shuffle_idx(WARP, bits, next, WARP_LANES).0;
                    if bits >> lane & 1 != 0 {
                        let before = (bits & ((1 << lane) - 1)).count_ones();
                        let word = word - lane + next;
                        self.set(at + before, least + word * u32::BITS + lane);
                    }
                    at += bits.count_ones();
                }
                written = all.map_or(at, |all| written + all);
                self.team.meet();
            }
            first += self.team.threads();
        }
        written
    }
}

impl List<Lanes> {
    /// Sorts at most as many points as there are lanes.
    ///
    /// # Safety
    ///
    /// As for [`sort_many`](Self::sort_many).
    #[inline(always)]
    unsafe fn sort_few(self) {
        let lane = self.team.lane;
        let is_live = lane < self.count;
        // SAFETY: a place of the list; all lanes of the warp are here. Every lane has read its point when the warp has met, and
        // ranks are distinct, because points are.
        unsafe {
            let point = if is_live { self.get(lane) } else { 0 };
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
}
