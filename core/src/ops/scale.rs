//! Multiplying a value with numbers.

use super::{Form, Numbers, Operation, operands};
use crate::engine::player::Player;
use crate::error::{Fault, RunError};
use crate::program::{Check, Dtype, Per};
use serde::{Deserialize, Serialize};

/// `value` *= `factor` · `by`, in place.
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
    /// One more number, once a pass; none stands for 1.
    #[serde(default)]
    pub by: Option<F::Value>,
}

operands!(Scale { update value, maybe_read by; factor });

impl Operation for Scale {
    fn check(&self, check: &Check<'_>) -> Result<(), Fault> {
        check.floats(&[self.value])?;
        if let Some(by) = self.by {
            check.that(check.value(by)? == (Per::Pass, Dtype::F32))?;
            check.equal(by.width, 1)?;
            check.apart(&[self.value, by])?;
        }
        check.that(self.factor.is_finite())
    }

    fn play(&self, player: &mut Player<'_>, _: u32) -> Result<(), RunError> {
        let mut factor = self.factor;
        if let Some(by) = self.by {
            let ([by], _) = player.values([by], self.value)?;
            factor *= by.column(0).first().copied().unwrap_or(1.0);
        }
        let ([], mut value) = player.values([], self.value)?;
        for c in 0..value.count {
            value.column(c).iter_mut().for_each(|x| *x *= factor);
        }
        Ok(())
    }
}
