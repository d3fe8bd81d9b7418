//! The element types the kernels take.

use half::{bf16, f16};
use kernels_gpu::args::{Bf16, F16};
use kernels_gpu::{BlockKernels, Kernels};

use crate::element::Element;

/// An element type that the GPU kernels take: `f32`, [`half::f16`] or [`half::bf16`]. Sealed, like [`Element`].
///
/// Sampling locations are `f32` for all of them, and so are all sums.
pub trait GpuElement: Element<Location = f32> {
    /// The same bits as the kernels know them.
    #[doc(hidden)]
    type Kernel: Kernels + BlockKernels;
}

impl GpuElement for f32 {
    type Kernel = f32;
}

impl GpuElement for f16 {
    type Kernel = F16;
}

impl GpuElement for bf16 {
    type Kernel = Bf16;
}

/// Evaluates `$body` with `$element` standing for the [`GpuElement`] that `$type` is; an error naming `$backend` when it
/// is none.
macro_rules! dispatch {
    ($type:ty, $backend:expr, $element:ident => $body:expr) => {
        match <$type as $crate::element::Element>::DTYPE {
            $crate::element::DType::F32 => {
                type $element = f32;
                $body
            }
            $crate::element::DType::F16 => {
                type $element = half::f16;
                $body
            }
            $crate::element::DType::Bf16 => {
                type $element = half::bf16;
                $body
            }
            actual @ $crate::element::DType::F64 => Err($crate::error::Error::UnsupportedDType {
                backend: $backend,
                supported: "fp32, fp16, bf16",
                actual,
                remedy: "use Backend::Cpu for fp64",
            }),
        }
    };
}
pub(crate) use dispatch;
