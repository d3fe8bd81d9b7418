//! Where the arrays between the stages lie.

use std::marker::PhantomData;

/// Every array begins at a multiple of this many bytes, so that 16-byte accesses may, and no two share a cache line.
const ALIGNMENT: usize = 256;

/// An array in a piece of memory: where it begins, in bytes.
#[derive(Debug)]
pub(crate) struct Place<A> {
    start: usize,
    element: PhantomData<fn() -> A>,
}

impl<A> Clone for Place<A> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<A> Copy for Place<A> {}

impl<A> Place<A> {
    /// The array, in the memory that begins at `memory`.
    pub(crate) fn at(self, memory: *const u8) -> *const A {
        memory.wrapping_add(self.start).cast()
    }

    /// The array, to be written.
    pub(crate) fn at_mut(self, memory: *mut u8) -> *mut A {
        memory.wrapping_add(self.start).cast()
    }
}

/// Hands out places one behind the other.
#[derive(Clone, Debug, Default)]
pub(crate) struct Places {
    /// Bytes handed out.
    pub(crate) bytes: usize,
}

impl Places {
    /// The place of an array of `length` elements.
    pub(crate) fn take<A>(&mut self, length: usize) -> Place<A> {
        let start = self.bytes;
        self.bytes = (start + length * size_of::<A>()).next_multiple_of(ALIGNMENT);
        Place { start, element: PhantomData }
    }
}
