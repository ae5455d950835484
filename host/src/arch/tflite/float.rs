//! Operators in floats.

use super::super::tensors::Weights;
use super::*;
use omex_core::ops::UnaryFunction;

impl Door<'_> {
    /// An operator whose result is in floats.
    pub(super) fn float(&mut self, call: &Call<'_>) -> Drawn<View> {
        let file = self.result(call)?;
        if file.kind != kind::F32 {
            let found = format!("a result of type {}", file.kind);
            return Err(Refused::new(found, "floats or signed bytes"));
        }
        if let Some(function) = function(call.operator.code) {
            let (first, second) = (self.input(call, 0)?, self.input(call, 1)?);
            let result = self.drawing.binary(function, &first, &second)?;
            return self.fused(call, result, call.option(0));
        }
        if let Some(activation) = activation(call.operator.code) {
            let view = self.view(call, 0)?;
            return self.drawing.activate(&view, activation);
        }
        if let Some(function) = unary(call.operator.code) {
            let view = self.view(call, 0)?;
            return self.drawing.unary(&view, function);
        }
        if let Some(reduction) = reduction(call.operator.code) {
            let view = self.view(call, 0)?;
            let axes = axes(&self.numbers(call, 1)?, view.shape.len())?;
            return self.drawing.reduce(&view, &axes, reduction, call.option(0) != 0);
        }
        match call.operator.code {
            CONV => self.convolution(call, false),
            DEPTHWISE_CONV => self.convolution(call, true),
            TRANSPOSE_CONV => self.transposed_convolution(call),
            FULLY_CONNECTED => {
                let weights = self.float_weights(call, 1, 2)?;
                let [outputs, inputs] = self.input(call, 1)?.shape()[..] else {
                    return Err(Refused::new("weights that are no matrix", "[outputs, inputs]"));
                };
                let input = self.view(call, 0)?;
                let rows = input.count() / inputs.max(1);
                let input = self.drawing.reshape(&input, &[rows, inputs])?;
                let product = self.drawing.multiply(&input, &Weights { outputs, ..weights })?;
                let result = self.drawing.reshape(&product, &file.shape)?;
                self.fused(call, result, call.option(0))
            }
            AVERAGE_POOL => {
                let view = self.view(call, 0)?;
                let window = self.window(call, &view.shape, [call.option(4), call.option(3)])?;
                let pooled = self.drawing.pool(&view, window, Pooling::Mean)?;
                self.fused(call, pooled, call.option(5))
            }
            DEQUANTIZE => {
                let view = self.view(call, 0)?;
                let scale = view.scale.ok_or_else(|| Refused::new("no scale", "one"))?;
                self.drawing.dequantize(&view, scale)
            }
            SOFTMAX | LOG_SOFTMAX => {
                let mut view = self.view(call, 0)?;
                let beta = if call.operator.options.is_empty() { 1.0 } else { call.float(0) };
                if call.operator.code == SOFTMAX && beta != 1.0 {
                    view = self.drawing.with_number(BinaryFunction::Multiply, &view, beta)?;
                }
                let last = view.shape.len().saturating_sub(1);
                self.drawing.softmax(&view, last, call.operator.code == LOG_SOFTMAX)
            }
            SEQUENCE_LSTM => self.lstm(call),
            RESIZE_BILINEAR | RESIZE_NEAREST => self.resized(call),
            RELU | RELU6 | RELU_N1_TO_1 | LEAKY_RELU | NEG | SQUARE | SQUARED_DIFFERENCE
            | RSQRT => self.composed(call),
            _ => Err(Refused::new("this operator", "one that is supported")),
        }
    }

    /// Operators that are made of others.
    fn composed(&mut self, call: &Call<'_>) -> Drawn<View> {
        use BinaryFunction::{LeakyRelu, Multiply, Subtract};
        let view = self.view(call, 0)?;
        match call.operator.code {
            RELU => self.drawing.clip(&view, Some(0.0), None),
            RELU6 => self.drawing.clip(&view, Some(0.0), Some(6.0)),
            RELU_N1_TO_1 => self.drawing.clip(&view, Some(-1.0), Some(1.0)),
            LEAKY_RELU => self.drawing.with_number(LeakyRelu, &view, call.float(0)),
            NEG => self.drawing.with_number(Multiply, &view, -1.0),
            RSQRT => {
                let root = self.drawing.unary(&view, UnaryFunction::Sqrt)?;
                self.drawing.unary(&root, UnaryFunction::Reciprocal)
            }
            code => {
                let view = match code {
                    SQUARED_DIFFERENCE => {
                        let (first, second) = (self.input(call, 0)?, self.input(call, 1)?);
                        self.drawing.binary(Subtract, &first, &second)?
                    }
                    _ => view,
                };
                let tensor = Tensor::Computed(view);
                self.drawing.binary(Multiply, &tensor, &tensor)
            }
        }
    }

    /// Weights and biases as floats; how many outputs they have is not said.
    pub(super) fn float_weights(
        &self,
        call: &Call<'_>,
        weights: usize,
        bias: usize,
    ) -> Drawn<Weights> {
        let known = |place: usize| match self.input(call, place)? {
            Tensor::Known(array) => Ok(self.dequantized(call, place, array)?.to_floats()),
            Tensor::Computed(_) => Err(Refused::new("weights that are computed", "known ones")),
        };
        let bias = match call.operator.inputs.get(bias).copied().flatten() {
            Some(_) => Some(known(bias)?),
            None => None,
        };
        Ok(Weights { numbers: known(weights)?, outputs: 0, depthwise: false, bias })
    }

    fn convolution(&mut self, call: &Call<'_>, depthwise: bool) -> Drawn<View> {
        let weights = self.float_weights(call, 1, 2)?;
        let [outer, height, width, inner] = self.input(call, 1)?.shape()[..] else {
            return Err(Refused::new("weights of other dimensions", "four"));
        };
        let input = self.view(call, 0)?;
        let window = self.window(call, &input.shape, [height as i32, width as i32])?;
        let outputs = if depthwise { inner } else { outer };
        let weights = Weights { outputs, depthwise, ..weights };
        let result = self.drawing.convolve(&input, window, &weights)?;
        self.fused(call, result, call.option(if depthwise { 4 } else { 3 }))
    }

    fn transposed_convolution(&mut self, call: &Call<'_>) -> Drawn<View> {
        let weights = self.float_weights(call, 1, 3)?;
        let [outputs, height, width, _] = self.input(call, 1)?.shape()[..] else {
            return Err(Refused::new("weights of other dimensions", "four"));
        };
        let input = self.view(call, 2)?;
        let (stride, window) = self.transposed_window(call, &input.shape, [height, width])?;
        let weights = Weights { outputs, ..weights };
        let result = self.drawing.convolve_transposed(&input, stride, window, &weights)?;
        self.fused(call, result, call.option(3))
    }

    /// The strides of a transposed convolution, and the window that goes over what they spread.
    pub(super) fn transposed_window(
        &self,
        call: &Call<'_>,
        from: &[usize],
        kernel: [usize; 2],
    ) -> Drawn<([usize; 2], Window)> {
        let to = &self.result(call)?.shape;
        let ([_, rows, columns, _], [1, from_rows, from_columns, _]) = (&to[..], from) else {
            return Err(Refused::new(format!("{from:?} to {to:?}"), "images"));
        };
        let stride =
            [call.option(2), call.option(1)].map(|n| usize::try_from(n).unwrap_or(0).max(1));
        let sizes = [(*from_rows, kernel[0], *rows), (*from_columns, kernel[1], *columns)];
        let mut before = [0; 2];
        for ((before, (from, kernel, to)), stride) in before.iter_mut().zip(sizes).zip(stride) {
            let whole = (from - 1) * stride + kernel;
            *before = if call.option(0) == 0 { whole.saturating_sub(to) / 2 } else { 0 };
        }
        Ok((stride, Window::transposed(kernel, before, [*rows, *columns])?))
    }

    pub(super) fn resized(&mut self, call: &Call<'_>) -> Drawn<View> {
        let view = self.view(call, 0)?;
        let [_, rows, columns, _] = self.result(call)?.shape[..] else {
            return Err(Refused::new("a result of other dimensions", "an image"));
        };
        let bilinear = call.operator.code == RESIZE_BILINEAR;
        let first = if bilinear { 2 } else { 0 };
        let (ends, half) = (call.option(first) != 0, call.option(first + 1) != 0);
        let alignment = match (ends, half, bilinear) {
            (true, _, true) => Alignment::Ends,
            (true, _, false) => {
                return Err(Refused::new("nearest pixels by their ends", "by corners or middles"));
            }
            (_, true, true) => Alignment::HalfPixel,
            (_, true, false) => Alignment::Middle,
            _ => Alignment::Corner,
        };
        self.drawing.resize(&view, [rows, columns], (alignment, bilinear, false))
    }
}

fn function(code: i32) -> Option<BinaryFunction> {
    Some(match code {
        ADD => BinaryFunction::Add,
        SUB => BinaryFunction::Subtract,
        MUL => BinaryFunction::Multiply,
        DIV => BinaryFunction::Divide,
        MAXIMUM => BinaryFunction::Max,
        MINIMUM => BinaryFunction::Min,
        POW => BinaryFunction::Power,
        PRELU => BinaryFunction::LeakyRelu,
        _ => return None,
    })
}

fn activation(code: i32) -> Option<Activation> {
    Some(match code {
        LOGISTIC => Activation::Sigmoid,
        TANH => Activation::Tanh,
        _ => return None,
    })
}

fn unary(code: i32) -> Option<UnaryFunction> {
    Some(match code {
        HARD_SWISH => UnaryFunction::HardSwish,
        ELU => UnaryFunction::Elu,
        EXP => UnaryFunction::Exp,
        LOG => UnaryFunction::Log,
        SQRT => UnaryFunction::Sqrt,
        ABS => UnaryFunction::Abs,
        FLOOR => UnaryFunction::Floor,
        CEIL => UnaryFunction::Ceil,
        ROUND => UnaryFunction::Round,
        SIN => UnaryFunction::Sin,
        COS => UnaryFunction::Cos,
        _ => return None,
    })
}

fn reduction(code: i32) -> Option<Reduction> {
    Some(match code {
        MEAN => Reduction::Mean,
        SUM => Reduction::Sum,
        REDUCE_MAX => Reduction::Max,
        REDUCE_MIN => Reduction::Min,
        _ => return None,
    })
}
