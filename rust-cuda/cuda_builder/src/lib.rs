//! Builds Rust GPU kernels to PTX with the NVPTX backend of rustc.
