//! Linear layers: products of matrices, forward and backward, in fp32 and on tensor cores.
//!
//! | file | what it is |
//! |---|---|
//! | `run.rs`, `rows.rs` | the matrices that go in, four neighbours at a time |
//! | `operand.rs` | a matrix as a product takes it, and where it lies in shared memory |
//! | `share.rs`, `staged.rs` | what a thread moves there, what a warp reads there |
//! | `product.rs` | the tiles of a block |
//! | `arithmetic.rs`, `tensor.rs` | the multiplications: fp32, or tensor cores |
//! | `no_tensor.rs` | fp32 in place of tensor cores |
//! | `linear.rs`, `target.rs` | the layer, the gradients of its input, weight and bias; where they go |
//! | `drop.rs` | a gradient back through dropout |
//! | `sum.rs` | partial sums, added up in a fixed order |

pub(crate) mod arithmetic;
pub(crate) mod drop;
pub(crate) mod linear;
mod operand;
mod product;
pub(crate) mod rows;
mod run;
mod share;
mod staged;
pub(crate) mod sum;
mod target;
#[cfg(any(not(target_arch = "nvptx64"), cuda_arch_ge_80))]
pub(crate) mod tensor;
#[cfg(all(target_arch = "nvptx64", not(cuda_arch_ge_80)))]
#[path = "no_tensor.rs"]
pub(crate) mod tensor;
