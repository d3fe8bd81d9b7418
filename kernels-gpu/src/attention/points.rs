//! Key points of anchors, and their places in the images. One thread for each point.

use crate::block_args::{Generator, Geometry, PointsArgs, generator};
use crate::attention::sigmoid;
use crate::memory;
use crate::unroll::{array4, each4, upto8};
#[cfg(target_arch = "nvptx64")]
use cuda_std::GpuFloat;
use cuda_std::thread;

/// The smallest depth that coordinates are divided by.
pub(crate) const NEAREST: f32 = 1e-5;

/// Reads three neighbouring numbers.
///
/// # Safety
///
/// `pointer` points to three numbers nobody writes during the launch.
#[inline(always)]
pub(crate) unsafe fn load3(pointer: *const f32) -> [f32; 3] {
    // SAFETY: the caller's promise.
    unsafe {
        [
            memory::load_f32(pointer),
            memory::load_f32(pointer.wrapping_add(1)),
            memory::load_f32(pointer.wrapping_add(2)),
        ]
    }
}

/// A point of a box as it follows from the anchor.
pub(crate) struct BoxPoint {
    /// Width, length and height of the box.
    pub(crate) size: [f32; 3],
    /// Sine and cosine of the yaw, as stored.
    pub(crate) yaw: [f32; 2],
    /// The point relative to the centre, before the rotation.
    pub(crate) offset: [f32; 3],
    /// For a learned offset its logits' sigmoids, else zeros.
    pub(crate) learned: [f32; 3],
}

impl BoxPoint {
    /// The point of this number of the anchor in `row`.
    ///
    /// # Safety
    ///
    /// The pointers of `geometry` are valid as it says, and the point exists.
    #[inline(always)]
    pub(crate) unsafe fn new(geometry: &Geometry, row: u64, point: u32) -> Self {
        let Generator { fixed, anchor_dims, table, .. } = geometry.generator;
        let anchor = geometry.anchors.wrapping_add((row * u64::from(anchor_dims)) as usize);
        let mut learned = [0.0; 3];
        // SAFETY: a box has at least eight numbers, a fixed point three in the table, a learned one three offsets.
        unsafe {
            let size = load3(anchor.wrapping_add(3)).map(f32::exp);
            let yaw =
                [memory::load_f32(anchor.wrapping_add(6)), memory::load_f32(anchor.wrapping_add(7))];
            let mut offset;
            if point < fixed {
                offset = load3(table.wrapping_add(3 * point as usize));
            } else {
                let first = row * u64::from(geometry.generator.offsets()) + u64::from(3 * (point - fixed));
                learned = load3(geometry.offsets.wrapping_add(first as usize)).map(sigmoid);
                offset = learned.map(|value| value - 0.5);
            }
            upto8(3, |axis| offset[axis] *= size[axis]);
            Self { size, yaw, offset, learned }
        }
    }
}

/// A key point.
///
/// # Safety
///
/// The pointers of `geometry` are valid as it says, and the point exists.
#[inline(always)]
unsafe fn key_point(geometry: &Geometry, row: u64, point: u32) -> [f32; 3] {
    let Generator { kind, fixed, learned, anchor_dims, table, ground, .. } = geometry.generator;
    let anchor = geometry.anchors.wrapping_add((row * u64::from(anchor_dims)) as usize);
    // SAFETY: the numbers of the anchor and of the point exist.
    unsafe {
        if kind == generator::BOX {
            let BoxPoint { yaw: [sine, cosine], offset: [x, y, z], .. } =
                BoxPoint::new(geometry, row, point);
            let centre = load3(anchor);
            return [
                cosine * x - sine * y + centre[0],
                sine * x + cosine * y + centre[1],
                z + centre[2],
            ];
        }
        let of_vertex = (fixed * learned).max(1);
        let (vertex, height) = (point / of_vertex, point % of_vertex / learned.max(1));
        let mut place = [
            memory::load_f32(anchor.wrapping_add(2 * vertex as usize)),
            memory::load_f32(anchor.wrapping_add(2 * vertex as usize + 1)),
            ground + memory::load_f32(table.wrapping_add(height as usize)),
        ];
        if !geometry.offsets.is_null() {
            let first = row * u64::from(geometry.generator.offsets()) + u64::from(2 * point);
            upto8(2, |axis| {
                place[axis] +=
                    memory::load_f32(geometry.offsets.wrapping_add(first as usize + axis));
            });
        }
        place
    }
}

/// The first three rows of a projection matrix, and the size of its image.
#[derive(Clone, Copy)]
pub(crate) struct Camera {
    pub(crate) rows: [[f32; 4]; 3],
    /// Width and height, ones where the matrix maps to fractions of the image.
    pub(crate) size: [f32; 2],
}

impl Camera {
    /// The camera of this number over the batch.
    ///
    /// # Safety
    ///
    /// The pointers of `geometry` are valid as it says, and the camera exists.
    #[inline(always)]
    pub(crate) unsafe fn load(geometry: &Geometry, camera: u64) -> Self {
        let matrix = geometry.projections.wrapping_add(16 * camera as usize);
        let mut rows = [[0.0; 4]; 3];
        let mut size = [1.0; 2];
        upto8(3, |row| {
            let at = matrix.wrapping_add(4 * row).cast();
            // SAFETY: a matrix is four rows of 16 bytes, aligned to that.
            rows[row] = unsafe { memory::load_words(at) }.map(f32::from_bits);
        });
        if !geometry.image_wh.is_null() {
            // SAFETY: two numbers for each camera.
            size = unsafe { memory::load_pair(geometry.image_wh.wrapping_add(2 * camera as usize)) };
        }
        Self { rows, size }
    }

    /// The point in pixels times depth, and the depth.
    #[inline(always)]
    pub(crate) fn project(&self, [x, y, z]: [f32; 3]) -> [f32; 3] {
        let row = |[a, b, c, d]: [f32; 4]| a.mul_add(x, b.mul_add(y, c.mul_add(z, d)));
        self.rows.map(row)
    }

    /// The place in the image, in fractions of it.
    #[inline(always)]
    pub(crate) fn place(&self, [x, y, depth]: [f32; 3]) -> [f32; 2] {
        let depth = depth.max(NEAREST);
        [x / depth / self.size[0], y / depth / self.size[1]]
    }
}

/// The thread's point: batch item, anchor of it and point of that; nothing behind the item's last.
#[inline(always)]
fn point_of_thread(geometry: &Geometry) -> Option<(u64, u32, u32)> {
    let sizes = &geometry.sizes;
    let index = thread::block_idx_x() * thread::block_dim_x() + thread::thread_idx_x();
    let (anchor, point) = sizes.by_points.divide(index);
    (index < sizes.anchors * sizes.points).then_some((thread::block_idx_y().into(), anchor, point))
}

/// Writes key points, their places, and from where they are hidden.
///
/// Grid: `(blocks, B)`, a thread for each point of a batch item. Shared memory: none.
///
/// # Safety
///
/// The pointers of `args` are valid as it says, for the sizes it gives.
#[inline(always)]
pub(crate) unsafe fn points(args: PointsArgs) {
    let geometry = &args.geometry;
    let Some((item, anchor, point)) = point_of_thread(geometry) else { return };
    let cameras = geometry.sizes.cameras;
    let row = item * u64::from(geometry.sizes.anchors) + u64::from(anchor);
    let first_camera = item * u64::from(cameras);
    let number = row * u64::from(geometry.sizes.points) + u64::from(point);
    let mut seen = 0;
    // SAFETY: the point and its cameras exist; its elements are this thread's own.
    unsafe {
        let place = key_point(geometry, row, point);
        upto8(3, |axis| {
            let at = args.key_points.wrapping_add(3 * number as usize + axis);
            memory::store_f32(at, place[axis]);
        });
        let mut first = 0;
        while first < cameras {
            // Four at a time, for the loads of all to be under way together.
            let four = array4(|slot| {
                let index = (first + slot as u32).min(cameras - 1);
                Camera::load(geometry, first_camera + u64::from(index))
            });
            each4(|slot| {
                let index = first + slot as u32;
                if index < cameras {
                    let projected = four[slot].project(place);
                    let [x, y] = four[slot].place(projected);
                    let pair = (number * u64::from(cameras) + u64::from(index)) as usize;
                    memory::store_pair(args.locations.wrapping_add(2 * pair), [x, y]);
                    seen += u32::from(sees(geometry, projected, [x, y]));
                }
            });
            first += 4;
        }
        if args.hidden.is_null() {
            return;
        }
        for index in 0..cameras {
            let camera = Camera::load(geometry, first_camera + u64::from(index));
            let projected = camera.project(place);
            let visible = sees(geometry, projected, camera.place(projected));
            let pair = (number * u64::from(cameras) + u64::from(index)) as usize;
            memory::store_u32(args.hidden.wrapping_add(pair), u32::from(!visible && seen > 0));
        }
    }
}

/// Whether a camera sees a point, by the rule of the outlier filter.
#[inline(always)]
fn sees(geometry: &Geometry, [_, _, depth]: [f32; 3], [x, y]: [f32; 2]) -> bool {
    let bounded = geometry.image_wh.is_null() || (x < 1.0 && y < 1.0);
    depth > NEAREST && x > 0.0 && y > 0.0 && bounded
}

/// Rows 0 to 2 of the gradient of a camera's matrix times the point are `gradient ⊗ (point, 1)`: the gradient of what
/// [`Camera::project`] gives, from that of the place in the image.
#[inline(always)]
pub(crate) fn place_gradient(
    camera: &Camera,
    [_, _, depth]: [f32; 3],
    [x, y]: [f32; 2],
    [grad_x, grad_y]: [f32; 2],
) -> [f32; 3] {
    let divisor = depth.max(NEAREST);
    let through = if depth >= NEAREST { -(x * grad_x + y * grad_y) / divisor } else { 0.0 };
    [grad_x / (divisor * camera.size[0]), grad_y / (divisor * camera.size[1]), through]
}

/// `matrixᵀ * gradient`, the gradient of the point.
#[inline(always)]
pub(crate) fn point_gradient(camera: &Camera, gradient: [f32; 3]) -> [f32; 3] {
    let column = |axis: usize| {
        camera.rows[0][axis] * gradient[0]
            + camera.rows[1][axis] * gradient[1]
            + camera.rows[2][axis] * gradient[2]
    };
    let [x, y, z, _] = array4(|axis| if axis < 3 { column(axis) } else { 0.0 });
    [x, y, z]
}
