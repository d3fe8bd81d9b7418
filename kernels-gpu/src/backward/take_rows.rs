//! What is done with the rows of a window, each once: workers take a few at a time.

use core::marker::PhantomData;

use crate::args::BackwardArgs;
use crate::backward::Anchor;
use crate::backward::group_sums::{self, GroupSums, Numbers};
use crate::block::{Place, WARP};
use crate::channels::Channels;
use crate::limits::{CHANNELS_PER_LANE, window_words};
use crate::memory::SharedWords;
use crate::rows::Window;
use crate::storage::Storage;
use crate::unroll::{array4, upto8};
use cuda_std::{thread, warp};

/// A way to take the rows of a window.
pub(crate) trait TakeRows<T: Storage> {
    /// Whether it adds to the gradient of the features, for which the table has to have what rows count for.
    const SCATTERS: bool;

    /// Multiplies every row with the output gradient: the table has the sums over the channels of each group after the
    /// block's next barrier. If it scatters, it adds the output gradient, times what a row counts for, to the gradient of the
    /// features.
    ///
    /// # Safety
    ///
    /// The whole block makes the call; the window has `known` rows, all in the features.
    unsafe fn take(args: &BackwardArgs<T>, anchor: &Anchor<T>, window: &Window, known: u32);
}

/// Multiplies rows, for a way to deal channels out and one to add them up.
pub(crate) struct Multiply<C, S>(PhantomData<(C, S)>);

/// Multiplies rows, and scatters them.
pub(crate) struct Scatter<C, S>(PhantomData<(C, S)>);

impl<T: Storage, C: Channels<T>, S: GroupSums<T, C>> TakeRows<T> for Multiply<C, S> {
    const SCATTERS: bool = false;

    #[inline(always)]
    unsafe fn take(args: &BackwardArgs<T>, anchor: &Anchor<T>, window: &Window, known: u32) {
        // SAFETY: the caller's promise.
        unsafe { take_rows::<T, C, S, false, true>(args, anchor, window, known) };
    }
}

impl<T: Storage, C: Channels<T>, S: GroupSums<T, C>> TakeRows<T> for Scatter<C, S> {
    const SCATTERS: bool = true;

    #[inline(always)]
    unsafe fn take(args: &BackwardArgs<T>, anchor: &Anchor<T>, window: &Window, known: u32) {
        // SAFETY: the caller's promise.
        unsafe {
            if S::WHOLE_GROUPS {
                take_rows::<T, C, S, true, true>(args, anchor, window, known);
            } else {
                // The table has to keep all weights until the last tile of a row is added.
                take_rows::<T, C, S, true, false>(args, anchor, window, known);
                thread::sync_threads();
                take_rows::<T, C, S, false, true>(args, anchor, window, known);
            }
        }
    }
}

/// Goes through the rows of the window. With `ADD` it adds the output gradient, times what a row counts for, to the
/// gradient of the features: the table has what rows count for. With `MULTIPLY` it multiplies every row with the output
/// gradient: the table has the sums over the channels of each group afterwards.
///
/// # Safety
///
/// The whole block makes the call; the window has `known` rows, all in the features. Both at once need a tile
/// to have whole groups.
#[inline(always)]
unsafe fn take_rows<
    T: Storage,
    C: Channels<T>,
    S: GroupSums<T, C>,
    const ADD: bool,
    const MULTIPLY: bool,
>(
    args: &BackwardArgs<T>,
    anchor: &Anchor<T>,
    window: &Window,
    known: u32,
) {
    let sizes = &args.sizes;
    let place = Place::again(sizes);
    let workers = place.warps * place.workers;
    let scratch = SharedWords::new(
        window_words::end(args.window, sizes.groups)
            + place.warp * window_words::PER_WARP
            + place.worker * place.lanes * CHANNELS_PER_LANE,
    );
    let table = window.table();
    let bytes = |element: usize| sizes.channels as usize * element;
    let mut tile = 0;
    while tile * place.lanes * CHANNELS_PER_LANE < sizes.channels {
        // SAFETY: the tile exists.
        let part = unsafe { group_sums::Part::new::<T, C>(sizes, anchor.grad_output, place, tile) };
        let mut begin = place.warp * place.workers;
        // The loop runs as often for every lane of a warp: its lanes meet inside.
        while begin < known {
            let numbers = Numbers { first: begin + place.worker, step: workers, known };
            // Behind the last row it is taken again, and not used.
            // SAFETY: the numbers are known.
            let rows = array4(|index| unsafe {
                window.row(numbers.get(index as u32).min(known - 1)) as usize
            });
            let mut pixels = [[0.0; CHANNELS_PER_LANE as usize]; 4];
            if MULTIPLY {
                upto8(S::ROWS, |index| {
                    // SAFETY: a row of the features.
                    pixels[index] = unsafe {
                        C::load_row(anchor.features, rows[index] * bytes(size_of::<T>()), part.tile)
                    };
                });
            }
            if ADD {
                upto8(S::ROWS, |index| {
                    let number = numbers.get(index as u32);
                    if number < known {
                        let mut values = part.upstream;
                        upto8(C::SLOTS, |slot| {
                            // SAFETY: the row and the group are in the table.
                            let weight = unsafe { table.at(table.place(number), part.groups[slot]) };
                            upto8(C::PER_SLOT, |within| values[slot * C::PER_SLOT + within] *= weight);
                        });
                        let offset = rows[index] * bytes(size_of::<f32>());
                        let target = anchor.grad_features.wrapping_byte_add(offset);
                        // SAFETY: a row of the gradient, only ever added to.
                        unsafe { C::add(target, part.tile, &values) };
                    }
                });
            }
            if MULTIPLY {
                // SAFETY: all lanes of the warp are here, and have read what their rows count for; rows go round the
                // workers.
                unsafe {
                    if ADD {
                        warp::sync_warp(WARP);
                    }
                    let size = sizes.channels_per_group();
                    S::add_up(&pixels, table, &numbers, &part, size, scratch);
                }
            }
            begin += S::ROWS as u32 * workers;
        }
        tile += 1;
    }
}

