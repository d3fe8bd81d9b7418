//! Two streams for work of which some may run beside the rest.

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
    /// Of the current context. What is put on it is short, and what comes after both streams waits for it: it goes first.
    pub(super) fn new() -> Result<Self> {
        Ok(Self { stream: Stream::urgent()?, fork: Event::untimed()?, join: Event::untimed()? })
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

/// A stream that kernels are put on, and the one for those that may run beside them.
pub(super) struct Forked<'a> {
    pub(super) queue: Queue<'a>,
    /// Without one, everything goes one after the other.
    pub(super) side: Option<&'a Side>,
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
        let Some(Side { stream, fork, join }) = self.side else {
            first(self)?;
            return second(self);
        };
        let device = self.queue.device;
        let on = |stream| Self { queue: Queue { device, stream }, side: None };
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
