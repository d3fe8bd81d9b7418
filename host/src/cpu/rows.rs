//! Arithmetic on rows of channels, in loops that the compiler vectorises.

use num_traits::Zero;

use crate::element::{Element, Scalar};
use crate::problem::Problem;

use super::Sample;

/// How many partial sums a dot product keeps. A sum of floats has an order, so the compiler may not make these itself.
const LANES: usize = 8;

/// A row as accumulators.
pub(super) struct WideRow<T: Element> {
    scratch: Vec<T::Accumulator>,
}

impl<T: Element> WideRow<T> {
    pub(super) fn new(channels: usize) -> Self {
        Self { scratch: vec![T::Accumulator::zero(); channels] }
    }

    #[inline]
    pub(super) fn of<'s>(&'s mut self, row: &'s [T]) -> &'s [T::Accumulator] {
        T::widen(row, &mut self.scratch)
    }
}

/// The feature rows under the corners of a sample.
pub(super) struct FeatureRows<T: Element> {
    rows: [WideRow<T>; 4],
}

impl<T: Element> FeatureRows<T> {
    pub(super) fn new(channels: usize) -> Self {
        Self { rows: std::array::from_fn(|_| WideRow::new(channels)) }
    }

    /// The rows as accumulators; of a corner that is not on the map, no row.
    #[inline]
    pub(super) fn of<'s>(
        &'s mut self,
        problem: &'s Problem<'_, T>,
        sample: &Sample<T>,
    ) -> [Option<&'s [T::Accumulator]>; 4] {
        let channels = problem.shape.embed_dims();
        let mut corners = sample.corners.iter();
        self.rows.each_mut().map(|row| {
            let corner = corners.next()?.as_ref()?;
            let first = (sample.first_row + corner.pixel) * channels;
            Some(row.of(&problem.feature_maps[first..first + channels]))
        })
    }
}

/// `sums += factor * row`
#[inline]
pub(super) fn add_scaled<A: Scalar>(sums: &mut [A], factor: A, row: &[A]) {
    for (sum, &value) in sums.iter_mut().zip(row) {
        *sum += factor * value;
    }
}

/// `sums += Σ factors[k] * rows[k]`, in one pass over `sums`.
#[inline]
pub(super) fn add_scaled_4<A: Scalar>(sums: &mut [A], factors: [A; 4], rows: [&[A]; 4]) {
    let length = sums.len();
    let [a, b, c, d] = rows.map(|row| &row[..length]);
    for i in 0..length {
        sums[i] += factors[0] * a[i] + factors[1] * b[i] + factors[2] * c[i] + factors[3] * d[i];
    }
}

/// `Σ a[i] * b[i]`
#[inline]
pub(super) fn dot<A: Scalar>(a: &[A], b: &[A]) -> A {
    let (a_lanes, a_rest) = a.as_chunks::<LANES>();
    let (b_lanes, b_rest) = b.as_chunks::<LANES>();
    let mut lanes = [A::zero(); LANES];
    for (a, b) in a_lanes.iter().zip(b_lanes) {
        for lane in 0..LANES {
            lanes[lane] += a[lane] * b[lane];
        }
    }
    let rest = a_rest.iter().zip(b_rest).fold(A::zero(), |sum, (&a, &b)| sum + a * b);
    lanes.into_iter().fold(rest, |sum, lane| sum + lane)
}
