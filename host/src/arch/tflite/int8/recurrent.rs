//! Recurrent layers in integers.

use super::super::recurrent::Sequence;
use super::*;
use crate::arch::blueprint::{Data, Role};
use omex_core::ops::{Fill, QuantizedLstm};

/// Entries of the reference's table of sigmoids that are one more than what lies nearest.
const ROUNDED_UP: [usize; 44] = [
    4, 8, 12, 14, 15, 16, 17, 19, 20, 21, 22, 25, 27, 28, 29, 30, 31, 33, 34, 35, 37, 39, 40, 41,
    43, 44, 45, 46, 49, 50, 54, 62, 63, 64, 66, 82, 86, 93, 100, 103, 112, 116, 135, 255,
];

/// The gates as an operation has them, by their places among the inputs: input, forget, cell, output.
const GATES: [usize; 4] = [0, 1, 2, 3];

impl Door<'_> {
    /// An LSTM over a sequence, which begins with zeros each time.
    pub(super) fn lstm_of_bytes(&mut self, call: &Call<'_>) -> Drawn<View> {
        let view = self.bytes(call, 0)?;
        let Sequence { steps, inputs, clip } = self.sequence(call, &view.shape)?;
        let input = own_scale(&view)?;
        let file = self.result(call)?;
        let output = scale(file)?;
        let hidden = file.shape.last().copied().unwrap_or(0);
        let input_weight = self.gates(call, (1, Some(12)), input, [hidden, inputs])?;
        let recurrent_weight = self.gates(call, (5, None), output, [hidden, hidden])?;
        let sigmoids = self.drawing.weight(Role::Vector, [1, 256], Data::Computed(sigmoids()));
        let cell_scale = self.cell_scale(call)?;
        let cell_bits = (-cell_scale.log2()) as u8;
        // The reference cuts the bound off.
        let clip = (f64::from(clip) / f64::from(cell_scale)).clamp(0.0, f64::from(i16::MAX)) as u16;
        let unit = 2.0f64.powi(-30);
        let (multiplier, shift) = quantize_multiplier(unit / f64::from(output.scale));

        let rows = self.drawing.reshape(&view, &[steps, inputs])?;
        let rows = self.drawing.dense(&rows)?;
        let cell = self.filled(Dtype::I16, hidden, 0)?;
        let mut before = self.filled(Dtype::I8, hidden, output.zero)?;
        // A step, and a copy of its output.
        self.drawing.room(steps.saturating_mul(2))?;
        let mut outputs = vec![];
        for step in 0..steps {
            let row = rows.sliced(0, step as i64, 1, 1)?;
            let next = View { scale: Some(output), ..self.drawing.value(Dtype::I8, &[1, hidden])? };
            self.drawing.push(QuantizedLstm::<Names> {
                input_weight: input_weight.clone(),
                recurrent_weight: recurrent_weight.clone(),
                sigmoids: sigmoids.clone(),
                input: self.drawing.operand(&row),
                before: ValueRef::all(&before.buffer),
                cell: ValueRef::all(&cell.buffer),
                output: ValueRef::all(&next.buffer),
                input_zero: input.zero,
                output_zero: output.zero,
                cell_bits,
                clip,
                multiplier,
                shift,
            });
            before = next.clone();
            outputs.push(next);
        }
        let joined = self.drawing.concat(&outputs, 0)?;
        self.drawing.reshape(&joined, &file.shape)
    }

    fn filled(&mut self, dtype: Dtype, width: usize, number: i32) -> Drawn<View> {
        let view = self.drawing.value(dtype, &[1, width])?;
        let number = number as f32;
        self.drawing.push(Fill::<Names> { output: ValueRef::all(&view.buffer), number });
        Ok(view)
    }

    /// What a step of what is remembered is worth: a power of two.
    fn cell_scale(&self, call: &Call<'_>) -> Drawn<f32> {
        let index = call.operator.inputs.get(19).copied().flatten();
        let tensor = index.and_then(|index| self.model.tensors.get(index));
        let scale = tensor.and_then(|tensor| tensor.scales.first().copied()).unwrap_or(0.0);
        let power =
            scale > 0.0 && scale.log2().fract() == 0.0 && (-15.0..=0.0).contains(&scale.log2());
        match power && tensor.is_some_and(|tensor| tensor.kind == kind::I16) {
            true => Ok(scale),
            false => {
                let expected = "16 bits in steps of a power of two from 2^-15 to 1";
                Err(Refused::new(format!("a cell in steps of {scale}"), expected))
            }
        }
    }

    /// The rows of all gates, whose weights begin at an input of the operator, and biases at another.
    fn gates(
        &mut self,
        call: &Call<'_>,
        (weights, biases): (usize, Option<usize>),
        from: Scale,
        [hidden, columns]: [usize; 2],
    ) -> Drawn<String> {
        // Sums are in steps of 2^-12.
        let to = 1.0 / 4096.0;
        let mut bytes = vec![];
        for gate in GATES {
            let tensor = self.weights(call, weights + gate)?;
            let biases = biases.map_or(usize::MAX, |biases| biases + gate);
            let place = |channel: usize, at: usize| channel * columns + at;
            bytes.extend(self.rows(
                call,
                (tensor, biases),
                (from.scale, to),
                [hidden, columns],
                place,
            )?);
        }
        let rows = GATES.len() * hidden;
        Ok(self.drawing.weight(Role::Channels, [rows, columns], Data::Raw(bytes)))
    }
}

/// 65536 / (1 + e^(-i / 24)), as the reference has them.
fn sigmoids() -> Vec<f32> {
    let exact = |i: usize| 65536.0 / (1.0 + (-(i as f64) / 24.0).exp());
    let mut sigmoids: Vec<f32> = (0..256).map(|i| exact(i).round() as f32).collect();
    for place in ROUNDED_UP {
        sigmoids[place] += 1.0;
    }
    sigmoids
}
