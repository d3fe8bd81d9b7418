use core::sync::atomic::Ordering;

use cuda_std::atomic::AtomicU32;
use cuda_std::emulator::{Emulator, Fault, LaunchConfig, Memory};
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
