use cuda_std::emulator::{Dim3, Emulator, Fault, LaunchConfig, Memory};
use cuda_std::{kernel, thread, warp};

use super::{Pointer, collect, run};

/// Every thread writes who it is to the place that `index` names: each place is written once.
fn identities(grid: Dim3, block: Dim3) {
    type Identity = [u32; 12];
    let threads = (grid.x * grid.y * grid.z * block.x * block.y * block.z) as usize;
    let mut output = vec![[0u32; 12]; threads];
    let mut memory = Memory::new();
    let pointer: Pointer<Identity> = Pointer(memory.uninitialised("output", &mut output));
    let body = || {
        let identity = [
            thread::thread_idx_x(),
            thread::thread_idx_y(),
            thread::thread_idx_z(),
            thread::block_idx_x(),
            thread::block_idx_y(),
            thread::block_idx_z(),
            thread::block_dim_x(),
            thread::block_dim_y(),
            thread::block_dim_z(),
            thread::grid_dim_x(),
            thread::grid_dim_y(),
            thread::grid_dim_z(),
        ];
        pointer.write(thread::index(), identity);
    };
    Emulator::new().launch("identities", LaunchConfig::new(grid, block), &memory, body).unwrap();
    assert_eq!(memory.unwritten("output"), 0);
    for (number, identity) in output.iter().enumerate() {
        let number = number as u32;
        let (inner, outer) = (block.x * block.y * block.z, grid.x * grid.y);
        let (thread, place) = (number % inner, number / inner);
        let expected = [
            thread % block.x,
            thread / block.x % block.y,
            thread / block.x / block.y,
            place % grid.x,
            place / grid.x % grid.y,
            place / outer,
            block.x,
            block.y,
            block.z,
            grid.x,
            grid.y,
            grid.z,
        ];
        assert_eq!(*identity, expected);
    }
}

#[test]
fn threads_know_who_they_are_in_every_shape() {
    identities(1.into(), 1.into());
    identities(7.into(), 33.into());
    identities((3, 5).into(), (8, 9).into());
    identities((2, 3, 4).into(), (5, 6, 7).into());
    identities(2.into(), (1, 1, 64).into());
    identities(1.into(), 1024.into());
}

#[test]
fn lanes_are_counted_along_the_block() {
    let lanes = collect(LaunchConfig::new(2, 70), |output| {
        output.write(thread::index_1d(), warp::lane_id());
    });
    for (number, lane) in lanes.iter().enumerate() {
        assert_eq!(*lane, number as u32 % 70 % 32);
    }
}

#[test]
fn exactly_one_thread_is_first() {
    let count = std::sync::atomic::AtomicU32::new(0);
    run(LaunchConfig::new((3, 2), (4, 4, 2)), || {
        if thread::first() {
            count.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        }
    })
    .unwrap();
    assert_eq!(count.into_inner(), 1);
}

/// Adds two arrays.
///
/// # Safety
/// `sum` is as long as the shorter of `a` and `b` or shorter.
#[kernel]
unsafe fn add(a: &[f32], b: &[f32], sum: &mut [f32]) {
    let i = thread::index_1d() as usize;
    if i < sum.len() {
        sum[i] = a[i] + b[i];
    }
}

#[test]
fn slices_are_parameters() {
    let (a, b) = (vec![1.0f32; 50], vec![2.0f32; 50]);
    let mut sum = vec![0.0f32; 50];
    let pointer = sum.as_mut_ptr() as usize;
    run(LaunchConfig::new(2, 32), || {
        // Like the entry point on a GPU, every thread makes the slice of a pointer and a length.
        // SAFETY: the array outlives the launch, and each thread writes its own element.
        unsafe { add(&a, &b, std::slice::from_raw_parts_mut(pointer as *mut f32, 50)) }
    })
    .unwrap();
    assert_eq!(sum, [3.0; 50]);
}

#[test]
fn impossible_shapes_are_refused() {
    let reason = |config: LaunchConfig| match run(config, || {}) {
        Err(Fault::BadLaunch { kernel, reason }) => {
            assert_eq!(kernel, "tested");
            reason
        }
        other => panic!("{config:?} gave {other:?}"),
    };
    assert!(reason(LaunchConfig::new(0, 32)).contains("grid.x is 0"));
    assert!(reason(LaunchConfig::new((1, 0), 32)).contains("grid.y is 0"));
    assert!(reason(LaunchConfig::new((1, 1, 65_536), 32)).contains("grid.z is 65536"));
    assert!(reason(LaunchConfig::new(1, 0)).contains("block.x is 0"));
    assert!(reason(LaunchConfig::new(1, 1025)).contains("block.x is 1025"));
    assert!(reason(LaunchConfig::new(1, (1, 1, 65))).contains("block.z is 65"));
    assert!(reason(LaunchConfig::new(1, (32, 33))).contains("1056 threads"));
    assert!(reason(LaunchConfig::new(u32::MAX, 1)).contains("grid.x"));
    let shared = LaunchConfig::new(1, 1).with_dynamic_shared_bytes(227 * 1024 + 1);
    assert!(reason(shared).contains("232449"));
    let largest = LaunchConfig::new(1, 1).with_dynamic_shared_bytes(227 * 1024);
    assert_eq!(run(largest, || {}), Ok(()));
}

#[test]
fn every_number_of_workers_runs_every_block() {
    for workers in [0, 1, 2, 5, 100] {
        let mut output = vec![0u32; 1000];
        let mut memory = Memory::new();
        let pointer = Pointer(memory.uninitialised("output", &mut output));
        let emulator = Emulator::new().with_threads(workers);
        emulator
            .launch("tested", LaunchConfig::new(100, 10), &memory, || {
                pointer.write(thread::index_1d(), 1);
            })
            .unwrap();
        assert_eq!(memory.unwritten("output"), 0, "{workers} workers");
    }
}

#[test]
fn a_kernel_may_launch_another() {
    run(LaunchConfig::new(2, 2), || {
        let inner = collect(LaunchConfig::new(1, 3), |output| {
            output.write(thread::index_1d(), thread::block_dim_x());
        });
        assert_eq!(inner, [3, 3, 3]);
        assert_eq!(thread::block_dim_x(), 2);
    })
    .unwrap();
}

#[test]
#[should_panic(expected = "called outside a kernel")]
fn outside_a_launch_there_is_no_thread() {
    let _ = thread::thread_idx_x();
}
