//! Long lists, cut into pieces, so that many blocks of the gather add one up.
//!
//! A piece is a number of neighbouring points of a list. How long pieces are depends on all long lists of a launch together, so
//! that there are never more than there is room for: on what was counted, not on how threads race. Only which pieces have which
//! numbers does, and nothing is added up in the order of numbers of different lists.

use crate::args::{ListArgs, Pieces};
use crate::limits::{LONG_LIST, MAX_PIECES, PIECE_POINTS, sort_words};
use crate::memory::{self, SharedWords};
use cuda_std::thread;

/// A piece of a list.
#[derive(Clone, Copy)]
pub(crate) struct Piece {
    /// The batch item.
    pub(crate) item: u32,
    /// The tile whose list it is of.
    pub(crate) tile: u32,
    /// The number of the list's first piece.
    pub(crate) first: u32,
    /// Pieces of the list.
    pub(crate) of: u32,
}

/// Words of the header.
mod header {
    /// How long all long lists are, in units of [`PIECE_POINTS`](super::PIECE_POINTS), each list's rounded up.
    pub(super) const UNITS: usize = 0;
    /// How many long lists there are.
    pub(super) const LISTS: usize = 1;
    /// How many pieces there are.
    pub(super) const PIECES: usize = 2;
}

impl Pieces {
    /// Notes how many points a list has.
    ///
    /// # Safety
    ///
    /// The pointers are valid as the type says, and lists are being placed.
    #[inline(always)]
    pub(super) unsafe fn note(&self, count: u32) {
        if count > LONG_LIST && self.most > 0 {
            // SAFETY: words of the header.
            unsafe {
                let units = self.header.wrapping_add(header::UNITS);
                memory::fetch_add(units, count.div_ceil(PIECE_POINTS));
                memory::fetch_add(self.header.wrapping_add(header::LISTS), 1);
            }
        }
    }

    /// Whether long lists are cut: not where there are so many of them that they keep a GPU busy as they are.
    ///
    /// # Safety
    ///
    /// The pointers are valid as the type says, and lists are placed.
    #[inline(always)]
    pub(crate) unsafe fn are_cut(&self) -> bool {
        // SAFETY: a word of the header, which nobody writes any more.
        self.most > 0
            && unsafe { memory::load_u32(self.header.wrapping_add(header::LISTS)) } <= MAX_PIECES / 2
    }

    /// The piece of this number, if there is one.
    ///
    /// # Safety
    ///
    /// The pointers are valid as the type says, and lists are cut.
    #[inline(always)]
    pub(crate) unsafe fn get(&self, number: u32) -> Option<Piece> {
        // SAFETY: words of the header and of the table, which nobody writes any more.
        unsafe {
            if number >= memory::load_u32(self.header.wrapping_add(header::PIECES)) {
                return None;
            }
            let entry = self.entries.wrapping_add(4 * number as usize);
            let [item, tile, first, of] = memory::load_words(entry);
            Some(Piece { item, tile, first, of })
        }
    }
}

/// Cuts the list of a tile, of so many points.
///
/// # Safety
///
/// The whole block makes the call, and has met since the one before; the pointers of `args` are valid as it says. Lists are
/// placed; the list is long, and cut once.
#[inline(always)]
pub(super) unsafe fn cut(args: &ListArgs, item: u32, tile: u32, count: u32) {
    let (thread, threads) = (memory::opaque(thread::thread_idx_x()), thread::block_dim_x());
    let pieces = &args.pieces;
    let shared = SharedWords::new(sort_words::FIRST_PIECE);
    // SAFETY: the whole block is here: whether lists are cut is the same for all threads. There is room for all pieces: half
    // of it for as many as there are units in so many, and half for a last one of each list.
    unsafe {
        if !pieces.are_cut() {
            return;
        }
        let units = memory::load_u32(pieces.header.wrapping_add(header::UNITS));
        let units_of_piece = (2 * units).div_ceil(MAX_PIECES).max(1);
        let of = count.div_ceil(PIECE_POINTS).div_ceil(units_of_piece);
        if thread == 0 {
            shared.set(0, memory::fetch_add(pieces.header.wrapping_add(header::PIECES), of));
        }
        thread::sync_threads();
        let first = shared.get(0);
        let mut piece = thread;
        while piece < of {
            let entry = pieces.entries.wrapping_add(4 * (first + piece) as usize);
            memory::store_words(entry, [item, tile, first, of]);
            piece += threads;
        }
    }
}
