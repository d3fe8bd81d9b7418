//! The thread that runs, as seen from inside a kernel.

use std::cell::Cell;
use std::ptr;

use corosensei::Yielder;

use super::fault::{Fault, Place, Space};
use super::global_races::GlobalRaces;
use super::memory::{self, Access, Memory};
use super::races::{Clock, Event};
use super::shape::{Dim3, LaunchConfig};
use super::shared_memory::{self, SharedMemory};
use super::warp::{Answer, Request};

/// A barrier of the whole block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Barrier {
    Plain,
    Count,
    And,
    Or,
}

impl Barrier {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Plain => "sync_threads",
            Self::Count => "sync_threads_count",
            Self::And => "sync_threads_and",
            Self::Or => "sync_threads_or",
        }
    }
}

/// Why a thread does not run.
#[derive(Debug, Clone, Copy)]
pub(super) enum Wait {
    /// For the whole block, with a predicate.
    Block(Barrier, bool),
    /// For lanes of its warp.
    Warp(Request),
}

/// What all threads of a block have in common.
pub(super) struct BlockContext<'a> {
    pub(super) kernel: &'a str,
    pub(super) config: LaunchConfig,
    pub(super) memory: &'a Memory<'a>,
    pub(super) shared: &'a SharedMemory,
    /// `None` if races are not looked for.
    pub(super) races: Option<&'a GlobalRaces>,
    pub(super) clock: Clock,
    pub(super) index: Cell<Dim3>,
    /// What a thread did wrong, for the scheduler to find.
    pub(super) fault: Cell<Option<Box<Fault>>>,
    /// The buffer that was accessed last.
    pub(super) buffer_hint: Cell<usize>,
}

impl BlockContext<'_> {
    pub(super) fn place(&self, thread: Dim3) -> Place {
        Place { kernel: self.kernel.to_owned(), block: self.index.get(), thread }
    }

    /// Block and thread of an access.
    fn author(&self, event: Event) -> [Dim3; 2] {
        let LaunchConfig { grid, block, .. } = self.config;
        [grid.place(event.block()), block.place(event.thread())]
    }

    /// Notes that one of the threads has passed a fence.
    pub(super) fn fence(&self) {
        self.clock.order_block();
        if let Some(races) = self.races {
            races.fence(&self.clock);
        }
    }
}

/// One thread of a block.
pub(super) struct ThreadContext<'a> {
    pub(super) block: &'a BlockContext<'a>,
    pub(super) index: Dim3,
    /// The thread's number in the block.
    pub(super) number: u32,
    pub(super) lane: u32,
    /// Set by the thread itself when it starts.
    pub(super) yielder: Cell<*const Yielder<(), ()>>,
    pub(super) wait: Cell<Wait>,
    pub(super) answer: Cell<Answer>,
}

thread_local! {
    /// The thread of the kernel that runs on this thread of the CPU, or null.
    static CURRENT: Cell<*const ThreadContext<'static>> = const { Cell::new(ptr::null()) };
}

/// Calls `body` while `thread` is the one that runs.
pub(super) fn running<R>(thread: &ThreadContext<'_>, body: impl FnOnce() -> R) -> R {
    /// Also puts the old value back when `body` unwinds.
    struct Restore(*const ThreadContext<'static>);
    impl Drop for Restore {
        fn drop(&mut self) {
            CURRENT.set(self.0);
        }
    }
    let _restore = Restore(CURRENT.replace(ptr::from_ref(thread).cast()));
    body()
}

/// The thread that runs, if a launch is on.
#[inline]
fn current<R>(body: impl FnOnce(Option<&ThreadContext<'_>>) -> R) -> R {
    // SAFETY: a pointer that is not null was set by `running`, which borrows the thread until it
    // has put the old pointer back. `body` cannot keep the reference, for its lifetime is open.
    body(unsafe { CURRENT.get().as_ref() })
}

/// The thread that runs.
///
/// # Panics
/// No launch is on.
#[inline]
pub(super) fn expect_current<R>(body: impl FnOnce(&ThreadContext<'_>) -> R) -> R {
    current(|thread| match thread {
        Some(thread) => body(thread),
        None => not_launched(),
    })
}

#[cold]
fn not_launched() -> ! {
    panic!("called outside a kernel: kernels run on the host by `cuda_std::emulator::Emulator`")
}

impl ThreadContext<'_> {
    /// Suspends the thread until the scheduler has an answer.
    pub(super) fn wait(&self, wait: Wait) -> Answer {
        if unwinding() {
            return Answer::default();
        }
        self.wait.set(wait);
        self.suspend();
        self.answer.get()
    }

    /// Ends the launch.
    #[cold]
    fn fail(&self, fault: Fault) {
        self.block.fault.set(Some(Box::new(fault)));
        self.suspend();
    }

    /// Ends the launch with the fault that `make` builds from the place of this thread.
    #[cold]
    pub(super) fn fail_with(&self, make: impl FnOnce(Place) -> Fault) {
        if !unwinding() {
            self.fail(make(self.block.place(self.index)));
        }
    }

    fn suspend(&self) {
        // SAFETY: the thread set the pointer when it started and is alive, because it is running:
        // only the running thread calls this.
        unsafe { (*self.yielder.get()).suspend(()) }
    }

    #[inline]
    fn access_global(&self, address: usize, bytes: usize, access: Access, atomic: bool) {
        let BlockContext { memory, races, clock, buffer_hint, .. } = self.block;
        if let Err(refusal) = memory.access(address, bytes, access, buffer_hint) {
            return self.fail_with(|place| global_fault(place, address, bytes, refusal));
        }
        let Some(races) = races else { return };
        let number = buffer_hint.get();
        let (buffer, offset) = memory.place(number, address);
        let event = || clock.event(self.number, atomic);
        if let Some(earlier) = races.access(number, offset, bytes, access, event) {
            let [other_block, other] = self.block.author(earlier);
            self.fail_with(|place| Fault::GlobalRace {
                place,
                other_block,
                other,
                buffer,
                offset,
                bytes,
            });
        }
    }

    #[inline]
    fn access_shared(&self, address: usize, bytes: usize, access: Access, atomic: bool) {
        let event = || self.block.clock.event(self.number, atomic);
        if let Err(refusal) = self.block.shared.access(address, bytes, access, event) {
            self.fail_with(|place| shared_fault(place, address, bytes, refusal, self.block));
        }
    }
}

/// Whether the thread is being unwound, by a panic or because the launch has failed. It must not be
/// suspended then: what runs are destructors, and a second unwinding on top of the first would
/// abort the program.
fn unwinding() -> bool {
    std::thread::panicking()
}

fn global_fault(place: Place, address: usize, bytes: usize, refusal: memory::Refusal) -> Fault {
    let space = Space::Global;
    match refusal {
        memory::Refusal::OutOfBounds { nearest } => {
            Fault::OutOfBounds { place, space, address, bytes, nearest }
        }
        memory::Refusal::ReadOnly { buffer, offset } => {
            Fault::ReadOnlyWritten { place, buffer, offset, bytes }
        }
        memory::Refusal::Misaligned { offset } => Fault::Misaligned { place, space, offset, bytes },
        memory::Refusal::Uninitialised { buffer, offset } => {
            Fault::UninitialisedGlobal { place, buffer, offset, bytes }
        }
    }
}

fn shared_fault(
    place: Place,
    address: usize,
    bytes: usize,
    refusal: shared_memory::Refusal,
    block: &BlockContext<'_>,
) -> Fault {
    let space = Space::Shared;
    match refusal {
        shared_memory::Refusal::OutOfBounds { nearest } => {
            Fault::OutOfBounds { place, space, address, bytes, nearest }
        }
        shared_memory::Refusal::Misaligned { offset } => {
            Fault::Misaligned { place, space, offset, bytes }
        }
        shared_memory::Refusal::Uninitialised { offset } => {
            Fault::UninitialisedShared { place, offset, bytes }
        }
        shared_memory::Refusal::Race { offset, other } => {
            let [_, other] = block.author(other);
            Fault::SharedRace { place, other, offset, bytes }
        }
    }
}

/// Says that the running thread is about to read `bytes` bytes of global memory.
///
/// The launch ends with a [`Fault`] if they are not all in one buffer of its [`Memory`], if
/// `bytes` is 1, 2, 4, 8 or 16 and the place is not a multiple of it, or if the buffer was given as
/// [`uninitialised`](Memory::uninitialised) and one of them has not been written. With
/// [race checks](super::Emulator::with_race_checks) it also ends if another thread of the launch has
/// written one of them and nothing orders the two.
///
/// Places are counted from the start of the buffer, because buffers on a GPU start at multiples of
/// 256; the buffer on the host may be aligned to less, so wrappers that read several elements at
/// once use [`read_unaligned`](std::ptr::read_unaligned).
///
/// Outside a launch, the function does nothing.
#[inline]
pub fn global_read(ptr: *const u8, bytes: usize) {
    current(|thread| {
        if let Some(thread) = thread {
            thread.access_global(ptr as usize, bytes, Access::Read, false);
        }
    });
}

/// Says that the running thread is about to write `bytes` bytes of global memory.
///
/// The launch ends with a [`Fault`] for the reasons given at [`global_read`] (except that
/// the bytes need not have been written), and if the buffer is [`read_only`](Memory::read_only).
///
/// Outside a launch, the function does nothing.
#[inline]
pub fn global_write(ptr: *const u8, bytes: usize) {
    current(|thread| {
        if let Some(thread) = thread {
            thread.access_global(ptr as usize, bytes, Access::Write, false);
        }
    });
}

/// Says that the running thread is about to read and write `bytes` bytes of global memory in one
/// step.
///
/// The launch ends with a [`Fault`] for the reasons given at [`global_read`] and
/// [`global_write`].
///
/// Outside a launch, the function does nothing.
#[inline]
pub fn global_atomic(ptr: *const u8, bytes: usize) {
    current(|thread| {
        if let Some(thread) = thread {
            thread.access_global(ptr as usize, bytes, Access::ReadWrite, true);
        }
    });
}

/// Says that the running thread is about to read `bytes` bytes of shared memory.
///
/// The launch ends with a [`Fault`] if they are not all in one array of the block's shared memory,
/// if `bytes` is 1, 2, 4, 8 or 16 and the address is not a multiple of it, or if no thread of the
/// block has written one of them. With [race checks](super::Emulator::with_race_checks) it also
/// ends if another thread has written one of them and nothing orders the two.
///
/// Outside a launch, the function does nothing.
#[inline]
pub fn shared_read(ptr: *const u8, bytes: usize) {
    current(|thread| {
        if let Some(thread) = thread {
            thread.access_shared(ptr as usize, bytes, Access::Read, false);
        }
    });
}

/// Says that the running thread is about to write `bytes` bytes of shared memory.
///
/// The launch ends with a [`Fault`] for the reasons given at [`shared_read`], except that the
/// bytes need not have been written.
///
/// Outside a launch, the function does nothing.
#[inline]
pub fn shared_write(ptr: *const u8, bytes: usize) {
    current(|thread| {
        if let Some(thread) = thread {
            thread.access_shared(ptr as usize, bytes, Access::Write, false);
        }
    });
}

/// Says that the running thread is about to access a number atomically, in either memory.
#[inline]
pub(super) fn atomic_access(address: usize, bytes: usize, access: Access) {
    current(|thread| {
        let Some(thread) = thread else { return };
        if thread.block.shared.contains(address) {
            thread.access_shared(address, bytes, access, true);
        } else {
            thread.access_global(address, bytes, access, true);
        }
    });
}
