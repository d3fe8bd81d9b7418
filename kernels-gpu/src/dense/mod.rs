//! Linear layers: products of matrices, forward and backward, in fp32 and on tensor cores.
//!
//! | file | what it is |
//! |---|---|
//! | `rows.rs` | the matrices that go in, and where products go |
//! | `product.rs` | a tile of a product, through shared memory |
//! | `arithmetic.rs`, `mma.rs` | the multiplications: fp32, or tensor cores |
//! | `linear.rs` | the layer, the gradients of its input, weight and bias |
//! | `drop.rs` | a gradient back through dropout |
//! | `sum.rs` | partial sums, added up in a fixed order |

pub(crate) mod arithmetic;
pub(crate) mod drop;
pub(crate) mod linear;
mod mma;
mod product;
pub(crate) mod rows;
pub(crate) mod sum;
