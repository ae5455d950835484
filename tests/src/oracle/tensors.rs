//! Random programs over tensors of floats and signed bytes, which take no tokens.

use super::choices::Choices;
use super::images::{INPUT, OUTPUT};
use super::maker::{Made, Maker};
use omex::graph::{Names, Port, StateShape, ValueRef, ValueShape};
use omex_core::math::exp;
use omex_core::ops::{
    Activate, Activation, Alignment, Binary, BinaryFunction, Constant, Dequantize, Fill,
    FloatConv2d, FloatSoftmax, Keep, Lookup, Pool, Pooling, Quantize, QuantizedBinary,
    QuantizedFunction, QuantizedLstm, QuantizedSum, Rearrange, Recall, Reduce, Reduction, Resize,
    Unary, UnaryFunction,
};
use omex_core::program::{Dtype, Per};
use omex_core::quant::Format;

/// Functions without jumps.
const FUNCTIONS: [UnaryFunction; 11] = [
    UnaryFunction::Exp,
    UnaryFunction::Log,
    UnaryFunction::Sqrt,
    UnaryFunction::Abs,
    UnaryFunction::Reciprocal,
    UnaryFunction::HardSwish,
    UnaryFunction::Erf,
    UnaryFunction::Softplus,
    UnaryFunction::Elu,
    UnaryFunction::Sin,
    UnaryFunction::Cos,
];
const PAIRS: [BinaryFunction; 8] = [
    BinaryFunction::Add,
    BinaryFunction::Subtract,
    BinaryFunction::Multiply,
    BinaryFunction::Divide,
    BinaryFunction::Max,
    BinaryFunction::Min,
    BinaryFunction::Power,
    BinaryFunction::LeakyRelu,
];

const ALIGNMENTS: [Alignment; 4] =
    [Alignment::Corner, Alignment::HalfPixel, Alignment::Ends, Alignment::Middle];

/// An image: its value; height, width and channels.
#[derive(Clone)]
struct Image {
    value: ValueRef,
    sides: [u32; 3],
}

impl Image {
    fn count(&self) -> u32 {
        self.sides.iter().product()
    }
}

pub(super) fn make(choices: &[u8]) -> Made {
    let mut maker = Maker::new(Choices::new(choices));
    let sides = [(); 3].map(|()| maker.random.between(1, 5));
    let mut image = maker.floats(sides);
    maker.graph.inputs = vec![port(INPUT, &image)];
    // What jumps comes first, where both players have the same bits.
    match maker.random.below(3) {
        0 => image = maker.through_bytes(&image),
        1 => {
            image = maker.rearranged(&image, Dtype::F32);
            let function = maker.random.pick(&[
                UnaryFunction::Floor,
                UnaryFunction::Ceil,
                UnaryFunction::Round,
            ]);
            maker.push(Unary::<Names> { function, value: image.value.clone() });
        }
        _ => {}
    }
    for _ in 0..maker.random.between(1, 4) {
        image = match maker.random.below(9) {
            0 | 1 => maker.convolved(&image),
            2 => maker.pooled(&image, Dtype::F32),
            3 => maker.resized(&image, Dtype::F32),
            4 => maker.paired(&image),
            5 => maker.reduced(&image),
            6 => maker.rearranged(&image, Dtype::F32),
            7 => maker.changed_since(&image),
            _ => maker.changed(&image),
        };
    }
    if maker.random.chance(3) {
        let log = maker.random.chance(2);
        image = maker.rearranged(&image, Dtype::F32);
        let [.., length] = image.sides;
        maker.push(FloatSoftmax::<Names> { value: image.value.clone(), length, log });
    }
    if image.value.name == maker.graph.inputs[0].value.name {
        image = maker.rearranged(&image, Dtype::F32);
    }
    maker.graph.outputs = vec![port(OUTPUT, &image)];
    maker.compile()
}

fn port(name: &str, image: &Image) -> Port {
    Port { name: name.to_owned(), ..Port::of(&image.value.name) }
}

impl Maker<'_> {
    fn floats(&mut self, sides: [u32; 3]) -> Image {
        self.of_type(Dtype::F32, sides)
    }

    fn of_type(&mut self, dtype: Dtype, sides: [u32; 3]) -> Image {
        let [height, width, channels] = sides;
        let dims = [1, height, width, channels].map(|side| side as u16);
        let width = sides.iter().product();
        let value = self.shaped(ValueShape { width, per: Per::Pass, dtype, dims });
        Image { value, sides }
    }

    /// Bytes, changed by a table, pooled and turned, and floats again.
    fn through_bytes(&mut self, from: &Image) -> Image {
        let scale = 0.01 + 0.01 * self.random.below(8) as f32;
        let zero = if self.random.chance(2) { 0 } else { i32::from(self.random.byte()) };
        let bytes = self.of_type(Dtype::I8, from.sides);
        let ties_away = self.random.chance(2);
        let (input, output) = (from.value.clone(), bytes.value.clone());
        self.push(Quantize::<Names> { input, output, scale, zero, ties_away });
        let table = self.name("w");
        let entries = (0..256).flat_map(|_| f32::from(self.random.byte()).to_le_bytes());
        let entries: Vec<u8> = entries.collect();
        self.store((table.clone(), 0), Format::Vector, [1, 256], &entries);
        let looked = self.of_type(Dtype::I8, from.sides);
        let (input, output) = (bytes.value, looked.value.clone());
        self.push(Lookup::<Names> { table, input, output });
        let mut bytes = looked;
        for _ in 0..2 {
            bytes = match self.random.below(5) {
                0 => self.pooled(&bytes, Dtype::I8),
                1 => self.resized(&bytes, Dtype::I8),
                2 => self.paired_bytes(&bytes),
                3 => self.remembered(&bytes),
                _ => self.summed(&bytes),
            };
        }
        let turned = self.rearranged(&bytes, Dtype::I8);
        let floats = self.floats(turned.sides);
        let (input, output) = (turned.value, floats.value.clone());
        let zero = if self.random.chance(2) { 0 } else { i32::from(self.random.byte()) };
        self.push(Dequantize::<Names> { input, output, scale, zero });
        floats
    }

    /// Other sides, some turned about, in a larger value.
    fn rearranged(&mut self, from: &Image, dtype: Dtype) -> Image {
        let [_, width, channels] = from.sides;
        let steps = [width * channels, channels, 1].map(u32::cast_signed);
        let mut order = [0, 1, 2];
        order.swap(0, self.random.below(3) as usize);
        let dims = order.map(|axis| from.sides[axis]);
        let mut own = order.map(|axis| steps[axis]);
        let mut from_first = 0;
        for (dim, step) in dims.iter().zip(&mut own) {
            if self.random.chance(4) {
                from_first += (*dim as i32 - 1) * *step;
                *step = -*step;
            }
        }
        let before = self.random.below(2);
        let sides = [dims[0] + before, dims[1], dims[2]];
        let to = self.of_type(dtype, sides);
        let number = if self.random.chance(2) { 0.0 } else { f32::from(self.random.byte()) };
        self.push(Fill::<Names> { output: to.value.clone(), number });
        let rows = [sides[1] * sides[2], sides[2], 1].map(u32::cast_signed);
        self.push(Rearrange::<Names> {
            input: from.value.clone(),
            output: to.value.clone(),
            dims: [1, 1, dims[0], dims[1], dims[2]],
            from: [0, 0, own[0], own[1], own[2]],
            to: [0, 0, rows[0], rows[1], rows[2]],
            from_first: from_first as u32,
            to_first: before * sides[1] * sides[2],
        });
        to
    }

    fn convolved(&mut self, from: &Image) -> Image {
        let mut two = |least, most| [(); 2].map(|()| self.random.between(least, most) as u16);
        let (kernel, stride, pad, dilation) = (two(1, 3), two(1, 2), two(0, 2), two(1, 2));
        let [height, width, inputs] = from.sides;
        let depthwise = self.random.chance(3);
        let outputs = match depthwise {
            true => inputs * self.random.between(1, 2),
            false => self.random.between(1, 11),
        };
        let taps = u32::from(kernel[0]) * u32::from(kernel[1]);
        let format = self.random.pick(&[Format::F32, Format::F32, Format::F16, Format::Int8]);
        let weight = match depthwise {
            true => self.vector(taps * outputs, 0.0),
            false => self.tensor(format, outputs, taps * inputs, 0.0, 0),
        };
        let bias = self.random.chance(2).then(|| self.vector(outputs, 0.0));
        // Any sides: windows beside the image see nothing.
        let to = self.floats([height.div_ceil(2).max(1), width, outputs]);
        let (input, output) = (from.value.clone(), to.value.clone());
        self.push(FloatConv2d::<Names> {
            bias,
            weight,
            input,
            output,
            kernel,
            stride,
            pad,
            dilation,
            depthwise,
        });
        to
    }

    fn pooled(&mut self, from: &Image, dtype: Dtype) -> Image {
        let kernel = [(); 2].map(|()| self.random.between(1, 3));
        let stride = [(); 2].map(|()| self.random.between(1, 2));
        let pad = kernel.map(|kernel| self.random.below(kernel));
        // Every window sees some of the image.
        let most = |n: usize| (from.sides[n] + pad[n] - 1) / stride[n] + 1;
        let sides = [0, 1].map(|n| self.random.between(1, most(n)));
        let pooling = match dtype {
            Dtype::I8 => Pooling::Max,
            _ => self.random.pick(&[Pooling::Max, Pooling::Mean, Pooling::MeanOfWindow]),
        };
        let to = self.of_type(dtype, [sides[0], sides[1], from.sides[2]]);
        let (input, output) = (from.value.clone(), to.value.clone());
        let [kernel, stride, pad] = [kernel, stride, pad].map(|two| two.map(|n| n as u16));
        self.push(Pool::<Names> { pooling, input, output, kernel, stride, pad });
        to
    }

    /// A function of bytes and of the first of them, repeated along some sides.
    fn paired_bytes(&mut self, from: &Image) -> Image {
        let to = self.of_type(Dtype::I8, from.sides);
        let [height, width, channels] = from.sides;
        let steps = [width * channels, channels, 1].map(u32::cast_signed);
        let own = steps.map(|step| if self.random.chance(2) { step } else { 0 });
        let function = self.random.pick(&[
            QuantizedFunction::Subtract,
            QuantizedFunction::Multiply,
            QuantizedFunction::Max,
            QuantizedFunction::Min,
        ]);
        let (zeros, mut clamp) = ([(); 3].map(|()| self.random.byte()), [-128, 127]);
        if self.random.chance(3) {
            clamp = [(); 2].map(|()| self.random.byte());
            clamp.sort_unstable();
        }
        let [first, second, shift] = [6, 6, 8].map(|count| -self.random.below(count).cast_signed());
        let lower = if function == QuantizedFunction::Subtract { 18 } else { 6 };
        let multipliers = [(); 3].map(|()| (1 << 30) + self.random.below(1 << 30).cast_signed());
        self.push(QuantizedBinary::<Names> {
            function,
            first: from.value.clone(),
            second: from.value.clone(),
            output: to.value.clone(),
            dims: [1, height, width, channels],
            first_steps: [0, steps[0], steps[1], steps[2]],
            second_steps: [0, own[0], own[1], own[2]],
            zeros: zeros.map(i32::from),
            multipliers,
            shifts: [first, second, shift - lower],
            clamp,
        });
        to
    }

    /// An LSTM that sees the bytes twice.
    fn remembered(&mut self, from: &Image) -> Image {
        let width = self.random.between(1, 5);
        let (inputs, rows) = (from.count(), 4 * width);
        let input_weight = self.channels(rows, inputs);
        let recurrent_weight = self.channels(rows, width);
        let sigmoids = self.name("w");
        let entries = (0..256).map(|i| (65536.0 / (1.0 + exp(-i as f32 / 24.0))).min(65535.0));
        let entries: Vec<u8> = entries.flat_map(|x| x.floor().to_le_bytes()).collect();
        self.store((sigmoids.clone(), 0), Format::Vector, [1, 256], &entries);
        let dims = [1, 1, 1, width as u16];
        let cell = self.shaped(ValueShape { width, per: Per::Pass, dtype: Dtype::I16, dims });
        let number = f32::from(self.random.byte());
        self.push(Fill::<Names> { output: cell.clone(), number });
        let mut before = self.of_type(Dtype::I8, [1, 1, width]);
        let zeros = [(); 2].map(|()| if self.random.chance(2) { 0 } else { self.random.byte() });
        let number = f32::from(zeros[1]);
        self.push(Fill::<Names> { output: before.value.clone(), number });
        let cell_bits = self.random.between(9, 15) as u8;
        let clip = if self.random.chance(2) { 0 } else { self.random.between(1, 32767) as u16 };
        let multiplier = (1 << 30) + self.random.below(1 << 30).cast_signed();
        let shift = -(self.random.between(20, 24).cast_signed());
        for _ in 0..2 {
            let next = self.of_type(Dtype::I8, [1, 1, width]);
            self.push(QuantizedLstm::<Names> {
                input_weight: input_weight.clone(),
                recurrent_weight: recurrent_weight.clone(),
                sigmoids: sigmoids.clone(),
                input: from.value.clone(),
                before: before.value.clone(),
                cell: cell.clone(),
                output: next.value.clone(),
                input_zero: zeros[0].into(),
                output_zero: zeros[1].into(),
                cell_bits,
                clip,
                multiplier,
                shift,
            });
            before = next;
        }
        before
    }

    /// Each pixel's bytes, made one.
    fn summed(&mut self, from: &Image) -> Image {
        let [height, width, _] = from.sides;
        let to = self.of_type(Dtype::I8, [height, width, 1]);
        let zero = |random: &mut Choices<'_>| {
            if random.chance(3) { 0 } else { random.byte().into() }
        };
        let [input_zero, output_zero] = [(); 2].map(|()| zero(&mut self.random));
        let multiplier = (1 << 30) + self.random.below(1 << 30).cast_signed();
        let shift = 1 - self.random.below(5).cast_signed();
        self.push(QuantizedSum::<Names> {
            input: from.value.clone(),
            output: to.value.clone(),
            multiplier,
            shift,
            input_zero,
            output_zero,
        });
        to
    }

    /// What has changed since the pass before.
    fn changed_since(&mut self, from: &Image) -> Image {
        let (before, to) = (self.floats(from.sides), self.floats(from.sides));
        let state = self.name("s");
        let bytes = 4 * from.count();
        self.graph.states.insert(state.clone(), StateShape::Bytes { count: 1, bytes });
        let initial = if self.random.chance(2) { 0.0 } else { self.random.unit() };
        let output = before.value.clone();
        self.push(Recall::<Names> { state: state.clone(), output, initial });
        let input = from.value.clone();
        self.push(Keep::<Names> { input, state });
        let [height, width, channels] = from.sides;
        let steps = [0, width * channels, channels, 1].map(u32::cast_signed);
        self.push(Binary::<Names> {
            function: BinaryFunction::Subtract,
            first: from.value.clone(),
            second: before.value,
            output: to.value.clone(),
            dims: [1, height, width, channels],
            first_steps: steps,
            second_steps: steps,
        });
        to
    }

    fn resized(&mut self, from: &Image, dtype: Dtype) -> Image {
        let sides = [self.random.between(1, 7), self.random.between(1, 7), from.sides[2]];
        let to = self.of_type(dtype, sides);
        let alignment = self.random.pick(&ALIGNMENTS);
        let (bilinear, nearest) = (self.random.chance(2), self.random.chance(2));
        let (input, output) = (from.value.clone(), to.value.clone());
        self.push(Resize::<Names> { input, output, alignment, bilinear, nearest });
        to
    }

    /// Numbers from 1/2 to 3/2, for functions that others have no business with.
    fn guarded(&mut self, from: &Image) -> Image {
        let squashed = self.rearranged(from, Dtype::F32);
        let value = squashed.value.clone();
        self.push(Activate::<Names> { activation: Activation::Sigmoid, value });
        let half = self.shaped(ValueShape { width: 1, per: Per::Pass, ..ValueShape::default() });
        self.push(Fill::<Names> { output: half.clone(), number: 0.5 });
        let to = self.floats(squashed.sides);
        let count = squashed.count();
        self.push(Binary::<Names> {
            function: BinaryFunction::Add,
            first: squashed.value,
            second: half,
            output: to.value.clone(),
            dims: [1, 1, 1, count],
            first_steps: [0, 0, 0, 1],
            second_steps: [0; 4],
        });
        to
    }

    /// A function of an image and of numbers that are repeated along some of its sides.
    fn paired(&mut self, from: &Image) -> Image {
        let function = self.random.pick(&PAIRS);
        let guard = matches!(function, BinaryFunction::Divide | BinaryFunction::Power);
        let first = if guard { self.guarded(from) } else { from.clone() };
        let [height, width, channels] = first.sides;
        let kept = [(); 3].map(|()| u32::from(self.random.chance(2)));
        let own = [0, 1, 2].map(|axis| if kept[axis] == 1 { first.sides[axis] } else { 1 });
        let count = own.iter().product();
        let second =
            self.shaped(ValueShape { width: count, per: Per::Pass, ..ValueShape::default() });
        let weight = self.vector(count, if guard { 1.0 } else { 0.0 });
        self.push(Constant::<Names> { weight, output: second.clone() });
        let to = self.floats(first.sides);
        let step = |axis: usize, step: u32| if kept[axis] == 1 { step.cast_signed() } else { 0 };
        self.push(Binary::<Names> {
            function,
            first: first.value,
            second,
            output: to.value.clone(),
            dims: [1, height, width, channels],
            first_steps: [0, (width * channels).cast_signed(), channels.cast_signed(), 1],
            second_steps: [0, step(0, own[1] * own[2]), step(1, own[2]), step(2, 1)],
        });
        to
    }

    fn reduced(&mut self, from: &Image) -> Image {
        let reduction =
            self.random.pick(&[Reduction::Sum, Reduction::Mean, Reduction::Max, Reduction::Min]);
        let [height, width, _] = from.sides;
        let to = self.floats([height, width, 1]);
        let (input, output) = (from.value.clone(), to.value.clone());
        self.push(Reduce::<Names> { reduction, input, output });
        to
    }

    /// Some functions of numbers one after another.
    fn changed(&mut self, from: &Image) -> Image {
        let mut image = from.clone();
        for _ in 0..4 {
            image = self.guarded(&image);
            let function = self.random.pick(&FUNCTIONS);
            self.push(Unary::<Names> { function, value: image.value.clone() });
        }
        image
    }
}
