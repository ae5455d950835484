//! Short causal convolutions (LFM2, Mamba).

use super::{Form, Numbers, Operation, operands};
use crate::columns::Columns;
use crate::engine::player::{Player, stream};
use crate::error::{Fault, RunError};
use crate::pass::Run;
use crate::program::{Check, Program};
use crate::quant::Format;
use crate::state::State;
use serde::{Deserialize, Serialize};

/// `output` at a position = Σ over taps t of `weight[t]` · `input` at t - (taps - 1) positions from it,
/// elementwise. The state holds the inputs of the last taps - 1 positions, oldest first.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[cfg_attr(
    feature = "schema",
    schemars(bound = "F::Name: schemars::JsonSchema, F::Value: schemars::JsonSchema")
)]
#[serde(deny_unknown_fields)]
pub struct ShortConv<F: Form = Numbers> {
    /// Bytes [taps - 1, width] of floats.
    pub state: F::Name,
    /// Vector [taps · width], tap after tap.
    pub weight: F::Name,
    /// What is convolved.
    pub input: F::Value,
    /// The result, apart from the input.
    pub output: F::Value,
    /// Number of taps, at least 2.
    pub taps: u32,
}

operands!(ShortConv { state state, weight weight, read input, write output; taps });

impl Operation for ShortConv {
    fn check(&self, check: &Check<'_>) -> Result<(), Fault> {
        check.tokens(&[self.input, self.output])?;
        check.equal(self.input.width, self.output.width)?;
        check.that((2..=64).contains(&self.taps))?;
        let width = self.input.width;
        let bytes = 4 * u64::from(self.taps - 1) * u64::from(width);
        check.states(self.state, |s| matches!(s, State::Bytes(n) if u64::from(n) == bytes))?;
        check.tensors(self.weight, |t| {
            t.format == Format::Vector
                && u64::from(t.columns) == u64::from(self.taps) * u64::from(width)
        })
    }

    fn play(&self, player: &mut Player<'_>, layer: u32) -> Result<(), RunError> {
        let index = self.state.at(layer);
        let mut next = 0;
        while let Some(run) = player.inputs.run(next) {
            next = run.columns.end;
            self.convolve(player, layer, index, &run)?;
            self.keep(player, index, &run)?;
        }
        Ok(())
    }

    fn multiply_adds(&self, _: &Program<'_>, _: u32) -> (u64, u64) {
        (u64::from(self.taps) * u64::from(self.input.width), 0)
    }
}

impl ShortConv {
    /// Adds up tap after tap, as the weights come.
    fn convolve(
        &self,
        player: &mut Player<'_>,
        layer: u32,
        index: u32,
        run: &Run,
    ) -> Result<(), RunError> {
        let tensor = player.tensor(self.weight, layer)?;
        let (width, before) = ((self.input.width as usize).max(1), self.taps as usize - 1);
        let Player { memory, program, plan, inputs, pages, carry, states, .. } = player;
        let ([input], mut output) =
            memory.split(program, inputs.counts(), [self.input], self.output)?;
        let (_, past) = states.get(program, plan, index, run.sequence, 0..0)?;
        if run.position == 0 {
            past.fill(0);
        }
        let past = past.as_chunks::<4>().0;
        run.columns.clone().for_each(|c| output.column(c).fill(0.0));
        let mut weights = stream(pages, carry, &tensor);
        let mut done = 0;
        while let Some(bytes) = weights.next_units()? {
            for weight in bytes.as_chunks::<4>().0 {
                let (tap, i) = (done / width, done % width);
                let weight = f32::from_le_bytes(*weight);
                for c in run.columns.clone() {
                    let x = source(input, past, run, c + tap, before, i);
                    if let Some(y) = output.column(c).get_mut(i) {
                        *y += weight * x;
                    }
                }
                done += 1;
            }
        }
        Ok(())
    }

    /// Keeps the last inputs for the next pass.
    fn keep(&self, player: &mut Player<'_>, index: u32, run: &Run) -> Result<(), RunError> {
        let (width, before) = ((self.input.width as usize).max(1), self.taps as usize - 1);
        let Player { memory, program, plan, states, .. } = player;
        let input = memory.read(program, self.input)?;
        let (_, past) = states.get(program, plan, index, run.sequence, 0..0)?;
        let past = past.as_chunks_mut::<4>().0;
        for row in 0..before {
            for i in 0..width {
                let x = source(input, past, run, run.columns.end + row, before, i);
                if let Some(kept) = past.get_mut(row * width + i) {
                    *kept = x.to_le_bytes();
                }
            }
        }
        Ok(())
    }
}

/// Element `i` of the input `before` columns before column `at`: of this pass, or of those before it.
fn source(
    input: Columns<'_>,
    past: &[[u8; 4]],
    run: &Run,
    at: usize,
    before: usize,
    i: usize,
) -> f32 {
    match at.checked_sub(before).filter(|column| *column >= run.columns.start) {
        Some(column) => input.column(column).get(i).copied().unwrap_or_default(),
        None => {
            let row = at.saturating_sub(run.columns.start);
            past.get(row * input.width + i).map_or(0.0, |x| f32::from_le_bytes(*x))
        }
    }
}
