//! The matrices that go into a product.

use crate::block_args::Rows;
use crate::dense::arithmetic::Arithmetic;
use crate::dense::product::Operand;
use crate::dense::run::Runs;
use crate::unroll::array4;

/// A matrix in memory.
pub(crate) trait Matrix {
    /// A row.
    type Line: Copy;
    /// Four neighbours of a row.
    type Run: Copy;

    /// Four zeros.
    const ZEROS: Self::Run;

    /// A row, which need not exist.
    fn line(&self, row: u64) -> Self::Line;

    /// Whether all runs are aligned to their size, and whole or outside.
    fn is_wide(&self) -> bool;

    /// Four neighbours of a row, from `column`, a multiple of 4, on; zeros outside the matrix.
    ///
    /// # Safety
    ///
    /// The pointers are valid as the matrix says; `WIDE` only if it [is](Self::is_wide).
    unsafe fn load<const WIDE: bool>(&self, line: Self::Line, column: u64) -> Self::Run;

    /// The numbers of a run.
    fn values(run: Self::Run) -> [f32; 4];

    /// Two words of two elements each, where two neighbours in memory are a word of the arithmetic.
    fn pairs<M: Arithmetic>(run: Self::Run) -> Option<[u32; 2]>;
}

/// Reads four neighbours, as far as they come before `columns`; zeros for the others, and where not `live`.
///
/// # Safety
///
/// The elements before `columns` are valid for reads when `live`, and nobody writes them during the launch; `WIDE` only if the
/// four are aligned to their size, and all or none of them before `columns`.
#[inline(always)]
unsafe fn load<S: Runs, const WIDE: bool>(
    row: *const S,
    column: u64,
    columns: u32,
    live: bool,
) -> S::Run {
    let pointer = row.wrapping_add(column as usize);
    let live = live && column < u64::from(columns);
    // SAFETY: the caller's promise.
    unsafe {
        if WIDE {
            S::load_run(pointer, live)
        } else {
            S::load_some(pointer, if live { columns - column as u32 } else { 0 })
        }
    }
}

/// Rows of one element type.
pub(crate) struct Uniform<S> {
    pointer: *const S,
    rows: u64,
    columns: u32,
    stride: u32,
    wide: bool,
}

impl<S> Uniform<S> {
    /// The first rows only.
    #[inline(always)]
    pub(crate) fn before(self, rows: u64) -> Self {
        Self { rows, ..self }
    }
}

impl<S: Runs> Matrix for Uniform<S> {
    type Line = (*const S, bool);
    type Run = S::Run;

    const ZEROS: Self::Run = S::ZEROS;

    #[inline(always)]
    fn line(&self, row: u64) -> Self::Line {
        let start = row * u64::from(self.stride);
        (self.pointer.wrapping_add(start as usize), row < self.rows)
    }

    #[inline(always)]
    fn is_wide(&self) -> bool {
        self.wide
    }

    #[inline(always)]
    unsafe fn load<const WIDE: bool>(&self, (row, live): Self::Line, column: u64) -> Self::Run {
        // SAFETY: the caller's promise.
        unsafe { load::<S, WIDE>(row, column, self.columns, live) }
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

/// A row of [`Rows`].
pub(crate) struct RowOf<S> {
    /// The row itself: elements, or numbers.
    start: *const S,
    /// Elements to add.
    added: *const S,
    is_first: bool,
    is_tail: bool,
}

impl<S> Clone for RowOf<S> {
    #[inline(always)]
    fn clone(&self) -> Self {
        *self
    }
}

impl<S> Copy for RowOf<S> {}

/// Four neighbours of a row of [`Rows`]: what is added up there.
pub(crate) struct Terms<S: Runs> {
    first: S::Run,
    added: S::Run,
    /// Used where elements are not fp32; otherwise these are `first`, too.
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
    type Line = RowOf<T>;
    type Run = Terms<T>;

    const ZEROS: Self::Run = Terms { first: T::ZEROS, added: T::ZEROS, tail: <f32 as Runs>::ZEROS };

    #[inline(always)]
    fn line(&self, row: u64) -> Self::Line {
        let is_first = row < self.first_rows;
        let first = (row * u64::from(self.stride)) as usize;
        let tail = row.saturating_sub(self.first_rows) * u64::from(self.columns);
        let tail = self.tail.wrapping_add(tail as usize);
        RowOf {
            start: if is_first { self.first.wrapping_add(first) } else { tail.cast() },
            added: self.added.wrapping_add(first),
            is_first,
            is_tail: !is_first && row < self.rows,
        }
    }

    #[inline(always)]
    fn is_wide(&self) -> bool {
        self.wide != 0
    }

    #[inline(always)]
    unsafe fn load<const WIDE: bool>(&self, line: Self::Line, column: u64) -> Self::Run {
        let RowOf { start, added, is_first, is_tail } = line;
        let has_added = is_first && !self.added.is_null();
        // SAFETY: the caller's promise.
        unsafe {
            let added = load::<T, WIDE>(added, column, self.columns, has_added);
            if T::BYTES == 4 {
                let first = load::<T, WIDE>(start, column, self.columns, is_first || is_tail);
                return Terms { first, added, tail: <f32 as Runs>::ZEROS };
            }
            Terms {
                first: load::<T, WIDE>(start, column, self.columns, is_first),
                added,
                tail: load::<f32, WIDE>(start.cast(), column, self.columns, is_tail),
            }
        }
    }

    #[inline(always)]
    fn values(run: Self::Run) -> [f32; 4] {
        let [first, added] = [run.first, run.added].map(T::values);
        let sums = array4(|index| first[index] + added[index]);
        if T::BYTES == 4 {
            return sums;
        }
        let tail = f32::values(run.tail);
        array4(|index| sums[index] + tail[index])
    }

    #[inline(always)]
    fn pairs<M: Arithmetic>(_: Self::Run) -> Option<[u32; 2]> {
        None
    }
}

/// A matrix whose rows are the lines of a product.
pub(crate) struct ByRow<X>(pub(crate) X);

impl<X: Matrix> Operand for ByRow<X> {
    type Line = X::Line;
    type Run = X::Run;

    const ALONG_DEPTH: bool = true;
    const ZEROS: Self::Run = X::ZEROS;

    #[inline(always)]
    fn line(&self, line: u64) -> Self::Line {
        self.0.line(line)
    }

    #[inline(always)]
    fn is_wide(&self) -> bool {
        self.0.is_wide()
    }

    #[inline(always)]
    unsafe fn load<const WIDE: bool>(&self, line: Self::Line, depth: u64) -> Self::Run {
        // SAFETY: the caller's promise.
        unsafe { self.0.load::<WIDE>(line, depth) }
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
    type Line = u64;
    type Run = X::Run;

    const ALONG_DEPTH: bool = false;
    const ZEROS: Self::Run = X::ZEROS;

    #[inline(always)]
    fn line(&self, line: u64) -> Self::Line {
        line
    }

    #[inline(always)]
    fn is_wide(&self) -> bool {
        self.0.is_wide()
    }

    #[inline(always)]
    unsafe fn load<const WIDE: bool>(&self, line: Self::Line, depth: u64) -> Self::Run {
        // SAFETY: the caller's promise.
        unsafe { self.0.load::<WIDE>(self.0.line(depth), line) }
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
