//! Convolutions, and matrices, which are convolutions of a pixel.

use super::*;
use crate::arch::blueprint::{Data, Role};
use omex_core::ops::Conv2d;

/// A convolution without its image and its window.
struct Kernel {
    /// The rows of [`Door::channels`].
    weight: String,
    from: Scale,
    to: Scale,
    clamp: [i8; 2],
    channels: usize,
    depthwise: bool,
}

impl<'m> Door<'m> {
    pub(super) fn conv(&mut self, call: &Call<'_>, depthwise: bool) -> Drawn<View> {
        let input = self.bytes(call, 0)?;
        let weights = self.weights(call, 1)?;
        let [outer, height, width, inner] = weights.shape[..] else {
            return Err(Refused::new(format!("weights {:?}", weights.shape), "four dimensions"));
        };
        let window = self.window(call, &input.shape, [height as i32, width as i32])?;
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
        let sides = [rows, height * width * each];
        let from = own_scale(&input)?;
        let weight = self.channels(call, (weights, 2), from, sides, per_channel)?;
        let activation = call.option(if depthwise { 4 } else { 3 });
        let kernel = self.kernel(call, (weight, rows), from, (activation, depthwise))?;
        match window.dilation {
            [1, 1] => self.convolved(&input, window, &kernel),
            _ => self.dilated(&input, window, &kernel),
        }
    }

    pub(super) fn fully_connected(&mut self, call: &Call<'_>) -> Drawn<View> {
        let input = self.bytes(call, 0)?;
        let weights = self.weights(call, 1)?;
        let [rows, columns] = weights.shape[..] else {
            return Err(Refused::new(format!("weights {:?}", weights.shape), "two dimensions"));
        };
        if columns == 0 || !input.count().is_multiple_of(columns) {
            let found = format!("{} inputs", input.count());
            return Err(Refused::new(found, "rows as long as those of the weights"));
        }
        let from = own_scale(&input)?;
        let place = |channel: usize, at: usize| channel * columns + at;
        let weight = self.channels(call, (weights, 2), from, [rows, columns], place)?;
        let kernel = self.kernel(call, (weight, rows), from, (call.option(0), false))?;
        // A matrix over an image is a convolution whose window is as large; over rows, of their pixels.
        let sides = self.drawing.sides(&input, columns);
        let [height, width, channels] = sides;
        let (kernel_sides, result) = match input.count() == columns {
            true => ([height, width], [1, 1]),
            false => ([1, 1], [height, width]),
        };
        let window = Window { kernel: kernel_sides, ..Window::pixel(result) };
        let image = self.drawing.reshape(&input, &[1, height, width, channels])?;
        let result = self.convolved(&image, window, &kernel)?;
        self.drawing.reshape(&result, &self.result(call)?.shape)
    }

    pub(super) fn conv_transposed(&mut self, call: &Call<'_>) -> Drawn<View> {
        let input = self.bytes(call, 2)?;
        let weights = self.weights(call, 1)?;
        let [rows, height, width, inner] = weights.shape[..] else {
            return Err(Refused::new(format!("weights {:?}", weights.shape), "four dimensions"));
        };
        if input.shape.last() != Some(&inner) {
            let found = format!("weights {:?}", weights.shape);
            return Err(Refused::new(found, "as many as channels"));
        }
        let (stride, window) = self.transposed_window(call, &input.shape, [height, width])?;
        // The kernel's rows and columns from the other end: it goes over what is spread.
        let turned = |channel: usize, at: usize| {
            let pixel = height * width - 1 - at / inner;
            (channel * height * width + pixel) * inner + at % inner
        };
        let sides = [rows, height * width * inner];
        let from = own_scale(&input)?;
        let weight = self.channels(call, (weights, 3), from, sides, turned)?;
        let kernel = self.kernel(call, (weight, rows), from, (call.option(3), false))?;
        let spread = self.drawing.spread(&input, stride)?;
        self.convolved(&spread, window, &kernel)
    }

    fn kernel(
        &self,
        call: &Call<'_>,
        (weight, channels): (String, usize),
        from: Scale,
        (activation, depthwise): (i32, bool),
    ) -> Drawn<Kernel> {
        let to = scale(self.result(call)?)?;
        let clamp = clamp(activation, to)?;
        Ok(Kernel { weight, from, to, clamp, channels, depthwise })
    }

    fn convolved(&mut self, input: &View, window: Window, kernel: &Kernel) -> Drawn<View> {
        let [1, height, width, channels] = input.shape[..] else {
            return Err(Refused::new(format!("an image {:?}", input.shape), "one, of four sides"));
        };
        let image = self.drawing.image(input, [height, width, channels])?;
        let [rows, columns] = window.result;
        let shape = [1, rows, columns, kernel.channels];
        let result = View { scale: Some(kernel.to), ..self.drawing.value(Dtype::I8, &shape)? };
        self.drawing.push(Conv2d::<Names> {
            weight: kernel.weight.clone(),
            input: image,
            output: ValueRef::all(&result.buffer),
            kernel: Window::sides(window.kernel)?,
            stride: Window::sides(window.stride)?,
            pad: Window::sides(window.pad)?,
            input_zero: kernel.from.zero,
            output_zero: kernel.to.zero,
            clamp: kernel.clamp,
            depthwise: kernel.depthwise,
        });
        Ok(result)
    }

    /// A dilated convolution: pixels of the result as far apart as the kernel's see pixels of the image that are,
    /// too, so that each such part is a convolution of its own.
    fn dilated(&mut self, input: &View, window: Window, kernel: &Kernel) -> Drawn<View> {
        if window.stride != [1, 1] {
            return Err(Refused::new(format!("strides {:?}", window.stride), "1 with dilation"));
        }
        let [rows, columns] = window.result;
        let shape = [1, rows, columns, kernel.channels];
        let whole = View { scale: Some(kernel.to), ..self.drawing.value(Dtype::I8, &shape)? };
        let [down, right] = window.dilation;
        // A copy there, a convolution, and a copy back.
        let phases = down.min(rows).saturating_mul(right.min(columns));
        self.drawing.room(phases.saturating_mul(3))?;
        for top in 0..down.min(rows) {
            for left in 0..right.min(columns) {
                let (mut from, mut to) = (input.clone(), whole.clone());
                let mut part = Window { dilation: [1, 1], ..window };
                for (side, first) in [top, left].into_iter().enumerate() {
                    let (seen, pad, count) = phase(&window, side, input.shape[side + 1], first);
                    let by = window.dilation[side] as i64;
                    from = from.sliced(side + 1, seen.start, seen.count, by)?;
                    to = to.sliced(side + 1, first as i64, count, by)?;
                    (part.pad[side], part.result[side]) = (pad, count);
                }
                let convolved = self.convolved(&from, part, kernel)?;
                self.drawing.copy(&convolved, &to)?;
            }
        }
        Ok(whole)
    }

    /// The tensor of weights that the file has.
    pub(super) fn weights(&self, call: &Call<'_>, place: usize) -> Drawn<&'m tflite::Tensor> {
        let index = call.operator.inputs.get(place).copied().flatten();
        let tensor = index.and_then(|index| self.model.tensors.get(index));
        tensor.ok_or_else(|| Refused::new("no weights", format!("input {place}")))
    }

    /// Plans the rows of an operator's weights.
    fn channels(
        &mut self,
        call: &Call<'_>,
        weights: (&tflite::Tensor, usize),
        from: Scale,
        [rows, columns]: [usize; 2],
        place: impl Fn(usize, usize) -> usize,
    ) -> Drawn<String> {
        let to = scale(self.result(call)?)?.scale;
        let bytes = self.rows(call, weights, (from.scale, to), [rows, columns], place)?;
        Ok(self.drawing.weight(Role::Channels, [rows, columns], Data::Raw(bytes)))
    }

    /// The rows of a tensor of weights, whose biases are an input: for each channel bias, multiplier, shift and
    /// bytes.
    pub(super) fn rows(
        &self,
        call: &Call<'_>,
        (tensor, bias): (&tflite::Tensor, usize),
        (from, to): (f32, f32),
        [rows, columns]: [usize; 2],
        place: impl Fn(usize, usize) -> usize,
    ) -> Drawn<Vec<u8>> {
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
        let biases = self.biases(call, bias, rows)?;
        let mut bytes = vec![];
        for (channel, bias) in biases.into_iter().enumerate() {
            let scale = tensor.scales[if scales == 1 { 0 } else { channel }];
            // The reference multiplies the scales of matrices as floats.
            let product = match call.operator.code {
                FULLY_CONNECTED | SEQUENCE_LSTM => f64::from(from * scale),
                _ => f64::from(from) * f64::from(scale),
            };
            let (multiplier, shift) = quantize_multiplier(product / f64::from(to));
            bytes.extend([bias, multiplier, shift].iter().flat_map(|word| word.to_le_bytes()));
            bytes.extend((0..columns).map(|at| tensor.data[place(channel, at)]));
            bytes.resize(bytes.len().next_multiple_of(4), 0);
        }
        Ok(bytes)
    }

    /// The biases of so many channels; zeros where there are none.
    fn biases(&self, call: &Call<'_>, place: usize, rows: usize) -> Drawn<Vec<i32>> {
        if call.operator.inputs.get(place).copied().flatten().is_none() {
            return Ok(vec![0; rows]);
        }
        let biases: Vec<i32> = self.numbers(call, place)?.into_iter().map(|n| n as i32).collect();
        match biases.len() == rows {
            true => Ok(biases),
            false => Err(Refused::new(format!("{} biases", biases.len()), "one a channel")),
        }
    }
}

/// Rows or columns of an image that lie as far apart as a window is dilated.
struct Seen {
    start: i64,
    count: usize,
}

/// Of the pixels of a dilated convolution from `first` on: what they see along a side, how much of it lies before
/// the image, and how many they are.
fn phase(window: &Window, side: usize, size: usize, first: usize) -> (Seen, usize, usize) {
    let by = window.dilation[side];
    let place = first as i64 - window.pad[side] as i64;
    let start = place.rem_euclid(by as i64);
    let before = usize::try_from(-place.div_euclid(by as i64)).unwrap_or(0);
    let count = (window.result[side] - first).div_ceil(by);
    match size.saturating_sub(start as usize).div_ceil(by) {
        // Nothing of the image: any of it, out of sight.
        0 => (Seen { start: 0, count: 1 }, count + window.kernel[side], count),
        seen => (Seen { start, count: seen }, before, count),
    }
}
