//! The logits of the attention weights, as they are stored: for anchors and for cameras.
//!
//! With a camera embedding the linear layer's input is `f + cam_n`, and as the layer is linear its output is the sum of
//! what it makes of `f` and of `cam_n`. Those two are stored, and added where a logit is needed: there is no array of all
//! logits.

use crate::block_args::{BlockSizes, Logits};
use crate::memory;
#[cfg(target_arch = "nvptx64")]
use cuda_std::GpuFloat;

/// Cameras that a thread works on at a time: as many as most cars have.
pub(crate) const CAMERAS: usize = 6;

/// `2^(factor * x) = e^x`.
pub(crate) const LOG2_E: f32 = core::f32::consts::LOG2_E;

/// `exp(logit - largest)`, where `largest` comes times log₂ e: one rounding before the power.
#[inline(always)]
pub(crate) fn exponential(logit: f32, largest: f32) -> f32 {
    memory::exp2(logit.mul_add(LOG2_E, -largest))
}

/// The logits of one anchor.
#[derive(Clone, Copy)]
pub(crate) struct OfAnchor<'a> {
    logits: &'a Logits,
    /// Whether the cameras share the anchor's logits, and have some of their own.
    shared: bool,
    /// Where the anchor's logits begin among those of all anchors.
    first: usize,
    /// The logits of the first camera of the batch item.
    cameras: *const f32,
    /// Logits for one camera.
    count: u32,
}

impl<'a> OfAnchor<'a> {
    /// The logits of the anchor in `row`, which is of this batch item. `shared` says whether there is
    /// [`Logits::camera`]; where it is a constant, half of the code goes.
    #[inline(always)]
    pub(crate) fn new(
        logits: &'a Logits,
        sizes: &BlockSizes,
        item: u64,
        row: u64,
        shared: bool,
    ) -> Self {
        // Where the cameras' logits lie is computed anew for every anchor, which costs less than the registers that keep it.
        let count = memory::opaque(sizes.logits());
        let of_row = u64::from(count) * if shared { 1 } else { u64::from(sizes.cameras) };
        let first_camera = item * u64::from(sizes.cameras) * u64::from(count);
        Self {
            logits,
            shared,
            first: (row * of_row) as usize,
            cameras: logits.camera.wrapping_add(if shared { first_camera as usize } else { 0 }),
            count,
        }
    }

    /// Where the logit `index` of `(L, P, G)` lies among those of all anchors.
    #[inline(always)]
    pub(crate) fn place(&self, camera: u32, index: u32) -> usize {
        self.first + (if self.shared { index } else { self.of_camera(camera, index) }) as usize
    }

    /// Where that logit of a camera lies among those of all cameras, for [`own_at`](Self::own_at).
    #[inline(always)]
    pub(crate) fn of_camera(&self, camera: u32, index: u32) -> u32 {
        camera * self.count + index
    }

    /// What the cameras share of the logit `index`: 0 where they share nothing.
    ///
    /// # Safety
    ///
    /// The pointers of the logits are valid as they say; the index exists.
    #[inline(always)]
    pub(crate) unsafe fn common(&self, index: u32) -> f32 {
        if !self.shared {
            return 0.0;
        }
        // SAFETY: the caller's promise.
        unsafe { memory::load_f32(self.logits.anchor.wrapping_add(self.place(0, index))) }
    }

    /// [`common`](Self::common) where `live`, else 0, and then no memory is touched.
    ///
    /// # Safety
    ///
    /// As for [`common`](Self::common), when `live`.
    #[inline(always)]
    pub(crate) unsafe fn common_if(&self, index: u32, live: bool) -> f32 {
        let at = self.logits.anchor.wrapping_add(self.place(0, index));
        // SAFETY: the caller's promise.
        unsafe { memory::load_f32_if(at, live && self.shared) }
    }

    /// What the logit of a camera is more than the [`common`](Self::common) part.
    ///
    /// # Safety
    ///
    /// As for [`common`](Self::common), and the camera exists.
    #[inline(always)]
    pub(crate) unsafe fn own(&self, camera: u32, index: u32) -> f32 {
        // SAFETY: the caller's promise.
        unsafe { self.own_at(self.of_camera(camera, index)) }
    }

    /// The [`own`](Self::own) part of a logit that lies there.
    ///
    /// # Safety
    ///
    /// As for [`own`](Self::own).
    #[inline(always)]
    pub(crate) unsafe fn own_at(&self, place: u32) -> f32 {
        let first = if self.shared { self.cameras } else { self.logits.anchor.wrapping_add(self.first) };
        // SAFETY: the caller's promise.
        unsafe { memory::load_f32(first.wrapping_add(place as usize)) }
    }
}

/// What else there is of the pairs of one anchor.
#[derive(Clone, Copy)]
pub(crate) struct Pairs<'a> {
    logits: &'a Logits,
    row: u64,
    cameras: u32,
    points: u32,
}

impl<'a> Pairs<'a> {
    /// Those of the anchor in `row`.
    #[inline(always)]
    pub(crate) fn new(logits: &'a Logits, sizes: &BlockSizes, row: u64) -> Self {
        Self { logits, row, cameras: sizes.cameras, points: sizes.points }
    }

    /// Whether there is dropout, or there are pairs whose logits are minus infinity.
    #[inline(always)]
    pub(crate) fn are_special(&self) -> bool {
        self.may_hide() || self.logits.dropout.is_active()
    }

    /// Whether there are pairs whose logits are minus infinity.
    #[inline(always)]
    pub(crate) fn may_hide(&self) -> bool {
        !self.logits.hidden.is_null()
    }

    /// Whether the camera's logits of a point are minus infinity.
    ///
    /// # Safety
    ///
    /// The pointers of the logits are valid as they say; camera and point exist.
    #[inline(always)]
    pub(crate) unsafe fn is_hidden(&self, camera: u32, point: u32) -> bool {
        if self.logits.hidden.is_null() {
            return false;
        }
        let pair = self.row * u64::from(self.points * self.cameras)
            + u64::from(point * self.cameras + camera);
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
        let number = self.row * u64::from(self.points * self.cameras)
            + u64::from(camera * self.points + point);
        // SAFETY: the caller's promise.
        unsafe { self.logits.dropout.factor(number) }
    }
}
