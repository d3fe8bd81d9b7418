//! Key points of anchors, and their gradients.

use ndarray::parallel::prelude::*;
use ndarray::{Array2, Array3, Array4, ArrayView2, ArrayView3, ArrayView4, Axis};

use super::config::{KeyPointsConfig, PolylineKeyPoints};
use super::linear;
use super::parameters::{BlockParameters, Linear};
use crate::element::Scalar;
use crate::error::Result;
use crate::memory::zero_array;
use crate::operator::{contiguous, slice};
use crate::shape::check_dim;

/// Numbers of a box anchor before its velocity.
pub(super) const BOX_NUMBERS: usize = 8;

/// Where they stand in a box anchor.
pub(super) mod field {
    /// X, Y, Z of the centre.
    pub(in crate::block) const CENTRE: usize = 0;
    /// Logarithms of W, L, H.
    pub(in crate::block) const LOG_SIZE: usize = 3;
    /// Sine of the yaw.
    pub(in crate::block) const SIN: usize = 6;
    /// Cosine of the yaw.
    pub(in crate::block) const COS: usize = 7;
    /// Velocity, to the end.
    pub(in crate::block) const VELOCITY: usize = 8;
}

/// Makes the key points of anchors: the counterpart of `SparseBox3DKeyPointsGenerator` and `SparsePoint3DKeyPointsGenerator`.
///
/// A block has one inside; [`DeformableFeatureAggregation::key_points_generator`](super::DeformableFeatureAggregation::key_points_generator)
/// lends it.
///
/// Box, point `i` of the anchor (X, Y, Z, log W, log L, log H, sin, cos, …), as in `Sparse4D`:
///
/// ```text
/// r = ρᵢ · (W, L, H),    ρᵢ = fix_scaleᵢ, and after these σ(learnable_fc(instance)ᵢ) − ½
/// pointᵢ = (cos · r₀ − sin · r₁ + X, sin · r₀ + cos · r₁ + Y, r₂ + Z)
/// ```
///
/// Sine and cosine are used as they are, not normalised. Polyline, vertex `s`, height `h`, learned point `j` with number
/// (s · heights + h) · num_learnable_pts + j:
///
/// ```text
/// point = (xₛ + o₀, yₛ + o₁, ground_height + fix_heightₕ),    o = learnable_fc(instance) of that number
/// ```
///
/// ```
/// use deformable_aggregation::block::{
///     BlockConfig, BoxKeyPoints, DeformableFeatureAggregation, KeyPointsConfig,
/// };
/// use deformable_aggregation::ndarray::{Array3, array};
///
/// let points = BoxKeyPoints { fix_scale: vec![[0.0; 3], [0.5, 0.0, 0.0]], ..Default::default() };
/// let config =
///     BlockConfig { kps_generator: KeyPointsConfig::Box(points), ..BlockConfig::default() };
/// let block = DeformableFeatureAggregation::<f64>::new(config, 0)?;
/// // Size (2, 1, 1), turned by 90°.
/// let anchor = array![[[10.0, 20.0, 1.0, 2.0_f64.ln(), 0.0, 0.0, 1.0, 0.0]]];
/// let instance_feature = Array3::zeros((1, 1, 256));
/// let generator = block.key_points_generator();
/// let key_points = generator.key_points(anchor.view(), instance_feature.view())?;
/// assert_eq!(key_points, array![[[[10.0, 20.0, 1.0], [10.0, 21.0, 1.0]]]]);
/// # Ok::<(), deformable_aggregation::Error>(())
/// ```
#[derive(Clone, Copy, Debug)]
pub struct KeyPointsGenerator<'a, R> {
    config: &'a KeyPointsConfig,
    fix_scale: Option<ArrayView2<'a, R>>,
    learnable_fc: Option<&'a Linear<R>>,
    embed_dims: usize,
}

/// The gradients of key points.
#[derive(Clone, Debug, PartialEq)]
pub struct KeyPointGradients<R> {
    /// (batch, anchors, numbers of an anchor)
    pub anchor: Array3<R>,
    /// (batch, anchors, embed_dims)
    pub instance_feature: Array3<R>,
    /// `None` where no points are learned.
    pub learnable_fc: Option<Linear<R>>,
}

impl<'a, R: Scalar> KeyPointsGenerator<'a, R> {
    /// A generator of checked parameters.
    pub(super) fn new(config: &'a KeyPointsConfig, parameters: &'a BlockParameters<R>) -> Self {
        Self {
            config,
            fix_scale: parameters.fix_scale.as_ref().map(|places| places.view()),
            learnable_fc: parameters.learnable_fc.as_ref(),
            embed_dims: parameters.output_proj.bias.len(),
        }
    }

    /// The key points, (batch, anchors, points, 3), of anchors (batch, anchors, numbers) with instance features
    /// (batch, anchors, embed_dims).
    ///
    /// # Errors
    ///
    /// [`Error::Dimensions`](crate::Error::Dimensions), [`Error::OutOfMemory`](crate::Error::OutOfMemory).
    pub fn key_points(
        &self,
        anchor: ArrayView3<'_, R>,
        instance_feature: ArrayView3<'_, R>,
    ) -> Result<Array4<R>> {
        let (batch, anchors, numbers) = self.check(&anchor, &instance_feature)?;
        let (anchor, instance_feature) = (contiguous(anchor)?, contiguous(instance_feature)?);
        let offsets = self.offsets(rows(slice(&instance_feature), self.embed_dims))?;
        let points = self.points(rows(slice(&anchor), numbers), offsets.as_ref())?;
        let dimensions = (batch, anchors, self.config.num_pts(), 3);
        Ok(points.into_shape_with_order(dimensions).expect("one row for each anchor"))
    }

    /// The gradients of `sum(key_points * grad_key_points)`; `grad_key_points` is (batch, anchors, points, 3).
    ///
    /// # Errors
    ///
    /// Those of [`key_points`](Self::key_points).
    pub fn key_points_backward(
        &self,
        anchor: ArrayView3<'_, R>,
        instance_feature: ArrayView3<'_, R>,
        grad_key_points: ArrayView4<'_, R>,
    ) -> Result<KeyPointGradients<R>> {
        let (batch, anchors, numbers) = self.check(&anchor, &instance_feature)?;
        let expected = [batch, anchors, self.config.num_pts(), 3];
        let axes = "(batch, anchors, points, 3)";
        check_dim("grad_key_points", axes, &expected, grad_key_points.shape())?;
        let (anchor, instance_feature) = (contiguous(anchor)?, contiguous(instance_feature)?);
        let grad_key_points = contiguous(grad_key_points)?;
        let instances = rows(slice(&instance_feature), self.embed_dims);
        let offsets = self.offsets(instances)?;
        let (grad_anchor, grad_offsets) = self.points_backward(
            rows(slice(&anchor), numbers),
            offsets.as_ref(),
            slice(&grad_key_points),
        )?;
        let (learnable_fc, grad_instances) = match grad_offsets {
            Some(grad_offsets) => self.offsets_backward(instances, grad_offsets.view())?,
            None => (None, zero_array("instance gradient", instances.raw_dim())?),
        };
        let shaped = |array: Array2<R>| {
            let dimensions = (batch, anchors, array.ncols());
            array.into_shape_with_order(dimensions).expect("one row for each anchor")
        };
        Ok(KeyPointGradients {
            anchor: shaped(grad_anchor),
            instance_feature: shaped(grad_instances),
            learnable_fc,
        })
    }

    /// Batch, anchors and numbers of an anchor.
    fn check(
        &self,
        anchor: &ArrayView3<'_, R>,
        instance_feature: &ArrayView3<'_, R>,
    ) -> Result<(usize, usize, usize)> {
        let (batch, anchors, _) = anchor.dim();
        let numbers = check_anchor("anchor", self.config, anchor.shape(), batch, anchors)?;
        let expected = [batch, anchors, self.embed_dims];
        let axes = "(batch, anchors, embed_dims)";
        check_dim("instance_feature", axes, &expected, instance_feature.shape())?;
        Ok((batch, anchors, numbers))
    }

    /// What the linear layer predicts for instances (rows, embed_dims), if there is one.
    pub(super) fn offsets(&self, instances: ArrayView2<'_, R>) -> Result<Option<Array2<R>>> {
        self.learnable_fc
            .map(|fc| linear::forward(fc.weight.view(), Some(fc.bias.view()), instances))
            .transpose()
    }

    /// The gradients of the linear layer and of the instances from those of its predictions.
    pub(super) fn offsets_backward(
        &self,
        instances: ArrayView2<'_, R>,
        grad_offsets: ArrayView2<'_, R>,
    ) -> Result<(Option<Linear<R>>, Array2<R>)> {
        let fc = self.learnable_fc.expect("there are predictions only with a layer");
        let gradients = linear::backward_layer(grad_offsets, instances)?;
        Ok((Some(gradients), linear::backward_input(fc.weight.view(), grad_offsets)?))
    }

    /// The key points, (rows, points · 3), of anchors (rows, numbers).
    pub(super) fn points(
        &self,
        anchors: ArrayView2<'_, R>,
        offsets: Option<&Array2<R>>,
    ) -> Result<Array2<R>> {
        let dimensions = (anchors.nrows(), 3 * self.config.num_pts());
        let mut points = zero_array("key points", dimensions)?;
        points.axis_iter_mut(Axis(0)).into_par_iter().enumerate().for_each(|(row, mut points)| {
            let anchor = anchors.row(row);
            let offsets = offsets.map_or(&[][..], |offsets| row_of(offsets, row));
            let anchor = anchor.as_slice().expect("made row-major on the way in");
            let points = points.as_slice_mut().expect("rows of a row-major array");
            let (points, _) = points.as_chunks_mut();
            match self.config {
                KeyPointsConfig::Box(_) => self.in_box(anchor, offsets, points),
                KeyPointsConfig::Polyline(line) => along_line(line, anchor, offsets, points),
            }
        });
        Ok(points)
    }

    /// The gradients of anchors, (rows, numbers), and predictions, from those of the key points.
    pub(super) fn points_backward(
        &self,
        anchors: ArrayView2<'_, R>,
        offsets: Option<&Array2<R>>,
        grad_points: &[R],
    ) -> Result<(Array2<R>, Option<Array2<R>>)> {
        let mut grad_anchors = zero_array("anchor gradient", anchors.raw_dim())?;
        // Without predictions there is a row of none for every anchor.
        let predictions = (anchors.nrows(), offsets.map_or(0, Array2::ncols));
        let mut grad_offsets = zero_array("offset gradient", predictions)?;
        let per_anchor = 3 * self.config.num_pts();
        (grad_anchors.axis_iter_mut(Axis(0)), grad_offsets.axis_iter_mut(Axis(0)))
            .into_par_iter()
            .enumerate()
            .for_each(|(row, (mut grad_anchor, mut grad_offsets))| {
                let anchor = anchors.row(row);
                let anchor = anchor.as_slice().expect("made row-major on the way in");
                let offsets = offsets.map_or(&[][..], |offsets| row_of(offsets, row));
                let (grad_points, _) = grad_points[row * per_anchor..][..per_anchor].as_chunks();
                let grad_anchor = grad_anchor.as_slice_mut().expect("a row of a row-major array");
                let grad_offsets = grad_offsets.as_slice_mut().expect("a row of a row-major array");
                match self.config {
                    KeyPointsConfig::Box(_) => {
                        self.in_box_backward(
                            anchor,
                            offsets,
                            grad_points,
                            grad_anchor,
                            grad_offsets,
                        );
                    }
                    KeyPointsConfig::Polyline(line) => {
                        along_line_backward(line, grad_points, grad_anchor, grad_offsets);
                    }
                }
            });
        Ok((grad_anchors, offsets.map(|_| grad_offsets)))
    }

    /// Place of point `index` of a box in fractions of its sides.
    fn place(&self, offsets: &[R], index: usize) -> [R; 3] {
        let fixed = self.fix_scale.map_or(0, |places| places.nrows());
        match (self.fix_scale, index.checked_sub(fixed)) {
            (Some(places), None) => [0, 1, 2].map(|axis| places[[index, axis]]),
            (_, learned) => {
                let first = 3 * learned.unwrap_or(index);
                [0, 1, 2].map(|axis| sigmoid(offsets[first + axis]) - R::from_f64(0.5))
            }
        }
    }

    fn in_box(&self, anchor: &[R], offsets: &[R], points: &mut [[R; 3]]) {
        let size = size(anchor);
        let (sin, cos) = (anchor[field::SIN], anchor[field::COS]);
        for (index, point) in points.iter_mut().enumerate() {
            let place = self.place(offsets, index);
            let [x, y, z] = [0, 1, 2].map(|axis| place[axis] * size[axis]);
            let turned = [cos * x - sin * y, sin * x + cos * y, z];
            *point = [0, 1, 2].map(|axis| turned[axis] + anchor[field::CENTRE + axis]);
        }
    }

    fn in_box_backward(
        &self,
        anchor: &[R],
        offsets: &[R],
        grad_points: &[[R; 3]],
        grad_anchor: &mut [R],
        grad_offsets: &mut [R],
    ) {
        let size = size(anchor);
        let (sin, cos) = (anchor[field::SIN], anchor[field::COS]);
        let fixed = self.fix_scale.map_or(0, |places| places.nrows());
        for (index, grad) in grad_points.iter().enumerate() {
            let place = self.place(offsets, index);
            let r = [0, 1, 2].map(|axis| place[axis] * size[axis]);
            let grad_r = [cos * grad[0] + sin * grad[1], cos * grad[1] - sin * grad[0], grad[2]];
            for axis in 0..3 {
                grad_anchor[field::CENTRE + axis] += grad[axis];
                // The derivative of a side by its logarithm is the side.
                grad_anchor[field::LOG_SIZE + axis] += grad_r[axis] * r[axis];
            }
            grad_anchor[field::SIN] += r[0] * grad[1] - r[1] * grad[0];
            grad_anchor[field::COS] += r[0] * grad[0] + r[1] * grad[1];
            if let Some(learned) = index.checked_sub(fixed) {
                for axis in 0..3 {
                    let sigmoid = place[axis] + R::from_f64(0.5);
                    let slope = sigmoid * (R::one() - sigmoid);
                    grad_offsets[3 * learned + axis] = grad_r[axis] * size[axis] * slope;
                }
            }
        }
    }
}

fn along_line<R: Scalar>(
    line: &PolylineKeyPoints,
    anchor: &[R],
    offsets: &[R],
    points: &mut [[R; 3]],
) {
    let learned = line.num_learnable_pts.max(1);
    let heights = line.fix_height.len();
    for (index, point) in points.iter_mut().enumerate() {
        let (vertex, height) = (index / learned / heights, index / learned % heights);
        let mut place = [anchor[2 * vertex], anchor[2 * vertex + 1]];
        if line.num_learnable_pts > 0 {
            place = [place[0] + offsets[2 * index], place[1] + offsets[2 * index + 1]];
        }
        let height = R::from_f64(line.fix_height[height]) + R::from_f64(line.ground_height);
        *point = [place[0], place[1], height];
    }
}

fn along_line_backward<R: Scalar>(
    line: &PolylineKeyPoints,
    grad_points: &[[R; 3]],
    grad_anchor: &mut [R],
    grad_offsets: &mut [R],
) {
    let per_vertex = line.num_learnable_pts.max(1) * line.fix_height.len();
    for (index, grad) in grad_points.iter().enumerate() {
        let vertex = index / per_vertex;
        for axis in 0..2 {
            grad_anchor[2 * vertex + axis] += grad[axis];
            if line.num_learnable_pts > 0 {
                grad_offsets[2 * index + axis] = grad[axis];
            }
        }
    }
}

/// Numbers in an anchor, if the array (batch, anchors, numbers) has the right number of them.
pub(super) fn check_anchor(
    argument: &'static str,
    config: &KeyPointsConfig,
    actual: &[usize],
    batch: usize,
    anchors: usize,
) -> Result<usize> {
    let (axes, numbers) = match config {
        KeyPointsConfig::Box(_) => ("(batch, anchors, 8 or more)", actual[2].max(BOX_NUMBERS)),
        KeyPointsConfig::Polyline(points) => {
            ("(batch, anchors, 2 * num_sample)", points.num_sample.saturating_mul(2))
        }
    };
    check_dim(argument, axes, &[batch, anchors, numbers], actual)?;
    Ok(numbers)
}

/// Width, length and height of a box.
fn size<R: Scalar>(anchor: &[R]) -> [R; 3] {
    [0, 1, 2].map(|axis| anchor[field::LOG_SIZE + axis].exp())
}

fn sigmoid<R: Scalar>(value: R) -> R {
    (R::one() + (-value).exp()).recip()
}

/// Row-major numbers as rows of this length.
pub(super) fn rows<R>(values: &[R], length: usize) -> ArrayView2<'_, R> {
    ArrayView2::from_shape((values.len() / length, length), values).expect("whole rows")
}

fn row_of<R>(array: &Array2<R>, row: usize) -> &[R] {
    &array.as_slice().expect("made row-major")[row * array.ncols()..][..array.ncols()]
}
