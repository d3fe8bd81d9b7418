//! Arrays that kernels add to.

use kernels_gpu::args::RoundArgs;
use kernels_gpu::{Entry, Kernels};

use crate::error::Result;
use crate::kernels::executor::Executor;
use crate::kernels::plan::Plan;

/// Whether 16-byte accesses may start at every one of the addresses.
pub(super) fn aligned(addresses: &[usize]) -> bool {
    addresses.iter().all(|address| address.is_multiple_of(16))
}

/// An array the kernels add to in fp32: the result itself, or scratch that is rounded to it.
pub(super) struct Sums<K> {
    pub(super) target: *mut f32,
    round: Option<(Entry<RoundArgs<K>>, *mut K)>,
    length: usize,
}

impl<K: Kernels> Sums<K> {
    pub(super) fn new(scratch: *mut f32, result: *mut K, length: usize) -> Self {
        match K::ROUND {
            // No rounding kernel: the element type is fp32 itself.
            None => Self { target: result.cast(), round: None, length },
            Some(entry) => Self { target: scratch, round: Some((entry, result)), length },
        }
    }

    /// Fills the sums with zeros.
    ///
    /// # Safety
    ///
    /// The array is valid until the launch is through.
    pub(super) unsafe fn clear<E: Executor>(&self, executor: &E, name: &'static str) -> Result<()> {
        // SAFETY: the caller's promise.
        unsafe { executor.zero(name, self.target.cast(), 4 * self.length) }
    }

    /// Writes the result, where it is not the sums themselves.
    ///
    /// # Safety
    ///
    /// Both arrays are valid until the launch is through.
    pub(super) unsafe fn round<E: Executor>(&self, executor: &E) -> Result<()> {
        let Some((entry, target)) = self.round else { return Ok(()) };
        let args = RoundArgs { length: self.length as u64, source: self.target, target };
        // SAFETY: the caller's promise.
        unsafe { executor.launch(entry, Plan::element_launch(self.length), args) }
    }
}
