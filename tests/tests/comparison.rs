//! The comparison itself: a wrong result must not get past it.

use deformable_aggregation::{Backend, BorderRule, DType, reference};
use deformable_aggregation_tests::{Bound, Case, Sizes, check, compare};
use ndarray::{ArrayD, IxDyn, arr1};

fn bound() -> Bound {
    Bound::new(DType::F32, DType::F32, 4)
}

fn case() -> Case<f32> {
    let sizes = Sizes {
        batch: 2,
        anchors: 5,
        points: 3,
        cameras: 2,
        levels: vec![(5, 7), (3, 4)],
        groups: 2,
        channels_per_group: 4,
    };
    Case::random(sizes.shape(), 7).cast()
}

#[test]
fn a_right_result_passes_and_a_planted_error_in_any_array_does_not() {
    let case = case();
    let rule = BorderRule::Operator;
    let exact =
        reference::exact(&case.shape, rule, case.inputs(), case.grad_output.view()).unwrap();
    let scale =
        reference::magnitudes(&case.shape, rule, case.inputs(), case.grad_output.view()).unwrap();
    let (output, gradients) = case.run(&Backend::Reference.into(), rule);
    check(&case.shape, &output, &gradients, &exact, &scale).unwrap();

    // One part in a hundred thousand of the terms: less than any term left out would be.
    let planted = |magnitude: f64| (magnitude * 1e-5) as f32;
    let mut wrong = output.clone();
    wrong[[1, 2, 3]] += planted(scale.output[[1, 2, 3]]);
    let mismatch = check(&case.shape, &wrong, &gradients, &exact, &scale).unwrap_err();
    assert_eq!((mismatch.array, mismatch.index, mismatch.count), ("output", vec![1, 2, 3], 1));

    let visible = |magnitudes: ArrayD<f64>| {
        magnitudes.indexed_iter().find(|&(_, &m)| m > 0.1).map(|(index, _)| index).unwrap()
    };
    let mut wrong = gradients.clone();
    let at = visible(scale.gradients.feature_maps.clone().into_dyn());
    wrong.feature_maps[[at[0], at[1], at[2]]] +=
        planted(scale.gradients.feature_maps[[at[0], at[1], at[2]]]);
    let mismatch = check(&case.shape, &output, &wrong, &exact, &scale).unwrap_err();
    assert_eq!((mismatch.array, mismatch.count), ("grad_feature_maps", 1));

    let mut wrong = gradients.clone();
    let at = visible(scale.gradients.sampling_locations.clone().into_dyn());
    let at = [at[0], at[1], at[2], at[3], at[4]];
    wrong.sampling_locations[at] += planted(scale.gradients.sampling_locations[at]);
    let mismatch = check(&case.shape, &output, &wrong, &exact, &scale).unwrap_err();
    assert_eq!((mismatch.array, mismatch.count), ("grad_sampling_locations", 1));

    let mut wrong = gradients.clone();
    let at = visible(scale.gradients.weights.clone().into_dyn());
    let at = [at[0], at[1], at[2], at[3], at[4], at[5]];
    wrong.weights[at] += planted(scale.gradients.weights[at]);
    let mismatch = check(&case.shape, &output, &wrong, &exact, &scale).unwrap_err();
    assert_eq!((mismatch.array, mismatch.count), ("grad_weights", 1));
}

#[test]
fn an_entry_that_was_never_written_is_a_mismatch() {
    let case = case();
    let rule = BorderRule::Operator;
    let exact =
        reference::exact(&case.shape, rule, case.inputs(), case.grad_output.view()).unwrap();
    let scale =
        reference::magnitudes(&case.shape, rule, case.inputs(), case.grad_output.view()).unwrap();
    let (output, mut gradients) = case.run(&Backend::Reference.into(), rule);
    // A skipped sample, whose gradient is zero.
    let unseen = gradients.weights.indexed_iter().find(|&(_, &value)| value == 0.0).unwrap().0;
    gradients.weights[unseen] = f32::NAN;
    let mismatch = check(&case.shape, &output, &gradients, &exact, &scale).unwrap_err();
    assert!(mismatch.actual.is_nan());
    gradients.weights[unseen] = 1e-30;
    check(&case.shape, &output, &gradients, &exact, &scale).unwrap_err();
}

#[test]
fn not_a_number_matches_only_itself() {
    let one = |value: f64| arr1(&[value]).into_dyn();
    let same = |actual: f64, expected: f64| {
        compare("x", &one(actual), &one(expected), &one(1.0), bound()).is_ok()
    };
    assert!(same(f64::NAN, f64::NAN));
    assert!(same(f64::INFINITY, f64::INFINITY));
    assert!(!same(f64::INFINITY, f64::NEG_INFINITY));
    assert!(!same(f64::NAN, f64::INFINITY));
    assert!(!same(1.0, f64::NAN));
    assert!(!same(f64::NAN, 1.0));
    assert!(!same(f64::INFINITY, 1.0));
}

#[test]
fn the_worst_entry_is_reported_and_all_are_counted() {
    let expected = ArrayD::zeros(IxDyn(&[4]));
    let magnitude = ArrayD::ones(IxDyn(&[4]));
    let actual = arr1(&[0.0, 0.5, -2.0, 1.0]).into_dyn();
    let mismatch = compare("x", &actual, &expected, &magnitude, bound()).unwrap_err();
    assert_eq!((mismatch.index.as_slice(), mismatch.actual, mismatch.count), (&[2][..], -2.0, 3));
    assert!(mismatch.to_string().starts_with("x[2]: got -2e0, expected 0e0 within"));
}

#[test]
#[should_panic(expected = "dimensions")]
fn arrays_of_different_dimensions_are_not_compared() {
    let (two, three) = (ArrayD::zeros(IxDyn(&[2])), ArrayD::zeros(IxDyn(&[3])));
    let _ = compare("x", &two, &three, &three, bound());
}
