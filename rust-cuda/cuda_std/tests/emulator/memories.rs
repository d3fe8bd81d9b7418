use core::sync::atomic::Ordering;

use cuda_std::atomic::{AtomicF32, AtomicU32};
use cuda_std::emulator::{Emulator, Fault, LaunchConfig, Memory, Space};
use cuda_std::{shared_array, thread};

use super::{Pointer, Shared, one_block, run};

/// The number at a place of a buffer, as an atomic.
fn atomic<'a>(pointer: Pointer<f32>, index: u32) -> &'a AtomicF32 {
    // SAFETY: the numbers outlive the launch.
    unsafe { &*pointer.0.cast::<AtomicF32>().wrapping_add(index as usize) }
}

#[test]
fn atomics_add_up_across_blocks() {
    let mut sums = vec![0.0f32; 3];
    let mut memory = Memory::new();
    let pointer = Pointer(memory.read_write("sums", &mut sums));
    Emulator::new()
        .with_threads(4)
        .launch("tested", LaunchConfig::new(50, 64), &memory, || {
            atomic(pointer, thread::index_1d() % 3).fetch_add(1.0, Ordering::Relaxed);
        })
        .unwrap();
    drop(memory);
    assert_eq!(sums, [1067.0, 1067.0, 1066.0]);
}

#[test]
fn atomics_work_in_shared_memory() {
    run(LaunchConfig::new(2, 100), || {
        let counter = shared_array![u32; 1];
        if thread::thread_idx_x() == 0 {
            Shared(counter).write(0, 0);
        }
        thread::sync_threads();
        // SAFETY: shared memory lasts as long as the block, and the array is aligned to 16 bytes.
        let counter = unsafe { &*counter.cast::<AtomicU32>() };
        counter.fetch_add(1, Ordering::Relaxed);
        thread::sync_threads();
        assert_eq!(counter.load(Ordering::Relaxed), 100);
    })
    .unwrap();
}

#[test]
fn atomics_are_checked_like_other_accesses() {
    let numbers = [0.0f32; 4];
    let mut fresh = [0.0f32; 4];
    let mut memory = Memory::new();
    let numbers = Pointer(memory.read_only("numbers", &numbers).cast_mut());
    let fresh = Pointer(memory.uninitialised("fresh", &mut fresh));
    let launch = |body: &(dyn Fn() + Sync)| {
        Emulator::new().launch("tested", one_block(1), &memory, body).unwrap_err()
    };
    let read_only = launch(&|| {
        atomic(numbers, 1).fetch_add(1.0, Ordering::Relaxed);
    });
    assert!(matches!(read_only, Fault::ReadOnlyWritten { buffer: "numbers", offset: 4, .. }));
    let unwritten = launch(&|| {
        atomic(fresh, 2).fetch_add(1.0, Ordering::Relaxed);
    });
    assert!(matches!(unwritten, Fault::UninitialisedGlobal { buffer: "fresh", offset: 8, .. }));
    let shared = launch(&|| {
        // SAFETY: shared memory lasts as long as the block, and the array is aligned to 16 bytes.
        let counter = unsafe { &*shared_array![u32; 1].cast::<AtomicU32>() };
        counter.fetch_add(1, Ordering::Relaxed);
    });
    assert!(matches!(shared, Fault::UninitialisedShared { .. }), "{shared}");
}

#[test]
fn each_launch_goes_on_with_what_was_written() {
    let mut numbers = vec![0u32; 64];
    let mut memory = Memory::new();
    let pointer = Pointer(memory.uninitialised("numbers", &mut numbers));
    let emulator = Emulator::new();
    let half = || {
        if thread::index_1d() < 32 {
            pointer.write(thread::index_1d(), 1);
        }
    };
    emulator.launch("half", one_block(64), &memory, half).unwrap();
    assert_eq!(memory.unwritten("numbers"), 32 * 4);
    let rest = || {
        let i = thread::index_1d();
        if i >= 32 {
            pointer.write(i, pointer.read(i - 32) + 1);
        }
    };
    emulator.launch("rest", one_block(64), &memory, rest).unwrap();
    assert_eq!(memory.unwritten("numbers"), 0);
    drop(memory);
    assert_eq!(numbers[31..33], [1, 2]);
}

#[test]
fn shared_memory_is_forgotten_between_blocks() {
    let result = Emulator::new().with_threads(1).launch(
        "tested",
        LaunchConfig::new(2, 1),
        &Memory::new(),
        || {
            let array = Shared(shared_array![u32; 1]);
            if thread::block_idx_x() == 0 {
                array.write(0, 1);
            }
            array.read(0);
        },
    );
    let Err(Fault::UninitialisedShared { place, bytes: 4, .. }) = result else {
        panic!("{result:?}");
    };
    assert_eq!(place.block.x, 1);
}

#[test]
fn shared_memory_is_poisoned() {
    run(LaunchConfig::new(3, 1), || {
        let array = shared_array![f32; 1];
        // SAFETY: the memory is there, of any content.
        assert!(unsafe { array.read() }.is_nan());
        // SAFETY: the memory is there.
        unsafe { array.write(1.0) };
    })
    .unwrap();
}

#[test]
fn arrays_in_shared_memory_have_ends() {
    for index in [16, u32::MAX] {
        let result = run(one_block(1), || {
            let array = Shared(shared_array![u32; 16]);
            let neighbour = Shared(shared_array![u32; 16]);
            neighbour.write(0, 1);
            array.write(index, 1);
        });
        let Err(Fault::OutOfBounds { space: Space::Shared, .. }) = result else {
            panic!("{result:?}");
        };
    }
}

#[test]
fn shared_accesses_are_aligned() {
    let result = run(one_block(1), || {
        let array = shared_array![u8; 16];
        Shared(array.wrapping_add(2).cast::<u32>()).write(0, 1);
    });
    assert!(matches!(result, Err(Fault::Misaligned { space: Space::Shared, .. })), "{result:?}");
}

#[test]
fn too_much_static_shared_memory_is_refused() {
    let result = run(one_block(32), || {
        let _ = shared_array![u32; 12 * 1024 + 1];
    });
    let Err(Fault::BadLaunch { reason, .. }) = result else { panic!("{result:?}") };
    assert!(reason.contains("49156"), "{reason}");
}
