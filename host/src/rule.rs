//! What counts at the border of an image.

use std::fmt;
use std::str::FromStr;

use crate::error::Error;

/// Which (point, camera) pairs count, and what happens in the rim of half a pixel around a map.
///
/// With `x`, `y` the location in image fractions and `u = x·width − 0.5`, `v = y·height − 0.5` the position in
/// pixels of a level:
///
/// | rule | a sample counts if | name |
/// |---|---|---|
/// | [`Operator`](Self::Operator) | 0 < x < 1 and 0 < y < 1, the same for all levels | `op` |
/// | [`GridSample`](Self::GridSample) | −1 < u < width and −1 < v < height, for each level by itself | `grid` |
///
/// Corners outside the map count as zero under both. The two rules agree strictly inside the image. On the border
/// they differ by up to half the border pixel; under `Operator` the result jumps there. Locations that are
/// not finite are skipped under both.
///
/// ```
/// use deformable_aggregation::BorderRule;
///
/// assert_eq!(BorderRule::default(), BorderRule::Operator);
/// assert_eq!("grid".parse::<BorderRule>()?, BorderRule::GridSample);
/// assert_eq!(BorderRule::Operator.to_string(), "op");
/// # Ok::<(), deformable_aggregation::Error>(())
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum BorderRule {
    /// The rule of the fused operator: nothing on or outside the border of the image.
    #[default]
    Operator,
    /// The rule of `grid_sample` (bilinear, zero padding, `align_corners = false`): a map fades out over
    /// half a pixel outside its border.
    GridSample,
}

impl fmt::Display for BorderRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Operator => "op",
            Self::GridSample => "grid",
        })
    }
}

impl FromStr for BorderRule {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        match text {
            "op" => Ok(Self::Operator),
            "grid" => Ok(Self::GridSample),
            _ => Err(Error::UnknownName {
                argument: "border rule",
                expected: "op, grid",
                actual: text.to_owned(),
            }),
        }
    }
}
