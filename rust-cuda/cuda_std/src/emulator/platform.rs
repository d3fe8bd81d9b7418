//! The functions of this crate in terms of the emulator.

use std::panic::Location;
use std::sync::atomic::{Ordering, fence};

use super::context::{Barrier, Wait, atomic_access, expect_current};
use super::fault::Fault;
use super::memory::Access;
use super::warp::{Operation, Request};
use crate::warp::{Direction, WarpShuffleValue};

macro_rules! indices {
    ($($name:ident = |$thread:ident| $value:expr;)*) => {$(
        #[inline]
        pub(crate) fn $name() -> u32 {
            expect_current(|$thread| $value)
        }
    )*};
}

indices! {
    thread_idx_x = |thread| thread.index.x;
    thread_idx_y = |thread| thread.index.y;
    thread_idx_z = |thread| thread.index.z;
    block_idx_x = |thread| thread.block.index.get().x;
    block_idx_y = |thread| thread.block.index.get().y;
    block_idx_z = |thread| thread.block.index.get().z;
    block_dim_x = |thread| thread.block.config.block.x;
    block_dim_y = |thread| thread.block.config.block.y;
    block_dim_z = |thread| thread.block.config.block.z;
    grid_dim_x = |thread| thread.block.config.grid.x;
    grid_dim_y = |thread| thread.block.config.grid.y;
    grid_dim_z = |thread| thread.block.config.grid.z;
    lane_id = |thread| thread.lane;
}

fn block_barrier(barrier: Barrier, predicate: bool) -> u32 {
    expect_current(|thread| thread.wait(Wait::Block(barrier, predicate)).value as u32)
}

pub(crate) fn sync_threads() {
    block_barrier(Barrier::Plain, false);
}

pub(crate) fn sync_threads_count(predicate: u32) -> u32 {
    block_barrier(Barrier::Count, predicate != 0)
}

pub(crate) fn sync_threads_and(predicate: u32) -> u32 {
    block_barrier(Barrier::And, predicate != 0)
}

pub(crate) fn sync_threads_or(predicate: u32) -> u32 {
    block_barrier(Barrier::Or, predicate != 0)
}

pub(crate) fn device_fence() {
    fence(Ordering::SeqCst);
    expect_current(|thread| thread.block.fence());
}

pub(crate) fn system_fence() {
    device_fence();
}

/// Time is no part of the emulation, and every other thread gets its turn anyway.
pub(crate) fn nanosleep(_nanos: u32) {}

fn meet(operation: Operation, mask: u32, value: u64) -> u64 {
    let request = Request { operation, mask, value, argument: 0, width: 32 };
    expect_current(|thread| thread.wait(Wait::Warp(request)).value)
}

#[track_caller]
pub(crate) fn activemask() -> u32 {
    meet(Operation::ActiveMask(Location::caller()), 0, 0) as u32
}

/// # Safety
/// Always safe here: the emulator checks what a GPU takes on trust.
pub(crate) unsafe fn sync_warp(mask: u32) {
    meet(Operation::Sync, mask, 0);
}

/// # Safety
/// As for [`sync_warp`].
pub(crate) unsafe fn vote_all(mask: u32, predicate: bool) -> bool {
    meet(Operation::VoteAll, mask, u64::from(predicate)) != 0
}

/// # Safety
/// As for [`sync_warp`].
pub(crate) unsafe fn vote_any(mask: u32, predicate: bool) -> bool {
    meet(Operation::VoteAny, mask, u64::from(predicate)) != 0
}

/// # Safety
/// As for [`sync_warp`].
pub(crate) unsafe fn vote_ballot(mask: u32, predicate: bool) -> u32 {
    meet(Operation::Ballot, mask, u64::from(predicate)) as u32
}

/// # Safety
/// As for [`sync_warp`].
pub(crate) unsafe fn match_any(mask: u32, value: u32) -> u32 {
    meet(Operation::MatchAny, mask, u64::from(value)) as u32
}

/// # Safety
/// As for [`sync_warp`].
pub(crate) unsafe fn shuffle<T: WarpShuffleValue>(
    direction: Direction,
    mask: u32,
    value: T,
    argument: u32,
    width: u32,
) -> (T, bool) {
    let operation = Operation::Shuffle(direction);
    let request = Request { operation, mask, value: value.into_bits(), argument, width };
    let answer = expect_current(|thread| thread.wait(Wait::Warp(request)));
    (T::from_bits(answer.value), answer.in_range)
}

pub(crate) fn dynamic_shared_mem() -> *mut u8 {
    expect_current(|thread| thread.block.shared.dynamic())
}

pub(crate) fn shared_array(site: usize, bytes: usize, align: usize) -> *mut u8 {
    expect_current(|thread| {
        thread.block.shared.array(site, bytes, align).unwrap_or_else(|reason| {
            thread.fail_with(|place| Fault::BadLaunch { kernel: place.kernel, reason });
            // Only reached while the thread is unwound; no check lets anyone write there.
            std::ptr::null_mut()
        })
    })
}

#[inline]
pub(crate) fn before_atomic<T>(pointer: *mut T) {
    atomic_access(pointer as usize, size_of::<T>(), Access::ReadWrite);
}

#[inline]
pub(crate) fn before_atomic_load<T>(pointer: *mut T) {
    atomic_access(pointer as usize, size_of::<T>(), Access::Read);
}

#[inline]
pub(crate) fn before_atomic_store<T>(pointer: *mut T) {
    atomic_access(pointer as usize, size_of::<T>(), Access::Write);
}
