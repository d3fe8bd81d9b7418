//! Host memory that reports when there is none.

use bytemuck::Zeroable;
use ndarray::{Array, Dimension, ShapeBuilder};

use crate::error::{Error, Result};

/// `len` zeros. The pages come from the system untouched, so whoever writes them first is the first to touch them.
pub(crate) fn zeros<A: Zeroable>(purpose: &'static str, len: usize) -> Result<Vec<A>> {
    let failed =
        || Error::OutOfMemory { purpose, place: "host", bytes: len.saturating_mul(size_of::<A>()) };
    // `try_zeroed_vec` multiplies without a check, hence this one.
    let bytes = len.checked_mul(size_of::<A>()).ok_or_else(failed)?;
    isize::try_from(bytes).map_err(|_| failed())?;
    bytemuck::allocation::try_zeroed_vec(len).map_err(|()| failed())
}

/// An array of zeros with dimensions out of an `AggregationShape`.
pub(crate) fn zero_array<A: Zeroable, D: Dimension>(
    purpose: &'static str,
    dimensions: impl ShapeBuilder<Dim = D>,
) -> Result<Array<A, D>> {
    let shape = dimensions.into_shape_with_order();
    let values = zeros(purpose, shape.size())?;
    Ok(Array::from_shape_vec(shape, values).expect("the vector is made for this shape"))
}
