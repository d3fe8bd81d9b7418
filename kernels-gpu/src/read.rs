//! Reads an array over and over: what the memory it lies in delivers at best.

use crate::args::ReadArgs;
use crate::memory;
use crate::unroll::{array4, each4};
use cuda_std::thread;

/// Adds up the words that each thread reads, and writes one sum for each.
///
/// Grid: one-dimensional, at most as many threads as the array has vectors. All threads together walk the array from its
/// start, 16 bytes each, and begin again at its end.
///
/// # Safety
///
/// The pointers of `args` are valid for the sizes it gives.
#[inline(always)]
pub(crate) unsafe fn read(args: ReadArgs) {
    let threads = thread::grid_dim_x() * thread::block_dim_x();
    let first = thread::index_1d();
    let mut index = first;
    let mut sums = [0; 4];
    for _ in 0..args.steps {
        // The four reads are under way at the same time.
        let words = array4(|_| {
            // SAFETY: below the length.
            let words = unsafe {
                memory::load_words_far(args.source.wrapping_add(index as usize * 4))
            };
            index += threads;
            if index >= args.vectors {
                index -= args.vectors;
            }
            words
        });
        each4(|read| each4(|word| sums[word] = u32::wrapping_add(sums[word], words[read][word])));
    }
    let sum = sums[0].wrapping_add(sums[1]).wrapping_add(sums[2]).wrapping_add(sums[3]);
    // SAFETY: one entry for each thread.
    unsafe { memory::store_u32(args.sums.wrapping_add(first as usize), sum) };
}
