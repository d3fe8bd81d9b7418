//! Comparing results with a judge: errors, bounds, and what passes.
//!
//! A NaN never passes, whichever side it is on, and neither does a wrong number of values.

use deformable_aggregation::{AggregationShape, DType};
use serde::Serialize;

use crate::data::Quantity;

/// The outcome of one comparison.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Measure {
    /// Largest absolute error; infinite when something is NaN or missing.
    pub largest_error: f64,
    /// The absolute error where error over bound is worst.
    pub error: f64,
    /// The bound at the same place.
    pub bound: f64,
    /// The largest error over its bound; at most 1 passes.
    pub ratio: f64,
    /// Flat index of the worst entry.
    pub worst_index: usize,
    /// Entries compared.
    pub compared: usize,
    /// Whether every entry is within its bound.
    pub passed: bool,
}

/// Compares values entry by entry; `bound` gives the bound of each entry, `None` leaves the entry out.
pub fn compare(actual: &[f64], expected: &[f64], bound: impl Fn(usize) -> Option<f64>) -> Measure {
    let mut measure = Measure {
        largest_error: 0.0,
        error: 0.0,
        bound: f64::INFINITY,
        ratio: 0.0,
        worst_index: 0,
        compared: 0,
        passed: true,
    };
    if actual.len() != expected.len() {
        let missing = f64::INFINITY;
        return Measure {
            largest_error: missing,
            error: missing,
            ratio: missing,
            passed: false,
            ..measure
        };
    }
    for (index, (actual, expected)) in actual.iter().zip(expected).enumerate() {
        let Some(bound) = bound(index) else { continue };
        measure.compared += 1;
        // Equal infinities would give NaN; the judge is finite, so an infinity is an error anyway.
        let error = (actual - expected).abs();
        let error = if error.is_nan() { f64::INFINITY } else { error };
        let within = error <= bound;
        let ratio = if error == 0.0 { 0.0 } else { error / bound };
        let ratio = if within { ratio } else { ratio.max(1.0 + f64::EPSILON) };
        measure.largest_error = measure.largest_error.max(error);
        measure.passed &= within;
        if measure.compared == 1 || ratio > measure.ratio {
            (measure.ratio, measure.worst_index) = (ratio, index);
            (measure.error, measure.bound) = (error, bound);
        }
    }
    measure
}

/// Length of the difference over the length of what is expected; infinite for NaN or a wrong number of values.
pub fn relative_l2(
    actual: impl ExactSizeIterator<Item = f64>,
    expected: impl ExactSizeIterator<Item = f64>,
) -> f64 {
    if actual.len() != expected.len() {
        return f64::INFINITY;
    }
    let (mut difference, mut length) = (0.0, 0.0);
    for (actual, expected) in actual.zip(expected) {
        difference += (actual - expected) * (actual - expected);
        length += expected * expected;
    }
    match (difference / length).sqrt() {
        _ if difference == 0.0 => 0.0,
        ratio if ratio.is_nan() => f64::INFINITY,
        ratio => ratio,
    }
}

/// Largest relative error of one rounding to the type.
pub fn rounding(dtype: DType) -> f64 {
    dtype.epsilon() / 2.0
}

/// Largest relative error of one rounding of a sum: 16-bit types sum in fp32.
fn sum_rounding(dtype: DType) -> f64 {
    match dtype {
        DType::F64 => rounding(DType::F64),
        DType::F32 | DType::F16 | DType::Bf16 => rounding(DType::F32),
    }
}

/// Half the distance between the smallest numbers of the type: what rounding does to tiny results.
fn tiny(dtype: DType) -> f64 {
    match dtype {
        DType::F16 => 2.0_f64.powi(-25),
        DType::F64 | DType::F32 | DType::Bf16 => f64::from(f32::MIN_POSITIVE),
    }
}

/// Whether a quantity is stored in the element type; location gradients are fp32 also where features are not.
fn storage(dtype: DType, quantity: Quantity) -> DType {
    match (dtype, quantity) {
        (DType::F16 | DType::Bf16, Quantity::SamplingLocations) => DType::F32,
        _ => dtype,
    }
}

/// Largest error of a bilinear coefficient, relative to it: in the output, for features of 16 bits, it may be two factors of
/// that type, one for what rounding the other leaves.
fn coefficient_rounding(dtype: DType, quantity: Quantity) -> f64 {
    match (dtype, quantity) {
        (DType::F16 | DType::Bf16, Quantity::Output) => rounding(dtype).powi(2),
        _ => 0.0,
    }
}

/// Bound of an entry against the judge on *the same rounded inputs*: only coefficients, sums and the storing of the result
/// round.
///
/// `magnitude` is the sum of the absolute values of the entry's terms, `terms` how many can be in it. The factor is
/// far above what random roundings add up to and far below what a wrong term does.
pub fn same_inputs_bound(
    dtype: DType,
    quantity: Quantity,
    terms: usize,
    magnitude: f64,
    expected: f64,
) -> f64 {
    let storage = storage(dtype, quantity);
    let sums = (16.0 + 2.0 * (terms as f64).sqrt()) * sum_rounding(dtype) * magnitude
        + coefficient_rounding(dtype, quantity) * magnitude;
    let stored =
        if storage.size_bytes() == 2 { 1.01 * rounding(storage) * expected.abs() } else { 0.0 };
    sums + stored + tiny(storage)
}

/// Bound of an entry against a judge on the inputs *before* they were rounded to the type.
///
/// fp64 and fp32 inputs are exact there. For 16-bit types the bound allows for the rounding of a feature, a weight
/// and an output gradient in every term.
pub fn golden_bound(dtype: DType, largest: f64, magnitude: f64, expected: f64) -> f64 {
    match dtype {
        DType::F64 => 1e-11 * largest,
        DType::F32 => 4e-6 * largest,
        DType::F16 | DType::Bf16 => {
            // 2e-3 and 1e-3 are the usual numbers for fp16; bf16 has three bits less.
            let scale = rounding(dtype) / rounding(DType::F16);
            scale * (2e-3 * magnitude + 1e-3 * expected.abs()) + tiny(dtype)
        }
    }
}

/// Bound of every entry of an array of the attention block or of key points whose largest entry is `largest`. In 16 bits it is for a
/// judge on the same rounded inputs: what is left are the roundings of what is stored between the stages.
pub fn block_bound(dtype: DType, largest: f64) -> f64 {
    let relative = match dtype {
        DType::F64 => 1e-11,
        DType::F32 => 3e-5,
        DType::F16 => 1e-2,
        DType::Bf16 => 8e-2,
    };
    relative * largest
}

/// Largest relative L2 error that a benchmark or demo accepts against the judge on the same inputs.
pub fn l2_bound(dtype: DType) -> f64 {
    match dtype {
        DType::F64 => 1e-12,
        DType::F32 => 1e-5,
        DType::F16 => 1e-3,
        DType::Bf16 => 8e-3,
    }
}

/// The most terms that one entry of a quantity can sum.
pub fn terms(shape: &AggregationShape, quantity: Quantity) -> usize {
    let samples = shape.points() * shape.layout().cameras() * shape.layout().levels();
    match quantity {
        Quantity::Output => 4 * samples,
        Quantity::FeatureMaps => 4 * shape.anchors() * samples,
        Quantity::SamplingLocations => 4 * shape.layout().levels() * shape.embed_dims(),
        Quantity::Weights => 4 * shape.channels_per_group(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EXPECTED: [f64; 4] = [1.0, -2.0, 0.0, 4.0];

    fn of_arrays(actual: &[f64], expected: &[f64]) -> f64 {
        relative_l2(actual.iter().copied(), expected.iter().copied())
    }

    #[test]
    fn equal_values_pass_a_bound_of_zero() {
        let measure = compare(&EXPECTED, &EXPECTED, |_| Some(0.0));
        assert!(measure.passed);
        assert_eq!((measure.error, measure.ratio, measure.compared), (0.0, 0.0, 4));
    }

    #[test]
    fn one_planted_error_is_caught_wherever_it_is() {
        for index in 0..EXPECTED.len() {
            let mut actual = EXPECTED;
            actual[index] += 2e-3;
            let measure = compare(&actual, &EXPECTED, |_| Some(1e-3));
            assert!(!measure.passed);
            assert_eq!(measure.worst_index, index);
            assert!((measure.ratio - 2.0).abs() < 1e-9);
        }
    }

    #[test]
    fn nan_and_infinity_never_pass() {
        for planted in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
            let mut actual = EXPECTED;
            actual[2] = planted;
            assert!(!compare(&actual, &EXPECTED, |_| Some(1e300)).passed);
            assert!(!compare(&EXPECTED, &actual, |_| Some(1e300)).passed);
            assert!(of_arrays(&actual, &EXPECTED).is_infinite());
        }
        assert!(!compare(&EXPECTED, &EXPECTED, |_| Some(f64::NAN)).passed, "a bound of NaN");
    }

    #[test]
    fn a_missing_value_fails() {
        assert!(!compare(&EXPECTED[..3], &EXPECTED, |_| Some(1.0)).passed);
        assert!(of_arrays(&EXPECTED[..3], &EXPECTED).is_infinite());
    }

    #[test]
    fn entries_left_out_are_not_counted() {
        let actual = [1.0, 100.0, 0.0, 4.0];
        let measure = compare(&actual, &EXPECTED, |index| (index != 1).then_some(0.0));
        assert!(measure.passed);
        assert_eq!(measure.compared, 3);
    }

    #[test]
    fn bounds_grow_with_what_rounds() {
        let bound = |dtype, quantity| same_inputs_bound(dtype, quantity, 100, 1.0, 1.0);
        let out = Quantity::Output;
        assert!(bound(DType::F64, out) < bound(DType::F32, out));
        assert!(bound(DType::F32, out) < bound(DType::F16, out));
        assert!(bound(DType::F16, out) < bound(DType::Bf16, out));
        let loc = Quantity::SamplingLocations;
        assert_eq!(bound(DType::F32, loc), bound(DType::Bf16, loc));
        assert_eq!(golden_bound(DType::F16, 1.0, 1.0, 1.0) * 8.0, {
            golden_bound(DType::Bf16, 1.0, 1.0, 1.0) - tiny(DType::Bf16) + 8.0 * tiny(DType::F16)
        });
    }
}
