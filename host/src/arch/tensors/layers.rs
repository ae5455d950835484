//! Operations, drawn.

use super::drawing::{Drawing, Tensor};
use super::images::is_image;
use super::refused::{Drawn, Refused};
use super::view::{FAR, Scale, View, broadcast_shape, merged, viewed};
use crate::arch::blueprint::{Data, Role};
use crate::graph::{Names, ValueRef};
use crate::import::Array;
use omex_core::ops::{
    Activate, Activation, Alignment, BROADCAST_AXES, Binary, BinaryFunction, Dequantize, Fill,
    FloatConv2d, FloatSoftmax, Lookup, Pool, Pooling, Quantize, Reduce, Reduction, Resize, Unary,
    UnaryFunction,
};
use omex_core::program::Dtype;

/// A window that moves over an image.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(in super::super) struct Window {
    /// Height and width.
    pub(in super::super) kernel: [usize; 2],
    /// Steps down and to the right.
    pub(in super::super) stride: [usize; 2],
    /// Rows above the image and columns left of it.
    pub(in super::super) pad: [usize; 2],
    /// How far apart the kernel's rows and columns lie.
    pub(in super::super) dilation: [usize; 2],
    /// Height and width of the result.
    pub(in super::super) result: [usize; 2],
}

impl Window {
    /// One that sees a pixel at a time.
    pub(in super::super) fn pixel(result: [usize; 2]) -> Self {
        Self { kernel: [1, 1], stride: [1, 1], pad: [0, 0], dilation: [1, 1], result }
    }

    /// One that goes over what a transposed convolution spreads, of which so many rows and columns come before the
    /// result.
    pub(in super::super) fn transposed(
        kernel: [usize; 2],
        before: [usize; 2],
        result: [usize; 2],
    ) -> Drawn<Self> {
        let mut pad = [0; 2];
        for side in 0..2 {
            let most = kernel[side].checked_sub(1 + before[side]);
            pad[side] = most.ok_or_else(|| {
                let found = format!("{} rows or columns before the result", before[side]);
                Refused::new(found, "fewer than the kernel has")
            })?;
        }
        Ok(Self { kernel, pad, ..Self::pixel(result) })
    }

    pub(in super::super) fn sides(values: [usize; 2]) -> Drawn<[u16; 2]> {
        let [y, x] = values.map(u16::try_from);
        match (y, x) {
            (Ok(y), Ok(x)) => Ok([y, x]),
            _ => Err(Refused::new(format!("steps or sizes {values:?}"), "numbers below 65536")),
        }
    }
}

/// The numbers of a convolution.
#[derive(Clone, Debug, PartialEq)]
pub(in super::super) struct Weights {
    /// For each output channel [ky, kx, i]; if depthwise, [ky, kx, o].
    pub(in super::super) numbers: Vec<f32>,
    pub(in super::super) outputs: usize,
    /// Output channel o has only input channel o / (outputs / inputs).
    pub(in super::super) depthwise: bool,
    /// For each output channel.
    pub(in super::super) bias: Option<Vec<f32>>,
}

impl Drawing {
    /// A view as an image [1, height, width, channels] that takes a whole value.
    pub(in super::super) fn image(&mut self, view: &View, sides: [usize; 3]) -> Drawn<ValueRef> {
        let [y, x, c] = sides.map(u16::try_from);
        let (Ok(y), Ok(x), Ok(c)) = (y, x, c) else {
            return Err(Refused::new(format!("an image {sides:?}"), "sides below 65536"));
        };
        let dims = [1, y, x, c];
        if view.count() != sides.iter().product::<usize>() {
            let found = format!("{:?} as an image {sides:?}", view.shape);
            return Err(Refused::new(found, "as many elements"));
        }
        let fixed = self.is_port(&view.buffer) || is_image(&self.graph, &view.buffer);
        let fits = self.own(view).is_some_and(|own| own.dims == dims || !fixed);
        let view = if fits { view.clone() } else { self.copied(view)? };
        if let Some(value) = self.graph.values.get_mut(&view.buffer) {
            value.dims = dims;
        }
        Ok(ValueRef::all(&view.buffer))
    }

    /// The sides of the image that a view of so many channels is already, or may be best.
    pub(in super::super) fn sides(&self, view: &View, channels: usize) -> [usize; 3] {
        match self.own(view).map(|own| own.dims.map(usize::from)) {
            Some([1, y, x, c]) if c == channels || y * x * c == channels => [y, x, c],
            _ => {
                let rows = view.count() / channels.max(1);
                // Sides are below 65536.
                let high =
                    (1..=rows).find(|high| rows.is_multiple_of(*high) && rows / high < 1 << 16);
                let high = high.unwrap_or(1);
                [high, rows / high, channels]
            }
        }
    }

    /// A convolution of floats, of an image [1, height, width, channels].
    pub(in super::super) fn convolve(
        &mut self,
        input: &View,
        window: Window,
        weights: &Weights,
    ) -> Drawn<View> {
        let [1, height, width, channels] = input.shape[..] else {
            return Err(Refused::new(format!("an image {:?}", input.shape), "one, of four sides"));
        };
        let image = self.image(input, [height, width, channels])?;
        let [rows, columns] = window.result;
        self.convolved(image, channels, window, weights, &[1, rows, columns, weights.outputs])
    }

    /// The transposed convolution of an image [1, height, width, channels], whose window is one of
    /// [`Window::transposed`].
    pub(in super::super) fn convolve_transposed(
        &mut self,
        input: &View,
        stride: [usize; 2],
        window: Window,
        weights: &Weights,
    ) -> Drawn<View> {
        // The kernel's rows and columns from the other end: it goes over what is spread.
        let ([height, width], outputs) = (window.kernel, weights.outputs);
        let inputs = input.shape.last().copied().unwrap_or(0);
        let shape = vec![outputs, height, width, inputs];
        let turned = viewed(&Array::floats(shape, weights.numbers.clone()), |view| {
            let view = view.sliced(1, height as i64 - 1, height, -1)?;
            view.sliced(2, width as i64 - 1, width, -1)
        })?;
        let weights = &Weights { numbers: turned.to_floats(), ..weights.clone() };
        let spread = self.spread(input, stride)?;
        self.convolve(&spread, window, weights)
    }

    fn convolved(
        &mut self,
        image: ValueRef,
        channels: usize,
        window: Window,
        weights: &Weights,
        shape: &[usize; 4],
    ) -> Drawn<View> {
        let outputs = weights.outputs;
        let taps = window.kernel.iter().product::<usize>();
        let each = if weights.depthwise { 1 } else { channels };
        if weights.numbers.len() != outputs * taps * each {
            let found = format!("{} weights", weights.numbers.len());
            return Err(Refused::new(found, format!("{outputs} times {taps} times {each}")));
        }
        let bias = weights
            .bias
            .as_ref()
            .map(|bias| self.weight(Role::Vector, [1, bias.len()], Data::Computed(bias.clone())));
        let data = Data::Computed(weights.numbers.clone());
        let weight = match weights.depthwise {
            true => self.weight(Role::Vector, [1, taps * outputs], data),
            false => self.weight(Role::Kernel, [outputs, taps * channels], data),
        };
        let result = self.value(Dtype::F32, shape)?;
        let conv = FloatConv2d::<Names> {
            bias,
            weight,
            input: image,
            output: ValueRef::all(&result.buffer),
            kernel: Window::sides(window.kernel)?,
            stride: Window::sides(window.stride)?,
            pad: Window::sides(window.pad)?,
            dilation: Window::sides(window.dilation)?,
            depthwise: weights.depthwise,
        };
        self.push(conv);
        Ok(result)
    }

    /// Rows of a view, each times a matrix [outputs, inputs]: [.., inputs] becomes [.., outputs].
    pub(in super::super) fn multiply(&mut self, input: &View, weights: &Weights) -> Drawn<View> {
        let inputs = input.shape.last().copied().unwrap_or(1);
        let sides = self.sides(input, inputs);
        let image = self.image(input, sides)?;
        let [height, width, channels] = sides;
        // A matrix over an image is a convolution whose window is as large.
        let (kernel, result) = match channels == inputs {
            true => ([1, 1], [height, width]),
            false => ([height, width], [1, 1]),
        };
        let window = Window { kernel, ..Window::pixel(result) };
        let outputs = weights.outputs;
        let shape = [1, result[0], result[1], outputs];
        let result = self.convolved(image, channels, window, weights, &shape)?;
        let mut shape = input.shape.clone();
        if let Some(last) = shape.last_mut() {
            *last = outputs;
        }
        self.reshape(&result, &shape)
    }

    /// The largest or the mean of what a window sees, of an image [1, height, width, channels].
    pub(in super::super) fn pool(
        &mut self,
        input: &View,
        window: Window,
        pooling: Pooling,
    ) -> Drawn<View> {
        let [1, height, width, channels] = input.shape[..] else {
            return Err(Refused::new(format!("an image {:?}", input.shape), "one, of four sides"));
        };
        if window.dilation != [1, 1] {
            return Err(Refused::new("a dilated window", "dilation 1"));
        }
        let image = self.image(input, [height, width, channels])?;
        let [rows, columns] = window.result;
        let result = self.value(input.dtype, &[1, rows, columns, channels])?;
        let result = View { scale: input.scale, ..result };
        self.push(Pool::<Names> {
            pooling,
            input: image,
            output: ValueRef::all(&result.buffer),
            kernel: Window::sides(window.kernel)?,
            stride: Window::sides(window.stride)?,
            pad: Window::sides(window.pad)?,
        });
        Ok(result)
    }

    /// An image [1, height, width, channels] of another size.
    pub(in super::super) fn resize(
        &mut self,
        input: &View,
        [rows, columns]: [usize; 2],
        (alignment, bilinear, nearest): (Alignment, bool, bool),
    ) -> Drawn<View> {
        let [1, height, width, channels] = input.shape[..] else {
            return Err(Refused::new(format!("an image {:?}", input.shape), "one, of four sides"));
        };
        let image = self.image(input, [height, width, channels])?;
        let result = self.value(input.dtype, &[1, rows, columns, channels])?;
        let result = View { scale: input.scale, ..result };
        let output = ValueRef::all(&result.buffer);
        self.push(Resize::<Names> { input: image, output, alignment, bilinear, nearest });
        Ok(result)
    }

    /// An activation, element by element.
    pub(in super::super) fn activate(
        &mut self,
        view: &View,
        activation: Activation,
    ) -> Drawn<View> {
        floats(view)?;
        let result = self.copied(view)?;
        self.push(Activate::<Names> { activation, value: ValueRef::all(&result.buffer) });
        Ok(result)
    }

    /// A function, element by element.
    pub(in super::super) fn unary(&mut self, view: &View, function: UnaryFunction) -> Drawn<View> {
        floats(view)?;
        let result = self.copied(view)?;
        self.push(Unary::<Names> { function, value: ValueRef::all(&result.buffer) });
        Ok(result)
    }

    /// A function of two tensors of floats, which are repeated where one has 1 element.
    pub(in super::super) fn binary(
        &mut self,
        function: BinaryFunction,
        first: &Tensor,
        second: &Tensor,
    ) -> Drawn<View> {
        let shape = broadcast_shape(first.shape(), second.shape())?;
        let mut operands = [self.computed(first)?, self.computed(second)?];
        for operand in &operands {
            floats(operand)?;
        }
        let (dims, [first_steps, second_steps]) = self.together(&mut operands, &shape)?;
        let result = self.value(Dtype::F32, &shape)?;
        let [first, second] = operands.each_ref().map(reach);
        let output = ValueRef::all(&result.buffer);
        let binary =
            Binary::<Names> { function, first, second, output, dims, first_steps, second_steps };
        self.push(binary);
        Ok(result)
    }

    /// Two operands, repeated to a shape: its dimensions, without those that need not be told apart, and the
    /// steps of both along them.
    pub(in super::super) fn together(
        &mut self,
        operands: &mut [View; 2],
        shape: &[usize],
    ) -> Drawn<([u32; BROADCAST_AXES], [[i32; BROADCAST_AXES]; 2])> {
        for operand in operands.iter_mut() {
            if operand.steps.iter().any(|step| *step < 0) {
                *operand = self.copied(operand)?;
            }
            *operand = operand.broadcast(shape)?;
        }
        // More axes than an operation has become fewer where operands lie in order.
        let merge = |[a, b]: &[View; 2]| merged(shape, [a.steps.as_slice(), b.steps.as_slice()]);
        if merge(operands).is_err() {
            for operand in operands.iter_mut() {
                *operand = self.copied(operand)?;
            }
        }
        merge(operands)
    }

    /// A function of a tensor and a number.
    pub(in super::super) fn with_number(
        &mut self,
        function: BinaryFunction,
        view: &View,
        number: f32,
    ) -> Drawn<View> {
        let number = Tensor::Known(Array::floats(vec![], vec![number]));
        self.binary(function, &Tensor::Computed(view.clone()), &number)
    }

    /// Numbers between two others.
    pub(in super::super) fn clip(
        &mut self,
        view: &View,
        low: Option<f32>,
        high: Option<f32>,
    ) -> Drawn<View> {
        let mut view = view.clone();
        if low == Some(0.0) {
            view = self.activate(&view, Activation::Relu)?;
        } else if let Some(low) = low {
            view = self.with_number(BinaryFunction::Max, &view, low)?;
        }
        match high {
            Some(high) => self.with_number(BinaryFunction::Min, &view, high),
            None => Ok(view),
        }
    }

    /// Softmax along an axis, or its logarithm.
    pub(in super::super) fn softmax(&mut self, view: &View, axis: usize, log: bool) -> Drawn<View> {
        floats(view)?;
        let mut order: Vec<usize> = (0..view.shape.len()).filter(|other| *other != axis).collect();
        order.push(axis);
        let turned = self.copied(&view.transposed(&order)?)?;
        let length = view.shape[axis] as u32;
        self.push(FloatSoftmax::<Names> { value: ValueRef::all(&turned.buffer), length, log });
        let back: Vec<usize> = (0..order.len())
            .filter_map(|axis| order.iter().position(|other| *other == axis))
            .collect();
        turned.transposed(&back)
    }

    /// Elements along axes, made one.
    pub(in super::super) fn reduce(
        &mut self,
        view: &View,
        axes: &[usize],
        reduction: Reduction,
        keep: bool,
    ) -> Drawn<View> {
        floats(view)?;
        let rank = view.shape.len();
        let others: Vec<usize> = (0..rank).filter(|axis| !axes.contains(axis)).collect();
        let size = |axes: &[usize]| axes.iter().map(|axis| view.shape[*axis]).product::<usize>();
        let (length, count) = (size(axes), size(&others));
        let shape: Vec<usize> = match keep {
            true => (0..rank).map(|a| if axes.contains(&a) { 1 } else { view.shape[a] }).collect(),
            false => others.iter().map(|axis| view.shape[*axis]).collect(),
        };
        let pooling = match reduction {
            Reduction::Mean => Some(Pooling::Mean),
            Reduction::Max => Some(Pooling::Max),
            Reduction::Sum | Reduction::Min => None,
        };
        let outer = view.transposed(&[axes, &others].concat())?;
        let inner = view.transposed(&[&others, axes].concat())?;
        // Where what is made one lies outermost, it is a window over an image.
        if let (Some(pooling), true, false) = (pooling, outer.is_dense(), inner.is_dense()) {
            let image = self.reshape(&outer, &[1, length, 1, count])?;
            let window = Window { kernel: [length, 1], ..Window::pixel([1, 1]) };
            let result = self.pool(&image, window, pooling)?;
            return self.reshape(&result, &shape);
        }
        let input = self.dense(&inner)?;
        let result = self.value(Dtype::F32, &shape)?;
        let (input, output) = (self.operand(&input), ValueRef::all(&result.buffer));
        self.push(Reduce::<Names> { reduction, input, output });
        Ok(result)
    }

    /// Tensors side by side along an axis.
    pub(in super::super) fn concat(&mut self, views: &[View], axis: usize) -> Drawn<View> {
        let Some(first) = views.first() else { return Err(Refused::new("nothing", "tensors")) };
        let mut shape = first.shape.clone();
        let fits = |view: &View| {
            let mut axes = view.shape.iter().zip(&first.shape).enumerate();
            view.dtype == first.dtype
                && view.scale == first.scale
                && view.shape.len() == first.shape.len()
                && axes.all(|(at, (a, b))| at == axis || a == b)
        };
        if axis >= shape.len() || !views.iter().all(fits) {
            let found: Vec<_> = views.iter().map(|view| &view.shape).collect();
            let expected = "tensors of one kind that differ along one axis";
            return Err(Refused::new(format!("{found:?} along axis {axis}"), expected));
        }
        shape[axis] = views.iter().map(|view| view.shape[axis]).sum();
        let result = View { scale: first.scale, ..self.value(first.dtype, &shape)? };
        let mut start = 0;
        for view in views {
            let count = view.shape[axis];
            self.copy(view, &result.sliced(axis, start, count, 1)?)?;
            start += count as i64;
        }
        Ok(result)
    }

    /// A number before and behind along each axis; fewer elements where there are less than none.
    pub(in super::super) fn pad(
        &mut self,
        view: &View,
        pads: &[[i64; 2]],
        number: f32,
    ) -> Drawn<View> {
        let far = |pads: &[i64; 2]| pads.iter().any(|pad| pad.abs() > FAR);
        if pads.len() != view.shape.len() || pads.iter().any(far) {
            let found = format!("pads {pads:?} of {:?}", view.shape);
            return Err(Refused::new(found, "two for each axis, of usual size"));
        }
        let (mut from, mut shape) = (view.clone(), view.shape.clone());
        for (axis, [before, after]) in pads.iter().enumerate() {
            let dim = view.shape[axis] as i64;
            let size = usize::try_from(dim + before + after).unwrap_or(0);
            let count = dim + before.min(&0) + after.min(&0);
            from = from.sliced(axis, -before.min(&0), usize::try_from(count).unwrap_or(0), 1)?;
            shape[axis] = size;
        }
        let result = View { scale: view.scale, ..self.value(view.dtype, &shape)? };
        self.push(Fill::<Names> { output: ValueRef::all(&result.buffer), number });
        let mut to = result.clone();
        for (axis, [before, _]) in pads.iter().enumerate() {
            to = to.sliced(axis, *before.max(&0), from.shape[axis], 1)?;
        }
        self.copy(&from, &to)?;
        Ok(result)
    }

    /// Zeros between the rows and the columns of an image [1, height, width, channels].
    pub(in super::super) fn spread(&mut self, view: &View, by: [usize; 2]) -> Drawn<View> {
        if by == [1, 1] {
            return Ok(view.clone());
        }
        let mut shape = view.shape.clone();
        for (side, by) in [1, 2].into_iter().zip(by) {
            shape[side] = (shape[side] - 1) * by + 1;
        }
        let result = View { scale: view.scale, ..self.value(view.dtype, &shape)? };
        let number = view.scale.map_or(0.0, |scale| scale.zero as f32);
        self.push(Fill::<Names> { output: ValueRef::all(&result.buffer), number });
        let mut to = result.clone();
        for (side, by) in [1, 2].into_iter().zip(by) {
            to = to.sliced(side, 0, view.shape[side], by as i64)?;
        }
        self.copy(view, &to)?;
        Ok(result)
    }

    /// Floats as signed bytes.
    pub(in super::super) fn quantize(
        &mut self,
        view: &View,
        scale: Scale,
        ties_away: bool,
    ) -> Drawn<View> {
        floats(view)?;
        let input = self.dense(view)?;
        let result = View { scale: Some(scale), ..self.value(Dtype::I8, &view.shape)? };
        let (input, output) = (self.operand(&input), ValueRef::all(&result.buffer));
        let Scale { scale, zero } = scale;
        self.push(Quantize::<Names> { input, output, scale, zero, ties_away });
        Ok(result)
    }

    /// Signed bytes as floats.
    pub(in super::super) fn dequantize(&mut self, view: &View, scale: Scale) -> Drawn<View> {
        if view.dtype != Dtype::I8 {
            return Err(Refused::new("floats", "signed bytes"));
        }
        let input = self.dense(view)?;
        let result = self.value(Dtype::F32, &view.shape)?;
        let (input, output) = (self.operand(&input), ValueRef::all(&result.buffer));
        let Scale { scale, zero } = scale;
        self.push(Dequantize::<Names> { input, output, scale, zero });
        Ok(result)
    }

    /// A function of signed bytes, element by element.
    pub(in super::super) fn lookup(
        &mut self,
        view: &View,
        scale: Scale,
        function: impl Fn(i8) -> i8,
    ) -> Drawn<View> {
        let input = self.dense(view)?;
        let result = View { scale: Some(scale), ..self.value(Dtype::I8, &view.shape)? };
        let table = (i8::MIN..=i8::MAX).map(|x| f32::from(function(x))).collect();
        let table = self.weight(Role::Vector, [1, 256], Data::Computed(table));
        let (input, output) = (self.operand(&input), ValueRef::all(&result.buffer));
        self.push(Lookup::<Names> { table, input, output });
        Ok(result)
    }
}

/// Refuses what is no tensor of floats.
fn floats(view: &View) -> Drawn<()> {
    match view.dtype {
        Dtype::F32 => Ok(()),
        _ => Err(Refused::new("integers", "floats")),
    }
}

/// The elements of a view and those between them, as an operand.
pub(in super::super) fn reach(view: &View) -> ValueRef {
    let axes = view.shape.iter().zip(&view.steps);
    let last: i64 = axes.map(|(dim, step)| (*dim as i64 - 1) * step).sum();
    let (first, end) = (view.first as u32, (view.first + last + 1) as u32);
    ValueRef::rows(&view.buffer, first, end)
}
