//! Anchors and their key points in another frame: the vehicle has moved, and so have the objects.

use ndarray::{Array1, Array2, Array3, Array4, ArrayView1, ArrayView3, ArrayView4, Axis, s};

use super::config::KeyPointsConfig;
use super::key_points::{check_anchor, field};
use crate::element::Scalar;
use crate::error::{Error, Result};
use crate::memory::zero_array;
use crate::shape::check_dim;

/// From one frame to another.
///
/// A point is first moved back along its velocity for the `interval`, then transformed:
///
/// ```text
/// point' = T[:3, :3] · (point − velocity · interval) + T[:3, 3]
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Motion<'a, R> {
    /// (batch, 4, 4): homogeneous coordinates of the frame left to those of the frame entered. The fourth row is not read.
    pub transform: ArrayView3<'a, R>,
    /// (batch): the time of the frame left minus that of the frame entered, see [`time_intervals`]. `None` for no motion of the
    /// objects.
    pub interval: Option<ArrayView1<'a, R>>,
}

/// The order of sine and cosine of the yaw in a projected anchor.
///
/// `Sparse4D` v3 writes them the other way round than it reads them, and its checkpoints were trained with that.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum YawOrder {
    /// Sine before cosine, as in every anchor.
    #[default]
    SinCos,
    /// Cosine before sine, as the published `Sparse4D` v3 has them after a projection.
    CosSin,
}

/// `from − to` for every batch item, subtracted in fp64 and only then rounded: times in seconds since 1970 have steps of 128 s in
/// fp32.
///
/// # Errors
///
/// [`Error::Dimensions`] if the two differ in length.
///
/// ```
/// use deformable_aggregation::block::time_intervals;
/// use deformable_aggregation::ndarray::array;
///
/// let (now, before) = (array![1.5e9 + 0.5], array![1.5e9]);
/// assert_eq!(time_intervals::<f32>(now.view(), before.view())?, array![0.5]);
/// # Ok::<(), deformable_aggregation::Error>(())
/// ```
pub fn time_intervals<R: Scalar>(
    from: ArrayView1<'_, f64>,
    to: ArrayView1<'_, f64>,
) -> Result<Array1<R>> {
    check_dim("to", "(batch)", from.shape(), to.shape())?;
    Ok((&from - &to).mapv(R::from_f64))
}

/// Key points, (batch, anchors, points, 3), in another frame. `velocity` is (batch, anchors, 3); `None` for points at rest.
///
/// # Errors
///
/// [`Error::Dimensions`], [`Error::OutOfMemory`].
///
/// ```
/// use deformable_aggregation::block::{Motion, move_key_points};
/// use deformable_aggregation::ndarray::{Array, array};
///
/// let key_points = array![[[[10.0, 0.0, 0.0]]]];
/// let velocity = array![[[2.0, 0.0, 0.0]]];
/// let transform = Array::eye(4).insert_axis(deformable_aggregation::ndarray::Axis(0));
/// let interval = array![0.5];
/// let motion = Motion { transform: transform.view(), interval: Some(interval.view()) };
/// // Half a second ago it was a metre behind.
/// let moved = move_key_points(key_points.view(), Some(velocity.view()), &motion)?;
/// assert_eq!(moved, array![[[[9.0, 0.0, 0.0]]]]);
/// # Ok::<(), deformable_aggregation::Error>(())
/// ```
pub fn move_key_points<R: Scalar>(
    key_points: ArrayView4<'_, R>,
    velocity: Option<ArrayView3<'_, R>>,
    motion: &Motion<'_, R>,
) -> Result<Array4<R>> {
    check_points("key_points", &key_points, velocity.as_ref(), motion)?;
    let mut moved = zero_array("moved key points", key_points.raw_dim())?;
    for (batch, mut moved) in moved.outer_iter_mut().enumerate() {
        moved.assign(&key_points.index_axis(Axis(0), batch));
        if let (Some(velocity), Some(interval)) = (&velocity, &motion.interval) {
            let interval = interval[batch];
            let shift = velocity.index_axis(Axis(0), batch).mapv(|speed| speed * interval);
            moved -= &shift.insert_axis(Axis(1));
        }
        let transform = motion.transform.index_axis(Axis(0), batch);
        for mut points in moved.outer_iter_mut() {
            let turned = points.dot(&transform.slice(s![..3, ..3]).t());
            points.assign(&(turned + transform.slice(s![..3, 3])));
        }
    }
    Ok(moved)
}

/// The gradients of key points and velocity from that of the moved key points, (batch, anchors, points, 3).
///
/// # Errors
///
/// Those of [`move_key_points`].
pub fn move_key_points_backward<R: Scalar>(
    grad_moved: ArrayView4<'_, R>,
    velocity: Option<ArrayView3<'_, R>>,
    motion: &Motion<'_, R>,
) -> Result<(Array4<R>, Option<Array3<R>>)> {
    check_points("grad_moved", &grad_moved, velocity.as_ref(), motion)?;
    let mut grad_points = zero_array("key point gradient", grad_moved.raw_dim())?;
    let grad_velocity =
        velocity.map(|velocity| zero_array("velocity gradient", velocity.raw_dim()));
    let mut grad_velocity = grad_velocity.transpose()?;
    for (batch, mut grad_points) in grad_points.outer_iter_mut().enumerate() {
        let transform = motion.transform.index_axis(Axis(0), batch);
        let grad_moved = grad_moved.index_axis(Axis(0), batch);
        for (mut grad, grad_moved) in grad_points.outer_iter_mut().zip(grad_moved.outer_iter()) {
            grad.assign(&grad_moved.dot(&transform.slice(s![..3, ..3])));
        }
        if let (Some(grad), Some(interval)) = (&mut grad_velocity, &motion.interval) {
            let interval = interval[batch];
            let sums = grad_points.sum_axis(Axis(1)).mapv(|sum| -sum * interval);
            grad.index_axis_mut(Axis(0), batch).assign(&sums);
        }
    }
    Ok((grad_points, grad_velocity))
}

/// Anchors, (batch, anchors, numbers), in another frame: centres are moved and transformed, yaw and velocity turned. Polylines have no
/// velocity; their vertices are transformed in the plane.
///
/// # Errors
///
/// [`Error::Dimensions`], also where a box with an interval has no velocity of three numbers; [`Error::OutOfRange`] for more than
/// three; [`Error::OutOfMemory`].
///
/// ```
/// use deformable_aggregation::block::{KeyPointsConfig, Motion, YawOrder, project_anchors};
/// use deformable_aggregation::ndarray::array;
///
/// // A quarter turn to the left, and a step forward.
/// let transform = array![[
///     [0.0, -1.0, 0.0, 1.0],
///     [1.0, 0.0, 0.0, 0.0],
///     [0.0, 0.0, 1.0, 0.0],
///     [0.0, 0.0, 0.0, 1.0]
/// ]];
/// let motion = Motion { transform: transform.view(), interval: None };
/// let anchor = array![[[3.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 1.0, 5.0, 0.0, 0.0]]];
/// let config = KeyPointsConfig::default();
/// let projected = project_anchors(&config, anchor.view(), &motion, YawOrder::SinCos)?;
/// assert_eq!(projected, array![[[1.0, 3.0, 0.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 5.0, 0.0]]]);
/// # Ok::<(), deformable_aggregation::Error>(())
/// ```
pub fn project_anchors<R: Scalar>(
    config: &KeyPointsConfig,
    anchor: ArrayView3<'_, R>,
    motion: &Motion<'_, R>,
    yaw_order: YawOrder,
) -> Result<Array3<R>> {
    let numbers = check_anchors("anchor", config, &anchor, motion)?;
    let mut projected = zero_array("projected anchors", anchor.raw_dim())?;
    for (batch, mut projected) in projected.outer_iter_mut().enumerate() {
        let (matrix, shift) = affine(config, numbers, motion, batch, yaw_order);
        projected.assign(&(anchor.index_axis(Axis(0), batch).dot(&matrix.t()) + shift));
    }
    Ok(projected)
}

/// The gradient of the anchors from that of the projected anchors, (batch, anchors, numbers).
///
/// # Errors
///
/// Those of [`project_anchors`].
pub fn project_anchors_backward<R: Scalar>(
    config: &KeyPointsConfig,
    grad_projected: ArrayView3<'_, R>,
    motion: &Motion<'_, R>,
    yaw_order: YawOrder,
) -> Result<Array3<R>> {
    let numbers = check_anchors("grad_projected", config, &grad_projected, motion)?;
    let mut grad = zero_array("anchor gradient", grad_projected.raw_dim())?;
    for (batch, mut grad) in grad.outer_iter_mut().enumerate() {
        let (matrix, _) = affine(config, numbers, motion, batch, yaw_order);
        grad.assign(&grad_projected.index_axis(Axis(0), batch).dot(&matrix));
    }
    Ok(grad)
}

/// The projection of an anchor as a matrix and a shift: every number of the projected anchor is a sum of numbers of the anchor.
fn affine<R: Scalar>(
    config: &KeyPointsConfig,
    numbers: usize,
    motion: &Motion<'_, R>,
    batch: usize,
    yaw_order: YawOrder,
) -> (Array2<R>, Array1<R>) {
    let transform = motion.transform.index_axis(Axis(0), batch);
    let mut matrix = Array2::zeros((numbers, numbers));
    let mut shift = Array1::zeros(numbers);
    match config {
        KeyPointsConfig::Box(_) => {
            let rotation = transform.slice(s![..3, ..3]);
            let centre = field::CENTRE..field::CENTRE + 3;
            matrix.slice_mut(s![centre.clone(), centre.clone()]).assign(&rotation);
            shift.slice_mut(s![centre.clone()]).assign(&transform.slice(s![..3, 3]));
            for side in field::LOG_SIZE..field::LOG_SIZE + 3 {
                matrix[[side, side]] = R::one();
            }
            let (sin, cos) = match yaw_order {
                YawOrder::SinCos => (field::SIN, field::COS),
                YawOrder::CosSin => (field::COS, field::SIN),
            };
            matrix[[cos, field::COS]] = rotation[[0, 0]];
            matrix[[cos, field::SIN]] = rotation[[0, 1]];
            matrix[[sin, field::COS]] = rotation[[1, 0]];
            matrix[[sin, field::SIN]] = rotation[[1, 1]];
            let velocity = field::VELOCITY..numbers;
            let turn = rotation.slice(s![..velocity.len(), ..velocity.len()]);
            matrix.slice_mut(s![velocity.clone(), velocity.clone()]).assign(&turn);
            if let Some(interval) = motion.interval {
                let back = rotation.mapv(|value| -value * interval[batch]);
                matrix.slice_mut(s![centre, velocity]).assign(&back);
            }
        }
        KeyPointsConfig::Polyline(_) => {
            for vertex in (0..numbers).step_by(2) {
                let plane = vertex..vertex + 2;
                let rotation = transform.slice(s![..2, ..2]);
                matrix.slice_mut(s![plane.clone(), plane.clone()]).assign(&rotation);
                shift.slice_mut(s![plane]).assign(&transform.slice(s![..2, 3]));
            }
        }
    }
    (matrix, shift)
}

fn check_points<R: Scalar>(
    argument: &'static str,
    points: &ArrayView4<'_, R>,
    velocity: Option<&ArrayView3<'_, R>>,
    motion: &Motion<'_, R>,
) -> Result<()> {
    let (batch, anchors, count, _) = points.dim();
    let axes = "(batch, anchors, points, 3)";
    check_dim(argument, axes, &[batch, anchors, count, 3], points.shape())?;
    if let Some(velocity) = velocity {
        let expected = [batch, anchors, 3];
        check_dim("velocity", "(batch, anchors, 3)", &expected, velocity.shape())?;
    }
    motion.check(batch)
}

/// Numbers of an anchor.
fn check_anchors<R: Scalar>(
    argument: &'static str,
    config: &KeyPointsConfig,
    anchors: &ArrayView3<'_, R>,
    motion: &Motion<'_, R>,
) -> Result<usize> {
    let (batch, count, _) = anchors.dim();
    motion.check(batch)?;
    let numbers = check_anchor(argument, config, anchors.shape(), batch, count)?;
    if let KeyPointsConfig::Box(_) = config {
        let longest = field::VELOCITY + 3;
        if motion.interval.is_some() {
            let axes = "(batch, anchors, 8 + 3 velocities)";
            check_dim(argument, axes, &[batch, count, longest], anchors.shape())?;
        } else if numbers > longest {
            return Err(Error::OutOfRange {
                argument,
                expected: "at most 3 velocities in an anchor",
                actual: (numbers - field::VELOCITY).to_string(),
            });
        }
    }
    Ok(numbers)
}

impl<R: Scalar> Motion<'_, R> {
    fn check(&self, batch: usize) -> Result<()> {
        check_dim("transform", "(batch, 4, 4)", &[batch, 4, 4], self.transform.shape())?;
        self.interval
            .map_or(Ok(()), |interval| check_dim("interval", "(batch)", &[batch], interval.shape()))
    }
}
