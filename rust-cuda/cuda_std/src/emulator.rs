//! A SIMT machine on the CPU: runs kernels as a GPU would, and tells what they do wrong.
//!
//! Every thread of a block is a coroutine. It runs until it has to meet others (at
//! [`sync_threads`](crate::thread::sync_threads) or in a function of [`warp`](crate::warp)) and goes on
//! when all of them have come. Blocks run on several threads of the CPU, in an order shuffled by the
//! emulator's seed, and so do the warps of a block between two meetings, as far ahead of each other
//! as the barriers let them: a missing barrier shows as a wrong result or as a [`Fault`].
//!
//! # What is checked
//!
//! Meetings are checked by themselves. Memory accesses are checked where the kernel says so: a
//! kernel reads and writes through small wrappers that call [`global_read`], [`global_write`],
//! [`shared_read`] and so on first (and nothing on the GPU). The atomics of
//! [`atomic`](crate::atomic) call them on their own. The first violation ends the launch with a
//! [`Fault`] that names kernel, block and thread.
//!
//! [`Emulator::with_race_checks`] adds races in shared and global memory, at some cost in time.
//!
//! Not checked: accesses that go around the wrappers, accesses that miss their buffer and hit
//! another one of the launch, threads that wait for each other in a loop without a meeting (such a
//! launch does not end), and kernels that need more stack than the 256 KiB a thread has here.
//!
//! # Examples
//!
//! ```
//! use cuda_std::emulator::{Emulator, Fault, LaunchConfig, Memory, global_write};
//! use cuda_std::thread;
//!
//! /// Writes one number per thread, and forgets to stop at the end.
//! unsafe fn count(to: *mut f32) {
//!     let i = thread::index_1d();
//!     let to = to.wrapping_add(i as usize);
//!     global_write(to.cast(), 4);
//!     // SAFETY: the emulator has just checked it.
//!     unsafe { *to = i as f32 }
//! }
//!
//! let mut numbers = vec![0.0f32; 100];
//! let mut memory = Memory::new();
//! let to = memory.uninitialised("numbers", &mut numbers) as usize;
//! // 4 warps are 128 threads: 28 too many.
//! let result = Emulator::new().launch("count", LaunchConfig::new(1, 128), &memory, || {
//!     // SAFETY: the pointer is that of `numbers`, which lives as long as `memory`.
//!     unsafe { count(to as *mut f32) }
//! });
//! assert!(matches!(result, Err(Fault::OutOfBounds { .. })));
//! ```

mod block;
mod context;
mod fault;
mod global_races;
mod launch;
mod memory;
mod order;
pub(crate) mod platform;
mod races;
mod shape;
mod shared_memory;
mod stack;
mod warp;

pub use context::{global_atomic, global_read, global_write, shared_read, shared_write};
pub use fault::{Fault, Place, Space};
pub use launch::Emulator;
pub use memory::Memory;
pub use shape::{Dim3, LaunchConfig};
