//! Bytes of models in integers, and the numbers that they stand for.

use omex_core::program::Port;

/// The byte that stands for a number, of an input; the nearest, where there is none.
#[must_use]
pub fn quantized(port: &Port<'_>, number: f32) -> i8 {
    let steps = number / port.scale;
    let nearest = (steps + if steps < 0.0 { -0.5 } else { 0.5 }) as i32;
    nearest.saturating_add(port.zero_point).clamp(i8::MIN.into(), i8::MAX.into()) as i8
}

/// The number that a byte of an input or an output stands for.
#[must_use]
pub fn real(port: &Port<'_>, byte: i8) -> f32 {
    (i32::from(byte) - port.zero_point) as f32 * port.scale
}
