//! Graphs over tensors, drawn operation by operation: what the doors of TensorFlow Lite's and ONNX's graphs share.

mod fold;
mod layers;
mod recurrent;
mod view;

pub(super) use layers::{Weights, Window};
pub(super) use recurrent::{Gates, Run};
use view::row_major;
pub(super) use view::{Scale, View, broadcast_shape, count, viewed};

use super::blueprint::{Blueprint, Data, Role, Sizes, TensorPlan};
use crate::graph::{FORMAT, Graph, Names, Node, Port, ValueRef, ValueShape};
use crate::import::{Array, Fields};
use omex_core::ops::{Constant, Fill, Rearrange};
use omex_core::program::{Dtype, MAX_WIDTH, Per};

/// Why an operation can't be drawn.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Refused {
    pub(super) found: String,
    pub(super) expected: String,
}

impl Refused {
    pub(super) fn new(found: impl Into<String>, expected: impl Into<String>) -> Self {
        Self { found: found.into(), expected: expected.into() }
    }
}

/// What came of drawing something.
pub(super) type Drawn<T> = std::result::Result<T, Refused>;

/// A tensor of a graph.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Tensor {
    /// Known before the graph is run.
    Known(Array),
    /// Computed by it.
    Computed(View),
}

impl Tensor {
    pub(super) fn shape(&self) -> &[usize] {
        match self {
            Self::Known(array) => &array.shape,
            Self::Computed(view) => &view.shape,
        }
    }
}

/// A graph that is being drawn.
#[derive(Default)]
pub(super) struct Drawing {
    pub(super) graph: Graph,
    tensors: Vec<TensorPlan>,
}

impl Drawing {
    pub(super) fn new() -> Self {
        Self { graph: Graph { format: FORMAT, ..Graph::default() }, tensors: vec![] }
    }

    /// A new value.
    pub(super) fn value(&mut self, dtype: Dtype, shape: &[usize]) -> Drawn<View> {
        let width = count(shape)?;
        let small = shape.len() <= 4 && shape.iter().all(|dim| u16::try_from(*dim).is_ok());
        if width == 0 || width > MAX_WIDTH as usize {
            let found = format!("a tensor {shape:?}");
            return Err(Refused::new(found, format!("1 to {MAX_WIDTH} elements")));
        }
        let mut dims = [0; 4];
        if small {
            for (dim, of) in dims.iter_mut().rev().zip(shape.iter().rev()) {
                *dim = *of as u16;
            }
        }
        let name = format!("t{}", self.graph.values.len());
        let shape_of = ValueShape { width: width as u32, per: Per::Pass, dtype, dims };
        self.graph.values.insert(name.clone(), shape_of);
        let steps = row_major(shape);
        Ok(View { buffer: name, dtype, scale: None, shape: shape.to_vec(), steps, first: 0 })
    }

    /// A port's value.
    pub(super) fn input(
        &mut self,
        name: &str,
        dtype: Dtype,
        shape: &[usize],
        scale: Option<Scale>,
    ) -> Drawn<View> {
        let view = View { scale, ..self.value(dtype, shape)? };
        let port = port(name, &view);
        self.graph.inputs.push(port);
        Ok(view)
    }

    /// Gives a tensor out.
    pub(super) fn output(&mut self, name: &str, tensor: &Tensor) -> Drawn<()> {
        let view = self.computed(tensor)?;
        let used = |ports: &[Port]| ports.iter().any(|port| port.value.name == view.buffer);
        // Slots have one shape: another one, and what is given out twice or taken in, is a copy.
        let known = self.graph.values.get(&view.buffer).map(|value| value.width as usize);
        let whole = view.is_dense() && known == Some(view.count());
        let dims = self.graph.values.get(&view.buffer).map(|value| value.dims);
        let wanted = wanted_dims(&view.shape);
        let taken = used(&self.graph.inputs) || used(&self.graph.outputs);
        let image = dims.is_some_and(|dims| self.is_image(&view.buffer) && dims != wanted);
        let view = if whole && !taken && !image { view } else { self.copied(&view)? };
        if let Some(value) = self.graph.values.get_mut(&view.buffer) {
            value.dims = wanted;
        }
        self.graph.outputs.push(port(name, &view));
        Ok(())
    }

    /// A tensor as a value.
    pub(super) fn computed(&mut self, tensor: &Tensor) -> Drawn<View> {
        match tensor {
            Tensor::Computed(view) => Ok(view.clone()),
            Tensor::Known(array) => self.constant(array),
        }
    }

    /// Known floats as a value.
    pub(super) fn constant(&mut self, array: &Array) -> Drawn<View> {
        let view = self.value(Dtype::F32, &array.shape)?;
        let numbers = array.to_floats();
        if let Some(number) = numbers.first().filter(|first| numbers.iter().all(|x| x == *first)) {
            self.push(Fill::<Names> { output: ValueRef::all(&view.buffer), number: *number });
        } else {
            let weight = self.weight(Role::Vector, [1, numbers.len()], Data::Computed(numbers));
            self.push(Constant::<Names> { weight, output: ValueRef::all(&view.buffer) });
        }
        Ok(view)
    }

    /// Adds a tensor of the package, and says its name.
    pub(super) fn weight(&mut self, role: Role, [rows, columns]: [usize; 2], data: Data) -> String {
        let known = self.tensors.iter().find(|plan| {
            (plan.role, plan.rows, plan.columns) == (role, rows as u32, columns as u32)
                && plan.data == data
        });
        if let Some(known) = known {
            return known.name.clone();
        }
        let name = format!("w{}", self.tensors.len());
        let (rows, columns) = (rows as u32, columns as u32);
        let plan = TensorPlan { name: name.clone(), role, rows, columns, data, skipped: 0 };
        self.tensors.push(plan);
        name
    }

    pub(super) fn push(&mut self, node: impl Into<Node>) {
        self.graph.nodes.push(node.into());
    }

    /// The elements in order in a value of their own.
    pub(super) fn copied(&mut self, view: &View) -> Drawn<View> {
        let to = View { scale: view.scale, ..self.value(view.dtype, &view.shape)? };
        self.copy(view, &to)?;
        Ok(to)
    }

    /// The elements one after another, somewhere.
    pub(super) fn dense(&mut self, view: &View) -> Drawn<View> {
        if view.is_dense() { Ok(view.clone()) } else { self.copied(view) }
    }

    /// Copies elements to places of another value.
    pub(super) fn copy(&mut self, from: &View, to: &View) -> Drawn<()> {
        let (dims, [from_steps, to_steps]) = merged(&from.shape, [&from.steps, &to.steps])?;
        let first = |view: &View| u32::try_from(view.first).unwrap_or(u32::MAX);
        let rearrange = Rearrange::<Names> {
            input: ValueRef::all(&from.buffer),
            output: ValueRef::all(&to.buffer),
            dims,
            from: from_steps,
            to: to_steps,
            from_first: first(from),
            to_first: first(to),
        };
        self.push(rearrange);
        Ok(())
    }

    /// Other dimensions of as many elements.
    pub(super) fn reshape(&mut self, view: &View, shape: &[usize]) -> Drawn<View> {
        if count(shape)? != view.count() {
            let found = format!("{:?} as {shape:?}", view.shape);
            return Err(Refused::new(found, "as many elements"));
        }
        match view.reshaped(shape) {
            Some(view) => Ok(view),
            None => {
                let dense = self.copied(view)?;
                let reshaped = dense.reshaped(shape);
                reshaped.ok_or_else(|| Refused::new("a reshape", "elements in order"))
            }
        }
    }

    /// The elements of a view that lie in order, as an operand.
    pub(super) fn operand(&self, view: &View) -> ValueRef {
        let (first, end) = (view.first as u32, view.first as u32 + view.count() as u32);
        let width = self.graph.values.get(&view.buffer).map(|value| value.width);
        match width == Some(end) && first == 0 {
            true => ValueRef::all(&view.buffer),
            false => ValueRef::rows(&view.buffer, first, end),
        }
    }

    /// The dimensions of the value that a view is of, if it is all of it; its own if not.
    pub(super) fn shape_of(&self, view: &View) -> Vec<usize> {
        let known = self.graph.values.get(&view.buffer);
        match known.filter(|known| known.width as usize == view.count()) {
            Some(known) if known.dims[0] > 0 => known.dims.map(usize::from).to_vec(),
            _ => view.shape.clone(),
        }
    }

    /// True if some operation takes the value as an image.
    fn is_image(&self, buffer: &str) -> bool {
        self.graph.nodes.iter().any(|node| {
            layers::is_over_images(node) && node.values().iter().any(|value| value.name == buffer)
        })
    }

    pub(super) fn finish(mut self, family: &'static str) -> Blueprint {
        fold::drop_copies(&mut self.graph);
        Blueprint {
            family,
            sizes: Sizes::default(),
            graph: self.graph,
            files: vec![self.tensors],
            bos: None,
            eos: vec![],
            derived: vec![],
            aside: vec![],
            hyperparameters: Fields::new(),
            longer: None,
        }
    }
}

/// The dimensions of a slot for a tensor: 0 for axes that it does not have.
fn wanted_dims(shape: &[usize]) -> [u16; 4] {
    let mut dims = [0; 4];
    if shape.len() <= 4 && shape.iter().all(|dim| u16::try_from(*dim).is_ok()) {
        for (dim, of) in dims.iter_mut().rev().zip(shape.iter().rev()) {
            *dim = *of as u16;
        }
    }
    dims
}

fn port(name: &str, view: &View) -> Port {
    let (scale, zero_point) = view.scale.map_or((0.0, 0), |scale| (scale.scale, scale.zero));
    Port { name: name.to_owned(), value: ValueRef::all(&view.buffer), scale, zero_point }
}

/// Dimensions without those of 1, where axes that lie as one in all operands are one; 1 in front of the
/// others.
pub(super) fn merged<const N: usize, const AXES: usize>(
    shape: &[usize],
    steps: [&[i64]; N],
) -> Drawn<([u32; AXES], [[i32; AXES]; N])> {
    let mut axes: Vec<(usize, [i64; N])> = vec![];
    for (axis, dim) in shape.iter().enumerate().filter(|(_, dim)| **dim != 1) {
        let own = steps.map(|steps| steps[axis]);
        let joins = |outer: &[i64; N]| outer.iter().zip(own).all(|(o, i)| *o == i * *dim as i64);
        match axes.last_mut() {
            Some((outer, steps)) if joins(steps) => (*outer, *steps) = (*outer * dim, own),
            _ => axes.push((*dim, own)),
        }
    }
    if axes.len() > AXES {
        let found = format!("elements along {} axes, each with its own order", axes.len());
        return Err(Refused::new(found, format!("{AXES} at most")));
    }
    let (mut dims, mut all) = ([1; AXES], [[0; AXES]; N]);
    for (place, (dim, steps)) in (AXES - axes.len()..).zip(axes) {
        dims[place] = dim as u32;
        for (all, step) in all.iter_mut().zip(steps) {
            all[place] = i32::try_from(step)
                .map_err(|_| Refused::new(format!("a step of {step}"), "a smaller tensor"))?;
        }
    }
    Ok((dims, all))
}
