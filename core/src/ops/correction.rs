//! The second plane of a matrix.

use super::{Form, Numbers, Operation, operands};
use crate::engine::Player;
use crate::error::{Fault, RunError};
use crate::program::Check;
use serde::{Deserialize, Serialize};

/// `output` += `weight` × `input`: what the matrix before it, the base plane, got wrong. A pass may
/// leave it out in any layer ([`Planes`](crate::program::Planes)).
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[cfg_attr(
    feature = "schema",
    schemars(bound = "F::Name: schemars::JsonSchema, F::Value: schemars::JsonSchema")
)]
#[serde(deny_unknown_fields)]
pub struct Correction<F: Form = Numbers> {
    /// Matrix [output width, input width].
    pub weight: F::Name,
    /// What is multiplied.
    pub input: F::Value,
    /// What is added to.
    pub output: F::Value,
}

operands!(Correction { weight weight, read input, update output });

impl Correction {
    fn linear(&self) -> super::Linear {
        let Self { weight, input, output } = *self;
        super::Linear { weight, bias: None, input, output, accumulate: true }
    }
}

impl Operation for Correction {
    fn check(&self, check: &Check<'_>) -> Result<(), Fault> {
        self.linear().check(check)
    }

    fn play(&self, player: &mut Player<'_>, layer: u32) -> Result<(), RunError> {
        self.linear().play(player, layer)
    }

    fn multiply_adds(&self, program: &crate::program::Program<'_>, layer: u32) -> (u64, u64) {
        self.linear().multiply_adds(program, layer)
    }
}
