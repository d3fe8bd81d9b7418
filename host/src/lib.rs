//! Deformable aggregation (Sparse4D, SparseDrive): forward and backward, on the CPU and on CUDA GPUs, without nvcc.
