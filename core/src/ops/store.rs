//! Storing keys and values.

use super::{Form, Numbers, Operation, operands};
use crate::engine::player::{Player, Stored};
use crate::error::{Fault, RunError};
use crate::program::Check;
use crate::state::State;
use crate::state::kv::Cache;
use serde::{Deserialize, Serialize};

/// Stores each token's key and value in a KV cache, at its position. The next operation attends to
/// that cache.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[cfg_attr(
    feature = "schema",
    schemars(bound = "F::Name: schemars::JsonSchema, F::Value: schemars::JsonSchema")
)]
#[serde(deny_unknown_fields)]
pub struct Store<F: Form = Numbers> {
    /// The KV cache.
    pub state: F::Name,
    /// Keys, rotated.
    pub key: F::Value,
    /// Values.
    pub value: F::Value,
}

operands!(Store { state state, read key, read value });

impl Operation for Store {
    fn check(&self, check: &Check<'_>) -> Result<(), Fault> {
        check.tokens(&[self.key, self.value])?;
        check.equal(self.key.width, self.value.width)?;
        check.states(self.state, |state| {
            matches!(state, State::Kv { heads, width, .. } if heads * width == self.key.width)
        })
    }

    fn play(&self, player: &mut Player<'_>, layer: u32) -> Result<(), RunError> {
        let index = self.state.at(layer);
        let window = player.kv_window(index)?;
        let stored = Stored { state: index, key: self.key, value: self.value };
        let mut next = 0;
        while let Some(run) = player.inputs.run(next) {
            next = run.columns.end;
            if !window.slides() && run.position_of(run.columns.end) > window.places {
                // What a full ring replaces is still to be seen: attention stores column by column.
                player.pending = Some(stored);
                continue;
            }
            let Player { memory, states, program, plan, inputs, .. } = player;
            let (key, value) = (memory.read(program, self.key)?, memory.read(program, self.value)?);
            let held = 0..run.position.min(window.places);
            let (state, bytes) = states.get(program, plan, index, run.sequence, held)?;
            let shape = plan.cache_shape(&state).ok_or(RunError::Program)?;
            let mut cache = Cache::new(bytes, &shape, window).ok_or(RunError::Program)?;
            for c in run.columns.clone() {
                let position = run.position_of(c);
                cache.append(position, key.column(c), value.column(c));
                if let Some(spare) = inputs.spare() {
                    cache.copy(window.place(position), spare + c as u32);
                }
            }
            for c in run.columns.clone() {
                states.changed(window.place(run.position_of(c)));
                if let Some(spare) = inputs.spare() {
                    states.changed(spare + c as u32);
                }
            }
        }
        Ok(())
    }
}
