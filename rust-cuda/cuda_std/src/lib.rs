//! The standard library of Rust GPU kernels, and an emulator that runs them on the CPU.
