//! The CUDA backend: the kernels on an NVIDIA GPU.
//!
//! From the bottom up:
//!
//! - [`Operator`]: one problem on arrays that are on the GPU already, named by raw device pointers: the way in
//!   for other frameworks' tensors. It allocates nothing and waits for nothing.
//! - [`Session`]: a problem whose arrays it keeps on the GPU; for measurements and training loops in Rust.
//! - [`Graph`] and [`SessionGraph`]: calls of these two recorded once and launched again as one.
//! - [`BlockSession`]: the same for the attention block.
//! - [`Backend::Cuda`](crate::Backend::Cuda): arrays in, arrays out, like the other backends.
//!
//! Everything works in the device's primary context, the one the CUDA runtime and with it PyTorch, CuPy and
//! JAX use, so their device pointers are valid here and ours there.

mod array;
mod bandwidth;
mod block;
mod device;
mod driver;
mod graph;
mod host_arrays;
mod launch;
mod module;
mod operator;
mod session;
mod side;
mod stream;

pub use array::DeviceArray;
pub use block::{BlockGraph, BlockOptions, BlockSession};
pub(crate) use block::{block_backward, block_forward};
pub use device::Device;
pub use graph::Graph;
pub(crate) use host_arrays::{backward, forward};
pub use operator::{BackwardPointers, ForwardPointers, Operator};
pub use session::{Session, SessionGraph};
pub use stream::Stream;
