//! The global memory of a launch.

use std::cell::Cell;
use std::marker::PhantomData;
use std::sync::atomic::{AtomicU64, Ordering};

/// The buffers that a launch may touch, and what it may do with them.
///
/// The buffers are borrowed for `'a`: they can be looked at again when the `Memory` is gone.
///
/// ```
/// use cuda_std::emulator::Memory;
///
/// let input = [1.0f32, 2.0];
/// let mut output = [0.0f32; 2];
/// let mut memory = Memory::new();
/// let from: *const f32 = memory.read_only("input", &input);
/// let to: *mut f32 = memory.uninitialised("output", &mut output);
/// assert_eq!(memory.unwritten("output"), 8);
/// ```
#[derive(Debug, Default)]
pub struct Memory<'a> {
    buffers: Vec<Buffer>,
    borrows: PhantomData<&'a mut [u8]>,
}

#[derive(Debug)]
struct Buffer {
    name: &'static str,
    start: usize,
    bytes: usize,
    writable: bool,
    /// One bit per byte, set when the byte has been written; `None` if all count as written.
    written: Option<Box<[AtomicU64]>>,
}

/// How an access touches memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Access {
    Read,
    Write,
    ReadWrite,
}

/// Why an access is refused; the fault without its place.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    OutOfBounds { nearest: String },
    ReadOnly { buffer: &'static str, offset: usize },
    Misaligned { offset: usize },
    Uninitialised { buffer: &'static str, offset: usize },
}

impl<'a> Memory<'a> {
    /// No buffers.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// A buffer that kernels may read.
    pub fn read_only<T: Copy>(&mut self, name: &'static str, data: &'a [T]) -> *const T {
        self.add(name, data.as_ptr() as usize, size_of_val(data), false, false);
        data.as_ptr()
    }

    /// A buffer that kernels may read and write.
    pub fn read_write<T: Copy>(&mut self, name: &'static str, data: &'a mut [T]) -> *mut T {
        self.add(name, data.as_ptr() as usize, size_of_val(data), true, false);
        data.as_mut_ptr()
    }

    /// A buffer that kernels may write, and read where one of them has written before.
    pub fn uninitialised<T: Copy>(&mut self, name: &'static str, data: &'a mut [T]) -> *mut T {
        self.add(name, data.as_ptr() as usize, size_of_val(data), true, true);
        data.as_mut_ptr()
    }

    /// How many bytes of the buffers called `name`, given as
    /// [`uninitialised`](Self::uninitialised), no kernel has written yet.
    #[must_use]
    pub fn unwritten(&self, name: &str) -> usize {
        self.buffers.iter().filter(|buffer| buffer.name == name).map(Buffer::unwritten).sum()
    }

    /// The bytes of each buffer that kernels may write, `None` for the others.
    pub(super) fn writable_bytes(&self) -> impl Iterator<Item = Option<usize>> {
        self.buffers.iter().map(|buffer| buffer.writable.then_some(buffer.bytes))
    }

    /// The buffer of that number, by name, and the place of an address in it.
    pub(super) fn place(&self, number: usize, address: usize) -> (&'static str, usize) {
        let buffer = &self.buffers[number];
        (buffer.name, address - buffer.start)
    }

    fn add(&mut self, name: &'static str, start: usize, bytes: usize, writable: bool, fresh: bool) {
        let written = fresh.then(|| (0..bytes.div_ceil(64)).map(|_| AtomicU64::new(0)).collect());
        self.buffers.push(Buffer { name, start, bytes, writable, written });
    }

    /// Checks an access, and notes what it writes. `hint` holds the number of the buffer that was
    /// hit last, this one included.
    #[inline]
    pub(super) fn access(
        &self,
        address: usize,
        bytes: usize,
        access: Access,
        hint: &Cell<usize>,
    ) -> Result<(), Refusal> {
        let last = self.buffers.get(hint.get());
        if let Some(buffer) = last.filter(|buffer| buffer.contains(address, bytes)) {
            return buffer.access(address, bytes, access);
        }
        match self.buffers.iter().position(|buffer| buffer.contains(address, bytes)) {
            Some(number) => {
                hint.set(number);
                self.buffers[number].access(address, bytes, access)
            }
            None => Err(Refusal::OutOfBounds { nearest: self.nearest(address) }),
        }
    }

    #[cold]
    fn nearest(&self, address: usize) -> String {
        let distance = |buffer: &&Buffer| {
            let end = buffer.start + buffer.bytes;
            buffer.start.saturating_sub(address).max(address.saturating_sub(end))
        };
        match self.buffers.iter().min_by_key(distance) {
            Some(buffer) => format!(
                "offset {} of `{}`, which has {} bytes",
                address as i128 - buffer.start as i128,
                buffer.name,
                buffer.bytes
            ),
            None => "the launch has no buffers".to_owned(),
        }
    }
}

impl Buffer {
    #[inline]
    fn contains(&self, address: usize, bytes: usize) -> bool {
        address
            .checked_sub(self.start)
            .is_some_and(|offset| offset <= self.bytes && bytes <= self.bytes - offset)
    }

    #[inline]
    fn access(&self, address: usize, bytes: usize, access: Access) -> Result<(), Refusal> {
        let offset = address - self.start;
        // Allocations on a GPU start at multiples of 256, so the offset decides there.
        if bytes.is_power_of_two() && bytes <= 16 && !offset.is_multiple_of(bytes) {
            return Err(Refusal::Misaligned { offset });
        }
        if access != Access::Read && !self.writable {
            return Err(Refusal::ReadOnly { buffer: self.name, offset });
        }
        let Some(written) = &self.written else { return Ok(()) };
        for (word, bits) in words(offset, bytes) {
            let before = written[word].load(Ordering::Relaxed);
            if before & bits == bits {
                continue;
            }
            if access != Access::Write {
                return Err(Refusal::Uninitialised { buffer: self.name, offset });
            }
            written[word].fetch_or(bits, Ordering::Relaxed);
        }
        Ok(())
    }

    fn unwritten(&self) -> usize {
        let count = |words: &[AtomicU64]| -> usize {
            words.iter().map(|word| word.load(Ordering::Relaxed).count_ones() as usize).sum()
        };
        self.written.as_deref().map_or(0, |words| self.bytes - count(words))
    }
}

/// The words of a bitmap that hold the bits `offset` to `offset + len - 1`, and the bits in each.
#[inline]
fn words(offset: usize, len: usize) -> impl Iterator<Item = (usize, u64)> {
    let end = offset + len;
    let mut next = offset;
    std::iter::from_fn(move || {
        if next == end {
            return None;
        }
        let word = next / 64;
        let first = next % 64;
        let count = (64 - first).min(end - next);
        next += count;
        Some((word, (u64::MAX >> (64 - count)) << first))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn access(
        memory: &Memory<'_>,
        pointer: *const f32,
        bytes: usize,
        access: Access,
    ) -> Result<(), Refusal> {
        memory.access(pointer as usize, bytes, access, &Cell::new(0))
    }

    #[test]
    fn bits_of_words() {
        assert_eq!(words(0, 0).collect::<Vec<_>>(), []);
        assert_eq!(words(3, 2).collect::<Vec<_>>(), [(0, 0b11000)]);
        assert_eq!(words(64, 64).collect::<Vec<_>>(), [(1, u64::MAX)]);
        assert_eq!(words(62, 70).collect::<Vec<_>>(), [(0, 3 << 62), (1, u64::MAX), (2, 0b1111)]);
    }

    #[test]
    fn buffers_are_found_and_guarded() {
        let input = [0.0f32; 8];
        let mut output = [0.0f32; 8];
        let mut memory = Memory::new();
        let input = memory.read_only("input", &input);
        let output = memory.read_write("output", &mut output);
        assert_eq!(access(&memory, input.wrapping_add(7), 4, Access::Read), Ok(()));
        assert_eq!(access(&memory, input.wrapping_add(4), 16, Access::Read), Ok(()));
        assert_eq!(access(&memory, output.wrapping_add(7), 4, Access::ReadWrite), Ok(()));
        assert_eq!(
            access(&memory, input.wrapping_add(1), 4, Access::Write),
            Err(Refusal::ReadOnly { buffer: "input", offset: 4 })
        );
        assert_eq!(
            access(&memory, input.wrapping_add(2), 16, Access::Read),
            Err(Refusal::Misaligned { offset: 8 })
        );
        for pointer in [std::ptr::null(), usize::MAX as *const f32] {
            let result = access(&memory, pointer, 4, Access::Read);
            assert!(matches!(result, Err(Refusal::OutOfBounds { .. })), "{result:?}");
        }
    }

    #[test]
    fn an_access_over_the_end_names_the_buffer() {
        let input = [0.0f32; 8];
        let mut memory = Memory::new();
        let input = memory.read_only("input", &input);
        let result = access(&memory, input.wrapping_add(7), 8, Access::Read);
        let nearest = "offset 28 of `input`, which has 32 bytes".to_owned();
        assert_eq!(result, Err(Refusal::OutOfBounds { nearest }));
    }

    #[test]
    fn uninitialised_bytes_are_followed() {
        let mut output = [0.0f32; 40];
        let mut memory = Memory::new();
        let output = memory.uninitialised("output", &mut output);
        let refused = Err(Refusal::Uninitialised { buffer: "output", offset: 4 });
        assert_eq!(access(&memory, output.wrapping_add(1), 4, Access::Read), refused);
        assert_eq!(access(&memory, output.wrapping_add(1), 4, Access::ReadWrite), refused);
        assert_eq!(access(&memory, output.wrapping_add(1), 4, Access::Write), Ok(()));
        assert_eq!(access(&memory, output.wrapping_add(1), 4, Access::Read), Ok(()));
        assert_eq!(access(&memory, output.wrapping_add(1), 4, Access::ReadWrite), Ok(()));
        assert_eq!(memory.unwritten("output"), 156);
        assert_eq!(memory.unwritten("no such buffer"), 0);
    }
}
