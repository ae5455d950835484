//! What a graph that takes no tokens keeps from one pass to the next.

use super::{Fill, Form, Numbers, Operation, operands};
use crate::engine::player::Player;
use crate::error::{Fault, RunError};
use crate::program::{Check, Per, PerLayer, Value};
use crate::state::State;
use serde::{Deserialize, Serialize};

/// `output` = what `Keep` put into `state` in the pass before; in the first pass, `initial` in every element.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[cfg_attr(
    feature = "schema",
    schemars(bound = "F::Name: schemars::JsonSchema, F::Value: schemars::JsonSchema")
)]
#[serde(deny_unknown_fields)]
pub struct Recall<F: Form = Numbers> {
    /// Bytes, as many as the output has.
    pub state: F::Name,
    /// A value of one column.
    pub output: F::Value,
    /// The number in the first pass; of integers, a whole one that fits.
    #[serde(default)]
    pub initial: f32,
}

operands!(Recall { state state, write output; initial });

/// `state` = `input`, a value of one column, for the next pass.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[cfg_attr(
    feature = "schema",
    schemars(bound = "F::Name: schemars::JsonSchema, F::Value: schemars::JsonSchema")
)]
#[serde(deny_unknown_fields)]
pub struct Keep<F: Form = Numbers> {
    /// The value.
    pub input: F::Value,
    /// Bytes, as many as the input has.
    pub state: F::Name,
}

operands!(Keep { read input, state state; });

/// Checks that a state has the bytes of a value, in a program whose passes follow one another.
fn check_bytes(check: &Check<'_>, state: PerLayer, value: Value) -> Result<(), Fault> {
    let (per, dtype) = check.value(value)?;
    check.that(per == Per::Pass && check.program().header().vocab_size == 0)?;
    let bytes = u64::from(value.width) * u64::from(dtype.bytes());
    check.states(state, |s| matches!(s, State::Bytes(n) if u64::from(n) == bytes))
}

impl Recall {
    fn fill(&self) -> Fill {
        Fill { output: self.output, number: self.initial }
    }
}

impl Operation for Recall {
    fn check(&self, check: &Check<'_>) -> Result<(), Fault> {
        check_bytes(check, self.state, self.output)?;
        self.fill().check(check)
    }

    fn play(&self, player: &mut Player<'_>, layer: u32) -> Result<(), RunError> {
        if player.begins() {
            return self.fill().play(player, layer);
        }
        let Player { memory, program, plan, states, .. } = player;
        let (_, kept) = states.get(program, plan, self.state.at(layer), 0, 0..0)?;
        let output = memory.bytes_mut(program, self.output);
        output.iter_mut().zip(kept).for_each(|(x, kept)| *x = *kept);
        Ok(())
    }
}

impl Operation for Keep {
    fn check(&self, check: &Check<'_>) -> Result<(), Fault> {
        check_bytes(check, self.state, self.input)
    }

    fn play(&self, player: &mut Player<'_>, layer: u32) -> Result<(), RunError> {
        let Player { memory, program, plan, states, .. } = player;
        let (_, kept) = states.get(program, plan, self.state.at(layer), 0, 0..0)?;
        let input = memory.bytes_mut(program, self.input);
        kept.iter_mut().zip(input).for_each(|(kept, x)| *kept = *x);
        Ok(())
    }
}
