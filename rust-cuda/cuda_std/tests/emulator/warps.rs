use cuda_std::warp::{self, WarpShuffleValue};
use cuda_std::{emulator::LaunchConfig, thread};

use super::{Pointer, collect, one_block};

const ALL: u32 = u32::MAX;

/// What PTX says a shuffle gives, written out a second time: by the lane's place in its segment.
fn expected(kind: &str, lane: i64, by: i64, width: i64) -> Option<i64> {
    let first = lane / width * width;
    let by = by % 32;
    let source = match kind {
        "down" => lane + by,
        "up" => lane - by,
        "idx" => first + by % width,
        _ => lane ^ by,
    };
    let in_range = match kind {
        "up" => source >= first,
        _ => source < first + width,
    };
    in_range.then_some(source)
}

fn shuffle<T: WarpShuffleValue>(kind: &str, value: T, by: u32, width: u32) -> (T, bool) {
    // SAFETY: all lanes of the warp come here with the same arguments.
    unsafe {
        match kind {
            "down" => warp::warp_shuffle_down(ALL, value, by, width),
            "up" => warp::warp_shuffle_up(ALL, value, by, width),
            "idx" => warp::warp_shuffle_idx(ALL, value, by, width),
            _ => warp::warp_shuffle_xor(ALL, value, by, width),
        }
    }
}

fn check_shuffles<T>(value: impl Fn(u32) -> T + Sync)
where
    T: WarpShuffleValue + Default + PartialEq + std::fmt::Debug,
{
    for kind in ["down", "up", "idx", "xor"] {
        for width in [1, 2, 4, 8, 16, 32] {
            for by in [0, 1, 3, 8, 15, 16, 31, 32, 37] {
                let results = collect(one_block(64), |output| {
                    let i = thread::index_1d();
                    output.write(i, shuffle(kind, value(i), by, width));
                });
                for (i, result) in results.into_iter().enumerate() {
                    let (warp, lane) = (i as u32 / 32 * 32, i as i64 % 32);
                    let source = expected(kind, lane, i64::from(by), i64::from(width));
                    let from = warp + source.unwrap_or(lane) as u32;
                    let right = (value(from), source.is_some());
                    assert_eq!(result, right, "{kind} by {by}, width {width}, thread {i}");
                }
            }
        }
    }
}

#[test]
fn shuffles_move_values_as_ptx_says() {
    check_shuffles(|i| i * 3);
    check_shuffles(|i| f64::from(i) / 3.0 - 5.0);
}

#[test]
fn shuffles_carry_every_type() {
    macro_rules! check {
        ($($ty:ty),*) => {$(
            let results = collect(one_block(32), |output: Pointer<$ty>| {
                let value = (thread::index_1d() as $ty) - (20 as $ty);
                // SAFETY: all lanes come here.
                let (value, _) = unsafe { warp::warp_shuffle_xor(ALL, value, 1, 32) };
                output.write(thread::index_1d(), value);
            });
            let right: Vec<_> = (0..32).map(|i: u32| ((i ^ 1) as $ty) - (20 as $ty)).collect();
            assert_eq!(results, right);
        )*};
    }
    check!(i8, i16, i32, i64, f32, f64);
    let results = collect(one_block(32), |output: Pointer<u64>| {
        // SAFETY: all lanes come here.
        let (value, _) = unsafe { warp::warp_shuffle_idx(ALL, u64::MAX - 5, 0, 32) };
        output.write(thread::index_1d(), value);
    });
    assert_eq!(results, [u64::MAX - 5; 32]);
}

#[test]
fn votes_see_the_lanes_of_the_mask() {
    let results = collect(LaunchConfig::new(1, 64), |output| {
        let (i, lane) = (thread::index_1d(), warp::lane_id());
        // The two halves of a warp vote apart from each other.
        let mask = if lane < 16 { 0x0000_ffff } else { 0xffff_0000 };
        let third = lane.is_multiple_of(3);
        // SAFETY: all lanes of each mask come here with it.
        unsafe {
            let ballot = warp::warp_vote_ballot(mask, third);
            let any = warp::warp_vote_any(mask, lane == 5);
            let all = warp::warp_vote_all(mask, lane < 16);
            output.write(i, (ballot, any, all));
        }
    });
    let thirds = (0..32).filter(|lane| lane % 3 == 0).fold(0u32, |bits, lane| bits | 1 << lane);
    for (i, result) in results.into_iter().enumerate() {
        let low = i % 32 < 16;
        let mask = if low { 0x0000_ffff } else { 0xffff_0000 };
        assert_eq!(result, (thirds & mask, low, low), "thread {i}");
    }
}

#[test]
fn matching_names_the_lanes_of_the_mask_with_the_same_value() {
    let results = collect(LaunchConfig::new(1, 64), |output| {
        let (i, lane) = (thread::index_1d(), warp::lane_id());
        let mask = if lane < 16 { 0x0000_ffff } else { 0xffff_0000 };
        // SAFETY: all lanes of each mask come here with it.
        output.write(i, unsafe { warp::warp_match_any(mask, lane % 5) });
    });
    for (i, result) in results.into_iter().enumerate() {
        let mask = if i % 32 < 16 { 0x0000_ffff } else { 0xffff_0000u32 };
        let same = (0..32).filter(|lane| lane % 5 == i % 32 % 5);
        assert_eq!(result, same.fold(0, |bits, lane| bits | 1 << lane) & mask, "thread {i}");
    }
}

#[test]
fn the_active_mask_is_that_of_the_branch() {
    let results = collect(one_block(40), |output| {
        let lane = warp::lane_id();
        let whole = warp::activemask();
        let branch = if lane < 3 {
            warp::activemask()
        } else {
            let branch = warp::activemask();
            assert_ne!(branch, whole);
            branch
        };
        output.write(thread::index_1d(), (whole, branch));
    });
    for (i, (whole, branch)) in results.into_iter().enumerate() {
        let lanes = if i < 32 { u32::MAX } else { 0xff };
        let low = if i % 32 < 3 { 7 } else { !7 };
        assert_eq!((whole, branch), (lanes, lanes & low), "thread {i}");
    }
}

#[test]
fn the_last_warp_may_be_small() {
    let results = collect(one_block(37), |output| {
        let mask = warp::activemask();
        // SAFETY: the mask is that of the lanes that are here.
        let sum = (0..5u32).map(|lane| unsafe {
            warp::warp_shuffle_idx(mask, thread::thread_idx_x(), lane, 32).0
        });
        output.write(thread::index_1d(), sum.sum::<u32>());
    });
    assert_eq!(results[..32], [10; 32]);
    assert_eq!(results[32..], [170; 5]);
}

#[test]
fn lanes_may_meet_in_parts_first() {
    // Lane 0 waits for lane 1, which meets lane 2 before.
    let results = collect(one_block(3), |output| {
        let lane = warp::lane_id();
        let mut seen = 0;
        // SAFETY: all lanes of each mask come to the call with it.
        unsafe {
            if lane > 0 {
                seen += warp::warp_vote_ballot(0b110, true);
            }
            if lane < 2 {
                seen += warp::warp_vote_ballot(0b011, true) << 4;
            }
        }
        output.write(lane, seen);
    });
    assert_eq!(results, [0x30, 0x36, 0x06]);
}

#[test]
fn sync_warp_orders_the_lanes() {
    let results = collect(one_block(32), |output| {
        let lane = warp::lane_id();
        let cells = super::Shared(cuda_std::shared_array![u32; 32]);
        cells.write(lane, lane);
        // SAFETY: all lanes come here.
        unsafe { warp::sync_warp(ALL) };
        output.write(lane, cells.read(31 - lane));
    });
    assert_eq!(results, (0..32).rev().collect::<Vec<u32>>());
}
