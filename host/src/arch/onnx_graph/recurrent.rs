//! Recurrent layers.

use super::super::tensors::{Gates, Run};
use super::*;

impl Call<'_> {
    /// An LSTM or a GRU over [steps, 1, inputs].
    pub(super) fn recurrent(&mut self) -> Drawn<Vec<Option<Tensor>>> {
        let is_lstm = self.node.operation == "LSTM";
        let hidden = self.number("hidden_size", 0).clamp(0, FAR) as usize;
        let plain = ["activations", "activation_alpha", "activation_beta", "clip"];
        let custom = plain.iter().any(|name| self.node.attributes.contains_key(*name));
        if custom || self.number("layout", 0) != 0 || self.number("input_forget", 0) != 0 {
            let expected = "the default activations and layout, nothing clipped";
            return Err(Refused::new("a layer of another kind", expected));
        }
        if self.has(4) && self.known(4).is_err() {
            return Err(Refused::new("lengths that are computed", "none"));
        }
        if self.has(7) {
            return Err(Refused::new("peepholes", "none"));
        }
        let backward = match self.text("direction") {
            "" | "forward" => [false].as_slice(),
            "reverse" => &[true],
            _ => &[false, true],
        };
        let x = self.view(0)?;
        let [steps, 1, inputs] = x.shape[..] else {
            return Err(Refused::new(format!("a sequence {:?}", x.shape), "[steps, 1, inputs]"));
        };
        let x = self.drawing().reshape(&x, &[steps, inputs])?;
        let mut runs = vec![];
        for (direction, backward) in backward.iter().enumerate() {
            let gates = self.gates(direction, [hidden, inputs], is_lstm)?;
            let state = self.state(5, direction, hidden)?;
            runs.push(match is_lstm {
                true => {
                    let cell = self.state(6, direction, hidden)?;
                    self.drawing().lstm(&x, &gates, hidden, [state, cell], *backward)?
                }
                false => {
                    let after = self.number("linear_before_reset", 0) != 0;
                    self.drawing().gru(&x, &gates, hidden, state, (*backward, after))?
                }
            });
        }
        self.results(runs, [steps, hidden])
    }

    /// All steps' outputs [steps, directions, 1, hidden], and the last states [directions, 1, hidden].
    fn results(
        &mut self,
        runs: Vec<Run>,
        [steps, hidden]: [usize; 2],
    ) -> Drawn<Vec<Option<Tensor>>> {
        let mut all = [vec![], vec![], vec![]];
        for run in runs {
            let drawing = self.drawing();
            all[0].push(drawing.reshape(&run.outputs, &[steps, 1, 1, hidden])?);
            all[1].push(drawing.reshape(&run.state, &[1, 1, hidden])?);
            if let Some(cell) = &run.cell {
                all[2].push(drawing.reshape(cell, &[1, 1, hidden])?);
            }
        }
        let mut results = vec![];
        for (place, views) in all.iter().enumerate() {
            let wanted = self.node.outputs.get(place).is_some_and(|name| !name.is_empty());
            results.push(match &views[..] {
                _ if !wanted => None,
                [] => None,
                [one] => Some(Tensor::Computed(one.clone())),
                views => {
                    let at = if place == 0 { 1 } else { 0 };
                    Some(Tensor::Computed(self.drawing().concat(views, at)?))
                }
            });
        }
        Ok(results)
    }

    /// The weights of a direction, in the drawing's order of gates.
    fn gates(&self, direction: usize, [hidden, inputs]: [usize; 2], is_lstm: bool) -> Drawn<Gates> {
        let count = if is_lstm { 4 } else { 3 };
        let rows = count * hidden;
        let part = |place: usize, width: usize| -> Drawn<Vec<f32>> {
            let numbers = self.known(place)?.to_floats();
            let part = numbers.get(direction * rows * width..(direction + 1) * rows * width);
            let found = format!("{} numbers as input {place}", numbers.len());
            part.map(<[f32]>::to_vec)
                .ok_or_else(|| Refused::new(found, format!("{} a direction", rows * width)))
        };
        let (bias, recurrent_bias) = match self.has(3) {
            true => {
                let both = part(3, 2)?;
                (both[..rows].to_vec(), both[rows..].to_vec())
            }
            false => (vec![0.0; rows], vec![0.0; rows]),
        };
        let gates = Gates {
            input: part(1, inputs)?,
            recurrent: part(2, hidden)?,
            bias,
            recurrent_bias: Some(recurrent_bias),
            clip: None,
        };
        if !is_lstm {
            return Ok(gates);
        }
        // Input, output, forget and cell become input, forget, output and cell.
        let sorted = |numbers: &[f32]| {
            let each = numbers.len() / 4;
            [0, 2, 1, 3].iter().flat_map(|gate| numbers[gate * each..][..each].to_vec()).collect()
        };
        let added = gates.bias.iter().zip(gates.recurrent_bias.iter().flatten());
        let bias: Vec<f32> = added.map(|(a, b)| a + b).collect();
        Ok(Gates {
            input: sorted(&gates.input),
            recurrent: sorted(&gates.recurrent),
            bias: sorted(&bias),
            recurrent_bias: None,
            clip: None,
        })
    }

    /// The state that a direction begins with, if one is given.
    fn state(&mut self, place: usize, direction: usize, hidden: usize) -> Drawn<Option<View>> {
        if !self.has(place) {
            return Ok(None);
        }
        let view = self.view(place)?.sliced(0, direction as i64, 1, 1)?;
        self.drawing().reshape(&view, &[1, hidden]).map(Some)
    }
}
