//! One block after the other: lets its threads run, and brings them together where they meet.

use std::any::Any;
use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::ptr;

use corosensei::{Coroutine, CoroutineResult};

use super::context::{Barrier, BlockContext, ThreadContext, Wait, running};
use super::fault::Fault;
use super::order::Random;
use super::shape::WARP;
use super::stack::KernelStack;
use super::warp::{self, Answer, Broken, Lanes, Operation, Request, bits};

/// The body of a thread. Not a type parameter, so that the scheduler is compiled here once, and
/// not by every test without optimisation.
pub(super) type Kernel<'a> = dyn Fn() + Sync + 'a;

/// A thread of a block that has started: gives the payload if the kernel panicked.
type Thread = Coroutine<(), (), Result<(), Box<dyn Any + Send>>, KernelStack>;

/// The state of a warp; one bit per lane, and each lane that exists is in exactly one.
#[derive(Debug, Clone, Copy, Default)]
struct Warp {
    ready: u32,
    in_warp_operation: u32,
    at_barrier: u32,
    returned: u32,
    /// The lanes that exist: fewer than 32 in the last warp of some blocks.
    lanes: u32,
}

/// Why a block ended before its time.
pub(super) enum Stopped {
    Fault(Fault),
    /// The launch has failed elsewhere.
    Abandoned,
}

impl From<Fault> for Stopped {
    fn from(fault: Fault) -> Self {
        Self::Fault(fault)
    }
}

/// The threads of one block at a time, and what is kept from one block to the next.
pub(super) struct BlockRunner<'a> {
    kernel: &'a Kernel<'a>,
    contexts: &'a [ThreadContext<'a>],
    block: &'a BlockContext<'a>,
    warps: Vec<Warp>,
    /// The order of the warps in this round.
    order: Vec<usize>,
    threads: Vec<Option<Thread>>,
    stacks: Vec<KernelStack>,
}

/// The threads of a block.
pub(super) fn contexts<'a>(block: &'a BlockContext<'a>) -> Vec<ThreadContext<'a>> {
    let size = block.config.block;
    let context = |number| ThreadContext {
        block,
        index: size.place(number),
        number: number as u32,
        lane: number as u32 % WARP,
        yielder: Cell::new(ptr::null()),
        wait: Cell::new(Wait::Block(Barrier::Plain, false)),
        answer: Cell::new(Answer::default()),
    };
    (0..size.volume()).map(context).collect()
}

impl<'a> BlockRunner<'a> {
    /// `stacks` holds one stack for each of `contexts`.
    pub(super) fn new(
        kernel: &'a Kernel<'a>,
        block: &'a BlockContext<'a>,
        contexts: &'a [ThreadContext<'a>],
        stacks: Vec<KernelStack>,
    ) -> Self {
        let warps = contexts.len().div_ceil(WARP as usize);
        Self {
            kernel,
            contexts,
            block,
            warps: vec![Warp::default(); warps],
            order: (0..warps).collect(),
            threads: contexts.iter().map(|_| None).collect(),
            stacks,
        }
    }

    /// Runs one block to its end; `abandoned` tells whether its outcome no longer matters.
    pub(super) fn run(
        &mut self,
        random: &mut Random,
        abandoned: impl Fn() -> bool,
    ) -> Result<(), Stopped> {
        self.block.shared.begin_block();
        let mut left = self.contexts.len() as u32;
        for state in &mut self.warps {
            let lanes = u32::MAX >> (WARP - left.min(WARP));
            left = left.saturating_sub(WARP);
            *state = Warp { ready: lanes, lanes, ..Warp::default() };
        }
        let result = self.schedule(random, abandoned);
        if result.is_err() {
            self.unwind();
        }
        result
    }

    /// Gives the stacks back.
    pub(super) fn into_stacks(self) -> Vec<KernelStack> {
        self.stacks
    }

    fn schedule(
        &mut self,
        random: &mut Random,
        abandoned: impl Fn() -> bool,
    ) -> Result<(), Stopped> {
        while self.warps.iter().any(|state| state.returned != state.lanes) {
            if abandoned() {
                return Err(Stopped::Abandoned);
            }
            random.shuffle(&mut self.order);
            // Each warp runs as far as it can alone, so that those behind are far behind.
            for turn in 0..self.order.len() {
                self.run_warp(self.order[turn], random)?;
            }
            self.pass_barrier()?;
        }
        Ok(())
    }

    /// Runs the lanes of a warp until all are at a barrier of the block, have returned, or wait
    /// for lanes that are.
    fn run_warp(&mut self, number: usize, random: &mut Random) -> Result<(), Fault> {
        while self.warps[number].ready != 0 {
            let ready = self.warps[number].ready;
            let flip = random.next() as u32 % WARP;
            for lane in (0..WARP).map(|lane| lane ^ flip).filter(|lane| ready & 1 << lane != 0) {
                self.run_lane(number, lane)?;
            }
            let Warp { in_warp_operation, returned, lanes, .. } = self.warps[number];
            let meeting = WarpLanes(&self.contexts[number * WARP as usize..]);
            let released = warp::meet(&meeting, in_warp_operation, returned | !lanes)
                .map_err(|broken| self.broken(number, broken))?;
            // Votes and shuffles bring lanes together, but do not order what they do in memory.
            if bits(released).any(|lane| meeting.request(lane).operation == Operation::Sync) {
                self.block.clock.order_warp(number);
            }
            let state = &mut self.warps[number];
            state.in_warp_operation &= !released;
            state.ready = released;
        }
        Ok(())
    }

    /// Runs one thread until it waits or returns.
    fn run_lane(&mut self, warp: usize, lane: u32) -> Result<(), Fault> {
        let number = warp * WARP as usize + lane as usize;
        let context = &self.contexts[number];
        let thread = match &mut self.threads[number] {
            Some(thread) => thread,
            slot => {
                let Some(stack) = self.stacks.pop() else {
                    unreachable!("there are as many stacks as threads");
                };
                slot.insert(start(self.kernel, context, stack))
            }
        };
        let result = running(context, || thread.resume(()));
        let state = &mut self.warps[warp];
        let bit = 1 << lane;
        state.ready &= !bit;
        match result {
            CoroutineResult::Yield(()) => match context.wait.get() {
                Wait::Block(..) => state.at_barrier |= bit,
                Wait::Warp(_) => state.in_warp_operation |= bit,
            },
            CoroutineResult::Return(outcome) => {
                state.returned |= bit;
                self.stacks.extend(self.threads[number].take().map(Thread::into_stack));
                if let Err(payload) = outcome {
                    let message = message(payload.as_ref());
                    return Err(Fault::Panicked {
                        place: self.block.place(context.index),
                        message,
                    });
                }
            }
        }
        self.block.fault.take().map_or(Ok(()), |fault| Err(*fault))
    }

    /// Lets the block pass a barrier if all its threads are there. Called when no thread can run.
    fn pass_barrier(&mut self) -> Result<(), Fault> {
        if self.warps.iter().all(|state| state.returned == state.lanes) {
            return Ok(());
        }
        if self.warps.iter().any(|state| state.at_barrier != state.lanes) {
            return Err(self.stuck());
        }
        let barrier = barrier_of(&self.contexts[0]);
        let mut count = 0;
        for context in self.contexts {
            match context.wait.get() {
                Wait::Block(other, holds) if Some(other) == barrier => count += u64::from(holds),
                _ => return Err(self.stuck()),
            }
        }
        self.block.clock.order_block();
        let value = match barrier {
            Some(Barrier::Count) => Some(count),
            Some(Barrier::And) => Some(u64::from(count == self.contexts.len() as u64)),
            Some(Barrier::Or) => Some(u64::from(count > 0)),
            Some(Barrier::Plain) | None => None,
        };
        if let Some(value) = value {
            for context in self.contexts {
                context.answer.set(Answer { value, in_range: true });
            }
        }
        for state in &mut self.warps {
            state.at_barrier = 0;
            state.ready = state.lanes;
        }
        Ok(())
    }

    /// Says why no thread of the block can go on.
    #[cold]
    fn stuck(&self) -> Fault {
        let at_barrier = |number: &usize| {
            self.warps[number / WARP as usize].at_barrier >> (*number as u32 % WARP) & 1 != 0
        };
        let numbers = 0..self.contexts.len();
        let Some(first) = numbers.clone().find(at_barrier) else {
            return self.deadlock();
        };
        let barrier = barrier_of(&self.contexts[first]);
        let elsewhere =
            |number: &usize| !at_barrier(number) || barrier_of(&self.contexts[*number]) != barrier;
        // There is one, for otherwise the barrier would have been passed.
        let missing = numbers.clone().find(elsewhere).unwrap_or(first);
        let returned = self.warps[missing / WARP as usize].returned;
        let missing_state = match self.contexts[missing].wait.get() {
            _ if returned >> (missing as u32 % WARP) & 1 != 0 => "has returned".to_owned(),
            Wait::Block(other, _) => format!("waits in `{}`", other.name()),
            Wait::Warp(request) => {
                format!("waits in `{}` (mask {:#010x})", request.operation.name(), request.mask)
            }
        };
        Fault::DivergentBarrier {
            place: self.block.place(self.contexts[first].index),
            barrier: barrier.map_or("", Barrier::name),
            missing: self.contexts[missing].index,
            missing_state,
        }
    }

    fn deadlock(&self) -> Fault {
        let waiting = self.warps.iter().enumerate().find_map(|(number, state)| {
            bits(state.in_warp_operation).next().map(|lane| number * WARP as usize + lane as usize)
        });
        // Threads that have not returned wait somewhere, and not at a barrier.
        let context = &self.contexts[waiting.unwrap_or(0)];
        let Request { operation, mask, .. } = request_of(context);
        Fault::Deadlock {
            place: self.block.place(context.index),
            operation: operation.name(),
            mask,
        }
    }

    /// The fault for a rule that lanes of warp `number` broke.
    #[cold]
    fn broken(&self, number: usize, broken: Broken) -> Fault {
        let context = |lane: u32| &self.contexts[number * WARP as usize + lane as usize];
        let place = |lane| self.block.place(context(lane).index);
        let missing = |lane, other, how: String| {
            let Request { operation, mask, .. } = request_of(context(lane));
            let (place, operation) = (place(lane), operation.name());
            Fault::MissingLane { place, operation, mask, lane: other, how }
        };
        match broken {
            Broken::NotInOwnMask { lane } => {
                missing(lane, lane, format!("leaves out the calling lane, {lane}"))
            }
            Broken::Gone { lane, other } => {
                let exists = self.warps[number].lanes >> other & 1 != 0;
                let state = if exists { "has returned" } else { "does not exist" };
                missing(lane, other, format!("names lane {other}, which {state}"))
            }
            Broken::ReadsOutsideMask { lane, other } => {
                missing(lane, other, format!("reads lane {other}, which is not in the mask"))
            }
            Broken::Differs { lane, other } => {
                let (mine, theirs) = (request_of(context(lane)), request_of(context(other)));
                Fault::DivergentWarp {
                    place: place(lane),
                    operation: mine.operation.name(),
                    mask: mine.mask,
                    other_lane: other,
                    other_operation: theirs.operation.name(),
                    other_mask: theirs.mask,
                }
            }
            Broken::Width { lane } => {
                let Request { operation, width, .. } = request_of(context(lane));
                Fault::BadWidth { place: place(lane), operation: operation.name(), width }
            }
        }
    }

    /// Ends the threads that wait, running their destructors, and keeps their stacks.
    fn unwind(&mut self) {
        for (thread, context) in self.threads.iter_mut().zip(self.contexts) {
            if let Some(mut thread) = thread.take() {
                running(context, || thread.force_unwind());
                self.stacks.push(thread.into_stack());
            }
        }
    }
}

/// Prepares a thread that runs the kernel once.
fn start(kernel: &Kernel<'_>, context: &ThreadContext<'_>, stack: KernelStack) -> Thread {
    let kernel: *const Kernel<'_> = kernel;
    let context: *const ThreadContext<'static> = ptr::from_ref(context).cast();
    // SAFETY: the closure borrows the kernel and the context. A `BlockRunner` borrows both for
    // longer than it lives, it owns all threads, and dropping one unwinds it.
    unsafe {
        Coroutine::with_stack_unchecked(stack, move |yielder, ()| {
            (*context).yielder.set(yielder);
            // A forced unwinding is caught here too, which ends it as well as its own root does.
            catch_unwind(AssertUnwindSafe(|| (*kernel)()))
        })
    }
}

/// What a panic said.
fn message(payload: &(dyn Any + Send)) -> String {
    let text = payload.downcast_ref::<&str>().copied();
    text.or_else(|| payload.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("(no message)")
        .to_owned()
}

fn barrier_of(context: &ThreadContext<'_>) -> Option<Barrier> {
    match context.wait.get() {
        Wait::Block(barrier, _) => Some(barrier),
        Wait::Warp(_) => None,
    }
}

fn request_of(context: &ThreadContext<'_>) -> Request {
    match context.wait.get() {
        Wait::Warp(request) => request,
        // A lane at a barrier of the block takes part in no meeting of its warp.
        Wait::Block(..) => {
            Request { operation: Operation::Sync, mask: 0, value: 0, argument: 0, width: WARP }
        }
    }
}

/// The threads of one warp (and those after it, which no mask names).
struct WarpLanes<'a>(&'a [ThreadContext<'a>]);

impl Lanes for WarpLanes<'_> {
    fn request(&self, lane: u32) -> Request {
        request_of(&self.0[lane as usize])
    }

    fn answer(&self, lane: u32, answer: Answer) {
        self.0[lane as usize].answer.set(answer);
    }
}
