//! The GPU kernels of deformable aggregation, and the PTX made from them.
//!
//! The crate has two faces. Compiled for `nvptx64-nvidia-cuda` it is the kernels and nothing else.
//! Compiled for a host it is what launching them takes: their arguments ([`args`]), their names
//! ([`Kernels`]), their shared memory ([`forward_shared_bytes`] and so on), with the feature `ptx` the PTX and, with the feature
//! `emulator`, the same kernels as functions that the emulator of `cuda_std` runs.
//!
//! | file | what it is |
//! |---|---|
//! | `forward/` | the output |
//! | `backward/` | the gradients of locations and weights |
//! | `lists/`, `gather/` | the gradient of the features |
//! | `rows.rs` | the distinct rows an anchor's samples touch |
//! | `parts.rs` | anchors of many points, cut into parts |
//! | `naive/` | the published algorithm, the baseline |
//! | `round.rs` | fp32 sums to 16-bit gradients |
//! | `read.rs` | how fast memory can be read |
//! | `visible.rs` | the list of seen (point, camera) pairs |
//! | `sample.rs` | border rules and bilinear corners |
//! | `channels.rs`, `block.rs` | which thread holds which channels of which sample |
//! | `storage.rs`, `memory/`, `mma.rs` | element types, PTX instructions, tensor cores |
//! | `lane_sums.rs`, `unroll.rs` | sums over lanes, loops written out |
//! | `dense/` | linear layers |
//! | `attention/` | the attention block around the operator |
//! | `args.rs`, `block_args.rs`, `entry.rs`, `block_entry.rs`, `limits.rs`, `tiles.rs` | what kernels and host agree on |

#![no_std]
#![cfg_attr(target_arch = "nvptx64", feature(abi_ptx, asm_experimental_arch))]

pub mod args;
pub mod block_args;
#[macro_use]
mod entry;
mod block_entry;
mod limits;
#[cfg(all(feature = "ptx", not(target_arch = "nvptx64")))]
pub mod ptx;
mod tiles;

/// The modules that are kernels: for the GPU, and for the emulator.
macro_rules! kernel_modules {
    ($($module:ident),*) => {
        $(#[cfg(any(target_arch = "nvptx64", feature = "emulator"))] mod $module;)*
    };
}
kernel_modules!(
    backward, block, channels, forward, gather, lane_sums, lists, memory, naive, parts, read,
    round, rows, sample, storage, unroll, visible
);
#[cfg(any(cuda_arch_ge_80, feature = "emulator"))]
mod mma;
kernel_modules!(attention, dense);

#[cfg(not(target_arch = "nvptx64"))]
pub use block_entry::{
    BlockKernels, CAMERA, CAMERA_GRADIENT, CAMERA_PARAMETERS, POINTS, POINTS_GRADIENT,
    PROJECTION_GRADIENT, Products, SUM,
};
#[cfg(not(target_arch = "nvptx64"))]
pub use entry::{COUNT_POINTS, Entry, FILL_LISTS, Kernels, PLACE_LISTS, READ_WORDS, SORT_LISTS};
pub use limits::{
    CHANNELS_PER_LANE, GATHER_WEIGHTS, LIST_THREADS, LONG_LIST, MANY_POINTS, MAX_BITMAP_WORDS,
    MAX_GROUPS, MAX_PIECES, MAX_TILES_AT_A_TIME, MAX_WARPS, PLACE_SHARED_BYTES, TENSOR_CHANNELS,
    TILE_SIDE, WARP_LANES, WindowSizes, backward_shared_bytes, camera_bytes, forward_shared_bytes,
    gather_warp_words, sort_shared_bytes, weights_bytes, weights_gradient_bytes,
};
pub use tiles::Tiles;
