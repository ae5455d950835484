//! Factors for the fixed-point arithmetic of [`omex_core::fixed_point`].

/// A positive factor as a multiplier of 31 bits and an exponent: factor = multiplier · 2^(exponent - 31).
pub(crate) fn quantize_multiplier(factor: f64) -> (i32, i32) {
    if factor <= 0.0 || !factor.is_finite() {
        return (0, 0);
    }
    let mut exponent = factor.log2().floor() as i32 + 1;
    let mut multiplier = (factor * f64::from(31 - exponent).exp2()).round() as i64;
    if multiplier >= 1 << 31 {
        (multiplier, exponent) = (multiplier / 2, exponent + 1);
    }
    if exponent < -31 { (0, 0) } else { (multiplier as i32, exponent) }
}
