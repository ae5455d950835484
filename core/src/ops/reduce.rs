//! Rows of numbers, each made one number.

use super::{Form, Numbers, Operation, operands};
use crate::engine::player::Player;
use crate::error::{Fault, RunError};
use crate::math::sum_lanes;
use crate::program::{Check, Per};
use serde::{Deserialize, Serialize};

/// What a row becomes. They are only ever appended: their order is the encoding.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum Reduction {
    /// Its sum.
    #[default]
    Sum,
    /// Its sum, divided by its length.
    Mean,
    /// Its largest number; NaN stays.
    Max,
    /// Its smallest number; NaN stays.
    Min,
}

/// `output`[i] = reduction(`input`[i · length] to `input`[i · length + length - 1]), length being the input's
/// width divided by the output's. Floats with one column.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[cfg_attr(
    feature = "schema",
    schemars(bound = "F::Name: schemars::JsonSchema, F::Value: schemars::JsonSchema")
)]
#[serde(deny_unknown_fields)]
pub struct Reduce<F: Form = Numbers> {
    /// What rows become.
    pub reduction: Reduction,
    /// The rows, one after another.
    pub input: F::Value,
    /// A number for each, apart from the input.
    pub output: F::Value,
}

operands!(Reduce { read input, write output; reduction });

impl Operation for Reduce {
    fn check(&self, check: &Check<'_>) -> Result<(), Fault> {
        check.that(check.floats(&[self.input, self.output])? == Per::Pass)?;
        check.that(self.output.width > 0 && self.input.width.is_multiple_of(self.output.width))
    }

    fn play(&self, player: &mut Player<'_>, _: u32) -> Result<(), RunError> {
        let ([input], mut output) = player.values([self.input], self.output)?;
        let (input, output) = (input.column(0), output.column(0));
        let length = input.len().checked_div(output.len()).unwrap_or(0).max(1);
        for (out, row) in output.iter_mut().zip(input.chunks_exact(length)) {
            *out = match self.reduction {
                Reduction::Sum => sum(row),
                Reduction::Mean => sum(row) / length as f32,
                Reduction::Max => fold(row, |x, y| x > y),
                Reduction::Min => fold(row, |x, y| x < y),
            };
        }
        Ok(())
    }
}

/// Eight partial sums, so that it vectorises and that long rows lose little.
pub(super) fn sum(row: &[f32]) -> f32 {
    let (eights, rest) = row.as_chunks::<8>();
    let mut lanes = [0.0; 8];
    for eight in eights {
        lanes.iter_mut().zip(eight).for_each(|(lane, x)| *lane += x);
    }
    lanes.iter_mut().zip(rest).for_each(|(lane, x)| *lane += x);
    sum_lanes(lanes)
}

/// The number of a row that is better than all others, or NaN.
pub(super) fn fold(row: &[f32], better: impl Fn(f32, f32) -> bool) -> f32 {
    let first = row.first().copied().unwrap_or(f32::NAN);
    row.iter().fold(first, |best, x| if better(*x, best) || x.is_nan() { *x } else { best })
}
