//! A location on a map: whether it counts, and the four pixels it is interpolated from.

use crate::args::{Level, rule};
use crate::unroll::array4;
#[cfg(target_arch = "nvptx64")]
use cuda_std::GpuFloat;

/// Whether a location can count on some level, before any level is looked at.
///
/// Exact under the operator's rule. Under the `grid_sample` rule it may let a location pass that no
/// level counts ([`Corners::new`] decides), but never the other way round: a map is at least one
/// pixel wide, so its half-pixel rim ends half an image outside. NaN and infinities fail both.
#[inline(always)]
pub(crate) fn may_count(x: f32, y: f32, border: u32) -> bool {
    if border == rule::OPERATOR {
        x > 0.0 && x < 1.0 && y > 0.0 && y < 1.0
    } else {
        x > -0.5 && x < 1.5 && y > -0.5 && y < 1.5
    }
}

/// Where the location lies on one map, in pixels from the centre of the first, across and down; nothing when
/// it does not count there.
#[inline(always)]
pub(crate) fn position(x: f32, y: f32, map: Level, border: u32) -> Option<[f32; 2]> {
    let (width, height) = (map.width as f32, map.height as f32);
    // Two roundings, no fused multiply-add: the published operator rounds the product, and `floor` must fall on
    // the same side of a pixel centre.
    let (u, v) = (x * width - 0.5, y * height - 0.5);
    let counts = if border == rule::OPERATOR {
        may_count(x, y, border)
    } else {
        u > -1.0 && u < width && v > -1.0 && v < height
    };
    counts.then_some([u, v])
}

/// The four corners of a sample in the order (top, left), (top, right), (bottom, left),
/// (bottom, right).
#[derive(Clone, Copy, Debug)]
pub(crate) struct Corners {
    /// Bit `i` is set when corner `i` lies on the map. Zero when the sample does not count.
    pub present: u32,
    /// Pixel row of the top left corner; wraps when that corner is off the map.
    pub row: u32,
    /// Distance between the rows of a pixel and the one below.
    pub pitch: u32,
    /// Column and line of the top left corner on the map, from -1 on.
    pub column: i32,
    pub line: i32,
    /// Fraction between the left and the right corners.
    pub s: f32,
    /// Fraction between the top and the bottom corners.
    pub t: f32,
}

impl Corners {
    /// A sample that does not count.
    pub(crate) const NONE: Self = Self { present: 0, row: 0, pitch: 0, column: 0, line: 0, s: 0.0, t: 0.0 };

    /// The corners of the location on one map, under the given border rule.
    #[inline(always)]
    pub(crate) fn new(x: f32, y: f32, map: Level, border: u32) -> Self {
        let Some([u, v]) = position(x, y, map, border) else { return Self::NONE };
        let (left, top) = (u.floor(), v.floor());
        let (column, line) = (left as i32, top as i32);
        let left_present = column >= 0;
        let right_present = column + 1 < map.width as i32;
        let top_present = line >= 0;
        let bottom_present = line + 1 < map.height as i32;
        Self {
            present: u32::from(top_present && left_present)
                | u32::from(top_present && right_present) << 1
                | u32::from(bottom_present && left_present) << 2
                | u32::from(bottom_present && right_present) << 3,
            row: map
                .start
                .wrapping_add((line as u32).wrapping_mul(map.width))
                .wrapping_add(column as u32),
            pitch: map.width,
            column,
            line,
            s: u - left,
            t: v - top,
        }
    }

    /// The bilinear coefficient of a corner, also of one off the map.
    #[inline(always)]
    pub(crate) fn coefficient(&self, corner: u32) -> f32 {
        let across = if corner & 1 == 0 { 1.0 - self.s } else { self.s };
        let down = if corner >> 1 == 0 { 1.0 - self.t } else { self.t };
        down * across
    }

    /// The bilinear coefficient of each corner, also of those off the map.
    #[inline(always)]
    pub(crate) fn coefficients(&self) -> [f32; 4] {
        array4(|corner| self.coefficient(corner as u32))
    }

    /// Pixel row of a corner; meaningful when the corner is present.
    #[inline(always)]
    pub(crate) fn row_of(&self, corner: u32) -> u32 {
        self.row.wrapping_add(corner & 1).wrapping_add((corner >> 1) * self.pitch)
    }

    /// Column and line of a corner's pixel; meaningful when the corner is present.
    #[inline(always)]
    pub(crate) fn pixel(&self, corner: u32) -> [u32; 2] {
        [self.column.wrapping_add_unsigned(corner & 1) as u32, self.line.wrapping_add_unsigned(corner >> 1) as u32]
    }

    /// Whether a corner lies on the map.
    #[inline(always)]
    pub(crate) fn has(&self, corner: u32) -> bool {
        self.present >> corner & 1 != 0
    }
}
