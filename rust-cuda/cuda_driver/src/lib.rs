//! The CUDA driver API, loaded at run time: programs that link it start on machines without a GPU.
