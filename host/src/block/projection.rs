//! From key points to where the cameras see them.

use ndarray::{Array2, s};
use rayon::prelude::*;

use super::camera::INPUTS;
use crate::element::Scalar;
use crate::error::Result;
use crate::memory::{zero_array, zeros};
use crate::shape::AggregationShape;

/// Key points of a batch item that one task of the backward pass takes.
const POINTS: usize = 128;

/// Depth below which a point is projected as if it had this depth.
const MIN_DEPTH: f64 = 1e-5;

/// One camera of one batch item.
#[derive(Clone, Copy, Debug)]
struct Camera<'a, R> {
    /// The 4 × 4 matrix row by row; the fourth row is not read.
    matrix: &'a [R],
    /// Width and height that image coordinates are divided by, if they are.
    image_wh: Option<[R; 2]>,
}

/// Where a camera sees a point.
#[derive(Clone, Copy, Debug)]
struct View<R> {
    /// In image fractions, x before y.
    location: [R; 2],
    /// Along the axis of the camera; not positive behind it.
    depth: R,
}

/// What the gradient of a location gives.
#[derive(Clone, Copy, Debug)]
struct ViewGradients<R> {
    /// Gradient of the point.
    point: [R; 3],
    /// Gradient of (X', Y', Z'), the point in the camera. That of the matrix is its outer product with (point, 1).
    in_camera: [R; 3],
}

/// All cameras of a batch.
#[derive(Clone, Copy, Debug)]
pub(super) struct Cameras<'a, R> {
    matrices: &'a [R],
    image_wh: Option<&'a [R]>,
    /// Of a batch item.
    count: usize,
    batch: usize,
    /// Key points of a batch item.
    points: usize,
}

/// Where the cameras see key points.
pub(super) struct Views<R> {
    /// (batch, anchors, points, cameras, 2), row-major.
    pub(super) locations: Vec<R>,
    /// (batch, anchors, points, cameras): whether the camera does not see the point while another one does.
    pub(super) left_out: Option<Vec<bool>>,
}

/// What the gradients of locations give.
pub(super) struct ProjectionGradients<R> {
    /// (batch, anchors, points, 3), row-major.
    pub(super) points: Vec<R>,
    /// (batch · cameras, 16)
    pub(super) matrices: Array2<R>,
}

impl<'a, R: Scalar> Cameras<'a, R> {
    /// From (batch, cameras, 4, 4) matrices and (batch, cameras, 2) sizes.
    pub(super) fn new(
        matrices: &'a [R],
        image_wh: Option<&'a [R]>,
        count: usize,
        shape: &AggregationShape,
    ) -> Self {
        let points = shape.anchors() * shape.points();
        Self { matrices, image_wh, count, batch: shape.batch(), points }
    }

    /// Projects key points (batch, anchors, points, 3); `with_outliers` asks for `left_out`.
    pub(super) fn views(&self, key_points: &[R], with_outliers: bool) -> Result<Views<R>> {
        let pairs = self.batch * self.points * self.count;
        let mut locations = zeros("sampling locations", 2 * pairs)?;
        let mut left_out = zeros("outliers", pairs)?;
        let (points, _) = key_points.as_chunks::<3>();
        let (of_pairs, _) = locations.as_chunks_mut::<2>();
        (
            of_pairs.par_chunks_exact_mut(self.count),
            left_out.par_chunks_exact_mut(self.count),
            points,
        )
            .into_par_iter()
            .enumerate()
            .for_each(|(index, (locations, left_out, &point))| {
                let mut seen = false;
                for number in 0..self.count {
                    let camera = self.camera(index / self.points, number);
                    let view = camera.view(point);
                    locations[number] = view.location;
                    left_out[number] = !camera.sees(&view);
                    seen |= !left_out[number];
                }
                if !seen {
                    left_out.fill(false);
                }
            });
        Ok(Views { locations, left_out: with_outliers.then_some(left_out) })
    }

    /// The gradients of key points and matrices from those of the locations, (batch, anchors, points, cameras, 2).
    pub(super) fn backward(
        &self,
        key_points: &[R],
        grad_locations: &[R],
    ) -> Result<ProjectionGradients<R>> {
        let mut points = zeros("key point gradient", key_points.len())?;
        let mut matrices = zero_array("projection matrix gradient", (self.batch * self.count, 16))?;
        let (key_points, _) = key_points.as_chunks::<3>();
        let (grad_locations, _) = grad_locations.as_chunks::<2>();
        let (grad_points, _) = points.as_chunks_mut::<3>();
        for batch in 0..self.batch {
            let range = batch * self.points..(batch + 1) * self.points;
            let pairs = range.start * self.count..range.end * self.count;
            let partial_sums: Vec<Vec<R>> = grad_points[range.clone()]
                .par_chunks_mut(POINTS)
                .zip(key_points[range].par_chunks(POINTS))
                .zip(grad_locations[pairs].par_chunks(POINTS * self.count))
                .map(|((grad_points, points), grads)| {
                    self.backward_points(batch, points, grads, grad_points)
                })
                .collect();
            // In the order of the points, whichever task was first.
            let rows = batch * self.count..(batch + 1) * self.count;
            let mut grad_matrices = matrices.slice_mut(s![rows, ..]);
            for sums in partial_sums {
                for (grad, sum) in grad_matrices.iter_mut().zip(sums) {
                    *grad += sum;
                }
            }
        }
        Ok(ProjectionGradients { points, matrices })
    }

    /// Adds to the gradients of some points of a batch item; returns their share of those of its matrices, (cameras, 16).
    fn backward_points(
        &self,
        batch: usize,
        points: &[[R; 3]],
        grad_locations: &[[R; 2]],
        grad_points: &mut [[R; 3]],
    ) -> Vec<R> {
        let mut grad_matrices = vec![R::zero(); 16 * self.count];
        let grad_locations = grad_locations.chunks_exact(self.count);
        for ((&point, grad_point), grads) in points.iter().zip(grad_points).zip(grad_locations) {
            for (number, &grad) in grads.iter().enumerate() {
                // Most points are not seen by most cameras. Their locations need not be finite, either.
                if grad == [R::zero(); 2] {
                    continue;
                }
                let gradients = self.camera(batch, number).backward(point, grad);
                for (sum, grad) in grad_point.iter_mut().zip(gradients.point) {
                    *sum += grad;
                }
                let grad_matrix = &mut grad_matrices[16 * number..][..INPUTS];
                for (grad_row, grad) in grad_matrix.chunks_exact_mut(4).zip(gradients.in_camera) {
                    let [x, y, z] = point;
                    for (sum, coordinate) in grad_row.iter_mut().zip([x, y, z, R::one()]) {
                        *sum += grad * coordinate;
                    }
                }
            }
        }
        grad_matrices
    }

    fn camera(&self, batch: usize, number: usize) -> Camera<'a, R> {
        Camera::new(self.matrices, self.image_wh, batch * self.count + number)
    }
}

impl<'a, R: Scalar> Camera<'a, R> {
    /// Camera number `index` of (batch, cameras, 4, 4) matrices and (batch, cameras, 2) sizes.
    fn new(matrices: &'a [R], image_wh: Option<&[R]>, index: usize) -> Self {
        Self {
            matrix: &matrices[16 * index..][..16],
            image_wh: image_wh.map(|sizes| [sizes[2 * index], sizes[2 * index + 1]]),
        }
    }

    /// The point in the camera: x · depth, y · depth, depth.
    fn transform(&self, point: [R; 3]) -> [R; 3] {
        [0, 1, 2].map(|row| {
            let row = &self.matrix[4 * row..][..4];
            row[0] * point[0] + row[1] * point[1] + row[2] * point[2] + row[3]
        })
    }

    fn view(&self, point: [R; 3]) -> View<R> {
        let [x, y, depth] = self.transform(point);
        let divisor = divisor(depth);
        let mut location = [x / divisor, y / divisor];
        if let Some([width, height]) = self.image_wh {
            location = [location[0] / width, location[1] / height];
        }
        View { location, depth }
    }

    /// Whether the camera sees the point: in front of it and inside the image. Without a size of the image there is no far border.
    fn sees(&self, view: &View<R>) -> bool {
        let far = if self.image_wh.is_some() { R::one() } else { R::infinity() };
        let inside = |coordinate: R| coordinate > R::zero() && coordinate < far;
        view.depth > R::from_f64(MIN_DEPTH) && view.location.into_iter().all(inside)
    }

    /// The gradients of a point from that of its location.
    fn backward(&self, point: [R; 3], grad_location: [R; 2]) -> ViewGradients<R> {
        let View { location, depth } = self.view(point);
        let divisor = divisor(depth);
        let [width, height] = self.image_wh.unwrap_or([R::one(); 2]);
        let x = grad_location[0] / (divisor * width);
        let y = grad_location[1] / (divisor * height);
        // Where the depth is clamped, it has no influence.
        let z = if depth >= R::from_f64(MIN_DEPTH) {
            -(location[0] * grad_location[0] + location[1] * grad_location[1]) / divisor
        } else {
            R::zero()
        };
        let in_camera = [x, y, z];
        let point = [0, 1, 2].map(|axis| {
            (0..3).fold(R::zero(), |sum, row| sum + self.matrix[4 * row + axis] * in_camera[row])
        });
        ViewGradients { point, in_camera }
    }
}

fn divisor<R: Scalar>(depth: R) -> R {
    let smallest = R::from_f64(MIN_DEPTH);
    // Unlike `max`, this keeps a NaN.
    if depth < smallest { smallest } else { depth }
}
