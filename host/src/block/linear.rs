//! Linear layers on all cores. Every sum is computed by one task, so results do not depend on the number of threads.

use ndarray::linalg::general_mat_mul;
use ndarray::parallel::prelude::*;
use ndarray::{Array1, Array2, ArrayView1, ArrayView2, Axis};

use super::parameters::Linear;
use crate::element::Scalar;
use crate::error::Result;
use crate::memory::zero_array;

/// Rows (or outputs) that one task computes.
const ROWS: usize = 64;

/// `x · weightᵀ + bias`: (rows, inputs) to (rows, outputs).
pub(super) fn forward<R: Scalar>(
    weight: ArrayView2<'_, R>,
    bias: Option<ArrayView1<'_, R>>,
    x: ArrayView2<'_, R>,
) -> Result<Array2<R>> {
    let mut y = zero_array("output of a linear layer", (x.nrows(), weight.nrows()))?;
    y.axis_chunks_iter_mut(Axis(0), ROWS)
        .into_par_iter()
        .zip(x.axis_chunks_iter(Axis(0), ROWS))
        .for_each(|(mut y, x)| {
            if let Some(bias) = &bias {
                y.assign(bias);
            }
            general_mat_mul(R::one(), &x, &weight.t(), R::one(), &mut y);
        });
    Ok(y)
}

/// The gradient of `x`, `grad_y · weight`.
pub(super) fn backward_input<R: Scalar>(
    weight: ArrayView2<'_, R>,
    grad_y: ArrayView2<'_, R>,
) -> Result<Array2<R>> {
    forward(weight.t(), None, grad_y)
}

/// The gradient of `weight`, `grad_yᵀ · x`.
pub(super) fn backward_weight<R: Scalar>(
    grad_y: ArrayView2<'_, R>,
    x: ArrayView2<'_, R>,
) -> Result<Array2<R>> {
    let dimensions = (grad_y.ncols(), x.ncols());
    let mut grad = zero_array("gradient of a linear layer", dimensions)?;
    grad.axis_chunks_iter_mut(Axis(0), ROWS)
        .into_par_iter()
        .zip(grad_y.axis_chunks_iter(Axis(1), ROWS))
        .for_each(|(mut grad, grad_y)| {
            general_mat_mul(R::one(), &grad_y.t(), &x, R::one(), &mut grad);
        });
    Ok(grad)
}

/// The gradients of a layer that computed `forward(x)`.
pub(super) fn backward_layer<R: Scalar>(
    grad_y: ArrayView2<'_, R>,
    x: ArrayView2<'_, R>,
) -> Result<Linear<R>> {
    let bias: Array1<R> = grad_y.sum_axis(Axis(0));
    Ok(Linear { weight: backward_weight(grad_y, x)?, bias })
}
