//! Short causal convolutions (LFM2, Mamba).

use super::{Form, Numbers, Operation, operands};
use crate::engine::player::{Combine, Player, stream};
use crate::error::{Fault, RunError};
use crate::pass::Run;
use crate::program::{Check, Program};
use crate::quant::Format;
use crate::state::State;
use serde::{Deserialize, Serialize};
use zerocopy::FromBytes;

/// `output` at a position = `bias` + Σ over taps t of `weight[t]` · `input` at t - (taps - 1) positions from
/// it, elementwise. The state holds the inputs of the last taps - 1 positions, oldest first.
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
    /// Vector [width], added at last.
    #[serde(default)]
    pub bias: Option<F::Name>,
    /// What is convolved.
    pub input: F::Value,
    /// The result, apart from the input.
    pub output: F::Value,
    /// Number of taps, at least 2.
    pub taps: u32,
}

operands!(ShortConv {
    state state, weight weight, maybe_weight bias, read input, write output; taps
});

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
        })?;
        self.bias.map_or(Ok(()), |bias| check.vector(bias, width))
    }

    fn play(&self, player: &mut Player<'_>, layer: u32) -> Result<(), RunError> {
        let index = self.state.at(layer);
        let mut next = 0;
        while let Some(run) = player.inputs.run(next) {
            next = run.columns.end;
            self.convolve(player, layer, index, &run)?;
            self.keep(player, index, &run)?;
        }
        match self.bias {
            Some(bias) => player.with_vector(bias, layer, self.output, Combine::Add),
            None => Ok(()),
        }
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
        let past = <[f32]>::mut_from_bytes(past).map_err(|_| RunError::Program)?;
        if run.position == 0 {
            past.fill(0.0);
        }
        let past = &*past;
        run.columns.clone().for_each(|c| output.column(c).fill(0.0));
        let mut weights = stream(pages, carry, &tensor);
        let mut done = 0;
        while let Some(bytes) = weights.next_units()? {
            let (mut weights, _) = bytes.as_chunks::<4>();
            while !weights.is_empty() {
                let (tap, first) = (done / width, done % width);
                let (of_tap, rest) = weights.split_at(weights.len().min(width - first));
                for c in run.columns.clone() {
                    let x = match source(run, c + tap, before) {
                        Source::Column(column) => input.column(column).get(first..),
                        Source::Past(row) => past.get(row * width + first..),
                    };
                    let y = output.column(c).get_mut(first..).unwrap_or_default();
                    let pairs = y.iter_mut().zip(x.unwrap_or_default());
                    for ((y, x), weight) in pairs.zip(of_tap) {
                        *y += f32::from_le_bytes(*weight) * x;
                    }
                }
                done += of_tap.len();
                weights = rest;
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
        let past = <[f32]>::mut_from_bytes(past).map_err(|_| RunError::Program)?;
        for row in 0..before {
            // A row is made from itself or a later one, which still holds what it held.
            match source(run, run.columns.end + row, before) {
                Source::Column(column) => {
                    let kept = past.get_mut(row * width..).unwrap_or_default();
                    kept.iter_mut().zip(input.column(column)).for_each(|(kept, x)| *kept = *x);
                }
                Source::Past(from) => {
                    let end = past.len().min((from + 1) * width);
                    past.copy_within((from * width).min(end)..end, row * width);
                }
            }
        }
        Ok(())
    }
}

/// Where an input lies.
enum Source {
    /// In this column of the pass.
    Column(usize),
    /// In this row of the state.
    Past(usize),
}

/// Where the input `before` columns before column `at` lies.
fn source(run: &Run, at: usize, before: usize) -> Source {
    match at.checked_sub(before).filter(|column| *column >= run.columns.start) {
        Some(column) => Source::Column(column),
        None => Source::Past(at.saturating_sub(run.columns.start)),
    }
}
