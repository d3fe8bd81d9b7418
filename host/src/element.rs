//! The number types that feature maps, weights and outputs may have.

use std::fmt;
use std::str::FromStr;

use half::slice::HalfFloatSliceExt as _;
use half::{bf16, f16};

use crate::compiled::Compiled;
use crate::error::Error;

/// An element type at run time.
///
/// ```
/// use deformable_aggregation::{DType, Element};
///
/// assert_eq!(<f32 as Element>::DTYPE, DType::F32);
/// assert_eq!(DType::Bf16.to_string(), "bf16");
/// assert_eq!("fp16".parse::<DType>()?, DType::F16);
/// # Ok::<(), deformable_aggregation::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum DType {
    /// 64-bit floating point, `f64`; CPU backends only.
    F64,
    /// 32-bit floating point, `f32`.
    F32,
    /// 16-bit floating point of IEEE 754, [`half::f16`].
    F16,
    /// The upper half of an `f32`, [`half::bf16`].
    Bf16,
}

impl DType {
    /// Bytes of one element.
    ///
    /// ```
    /// assert_eq!(deformable_aggregation::DType::F16.size_bytes(), 2);
    /// ```
    #[must_use]
    pub const fn size_bytes(self) -> usize {
        match self {
            Self::F64 => 8,
            Self::F32 => 4,
            Self::F16 | Self::Bf16 => 2,
        }
    }

    /// Distance from 1 to the next larger number of this type: twice the largest relative error of one rounding.
    ///
    /// ```
    /// assert_eq!(deformable_aggregation::DType::F32.epsilon(), f64::from(f32::EPSILON));
    /// ```
    #[must_use]
    pub fn epsilon(self) -> f64 {
        match self {
            Self::F64 => f64::EPSILON,
            Self::F32 => f64::from(f32::EPSILON),
            Self::F16 => f16::EPSILON.to_f64(),
            Self::Bf16 => bf16::EPSILON.to_f64(),
        }
    }
}

impl fmt::Display for DType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::F64 => "fp64",
            Self::F32 => "fp32",
            Self::F16 => "fp16",
            Self::Bf16 => "bf16",
        })
    }
}

impl FromStr for DType {
    type Err = Error;

    /// Reads `fp64`, `fp32`, `fp16`, `bf16`, and the Rust names `f64`, `f32`, `f16`.
    fn from_str(text: &str) -> Result<Self, Error> {
        match text {
            "fp64" | "f64" => Ok(Self::F64),
            "fp32" | "f32" => Ok(Self::F32),
            "fp16" | "f16" => Ok(Self::F16),
            "bf16" => Ok(Self::Bf16),
            _ => Err(Error::UnknownName {
                argument: "dtype",
                expected: "fp64, fp32, fp16, bf16",
                actual: text.to_owned(),
            }),
        }
    }
}

mod sealed {
    pub trait Sealed {}
    impl Sealed for f64 {}
    impl Sealed for f32 {}
    impl Sealed for half::f16 {}
    impl Sealed for half::bf16 {}
}

/// A type that sums and positions are computed in: `f32` or `f64`. Sealed.
pub trait Scalar:
    sealed::Sealed
    + bytemuck::Pod
    + num_traits::Float
    + num_traits::NumAssign
    + fmt::Debug
    + fmt::Display
    + Default
    + Into<f64>
    + Send
    + Sync
    + 'static
{
    /// The number of this type nearest to `value`.
    fn from_f64(value: f64) -> Self;

    /// `size` as a number of this type, rounded to nearest.
    fn from_size(size: usize) -> Self;
}

macro_rules! scalar {
    ($type:ty) => {
        impl Scalar for $type {
            #[inline]
            fn from_f64(value: f64) -> Self {
                value as $type
            }

            #[inline]
            fn from_size(size: usize) -> Self {
                size as $type
            }
        }
    };
}

scalar!(f32);
scalar!(f64);

/// An element of feature maps, weights, outputs and their gradients. Sealed: `f64`, `f32`, [`half::f16`] and
/// [`half::bf16`].
///
/// | element | locations | sums | backends |
/// |---|---|---|---|
/// | `f64` | `f64` | `f64` | CPU |
/// | `f32` | `f32` | `f32` | all |
/// | `f16`, `bf16` | `f32` | `f32` | all |
///
/// Locations never have 16 bits: near 1, `f16` has steps of 2⁻¹¹, a tenth of a pixel on a map 176 wide.
///
/// ```
/// use deformable_aggregation::{half::bf16, Element};
///
/// fn sum<T: Element>(values: &[T]) -> T {
///     let mut sum = T::Accumulator::default();
///     for value in values {
///         sum += value.to_accumulator();
///     }
///     T::from_accumulator(sum)
/// }
/// // 256 + 1 is not a bf16 number: rounding at every step would lose all sixteen ones.
/// let mut values = vec![bf16::from_f32(1.0); 16];
/// values.push(bf16::from_f32(256.0));
/// values.reverse();
/// assert_eq!(sum(&values), bf16::from_f32(272.0));
/// ```
pub trait Element:
    sealed::Sealed
    + Compiled
    + bytemuck::Pod
    + num_traits::Zero
    + fmt::Debug
    + fmt::Display
    + Default
    + PartialEq
    + PartialOrd
    + Send
    + Sync
    + 'static
{
    /// Type of the sampling locations and of their gradient.
    type Location: Scalar;
    /// Type that all sums are computed in.
    type Accumulator: Scalar + From<Self::Location> + Into<Self::Location>;
    /// This type at run time.
    const DTYPE: DType;

    /// This number as an accumulator; exact.
    fn to_accumulator(self) -> Self::Accumulator;

    /// The nearest number of this type; ties to even, too large becomes infinite.
    fn from_accumulator(value: Self::Accumulator) -> Self;

    /// This number as an `f64`; exact.
    fn to_f64(self) -> f64;

    /// The number of this type nearest to `value`.
    fn from_f64(value: f64) -> Self;

    /// `values` as accumulators: `values` themselves where the types are the same, else converted into `scratch`, which must
    /// be as long.
    ///
    /// # Panics
    ///
    /// If values are converted and `scratch` is not as long.
    fn widen<'s>(
        values: &'s [Self],
        scratch: &'s mut [Self::Accumulator],
    ) -> &'s [Self::Accumulator];

    /// Rounds `sums` into `values`, which must be as long.
    ///
    /// # Panics
    ///
    /// If `values` is not as long.
    fn narrow(sums: &[Self::Accumulator], values: &mut [Self]);
}

impl Element for f64 {
    type Location = Self;
    type Accumulator = Self;
    const DTYPE: DType = DType::F64;

    #[inline]
    fn to_accumulator(self) -> Self {
        self
    }

    #[inline]
    fn from_accumulator(value: Self) -> Self {
        value
    }

    #[inline]
    fn to_f64(self) -> f64 {
        self
    }

    #[inline]
    fn from_f64(value: f64) -> Self {
        value
    }

    #[inline]
    fn widen<'s>(values: &'s [Self], _: &'s mut [Self]) -> &'s [Self] {
        values
    }

    #[inline]
    fn narrow(sums: &[Self], values: &mut [Self]) {
        values.copy_from_slice(sums);
    }
}

impl Element for f32 {
    type Location = Self;
    type Accumulator = Self;
    const DTYPE: DType = DType::F32;

    #[inline]
    fn to_accumulator(self) -> Self {
        self
    }

    #[inline]
    fn from_accumulator(value: Self) -> Self {
        value
    }

    #[inline]
    fn to_f64(self) -> f64 {
        self.into()
    }

    #[inline]
    fn from_f64(value: f64) -> Self {
        value as Self
    }

    #[inline]
    fn widen<'s>(values: &'s [Self], _: &'s mut [Self]) -> &'s [Self] {
        values
    }

    #[inline]
    fn narrow(sums: &[Self], values: &mut [Self]) {
        values.copy_from_slice(sums);
    }
}

macro_rules! sixteen_bits {
    ($type:ident, $dtype:expr) => {
        impl Element for $type {
            type Location = f32;
            type Accumulator = f32;
            const DTYPE: DType = $dtype;

            #[inline]
            fn to_accumulator(self) -> f32 {
                self.to_f32()
            }

            #[inline]
            fn from_accumulator(value: f32) -> Self {
                Self::from_f32(value)
            }

            #[inline]
            fn to_f64(self) -> f64 {
                $type::to_f64(self)
            }

            #[inline]
            fn from_f64(value: f64) -> Self {
                $type::from_f64(value)
            }

            #[inline]
            fn widen<'s>(values: &'s [Self], scratch: &'s mut [f32]) -> &'s [f32] {
                values.convert_to_f32_slice(scratch);
                scratch
            }

            #[inline]
            fn narrow(sums: &[f32], values: &mut [Self]) {
                values.convert_from_f32_slice(sums);
            }
        }
    };
}

sixteen_bits!(f16, DType::F16);
sixteen_bits!(bf16, DType::Bf16);
