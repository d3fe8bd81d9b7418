//! Races: two threads touch a word of memory, one of them writes it, and nothing between tells which
//! comes first.
//!
//! What counts as an order is on the generous side, so that a report is never wrong: a barrier of the
//! block and a memory fence order everything the block did before against everything it does after,
//! `sync_warp` orders all lanes of the warp (votes and shuffles order nothing), and what a block did
//! before a fence is ordered against all that other blocks do later. Atomic accesses do not race with
//! each other.
//!
//! A word of four bytes keeps its last write and its last two reads by different warps, with the bytes
//! that each touched. So a race is missed where threads touch different parts of a word in between.

use std::cell::Cell;
use std::fmt;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

use super::memory::Access;
use super::shape::WARP;

/// What the threads of the block that runs have in common: how often they were brought into an order.
#[derive(Debug)]
pub(super) struct Clock {
    block: Cell<u64>,
    /// Barriers and fences so far.
    block_epoch: Cell<u32>,
    /// Calls of `sync_warp` so far, of each warp.
    warp_epochs: Vec<Cell<u32>>,
}

impl Clock {
    pub(super) fn new() -> Self {
        let warp_epochs = (0..1024 / WARP).map(|_| Cell::new(0)).collect();
        Self { block: Cell::new(0), block_epoch: Cell::new(0), warp_epochs }
    }

    /// The next block begins, the one of this number in the grid.
    pub(super) fn begin_block(&self, number: u64) {
        self.block.set(number);
        self.block_epoch.set(0);
        self.warp_epochs.iter().for_each(|epoch| epoch.set(0));
    }

    /// Orders everything before against everything after.
    pub(super) fn order_block(&self) {
        self.block_epoch.set(self.block_epoch.get().saturating_add(1));
    }

    /// Orders what the lanes of a warp did before against what they do after.
    pub(super) fn order_warp(&self, warp: usize) {
        let epoch = &self.warp_epochs[warp];
        epoch.set(epoch.get().saturating_add(1));
    }

    /// The block that runs, and its barriers and fences so far.
    pub(super) fn now(&self) -> (u64, u32) {
        (self.block.get(), self.block_epoch.get())
    }

    /// An access at this time, by the thread of that number in the block.
    #[inline]
    pub(super) fn event(&self, thread: u32, atomic: bool) -> Event {
        let warp_epoch = self.warp_epochs[(thread / WARP) as usize].get();
        Event::new(self.block.get(), thread, atomic, self.block_epoch.get(), warp_epoch)
    }
}

/// An access: by whom, how and when. In 64 bits, so that threads of the CPU share it without a lock.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Event(u64);

/// Some bits of an event.
#[derive(Clone, Copy)]
struct Field {
    first: u32,
    bits: u32,
}

impl Field {
    const fn after(self, bits: u32) -> Self {
        Self { first: self.first + self.bits, bits }
    }

    const fn limit(self) -> u64 {
        1 << self.bits
    }

    const fn of(self, event: Event) -> u64 {
        event.0 >> self.first & (self.limit() - 1)
    }
}

/// The bytes of the word that were touched; none in an event that never was.
const BYTES: Field = Field { first: 0, bits: 4 };
const ATOMIC: Field = BYTES.after(1);
const THREAD: Field = ATOMIC.after(10);
const WARP_EPOCH: Field = THREAD.after(14);
const BLOCK_EPOCH: Field = WARP_EPOCH.after(13);
const BLOCK: Field = BLOCK_EPOCH.after(22);

impl Event {
    /// It touches nothing and races with nothing. Also what is too large for its field.
    const NEVER: Self = Self(0);

    fn new(block: u64, thread: u32, atomic: bool, block_epoch: u32, warp_epoch: u32) -> Self {
        let parts = [
            (BYTES, BYTES.limit() - 1),
            (ATOMIC, u64::from(atomic)),
            (THREAD, u64::from(thread)),
            (WARP_EPOCH, u64::from(warp_epoch)),
            (BLOCK_EPOCH, u64::from(block_epoch)),
            (BLOCK, block),
        ];
        if parts.iter().any(|(field, value)| *value >= field.limit()) {
            return Self::NEVER;
        }
        Self(parts.iter().fold(0, |event, (field, value)| event | value << field.first))
    }

    /// The block's number in the grid.
    pub(super) fn block(self) -> u64 {
        BLOCK.of(self)
    }

    /// The thread's number in its block.
    pub(super) fn thread(self) -> u64 {
        THREAD.of(self)
    }

    /// Barriers and fences of the block before it.
    pub(super) fn block_epoch(self) -> u64 {
        BLOCK_EPOCH.of(self)
    }

    fn touching(self, bytes: u64) -> Self {
        Self(self.0 & !(BYTES.limit() - 1) | bytes)
    }

    fn warp(self) -> (u64, u64) {
        (self.block(), self.thread() / u64::from(WARP))
    }

    fn races_with(self, later: Self, reach: Reach) -> bool {
        if BYTES.of(self) & BYTES.of(later) == 0 || ATOMIC.of(self) & ATOMIC.of(later) != 0 {
            return false;
        }
        if self.block() != later.block() {
            return reach == Reach::Grid;
        }
        self.block_epoch() == later.block_epoch()
            && self.thread() != later.thread()
            && (self.warp() != later.warp() || WARP_EPOCH.of(self) == WARP_EPOCH.of(later))
    }
}

impl fmt::Debug for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Event(block {}, thread {})", self.block(), self.thread())
    }
}

/// Who shares the memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reach {
    /// The threads of a block; the next block has it for itself.
    Block,
    /// All blocks.
    Grid,
}

/// The accesses to one word that later ones have to be compared with. Threads of the CPU that note accesses at the same
/// moment may overwrite each other's, and then a race is missed.
#[derive(Debug, Default)]
struct History {
    write: AtomicU64,
    read: AtomicU64,
    /// The last read by another warp than that of `read`: whoever writes, one of the two is
    /// another warp's.
    other_read: AtomicU64,
}

fn load(event: &AtomicU64) -> Event {
    Event(event.load(Ordering::Relaxed))
}

fn store(to: &AtomicU64, event: Event) {
    to.store(event.0, Ordering::Relaxed);
}

impl History {
    /// Notes an access; gives an earlier one that it races with.
    #[inline]
    fn note(&self, event: Event, access: Access, reach: Reach) -> Option<Event> {
        let (write, read) = (load(&self.write), load(&self.read));
        let mut against = [write, Event::NEVER, Event::NEVER];
        // What one thread does part by part counts as one access.
        let joined = |before: Event| {
            let same = before.touching(0) == event.touching(0);
            event.touching(BYTES.of(event) | if same { BYTES.of(before) } else { 0 })
        };
        if access != Access::Read {
            against = [write, read, load(&self.other_read)];
            store(&self.write, joined(write));
        }
        if access != Access::Write {
            if read.warp() != event.warp() {
                store(&self.other_read, read);
            }
            store(&self.read, joined(read));
        }
        against.into_iter().find(|earlier| earlier.races_with(event, reach))
    }
}

/// The accesses to some memory, word by word.
#[derive(Debug)]
pub(super) struct Words {
    reach: Reach,
    /// Runs of words. There is nothing of a run that was not touched.
    runs: Vec<OnceLock<Box<[History]>>>,
}

/// Bytes of a word.
const WORD: usize = 4;

/// Words of a run.
const RUN: usize = 1024;

impl Words {
    /// Nothing has touched these bytes.
    pub(super) fn new(reach: Reach, bytes: usize) -> Self {
        let mut words = Self { reach, runs: Vec::new() };
        words.grow(bytes);
        words
    }

    /// There are so many bytes now.
    pub(super) fn grow(&mut self, bytes: usize) {
        self.runs.resize_with(bytes.div_ceil(WORD * RUN), OnceLock::new);
    }

    #[inline]
    fn history(&self, word: usize) -> &History {
        let new_run = || (0..RUN).map(|_| History::default()).collect();
        &self.runs[word / RUN].get_or_init(new_run)[word % RUN]
    }

    /// Notes an access to the bytes from `offset` on; gives an earlier one that it races with.
    #[inline]
    pub(super) fn access(
        &self,
        offset: usize,
        bytes: usize,
        access: Access,
        event: Event,
    ) -> Option<Event> {
        if event == Event::NEVER {
            return None;
        }
        let (mut at, end) = (offset, offset + bytes);
        let mut race = None;
        while at < end {
            let next = end.min((at / WORD + 1) * WORD);
            let touched = ((1 << (next - at)) - 1) << (at % WORD);
            let found = self.history(at / WORD).note(event.touching(touched), access, self.reach);
            race = race.or(found);
            at = next;
        }
        race
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The thread of an access, and whether it is atomic.
    type By = (u32, bool);

    const A: By = (1, false);
    const SAME_WARP: By = (2, false);
    const OTHER_WARP: By = (40, false);

    /// What the second of two accesses to a byte is told, after `between`.
    fn second(
        reach: Reach,
        first: (Access, By),
        between: impl FnOnce(&Clock),
        second: (Access, By),
    ) -> Option<u64> {
        let (clock, words) = (Clock::new(), Words::new(reach, 12));
        let event = |(thread, atomic): By| clock.event(thread, atomic);
        assert_eq!(words.access(4, 4, first.0, event(first.1)), None);
        between(&clock);
        words.access(7, 2, second.0, event(second.1)).map(Event::thread)
    }

    #[test]
    fn unordered_accesses_race_if_one_writes() {
        use Access::{Read, Write};
        for reach in [Reach::Block, Reach::Grid] {
            for other in [SAME_WARP, OTHER_WARP] {
                assert_eq!(second(reach, (Write, A), |_| {}, (Read, other)), Some(1));
                assert_eq!(second(reach, (Write, A), |_| {}, (Write, other)), Some(1));
                assert_eq!(second(reach, (Read, A), |_| {}, (Write, other)), Some(1));
                assert_eq!(second(reach, (Read, A), |_| {}, (Read, other)), None);
            }
            assert_eq!(second(reach, (Write, A), |_| {}, (Write, A)), None);
        }
    }

    #[test]
    fn a_barrier_orders_all_and_a_meeting_its_warp() {
        use Access::{Read, Write};
        for other in [SAME_WARP, OTHER_WARP] {
            let barrier = Clock::order_block;
            assert_eq!(second(Reach::Grid, (Write, A), barrier, (Read, other)), None);
        }
        let meet = |clock: &Clock| clock.order_warp(0);
        assert_eq!(second(Reach::Block, (Write, A), meet, (Read, SAME_WARP)), None);
        assert_eq!(second(Reach::Block, (Write, A), meet, (Read, OTHER_WARP)), Some(1));
    }

    #[test]
    fn blocks_race_where_they_share_memory() {
        use Access::{Read, ReadWrite, Write};
        let next_block = |clock: &Clock| {
            clock.order_block();
            clock.begin_block(1);
            clock.order_block();
        };
        // The thread of the other block may have the same number.
        for other in [A, OTHER_WARP] {
            assert_eq!(second(Reach::Grid, (Write, A), next_block, (Read, other)), Some(1));
            assert_eq!(second(Reach::Grid, (Read, A), next_block, (Write, other)), Some(1));
            assert_eq!(second(Reach::Grid, (Read, A), next_block, (Read, other)), None);
            assert_eq!(second(Reach::Block, (Write, A), next_block, (Write, other)), None);
        }
        let [first, later] = [A, OTHER_WARP].map(|(thread, _)| (ReadWrite, (thread, true)));
        assert_eq!(second(Reach::Grid, first, next_block, later), None);
    }

    #[test]
    fn atomics_race_only_with_others() {
        use Access::{Read, ReadWrite};
        let atomic = |(thread, _): By| (ReadWrite, (thread, true));
        assert_eq!(second(Reach::Block, atomic(A), |_| {}, atomic(OTHER_WARP)), None);
        assert_eq!(second(Reach::Block, atomic(A), |_| {}, (Read, OTHER_WARP)), Some(1));
    }

    #[test]
    fn a_reader_of_another_warp_is_not_forgotten() {
        let (clock, words) = (Clock::new(), Words::new(Reach::Block, 4));
        let event = |(thread, atomic): By| clock.event(thread, atomic);
        assert_eq!(words.access(0, 1, Access::Read, event(A)), None);
        assert_eq!(words.access(0, 1, Access::Read, event(OTHER_WARP)), None);
        let race = words.access(0, 1, Access::Write, event(OTHER_WARP));
        assert_eq!(race.map(Event::thread), Some(1));
    }

    #[test]
    fn parts_of_a_word_are_told_apart() {
        let (clock, words) = (Clock::new(), Words::new(Reach::Block, 8));
        let event = |(thread, atomic): By| clock.event(thread, atomic);
        assert_eq!(words.access(0, 2, Access::Write, event(A)), None);
        assert_eq!(words.access(2, 2, Access::Write, event(OTHER_WARP)), None);
        // Halves that one thread writes one after the other are both remembered.
        assert_eq!(words.access(4, 2, Access::Write, event(A)), None);
        assert_eq!(words.access(6, 2, Access::Write, event(A)), None);
        for offset in [4, 6] {
            let race = words.access(offset, 2, Access::Read, event(OTHER_WARP));
            assert_eq!(race.map(Event::thread), Some(1));
        }
    }

    #[test]
    fn what_is_too_large_is_not_followed() {
        let clock = Clock::new();
        clock.begin_block(1 << 30);
        assert_eq!(clock.event(0, false), Event::NEVER);
        clock.begin_block(0);
        (0..1 << 13).for_each(|_| clock.order_block());
        assert_eq!(clock.event(0, false), Event::NEVER);
        clock.begin_block(0);
        assert_ne!(clock.event(1023, false), Event::NEVER);
    }
}
