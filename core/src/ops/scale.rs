//! Multiplying a value with a number.

use super::{Form, Numbers, Operation, operands};
use crate::engine::player::Player;
use crate::error::{Fault, RunError};
use crate::program::Check;
use serde::{Deserialize, Serialize};

/// `value` *= `factor`, in place.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[cfg_attr(
    feature = "schema",
    schemars(bound = "F::Name: schemars::JsonSchema, F::Value: schemars::JsonSchema")
)]
#[serde(deny_unknown_fields)]
pub struct Scale<F: Form = Numbers> {
    /// What is multiplied.
    pub value: F::Value,
    /// What it is multiplied with.
    pub factor: f32,
}

operands!(Scale { update value; factor });

impl Operation for Scale {
    fn check(&self, check: &Check<'_>) -> Result<(), Fault> {
        check.floats(&[self.value])?;
        check.that(self.factor.is_finite())
    }

    fn play(&self, player: &mut Player<'_>, _: u32) -> Result<(), RunError> {
        let ([], mut value) = player.values([], self.value)?;
        for c in 0..value.count {
            value.column(c).iter_mut().for_each(|x| *x *= self.factor);
        }
        Ok(())
    }
}
