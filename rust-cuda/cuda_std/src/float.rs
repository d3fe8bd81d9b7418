//! Mathematics on floats, where the standard library's methods are missing: on the GPU.

mod exp;

mod sealed {
    pub trait Sealed {}
    impl Sealed for f32 {}
    impl Sealed for f64 {}
}

macro_rules! gpu_float {
    ($($(#[$doc:meta])* $name:ident($($argument:ident: $ty:ty),*) -> $result:ty;)*) => {
        /// The float methods of `std`, by the same names, on the host and on the GPU.
        ///
        /// On the host they are the methods of `std`. On the GPU, rounding, `sqrt` and `mul_add`
        /// are single instructions and correctly rounded, `f32::exp` and `f32::exp2` are short
        /// polynomials (within 2 units in the last place), and the rest comes from the `libm`
        /// crate (about 1 unit in the last place, but long code).
        pub trait GpuFloat: Copy + PartialOrd + sealed::Sealed {
            $($(#[$doc])* #[must_use] fn $name(self $(, $argument: $ty)*) -> $result;)*
        }

        #[cfg(not(target_arch = "nvptx64"))]
        gpu_float!(@host f32: $($name($($argument: $ty),*) -> $result;)*);
        #[cfg(not(target_arch = "nvptx64"))]
        gpu_float!(@host f64: $($name($($argument: $ty),*) -> $result;)*);
    };
    (@host $float:ident: $($name:ident($($argument:ident: $ty:ty),*) -> $result:ty;)*) => {
        impl GpuFloat for $float {
            $(
                #[inline]
                fn $name(self $(, $argument: $ty)*) -> $result {
                    $float::$name(self $(, $argument)*)
                }
            )*
        }
    };
}

gpu_float! {
    /// The largest integer that is not greater.
    floor() -> Self;
    /// The smallest integer that is not less.
    ceil() -> Self;
    /// The nearest integer, halves away from 0.
    round() -> Self;
    /// The integer part.
    trunc() -> Self;
    /// The fractional part, with the sign of the number.
    fract() -> Self;
    /// The absolute value.
    abs() -> Self;
    /// 1 with the sign of the number; NaN for NaN.
    signum() -> Self;
    /// The number with the sign of `sign`.
    copysign(sign: Self) -> Self;
    /// `self * a + b`, rounded once.
    mul_add(a: Self, b: Self) -> Self;
    /// The quotient of Euclidean division.
    div_euclid(rhs: Self) -> Self;
    /// The remainder of Euclidean division, never negative.
    rem_euclid(rhs: Self) -> Self;
    /// The smaller number; the other one if one is NaN.
    min(other: Self) -> Self;
    /// The larger number; the other one if one is NaN.
    max(other: Self) -> Self;
    /// Raised to an integer power.
    powi(n: i32) -> Self;
    /// Raised to a power.
    powf(n: Self) -> Self;
    /// The square root; NaN for negative numbers.
    sqrt() -> Self;
    /// e to the power of the number.
    exp() -> Self;
    /// 2 to the power of the number.
    exp2() -> Self;
    /// The natural logarithm.
    ln() -> Self;
    /// The logarithm to a base.
    log(base: Self) -> Self;
    /// The logarithm to base 2.
    log2() -> Self;
    /// The logarithm to base 10.
    log10() -> Self;
    /// The cube root.
    cbrt() -> Self;
    /// The length of the hypotenuse.
    hypot(other: Self) -> Self;
    /// The sine, of radians.
    sin() -> Self;
    /// The cosine, of radians.
    cos() -> Self;
    /// The tangent, of radians.
    tan() -> Self;
    /// The arcsine, in radians.
    asin() -> Self;
    /// The arccosine, in radians.
    acos() -> Self;
    /// The arctangent, in radians.
    atan() -> Self;
    /// The angle of the point (`other`, `self`), in radians.
    atan2(other: Self) -> Self;
    /// Sine and cosine.
    sin_cos() -> (Self, Self);
    /// `exp(self) - 1`, exact also near 0.
    exp_m1() -> Self;
    /// `ln(1 + self)`, exact also near 0.
    ln_1p() -> Self;
    /// The hyperbolic sine.
    sinh() -> Self;
    /// The hyperbolic cosine.
    cosh() -> Self;
    /// The hyperbolic tangent.
    tanh() -> Self;
    /// The inverse hyperbolic sine.
    asinh() -> Self;
    /// The inverse hyperbolic cosine.
    acosh() -> Self;
    /// The inverse hyperbolic tangent.
    atanh() -> Self;
}

#[cfg(target_arch = "nvptx64")]
macro_rules! on_the_gpu {
    (
        $float:ident:
        math: $($math:ident($($math_argument:ident: $math_ty:ty),*);)*
        ; libm $($name:ident = $libm:ident($($argument:ident: $ty:ty),*) -> $result:ty;)*
        ; exp = $exp:path, exp2 = $exp2:path
    ) => {
        impl GpuFloat for $float {
            $(
                #[inline]
                fn $math(self $(, $math_argument: $math_ty)*) -> Self {
                    core::$float::math::$math(self $(, $math_argument)*)
                }
            )*
            $(
                #[inline]
                fn $name(self $(, $argument: $ty)*) -> $result {
                    libm::$libm(self $(, $argument)*)
                }
            )*
            #[inline]
            fn exp(self) -> Self {
                $exp(self)
            }
            #[inline]
            fn exp2(self) -> Self {
                $exp2(self)
            }
            #[inline]
            fn abs(self) -> Self {
                $float::abs(self)
            }
            #[inline]
            fn signum(self) -> Self {
                $float::signum(self)
            }
            #[inline]
            fn copysign(self, sign: Self) -> Self {
                $float::copysign(self, sign)
            }
            #[inline]
            fn min(self, other: Self) -> Self {
                $float::min(self, other)
            }
            #[inline]
            fn max(self, other: Self) -> Self {
                $float::max(self, other)
            }
            #[inline]
            fn log(self, base: Self) -> Self {
                GpuFloat::ln(self) / GpuFloat::ln(base)
            }
        }
    };
}

#[cfg(target_arch = "nvptx64")]
on_the_gpu! {
    f32:
    math:
    floor(); ceil(); round(); trunc(); fract(); sqrt(); mul_add(a: Self, b: Self);
    div_euclid(rhs: Self); rem_euclid(rhs: Self); powi(n: i32);
    ; libm
    powf = powf(n: Self) -> Self; ln = logf() -> Self; log2 = log2f() -> Self;
    log10 = log10f() -> Self; cbrt = cbrtf() -> Self; hypot = hypotf(other: Self) -> Self;
    sin = sinf() -> Self; cos = cosf() -> Self; tan = tanf() -> Self;
    asin = asinf() -> Self; acos = acosf() -> Self; atan = atanf() -> Self;
    atan2 = atan2f(other: Self) -> Self; sin_cos = sincosf() -> (Self, Self);
    exp_m1 = expm1f() -> Self; ln_1p = log1pf() -> Self;
    sinh = sinhf() -> Self; cosh = coshf() -> Self; tanh = tanhf() -> Self;
    asinh = asinhf() -> Self; acosh = acoshf() -> Self; atanh = atanhf() -> Self;
    ; exp = exp::exp, exp2 = exp::exp2
}

#[cfg(target_arch = "nvptx64")]
on_the_gpu! {
    f64:
    math:
    floor(); ceil(); round(); trunc(); fract(); sqrt(); mul_add(a: Self, b: Self);
    div_euclid(rhs: Self); rem_euclid(rhs: Self); powi(n: i32);
    ; libm
    powf = pow(n: Self) -> Self; ln = log() -> Self; log2 = log2() -> Self;
    log10 = log10() -> Self; cbrt = cbrt() -> Self; hypot = hypot(other: Self) -> Self;
    sin = sin() -> Self; cos = cos() -> Self; tan = tan() -> Self;
    asin = asin() -> Self; acos = acos() -> Self; atan = atan() -> Self;
    atan2 = atan2(other: Self) -> Self; sin_cos = sincos() -> (Self, Self);
    exp_m1 = expm1() -> Self; ln_1p = log1p() -> Self;
    sinh = sinh() -> Self; cosh = cosh() -> Self; tanh = tanh() -> Self;
    asinh = asinh() -> Self; acosh = acosh() -> Self; atanh = atanh() -> Self;
    ; exp = libm::exp, exp2 = libm::exp2
}
