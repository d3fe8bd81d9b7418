//! From the gradient of the weights back to that of the logits.
//!
//! With `s` the softmax and bars for gradients, `z̄ = s (s̄ - D)` where `D` is the sum of `s s̄` over all cameras, levels
//! and points of the group. It needs no pass over them: as the output is linear in the weights, `D` is the sum of output
//! times output gradient over the group's channels.
//!
//! A block has a run of anchors of one batch item. A thread has some of the logits `(L, P, G)`, and for those all
//! cameras and all anchors of the run, so that it adds up the cameras' gradient in registers, in a fixed order.

use crate::attention::weights::{OfAnchor, inner_products};
use crate::block_args::WeightsGradientArgs;
use crate::memory::{self, SharedWords};
use crate::storage::Storage;
use crate::unroll::each8;
#[cfg(target_arch = "nvptx64")]
use cuda_std::GpuFloat;
use cuda_std::thread;

/// Cameras whose sums a thread keeps at a time.
const CAMERAS: u32 = 8;

/// Writes the gradient of the anchors' logits, and that of the cameras' summed over runs of anchors.
///
/// Grid: `(runs, B)`. Block: any number of whole warps. Shared memory: a word for each anchor of a run and group.
///
/// # Safety
///
/// The pointers of `args` are valid as it says, for the sizes it gives.
#[inline(always)]
pub(crate) unsafe fn weights_gradient<T: Storage>(args: WeightsGradientArgs<T>) {
    let sizes = &args.sizes;
    let item = u64::from(thread::block_idx_y());
    let first = thread::block_idx_x() * args.run;
    let end = (first + args.run).min(sizes.anchors);
    let of_item = item * u64::from(sizes.anchors);
    let (first, end) = (of_item + u64::from(first), of_item + u64::from(end));
    let shared = SharedWords::new(0);
    // SAFETY: the whole block is here, and the anchors exist.
    unsafe {
        inner_products(shared, sizes, [args.features, args.grad_features], first, end);
    }
    thread::sync_threads();
    let mut index = thread::thread_idx_x();
    while index < sizes.logits() {
        let mut camera = 0;
        while camera < sizes.cameras {
            // SAFETY: the logit exists and is this thread's own; the inner products are complete.
            unsafe { logit_gradient(&args, first..end, index, camera, shared) };
            camera += CAMERAS;
        }
        index += thread::block_dim_x();
    }
}

/// The gradient of one logit of all anchors of the run, towards up to [`CAMERAS`] cameras from `first_camera` on.
///
/// # Safety
///
/// The pointers of `args` are valid as it says; the logit is the thread's own.
#[inline(always)]
unsafe fn logit_gradient<T: Storage>(
    args: &WeightsGradientArgs<T>,
    anchors: core::ops::Range<u64>,
    index: u32,
    first_camera: u32,
    shared: SharedWords,
) {
    let sizes = &args.sizes;
    let (group, entry) = (index % sizes.groups.max(1), index / sizes.groups.max(1));
    let (point, level) = (entry % sizes.points.max(1), entry / sizes.points.max(1));
    let count = u64::from(sizes.logits());
    let by_camera = args.logits.camera.is_null();
    let mut of_cameras = [0.0; CAMERAS as usize];
    let mut sums = [0.0; CAMERAS as usize];
    let one = OfAnchor::new(&args.logits, sizes, anchors.start);
    each8(|slot| {
        let camera = first_camera + slot as u32;
        if camera < sizes.cameras {
            // SAFETY: camera and index exist.
            of_cameras[slot] = unsafe { one.of_camera(camera, index) };
        }
    });
    for row in anchors.clone() {
        let logits = OfAnchor::new(&args.logits, sizes, row);
        let statistics = 2 * (row * u64::from(sizes.groups) + u64::from(group)) as usize;
        let of_run = (row - anchors.start) as u32 * sizes.groups + group;
        // SAFETY: the anchor and its group exist; the inner products were written before the barrier.
        let ([largest, scale], inner) = unsafe {
            (
                memory::load_pair(args.statistics.wrapping_add(statistics)),
                f32::from_bits(shared.get(of_run)),
            )
        };
        let mut total = 0.0;
        each8(|slot| {
            let camera = first_camera + slot as u32;
            if camera >= sizes.cameras {
                return;
            }
            let pair = (row * u64::from(sizes.points) + u64::from(point))
                * u64::from(sizes.cameras)
                + u64::from(camera);
            let weight = (pair * u64::from(sizes.levels) + u64::from(level))
                * u64::from(sizes.groups)
                + u64::from(group);
            // SAFETY: camera, point and index exist.
            let (softmax, mut gradient) = unsafe {
                let logit = logits.of_anchor(camera, index) + of_cameras[slot];
                let softmax = if logits.is_hidden(camera, point) {
                    0.0
                } else {
                    (logit - largest).exp() * scale
                };
                (softmax, T::load(args.grad_weights.wrapping_add(weight as usize)))
            };
            if gradient != 0.0 {
                // SAFETY: as above.
                gradient *= unsafe { logits.dropout(camera, point) };
            }
            let gradient = softmax * (gradient - inner);
            sums[slot] += gradient;
            total += gradient;
            if by_camera {
                let at = (row * u64::from(sizes.cameras) + u64::from(camera)) * count + u64::from(index);
                // SAFETY: the logit is this thread's own.
                unsafe { memory::store_f32(args.grad_anchor.wrapping_add(at as usize), gradient) };
            }
        });
        if !by_camera {
            let at = args.grad_anchor.wrapping_add((row * count) as usize + index as usize);
            // SAFETY: the logit is this thread's own, so it is this thread that wrote it for earlier cameras.
            unsafe {
                if first_camera > 0 {
                    total += memory::reload_f32(at);
                }
                memory::store_f32(at, total);
            }
        }
    }
    if !by_camera {
        let item = u64::from(thread::block_idx_y());
        let run = item * u64::from(thread::grid_dim_x()) + u64::from(thread::block_idx_x());
        each8(|slot| {
            let camera = first_camera + slot as u32;
            if camera < sizes.cameras {
                let at = (run * u64::from(sizes.cameras) + u64::from(camera)) * count + u64::from(index);
                // SAFETY: the sum is this thread's own.
                unsafe { memory::store_f32(args.camera_parts.wrapping_add(at as usize), sums[slot]) };
            }
        });
    }
}
