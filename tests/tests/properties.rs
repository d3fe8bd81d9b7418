//! Random sizes: every backend against the exact sums, gradients against differences, packing against unpacking.

use deformable_aggregation::{
    AggregationShape, Backend, BorderRule, DType, DeformableAggregation, Element, FeatureLayout,
    Inputs, LevelShape, feature_maps_format, feature_maps_unformat, reference,
};
use deformable_aggregation_tests::{Case, Subject, check};
use half::{bf16, f16};
use ndarray::{Array, Array5};
use proptest::prelude::*;

fn rule() -> impl Strategy<Value = BorderRule> {
    prop_oneof![Just(BorderRule::Operator), Just(BorderRule::GridSample)]
}

/// Maps of any small size, anywhere in an axis that may be longer than they need.
fn layout() -> impl Strategy<Value = FeatureLayout> {
    (1..4_usize, 1..4_usize).prop_flat_map(|(cameras, levels)| {
        let maps = cameras * levels;
        let size = prop::collection::vec((1..12_i64, 1..12_i64), maps);
        let start = prop::collection::vec(0..150_i64, maps);
        (size, start).prop_map(move |(sizes, starts)| {
            let flat = sizes.into_iter().flat_map(|(height, width)| [height, width]).collect();
            let shapes =
                Array::from_shape_vec((cameras, levels, 2), flat).expect("two for each map");
            let starts =
                Array::from_shape_vec((cameras, levels), starts).expect("one for each map");
            FeatureLayout::new(shapes.view(), starts.view(), 150 + 11 * 11).expect("room for all")
        })
    })
}

fn shape() -> impl Strategy<Value = AggregationShape> {
    (layout(), 1..3_usize, 1..8_usize, 1..5_usize, 1..5_usize, 1..12_usize).prop_map(
        |(layout, batch, anchors, points, groups, channels)| {
            AggregationShape::new(layout, batch, anchors, points, groups * channels, groups)
                .expect("small sizes")
        },
    )
}

fn all_match<T: Element>(case: &Case<f64>, rule: BorderRule) -> Result<(), TestCaseError> {
    let case = case.cast::<T>();
    let (inputs, upstream) = (case.inputs(), case.grad_output.view());
    let exact = reference::exact(&case.shape, rule, inputs, upstream).expect("arrays fit");
    let scale = reference::magnitudes(&case.shape, rule, inputs, upstream).expect("arrays fit");
    let names: &[_] = match T::DTYPE {
        DType::F64 => &["cpu"],
        _ => &[
            "cpu",
            "emulator",
            "emulator_repeatable",
            "emulator_naive",
            "cuda",
            "cuda_repeatable",
            "cuda_naive",
        ],
    };
    for subject in names.iter().filter_map(|name| Subject::open(name)) {
        let (output, gradients) = case.run(&subject, rule);
        check(&case.shape, &output, &gradients, &exact, &scale).map_err(|mismatch| {
            TestCaseError::fail(format!("{subject}, {}: {mismatch}", T::DTYPE))
        })?;
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn random_sizes_match_the_exact_sums(shape in shape(), seed: u64, rule in rule()) {
        let case = Case::random(shape, seed);
        all_match::<f64>(&case, rule)?;
        all_match::<f32>(&case, rule)?;
        all_match::<f16>(&case, rule)?;
        all_match::<bf16>(&case, rule)?;
    }

    /// Along each input the derivative of `sum(output * grad_output)` is the scalar product of the gradient and the step.
    #[test]
    fn gradients_are_those_of_central_differences(shape in shape(), seed: u64, rule in rule()) {
        let mut case = Case::random(shape.clone(), seed);
        move_off_the_lines(&mut case, rule);
        let step = Case::random(shape.clone(), !seed);
        for backend in [Backend::Reference, Backend::Cpu] {
            let operator = DeformableAggregation::new(shape.clone())
                .with_backend(backend)
                .with_border_rule(rule);
            let gradients = operator.backward(case.inputs(), case.grad_output.view()).unwrap();
            let along = |size: [f64; 3]| {
                let [f, l, w] = size;
                let feature_maps = &case.feature_maps + &(&step.feature_maps * f);
                let sampling_locations = &case.sampling_locations + &(&step.sampling_locations * l);
                let weights = &case.weights + &(&step.weights * w);
                let inputs = Inputs {
                    feature_maps: feature_maps.view(),
                    sampling_locations: sampling_locations.view(),
                    weights: weights.view(),
                };
                (operator.forward(inputs).unwrap() * &case.grad_output).sum()
            };
            let difference = |axis: usize, h: f64| {
                let mut size = [0.0; 3];
                size[axis] = h;
                let forth = along(size);
                size[axis] = -h;
                (forth - along(size)) / (2.0 * h)
            };
            let close = |actual: f64, expected: f64, scale: f64| {
                prop_assert!((actual - expected).abs() <= 1e-7 * (1.0 + scale), "{actual} {expected}");
                Ok(())
            };
            let product = &gradients.feature_maps * &step.feature_maps;
            close(difference(0, 1e-3), product.sum(), product.mapv(f64::abs).sum())?;
            // Linear between the lines, with squares where both coordinates move: a central difference is exact for both.
            let product = &gradients.sampling_locations * &step.sampling_locations;
            close(difference(1, STEP), product.sum(), product.mapv(f64::abs).sum())?;
            let product = &gradients.weights * &step.weights;
            close(difference(2, 1e-3), product.sum(), product.mapv(f64::abs).sum())?;
        }
    }

    #[test]
    fn unpacking_undoes_packing(
        batch in 0..3_usize,
        channels in 1..5_usize,
        groups in prop::collection::vec((1..4_usize, (1..6_usize, 1..6_usize)), 1..4),
    ) {
        // Neighbours of equal size come back as one group, so make them differ: the second level is as high as the group's number.
        let maps: Vec<Vec<Array5<f32>>> = groups
            .iter()
            .enumerate()
            .map(|(group, &(cameras, (height, width)))| {
                let map = |height, width, level: usize| {
                    let mut next = (group * 1000 + level * 100) as f32;
                    Array::from_shape_simple_fn((batch, cameras, channels, height, width), || {
                        next += 1.0;
                        next
                    })
                };
                vec![map(height, width, 0), map(group + 1, 2, 1)]
            })
            .collect();
        let views: Vec<Vec<_>> =
            maps.iter().map(|group| group.iter().map(|map| map.view()).collect()).collect();
        let packed = feature_maps_format(&views).unwrap();
        let cameras: usize = groups.iter().map(|(cameras, _)| cameras).sum();
        prop_assert_eq!(packed.layout.cameras(), cameras);
        prop_assert_eq!(feature_maps_unformat(packed.feature_maps.view(), &packed.layout).unwrap(), maps);
    }

    #[test]
    fn layouts_survive_the_way_through_tensors(layout in layout()) {
        let (shapes, starts) = (layout.spatial_shapes(), layout.scale_start_index());
        let again = FeatureLayout::new(shapes.view(), starts.view(), layout.num_feat());
        prop_assert_eq!(again, Ok(layout));
    }
}

/// Step of the differences along the locations.
const STEP: f64 = 1e-6;

/// Moves every location that a step of [`STEP`] could take over a line where the output bends or jumps.
fn move_off_the_lines(case: &mut Case<f64>, rule: BorderRule) {
    let layout = case.shape.layout();
    let near_a_line = |location: f64, camera: usize, axis: usize| {
        let near = |position: f64| (position - position.round()).abs() < 1e-4;
        let levels = (0..layout.levels()).map(|level| layout.shape(camera, level));
        let border = rule == BorderRule::Operator && near(location);
        border
            || levels.into_iter().any(|LevelShape { height, width }| {
                near(location * [width, height][axis] as f64 - 0.5)
            })
    };
    for ((_, _, _, camera, axis), location) in case.sampling_locations.indexed_iter_mut() {
        while near_a_line(*location, camera, axis) {
            *location += 3.1e-4;
        }
    }
}
