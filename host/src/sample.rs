//! One bilinear sample: which of its four corners lie on the map, and what each counts.

use crate::element::Scalar;
use crate::layout::LevelShape;
use crate::rule::BorderRule;

/// A corner of a sample that lies on the map.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Corner<A> {
    /// Pixel of the map, row by row.
    pub(crate) pixel: usize,
    /// Share of the pixel in the sample.
    pub(crate) share: A,
    /// Derivative of the share with respect to the location (x, y).
    pub(crate) slope: [A; 2],
}

/// The corners of the sample at `location` (x, y in image fractions); none if the sample does not count.
///
/// Positions are computed in the type of the locations `L`, shares in that of the sums `A`.
#[inline(always)]
pub(crate) fn corners<L: Scalar, A: Scalar>(
    rule: BorderRule,
    map: LevelShape,
    location: [L; 2],
) -> [Option<Corner<A>>; 4] {
    let [x, y] = location;
    let (width, height) = (L::from_size(map.width), L::from_size(map.height));
    let half = L::from_f64(0.5);
    // Two roundings each, as in the published operator: a fused multiply-add could land on the other side of a
    // pixel centre.
    let u = x * width - half;
    let v = y * height - half;
    if !counts(rule, location, [u, v], [width, height]) {
        return [None; 4];
    }
    let (column, row) = (u.floor(), v.floor());
    let s = A::from_f64((u - column).into());
    let t = A::from_f64((v - row).into());
    let scale = [A::from_size(map.width), A::from_size(map.height)];
    let corner = |down: bool, right: bool| {
        let step = |far: bool| if far { L::one() } else { L::zero() };
        let pixel = pixel(map, row + step(down), column + step(right))?;
        let (across, along) = (share(s, right), share(t, down));
        let sign = |far: bool| if far { A::one() } else { -A::one() };
        let slope = [sign(right) * along * scale[0], sign(down) * across * scale[1]];
        Some(Corner { pixel, share: across * along, slope })
    };
    [corner(false, false), corner(false, true), corner(true, false), corner(true, true)]
}

/// Whether a sample at this location counts on any map. A quick test before the levels are looked at: it
/// may say yes to a location that no level counts.
#[inline(always)]
pub(crate) fn may_count<L: Scalar>(rule: BorderRule, location: [L; 2]) -> bool {
    let (low, high) = match rule {
        BorderRule::Operator => (0.0, 1.0),
        // The rim is half a pixel, and a pixel is the whole image at most.
        BorderRule::GridSample => (-0.5, 1.5),
    };
    location.iter().all(|&x| L::from_f64(low) < x && x < L::from_f64(high))
}

/// Every comparison is false for NaN, so what is not finite never counts.
#[inline(always)]
fn counts<L: Scalar>(rule: BorderRule, location: [L; 2], position: [L; 2], size: [L; 2]) -> bool {
    match rule {
        BorderRule::Operator => may_count(rule, location),
        BorderRule::GridSample => {
            position.iter().zip(size).all(|(&u, size)| -L::one() < u && u < size)
        }
    }
}

/// Linear interpolation: the share of the near or the far end at `fraction` of the way.
#[inline(always)]
fn share<A: Scalar>(fraction: A, far: bool) -> A {
    if far { fraction } else { A::one() - fraction }
}

/// The pixel in `row` and `column`, whole numbers, if it lies on the map.
#[inline(always)]
fn pixel<L: Scalar>(map: LevelShape, row: L, column: L) -> Option<usize> {
    let row = row.to_usize().filter(|&row| row < map.height)?;
    let column = column.to_usize().filter(|&column| column < map.width)?;
    Some(row * map.width + column)
}
