//! Random programs over images of signed bytes, which take no tokens.

use super::choices::Choices;
use super::maker::{Made, Maker};
use omex::graph::{Names, Port, ValueRef, ValueShape};
use omex_core::ops::{AveragePool, Conv2d, QuantizedAdd, Softmax};
use omex_core::program::{Dtype, Per};
use omex_core::quant::Format;

/// The name of a program's input and of its output.
pub(super) const INPUT: &str = "image";
pub(super) const OUTPUT: &str = "scores";

/// An image: its value; height, width and channels.
#[derive(Clone)]
struct Image {
    value: ValueRef,
    sides: [u32; 2],
    channels: u32,
}

/// How a window is moved over an image.
struct Steps {
    kernel: [u16; 2],
    stride: [u16; 2],
    pad: [u16; 2],
    clamp: [i8; 2],
    /// Of the result.
    sides: [u32; 2],
}

pub(super) fn make(choices: &[u8]) -> Made {
    let mut maker = Maker::new(Choices::new(choices));
    let sides = [maker.random.between(1, 6), maker.random.between(1, 6)];
    let channels = maker.random.between(1, 5);
    let mut image = maker.image(sides, channels);
    maker.graph.inputs = vec![port(INPUT, &image)];
    let mut before = vec![];
    for _ in 0..maker.random.between(1, 4) {
        let next = if maker.random.chance(3) { maker.pool(&image) } else { maker.convolve(&image) };
        before.push(std::mem::replace(&mut image, next));
        if maker.random.chance(3) {
            let as_large =
                |other: &&Image| (other.sides, other.channels) == (image.sides, image.channels);
            let sum = maker.add(&image, before.iter().find(as_large).unwrap_or(&image));
            before.push(std::mem::replace(&mut image, sum));
        }
    }
    if maker.random.chance(3) {
        image = maker.softmax(&image);
    }
    maker.graph.outputs = vec![port(OUTPUT, &image)];
    maker.compile()
}

fn port(name: &str, image: &Image) -> Port {
    let (name, value) = (name.to_owned(), image.value.clone());
    Port { name, value, scale: 0.5, zero_point: -3 }
}

impl Maker<'_> {
    fn image(&mut self, sides: [u32; 2], channels: u32) -> Image {
        let [height, width] = sides;
        let dims = [1, height, width, channels].map(|side| side as u16);
        let width = height * width * channels;
        let value = self.shaped(ValueShape { width, per: Per::Pass, dtype: Dtype::I8, dims });
        Image { value, sides, channels }
    }

    /// Any steps, which now and then do not fit the image: then some windows see nothing of it.
    fn steps(&mut self, image: &Image) -> Steps {
        let mut two = |least, most| [(); 2].map(|()| self.random.between(least, most) as u16);
        let (kernel, stride, pad) = (two(1, 3), two(1, 2), two(0, 3));
        let any = two(1, 5).map(u32::from);
        let whole = |side: usize| {
            let [size, kernel] = [image.sides[side], u32::from(kernel[side])];
            (size + 2 * u32::from(pad[side])).saturating_sub(kernel) / u32::from(stride[side]) + 1
        };
        let sides = if self.random.chance(3) { any } else { [whole(0), whole(1)] };
        let mut clamp = [-128, 127];
        if self.random.chance(3) {
            clamp = [(); 2].map(|()| self.random.byte());
            clamp.sort_unstable();
        }
        Steps { kernel, stride, pad, clamp, sides }
    }

    /// Some rows of an image, now and then.
    fn band(&mut self, image: &Image) -> Image {
        let [height, width] = image.sides;
        if image.value.rows.is_some() || !self.random.chance(4) {
            return image.clone();
        }
        let first = self.random.between(0, height - 1);
        let end = self.random.between(first + 1, height);
        let row = width * image.channels;
        let value = ValueRef::rows(&image.value.name, first * row, end * row);
        Image { value, sides: [end - first, width], channels: image.channels }
    }

    fn convolve(&mut self, from: &Image) -> Image {
        let from = &self.band(from);
        let Steps { kernel, stride, pad, clamp, sides } = self.steps(from);
        let depthwise = self.random.chance(3);
        let (each, channels) = if depthwise {
            (1, from.channels * self.random.between(1, 2))
        } else {
            (from.channels, self.random.between(1, 6))
        };
        let columns = u32::from(kernel[0]) * u32::from(kernel[1]) * each;
        let to = self.image(sides, channels);
        let weight = self.channels(channels, columns);
        let zero =
            |random: &mut Choices<'_>| if random.chance(3) { 0 } else { random.byte().into() };
        let input_zero = zero(&mut self.random);
        let output_zero = zero(&mut self.random);
        let (input, output) = (from.value.clone(), to.value.clone());
        self.push(Conv2d::<Names> {
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
        });
        to
    }

    /// A row for each output channel: bias, multiplier, shift, and weights.
    pub(super) fn channels(&mut self, rows: u32, columns: u32) -> String {
        let mut bytes = vec![];
        for _ in 0..rows {
            let bias = i32::from(self.random.byte()) * 16;
            let multiplier = (1 << 30) + self.random.below(1 << 30) as i32;
            let shift = self.random.between(0, 12) as i32 - 11;
            bytes.extend([bias, multiplier, shift].iter().flat_map(|word| word.to_le_bytes()));
            bytes.extend((0..columns).map(|_| self.random.byte().cast_unsigned()));
            bytes.resize(bytes.len().next_multiple_of(4), 0);
        }
        let name = self.name("w");
        self.store((name.clone(), 0), Format::Channels, [rows, columns], &bytes);
        name
    }

    fn pool(&mut self, from: &Image) -> Image {
        let Steps { kernel, stride, pad, clamp, sides } = self.steps(from);
        let to = self.image(sides, from.channels);
        let (input, output) = (from.value.clone(), to.value.clone());
        self.push(AveragePool::<Names> { input, output, kernel, stride, pad, clamp });
        to
    }

    /// The sum of an image and itself, or of another as large.
    fn add(&mut self, first: &Image, second: &Image) -> Image {
        let to = self.image(first.sides, first.channels);
        let mut three = |low: u32, count: u32| {
            [0; 3].map(|_: i32| low.cast_signed() + self.random.below(count).cast_signed())
        };
        let multipliers = three(1 << 30, 1 << 30);
        let [first_shift, second_shift, shift] = three(0, 6);
        let zeros = three(0, 256).map(|zero| zero - 128);
        let [low, high] = [self.random.byte(), self.random.byte()];
        let [first, second] = [first, second].map(|image| image.value.clone());
        self.push(QuantizedAdd::<Names> {
            first,
            second,
            output: to.value.clone(),
            zeros,
            multipliers,
            shifts: [-first_shift, -second_shift, shift - 22],
            clamp: [low.min(high), low.max(high)],
        });
        to
    }

    fn softmax(&mut self, from: &Image) -> Image {
        let to = self.image(from.sides, from.channels);
        let multiplier = (1 << 30) + self.random.below(1 << 30) as i32;
        let shift = self.random.between(16, 26) as u8;
        // Scaled differences have 5 bits before the point.
        let least_difference = -((31i64 << 26 >> shift) as i32);
        let (input, output) = (from.value.clone(), to.value.clone());
        self.push(Softmax::<Names> { input, output, multiplier, shift, least_difference });
        to
    }
}
