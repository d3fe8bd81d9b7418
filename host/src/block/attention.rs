//! The attention weights: logits, softmax over cameras, levels and points, dropout.
//!
//! With a camera embedding the layer sees the sum of instance and camera. It is linear, so it runs on each alone, and the results are
//! added: W · (f + cₙ) + b = (W · f + b) + W · cₙ.

use ndarray::{Array2, ArrayView2, Axis};
use num_traits::Float as _;
use rayon::prelude::*;

use super::dropout::Dropout;
use super::linear;
use super::parameters::Linear;
use super::storage::{load, store};
use crate::element::{Element, Scalar};
use crate::error::Result;
use crate::memory::{zero_array, zeros};
use crate::shape::AggregationShape;

/// Anchors of a batch item that one task of the backward pass takes.
const ANCHORS: usize = 16;

/// The two terms of the logits, or their gradients.
#[derive(Clone, Debug)]
pub(super) struct Logits<R> {
    /// (batch · anchors, logits): of all cameras, or, where there is a term of the cameras, common to them.
    anchors: Array2<R>,
    /// (batch · cameras, levels · points · groups), with a camera embedding.
    cameras: Option<Array2<R>>,
}

/// What the gradients of the logits give.
pub(super) struct LogitGradients<R> {
    pub(super) layer: Linear<R>,
    /// (batch · anchors, embed_dims)
    pub(super) instances: Array2<R>,
    /// (batch · cameras, embed_dims)
    pub(super) cameras: Option<Array2<R>>,
}

impl<R: Scalar> Logits<R> {
    /// From instances (batch · anchors, embed_dims) and, with a camera embedding, cameras (batch · cameras, embed_dims).
    pub(super) fn new(
        layer: &Linear<R>,
        instances: ArrayView2<'_, R>,
        cameras: Option<ArrayView2<'_, R>>,
    ) -> Result<Self> {
        let (weight, bias) = (layer.weight.view(), layer.bias.view());
        Ok(Self {
            anchors: linear::forward(weight, Some(bias), instances)?,
            cameras: cameras.map(|cameras| linear::forward(weight, None, cameras)).transpose()?,
        })
    }

    /// Takes these as gradients back through [`new`](Self::new).
    pub(super) fn backward(
        &self,
        layer: &Linear<R>,
        instances: ArrayView2<'_, R>,
        cameras: Option<ArrayView2<'_, R>>,
    ) -> Result<LogitGradients<R>> {
        let weight = layer.weight.view();
        let mut gradients = LogitGradients {
            layer: linear::backward_layer(self.anchors.view(), instances)?,
            instances: linear::backward_input(weight, self.anchors.view())?,
            cameras: None,
        };
        if let (Some(grad), Some(cameras)) = (&self.cameras, cameras) {
            gradients.layer.weight += &linear::backward_weight(grad.view(), cameras)?;
            gradients.cameras = Some(linear::backward_input(weight, grad.view())?);
        }
        Ok(gradients)
    }
}

/// The order of the weights of one anchor (point, camera, level, group), and that of its logits (camera, level, point, group).
#[derive(Clone, Copy)]
struct Order {
    points: usize,
    cameras: usize,
    levels: usize,
    groups: usize,
}

/// A (point, camera, level) of an anchor.
#[derive(Clone, Copy)]
struct Place {
    point: usize,
    camera: usize,
    /// The first of its groups among the weights of the anchor.
    weight: usize,
    /// The first of its groups among the logits of the camera.
    logit: usize,
}

impl Order {
    fn of(shape: &AggregationShape) -> Self {
        Self {
            points: shape.points(),
            cameras: shape.layout().cameras(),
            levels: shape.layout().levels(),
            groups: shape.groups(),
        }
    }

    /// Weights of an anchor.
    fn weights(self) -> usize {
        self.cameras * self.logits()
    }

    /// Logits of an anchor in one camera.
    fn logits(self) -> usize {
        self.levels * self.points * self.groups
    }

    /// All places in the order of the weights.
    fn places(self) -> impl Iterator<Item = Place> {
        (0..self.points * self.cameras * self.levels).map(move |index| {
            let (pair, level) = (index / self.levels, index % self.levels);
            let (point, camera) = (pair / self.cameras, pair % self.cameras);
            let logit = (level * self.points + point) * self.groups;
            Place { point, camera, weight: index * self.groups, logit }
        })
    }
}

/// The attention weights before dropout, in the order of the operator's.
///
/// `left_out`, (batch, anchors, points, cameras), says which pairs get none; it must not leave out all cameras of a point.
pub(super) fn softmax<T: Element>(
    shape: &AggregationShape,
    logits: &Logits<T::Location>,
    left_out: Option<&[bool]>,
) -> Result<Vec<T>> {
    let order = Order::of(shape);
    let length = order.weights();
    let mut attention = zeros("attention weights", shape.batch() * shape.anchors() * length)?;
    attention.par_chunks_exact_mut(length).enumerate().for_each_init(
        || vec![T::Location::default(); length],
        |values, (anchor, attention)| {
            let pairs = order.points * order.cameras;
            let left_out = left_out.map(|left_out| &left_out[anchor * pairs..][..pairs]);
            gather(order, logits, anchor, anchor / shape.anchors(), values);
            if let Some(left_out) = left_out {
                for (values, _) in values
                    .chunks_exact_mut(order.levels * order.groups)
                    .zip(left_out)
                    .filter(|(_, left_out)| **left_out)
                {
                    values.fill(T::Location::neg_infinity());
                }
            }
            for group in 0..order.groups {
                normalise(values, group, order.groups);
            }
            for (attention, &value) in attention.iter_mut().zip(&*values) {
                *attention = store(value);
            }
        },
    );
    Ok(attention)
}

/// The logits of an anchor in the order of the weights.
fn gather<R: Scalar>(
    order: Order,
    logits: &Logits<R>,
    anchor: usize,
    batch: usize,
    values: &mut [R],
) {
    let of_anchor = logits.anchors.row(anchor);
    let of_anchor = of_anchor.as_slice().expect("a row of a row-major array");
    for Place { camera, weight, logit, .. } in order.places() {
        let values = &mut values[weight..][..order.groups];
        let Some(cameras) = &logits.cameras else {
            let first = camera * order.logits() + logit;
            values.copy_from_slice(&of_anchor[first..][..order.groups]);
            continue;
        };
        let of_camera = cameras.row(batch * order.cameras + camera);
        let of_camera = of_camera.as_slice().expect("a row of a row-major array");
        let terms = of_anchor[logit..].iter().zip(&of_camera[logit..]);
        for (value, (&anchor, &camera)) in values.iter_mut().zip(terms) {
            *value = anchor + camera;
        }
    }
}

/// The softmax of every `groups`-th value from `group` on.
fn normalise<R: Scalar>(values: &mut [R], group: usize, groups: usize) {
    let of_group = || (group..).step_by(groups);
    let count = values.len() / groups;
    let largest = of_group().take(count).fold(R::neg_infinity(), |largest, index| {
        // A NaN does not become the largest; it shows in the sum.
        if values[index] > largest { values[index] } else { largest }
    });
    let mut sum = R::zero();
    for index in of_group().take(count) {
        values[index] = (values[index] - largest).exp();
        sum += values[index];
    }
    for index in of_group().take(count) {
        values[index] /= sum;
    }
}

/// The attention weights after dropout.
pub(super) fn drop_out<T: Element>(
    shape: &AggregationShape,
    attention: &[T],
    dropout: &Dropout<T::Location>,
) -> Result<Vec<T>> {
    let order = Order::of(shape);
    let mut weights = zeros("attention weights", attention.len())?;
    weights
        .par_chunks_exact_mut(order.weights())
        .zip(attention.par_chunks_exact(order.weights()))
        .enumerate()
        .for_each(|(anchor, (weights, attention))| {
            for place in order.places().filter(|&place| is_kept(order, dropout, anchor, place)) {
                let attention = &attention[place.weight..][..order.groups];
                for (weight, &attention) in weights[place.weight..].iter_mut().zip(attention) {
                    *weight = store(load(attention) * dropout.scale);
                }
            }
        });
    Ok(weights)
}

fn is_kept<R>(order: Order, dropout: &Dropout<R>, anchor: usize, place: Place) -> bool {
    dropout.kept[(anchor * order.cameras + place.camera) * order.points + place.point]
}

/// The gradients of the logits from those of the weights after dropout.
///
/// `attention` are the weights before dropout; `with_cameras` says whether the logits have a term of the cameras.
pub(super) fn backward<T: Element>(
    shape: &AggregationShape,
    attention: &[T],
    grad_weights: &[T],
    dropout: Option<&Dropout<T::Location>>,
    with_cameras: bool,
) -> Result<Logits<T::Location>> {
    let order = Order::of(shape);
    let columns = if with_cameras { order.logits() } else { order.weights() };
    let mut grad_anchors =
        zero_array("logit gradient", (shape.batch() * shape.anchors(), columns))?;
    let mut grad_cameras = if with_cameras {
        let rows = shape.batch() * order.cameras;
        Some(zero_array("logit gradient", (rows, order.logits()))?)
    } else {
        None
    };
    for batch in 0..shape.batch() {
        let first = batch * shape.anchors();
        let mut grads = grad_anchors.slice_mut(ndarray::s![first..first + shape.anchors(), ..]);
        let partial_sums: Vec<Vec<T::Location>> = grads
            .axis_chunks_iter_mut(Axis(0), ANCHORS)
            .into_par_iter()
            .enumerate()
            .map(|(chunk, mut grads)| {
                let mut of_cameras =
                    vec![T::Location::default(); if with_cameras { order.weights() } else { 0 }];
                let mut values = vec![T::Location::default(); order.weights()];
                for (anchor, mut grad) in (first + chunk * ANCHORS..).zip(grads.rows_mut()) {
                    let range = anchor * order.weights()..(anchor + 1) * order.weights();
                    let attention = &attention[range.clone()];
                    for (value, &grad) in values.iter_mut().zip(&grad_weights[range]) {
                        *value = load(grad);
                    }
                    if let Some(dropout) = dropout {
                        for place in order.places() {
                            let kept = is_kept(order, dropout, anchor, place);
                            let factor = if kept { dropout.scale } else { T::Location::default() };
                            for value in &mut values[place.weight..][..order.groups] {
                                *value *= factor;
                            }
                        }
                    }
                    for group in 0..order.groups {
                        normalise_backward(attention, &mut values, group, order.groups);
                    }
                    let grad = grad.as_slice_mut().expect("a row of a row-major array");
                    scatter(order, &values, grad, with_cameras.then_some(&mut of_cameras));
                }
                of_cameras
            })
            .collect();
        if let Some(grads) = &mut grad_cameras {
            let rows = batch * order.cameras..(batch + 1) * order.cameras;
            let mut grads = grads.slice_mut(ndarray::s![rows, ..]);
            // In the order of the anchors, whichever task was first.
            for sums in &partial_sums {
                for (grad, &sum) in grads.iter_mut().zip(sums) {
                    *grad += sum;
                }
            }
        }
    }
    Ok(Logits { anchors: grad_anchors, cameras: grad_cameras })
}

/// Turns gradients of the weights of a group into those of its logits.
fn normalise_backward<T: Element>(
    attention: &[T],
    grads: &mut [T::Location],
    group: usize,
    groups: usize,
) {
    let of_group = || (group..attention.len()).step_by(groups);
    let mean = of_group()
        .fold(T::Location::default(), |sum, index| sum + load(attention[index]) * grads[index]);
    for index in of_group() {
        grads[index] = load(attention[index]) * (grads[index] - mean);
    }
}

/// Adds gradients in the order of the weights to those of the two terms.
fn scatter<R: Scalar>(
    order: Order,
    values: &[R],
    of_anchor: &mut [R],
    mut of_cameras: Option<&mut Vec<R>>,
) {
    for Place { camera, weight, logit, .. } in order.places() {
        let own = camera * order.logits() + logit;
        let values = &values[weight..][..order.groups];
        let common = if of_cameras.is_some() { logit } else { own };
        for (sum, &value) in of_anchor[common..].iter_mut().zip(values) {
            *sum += value;
        }
        if let Some(of_cameras) = &mut of_cameras {
            for (sum, &value) in of_cameras[own..].iter_mut().zip(values) {
                *sum += value;
            }
        }
    }
}
