//! Nodes that compute.

use super::*;
use omex_core::ops::{Activation, BinaryFunction, Reduction, UnaryFunction};

impl Call<'_> {
    /// A node of floats; none for one that is not known.
    pub(super) fn computed(&mut self) -> Drawn<Option<View>> {
        let operation = self.node.operation.as_str();
        if let Some(activation) = activation(operation) {
            let view = self.view(0)?;
            return self.drawing().activate(&view, activation).map(Some);
        }
        if let Some(function) = unary(operation) {
            let view = self.view(0)?;
            return self.drawing().unary(&view, function).map(Some);
        }
        if let Some(function) = function(operation) {
            let mut sum = self.input(0)?;
            for place in 1..self.node.inputs.len() {
                let other = self.input(place)?;
                sum = Tensor::Computed(self.drawing().binary(function, &sum, &other)?);
            }
            return self.drawing().computed(&sum).map(Some);
        }
        if let Some(reduction) = reduction(operation) {
            return self.reduced(reduction).map(Some);
        }
        Ok(Some(match operation {
            "Cast" => {
                let view = self.view(0)?;
                match self.number("to", 1) {
                    1 => view,
                    other => return Err(Refused::new(format!("a cast to type {other}"), "floats")),
                }
            }
            "Clip" => {
                let (view, low, high) =
                    (self.view(0)?, self.bound("min", 1)?, self.bound("max", 2)?);
                self.drawing().clip(&view, low, high)?
            }
            "LeakyRelu" => {
                let (view, alpha) = (self.view(0)?, self.float("alpha", 0.01));
                self.drawing().with_number(BinaryFunction::LeakyRelu, &view, alpha)?
            }
            "Neg" => {
                let view = self.view(0)?;
                self.drawing().with_number(BinaryFunction::Multiply, &view, -1.0)?
            }
            "HardSigmoid" => {
                let (alpha, beta) = (self.float("alpha", 0.2), self.float("beta", 0.5));
                let view = self.view(0)?;
                let scaled = self.drawing().with_number(BinaryFunction::Multiply, &view, alpha)?;
                let moved = self.drawing().with_number(BinaryFunction::Add, &scaled, beta)?;
                self.drawing().clip(&moved, Some(0.0), Some(1.0))?
            }
            "Softmax" | "LogSoftmax" => self.softmax(operation == "LogSoftmax")?,
            "BatchNormalization" => self.normalized()?,
            "Gemm" => self.gemm()?,
            "MatMul" => {
                let (input, weights) = (self.view(0)?, self.known(1)?);
                self.product(&input, &weights, None)?
            }
            _ => return Ok(None),
        }))
    }

    fn reduced(&mut self, reduction: Reduction) -> Drawn<View> {
        let view = self.view(0)?;
        let rank = view.shape.len();
        let axes = match self.listed("axes", 1)? {
            Some(listed) if !listed.is_empty() => axes(&listed, rank)?,
            _ if self.number("noop_with_empty_axes", 0) != 0 => return Ok(view),
            _ => (0..rank).collect(),
        };
        let keep = self.number("keepdims", 1) != 0;
        self.drawing().reduce(&view, &axes, reduction, keep)
    }

    /// Softmax along an axis; before version 13 along all from an axis on, which is the same for the last.
    fn softmax(&mut self, log: bool) -> Drawn<View> {
        let view = self.view(0)?;
        let at = axis(self.number("axis", -1), view.shape.len())?;
        if view.shape[at + 1..].iter().any(|side| *side != 1)
            && !self.node.attributes.contains_key("axis")
        {
            return Err(Refused::new("softmax over several axes", "over the last one"));
        }
        self.drawing().softmax(&view, at, log)
    }

    /// Numbers scaled and moved, channel by channel.
    fn normalized(&mut self) -> Drawn<View> {
        let view = self.view(0)?;
        let [scale, bias, mean, variance] = [1, 2, 3, 4].map(|place| self.known(place));
        let [scale, bias] = [scale?.to_floats(), bias?.to_floats()];
        let [mean, variance] = [mean?.to_floats(), variance?.to_floats()];
        let (channels, epsilon) = (scale.len(), self.float("epsilon", 1e-5));
        if [bias.len(), mean.len(), variance.len()] != [channels; 3] {
            return Err(Refused::new("factors of other lengths", "one for each channel"));
        }
        let factors: Vec<f32> =
            scale.iter().zip(&variance).map(|(s, v)| s / (v + epsilon).sqrt()).collect();
        let moved: Vec<f32> = bias
            .iter()
            .zip(mean.iter().zip(&factors))
            .map(|(bias, (mean, factor))| bias - mean * factor)
            .collect();
        let mut shape = vec![channels];
        shape.resize(view.shape.len().saturating_sub(1).max(1), 1);
        let factors = Tensor::Known(Array::floats(shape.clone(), factors));
        let moved = Tensor::Known(Array::floats(shape, moved));
        let scaled =
            self.drawing().binary(BinaryFunction::Multiply, &Tensor::Computed(view), &factors)?;
        self.drawing().binary(BinaryFunction::Add, &Tensor::Computed(scaled), &moved)
    }

    fn gemm(&mut self) -> Drawn<View> {
        let mut input = self.view(0)?;
        if self.number("transA", 0) != 0 {
            input = input.transposed(&[1, 0])?;
        }
        let mut weights = self.known(1)?;
        if self.number("transB", 0) != 0 {
            weights = viewed(&weights, |view| view.transposed(&[1, 0]))?;
        }
        let (alpha, beta) = (self.float("alpha", 1.0), self.float("beta", 1.0));
        if alpha != 1.0 {
            let scaled = weights.to_floats().iter().map(|x| alpha * x).collect();
            weights = Array::floats(weights.shape.clone(), scaled);
        }
        if !self.has(2) {
            return self.product(&input, &weights, None);
        }
        let outputs = weights.shape.last().copied().unwrap_or(0);
        let bias = self.known(2)?;
        let numbers: Vec<f32> = bias.to_floats().iter().map(|x| beta * x).collect();
        match numbers.len() == outputs {
            true => self.product(&input, &weights, Some(numbers)),
            false => {
                let product = self.product(&input, &weights, None)?;
                let bias = Tensor::Known(Array::floats(bias.shape, numbers));
                self.drawing().binary(BinaryFunction::Add, &Tensor::Computed(product), &bias)
            }
        }
    }

    /// Rows of a tensor, times a matrix [inputs, outputs].
    pub(super) fn product(
        &mut self,
        input: &View,
        weights: &Array,
        bias: Option<Vec<f32>>,
    ) -> Drawn<View> {
        let [inputs, outputs] = weights.shape[..] else {
            return Err(Refused::new(format!("a matrix {:?}", weights.shape), "[inputs, outputs]"));
        };
        if input.shape.last() != Some(&inputs) {
            let found = format!("{:?} times {:?}", input.shape, weights.shape);
            return Err(Refused::new(found, "as many columns as rows"));
        }
        let turned = viewed(weights, |view| view.transposed(&[1, 0]))?;
        let weights = Weights { numbers: turned.to_floats(), outputs, depthwise: false, bias };
        self.drawing().multiply(input, &weights)
    }
}

fn activation(operation: &str) -> Option<Activation> {
    Some(match operation {
        "Relu" => Activation::Relu,
        "Sigmoid" => Activation::Sigmoid,
        "Tanh" => Activation::Tanh,
        "Gelu" => Activation::Gelu,
        _ => return None,
    })
}

fn unary(operation: &str) -> Option<UnaryFunction> {
    Some(match operation {
        "Exp" => UnaryFunction::Exp,
        "Log" => UnaryFunction::Log,
        "Sqrt" => UnaryFunction::Sqrt,
        "Abs" => UnaryFunction::Abs,
        "Reciprocal" => UnaryFunction::Reciprocal,
        "HardSwish" => UnaryFunction::HardSwish,
        "Erf" => UnaryFunction::Erf,
        "Softplus" => UnaryFunction::Softplus,
        "Floor" => UnaryFunction::Floor,
        "Ceil" => UnaryFunction::Ceil,
        "Round" => UnaryFunction::Round,
        "Elu" => UnaryFunction::Elu,
        "Sin" => UnaryFunction::Sin,
        "Cos" => UnaryFunction::Cos,
        _ => return None,
    })
}

fn function(operation: &str) -> Option<BinaryFunction> {
    Some(match operation {
        "Add" | "Sum" => BinaryFunction::Add,
        "Sub" => BinaryFunction::Subtract,
        "Mul" => BinaryFunction::Multiply,
        "Div" => BinaryFunction::Divide,
        "Max" => BinaryFunction::Max,
        "Min" => BinaryFunction::Min,
        "Pow" => BinaryFunction::Power,
        "PRelu" => BinaryFunction::LeakyRelu,
        _ => return None,
    })
}

fn reduction(operation: &str) -> Option<Reduction> {
    Some(match operation {
        "ReduceMean" => Reduction::Mean,
        "ReduceSum" => Reduction::Sum,
        "ReduceMax" => Reduction::Max,
        "ReduceMin" => Reduction::Min,
        _ => return None,
    })
}
