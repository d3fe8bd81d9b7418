//! Arithmetic on rows of channels, in loops that the compiler vectorises.

use num_traits::Zero;

use crate::element::{Element, Scalar};
use crate::problem::Problem;

use super::Sample;
use super::simd::prefetch;

/// How many channels are computed at the same time, and how many partial sums a dot product keeps. A sum of floats has an order,
/// so the compiler may not make these itself.
pub(super) const LANES: usize = 8;

/// Bytes of a cache line, on the processors that are asked for lines.
const LINE_BYTES: usize = 64;

/// A row as accumulators.
pub(super) struct WideRow<T: Element> {
    scratch: Vec<T::Accumulator>,
}

impl<T: Element> WideRow<T> {
    pub(super) fn new(channels: usize) -> Self {
        Self { scratch: vec![T::Accumulator::zero(); channels] }
    }

    #[inline(always)]
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
    #[inline(always)]
    pub(super) fn of<'s>(
        &'s mut self,
        problem: &'s Problem<'_, T>,
        sample: &Sample<T>,
    ) -> [Option<&'s [T::Accumulator]>; 4] {
        let channels = problem.shape.embed_dims();
        let [a, b, c, d] = &mut self.rows;
        [
            row(problem, sample, 0, a, channels),
            row(problem, sample, 1, b, channels),
            row(problem, sample, 2, c, channels),
            row(problem, sample, 3, d, channels),
        ]
    }
}

/// The row under one corner of a sample, if that is on the map.
#[inline(always)]
fn row<'s, T: Element>(
    problem: &'s Problem<'_, T>,
    sample: &Sample<T>,
    corner: usize,
    wide: &'s mut WideRow<T>,
    channels: usize,
) -> Option<&'s [T::Accumulator]> {
    let corner = sample.corners[corner].as_ref()?;
    let first = (sample.first_row + corner.pixel) * channels;
    Some(wide.of(&problem.feature_maps[first..first + channels]))
}

/// `sums += factor * row`
#[inline(always)]
pub(super) fn add_scaled<A: Scalar>(sums: &mut [A], factor: A, row: &[A]) {
    let (sums, sums_rest) = sums.as_chunks_mut::<LANES>();
    let (row, row_rest) = row.as_chunks::<LANES>();
    for (sums, row) in sums.iter_mut().zip(row) {
        // All reads come before the write: the compiler need not ask whether the two overlap.
        let mut lanes = *sums;
        for lane in 0..LANES {
            lanes[lane] += factor * row[lane];
        }
        *sums = lanes;
    }
    for (sum, &value) in sums_rest.iter_mut().zip(row_rest) {
        *sum += factor * value;
    }
}

/// `sums += Σ factors[k] * rows[k]`, in one pass over `sums`.
#[inline(always)]
pub(super) fn add_scaled_4<A: Scalar>(sums: &mut [A], factors: [A; 4], rows: [&[A]; 4]) {
    let [p, q, r, s] = factors;
    let (a, a_rest) = rows[0].as_chunks::<LANES>();
    let (b, b_rest) = rows[1].as_chunks::<LANES>();
    let (c, c_rest) = rows[2].as_chunks::<LANES>();
    let (d, d_rest) = rows[3].as_chunks::<LANES>();
    let (sums, rest) = sums.as_chunks_mut::<LANES>();
    for ((((sums, a), b), c), d) in sums.iter_mut().zip(a).zip(b).zip(c).zip(d) {
        let mut lanes = *sums;
        for lane in 0..LANES {
            lanes[lane] += p * a[lane] + q * b[lane] + r * c[lane] + s * d[lane];
        }
        *sums = lanes;
    }
    for ((((sum, &a), &b), &c), &d) in
        rest.iter_mut().zip(a_rest).zip(b_rest).zip(c_rest).zip(d_rest)
    {
        *sum += p * a + q * b + r * c + s * d;
    }
}

/// Partial sums, to be added up at the end.
pub(super) type Lanes<A> = [A; LANES];

/// Writes partial sums of `a[i] * b[i]`.
#[inline(always)]
pub(super) fn dot<A: Scalar>(sums: &mut Lanes<A>, a: &[A], b: &[A]) {
    let mut lanes = [A::zero(); LANES];
    let (a, a_rest) = a.as_chunks::<LANES>();
    let (b, b_rest) = b.as_chunks::<LANES>();
    for (a, b) in a.iter().zip(b) {
        for lane in 0..LANES {
            lanes[lane] += a[lane] * b[lane];
        }
    }
    // All lanes alike up to here: they stay in one register.
    *sums = lanes;
    for (sum, (&a, &b)) in sums.iter_mut().zip(a_rest.iter().zip(b_rest)) {
        *sum += a * b;
    }
}

/// The sum of the partial sums, halves added to halves.
#[inline(always)]
pub(super) fn total<A: Scalar>(lanes: Lanes<A>) -> A {
    let [a, b, c, d, e, f, g, h] = lanes;
    ((a + e) + (c + g)) + ((b + f) + (d + h))
}

/// Asks for the rows of a sample.
#[inline(always)]
pub(super) fn prefetch_rows<T: Element>(problem: &Problem<'_, T>, sample: &Sample<T>) {
    let channels = problem.shape.embed_dims();
    let line = LINE_BYTES / size_of::<T>();
    for corner in sample.corners.iter().flatten() {
        let first = (sample.first_row + corner.pixel) * channels;
        let row = &problem.feature_maps[first..first + channels];
        for value in row.iter().step_by(line) {
            prefetch(value);
        }
    }
}
