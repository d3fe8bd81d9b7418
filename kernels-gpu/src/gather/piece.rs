//! Blocks that have a piece of a long list: the one that is through last adds all pieces of the list up, in their order.

use super::target::Target;
use super::tile::Rows;
use super::{NO_SUMS, Sums};
use crate::args::{GatherArgs, Pieces};
use crate::block::Place;
use crate::channels::{Channels, Lane};
use crate::limits::CHANNELS_PER_LANE;
use crate::lists::pieces::Piece;
use crate::memory::{self, SharedWords};
use crate::storage::Storage;
use crate::unroll::{array4, array8, each4, each8};
use cuda_std::thread;

/// A block's piece.
#[derive(Clone, Copy)]
pub(super) struct Share {
    /// A copy: what lies in the arguments would have to have an address otherwise, where it is one of two things.
    pieces: Pieces,
    place: Place,
    pub(super) piece: Piece,
    /// The piece's number.
    pub(super) number: u32,
}

impl Share {
    /// That of the calling block, if it has one.
    ///
    /// # Safety
    ///
    /// The pointers of `args` are valid as it says.
    #[inline(always)]
    pub(super) unsafe fn new<T>(args: &GatherArgs<T>, place: Place) -> Option<Self> {
        let number = thread::block_idx_x();
        if number >= args.pieces.most {
            return None;
        }
        // SAFETY: the caller's promise.
        let piece = unsafe { args.pieces.get(number) }?;
        Some(Self { pieces: args.pieces, place, piece, number })
    }

    /// The lane's channels of the sums of a piece for a pixel.
    #[inline(always)]
    fn sums(self, number: u32, pixel: usize) -> *mut f32 {
        let width = (self.place.lanes * CHANNELS_PER_LANE) as usize;
        let tile = thread::grid_dim_y() as usize * (4 * number as usize + pixel) + thread::block_idx_y() as usize;
        let channel = (self.place.lane * CHANNELS_PER_LANE) as usize;
        self.pieces.sums.wrapping_add(tile * width + channel)
    }

    /// Writes what the piece adds up to for a pixel.
    ///
    /// # Safety
    ///
    /// One worker of the block makes the call for a pixel.
    #[inline(always)]
    pub(super) unsafe fn keep(self, pixel: usize, total: &Lane) {
        let target = self.sums(self.number, pixel).cast::<u32>();
        // SAFETY: the piece is the block's, and the channels are the lane's.
        unsafe {
            memory::store_words(target, array4(|index| total[index].to_bits()));
            memory::store_words(target.wrapping_add(4), array4(|index| total[4 + index].to_bits()));
        }
    }

    /// Adds the pieces of the list up and writes the tile's rows, if all others are through.
    ///
    /// # Safety
    ///
    /// The whole block makes the call, and has met since it has kept its sums.
    #[inline(always)]
    pub(super) unsafe fn finish<T: Storage, C: Channels<T>>(self, target: Target<'_, T>, rows: Rows) {
        let (place, pieces) = (self.place, &self.pieces);
        let answer = SharedWords::new(0);
        // SAFETY: the whole block is here; the first thread has a word of the list's. What a block has kept before a fence, and
        // before it counts itself, the one that counts as the last sees behind another.
        unsafe {
            if place.thread == 0 {
                let done = thread::block_idx_y() * pieces.most + self.piece.first;
                thread::device_fence();
                let before = memory::fetch_add(pieces.done.wrapping_add(done as usize), 1);
                thread::device_fence();
                answer.set(0, before);
            }
            thread::sync_threads();
            if answer.get(0) + 1 < self.piece.of {
                return;
            }
            each4(|pixel| {
                if target.is_turn(pixel) {
                    target.write::<C>(rows.of_pixel(pixel), &self.total(pixel));
                }
            });
        }
    }

    /// The sum of all pieces of the list, for a pixel.
    ///
    /// # Safety
    ///
    /// All of them are through.
    #[inline(always)]
    unsafe fn total(self, pixel: usize) -> Lane {
        let mut total = NO_SUMS[pixel];
        let (mut piece, end) = (self.piece.first, self.piece.first + self.piece.of);
        while piece < end {
            // Four pieces on their way at a time.
            let sums: Sums = array4(|turn| {
                let mut sums = NO_SUMS[turn];
                if piece + (turn as u32) < end {
                    let first = self.sums(piece + turn as u32, pixel).cast::<u32>();
                    // SAFETY: kept by the piece's block, which is through.
                    let halves = unsafe {
                        [memory::load_words_far(first), memory::load_words_far(first.wrapping_add(4))]
                    };
                    sums = array8(|index| f32::from_bits(halves[index / 4][index % 4]));
                }
                sums
            });
            each4(|turn| each8(|index| total[index] += sums[turn][index]));
            piece += 4;
        }
        total
    }
}
