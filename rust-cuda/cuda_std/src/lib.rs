//! The standard library of Rust GPU kernels, and an emulator that runs them on the CPU.
//!
//! A kernel is an `unsafe fn` marked [`#[kernel]`](kernel) that asks [`thread`] who it is and meets
//! its neighbours in [`thread::sync_threads`] and the functions of [`warp`]. The names, signatures
//! and meaning are those of the Rust CUDA project's `cuda_std`; the code underneath is this
//! project's own.
//!
//! The same source is compiled twice:
//!
//! - for `nvptx64-nvidia-cuda` by rustc's own NVPTX backend: every function is one or a few PTX
//!   instructions, and the crate is `no_std`;
//! - for the host, where a SIMT emulator (`cuda_std::emulator`) stands behind the same functions,
//!   so that a kernel is tested like any other function and mistakes that a GPU hides are reported.
//!
//! ```
//! use cuda_std::emulator::{Emulator, LaunchConfig, Memory};
//! use cuda_std::{kernel, thread};
//!
//! /// Doubles `n` numbers.
//! ///
//! /// # Safety
//! /// `data` points to `n` numbers that no one else touches during the launch.
//! #[kernel]
//! pub unsafe fn double(data: *mut f32, n: usize) {
//!     let i = thread::index_1d() as usize;
//!     if i < n {
//!         // SAFETY: `i` is in bounds and belongs to this thread alone.
//!         unsafe { *data.add(i) *= 2.0 }
//!     }
//! }
//!
//! let mut data = vec![1.0f32, 2.0, 3.0];
//! let n = data.len();
//! let mut memory = Memory::new();
//! let pointer = memory.read_write("data", &mut data) as usize;
//! Emulator::new().launch("double", LaunchConfig::new(1, 32), &memory, || {
//!     // SAFETY: the pointer is the one of `data`, which lives as long as `memory`.
//!     unsafe { double(pointer as *mut f32, n) }
//! })?;
//! drop(memory);
//! assert_eq!(data, [2.0, 4.0, 6.0]);
//! # Ok::<(), cuda_std::emulator::Fault>(())
//! ```
//!
//! # What a kernel crate needs
//!
//! [`kernel`] and [`shared_array!`] expand to code in the crate that uses them, so that crate opts
//! in to the unstable features behind them, on the GPU only:
//!
//! ```text
//! #![cfg_attr(target_arch = "nvptx64", no_std, feature(abi_ptx, asm_experimental_arch))]
//! ```
//!
//! The panic handler of kernels is here: a panic stops the kernel with a trap.

#![cfg_attr(target_arch = "nvptx64", no_std)]
#![cfg_attr(
    target_arch = "nvptx64",
    feature(
        abi_unadjusted,
        asm_experimental_arch,
        core_float_math,
        link_llvm_intrinsics,
        stdarch_nvptx
    ),
    allow(internal_features)
)]

pub mod atomic;
pub mod float;
pub mod shared;
pub mod thread;
pub mod warp;

#[cfg(target_arch = "nvptx64")]
mod device;
#[cfg(target_arch = "nvptx64")]
use device as platform;

#[cfg(not(target_arch = "nvptx64"))]
pub mod emulator;
#[cfg(not(target_arch = "nvptx64"))]
use emulator::platform;

#[cfg(target_arch = "nvptx64")]
#[doc(hidden)]
pub use cuda_std_macros::__shared_array;
pub use cuda_std_macros::kernel;
pub use float::GpuFloat;

/// What nearly every kernel imports.
pub mod prelude {
    pub use crate::{GpuFloat, kernel, shared_array, thread, warp};
}

/// The examples of the README are tests, too.
#[cfg(doctest)]
#[doc = include_str!("../../README.md")]
mod readme {}
