//! The stacks of coroutines, kept for the next launch.

use std::io;
use std::sync::{Mutex, PoisonError};

use corosensei::stack::DefaultStack;

/// The size of a stack. Only the pages that a kernel touches take memory.
const STACK_BYTES: usize = 256 * 1024;
/// How many stacks are kept at most: those of four full blocks.
const MAX_KEPT: usize = 4096;

static KEPT: Mutex<Vec<KernelStack>> = Mutex::new(Vec::new());

#[cfg(windows)]
pub(super) type KernelStack = DefaultStack;
#[cfg(not(windows))]
pub(super) use shifted::ShiftedStack as KernelStack;

/// Stacks of the operating system all start at the beginning of a page, so that the same variable
/// of every thread would compete for the same few lines of the CPU's caches. Starting each one a
/// little lower spreads them.
#[cfg(not(windows))]
mod shifted {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use corosensei::stack::{DefaultStack, Stack, StackPointer};

    /// A few cache lines, so that the busy parts of two neighbours do not overlap.
    const STEP: usize = 9 * 64;
    const STEPS: usize = 61;

    pub(in crate::emulator) struct ShiftedStack {
        stack: DefaultStack,
        base: StackPointer,
    }

    impl From<DefaultStack> for ShiftedStack {
        fn from(stack: DefaultStack) -> Self {
            static NEXT: AtomicUsize = AtomicUsize::new(0);
            let step = NEXT.fetch_add(1, Ordering::Relaxed) % STEPS;
            let shifted = stack.base().get() - step * STEP;
            // The shift is a small part of the stack, so the fallback is never taken.
            let base = StackPointer::new(shifted).unwrap_or(stack.base());
            Self { stack, base }
        }
    }

    // SAFETY: the memory between `limit` and the shifted base is part of the inner stack, which is
    // owned for as long, has its guard page at the same end, and is far larger than the shift; the
    // shift is a multiple of 64, so the base is as aligned as the inner one.
    unsafe impl Stack for ShiftedStack {
        fn base(&self) -> StackPointer {
            self.base
        }

        fn limit(&self) -> StackPointer {
            self.stack.limit()
        }
    }
}

/// Gives `count` stacks.
///
/// # Errors
/// The operating system has no memory left.
pub(super) fn take(count: usize) -> io::Result<Vec<KernelStack>> {
    let mut stacks = {
        let mut kept = KEPT.lock().unwrap_or_else(PoisonError::into_inner);
        let rest = kept.len().saturating_sub(count);
        kept.split_off(rest)
    };
    while stacks.len() < count {
        stacks.push(DefaultStack::new(STACK_BYTES)?.into());
    }
    Ok(stacks)
}

/// Takes stacks back.
pub(super) fn give_back(mut stacks: Vec<KernelStack>) {
    let mut kept = KEPT.lock().unwrap_or_else(PoisonError::into_inner);
    stacks.truncate(MAX_KEPT.saturating_sub(kept.len()));
    kept.append(&mut stacks);
}
