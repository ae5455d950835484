//! Operators in signed bytes, as TensorFlow Lite's reference kernels compute them (arXiv:1712.05877).

use super::*;
use crate::arch::blueprint::{Data, Role};
use crate::graph::{Names, ValueRef};
use omex_core::fixed_point::multiply_by_quantized_multiplier;
use omex_core::ops::{AveragePool, Conv2d, QuantizedAdd, Softmax};

impl<'m> Door<'m> {
    /// An operator whose result is in signed bytes.
    pub(super) fn int8(&mut self, call: &Call<'_>) -> Drawn<View> {
        let to = self.result(call)?;
        match call.operator.code {
            ADD => self.add(call),
            CONV => self.conv(call, false),
            DEPTHWISE_CONV => self.conv(call, true),
            FULLY_CONNECTED => self.fully_connected(call),
            AVERAGE_POOL => self.average_pool(call),
            SOFTMAX => self.softmax_of_bytes(call),
            RELU | RELU6 | RELU_N1_TO_1 => {
                let view = self.bytes(call, 0)?;
                let activation = match call.operator.code {
                    RELU => 1,
                    RELU6 => 3,
                    _ => 2,
                };
                let [low, high] = clamp(activation, scale(to)?)?;
                let rescaled = rescaling(own_scale(&view)?, scale(to)?);
                self.drawing.lookup(&view, scale(to)?, |x| rescaled(x).clamp(low, high))
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

    fn conv(&mut self, call: &Call<'_>, depthwise: bool) -> Drawn<View> {
        let input = self.bytes(call, 0)?;
        let weights = self.weights(call, 1)?;
        let [outer, height, width, inner] = weights.shape[..] else {
            return Err(Refused::new(format!("weights {:?}", weights.shape), "four dimensions"));
        };
        let window = self.window(call, &input.shape, [height as i32, width as i32])?;
        if window.dilation != [1, 1] {
            return Err(Refused::new("a dilated convolution of signed bytes", "dilation 1"));
        }
        let to = self.result(call)?.shape[3];
        let from = input.shape[3];
        let (rows, each) = if depthwise { (inner, 1) } else { (outer, inner) };
        let fits = if depthwise { outer == 1 } else { inner == from };
        if !fits || rows != to {
            return Err(Refused::new(
                format!("weights {:?}", weights.shape),
                "as many as channels",
            ));
        }
        let per_channel = |channel: usize, at: usize| match depthwise {
            true => at * inner + channel,
            false => channel * height * width * inner + at,
        };
        let weight = self.channels(call, weights, [rows, height * width * each], per_channel)?;
        let sides = [input.shape[1], input.shape[2], from];
        let image = self.drawing.image(&input, sides)?;
        let [y, x] = window.result;
        let activation = call.option(if depthwise { 4 } else { 3 });
        self.convolved(
            call,
            (weight, image, own_scale(&input)?),
            window,
            [y, x, rows],
            (activation, depthwise),
        )
    }

    fn fully_connected(&mut self, call: &Call<'_>) -> Drawn<View> {
        let input = self.bytes(call, 0)?;
        let weights = self.weights(call, 1)?;
        let [rows, columns] = weights.shape[..] else {
            return Err(Refused::new(format!("weights {:?}", weights.shape), "two dimensions"));
        };
        if input.count() != columns {
            return Err(Refused::new(format!("{} inputs", input.count()), "as many as weights"));
        }
        let weight =
            self.channels(call, weights, [rows, columns], |channel, at| channel * columns + at)?;
        // A matrix over an image is a convolution whose window is as large.
        let sides = self.drawing.sides(&input, columns);
        let image = self.drawing.image(&input, sides)?;
        let [height, width, _] = sides;
        let window = Window { kernel: [height, width], ..Window::pixel([1, 1]) };
        let from = own_scale(&input)?;
        let activation = call.option(0);
        self.convolved(call, (weight, image, from), window, [1, 1, rows], (activation, false))
    }

    fn convolved(
        &mut self,
        call: &Call<'_>,
        (weight, input, from): (String, ValueRef, Scale),
        window: Window,
        [height, width, channels]: [usize; 3],
        (activation, depthwise): (i32, bool),
    ) -> Drawn<View> {
        let file = self.result(call)?;
        let to = scale(file)?;
        let shape = [1, height, width, channels];
        let result = View { scale: Some(to), ..self.drawing.value(Dtype::I8, &shape)? };
        let conv = Conv2d::<Names> {
            weight,
            input,
            output: ValueRef::all(&result.buffer),
            kernel: Window::sides(window.kernel)?,
            stride: Window::sides(window.stride)?,
            pad: Window::sides(window.pad)?,
            input_zero: from.zero,
            output_zero: to.zero,
            clamp: clamp(activation, to)?,
            depthwise,
        };
        self.drawing.push(conv);
        self.drawing.reshape(&result, &file.shape)
    }

    fn add(&mut self, call: &Call<'_>) -> Drawn<View> {
        let file = self.result(call)?;
        let mut ends = [self.bytes(call, 0)?, self.bytes(call, 1)?];
        for end in &mut ends {
            *end = end.broadcast(&file.shape)?;
            *end = self.drawing.dense(end)?;
        }
        let [first, second] = ends;
        let scales = [own_scale(&first)?, own_scale(&second)?, scale(file)?];
        let [scale_1, scale_2, scale] = scales.map(|scale| f64::from(scale.scale));
        // So scaled, a sum of two stays below what 32 bits hold.
        let twice = 2.0 * scale_1.max(scale_2);
        let factors = [scale_1 / twice, scale_2 / twice, twice / (f64::from(1 << 20) * scale)];
        let [first_scale, second_scale, sum_scale] = factors.map(quantize_multiplier);
        let result = View { scale: Some(scales[2]), ..self.drawing.value(Dtype::I8, &file.shape)? };
        let add = QuantizedAdd::<Names> {
            first: self.drawing.operand(&first),
            second: self.drawing.operand(&second),
            output: ValueRef::all(&result.buffer),
            zeros: scales.map(|scale| scale.zero),
            multipliers: [first_scale.0, second_scale.0, sum_scale.0],
            shifts: [first_scale.1, second_scale.1, sum_scale.1],
            clamp: clamp(call.option(0), scales[2])?,
        };
        self.drawing.push(add);
        Ok(result)
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
        let input = self.drawing.dense(&input)?;
        let file = self.result(call)?;
        let to = scale(file)?;
        if to != (Scale { scale: 1.0 / 256.0, zero: -128 }) {
            return Err(Refused::new("another scale of the result", "1/256 and zero point -128"));
        }
        if file.shape.last() != Some(&input.count()) {
            return Err(Refused::new(format!("rows of {:?}", file.shape), "one row"));
        }
        let beta = if call.operator.options.is_empty() { 1.0 } else { call.float(0) };
        // Differences have 5 bits before the point.
        let most = f64::from(i32::MAX);
        let from = f64::from(own_scale(&input)?.scale);
        let (multiplier, shift) =
            quantize_multiplier((f64::from(beta) * from * f64::from(1u32 << 26)).min(most));
        let shift = u8::try_from(shift).ok().filter(|shift| *shift <= 26);
        let shift = shift.ok_or_else(|| Refused::new("scores of this scale", "a usual scale"))?;
        let radius = (31i64 << 26) as f64 / (1i64 << shift) as f64;
        // The result lies as its scores do.
        let dims = self.drawing.shape_of(&input);
        let result = View { scale: Some(to), ..self.drawing.value(Dtype::I8, &dims)? };
        let output = ValueRef::all(&result.buffer);
        let least_difference = -(radius.floor() as i32);
        let input = self.drawing.operand(&input);
        self.drawing.push(Softmax::<Names> { input, output, multiplier, shift, least_difference });
        self.drawing.reshape(&result, &file.shape)
    }

    /// The tensor of weights that the file has.
    fn weights(&self, call: &Call<'_>, place: usize) -> Drawn<&'m tflite::Tensor> {
        let index = call.operator.inputs.get(place).copied().flatten();
        let tensor = index.and_then(|index| self.model.tensors.get(index));
        tensor.ok_or_else(|| Refused::new("no weights", format!("input {place}")))
    }

    /// Plans the rows of an operator's weights: for each channel bias, multiplier, shift and bytes.
    fn channels(
        &mut self,
        call: &Call<'_>,
        tensor: &tflite::Tensor,
        [rows, columns]: [usize; 2],
        place: impl Fn(usize, usize) -> usize,
    ) -> Drawn<String> {
        let input = own_scale(&self.bytes(call, 0)?)?.scale;
        let output = scale(self.result(call)?)?.scale;
        let whole =
            tensor.kind == kind::I8 && tensor.data.len() == rows * columns && rows <= 1 << 16;
        let symmetric = tensor.zero_points.iter().all(|zero| *zero == 0);
        let scales = tensor.scales.len();
        if !whole || !symmetric || (scales != 1 && scales != rows) {
            let found = format!("weights \"{}\"", tensor.name);
            return Err(Refused::new(
                found,
                "signed bytes with a scale for all or for each channel",
            ));
        }
        let biases = match call.operator.inputs.get(2).copied().flatten() {
            Some(_) => {
                let biases = self.numbers(call, 2)?.into_iter().map(|n| n as i32);
                let biases: Vec<i32> = biases.collect();
                if biases.len() != rows {
                    return Err(Refused::new(format!("{} biases", biases.len()), "one a channel"));
                }
                biases
            }
            None => vec![0; rows],
        };
        let mut bytes = vec![];
        for (channel, bias) in biases.into_iter().enumerate() {
            let scale = tensor.scales[if scales == 1 { 0 } else { channel }];
            // The reference multiplies the scales of a fully connected layer as floats.
            let product = match call.operator.code {
                FULLY_CONNECTED => f64::from(input * scale),
                _ => f64::from(input) * f64::from(scale),
            };
            let (multiplier, shift) = quantize_multiplier(product / f64::from(output));
            bytes.extend([bias, multiplier, shift].iter().flat_map(|word| word.to_le_bytes()));
            bytes.extend((0..columns).map(|at| tensor.data[place(channel, at)]));
            bytes.resize(bytes.len().next_multiple_of(4), 0);
        }
        Ok(self.drawing.weight(Role::Channels, [rows, columns], Data::Raw(bytes)))
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

/// A positive factor as a multiplier of 31 bits and an exponent: factor = multiplier · 2^(exponent - 31).
fn quantize_multiplier(factor: f64) -> (i32, i32) {
    if factor <= 0.0 || !factor.is_finite() {
        return (0, 0);
    }
    let mut exponent = factor.log2().floor() as i32 + 1;
    let mut multiplier = (factor * f64::from(31 - exponent).exp2()).round() as i64;
    if multiplier >= 1 << 31 {
        (multiplier, exponent) = (multiplier / 2, exponent + 1);
    }
    if exponent < -31 { (0, 0) } else { (multiplier as i32, exponent) }
}
