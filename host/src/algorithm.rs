//! Which kernels a backend runs.

use std::fmt;
use std::str::FromStr;

use crate::error::Error;

/// Which GPU kernels run. The CPU backends have one algorithm and ignore the choice.
///
/// ```
/// use deformable_aggregation::Algorithm;
///
/// assert_eq!(Algorithm::default(), Algorithm::Fast);
/// assert_eq!("naive".parse::<Algorithm>()?.to_string(), "naive");
/// # Ok::<(), deformable_aggregation::Error>(())
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Algorithm {
    /// The fastest kernels. On a GPU the last bits of a feature gradient may differ between runs where samples are added in
    /// no fixed order: in fp32, and in any type where maps share pixels, a batch item has more than 16,384 anchors, or an anchor
    /// more than 2,048 points.
    #[default]
    Fast,
    /// The fastest kernels whose results are the same bit for bit in every run, gradients included.
    Repeatable,
    /// The published algorithm, for comparison: one thread for each sample and channel, which adds its share with
    /// atomics.
    Naive,
}

impl fmt::Display for Algorithm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Fast => "fast",
            Self::Repeatable => "repeatable",
            Self::Naive => "naive",
        })
    }
}

impl FromStr for Algorithm {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        match text {
            "fast" => Ok(Self::Fast),
            "repeatable" => Ok(Self::Repeatable),
            "naive" => Ok(Self::Naive),
            _ => Err(Error::UnknownName {
                argument: "algorithm",
                expected: "fast, repeatable, naive",
                actual: text.to_owned(),
            }),
        }
    }
}
