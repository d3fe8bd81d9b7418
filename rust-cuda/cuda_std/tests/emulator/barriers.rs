use cuda_std::emulator::{Emulator, Fault, LaunchConfig, Memory};
use cuda_std::{shared, shared_array, thread};

use super::{Pointer, Shared, collect, one_block, run};

/// The sum of the block's numbers, in a tree with a barrier at every level.
fn block_sum(value: u32, barrier: impl Fn()) -> u32 {
    let sums = Shared(shared_array![u32; 1024]);
    let (i, n) = (thread::thread_idx_x(), thread::block_dim_x());
    sums.write(i, value);
    barrier();
    let mut half = n.next_power_of_two() / 2;
    while half > 0 {
        if i < half && i + half < n {
            sums.write(i, sums.read(i) + sums.read(i + half));
        }
        barrier();
        half /= 2;
    }
    sums.read(0)
}

#[test]
fn a_tree_of_barriers_adds_up() {
    for threads in [1, 2, 31, 32, 33, 100, 1024] {
        let config = LaunchConfig::new(3, threads);
        let sums = collect(config, |output| {
            output.write(thread::index_1d(), block_sum(thread::index_1d(), thread::sync_threads));
        });
        for (number, sum) in sums.iter().enumerate() {
            let first = number as u32 / threads * threads;
            assert_eq!(*sum, (first..first + threads).sum());
        }
    }
}

#[test]
fn a_missing_barrier_shows() {
    // Without barriers, warps run one after the other and read what is not there yet.
    let result = run(one_block(256), || {
        block_sum(1, || {});
    });
    assert!(matches!(result, Err(Fault::UninitialisedShared { .. })), "{result:?}");
}

#[test]
fn barriers_count_and_combine_predicates() {
    for limit in [0, 1, 50, 70] {
        let results = collect(one_block(70), |output| {
            let predicate = u32::from(thread::thread_idx_x() < limit) * 7;
            let count = thread::sync_threads_count(predicate);
            let all = thread::sync_threads_and(predicate) != 0;
            let any = thread::sync_threads_or(predicate) != 0;
            output.write(thread::index_1d(), (count, all, any));
        });
        assert_eq!(results, vec![(limit, limit == 70, limit > 0); 70]);
    }
}

#[test]
fn dynamic_and_static_shared_memory_are_apart() {
    let config = LaunchConfig::new(4, 64).with_dynamic_shared_bytes(64 * 8);
    let results = collect(config, |output| {
        let i = thread::thread_idx_x();
        let dynamic = Shared(shared::dynamic_shared_mem::<u64>());
        let first = Shared(shared_array![u32; 64]);
        let second = Shared(shared_array![u8; 64]);
        dynamic.write(i, u64::from(i) << 40);
        first.write(i, i + 1);
        second.write(i, i as u8 + 2);
        thread::sync_threads();
        let j = 63 - i;
        let right = dynamic.read(j) == u64::from(j) << 40
            && first.read(j) == j + 1
            && second.read(j) == j as u8 + 2;
        output.write(thread::index_1d(), u32::from(right));
    });
    assert_eq!(results, [1; 256]);
}

/// Instances of a generic function share its array; two places in the source do not.
fn array_of<T>() -> (usize, usize) {
    (shared_array![u32; 8] as usize, size_of::<T>())
}

#[test]
fn an_array_belongs_to_its_place_in_the_source() {
    run(one_block(1), || {
        let (array, _) = array_of::<u8>();
        assert_eq!(array, array_of::<f64>().0);
        assert_eq!(array % 16, 0);
        assert_ne!(shared_array![u32; 8], shared_array![u32; 8]);
        assert_ne!(shared_array![u32; 8] as usize, array);
    })
    .unwrap();
}

#[test]
fn results_do_not_depend_on_the_seed() {
    let run = |seed, workers| {
        let mut output = vec![0u32; 640];
        let mut memory = Memory::new();
        let pointer = Pointer(memory.uninitialised("output", &mut output));
        Emulator::new()
            .with_seed(seed)
            .with_threads(workers)
            .launch("tested", LaunchConfig::new(8, 80), &memory, || {
                let i = thread::index_1d();
                pointer.write(i, block_sum(i * i, thread::sync_threads));
            })
            .unwrap();
        drop(memory);
        output
    };
    let expected = run(0, 1);
    for seed in 1..10 {
        assert_eq!(run(seed, 1 + seed as usize % 3), expected);
    }
}

/// The threads of a launch in the order in which they come to two meetings.
fn order(config: LaunchConfig, seed: u64) -> Vec<u32> {
    let order = std::sync::Mutex::new(Vec::new());
    Emulator::new()
        .with_seed(seed)
        .with_threads(1)
        .launch("tested", config, &Memory::new(), || {
            order.lock().unwrap().push(thread::index_1d());
            thread::sync_threads();
            order.lock().unwrap().push(thread::index_1d());
        })
        .unwrap();
    order.into_inner().unwrap()
}

#[test]
fn seeds_shuffle_blocks_and_warps_and_lanes() {
    let shuffled = |config: LaunchConfig, unit: u32| {
        let orders: Vec<Vec<_>> = (0..4)
            .map(|seed| order(config, seed).into_iter().map(|thread| thread / unit).collect())
            .collect();
        orders.iter().any(|order| *order != orders[0])
    };
    assert!(shuffled(LaunchConfig::new(100, 1), 1), "blocks");
    assert!(shuffled(LaunchConfig::new(1, 256), 32), "warps");
    assert!(shuffled(LaunchConfig::new(1, 32), 1), "lanes");
    let config = LaunchConfig::new(3, 128);
    assert_eq!(order(config, 7), order(config, 7));
}
