//! The logits of the attention weights, as they are stored: for anchors and for cameras.
//!
//! With a camera embedding the linear layer's input is `f + cam_n`, and as the layer is linear its output is the sum of
//! what it makes of `f` and of `cam_n`. Those two are stored, and added where a logit is needed: there is no array of all
//! logits.

use crate::block_args::{BlockSizes, Logits};
use crate::memory;
#[cfg(target_arch = "nvptx64")]
use cuda_std::GpuFloat;

/// Cameras that a thread works on at a time.
pub(crate) const CAMERAS: u32 = 8;

/// `2^(factor * x) = e^x`.
pub(crate) const LOG2_E: f32 = core::f32::consts::LOG2_E;

/// `exp(logit - largest)`, where `largest` comes times log₂ e: one rounding before the power.
#[inline(always)]
pub(crate) fn exponential(logit: f32, largest: f32) -> f32 {
    memory::exp2(logit.mul_add(LOG2_E, -largest))
}

/// The logits of one anchor.
pub(crate) struct OfAnchor<'a> {
    logits: &'a Logits,
    anchor: *const f32,
    /// Whether the cameras share the anchor's logits, and have some of their own.
    pub(crate) shared: bool,
    camera: *const f32,
    /// The anchor's first (point, camera) pair.
    first_pair: u64,
    row: u64,
    cameras: u32,
    points: u32,
    count: u32,
}

impl<'a> OfAnchor<'a> {
    /// The logits of the anchor in `row`, which is of this batch item.
    #[inline(always)]
    pub(crate) fn new(logits: &'a Logits, sizes: &BlockSizes, item: u64, row: u64) -> Self {
        let count = sizes.logits();
        let shared = !logits.camera.is_null();
        let of_row = if shared { u64::from(count) } else { u64::from(count) * u64::from(sizes.cameras) };
        let first_camera = item * u64::from(sizes.cameras) * u64::from(count);
        Self {
            logits,
            anchor: logits.anchor.wrapping_add((row * of_row) as usize),
            shared,
            camera: logits.camera.wrapping_add(if shared { first_camera as usize } else { 0 }),
            first_pair: row * u64::from(sizes.pairs()),
            row,
            cameras: sizes.cameras,
            points: sizes.points,
            count,
        }
    }

    /// Where the number of a camera is, in arrays that have one for each camera.
    #[inline(always)]
    pub(crate) fn at(&self, camera: u32, index: u32) -> usize {
        camera as usize * self.count as usize + index as usize
    }

    /// What the cameras share of the logit `index` of `(L, P, G)`: 0 where they share nothing.
    ///
    /// # Safety
    ///
    /// The pointers of the logits are valid as they say; the index exists.
    #[inline(always)]
    pub(crate) unsafe fn common(&self, index: u32) -> f32 {
        // SAFETY: the caller's promise.
        unsafe { memory::load_f32_if(self.anchor.wrapping_add(index as usize), self.shared) }
    }

    /// What the logit of a camera is more than the [`common`](Self::common) part.
    ///
    /// # Safety
    ///
    /// As for [`common`](Self::common), and the camera exists.
    #[inline(always)]
    pub(crate) unsafe fn own(&self, camera: u32, index: u32) -> f32 {
        let base = if self.shared { self.camera } else { self.anchor };
        // SAFETY: the caller's promise.
        unsafe { memory::load_f32(base.wrapping_add(self.at(camera, index))) }
    }

    /// Whether the camera's logits of a point are minus infinity.
    ///
    /// # Safety
    ///
    /// As for [`own`](Self::own); the point exists.
    #[inline(always)]
    pub(crate) unsafe fn is_hidden(&self, camera: u32, point: u32) -> bool {
        if self.logits.hidden.is_null() {
            return false;
        }
        let pair = self.first_pair + u64::from(point * self.cameras + camera);
        // SAFETY: the caller's promise.
        unsafe { memory::load_u32(self.logits.hidden.wrapping_add(pair as usize)) != 0 }
    }

    /// What dropout multiplies the camera's weights of a point with.
    ///
    /// # Safety
    ///
    /// As for [`is_hidden`](Self::is_hidden).
    #[inline(always)]
    pub(crate) unsafe fn dropout(&self, camera: u32, point: u32) -> f32 {
        let number = (self.row * u64::from(self.cameras) + u64::from(camera))
            * u64::from(self.points)
            + u64::from(point);
        // SAFETY: the caller's promise.
        unsafe { self.logits.dropout.factor(number) }
    }
}
