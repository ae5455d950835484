//! Gated activations (arXiv:2002.05202).

use super::activation::{Activation, elementwise};
use super::{Form, Numbers, Operation, operands};
use crate::engine::player::Player;
use crate::error::{Fault, RunError};
use crate::program::Check;
use serde::{Deserialize, Serialize};

/// `output` = activation(`gate`) · `up`, elementwise.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[cfg_attr(
    feature = "schema",
    schemars(bound = "F::Name: schemars::JsonSchema, F::Value: schemars::JsonSchema")
)]
#[serde(deny_unknown_fields)]
pub struct Gated<F: Form = Numbers> {
    /// The activation.
    pub activation: Activation,
    /// What is activated.
    pub gate: F::Value,
    /// What it is multiplied with.
    pub up: F::Value,
    /// The result, apart from both.
    pub output: F::Value,
}

operands!(Gated { read gate, read up, write output; activation });

impl Operation for Gated {
    fn check(&self, check: &Check<'_>) -> Result<(), Fault> {
        check.floats(&[self.gate, self.up, self.output])?;
        check.that(self.activation.is_played())?;
        check.equal(self.gate.width, self.output.width)?;
        check.equal(self.up.width, self.output.width)
    }

    fn play(&self, player: &mut Player<'_>, _: u32) -> Result<(), RunError> {
        let (kernels, parallel) = (player.kernels, player.parallel);
        let ([gate, up], mut output) = player.values([self.gate, self.up], self.output)?;
        elementwise(self.activation, Some((gate, up)), &mut output, kernels, parallel);
        Ok(())
    }
}
