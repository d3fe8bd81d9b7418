//! Streams for work of which some may run beside the rest.

use kernels_gpu::Entry;

use crate::cuda::operator::Queue;
use crate::cuda::stream::{Event, Stream};
use crate::error::Result;
use crate::kernels::{Begins, Executor, Launch};

/// A stream beside another one, and what they wait for each other with.
#[derive(Debug)]
pub(super) struct Side {
    stream: Stream,
    fork: Event,
    join: Event,
}

impl Side {
    /// Of the current context.
    pub(super) fn new() -> Result<Self> {
        Self::of(Stream::new()?)
    }

    /// The same, for what others soon wait for: its kernels get free places on the GPU first.
    pub(super) fn urgent() -> Result<Self> {
        Self::of(Stream::urgent()?)
    }

    fn of(stream: Stream) -> Result<Self> {
        Ok(Self { stream, fork: Event::untimed()?, join: Event::untimed()? })
    }

    /// Whether it may take work from a stream. It may not while one of them is recorded for a graph that the other has nothing
    /// to do with, nor where that cannot be known, as for the legacy default stream while another stream is recorded.
    pub(super) fn serves(&self, stream: &Stream) -> bool {
        match (self.stream.recorded_for(), stream.recorded_for()) {
            (Ok(own), Ok(other)) => own.is_none() || own == other,
            _ => false,
        }
    }
}

/// A stream that kernels are put on, and those for what may run beside them.
pub(super) struct Forked<'a> {
    pub(super) queue: Queue<'a>,
    /// One for each fork within a fork. Where there is none left, everything goes one after the other.
    pub(super) sides: &'a [Side],
}

impl Executor for Forked<'_> {
    unsafe fn launch<A: Copy + Send + Sync>(
        &self,
        entry: Entry<A>,
        launch: Launch,
        args: A,
    ) -> Result<()> {
        // SAFETY: the caller's promise.
        unsafe { self.queue.launch(entry, launch, args) }
    }

    unsafe fn zero(&self, name: &'static str, array: *mut u8, bytes: usize) -> Result<()> {
        // SAFETY: the caller's promise.
        unsafe { self.queue.zero(name, array, bytes) }
    }

    fn together(
        &self,
        begins: Begins,
        first: impl FnOnce(&Self) -> Result<()>,
        second: impl FnOnce(&Self) -> Result<()>,
    ) -> Result<()> {
        let [Side { stream, fork, join }, sides @ ..] = self.sides else {
            first(self)?;
            return second(self);
        };
        let device = self.queue.device;
        let on = |stream| Self { queue: Queue { device, stream }, sides };
        fork.record(self.queue.stream)?;
        let result = match begins {
            Begins::First => {
                // The GPU begins with these while the others are put on their stream.
                let result = first(&on(self.queue.stream));
                fork.hold(stream)?;
                result.and_then(|()| second(&on(stream)))
            }
            Begins::Second => {
                fork.hold(stream)?;
                let result = second(&on(stream));
                result.and_then(|()| first(&on(self.queue.stream)))
            }
        };
        // Also after a failure: what the other stream has got must not outlive what comes next on this one.
        join.record(stream)?;
        join.hold(self.queue.stream)?;
        result
    }
}
