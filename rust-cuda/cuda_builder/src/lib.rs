//! Builds Rust GPU kernels to PTX with the NVPTX backend of rustc.
//!
//! [`CudaBuilder`] has the names and meaning of the Rust CUDA project's `cuda_builder`, and needs neither a
//! compiler plug-in nor NVIDIA's: a rustc with its library source is enough ([`Compiler`] finds one).
//! [`PrebuiltPtx`] is for crates that check their PTX in, so that those who depend on them need no compiler for
//! kernels, and notices when that PTX no longer belongs to the sources. The command `cuda-builder` (feature `cli`)
//! does the same by hand, and [`assembler`] runs NVIDIA's `ptxas` over PTX for every GPU.

mod arch;
pub mod assembler;
mod builder;
mod compiler;
mod error;
mod header;
mod prebuilt;
pub mod ptx;
mod settings;
mod sources;

pub use arch::NvvmArch;
pub use builder::CudaBuilder;
pub use compiler::{Candidate, Compiler};
pub use error::CudaBuilderError;
pub use header::Header;
pub use prebuilt::{PrebuiltPtx, PtxState, ResolvedPtx};
