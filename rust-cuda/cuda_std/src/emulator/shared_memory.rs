//! The shared memory of the block that runs.

use std::cell::RefCell;

use super::memory::Access;
use super::races::{Event, Reach, Words};
use super::shape::{MAX_SHARED_BYTES, MAX_STATIC_SHARED_BYTES};

/// Fills memory that no thread has written: a NaN as f32 or f64, and a far-off index.
const POISON: u8 = 0xff;
/// Arrays are aligned to this, as on the GPU.
const ALIGNMENT: usize = 16;
/// Bytes between two arrays that belong to neither, so that running over an end is seen.
const GAP: usize = 16;

/// What is known about one byte.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Byte {
    Outside,
    Unwritten,
    Written,
}

#[repr(align(256))]
#[derive(Clone)]
struct Line {
    _bytes: [u8; 256],
}

/// One worker's shared memory, used by one block after the other.
///
/// An array keeps its place from block to block: it gets it when the first thread asks for it.
pub(super) struct SharedMemory {
    /// The memory itself, owned. Threads of the kernel read and write it through pointers, so it
    /// is never borrowed.
    lines: *mut [Line],
    state: RefCell<State>,
}

struct State {
    bytes: Vec<Byte>,
    /// Where the last array ends.
    end: usize,
    dynamic_bytes: usize,
    static_bytes: usize,
    arrays: Vec<Array>,
    /// `None` if races are not looked for.
    races: Option<Words>,
}

struct Array {
    site: usize,
    offset: usize,
}

/// Why an access is refused; the fault without its place.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    OutOfBounds { nearest: String },
    Misaligned { offset: usize },
    Uninitialised { offset: usize },
    Race { offset: usize, other: Event },
}

impl SharedMemory {
    /// Memory with `dynamic_bytes` of dynamic shared memory, and room for static arrays.
    pub(super) fn new(dynamic_bytes: usize, race_checks: bool) -> Self {
        // The limits are on what the arrays themselves take. Gaps and alignment come on top, so
        // there is room for twice the static limit; arrays that still do not fit are refused.
        let room = dynamic_bytes.next_multiple_of(ALIGNMENT) + GAP + 2 * MAX_STATIC_SHARED_BYTES;
        let lines = vec![Line { _bytes: [POISON; 256] }; room.div_ceil(256)].into_boxed_slice();
        let mut bytes = vec![Byte::Outside; lines.len() * 256];
        bytes[..dynamic_bytes].fill(Byte::Unwritten);
        let state = State {
            bytes,
            end: dynamic_bytes,
            dynamic_bytes,
            static_bytes: 0,
            arrays: Vec::new(),
            races: race_checks.then(|| Words::new(Reach::Block, dynamic_bytes)),
        };
        Self { lines: Box::into_raw(lines), state: RefCell::new(state) }
    }

    /// Makes everything unwritten, for the next block.
    pub(super) fn begin_block(&self) {
        let mut state = self.state.borrow_mut();
        let end = state.end;
        for byte in &mut state.bytes[..end] {
            if *byte == Byte::Written {
                *byte = Byte::Unwritten;
            }
        }
        // SAFETY: `end` lies in the allocation, and between blocks no thread of the kernel runs.
        unsafe { self.dynamic().write_bytes(POISON, end) }
    }

    pub(super) fn dynamic(&self) -> *mut u8 {
        self.lines.cast()
    }

    /// The array that belongs to `site`.
    ///
    /// # Errors
    /// Says in words why the array does not fit.
    pub(super) fn array(&self, site: usize, bytes: usize, align: usize) -> Result<*mut u8, String> {
        let mut state = self.state.borrow_mut();
        let offset = match state.arrays.iter().find(|array| array.site == site) {
            Some(array) => array.offset,
            None => state.place(site, bytes, align)?,
        };
        Ok(self.dynamic().wrapping_add(offset))
    }

    /// Whether an address lies in this memory.
    #[inline]
    pub(super) fn contains(&self, address: usize) -> bool {
        let offset = address.wrapping_sub(self.dynamic() as usize);
        offset < self.lines.len() * 256
    }

    /// Checks an access, and notes what it writes.
    #[inline]
    pub(super) fn access(
        &self,
        address: usize,
        bytes: usize,
        access: Access,
        event: impl FnOnce() -> Event,
    ) -> Result<(), Refusal> {
        let mut state = self.state.borrow_mut();
        let offset = address.wrapping_sub(self.dynamic() as usize);
        let end = offset.checked_add(bytes).filter(|end| *end <= state.bytes.len());
        let Some(end) = end else {
            return Err(Refusal::OutOfBounds { nearest: state.nearest(offset) });
        };
        let touched = &mut state.bytes[offset..end];
        if touched.contains(&Byte::Outside) {
            return Err(Refusal::OutOfBounds { nearest: state.nearest(offset) });
        }
        if bytes.is_power_of_two() && bytes <= 16 && !offset.is_multiple_of(bytes) {
            return Err(Refusal::Misaligned { offset });
        }
        if access != Access::Write && touched.contains(&Byte::Unwritten) {
            return Err(Refusal::Uninitialised { offset });
        }
        if access != Access::Read {
            touched.fill(Byte::Written);
        }
        let races = state.races.as_ref();
        let race = races.and_then(|races| races.access(offset, bytes, access, event()));
        race.map_or(Ok(()), |other| Err(Refusal::Race { offset, other }))
    }
}

impl Drop for SharedMemory {
    fn drop(&mut self) {
        // SAFETY: the pointer comes from `Box::into_raw`, and the threads that had pointers into
        // the memory are gone.
        drop(unsafe { Box::from_raw(self.lines) });
    }
}

impl State {
    fn place(&mut self, site: usize, bytes: usize, align: usize) -> Result<usize, String> {
        let static_bytes = self.static_bytes.saturating_add(bytes);
        if static_bytes > MAX_STATIC_SHARED_BYTES {
            return Err(format!(
                "static shared memory is {static_bytes} bytes, expected at most \
                 {MAX_STATIC_SHARED_BYTES}"
            ));
        }
        let total = static_bytes + self.dynamic_bytes;
        if total > MAX_SHARED_BYTES {
            return Err(format!(
                "shared memory is {total} bytes, expected at most {MAX_SHARED_BYTES}"
            ));
        }
        let offset = (self.end + GAP).next_multiple_of(align.max(ALIGNMENT));
        let Some(array) = self.bytes.get_mut(offset..offset + bytes) else {
            return Err("shared memory is in too many arrays for the emulator".to_owned());
        };
        array.fill(Byte::Unwritten);
        self.races.iter_mut().for_each(|races| races.grow(offset + bytes));
        self.end = offset + bytes;
        self.static_bytes = static_bytes;
        self.arrays.push(Array { site, offset });
        Ok(offset)
    }

    #[cold]
    fn nearest(&self, offset: usize) -> String {
        format!(
            "offset {} of the block's shared memory, which has {} dynamic and {} static bytes",
            offset as isize, self.dynamic_bytes, self.static_bytes
        )
    }
}

#[cfg(test)]
mod tests {
    use super::super::races::Clock;
    use super::*;

    fn access(
        shared: &SharedMemory,
        address: usize,
        bytes: usize,
        access: Access,
    ) -> Result<(), Refusal> {
        shared.access(address, bytes, access, || Clock::new().event(0, false))
    }

    #[test]
    fn arrays_are_apart_aligned_and_found_again() {
        let shared = SharedMemory::new(100, false);
        let first = shared.array(1, 64, 4).unwrap();
        let second = shared.array(2, 64, 64).unwrap();
        assert_eq!(shared.array(1, 64, 4).unwrap(), first);
        assert_eq!(second as usize % 64, 0);
        assert!(first as usize >= shared.dynamic() as usize + 100 + GAP);
        assert!(second as usize >= first as usize + 64 + GAP);
        let over_the_end = access(&shared, first as usize + 60, 8, Access::Write);
        assert!(matches!(over_the_end, Err(Refusal::OutOfBounds { .. })));
        let dynamic_end = shared.dynamic() as usize + 100;
        assert_eq!(access(&shared, dynamic_end - 4, 4, Access::Write), Ok(()));
        let over_the_end = access(&shared, dynamic_end, 4, Access::Write);
        assert!(matches!(over_the_end, Err(Refusal::OutOfBounds { .. })));
        for address in [0, usize::MAX] {
            let outside = access(&shared, address, 4, Access::Read);
            assert!(matches!(outside, Err(Refusal::OutOfBounds { .. })));
        }
    }

    #[test]
    fn writes_are_forgotten_between_blocks() {
        let shared = SharedMemory::new(16, false);
        let address = shared.dynamic() as usize;
        let unwritten = Err(Refusal::Uninitialised { offset: 0 });
        assert_eq!(access(&shared, address, 4, Access::Read), unwritten);
        assert_eq!(access(&shared, address, 4, Access::Write), Ok(()));
        assert_eq!(access(&shared, address, 4, Access::Read), Ok(()));
        assert_eq!(access(&shared, address, 4, Access::ReadWrite), Ok(()));
        assert_eq!(
            access(&shared, address + 2, 4, Access::Read),
            Err(Refusal::Misaligned { offset: 2 })
        );
        shared.begin_block();
        assert_eq!(access(&shared, address, 4, Access::Read), unwritten);
    }

    #[test]
    fn more_than_the_gpu_has_is_refused() {
        let shared = SharedMemory::new(200 * 1024, false);
        assert!(shared.array(1, 20 * 1024, 4).is_ok());
        assert!(shared.array(2, 20 * 1024, 4).unwrap_err().contains("245760 bytes"));
        let shared = SharedMemory::new(0, false);
        assert!(shared.array(1, 49 * 1024, 4).unwrap_err().contains("at most 49152"));
        assert!(shared.array(1, usize::MAX, 4).is_err());
    }
}
