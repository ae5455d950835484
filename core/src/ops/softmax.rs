//! Softmax of signed bytes, as TensorFlow Lite's reference kernels compute it.

use super::{Form, Numbers, Operation, operands};
use crate::engine::player::Player;
use crate::error::{Fault, RunError};
use crate::fixed_point::{exp_on_negative_values, high_mul, reciprocal, rounding_shift_right};
use crate::program::{Check, Dtype, Per};
use serde::{Deserialize, Serialize};

/// `output` = softmax(scale · `input`) in steps of 1/256 above -128.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[cfg_attr(
    feature = "schema",
    schemars(bound = "F::Name: schemars::JsonSchema, F::Value: schemars::JsonSchema")
)]
#[serde(deny_unknown_fields)]
pub struct Softmax<F: Form = Numbers> {
    /// The scores.
    pub input: F::Value,
    /// The probabilities, apart from the input.
    pub output: F::Value,
    /// The scale in steps of 2^(`shift` - 57): a multiplier of 31 bits.
    pub multiplier: i32,
    /// How far scores are shifted to the left before; at most 26.
    pub shift: u8,
    /// Scores that are further below the largest count as 0.
    pub least_difference: i32,
}

operands!(Softmax { read input, write output; multiplier, shift, least_difference });

impl Operation for Softmax {
    fn check(&self, check: &Check<'_>) -> Result<(), Fault> {
        let bytes = (Per::Pass, Dtype::I8);
        check.that(check.value(self.input)? == bytes && check.value(self.output)? == bytes)?;
        check.equal(self.input.width, self.output.width)?;
        check.that(self.multiplier >= 0 && self.shift <= 26 && self.input.width <= 1 << 12)
    }

    fn play(&self, player: &mut Player<'_>, _: u32) -> Result<(), RunError> {
        let Player { memory, program, inputs, .. } = player;
        let ([input], mut output) =
            memory.split_as(program, inputs.counts(), [self.input], self.output)?;
        let (input, output): (&[i8], &mut [i8]) = (input.column(0), output.column(0));
        let largest = input.iter().copied().max().map_or(0, i32::from);
        // e to the power of a score below the largest, if it counts.
        let power = |x: &i8| {
            let difference = i32::from(*x) - largest;
            let scaled = difference.wrapping_shl(u32::from(self.shift));
            (difference >= self.least_difference)
                .then(|| exp_on_negative_values::<5>(high_mul(scaled, self.multiplier)))
        };
        let powers = input.iter().filter_map(power);
        let sum = powers.fold(0i32, |sum, x| sum.saturating_add(rounding_shift_right(x, 12)));
        let (scale, bits) = reciprocal(sum, 12);
        for (out, x) in output.iter_mut().zip(input) {
            let probability = power(x).map_or(0, |power| {
                rounding_shift_right(high_mul(scale, power), (bits + 23).clamp(0, 31) as u32)
            });
            *out = (probability - 128).clamp(-128, 127) as i8;
        }
        Ok(())
    }
}
