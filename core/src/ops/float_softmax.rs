//! Softmax of rows of floats.

use super::reduce::{fold, sum};
use super::{Form, Numbers, Operation, operands};
use crate::engine::player::Player;
use crate::error::{Fault, RunError};
use crate::math::exp;
use crate::program::{Check, Per};
use serde::{Deserialize, Serialize};

/// Each row of `length` numbers of `value` becomes exp(x - most) / Σ exp(x - most), most being the row's
/// largest number; or the logarithm of it. Floats with one column, in place.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[cfg_attr(
    feature = "schema",
    schemars(bound = "F::Name: schemars::JsonSchema, F::Value: schemars::JsonSchema")
)]
#[serde(deny_unknown_fields)]
pub struct FloatSoftmax<F: Form = Numbers> {
    /// The rows, one after another.
    pub value: F::Value,
    /// Numbers of a row.
    pub length: u32,
    /// Gives logarithms of probabilities.
    #[serde(default)]
    pub log: bool,
}

operands!(FloatSoftmax { update value; length, log });

impl Operation for FloatSoftmax {
    fn check(&self, check: &Check<'_>) -> Result<(), Fault> {
        check.that(check.floats(&[self.value])? == Per::Pass)?;
        check.that(self.length > 0 && self.value.width.is_multiple_of(self.length))
    }

    fn play(&self, player: &mut Player<'_>, _: u32) -> Result<(), RunError> {
        let ([], mut value) = player.values([], self.value)?;
        for row in value.column(0).chunks_exact_mut((self.length as usize).max(1)) {
            let most = fold(row, |x, y| x > y);
            if self.log {
                row.iter_mut().for_each(|x| *x -= most);
                let total: f32 = row.iter().map(|x| exp(*x)).sum();
                let log = libm::logf(total);
                row.iter_mut().for_each(|x| *x -= log);
            } else {
                row.iter_mut().for_each(|x| *x = exp(*x - most));
                let total = sum(row);
                row.iter_mut().for_each(|x| *x /= total);
            }
        }
        Ok(())
    }
}
