//! The functions of this crate in terms of PTX.
//!
//! LLVM's intrinsics are preferred over inline assembly: LLVM knows that they need the lanes of a
//! warp together and moves no code across them that would part the lanes.

use core::arch::{asm, nvptx};
use core::sync::atomic::Ordering;

use crate::warp::{Direction, WarpShuffleValue};

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    // SAFETY: stopping the kernel with an error is always allowed.
    unsafe { nvptx::trap() }
}

unsafe extern "unadjusted" {
    #[link_name = "llvm.nvvm.shfl.sync.down.i32"]
    fn shfl_down(mask: u32, value: u32, delta: u32, clamp: u32) -> u32;
    #[link_name = "llvm.nvvm.shfl.sync.up.i32"]
    fn shfl_up(mask: u32, value: u32, delta: u32, clamp: u32) -> u32;
    #[link_name = "llvm.nvvm.shfl.sync.idx.i32"]
    fn shfl_idx(mask: u32, value: u32, index: u32, clamp: u32) -> u32;
    #[link_name = "llvm.nvvm.shfl.sync.bfly.i32"]
    fn shfl_xor(mask: u32, value: u32, lane_mask: u32, clamp: u32) -> u32;
    #[link_name = "llvm.nvvm.vote.all.sync"]
    fn intrinsic_vote_all(mask: u32, predicate: bool) -> bool;
    #[link_name = "llvm.nvvm.vote.any.sync"]
    fn intrinsic_vote_any(mask: u32, predicate: bool) -> bool;
    #[link_name = "llvm.nvvm.vote.ballot.sync"]
    fn intrinsic_vote_ballot(mask: u32, predicate: bool) -> u32;
    #[link_name = "llvm.nvvm.match.any.sync.i32"]
    fn intrinsic_match_any(mask: u32, value: u32) -> u32;
    #[link_name = "llvm.nvvm.bar.warp.sync"]
    fn intrinsic_sync_warp(mask: u32);
    #[link_name = "llvm.nvvm.activemask"]
    fn intrinsic_activemask() -> u32;
    #[link_name = "llvm.nvvm.read.ptx.sreg.laneid"]
    fn intrinsic_lane_id() -> u32;
    #[link_name = "llvm.nvvm.barrier0.popc"]
    fn barrier_count(predicate: u32) -> u32;
    #[link_name = "llvm.nvvm.barrier0.and"]
    fn barrier_and(predicate: u32) -> u32;
    #[link_name = "llvm.nvvm.barrier0.or"]
    fn barrier_or(predicate: u32) -> u32;
    #[link_name = "llvm.nvvm.membar.gl"]
    fn fence_device();
    #[link_name = "llvm.nvvm.membar.sys"]
    fn fence_system();
}

macro_rules! special_registers {
    ($($name:ident = $register:path;)*) => {$(
        #[inline(always)]
        pub(crate) fn $name() -> u32 {
            // SAFETY: reading a special register has no effect.
            unsafe { $register() }
        }
    )*};
}

special_registers! {
    thread_idx_x = nvptx::_thread_idx_x;
    thread_idx_y = nvptx::_thread_idx_y;
    thread_idx_z = nvptx::_thread_idx_z;
    block_idx_x = nvptx::_block_idx_x;
    block_idx_y = nvptx::_block_idx_y;
    block_idx_z = nvptx::_block_idx_z;
    block_dim_x = nvptx::_block_dim_x;
    block_dim_y = nvptx::_block_dim_y;
    block_dim_z = nvptx::_block_dim_z;
    grid_dim_x = nvptx::_grid_dim_x;
    grid_dim_y = nvptx::_grid_dim_y;
    grid_dim_z = nvptx::_grid_dim_z;
    lane_id = intrinsic_lane_id;
    activemask = intrinsic_activemask;
}

#[inline(always)]
pub(crate) fn sync_threads() {
    // SAFETY: a barrier touches no memory; threads that never come hang the kernel, no more.
    unsafe { nvptx::_syncthreads() }
}

#[inline(always)]
pub(crate) fn sync_threads_count(predicate: u32) -> u32 {
    // SAFETY: as for `sync_threads`.
    unsafe { barrier_count(predicate) }
}

#[inline(always)]
pub(crate) fn sync_threads_and(predicate: u32) -> u32 {
    // SAFETY: as for `sync_threads`.
    unsafe { barrier_and(predicate) }
}

#[inline(always)]
pub(crate) fn sync_threads_or(predicate: u32) -> u32 {
    // SAFETY: as for `sync_threads`.
    unsafe { barrier_or(predicate) }
}

#[inline(always)]
pub(crate) fn device_fence() {
    // SAFETY: a fence only orders accesses.
    unsafe { fence_device() }
}

#[inline(always)]
pub(crate) fn system_fence() {
    // SAFETY: a fence only orders accesses.
    unsafe { fence_system() }
}

#[inline(always)]
pub(crate) fn nanosleep(nanos: u32) {
    // SAFETY: waiting has no effect on memory.
    unsafe { asm!("nanosleep.u32 {};", in(reg32) nanos, options(nomem, nostack)) }
}

/// # Safety
/// As for [`crate::warp::sync_warp`].
#[inline(always)]
pub(crate) unsafe fn sync_warp(mask: u32) {
    // SAFETY: promised by the caller.
    unsafe { intrinsic_sync_warp(mask) }
}

/// # Safety
/// As for [`crate::warp::warp_vote_all`].
#[inline(always)]
pub(crate) unsafe fn vote_all(mask: u32, predicate: bool) -> bool {
    // SAFETY: promised by the caller.
    unsafe { intrinsic_vote_all(mask, predicate) }
}

/// # Safety
/// As for [`crate::warp::warp_vote_any`].
#[inline(always)]
pub(crate) unsafe fn vote_any(mask: u32, predicate: bool) -> bool {
    // SAFETY: promised by the caller.
    unsafe { intrinsic_vote_any(mask, predicate) }
}

/// # Safety
/// As for [`crate::warp::warp_vote_ballot`].
#[inline(always)]
pub(crate) unsafe fn vote_ballot(mask: u32, predicate: bool) -> u32 {
    // SAFETY: promised by the caller.
    unsafe { intrinsic_vote_ballot(mask, predicate) }
}

/// # Safety
/// As for [`crate::warp::warp_match_any`].
#[inline(always)]
pub(crate) unsafe fn match_any(mask: u32, value: u32) -> u32 {
    // SAFETY: the caller's promise is what the instruction asks for.
    unsafe { intrinsic_match_any(mask, value) }
}

/// Moves a value of up to 8 bytes with an instruction that moves 4.
#[inline(always)]
fn in_halves<T: WarpShuffleValue>(value: T, shuffle: impl Fn(u32) -> u32) -> T {
    let bits = value.into_bits();
    let low = u64::from(shuffle(bits as u32));
    if T::WIDE {
        T::from_bits(u64::from(shuffle((bits >> 32) as u32)) << 32 | low)
    } else {
        T::from_bits(low)
    }
}

/// # Safety
/// As for the shuffles of [`crate::warp`].
#[inline(always)]
pub(crate) unsafe fn shuffle<T: WarpShuffleValue>(
    direction: Direction,
    mask: u32,
    value: T,
    argument: u32,
    width: u32,
) -> (T, bool) {
    let segment = (32 - width) << 8;
    // SAFETY: promised by the caller.
    let moved = in_halves(value, |half| unsafe {
        match direction {
            Direction::Down => shfl_down(mask, half, argument, segment | 31),
            Direction::Up => shfl_up(mask, half, argument, segment),
            Direction::Index => shfl_idx(mask, half, argument, segment | 31),
            Direction::Xor => shfl_xor(mask, half, argument, segment | 31),
        }
    });
    // The intrinsic that also gives the predicate returns a pair that Rust cannot declare. This
    // is its definition, and it costs nothing where it is not used.
    (moved, direction.source(lane_id(), argument, width).1)
}

core::arch::global_asm!(".extern .shared .align 16 .b8 cuda_std_dynamic_shared[];");

#[inline(always)]
pub(crate) fn dynamic_shared_mem() -> *mut u8 {
    let pointer: *mut u8;
    // SAFETY: only computes the address of the variable declared above.
    unsafe {
        asm!(
            "cvta.shared.u64 {}, cuda_std_dynamic_shared;",
            out(reg64) pointer,
            options(pure, nomem, nostack, preserves_flags)
        );
    }
    pointer
}

/// Nothing to check on the GPU.
#[inline(always)]
pub(crate) fn before_atomic<T>(_: *mut T) {}

/// Nothing to check on the GPU.
#[inline(always)]
pub(crate) fn before_atomic_load<T>(_: *mut T) {}

/// Nothing to check on the GPU.
#[inline(always)]
pub(crate) fn before_atomic_store<T>(_: *mut T) {}

macro_rules! atomic_adds {
    ($($name:ident of $float:ty, $instruction:literal, $register:ident;)*) => {$(
        /// # Safety
        /// `pointer` is valid and aligned, in global or shared memory.
        #[inline(always)]
        pub(crate) unsafe fn $name(pointer: *mut $float, value: $float, order: Ordering) -> $float {
            // The instruction itself is relaxed; fences around it make the stronger orders.
            if matches!(order, Ordering::Release | Ordering::AcqRel | Ordering::SeqCst) {
                device_fence();
            }
            let old: $float;
            // SAFETY: promised by the caller.
            unsafe {
                asm!(
                    $instruction,
                    old = out($register) old,
                    pointer = in(reg64) pointer,
                    value = in($register) value,
                    options(nostack)
                );
            }
            if matches!(order, Ordering::Acquire | Ordering::AcqRel | Ordering::SeqCst) {
                device_fence();
            }
            old
        }
    )*};
}

atomic_adds! {
    atomic_add_f32 of f32, "atom.add.f32 {old}, [{pointer}], {value};", reg32;
    atomic_add_f64 of f64, "atom.add.f64 {old}, [{pointer}], {value};", reg64;
}
