//! Who carries launches out.

use kernels_gpu::Entry;

use crate::error::Result;
use crate::kernels::plan::Launch;

/// Runs kernels, one after the other.
pub(crate) trait Executor {
    /// Launches a kernel.
    ///
    /// # Safety
    ///
    /// The pointers of `args` are valid where the kernel runs, as its type says, and stay so until the launch
    /// is through.
    unsafe fn launch<A: Copy + Send + Sync>(
        &self,
        entry: Entry<A>,
        launch: Launch,
        args: A,
    ) -> Result<()>;

    /// Fills an array with zeros.
    ///
    /// # Safety
    ///
    /// `array` points to that many bytes where the kernels run, until the launch is through.
    unsafe fn zero(&self, name: &'static str, array: *mut u8, bytes: usize) -> Result<()>;

    /// Launches what either closure does, the one's after the other's or at the same time: neither may write what the other
    /// reads or writes. What is launched afterwards comes after both. `begins` says whose launches are put on their way first,
    /// where it is at the same time.
    fn together(
        &self,
        begins: Begins,
        first: impl FnOnce(&Self) -> Result<()>,
        second: impl FnOnce(&Self) -> Result<()>,
    ) -> Result<()> {
        // Only the order of launches on a GPU can tell.
        let _ = begins;
        first(self)?;
        second(self)
    }
}

/// Which of two sequences of launches begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Begins {
    /// The one that takes longer, if its blocks make way for others soon: the GPU has something to do while launches of the other
    /// are made.
    First,
    /// The one that others wait for, if blocks of the first would keep it from beginning.
    Second,
}
