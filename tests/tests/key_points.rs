//! Key points of both generators and their way into other frames: against golden vectors, and the errors.

use std::fs::File;

use deformable_aggregation::block::{
    BlockConfig, BoxKeyPoints, DeformableFeatureAggregation, KeyPointsConfig, Motion,
    PolylineKeyPoints, YawOrder, move_key_points, move_key_points_backward, project_anchors,
    project_anchors_backward, time_intervals,
};
use deformable_aggregation::{Error, Scalar};
use deformable_aggregation_tests::{array, open_golden};
use ndarray::{Array, Array1, Array2, Array3, Array4, Axis, Dimension, Ix4, Ix5, RemoveAxis, s};
use ndarray_npy::NpzReader;

/// Every entry within `bound` of the largest.
fn assert_near<R: Scalar, D: Dimension>(
    name: &str,
    actual: &Array<R, D>,
    expected: &Array<f64, D>,
    bound: f64,
) {
    assert_eq!(actual.shape(), expected.shape(), "{name}");
    let scale = expected.iter().fold(0.0_f64, |largest, value| largest.max(value.abs()));
    for (index, (&actual, expected)) in actual.iter().zip(expected).enumerate() {
        let actual: f64 = actual.into();
        assert!(
            (actual - expected).abs() <= bound * scale,
            "{name}, entry {index}: got {actual:e}, expected {expected:e} of {scale:e}"
        );
    }
}

fn read<R: Scalar, D: Dimension>(file: &mut NpzReader<File>, name: &str) -> Array<R, D> {
    array::<f32, D>(file, name).mapv(|value| R::from_f64(value.into()))
}

/// A block of eight channels with the generator and its layer.
fn block<R: Scalar>(
    file: &mut NpzReader<File>,
    kps_generator: KeyPointsConfig,
    kind: &str,
) -> DeformableFeatureAggregation<R> {
    let config = BlockConfig { embed_dims: 8, kps_generator, ..BlockConfig::default() };
    let mut block = DeformableFeatureAggregation::new(config, 0).expect("valid settings");
    let layer = block.parameters_mut().learnable_fc.as_mut().expect("learned points");
    layer.weight = read(file, &format!("param.{kind}.learnable_fc.weight"));
    layer.bias = read(file, &format!("param.{kind}.learnable_fc.bias"));
    block
}

fn boxes(places: &Array2<f64>) -> KeyPointsConfig {
    KeyPointsConfig::Box(BoxKeyPoints {
        num_learnable_pts: 2,
        fix_scale: places.rows().into_iter().map(|row| [row[0], row[1], row[2]]).collect(),
    })
}

/// Compares one generator, `box` or `polyline`, with the golden file. Returns the gradient of the instances, of which the file has the
/// sum over both.
fn golden<R: Scalar>(kind: &str, bound: f64) -> Array3<R> {
    let file = &mut open_golden("kps_temporal");
    let (anchor_name, config) = if kind == "box" {
        ("anchor", boxes(&read(file, "fix_scale")))
    } else {
        let heights: Array1<f64> = read(file, "fix_height");
        let line = PolylineKeyPoints {
            num_sample: 3,
            num_learnable_pts: 2,
            fix_height: heights.to_vec(),
            ground_height: 0.0,
        };
        ("polyline_anchor", KeyPointsConfig::Polyline(line))
    };
    let block = block::<R>(file, config.clone(), kind);
    let generator = block.key_points_generator();
    let anchor: Array3<R> = read(file, anchor_name);
    let instance_feature: Array3<R> = read(file, "instance_feature");
    let points = generator.key_points(anchor.view(), instance_feature.view()).expect("fits");
    let expected: Array4<f64> = array(file, &format!("{kind}.key_points"));
    assert_near(kind, &points, &expected, bound);

    let velocity = (kind == "box").then(|| anchor.slice(s![.., .., 8..]).to_owned());
    let transforms: Array4<R> = read(file, "T");
    let now: Array1<f64> = array(file, "time_now");
    let others: Array2<f64> = array(file, "time_other");
    let mut grad_points: Array4<R> = read(file, &format!("grad.{kind}.key_points"));
    let mut grad_anchor = Array3::<R>::zeros(anchor.raw_dim());
    for frame in 0..transforms.dim().0 {
        // The file was computed from intervals in fp32.
        let interval = time_intervals::<f32>(now.view(), others.row(frame)).expect("one batch");
        let interval = interval.mapv(|seconds| R::from_f64(seconds.into()));
        let transform = transforms.index_axis(Axis(0), frame);
        let motion = Motion { transform, interval: Some(interval.view()) };
        let still = Motion { transform, interval: None };
        let velocity = velocity.as_ref().map(|velocity| velocity.view());

        let moved = move_key_points(points.view(), velocity, &motion).expect("fits");
        let name = format!("{kind}.key_points_moved");
        let expected = frame_of(array::<f64, Ix5>(file, &name), frame);
        assert_near(&name, &moved, &expected, bound);
        let grad = frame_of(read::<R, Ix5>(file, &format!("grad.{name}")), frame);
        let (points, velocities) =
            move_key_points_backward(grad.view(), velocity, &motion).expect("fits");
        grad_points += &points;
        if let Some(velocities) = velocities {
            let mut grad = grad_anchor.slice_mut(s![.., .., 8..]);
            grad += &velocities;
        }

        let motion = if kind == "box" { motion } else { still };
        let project = |motion: &Motion<'_, R>, order| {
            project_anchors(&config, anchor.view(), motion, order).expect("fits")
        };
        let mut check = |name: &str, projected: &Array3<R>| {
            let name = format!("{kind}.{name}");
            assert_near(&name, projected, &frame_of(array::<f64, Ix4>(file, &name), frame), bound);
        };
        check("anchor_projected", &project(&motion, YawOrder::SinCos));
        if kind == "box" {
            check("anchor_projected_static", &project(&still, YawOrder::SinCos));
            check("anchor_projected_swapped", &project(&motion, YawOrder::CosSin));
        }
        let grad = frame_of(read::<R, Ix4>(file, &format!("grad.{kind}.anchor_projected")), frame);
        grad_anchor += &project_anchors_backward(&config, grad.view(), &motion, YawOrder::SinCos)
            .expect("fits");
    }

    let gradients = generator
        .key_points_backward(anchor.view(), instance_feature.view(), grad_points.view())
        .expect("fits");
    grad_anchor += &gradients.anchor;
    let expected: Array3<f64> = array(file, &format!("grad.{anchor_name}"));
    assert_near("grad.anchor", &grad_anchor, &expected, bound);
    let layer = gradients.learnable_fc.expect("learned points");
    let name = format!("grad.param.{kind}.learnable_fc.");
    let expected: Array2<f64> = array(file, &format!("{name}weight"));
    assert_near("grad weight", &layer.weight, &expected, bound);
    let expected: Array1<f64> = array(file, &format!("{name}bias"));
    assert_near("grad bias", &layer.bias, &expected, bound);
    gradients.instance_feature
}

fn frame_of<A: Clone, D: RemoveAxis>(frames: Array<A, D>, frame: usize) -> Array<A, D::Smaller> {
    frames.index_axis_move(Axis(0), frame)
}

fn both_generators<R: Scalar>(bound: f64) {
    let instances = golden::<R>("box", bound) + golden::<R>("polyline", bound);
    let file = &mut open_golden("kps_temporal");
    let expected: Array3<f64> = array(file, "grad.instance_feature");
    assert_near("grad.instance_feature", &instances, &expected, bound);
}

#[test]
fn golden_file_in_fp64() {
    both_generators::<f64>(1e-11);
}

#[test]
fn golden_file_in_fp32() {
    both_generators::<f32>(3e-6);
}

#[test]
fn times_are_subtracted_before_they_are_rounded() {
    let now = Array1::from_vec(vec![1.5e9 + 0.25, 1.5e9]);
    let before = Array1::from_vec(vec![1.5e9, 1.5e9 + 0.5]);
    let intervals = time_intervals::<f32>(now.view(), before.view()).expect("one batch");
    assert_eq!(intervals.to_vec(), [0.25, -0.5]);
    let error = time_intervals::<f32>(now.view(), before.slice(s![..1]));
    assert_eq!(error, Err(dimensions("to", "(batch)", &[2], &[1])));
}

fn dimensions(
    argument: &'static str,
    axes: &'static str,
    expected: &[usize],
    actual: &[usize],
) -> Error {
    Error::Dimensions { argument, axes, expected: expected.to_vec(), actual: actual.to_vec() }
}

#[test]
fn arrays_that_do_not_fit_are_named() {
    let transform = Array3::<f64>::zeros((2, 4, 4));
    let interval = Array1::zeros(2);
    let motion = Motion { transform: transform.view(), interval: Some(interval.view()) };
    let still = Motion { interval: None, ..motion };
    let points = Array4::zeros((2, 3, 5, 3));
    let velocity = Array3::zeros((2, 3, 2));
    assert_eq!(
        move_key_points(points.view(), Some(velocity.view()), &motion),
        Err(dimensions("velocity", "(batch, anchors, 3)", &[2, 3, 3], &[2, 3, 2]))
    );
    assert_eq!(
        move_key_points(points.slice(s![.., .., .., ..2]), None, &motion),
        Err(dimensions("key_points", "(batch, anchors, points, 3)", &[2, 3, 5, 3], &[2, 3, 5, 2]))
    );
    assert_eq!(
        move_key_points_backward(points.slice(s![..1, .., .., ..]), None, &motion),
        Err(dimensions("transform", "(batch, 4, 4)", &[1, 4, 4], &[2, 4, 4]))
    );
    let short = Array1::zeros(1);
    let motion_of = |interval| Motion { transform: transform.view(), interval: Some(interval) };
    assert_eq!(
        move_key_points(points.view(), None, &motion_of(short.view())),
        Err(dimensions("interval", "(batch)", &[2], &[1]))
    );

    let config = KeyPointsConfig::default();
    let project = |numbers: usize, motion: &Motion<'_, f64>| {
        let anchors = Array3::zeros((2, 3, numbers));
        project_anchors(&config, anchors.view(), motion, YawOrder::SinCos)
    };
    let axes = "(batch, anchors, 8 or more)";
    assert_eq!(project(7, &still), Err(dimensions("anchor", axes, &[2, 3, 8], &[2, 3, 7])));
    let axes = "(batch, anchors, 8 + 3 velocities)";
    assert_eq!(project(10, &motion), Err(dimensions("anchor", axes, &[2, 3, 11], &[2, 3, 10])));
    assert!(project(10, &still).is_ok());
    assert!(matches!(project(12, &still), Err(Error::OutOfRange { argument: "anchor", .. })));
    let grad = Array3::zeros((2, 3, 6));
    let line = KeyPointsConfig::Polyline(PolylineKeyPoints::default());
    assert_eq!(
        project_anchors_backward(&line, grad.view(), &motion, YawOrder::SinCos),
        Err(dimensions(
            "grad_projected",
            "(batch, anchors, 2 * num_sample)",
            &[2, 3, 40],
            &[2, 3, 6]
        ))
    );

    let config = BlockConfig { embed_dims: 8, ..BlockConfig::default() };
    let block = DeformableFeatureAggregation::<f64>::new(config, 0).expect("valid settings");
    let generator = block.key_points_generator();
    let (anchor, instance) = (Array3::zeros((2, 3, 11)), Array3::zeros((2, 3, 8)));
    let axes = "(batch, anchors, embed_dims)";
    assert_eq!(
        generator.key_points(anchor.view(), instance.slice(s![.., .., ..7])),
        Err(dimensions("instance_feature", axes, &[2, 3, 8], &[2, 3, 7]))
    );
    let grad = Array4::zeros((2, 3, 2, 3));
    let axes = "(batch, anchors, points, 3)";
    assert_eq!(
        generator.key_points_backward(anchor.view(), instance.view(), grad.view()),
        Err(dimensions("grad_key_points", axes, &[2, 3, 1, 3], &[2, 3, 2, 3]))
    );
}
