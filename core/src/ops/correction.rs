//! The second plane of a matrix.

use super::{Form, Numbers, Operation, operands};
use crate::engine::player::Player;
use crate::error::{Fault, RunError};
use crate::program::{Check, PartKind, Program};
use serde::{Deserialize, Serialize};

/// `output` += `weight` × `input`: what the matrix before it, the base plane, got wrong. A pass may
/// leave it out in any layer ([`Parts`](crate::program::Parts)).
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[cfg_attr(
    feature = "schema",
    schemars(
        bound = "F::Name: schemars::JsonSchema, F::Value: schemars::JsonSchema, F::Part: schemars::JsonSchema"
    )
)]
#[serde(deny_unknown_fields)]
pub struct Correction<F: Form = Numbers> {
    /// Matrix [output width, input width].
    pub weight: F::Name,
    /// What is multiplied.
    pub input: F::Value,
    /// What is added to.
    pub output: F::Value,
    /// A part that is no adapter.
    #[serde(default)]
    pub part: F::Part,
}

operands!(Correction { weight weight, read input, update output, part part });

impl Correction {
    fn linear(&self) -> super::Linear {
        let Self { weight, input, output, .. } = *self;
        super::Linear { weight, bias: None, input, output, accumulate: true }
    }
}

impl Operation for Correction {
    fn check(&self, check: &Check<'_>) -> Result<(), Fault> {
        check.part_is_not(self.part, PartKind::Adapter)?;
        self.linear().check(check)
    }

    fn play(&self, player: &mut Player<'_>, layer: u32) -> Result<(), RunError> {
        self.linear().play(player, layer)
    }

    fn multiply_adds(&self, program: &Program<'_>, layer: u32) -> (u64, u64) {
        self.linear().multiply_adds(program, layer)
    }
}
