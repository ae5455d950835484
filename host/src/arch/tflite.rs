//! Graphs of TensorFlow Lite in signed bytes.

use super::blueprint::{Blueprint, Data, Role, Sizes, TensorPlan};
use crate::graph::{FORMAT, Graph, Names, Node, Port, ValueRef, ValueShape};
use crate::import::tflite::{Model, Operator, Tensor, read};
use crate::import::{Container, Fields};
use crate::{Error, Result};
use omex_core::ops::{AveragePool, Conv2d, QuantizedAdd, Softmax};
use omex_core::program::{Dtype, Per};
use std::path::Path;

/// Builtin codes of the operators that are known.
const ADD: i32 = 0;
const AVERAGE_POOL: i32 = 1;
const CONV: i32 = 3;
const DEPTHWISE_CONV: i32 = 4;
const FULLY_CONNECTED: i32 = 9;
const RESHAPE: i32 = 22;
const SOFTMAX: i32 = 25;
/// The first builtin operators' names, by code.
const OPERATORS: [&str; 131] = [
    "ADD",
    "AVERAGE_POOL_2D",
    "CONCATENATION",
    "CONV_2D",
    "DEPTHWISE_CONV_2D",
    "DEPTH_TO_SPACE",
    "DEQUANTIZE",
    "EMBEDDING_LOOKUP",
    "FLOOR",
    "FULLY_CONNECTED",
    "HASHTABLE_LOOKUP",
    "L2_NORMALIZATION",
    "L2_POOL_2D",
    "LOCAL_RESPONSE_NORMALIZATION",
    "LOGISTIC",
    "LSH_PROJECTION",
    "LSTM",
    "MAX_POOL_2D",
    "MUL",
    "RELU",
    "RELU_N1_TO_1",
    "RELU6",
    "RESHAPE",
    "RESIZE_BILINEAR",
    "RNN",
    "SOFTMAX",
    "SPACE_TO_DEPTH",
    "SVDF",
    "TANH",
    "CONCAT_EMBEDDINGS",
    "SKIP_GRAM",
    "CALL",
    "CUSTOM",
    "EMBEDDING_LOOKUP_SPARSE",
    "PAD",
    "UNIDIRECTIONAL_SEQUENCE_RNN",
    "GATHER",
    "BATCH_TO_SPACE_ND",
    "SPACE_TO_BATCH_ND",
    "TRANSPOSE",
    "MEAN",
    "SUB",
    "DIV",
    "SQUEEZE",
    "UNIDIRECTIONAL_SEQUENCE_LSTM",
    "STRIDED_SLICE",
    "BIDIRECTIONAL_SEQUENCE_RNN",
    "EXP",
    "TOPK_V2",
    "SPLIT",
    "LOG_SOFTMAX",
    "DELEGATE",
    "BIDIRECTIONAL_SEQUENCE_LSTM",
    "CAST",
    "PRELU",
    "MAXIMUM",
    "ARG_MAX",
    "MINIMUM",
    "LESS",
    "NEG",
    "PADV2",
    "GREATER",
    "GREATER_EQUAL",
    "LESS_EQUAL",
    "SELECT",
    "SLICE",
    "SIN",
    "TRANSPOSE_CONV",
    "SPARSE_TO_DENSE",
    "TILE",
    "EXPAND_DIMS",
    "EQUAL",
    "NOT_EQUAL",
    "LOG",
    "SUM",
    "SQRT",
    "RSQRT",
    "SHAPE",
    "POW",
    "ARG_MIN",
    "FAKE_QUANT",
    "REDUCE_PROD",
    "REDUCE_MAX",
    "PACK",
    "LOGICAL_OR",
    "ONE_HOT",
    "LOGICAL_AND",
    "LOGICAL_NOT",
    "UNPACK",
    "REDUCE_MIN",
    "FLOOR_DIV",
    "REDUCE_ANY",
    "SQUARE",
    "ZEROS_LIKE",
    "FILL",
    "FLOOR_MOD",
    "RANGE",
    "RESIZE_NEAREST_NEIGHBOR",
    "LEAKY_RELU",
    "SQUARED_DIFFERENCE",
    "MIRROR_PAD",
    "ABS",
    "SPLIT_V",
    "UNIQUE",
    "CEIL",
    "REVERSE_V2",
    "ADD_N",
    "GATHER_ND",
    "COS",
    "WHERE",
    "RANK",
    "ELU",
    "REVERSE_SEQUENCE",
    "MATRIX_DIAG",
    "QUANTIZE",
    "MATRIX_SET_DIAG",
    "ROUND",
    "HARD_SWISH",
    "IF",
    "WHILE",
    "NON_MAX_SUPPRESSION_V4",
    "NON_MAX_SUPPRESSION_V5",
    "SCATTER_ND",
    "SELECT_V2",
    "DENSIFY",
    "SEGMENT_SUM",
    "BATCH_MATMUL",
    "PLACEHOLDER_FOR_GREATER_OP_CODES",
    "CUMSUM",
    "CALL_ONCE",
    "BROADCAST_TO",
];
/// Number of the type of signed bytes.
const INT8: u8 = 9;

pub(super) fn blueprint(container: &dyn Container) -> Result<Blueprint> {
    let model = read(container.path())?;
    let mut drawing = Drawing::new(container.path(), &model);
    for (number, operator) in model.operators.iter().enumerate() {
        drawing.number = number;
        drawing.operator(operator)?;
    }
    drawing.finish()
}

/// What is wrong with each operator; one behind another that could not be drawn may be fine.
pub(super) fn problems(container: &dyn Container) -> Vec<Error> {
    let Ok(model) = read(container.path()) else { return vec![] };
    let mut drawing = Drawing::new(container.path(), &model);
    let mut problems = vec![];
    for (number, operator) in model.operators.iter().enumerate() {
        drawing.number = number;
        problems.extend(drawing.operator(operator).err());
    }
    problems
}

/// A graph that is being drawn.
struct Drawing<'m> {
    path: &'m Path,
    model: &'m Model,
    graph: Graph,
    tensors: Vec<TensorPlan>,
    /// The tensor whose value each tensor is: another one behind a reshape.
    same_as: Vec<usize>,
    /// The operator at hand.
    number: usize,
}

impl<'m> Drawing<'m> {
    fn new(path: &'m Path, model: &'m Model) -> Self {
        let same_as = (0..model.tensors.len()).collect();
        let graph = Graph { format: FORMAT, ..Graph::default() };
        Self { path, model, graph, tensors: vec![], same_as, number: 0 }
    }

    fn bad(&self, found: impl Into<String>, expected: &str) -> Error {
        let operator = self.model.operators.get(self.number);
        let kind = operator.map_or_else(String::new, |operator| operator_name(operator.code));
        let to = operator.and_then(|operator| self.model.tensors.get(*operator.outputs.first()?));
        let to = to.map_or_else(String::new, |tensor| format!(", which makes \"{}\"", tensor.name));
        let node = format!("operator {} ({kind}){to}", self.number);
        let remedy = "convolutions, fully connected layers, average pooling, sums, reshape and softmax in int8 \
                      are supported";
        Error::malformed(self.path, node, found.into(), expected, remedy)
    }

    fn tensor(&self, index: Option<&Option<usize>>) -> Result<(usize, &'m Tensor)> {
        let index = index.copied().flatten();
        let found = index.and_then(|index| Some((index, self.model.tensors.get(index)?)));
        found.ok_or_else(|| self.bad("no tensor", "an input"))
    }

    fn operator(&mut self, operator: &Operator) -> Result<()> {
        let (input, _) = self.tensor(operator.inputs.first())?;
        let output = operator.outputs.first().copied().map(Some);
        let (output, _) = self.tensor(output.as_ref())?;
        match operator.code {
            ADD => self.add(operator, input, output),
            CONV => self.conv(operator, input, output, false),
            DEPTHWISE_CONV => self.conv(operator, input, output, true),
            FULLY_CONNECTED => self.fully_connected(operator, input, output),
            AVERAGE_POOL => self.average_pool(operator, input, output),
            SOFTMAX => self.softmax(operator, input, output),
            RESHAPE => {
                let count =
                    |index: usize| self.model.tensors[index].shape.iter().product::<usize>();
                if count(input) != count(output) {
                    return Err(self.bad("a reshape to another size", "as many elements"));
                }
                self.same_as[output] = self.same_as[input];
                Ok(())
            }
            _ => Err(self.bad("this operator", "one that is supported")),
        }
    }

    /// The value of a tensor of signed bytes, as an image.
    fn value(&mut self, index: usize, dims: [usize; 3]) -> Result<ValueRef> {
        let tensor = &self.model.tensors[index];
        let small = dims.iter().all(|n| (1..=usize::from(u16::MAX)).contains(n));
        let width: usize = dims.iter().product();
        if tensor.kind != INT8 || !small || width > 1 << 24 {
            let found = format!("tensor \"{}\" of type {} {:?}", tensor.name, tensor.kind, dims);
            return Err(self.bad(found, "signed bytes of usual size"));
        }
        let name = format!("t{}", self.same_as[index]);
        let dims = [1, dims[0] as u16, dims[1] as u16, dims[2] as u16];
        let shape = ValueShape { width: width as u32, per: Per::Pass, dtype: Dtype::I8, dims };
        let before = self.graph.values.insert(name.clone(), shape);
        if let Some(before) = before.filter(|before| *before != shape) {
            let found =
                format!("tensor \"{}\" as an image {:?} and {dims:?}", tensor.name, before.dims);
            return Err(self.bad(found, "one shape"));
        }
        Ok(ValueRef::all(&name))
    }

    /// What a value is as an image where only its size counts: what it was before, or its shape.
    fn dims(&self, index: usize, width: usize) -> [usize; 3] {
        let known = self.graph.values.get(&format!("t{}", self.same_as[index]));
        match known.map(|known| known.dims.map(usize::from)) {
            Some([_, height, width, channels]) => [height, width, channels],
            None => self.image(index).unwrap_or([1, 1, width]),
        }
    }

    /// Height, width and channels of a tensor; of fewer dimensions, one pixel.
    fn image(&self, index: usize) -> Result<[usize; 3]> {
        match self.model.tensors[index].shape[..] {
            [1, height, width, channels] => Ok([height, width, channels]),
            [1, channels] => Ok([1, 1, channels]),
            ref other => {
                Err(self.bad(format!("a tensor {other:?}"), "[1, height, width, channels]"))
            }
        }
    }

    /// The scale and the zero point of a tensor that has one of each.
    fn quantization(&self, index: usize) -> Result<(f32, i32)> {
        let tensor = &self.model.tensors[index];
        match (&tensor.scales[..], &tensor.zero_points[..]) {
            ([scale], [zero])
                if *scale > 0.0 && scale.is_finite() && (-128..=127).contains(zero) =>
            {
                Ok((*scale, *zero as i32))
            }
            _ => Err(self.bad(format!("the scales of \"{}\"", tensor.name), "one scale, int8")),
        }
    }

    fn conv(
        &mut self,
        operator: &Operator,
        input: usize,
        output: usize,
        depthwise: bool,
    ) -> Result<()> {
        let (weights, tensor) = self.tensor(operator.inputs.get(1))?;
        let [padding, stride_x, stride_y, ref rest @ ..] = operator.options[..] else {
            return Err(self.bad("no options", "those of a convolution"));
        };
        let (activation, dilation) = match (depthwise, rest) {
            (false, [activation, dilation @ ..]) => (*activation, dilation),
            (true, [_, activation, dilation @ ..]) => (*activation, dilation),
            _ => return Err(self.bad("no options", "those of a convolution")),
        };
        if dilation.iter().any(|n| *n > 1) {
            return Err(self.bad("a dilated convolution", "dilation 1"));
        }
        let (from, to) = (self.image(input)?, self.image(output)?);
        let [outer, height, width, inner] = tensor.shape[..] else {
            return Err(self.bad(format!("weights {:?}", tensor.shape), "four dimensions"));
        };
        let (rows, each) = if depthwise { (inner, 1) } else { (outer, inner) };
        let fits = if depthwise { outer == 1 } else { inner == from[2] };
        if !fits || rows != to[2] {
            return Err(self.bad(format!("weights {:?}", tensor.shape), "as many as channels"));
        }
        let stride = self.steps([stride_y, stride_x])?;
        let kernel = self.steps([height as i32, width as i32])?;
        let pad = self.pad(padding, [from[0], from[1]], [to[0], to[1]], kernel, stride)?;
        let per_channel = |channel: usize, at: usize| match depthwise {
            true => at * inner + channel,
            false => channel * height * width * inner + at,
        };
        let weight =
            self.channels(operator, weights, [rows, height * width * each], per_channel)?;
        self.push_conv(
            weight,
            [(input, from), (output, to)],
            kernel,
            stride,
            pad,
            activation,
            depthwise,
        )
    }

    fn fully_connected(&mut self, operator: &Operator, input: usize, output: usize) -> Result<()> {
        let (weights, tensor) = self.tensor(operator.inputs.get(1))?;
        let [rows, columns] = tensor.shape[..] else {
            return Err(self.bad(format!("weights {:?}", tensor.shape), "two dimensions"));
        };
        let count: usize = self.model.tensors[input].shape.iter().product();
        if count != columns {
            return Err(self.bad(format!("{count} inputs"), "as many as weights"));
        }
        let activation = operator.options.first().copied().unwrap_or(0);
        let at = |channel: usize, at: usize| channel * columns + at;
        let weight = self.channels(operator, weights, [rows, columns], at)?;
        // A matrix over an image is a convolution whose window is as large.
        let from = self.dims(input, columns);
        let kernel = self.steps([from[0] as i32, from[1] as i32])?;
        let values = [(input, from), (output, [1, 1, rows])];
        self.push_conv(weight, values, kernel, [1, 1], [0, 0], activation, false)
    }

    #[allow(clippy::too_many_arguments, reason = "a convolution has as many sides")]
    fn push_conv(
        &mut self,
        weight: String,
        [(input, from), (output, to)]: [(usize, [usize; 3]); 2],
        kernel: [u16; 2],
        stride: [u16; 2],
        pad: [u16; 2],
        activation: i32,
        depthwise: bool,
    ) -> Result<()> {
        let ((_, input_zero), (_, output_zero)) =
            (self.quantization(input)?, self.quantization(output)?);
        let clamp = self.clamp(activation, output)?;
        let (input, output) = (self.value(input, from)?, self.value(output, to)?);
        let conv = Conv2d::<Names> {
            weight,
            input,
            output,
            kernel,
            stride,
            pad,
            input_zero,
            output_zero,
            clamp,
            depthwise,
        };
        self.graph.nodes.push(Node::from(conv));
        Ok(())
    }

    fn add(&mut self, operator: &Operator, first: usize, output: usize) -> Result<()> {
        let (second, tensor) = self.tensor(operator.inputs.get(1))?;
        let shape = &self.model.tensors[output].shape;
        if *shape != self.model.tensors[first].shape || *shape != tensor.shape {
            return Err(self.bad(
                format!("a sum of tensors {shape:?}, {:?}", tensor.shape),
                "three of one shape",
            ));
        }
        if !tensor.data.is_empty() || !self.model.tensors[first].data.is_empty() {
            return Err(self.bad("a sum with a constant", "two values"));
        }
        let ends = [first, second, output];
        let mut quantized = [(0.0, 0); 3];
        for (found, index) in quantized.iter_mut().zip(ends) {
            *found = self.quantization(index)?;
        }
        let [(scale_1, zero_1), (scale_2, zero_2), (scale, zero)] = quantized;
        let [scale_1, scale_2, scale] = [scale_1, scale_2, scale].map(f64::from);
        // So scaled, a sum of two stays below what 32 bits hold.
        let twice = 2.0 * scale_1.max(scale_2);
        let factors = [scale_1 / twice, scale_2 / twice, twice / (f64::from(1 << 20) * scale)];
        let [first_scale, second_scale, sum_scale] = factors.map(quantize_multiplier);
        let clamp = self.clamp(operator.options.first().copied().unwrap_or(0), output)?;
        let width = shape.iter().product();
        let mut values = vec![];
        for index in ends {
            let dims = self.dims(index, width);
            values.push(self.value(index, dims)?);
        }
        let [first, second, output] =
            values.try_into().map_err(|_| self.bad("no values", "three"))?;
        self.graph.nodes.push(Node::from(QuantizedAdd::<Names> {
            first,
            second,
            output,
            zeros: [zero_1, zero_2, zero],
            multipliers: [first_scale.0, second_scale.0, sum_scale.0],
            shifts: [first_scale.1, second_scale.1, sum_scale.1],
            clamp,
        }));
        Ok(())
    }

    fn average_pool(&mut self, operator: &Operator, input: usize, output: usize) -> Result<()> {
        let [padding, stride_x, stride_y, width, height, activation] = operator.options[..] else {
            return Err(self.bad("no options", "those of a pooling"));
        };
        let (from, to) = (self.image(input)?, self.image(output)?);
        let (kernel, stride) = (self.steps([height, width])?, self.steps([stride_y, stride_x])?);
        let pad = self.pad(padding, [from[0], from[1]], [to[0], to[1]], kernel, stride)?;
        if self.quantization(input)? != self.quantization(output)? {
            return Err(self.bad("scales that differ", "the input's scale"));
        }
        let clamp = self.clamp(activation, output)?;
        let (input, output) = (self.value(input, from)?, self.value(output, to)?);
        let pool = AveragePool::<Names> { input, output, kernel, stride, pad, clamp };
        self.graph.nodes.push(pool.into());
        Ok(())
    }

    fn softmax(&mut self, operator: &Operator, input: usize, output: usize) -> Result<()> {
        let beta =
            operator.options.first().map_or(1.0, |bits| f32::from_bits(bits.cast_unsigned()));
        let (scale, _) = self.quantization(input)?;
        if self.quantization(output)? != (1.0 / 256.0, -128) {
            return Err(self.bad("another scale of the result", "1/256 and zero point -128"));
        }
        // Differences have 5 bits before the point.
        let most = f64::from(i32::MAX);
        let scale = (f64::from(beta) * f64::from(scale) * f64::from(1u32 << 26)).min(most);
        let (multiplier, shift) = quantize_multiplier(scale);
        let shift = u8::try_from(shift).ok().filter(|shift| *shift <= 26);
        let shift = shift.ok_or_else(|| self.bad("scores of this scale", "a usual scale"))?;
        let radius = (31i64 << 26) as f64 / (1i64 << shift) as f64;
        let count: usize = self.model.tensors[input].shape.iter().product();
        let [from, to] = [input, output].map(|index| self.dims(index, count));
        let (input, output) = (self.value(input, from)?, self.value(output, to)?);
        let least_difference = -(radius.floor() as i32);
        let softmax = Softmax::<Names> { input, output, multiplier, shift, least_difference };
        self.graph.nodes.push(softmax.into());
        Ok(())
    }

    /// Sizes and steps that fit 16 bits.
    fn steps(&self, steps: [i32; 2]) -> Result<[u16; 2]> {
        let step = |n: i32| u16::try_from(n).ok().filter(|n| *n > 0);
        match steps.map(step) {
            [Some(y), Some(x)] => Ok([y, x]),
            _ => Err(self.bad(format!("steps or sizes {steps:?}"), "numbers from 1 to 65535")),
        }
    }

    /// Rows and columns that are added before an image; checks the result's size.
    fn pad(
        &self,
        padding: i32,
        from: [usize; 2],
        to: [usize; 2],
        kernel: [u16; 2],
        stride: [u16; 2],
    ) -> Result<[u16; 2]> {
        let mut pad = [0; 2];
        for side in 0..2 {
            let (kernel, stride) = (usize::from(kernel[side]), usize::from(stride[side]));
            let size = match padding {
                0 => from[side].div_ceil(stride),
                _ => (from[side] + stride).saturating_sub(kernel) / stride,
            };
            if size != to[side] || size == 0 {
                return Err(self.bad(format!("a result of {to:?}"), "what strides and padding say"));
            }
            let all = ((size - 1) * stride + kernel).saturating_sub(from[side]);
            pad[side] = if padding == 0 { (all / 2).min(usize::from(u16::MAX)) as u16 } else { 0 };
        }
        Ok(pad)
    }

    /// The least and the largest output of a fused activation.
    fn clamp(&self, activation: i32, output: usize) -> Result<[i8; 2]> {
        let (scale, zero) = self.quantization(output)?;
        let quantized =
            |x: f32| (zero.saturating_add((x / scale).round() as i32)).clamp(-128, 127) as i8;
        match activation {
            0 => Ok([-128, 127]),
            1 => Ok([quantized(0.0), 127]),
            2 => Ok([quantized(-1.0), quantized(1.0)]),
            3 => Ok([quantized(0.0), quantized(6.0)]),
            other => Err(self.bad(format!("fused activation {other}"), "none, RELU or RELU6")),
        }
    }

    /// Plans the rows of an operator's weights: for each channel bias, multiplier, shift and bytes.
    fn channels(
        &mut self,
        operator: &Operator,
        weights: usize,
        [rows, columns]: [usize; 2],
        place: impl Fn(usize, usize) -> usize,
    ) -> Result<String> {
        let (input, output) = (self.tensor(operator.inputs.first())?.0, operator.outputs[0]);
        let ((input, _), (output, _)) = (self.quantization(input)?, self.quantization(output)?);
        let tensor = &self.model.tensors[weights];
        let whole = tensor.kind == INT8 && tensor.data.len() == rows * columns && rows <= 1 << 16;
        let symmetric = tensor.zero_points.iter().all(|zero| *zero == 0);
        let scales = tensor.scales.len();
        if !whole || !symmetric || (scales != 1 && scales != rows) {
            let found = format!("weights \"{}\"", tensor.name);
            return Err(self.bad(found, "signed bytes with a scale for all or for each channel"));
        }
        let biases = match operator.inputs.get(2) {
            Some(Some(index)) => {
                let bias = &self.model.tensors[*index];
                let words: Vec<i32> =
                    bias.data.as_chunks().0.iter().map(|b| i32::from_le_bytes(*b)).collect();
                if bias.kind != 2 || words.len() != rows {
                    return Err(self.bad(format!("biases \"{}\"", bias.name), "an i32 a channel"));
                }
                words
            }
            _ => vec![0; rows],
        };
        let mut bytes = vec![];
        for (channel, bias) in biases.into_iter().enumerate() {
            let scale = tensor.scales[if scales == 1 { 0 } else { channel }];
            // The reference multiplies the scales of a fully connected layer as floats.
            let product = match operator.code {
                FULLY_CONNECTED => f64::from(input * scale),
                _ => f64::from(input) * f64::from(scale),
            };
            let (multiplier, shift) = quantize_multiplier(product / f64::from(output));
            bytes.extend([bias, multiplier, shift].iter().flat_map(|word| word.to_le_bytes()));
            bytes.extend((0..columns).map(|at| tensor.data[place(channel, at)]));
            bytes.resize(bytes.len().next_multiple_of(4), 0);
        }
        let name = format!("operator_{}", self.number);
        self.tensors.push(TensorPlan {
            name: name.clone(),
            role: Role::Channels,
            rows: rows as u32,
            columns: columns as u32,
            data: Data::Raw(bytes),
            skipped: 0,
        });
        Ok(name)
    }

    fn finish(mut self) -> Result<Blueprint> {
        let ports = |drawing: &mut Self, indices: &[usize]| -> Result<Vec<Port>> {
            let mut ports = vec![];
            for index in indices {
                let (scale, zero_point) = drawing.quantization(*index)?;
                let value = ValueRef::all(&format!("t{}", drawing.same_as[*index]));
                if !drawing.graph.values.contains_key(&value.name) {
                    return Err(drawing.bad("an input or output without an operator", "one with"));
                }
                let name = drawing.model.tensors[*index].name.clone();
                ports.push(Port { name, value, scale, zero_point });
            }
            Ok(ports)
        };
        let model = self.model;
        self.graph.inputs = ports(&mut self, &model.inputs)?;
        self.graph.outputs = ports(&mut self, &model.outputs)?;
        Ok(Blueprint {
            family: "tflite",
            sizes: Sizes::default(),
            graph: self.graph,
            files: vec![self.tensors],
            bos: None,
            eos: vec![],
            derived: vec![],
            aside: vec![],
            hyperparameters: Fields::new(),
            longer: None,
        })
    }
}

/// The name of an operator in the schema; its builtin code where that is a rare one.
fn operator_name(code: i32) -> String {
    let name = usize::try_from(code).ok().and_then(|code| OPERATORS.get(code));
    name.map_or_else(|| format!("builtin operator {code}"), |name| (*name).to_owned())
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
