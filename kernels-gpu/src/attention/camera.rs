//! The camera encoder: what a camera's matrix adds to every instance feature. One block for each camera.
//!
//! Linear(12, E), ReLU, LayerNorm, Linear(E, E), ReLU, LayerNorm. Cameras are few, so a block has one for itself and the
//! layers follow each other within it.

use crate::attention::sum_over_warp;
use crate::block_args::CameraArgs;
use crate::limits::{WARP_LANES, camera_words};
use crate::memory::{self, SharedWords};
use crate::unroll::{array4, each4, sum_in_eights};
#[cfg(target_arch = "nvptx64")]
use cuda_std::GpuFloat;
use cuda_std::thread;

/// What is added to the variance.
const EPSILON: f32 = 1e-5;

/// A thread's place in the block, for both directions.
#[derive(Clone, Copy)]
pub(crate) struct Worker {
    pub(crate) thread: u32,
    pub(crate) threads: u32,
    pub(crate) warp: u32,
    pub(crate) warps: u32,
    pub(crate) lane: u32,
}

impl Worker {
    /// The calling thread.
    #[inline(always)]
    pub(crate) fn new() -> Self {
        let (thread, threads) = (thread::thread_idx_x(), thread::block_dim_x());
        Self {
            thread,
            threads,
            warp: thread / WARP_LANES,
            warps: threads / WARP_LANES,
            lane: thread % WARP_LANES,
        }
    }

    /// The sums of two values over the block, in a fixed order; every thread gets them.
    ///
    /// # Safety
    ///
    /// The whole block makes the call; `shared` are two words for each of 32 warps, and nobody uses them otherwise.
    #[inline(always)]
    pub(crate) unsafe fn sums_over_block(self, shared: SharedWords, values: [f32; 2]) -> [f32; 2] {
        // SAFETY: the whole warp is here, and the words are its own.
        unsafe {
            let [first, second] = values.map(|value| sum_over_warp(value));
            if self.lane == 0 {
                shared.set(2 * self.warp, first.to_bits());
                shared.set(2 * self.warp + 1, second.to_bits());
            }
        }
        thread::sync_threads();
        let mut parts = [0.0; 2];
        if self.lane < self.warps {
            // SAFETY: written before the barrier.
            parts = unsafe { [shared.get(2 * self.lane), shared.get(2 * self.lane + 1)] }
                .map(f32::from_bits);
        }
        // The words may be written again after this.
        thread::sync_threads();
        // SAFETY: the whole warp is here.
        parts.map(|part| unsafe { sum_over_warp(part) })
    }
}

/// Writes the embeddings, and what the way back needs.
///
/// Grid: `B * N`. Block: whole warps, at most 32. Shared memory: [`camera_bytes`](crate::limits::camera_bytes).
///
/// # Safety
///
/// The pointers of `args` are valid as it says, for the sizes it gives.
#[inline(always)]
pub(crate) unsafe fn camera(args: CameraArgs) {
    let worker = Worker::new();
    let row = thread::block_idx_x() as usize;
    let channels = args.channels;
    let values = SharedWords::new(camera_words::VALUES);
    let matrix = args.projections.wrapping_add(16 * row);
    let mut channel = worker.thread;
    while channel < channels {
        let weight = args.encoder.weights[0].wrapping_add(12 * channel as usize);
        // SAFETY: the channel exists, and its word is this thread's.
        unsafe {
            let mut sum = memory::load_f32(args.encoder.biases[0].wrapping_add(channel as usize));
            for index in 0..12 {
                sum = memory::load_f32(weight.wrapping_add(index))
                    .mul_add(memory::load_f32(matrix.wrapping_add(index)), sum);
            }
            values.set(channel, sum.max(0.0).to_bits());
        }
        channel += worker.threads;
    }
    let middle = args.middle.wrapping_add(row * channels as usize);
    // SAFETY: the whole block is here; the channels' words are written by their own threads.
    unsafe { normalise(&args, worker, values, row, 0, middle) };
    // Now `values` hold what goes into the second layer.
    let second = SharedWords::new(camera_words::VALUES + channels);
    // Four channels at a time, for the loads of all to be under way together.
    let mut first = 4 * worker.warp;
    while first < channels {
        let sums = array4(|index| {
            let channel = (first + index as u32).min(channels - 1) as usize;
            // SAFETY: the channel exists; the words were written before the barrier at the end of `normalise`.
            unsafe { second_layer(&args, worker, values, channel) }
        });
        each4(|index| {
            let channel = first + index as u32;
            // SAFETY: the whole warp is here.
            let sum = unsafe { sum_over_warp(sums[index]) };
            if worker.lane == 0 && channel < channels {
                // SAFETY: the channel exists, and its word is this warp's.
                unsafe {
                    let bias = args.encoder.biases[1].wrapping_add(channel as usize);
                    second.set(channel, (sum + memory::load_f32(bias)).max(0.0).to_bits());
                }
            }
        });
        first += 4 * worker.warps;
    }
    thread::sync_threads();
    let output = args.output.wrapping_add(row * channels as usize);
    // SAFETY: the whole block is here, and the words are complete.
    unsafe { normalise(&args, worker, second, row, 1, output) };
}

/// The lane's part of what the second layer makes for a channel, without the bias.
///
/// # Safety
///
/// The channel exists, and `values` are complete.
#[inline(always)]
unsafe fn second_layer(
    args: &CameraArgs,
    worker: Worker,
    values: SharedWords,
    channel: usize,
) -> f32 {
    let weight = args.encoder.weights[1].wrapping_add(channel * args.channels as usize);
    let count = args.channels.saturating_sub(worker.lane).div_ceil(WARP_LANES);
    sum_in_eights(count, |index| {
        let index = worker.lane + index * WARP_LANES;
        // SAFETY: below the channels.
        unsafe {
            memory::load_f32(weight.wrapping_add(index as usize)) * f32::from_bits(values.get(index))
        }
    })
}

/// The normalisation of this number: from the words at `values`, which it replaces, to `target`.
///
/// # Safety
///
/// The whole block makes the call; `target` points to the camera's channels.
#[inline(always)]
unsafe fn normalise(
    args: &CameraArgs,
    worker: Worker,
    values: SharedWords,
    row: usize,
    number: usize,
    target: *mut f32,
) {
    let channels = args.channels;
    let shared = SharedWords::new(camera_words::SUMS);
    let rectified = args.rectified.wrapping_add((2 * row + number) * channels as usize);
    // The words may have been written by other threads.
    thread::sync_threads();
    let mut sum = 0.0;
    let mut channel = worker.thread;
    while channel < channels {
        // SAFETY: the channel exists.
        unsafe {
            let value = f32::from_bits(values.get(channel));
            memory::store_f32(rectified.wrapping_add(channel as usize), value);
            sum += value;
        }
        channel += worker.threads;
    }
    // SAFETY: the whole block is here.
    let mean = unsafe { worker.sums_over_block(shared, [sum, 0.0]) }[0] / channels as f32;
    let mut sum = 0.0;
    let mut channel = worker.thread;
    while channel < channels {
        // SAFETY: the channel exists.
        let off = f32::from_bits(unsafe { values.get(channel) }) - mean;
        sum = off.mul_add(off, sum);
        channel += worker.threads;
    }
    // SAFETY: the whole block is here.
    let variance = unsafe { worker.sums_over_block(shared, [sum, 0.0]) }[0] / channels as f32;
    let scale = 1.0 / (variance + EPSILON).sqrt();
    if worker.thread == 0 {
        let moments = args.moments.wrapping_add(2 * (2 * row + number));
        // SAFETY: the camera's moments.
        unsafe {
            memory::store_f32(moments, mean);
            memory::store_f32(moments.wrapping_add(1), scale);
        }
    }
    let mut channel = worker.thread;
    while channel < channels {
        let at = channel as usize;
        // SAFETY: the channel exists, and its word is this thread's.
        unsafe {
            let value = (f32::from_bits(values.get(channel)) - mean) * scale;
            let value = value.mul_add(
                memory::load_f32(args.encoder.scales[number].wrapping_add(at)),
                memory::load_f32(args.encoder.shifts[number].wrapping_add(at)),
            );
            values.set(channel, value.to_bits());
            memory::store_f32(target.wrapping_add(at), value);
        }
        channel += worker.threads;
    }
    thread::sync_threads();
}
