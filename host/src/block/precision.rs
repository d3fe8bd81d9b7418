//! How linear layers are multiplied out.

use std::fmt;
use std::str::FromStr;

use crate::error::Error;

/// How the linear layers of a block with fp32 activations are multiplied out by the GPU kernels, forward and backward. The others
/// have no choice: with 16-bit activations the kernels round the factors to the activations' type, and the CPU backends compute in
/// the type of the parameters.
///
/// ```
/// use deformable_aggregation::block::LinearPrecision;
///
/// assert_eq!(LinearPrecision::default(), LinearPrecision::Full);
/// assert_eq!("tf32".parse::<LinearPrecision>()?.to_string(), "tf32");
/// # Ok::<(), deformable_aggregation::Error>(())
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum LinearPrecision {
    /// In fp32.
    #[default]
    Full,
    /// On tensor cores, with factors rounded to 10 bits behind the point and sums in fp32, as PyTorch does with
    /// `torch.backends.cuda.matmul.allow_tf32`. A GPU before sm_80 does not have them and computes in fp32.
    Tf32,
}

impl fmt::Display for LinearPrecision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Full => "full",
            Self::Tf32 => "tf32",
        })
    }
}

impl FromStr for LinearPrecision {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        match text {
            "full" => Ok(Self::Full),
            "tf32" => Ok(Self::Tf32),
            _ => Err(Error::UnknownName {
                argument: "linear precision",
                expected: "full, tf32",
                actual: text.to_owned(),
            }),
        }
    }
}
