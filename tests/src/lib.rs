//! Tests of the kernels and the library against the fp64 reference.
