//! The matrices that go into a product.

use crate::block_args::Rows;
use crate::dense::arithmetic::Arithmetic;
use crate::dense::run::Runs;
use crate::unroll::array4;

/// A matrix in memory.
pub(crate) trait Matrix: Copy {
    /// Its elements.
    type Element: Runs;
    /// Four neighbours of a row, as they come from memory.
    type Run: Copy;

    /// Four zeros.
    const ZEROS: Self::Run;

    /// Where its elements are.
    fn plain(&self) -> &Plain<Self::Element>;

    /// Four neighbours of a row, of which the first `count` exist; zeros for the others.
    ///
    /// # Safety
    ///
    /// Those are the matrix's; if `WIDE`, the matrix [is](Plain::wide), and either all or none exist.
    unsafe fn load<const WIDE: bool>(&self, pointer: *const Self::Element, count: u32) -> Self::Run;

    /// Two runs one behind the other in a row, or zeros if not `live`.
    ///
    /// # Safety
    ///
    /// They exist if `live`; the matrix is [wide](Plain::wide), and the place in the row divides by eight.
    unsafe fn load_two(&self, pointer: *const Self::Element, live: bool) -> [Self::Run; 2];

    /// The numbers of a run.
    fn values(&self, run: Self::Run) -> [f32; 4];

    /// Two words of two elements each, where two neighbours in memory are a word of the arithmetic.
    fn pairs<M: Arithmetic>(&self, run: Self::Run) -> Option<[u32; 2]>;
}

/// Rows of one element type.
#[derive(Clone, Copy)]
pub(crate) struct Plain<S> {
    pub(crate) pointer: *const S,
    pub(crate) rows: u64,
    pub(crate) columns: u32,
    pub(crate) stride: u32,
    /// Whether all runs of 16 bytes are aligned, and whole or outside.
    pub(crate) wide: bool,
}

impl<S: Runs> Matrix for Plain<S> {
    type Element = S;
    type Run = S::Run;

    const ZEROS: Self::Run = S::ZEROS;

    #[inline(always)]
    fn plain(&self) -> &Self {
        self
    }

    #[inline(always)]
    unsafe fn load<const WIDE: bool>(&self, pointer: *const S, count: u32) -> Self::Run {
        // SAFETY: the caller's promise.
        unsafe { if WIDE { S::load_run(pointer, count > 0) } else { S::load_some(pointer, count) } }
    }

    #[inline(always)]
    unsafe fn load_two(&self, pointer: *const S, live: bool) -> [Self::Run; 2] {
        // SAFETY: the caller's promise.
        unsafe { S::load_two_runs(pointer, live) }
    }

    #[inline(always)]
    fn values(&self, run: Self::Run) -> [f32; 4] {
        S::values(run)
    }

    #[inline(always)]
    fn pairs<M: Arithmetic>(&self, run: Self::Run) -> Option<[u32; 2]> {
        if M::takes::<S>() { Some(S::pairs(run)) } else { None }
    }
}

/// Rows of one element type, and others, where there are any, that are added to them.
#[derive(Clone, Copy)]
pub(crate) struct Summed<S> {
    plain: Plain<S>,
    added: *const S,
}

impl<S> Summed<S> {
    /// Where what is added to an element is.
    #[inline(always)]
    fn beside(&self, pointer: *const S) -> *const S {
        let distance = self.added.addr().wrapping_sub(self.plain.pointer.addr());
        self.added.with_addr(pointer.addr().wrapping_add(distance))
    }

    /// The first rows.
    #[inline(always)]
    pub(crate) fn of(rows: &Rows<S>) -> Self
    where
        S: Runs,
    {
        Self { plain: Elements::of(rows), added: rows.added }
    }
}

impl<S: Runs> Matrix for Summed<S> {
    type Element = S;
    type Run = [S::Run; 2];

    const ZEROS: Self::Run = [S::ZEROS; 2];

    #[inline(always)]
    fn plain(&self) -> &Plain<S> {
        &self.plain
    }

    #[inline(always)]
    unsafe fn load<const WIDE: bool>(&self, pointer: *const S, count: u32) -> Self::Run {
        let beside = self.beside(pointer);
        let of_added = if self.added.is_null() { 0 } else { count };
        // SAFETY: the caller's promise, and those that are added lie as far from their first.
        unsafe {
            [self.plain.load::<WIDE>(pointer, count), self.plain.load::<WIDE>(beside, of_added)]
        }
    }

    #[inline(always)]
    unsafe fn load_two(&self, pointer: *const S, live: bool) -> [Self::Run; 2] {
        let beside = self.beside(pointer);
        // SAFETY: as in `load`.
        let (first, added) = unsafe {
            (
                self.plain.load_two(pointer, live),
                self.plain.load_two(beside, live && !self.added.is_null()),
            )
        };
        [[first[0], added[0]], [first[1], added[1]]]
    }

    #[inline(always)]
    fn values(&self, runs: Self::Run) -> [f32; 4] {
        let [first, added] = runs.map(S::values);
        array4(|index| first[index] + added[index])
    }

    #[inline(always)]
    fn pairs<M: Arithmetic>(&self, [first, added]: Self::Run) -> Option<[u32; 2]> {
        if M::takes::<S>() { Some(S::add_pairs(S::pairs(first), S::pairs(added))) } else { None }
    }
}

/// Which part of [`Rows`] a matrix is.
pub(crate) trait Part<T> {
    /// Its elements.
    type Element: Runs;
    /// The elements of the layer's input that go with this part of the gradient of its output.
    type Input: Matrix;

    /// The matrix.
    fn of(rows: &Rows<T>) -> Plain<Self::Element>;

    /// The first rows of the layer's input.
    fn input(rows: &Rows<T>) -> Self::Input;
}

/// The first rows only, and nothing added to them.
pub(crate) struct Elements;

impl<T: Runs> Part<T> for Elements {
    type Element = T;
    /// A layer whose output is elements takes what nothing is added to.
    type Input = Plain<T>;

    #[inline(always)]
    fn input(rows: &Rows<T>) -> Plain<T> {
        Self::of(rows)
    }

    #[inline(always)]
    fn of(rows: &Rows<T>) -> Plain<T> {
        let &Rows { first, first_rows, columns, stride, wide, .. } = rows;
        Plain { pointer: first, rows: first_rows, columns, stride, wide: wide != 0 }
    }
}

/// The rows of fp32 numbers only.
pub(crate) struct Numbers;

impl<T: Runs> Part<T> for Numbers {
    type Element = f32;
    type Input = Summed<T>;

    #[inline(always)]
    fn input(rows: &Rows<T>) -> Summed<T> {
        Summed::of(rows)
    }

    #[inline(always)]
    fn of(rows: &Rows<T>) -> Plain<f32> {
        let &Rows { tail, first_rows, rows, columns, wide, .. } = rows;
        Plain { pointer: tail, rows: rows - first_rows, columns, stride: columns, wide: wide != 0 }
    }
}

/// One of the two, where both are fp32.
pub(crate) struct Either;

impl Part<f32> for Either {
    type Element = f32;
    type Input = Summed<f32>;

    #[inline(always)]
    fn input(rows: &Rows<f32>) -> Summed<f32> {
        Summed::of(rows)
    }

    #[inline(always)]
    fn of(rows: &Rows<f32>) -> Plain<f32> {
        if rows.first_rows == 0 { Numbers::of(rows) } else { Elements::of(rows) }
    }
}
