//! GPU kernels of deformable aggregation, in Rust, and the PTX made from them.
