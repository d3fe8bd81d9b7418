//! Races in shared memory: two threads of a block touch a byte, one of them writes it, and nothing
//! between tells which comes first.
//!
//! What counts as an order is on the generous side, so that a report is never wrong: a barrier of the
//! block and a memory fence order everything before against everything after, and any meeting of a
//! warp orders all lanes of the warp. Atomic accesses do not race with each other.

use std::ops::Range;

use super::memory::Access;
use super::shape::WARP;

/// Who makes an access, and how.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Accessor {
    /// The thread's number in the block.
    pub(super) thread: u32,
    pub(super) atomic: bool,
}

/// An access in the past.
#[derive(Debug, Clone, Copy)]
struct Event {
    by: Accessor,
    block_epoch: u32,
    warp_epoch: u32,
}

impl Event {
    /// Epochs count from 1, so this is ordered before everything.
    const NEVER: Self =
        Self { by: Accessor { thread: 0, atomic: true }, block_epoch: 0, warp_epoch: 0 };

    fn warp(&self) -> u32 {
        self.by.thread / WARP
    }

    fn races_with(&self, later: &Self) -> bool {
        self.block_epoch == later.block_epoch
            && self.by.thread != later.by.thread
            && !(self.by.atomic && later.by.atomic)
            && (self.warp() != later.warp() || self.warp_epoch == later.warp_epoch)
    }
}

/// The accesses to one byte that later ones have to be compared with.
#[derive(Debug, Clone, Copy)]
struct History {
    write: Event,
    read: Event,
    /// The last read by another warp than that of `read`: whoever writes, one of the two is
    /// another warp's.
    other_read: Event,
}

impl History {
    const EMPTY: Self = Self { write: Event::NEVER, read: Event::NEVER, other_read: Event::NEVER };

    /// Notes an access; gives an earlier one that it races with.
    fn note(&mut self, event: Event, access: Access) -> Option<Event> {
        let mut against = [self.write, Event::NEVER, Event::NEVER];
        if access != Access::Read {
            against = [self.write, self.read, self.other_read];
            self.write = event;
        }
        if access != Access::Write {
            if self.read.warp() != event.warp() {
                self.other_read = self.read;
            }
            self.read = event;
        }
        against.into_iter().find(|earlier| earlier.races_with(&event))
    }
}

/// The accesses to a block's shared memory.
#[derive(Debug)]
pub(super) struct Races {
    /// Barriers and fences so far, of all blocks.
    block_epoch: u32,
    /// Meetings so far, of each warp.
    warp_epochs: Vec<u32>,
    bytes: Vec<History>,
}

impl Races {
    pub(super) fn new() -> Self {
        Self { block_epoch: 1, warp_epochs: vec![1; 1024 / WARP as usize], bytes: Vec::new() }
    }

    /// Orders everything before against everything after.
    pub(super) fn order_block(&mut self) {
        self.block_epoch = self.block_epoch.wrapping_add(1).max(1);
    }

    /// Orders what the lanes of a warp did before against what they do after.
    pub(super) fn order_warp(&mut self, warp: usize) {
        self.warp_epochs[warp] = self.warp_epochs[warp].wrapping_add(1);
    }

    /// Notes an access; gives the thread of an earlier one that it races with.
    pub(super) fn access(
        &mut self,
        bytes: Range<usize>,
        access: Access,
        by: Accessor,
    ) -> Option<u32> {
        let warp_epoch = self.warp_epochs[(by.thread / WARP) as usize];
        let event = Event { by, block_epoch: self.block_epoch, warp_epoch };
        if self.bytes.len() < bytes.end {
            self.bytes.resize(bytes.end, History::EMPTY);
        }
        let races = self.bytes[bytes].iter_mut().map(|history| history.note(event, access));
        races.fold(None, Option::or).map(|earlier| earlier.by.thread)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: Accessor = Accessor { thread: 1, atomic: false };
    const SAME_WARP: Accessor = Accessor { thread: 2, atomic: false };
    const OTHER_WARP: Accessor = Accessor { thread: 40, atomic: false };

    /// What the second of two accesses to a byte is told, after `between`.
    fn second(
        first: (Access, Accessor),
        between: impl FnOnce(&mut Races),
        second: (Access, Accessor),
    ) -> Option<u32> {
        let mut races = Races::new();
        assert_eq!(races.access(4..8, first.0, first.1), None);
        between(&mut races);
        races.access(7..9, second.0, second.1)
    }

    #[test]
    fn unordered_accesses_race_if_one_writes() {
        use Access::{Read, Write};
        for other in [SAME_WARP, OTHER_WARP] {
            assert_eq!(second((Write, A), |_| {}, (Read, other)), Some(1));
            assert_eq!(second((Write, A), |_| {}, (Write, other)), Some(1));
            assert_eq!(second((Read, A), |_| {}, (Write, other)), Some(1));
            assert_eq!(second((Read, A), |_| {}, (Read, other)), None);
        }
        assert_eq!(second((Write, A), |_| {}, (Write, A)), None);
    }

    #[test]
    fn a_barrier_orders_all_and_a_meeting_its_warp() {
        use Access::{Read, Write};
        for other in [SAME_WARP, OTHER_WARP] {
            assert_eq!(second((Write, A), Races::order_block, (Read, other)), None);
        }
        let meet = |races: &mut Races| races.order_warp(0);
        assert_eq!(second((Write, A), meet, (Read, SAME_WARP)), None);
        assert_eq!(second((Write, A), meet, (Read, OTHER_WARP)), Some(1));
    }

    #[test]
    fn atomics_race_only_with_others() {
        use Access::{Read, ReadWrite};
        let atomic = |accessor| Accessor { atomic: true, ..accessor };
        assert_eq!(second((ReadWrite, atomic(A)), |_| {}, (ReadWrite, atomic(OTHER_WARP))), None);
        assert_eq!(second((ReadWrite, atomic(A)), |_| {}, (Read, OTHER_WARP)), Some(1));
    }

    #[test]
    fn a_reader_of_another_warp_is_not_forgotten() {
        let mut races = Races::new();
        assert_eq!(races.access(0..1, Access::Read, A), None);
        assert_eq!(races.access(0..1, Access::Read, OTHER_WARP), None);
        assert_eq!(races.access(0..1, Access::Write, OTHER_WARP), Some(1));
    }
}
