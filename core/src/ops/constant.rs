//! Numbers of the model as a value.

use super::{Form, Numbers, Operation, operands};
use crate::engine::player::{Combine, Player};
use crate::error::{Fault, RunError};
use crate::program::{Check, Dtype, Per};
use serde::{Deserialize, Serialize};

/// `output` = `weight`, once for all tokens of a pass.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[cfg_attr(
    feature = "schema",
    schemars(bound = "F::Name: schemars::JsonSchema, F::Value: schemars::JsonSchema")
)]
#[serde(deny_unknown_fields)]
pub struct Constant<F: Form = Numbers> {
    /// Vector [output width].
    pub weight: F::Name,
    /// A value that a pass has one of.
    pub output: F::Value,
}

operands!(Constant { weight weight, write output });

impl Operation for Constant {
    fn check(&self, check: &Check<'_>) -> Result<(), Fault> {
        check.that(check.value(self.output)? == (Per::Pass, Dtype::F32))?;
        check.vector(self.weight, self.output.width)
    }

    fn play(&self, player: &mut Player<'_>, layer: u32) -> Result<(), RunError> {
        player.with_vector(self.weight, layer, self.output, Combine::Set)
    }
}
