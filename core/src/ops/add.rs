//! Adding one value to another.

use super::{Form, Numbers, Operation, operands};
use crate::engine::player::Player;
use crate::error::{Fault, RunError};
use crate::program::Check;
use serde::{Deserialize, Serialize};

/// `output` += `input`, elementwise.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[cfg_attr(
    feature = "schema",
    schemars(bound = "F::Name: schemars::JsonSchema, F::Value: schemars::JsonSchema")
)]
#[serde(deny_unknown_fields)]
pub struct Add<F: Form = Numbers> {
    /// What is added.
    pub input: F::Value,
    /// What it is added to.
    pub output: F::Value,
}

operands!(Add { read input, update output });

impl Operation for Add {
    fn check(&self, check: &Check<'_>) -> Result<(), Fault> {
        check.floats(&[self.input, self.output])?;
        check.equal(self.input.width, self.output.width)
    }

    fn play(&self, player: &mut Player<'_>, _: u32) -> Result<(), RunError> {
        let ([input], mut output) = player.values([self.input], self.output)?;
        for c in 0..output.count {
            let input = input.column(c);
            output.column(c).iter_mut().zip(input).for_each(|(y, x)| *y += x);
        }
        Ok(())
    }
}
