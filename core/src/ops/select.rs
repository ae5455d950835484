//! Keeping the tokens whose outputs are wanted.

use super::{Form, Numbers, Operation, operands};
use crate::engine::player::Player;
use crate::error::{Fault, RunError};
use crate::program::{Check, Dtype, Per};
use serde::{Deserialize, Serialize};

/// `output` = the columns of `input` whose outputs are wanted.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[cfg_attr(
    feature = "schema",
    schemars(bound = "F::Name: schemars::JsonSchema, F::Value: schemars::JsonSchema")
)]
#[serde(deny_unknown_fields)]
pub struct Select<F: Form = Numbers> {
    /// A column for each token.
    pub input: F::Value,
    /// A column for each wanted output.
    pub output: F::Value,
}

operands!(Select { read input, write output });

impl Operation for Select {
    fn check(&self, check: &Check<'_>) -> Result<(), Fault> {
        check.tokens(&[self.input])?;
        check.that(check.value(self.output)? == (Per::Output, Dtype::F32))?;
        check.equal(self.input.width, self.output.width)
    }

    fn play(&self, player: &mut Player<'_>, _: u32) -> Result<(), RunError> {
        let Player { memory, program, inputs, .. } = player;
        let counts = inputs.counts();
        let ([input], mut output) = memory.split(program, counts, [self.input], self.output)?;
        for (to, from) in inputs.selected().enumerate() {
            output.column(to).iter_mut().zip(input.column(from)).for_each(|(y, x)| *y = *x);
        }
        Ok(())
    }
}
