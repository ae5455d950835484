//! Functions of one signed byte, byte for byte as TensorFlow Lite Micro's reference kernels compute them: a graph
//! has them as tables.

use super::*;
use omex_core::fixed_point::{
    exp_on_negative_values, one_minus_over_one_plus, one_over_one_plus, rounding_shift_right,
};

/// Bits before the point of what goes into the sigmoid and the hyperbolic tangent.
const INPUT_BITS: u32 = 4;

/// 1 / (1 + e^-x), in steps of 1/256 above -128.
pub(super) fn logistic(from: Scale) -> impl Fn(i8) -> i8 {
    squashed(from, |x| {
        let power = exp_on_negative_values::<INPUT_BITS>(-x.abs());
        let result = match x {
            0 => 1 << 30,
            1.. => one_over_one_plus(power),
            _ => i32::MAX - one_over_one_plus(power),
        };
        rounding_shift_right(result, 23) - 128
    })
}

/// The hyperbolic tangent, in steps of 1/128.
pub(super) fn tanh(from: Scale) -> impl Fn(i8) -> i8 {
    squashed(from, |x| {
        // Twice x has one more bit before the point.
        let power = exp_on_negative_values::<{ INPUT_BITS + 1 }>(-x.abs());
        let result = x.signum() * one_minus_over_one_plus(power);
        rounding_shift_right(result, 24)
    })
}

/// A function of numbers with 4 bits before the point, which has reached its ends beyond.
fn squashed(from: Scale, function: impl Fn(i32) -> i32) -> impl Fn(i8) -> i8 {
    let (multiplier, shift) =
        quantize_multiplier(f64::from(from.scale) * f64::from(1 << (31 - INPUT_BITS)));
    let most = f64::from((1 << INPUT_BITS) - 1) * f64::from(1 << (31 - INPUT_BITS));
    let radius = (most / f64::from(shift).exp2()).floor() as i32;
    move |x| {
        let x = i32::from(x) - from.zero;
        if x.abs() >= radius {
            return if x < 0 { i8::MIN } else { i8::MAX };
        }
        let x = multiply_by_quantized_multiplier(x, multiplier, shift);
        function(x).clamp(-128, 127) as i8
    }
}

/// x, or x times a slope where it is negative.
pub(super) fn leaky_relu(from: Scale, to: Scale, slope: f32) -> impl Fn(i8) -> i8 {
    let positive = quantize_multiplier(f64::from(from.scale / to.scale));
    // A multiplier is positive.
    let negative = quantize_multiplier(f64::from((from.scale * slope / to.scale).abs()));
    let sign = if slope < 0.0 { -1 } else { 1 };
    move |x| {
        let x = i32::from(x) - from.zero;
        let scaled = |(multiplier, shift)| multiply_by_quantized_multiplier(x, multiplier, shift);
        let scaled = if x >= 0 { scaled(positive) } else { sign * scaled(negative) };
        scaled.saturating_add(to.zero).clamp(-128, 127) as i8
    }
}

/// x · min(max(x + 3, 0), 6) / 6, in 16 bits.
pub(super) fn hard_swish(from: Scale, to: Scale) -> Drawn<impl Fn(i8) -> i8> {
    let fine = from.scale / 128.0;
    let (multiplier, shift) = quantize_multiplier(f64::from(fine / to.scale));
    let (slope, slope_shift) = quantize_multiplier(f64::from(fine / (3.0 / 32768.0)));
    if shift > 0 {
        return Err(Refused::new("a scale of the result that is far smaller", "a usual scale"));
    }
    let (multiplier, slope) = (half_word(multiplier), half_word(slope));
    Ok(move |x| {
        let x = (i32::from(x) - from.zero) << 7;
        let scaled = high_mul_16(x, multiplier);
        // Where 3 is 32768: the last bit is shifted in when the others are multiplied.
        let raised = if slope_shift > 0 { saturated(x, slope_shift - 1) } else { x };
        let product = high_mul_16(raised, slope);
        let relu = match slope_shift {
            1.. => saturated(product, 1),
            _ => rounding_shift_right(product, slope_shift.unsigned_abs()),
        };
        let relu = (relu + (1 << 15)) >> 1;
        let product = relu * scaled / (1 << 15);
        let rounded = rounding_shift_right(product, shift.unsigned_abs());
        (rounded + to.zero).clamp(-128, 127) as i8
    })
}

/// The upper 16 bits of a multiplier, rounded.
fn half_word(multiplier: i32) -> i32 {
    match multiplier >= i32::MAX - (1 << 15) {
        true => i32::from(i16::MAX),
        false => (multiplier + (1 << 15)) >> 16,
    }
}

/// The high half of 2ab of numbers of 16 bits, rounded half away from zero.
fn high_mul_16(a: i32, b: i32) -> i32 {
    let product = a * b;
    let nudge = if product >= 0 { 1 << 14 } else { 1 - (1 << 14) };
    ((product + nudge) / (1 << 15)).min(i16::MAX.into())
}

/// x · 2^exponent in 16 bits.
fn saturated(x: i32, exponent: i32) -> i32 {
    let shifted = i64::from(x) << exponent.clamp(0, 31);
    shifted.clamp(i16::MIN.into(), i16::MAX.into()) as i32
}

/// A function of floats.
pub(super) fn of_floats(
    from: Scale,
    to: Scale,
    function: impl Fn(f32) -> f32,
) -> impl Fn(i8) -> i8 {
    let steps = 1.0 / to.scale;
    move |x| {
        let x = from.scale * (i32::from(x) - from.zero) as f32;
        let rounded = (function(x) * steps).round() as i32;
        rounded.saturating_add(to.zero).clamp(-128, 127) as i8
    }
}
