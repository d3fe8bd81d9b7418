//! Between the type that activations are stored in and the one that the block computes in.

use ndarray::Array2;
use rayon::prelude::*;

use crate::element::Element;
use crate::error::Result;
use crate::memory::{zero_array, zeros};

/// The number as one to compute with; exact.
#[inline]
pub(super) fn load<T: Element>(value: T) -> T::Location {
    value.to_accumulator().into()
}

/// The nearest number of the stored type.
#[inline]
pub(super) fn store<T: Element>(value: T::Location) -> T {
    T::from_accumulator(T::Accumulator::from(value))
}

/// Row-major numbers as rows of this length, to compute with.
pub(super) fn load_rows<T: Element>(
    purpose: &'static str,
    values: &[T],
    length: usize,
) -> Result<Array2<T::Location>> {
    let mut rows = zero_array(purpose, (values.len() / length, length))?;
    let loaded: &mut [T::Location] = rows.as_slice_mut().expect("made row-major");
    loaded.par_iter_mut().zip(values).for_each(|(loaded, &value)| *loaded = load(value));
    Ok(rows)
}

/// The numbers of rows as they are stored.
pub(super) fn store_rows<T: Element>(
    purpose: &'static str,
    rows: &Array2<T::Location>,
) -> Result<Vec<T>> {
    let mut values = zeros(purpose, rows.len())?;
    let rows = rows.as_slice().expect("made row-major");
    values.par_iter_mut().zip(rows).for_each(|(value, &row)| *value = store(row));
    Ok(values)
}
