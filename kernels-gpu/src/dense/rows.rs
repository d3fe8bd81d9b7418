//! The matrices that go into a product, and where it goes.

use crate::attention::random;
use crate::block_args::{Dropout, Rows, Target};
use crate::dense::product::Operand;
use crate::memory;
use crate::storage::Storage;
use crate::unroll::{each8, upto8};

impl Dropout {
    /// What the element of this number is multiplied with.
    ///
    /// # Safety
    ///
    /// The pointer is valid as the structure says, and the element exists.
    #[inline(always)]
    pub(crate) unsafe fn factor(&self, index: u64) -> f32 {
        if !self.is_active() {
            return 1.0;
        }
        let number = if self.numbers.is_null() {
            random::uniform(self.seed, self.stream, index)
        } else {
            // SAFETY: the caller's promise.
            unsafe { memory::load_f32(self.numbers.wrapping_add(index as usize)) }
        };
        let kept = number > self.threshold || (number == self.threshold && self.zero_equal == 0);
        if kept { self.scale } else { 0.0 }
    }
}

/// Eight neighbouring elements, of which only the first `count` are there; zeros for the others.
///
/// # Safety
///
/// The elements that are there are valid for reads, nobody writes them during the launch, and when `wide` the address is
/// a multiple of 16 bytes.
#[inline(always)]
unsafe fn load_run<S: Storage>(pointer: *const S, count: u32, wide: bool) -> [f32; 8] {
    let mut values = [0.0; 8];
    if wide && count >= 8 {
        upto8(8 / S::PER_VECTOR, |vector| {
            let first = vector * S::PER_VECTOR;
            // SAFETY: the caller's promise.
            let part = unsafe { S::load_vector(pointer.wrapping_add(first)) };
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

impl<T> Rows<T> {
    /// Eight neighbours of a row, from `column`, a multiple of 8, on; zeros outside the matrix.
    ///
    /// # Safety
    ///
    /// The pointers are valid as the structure says.
    #[inline(always)]
    unsafe fn load8(&self, row: u64, column: u64) -> [f32; 8]
    where
        T: Storage,
    {
        if row >= self.rows || column >= u64::from(self.columns) {
            return [0.0; 8];
        }
        let column = column as u32;
        let (count, wide) = (self.columns - column, self.wide != 0);
        if row >= self.first_rows {
            let at = (row - self.first_rows) * u64::from(self.columns) + u64::from(column);
            // SAFETY: within the row; the caller's promise.
            return unsafe { load_run(self.tail.wrapping_add(at as usize), count, wide) };
        }
        let at = (row * u64::from(self.stride) + u64::from(column)) as usize;
        // SAFETY: as above.
        let mut values = unsafe { load_run(self.first.wrapping_add(at), count, wide) };
        if !self.added.is_null() {
            // SAFETY: as above.
            let added = unsafe { load_run(self.added.wrapping_add(at), count, wide) };
            each8(|index| values[index] += added[index]);
        }
        values
    }
}

/// A matrix whose rows are the lines of a product.
pub(crate) struct ByRow<'a, T>(pub(crate) &'a Rows<T>);

impl<T: Storage> Operand for ByRow<'_, T> {
    const ALONG_DEPTH: bool = true;

    #[inline(always)]
    unsafe fn load8(&self, line: u64, depth: u64) -> [f32; 8] {
        // SAFETY: the caller's promise.
        unsafe { self.0.load8(line, depth) }
    }
}

/// A matrix whose columns are the lines of a product.
pub(crate) struct ByColumn<'a, T>(pub(crate) &'a Rows<T>);

impl<T: Storage> Operand for ByColumn<'_, T> {
    const ALONG_DEPTH: bool = false;

    #[inline(always)]
    unsafe fn load8(&self, line: u64, depth: u64) -> [f32; 8] {
        // SAFETY: the caller's promise.
        unsafe { self.0.load8(depth, line) }
    }
}

impl<T> Target<T> {
    /// Writes a sum to its place, if it has one.
    ///
    /// # Safety
    ///
    /// The pointers are valid as the structure says; one thread for each sum.
    #[inline(always)]
    pub(crate) unsafe fn write(&self, row: u64, column: u64, sum: f32)
    where
        T: Storage,
    {
        if row >= self.rows || column >= u64::from(self.columns) {
            return;
        }
        let columns = u64::from(self.columns);
        let element = (row * columns + column) as usize;
        let mut value = sum;
        // SAFETY: row and column exist; the caller's promise.
        unsafe {
            if row < self.bias_rows && !self.bias.is_null() {
                value += memory::load_f32(self.bias.wrapping_add(column as usize));
            }
            if row >= self.first_rows {
                let at = element - (self.first_rows * columns) as usize;
                memory::store_f32(self.tail.wrapping_add(at), value);
                return;
            }
            if !self.plain.is_null() {
                T::store(self.plain.wrapping_add(element), value);
            }
            value *= self.dropout.factor(element as u64);
            if !self.addend.is_null() {
                value += memory::load_f32(self.addend.wrapping_add(element));
            }
            let mut residual = 0.0;
            if !self.residual.is_null() {
                let at = row * u64::from(self.residual_stride) + column;
                residual = T::load(self.residual.wrapping_add(at as usize));
            }
            let at = (row * u64::from(self.stride) + column) as usize;
            if self.concatenate != 0 {
                T::store(self.first.wrapping_add(at), value);
                T::store(self.first.wrapping_add(at + columns as usize), residual);
            } else {
                T::store(self.first.wrapping_add(at), value + residual);
            }
        }
    }
}
