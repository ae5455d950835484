//! How fast states forget (Mamba-2, arXiv:2405.21060; gated DeltaNet, arXiv:2412.06464).

use super::{Form, Numbers, Operation, operands};
use crate::engine::player::{Combine, Player};
use crate::error::{Fault, RunError};
use crate::math::{exp, softplus};
use crate::program::Check;
use serde::{Deserialize, Serialize};

/// `dt` = softplus(`dt` + `dt_bias`), held within `least` and `most`; `decay` = exp(-exp(`a_log`) · `dt`).
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[cfg_attr(
    feature = "schema",
    schemars(bound = "F::Name: schemars::JsonSchema, F::Value: schemars::JsonSchema")
)]
#[serde(deny_unknown_fields)]
pub struct Decay<F: Form = Numbers> {
    /// Vector [heads]: the logarithm of the rate of forgetting.
    pub a_log: F::Name,
    /// Vector [heads].
    pub dt_bias: F::Name,
    /// Time steps, a head's each.
    pub dt: F::Value,
    /// What is left of a state after the step, from 0 to 1.
    pub decay: F::Value,
    /// The shortest step.
    #[serde(default)]
    pub least: f32,
    /// The longest step; 0 for no bound.
    #[serde(default)]
    pub most: f32,
}

operands!(Decay { weight a_log, weight dt_bias, update dt, write decay; least, most });

impl Operation for Decay {
    fn check(&self, check: &Check<'_>) -> Result<(), Fault> {
        let Self { a_log, dt_bias, dt, decay, least, most } = *self;
        check.floats(&[dt, decay])?;
        check.apart(&[dt, decay])?;
        check.equal(dt.width, decay.width)?;
        check.that(least >= 0.0 && least.is_finite() && (most == 0.0 || most >= least))?;
        check.vector(a_log, dt.width)?;
        check.vector(dt_bias, dt.width)
    }

    fn play(&self, player: &mut Player<'_>, layer: u32) -> Result<(), RunError> {
        let Self { a_log, dt_bias, dt, decay, least, most } = *self;
        player.with_vector(a_log, layer, decay, Combine::Set)?;
        player.with_vector(dt_bias, layer, dt, Combine::Add)?;
        let ([], mut steps) = player.values([], dt)?;
        for c in 0..steps.count {
            for dt in steps.column(c) {
                let step = softplus(*dt);
                let step = if step < least { least } else { step };
                *dt = if most > 0.0 && step > most { most } else { step };
            }
        }
        let ([steps], mut decays) = player.values([dt], decay)?;
        for c in 0..decays.count {
            for (decay, dt) in decays.column(c).iter_mut().zip(steps.column(c)) {
                *decay = exp(-exp(*decay) * dt);
            }
        }
        Ok(())
    }
}
