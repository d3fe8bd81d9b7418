//! Host memory that reports when there is none.

use bytemuck::Zeroable;
use ndarray::{Array, Dimension, IntoDimension};

use crate::error::{Error, Result};

/// Bytes from which on an array asks for large pages: some of them, and more than allocators keep for later.
#[cfg(target_os = "linux")]
const LARGE: usize = 32 << 20;

/// `len` zeros. The pages come from the system untouched, so whoever writes them first is the first to touch them.
pub(crate) fn zeros<A: Zeroable>(purpose: &'static str, len: usize) -> Result<Vec<A>> {
    let failed =
        || Error::OutOfMemory { purpose, place: "host", bytes: len.saturating_mul(size_of::<A>()) };
    // `try_zeroed_vec` multiplies without a check, hence this one.
    let bytes = len.checked_mul(size_of::<A>()).ok_or_else(failed)?;
    isize::try_from(bytes).map_err(|_| failed())?;
    let values = bytemuck::allocation::try_zeroed_vec(len).map_err(|()| failed())?;
    #[cfg(target_os = "linux")]
    if bytes >= LARGE {
        ask_for_large_pages(&values);
    }
    Ok(values)
}

/// Tells the system that an array will be used as a whole: it may bring large pages on first touch, of which there are far
/// fewer to bring.
#[cfg(target_os = "linux")]
fn ask_for_large_pages<A>(values: &[A]) {
    // The smallest pages of Linux; larger ones divide the addresses of an array this large just as well, or the advice fails.
    const PAGE: usize = 4096;
    let start = values.as_ptr().cast::<u8>();
    let skipped = start.align_offset(PAGE);
    let bytes = size_of_val(values).saturating_sub(skipped) / PAGE * PAGE;
    // SAFETY: the range lies in the array, and the advice changes no content. Where it is refused all stays as it was.
    let _ = unsafe {
        libc::madvise(start.wrapping_add(skipped).cast_mut().cast(), bytes, libc::MADV_HUGEPAGE)
    };
}

/// An array of zeros.
pub(crate) fn zero_array<A: Zeroable, D: Dimension>(
    purpose: &'static str,
    dimensions: impl IntoDimension<Dim = D>,
) -> Result<Array<A, D>> {
    let dimensions = dimensions.into_dimension();
    // Axes of length zero do not excuse the others: an array has strides for them.
    let size = dimensions.slice().iter().try_fold(1, |size: usize, &axis| {
        size.checked_mul(axis.max(1)).filter(|&size| isize::try_from(size).is_ok())
    });
    if size.is_none() {
        return Err(Error::TooLarge {
            argument: purpose,
            dimensions: dimensions.slice().to_vec(),
            element_bytes: size_of::<A>(),
        });
    }
    let values = zeros(purpose, dimensions.size())?;
    Ok(Array::from_shape_vec(dimensions, values).expect("the vector is made for these dimensions"))
}

/// Room for `additional` more elements.
pub(crate) fn reserve<A>(
    purpose: &'static str,
    vector: &mut Vec<A>,
    additional: usize,
) -> Result<()> {
    vector.try_reserve(additional).map_err(|_| Error::OutOfMemory {
        purpose,
        place: "host",
        bytes: additional.saturating_mul(size_of::<A>()),
    })
}
