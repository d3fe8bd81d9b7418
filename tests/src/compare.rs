//! The comparison that every test of numbers goes through.

use std::fmt;

use deformable_aggregation::reference::Sums;
use deformable_aggregation::{AggregationShape, DType, Element, Gradients};
use ndarray::{Array3, ArrayD, Dimension};

use crate::cases::to_f64;

/// How far an entry may be from the expected one: `magnitude · summed + |expected| · stored + smallest`.
#[derive(Clone, Copy, Debug)]
pub struct Bound {
    /// Error of the summation, relative to the sum of the absolute values of the terms.
    pub summed: f64,
    /// Error of the result's own rounding, relative to the result.
    pub stored: f64,
    /// Error where numbers are so small that their steps no longer shrink.
    pub smallest: f64,
}

impl Bound {
    /// The bound for a sum of up to `terms` products, summed in `sums` and stored in `storage`.
    ///
    /// A term goes through at most twelve roundings before it is added. Roundings of a sum in arbitrary order are as good as
    /// random, so they add up like the root of their number; a factor of two leaves room.
    #[must_use]
    pub fn new(sums: DType, storage: DType, terms: usize) -> Self {
        let rounding = |dtype: DType| dtype.epsilon() / 2.0;
        let smallest = match storage {
            DType::F64 => f64::MIN_POSITIVE,
            DType::F32 | DType::Bf16 => f64::from(f32::MIN_POSITIVE),
            DType::F16 => 2.0_f64.powi(-25),
        };
        Self {
            summed: rounding(sums) * (12.0 + 2.0 * (terms as f64).sqrt()),
            stored: if storage == sums { 0.0 } else { rounding(storage) * 1.001 },
            smallest,
        }
    }

    /// The same bound where each term has a bilinear coefficient, which for features of 16 bits may be two factors of that
    /// type, one for what rounding the other leaves.
    #[must_use]
    pub fn with_coefficients(self, features: DType) -> Self {
        let rounding = if features.size_bytes() == 2 { features.epsilon() / 2.0 } else { 0.0 };
        Self { summed: self.summed + rounding * rounding, ..self }
    }
}

impl Bound {
    /// Fails unless a number is as near to the expected one as the bound says, where its terms are as large as `magnitude`.
    ///
    /// # Panics
    ///
    /// If it is further off, or no number.
    pub fn assert_near(self, what: &str, actual: f64, expected: f64, magnitude: f64) {
        let error = self.summed * magnitude + self.stored * expected.abs() + self.smallest;
        assert!(
            (actual - expected).abs() <= error,
            "{what}: {actual:e} instead of {expected:e}, off by more than {error:e}"
        );
    }
}

/// The entry of an array that is furthest out of its bound.
#[derive(Clone, Debug, PartialEq)]
pub struct Mismatch {
    /// What the array is.
    pub array: &'static str,
    /// Index of the entry.
    pub index: Vec<usize>,
    /// The entry.
    pub actual: f64,
    /// What it should be.
    pub expected: f64,
    /// How far off it may be.
    pub bound: f64,
    /// How many entries are out of bound.
    pub count: usize,
}

impl fmt::Display for Mismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { array, index, actual, expected, bound, count } = self;
        write!(
            f,
            "{array}{index:?}: got {actual:e}, expected {expected:e} within {bound:e} \
             (off by {:.1} bounds; {count} entries are out of bound)",
            (actual - expected).abs() / bound
        )
    }
}

/// Compares entry by entry.
///
/// An expected NaN or infinity has to be met exactly; elsewhere a NaN is a mismatch.
///
/// # Errors
///
/// The worst [`Mismatch`], if there is any.
///
/// # Panics
///
/// If the dimensions differ.
pub fn compare(
    array: &'static str,
    actual: &ArrayD<f64>,
    expected: &ArrayD<f64>,
    magnitude: &ArrayD<f64>,
    bound: Bound,
) -> Result<(), Mismatch> {
    assert_eq!(actual.shape(), expected.shape(), "{array}: dimensions");
    assert_eq!(magnitude.shape(), expected.shape(), "{array}: dimensions of the magnitudes");
    let mut worst: Option<(f64, Mismatch)> = None;
    for ((index, &expected), (&actual, &magnitude)) in
        expected.indexed_iter().zip(actual.iter().zip(magnitude))
    {
        let limit = magnitude * bound.summed + expected.abs() * bound.stored + bound.smallest;
        let off = (actual - expected).abs() / limit;
        let good = if expected.is_finite() {
            off <= 1.0
        } else {
            actual == expected || (actual.is_nan() && expected.is_nan())
        };
        if good {
            continue;
        }
        // A NaN is worse than any number.
        let off = if off.is_nan() { f64::INFINITY } else { off };
        let count = worst.as_ref().map_or(0, |(_, mismatch)| mismatch.count) + 1;
        match &mut worst {
            Some((so_far, mismatch)) if *so_far >= off => mismatch.count = count,
            _ => {
                let index = index.slice().to_vec();
                let mismatch = Mismatch { array, index, actual, expected, bound: limit, count };
                worst = Some((off, mismatch));
            }
        }
    }
    worst.map_or(Ok(()), |(_, mismatch)| Err(mismatch))
}

/// Compares output and gradients with the exact ones, each within its own bound.
///
/// # Errors
///
/// The first [`Mismatch`].
pub fn check<T: Element>(
    shape: &AggregationShape,
    output: &Array3<T>,
    gradients: &Gradients<T>,
    exact: &Sums,
    magnitudes: &Sums,
) -> Result<(), Mismatch> {
    let sums = if T::DTYPE == DType::F64 { DType::F64 } else { DType::F32 };
    let layout = shape.layout();
    let samples = shape.points() * layout.cameras() * layout.levels();
    let terms = [
        4 * samples,
        shape.anchors() * samples,
        4 * layout.levels() * shape.embed_dims(),
        4 * shape.channels_per_group(),
    ];
    let bound = |storage, terms| Bound::new(sums, storage, terms);
    compare(
        "output",
        &to_f64(output).into_dyn(),
        &exact.output.clone().into_dyn(),
        &magnitudes.output.clone().into_dyn(),
        bound(T::DTYPE, terms[0]).with_coefficients(T::DTYPE),
    )?;
    compare(
        "grad_feature_maps",
        &to_f64(&gradients.feature_maps).into_dyn(),
        &exact.gradients.feature_maps.clone().into_dyn(),
        &magnitudes.gradients.feature_maps.clone().into_dyn(),
        bound(T::DTYPE, terms[1]),
    )?;
    compare(
        "grad_sampling_locations",
        &gradients.sampling_locations.mapv(Into::into).into_dyn(),
        &exact.gradients.sampling_locations.clone().into_dyn(),
        &magnitudes.gradients.sampling_locations.clone().into_dyn(),
        bound(sums, terms[2]),
    )?;
    compare(
        "grad_weights",
        &to_f64(&gradients.weights).into_dyn(),
        &exact.gradients.weights.clone().into_dyn(),
        &magnitudes.gradients.weights.clone().into_dyn(),
        bound(T::DTYPE, terms[3]),
    )
}
