//! Where a product goes.

use crate::block_args::Target;
use crate::memory;
use crate::storage::Storage;
use crate::unroll::{array8, each8, upto8};

/// Eight neighbouring elements, of which only the first `count` are there; zeros for the others.
///
/// # Safety
///
/// The elements that are there are aligned and valid for reads, and nobody writes them during the launch.
#[inline(always)]
unsafe fn load_run<S: Storage>(pointer: *const S, count: u32) -> [f32; 8] {
    let mut values = [0.0; 8];
    // Nothing is as quick as everything.
    if count == 0 || (count >= 8 && pointer.addr().is_multiple_of(16)) {
        upto8(8 / S::PER_VECTOR, |vector| {
            let first = vector * S::PER_VECTOR;
            // SAFETY: the caller's promise.
            let part = unsafe { S::load_vector_if(pointer.wrapping_add(first), count > 0) };
            upto8(S::PER_VECTOR, |index| values[first + index] = part[index]);
        });
    } else {
        each8(|index| {
            if (index as u32) < count {
                // SAFETY: the caller's promise.
                values[index] = unsafe { S::load(pointer.wrapping_add(index)) };
            }
        });
    }
    values
}

/// Writes the first `count` of eight neighbouring elements, rounded to nearest even.
///
/// # Safety
///
/// Those are aligned and valid for writes, and no other thread touches them meanwhile.
#[inline(always)]
pub(crate) unsafe fn store_run<S: Storage>(pointer: *mut S, count: u32, values: &[f32; 8]) {
    // SAFETY: the caller's promise; vectors where they are aligned.
    unsafe {
        if count >= 8 && pointer.addr().is_multiple_of(16) {
            upto8(8 / S::PER_VECTOR, |vector| {
                let first = vector * S::PER_VECTOR;
                let mut part = [0.0; 8];
                upto8(S::PER_VECTOR, |index| part[index] = values[first + index]);
                memory::store_words(pointer.wrapping_add(first).cast(), S::round_vector(part));
            });
        } else {
            each8(|index| {
                if (index as u32) < count {
                    S::store(pointer.wrapping_add(index), values[index]);
                }
            });
        }
    }
}

impl<T> Target<T> {
    /// Writes eight neighbouring sums of a row to their places, as far as they have one.
    ///
    /// # Safety
    ///
    /// The pointers are valid as the structure says; one thread for each sum.
    #[inline(always)]
    pub(crate) unsafe fn write(&self, row: u64, column: u64, sums: &[f32; 8])
    where
        T: Storage,
    {
        let columns = u64::from(self.columns);
        if row >= self.rows || column >= columns {
            return;
        }
        let count = (columns - column) as u32;
        let element = row * columns + column;
        let counted = |there: bool| if there { count } else { 0 };
        let has_bias = counted(row < self.bias_rows && !self.bias.is_null());
        let bias = self.bias.wrapping_add(column as usize);
        if row >= self.first_rows {
            let at = element - self.first_rows * columns;
            // SAFETY: row and columns exist as far as they are counted; the caller's promise.
            unsafe {
                let bias = load_run(bias, has_bias);
                let values = array8(|index| sums[index] + bias[index]);
                store_run(self.tail.wrapping_add(at as usize), count, &values);
            }
            return;
        }
        let residual = row * u64::from(self.residual_stride) + column;
        let residual = self.residual.wrapping_add(residual as usize);
        // All loads before the first use.
        // SAFETY: as above.
        let (bias, addend, residual) = unsafe {
            (
                load_run(bias, has_bias),
                load_run(
                    self.addend.wrapping_add(element as usize),
                    counted(!self.addend.is_null()),
                ),
                load_run(residual, counted(!self.residual.is_null())),
            )
        };
        let mut values = array8(|index| sums[index] + bias[index]);
        // SAFETY: as above.
        unsafe {
            if !self.plain.is_null() {
                store_run(self.plain.wrapping_add(element as usize), count, &values);
            }
            if self.dropout.is_active() {
                let kept = self.dropout.kept_of_eight(element, count);
                each8(|index| {
                    let is_kept = kept >> index & 1 != 0;
                    values[index] *= if is_kept { self.dropout.scale } else { 0.0 };
                });
            }
            each8(|index| values[index] += addend[index]);
            let first = self.first.wrapping_add((row * u64::from(self.stride) + column) as usize);
            if self.concatenate != 0 {
                store_run(first.wrapping_add(self.columns as usize), count, &residual);
            } else {
                each8(|index| values[index] += residual[index]);
            }
            store_run(first, count, &values);
        }
    }
}
