//! The matrices that go into a product.

use crate::block_args::Rows;
use crate::dense::arithmetic::Arithmetic;
use crate::dense::product::Operand;
use crate::dense::run::Runs;
use crate::unroll::array4;

/// A matrix in memory.
pub(crate) trait Matrix {
    /// Four neighbours of a row.
    type Run: Copy;

    /// Four zeros.
    const ZEROS: Self::Run;

    /// Four neighbours of a row, from `column`, a multiple of 4, on; zeros outside the matrix.
    ///
    /// # Safety
    ///
    /// The pointers are valid as the matrix says.
    unsafe fn load(&self, row: u64, column: u64) -> Self::Run;

    /// The numbers of a run.
    fn values(run: Self::Run) -> [f32; 4];

    /// Two words of two elements each, where two neighbours in memory are a word of the arithmetic.
    fn pairs<M: Arithmetic>(run: Self::Run) -> Option<[u32; 2]>;
}

/// Rows of one element type.
pub(crate) struct Uniform<S> {
    pointer: *const S,
    rows: u64,
    columns: u32,
    stride: u32,
    wide: bool,
}

impl<S: Runs> Matrix for Uniform<S> {
    type Run = S::Run;

    const ZEROS: Self::Run = S::ZEROS;

    #[inline(always)]
    unsafe fn load(&self, row: u64, column: u64) -> Self::Run {
        let live = row < self.rows && column < u64::from(self.columns);
        let at = row * u64::from(self.stride) + column;
        let pointer = self.pointer.wrapping_add(at as usize);
        // SAFETY: within the row when `live`; the caller's promise.
        unsafe {
            if self.wide {
                S::load_run(pointer, live)
            } else {
                S::load_some(pointer, if live { self.columns - column as u32 } else { 0 })
            }
        }
    }

    #[inline(always)]
    fn values(run: Self::Run) -> [f32; 4] {
        S::values(run)
    }

    #[inline(always)]
    fn pairs<M: Arithmetic>(run: Self::Run) -> Option<[u32; 2]> {
        if M::takes::<S>() { Some(S::pairs(run)) } else { None }
    }
}

/// Which part of [`Rows`] a matrix is.
pub(crate) trait Part<T> {
    /// Its elements.
    type Element: Runs;

    /// The matrix.
    fn of(rows: &Rows<T>) -> Uniform<Self::Element>;
}

/// The first rows only, and nothing added to them.
pub(crate) struct Elements;

impl<T: Runs> Part<T> for Elements {
    type Element = T;

    #[inline(always)]
    fn of(rows: &Rows<T>) -> Uniform<T> {
        let &Rows { first, rows, columns, stride, wide, .. } = rows;
        Uniform { pointer: first, rows, columns, stride, wide: wide != 0 }
    }
}

/// The rows of fp32 numbers only.
pub(crate) struct Numbers;

impl<T> Part<T> for Numbers {
    type Element = f32;

    #[inline(always)]
    fn of(rows: &Rows<T>) -> Uniform<f32> {
        let &Rows { tail, rows, columns, wide, .. } = rows;
        Uniform { pointer: tail, rows, columns, stride: columns, wide: wide != 0 }
    }
}

/// One of the two, where both are fp32.
pub(crate) struct Either;

impl Part<f32> for Either {
    type Element = f32;

    #[inline(always)]
    fn of(rows: &Rows<f32>) -> Uniform<f32> {
        if rows.first_rows == 0 { Numbers::of(rows) } else { Elements::of(rows) }
    }
}

/// Four neighbours of a row of [`Rows`]: what is added up there.
pub(crate) struct Terms<S: Runs> {
    first: S::Run,
    added: S::Run,
    tail: <f32 as Runs>::Run,
}

impl<S: Runs> Clone for Terms<S> {
    #[inline(always)]
    fn clone(&self) -> Self {
        *self
    }
}

impl<S: Runs> Copy for Terms<S> {}

impl<T: Runs> Matrix for Rows<T> {
    type Run = Terms<T>;

    const ZEROS: Self::Run = Terms { first: T::ZEROS, added: T::ZEROS, tail: <f32 as Runs>::ZEROS };

    #[inline(always)]
    unsafe fn load(&self, row: u64, column: u64) -> Self::Run {
        let live = row < self.rows && column < u64::from(self.columns);
        let is_first = row < self.first_rows;
        let first = row * u64::from(self.stride) + column;
        let tail = row.saturating_sub(self.first_rows) * u64::from(self.columns) + column;
        let (of_first, of_tail) = (live && is_first, live && !is_first);
        let of_added = of_first && !self.added.is_null();
        let first_at = self.first.wrapping_add(first as usize);
        let added_at = self.added.wrapping_add(first as usize);
        let tail_at = self.tail.wrapping_add(tail as usize);
        // SAFETY: within the row where it is live; the caller's promise.
        unsafe {
            if self.wide != 0 {
                Terms {
                    first: T::load_run(first_at, of_first),
                    added: T::load_run(added_at, of_added),
                    tail: f32::load_run(tail_at, of_tail),
                }
            } else {
                let count = |live| if live { self.columns - column as u32 } else { 0 };
                Terms {
                    first: T::load_some(first_at, count(of_first)),
                    added: T::load_some(added_at, count(of_added)),
                    tail: f32::load_some(tail_at, count(of_tail)),
                }
            }
        }
    }

    #[inline(always)]
    fn values(run: Self::Run) -> [f32; 4] {
        let [first, added] = [run.first, run.added].map(T::values);
        let tail = f32::values(run.tail);
        array4(|index| first[index] + added[index] + tail[index])
    }

    #[inline(always)]
    fn pairs<M: Arithmetic>(_: Self::Run) -> Option<[u32; 2]> {
        None
    }
}

/// A matrix whose rows are the lines of a product.
pub(crate) struct ByRow<X>(pub(crate) X);

impl<X: Matrix> Operand for ByRow<X> {
    type Run = X::Run;

    const ALONG_DEPTH: bool = true;
    const ZEROS: Self::Run = X::ZEROS;

    #[inline(always)]
    unsafe fn load(&self, line: u64, depth: u64) -> Self::Run {
        // SAFETY: the caller's promise.
        unsafe { self.0.load(line, depth) }
    }

    #[inline(always)]
    fn words<M: Arithmetic>([near, far]: [Self::Run; 2]) -> [u32; 4] {
        if let (Some([a, b]), Some([c, d])) = (X::pairs::<M>(near), X::pairs::<M>(far)) {
            return [a, b, c, d];
        }
        let near = X::values(near);
        if M::DEPTHS == 1 {
            return array4(|index| M::word(near[index], 0.0));
        }
        let far = X::values(far);
        let pair = |of: [f32; 4], first: usize| M::word(of[first], of[first + 1]);
        [pair(near, 0), pair(near, 2), pair(far, 0), pair(far, 2)]
    }
}

/// A matrix whose columns are the lines of a product.
pub(crate) struct ByColumn<X>(pub(crate) X);

impl<X: Matrix> Operand for ByColumn<X> {
    type Run = X::Run;

    const ALONG_DEPTH: bool = false;
    const ZEROS: Self::Run = X::ZEROS;

    #[inline(always)]
    unsafe fn load(&self, line: u64, depth: u64) -> Self::Run {
        // SAFETY: the caller's promise.
        unsafe { self.0.load(depth, line) }
    }

    #[inline(always)]
    fn words<M: Arithmetic>([near, far]: [Self::Run; 2]) -> [u32; 4] {
        if let (Some(near), Some(far)) = (X::pairs::<M>(near), X::pairs::<M>(far)) {
            return array4(|index| {
                let (shift, pair) = (16 * (index % 2), index / 2);
                (near[pair] >> shift) & 0xffff | (far[pair] >> shift) << 16
            });
        }
        let near = X::values(near);
        if M::DEPTHS == 1 {
            return array4(|index| M::word(near[index], 0.0));
        }
        let far = X::values(far);
        array4(|index| M::word(near[index], far[index]))
    }
}
