//! Backward for the features, by ownership: a worker owns a tile of 2 by 2 pixels, adds up the samples around
//! it and writes each of its rows once, zeros included.
//!
//! Nothing is added to memory, so there is nothing to clear before and the result is the same in every run.
//! The samples come from `sort.rs`: those that touch a tile lie in 3 by 3 cells, which are three runs of the
//! sorted samples. Tiles with many samples are left to [`gather_crowded`], where a block shares the work.

use crate::args::{GatherArgs, Level};
use crate::block::Place;
use crate::channels::{Channels, Lane, Tile as ChannelTile};
use crate::forward::load_map;
use crate::limits::{CHANNELS_PER_LANE, CROWDED, TILE_SIDE};
use crate::memory::{self, SharedWords};
use crate::sort::load_grid;
use crate::storage::Storage;
use crate::unroll::{array4, array8, each4, each8, upto8};
#[cfg(target_arch = "nvptx64")]
use cuda_std::GpuFloat;
use cuda_std::thread;

/// Sums of a lane for the four pixels of a tile: top left, top right, bottom left, bottom right.
type Sums = [Lane; (TILE_SIDE * TILE_SIDE) as usize];

const NO_SUMS: Sums = [[0.0; CHANNELS_PER_LANE as usize]; (TILE_SIDE * TILE_SIDE) as usize];

/// A tile of 2 by 2 pixels and the samples around it.
struct Tile {
    item: usize,
    level: u32,
    map: Level,
    /// Row and column of the top left pixel.
    top: u32,
    left: u32,
    /// Where the three runs of samples begin, and how long they are.
    begins: [u32; 3],
    lengths: [u32; 3],
}

impl Tile {
    /// The tile of this number over the batch.
    ///
    /// # Safety
    ///
    /// The pointers of `args` are valid as it says, and the tile exists.
    #[inline(always)]
    unsafe fn new<T>(args: &GatherArgs<T>, number: u32) -> Self {
        let tiles = args.bins.tiles.max(1);
        let (item, number) = ((number / tiles) as usize, number % tiles);
        // The last map whose tiles begin at or before this one: `low` does, `high` does not.
        let (mut low, mut high) = (0, args.sizes.cameras * args.sizes.levels);
        while high - low > 1 {
            let middle = low.midpoint(high);
            // SAFETY: a map of the table.
            let grid = unsafe { load_grid(args.bins.grids.add(middle as usize)) };
            if grid.first_tile <= number {
                low = middle;
            } else {
                high = middle;
            }
        }
        // SAFETY: a map of the table.
        let (map, grid) = unsafe {
            (
                load_map(args.bins.maps.add(low as usize)),
                load_grid(args.bins.grids.add(low as usize)),
            )
        };
        let within = number - grid.first_tile;
        let (top, left) = (
            within / grid.tiles_across.max(1) * TILE_SIDE,
            within % grid.tiles_across.max(1) * TILE_SIDE,
        );
        let offsets = args
            .bins
            .offsets
            .cast_const()
            .wrapping_add(item * args.bins.cells as usize + grid.first_cell as usize);
        let across = map.width + 1;
        let (mut begins, mut lengths) = ([0; 3], [0; 3]);
        upto8(3, |run| {
            // The cell above and left of pixel (r, q) has row r and column q.
            let row = top + run as u32;
            if row <= map.height {
                let first = row * across + left;
                let behind = row * across + (left + 3).min(across);
                // SAFETY: each map has an offset per cell and one more.
                unsafe {
                    begins[run] = memory::load_u32(offsets.wrapping_add(first as usize));
                    let end = memory::load_u32(offsets.wrapping_add(behind as usize));
                    lengths[run] = end - begins[run];
                }
            }
        });
        let level = low % args.sizes.levels.max(1);
        Self { item, level, map, top, left, begins, lengths }
    }

    /// Samples around the tile.
    #[inline(always)]
    fn samples(&self) -> u32 {
        self.lengths[0] + self.lengths[1] + self.lengths[2]
    }

    /// Where the sample of this number lies among the item's.
    #[inline(always)]
    fn sample(&self, number: u32) -> u32 {
        let behind = number.wrapping_sub(self.lengths[0]);
        if number < self.lengths[0] {
            self.begins[0] + number
        } else if behind < self.lengths[1] {
            self.begins[1] + behind
        } else {
            self.begins[2] + (behind - self.lengths[1])
        }
    }
}

/// Bilinear coefficient of the pixel at `centre` for a sample at `position`, along one axis; zero or less where the
/// sample does not touch it.
#[inline(always)]
fn hat(position: f32, centre: u32) -> f32 {
    1.0 - (position - centre as f32).abs()
}

/// Adds the samples `from`, `from + 1`, … below `to` around a tile to the lane's sums.
///
/// # Safety
///
/// The pointers of `args` are valid as it says, and the tile has that many samples.
#[inline(always)]
unsafe fn add_samples<T: Storage, C: Channels<T>>(
    args: &GatherArgs<T>,
    tile: &Tile,
    channels: ChannelTile,
    from: u32,
    to: u32,
    sums: &mut Sums,
) {
    let sizes = &args.sizes;
    let groups = C::groups(channels, sizes.channels_per_group());
    let pairs = sizes.pairs();
    let maps = (sizes.cameras * sizes.levels) as usize;
    let points = (sizes.anchors * sizes.points) as usize;
    let samples = args.bins.samples.cast_const().wrapping_add(4 * tile.item * maps * points);
    let anchors = tile.item * sizes.anchors as usize;
    let mut number = from;
    while number < to {
        // Several samples at a time: each waits for two loads, one after the other.
        // SAFETY: samples of the tile, four words each, aligned to 16 bytes.
        let batch = array4(|index| unsafe {
            let next = number + index as u32;
            let at = tile.sample(next.min(to - 1));
            memory::load_words(samples.wrapping_add(4 * at as usize), next < to)
        });
        let scaled = array4(|index| {
            let live = number + (index as u32) < to;
            let [anchor, pair, ..] = batch[index];
            let anchor = anchors + anchor as usize;
            let weight = (anchor * pairs as usize + pair as usize) * sizes.levels as usize
                + tile.level as usize;
            let weights = args.weights.wrapping_add(weight * sizes.groups as usize);
            let upstream = args.grad_output.wrapping_add(anchor * sizes.channels as usize);
            // SAFETY: the anchor's row of output gradients.
            let mut scaled = unsafe { C::load(upstream, channels, live) };
            upto8(C::SLOTS, |slot| {
                let group = groups[slot] as usize;
                // SAFETY: the group exists, and so does the sample's weight for it.
                let factor = if live { unsafe { T::load(weights.wrapping_add(group)) } } else { 0.0 };
                upto8(C::PER_SLOT, |within| scaled[slot * C::PER_SLOT + within] *= factor);
            });
            scaled
        });
        each4(|index| {
            if number + (index as u32) < to {
                let [_, _, u, v] = batch[index].map(f32::from_bits);
                add_sample(tile, [u, v], &scaled[index], sums);
            }
        });
        number += 4;
    }
}

/// Adds one sample to the pixels it touches.
#[inline(always)]
fn add_sample(tile: &Tile, [u, v]: [f32; 2], scaled: &Lane, sums: &mut Sums) {
    let across = [hat(u, tile.left), hat(u, tile.left + 1)];
    let down = [hat(v, tile.top), hat(v, tile.top + 1)];
    each4(|pixel| {
        let (column, row) = (across[pixel % 2], down[pixel / 2]);
        // A pixel the sample does not touch is left alone whatever the gradient, NaN included.
        if column > 0.0 && row > 0.0 {
            let coefficient = row * column;
            each8(|channel| {
                sums[pixel][channel] = coefficient.mul_add(scaled[channel], sums[pixel][channel]);
            });
        }
    });
}

/// Writes the row of one of a tile's pixels, if it is on the map.
///
/// # Safety
///
/// The pixel is the calling worker's alone.
#[inline(always)]
unsafe fn write<T: Storage, C: Channels<T>>(
    args: &GatherArgs<T>,
    tile: &Tile,
    channels: ChannelTile,
    pixel: u32,
    sums: &Lane,
) {
    let (row, column) = (tile.top + pixel / 2, tile.left + pixel % 2);
    if row < tile.map.height && column < tile.map.width {
        let feature = tile.item * args.sizes.rows as usize
            + (tile.map.start + row * tile.map.width + column) as usize;
        let target = args.grad_features.wrapping_add(feature * args.sizes.channels as usize);
        // SAFETY: a row of the gradient, on the map, and this worker's.
        unsafe { C::store(target, channels, sums) };
    }
}

/// The gather for tiles that are not crowded, one worker each. It lists the others.
///
/// Grid: `(workers for the B * tiles tiles, channel tiles)`. Block: whole warps.
///
/// # Safety
///
/// The pointers of `args` are valid as it says, for the sizes it gives; the samples are sorted.
#[inline(always)]
pub(crate) unsafe fn gather<T: Storage, C: Channels<T>>(args: GatherArgs<T>) {
    let place = Place::new(&args.sizes);
    let worker = place.warp * place.workers + place.worker;
    let number = thread::block_idx_x() * place.warps * place.workers + worker;
    if number >= args.bins.tiles * args.sizes.batch {
        return;
    }
    let channels = place.tile(&args.sizes, thread::block_idx_y());
    // SAFETY: the tile exists and is this worker's.
    unsafe {
        let tile = Tile::new(&args, number);
        let samples = tile.samples();
        if samples > CROWDED {
            if place.lane == 0 && thread::block_idx_y() == 0 {
                let at = memory::count(args.bins.crowded, 1);
                memory::store_u32(args.bins.crowded.wrapping_add(1 + at as usize), number);
            }
            return;
        }
        let mut sums = NO_SUMS;
        add_samples::<T, C>(&args, &tile, channels, 0, samples, &mut sums);
        each4(|pixel| write::<T, C>(&args, &tile, channels, pixel as u32, &sums[pixel]));
    }
}

/// The gather for crowded tiles, one block each: every worker adds up a run of the samples, and the workers' sums
/// are added in their order.
///
/// Grid: `(any number of blocks, channel tiles)`. Block: whole warps. Shared memory:
/// [`gather_bytes`](crate::limits::gather_bytes).
///
/// # Safety
///
/// As for [`gather`], which has listed the tiles.
#[inline(always)]
pub(crate) unsafe fn gather_crowded<T: Storage, C: Channels<T>>(args: GatherArgs<T>) {
    let place = Place::new(&args.sizes);
    let channels = place.tile(&args.sizes, thread::block_idx_y());
    // SAFETY: the list's length and its entries were written by the launch before.
    let crowded = unsafe { memory::load_u32(args.bins.crowded) };
    let mut index = thread::block_idx_x();
    while index < crowded {
        // SAFETY: below the length; the tile exists and is this block's.
        unsafe {
            let number = memory::load_u32(args.bins.crowded.wrapping_add(1 + index as usize));
            share_tile::<T, C>(&args, place, channels, &Tile::new(&args, number));
        }
        index += thread::grid_dim_x();
    }
}

/// Gathers one tile with the whole block.
///
/// # Safety
///
/// The whole block makes the call; the tile is its own.
#[inline(always)]
unsafe fn share_tile<T: Storage, C: Channels<T>>(
    args: &GatherArgs<T>,
    place: Place,
    channels: ChannelTile,
    tile: &Tile,
) {
    let workers = place.warps * place.workers;
    let worker = place.warp * place.workers + place.worker;
    let share = tile.samples().div_ceil(workers.max(1));
    let from = (worker * share).min(tile.samples());
    let mut sums = NO_SUMS;
    // SAFETY: the runs lie within the tile's samples.
    unsafe {
        let to = (from + share).min(tile.samples());
        add_samples::<T, C>(args, tile, channels, from, to, &mut sums);
    }
    // Word `((worker * 4 + pixel) * 8 + index) * lanes + lane`: neighbouring lanes, neighbouring words.
    let scratch = SharedWords::new(0);
    let word = |worker: u32, pixel: usize, index: usize| {
        ((worker * 4 + pixel as u32) * CHANNELS_PER_LANE + index as u32) * place.lanes + place.lane
    };
    each4(|pixel| {
        each8(|index| {
            // SAFETY: each lane of each worker has words of its own.
            unsafe { scratch.set(word(worker, pixel, index), sums[pixel][index].to_bits()) };
        });
    });
    thread::sync_threads();
    if worker < 4 {
        // One worker per pixel adds up what all found for it.
        let pixel = worker as usize;
        let mut total = [0.0; CHANNELS_PER_LANE as usize];
        for other in 0..workers {
            // SAFETY: written before the barrier.
            total = array8(|index| unsafe {
                total[index] + f32::from_bits(scratch.get(word(other, pixel, index)))
            });
        }
        // SAFETY: one worker per pixel.
        unsafe { write::<T, C>(args, tile, channels, worker, &total) };
    }
    // The scratch may be written again after this.
    thread::sync_threads();
}
