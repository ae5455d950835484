//! Soft capping (Gemma 2, arXiv:2408.00118).

use super::{Form, Numbers, Operation, operands};
use crate::engine::player::Player;
use crate::error::{Fault, RunError};
use crate::program::Check;
use serde::{Deserialize, Serialize};

/// `value` = `cap` · tanh(`value` / `cap`), in place.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[cfg_attr(
    feature = "schema",
    schemars(bound = "F::Name: schemars::JsonSchema, F::Value: schemars::JsonSchema")
)]
#[serde(deny_unknown_fields)]
pub struct SoftCap<F: Form = Numbers> {
    /// What is capped.
    pub value: F::Value,
    /// What it stays below.
    pub cap: f32,
}

operands!(SoftCap { update value; cap });

impl Operation for SoftCap {
    fn check(&self, check: &Check<'_>) -> Result<(), Fault> {
        check.floats(&[self.value])?;
        check.that(self.cap.is_finite() && self.cap > 0.0)
    }

    fn play(&self, player: &mut Player<'_>, _: u32) -> Result<(), RunError> {
        let ([], mut value) = player.values([], self.value)?;
        for c in 0..value.count {
            for x in value.column(c) {
                *x = self.cap * crate::math::tanh(*x / self.cap);
            }
        }
        Ok(())
    }
}
