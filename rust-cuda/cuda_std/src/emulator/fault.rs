//! What a kernel can do wrong.

use std::fmt;

use super::shape::Dim3;

/// Where a fault happened: which kernel, and which thread of which block.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// The name given to the launch.
    pub kernel: String,
    /// The block's index in the grid.
    pub block: Dim3,
    /// The thread's index in the block.
    pub thread: Dim3,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "kernel `{}`, block {}, thread {}", self.kernel, self.block, self.thread)
    }
}

/// A kind of memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Space {
    /// The buffers of the launch's [`Memory`](super::Memory).
    Global,
    /// The shared memory of the block.
    Shared,
}

impl fmt::Display for Space {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Global => "global",
            Self::Shared => "shared",
        })
    }
}

/// A mistake of a kernel or its launch. It ended the launch; the buffers hold whatever the threads
/// wrote until then.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Fault {
    /// Some threads of a block wait at a barrier that others never reach.
    #[error("{place}: waits in `{barrier}`, but thread {missing} {missing_state}")]
    DivergentBarrier {
        /// A thread that waits at the barrier.
        place: Place,
        /// The barrier it waits at.
        barrier: &'static str,
        /// A thread of the block that does not come.
        missing: Dim3,
        /// What that thread does instead.
        missing_state: String,
    },
    /// Lanes of a warp named each other but met in different operations or with different masks.
    #[error(
        "{place}: calls `{operation}` with mask {mask:#010x}, but lane {other_lane} of that mask \
         calls `{other_operation}` with mask {other_mask:#010x}"
    )]
    DivergentWarp {
        /// A thread of the warp.
        place: Place,
        /// What it calls.
        operation: &'static str,
        /// Its mask.
        mask: u32,
        /// A lane that its mask names.
        other_lane: u32,
        /// What that lane calls.
        other_operation: &'static str,
        /// The mask of that lane.
        other_mask: u32,
    },
    /// A warp operation named or read a lane that takes no part in it.
    #[error("{place}: `{operation}` with mask {mask:#010x} {how}")]
    MissingLane {
        /// The thread that called the operation.
        place: Place,
        /// The operation.
        operation: &'static str,
        /// Its mask.
        mask: u32,
        /// The lane that is not there.
        lane: u32,
        /// What is wrong with the lane.
        how: String,
    },
    /// A shuffle's `width` is not 1, 2, 4, 8, 16 or 32.
    #[error("{place}: `{operation}` with width {width}, expected a power of two up to 32")]
    BadWidth {
        /// The thread that called the shuffle.
        place: Place,
        /// The shuffle.
        operation: &'static str,
        /// The width it gave.
        width: u32,
    },
    /// Lanes wait for each other in a circle.
    #[error("{place}: waits in `{operation}` with mask {mask:#010x} for lanes that wait elsewhere")]
    Deadlock {
        /// One of the waiting threads.
        place: Place,
        /// The operation it waits in.
        operation: &'static str,
        /// Its mask.
        mask: u32,
    },
    /// An access outside the buffers of the launch, or outside the block's shared memory.
    #[error("{place}: {bytes} bytes of {space} memory at {address:#x}: {nearest}")]
    OutOfBounds {
        /// The thread that made the access.
        place: Place,
        /// Global or shared memory.
        space: Space,
        /// The address of the access.
        address: usize,
        /// The size of the access.
        bytes: usize,
        /// Where that is, seen from the nearest buffer.
        nearest: String,
    },
    /// A write to a read-only buffer.
    #[error("{place}: writes {bytes} bytes at offset {offset} of `{buffer}`, which is read-only")]
    ReadOnlyWritten {
        /// The thread that made the access.
        place: Place,
        /// The buffer's name.
        buffer: &'static str,
        /// The place in the buffer, in bytes.
        offset: usize,
        /// The size of the access.
        bytes: usize,
    },
    /// An access whose address is not a multiple of its size.
    #[error(
        "{place}: {bytes} bytes of {space} memory at offset {offset}, not a multiple of {bytes}"
    )]
    Misaligned {
        /// The thread that made the access.
        place: Place,
        /// Global or shared memory.
        space: Space,
        /// The place in the buffer or in shared memory, in bytes.
        offset: usize,
        /// The size of the access.
        bytes: usize,
    },
    /// A read of global memory that no thread has written.
    #[error("{place}: reads {bytes} bytes at offset {offset} of `{buffer}`, not written before")]
    UninitialisedGlobal {
        /// The thread that made the access.
        place: Place,
        /// The buffer's name.
        buffer: &'static str,
        /// The place in the buffer, in bytes.
        offset: usize,
        /// The size of the access.
        bytes: usize,
    },
    /// A read of shared memory that no thread of the block has written.
    #[error("{place}: reads {bytes} bytes of shared memory at offset {offset}, not written before")]
    UninitialisedShared {
        /// The thread that made the access.
        place: Place,
        /// The place in the block's shared memory, in bytes.
        offset: usize,
        /// The size of the access.
        bytes: usize,
    },
    /// Two threads of a block touch the same shared memory, one of them writes it, and no barrier
    /// or [`sync_warp`](crate::warp::sync_warp) lies between.
    #[error(
        "{place}: {bytes} bytes of shared memory at offset {offset} race with an access by thread \
         {other}"
    )]
    SharedRace {
        /// The thread that made the later access.
        place: Place,
        /// The thread that made the earlier one.
        other: Dim3,
        /// The place in the block's shared memory, in bytes.
        offset: usize,
        /// The size of the later access.
        bytes: usize,
    },
    /// Two threads of a launch touch the same global memory, one of them writes it, and nothing orders the two.
    #[error(
        "{place}: {bytes} bytes at offset {offset} of `{buffer}` race with an access by block \
         {other_block}, thread {other}"
    )]
    GlobalRace {
        /// The thread that made the later access.
        place: Place,
        /// The block of the thread that made the earlier one.
        other_block: Dim3,
        /// That thread's index in its block.
        other: Dim3,
        /// The buffer's name.
        buffer: &'static str,
        /// The place in the buffer, in bytes.
        offset: usize,
        /// The size of the later access.
        bytes: usize,
    },
    /// A launch that a GPU would refuse.
    #[error("kernel `{kernel}`: cannot be launched: {reason}")]
    BadLaunch {
        /// The name given to the launch.
        kernel: String,
        /// What is wrong, with the limit.
        reason: String,
    },
    /// The kernel panicked.
    #[error("{place}: panicked: {message}")]
    Panicked {
        /// The thread that panicked.
        place: Place,
        /// The panic's message.
        message: String,
    },
}

impl Fault {
    /// The thread the fault is about; `None` for [`Fault::BadLaunch`].
    #[must_use]
    pub fn place(&self) -> Option<&Place> {
        match self {
            Self::DivergentBarrier { place, .. }
            | Self::DivergentWarp { place, .. }
            | Self::MissingLane { place, .. }
            | Self::BadWidth { place, .. }
            | Self::Deadlock { place, .. }
            | Self::OutOfBounds { place, .. }
            | Self::ReadOnlyWritten { place, .. }
            | Self::Misaligned { place, .. }
            | Self::UninitialisedGlobal { place, .. }
            | Self::UninitialisedShared { place, .. }
            | Self::SharedRace { place, .. }
            | Self::GlobalRace { place, .. }
            | Self::Panicked { place, .. } => Some(place),
            Self::BadLaunch { .. } => None,
        }
    }
}
