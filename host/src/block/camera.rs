//! The camera encoder: the twelve upper entries of a projection matrix to a vector of channels.

use ndarray::{Array1, Array2, ArrayView2, Axis, Zip};

use super::linear;
use super::parameters::{CameraEncoder, LayerNorm, Linear};
use crate::element::Scalar;
use crate::error::Result;
use crate::memory::zero_array;

/// Entries of a matrix that are encoded: all but the fourth row.
pub(super) const INPUTS: usize = 12;

/// Added to the variance before the root.
const EPSILON: f64 = 1e-5;

/// The encodings, and what their backward pass needs. One row for each (batch, camera).
#[derive(Clone, Debug)]
pub(super) struct Encoding<R> {
    first: Stage<R>,
    second: Stage<R>,
    /// (rows, channels)
    pub(super) output: Array2<R>,
}

/// Linear layer, ReLU, layer normalisation.
#[derive(Clone, Debug)]
struct Stage<R> {
    input: Array2<R>,
    /// Whether the ReLU passed an entry.
    passed: Array2<bool>,
    /// Entries with mean 0 and variance 1.
    normal: Array2<R>,
    /// 1 / √(variance + ε) of each row.
    scale: Array1<R>,
}

/// Encodes matrices, (rows, 16).
pub(super) fn forward<R: Scalar>(
    encoder: &CameraEncoder<R>,
    matrices: ArrayView2<'_, R>,
) -> Result<Encoding<R>> {
    let mut input = zero_array("camera encoder input", (matrices.nrows(), INPUTS))?;
    input.assign(&matrices.slice(ndarray::s![.., ..INPUTS]));
    let (first, hidden) = Stage::forward(&encoder.linear_0, &encoder.norm_2, input)?;
    let (second, output) = Stage::forward(&encoder.linear_3, &encoder.norm_5, hidden)?;
    Ok(Encoding { first, second, output })
}

/// The gradients of the encoder and of its input, (rows, 12).
pub(super) fn backward<R: Scalar>(
    encoder: &CameraEncoder<R>,
    encoding: &Encoding<R>,
    grad_output: Array2<R>,
) -> Result<(CameraEncoder<R>, Array2<R>)> {
    let (linear_3, norm_5, grad) =
        encoding.second.backward(&encoder.linear_3, &encoder.norm_5, grad_output)?;
    let (linear_0, norm_2, grad) =
        encoding.first.backward(&encoder.linear_0, &encoder.norm_2, grad)?;
    Ok((CameraEncoder { linear_0, norm_2, linear_3, norm_5 }, grad))
}

impl<R: Scalar> Stage<R> {
    fn forward(
        layer: &Linear<R>,
        norm: &LayerNorm<R>,
        input: Array2<R>,
    ) -> Result<(Self, Array2<R>)> {
        let mut normal =
            linear::forward(layer.weight.view(), Some(layer.bias.view()), input.view())?;
        let mut passed = zero_array("camera encoder", normal.dim())?;
        let mut scale = zero_array("camera encoder", normal.nrows())?;
        Zip::from(&mut passed).and(&mut normal).for_each(|passed, value| {
            // A NaN passes, so that it shows in the result.
            *passed = *value > R::zero() || value.is_nan();
            if !*passed {
                *value = R::zero();
            }
        });
        let channels = R::from_size(normal.ncols());
        for (mut row, scale) in normal.rows_mut().into_iter().zip(&mut scale) {
            let mean = row.sum() / channels;
            row.mapv_inplace(|value| value - mean);
            let variance = row.fold(R::zero(), |sum, &value| sum + value * value) / channels;
            *scale = (variance + R::from_f64(EPSILON)).sqrt().recip();
            row.mapv_inplace(|value| value * *scale);
        }
        let output = &normal * &norm.weight + &norm.bias;
        Ok((Self { input, passed, normal, scale }, output))
    }

    fn backward(
        &self,
        layer: &Linear<R>,
        norm: &LayerNorm<R>,
        grad_output: Array2<R>,
    ) -> Result<(Linear<R>, LayerNorm<R>, Array2<R>)> {
        let norm_gradients = LayerNorm {
            weight: (&grad_output * &self.normal).sum_axis(Axis(0)),
            bias: grad_output.sum_axis(Axis(0)),
        };
        let mut grad = grad_output * &norm.weight;
        let channels = R::from_size(grad.ncols());
        for ((mut grad, normal), &scale) in
            grad.rows_mut().into_iter().zip(self.normal.rows()).zip(&self.scale)
        {
            // The mean and the variance depend on every entry of the row.
            let mean = grad.sum() / channels;
            let slope = grad.dot(&normal) / channels;
            Zip::from(&mut grad)
                .and(&normal)
                .for_each(|grad, &normal| *grad = (*grad - mean - normal * slope) * scale);
        }
        Zip::from(&mut grad).and(&self.passed).for_each(|grad, &passed| {
            if !passed {
                *grad = R::zero();
            }
        });
        let layer_gradients = linear::backward_layer(grad.view(), self.input.view())?;
        let grad_input = linear::backward_input(layer.weight.view(), grad.view())?;
        Ok((layer_gradients, norm_gradients, grad_input))
    }
}
