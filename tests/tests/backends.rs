//! Properties that every backend must have, in every element type. One body each, instantiated by `on_every_backend!`.

use deformable_aggregation::{
    AggregationShape, Algorithm, Backend, BorderRule, DType, Element, FeatureLayout, Gradients,
    Inputs, LevelShape, Scalar as _, reference,
};
use deformable_aggregation_tests::{Bound, Case, Sizes, Subject, on_every_backend};
use ndarray::{Array, Array3, ArrayView3, Dimension, s};

on_every_backend!(
    random_cases_match_the_exact_sums,
    shared_and_scattered_maps_match_the_exact_sums,
    backward_is_the_adjoint_of_forward,
    forward_repeats_bit_for_bit,
    repeatable_gradients_repeat_bit_for_bit,
    tiles_that_a_block_shares_match_the_exact_sums,
    maps_of_many_tiles_match_the_exact_sums,
    more_maps_than_a_warp_has_lanes_match_the_exact_sums,
    samples_that_touch_several_tiles_match_the_exact_sums,
    lists_of_every_length_match_the_exact_sums,
    pieces_of_lists_match_the_exact_sums,
    parts_of_anchors_match_the_exact_sums,
    more_rows_than_a_window_holds_match_the_exact_sums,
    border_of_the_operator_rule,
    rim_of_the_grid_sample_rule,
    positions_are_rounded_twice,
    locations_that_are_not_finite_are_skipped,
    weights_of_skipped_samples_are_ignored,
    weights_of_skipped_levels_are_ignored,
    not_a_number_spreads_from_counted_samples_only,
    not_a_number_spreads_to_touched_pixels_only,
    weights_of_almost_nothing_spread_not_a_number,
    infinities_stay_in_their_channels,
    coefficients_keep_their_bits,
    missing_corners_are_not_read,
    ties_are_rounded_to_even,
    more_elements_than_a_grid_has_threads,
    nothing_to_sum_gives_zeros,
    views_in_any_order_of_axes,
    arrays_that_begin_between_vectors,
);

const RULES: [BorderRule; 2] = [BorderRule::Operator, BorderRule::GridSample];

fn sizes() -> Vec<Sizes> {
    let sizes = |batch, anchors, points, cameras, levels: &[_], groups, channels_per_group| Sizes {
        batch,
        anchors,
        points,
        cameras,
        levels: levels.to_vec(),
        groups,
        channels_per_group,
    };
    vec![
        sizes(1, 1, 1, 1, &[(1, 1)], 1, 1),
        sizes(1, 3, 2, 1, &[(4, 6)], 1, 8),
        sizes(2, 5, 3, 2, &[(7, 5), (3, 3), (2, 1)], 8, 3),
        sizes(1, 9, 13, 3, &[(16, 44), (8, 22), (4, 11)], 8, 4),
        sizes(3, 4, 2, 2, &[(1, 9), (9, 1)], 2, 20),
        // The usual channels and groups; more rows than one task of the CPU backend takes.
        sizes(2, 6, 4, 2, &[(12, 20), (6, 10)], 8, 32),
        // More than one warp's worth of points, and channels that fill no vector.
        sizes(1, 2, 70, 1, &[(5, 8)], 5, 7),
        // More (point, camera) pairs than a block lists at a time, 512.
        sizes(1, 2, 70, 9, &[(3, 4)], 2, 1),
        // More channels than a tile has, 256: a group on both sides of the border, whole groups, a group of two tiles.
        sizes(2, 2, 3, 2, &[(3, 4)], 5, 57),
        sizes(1, 3, 3, 2, &[(4, 5), (2, 2)], 3, 128),
        sizes(1, 2, 3, 1, &[(3, 3)], 1, 512),
        // A tile that is not full; more samples than a warp stages at a time, and an odd number of them.
        sizes(1, 2, 3, 2, &[(4, 5), (3, 3), (2, 2)], 6, 32),
        sizes(1, 2, 63, 1, &[(6, 7), (4, 3), (2, 2)], 8, 32),
    ]
}

fn assert_matches<T: Element>(case: &Case<T>, subject: &Subject, rule: BorderRule) {
    let (output, gradients) = case.run(subject, rule);
    if let Err(mismatch) = case.check(rule, &output, &gradients) {
        panic!("{subject}, {}, rule {rule}, {:?}: {mismatch}", T::DTYPE, case.shape);
    }
}

fn random_cases_match_the_exact_sums<T: Element>(subject: &Subject) {
    for (seed, sizes) in (0..).zip(sizes()) {
        for rule in RULES {
            assert_matches(&Case::random(sizes.shape(), seed).cast::<T>(), subject, rule);
        }
    }
}

/// Camera 1 reads the maps of camera 0, level 1 overlaps level 0, and some rows belong to no map.
fn overlapping_layout() -> FeatureLayout {
    let shapes = Array3::from_shape_vec((2, 2, 2), vec![5, 6, 3, 4, 5, 6, 4, 3]).expect("2·2·2");
    let starts = Array::from_shape_vec((2, 2), vec![40, 50, 40, 3]).expect("2·2");
    FeatureLayout::new(shapes.view(), starts.view(), 80).expect("the maps lie inside")
}

fn shared_and_scattered_maps_match_the_exact_sums<T: Element>(subject: &Subject) {
    // Anchors, channels and groups; more channels than a tile has come in groups on both sides of its border.
    for (anchors, channels, groups) in [(20, 24, 4), (3, 285, 5), (3, 384, 3)] {
        let shape = AggregationShape::new(overlapping_layout(), 2, anchors, 3, channels, groups)
            .expect("sizes fit");
        for rule in RULES {
            assert_matches(&Case::random(shape.clone(), 5).cast::<T>(), subject, rule);
        }
    }
}

fn dot<D: Dimension>(a: &Array<f64, D>, b: &Array<f64, D>) -> f64 {
    (a * b).sum()
}

fn wide<T: Element, D: Dimension>(array: &Array<T, D>) -> Array<f64, D> {
    array.mapv(Element::to_f64)
}

/// The output is linear in the feature maps and in the weights, so ⟨op(v), u⟩ = ⟨v, op*(u)⟩ for each. No reference is asked.
fn backward_is_the_adjoint_of_forward<T: Element>(subject: &Subject) {
    for (seed, sizes) in (100..).zip(sizes()) {
        let case = Case::random(sizes.shape(), seed).cast::<T>();
        for rule in RULES {
            let (output, gradients) = case.run(subject, rule);
            let left = dot(&wide(&output), &wide(&case.grad_output));
            let features = dot(&wide(&case.feature_maps), &wide(&gradients.feature_maps));
            let weights = dot(&wide(&case.weights), &wide(&gradients.weights));
            // Each product is off by the rounding of its stored factor; the roundings of the sums are smaller.
            let scale = |a: f64| {
                a * (T::DTYPE.epsilon() + 8.0 * DType::F32.epsilon().min(T::DTYPE.epsilon()))
            };
            let absolute =
                |a: &Array3<f64>, b: &Array3<f64>| dot(&a.mapv(f64::abs), &b.mapv(f64::abs));
            let magnitudes =
                reference::magnitudes(&case.shape, rule, case.inputs(), case.grad_output.view())
                    .expect("arrays fit");
            let size = absolute(&magnitudes.output, &wide(&case.grad_output));
            // Numbers too small for full precision are off by their smallest step.
            let smallest =
                Bound::new(T::DTYPE, T::DTYPE, 1).smallest * case.feature_maps.len() as f64;
            let bound = scale(size) + smallest;
            assert!((left - features).abs() <= bound, "features: {left} {features} {bound}");
            assert!((left - weights).abs() <= bound, "weights: {left} {weights} {bound}");
        }
    }
}

fn bits<T: Element, D: Dimension>(array: &Array<T, D>) -> Vec<u64> {
    array.iter().map(|value| value.to_f64().to_bits()).collect()
}

/// Anchors of a few points each, two of so many that blocks share them, and lists so long that they are cut.
fn cases_to_repeat<T: Element>() -> [Case<T>; 3] {
    let many_points = Sizes { anchors: 2, points: 197, ..sizes()[4].clone() };
    let long_lists =
        Sizes { batch: 2, anchors: 30, points: 140, levels: vec![(2, 3)], ..sizes()[3].clone() };
    [sizes()[3].clone(), many_points, long_lists]
        .map(|sizes| Case::random(sizes.shape(), 1).cast::<T>())
}

fn forward_repeats_bit_for_bit<T: Element>(subject: &Subject) {
    // The published algorithm does not promise it: its atomics add in any order.
    if subject.algorithm == Algorithm::Naive {
        return;
    }
    for case in cases_to_repeat::<T>() {
        let operator = subject.operator(&case.shape);
        let first = operator.forward(case.inputs()).expect("arrays fit");
        for _ in 0..3 {
            let again = operator.forward(case.inputs()).expect("arrays fit");
            assert_eq!(bits(&first), bits(&again));
        }
    }
}

fn repeatable_gradients_repeat_bit_for_bit<T: Element>(subject: &Subject) {
    let on_gpu = !matches!(subject.backend, Backend::Reference | Backend::Cpu);
    if on_gpu && subject.algorithm != Algorithm::Repeatable {
        return;
    }
    for case in cases_to_repeat::<T>() {
        let first = case.run(subject, BorderRule::Operator).1;
        for _ in 0..3 {
            let again = case.run(subject, BorderRule::Operator).1;
            assert_eq!(bits(&first.feature_maps), bits(&again.feature_maps));
            assert_eq!(bits(&first.weights), bits(&again.weights));
            let locations = |gradients: &Gradients<T>| {
                gradients.sampling_locations.mapv(Into::<f64>::into).mapv(f64::to_bits)
            };
            assert_eq!(locations(&first), locations(&again));
        }
    }
}

/// Hundreds of samples around every pixel: the warps of a block share a tile, on maps with gaps between them.
fn tiles_that_a_block_shares_match_the_exact_sums<T: Element>(subject: &Subject) {
    let shapes = Array3::from_shape_vec((1, 2, 2), vec![3, 2, 1, 1]).expect("2·2");
    let starts = Array::from_shape_vec((1, 2), vec![9, 2]).expect("2");
    let layout = FeatureLayout::new(shapes.view(), starts.view(), 17).expect("the maps lie inside");
    for (channels, groups) in [(16, 4), (7, 7), (264, 33)] {
        let shape =
            AggregationShape::new(layout.clone(), 2, 30, 20, channels, groups).expect("fit");
        assert_matches(&Case::random(shape, 3).cast::<T>(), subject, BorderRule::Operator);
    }
}

/// Maps of many tiles, of which the last row and column have one pixel across: 65 by 65, and 129 by 129 with few samples, so
/// many that a warp of the gather has several.
fn maps_of_many_tiles_match_the_exact_sums<T: Element>(subject: &Subject) {
    for (side, batch, seen) in [(129_u16, 1, 10), (257, 2, 3)] {
        let level = LevelShape { height: side.into(), width: side.into() };
        let layout = FeatureLayout::uniform(1, &[level]).expect("has pixels");
        let shape = AggregationShape::new(layout, batch, 20, 10, 4, 1).expect("fit");
        let mut case = Case::random(shape, 8);
        case.sampling_locations.slice_mut(s![.., .., seen.., .., ..]).fill(-1.0);
        for anchor in 0..5 {
            // Left of the first column, between two rows that are in different tiles.
            let middle = f64::from(side / 2) / f64::from(side);
            case.sampling_locations[[0, anchor, 0, 0, 0]] = 0.3 / f64::from(side);
            case.sampling_locations[[0, anchor, 0, 0, 1]] = middle + 0.0002 * anchor as f64;
            // Right of the last column and below the last row.
            let end = 1.0 - 0.3 / f64::from(side);
            case.sampling_locations.slice_mut(s![0, anchor, 1, 0, ..]).fill(end);
        }
        assert_matches(&case.cast::<T>(), subject, BorderRule::Operator);
    }
}

/// 36 maps, in three sizes: some of their tiles are a warp's, some a block's.
fn more_maps_than_a_warp_has_lanes_match_the_exact_sums<T: Element>(subject: &Subject) {
    let levels = [(1, 1), (5, 7), (3, 2), (2, 3)];
    let levels = levels.map(|(height, width)| LevelShape { height, width });
    let layout = FeatureLayout::uniform(9, &levels).expect("has pixels");
    let shape = AggregationShape::new(layout, 2, 8, 10, 6, 2).expect("fit");
    assert_matches(&Case::random(shape, 6).cast::<T>(), subject, BorderRule::GridSample);
}

/// Most samples touch more tiles than one, and each tile has few of them: with a single camera that sees all, as many as there
/// can be.
fn samples_that_touch_several_tiles_match_the_exact_sums<T: Element>(subject: &Subject) {
    let levels = [(40, 40), (9, 9)].map(|(height, width)| LevelShape { height, width });
    for (anchors, points, channels, groups) in
        [(5, 40, 16, 2), (30, 3, 6, 2), (3, 5, 264, 33), (3, 5, 264, 8), (2, 3, 518, 14)]
    {
        let layout = FeatureLayout::uniform(1, &levels).expect("has pixels");
        let shape =
            AggregationShape::new(layout, 2, anchors, points, channels, groups).expect("sizes fit");
        let mut case = Case::random(shape, 11);
        // All are seen.
        case.sampling_locations.mapv_inplace(|x| f64::from(((x + 0.21) / 1.42) as f32));
        assert_matches(&case.cast::<T>(), subject, BorderRule::Operator);
    }
}

/// Lists of a few samples, of more than a warp has lanes, of thousands, and at last of more points than a warp has bits to sort
/// them by: it takes three turns; and a block for a long list two.
fn lists_of_every_length_match_the_exact_sums<T: Element>(subject: &Subject) {
    let levels = [(2, 3), (20, 30)].map(|(height, width)| LevelShape { height, width });
    for (anchors, points, every) in
        [(230, 2, 3), (3200, 1, 29), (3200, 1, 1), (5000, 14, 97), (10, 15_000, 60)]
    {
        let layout = FeatureLayout::uniform(1, &levels).expect("has pixels");
        let shape = AggregationShape::new(layout, 1, anchors, points, 2, 1).expect("fit");
        let mut case = Case::random(shape, 9);
        // Few are seen, the last one among them.
        let last = anchors * points - 1;
        for (number, mut location) in case.sampling_locations.rows_mut().into_iter().enumerate() {
            if number % every != last % every {
                location.fill(-1.0);
            }
        }
        case.sampling_locations.slice_mut(s![0, -1, -1, 0, ..]).fill(0.3);
        assert_matches(&case.cast::<T>(), subject, BorderRule::Operator);
    }
}

/// Lists of thousands of points, which are cut into pieces: of few anchors and of many, in tiles that a warp has and in those that a block
/// shares; the channels in one tile and in several.
fn pieces_of_lists_match_the_exact_sums<T: Element>(subject: &Subject) {
    // The published algorithm makes no lists, and takes a thread for each sample and channel.
    if subject.algorithm == Algorithm::Naive {
        return;
    }
    let levels = [(2, 3), (90, 90)].map(|(height, width)| LevelShape { height, width });
    for (anchors, points, channels, groups) in
        [(3, 1000, 16, 2), (1, 2100, 264, 33), (150, 15, 6, 2)]
    {
        let layout = FeatureLayout::uniform(1, &levels).expect("has pixels");
        let shape =
            AggregationShape::new(layout, 2, anchors, points, channels, groups).expect("sizes fit");
        let mut case = Case::random(shape, 21);
        // All are seen, those of the first batch item within two pixels of the large map.
        case.sampling_locations.mapv_inplace(|x| f64::from(((x + 0.21) / 1.42) as f32));
        let near = |x| f64::from((0.305 + 0.01 * x) as f32);
        case.sampling_locations.slice_mut(s![0, .., .., .., ..]).mapv_inplace(near);
        assert_matches(&case.cast::<T>(), subject, BorderRule::Operator);
    }
}

/// Few anchors of many points, which blocks share: three parts, of which the last has fewer points, and two; then with a single camera
/// that sees all, and at last so many points that the gradient of the features is added to memory.
fn parts_of_anchors_match_the_exact_sums<T: Element>(subject: &Subject) {
    let levels = [(20, 30), (6, 7)].map(|(height, width)| LevelShape { height, width });
    for (anchors, points, cameras, channels, groups) in
        [(2, 197, 2, 16, 2), (3, 130, 2, 264, 33), (1, 260, 1, 6, 2), (1, 2050, 1, 8, 1)]
    {
        let layout = FeatureLayout::uniform(cameras, &levels).expect("has pixels");
        let shape =
            AggregationShape::new(layout, 2, anchors, points, channels, groups).expect("sizes fit");
        let mut case = Case::random(shape, 14);
        if cameras == 1 {
            case.sampling_locations.mapv_inplace(|x| f64::from(((x + 0.21) / 1.42) as f32));
        }
        case.sampling_locations.slice_mut(s![.., .., 100, .., 0]).fill(f64::NAN);
        for rule in RULES {
            assert_matches(&case.cast::<T>(), subject, rule);
        }
    }
}

/// Anchors whose samples touch more distinct rows than a block holds at a time: 256, and fewer with many groups.
fn more_rows_than_a_window_holds_match_the_exact_sums<T: Element>(subject: &Subject) {
    let levels = [(24, 40), (12, 20), (3, 5)].map(|(height, width)| LevelShape { height, width });
    for (points, cameras, channels, groups) in
        [(63, 3, 8, 2), (150, 1, 8, 2), (20, 1, 96, 96), (6, 1, 300, 300)]
    {
        let layout = FeatureLayout::uniform(cameras, &levels).expect("has pixels");
        let shape = AggregationShape::new(layout, 1, 2, points, channels, groups).expect("fit");
        assert_matches(&Case::random(shape, 2).cast::<T>(), subject, BorderRule::Operator);
    }
}

/// One camera, one map, one channel and group, unit weights; `locations` are the points of as many anchors.
fn one_map<T: Element>(height: usize, width: usize, locations: &[[f64; 2]]) -> Case<T> {
    let layout = FeatureLayout::uniform(1, &[LevelShape { height, width }]).expect("has pixels");
    let shape = AggregationShape::new(layout, 1, locations.len(), 1, 1, 1).expect("sizes fit");
    let mut case = Case::random(shape, 0);
    case.feature_maps.fill(1.0);
    case.weights.fill(1.0);
    case.grad_output.fill(1.0);
    for (anchor, &[x, y]) in locations.iter().enumerate() {
        case.sampling_locations[[0, anchor, 0, 0, 0]] = x;
        case.sampling_locations[[0, anchor, 0, 0, 1]] = y;
    }
    case.cast()
}

fn assert_gradients_are_zero<T: Element>(gradients: &Gradients<T>) {
    assert!(gradients.feature_maps.iter().all(T::is_zero));
    assert!(gradients.weights.iter().all(T::is_zero));
    assert!(gradients.sampling_locations.iter().all(|&value| value.into() == 0.0));
}

fn border_of_the_operator_rule<T: Element>(subject: &Subject) {
    let below_one = f64::from(1.0_f32.next_down());
    let skipped =
        [[0.0, 0.5], [-0.0, 0.5], [1.0, 0.5], [0.5, 0.0], [0.5, 1.0], [0.5, -1e-30], [1.001, 0.5]];
    let (output, gradients) = one_map::<T>(4, 8, &skipped).run(subject, BorderRule::Operator);
    assert!(output.iter().all(T::is_zero), "{output}");
    assert_gradients_are_zero(&gradients);

    // Half the border pixel on each axis that is at the border, inside and right up to it.
    let counted = [[1e-30, 0.5], [below_one, 0.5], [0.5, 1e-30], [1e-30, 1e-30], [0.5, 0.5]];
    let (output, _) = one_map::<T>(4, 8, &counted).run(subject, BorderRule::Operator);
    for (anchor, expected) in [0.5, 0.5, 0.5, 0.25, 1.0].into_iter().enumerate() {
        let actual = output[[0, anchor, 0]].to_f64();
        assert!((actual - expected).abs() < 1e-5, "anchor {anchor}: {actual}, not {expected}");
    }
}

fn rim_of_the_grid_sample_rule<T: Element>(subject: &Subject) {
    // A map 8 wide fades out over 1/16 of the image: a quarter of a pixel outside leaves a quarter.
    let locations = [
        [0.0, 0.5],
        [-1.0 / 32.0, 0.5],
        [-1.0 / 16.0, 0.5],
        [1.0 + 1.0 / 32.0, 0.5],
        [0.0, 0.0],
        [1.0625, 0.5],
        [0.5, -0.125],
        [0.5, 1.125],
    ];
    let (output, gradients) = one_map::<T>(4, 8, &locations).run(subject, BorderRule::GridSample);
    for (anchor, expected) in [0.5, 0.25, 0.0, 0.25, 0.25, 0.0, 0.0, 0.0].into_iter().enumerate() {
        assert_eq!(output[[0, anchor, 0]].to_f64(), expected, "anchor {anchor}");
        // The end of the rim does not count, so it has no slope either.
        let slopes = gradients.sampling_locations.slice(s![0, anchor, 0, 0, ..]);
        let counts = slopes.iter().any(|&slope| slope.into() != 0.0);
        assert_eq!(counts, expected != 0.0, "anchor {anchor}: {slopes}");
    }
    // A map of one pixel reaches half an image outside.
    let locations = [[-0.25, 0.5], [1.25, 1.25], [-0.5, 0.5], [1.5, 0.5]];
    let (output, _) = one_map::<T>(1, 1, &locations).run(subject, BorderRule::GridSample);
    for (anchor, expected) in [0.25, 0.0625, 0.0, 0.0].into_iter().enumerate() {
        assert_eq!(output[[0, anchor, 0]].to_f64(), expected, "anchor {anchor}");
    }
}

/// Locations so little left of a pixel centre that product and difference, each rounded to fp32, give the centre itself,
/// whose slope is that to the right, and a fused multiply-add does not.
fn positions_are_rounded_twice<T: Element>(subject: &Subject) {
    let mut found = 0;
    for (width, column) in (3..64_u8).flat_map(|width| (1..width - 1).map(move |c| (width, c))) {
        let (size, centre) = (f32::from(width), f32::from(column));
        let x = (centre + 0.5) / size;
        let rounded_twice = x * size - 0.5;
        // The product of 24 and 6 bits is exact in fp64.
        let fused = (f64::from(x) * f64::from(size) - 0.5) as f32;
        if rounded_twice != centre || fused >= centre {
            continue;
        }
        found += 1;
        let mut case = one_map::<T>(1, width.into(), &[[x.into(), 0.5]]);
        // Flat up to the centre, then one step up.
        case.feature_maps.slice_mut(s![0, ..=usize::from(column), 0]).fill(T::zero());
        let (_, gradients) = case.run(subject, BorderRule::Operator);
        // Positions in fp64 resolve the difference.
        let slope = if T::DTYPE == DType::F64 { 0.0 } else { f64::from(size) };
        let actual: f64 = gradients.sampling_locations[[0, 0, 0, 0, 0]].into();
        assert_eq!(actual, slope, "column {column} of {width}");
    }
    assert!(found > 0, "no width has such a location");
}

fn locations_that_are_not_finite_are_skipped<T: Element>(subject: &Subject) {
    let bad = [f64::NAN, f64::INFINITY, f64::NEG_INFINITY, 3e38, -3e38, 1e10, -1e10];
    let locations: Vec<_> =
        bad.iter().flat_map(|&bad| [[bad, 0.5], [0.5, bad], [bad, bad]]).collect();
    for rule in RULES {
        let (output, gradients) = one_map::<T>(5, 3, &locations).run(subject, rule);
        assert!(output.iter().all(T::is_zero), "{rule}: {output}");
        assert_gradients_are_zero(&gradients);
    }
}

fn weights_of_skipped_samples_are_ignored<T: Element>(subject: &Subject) {
    let mut case = Case::random(sizes()[2].shape(), 3).cast::<T>();
    case.sampling_locations.slice_mut(s![.., 0, .., .., ..]).fill(T::Location::from_f64(-3.0));
    case.weights.slice_mut(s![.., 0, .., .., .., ..]).fill(T::from_f64(f64::NAN));
    case.grad_output.slice_mut(s![.., 0, ..]).fill(T::from_f64(f64::NAN));
    for rule in RULES {
        let (output, gradients) = case.run(subject, rule);
        assert!(output.iter().all(|value| value.to_f64().is_finite()));
        assert!(gradients.feature_maps.iter().all(|value| value.to_f64().is_finite()));
        assert!(gradients.weights.iter().all(|value| value.to_f64().is_finite()));
        assert!(gradients.sampling_locations.iter().all(|&value| value.into().is_finite()));
    }
}

/// One level counts a location that the other does not: the rim of a map of one pixel is half the image.
fn weights_of_skipped_levels_are_ignored<T: Element>(subject: &Subject) {
    let levels = [(1, 1), (8, 8)].map(|(height, width)| LevelShape { height, width });
    for groups in [1, 3] {
        let layout = FeatureLayout::uniform(1, &levels).expect("has pixels");
        let shape = AggregationShape::new(layout, 1, 2, 2, 24, groups).expect("sizes fit");
        let mut case = Case::random(shape, 4);
        // The other point counts on both, so that a warp does have work on the second level.
        case.sampling_locations.fill(0.4);
        case.sampling_locations.slice_mut(s![.., .., 0, .., ..]).fill(-0.3);
        case.weights.slice_mut(s![.., .., 0, .., 1, ..]).fill(f64::NAN);
        let (output, gradients) = case.cast::<T>().run(subject, BorderRule::GridSample);
        assert!(output.iter().all(|value| value.to_f64().is_finite()), "{output}");
        assert!(output.iter().any(|value| !value.is_zero()));
        assert!(gradients.feature_maps.iter().all(|value| value.to_f64().is_finite()));
        assert!(gradients.weights.iter().all(|value| value.to_f64().is_finite()));
        assert!(gradients.sampling_locations.iter().all(|&value| value.into().is_finite()));
    }
}

fn not_a_number_spreads_from_counted_samples_only<T: Element>(subject: &Subject) {
    let inside = [[0.5, 0.5], [0.5, 0.5], [0.5, 0.5]];
    for rule in RULES {
        let mut case = one_map::<T>(2, 2, &inside);
        case.weights[[0, 1, 0, 0, 0, 0]] = T::from_f64(f64::NAN);
        let (output, gradients) = case.run(subject, rule);
        let is_nan = |anchor: usize| output[[0, anchor, 0]].to_f64().is_nan();
        assert_eq!([is_nan(0), is_nan(1), is_nan(2)], [false, true, false]);
        assert!(gradients.feature_maps.iter().all(|value| value.to_f64().is_nan()));
        assert_eq!(gradients.weights[[0, 1, 0, 0, 0, 0]].to_f64(), 1.0);

        let mut case = one_map::<T>(2, 2, &inside);
        case.feature_maps[[0, 3, 0]] = T::from_f64(f64::INFINITY);
        let (output, gradients) = case.run(subject, rule);
        assert!(output.iter().all(|value| value.to_f64() == f64::INFINITY));
        assert!(gradients.weights.iter().all(|value| value.to_f64() == f64::INFINITY));
        assert!(gradients.feature_maps.iter().all(|value| value.to_f64() == 0.75));
    }
}

/// One anchor with two points on a map of 4 by 6: between rows 1 and 2, left of the first column and between columns 1 and
/// 2. Of the tile of columns 0 and 1 each touches one. `others` anchors are not seen.
fn two_points<T: Element>(others: usize, channels: usize) -> Case<T> {
    let layout = FeatureLayout::uniform(1, &[LevelShape { height: 4, width: 6 }]);
    let shape = AggregationShape::new(layout.expect("has pixels"), 1, 1 + others, 2, channels, 2)
        .expect("sizes fit");
    let mut case = Case::random(shape, 12);
    case.sampling_locations.fill(-3.0);
    for (point, x) in [0.25, 2.125].into_iter().enumerate() {
        case.sampling_locations[[0, 0, point, 0, 0]] = x / 6.0;
        case.sampling_locations[[0, 0, point, 0, 1]] = 2.125 / 4.0;
    }
    case.cast()
}

/// The columns in which the gradient of the feature maps is not finite: all channels of rows 1 and 2, and nothing else.
fn spoilt_columns<T: Element>(case: &Case<T>, subject: &Subject) -> Vec<usize> {
    let (_, gradients) = case.run(subject, BorderRule::Operator);
    let spoilt = |row: usize, column: usize| {
        let pixel = gradients.feature_maps.slice(s![0, 6 * row + column, ..]);
        let count = pixel.iter().filter(|value| !value.to_f64().is_finite()).count();
        assert!(count == 0 || count == pixel.len(), "row {row}, column {column}: {pixel}");
        count > 0
    };
    (0..6)
        .filter(|&column| {
            let [above, first, second, below] = [0, 1, 2, 3].map(|row| spoilt(row, column));
            assert_eq!([above, first, below], [false, second, false], "column {column}");
            second
        })
        .collect()
}

/// An anchor alone, and one among others that nobody sees.
fn not_a_number_spreads_to_touched_pixels_only<T: Element>(subject: &Subject) {
    for (others, channels) in [(0, 16), (0, 6), (0, 256), (9, 16), (9, 6)] {
        let mut case = two_points::<T>(others, channels);
        case.grad_output.slice_mut(s![0, 0, ..]).fill(T::from_f64(f64::NAN));
        assert_eq!(spoilt_columns(&case, subject), [0, 1, 2], "{others} others");

        for (point, columns) in [vec![0], vec![1, 2]].into_iter().enumerate() {
            let mut case = two_points::<T>(others, channels);
            case.weights.slice_mut(s![0, 0, point, .., .., ..]).fill(T::from_f64(f64::NAN));
            assert_eq!(spoilt_columns(&case, subject), columns, "{others} others, point {point}");
        }
    }
}

/// Products with the coefficients that are too small for fp32 count still, be they minus zero.
fn weights_of_almost_nothing_spread_not_a_number<T: Element>(subject: &Subject) {
    for weight in [-f64::from(f32::from_bits(1)), -0.0, 0.0] {
        for others in [0, 9] {
            let mut case = two_points::<T>(others, 6);
            case.weights.fill(T::from_f64(weight));
            case.grad_output.slice_mut(s![0, 0, ..]).fill(T::from_f64(f64::NAN));
            assert_eq!(spoilt_columns(&case, subject), [0, 1, 2], "{others} others, {weight}");
        }
    }
}

/// An infinite feature, of rows that tensor cores multiply whole: others' zeros times infinity are nothing to add.
fn infinities_stay_in_their_channels<T: Element>(subject: &Subject) {
    let levels = [(3, 4), (2, 2)].map(|(height, width)| LevelShape { height, width });
    let layout = FeatureLayout::uniform(1, &levels).expect("has pixels");
    let shape = AggregationShape::new(layout, 1, 2, 5, 256, 8).expect("sizes fit");
    let mut case = Case::random(shape, 15);
    case.weights.mapv_inplace(f64::abs);
    // Of the second anchor one point alone lies near the pixel: the others are in the far corner.
    case.sampling_locations.slice_mut(s![0, 0, .., 0, ..]).fill(0.2);
    case.sampling_locations.slice_mut(s![0, 1, .., 0, ..]).fill(0.8);
    case.sampling_locations.slice_mut(s![0, 1, 3, 0, ..]).fill(0.2);
    for point in [0, 3] {
        case.weights.slice_mut(s![0, .., point, .., .., ..]).fill(0.5);
    }
    let finite = case.clone().cast::<T>().run(subject, BorderRule::Operator).0;
    case.feature_maps[[0, 0, 37]] = f64::INFINITY;
    let output = case.cast::<T>().run(subject, BorderRule::Operator).0;
    for ((item, anchor, channel), value) in output.indexed_iter() {
        let expected =
            if channel == 37 { f64::INFINITY } else { finite[[item, anchor, channel]].to_f64() };
        // The published algorithm adds in any order.
        let bound = (4.0 * T::DTYPE.epsilon()).max(1e-5) * (1.0 + expected.abs());
        let error = (value.to_f64() - expected).abs();
        let is_as_expected = value.to_f64() == expected || error <= bound;
        assert!(is_as_expected, "anchor {anchor}, channel {channel}: {value} for {expected}");
    }
}

/// Differences of coefficients that an element type could not hold, of numbers it holds exactly.
fn coefficients_keep_their_bits<T: Element>(subject: &Subject) {
    let layout = FeatureLayout::uniform(1, &[LevelShape { height: 2, width: 2 }]);
    for channels in [8, 256] {
        let shape =
            AggregationShape::new(layout.clone().expect("has pixels"), 1, 20, 2, channels, 1)
                .expect("sizes fit");
        let mut case = Case::random(shape, 0);
        // A step of 1024 from left to right, or from top to bottom.
        for (row, value) in [1024.0, 0.0, 2048.0, 1024.0].into_iter().enumerate() {
            case.feature_maps.slice_mut(s![0, row, ..]).fill(value);
        }
        for anchor in 0..20 {
            let at = [0.3 + 0.017 * anchor as f64, 0.31 + 0.013 * anchor as f64];
            for (point, step) in [0.0, 0.0005].into_iter().enumerate() {
                for side in 0..2 {
                    let location = at[side] + step * [1.0, -1.0][side];
                    case.sampling_locations[[0, anchor, point, 0, side]] =
                        f64::from(location as f32);
                }
                case.weights[[0, anchor, point, 0, 0, 0]] = [-1.0, 1.0][point];
            }
        }
        // On a map of two pixels a location moves twice as far: across by 0.001, which costs 1.024, and up by as much.
        let output = case.cast::<T>().run(subject, BorderRule::Operator).0;
        for value in &output {
            let error = value.to_f64() + 2.0 * 1.024;
            assert!(error.abs() < 0.1, "{value} with {channels} channels");
        }
    }
}

/// The neighbours in memory of the border pixels are NaN: rows before and after the map, and the far end of the
/// neighbouring pixel rows.
fn missing_corners_are_not_read<T: Element>(subject: &Subject) {
    let shapes = Array3::from_shape_vec((1, 1, 2), vec![3, 4]).expect("1·1·2");
    let starts = Array::from_elem((1, 1), 5);
    let layout = FeatureLayout::new(shapes.view(), starts.view(), 22).expect("12 of 22 rows");
    // The first and last column and row of pixels, off their centres towards the border.
    let locations = [[0.1, 0.4], [0.9, 0.4], [0.4, 0.1], [0.4, 0.9], [0.1, 0.1], [0.9, 0.9]];
    let shapes = [3, 256].map(|channels| {
        AggregationShape::new(layout.clone(), 1, 1, 1, channels, 1).expect("sizes fit")
    });
    for (shape, [x, y]) in
        shapes.iter().flat_map(|shape| locations.map(|location| (shape, location)))
    {
        let mut case = Case::random(shape.clone(), 0);
        case.sampling_locations
            .assign(&Array::from_shape_vec((1, 1, 1, 1, 2), vec![x, y]).expect("2"));
        let near = |location: f64, size: usize| {
            let position = location * size as f64 - 0.5;
            move |pixel: usize| (pixel as f64 - position).abs() < 1.0
        };
        let (near_column, near_row) = (near(x, 4), near(y, 3));
        for row in 0..22_usize {
            let pixel = row.checked_sub(5).filter(|&pixel| pixel < 12);
            if !pixel.is_some_and(|pixel| near_row(pixel / 4) && near_column(pixel % 4)) {
                case.feature_maps.slice_mut(s![0, row, ..]).fill(f64::NAN);
            }
        }
        let case = case.cast::<T>();
        for rule in RULES {
            let (output, gradients) = case.run(subject, rule);
            assert!(output.iter().all(|value| value.to_f64().is_finite()), "({x}, {y}): {output}");
            assert!(gradients.weights.iter().all(|value| value.to_f64().is_finite()));
            assert!(gradients.sampling_locations.iter().all(|&value| value.into().is_finite()));
            let touched = gradients
                .feature_maps
                .map_axis(ndarray::Axis(2), |row| row.iter().any(|value| !value.is_zero()));
            for ((_, row), &touched) in touched.indexed_iter() {
                let holds_number = case.feature_maps[[0, row, 0]].to_f64().is_finite();
                assert_eq!(touched, holds_number, "({x}, {y}), row {row}");
            }
        }
    }
}

/// Sums half-way between two neighbours: one plus half a step, and one step more.
fn ties_are_rounded_to_even<T: Element>(subject: &Subject) {
    let step = T::DTYPE.epsilon();
    let one_pixel = [LevelShape { height: 1, width: 1 }];
    // All features and output gradients are 1 where they are not said to be different.
    let ones = |points: usize, channels: usize| {
        let layout = FeatureLayout::uniform(1, &one_pixel).expect("has pixels");
        let shape = AggregationShape::new(layout, 1, 1, points, channels, 1).expect("sizes fit");
        let mut case = Case::random(shape, 0);
        case.feature_maps.fill(1.0);
        case.sampling_locations.fill(0.5);
        case.grad_output.fill(1.0);
        case
    };
    for (sum, even) in [(1.0, 1.0), (1.0 + step, 1.0 + 2.0 * step)] {
        for sign in [1.0, -1.0] {
            let terms = [sign * sum, sign * step / 2.0];
            // Two points of one channel: the output and the gradient of the feature are the sum of the weights.
            let mut case = ones(2, 1);
            case.weights.iter_mut().zip(terms).for_each(|(weight, term)| *weight = term);
            let (output, gradients) = case.cast::<T>().run(subject, BorderRule::Operator);
            assert_eq!(output[[0, 0, 0]].to_f64(), sign * even, "output");
            assert_eq!(gradients.feature_maps[[0, 0, 0]].to_f64(), sign * even, "features");
            // One point of two channels: the gradient of the weight is the sum of the features.
            let mut case = ones(1, 2);
            case.feature_maps.iter_mut().zip(terms).for_each(|(feature, term)| *feature = term);
            let (_, gradients) = case.cast::<T>().run(subject, BorderRule::Operator);
            assert_eq!(gradients.weights[[0, 0, 0, 0, 0, 0]].to_f64(), sign * even, "weights");
        }
    }
}

/// Feature maps of more than 4,096 blocks of 256 elements, with the map that is looked at behind those.
fn more_elements_than_a_grid_has_threads<T: Element>(subject: &Subject) {
    let (rows, channels) = (4100, 256);
    let shapes = Array3::from_shape_vec((1, 1, 2), vec![1, 2]).expect("1·1·2");
    let starts = Array::from_elem((1, 1), rows - 2);
    let layout = FeatureLayout::new(shapes.view(), starts.view(), rows as usize).expect("fits");
    let shape = AggregationShape::new(layout, 1, 2, 2, channels, 8).expect("sizes fit");
    let mut case = Case::random(shape, 12);
    case.sampling_locations.fill(0.4);
    assert_matches(&case.cast::<T>(), subject, BorderRule::Operator);
}

fn nothing_to_sum_gives_zeros<T: Element>(subject: &Subject) {
    let level = [LevelShape { height: 2, width: 3 }];
    // (batch, anchors, points, cameras, levels), one of them 0.
    for empty in 0..5 {
        let size = |index: usize| usize::from(index != empty) * 2;
        let layout = if size(4) == 0 {
            FeatureLayout::uniform(size(3), &[])
        } else {
            FeatureLayout::uniform(size(3), &level)
        };
        let layout = layout.expect("has pixels");
        let shape =
            AggregationShape::new(layout, size(0), size(1), size(2), 6, 3).expect("sizes fit");
        for rule in RULES {
            let (output, gradients) = Case::random(shape.clone(), 0).cast::<T>().run(subject, rule);
            assert_eq!(output, Array3::zeros(shape.output_dim()));
            assert_eq!(gradients.feature_maps.shape(), shape.feature_maps_dim());
            assert_eq!(gradients.weights.shape(), shape.weights_dim());
            assert_eq!(gradients.sampling_locations.shape(), shape.sampling_locations_dim());
            assert_gradients_are_zero(&gradients);
        }
    }
}

fn views_in_any_order_of_axes<T: Element>(subject: &Subject) {
    let case = Case::random(sizes()[2].shape(), 11).cast::<T>();
    let mut turned = case.clone();
    // The same numbers with the axes in reverse order in memory.
    turned.feature_maps = reversed_memory(&case.feature_maps);
    turned.sampling_locations = reversed_memory(&case.sampling_locations);
    turned.weights = reversed_memory(&case.weights);
    turned.grad_output = reversed_memory(&case.grad_output);
    assert!(!turned.feature_maps.is_standard_layout() && turned.feature_maps == case.feature_maps);
    assert_matches(&turned, subject, BorderRule::Operator);
}

fn reversed_memory<A: Copy, D: Dimension>(array: &Array<A, D>) -> Array<A, D> {
    let mut turned = Array::from_shape_vec(
        ndarray::ShapeBuilder::f(array.raw_dim()),
        array.t().iter().copied().collect(),
    )
    .expect("as many entries");
    turned.assign(array);
    turned
}

/// The numbers of an array behind one or two others, so that they do not begin at a multiple of 16 bytes; how many others.
fn shifted<T: Element>(array: &Array3<T>) -> (Vec<T>, usize) {
    let mut values = Vec::with_capacity(array.len() + 2);
    values.push(T::from_f64(f64::NAN));
    let address = values.as_ptr().addr() + size_of::<T>();
    if address.is_multiple_of(16) {
        values.push(T::from_f64(f64::NAN));
    }
    let shift = values.len();
    values.extend(array);
    (values, shift)
}

/// GPU kernels move 16 bytes at a time where the channels allow it, and must not where the arrays do not.
fn arrays_that_begin_between_vectors<T: Element>(subject: &Subject) {
    let sizes = Sizes { anchors: 9, points: 4, ..Sizes::usual() };
    let case = Case::random(sizes.shape(), 8).cast::<T>();
    let [(features, feature), (upstream, first)] =
        [&case.feature_maps, &case.grad_output].map(shifted);
    let view = |values, dimensions| ArrayView3::from_shape(dimensions, values).expect("all of it");
    let features = view(&features[feature..], case.feature_maps.raw_dim());
    let upstream = view(&upstream[first..], case.grad_output.raw_dim());
    let inputs = Inputs { feature_maps: features, ..case.inputs() };

    let operator = subject.operator(&case.shape);
    let output = operator.forward(inputs).unwrap_or_else(|error| panic!("{error}"));
    let gradients = operator.backward(inputs, upstream).unwrap_or_else(|error| panic!("{error}"));
    if let Err(mismatch) = case.check(BorderRule::Operator, &output, &gradients) {
        panic!("{subject}, {}: {mismatch}", T::DTYPE);
    }
}
