//! A graph that is being drawn.

use super::bytes::{apart, given_steps, in_bytes, is_quantized};
use super::fold;
use super::images::is_image;
use super::refused::{Drawn, Refused};
use super::view::{Scale, View, count, merged, row_major};
use crate::arch::blueprint::{Blueprint, Data, Role, Sizes, TensorPlan};
use crate::graph::{FORMAT, Graph, Names, Node, Port, ValueRef, ValueShape};
use crate::import::{Array, Fields};
use omex_core::ops::{Constant, Fill, Rearrange};
use omex_core::program::{Dtype, MAX_RECORDS, MAX_WIDTH, Per};

/// A tensor of a graph.
#[derive(Clone, Debug, PartialEq)]
pub(in super::super) enum Tensor {
    /// Known before the graph is run.
    Known(Array),
    /// Computed by it.
    Computed(View),
}

impl Tensor {
    pub(in super::super) fn shape(&self) -> &[usize] {
        match self {
            Self::Known(array) => &array.shape,
            Self::Computed(view) => &view.shape,
        }
    }
}

/// A graph that is being drawn.
#[derive(Default)]
pub(in super::super) struct Drawing {
    pub(in super::super) graph: Graph,
    tensors: Vec<TensorPlan>,
}

impl Drawing {
    pub(in super::super) fn new() -> Self {
        Self { graph: Graph { format: FORMAT, ..Graph::default() }, tensors: vec![] }
    }

    /// A new value.
    pub(in super::super) fn value(&mut self, dtype: Dtype, shape: &[usize]) -> Drawn<View> {
        let width = count(shape)?;
        if width == 0 || width > MAX_WIDTH as usize {
            let found = format!("a tensor {shape:?}");
            return Err(Refused::new(found, format!("1 to {MAX_WIDTH} elements")));
        }
        let name = format!("t{}", self.graph.values.len());
        let shape_of =
            ValueShape { width: width as u32, per: Per::Pass, dtype, dims: dims_of(shape) };
        self.graph.values.insert(name.clone(), shape_of);
        let steps = row_major(shape);
        Ok(View { buffer: name, dtype, scale: None, shape: shape.to_vec(), steps, first: 0 })
    }

    /// A port's value.
    pub(in super::super) fn input(
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
    pub(in super::super) fn output(&mut self, name: &str, tensor: &Tensor) -> Drawn<()> {
        let view = self.computed(tensor)?;
        // Slots have one shape, which signed bytes keep: a copy costs a board more than it is worth.
        let own = self.own(&view);
        let dims = match own {
            Some(own) if view.dtype == Dtype::I8 && own.dims[0] > 0 => own.dims,
            _ => dims_of(&view.shape),
        };
        let fits = own.is_some_and(|own| own.dims == dims || !is_image(&self.graph, &view.buffer));
        let view = if fits && !self.is_port(&view.buffer) { view } else { self.copied(&view)? };
        if let Some(value) = self.graph.values.get_mut(&view.buffer) {
            value.dims = dims;
        }
        self.graph.outputs.push(port(name, &view));
        Ok(())
    }

    /// A tensor as a value.
    pub(in super::super) fn computed(&mut self, tensor: &Tensor) -> Drawn<View> {
        match tensor {
            Tensor::Computed(view) => Ok(view.clone()),
            Tensor::Known(array) => self.constant(array),
        }
    }

    /// Known floats as a value.
    pub(in super::super) fn constant(&mut self, array: &Array) -> Drawn<View> {
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
    pub(in super::super) fn weight(
        &mut self,
        role: Role,
        [rows, columns]: [usize; 2],
        data: Data,
    ) -> String {
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

    /// Refuses what takes more operations than a program may have, before they are drawn.
    pub(in super::super) fn room(&self, operations: usize) -> Drawn<()> {
        let all = self.graph.nodes.len().saturating_add(operations);
        match all <= usize::from(MAX_RECORDS) {
            true => Ok(()),
            false => Err(Refused::new(
                format!("{all} operations up to here"),
                format!("{MAX_RECORDS} at most, as for fewer steps, rows or a smaller dilation"),
            )),
        }
    }

    pub(in super::super) fn push(&mut self, node: impl Into<Node>) {
        self.graph.nodes.push(node.into());
    }

    /// The elements in order in a value of their own.
    pub(in super::super) fn copied(&mut self, view: &View) -> Drawn<View> {
        let to = View { scale: view.scale, ..self.value(view.dtype, &view.shape)? };
        self.copy(view, &to)?;
        Ok(to)
    }

    /// The elements one after another, somewhere.
    pub(in super::super) fn dense(&mut self, view: &View) -> Drawn<View> {
        if view.is_dense() { Ok(view.clone()) } else { self.copied(view) }
    }

    /// Copies elements to places of another value.
    pub(in super::super) fn copy(&mut self, from: &View, to: &View) -> Drawn<()> {
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
    pub(in super::super) fn reshape(&mut self, view: &View, shape: &[usize]) -> Drawn<View> {
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
    pub(in super::super) fn operand(&self, view: &View) -> ValueRef {
        match self.own(view) {
            Some(_) => ValueRef::all(&view.buffer),
            None => {
                let first = view.first as u32;
                ValueRef::rows(&view.buffer, first, first + view.count() as u32)
            }
        }
    }

    /// The value that a view is of, if it is all of it, in order.
    pub(super) fn own(&self, view: &View) -> Option<ValueShape> {
        let known = self.graph.values.get(&view.buffer).copied();
        known.filter(|known| view.is_dense() && known.width as usize == view.count())
    }

    /// The dimensions of the value that a view is of, if it is all of it; its own if not.
    pub(in super::super) fn shape_of(&self, view: &View) -> Vec<usize> {
        match self.own(view) {
            Some(own) if own.dims[0] > 0 => own.dims.map(usize::from).to_vec(),
            _ => view.shape.clone(),
        }
    }

    /// True if the value goes in or comes out.
    pub(super) fn is_port(&self, buffer: &str) -> bool {
        let mut ports = self.graph.inputs.iter().chain(&self.graph.outputs);
        ports.any(|port| port.value.name == buffer)
    }

    /// Has operations between bytes be of bytes, not of the floats that these stand for.
    pub(in super::super) fn in_integers(&mut self) {
        fold::drop_copies(&mut self.graph);
        if !is_quantized(&self.graph) {
            return;
        }
        apart(&mut self.graph);
        let steps = given_steps(&self.graph, &self.tensors);
        let drawn = in_bytes(&self.graph, &self.tensors, &steps);
        (self.graph, self.tensors) = (drawn.graph, drawn.tensors);
    }

    pub(in super::super) fn finish(mut self, family: &'static str) -> Blueprint {
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
fn dims_of(shape: &[usize]) -> [u16; 4] {
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
