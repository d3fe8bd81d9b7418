//! Who am I: the indices of the running thread, and the barriers of its block.
//!
//! A launch is a grid of blocks, a block is a group of at most 1024 threads, and both have up to
//! three dimensions. All functions of this module may be called from kernels only.
//!
//! # Panics
//!
//! On the host, every function panics when called outside a launch of the emulator.

use crate::platform;

macro_rules! indices {
    ($($(#[$doc:meta])* $name:ident)*) => {$(
        $(#[$doc])*
        #[inline(always)]
        #[must_use]
        pub fn $name() -> u32 {
            platform::$name()
        }
    )*};
}

indices! {
    /// The index of this thread in its block, first dimension.
    thread_idx_x
    /// The index of this thread in its block, second dimension.
    thread_idx_y
    /// The index of this thread in its block, third dimension.
    thread_idx_z
    /// The index of this block in the grid, first dimension.
    block_idx_x
    /// The index of this block in the grid, second dimension.
    block_idx_y
    /// The index of this block in the grid, third dimension.
    block_idx_z
    /// The number of threads in a block, first dimension.
    block_dim_x
    /// The number of threads in a block, second dimension.
    block_dim_y
    /// The number of threads in a block, third dimension.
    block_dim_z
    /// The number of blocks in the grid, first dimension.
    grid_dim_x
    /// The number of blocks in the grid, second dimension.
    grid_dim_y
    /// The number of blocks in the grid, third dimension.
    grid_dim_z
}

/// The index of this thread in the whole launch, unique for every shape of grid and block.
///
/// It wraps around in launches of more than 2^32 threads.
#[inline(always)]
#[must_use]
pub fn index() -> u32 {
    let block = (block_idx_z().wrapping_mul(grid_dim_y()).wrapping_add(block_idx_y()))
        .wrapping_mul(grid_dim_x())
        .wrapping_add(block_idx_x());
    let thread = (thread_idx_z() * block_dim_y() + thread_idx_y()) * block_dim_x() + thread_idx_x();
    block.wrapping_mul(block_dim_x() * block_dim_y() * block_dim_z()).wrapping_add(thread)
}

/// The index of this thread along the first dimension of the launch.
///
/// It wraps around in launches of more than 2^32 threads.
#[inline(always)]
#[must_use]
pub fn index_1d() -> u32 {
    block_idx_x().wrapping_mul(block_dim_x()).wrapping_add(thread_idx_x())
}

/// Whether this is thread (0, 0, 0) of block (0, 0, 0): true for exactly one thread of a launch.
#[inline(always)]
#[must_use]
pub fn first() -> bool {
    (block_idx_x() | block_idx_y() | block_idx_z()) == 0
        && (thread_idx_x() | thread_idx_y() | thread_idx_z()) == 0
}

/// The number of threads in a warp: 32 on every GPU so far.
#[inline(always)]
#[must_use]
pub fn warp_size() -> u32 {
    32
}

/// Waits until all threads of the block are here; what they wrote before is then visible to all.
///
/// Every thread of the block has to come here. One that returned early or waits elsewhere is a
/// mistake that hardware may let pass; the emulator reports it.
#[inline(always)]
pub fn sync_threads() {
    platform::sync_threads();
}

/// [`sync_threads`], and tells in how many threads of the block `predicate` is not 0.
#[inline(always)]
#[must_use]
pub fn sync_threads_count(predicate: u32) -> u32 {
    platform::sync_threads_count(predicate)
}

/// [`sync_threads`], and tells (not 0) whether `predicate` is not 0 in all threads of the block.
#[inline(always)]
#[must_use]
pub fn sync_threads_and(predicate: u32) -> u32 {
    platform::sync_threads_and(predicate)
}

/// [`sync_threads`], and tells (not 0) whether `predicate` is not 0 in any thread of the block.
#[inline(always)]
#[must_use]
pub fn sync_threads_or(predicate: u32) -> u32 {
    platform::sync_threads_or(predicate)
}

/// Orders this thread's memory accesses before and after it, as seen by all threads of the grid.
///
/// It waits for no other thread.
#[inline(always)]
pub fn grid_fence() {
    platform::device_fence();
}

/// Orders this thread's memory accesses before and after it, as seen by all threads of the device.
#[inline(always)]
pub fn device_fence() {
    platform::device_fence();
}

/// Orders this thread's memory accesses before and after it, as seen by the device and the host.
#[inline(always)]
pub fn system_fence() {
    platform::system_fence();
}

/// Suspends this thread for about `nanos` nanoseconds.
#[inline(always)]
pub fn nanosleep(nanos: u32) {
    platform::nanosleep(nanos);
}
