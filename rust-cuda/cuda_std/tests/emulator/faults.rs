use std::sync::atomic::{AtomicU32, Ordering};

use cuda_std::emulator::{Dim3, Emulator, Fault, LaunchConfig, Memory, Place, Space};
use cuda_std::{thread, warp};

use super::{Pointer, one_block, run};

const ALL: u32 = u32::MAX;

fn fault(config: LaunchConfig, kernel: impl Fn() + Sync) -> Fault {
    run(config, kernel).expect_err("the kernel is wrong")
}

/// Runs one thread of a kernel over 4 numbers: a constant one and a fresh one of each.
fn fault_in_memory(kernel: impl Fn(Pointer<u32>, Pointer<u32>) + Sync) -> Fault {
    let constant = [0u32; 4];
    let mut fresh = [0u32; 4];
    let mut memory = Memory::new();
    let constant = Pointer(memory.read_only("constant", &constant).cast_mut());
    let fresh = Pointer(memory.uninitialised("fresh", &mut fresh));
    Emulator::new()
        .launch("tested", one_block(1), &memory, || kernel(constant, fresh))
        .expect_err("the kernel is wrong")
}

#[test]
fn threads_that_return_before_a_barrier() {
    let fault = fault(LaunchConfig::new(3, 64), || {
        if thread::block_idx_x() == 1 && thread::thread_idx_x() == 40 {
            return;
        }
        thread::sync_threads();
    });
    let expected = Fault::DivergentBarrier {
        place: Place { kernel: "tested".to_owned(), block: 1.into(), thread: 0.into() },
        barrier: "sync_threads",
        missing: 40.into(),
        missing_state: "has returned".to_owned(),
    };
    // The first dimension of `Dim3::from` is the index here, the others are sizes.
    let zeroed = |fault: Fault| match fault {
        Fault::DivergentBarrier { mut place, barrier, mut missing, missing_state } => {
            for place in [&mut place.block, &mut place.thread, &mut missing] {
                (place.y, place.z) = (0, 0);
            }
            Fault::DivergentBarrier { place, barrier, missing, missing_state }
        }
        other => other,
    };
    assert_eq!(fault, zeroed(expected));
    assert_eq!(
        fault.to_string(),
        "kernel `tested`, block (1, 0, 0), thread (0, 0, 0): waits in `sync_threads`, \
         but thread (40, 0, 0) has returned"
    );
}

#[test]
fn threads_that_wait_elsewhere() {
    let different_barriers = fault(one_block(64), || {
        if thread::thread_idx_x() < 32 {
            thread::sync_threads();
        } else {
            let _ = thread::sync_threads_count(1);
        }
    });
    let Fault::DivergentBarrier { missing_state, .. } = different_barriers else {
        panic!("{different_barriers}");
    };
    assert_eq!(missing_state, "waits in `sync_threads_count`");

    let in_a_warp = fault(one_block(32), || {
        if warp::lane_id() < 31 {
            thread::sync_threads();
        } else {
            // SAFETY: wrong on purpose; the emulator catches it.
            unsafe { warp::sync_warp(ALL) };
        }
    });
    let Fault::DivergentBarrier { missing, missing_state, .. } = in_a_warp else {
        panic!("{in_a_warp}");
    };
    assert_eq!((missing.x, &*missing_state), (31, "waits in `sync_warp` (mask 0xffffffff)"));
}

#[test]
fn lanes_that_are_not_there() {
    let returned = fault(one_block(32), || {
        if warp::lane_id() != 9 {
            // SAFETY: wrong on purpose; the emulator catches it.
            let _ = unsafe { warp::warp_vote_any(ALL, true) };
        }
    });
    let Fault::MissingLane { operation: "warp_vote_any", mask: ALL, lane: 9, how, .. } = returned
    else {
        panic!("{returned}");
    };
    assert_eq!(how, "names lane 9, which has returned");

    let never_was = fault(one_block(40), || {
        // SAFETY: wrong on purpose; the emulator catches it.
        let _ = unsafe { warp::warp_vote_ballot(ALL, true) };
    });
    let Fault::MissingLane { lane: 8, how, place, .. } = never_was else { panic!("{never_was}") };
    assert_eq!((place.thread.x, &*how), (32, "names lane 8, which does not exist"));

    let not_itself = fault(one_block(32), || {
        // SAFETY: wrong on purpose; the emulator catches it.
        unsafe { warp::sync_warp(!1) };
    });
    assert!(matches!(not_itself, Fault::MissingLane { lane: 0, .. }), "{not_itself}");
}

#[test]
fn lanes_that_are_read_outside_the_mask() {
    let fault = fault(one_block(32), || {
        if warp::lane_id() < 16 {
            // SAFETY: wrong on purpose; the emulator catches it.
            let _ = unsafe { warp::warp_shuffle_down(0xffff, 1u32, 8, 32) };
        }
    });
    let Fault::MissingLane { place, lane: 16, how, .. } = fault else { panic!("{fault}") };
    assert_eq!((place.thread.x, &*how), (8, "reads lane 16, which is not in the mask"));
}

#[test]
fn lanes_in_different_operations() {
    let operations = fault(one_block(32), || {
        // SAFETY: wrong on purpose; the emulator catches it.
        let _ = unsafe {
            if warp::lane_id() < 4 {
                warp::warp_vote_any(ALL, true)
            } else {
                warp::warp_vote_all(ALL, true)
            }
        };
    });
    let Fault::DivergentWarp { operation, other_operation, other_lane: 4, .. } = operations else {
        panic!("{operations}");
    };
    assert_eq!((operation, other_operation), ("warp_vote_any", "warp_vote_all"));

    let masks = fault(one_block(32), || {
        let mask = if warp::lane_id() == 7 { ALL >> 1 } else { ALL };
        // SAFETY: wrong on purpose; the emulator catches it.
        unsafe { warp::sync_warp(mask) };
    });
    assert!(
        matches!(masks, Fault::DivergentWarp { other_lane: 7, other_mask: 0x7fff_ffff, .. }),
        "{masks}"
    );
}

#[test]
fn lanes_that_wait_in_a_circle() {
    let fault = fault(one_block(3), || {
        let mask = [0b011, 0b110, 0b101][warp::lane_id() as usize];
        // SAFETY: wrong on purpose; the emulator catches it.
        unsafe { warp::sync_warp(mask) };
    });
    assert!(matches!(fault, Fault::Deadlock { operation: "sync_warp", .. }), "{fault}");
}

#[test]
fn widths_that_ptx_does_not_know() {
    for width in [0, 3, 64] {
        let fault = fault(one_block(32), || {
            // SAFETY: wrong on purpose; the emulator catches it.
            let _ = unsafe { warp::warp_shuffle_xor(ALL, 1u32, 1, width) };
        });
        assert!(matches!(fault, Fault::BadWidth { width: w, .. } if w == width), "{fault}");
    }
}

#[test]
fn accesses_out_of_bounds() {
    let fault = fault_in_memory(|constant, _| {
        constant.read(1 << 30);
    });
    let Fault::OutOfBounds { space: Space::Global, bytes: 4, .. } = fault else {
        panic!("{fault}");
    };
    let fault = run(one_block(1), || Pointer(std::ptr::null_mut::<u32>()).write(0, 0));
    let Err(Fault::OutOfBounds { nearest, .. }) = fault else { panic!("{fault:?}") };
    assert_eq!(nearest, "the launch has no buffers");
}

#[test]
fn writes_to_constants() {
    let fault = fault_in_memory(|constant, _| constant.write(3, 0));
    assert!(
        matches!(fault, Fault::ReadOnlyWritten { buffer: "constant", offset: 12, bytes: 4, .. }),
        "{fault}"
    );
}

#[test]
fn reads_before_writes() {
    let fault = fault_in_memory(|_, fresh| {
        fresh.write(1, 0);
        fresh.read(1);
        fresh.read(0);
    });
    assert!(
        matches!(fault, Fault::UninitialisedGlobal { buffer: "fresh", offset: 0, .. }),
        "{fault}"
    );
}

#[test]
fn accesses_across_the_grain() {
    let fault = fault_in_memory(|constant, _| {
        Pointer(constant.0.wrapping_add(1).cast::<u64>()).read(0);
    });
    assert!(
        matches!(fault, Fault::Misaligned { space: Space::Global, offset: 4, bytes: 8, .. }),
        "{fault}"
    );
}

#[test]
fn panics_come_back_with_their_message() {
    let fault = fault(LaunchConfig::new(1, (4, 2)), || {
        thread::sync_threads();
        assert!(thread::thread_idx_y() < 1 || thread::thread_idx_x() != 2, "two and {}", 1);
        thread::sync_threads();
    });
    let Fault::Panicked { place, message } = fault else { panic!("{fault}") };
    assert_eq!(message, "two and 1");
    assert_eq!(place.thread, Dim3 { x: 2, y: 1, z: 0 });
}

#[test]
fn a_fault_runs_the_destructors_of_all_threads() {
    struct Counted<'a>(&'a AtomicU32);
    impl Drop for Counted<'_> {
        fn drop(&mut self) {
            self.0.fetch_sub(1, Ordering::Relaxed);
            // A destructor that meets others while its thread is unwound must not wait.
            thread::sync_threads();
            let _ = warp::activemask();
            cuda_std::emulator::global_write(std::ptr::null(), 4);
        }
    }
    let alive = AtomicU32::new(0);
    for wrong_thread in [0, 50, 99] {
        let result = run(LaunchConfig::new(4, 100), || {
            alive.fetch_add(1, Ordering::Relaxed);
            let _counted = Counted(&alive);
            thread::sync_threads();
            if thread::thread_idx_x() == wrong_thread {
                if wrong_thread == 50 {
                    panic!("a destructor runs while the thread panics");
                }
                cuda_std::emulator::global_read(std::ptr::null(), 4);
            }
            thread::sync_threads();
        });
        assert!(result.is_err());
        assert_eq!(alive.load(Ordering::Relaxed), 0);
    }
}

#[test]
fn the_same_fault_comes_first_every_time() {
    let run = |workers| {
        Emulator::new()
            .with_seed(3)
            .with_threads(workers)
            .launch("tested", LaunchConfig::new(200, 32), &Memory::new(), || {
                assert!(thread::block_idx_x() % 10 != 5);
            })
            .unwrap_err()
    };
    let first = run(1);
    for workers in 1..5 {
        assert_eq!(run(workers), first);
    }
}

#[test]
fn the_emulator_works_on_after_a_fault() {
    for _ in 0..3 {
        assert!(run(LaunchConfig::new(4, 64), || panic!("wrong")).is_err());
        assert_eq!(run(LaunchConfig::new(4, 64), thread::sync_threads), Ok(()));
    }
}

#[test]
fn faults_name_their_place() {
    let panicked = fault(LaunchConfig::new(1, 2), || panic!("wrong"));
    assert_eq!(panicked.place().map(|place| &*place.kernel), Some("tested"));
    assert_eq!(fault(LaunchConfig::new(0, 2), || {}).place(), None);
}
