//! Float arithmetic with the same bits on every machine.
//!
//! Nothing here calls the platform's library, and no multiplication is fused with an addition.

use core::f32::consts::FRAC_2_SQRT_PI;
pub use libm::{cosf as cos, sinf as sin, sqrtf as sqrt};

/// 1.5 * 2^23: adding it rounds a small float to an integer, ties to even, in its low bits.
const ROUND: f32 = 12_582_912.0;

/// The nearest integer, ties to even, of a value in [-2^21, 2^21].
#[inline]
#[must_use]
pub fn round_ties_even(x: f32) -> i32 {
    (x + ROUND).to_bits().wrapping_sub(ROUND.to_bits()).cast_signed()
}

const LN2_HIGH: f32 = 0.693_359_4; // 355 / 512: its products with small integers are exact
const LN2_LOW: f32 = -2.121_944_4e-4;
/// Minimax polynomial of Cephes' `expf`.
const EXP: [f32; 6] =
    [1.987_569_1e-4, 1.398_199_9e-3, 8.333_452e-3, 4.166_579_6e-2, 1.666_666_5e-1, 0.5];

/// e to the power `x`, within 1e-7 of it relatively; `x` is clamped to [-87, 88], NaN stays.
///
/// Range reduction by ln 2 and the polynomial of Cephes' `expf`, in an order that vectorises.
#[inline]
#[must_use]
pub fn exp(x: f32) -> f32 {
    let x = if x < -87.0 { -87.0 } else { x };
    let x = if x > 88.0 { 88.0 } else { x };
    let shifted = x * core::f32::consts::LOG2_E + ROUND;
    let n = shifted - ROUND;
    let r = (x - n * LN2_HIGH) - n * LN2_LOW;
    let mut p = 0.0;
    for c in EXP {
        p = p * r + c;
    }
    let y = (p * (r * r) + r) + 1.0;
    y * f32::from_bits((shifted.to_bits() << 23).wrapping_add(0x3f80_0000))
}

/// Adds eight partial sums as a tree.
#[inline]
#[must_use]
pub fn sum_lanes(lanes: [f32; 8]) -> f32 {
    let [a, b, c, d, e, f, g, h] = lanes;
    ((a + e) + (c + g)) + ((b + f) + (d + h))
}

/// Where the error function of a larger number is 1.
const ERF_END: f32 = 3.919_206;
/// erf(x) / x as a quotient of polynomials in x², highest power first: fitted for the least relative error
/// up to [`ERF_END`].
const ERF_UPPER: [f32; 6] =
    [2.050_740_7e-6, 2.848_859_3e-4, 3.764_411_2e-3, 5.274_512_6e-2, 0.190_374_39, FRAC_2_SQRT_PI];
const ERF_LOWER: [f32; 6] =
    [3.809_862_8e-5, 1.162_299e-3, 1.496_678_6e-2, 0.114_096_44, 0.502_047_66, 1.0];

/// The error function, within 4e-7 of it; in an order that vectorises. NaN stays.
#[inline]
#[must_use]
pub fn erf(x: f32) -> f32 {
    let x = if x < -ERF_END { -ERF_END } else { x };
    let x = if x > ERF_END { ERF_END } else { x };
    let square = x * x;
    let polynomial =
        |coefficients: [f32; 6]| coefficients.into_iter().fold(0.0, |sum, c| sum * square + c);
    let y = x * polynomial(ERF_UPPER) / polynomial(ERF_LOWER);
    let y = if y < -1.0 { -1.0 } else { y };
    if y > 1.0 { 1.0 } else { y }
}

/// x (1 + erf(x / √2)) / 2 (arXiv:1606.08415).
#[inline]
#[must_use]
pub fn gelu(x: f32) -> f32 {
    0.5 * x * (1.0 + erf(x * core::f32::consts::FRAC_1_SQRT_2))
}

/// ln(1 + exp(x)).
#[must_use]
pub fn softplus(x: f32) -> f32 {
    let above = if x > 0.0 { x } else { 0.0 };
    above + libm::log1pf(exp(-libm::fabsf(x)))
}

/// The hyperbolic tangent, within 2e-7 of it.
#[must_use]
pub fn tanh(x: f32) -> f32 {
    libm::tanhf(x)
}
