//! Recurrent layers.

use super::super::tensors::{Gates, Weights};
use super::*;

/// Where the weights of the gates lie among the inputs: of the input, of the state, and the biases; each of the
/// input, the forget, the cell and the output gate.
const INPUT: usize = 1;
const RECURRENT: usize = 5;
const BIAS: usize = 12;
/// Peepholes, projections, and the normalization of layers.
const OTHERS: [usize; 9] = [9, 10, 11, 16, 17, 20, 21, 22, 23];
/// The states.
const STATES: [usize; 2] = [18, 19];

/// A sequence that goes through a recurrent layer.
pub(super) struct Sequence {
    pub(super) steps: usize,
    pub(super) inputs: usize,
    /// The largest magnitude of what is remembered; 0: no bound.
    pub(super) clip: f32,
}

impl Door<'_> {
    /// What an LSTM goes over, if it is one of usual gates.
    pub(super) fn sequence(&self, call: &Call<'_>, shape: &[usize]) -> Drawn<Sequence> {
        let has = |place: usize| call.operator.inputs.get(place).copied().flatten().is_some();
        if OTHERS.into_iter().any(has) || (0..4).any(|gate| !has(INPUT + gate) || !has(BIAS + gate))
        {
            let expected = "input, forget, cell and output gates with biases, and nothing else";
            return Err(Refused::new("an LSTM of other gates", expected));
        }
        if STATES.into_iter().any(|place| self.input(call, place).is_ok()) {
            return Err(Refused::new("states that are known", "states of zeros"));
        }
        if call.option(0) != 4 {
            let found = format!("fused activation {}", call.option(0));
            return Err(Refused::new(found, "TANH"));
        }
        let [first, second, inputs] = shape[..] else {
            return Err(Refused::new(format!("a sequence {shape:?}"), "[1, steps, inputs]"));
        };
        let (batch, steps) = if call.option(3) != 0 { (second, first) } else { (first, second) };
        if batch != 1 {
            return Err(Refused::new(format!("{batch} sequences"), "one"));
        }
        Ok(Sequence { steps, inputs, clip: call.float(1).max(0.0) })
    }

    /// An LSTM over a sequence, which begins with zeros each time.
    pub(super) fn lstm(&mut self, call: &Call<'_>) -> Drawn<View> {
        let x = self.view(call, 0)?;
        let Sequence { steps, inputs, clip } = self.sequence(call, &x.shape)?;
        let x = self.drawing.reshape(&x, &[steps, inputs])?;
        // As the drawing has them: input, forget, output, cell.
        let order = [0, 1, 3, 2];
        let clip = Some(clip).filter(|clip| *clip > 0.0);
        let mut gates = Gates { clip, ..Gates::default() };
        for gate in order {
            gates.input.extend(self.known(call, INPUT + gate)?);
            gates.recurrent.extend(self.known(call, RECURRENT + gate)?);
            gates.bias.extend(self.known(call, BIAS + gate)?);
        }
        let hidden = gates.bias.len() / 4;
        let run = self.drawing.lstm(&x, &gates, hidden, [None, None], false)?;
        self.drawing.reshape(&run.outputs, &self.result(call)?.shape)
    }

    /// The floats of an input that is known.
    fn known(&self, call: &Call<'_>, place: usize) -> Drawn<Vec<f32>> {
        let Weights { numbers, .. } = self.float_weights(call, place, usize::MAX)?;
        Ok(numbers)
    }
}
