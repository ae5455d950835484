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

/// √(2/π).
const GELU: f32 = 0.797_884_6;

/// x (1 + tanh(√(2/π) (x + 0.044715 x³))) / 2.
#[inline(always)]
#[must_use]
pub fn gelu_tanh(x: f32) -> f32 {
    0.5 * x * (1.0 + tanh(GELU * (x + 0.044_715 * x * x * x)))
}

/// Beyond it, tanh is 1.
const TANH_END: f32 = 10.0;
/// ln(3) / 2 and ln(5/3) / 2, between which tanh is computed in three ways.
const TANH_LARGE: f32 = f32::from_bits(0x3f0c_9f54);
const TANH_SMALL: f32 = f32::from_bits(0x3e82_c578);

/// The hyperbolic tangent, within 2e-7 of it: the bits of FreeBSD's `tanhf`, in an order that
/// vectorises. NaN stays.
#[inline(always)]
#[must_use]
pub fn tanh(x: f32) -> f32 {
    let magnitude = f32::from_bits(x.to_bits() & 0x7fff_ffff);
    let within = if magnitude < TANH_END { magnitude } else { TANH_END };
    let small = within <= TANH_SMALL;
    let t = expm1(if small { -2.0 * within } else { 2.0 * within });
    let large = within > TANH_LARGE;
    let part = if large { 2.0 } else { t };
    let part = if small { -part } else { part };
    let quotient = part / (t + 2.0);
    let y = if large { 1.0 - quotient } else { quotient };
    let y = if magnitude <= TANH_END { y } else { 1.0 + 0.0 / magnitude };
    f32::from_bits(y.to_bits() ^ x.to_bits() & 0x8000_0000)
}

/// ln(2) in two parts, as [`expm1`] takes it off.
const EXPM1_LN2: [f32; 2] = [f32::from_bits(0x3f31_7180), f32::from_bits(0x3717_f7d1)];
/// Above half of ln(2), and from one and a half of it on.
const EXPM1_ONE: f32 = f32::from_bits(0x3eb1_7218);
const EXPM1_MORE: f32 = f32::from_bits(0x3f85_1592);
const EXPM1: [f32; 2] = [-3.333_321_2e-2, 1.580_717e-3];

/// exp(x) - 1 for x from -ln(5/3) to 20: the bits of FreeBSD's `expm1f`.
#[inline(always)]
fn expm1(x: f32) -> f32 {
    let magnitude = f32::from_bits(x.to_bits() & 0x7fff_ffff);
    // How many times ln(2) is taken off.
    let rounded = x * core::f32::consts::LOG2_E + 0.5;
    let nearest = (rounded + ROUND) - ROUND;
    let floor = if nearest > rounded { nearest - 1.0 } else { nearest };
    let one = if x > 0.0 { 1.0 } else { -1.0 };
    let times = if magnitude < EXPM1_MORE { one } else { floor };
    let times = if magnitude > EXPM1_ONE { times } else { 0.0 };
    let [high, low] = [x - times * EXPM1_LN2[0], times * EXPM1_LN2[1]];
    let x = high - low;
    let lost = (high - x) - low;

    let half = 0.5 * x;
    let square = x * half;
    let r = 1.0 + square * (EXPM1[0] + square * EXPM1[1]);
    let t = 3.0 - r * half;
    let e = square * ((r - t) / (6.0 - x * t));
    let e = x * (e - lost) - lost - square;

    // 2^times (x - e + 1) - 1, in the order that loses least.
    let power = |n: f32| f32::from_bits(((n + ROUND).to_bits() << 23).wrapping_add(0x3f80_0000));
    let (raise, lower) = (power(times), power(-times));
    let many = if times < 23.0 { x - e + (1.0 - lower) } else { x - (e + lower) + 1.0 };
    let once = if x < -0.25 { -2.0 * (e - (x + 0.5)) } else { 1.0 + 2.0 * (x - e) };
    let y = if times > 1.0 { many * raise } else { once };
    let y = if times < 0.0 { 0.5 * (x - e) - 0.5 } else { y };
    if times == 0.0 { x - e } else { y }
}
