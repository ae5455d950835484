//! Operators in signed bytes, as TensorFlow Lite's reference kernels compute them (arXiv:1712.05877).

mod convolve;
mod functions;
mod pairs;
mod recurrent;

use super::*;
use crate::fixed_point::quantize_multiplier;
use crate::graph::{Names, ValueRef};
use omex_core::fixed_point::multiply_by_quantized_multiplier;
use omex_core::ops::{AveragePool, QuantizedFunction, Softmax};

impl Door<'_> {
    /// An operator whose result is in signed bytes.
    pub(super) fn int8(&mut self, call: &Call<'_>) -> Drawn<View> {
        let to = self.result(call)?;
        match call.operator.code {
            ADD => self.add(call),
            SUB => self.subtract(call),
            MUL => self.multiply(call),
            MAXIMUM => self.extreme(call, QuantizedFunction::Max),
            MINIMUM => self.extreme(call, QuantizedFunction::Min),
            MEAN => self.sum(call, true),
            SUM => self.sum(call, false),
            CONV => self.conv(call, false),
            DEPTHWISE_CONV => self.conv(call, true),
            TRANSPOSE_CONV => self.conv_transposed(call),
            FULLY_CONNECTED => self.fully_connected(call),
            AVERAGE_POOL => self.average_pool(call),
            SOFTMAX => self.softmax_of_bytes(call),
            SEQUENCE_LSTM => self.lstm_of_bytes(call),
            RESIZE_BILINEAR | RESIZE_NEAREST => {
                let from = own_scale(&self.bytes(call, 0)?)?;
                if from != scale(to)? {
                    return Err(Refused::new("scales that differ", "the input's scale"));
                }
                self.resized(call)
            }
            RELU | RELU6 | RELU_N1_TO_1 | LOGISTIC | TANH | HARD_SWISH | LEAKY_RELU | ELU => {
                self.function(call)
            }
            QUANTIZE => {
                let view = self.view(call, 0)?;
                match view.dtype {
                    Dtype::I8 => self.rescaled(&view, scale(to)?),
                    _ => self.drawing.quantize(&view, scale(to)?, true),
                }
            }
            _ => Err(Refused::new("this operator in signed bytes", "one that is supported")),
        }
    }

    /// A function of one byte, as a table.
    fn function(&mut self, call: &Call<'_>) -> Drawn<View> {
        let view = self.bytes(call, 0)?;
        let (from, to) = (own_scale(&view)?, scale(self.result(call)?)?);
        let fixed = |scale: Scale| match to == scale {
            true => Ok(()),
            false => {
                let expected = format!("{} and zero point {}", scale.scale, scale.zero);
                Err(Refused::new("another scale of the result", expected))
            }
        };
        match call.operator.code {
            LOGISTIC => {
                fixed(Scale { scale: 1.0 / 256.0, zero: -128 })?;
                self.drawing.lookup(&view, to, functions::logistic(from))
            }
            TANH => {
                fixed(Scale { scale: 1.0 / 128.0, zero: 0 })?;
                self.drawing.lookup(&view, to, functions::tanh(from))
            }
            HARD_SWISH => self.drawing.lookup(&view, to, functions::hard_swish(from, to)?),
            LEAKY_RELU => {
                let slope = call.float(0);
                self.drawing.lookup(&view, to, functions::leaky_relu(from, to, slope))
            }
            ELU => {
                let elu = |x: f32| if x < 0.0 { x.exp_m1() } else { x };
                self.drawing.lookup(&view, to, functions::of_floats(from, to, elu))
            }
            relu => {
                let activation = match relu {
                    RELU => 1,
                    RELU6 => 3,
                    _ => 2,
                };
                let [low, high] = clamp(activation, to)?;
                let rescaled = rescaling(from, to);
                self.drawing.lookup(&view, to, |x| rescaled(x).clamp(low, high))
            }
        }
    }

    /// An input of signed bytes.
    fn bytes(&mut self, call: &Call<'_>, place: usize) -> Drawn<View> {
        let view = self.view(call, place)?;
        match view.dtype {
            Dtype::I8 => Ok(view),
            _ => Err(Refused::new("an input of floats", "signed bytes")),
        }
    }

    /// The same numbers in steps of another worth.
    pub(super) fn rescaled(&mut self, view: &View, to: Scale) -> Drawn<View> {
        let from = own_scale(view)?;
        if from == to {
            return Ok(view.clone());
        }
        let rescaled = rescaling(from, to);
        self.drawing.lookup(view, to, rescaled)
    }

    fn average_pool(&mut self, call: &Call<'_>) -> Drawn<View> {
        let input = self.bytes(call, 0)?;
        let window = self.window(call, &input.shape, [call.option(4), call.option(3)])?;
        let to = scale(self.result(call)?)?;
        if own_scale(&input)? != to {
            return Err(Refused::new("scales that differ", "the input's scale"));
        }
        let channels = input.shape[3];
        let image = self.drawing.image(&input, [input.shape[1], input.shape[2], channels])?;
        let [height, width] = window.result;
        let shape = [1, height, width, channels];
        let result = View { scale: Some(to), ..self.drawing.value(Dtype::I8, &shape)? };
        self.drawing.push(AveragePool::<Names> {
            input: image,
            output: ValueRef::all(&result.buffer),
            kernel: Window::sides(window.kernel)?,
            stride: Window::sides(window.stride)?,
            pad: Window::sides(window.pad)?,
            clamp: clamp(call.option(5), to)?,
        });
        Ok(result)
    }

    fn softmax_of_bytes(&mut self, call: &Call<'_>) -> Drawn<View> {
        let input = self.bytes(call, 0)?;
        let file = self.result(call)?;
        let to = scale(file)?;
        if to != (Scale { scale: 1.0 / 256.0, zero: -128 }) {
            return Err(Refused::new("another scale of the result", "1/256 and zero point -128"));
        }
        let length = file.shape.last().copied().unwrap_or(1);
        if input.count() == length {
            let row = self.drawing.dense(&input)?;
            let result = self.softmax_of_row(call, &row)?;
            return self.drawing.reshape(&result, &file.shape);
        }
        let rows = self.drawing.reshape(&input, &[input.count() / length.max(1), length])?;
        self.drawing.room(rows.shape[0].saturating_mul(2))?;
        let mut results = vec![];
        for row in 0..rows.shape[0] {
            let row = self.drawing.dense(&rows.sliced(0, row as i64, 1, 1)?)?;
            results.push(self.softmax_of_row(call, &row)?);
        }
        let joined = self.drawing.concat(&results, 0)?;
        self.drawing.reshape(&joined, &file.shape)
    }

    fn softmax_of_row(&mut self, call: &Call<'_>, input: &View) -> Drawn<View> {
        let to = scale(self.result(call)?)?;
        let beta = if call.operator.options.is_empty() { 1.0 } else { call.float(0) };
        // Differences have 5 bits before the point.
        let most = f64::from(i32::MAX);
        let from = f64::from(own_scale(input)?.scale);
        let (multiplier, shift) =
            quantize_multiplier((f64::from(beta) * from * f64::from(1u32 << 26)).min(most));
        let shift = u8::try_from(shift).ok().filter(|shift| *shift <= 26);
        let shift = shift.ok_or_else(|| Refused::new("scores of this scale", "a usual scale"))?;
        let radius = (31i64 << 26) as f64 / (1i64 << shift) as f64;
        // The result lies as its scores do.
        let dims = self.drawing.shape_of(input);
        let result = View { scale: Some(to), ..self.drawing.value(Dtype::I8, &dims)? };
        let output = ValueRef::all(&result.buffer);
        let least_difference = -(radius.floor() as i32);
        let input = self.drawing.operand(input);
        self.drawing.push(Softmax::<Names> { input, output, multiplier, shift, least_difference });
        Ok(result)
    }
}

/// The scale that a view of signed bytes has.
fn own_scale(view: &View) -> Drawn<Scale> {
    view.scale.ok_or_else(|| Refused::new("signed bytes without a scale", "one"))
}

/// Signed bytes in steps of another worth.
fn rescaling(from: Scale, to: Scale) -> impl Fn(i8) -> i8 {
    let (multiplier, shift) = quantize_multiplier(f64::from(from.scale) / f64::from(to.scale));
    move |x| {
        let scaled = multiply_by_quantized_multiplier(i32::from(x) - from.zero, multiplier, shift);
        scaled.saturating_add(to.zero).clamp(-128, 127) as i8
    }
}
