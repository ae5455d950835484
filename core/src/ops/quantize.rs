//! Floats as signed bytes, and back.

use super::{Form, Numbers, Operation, operands};
use crate::engine::player::Player;
use crate::error::{Fault, RunError};
use crate::program::{Check, Dtype, Per};
use serde::{Deserialize, Serialize};

/// `output` = clamp(round(`input` / scale) + zero, -128, 127), elementwise; halves are rounded to even. Values
/// have one column.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[cfg_attr(
    feature = "schema",
    schemars(bound = "F::Name: schemars::JsonSchema, F::Value: schemars::JsonSchema")
)]
#[serde(deny_unknown_fields)]
pub struct Quantize<F: Form = Numbers> {
    /// The floats.
    pub input: F::Value,
    /// The bytes.
    pub output: F::Value,
    /// What a step is worth.
    pub scale: f32,
    /// The byte that stands for 0.
    #[serde(default)]
    pub zero: i32,
    /// Halves are rounded away from zero.
    #[serde(default)]
    pub ties_away: bool,
}

operands!(Quantize { read input, write output; scale, zero, ties_away });

/// `output` = scale · (`input` - zero), elementwise. Values have one column.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[cfg_attr(
    feature = "schema",
    schemars(bound = "F::Name: schemars::JsonSchema, F::Value: schemars::JsonSchema")
)]
#[serde(deny_unknown_fields)]
pub struct Dequantize<F: Form = Numbers> {
    /// The bytes.
    pub input: F::Value,
    /// The floats.
    pub output: F::Value,
    /// What a step is worth.
    pub scale: f32,
    /// The byte that stands for 0.
    #[serde(default)]
    pub zero: i32,
}

operands!(Dequantize { read input, write output; scale, zero });

/// A scale and a zero point that are usual ones.
fn check_scale(check: &Check<'_>, scale: f32, zero: i32) -> Result<(), Fault> {
    check.that(scale > 0.0 && scale < f32::INFINITY && (-128..=127).contains(&zero))
}

impl Operation for Quantize {
    fn check(&self, check: &Check<'_>) -> Result<(), Fault> {
        check.that(check.value(self.input)? == (Per::Pass, Dtype::F32))?;
        check.that(check.value(self.output)? == (Per::Pass, Dtype::I8))?;
        check.equal(self.input.width, self.output.width)?;
        check_scale(check, self.scale, self.zero)
    }

    fn play(&self, player: &mut Player<'_>, _: u32) -> Result<(), RunError> {
        let Player { memory, program, inputs, .. } = player;
        let ([input], mut output) =
            memory.split_as::<1, f32, i8>(program, inputs.counts(), [self.input], self.output)?;
        for (out, x) in output.column(0).iter_mut().zip(input.column(0)) {
            let steps = x / self.scale;
            let rounded = if self.ties_away { libm::roundf(steps) } else { libm::rintf(steps) };
            let most = 1 << 20;
            let rounded = (rounded as i32).clamp(-most, most);
            *out = (rounded + self.zero).clamp(-128, 127) as i8;
        }
        Ok(())
    }
}

impl Operation for Dequantize {
    fn check(&self, check: &Check<'_>) -> Result<(), Fault> {
        check.that(check.value(self.input)? == (Per::Pass, Dtype::I8))?;
        check.that(check.value(self.output)? == (Per::Pass, Dtype::F32))?;
        check.equal(self.input.width, self.output.width)?;
        check_scale(check, self.scale, self.zero)
    }

    fn play(&self, player: &mut Player<'_>, _: u32) -> Result<(), RunError> {
        let Player { memory, program, inputs, .. } = player;
        let ([input], mut output) =
            memory.split_as::<1, i8, f32>(program, inputs.counts(), [self.input], self.output)?;
        for (out, x) in output.column(0).iter_mut().zip(input.column(0)) {
            *out = self.scale * (i32::from(*x) - self.zero) as f32;
        }
        Ok(())
    }
}
