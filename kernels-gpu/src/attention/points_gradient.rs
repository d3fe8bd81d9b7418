//! From the gradient of places in the images back to anchors, learned offsets and projection matrices.

use crate::attention::points::{BoxPoint, Camera, load3, place_gradient, point_gradient};
use crate::attention::sum_over_warp;
use crate::block_args::{Generator, PointsGradientArgs, generator};
use crate::limits::WARP_LANES;
use crate::memory::{self, SharedWords};
use crate::sample;
use crate::unroll::{array4, each4, each8, upto8};
use cuda_std::thread;

/// The gradient of what a camera makes of a point, before the division by depth; nothing where the place does not
/// count.
///
/// # Safety
///
/// The pointers of `args` are valid as it says; point and camera exist.
#[inline(always)]
unsafe fn projected_gradient(
    args: &PointsGradientArgs,
    camera: &Camera,
    number: u64,
    index: u32,
) -> Option<([f32; 3], [f32; 3])> {
    let sizes = &args.geometry.sizes;
    let pair = (number * u64::from(sizes.cameras) + u64::from(index)) as usize;
    // SAFETY: the pair exists.
    let place = unsafe { memory::load_pair(args.locations.wrapping_add(2 * pair)) };
    // Elsewhere there is no gradient, and the place may be infinite.
    if !sample::may_count(place[0], place[1], sizes.rule) {
        return None;
    }
    // SAFETY: the point and the pair exist.
    let (gradient, point) = unsafe {
        (
            memory::load_pair(args.grad_locations.wrapping_add(2 * pair)),
            load3(args.key_points.wrapping_add(3 * number as usize)),
        )
    };
    Some((point, place_gradient(camera, camera.project(point), place, gradient)))
}

/// The gradient of a key point: the sum over the cameras.
///
/// # Safety
///
/// The pointers of `args` are valid as it says; the point exists.
#[inline(always)]
unsafe fn key_point_gradient(args: &PointsGradientArgs, row: u64, point: u32) -> [f32; 3] {
    let sizes = &args.geometry.sizes;
    let number = row * u64::from(sizes.points) + u64::from(point);
    let first_camera = row / u64::from(sizes.anchors.max(1)) * u64::from(sizes.cameras);
    let mut sum = [0.0; 3];
    for index in 0..sizes.cameras {
        // SAFETY: the camera exists.
        unsafe {
            let camera = Camera::load(&args.geometry, first_camera + u64::from(index));
            if let Some((_, gradient)) = projected_gradient(args, &camera, number, index) {
                let part = point_gradient(&camera, gradient);
                upto8(3, |axis| sum[axis] += part[axis]);
            }
        }
    }
    sum
}

/// The gradients of anchors and learned offsets. One warp for each anchor.
///
/// Grid: one-dimensional, a warp for each anchor. Shared memory: none.
///
/// # Safety
///
/// The pointers of `args` are valid as it says, for the sizes it gives.
#[inline(always)]
pub(crate) unsafe fn points_gradient(args: PointsGradientArgs) {
    let sizes = &args.geometry.sizes;
    let (thread, warps) = (thread::thread_idx_x(), thread::block_dim_x() / WARP_LANES);
    let row = u64::from(thread::block_idx_x()) * u64::from(warps) + u64::from(thread / WARP_LANES);
    if row >= u64::from(sizes.batch) * u64::from(sizes.anchors) {
        return;
    }
    let lane = thread % WARP_LANES;
    // SAFETY: the anchor exists, and the whole warp is here.
    unsafe {
        if args.geometry.generator.kind == generator::BOX {
            box_gradient(&args, row, lane);
        } else {
            polyline_gradient(&args, row, lane);
        }
    }
}

/// # Safety
///
/// The whole warp makes the call; the anchor exists and is the warp's own.
#[inline(always)]
unsafe fn box_gradient(args: &PointsGradientArgs, row: u64, lane: u32) {
    let Generator { fixed, anchor_dims, .. } = args.geometry.generator;
    // Centre, size, sine and cosine: the order of the anchor's numbers.
    let mut sums = [0.0; 8];
    let mut point = lane;
    while point < args.geometry.sizes.points {
        // SAFETY: the point exists.
        let (gradient, shape) = unsafe {
            (key_point_gradient(args, row, point), BoxPoint::new(&args.geometry, row, point))
        };
        let BoxPoint { size, yaw: [sine, cosine], offset, learned } = shape;
        let [x, y, z] = gradient;
        let back = [cosine * x + sine * y, cosine * y - sine * x, z];
        upto8(3, |axis| {
            sums[axis] += gradient[axis];
            sums[3 + axis] += back[axis] * offset[axis];
        });
        sums[6] += offset[0] * y - offset[1] * x;
        sums[7] += offset[0] * x + offset[1] * y;
        if point >= fixed {
            let first = row * u64::from(args.geometry.generator.offsets()) + u64::from(3 * (point - fixed));
            upto8(3, |axis| {
                let slope = learned[axis] * (1.0 - learned[axis]);
                let at = args.grad_offsets.wrapping_add(first as usize + axis);
                // SAFETY: the point's own offsets.
                unsafe { memory::store_f32(at, back[axis] * size[axis] * slope) };
            });
        }
        point += WARP_LANES;
    }
    let target = args.grad_anchors.wrapping_add((row * u64::from(anchor_dims)) as usize);
    each8(|index| {
        // SAFETY: the whole warp is here.
        let sum = unsafe { sum_over_warp(sums[index]) };
        if lane == 0 {
            // SAFETY: a box has at least eight numbers.
            unsafe { memory::store_f32(target.wrapping_add(index), sum) };
        }
    });
    // Nothing depends on the velocity.
    let mut index = 8 + lane;
    while index < anchor_dims {
        // SAFETY: a number of the anchor.
        unsafe { memory::store_f32(target.wrapping_add(index as usize), 0.0) };
        index += WARP_LANES;
    }
}

/// # Safety
///
/// The whole warp makes the call; the anchor exists and is the warp's own.
#[inline(always)]
unsafe fn polyline_gradient(args: &PointsGradientArgs, row: u64, lane: u32) {
    let Generator { fixed, learned, vertices, anchor_dims, .. } = args.geometry.generator;
    let target = args.grad_anchors.wrapping_add((row * u64::from(anchor_dims)) as usize);
    let of_vertex = fixed * learned;
    let mut vertex = lane;
    while vertex < vertices {
        let mut sum = [0.0; 2];
        for point in vertex * of_vertex..(vertex + 1) * of_vertex {
            // SAFETY: the point exists.
            let gradient = unsafe { key_point_gradient(args, row, point) };
            upto8(2, |axis| {
                sum[axis] += gradient[axis];
                if !args.geometry.offsets.is_null() {
                    let at = row * u64::from(args.geometry.generator.offsets()) + u64::from(2 * point);
                    let at = args.grad_offsets.wrapping_add(at as usize + axis);
                    // SAFETY: the point's own offsets.
                    unsafe { memory::store_f32(at, gradient[axis]) };
                }
            });
        }
        upto8(2, |axis| {
            let at = target.wrapping_add(2 * vertex as usize + axis);
            // SAFETY: the vertex's own numbers.
            unsafe { memory::store_f32(at, sum[axis]) };
        });
        vertex += WARP_LANES;
    }
}

/// Sums of the projection matrices' gradients over parts of the points.
///
/// Grid: `(parts, B * N)`. Block: any number of whole warps. Shared memory: 12 words for each warp.
///
/// # Safety
///
/// The pointers of `args` are valid as it says, for the sizes it gives.
#[inline(always)]
pub(crate) unsafe fn projection_gradient(args: PointsGradientArgs) {
    let sizes = &args.geometry.sizes;
    let (thread, threads) = (thread::thread_idx_x(), thread::block_dim_x());
    let camera_number = thread::block_idx_y();
    let (item, index) = (camera_number / sizes.cameras.max(1), camera_number % sizes.cameras.max(1));
    // SAFETY: the camera exists.
    let camera = unsafe { Camera::load(&args.geometry, u64::from(camera_number)) };
    let points = u64::from(sizes.anchors) * u64::from(sizes.points);
    let mut sums = [[0.0; 4]; 3];
    let step = u64::from(thread::grid_dim_x()) * u64::from(threads);
    let mut point = u64::from(thread::block_idx_x()) * u64::from(threads) + u64::from(thread);
    while point < points {
        let number = u64::from(item) * points + point;
        // SAFETY: the point exists.
        let projected = unsafe { projected_gradient(&args, &camera, number, index) };
        if let Some((place, gradient)) = projected {
            upto8(3, |row| {
                each4(|column| {
                    let factor = if column < 3 { place[column % 3] } else { 1.0 };
                    sums[row][column] += gradient[row] * factor;
                });
            });
        }
        point += step;
    }
    let shared = SharedWords::new(0);
    let (warp, lane) = (thread / WARP_LANES, thread % WARP_LANES);
    upto8(3, |row| {
        // SAFETY: the whole warp is here.
        let total = array4(|column| unsafe { sum_over_warp(sums[row][column]) });
        if lane == 0 {
            // SAFETY: the warp's own words, 16 bytes aligned.
            unsafe { shared.set4(12 * warp + 4 * row as u32, total.map(f32::to_bits)) };
        }
    });
    thread::sync_threads();
    if thread < 12 {
        let mut total = 0.0;
        for warp in 0..threads / WARP_LANES {
            // SAFETY: written before the barrier.
            total += f32::from_bits(unsafe { shared.get(12 * warp + thread) });
        }
        let part = u64::from(camera_number) * u64::from(thread::grid_dim_x())
            + u64::from(thread::block_idx_x());
        let at = args.projection_parts.wrapping_add((12 * part) as usize + thread as usize);
        // SAFETY: one thread for each number of the part.
        unsafe { memory::store_f32(at, total) };
    }
}
