//! Rows of signed bytes, each made its sum or its mean, as TensorFlow Lite's reference kernels compute it
//! (arXiv:1712.05877).

use super::{Form, Numbers, Operation, operands};
use crate::engine::player::Player;
use crate::error::{Fault, RunError};
use crate::fixed_point::multiply_by_quantized_multiplier;
use crate::program::{Check, Dtype, Per};
use serde::{Deserialize, Serialize};

/// The longest rows: sums of them hold in 32 bits.
const MAX_LENGTH: u32 = 1 << 22;

/// `output`[i] = clamp(`output_zero` + scale · Σ (x - `input_zero`)) over the elements x of row i of the input, whose
/// rows are as long as its width divided by the output's. Signed bytes with one column. The scale is `multiplier` ·
/// 2^(`shift` - 31).
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[cfg_attr(
    feature = "schema",
    schemars(bound = "F::Name: schemars::JsonSchema, F::Value: schemars::JsonSchema")
)]
#[serde(deny_unknown_fields)]
pub struct QuantizedSum<F: Form = Numbers> {
    /// The rows, one after another.
    pub input: F::Value,
    /// A byte for each, apart from the input.
    pub output: F::Value,
    /// What a sum is multiplied with.
    pub multiplier: i32,
    /// And the power of two.
    pub shift: i32,
    /// The input's zero point.
    #[serde(default)]
    pub input_zero: i32,
    /// The output's zero point.
    #[serde(default)]
    pub output_zero: i32,
}

operands!(QuantizedSum {
    read input, write output; multiplier, shift, input_zero, output_zero
});

impl Operation for QuantizedSum {
    fn check(&self, check: &Check<'_>) -> Result<(), Fault> {
        let bytes = (Per::Pass, Dtype::I8);
        check.that(check.value(self.input)? == bytes && check.value(self.output)? == bytes)?;
        check.that(self.output.width > 0 && self.input.width.is_multiple_of(self.output.width))?;
        check.that(self.input.width / self.output.width.max(1) <= MAX_LENGTH)?;
        let zeros = [self.input_zero, self.output_zero];
        check.that(zeros.iter().all(|zero| (-128..=127).contains(zero)))
    }

    fn play(&self, player: &mut Player<'_>, _: u32) -> Result<(), RunError> {
        let Player { memory, program, inputs, .. } = player;
        let ([input], mut output) =
            memory.split_as::<1, i8, i8>(program, inputs.counts(), [self.input], self.output)?;
        let (input, output) = (input.column(0), output.column(0));
        let length = input.len().checked_div(output.len()).unwrap_or(0).max(1);
        for (out, row) in output.iter_mut().zip(input.chunks_exact(length)) {
            let sum = row.iter().map(|x| i32::from(*x) - self.input_zero).sum();
            let scaled = multiply_by_quantized_multiplier(sum, self.multiplier, self.shift);
            *out = scaled.saturating_add(self.output_zero).clamp(-128, 127) as i8;
        }
        Ok(())
    }
}
