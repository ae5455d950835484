//! Fixed-point arithmetic of quantized models, with gemmlowp's rounding: what TensorFlow Lite's
//! reference kernels compute, bit for bit.

/// The high half of 2ab, rounded half away from zero.
#[must_use]
pub fn high_mul(a: i32, b: i32) -> i32 {
    if a == i32::MIN && b == i32::MIN {
        return i32::MAX;
    }
    let product = i64::from(a) * i64::from(b);
    let nudge = if product >= 0 { 1 << 30 } else { 1 - (1 << 30) };
    ((product + nudge) / (1 << 31)) as i32
}

/// x / 2^exponent, rounded half away from zero; `exponent` is at most 31.
#[must_use]
pub fn rounding_shift_right(x: i32, exponent: u32) -> i32 {
    let mask = ((1i64 << exponent.min(31)) - 1) as i32;
    let threshold = (mask >> 1) + i32::from(x < 0);
    (x >> exponent.min(31)) + i32::from(x & mask > threshold)
}

/// x · multiplier · 2^(shift - 31), rounded twice.
#[must_use]
pub fn multiply_by_quantized_multiplier(x: i32, multiplier: i32, shift: i32) -> i32 {
    let (left, right) = (shift.clamp(0, 31) as u32, (-shift).clamp(0, 31) as u32);
    rounding_shift_right(high_mul(x.wrapping_shl(left), multiplier), right)
}

/// x · 2^exponent, saturating.
fn saturating_shift_left(x: i32, exponent: u32) -> i32 {
    let shifted = i64::from(x) << exponent.min(31);
    shifted.clamp(i32::MIN.into(), i32::MAX.into()) as i32
}

/// e^(-1/8) and 1/3, in steps of 2^-31.
const EXP_OF_MINUS_EIGHTH: i32 = 1_895_147_668;
const THIRD: i32 = 715_827_883;
/// e^-(2^n) for n from -2 to 4, in steps of 2^-31.
const EXP_OF_POWERS: [i32; 7] =
    [1_672_461_947, 1_302_514_674, 790_015_084, 290_630_308, 39_332_535, 720_401, 242];

/// e^x for x at most 0 with `BITS` bits before the point, 5 at most; the result is in steps of 2^-31.
#[must_use]
pub fn exp_on_negative_values<const BITS: u32>(x: i32) -> i32 {
    let quarter = const { 1 << (29 - BITS) };
    if x == 0 {
        return i32::MAX;
    }
    let rest = (x & (quarter - 1)) - quarter;
    let mut result = exp_near_minus_eighth(saturating_shift_left(rest, BITS));
    let remainder = rest.wrapping_sub(x);
    for (n, factor) in (29 - BITS..31).zip(EXP_OF_POWERS) {
        if remainder >> n & 1 == 1 {
            result = high_mul(result, factor);
        }
    }
    result
}

/// e^x for x from -1/4 to 0, in steps of 2^-31: a Taylor polynomial around -1/8.
fn exp_near_minus_eighth(x: i32) -> i32 {
    let x = x.wrapping_add(1 << 28);
    let x2 = high_mul(x, x);
    let (x3, x4) = (high_mul(x2, x), high_mul(x2, x2));
    let x4_over_4 = rounding_shift_right(x4, 2);
    let sum = high_mul(x4_over_4.wrapping_add(x3), THIRD).wrapping_add(x2);
    let polynomial = x.wrapping_add(rounding_shift_right(sum, 1));
    EXP_OF_MINUS_EIGHTH.wrapping_add(high_mul(EXP_OF_MINUS_EIGHTH, polynomial))
}

/// 1 / x of a positive number with `integer_bits` bits before the point: in steps of 2^-31 times
/// 2^(the second result).
#[must_use]
pub fn reciprocal(x: i32, integer_bits: i32) -> (i32, i32) {
    let headroom = x.leading_zeros();
    let fraction = x.cast_unsigned().wrapping_shl(headroom).wrapping_sub(1 << 31);
    (one_over_one_plus(fraction.cast_signed()), integer_bits - headroom as i32)
}

/// 1 / (1 + x) for x from 0 to 1, in steps of 2^-31.
#[must_use]
pub fn one_over_one_plus(x: i32) -> i32 {
    saturating_shift_left(two_over_one_plus(x), 1)
}

/// (1 - x) / (1 + x) for x from 0 to 1, in steps of 2^-31.
#[must_use]
pub fn one_minus_over_one_plus(x: i32) -> i32 {
    saturating_shift_left(two_over_one_plus(x).wrapping_sub(1 << 29), 2)
}

/// 2 / (1 + x) for x from 0 to 1 in steps of 2^-31; the result is in steps of 2^-29. Newton's method.
fn two_over_one_plus(x: i32) -> i32 {
    // 48/17 and -32/17 in steps of 2^-29.
    const START: i32 = 1_515_870_810;
    const SLOPE: i32 = -1_010_580_540;
    let sum = i64::from(x) + i64::from(i32::MAX);
    let half_denominator = ((sum + if sum >= 0 { 1 } else { -1 }) / 2) as i32;
    let mut y = START.wrapping_add(high_mul(half_denominator, SLOPE));
    for _ in 0..3 {
        let error = (1i32 << 29).wrapping_sub(high_mul(half_denominator, y));
        y = y.wrapping_add(saturating_shift_left(high_mul(y, error), 2));
    }
    y
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rounding_is_half_away_from_zero() {
        for (x, exponent, expected) in [(5, 1, 3), (-5, 1, -3), (4, 2, 1), (6, 2, 2), (-6, 2, -2)] {
            assert_eq!(rounding_shift_right(x, exponent), expected, "{x} >> {exponent}");
        }
        assert_eq!(high_mul(i32::MIN, i32::MIN), i32::MAX);
        assert_eq!(high_mul(1 << 30, 3), 2);
        assert_eq!(multiply_by_quantized_multiplier(100, 1 << 30, 1), 100);
    }

    #[test]
    fn exponentials_and_reciprocals_are_near_the_true_ones() {
        for n in 0..2000 {
            let x = -f64::from(n) / 64.0;
            let y = f64::from(exp_on_negative_values::<5>((x * f64::from(1 << 26)) as i32));
            assert!((y / (1u32 << 31) as f64 - x.exp()).abs() < 1e-6, "{x}");
        }
        for n in 1..2000 {
            let x = n << 12;
            let (scale, bits) = reciprocal(x, 12);
            let y = f64::from(scale) / (1u32 << 31) as f64 / f64::from(bits).exp2();
            let expected = f64::from(1 << 19) / f64::from(x);
            assert!((y / expected - 1.0).abs() < 1e-6, "{x}: {y} {expected}");
        }
    }
}
