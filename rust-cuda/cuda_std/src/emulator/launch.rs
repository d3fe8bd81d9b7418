//! Launches: the blocks of a grid on the threads of the CPU.

use std::cell::Cell;
use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;

use super::block::{self, BlockRunner, Kernel, Stopped};
use super::context::BlockContext;
use super::fault::Fault;
use super::global_races::GlobalRaces;
use super::memory::Memory;
use super::order::{Permutation, Random};
use super::races::Clock;
use super::shape::{Dim3, LaunchConfig};
use super::shared_memory::SharedMemory;
use super::stack;

/// More workers would run out of memory mappings: a full block has 1024 stacks of two each.
const MAX_WORKERS: usize = 16;

/// Runs kernels on the CPU.
#[derive(Debug, Clone)]
pub struct Emulator {
    seed: u64,
    workers: usize,
    race_checks: bool,
}

impl Default for Emulator {
    fn default() -> Self {
        Self::new()
    }
}

impl Emulator {
    /// An emulator with seed 0 and as many threads of the CPU as there are, up to 16.
    #[must_use]
    pub fn new() -> Self {
        let available = thread::available_parallelism().map_or(1, NonZeroUsize::get);
        Self { seed: 0, workers: available.min(MAX_WORKERS), race_checks: false }
    }

    /// Sets what the order of blocks and warps depends on. A kernel whose result depends on it
    /// misses a barrier or adds floats atomically.
    #[must_use]
    pub fn with_seed(self, seed: u64) -> Self {
        Self { seed, ..self }
    }

    /// Sets the number of threads of the CPU, brought into the range 1 to 16.
    #[must_use]
    pub fn with_threads(self, threads: usize) -> Self {
        Self { workers: threads.clamp(1, MAX_WORKERS), ..self }
    }

    /// Sets whether a launch ends with [`Fault::SharedRace`] or [`Fault::GlobalRace`] when two threads
    /// touch the same byte, one of them writes it, and nothing orders the two: no barrier, no fence,
    /// and no [`sync_warp`](crate::warp::sync_warp) of the warp that both belong to. Which of several
    /// races between blocks is found first depends on the run, and a few are missed: where threads of
    /// the CPU touch a word at the same moment, or threads of the kernel parts of a word. Off at first,
    /// because it makes accesses slower and takes six bytes of memory for each byte that kernels touch
    /// and may write.
    #[must_use]
    pub fn with_race_checks(self, race_checks: bool) -> Self {
        Self { race_checks, ..self }
    }

    /// Runs `kernel`, the body of one thread, for every thread of every block.
    ///
    /// `name` is what faults call the kernel. Pointers given to the kernel should come from
    /// `memory`; any others are out of bounds. Several launches may share one `memory`.
    ///
    /// # Errors
    ///
    /// The first [`Fault`], in the order in which blocks started: the same one in every run, as
    /// long as blocks do not depend on each other.
    pub fn launch<F: Fn() + Sync>(
        &self,
        name: &str,
        config: LaunchConfig,
        memory: &Memory<'_>,
        kernel: F,
    ) -> Result<(), Fault> {
        self.launch_dyn(name, config, memory, &kernel)
    }

    fn launch_dyn(
        &self,
        name: &str,
        config: LaunchConfig,
        memory: &Memory<'_>,
        kernel: &Kernel<'_>,
    ) -> Result<(), Fault> {
        config.check(name)?;
        let blocks = config.grid.volume();
        let order = Permutation::new(blocks, &mut Random::new(self.seed, u64::MAX));
        let launch = Launch {
            name,
            config,
            memory,
            kernel,
            seed: self.seed,
            races: self.race_checks.then(|| GlobalRaces::new(memory)),
            order,
            next: AtomicU64::new(0),
            failed_at: AtomicU64::new(u64::MAX),
            fault: Mutex::new(None),
        };
        let workers = blocks.min(self.workers as u64);
        thread::scope(|scope| {
            for _ in 1..workers {
                scope.spawn(|| launch.work());
            }
            launch.work();
        });
        let fault = launch.fault.into_inner().unwrap_or_else(PoisonError::into_inner);
        fault.map_or(Ok(()), Err)
    }
}

/// What the workers of one launch share.
struct Launch<'a> {
    name: &'a str,
    config: LaunchConfig,
    memory: &'a Memory<'a>,
    kernel: &'a Kernel<'a>,
    seed: u64,
    /// `None` if races are not looked for.
    races: Option<GlobalRaces>,
    order: Permutation,
    /// How many blocks have been started.
    next: AtomicU64,
    /// The turn of the first block that failed. Blocks of later turns need not go on.
    failed_at: AtomicU64,
    fault: Mutex<Option<Fault>>,
}

impl Launch<'_> {
    /// Runs blocks until there are none left.
    fn work(&self) {
        let shared =
            SharedMemory::new(self.config.dynamic_shared_bytes as usize, self.races.is_some());
        let block = BlockContext {
            kernel: self.name,
            config: self.config,
            memory: self.memory,
            shared: &shared,
            races: self.races.as_ref(),
            clock: Clock::new(),
            index: Cell::new(Dim3::default()),
            fault: Cell::new(None),
            buffer_hint: Cell::new(0),
        };
        let contexts = block::contexts(&block);
        let stacks = match stack::take(contexts.len()) {
            Ok(stacks) => stacks,
            Err(error) => {
                let reason = format!("no memory for the stacks of its threads: {error}");
                return self.fail(0, Fault::BadLaunch { kernel: self.name.to_owned(), reason });
            }
        };
        let mut runner = BlockRunner::new(self.kernel, &block, &contexts, stacks);
        while let Some(turn) = self.next_turn() {
            let number = self.order.at(turn);
            block.index.set(self.config.grid.place(number));
            block.clock.begin_block(number);
            let mut random = Random::new(self.seed, number);
            if let Err(Stopped::Fault(fault)) = runner.run(&mut random, || self.is_over(turn)) {
                self.fail(turn, fault);
            }
        }
        stack::give_back(runner.into_stacks());
    }

    fn next_turn(&self) -> Option<u64> {
        let turn = self.next.fetch_add(1, Ordering::Relaxed);
        (turn < self.config.grid.volume() && !self.is_over(turn)).then_some(turn)
    }

    /// Whether a block that started before this one has failed.
    fn is_over(&self, turn: u64) -> bool {
        self.failed_at.load(Ordering::Relaxed) < turn
    }

    fn fail(&self, turn: u64, fault: Fault) {
        let mut first = self.fault.lock().unwrap_or_else(PoisonError::into_inner);
        if first.is_none() || turn < self.failed_at.load(Ordering::Relaxed) {
            self.failed_at.store(turn, Ordering::Relaxed);
            *first = Some(fault);
        }
    }
}
