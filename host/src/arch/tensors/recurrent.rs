//! Recurrent layers, step by step.

use super::drawing::{Drawing, Tensor};
use super::layers::Weights;
use super::refused::{Drawn, Refused};
use super::view::View;
use crate::import::Array;
use omex_core::ops::{Activation, BinaryFunction};
use omex_core::program::Dtype;

/// The weights of a layer's gates, one below the other.
#[derive(Clone, Debug, Default, PartialEq)]
pub(in super::super) struct Gates {
    /// [gates, hidden, inputs].
    pub(in super::super) input: Vec<f32>,
    /// [gates, hidden, hidden].
    pub(in super::super) recurrent: Vec<f32>,
    /// [gates, hidden].
    pub(in super::super) bias: Vec<f32>,
    /// [gates, hidden], of what the recurrent weights give; none where it is part of the other.
    pub(in super::super) recurrent_bias: Option<Vec<f32>>,
    /// The largest magnitude of an LSTM's cell.
    pub(in super::super) clip: Option<f32>,
}

/// What a layer gives.
pub(in super::super) struct Run {
    /// [steps, hidden].
    pub(in super::super) outputs: View,
    /// [hidden].
    pub(in super::super) state: View,
    /// [hidden]; of an LSTM.
    pub(in super::super) cell: Option<View>,
}

/// The most steps that are drawn.
const MAX_STEPS: usize = 128;

impl Drawing {
    /// A long short-term memory (doi:10.1162/neco.1997.9.8.1735) over x [steps, inputs], whose gates are in the
    /// order input, forget, output, cell. States [hidden] are zeros if they are not given.
    pub(in super::super) fn lstm(
        &mut self,
        x: &View,
        gates: &Gates,
        hidden: usize,
        [mut state, mut cell]: [Option<View>; 2],
        backward: bool,
    ) -> Drawn<Run> {
        let (projected, steps) = self.projected(x, gates, hidden, 4)?;
        let outputs = self.value(Dtype::F32, &[steps, hidden])?;
        for step in order(steps, backward) {
            let mut sums = projected.sliced(0, step, 1, 1)?;
            if let Some(state) = &state {
                let recurrent = self.recurrent(state, gates, hidden, 4)?;
                sums = self.sum(&sums, &recurrent)?;
            }
            let part = |first: usize, count: usize| {
                sums.sliced(1, (first * hidden) as i64, count * hidden, 1)
            };
            let (open, new) = (part(0, 3)?, part(3, 1)?);
            let open = self.activate(&open, Activation::Sigmoid)?;
            let new = self.activate(&new, Activation::Tanh)?;
            let gate = |number: usize| open.sliced(1, (number * hidden) as i64, hidden, 1);
            let (input, forget, output) = (gate(0)?, gate(1)?, gate(2)?);
            let mut next = self.product(&input, &new)?;
            if let Some(cell) = &cell {
                let kept = self.product(&forget, cell)?;
                next = self.sum(&kept, &next)?;
            }
            if let Some(most) = gates.clip {
                next = self.clip(&next, Some(-most), Some(most))?;
            }
            let squashed = self.activate(&next, Activation::Tanh)?;
            let now = self.product(&output, &squashed)?;
            self.copy(&now, &outputs.sliced(0, step, 1, 1)?)?;
            (state, cell) = (Some(now), Some(next));
        }
        ended(outputs, state, cell, hidden, self)
    }

    /// A gated recurrent unit (arXiv:1406.1078) over x [steps, inputs], whose gates are in the order update,
    /// reset, new. With `reset_after`, the reset gate is applied to the state's product.
    pub(in super::super) fn gru(
        &mut self,
        x: &View,
        gates: &Gates,
        hidden: usize,
        mut state: Option<View>,
        (backward, reset_after): (bool, bool),
    ) -> Drawn<Run> {
        let (projected, steps) = self.projected(x, gates, hidden, 3)?;
        let outputs = self.value(Dtype::F32, &[steps, hidden])?;
        for step in order(steps, backward) {
            let row = projected.sliced(0, step, 1, 1)?;
            let old = match &state {
                Some(state) => state.clone(),
                None => self.constant(&Array::floats(vec![1, hidden], vec![0.0; hidden]))?,
            };
            let part = |view: &View, first: usize, count: usize| {
                view.sliced(1, (first * hidden) as i64, count * hidden, 1)
            };
            let recurrent = self.recurrent(&old, gates, hidden, 3)?;
            let open = self.sum(&part(&row, 0, 2)?, &part(&recurrent, 0, 2)?)?;
            let open = self.activate(&open, Activation::Sigmoid)?;
            let (update, reset) = (part(&open, 0, 1)?, part(&open, 1, 1)?);
            let seen = match reset_after {
                true => self.product(&reset, &part(&recurrent, 2, 1)?)?,
                false => {
                    let kept = self.product(&reset, &old)?;
                    part(&self.recurrent(&kept, gates, hidden, 3)?, 2, 1)?
                }
            };
            let new = self.sum(&part(&row, 2, 1)?, &seen)?;
            let new = self.activate(&new, Activation::Tanh)?;
            // new + update · (old - new)
            let apart = self.binary(BinaryFunction::Subtract, &tensor(&old), &tensor(&new))?;
            let moved = self.product(&update, &apart)?;
            let now = self.sum(&new, &moved)?;
            self.copy(&now, &outputs.sliced(0, step, 1, 1)?)?;
            state = Some(now);
        }
        ended(outputs, state, None, hidden, self)
    }

    /// What all steps' inputs give to all gates, [steps, gates · hidden].
    fn projected(
        &mut self,
        x: &View,
        gates: &Gates,
        hidden: usize,
        count: usize,
    ) -> Drawn<(View, usize)> {
        let [steps, inputs] = x.shape[..] else {
            return Err(Refused::new(format!("{:?}", x.shape), "[steps, inputs]"));
        };
        if steps > MAX_STEPS {
            return Err(Refused::new(format!("{steps} steps"), format!("{MAX_STEPS} at most")));
        }
        let rows = count * hidden;
        let fits = gates.input.len() == rows * inputs
            && gates.recurrent.len() == rows * hidden
            && gates.bias.len() == rows
            && gates.recurrent_bias.as_ref().is_none_or(|bias| bias.len() == rows);
        if !fits || hidden == 0 {
            let expected = format!("those of {count} gates of {hidden} with {inputs} inputs");
            return Err(Refused::new("weights of other dimensions", expected));
        }
        let (numbers, bias) = (gates.input.clone(), Some(gates.bias.clone()));
        let weights = Weights { numbers, outputs: rows, depthwise: false, bias };
        Ok((self.multiply(x, &weights)?, steps))
    }

    /// What a state gives to all gates, [1, gates · hidden].
    fn recurrent(
        &mut self,
        state: &View,
        gates: &Gates,
        hidden: usize,
        count: usize,
    ) -> Drawn<View> {
        let state = self.reshape(state, &[1, hidden])?;
        let (numbers, bias) = (gates.recurrent.clone(), gates.recurrent_bias.clone());
        let weights = Weights { numbers, outputs: count * hidden, depthwise: false, bias };
        self.multiply(&state, &weights)
    }

    fn sum(&mut self, a: &View, b: &View) -> Drawn<View> {
        self.binary(BinaryFunction::Add, &tensor(a), &tensor(b))
    }

    fn product(&mut self, a: &View, b: &View) -> Drawn<View> {
        self.binary(BinaryFunction::Multiply, &tensor(a), &tensor(b))
    }
}

fn tensor(view: &View) -> Tensor {
    Tensor::Computed(view.clone())
}

/// The steps in the order in which they are taken.
fn order(steps: usize, backward: bool) -> Box<dyn Iterator<Item = i64>> {
    let steps = 0..steps as i64;
    if backward { Box::new(steps.rev()) } else { Box::new(steps) }
}

fn ended(
    outputs: View,
    state: Option<View>,
    cell: Option<View>,
    hidden: usize,
    drawing: &mut Drawing,
) -> Drawn<Run> {
    let state = state.ok_or_else(|| Refused::new("no steps", "one at least"))?;
    let state = drawing.reshape(&state, &[hidden])?;
    let cell = cell.map(|cell| drawing.reshape(&cell, &[hidden])).transpose()?;
    Ok(Run { outputs, state, cell })
}
