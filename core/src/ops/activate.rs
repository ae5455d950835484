//! An activation by itself.

use super::activation::{Activation, elementwise};
use super::{Form, Numbers, Operation, operands};
use crate::engine::player::Player;
use crate::error::{Fault, RunError};
use crate::program::Check;
use serde::{Deserialize, Serialize};

/// `value` = activation(`value`), elementwise, in place.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[cfg_attr(
    feature = "schema",
    schemars(bound = "F::Name: schemars::JsonSchema, F::Value: schemars::JsonSchema")
)]
#[serde(deny_unknown_fields)]
pub struct Activate<F: Form = Numbers> {
    /// The activation.
    pub activation: Activation,
    /// What is activated.
    pub value: F::Value,
}

operands!(Activate { update value; activation });

impl Operation for Activate {
    fn check(&self, check: &Check<'_>) -> Result<(), Fault> {
        check.floats(&[self.value]).map(|_| ())
    }

    fn play(&self, player: &mut Player<'_>, _: u32) -> Result<(), RunError> {
        let (kernels, parallel) = (player.kernels, player.parallel);
        let ([], mut value) = player.values([], self.value)?;
        elementwise(self.activation, None, &mut value, kernels, parallel);
        Ok(())
    }
}
