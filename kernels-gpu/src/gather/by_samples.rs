//! Adding up samples: the way that needs no memory for shares. A warp goes through the marks of its tile, reads the locations
//! of a marked anchor's points, one for each lane, finds those that touch the tile, and takes them together: the output
//! gradient of an anchor is read once for all its points.

use super::tile::{Target, Tile};
use super::{NO_SUMS, Sums, add_workers, part_of_warp, write_shared_tile, write_tile};
use crate::args::GatherArgs;
use crate::block::{Place, WARP};
use crate::channels::{Channels, Tile as ChannelTile};
use crate::limits::{CHANNELS_PER_LANE, MARKS_PER_VECTOR, WARP_LANES};
use crate::memory;
use crate::sample;
use crate::storage::Storage;
use crate::unroll::{array4, each4, upto8};
#[cfg(target_arch = "nvptx64")]
use cuda_std::GpuFloat;
use cuda_std::{thread, warp};

/// The gather where there are no shares.
///
/// Grid: `(up to the blocks of work of the batch, channel tiles)`. Block: whole warps. Shared memory:
/// [`gather_shared_bytes`](crate::gather_shared_bytes).
///
/// # Safety
///
/// The pointers of `args` are valid as it says, for the sizes it gives; the tiles are marked.
#[inline(always)]
pub(crate) unsafe fn gather_samples<T: Storage, C: Channels<T>>(args: GatherArgs<T>) {
    // SAFETY: the caller's promise.
    if unsafe { args.shares.fit() } {
        return;
    }
    let mut block = thread::block_idx_x();
    while block < args.blocks * args.by_batch.value {
        // SAFETY: the whole block is here.
        unsafe { gather_block::<T, C>(&args, block) };
        block += thread::grid_dim_x();
    }
}

/// One block of work, of those of the batch.
///
/// # Safety
///
/// The whole block makes the call; otherwise as for [`gather_samples`].
#[inline(always)]
unsafe fn gather_block<T: Storage, C: Channels<T>>(args: &GatherArgs<T>, block: u32) {
    let mut sums = NO_SUMS;
    // SAFETY: all lanes of the warp make the calls together; there is such a block.
    unsafe {
        let place = Place::again(&args.sizes);
        let (of_item, item) = args.by_batch.divide(block);
        let Some(tile) = Tile::new(args, place, of_item) else { return };
        let gather = Gather::new::<C>(args, place, item as usize, tile);
        gather.add_marked::<C>(&mut sums);
        add_workers(place, &mut sums);
    }
    // SAFETY: as above. The tile is looked up anew, which costs less than the registers that keep it.
    unsafe {
        let place = Place::again(&args.sizes);
        let (of_item, item) = args.by_batch.divide(memory::opaque(block));
        let Some(tile) = Tile::new(args, place, of_item) else { return };
        let target = Target::new(args, place, item);
        if tile.shared {
            write_shared_tile::<T, C>(place, &target, tile.pixels(), &sums);
        } else {
            write_tile::<T, C>(place, &target, tile.pixels(), &sums);
        }
    }
}

/// What a warp adds up, and for whom.
struct Gather<'a, T> {
    args: &'a GatherArgs<T>,
    place: Place,
    item: usize,
    tile: Tile,
    channels: ChannelTile,
    groups: [u32; CHANNELS_PER_LANE as usize],
}

/// Bilinear coefficient of the pixel at `centre` for a sample at `position`, along one axis; zero where the sample does
/// not touch it.
#[inline(always)]
fn hat(position: f32, centre: u32) -> f32 {
    (1.0 - (position - centre as f32).abs()).max(0.0)
}

/// The sample of a point on the tile's map, as its lane sees it.
struct Sample {
    /// First of its weights.
    weight: usize,
    /// What it counts for at each pixel of the tile; zero where it does not touch it.
    coefficients: [f32; 4],
}

impl<'a, T: Storage> Gather<'a, T> {
    #[inline(always)]
    fn new<C: Channels<T>>(args: &'a GatherArgs<T>, place: Place, item: usize, tile: Tile) -> Self {
        let channels = place.tile(&args.sizes, thread::block_idx_y());
        Self { args, place, item, tile, channels, groups: C::groups(channels, &args.sizes.by_group) }
    }

    /// The vectors of marks that are the warp's: all, or its part of those of a tile that it shares.
    #[inline(always)]
    fn vectors(&self) -> (u32, u32) {
        let all = self.args.marks.vectors_per_tile;
        if self.tile.shared { part_of_warp(self.place, all) } else { (0, all) }
    }

    /// Adds what is marked in the warp's vectors to the sums of the workers.
    ///
    /// # Safety
    ///
    /// All lanes of the warp make the call together; the pointers of the arguments are valid.
    #[inline(always)]
    unsafe fn add_marked<C: Channels<T>>(&self, sums: &mut Sums) {
        let marks = self.args.marks.vector(self.item, self.tile.number, 0);
        let (mut begin, to) = self.vectors();
        while begin < to {
            // A vector for each lane.
            let mine = begin + self.place.warp_lane;
            let at = marks.wrapping_add(4 * mine as usize);
            // SAFETY: a vector of the tile's marks, written by earlier launches.
            let [_, mut low, mut middle, mut high] =
                unsafe { memory::load_words_if(at, mine < to) };
            loop {
                // SAFETY: all lanes of the warp are here.
                let chosen = unsafe { warp::warp_vote_ballot(WARP, (low | middle | high) != 0) };
                if chosen == 0 {
                    break;
                }
                // Each lane takes the lowest mark it has left.
                let (word, first) = match (low, middle) {
                    (0, 0) => (high, 64),
                    (0, _) => (middle, 32),
                    _ => (low, 0),
                };
                let rest = word & word.wrapping_sub(1);
                match first {
                    0 => low = rest,
                    32 => middle = rest,
                    _ => high = rest,
                }
                let mark = mine * MARKS_PER_VECTOR + first + word.trailing_zeros();
                // SAFETY: as above.
                unsafe { self.add_anchors::<C>(chosen, mark, sums) };
            }
            begin += WARP_LANES;
        }
    }

    /// Adds what some marks stand for to the sums of the workers: those of the lanes of `chosen`, which is not 0. A lane has
    /// the number of its mark.
    ///
    /// # Safety
    ///
    /// As for [`add_marked`](Self::add_marked).
    #[inline(always)]
    unsafe fn add_anchors<C: Channels<T>>(&self, chosen: u32, mark: u32, sums: &mut Sums) {
        let sizes = &self.args.sizes;
        let anchors = self.args.marks.by_anchors.value;
        let points = anchors * sizes.by_part.value;
        // The lanes look at the points of as many marks at a time as they can.
        let lanes = points.next_power_of_two().min(WARP_LANES);
        let shift = lanes.trailing_zeros();
        let (turn, lane) = (self.place.warp_lane >> shift, self.place.warp_lane & (lanes - 1));
        let mut left = chosen;
        while left != 0 {
            let mut from = None;
            for other in 0..WARP_LANES >> shift {
                if left != 0 && other == turn {
                    from = Some(left.trailing_zeros());
                }
                left &= left.wrapping_sub(1);
            }
            // SAFETY: all lanes of the warp are here, also below: `left` is the same for all of them.
            unsafe {
                let (mark, _) = warp::warp_shuffle_idx(WARP, mark, from.unwrap_or(0), WARP_LANES);
                let all = sizes.anchors * sizes.by_parts.value;
                let begin = sizes.first_point(mark * anchors);
                let end = sizes.first_point(((mark + 1) * anchors).min(all));
                let end = from.map_or(0, |_| end);
                let mut first = 0;
                while first < points {
                    self.add_points::<C>(begin + first + lane, end, sums);
                    first += lanes;
                }
            }
        }
    }

    /// Adds those of the lanes' points that touch the tile. A lane looks at `point`, which counts if it is below `end`.
    ///
    /// # Safety
    ///
    /// As for [`add_marked`](Self::add_marked).
    #[inline(always)]
    unsafe fn add_points<C: Channels<T>>(&self, point: u32, end: u32, sums: &mut Sums) {
        let sizes = &self.args.sizes;
        let anchor = sizes.by_points.quotient(point);
        let (camera, level) = sizes.by_levels.divide(self.tile.map_number);
        let points = sizes.anchors * sizes.points;
        // A point that does not count stands for one that exists.
        let of_batch = self.item * points as usize + point.min(points - 1) as usize;
        let pair = of_batch * sizes.cameras as usize + camera as usize;
        let mut own = Sample {
            weight: (pair * sizes.levels as usize + level as usize) * sizes.groups as usize,
            coefficients: [0.0; 4],
        };
        if point < end {
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
        let anchor = self.item * sizes.anchors as usize + anchor as usize;
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
}
