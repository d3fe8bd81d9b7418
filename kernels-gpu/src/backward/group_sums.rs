//! Products of feature rows with the output gradient, summed over the channels of each weight group.

use crate::args::Sizes;
use crate::block::{Place, WARP};
use crate::channels::{Channels, Lane, Tile, Wide};
use crate::lane_sums::{sum_four_over_lanes, sum_over_lanes};
use crate::limits::CHANNELS_PER_LANE;
use crate::memory::SharedWords;
use crate::rows::Table;
use crate::storage::Storage;
use crate::unroll::{array4, each4, sum_in_eights, upto8};
#[cfg(target_arch = "nvptx64")]
use cuda_std::GpuFloat;
use cuda_std::warp;

/// What all rows of an anchor have in common on one tile of channels.
#[derive(Clone, Copy)]
pub(crate) struct Part {
    pub(crate) tile: Tile,
    pub(crate) groups: [u32; CHANNELS_PER_LANE as usize],
    /// Gradient of the anchor's output.
    pub(crate) upstream: Lane,
}

impl Part {
    /// # Safety
    ///
    /// The tile exists, and `grad_output` is the anchor's row of output gradients.
    #[inline(always)]
    pub(crate) unsafe fn new<T: Storage, C: Channels<T>>(
        sizes: &Sizes,
        grad_output: *const T,
        place: Place,
        number: u32,
    ) -> Self {
        let tile = place.tile(sizes, number);
        let groups = C::groups(tile, &sizes.by_group);
        // SAFETY: the caller's promise.
        let upstream = C::widen(unsafe { C::fetch(grad_output, 0, tile, true) });
        Self { tile, groups, upstream }
    }

    /// The products of a row with the output gradient, summed over `count` of the lane's channels from the first one on.
    #[inline(always)]
    fn product(&self, pixels: &Lane, first: usize, count: usize) -> f32 {
        let mut sum = self.upstream[first] * pixels[first];
        upto8(count - 1, |within| {
            let channel = first + 1 + within;
            sum = self.upstream[channel].mul_add(pixels[channel], sum);
        });
        sum
    }
}

/// Rows of a window that a worker takes together: a first one, and others at equal distances.
#[derive(Clone, Copy)]
pub(crate) struct Numbers {
    pub(crate) first: u32,
    pub(crate) step: u32,
    /// Rows of the window.
    pub(crate) known: u32,
}

impl Numbers {
    #[inline(always)]
    pub(crate) fn get(&self, index: u32) -> u32 {
        self.first + index * self.step
    }

    /// Whether there is such a row.
    #[inline(always)]
    pub(crate) fn is_live(&self, index: u32) -> bool {
        self.get(index) < self.known
    }
}

/// A way to add up products over the channels of each weight group, for a way to deal the channels out.
pub(crate) trait GroupSums<T: Storage, C: Channels<T>> {
    /// Rows that a worker takes together, at most four.
    const ROWS: usize;

    /// Whether all channels of a group surely lie in one tile.
    const WHOLE_GROUPS: bool;

    /// Multiplies `ROWS` rows with the output gradient, adds up the products over each group's channels of the tile, and
    /// leaves the sums in the table's rows of these numbers. Sums of a group that begins in an earlier tile are added to
    /// what is there.
    ///
    /// # Safety
    ///
    /// All lanes of the warp make the call together, tile after tile. Rows that are live are the worker's own; `scratch`
    /// is the worker's own in any case.
    unsafe fn add_up(
        pixels: &[Lane; 4],
        table: Table,
        numbers: &Numbers,
        part: &Part,
        channels_per_group: u32,
        scratch: SharedWords,
    );
}

/// From lane to lane: groups of a power of two of vectors.
pub(crate) struct ByLanes;

/// By way of shared memory: groups of any number of slots.
pub(crate) struct ByMemory;

impl<T: Storage> GroupSums<T, Wide> for ByLanes {
    /// Four sums at a time, one for each row and slot.
    const ROWS: usize = 4 / <Wide as Channels<T>>::SLOTS;

    /// The host chooses it only where a tile holds whole groups.
    const WHOLE_GROUPS: bool = true;

    #[inline(always)]
    unsafe fn add_up(
        pixels: &[Lane; 4],
        table: Table,
        numbers: &Numbers,
        part: &Part,
        channels_per_group: u32,
        _: SharedWords,
    ) {
        let (slots, per_slot) = (<Wide as Channels<T>>::SLOTS, <Wide as Channels<T>>::PER_SLOT);
        let tile = part.tile;
        // Lanes a group spreads over within a slot.
        let span = channels_per_group / T::PER_VECTOR as u32;
        let whole_tile = span > tile.lanes;
        let span = span.min(tile.lanes);
        let mut sums = array4(|index| {
            part.product(&pixels[index / slots], index % slots * per_slot, per_slot)
        });
        if whole_tile {
            // The group has all slots of all lanes.
            upto8(4 / slots, |row| {
                upto8(slots - 1, |slot| sums[row * slots] += sums[row * slots + 1 + slot]);
            });
        }
        // Leaves the sum of a row and slot with the lanes that `chosen` says.
        let leave = |index: u32, sum: f32, chosen: bool| {
            let (row, slot) = (index / slots as u32, index % slots as u32);
            let channel = tile.first + (slot * tile.lanes + tile.lane) * T::PER_VECTOR as u32;
            let counts = channel < tile.channels && !(whole_tile && slot > 0);
            if chosen && counts && numbers.is_live(row) {
                let group = if slot == 0 { part.groups[0] } else { part.groups[slots - 1] };
                // SAFETY: the row is the worker's, the group and row one lane's.
                unsafe { table.put(table.place(numbers.get(row)), group, sum) };
            }
        };
        let lane_of_group = tile.lane & (span - 1);
        if span >= 4 {
            let sum = sum_four_over_lanes(sums, tile.lane, span);
            leave(tile.lane & 3, sum, lane_of_group < 4);
        } else {
            each4(|index| {
                leave(index as u32, sum_over_lanes(sums[index], span), lane_of_group == 0);
            });
        }
    }
}

/// Rows whose slots find room in the scratch of a worker together.
const fn rows_in_memory(slots: usize, rows: usize) -> usize {
    let room = CHANNELS_PER_LANE as usize / slots;
    if room < rows { room } else { rows }
}

impl<T: Storage, C: Channels<T>> GroupSums<T, C> for ByMemory {
    const ROWS: usize = if C::SLOTS < 2 { 4 } else { 2 };

    const WHOLE_GROUPS: bool = false;

    #[inline(always)]
    unsafe fn add_up(
        pixels: &[Lane; 4],
        table: Table,
        numbers: &Numbers,
        part: &Part,
        channels_per_group: u32,
        scratch: SharedWords,
    ) {
        let rows = <Self as GroupSums<T, C>>::ROWS;
        let together = rows_in_memory(C::SLOTS, rows);
        let width = C::SLOTS as u32 * part.tile.lanes;
        let mut turn = Rows { first: 0, count: together as u32, width };
        // SAFETY: the caller's promise. Not a loop: the compiler would not write it out, and the pixels have to stay in
        // registers.
        unsafe {
            add_rows_up::<T, C>(pixels, turn, table, numbers, part, channels_per_group, scratch);
            if together < rows {
                turn.first = turn.count;
                let later = array4(|row| pixels[(row + together) % 4]);
                add_rows_up::<T, C>(&later, turn, table, numbers, part, channels_per_group, scratch);
            }
        }
    }
}

/// As [`GroupSums::add_up`], for as many rows as find room in the scratch: the first `rows.count` of `pixels`.
///
/// # Safety
///
/// As for [`GroupSums::add_up`].
#[inline(always)]
unsafe fn add_rows_up<T: Storage, C: Channels<T>>(
    pixels: &[Lane; 4],
    rows: Rows,
    table: Table,
    numbers: &Numbers,
    part: &Part,
    channels_per_group: u32,
    scratch: SharedWords,
) {
    let tile = part.tile;
    upto8(rows.count as usize, |row| {
        upto8(C::SLOTS, |slot| {
            let sum = part.product(&pixels[row], slot * C::PER_SLOT, C::PER_SLOT);
            // The slots of a tile in the order of its channels.
            let at = row as u32 * rows.width + slot as u32 * tile.lanes + tile.lane;
            // SAFETY: the word is this lane's own.
            unsafe { scratch.set(at, sum.to_bits()) };
        });
    });
    // SAFETY: all lanes of the warp are here; the caller's promise.
    unsafe {
        warp::sync_warp(WARP);
        let channels_per_slot = C::PER_SLOT as u32;
        add_up_slots(rows, table, numbers, tile, channels_per_group, channels_per_slot, scratch);
        // The scratch may be written again after this.
        warp::sync_warp(WARP);
    }
}

/// Rows of which a worker has the sums of each slot in its scratch.
#[derive(Clone, Copy)]
struct Rows {
    /// The first, among those that it takes together.
    first: u32,
    count: u32,
    /// Words of each.
    width: u32,
}

/// Adds the slots of each group up. The lanes of a worker share the rows, and those of a row its groups; where there are more
/// lanes than groups, some have a group together.
///
/// # Safety
///
/// As for [`GroupSums::add_up`]; the warp has met since the slots were written, of `channels_per_slot` each.
#[inline(always)]
unsafe fn add_up_slots(
    rows: Rows,
    table: Table,
    numbers: &Numbers,
    tile: Tile,
    channels_per_group: u32,
    channels_per_slot: u32,
    scratch: SharedWords,
) {
    // Everything is counted in slots from here on. Powers of two are exponents.
    let size = (channels_per_group / channels_per_slot).max(1);
    let first = tile.first / channels_per_slot;
    let end = (tile.first + tile.width()).min(tile.channels) / channels_per_slot;
    let first_group = first / size;
    let groups = end.div_ceil(size) - first_group;
    let lanes = tile.lanes.trailing_zeros();
    let of_row = lanes.saturating_sub(rows.count.trailing_zeros());
    let of_group = of_row.saturating_sub(groups.next_power_of_two().trailing_zeros());
    let lane_of_row = tile.lane & ((1 << of_row) - 1);
    let helper = tile.lane & ((1 << of_group) - 1);
    // The loops run as often for every lane of the warp: its lanes meet inside.
    let mut begin_row = 0;
    while begin_row < rows.count {
        let row = begin_row + (tile.lane >> of_row);
        let number = rows.first + row;
        let mut begin = 0;
        while begin < groups {
            let index = begin + (lane_of_row >> of_group);
            let is_live = index < groups && row < rows.count && numbers.is_live(number);
            let group = first_group + index;
            let from = (group * size).max(first);
            let mut sum = 0.0;
            if is_live {
                let count = ((group + 1) * size).min(end) - from;
                let mine = (count.saturating_sub(helper) + (1 << of_group) - 1) >> of_group;
                let at = row * rows.width + from - first + helper;
                sum = sum_in_eights(mine, |turn| {
                    // SAFETY: a slot of this tile, written before the warp met.
                    f32::from_bits(unsafe { scratch.get(at + (turn << of_group)) })
                });
            }
            let sum = sum_over_lanes(sum, 1 << of_group);
            if is_live && helper == 0 {
                let place = table.place(numbers.get(number));
                // SAFETY: the row is the worker's, the group this lane's; the part of it in the tile before was stored by a
                // lane of the warp that has met since.
                unsafe {
                    let before = if from == group * size { 0.0 } else { table.at(place, group) };
                    table.put(place, group, before + sum);
                }
            }
            begin += 1 << (of_row - of_group);
        }
        begin_row += 1 << (lanes - of_row);
    }
}
