//! Bytes, and the numbers that they stand for.

use crate::fixed_point::quantize_multiplier;
use std::collections::BTreeMap;

/// What a step of a byte is worth, and the byte that stands for 0.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Step {
    pub(crate) scale: f32,
    pub(crate) zero: i32,
}

/// The steps of values by name.
#[derive(Clone, Debug, Default)]
pub(crate) struct Steps {
    /// Of values that operations have as results.
    pub(crate) results: BTreeMap<String, Step>,
    /// Of values that may be rounded where an operation takes them in.
    pub(crate) operands: BTreeMap<String, Step>,
    /// Weights that are no whole numbers of steps stay floats.
    pub(crate) exact: bool,
}

impl Step {
    /// One with which all numbers of a range, and 0, have a byte.
    pub(crate) fn of([low, high]: [f32; 2]) -> Self {
        let (low, high) = (low.min(0.0), high.max(0.0));
        let scale = (high - low) / 255.0;
        if !(scale > 0.0 && scale.is_finite()) {
            return Self { scale: 1.0, zero: 0 };
        }
        Self { scale, zero: ((-128.0 - low / scale).round() as i32).clamp(-128, 127) }
    }

    pub(super) fn byte(self, x: f32) -> i8 {
        let steps = (x / self.scale).round() as i32;
        steps.saturating_add(self.zero).clamp(-128, 127) as i8
    }

    pub(super) fn number(self, byte: i8) -> f32 {
        self.scale * (i32::from(byte) - self.zero) as f32
    }
}

/// The scales of a sum or a difference: so scaled, two stay below what 32 bits hold.
pub(super) fn sum(steps: [Step; 3]) -> [(i32, i32); 3] {
    let [first, second, to] = steps.map(|step| f64::from(step.scale));
    let twice = 2.0 * first.max(second);
    [first / twice, second / twice, twice / (f64::from(1 << 20) * to)].map(quantize_multiplier)
}

/// The scales of a product, of which only the last counts.
pub(super) fn product(steps: [Step; 3]) -> [(i32, i32); 3] {
    let [first, second, to] = steps.map(|step| f64::from(step.scale));
    [(0, 0), (0, 0), quantize_multiplier(first * second / to)]
}
