//! Races in the global memory of a launch.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use super::memory::{Access, Memory};
use super::races::{Clock, Event, Reach, Words};

/// The accesses to the buffers of one launch. Launches follow each other, so each begins anew.
#[derive(Debug)]
pub(super) struct GlobalRaces {
    /// For each buffer that can be written.
    buffers: Vec<Option<Words>>,
    /// For each block that has passed a fence, its barriers and fences up to the last one.
    fences: Mutex<HashMap<u64, u32>>,
}

impl GlobalRaces {
    /// Nothing has touched the buffers.
    pub(super) fn new(memory: &Memory<'_>) -> Self {
        let buffers = memory.writable_bytes().map(|bytes| Some(Words::new(Reach::Grid, bytes?)));
        Self { buffers: buffers.collect(), fences: Mutex::default() }
    }

    /// Notes an access to the buffer of this number; gives an earlier one that it races with. Most accesses are to buffers that
    /// nobody writes: they make no event.
    #[inline]
    pub(super) fn access(
        &self,
        buffer: usize,
        offset: usize,
        bytes: usize,
        access: Access,
        event: impl FnOnce() -> Event,
    ) -> Option<Event> {
        let words = self.buffers[buffer].as_ref()?;
        let event = event();
        let race = words.access(offset, bytes, access, event)?;
        (race.block() == event.block() || !self.is_behind_fence(race)).then_some(race)
    }

    /// Notes that the block that runs has passed a fence.
    pub(super) fn fence(&self, clock: &Clock) {
        let (block, epoch) = clock.now();
        let mut fences = self.fences.lock().unwrap_or_else(PoisonError::into_inner);
        fences.insert(block, epoch);
    }

    #[cold]
    fn is_behind_fence(&self, event: Event) -> bool {
        let fences = self.fences.lock().unwrap_or_else(PoisonError::into_inner);
        fences.get(&event.block()).is_some_and(|epoch| event.block_epoch() < u64::from(*epoch))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fence_orders_a_block_against_what_others_do_later() {
        let mut data = [0_u32; 4];
        let mut memory = Memory::new();
        memory.read_only("in", &[0_u32; 4]);
        memory.read_write("out", &mut data);
        let races = GlobalRaces::new(&memory);
        let [writer, reader] = [7, 8].map(|block| {
            let clock = Clock::new();
            clock.begin_block(block);
            clock
        });
        let write = |offset| races.access(1, offset, 4, Access::Write, || writer.event(0, false));
        let read = |offset| races.access(1, offset, 4, Access::Read, || reader.event(0, false));
        assert_eq!(write(0), None);
        writer.order_block();
        races.fence(&writer);
        assert_eq!(write(4), None);
        assert_eq!(read(0), None);
        assert_eq!(read(4).map(Event::block), Some(7));
        assert_eq!(races.access(0, 0, 16, Access::Read, || reader.event(0, false)), None);
    }
}
