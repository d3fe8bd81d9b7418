//! Linear layers: products of matrices, forward and backward, in fp32 and on tensor cores.
//!
//! | file | what it is |
//! |---|---|
//! | `run.rs`, `rows.rs` | the matrices that go in, four neighbours at a time |
//! | `product.rs` | a tile of a product, through shared memory |
//! | `arithmetic.rs`, `tensor.rs` | the multiplications: fp32, or tensor cores |
//! | `no_tensor.rs` | fp32 in place of tensor cores |
//! | `linear.rs`, `target.rs` | the layer, the gradients of its input, weight and bias; where they go |
//! | `drop.rs` | a gradient back through dropout |
//! | `sum.rs` | partial sums, added up in a fixed order |

pub(crate) mod arithmetic;
pub(crate) mod drop;
pub(crate) mod linear;
mod product;
pub(crate) mod rows;
mod run;
pub(crate) mod sum;
mod target;
#[cfg(any(not(target_arch = "nvptx64"), cuda_arch_ge_80))]
pub(crate) mod tensor;
#[cfg(all(target_arch = "nvptx64", not(cuda_arch_ge_80)))]
#[path = "no_tensor.rs"]
pub(crate) mod tensor;
