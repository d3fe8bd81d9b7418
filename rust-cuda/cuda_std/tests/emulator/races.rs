use core::sync::atomic::Ordering;

use cuda_std::atomic::AtomicU32;
use cuda_std::emulator::{Emulator, Fault, LaunchConfig, Memory, global_read, global_write};
use cuda_std::{shared_array, thread, warp};

use super::Shared;

fn run(threads: u32, kernel: impl Fn() + Sync) -> Result<(), Fault> {
    let emulator = Emulator::new().with_race_checks(true);
    emulator.launch("tested", LaunchConfig::new(5, threads), &Memory::new(), kernel)
}

/// Every thread writes its number and reads its neighbour's, three times.
fn neighbours(before: impl Fn(), after: impl Fn()) {
    let cells = Shared(shared_array![u32; 256]);
    let (i, n) = (thread::thread_idx_x(), thread::block_dim_x());
    for _ in 0..3 {
        cells.write(i, i);
        before();
        cells.read((i + 1) % n);
        after();
    }
}

fn sync_warp() {
    // SAFETY: all lanes of the full warps come here.
    unsafe { warp::sync_warp(u32::MAX) };
}

#[test]
fn barriers_prevent_races() {
    assert_eq!(run(96, || neighbours(thread::sync_threads, thread::sync_threads)), Ok(()));
}

#[test]
fn a_barrier_too_few_is_a_race() {
    let result = run(96, || neighbours(thread::sync_threads, || {}));
    let Err(Fault::SharedRace { place, other, .. }) = result else { panic!("{result:?}") };
    let (later, earlier) = (place.thread.x, other.x);
    assert!((earlier + 1) % 96 == later || (later + 1) % 96 == earlier, "{earlier}, {later}");
}

#[test]
fn a_warp_orders_its_own_lanes_only() {
    assert_eq!(run(32, || neighbours(sync_warp, sync_warp)), Ok(()));
    let lanes = run(32, || neighbours(sync_warp, || {}));
    assert!(matches!(lanes, Err(Fault::SharedRace { .. })), "{lanes:?}");
}

#[test]
fn votes_and_shuffles_order_nothing() {
    let vote = || {
        // SAFETY: all lanes of the full warp come here.
        assert_eq!(unsafe { warp::warp_vote_ballot(u32::MAX, true) }, u32::MAX);
    };
    let result = run(32, || neighbours(vote, sync_warp));
    assert!(matches!(result, Err(Fault::SharedRace { .. })), "{result:?}");
}

#[test]
fn atomics_do_not_race_with_each_other() {
    let count = |start: &(dyn Fn() + Sync)| {
        run(64, || {
            let counter = shared_array![u32; 1];
            if thread::thread_idx_x() == 0 {
                Shared(counter).write(0, 0);
            }
            start();
            if thread::thread_idx_x() != 0 {
                // SAFETY: shared memory lasts as long as the block, and is aligned to 16 bytes.
                let counter = unsafe { &*counter.cast::<AtomicU32>() };
                counter.store(1, Ordering::Relaxed);
                counter.fetch_add(1, Ordering::Relaxed);
            }
        })
    };
    assert_eq!(count(&thread::sync_threads), Ok(()));
    let unordered = count(&|| {});
    assert!(matches!(unordered, Err(Fault::SharedRace { .. })), "{unordered:?}");
}

#[test]
fn nothing_is_looked_for_unless_asked() {
    let kernel = || Shared(shared_array![u32; 1]).write(0, 1);
    let config = LaunchConfig::new(1, 64);
    assert_eq!(Emulator::new().launch("tested", config, &Memory::new(), kernel), Ok(()));
    assert!(matches!(run(64, kernel), Err(Fault::SharedRace { .. })));
}

/// Launches `blocks` blocks of 64 threads on sixteen words, which the kernel gets by number.
fn run_on_words(
    blocks: u32,
    kernel: impl Fn(&dyn Fn(u32) -> *mut u32) + Sync,
) -> Result<(), Fault> {
    let mut words = [0_u32; 16];
    let mut memory = Memory::new();
    let start = memory.read_write("words", &mut words) as usize;
    let emulator = Emulator::new().with_race_checks(true);
    emulator.launch("tested", LaunchConfig::new(blocks, 64), &memory, || {
        kernel(&|number| (start as *mut u32).wrapping_add(number as usize));
    })
}

fn write(word: *mut u32) {
    global_write(word.cast(), 4);
}

fn read(word: *mut u32) {
    global_read(word.cast(), 4);
}

fn is_first_thread() -> bool {
    thread::thread_idx_x() == 0
}

#[test]
fn blocks_that_write_the_same_global_word_race() {
    let kernel = |word: &dyn Fn(u32) -> *mut u32| {
        if is_first_thread() {
            write(word(thread::block_idx_x() / 2));
        }
    };
    assert_eq!(run_on_words(1, kernel), Ok(()));
    let result = run_on_words(2, kernel);
    let Err(fault @ Fault::GlobalRace { .. }) = &result else { panic!("{result:?}") };
    let text = fault.to_string();
    assert!(text.contains("offset 0 of `words` race with an access by block"), "{text}");
}

#[test]
fn blocks_with_words_of_their_own_do_not_race() {
    let kernel = |word: &dyn Fn(u32) -> *mut u32| {
        if is_first_thread() {
            write(word(thread::block_idx_x()));
        }
        thread::sync_threads();
        read(word(thread::block_idx_x()));
    };
    assert_eq!(run_on_words(16, kernel), Ok(()));
}

#[test]
fn threads_of_a_block_race_in_global_memory_without_a_barrier() {
    let result = run_on_words(1, |word| {
        if is_first_thread() {
            write(word(3));
        }
        read(word(3));
    });
    let Err(Fault::GlobalRace { place, buffer, offset, .. }) = result else { panic!("{result:?}") };
    assert_eq!((place.block.x, buffer, offset), (0, "words", 12));
}

#[test]
fn global_atomics_race_with_plain_accesses_of_other_blocks() {
    let count = |word: *mut u32| {
        // SAFETY: one of the sixteen words, aligned.
        unsafe { &*word.cast::<AtomicU32>() }.fetch_add(1, Ordering::Relaxed);
    };
    assert_eq!(run_on_words(8, |word| count(word(0))), Ok(()));
    let mixed = run_on_words(8, |word| {
        count(word(0));
        if thread::block_idx_x() == 5 && is_first_thread() {
            read(word(0));
        }
    });
    assert!(matches!(mixed, Err(Fault::GlobalRace { .. })), "{mixed:?}");
}

/// Every block leaves a word and counts itself; the last one to count reads all words.
#[test]
fn what_blocks_leave_before_a_fence_may_be_read_later() {
    let last_reads_all = |fence: fn()| {
        run_on_words(8, move |word| {
            if is_first_thread() {
                write(word(thread::block_idx_x()));
                fence();
                // SAFETY: one of the sixteen words, aligned.
                let counter = unsafe { &*word(15).cast::<AtomicU32>() };
                if counter.fetch_add(1, Ordering::Relaxed) == 7 {
                    (0..8).for_each(|block| read(word(block)));
                }
            }
        })
    };
    assert_eq!(last_reads_all(thread::device_fence), Ok(()));
    let unordered = last_reads_all(|| {});
    assert!(matches!(unordered, Err(Fault::GlobalRace { .. })), "{unordered:?}");
}
