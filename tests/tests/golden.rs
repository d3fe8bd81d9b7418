//! Every backend against the golden vectors of the independent oracle.

use deformable_aggregation::reference::{self, Sums};
use deformable_aggregation::{
    Backend, BorderRule, DType, Element, FeatureLayout, feature_maps_format, feature_maps_unformat,
};
use deformable_aggregation_tests::{
    Bound, GoldenOperator, Subject, array, check, compare, on_every_backend, open_golden,
};
use ndarray::{Array2, Array3, Array5, ArrayD, Dimension};

on_every_backend!(operator, exact_fractions);

const RULES: [BorderRule; 2] = [BorderRule::Operator, BorderRule::GridSample];

/// Cases whose locations may lie on pixel centres because positions are exact there.
const EXACT_POSITIONS: [&str; 3] = ["op_tiny", "op_border", "op_exact"];

/// How far results may be from the oracle's: relative to the largest entry of the array, to the magnitude of
/// the entry, and to the entry.
fn tolerance(dtype: DType) -> (f64, f64, f64) {
    match dtype {
        // The oracle sums in another order.
        DType::F64 => (1e-14, 0.0, 0.0),
        // Mostly positions: `location * size` has 24 bits in fp32.
        DType::F32 => (4e-6, 0.0, 0.0),
        // Inputs are rounded too: half a unit for each of feature, weight and output gradient.
        DType::F16 => (0.0, 2e-3, 1e-3),
        DType::Bf16 => (0.0, 1.6e-2, 8e-3),
    }
}

fn operator<T: Element>(subject: &Subject) {
    for name in GoldenOperator::NAMES {
        let mut golden = GoldenOperator::load(name);
        let case = golden.case.cast::<T>();
        for rule in RULES {
            let (output, gradients) = case.run(subject, rule);
            let mut actual = Sums {
                output: output.mapv(Element::to_f64),
                gradients: deformable_aggregation::Gradients {
                    feature_maps: gradients.feature_maps.mapv(Element::to_f64),
                    sampling_locations: gradients.sampling_locations.mapv(Into::into),
                    weights: gradients.weights.mapv(Element::to_f64),
                },
            };
            if !EXACT_POSITIONS.contains(&name) {
                // One-sided derivatives: drop them on both sides.
                let expected = match rule {
                    BorderRule::Operator => &mut golden.operator,
                    BorderRule::GridSample => &mut golden.grid_sample,
                };
                for (index, _) in golden.kink.indexed_iter().filter(|&(_, &kink)| kink) {
                    actual.gradients.sampling_locations[index] = 0.0;
                    expected.gradients.sampling_locations[index] = 0.0;
                }
            }
            let magnitudes = reference::magnitudes(
                &golden.case.shape,
                rule,
                golden.case.inputs(),
                golden.case.grad_output.view(),
            )
            .expect("golden inputs fit each other");
            if let Err(mismatch) = near(T::DTYPE, &actual, golden.results(rule), &magnitudes) {
                panic!("{name}, rule {rule}: {mismatch}");
            }
        }
    }
}

fn near(
    dtype: DType,
    actual: &Sums,
    expected: &Sums,
    magnitudes: &Sums,
) -> Result<(), deformable_aggregation_tests::Mismatch> {
    let (of_largest, summed, stored) = tolerance(dtype);
    for (((name, actual), (_, expected)), (_, magnitude)) in
        parts(actual).into_iter().zip(parts(expected)).zip(parts(magnitudes))
    {
        let largest = expected.iter().fold(0.0_f64, |largest, value| largest.max(value.abs()));
        let smallest = of_largest * largest + Bound::new(dtype, dtype, 1).smallest;
        compare(name, &actual, &expected, &magnitude, Bound { summed, stored, smallest })?;
    }
    Ok(())
}

fn parts(sums: &Sums) -> [(&'static str, ArrayD<f64>); 4] {
    [
        ("output", sums.output.clone().into_dyn()),
        ("grad_feature_maps", sums.gradients.feature_maps.clone().into_dyn()),
        ("grad_sampling_locations", sums.gradients.sampling_locations.clone().into_dyn()),
        ("grad_weights", sums.gradients.weights.clone().into_dyn()),
    ]
}

/// Short binary fractions: sums in fp32 are exact in any order, so there is one right answer, bit for bit.
fn exact_fractions<T: Element>(subject: &Subject) {
    let golden = GoldenOperator::load("op_exact");
    let (output, gradients) = golden.case.cast::<T>().run(subject, BorderRule::Operator);
    let expected = &golden.operator;
    assert_eq!(output, expected.output.mapv(T::from_f64));
    assert_eq!(gradients.feature_maps, expected.gradients.feature_maps.mapv(T::from_f64));
    assert_eq!(gradients.weights, expected.gradients.weights.mapv(T::from_f64));
    let locations = gradients.sampling_locations.mapv(Into::<f64>::into);
    assert_eq!(locations, expected.gradients.sampling_locations);
}

/// Two definitions of the magnitudes, from two programs.
#[test]
fn magnitudes_are_those_of_the_oracle() {
    for name in GoldenOperator::NAMES {
        let golden = GoldenOperator::load(name);
        let case = &golden.case;
        let ours = reference::magnitudes(
            &case.shape,
            BorderRule::Operator,
            case.inputs(),
            case.grad_output.view(),
        )
        .expect("golden inputs fit each other");
        for ((array, ours), (_, theirs)) in parts(&ours).into_iter().zip(parts(&golden.magnitudes))
        {
            // Theirs are stored in fp32.
            let bound = Bound { summed: 1e-7, stored: 0.0, smallest: 1e-37 };
            if let Err(mismatch) = compare(array, &ours, &theirs, &theirs, bound) {
                panic!("{name}: {mismatch}");
            }
        }
    }
}

/// The reference in fp64 is as near to the oracle as two fp64 programs can be.
#[test]
fn fp64_reference_is_the_oracle() {
    for name in GoldenOperator::NAMES {
        let golden = GoldenOperator::load(name);
        let case = &golden.case;
        for rule in RULES {
            let (output, gradients) = case.run(&Backend::Reference.into(), rule);
            let magnitudes =
                reference::magnitudes(&case.shape, rule, case.inputs(), case.grad_output.view())
                    .expect("golden inputs fit each other");
            let exact = golden.results(rule);
            if let Err(mismatch) = check(&case.shape, &output, &gradients, exact, &magnitudes) {
                panic!("{name}, rule {rule}: {mismatch}");
            }
        }
    }
}

/// Reads the arrays `prefix.i.j` for i, j = 0, 1, ... as far as there are any.
fn nested<A: ndarray_npy::ReadableElement, D: Dimension>(
    file: &mut ndarray_npy::NpzReader<std::fs::File>,
    prefix: &str,
) -> Vec<Vec<ndarray::Array<A, D>>> {
    let names = file.names().expect("a readable archive");
    let has = |group: usize, level: usize| {
        let name = format!("{prefix}.{group}.{level}");
        names.iter().any(|known| known.trim_end_matches(".npy") == name)
    };
    let mut groups = Vec::new();
    while has(groups.len(), 0) {
        let group = groups.len();
        let levels = (0..).take_while(|&level| has(group, level));
        let names: Vec<_> = levels.map(|level| format!("{prefix}.{group}.{level}")).collect();
        groups.push(names.iter().map(|name| array(file, name)).collect());
    }
    groups
}

#[test]
fn packing() {
    for name in ["format_single", "format_nested"] {
        let mut file = open_golden(name);
        let maps: Vec<Vec<Array5<f32>>> = nested(&mut file, "fm");
        let back: Vec<Vec<Array5<f64>>> = nested(&mut file, "back");
        let feat: Array3<f64> = array(&mut file, "feat");
        let spatial_shape: Array3<i64> = array(&mut file, "spatial_shape");
        let starts: Array2<i64> = array(&mut file, "scale_start_index");

        let views: Vec<Vec<_>> =
            maps.iter().map(|group| group.iter().map(|map| map.view()).collect()).collect();
        let packed = feature_maps_format(&views).expect("golden maps fit each other");
        assert_eq!(packed.feature_maps.mapv(f64::from), feat, "{name}");
        assert_eq!(packed.layout.spatial_shapes(), spatial_shape, "{name}");
        assert_eq!(packed.layout.scale_start_index(), starts, "{name}");
        let layout = FeatureLayout::new(spatial_shape.view(), starts.view(), feat.dim().1);
        assert_eq!(layout.as_ref(), Ok(&packed.layout), "{name}");

        let unpacked =
            feature_maps_unformat(feat.view(), &packed.layout).expect("a fitting layout");
        assert_eq!(unpacked, back, "{name}");
    }
}
