//! Nodes over integers: floats in steps of a scale, which are computed with as the floats that they stand for.

use super::*;
use omex_core::ops::{Activation, BinaryFunction};

/// Bytes without a sign are computed as signed ones that are so much less.
const UNSIGNED: i32 = 128;

impl Call<'_> {
    /// A node of integers; none for others.
    pub(super) fn quantized(&mut self) -> Drawn<Option<View>> {
        Ok(Some(match self.node.operation.as_str() {
            "QuantizeLinear" => {
                let (view, scale) = (self.view(0)?, self.scale(1)?);
                self.drawing().quantize(&view, scale, false)?
            }
            "DequantizeLinear" => {
                let (view, scale) = (self.view(0)?, self.scale(1)?);
                self.drawing().dequantize(&view, scale)?
            }
            "QLinearConv" => {
                let (input, weights) = (self.floats(0)?, self.weights(3, 0)?);
                let bias = self.bias(8, 1, 4, weights.shape[0])?;
                let result = self.conv(&input, &weights, bias)?;
                self.rounded(&result, 6)?
            }
            "QLinearMatMul" => {
                let (input, weights) = (self.floats(0)?, self.weights(3, 1)?);
                let result = self.product(&input, &weights, None)?;
                self.rounded(&result, 6)?
            }
            "ConvInteger" => {
                let (input, weights) = (self.counted(0)?, self.offset(1, 0)?);
                self.conv(&input, &weights, None)?
            }
            "MatMulInteger" => {
                let (input, weights) = (self.counted(0)?, self.offset(1, 1)?);
                self.product(&input, &weights, None)?
            }
            "QGemm" => self.qgemm()?,
            "QLinearAdd" => self.pair(BinaryFunction::Add)?,
            "QLinearMul" => self.pair(BinaryFunction::Multiply)?,
            "QLinearConcat" => {
                let mut views = vec![];
                for place in (2..self.node.inputs.len()).step_by(3) {
                    views.push(self.floats(place)?);
                }
                let rank = views.first().map_or(0, |view| view.shape.len());
                let at = axis(self.number("axis", 0), rank)?;
                let joined = self.drawing().concat(&views, at)?;
                self.rounded(&joined, 0)?
            }
            "QLinearSoftmax" => {
                let view = self.floats(0)?;
                let at = axis(self.number("axis", -1), view.shape.len())?;
                let result = self.drawing().softmax(&view, at, false)?;
                self.rounded(&result, 3)?
            }
            "QLinearSigmoid" => {
                let view = self.floats(0)?;
                let result = self.drawing().activate(&view, Activation::Sigmoid)?;
                self.rounded(&result, 3)?
            }
            "QLinearLeakyRelu" => {
                let (view, alpha) = (self.floats(0)?, self.float("alpha", 0.01));
                let result = self.drawing().with_number(BinaryFunction::LeakyRelu, &view, alpha)?;
                self.rounded(&result, 3)?
            }
            _ => return Ok(None),
        }))
    }

    /// A value in steps whose worth hangs on it: it stays what it is, in steps of 1, and nothing is rounded.
    pub(super) fn unrounded(&mut self) -> Drawn<Vec<Option<Tensor>>> {
        let view = self.view(0)?;
        let scale = Array::floats(vec![], vec![1.0]);
        let known = [scale, unsigned_zero()].map(|array| Some(Tensor::Known(array)));
        Ok([Some(Tensor::Computed(view))].into_iter().chain(known).collect())
    }

    /// Steps that a value has, whose zero point is two inputs behind it.
    fn counted(&mut self, place: usize) -> Drawn<View> {
        let view = self.view(place)?;
        if view.dtype == Dtype::F32 {
            return Ok(view);
        }
        let zero = if self.has(place + 2) { self.known(place + 2)? } else { unsigned_zero() };
        let offset = if matches!(zero.numbers, Numbers::I8(_)) { 0 } else { UNSIGNED };
        let zeros = zero.to_whole().unwrap_or_default();
        let [zero] = zeros[..] else {
            return Err(Refused::new(format!("{} zero points of a value", zeros.len()), "one"));
        };
        self.drawing().dequantize(&view, Scale { scale: 1.0, zero: zero as i32 - offset })
    }

    /// Known integers as floats, less the zero points two inputs behind them.
    fn offset(&self, place: usize, along: usize) -> Drawn<Array> {
        let zeros = if self.has(place + 2) { Some(self.known(place + 2)?) } else { None };
        let one = Array::floats(vec![], vec![1.0]);
        dequantized(&self.known(place)?, &one, zeros.as_ref(), along)
    }

    /// The scale of a value, whose zero point is the input behind it.
    fn scale(&self, place: usize) -> Drawn<Scale> {
        let scales = self.known(place)?.to_floats();
        let zero = match self.has(place + 1) {
            true => self.known(place + 1)?,
            false => unsigned_zero(),
        };
        let offset = if matches!(zero.numbers, Numbers::I8(_)) { 0 } else { UNSIGNED };
        let zero = zero.to_whole().and_then(|zeros| zeros.first().copied());
        match (&scales[..], zero) {
            ([scale], Some(zero)) if *scale > 0.0 => {
                Ok(Scale { scale: *scale, zero: zero as i32 - offset })
            }
            _ => Err(Refused::new("scales for each channel of a value", "one scale")),
        }
    }

    /// An input of signed bytes as floats; its scale and zero point are the inputs behind it.
    fn floats(&mut self, place: usize) -> Drawn<View> {
        let scale = self.scale(place + 1)?;
        match self.input(place)? {
            Tensor::Computed(view) => self.drawing().dequantize(&view, scale),
            Tensor::Known(array) => {
                let unsigned = matches!(array.numbers, Numbers::U8(_));
                let zero = scale.zero + if unsigned { UNSIGNED } else { 0 };
                let number = |x: f32| (x - zero as f32) * scale.scale;
                let numbers = array.to_floats().into_iter().map(number).collect();
                self.drawing().constant(&Array::floats(array.shape, numbers))
            }
        }
    }

    /// Known integers as floats, with a scale for all, or for each step along an axis.
    fn weights(&self, place: usize, along: usize) -> Drawn<Array> {
        let zeros = match self.has(place + 2) {
            true => Some(self.known(place + 2)?),
            false => None,
        };
        dequantized(&self.known(place)?, &self.known(place + 1)?, zeros.as_ref(), along)
    }

    /// Biases in steps of the scales of a value and of weights.
    fn bias(
        &self,
        place: usize,
        value: usize,
        weights: usize,
        outputs: usize,
    ) -> Drawn<Option<Vec<f32>>> {
        if !self.has(place) {
            return Ok(None);
        }
        let step = self.known(value)?.to_floats().first().copied().unwrap_or(0.0);
        let scales = self.known(weights)?.to_floats();
        let biases = self.known(place)?.to_floats();
        if biases.len() != outputs || (scales.len() != 1 && scales.len() != outputs) {
            return Err(Refused::new("biases of another number", format!("{outputs}")));
        }
        let scale = |channel: usize| scales[if scales.len() == 1 { 0 } else { channel }];
        Ok(Some(biases.iter().enumerate().map(|(n, bias)| bias * (step * scale(n))).collect()))
    }

    /// Floats as signed bytes, whose scale and zero point are these inputs; floats as they are without.
    fn rounded(&mut self, view: &View, place: usize) -> Drawn<View> {
        let scale = self.scale(place)?;
        self.drawing().quantize(view, scale, false)
    }

    fn pair(&mut self, function: BinaryFunction) -> Drawn<View> {
        let (first, second) = (self.floats(0)?, self.floats(3)?);
        let operands = [first, second].map(Tensor::Computed);
        let result = self.drawing().binary(function, &operands[0], &operands[1])?;
        self.rounded(&result, 6)
    }

    fn qgemm(&mut self) -> Drawn<View> {
        let turned = self.number("transB", 0) != 0;
        let input = self.floats(0)?;
        let mut weights = self.weights(3, usize::from(!turned))?;
        if turned {
            weights = viewed(&weights, |view| view.transposed(&[1, 0]))?;
        }
        if self.number("transA", 0) != 0 || self.float("alpha", 1.0) != 1.0 {
            return Err(Refused::new("a turned input, or a factor", "neither"));
        }
        let outputs = weights.shape.last().copied().unwrap_or(0);
        let bias = self.bias(6, 1, 4, outputs)?;
        let result = self.product(&input, &weights, bias)?;
        if self.has(7) { self.rounded(&result, 7) } else { Ok(result) }
    }
}

/// The zero point of a value that has none.
fn unsigned_zero() -> Array {
    Array { shape: vec![], numbers: Numbers::U8(vec![0]) }
}

/// Known floats as bytes in steps of a scale for all, or for each step along an axis.
pub(super) fn quantized(
    array: &Array,
    scales: &Array,
    zeros: Option<&Array>,
    along: usize,
) -> Drawn<Array> {
    let signed = zeros.is_some_and(|zeros| matches!(zeros.numbers, Numbers::I8(_)));
    let (scales, zeros) = (scales.to_floats(), zeros.map(Array::to_floats).unwrap_or_default());
    let each = Each::new(array, &scales, &zeros, along)?;
    let steps = |(at, x): (usize, f32)| {
        let (scale, zero) = each.of(at);
        (x / scale).round_ties_even() + zero
    };
    let steps = array.to_floats().into_iter().enumerate().map(steps);
    let numbers = match signed {
        true => Numbers::I8(steps.map(|x| x.clamp(-128.0, 127.0) as i8).collect()),
        false => Numbers::U8(steps.map(|x| x.clamp(0.0, 255.0) as u8).collect()),
    };
    Ok(Array { shape: array.shape.clone(), numbers })
}

/// Scales and zero points of an array's elements.
struct Each<'e> {
    scales: &'e [f32],
    zeros: &'e [f32],
    steps: usize,
    behind: usize,
}

impl<'e> Each<'e> {
    fn new(array: &Array, scales: &'e [f32], zeros: &'e [f32], along: usize) -> Drawn<Self> {
        let steps = array.shape.get(along).copied().unwrap_or(1);
        let fits = |length: usize| length == 1 || length == steps;
        if !fits(scales.len()) || !(zeros.is_empty() || fits(zeros.len())) {
            let found = format!("{} scales and {} zero points", scales.len(), zeros.len());
            return Err(Refused::new(found, format!("one, or {steps}")));
        }
        let behind = array.shape.iter().skip(along + 1).product();
        Ok(Self { scales, zeros, steps, behind })
    }

    /// The scale and the zero point of element `at`.
    fn of(&self, at: usize) -> (f32, f32) {
        let step = at / self.behind.max(1) % self.steps.max(1);
        let pick = |list: &[f32]| match list {
            [] => 0.0,
            [one] => *one,
            list => list[step],
        };
        (pick(self.scales), pick(self.zeros))
    }
}

/// Known integers as the floats that they stand for.
pub(super) fn dequantized(
    array: &Array,
    scales: &Array,
    zeros: Option<&Array>,
    along: usize,
) -> Drawn<Array> {
    let (scales, zeros) = (scales.to_floats(), zeros.map(Array::to_floats).unwrap_or_default());
    let each = Each::new(array, &scales, &zeros, along)?;
    let number = |(at, x): (usize, f32)| {
        let (scale, zero) = each.of(at);
        (x - zero) * scale
    };
    let numbers = array.to_floats().into_iter().enumerate().map(number).collect();
    Ok(Array::floats(array.shape.clone(), numbers))
}
