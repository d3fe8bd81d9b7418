//! The camera encoder backward: first what every camera passes on, then the parameters, summed over the cameras.

use crate::attention::camera::Worker;
use crate::attention::sum_over_warp;
use crate::block_args::CameraGradientArgs;
use crate::limits::{WARP_LANES, camera_words};
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
    let values = SharedWords::new(camera_words::VALUES);
    let has_encoder = !args.encoder.weights[0].is_null();
    if has_encoder {
        // SAFETY: the whole block is here.
        unsafe { through_layers(&args, worker, row, values) };
    }
    // `values` are now the gradient of what the first layer makes.
    let mut index = worker.warp;
    while index < 16 {
        let mut sum = 0.0;
        let of_lane = |count: u32| count.saturating_sub(worker.lane).div_ceil(WARP_LANES);
        if has_encoder && index < 12 {
            sum += sum_in_eights(of_lane(channels), |number| {
                let channel = worker.lane + number * WARP_LANES;
                let weight = args.encoder.weights[0].wrapping_add((12 * channel + index) as usize);
                // SAFETY: the channel exists, and its word was written before a barrier.
                unsafe { memory::load_f32(weight) * f32::from_bits(values.get(channel)) }
            });
        }
        if index < 12 {
            sum += sum_in_eights(of_lane(args.parts), |number| {
                let part = worker.lane + number * WARP_LANES;
                let at = 12 * (row * args.parts as usize + part as usize) + index as usize;
                // SAFETY: a number of a part.
                unsafe { memory::load_f32(args.projection_parts.wrapping_add(at)) }
            });
        }
        // SAFETY: the whole warp is here.
        sum = unsafe { sum_over_warp(sum) };
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
    let below = SharedWords::new(camera_words::VALUES + channels);
    // SAFETY: the whole block is here.
    unsafe { through_second_layer(args, worker, values, below) };
    let mut channel = worker.thread;
    while channel < channels {
        let mut sum = 0.0;
        for share in 0..shares(worker, channels) {
            // SAFETY: written before the barrier.
            sum += f32::from_bits(unsafe { below.get(share * channels + channel) });
        }
        // SAFETY: the channel exists, and its words are this thread's, those of all shares.
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

/// Shares that the channels of the second layer's output are dealt out in: enough for every warp to have 32 channels of
/// its input and a share.
#[inline(always)]
fn shares(worker: Worker, channels: u32) -> u32 {
    (worker.warps / channels.div_ceil(WARP_LANES).max(1)).max(1)
}

/// Back through the second layer: from `values` to sums over each share of them, `(shares, E)` words at `parts`.
///
/// # Safety
///
/// The whole block makes the call; the values are complete.
#[inline(always)]
unsafe fn through_second_layer(
    args: &CameraGradientArgs,
    worker: Worker,
    values: SharedWords,
    parts: SharedWords,
) {
    let channels = args.channels;
    let shares = shares(worker, channels);
    let mut number = worker.warp;
    while number < channels.div_ceil(WARP_LANES) * shares {
        let (share, channel) = (number % shares, number / shares * WARP_LANES + worker.lane);
        if channel < channels {
            let count = channels.saturating_sub(share).div_ceil(shares);
            let sum = sum_in_eights(count, |number| {
                let out = share + number * shares;
                let at = out as usize * channels as usize + channel as usize;
                // SAFETY: the channels exist; the words were written before the barrier.
                unsafe {
                    memory::load_f32(args.encoder.weights[1].wrapping_add(at))
                        * f32::from_bits(values.get(out))
                }
            });
            // SAFETY: the sum's word is this thread's.
            unsafe { parts.set(share * channels + channel, sum.to_bits()) };
        }
        number += worker.warps;
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
    let shared = SharedWords::new(camera_words::SUMS);
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
    let [sum, product] = unsafe { worker.sums_over_block(shared, [sum, product]) };
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

/// Writes the gradients of the encoder's parameters. One block for each channel, which deals them out to its warps, so
/// that the loads of all are under way together.
///
/// Grid: `E`. Block: whole warps. Shared memory: none.
///
/// # Safety
///
/// The pointers of `args` are valid as it says, for the sizes it gives, and there is an encoder.
#[inline(always)]
pub(crate) unsafe fn camera_parameters(args: CameraGradientArgs) {
    let (out, channels) = (thread::block_idx_x() as usize, args.channels as usize);
    // Weights of the second layer; then a warp for the weights of the first, and for either layer one for bias and shift,
    // and one for scales.
    let lanes = WARP_LANES as usize;
    let first_layer = channels.next_multiple_of(lanes);
    let mut number = thread::thread_idx_x() as usize;
    while number < first_layer + 5 * lanes {
        let (job, index) = if number < first_layer {
            (0, number)
        } else {
            (1 + (number - first_layer) / lanes, (number - first_layer) % lanes)
        };
        // SAFETY: the elements exist; one thread for each.
        unsafe {
            match job {
                0 if index < channels => second_weight(&args, out, index),
                1 if index < 12 => first_weight(&args, out, index),
                // The numbers as constants: an index that is not one would put the arrays of `args` on the stack.
                2 if index < 2 => bias_or_shift(&args, out, 0, index == 0),
                3 if index < 2 => bias_or_shift(&args, out, 1, index == 0),
                4 if index < 1 => scale(&args, out, 0),
                5 if index < 1 => scale(&args, out, 1),
                _ => {}
            }
        }
        number += thread::block_dim_x() as usize;
    }
}

/// Writes the gradient of a weight of the second layer.
///
/// # Safety
///
/// The pointers of `args` are valid as it says; the channels exist.
#[inline(always)]
unsafe fn second_weight(args: &CameraGradientArgs, out: usize, index: usize) {
    let channels = args.channels as usize;
    // SAFETY: the caller's promise.
    unsafe {
        let sum = sum_over_cameras(args, |row| {
            memory::load_f32(args.grad_linear.wrapping_add((2 * row + 1) * channels + out))
                * memory::load_f32(args.middle.wrapping_add(row * channels + index))
        });
        memory::store_f32(args.grad_weights[1].wrapping_add(out * channels + index), sum);
    }
}

/// Writes the gradient of a weight of the first layer.
///
/// # Safety
///
/// The pointers of `args` are valid as it says; channel and index exist.
#[inline(always)]
unsafe fn first_weight(args: &CameraGradientArgs, out: usize, index: usize) {
    let channels = args.channels as usize;
    // SAFETY: the caller's promise.
    unsafe {
        let sum = sum_over_cameras(args, |row| {
            memory::load_f32(args.grad_linear.wrapping_add(2 * row * channels + out))
                * memory::load_f32(args.projections.wrapping_add(16 * row + index))
        });
        memory::store_f32(args.grad_weights[0].wrapping_add(12 * out + index), sum);
    }
}

/// Writes the gradient of the bias of the layer of this number, or of the shift of its normalisation.
///
/// # Safety
///
/// The pointers of `args` are valid as it says; the channel exists.
#[inline(always)]
unsafe fn bias_or_shift(args: &CameraGradientArgs, out: usize, number: usize, is_bias: bool) {
    let upstream = if number == 0 { args.grad_middle.cast_const() } else { args.grad_output };
    let channels = args.channels as usize;
    let (source, step, target) = if is_bias {
        let source = args.grad_linear.cast_const().wrapping_add(number * channels);
        (source, 2 * channels, args.grad_biases[number])
    } else {
        (upstream, channels, args.grad_shifts[number])
    };
    // SAFETY: the caller's promise.
    unsafe {
        let sum = sum_over_cameras(args, |row| {
            memory::load_f32(source.wrapping_add(row * step + out))
        });
        memory::store_f32(target.wrapping_add(out), sum);
    }
}

/// Writes the gradient of the scale of the normalisation of this number.
///
/// # Safety
///
/// The pointers of `args` are valid as it says; the channel exists.
#[inline(always)]
unsafe fn scale(args: &CameraGradientArgs, out: usize, number: usize) {
    let channels = args.channels as usize;
    let upstream = if number == 0 { args.grad_middle.cast_const() } else { args.grad_output };
    // SAFETY: the caller's promise.
    unsafe {
        let sum = sum_over_cameras(args, |row| {
            let [mean, scale] =
                memory::load_pair(args.moments.wrapping_add(2 * (2 * row + number)));
            let at = (2 * row + number) * channels + out;
            let value = memory::load_f32(args.rectified.wrapping_add(at));
            memory::load_f32(upstream.wrapping_add(row * channels + out)) * (value - mean) * scale
        });
        memory::store_f32(args.grad_scales[number].wrapping_add(out), sum);
    }
}

/// Adds up `of(row)` over all cameras of the batch, in their order.
#[inline(always)]
fn sum_over_cameras(args: &CameraGradientArgs, of: impl Fn(usize) -> f32) -> f32 {
    sum_in_eights(args.rows, |row| of(row as usize))
}
