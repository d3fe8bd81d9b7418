//! `f32::exp` and `f32::exp2` for the GPU.
//!
//! They are compiled for host tests as well: `mul_add` is one instruction with one rounding
//! in both places, so what is measured on the host holds on the GPU.

#[cfg(target_arch = "nvptx64")]
use core::f32::math::{mul_add, round_ties_even};

#[cfg(not(target_arch = "nvptx64"))]
fn mul_add(x: f32, a: f32, b: f32) -> f32 {
    x.mul_add(a, b)
}

#[cfg(not(target_arch = "nvptx64"))]
fn round_ties_even(x: f32) -> f32 {
    x.round_ties_even()
}

/// 2 to the power of `n`, which lies in -126 to 127.
fn power_of_two(n: i32) -> f32 {
    f32::from_bits(((n + 127) as u32) << 23)
}

/// `y * 2^n` with one rounding, also where the result is subnormal; `n` lies in -252 to 254.
fn scale(y: f32, n: i32) -> f32 {
    let half = n / 2;
    y * power_of_two(half) * power_of_two(n - half)
}

/// e to the power of `r`, which lies in -0.35 to 0.35.
fn exp_near_zero(r: f32) -> f32 {
    // The Taylor series up to the seventh power: the first term left out is below 2^-27.
    let mut sum = 1.0 / 5040.0;
    for coefficient in [1.0 / 720.0, 1.0 / 120.0, 1.0 / 24.0, 1.0 / 6.0, 0.5, 1.0, 1.0] {
        sum = mul_add(sum, r, coefficient);
    }
    sum
}

#[cfg_attr(not(any(test, target_arch = "nvptx64")), expect(dead_code, reason = "host: std's"))]
pub(super) fn exp(x: f32) -> f32 {
    // Beyond these the result is infinite or 0 anyway; a NaN stays one.
    let x = x.clamp(-104.0, 104.0);
    let n = round_ties_even(x * core::f32::consts::LOG2_E);
    // ln 2 in two parts: the first has so few digits that its product with `n` is exact.
    let r = mul_add(n, -0.693_145_75, x);
    let r = mul_add(n, -1.428_606_8e-6, r);
    scale(exp_near_zero(r), n as i32)
}

#[cfg_attr(not(any(test, target_arch = "nvptx64")), expect(dead_code, reason = "host: std's"))]
pub(super) fn exp2(x: f32) -> f32 {
    let x = x.clamp(-151.0, 129.0);
    let n = round_ties_even(x);
    scale(exp_near_zero((x - n) * core::f32::consts::LN_2), n as i32)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The distance from the true value, in units of the last place of the true value.
    fn error(got: f32, exact: f64) -> f64 {
        let exponent = exact.log2().floor().max(-126.0);
        (f64::from(got) - exact).abs() / 2f64.powf(exponent - 23.0)
    }

    #[test]
    fn exponentials_are_within_two_units_in_the_last_place() {
        let worst = |function: fn(f32) -> f32, exact: fn(f64) -> f64, low: f64, high: f64| {
            (0..=2_000_000)
                .map(|i| (low + (high - low) * f64::from(i) / 2e6) as f32)
                .map(|x| error(function(x), exact(f64::from(x))))
                .fold(0.0, f64::max)
        };
        let exp_error = worst(exp, f64::exp, -103.9, 88.72);
        let exp2_error = worst(exp2, f64::exp2, -149.0, 127.99);
        assert!(exp_error < 2.0, "exp is off by {exp_error}");
        assert!(exp2_error < 2.0, "exp2 is off by {exp2_error}");
        println!("worst errors: exp {exp_error}, exp2 {exp2_error}");
    }

    #[test]
    fn exponentials_of_special_values() {
        for function in [exp, exp2] {
            assert_eq!(function(0.0), 1.0);
            assert_eq!(function(f32::INFINITY), f32::INFINITY);
            assert_eq!(function(f32::NEG_INFINITY), 0.0);
            assert_eq!(function(f32::MAX), f32::INFINITY);
            assert_eq!(function(f32::MIN), 0.0);
            assert!(function(f32::NAN).is_nan());
        }
    }
}
