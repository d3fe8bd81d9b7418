//! The emulator backend: the GPU kernels on the CPU, one coroutine per GPU thread, every access checked.

pub(crate) mod block;

use std::sync::atomic::{AtomicPtr, Ordering};

use cuda_std::emulator::{self, Emulator, Fault, LaunchConfig, Memory};
use kernels_gpu::Entry;
use kernels_gpu::args::Level;

use crate::algorithm::Algorithm;
use crate::error::{Error, Result};
use crate::kernels::{self, BackwardArrays, Executor, ForwardArrays, GpuElement, Launch, Plan};
use crate::memory::zeros;
use crate::problem::{GradientSlices, Problem};

/// Writes the output.
pub(crate) fn forward<T: GpuElement>(
    algorithm: Algorithm,
    problem: &Problem<'_, T>,
    output: &mut [T],
) -> Result<()> {
    let plan = Plan::new(problem.shape, problem.rule)?;
    let mut scratch =
        zeros::<f32>("workspace", kernels::forward_scratch::<T::Kernel>(&plan, algorithm))?;
    let mut memory = Memory::new();
    let arrays = ForwardArrays::<T::Kernel> {
        table: table(&mut memory, &plan),
        features: memory.read_only("feature_maps", problem.feature_maps).cast(),
        locations: memory.read_only("sampling_locations", problem.sampling_locations),
        weights: memory.read_only("weights", problem.weights).cast(),
        output: memory.uninitialised("output", output).cast(),
        scratch: memory.uninitialised("workspace", &mut scratch),
    };
    let runner = Runner::new(&memory);
    // SAFETY: the slices have the sizes of the problem's shape, which are the plan's, and outlive the call.
    unsafe { kernels::forward(&runner, &plan, algorithm, arrays)? };
    runner.check_written("output")
}

/// Writes the three gradients.
pub(crate) fn backward<T: GpuElement>(
    algorithm: Algorithm,
    problem: &Problem<'_, T>,
    grad_output: &[T],
    gradients: GradientSlices<'_, T>,
) -> Result<()> {
    let plan = Plan::new(problem.shape, problem.rule)?;
    let mut scratch =
        zeros::<f32>("workspace", kernels::backward_scratch::<T::Kernel>(&plan, algorithm))?;
    let mut memory = Memory::new();
    let arrays = BackwardArrays::<T::Kernel> {
        table: table(&mut memory, &plan),
        features: memory.read_only("feature_maps", problem.feature_maps).cast(),
        locations: memory.read_only("sampling_locations", problem.sampling_locations),
        weights: memory.read_only("weights", problem.weights).cast(),
        grad_output: memory.read_only("grad_output", grad_output).cast(),
        grad_features: memory.uninitialised("grad_feature_maps", gradients.feature_maps).cast(),
        grad_locations: memory
            .uninitialised("grad_sampling_locations", gradients.sampling_locations),
        grad_weights: memory.uninitialised("grad_weights", gradients.weights).cast(),
        leaves_unseen: false,
        scratch: memory.uninitialised("workspace", &mut scratch),
    };
    let runner = Runner::new(&memory);
    // SAFETY: as in `forward`.
    unsafe { kernels::backward(&runner, &plan, algorithm, arrays)? };
    runner.check_written("grad_feature_maps")?;
    runner.check_written("grad_sampling_locations")?;
    runner.check_written("grad_weights")
}

fn table<'a>(memory: &mut Memory<'a>, plan: &'a Plan) -> *const Level {
    memory.read_only("maps", &plan.table).cast()
}

/// The emulator with the buffers of one call.
struct Runner<'a> {
    emulator: Emulator,
    memory: &'a Memory<'a>,
}

impl<'a> Runner<'a> {
    fn new(memory: &'a Memory<'a>) -> Self {
        Self { emulator: Emulator::new().with_race_checks(true), memory }
    }
}

impl Runner<'_> {
    /// An error unless the kernels wrote every byte of the buffer.
    fn check_written(&self, name: &'static str) -> Result<()> {
        match self.memory.unwritten(name) {
            0 => Ok(()),
            bytes => Err(failed(
                format!("writing {name}"),
                format!("the kernels left {bytes} bytes unwritten"),
            )),
        }
    }
}

impl Executor for Runner<'_> {
    unsafe fn launch<A: Copy + Send + Sync>(
        &self,
        entry: Entry<A>,
        launch: Launch,
        args: A,
    ) -> Result<()> {
        self.emulator
            // SAFETY: the caller's promise; the emulator checks every access besides.
            .launch(entry.name, config(launch), self.memory, || unsafe { (entry.thread)(args) })
            .map_err(|fault| fault_error(entry.name, &fault))
    }

    unsafe fn zero(&self, name: &'static str, array: *mut u8, bytes: usize) -> Result<()> {
        let launch = Plan::element_launch(bytes);
        // Only so that every thread may have it.
        let array = AtomicPtr::new(array);
        let step = (launch.grid.0 * launch.threads) as usize;
        self.emulator
            .launch(name, config(launch), self.memory, || {
                let mut index = cuda_std::thread::index_1d() as usize;
                while index < bytes {
                    let byte = array.load(Ordering::Relaxed).wrapping_add(index);
                    emulator::global_write(byte, 1);
                    // SAFETY: the emulator has found the byte to be in a buffer; one thread per byte.
                    unsafe { byte.write(0) };
                    index += step;
                }
            })
            .map_err(|fault| fault_error(name, &fault))
    }
}

/// A launch as the emulator takes it.
fn config(launch: Launch) -> LaunchConfig {
    LaunchConfig {
        grid: launch.grid.into(),
        block: launch.threads.into(),
        dynamic_shared_bytes: launch.shared_bytes,
    }
}

fn fault_error(kernel: &str, fault: &Fault) -> Error {
    failed(format!("kernel {kernel}"), fault.to_string())
}

fn failed(operation: String, message: String) -> Error {
    Error::BackendFailed { backend: "emulator", operation, message }
}

#[cfg(test)]
mod tests {
    use kernels_gpu::READ_WORDS;
    use kernels_gpu::args::ReadArgs;

    use super::*;

    #[test]
    fn reading_over_and_over_reads_every_word_as_often() {
        // All reads together are 288 rounds of the array.
        const VECTORS: usize = 100;
        const THREADS: usize = 96;
        const STEPS: usize = 75;
        let source: Vec<u32> =
            (0..4 * VECTORS as u32).map(|word| word.wrapping_mul(2_654_435_761)).collect();
        let mut sums = vec![0; THREADS];
        let mut memory = Memory::new();
        let args = ReadArgs {
            vectors: VECTORS as u32,
            steps: STEPS as u32,
            source: memory.read_only("source", &source),
            sums: memory.uninitialised("sums", &mut sums),
        };
        let runner = Runner::new(&memory);
        let launch = Launch { grid: (3, 1), threads: 32, shared_bytes: 0 };
        // SAFETY: the arrays have the sizes of the arguments.
        unsafe { runner.launch(READ_WORDS, launch, args) }.expect("no fault");
        drop(memory);
        let times = (THREADS * STEPS * 4 / VECTORS) as u32;
        let once = source.iter().fold(0_u32, |sum, &word| sum.wrapping_add(word));
        let read = sums.iter().fold(0_u32, |sum, &word| sum.wrapping_add(word));
        assert_eq!(read, once.wrapping_mul(times));
    }
}
