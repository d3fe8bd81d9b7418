//! Backward for the features, by ownership: a warp owns a tile of 2 by 2 pixels, adds up the samples that touch it and
//! writes each of its rows once, zeros included.
//!
//! Nothing is added to memory, so there is nothing to clear before and the result is the same in every run. Where to
//! look the [`marks`](crate::marks) say: a warp reads the locations of 32 neighbouring points at once, finds those that
//! touch the tile, and takes them anchor by anchor: the output gradient of an anchor is read once for all its points.
//!
//! The tiles of a map of few pixels have many samples each; there a whole block shares a tile, each warp takes a part of
//! the marks, and the warps' sums are added in their order.

use crate::args::{Divisor, GatherArgs, Level, Stretch};
use crate::block::{Place, WARP};
use crate::channels::{Channels, Lane, Tile as ChannelTile};
use crate::limits::{CHANNELS_PER_LANE, POINTS_PER_UNIT, TILE_SIDE, WARP_LANES};
use crate::marks::load_grid;
use crate::memory::{self, SharedWords};
use crate::rows::load_map;
use crate::sample;
use crate::storage::Storage;
use crate::unroll::{array4, array8, each4, each8, upto8};
#[cfg(target_arch = "nvptx64")]
use cuda_std::GpuFloat;
use cuda_std::{thread, warp};

/// Sums of a lane for the four pixels of a tile: top left, top right, bottom left, bottom right.
type Sums = [Lane; (TILE_SIDE * TILE_SIDE) as usize];

const NO_SUMS: Sums = [[0.0; CHANNELS_PER_LANE as usize]; (TILE_SIDE * TILE_SIDE) as usize];

/// A tile of 2 by 2 pixels.
struct Tile {
    item: usize,
    /// Its number in the batch item.
    number: u32,
    /// The pair of the item's first point with the map's camera, counted over the batch.
    first_pair: usize,
    level: u32,
    map: Level,
    /// Row and column of the top left pixel.
    top: u32,
    left: u32,
}

/// Finds the stretch of blocks that has this one.
///
/// # Safety
///
/// The pointers of `args` are valid as it says; all lanes of the warp make the call together.
#[inline(always)]
unsafe fn find_stretch<T>(args: &GatherArgs<T>, place: Place) -> Stretch {
    let (block, stretches) = (thread::block_idx_x(), args.sizes.cameras * args.sizes.levels);
    let mut found = 0;
    let mut begin = 0;
    while begin < stretches {
        let mine = begin + place.warp_lane;
        // SAFETY: a stretch of the table, which begins with its first block; all lanes of the warp are here.
        let begun = unsafe {
            let first = if mine < stretches {
                memory::load_u32(args.stretches.wrapping_add(mine as usize).cast())
            } else {
                u32::MAX
            };
            warp::warp_vote_ballot(WARP, first <= block)
        };
        found += begun.count_ones();
        begin += WARP_LANES;
    }
    // The first stretch begins with block 0, so one has begun.
    let stretch = args.stretches.wrapping_add(found as usize - 1).cast::<u32>();
    // SAFETY: a stretch is eight words, aligned to 16 bytes.
    unsafe {
        let [first_block, map, shared, reserved] = memory::load_words(stretch);
        let [blocks, blocks_shift, across, across_shift] = memory::load_words(stretch.wrapping_add(4));
        let (by_blocks, by_across) = ([blocks, blocks_shift], [across, across_shift]);
        Stretch { first_block, map, shared, reserved, by_blocks, by_across }
    }
}

impl Tile {
    /// The warp's tile; nothing behind the last one.
    ///
    /// # Safety
    ///
    /// The pointers of `args` are valid as it says, and the stretch is the block's.
    #[inline(always)]
    unsafe fn new<T>(args: &GatherArgs<T>, place: Place, stretch: &Stretch) -> Option<Self> {
        // SAFETY: a map of the tables.
        let (map, grid) = unsafe {
            (
                load_map(args.maps.add(stretch.map as usize)),
                load_grid(args.grids.add(stretch.map as usize)),
            )
        };
        let divisor = |value, [magic, shift]: [u32; 2]| Divisor { value, magic, shift };
        let (item, block) = divisor(grid.blocks, stretch.by_blocks)
            .divide(thread::block_idx_x() - stretch.first_block);
        let within = if stretch.shared != 0 { block } else { block * place.warps + place.warp };
        if within >= grid.tiles {
            return None;
        }
        let (row, column) = divisor(grid.tiles_across, stretch.by_across).divide(within);
        let sizes = &args.sizes;
        let (camera, level) = sizes.by_levels.divide(stretch.map);
        let points = (sizes.anchors * sizes.points) as usize;
        Some(Self {
            item: item as usize,
            number: grid.first_tile + within,
            first_pair: item as usize * points * sizes.cameras as usize + camera as usize,
            level,
            map,
            top: row * TILE_SIDE,
            left: column * TILE_SIDE,
        })
    }
}

/// Bilinear coefficient of the pixel at `centre` for a sample at `position`, along one axis; zero where the sample does
/// not touch it.
#[inline(always)]
fn hat(position: f32, centre: u32) -> f32 {
    (1.0 - (position - centre as f32).abs()).max(0.0)
}

/// What a warp adds up, and for whom.
struct Gather<'a, T> {
    args: &'a GatherArgs<T>,
    place: Place,
    tile: Tile,
    channels: ChannelTile,
    groups: [u32; CHANNELS_PER_LANE as usize],
}

/// The sample of a point on the tile's map, as its lane sees it.
struct Sample {
    /// First of its weights.
    weight: usize,
    /// What it counts for at each pixel of the tile; zero where it does not touch it.
    coefficients: [f32; 4],
}

impl<T: Storage> Gather<'_, T> {
    /// Adds the samples under the marks `from`, `from + 1`, … below `to`, words of 32 marks, to the sums of the workers.
    ///
    /// # Safety
    ///
    /// All lanes of the warp make the call together; the pointers of the arguments are valid.
    #[inline(always)]
    unsafe fn add_marked<C: Channels<T>>(&self, from: u32, to: u32, sums: &mut Sums) {
        let marks = self.args.marks.of_tile(self.tile.item, self.tile.number);
        let units = 1 << (self.args.marks.mark_shift - POINTS_PER_UNIT.trailing_zeros());
        let mut begin = from;
        while begin < to {
            let mine = begin + self.place.warp_lane;
            // SAFETY: a word of the tile's marks, written by earlier launches; all lanes of the warp are here.
            let (own, mut words) = unsafe {
                let own = if mine < to { memory::load_u32(marks.wrapping_add(mine as usize)) } else { 0 };
                (own, warp::warp_vote_ballot(WARP, own != 0))
            };
            while words != 0 {
                let lane = words.trailing_zeros();
                words &= words - 1;
                // SAFETY: all lanes of the warp are here.
                let mut word = unsafe { warp::warp_shuffle_idx(WARP, own, lane, WARP_LANES).0 };
                while word != 0 {
                    let mark = (begin + lane) * 32 + word.trailing_zeros();
                    word &= word - 1;
                    for unit in 0..units {
                        // SAFETY: all lanes of the warp are here.
                        unsafe { self.add_unit::<C>(mark * units + unit, sums) };
                    }
                }
            }
            begin += WARP_LANES;
        }
    }

    /// Adds those of a unit's points that touch the tile. Each lane looks at one.
    ///
    /// # Safety
    ///
    /// As for [`add_marked`](Self::add_marked).
    #[inline(always)]
    unsafe fn add_unit<C: Channels<T>>(&self, unit: u32, sums: &mut Sums) {
        let sizes = &self.args.sizes;
        let point = unit * POINTS_PER_UNIT + self.place.warp_lane;
        let anchor = sizes.by_points.quotient(point);
        let points = sizes.anchors * sizes.points;
        // Lanes behind the last point look at it as well, but not as a sample.
        let pair = self.tile.first_pair + point.min(points - 1) as usize * sizes.cameras as usize;
        let mut own = Sample {
            weight: (pair * sizes.levels as usize + self.tile.level as usize) * sizes.groups as usize,
            coefficients: [0.0; 4],
        };
        if point < points {
            // SAFETY: a point of the item.
            let [x, y] = unsafe { memory::load_pair(self.args.locations.wrapping_add(2 * pair)) };
            if let Some([u, v]) = sample::position(x, y, self.tile.map, sizes.rule) {
                let across = [hat(u, self.tile.left), hat(u, self.tile.left + 1)];
                let down = [hat(v, self.tile.top), hat(v, self.tile.top + 1)];
                own.coefficients = array4(|pixel| across[pixel % 2] * down[pixel / 2]);
            }
        }
        // SAFETY: all lanes of the warp are here, also below: the ballots' results are the same for all of them.
        unsafe {
            let touched = own.coefficients.map(|one| warp::warp_vote_ballot(WARP, one > 0.0));
            let mut left = touched[0] | touched[1] | touched[2] | touched[3];
            while left != 0 {
                // An anchor for each worker.
                let (mut number, mut mine) = (0, 0);
                for worker in 0..self.place.workers {
                    let next = left.trailing_zeros() % WARP_LANES;
                    let other = warp::warp_shuffle_idx(WARP, anchor, next, WARP_LANES).0;
                    let alike = warp::warp_vote_ballot(WARP, anchor == other) & left;
                    left &= !alike;
                    if worker == self.place.worker {
                        (number, mine) = (other, alike);
                    }
                }
                self.add_anchor::<C>(number, mine, touched, &own, sums);
            }
        }
    }

    /// Adds an anchor's samples that touch the tile: those of the lanes in `mine`, none if it is empty. `touched` says
    /// for each pixel which lanes' samples touch it.
    ///
    /// # Safety
    ///
    /// As for [`add_marked`](Self::add_marked).
    #[inline(always)]
    unsafe fn add_anchor<C: Channels<T>>(
        &self,
        anchor: u32,
        mine: u32,
        touched: [u32; 4],
        own: &Sample,
        sums: &mut Sums,
    ) {
        let sizes = &self.args.sizes;
        let anchor = self.tile.item * sizes.anchors as usize + anchor as usize;
        let row_bytes = sizes.channels * size_of::<T>() as u32;
        // SAFETY: the anchor's row of output gradients; without samples the item's first.
        let upstream = unsafe {
            C::load_row(self.args.grad_output, anchor * row_bytes as usize, self.channels)
        };
        // What the anchor counts for at each pixel, by slot.
        let mut weights = [[0.0; CHANNELS_PER_LANE as usize]; 4];
        let mut left = mine;
        // SAFETY: all lanes of the warp are here, and stay until none has a sample left.
        while unsafe { warp::warp_vote_any(WARP, left != 0) } {
            // Two samples on their way at a time.
            let mut samples = [([0.0; 4], [0.0; CHANNELS_PER_LANE as usize]); 2];
            upto8(2, |index| {
                let (live, lane) = (left != 0, left.trailing_zeros() % WARP_LANES);
                left &= left.wrapping_sub(1);
                // SAFETY: all lanes of the warp are here.
                let (first, coefficients) = unsafe {
                    (
                        warp::warp_shuffle_idx(WARP, own.weight as u64, lane, WARP_LANES).0,
                        own.coefficients.map(|one| warp::warp_shuffle_idx(WARP, one, lane, WARP_LANES).0),
                    )
                };
                // A sample that is none has no weight at any pixel.
                samples[index].0 = coefficients.map(|one| if live { one } else { 0.0 });
                upto8(C::SLOTS, |slot| {
                    let at = first as usize + self.groups[slot] as usize;
                    // SAFETY: the group exists, and so does the sample's weight for it, be it some lane's sample.
                    samples[index].1[slot] = unsafe { T::load(self.args.weights.wrapping_add(at)) };
                });
            });
            upto8(2, |index| {
                let (coefficients, factors) = samples[index];
                upto8(C::SLOTS, |slot| {
                    each4(|pixel| {
                        // A pixel that no sample touches is left alone whatever the weight, NaN included.
                        if coefficients[pixel] > 0.0 {
                            weights[pixel][slot] =
                                coefficients[pixel].mul_add(factors[slot], weights[pixel][slot]);
                        }
                    });
                });
            });
        }
        each4(|pixel| {
            // And whatever the gradient.
            if touched[pixel] & mine != 0 {
                upto8(C::SLOTS, |slot| {
                    upto8(C::PER_SLOT, |within| {
                        let channel = slot * C::PER_SLOT + within;
                        sums[pixel][channel] =
                            weights[pixel][slot].mul_add(upstream[channel], sums[pixel][channel]);
                    });
                });
            }
        });
    }

    /// Adds up the workers of the warp: each has the sums of all afterwards.
    ///
    /// # Safety
    ///
    /// All lanes of the warp make the call together.
    #[inline(always)]
    unsafe fn add_workers(&self, sums: &mut Sums) {
        let mut distance = self.place.lanes;
        while distance < WARP_LANES {
            each4(|pixel| {
                each8(|channel| {
                    let own = sums[pixel][channel];
                    // SAFETY: all lanes of the warp are here.
                    let (other, _) =
                        unsafe { warp::warp_shuffle_xor(WARP, own, distance, WARP_LANES) };
                    sums[pixel][channel] = own + other;
                });
            });
            distance *= 2;
        }
    }

    /// Writes the row of one of the tile's pixels, if it is on the map.
    ///
    /// # Safety
    ///
    /// The pixel is the calling worker's alone.
    #[inline(always)]
    unsafe fn write<C: Channels<T>>(&self, pixel: u32, sums: &Lane) {
        let (row, column) = (self.tile.top + pixel / 2, self.tile.left + pixel % 2);
        let map = self.tile.map;
        if row < map.height && column < map.width {
            let sizes = &self.args.sizes;
            let feature = self.tile.item * sizes.rows as usize
                + (map.start + row * map.width + column) as usize;
            let target = self.args.grad_features.wrapping_add(feature * sizes.channels as usize);
            // SAFETY: a row of the gradient, on the map, and this worker's.
            unsafe { C::store(target, self.channels, sums) };
        }
    }
}

/// The gather.
///
/// Grid: `(blocks of all stretches, channel tiles)`. Block: whole warps. Shared memory:
/// [`gather_shared_bytes`](crate::gather_shared_bytes).
///
/// # Safety
///
/// The pointers of `args` are valid as it says, for the sizes it gives; the tiles are marked.
#[inline(always)]
pub(crate) unsafe fn gather<T: Storage, C: Channels<T>>(args: GatherArgs<T>) {
    let place = Place::new(&args.sizes);
    let channels = place.tile(&args.sizes, thread::block_idx_y());
    // SAFETY: all lanes of the warp make the calls together.
    unsafe {
        let stretch = find_stretch(&args, place);
        let Some(tile) = Tile::new(&args, place, &stretch) else { return };
        let groups = C::groups(channels, &args.sizes.by_group);
        let gather = Gather { args: &args, place, tile, channels, groups };
        // A warp that shares a tile takes its part of the marks.
        let words = args.marks.words_per_tile;
        let (mut from, mut to) = (0, words);
        if stretch.shared != 0 {
            let share = words.div_ceil(place.warps.max(1));
            from = (place.warp * share).min(words);
            to = (from + share).min(words);
        }
        let mut sums = NO_SUMS;
        gather.add_marked::<C>(from, to, &mut sums);
        gather.add_workers(&mut sums);
        if stretch.shared != 0 {
            add_warps::<T, C>(&gather, &sums);
        } else {
            each4(|pixel| {
                if pixel as u32 & (place.workers - 1) == place.worker {
                    gather.write::<C>(pixel as u32, &sums[pixel]);
                }
            });
        }
    }
}

/// Adds up the warps of a block that shares a tile, and writes the tile's rows.
///
/// # Safety
///
/// The whole block makes the call; the tile is its own.
#[inline(always)]
unsafe fn add_warps<T: Storage, C: Channels<T>>(gather: &Gather<'_, T>, sums: &Sums) {
    let place = gather.place;
    let scratch = SharedWords::new(0);
    // Word `(warp * 8 + index) * lanes + lane`: neighbouring lanes, neighbouring words.
    let word = |warp: u32, index: usize| {
        (warp * CHANNELS_PER_LANE + index as u32) * place.lanes + place.lane
    };
    each4(|pixel| {
        if place.worker == 0 {
            each8(|index| {
                // SAFETY: each lane of each warp's first worker has words of its own.
                unsafe { scratch.set(word(place.warp, index), sums[pixel][index].to_bits()) };
            });
        }
        thread::sync_threads();
        // Each pixel is another warp's business.
        if place.warp == pixel as u32 % place.warps.max(1) && place.worker == 0 {
            let mut total = [0.0; CHANNELS_PER_LANE as usize];
            for other in 0..place.warps {
                // SAFETY: written before the barrier.
                total = array8(|index| unsafe {
                    total[index] + f32::from_bits(scratch.get(word(other, index)))
                });
            }
            // SAFETY: one worker per pixel.
            unsafe { gather.write::<C>(pixel as u32, &total) };
        }
        // The scratch may be written again after this.
        thread::sync_threads();
    });
}
