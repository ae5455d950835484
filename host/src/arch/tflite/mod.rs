//! Graphs of TensorFlow Lite, in signed bytes, in floats or in both.

mod clamp;
mod float;
mod int8;
mod operators;
mod recurrent;
mod variable;
mod variables;

use super::blueprint::Blueprint;
use super::tensors::{Drawing, Drawn, Refused, Scale, Tensor, View, Window, axes, span};
use crate::import::tflite::{self, Model, Operator, kind, read};
use crate::import::{Array, Container, Numbers};
use crate::{Error, Result};
use clamp::clamp;
use omex_core::ops::{Activation, Alignment, BinaryFunction, Pooling, Reduction};
use omex_core::program::Dtype;
use operators::*;
use std::collections::BTreeMap;
use std::path::Path;
use variable::Variable;

pub(super) fn blueprint(container: &dyn Container) -> Result<Blueprint> {
    let model = read(container.path())?;
    let (mut door, problem) = Door::new(&model);
    if let Some(problem) = problem {
        return Err(bad(container.path(), &model, None, problem));
    }
    for (number, operator) in model.operators.iter().enumerate() {
        let drawn = door.operator(operator);
        drawn.map_err(|refused| bad(container.path(), &model, Some(number), refused))?;
    }
    for output in &model.outputs {
        let name = &model.tensors[*output].name;
        let given = door.tensor(*output).and_then(|tensor| door.drawing.output(name, &tensor));
        given.map_err(|refused| bad(container.path(), &model, None, refused))?;
    }
    Ok(door.drawing.finish("tflite"))
}

/// What is wrong with each operator; one behind another that could not be drawn may be fine.
pub(super) fn problems(container: &dyn Container) -> Vec<Error> {
    let Ok(model) = read(container.path()) else { return vec![] };
    let (mut door, problem) = Door::new(&model);
    let path = container.path();
    let mut problems: Vec<_> =
        problem.map(|problem| bad(path, &model, None, problem)).into_iter().collect();
    for (number, operator) in model.operators.iter().enumerate() {
        let unknown = operator.inputs.iter().flatten().any(|input| door.is_missing(*input));
        match door.operator(operator) {
            Err(refused) if !unknown || !is_known(operator) => {
                problems.push(bad(path, &model, Some(number), refused));
            }
            _ => {}
        }
    }
    problems
}

/// An operator that can't be drawn, or with `None` the graph's ends.
fn bad(path: &Path, model: &Model, number: Option<usize>, refused: Refused) -> Error {
    let operator = number.and_then(|number| model.operators.get(number));
    let node = match (number, operator) {
        (Some(number), Some(operator)) => {
            let to = operator.outputs.first().and_then(|output| model.tensors.get(*output));
            let to = to.map_or_else(String::new, |to| format!(", which makes \"{}\"", to.name));
            format!("operator {number} ({}){to}", operator_name(operator))
        }
        _ => "inputs and outputs".to_owned(),
    };
    let remedy = "convert the model with other operators, or leave this part of it to your program";
    Error::malformed(path, node, refused.found, &refused.expected, remedy)
}

/// A file's graph on its way into a drawing.
struct Door<'m> {
    model: &'m Model,
    drawing: Drawing,
    /// What each tensor is so far.
    tensors: Vec<Option<Tensor>>,
    variables: BTreeMap<String, Variable>,
    /// The names of the variables that tensors are the handles of.
    handles: BTreeMap<usize, String>,
}

/// One operator with its inputs.
struct Call<'o> {
    operator: &'o Operator,
}

impl Call<'_> {
    /// An option, by its place in the schema; 0 where it has its default.
    fn option(&self, place: usize) -> i32 {
        self.operator.options.get(place).copied().unwrap_or(0)
    }

    /// An option that is a float.
    fn float(&self, place: usize) -> f32 {
        f32::from_bits(self.option(place).cast_unsigned())
    }
}

impl<'m> Door<'m> {
    fn new(model: &'m Model) -> (Self, Option<Refused>) {
        let mut tensors: Vec<_> =
            model.tensors.iter().map(|tensor| array(tensor).map(Tensor::Known)).collect();
        let mut drawing = Drawing::new();
        let mut problem = None;
        for input in &model.inputs {
            let tensor = &model.tensors[*input];
            let drawn = dtype(tensor).and_then(|dtype| {
                let shape = four_sides(&tensor.shape, dtype);
                let view = drawing.input(&tensor.name, dtype, &shape, scale(tensor).ok())?;
                drawing.reshape(&view, &tensor.shape)
            });
            match drawn {
                Ok(view) => tensors[*input] = Some(Tensor::Computed(view)),
                Err(refused) => problem = Some(refused),
            }
        }
        let (variables, handles) = (BTreeMap::new(), BTreeMap::new());
        (Self { model, drawing, tensors, variables, handles }, problem)
    }

    fn is_missing(&self, index: usize) -> bool {
        let made = self.tensors.get(index).is_some_and(Option::is_some);
        !made && !self.handles.contains_key(&index)
    }

    fn tensor(&self, index: usize) -> Drawn<Tensor> {
        let missing = || Refused::new("a tensor that nothing makes", "one that is known by then");
        self.tensors.get(index).cloned().flatten().ok_or_else(missing)
    }

    /// An input of an operator.
    fn input(&self, call: &Call<'_>, place: usize) -> Drawn<Tensor> {
        let index = call.operator.inputs.get(place).copied().flatten();
        self.tensor(index.ok_or_else(|| Refused::new("no tensor", format!("input {place}")))?)
    }

    /// An input as a value.
    fn view(&mut self, call: &Call<'_>, place: usize) -> Drawn<View> {
        let tensor = self.input(call, place)?;
        let index = call.operator.inputs.get(place).copied().flatten().unwrap_or_default();
        match tensor {
            Tensor::Known(array) if matches!(array.numbers, Numbers::I8(_)) => {
                let scale = scale(&self.model.tensors[index])?;
                let floats = self.dequantized(call, place, array)?;
                let floats = self.drawing.constant(&floats)?;
                self.drawing.quantize(&floats, scale, true)
            }
            tensor => self.drawing.computed(&tensor),
        }
    }

    /// An input of whole numbers that are known.
    fn numbers(&self, call: &Call<'_>, place: usize) -> Drawn<Vec<i64>> {
        let whole = match self.input(call, place)? {
            Tensor::Known(array) => array.to_whole(),
            Tensor::Computed(_) => None,
        };
        whole.ok_or_else(|| {
            Refused::new(format!("input {place} that is computed"), "whole numbers in the file")
        })
    }

    /// The tensor of the file that an operator's first output is.
    fn result(&self, call: &Call<'_>) -> Drawn<&'m tflite::Tensor> {
        let output = call.operator.outputs.first().and_then(|at| self.model.tensors.get(*at));
        output.ok_or_else(|| Refused::new("no output", "one"))
    }

    fn operator(&mut self, operator: &Operator) -> Drawn<()> {
        if !is_known(operator) {
            return Err(Refused::new("this operator", "one that is supported"));
        }
        if self.settled(operator)? {
            return Ok(());
        }
        let call = Call { operator };
        let results = match operator.code {
            SPLIT | SPLIT_V | UNPACK => self.parts(&call)?,
            _ => vec![self.one(&call)?],
        };
        for (index, view) in operator.outputs.iter().zip(results) {
            let file = &self.model.tensors[*index];
            if let Some(view) = &view
                && view.shape != file.shape
            {
                let found = format!("a result of {:?}", view.shape);
                return Err(Refused::new(found, format!("{:?}, as the file says", file.shape)));
            }
            self.tensors[*index] =
                view.map(Tensor::Computed).or_else(|| self.tensors[*index].take());
        }
        Ok(())
    }

    /// An operator of one result; none where that is known already.
    fn one(&mut self, call: &Call<'_>) -> Drawn<Option<View>> {
        let code = call.operator.code;
        if let Some(view) = self.moved(call)? {
            return Ok(Some(view));
        }
        if code == READ_VARIABLE {
            return self.read_variable(call).map(Some);
        }
        if code == DEQUANTIZE
            && let Tensor::Known(array) = self.input(call, 0)?
        {
            let index = call.operator.outputs.first().copied().unwrap_or_default();
            self.tensors[index] = Some(Tensor::Known(self.dequantized(call, 0, array)?));
            return Ok(None);
        }
        let in_bytes = self.result(call)?.kind == kind::I8;
        if in_bytes { self.int8(call).map(Some) } else { self.float(call).map(Some) }
    }

    /// Known signed bytes as the numbers that they stand for.
    fn dequantized(&self, call: &Call<'_>, place: usize, array: Array) -> Drawn<Array> {
        let Numbers::I8(bytes) = &array.numbers else { return Ok(array) };
        let index = call.operator.inputs.get(place).copied().flatten().unwrap_or_default();
        let tensor = &self.model.tensors[index];
        let scales = &tensor.scales;
        let (axis, channels) = match scales.len() {
            1 => (0, 1),
            n => {
                let axis = tensor.axis;
                (axis, array.shape.get(axis).copied().filter(|dim| *dim == n).unwrap_or(0))
            }
        };
        if channels == 0
            || (tensor.zero_points.len() > 1 && tensor.zero_points.len() != scales.len())
        {
            return Err(Refused::new(
                "scales of some channels",
                "one for all, or for each channel",
            ));
        }
        let behind: usize = array.shape.iter().skip(axis + 1).product();
        let zero = |at: usize| {
            let zeros = &tensor.zero_points;
            zeros.get(at.min(zeros.len().saturating_sub(1))).copied().unwrap_or(0) as f32
        };
        let number = |(at, byte): (usize, &i8)| {
            let channel = if channels == 1 { 0 } else { at / behind.max(1) % channels };
            (f32::from(*byte) - zero(channel)) * scales[channel]
        };
        let numbers = bytes.iter().enumerate().map(number).collect();
        Ok(Array::floats(array.shape, numbers))
    }

    /// Operators that move elements and compute nothing, whatever these are; none for others.
    fn moved(&mut self, call: &Call<'_>) -> Drawn<Option<View>> {
        let shape = self.result(call)?.shape.clone();
        Ok(Some(match call.operator.code {
            RESHAPE | SQUEEZE | EXPAND_DIMS => {
                let view = self.view(call, 0)?;
                self.drawing.reshape(&view, &shape)?
            }
            TRANSPOSE => {
                let order = axes(&self.numbers(call, 1)?, shape.len())?;
                self.view(call, 0)?.transposed(&order)?
            }
            SLICE => {
                let mut view = self.view(call, 0)?;
                for (axis, start) in self.numbers(call, 1)?.into_iter().enumerate() {
                    view = view.sliced(axis, start, shape.get(axis).copied().unwrap_or(0), 1)?;
                }
                view
            }
            STRIDED_SLICE => self.strided_slice(call)?,
            CONCATENATION => self.concatenation(call)?,
            PACK => {
                let axis = axes(&[call.option(1).into()], shape.len())?[0];
                let mut views = vec![];
                for place in 0..call.operator.inputs.len() {
                    let view = self.view(call, place)?;
                    let mut sides = view.shape.clone();
                    sides.insert(axis.min(sides.len()), 1);
                    views.push(self.drawing.reshape(&view, &sides)?);
                }
                self.drawing.concat(&views, axis)?
            }
            PAD | PADV2 => {
                let view = self.view(call, 0)?;
                let pads = self.numbers(call, 1)?;
                let number = match (call.operator.code, view.scale) {
                    (PADV2, _) => match self.input(call, 2)? {
                        Tensor::Known(array) => array.to_floats().first().copied().unwrap_or(0.0),
                        Tensor::Computed(_) => {
                            return Err(Refused::new("a computed pad", "a number"));
                        }
                    },
                    (_, Some(scale)) => scale.zero as f32,
                    (_, None) => 0.0,
                };
                self.drawing.pad(&view, pads.as_chunks::<2>().0, number)?
            }
            DEPTH_TO_SPACE | SPACE_TO_DEPTH => {
                let view = self.view(call, 0)?;
                self.blocks(&view, call.option(0), call.operator.code == DEPTH_TO_SPACE)?
            }
            MAX_POOL => {
                let view = self.view(call, 0)?;
                let window = self.window(call, &view.shape, [call.option(4), call.option(3)])?;
                let pooled = self.drawing.pool(&view, window, Pooling::Max)?;
                self.fused(call, pooled, call.option(5))?
            }
            _ => return Ok(None),
        }))
    }

    /// Channels as blocks of pixels, or blocks of pixels as channels.
    fn blocks(&mut self, view: &View, size: i32, to_space: bool) -> Drawn<View> {
        let size = usize::try_from(size).unwrap_or(0).max(1);
        let [n, h, w, c] = view.shape[..] else {
            return Err(Refused::new(format!("{:?}", view.shape), "an image"));
        };
        let (split, order, shape) = match to_space {
            true => (
                [n, h, w, size, size, c / (size * size)],
                [0, 1, 3, 2, 4, 5],
                [n, h * size, w * size, c / (size * size)],
            ),
            false => (
                [n, h / size, size, w / size, size, c],
                [0, 1, 3, 2, 4, 5],
                [n, h / size, w / size, c * size * size],
            ),
        };
        let split = self.drawing.reshape(view, &split)?;
        self.drawing.reshape(&split.transposed(&order)?, &shape)
    }

    fn strided_slice(&mut self, call: &Call<'_>) -> Drawn<View> {
        let mut view = self.view(call, 0)?;
        let [begin, end, by] = [1, 2, 3].map(|place| self.numbers(call, place));
        let (begin, end, by) = (begin?, end?, by?);
        let [no_begin, no_end, ellipsis, new_axis, shrink] =
            [0, 1, 2, 3, 4].map(|n| call.option(n));
        if ellipsis != 0 || new_axis != 0 {
            return Err(Refused::new(
                "an ellipsis or a new axis",
                "a start, an end and a step for each",
            ));
        }
        for (axis, ((begin, end), by)) in begin.into_iter().zip(end).zip(by).enumerate() {
            let dim = view.shape.get(axis).copied().unwrap_or(0);
            let masked = |mask: i32| mask >> axis & 1 == 1;
            let given = |mask: i32, at: i64| (!masked(mask)).then_some(at);
            let ends = [given(no_begin, begin), given(no_end, end)];
            let (start, count, by) = span(dim, ends, by);
            let count = if masked(shrink) { 1 } else { count };
            view = view.sliced(axis, start, count, by)?;
        }
        self.drawing.reshape(&view, &self.result(call)?.shape)
    }

    fn concatenation(&mut self, call: &Call<'_>) -> Drawn<View> {
        let file = self.result(call)?;
        let axis = axes(&[call.option(0).into()], file.shape.len())?[0];
        let mut views = vec![];
        for place in 0..call.operator.inputs.len() {
            let view = self.view(call, place)?;
            views.push(match file.kind {
                kind::I8 => self.rescaled(&view, scale(file)?)?,
                _ => view,
            });
        }
        let joined = self.drawing.concat(&views, axis)?;
        self.fused(call, joined, call.option(1))
    }

    /// A result with the activation that is fused to its operator.
    fn fused(&mut self, call: &Call<'_>, view: View, activation: i32) -> Drawn<View> {
        if view.dtype == Dtype::I8 {
            let scale = scale(self.result(call)?)?;
            let [low, high] = clamp(activation, scale)?;
            return match [low, high] {
                [i8::MIN, i8::MAX] => Ok(view),
                _ => self.drawing.lookup(&view, scale, |x| x.clamp(low, high)),
            };
        }
        match activation {
            0 => Ok(view),
            1 => self.drawing.clip(&view, Some(0.0), None),
            2 => self.drawing.clip(&view, Some(-1.0), Some(1.0)),
            3 => self.drawing.clip(&view, Some(0.0), Some(6.0)),
            4 => self.drawing.activate(&view, Activation::Tanh),
            other => Err(Refused::new(format!("fused activation {other}"), "a usual one")),
        }
    }

    /// Operators of several results.
    fn parts(&mut self, call: &Call<'_>) -> Drawn<Vec<Option<View>>> {
        let code = call.operator.code;
        let view = self.view(call, usize::from(code == SPLIT))?;
        let axis = match code {
            SPLIT => self.numbers(call, 0)?,
            SPLIT_V => self.numbers(call, 2)?,
            _ => vec![call.option(1).into()],
        };
        let axis = *axes(&axis, view.shape.len())?.first().unwrap_or(&0);
        let mut parts = vec![];
        let mut start = 0;
        for output in &call.operator.outputs {
            let shape = &self.model.tensors[*output].shape;
            let count = if code == UNPACK { 1 } else { shape.get(axis).copied().unwrap_or(0) };
            let part = view.sliced(axis, start, count, 1)?;
            start += count as i64;
            parts.push(Some(self.drawing.reshape(&part, shape)?));
        }
        Ok(parts)
    }

    /// The window of a convolution or a pooling, whose first options are padding and strides.
    fn window(&self, call: &Call<'_>, from: &[usize], kernel: [i32; 2]) -> Drawn<Window> {
        let [_, height, width, _] = from[..] else {
            return Err(Refused::new(format!("a tensor {from:?}"), "[1, height, width, channels]"));
        };
        let to = &self.result(call)?.shape;
        let [_, rows, columns, _] = to[..] else {
            return Err(Refused::new(format!("a result {to:?}"), "[1, height, width, channels]"));
        };
        let dilation = match call.operator.code {
            CONV => [call.option(5), call.option(4)],
            DEPTHWISE_CONV => [call.option(6), call.option(5)],
            _ => [1, 1],
        };
        let sizes = |sides: [i32; 2]| sides.map(|side| usize::try_from(side).unwrap_or(0).max(1));
        let (kernel, stride) = (sizes(kernel), sizes([call.option(2), call.option(1)]));
        let window = Window {
            kernel,
            stride,
            pad: [0, 0],
            dilation: sizes(dilation),
            result: [rows, columns],
        };
        padded(window, call.option(0) == 0, [height, width])
    }
}

/// A window with the rows and columns that TensorFlow adds before an image, whose result is checked.
fn padded(window: Window, same: bool, from: [usize; 2]) -> Drawn<Window> {
    let mut pad = [0; 2];
    for side in 0..2 {
        let stride = window.stride[side];
        let kernel = (window.kernel[side] - 1) * window.dilation[side] + 1;
        let size = match same {
            true => from[side].div_ceil(stride),
            false => (from[side] + stride).saturating_sub(kernel) / stride,
        };
        if size != window.result[side] || size == 0 {
            let found = format!("a result of {:?}", window.result);
            return Err(Refused::new(found, "what strides and padding say"));
        }
        let all = ((size - 1) * stride + kernel).saturating_sub(from[side]);
        pad[side] = if same { all / 2 } else { 0 };
    }
    Ok(Window { pad, ..window })
}

/// What a file's tensor has as elements.
fn dtype(tensor: &tflite::Tensor) -> Drawn<Dtype> {
    match tensor.kind {
        kind::F32 => Ok(Dtype::F32),
        kind::I8 => Ok(Dtype::I8),
        other => Err(Refused::new(
            format!("tensor \"{}\" of type {other}", tensor.name),
            "floats or signed bytes",
        )),
    }
}

/// The scale of a tensor of signed bytes that has one.
fn scale(tensor: &tflite::Tensor) -> Drawn<Scale> {
    match (&tensor.scales[..], &tensor.zero_points[..]) {
        ([scale], [zero]) if *scale > 0.0 && scale.is_finite() && (-128..=127).contains(zero) => {
            Ok(Scale { scale: *scale, zero: *zero as i32 })
        }
        _ => Err(Refused::new(format!("the scales of \"{}\"", tensor.name), "one scale, int8")),
    }
}

/// Images of signed bytes keep four sides.
fn four_sides(shape: &[usize], dtype: Dtype) -> Vec<usize> {
    match (shape, dtype) {
        ([1, channels], Dtype::I8) => vec![1, 1, 1, *channels],
        _ => shape.to_vec(),
    }
}

/// The numbers of a tensor that a file has.
fn array(tensor: &tflite::Tensor) -> Option<Array> {
    let data = &tensor.data;
    if data.is_empty() {
        return None;
    }
    let shape = tensor.shape.clone();
    let numbers = match tensor.kind {
        kind::F32 => {
            Numbers::F32(data.as_chunks().0.iter().map(|b| f32::from_le_bytes(*b)).collect())
        }
        kind::F16 => Numbers::F32(
            data.as_chunks().0.iter().map(|b| half::f16::from_le_bytes(*b).to_f32()).collect(),
        ),
        kind::I32 => {
            let word = |b: &[u8; 4]| i64::from(i32::from_le_bytes(*b));
            Numbers::Whole(data.as_chunks().0.iter().map(word).collect())
        }
        kind::I64 => {
            Numbers::Whole(data.as_chunks().0.iter().map(|b| i64::from_le_bytes(*b)).collect())
        }
        kind::I8 => Numbers::I8(data.iter().map(|b| b.cast_signed()).collect()),
        kind::U8 | kind::BOOL => Numbers::U8(data.clone()),
        _ => return None,
    };
    let array = Array { shape, numbers };
    (super::tensors::count(&array.shape).ok()? == array.count()).then_some(array)
}
