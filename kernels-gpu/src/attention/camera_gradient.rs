//! The camera encoder backward: first what every camera passes on, then the parameters, summed over the cameras.

use crate::attention::camera::Worker;
use crate::attention::sum_over_warp;
use crate::block_args::CameraGradientArgs;
use crate::limits::WARP_LANES;
use crate::memory::{self, SharedWords};
use crate::unroll::sum_in_eights;
use cuda_std::thread;

/// Writes the gradients of the linear layers' outputs and of the matrices. One block for each camera.
///
/// Without an encoder it only adds up the matrices' gradient.
///
/// Grid: `B * N`. Block: whole warps, at most 32. Shared memory: [`camera_bytes`](crate::limits::camera_bytes).
///
/// # Safety
///
/// The pointers of `args` are valid as it says, for the sizes it gives.
#[inline(always)]
pub(crate) unsafe fn camera_gradient(args: CameraGradientArgs) {
    let worker = Worker::new();
    let row = thread::block_idx_x() as usize;
    let channels = args.channels;
    let values = SharedWords::new(WARP_LANES);
    let has_encoder = !args.encoder.weights[0].is_null();
    if has_encoder {
        // SAFETY: the whole block is here.
        unsafe { through_layers(&args, worker, row, values) };
    }
    // `values` are now the gradient of what the first layer makes.
    let mut index = worker.warp;
    while index < 16 {
        let mut sum = 0.0;
        if has_encoder && index < 12 {
            let mut channel = worker.lane;
            while channel < channels {
                let weight = args.encoder.weights[0].wrapping_add(12 * channel as usize + index as usize);
                // SAFETY: the channel exists, and its word was written before a barrier.
                unsafe { sum += memory::load_f32(weight) * f32::from_bits(values.get(channel)) };
                channel += WARP_LANES;
            }
            // SAFETY: the whole warp is here.
            sum = unsafe { sum_over_warp(sum) };
        }
        if index < 12 {
            sum += sum_in_eights(args.parts, |part| {
                let at = 12 * (row * args.parts as usize + part as usize) + index as usize;
                // SAFETY: a number of a part.
                unsafe { memory::load_f32(args.projection_parts.wrapping_add(at)) }
            });
        }
        if worker.lane == 0 {
            let at = args.grad_projections.wrapping_add(16 * row + index as usize);
            // SAFETY: one warp for each number; the last row of a matrix is not read, so its gradient is 0.
            unsafe { memory::store_f32(at, sum) };
        }
        index += worker.warps;
    }
}

/// From the gradient of the embedding to that of what the first layer makes, which is left in `values`.
///
/// # Safety
///
/// The whole block makes the call.
#[inline(always)]
unsafe fn through_layers(
    args: &CameraGradientArgs,
    worker: Worker,
    row: usize,
    values: SharedWords,
) {
    let channels = args.channels;
    let start = row * channels as usize;
    let mut channel = worker.thread;
    while channel < channels {
        // SAFETY: the channel exists, and its word is this thread's.
        unsafe {
            let value = memory::load_f32(args.grad_output.wrapping_add(start + channel as usize));
            values.set(channel, value.to_bits());
        }
        channel += worker.threads;
    }
    // SAFETY: the whole block is here.
    unsafe { through_normalisation(args, worker, row, 1, values) };
    let below = SharedWords::new(WARP_LANES + channels);
    let mut channel = worker.thread;
    while channel < channels {
        let sum = sum_in_eights(channels, |out| {
            let at = out as usize * channels as usize + channel as usize;
            // SAFETY: the channels exist; the words were written before the barrier.
            unsafe {
                memory::load_f32(args.encoder.weights[1].wrapping_add(at))
                    * f32::from_bits(values.get(out))
            }
        });
        // SAFETY: the channel exists, and its word is this thread's.
        unsafe {
            below.set(channel, sum.to_bits());
            memory::store_f32(args.grad_middle.wrapping_add(start + channel as usize), sum);
        }
        channel += worker.threads;
    }
    // SAFETY: the whole block is here.
    unsafe { through_normalisation(args, worker, row, 0, below) };
    let mut channel = worker.thread;
    while channel < channels {
        // SAFETY: both words are of this thread's channel; nobody reads `values` since the barriers above.
        unsafe { values.set(channel, below.get(channel)) };
        channel += worker.threads;
    }
    thread::sync_threads();
}

/// Back through a normalisation and the ReLU before it; replaces the words at `values`, whose owners the threads are.
///
/// # Safety
///
/// The whole block makes the call; every thread has written its channels' words.
#[inline(always)]
unsafe fn through_normalisation(
    args: &CameraGradientArgs,
    worker: Worker,
    row: usize,
    number: usize,
    values: SharedWords,
) {
    let channels = args.channels;
    let shared = SharedWords::new(0);
    let start = (2 * row + number) * channels as usize;
    // SAFETY: two moments for each normalisation.
    let [mean, scale] =
        unsafe { memory::load_pair(args.moments.wrapping_add(2 * (2 * row + number))) };
    let (mut sum, mut product) = (0.0, 0.0);
    let mut channel = worker.thread;
    while channel < channels {
        let at = channel as usize;
        // SAFETY: the channel exists, and its word is this thread's.
        unsafe {
            let gradient = f32::from_bits(values.get(channel))
                * memory::load_f32(args.encoder.scales[number].wrapping_add(at));
            let value = memory::load_f32(args.rectified.wrapping_add(start + at));
            sum += gradient;
            product += gradient * (value - mean) * scale;
        }
        channel += worker.threads;
    }
    // SAFETY: the whole block is here.
    let (sum, product) = unsafe {
        (worker.sum_over_block(shared, sum), worker.sum_over_block(shared, product))
    };
    let (sum, product) = (sum / channels as f32, product / channels as f32);
    let mut channel = worker.thread;
    while channel < channels {
        let at = channel as usize;
        // SAFETY: as above.
        unsafe {
            let gradient = f32::from_bits(values.get(channel))
                * memory::load_f32(args.encoder.scales[number].wrapping_add(at));
            let value = memory::load_f32(args.rectified.wrapping_add(start + at));
            let normalised = (value - mean) * scale;
            let gradient = (gradient - sum - normalised * product) * scale;
            let gradient = if value > 0.0 { gradient } else { 0.0 };
            values.set(channel, gradient.to_bits());
            memory::store_f32(args.grad_linear.wrapping_add(start + at), gradient);
        }
        channel += worker.threads;
    }
    thread::sync_threads();
}

/// Writes the gradients of the encoder's parameters. One block for each channel.
///
/// Grid: `E`. Block: whole warps. Shared memory: none.
///
/// # Safety
///
/// The pointers of `args` are valid as it says, for the sizes it gives, and there is an encoder.
#[inline(always)]
pub(crate) unsafe fn camera_parameters(args: CameraGradientArgs) {
    let worker = Worker::new();
    let out = thread::block_idx_x() as usize;
    let channels = args.channels as usize;
    let mut index = worker.thread as usize;
    while index < channels {
        // SAFETY: the element exists; one thread for each.
        unsafe {
            let sum = sum_over_cameras(&args, |row| {
                memory::load_f32(args.grad_linear.wrapping_add((2 * row + 1) * channels + out))
                    * memory::load_f32(args.middle.wrapping_add(row * channels + index))
            });
            memory::store_f32(args.grad_weights[1].wrapping_add(out * channels + index), sum);
        }
        index += worker.threads as usize;
    }
    let mut index = worker.thread as usize;
    while index < 12 {
        // SAFETY: the element exists; one thread for each.
        unsafe {
            let sum = sum_over_cameras(&args, |row| {
                memory::load_f32(args.grad_linear.wrapping_add(2 * row * channels + out))
                    * memory::load_f32(args.projections.wrapping_add(16 * row + index))
            });
            memory::store_f32(args.grad_weights[0].wrapping_add(12 * out + index), sum);
        }
        index += worker.threads as usize;
    }
    // The numbers that the channel has one of: two for each layer, two for each normalisation.
    if worker.thread < 2 {
        // SAFETY: the channel exists.
        unsafe { channel_parameters(&args, out, worker.thread as usize) };
    }
}

/// Writes the channel's bias, scale and shift of the layer and the normalisation of this number.
///
/// # Safety
///
/// The pointers of `args` are valid as it says; the channel exists.
#[inline(always)]
unsafe fn channel_parameters(args: &CameraGradientArgs, out: usize, number: usize) {
    let channels = args.channels as usize;
    // What comes in at the top of the normalisation.
    let upstream = if number == 0 { args.grad_middle.cast_const() } else { args.grad_output };
    // Not by index: an index that is not constant would put the arrays on the stack.
    let pick = |of: [*mut f32; 2]| if number == 0 { of[0] } else { of[1] };
    // SAFETY: the caller's promise.
    unsafe {
        let bias = sum_over_cameras(args, |row| {
            memory::load_f32(args.grad_linear.wrapping_add((2 * row + number) * channels + out))
        });
        let shift = sum_over_cameras(args, |row| {
            memory::load_f32(upstream.wrapping_add(row * channels + out))
        });
        let scale = sum_over_cameras(args, |row| {
            let [mean, scale] =
                memory::load_pair(args.moments.wrapping_add(2 * (2 * row + number)));
            let at = (2 * row + number) * channels + out;
            let value = memory::load_f32(args.rectified.wrapping_add(at));
            memory::load_f32(upstream.wrapping_add(row * channels + out)) * (value - mean) * scale
        });
        memory::store_f32(pick(args.grad_biases).wrapping_add(out), bias);
        memory::store_f32(pick(args.grad_scales).wrapping_add(out), scale);
        memory::store_f32(pick(args.grad_shifts).wrapping_add(out), shift);
    }
}

/// Adds up `of(row)` over all cameras of the batch, in their order.
#[inline(always)]
fn sum_over_cameras(args: &CameraGradientArgs, of: impl Fn(usize) -> f32) -> f32 {
    sum_in_eights(args.rows, |row| of(row as usize))
}
