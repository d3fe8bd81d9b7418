//! Where the list of each tile begins.

use crate::args::ListArgs;
use crate::block::Place;
use crate::limits::place_words;
use crate::memory::{self, SharedWords};
use cuda_std::thread;

/// Gives every tile as much of its item's lists as there are points counted for it: its range is that of an empty list then,
/// with so much room behind. Notes how many long lists there are.
///
/// Grid: along x the tiles, a thread for each, and along y any number of blocks for the batch items. Block:
/// [`LIST_THREADS`](crate::LIST_THREADS). Shared memory: [`PLACE_SHARED_BYTES`](crate::PLACE_SHARED_BYTES).
///
/// # Safety
///
/// The pointers of `args` are valid as it says, for the sizes it gives; points are counted, and totals and the header
/// of the pieces are zeros.
#[inline(always)]
pub(crate) unsafe fn place(args: ListArgs) {
    let place = Place::new(&args.sizes);
    let lists = &args.lists;
    let first = SharedWords::new(place_words::FIRST);
    let tile = thread::index_1d();
    let mut item = thread::block_idx_y();
    while item < args.sizes.batch {
        let range = lists.range(item, tile);
        // SAFETY: the whole block is here. A tile that exists has a range, which is this thread's.
        unsafe {
            let mut count = 0;
            if tile < lists.tiles {
                count = memory::reload_u32(range.wrapping_add(1));
            }
            args.pieces.note(count);
            let (before, total) = place.before_thread(count);
            if place.thread == 0 {
                let total_of_item = lists.totals.wrapping_add(item as usize);
                first.set(0, if total > 0 { memory::fetch_add(total_of_item, total) } else { 0 });
            }
            thread::sync_threads();
            if tile < lists.tiles {
                let begin = f32::from_bits(first.get(0) + before);
                memory::store_pair(range.cast(), [begin, begin]);
            }
        }
        item += thread::grid_dim_y();
    }
}
