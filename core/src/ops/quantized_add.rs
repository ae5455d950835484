//! The sum of two values of signed bytes, as TensorFlow Lite's reference kernels compute it
//! (arXiv:1712.05877).

use super::{Form, Numbers, Operation, operands};
use crate::engine::player::Player;
use crate::error::{Fault, RunError};
use crate::fixed_point::multiply_by_quantized_multiplier;
use crate::program::{Check, Dtype, Per};
use serde::{Deserialize, Serialize};

/// Bits behind the point that the inputs get before they are scaled.
const SHIFT: u32 = 20;

/// `output` = clamp(zero + scale · Σ scale_i · 2^20 · (input_i - zero_i)), elementwise, one value a pass. Scales are
/// multiplier · 2^(shift - 31), and each product is rounded.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[cfg_attr(
    feature = "schema",
    schemars(bound = "F::Name: schemars::JsonSchema, F::Value: schemars::JsonSchema")
)]
#[serde(deny_unknown_fields)]
pub struct QuantizedAdd<F: Form = Numbers> {
    /// One input.
    pub first: F::Value,
    /// The other.
    pub second: F::Value,
    /// The result, apart from both.
    pub output: F::Value,
    /// The zero points of both and of the result.
    pub zeros: [i32; 3],
    /// The multipliers of both, and of their sum.
    pub multipliers: [i32; 3],
    /// Their shifts.
    pub shifts: [i32; 3],
    /// The least and the largest output.
    pub clamp: [i8; 2],
}

operands!(QuantizedAdd { read first, read second, write output; zeros, multipliers, shifts, clamp });

impl Operation for QuantizedAdd {
    fn check(&self, check: &Check<'_>) -> Result<(), Fault> {
        for value in [self.first, self.second, self.output] {
            check.that(check.value(value)? == (Per::Pass, Dtype::I8))?;
            check.equal(value.width, self.output.width)?;
        }
        let [low, high] = self.clamp;
        check.that(low <= high && self.zeros.iter().all(|zero| (-128..=127).contains(zero)))?;
        // Scaled inputs stay so small that two of them add up.
        let [first, second, _] = self.shifts;
        check.that(first <= 0 && second <= 0)
    }

    fn play(&self, player: &mut Player<'_>, _: u32) -> Result<(), RunError> {
        let Player { memory, program, inputs, .. } = player;
        let read = [self.first, self.second];
        let ([first, second], mut output) =
            memory.split_as(program, inputs.counts(), read, self.output)?;
        let (first, second): (&[i8], &[i8]) = (first.column(0), second.column(0));
        let [zero_1, zero_2, zero] = self.zeros;
        let [multiplier_1, multiplier_2, multiplier] = self.multipliers;
        let [shift_1, shift_2, shift] = self.shifts;
        let scaled = |x: i8, zero: i32, multiplier: i32, shift: i32| {
            multiply_by_quantized_multiplier((i32::from(x) - zero) << SHIFT, multiplier, shift)
        };
        let [low, high] = self.clamp.map(i32::from);
        for ((out, x), y) in output.column(0).iter_mut().zip(first).zip(second) {
            let sum = scaled(*x, zero_1, multiplier_1, shift_1).wrapping_add(scaled(
                *y,
                zero_2,
                multiplier_2,
                shift_2,
            ));
            let value = multiply_by_quantized_multiplier(sum, multiplier, shift);
            *out = value.saturating_add(zero).max(low).min(high) as i8;
        }
        Ok(())
    }
}
