//! Which channels a lane holds, and how it moves them.
//!
//! A sample is the work of `lanes` neighbouring lanes of a warp, a power of two. They cover a *tile*
//! of `lanes * 8` channels, eight each; more channels than that take several tiles. There are two
//! ways to deal the channels of a tile out:
//!
//! - [`Wide`]: a lane's channels are whole 16-byte vectors (two of fp32, one of fp16 or bf16) and
//!   each vector lies within one weight group. The common sizes.
//! - [`Any`]: channels `lane`, `lane + lanes`, `lane + 2 * lanes`, … one by one. Every other size.

use crate::args::Divisor;
use crate::limits::CHANNELS_PER_LANE;
use crate::memory;
use crate::storage::Storage;
use crate::unroll::{array4, array8, each4, each8, upto8};

/// Channels in registers, in the order of [`Channels::channel`].
pub(crate) type Lane = [f32; CHANNELS_PER_LANE as usize];

/// Channels as they lie in memory, in the same order: words of vectors, or the bits of an element each. What a lane reads
/// is kept like this until all of it has been asked for: where a value is wanted at once, the assembler waits for it before
/// it asks for the next.
pub(crate) type Fetched = [u32; CHANNELS_PER_LANE as usize];

/// The part of the channels a worker is at, as one of its lanes sees it.
#[derive(Clone, Copy)]
pub(crate) struct Tile {
    /// First channel of the tile.
    pub first: u32,
    /// Lanes that share the tile.
    pub lanes: u32,
    /// This lane among them.
    pub lane: u32,
    /// All channels, `C`.
    pub channels: u32,
}

impl Tile {
    /// Channels of a full tile.
    #[inline(always)]
    pub(crate) const fn width(&self) -> u32 {
        self.lanes * CHANNELS_PER_LANE
    }
}

/// A way to deal the channels of a tile out to the lanes.
pub(crate) trait Channels<T: Storage> {
    /// Runs of a lane's channels that surely share a weight group.
    const SLOTS: usize;

    /// Channels in a slot.
    const PER_SLOT: usize = CHANNELS_PER_LANE as usize / Self::SLOTS;

    /// The channel a lane holds at `index` of its eight.
    fn channel(tile: Tile, index: usize) -> u32;

    /// Reads the lane's channels of the row that begins `offset` bytes behind `rows`; zeros past the last channel, and
    /// everywhere when not `live`. The addresses for `rows` are computed once where it stays the same.
    ///
    /// # Safety
    ///
    /// When `live`, there are `tile.channels` elements nobody writes during the launch, aligned as the access needs it:
    /// to 16 bytes for [`Wide`], to one element for [`Any`].
    unsafe fn fetch(rows: *const T, offset: usize, tile: Tile, live: bool) -> Fetched;

    /// As [`fetch`](Self::fetch) when `live`, but for channels past the last, others of the row.
    ///
    /// # Safety
    ///
    /// As for [`fetch`](Self::fetch).
    unsafe fn fetch_row(rows: *const T, offset: usize, tile: Tile) -> Fetched;

    /// The values of channels.
    fn widen(fetched: Fetched) -> Lane;

    /// The values of what [`fetch_row`](Self::fetch_row) reads.
    ///
    /// # Safety
    ///
    /// As for [`fetch`](Self::fetch).
    #[inline(always)]
    unsafe fn load_row(rows: *const T, offset: usize, tile: Tile) -> Lane {
        // SAFETY: the caller's promise is the same.
        Self::widen(unsafe { Self::fetch_row(rows, offset, tile) })
    }

    /// Writes the lane's channels of one pixel row, which nobody reads soon.
    ///
    /// # Safety
    ///
    /// `row` points to `tile.channels` elements, aligned as for [`fetch`](Self::fetch), and no other thread touches
    /// this lane's channels of it meanwhile.
    unsafe fn store(row: *mut T, tile: Tile, values: &Lane);

    /// Adds to the lane's channels of one fp32 row, atomically.
    ///
    /// # Safety
    ///
    /// `row` points to `tile.channels` words that are only added to during the launch, aligned as for
    /// [`fetch`](Self::fetch).
    unsafe fn add(row: *mut f32, tile: Tile, values: &Lane);

    /// The weight group of each of the lane's slots; an existing group also for slots past the last
    /// channel.
    #[inline(always)]
    fn groups(tile: Tile, by_group: &Divisor) -> [u32; CHANNELS_PER_LANE as usize] {
        let mut groups = [0; CHANNELS_PER_LANE as usize];
        upto8(Self::SLOTS, |slot| {
            let channel = Self::channel(tile, slot * Self::PER_SLOT).min(tile.channels - 1);
            groups[slot] = by_group.quotient(channel);
        });
        groups
    }
}

/// Whole 16-byte vectors, each within one weight group.
pub(crate) struct Wide;

impl<T: Storage> Channels<T> for Wide {
    const SLOTS: usize = CHANNELS_PER_LANE as usize / T::PER_VECTOR;

    #[inline(always)]
    fn channel(tile: Tile, index: usize) -> u32 {
        let vector = T::PER_VECTOR as u32;
        let (slot, within) = (index as u32 / vector, index as u32 % vector);
        tile.first + (slot * tile.lanes + tile.lane) * vector + within
    }

    #[inline(always)]
    unsafe fn fetch(rows: *const T, offset: usize, tile: Tile, live: bool) -> Fetched {
        let mut words = [0; CHANNELS_PER_LANE as usize];
        // One address to keep for all slots: registers are scarce where this is used.
        let first = <Self as Channels<T>>::channel(tile, 0) as usize;
        let first = rows.wrapping_add(first).wrapping_byte_add(offset);
        upto8(<Self as Channels<T>>::SLOTS, |slot| {
            let channel = <Self as Channels<T>>::channel(tile, slot * T::PER_VECTOR);
            // SAFETY: the vector ends before `tile.channels`, because the vector's length divides it;
            // the caller vouches for the row.
            let vector = unsafe {
                let pointer = first.wrapping_add(slot * tile.lanes as usize * T::PER_VECTOR);
                memory::load_words_if(pointer.cast(), live && channel < tile.channels)
            };
            each4(|index| words[slot * 4 + index] = vector[index]);
        });
        words
    }

    #[inline(always)]
    unsafe fn fetch_row(rows: *const T, offset: usize, tile: Tile) -> Fetched {
        let mut words = [0; CHANNELS_PER_LANE as usize];
        upto8(<Self as Channels<T>>::SLOTS, |slot| {
            let channel = <Self as Channels<T>>::channel(tile, slot * T::PER_VECTOR);
            let channel = channel.min(tile.channels - T::PER_VECTOR as u32);
            // SAFETY: the vector is within the row.
            let vector = unsafe {
                let row = rows.wrapping_add(channel as usize).wrapping_byte_add(offset);
                memory::load_words(row.cast())
            };
            each4(|index| words[slot * 4 + index] = vector[index]);
        });
        words
    }

    #[inline(always)]
    fn widen(fetched: Fetched) -> Lane {
        let mut values = [0.0; CHANNELS_PER_LANE as usize];
        upto8(<Self as Channels<T>>::SLOTS, |slot| {
            let vector = T::widen_vector(array4(|index| fetched[slot * 4 + index]));
            upto8(T::PER_VECTOR, |index| values[slot * T::PER_VECTOR + index] = vector[index]);
        });
        values
    }

    #[inline(always)]
    unsafe fn store(row: *mut T, tile: Tile, values: &Lane) {
        upto8(<Self as Channels<T>>::SLOTS, |slot| {
            let first = slot * T::PER_VECTOR;
            let channel = <Self as Channels<T>>::channel(tile, first);
            if channel < tile.channels {
                let vector = array8(|index| values[(first + index) % values.len()]);
                let target = row.wrapping_add(channel as usize).cast();
                // SAFETY: the caller vouches for the row; the vector lies before its end.
                unsafe { memory::store_words_away(target, T::round_vector(vector)) };
            }
        });
    }

    #[inline(always)]
    unsafe fn add(row: *mut f32, tile: Tile, values: &Lane) {
        upto8(2, |four| {
            let channel = <Self as Channels<T>>::channel(tile, four * 4);
            if channel < tile.channels {
                let part = array4(|index| values[four * 4 + index]);
                // SAFETY: the caller vouches for the row; the four channels lie before its end.
                unsafe { memory::add_f32x4(row.wrapping_add(channel as usize), part) };
            }
        });
    }
}

/// One by one, a stride of `lanes` apart: any number of channels and groups.
pub(crate) struct Any;

impl<T: Storage> Channels<T> for Any {
    const SLOTS: usize = CHANNELS_PER_LANE as usize;

    #[inline(always)]
    fn channel(tile: Tile, index: usize) -> u32 {
        tile.first + index as u32 * tile.lanes + tile.lane
    }

    #[inline(always)]
    unsafe fn fetch(rows: *const T, offset: usize, tile: Tile, live: bool) -> Fetched {
        let mut elements = [0; CHANNELS_PER_LANE as usize];
        each8(|index| {
            let channel = <Self as Channels<T>>::channel(tile, index);
            if live && channel < tile.channels {
                // SAFETY: the caller vouches for the row; the channel lies before its end.
                elements[index] = unsafe {
                    T::fetch(rows.wrapping_add(channel as usize).wrapping_byte_add(offset))
                };
            }
        });
        elements
    }

    #[inline(always)]
    unsafe fn fetch_row(rows: *const T, offset: usize, tile: Tile) -> Fetched {
        array8(|index| {
            let channel = <Self as Channels<T>>::channel(tile, index).min(tile.channels - 1);
            // SAFETY: the channel is within the row.
            unsafe { T::fetch(rows.wrapping_add(channel as usize).wrapping_byte_add(offset)) }
        })
    }

    #[inline(always)]
    fn widen(fetched: Fetched) -> Lane {
        array8(|index| T::widen(fetched[index]))
    }

    #[inline(always)]
    unsafe fn store(row: *mut T, tile: Tile, values: &Lane) {
        each8(|index| {
            let channel = <Self as Channels<T>>::channel(tile, index);
            if channel < tile.channels {
                // SAFETY: the caller vouches for the row; the channel lies before its end.
                unsafe { T::store(row.wrapping_add(channel as usize), values[index]) };
            }
        });
    }

    #[inline(always)]
    unsafe fn add(row: *mut f32, tile: Tile, values: &Lane) {
        each8(|index| {
            let channel = <Self as Channels<T>>::channel(tile, index);
            if channel < tile.channels {
                // SAFETY: the caller vouches for the row; the channel lies before its end.
                unsafe { memory::add_f32(row.wrapping_add(channel as usize), values[index]) };
            }
        });
    }
}
