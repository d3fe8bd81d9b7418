//! Files of key points: both generators, other frames, and the gradients of all that.

use anyhow::Result;
use deformable_aggregation::block::{
    DeformableFeatureAggregation, Motion, YawOrder, move_key_points, move_key_points_backward,
    project_anchors, project_anchors_backward, time_intervals,
};
use deformable_aggregation::{DType, Element, Scalar};
use ndarray::{Array, Array3, Axis, Dimension, s};

use super::{Check, Plan, not_compared};
use crate::block::vectors::{GeneratorCase, KeyPointCase};
use crate::block::{NamedArrays, wide};
use crate::compare::{block_bound, compare};

/// Compares a case in fp64 and fp32, the types of geometry.
pub(super) fn key_point_case(
    plan: &Plan,
    case: &KeyPointCase,
    checks: &mut Vec<Check>,
) -> Result<()> {
    let before = checks.len();
    for dtype in [DType::F64, DType::F32] {
        if !plan.dtypes.contains(&dtype) {
            continue;
        }
        let actual =
            if dtype == DType::F64 { results::<f64>(case)? } else { results::<f32>(case)? };
        for (name, expected) in &case.expected {
            let values = actual.iter().find(|(other, _)| other == name);
            let largest = expected.iter().fold(0.0_f64, |largest, value| largest.max(value.abs()));
            let bound = block_bound(dtype, largest);
            let values = values.map_or(&[][..], |(_, values)| values);
            checks.push(Check {
                case: case.name.clone(),
                rule: "-".to_owned(),
                backend: "library".to_owned(),
                dtype: dtype.to_string(),
                quantity: name.clone(),
                measure: compare(values, expected, |_| Some(bound)),
                note: None,
            });
        }
    }
    if checks.len() == before {
        let note = "geometry is fp64 or fp32, and neither is chosen".to_owned();
        checks.push(not_compared(&case.name, note));
    }
    Ok(())
}

/// Everything that a file of key points has results for.
fn results<R: Scalar + Element>(case: &KeyPointCase) -> Result<NamedArrays> {
    let mut results = NamedArrays::new();
    let mut grad_instances = Array3::<R>::zeros(case.instance_feature.raw_dim());
    for generator in &case.generators {
        let (more, grad) = of_generator::<R>(case, generator)?;
        results.extend(more);
        grad_instances += &grad;
    }
    results.push(("grad.instance_feature".to_owned(), wide(&grad_instances)));
    Ok(results)
}

/// The results of one generator, and its share of the gradient of the instances.
fn of_generator<R: Scalar>(
    case: &KeyPointCase,
    data: &GeneratorCase,
) -> Result<(NamedArrays, Array3<R>)> {
    let kind = data.kind;
    let mut block = DeformableFeatureAggregation::<R>::new(data.config.clone(), 0)?;
    for ((_, mut to), (_, from)) in
        block.parameters_mut().named_mut().into_iter().zip(data.parameters.named())
    {
        to.assign(&from.mapv(R::from_f64));
    }
    let (anchor, instances) = (rounded(&data.anchor), rounded(&case.instance_feature));
    let generator = block.key_points_generator();
    let points = generator.key_points(anchor.view(), instances.view())?;
    let boxes = kind == "box";
    let velocity = boxes.then(|| anchor.slice(s![.., .., 8..]));

    let mut grad_points = rounded::<R, _>(&data.grad_key_points);
    let mut grad_anchor = Array3::zeros(anchor.raw_dim());
    let names = [
        "key_points_moved",
        "anchor_projected",
        "anchor_projected_static",
        "anchor_projected_swapped",
    ];
    let mut frames: [Vec<f64>; 4] = Default::default();
    for (frame, transform) in rounded::<R, _>(&case.transforms).outer_iter().enumerate() {
        // The oracle subtracts in fp64 and rounds to fp32, in whichever type it goes on.
        let interval = time_intervals::<f32>(case.time_now.view(), case.time_other.row(frame))?;
        let interval = interval.mapv(|seconds| R::from_f64(seconds.into()));
        let motion = Motion { transform, interval: boxes.then_some(interval.view()) };
        let still = Motion { transform, interval: None };
        let project = |motion: &Motion<'_, R>, order| {
            project_anchors(&data.config.kps_generator, anchor.view(), motion, order)
        };
        let moved = move_key_points(points.view(), velocity, &motion)?;
        frames[0].extend(wide(&moved));
        frames[1].extend(wide(&project(&motion, YawOrder::SinCos)?));
        if boxes {
            frames[2].extend(wide(&project(&still, YawOrder::SinCos)?));
            frames[3].extend(wide(&project(&motion, YawOrder::CosSin)?));
        }

        let grad_moved = rounded(&data.grad_moved.index_axis(Axis(0), frame).to_owned());
        let (grad, grad_velocity) = move_key_points_backward(grad_moved.view(), velocity, &motion)?;
        grad_points += &grad;
        if let Some(grad_velocity) = grad_velocity {
            let mut grad = grad_anchor.slice_mut(s![.., .., 8..]);
            grad += &grad_velocity;
        }
        let grad = rounded(&data.grad_projected.index_axis(Axis(0), frame).to_owned());
        let config = &data.config.kps_generator;
        grad_anchor += &project_anchors_backward(config, grad.view(), &motion, YawOrder::SinCos)?;
    }

    let gradients =
        generator.key_points_backward(anchor.view(), instances.view(), grad_points.view())?;
    grad_anchor += &gradients.anchor;
    let anchor_name = if boxes { "grad.anchor" } else { "grad.polyline_anchor" };
    let mut results = vec![
        (format!("{kind}.key_points"), wide(&points)),
        (anchor_name.to_owned(), wide(&grad_anchor)),
    ];
    for (name, values) in names.into_iter().zip(frames) {
        results.push((format!("{kind}.{name}"), values));
    }
    if let Some(layer) = gradients.learnable_fc {
        results.push((format!("grad.param.{kind}.learnable_fc.weight"), wide(&layer.weight)));
        results.push((format!("grad.param.{kind}.learnable_fc.bias"), wide(&layer.bias)));
    }
    Ok((results, gradients.instance_feature))
}

fn rounded<R: Scalar, D: Dimension>(array: &Array<f64, D>) -> Array<R, D> {
    array.mapv(R::from_f64)
}
