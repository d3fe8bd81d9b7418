//! Bad input of every kind gives the error that names it.

use deformable_aggregation::{
    AggregationShape, Algorithm, Backend, BorderRule, DType, DeformableAggregation, Error,
    FeatureLayout, Inputs, LevelShape, deformable_aggregation_function, feature_maps_format,
    feature_maps_unformat, reference,
};
use deformable_aggregation_tests::{Case, Sizes};
use ndarray::{Array2, Array3, Array5, Array6, array};

fn level(height: usize, width: usize) -> LevelShape {
    LevelShape { height, width }
}

fn layout_error(shapes: &Array3<i64>, starts: &Array2<i64>, num_feat: usize) -> Error {
    FeatureLayout::new(shapes.view(), starts.view(), num_feat).expect_err("a bad layout")
}

#[test]
fn layouts_whose_tensors_disagree() {
    let shapes = array![[[2, 3], [1, 1]]];
    assert_eq!(
        layout_error(&shapes, &array![[0]], 10),
        Error::Dimensions {
            argument: "scale_start_index",
            axes: "(cameras, levels)",
            expected: vec![1, 2],
            actual: vec![1, 1],
        }
    );
    assert_eq!(
        layout_error(&array![[[2, 3, 4]]], &array![[0]], 10),
        Error::Dimensions {
            argument: "spatial_shapes",
            axes: "(cameras, levels, 2)",
            expected: vec![1, 1, 2],
            actual: vec![1, 1, 3],
        }
    );
}

#[test]
fn maps_without_pixels() {
    for (height, width) in [(0, 3), (3, 0), (-1, 3), (3, i64::MIN)] {
        let shapes = array![[[1, 1], [height, width]]];
        assert_eq!(
            layout_error(&shapes, &array![[0, 0]], 10),
            Error::LevelSize { argument: "spatial_shapes", camera: 0, level: 1, height, width }
        );
    }
    assert!(matches!(
        FeatureLayout::uniform(2, &[level(2, 0)]),
        Err(Error::LevelSize { argument: "levels", height: 2, width: 0, .. })
    ));
}

#[test]
fn maps_outside_the_feature_axis() {
    let shapes = array![[[2, 3]]];
    for start in [-1, 5, 10, i64::MAX, i64::MIN] {
        assert_eq!(
            layout_error(&shapes, &array![[start]], 10),
            Error::Start { camera: 0, level: 0, start, pixels: 6, num_feat: 10 }
        );
    }
    FeatureLayout::new(shapes.view(), array![[4]].view(), 10).expect("the last six rows");
}

#[test]
fn sizes_beyond_the_address_space() {
    let big = i64::MAX;
    assert!(matches!(
        layout_error(&array![[[big, big]]], &array![[0]], 10),
        Error::TooLarge { argument: "spatial_shapes", .. }
    ));
    assert!(matches!(
        layout_error(&array![[[1, 1]]], &array![[0]], usize::MAX),
        Error::TooLarge { argument: "feature axis", .. }
    ));
    let half = usize::MAX / 2;
    assert!(matches!(
        FeatureLayout::uniform(2, &[level(1, half), level(1, 1)]),
        Err(Error::TooLarge { argument: "feature axis", .. })
    ));
    let layout = || FeatureLayout::uniform(1, &[level(4, 4)]).expect("16 pixels");
    let huge = 1 << 40;
    for (batch, anchors, points, argument) in [
        (huge, 1, 1 << 10, "feature_maps"),
        (huge, huge, 1, "feature_maps"),
        (1, huge, huge, "sampling_locations"),
        // An empty batch does not make the other sizes harmless.
        (0, huge, huge, "sampling_locations"),
    ] {
        match AggregationShape::new(layout(), batch, anchors, points, 1 << 20, 1) {
            Err(Error::TooLarge { argument: actual, .. }) => assert_eq!(actual, argument),
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn cameras_with_different_numbers_of_levels() {
    let cameras = [vec![level(2, 2), level(1, 1)], vec![level(2, 2)]];
    assert_eq!(
        FeatureLayout::packed(&cameras),
        Err(Error::Uneven {
            argument: "shapes_per_camera",
            index: 1,
            quantity: "levels",
            expected: 2,
            actual: 1,
        })
    );
}

#[test]
fn channels_that_the_groups_do_not_divide() {
    let new = |embed_dims, groups| {
        let layout = FeatureLayout::uniform(1, &[level(4, 4)]).expect("16 pixels");
        AggregationShape::new(layout, 1, 1, 1, embed_dims, groups)
    };
    assert_eq!(new(10, 4), Err(Error::Groups { embed_dims: 10, groups: 4 }));
    assert_eq!(new(4, 8), Err(Error::Groups { embed_dims: 4, groups: 8 }));
    assert_eq!(new(0, 1), Err(Error::Zero { argument: "embed_dims" }));
    assert_eq!(new(8, 0), Err(Error::Zero { argument: "groups" }));
}

fn case() -> Case<f32> {
    let sizes = Sizes {
        batch: 1,
        anchors: 2,
        points: 3,
        cameras: 2,
        levels: vec![(2, 3)],
        groups: 2,
        channels_per_group: 2,
    };
    Case::random(sizes.shape(), 0).cast()
}

/// The argument that an operator of the shape of `case()` complains about.
fn rejected(inputs: Inputs<'_, f32>, grad_output: &Array3<f32>) -> &'static str {
    let shape = case().shape;
    let mut arguments = Vec::new();
    for backend in [Backend::Reference, Backend::Cpu, Backend::Emulator] {
        let operator = DeformableAggregation::new(shape.clone()).with_backend(backend);
        for error in [
            operator.backward(inputs, grad_output.view()).err(),
            reference::exact(&shape, BorderRule::Operator, inputs, grad_output.view()).err(),
            reference::magnitudes(&shape, BorderRule::Operator, inputs, grad_output.view()).err(),
        ] {
            match error {
                Some(Error::Dimensions { argument, expected, actual, .. }) => {
                    assert_ne!(expected, actual);
                    arguments.push(argument);
                }
                other => panic!("{other:?}"),
            }
        }
        let forward = operator.forward(inputs).err();
        assert_eq!(forward.is_some(), arguments[0] != "grad_output");
        assert_eq!(operator.forward_with_context(inputs).err(), forward);
    }
    arguments.dedup();
    assert_eq!(arguments.len(), 1, "{arguments:?}");
    arguments[0]
}

#[test]
fn arrays_that_do_not_fit_the_shape() {
    let case = case();
    let good = case.inputs();
    let upstream = &case.grad_output;
    for dimensions in [(1, 12, 5), (1, 11, 4), (2, 12, 4)] {
        let wrong = Array3::zeros(dimensions);
        let inputs = Inputs { feature_maps: wrong.view(), ..good };
        assert_eq!(rejected(inputs, upstream), "feature_maps");
    }
    for dimensions in
        [(2, 2, 3, 2, 2), (1, 3, 3, 2, 2), (1, 2, 2, 2, 2), (1, 2, 3, 3, 2), (1, 2, 3, 2, 3)]
    {
        let wrong = Array5::zeros(dimensions);
        let inputs = Inputs { sampling_locations: wrong.view(), ..good };
        assert_eq!(rejected(inputs, upstream), "sampling_locations");
    }
    for dimensions in
        [[2, 2, 3, 2, 1, 2], [1, 1, 3, 2, 1, 2], [1, 2, 3, 2, 2, 2], [1, 2, 3, 2, 1, 4]]
    {
        let wrong = Array6::zeros(dimensions);
        let inputs = Inputs { weights: wrong.view(), ..good };
        assert_eq!(rejected(inputs, upstream), "weights");
    }
    for dimensions in [(1, 2, 5), (1, 3, 4), (2, 2, 4)] {
        assert_eq!(rejected(good, &Array3::zeros(dimensions)), "grad_output");
    }
}

#[test]
fn the_one_call_form_checks_the_arrays_against_each_other() {
    let features = Array3::<f32>::zeros((1, 12, 4));
    let shapes = array![[[2, 3]], [[2, 3]]];
    let starts = array![[0], [6]];
    let call = |locations: [usize; 5], weights: [usize; 6]| {
        deformable_aggregation_function(
            features.view(),
            shapes.view(),
            starts.view(),
            Array5::zeros(locations).view(),
            Array6::zeros(weights).view(),
        )
    };
    let output = call([1, 5, 3, 2, 2], [1, 5, 3, 2, 1, 2]).expect("arrays fit");
    assert_eq!(output.dim(), (1, 5, 4));
    let argument = |result: Result<_, Error>| match result {
        Err(Error::Dimensions { argument, .. }) => argument,
        other => panic!("{other:?}"),
    };
    assert_eq!(argument(call([1, 4, 3, 2, 2], [1, 5, 3, 2, 1, 2])), "sampling_locations");
    assert_eq!(argument(call([1, 5, 3, 1, 2], [1, 5, 3, 1, 1, 2])), "sampling_locations");
    assert_eq!(argument(call([1, 5, 3, 2, 2], [1, 5, 3, 2, 2, 2])), "weights");
    assert_eq!(argument(call([2, 5, 3, 2, 2], [2, 5, 3, 2, 1, 2])), "feature_maps");
    assert_eq!(
        call([1, 5, 3, 2, 2], [1, 5, 3, 2, 1, 3]),
        Err(Error::Groups { embed_dims: 4, groups: 3 })
    );
}

#[test]
fn maps_that_cannot_be_packed_together() {
    let map = Array5::<f32>::zeros((1, 2, 4, 3, 5));
    assert!(matches!(feature_maps_format::<f32>(&[]), Err(Error::Empty { .. })));
    assert!(matches!(feature_maps_format::<f32>(&[vec![]]), Err(Error::Empty { .. })));
    assert!(matches!(
        feature_maps_format(&[vec![map.view()], vec![map.view(), map.view()]]),
        Err(Error::Uneven { argument: "groups", index: 1, expected: 1, actual: 2, .. })
    ));
    for dimensions in [(2, 2, 4, 3, 5), (1, 2, 3, 3, 5)] {
        let other = Array5::<f32>::zeros(dimensions);
        assert!(matches!(
            feature_maps_format(&[vec![map.view()], vec![other.view()]]),
            Err(Error::Dimensions { argument: "groups", .. })
        ));
    }
    // The levels of a group are of the same cameras.
    let other = Array5::<f32>::zeros((1, 3, 4, 3, 5));
    assert!(feature_maps_format(&[vec![map.view(), other.view()]]).is_err());
    let empty = Array5::<f32>::zeros((1, 2, 4, 0, 5));
    assert!(matches!(
        feature_maps_format(&[vec![map.view(), empty.view()]]),
        Err(Error::LevelSize { argument: "groups", camera: 0, level: 1, height: 0, width: 5 })
    ));

    let packed = feature_maps_format(&[vec![map.view()]]).expect("maps fit");
    let short = packed.feature_maps.slice(ndarray::s![.., 1.., ..]);
    assert!(matches!(
        feature_maps_unformat(short, &packed.layout),
        Err(Error::Dimensions { argument: "feature_maps", .. })
    ));
}

#[test]
fn results_that_do_not_fit_the_memory() {
    // Anchors without points need no input, but more output than any machine has memory for.
    let anchors = 1 << 40;
    let layout = FeatureLayout::uniform(1, &[level(1, 1)]).expect("one pixel");
    let shape = AggregationShape::new(layout, 1, anchors, 0, 1 << 12, 1).expect("addressable");
    let features = Array3::<f32>::zeros((1, 1, 1 << 12));
    let (locations, weights) =
        (Array5::zeros((1, anchors, 0, 1, 2)), Array6::zeros((1, anchors, 0, 1, 1, 1)));
    let inputs = Inputs {
        feature_maps: features.view(),
        sampling_locations: locations.view(),
        weights: weights.view(),
    };
    for backend in [Backend::Reference, Backend::Cpu, Backend::Emulator] {
        let operator = DeformableAggregation::new(shape.clone()).with_backend(backend);
        assert_eq!(
            operator.forward(inputs),
            Err(Error::OutOfMemory { purpose: "output", place: "host", bytes: 1 << 54 })
        );
    }
}

#[test]
fn layouts_that_do_not_fit_the_memory() {
    let cameras = 1 << 60;
    assert!(matches!(
        FeatureLayout::uniform(cameras, &[level(1, 1)]),
        Err(Error::OutOfMemory { .. })
    ));
    let shapes = array![[[1, 1]]];
    let starts = array![[0]];
    assert!(matches!(
        FeatureLayout::new(
            shapes.broadcast((cameras, 1, 2)).expect("one axis of 1"),
            starts.broadcast((cameras, 1)).expect("one axis of 1"),
            1,
        ),
        Err(Error::OutOfMemory { .. })
    ));
    let no_batch = Array5::<f32>::zeros((0, cameras, 1, 1, 1));
    assert!(matches!(
        feature_maps_format(&[vec![no_batch.view()]]),
        Err(Error::OutOfMemory { .. })
    ));
    // Every camera reads all 2^20 pixels; together they are more than can be addressed.
    let cameras = 1 << 10;
    let shapes = array![[[1 << 10, 1 << 10]]];
    let layout = FeatureLayout::new(
        shapes.broadcast((cameras, 1, 2)).expect("one axis of 1"),
        starts.broadcast((cameras, 1)).expect("one axis of 1"),
        1 << 20,
    )
    .expect("one map for all");
    let pixel = Array3::<f32>::zeros((1, 1, 1));
    let packed = pixel.broadcast((1, 1 << 20, 1 << 40)).expect("axes of 1");
    assert!(matches!(feature_maps_unformat(packed, &layout), Err(Error::TooLarge { .. })));
}

#[test]
fn names_that_are_not_known() {
    let text = |error: Error| error.to_string();
    assert_eq!(
        "fp8".parse::<DType>().map_err(text),
        Err("dtype: expected one of fp64, fp32, fp16, bf16, got \"fp8\"".to_owned())
    );
    assert_eq!(
        "".parse::<BorderRule>().map_err(text),
        Err("border rule: expected one of op, grid, got \"\"".to_owned())
    );
    assert_eq!(
        "slow".parse::<Algorithm>().map_err(text),
        Err("algorithm: expected one of fast, repeatable, naive, got \"slow\"".to_owned())
    );
    for dtype in [DType::F64, DType::F32, DType::F16, DType::Bf16] {
        assert_eq!(dtype.to_string().parse(), Ok(dtype));
    }
}

#[test]
fn every_backend_is_listed_with_a_reason_if_it_is_not_usable() {
    let status = Backend::available();
    let names: Vec<_> = status.iter().map(|status| status.name).collect();
    assert_eq!(names, ["reference", "cpu", "emulator", "cuda"]);
    for status in status {
        let text = status.usable.unwrap_or_else(|why_not| why_not);
        assert!(!text.is_empty(), "{}", status.name);
    }
    match Backend::cuda(u32::MAX) {
        Err(Error::BackendUnavailable { backend: "cuda", reason, remedy }) => {
            assert!(!reason.is_empty() && !remedy.is_empty());
        }
        other => panic!("{other:?}"),
    }
}
