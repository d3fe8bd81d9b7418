//! Two streams for work of which some may run beside the rest.

use kernels_gpu::Entry;

use crate::cuda::operator::Queue;
use crate::cuda::stream::{Event, Stream};
use crate::error::Result;
use crate::kernels::{Executor, Launch};

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
        Ok(Self { stream: Stream::new()?, fork: Event::untimed()?, join: Event::untimed()? })
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
        // The GPU begins with these while the others are put on their stream.
        let result = first(&on(self.queue.stream));
        fork.hold(stream)?;
        let result = result.and_then(|()| second(&on(stream)));
        // Also after a failure: what the other stream has got must not outlive what comes next on this one.
        join.record(stream)?;
        join.hold(self.queue.stream)?;
        result
    }
}
