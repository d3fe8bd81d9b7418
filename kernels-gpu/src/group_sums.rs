//! Products of feature rows with the output gradient, summed over the channels of each weight group.

use crate::args::Sizes;
use crate::block::{Place, WARP};
use crate::channels::{Any, Channels, Lane, Tile, Wide};
use crate::limits::CHANNELS_PER_LANE;
use crate::memory::SharedWords;
use crate::rows::Table;
use crate::storage::Storage;
use crate::unroll::{array4, each4, each8, upto8};
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

/// Sums over the channels of each weight group.
pub(crate) trait GroupSums<T: Storage>: Channels<T> {
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

impl<T: Storage> GroupSums<T> for Wide {
    /// Four sums at a time, one for each row and slot.
    const ROWS: usize = 4 / <Self as Channels<T>>::SLOTS;

    /// The host chooses [`Wide`] only where a tile holds whole groups.
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
        let (slots, per_slot) = (<Self as Channels<T>>::SLOTS, <Self as Channels<T>>::PER_SLOT);
        let tile = part.tile;
        // Lanes a group spreads over within a slot.
        let span = channels_per_group / T::PER_VECTOR as u32;
        let whole_tile = span > tile.lanes;
        let span = span.min(tile.lanes);
        let mut sums = array4(|index| {
            let (row, first) = (index / slots, index % slots * per_slot);
            let mut sum = part.upstream[first] * pixels[row][first];
            upto8(per_slot - 1, |within| {
                let channel = first + 1 + within;
                sum = part.upstream[channel].mul_add(pixels[row][channel], sum);
            });
            sum
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
            let (index, sum) = sum_four_over_lanes(sums, tile.lane, span);
            leave(index, sum, lane_of_group < 4);
        } else {
            each4(|index| {
                leave(index as u32, sum_over_lanes(sums[index], span), lane_of_group == 0);
            });
        }
    }
}

/// Adds a value over neighbouring lanes, `width` of them, a power of two; every lane gets the sum.
#[inline(always)]
pub(crate) fn sum_over_lanes(mut value: f32, width: u32) -> f32 {
    let mut distance = width / 2;
    while distance > 0 {
        // SAFETY: the callers keep all lanes of the warp together.
        value += unsafe { warp::warp_shuffle_xor(WARP, value, distance, 32) }.0;
        distance /= 2;
    }
    value
}

/// Adds four values, each over neighbouring lanes, `width` of them, a power of two from 4 on. Lane `i` gets the sum of
/// value `i % 4`, which is returned with it: half of the shuffles that four separate sums take.
#[inline(always)]
fn sum_four_over_lanes(values: [f32; 4], lane: u32, width: u32) -> (u32, f32) {
    // SAFETY: the callers keep all lanes of the warp together.
    let swap = |value: f32, distance| unsafe { warp::warp_shuffle_xor(WARP, value, distance, 32) }.0;
    // Each lane keeps two of the values and hands the other two to the lane that keeps those.
    let upper = lane & 2 != 0;
    let (keep, give) = if upper {
        ([values[2], values[3]], [values[0], values[1]])
    } else {
        ([values[0], values[1]], [values[2], values[3]])
    };
    let two = [keep[0] + swap(give[0], 2), keep[1] + swap(give[1], 2)];
    let odd = lane & 1 != 0;
    let (keep, give) = if odd { (two[1], two[0]) } else { (two[0], two[1]) };
    let mut sum = keep + swap(give, 1);
    let mut distance = 4;
    while distance < width {
        sum += swap(sum, distance);
        distance *= 2;
    }
    (lane & 3, sum)
}

impl<T: Storage> GroupSums<T> for Any {
    const ROWS: usize = 2;

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
        upto8(<Self as GroupSums<T>>::ROWS, |row| {
            let number = numbers.is_live(row as u32).then_some(numbers.get(row as u32));
            // SAFETY: the caller's promise.
            unsafe { add_up_row(&pixels[row], table, number, part, channels_per_group, scratch) };
        });
    }
}

/// As [`GroupSums::add_up`] for one row, if it is live, and [`Any`]: the lanes leave their products in shared memory, and
/// each adds up some of the groups.
///
/// # Safety
///
/// As for [`GroupSums::add_up`].
#[inline(always)]
unsafe fn add_up_row(
    pixels: &Lane,
    table: Table,
    number: Option<u32>,
    part: &Part,
    channels_per_group: u32,
    scratch: SharedWords,
) {
    let tile = part.tile;
    each8(|index| {
        let at = index as u32 * tile.lanes + tile.lane;
        let product = part.upstream[index] * pixels[index];
        // SAFETY: the word is this lane's own.
        unsafe { scratch.set(at, product.to_bits()) };
    });
    // SAFETY: all lanes of the warp are here.
    unsafe { warp::sync_warp(WARP) };
    let size = channels_per_group.max(1);
    let end = (tile.first + tile.width()).min(tile.channels);
    if let Some(number) = number {
        let place = table.place(number);
        let mut group = tile.first / size + tile.lane;
        while group * size < end {
            let from = (group * size).max(tile.first);
            let to = ((group + 1) * size).min(end);
            // SAFETY: the row is the worker's, the group this lane's; the part of it in the tile before was stored by a
            // lane of the warp that has met since.
            let mut sum = if from == group * size { 0.0 } else { unsafe { table.at(place, group) } };
            for channel in from..to {
                // SAFETY: a channel of this tile, written before the warp met.
                sum += f32::from_bits(unsafe { scratch.get(channel - tile.first) });
            }
            // SAFETY: as above.
            unsafe { table.put(place, group, sum) };
            group += tile.lanes;
        }
    }
    // SAFETY: all lanes of the warp are here; the scratch may be written again after this.
    unsafe { warp::sync_warp(WARP) };
}
