//! A graph of floats, drawn again with operations of signed bytes where there are some.

use super::apart::{changed, whole_copy};
use super::functions::function;
use super::fused::{Fused, fused};
use super::index::{Index, written};
use super::prune::prune;
use super::rows::{Weights, channels};
use super::step::{Step, Steps, product, sum};
use crate::arch::blueprint::{Data, Role, TensorPlan};
use crate::arch::tensors::fold::drop_copies;
use crate::graph::{Graph, Names, Node, ValueRef, ValueShape};
use omex_core::ops::{
    AveragePool, Binary, BinaryFunction, Conv2d, Dequantize, Fill, FloatConv2d, Lookup, Pool,
    Pooling, Quantize, QuantizedAdd, QuantizedBinary, QuantizedFunction, Rearrange, Resize,
};
use omex_core::program::Dtype;
use std::collections::{BTreeMap, BTreeSet};

/// A graph that was drawn again.
pub(crate) struct InBytes {
    pub(crate) graph: Graph,
    /// Its tensors, in the order of use.
    pub(crate) tensors: Vec<TensorPlan>,
    /// How many of its operations are over bytes, of how many.
    pub(crate) operations: [usize; 2],
}

/// Draws a graph whose values mean one thing each, and whose tensors' numbers are computed.
pub(crate) fn in_bytes(graph: &Graph, tensors: &[TensorPlan], steps: &Steps) -> InBytes {
    Quantizer::new(graph, tensors, steps).drawn()
}

/// The numbers of a tensor of floats.
pub(super) fn numbers_of(plan: &TensorPlan) -> Option<&[f32]> {
    match &plan.data {
        Data::Computed(numbers) => Some(numbers),
        _ => None,
    }
}

/// Draws a graph again, node after node.
struct Quantizer<'s> {
    graph: &'s Graph,
    index: Index,
    steps: &'s Steps,
    tensors: BTreeMap<&'s str, &'s TensorPlan>,
    made: Graph,
    /// Tensors that the graph does not have.
    added: BTreeMap<String, TensorPlan>,
    /// The values that there are as bytes, and the names of these.
    bytes: BTreeMap<String, (Step, String)>,
    /// The values that there are as floats.
    floats: BTreeSet<String>,
    /// Whether values that are put together are so of bytes.
    joined: BTreeMap<String, bool>,
    /// The bytes that the graph itself makes of floats.
    given: BTreeMap<&'s str, (Step, &'s str)>,
}

impl<'s> Quantizer<'s> {
    fn new(graph: &'s Graph, tensors: &'s [TensorPlan], steps: &'s Steps) -> Self {
        let mut given = BTreeMap::new();
        let index = Index::new(graph);
        for node in &graph.nodes {
            if let Node::Quantize(op) = node
                && index.writers(&op.output.name).len() == 1
            {
                let to = (Step { scale: op.scale, zero: op.zero }, op.output.name.as_str());
                given.entry(op.input.name.as_str()).or_insert(to);
            }
        }
        Self {
            graph,
            index,
            steps,
            tensors: tensors.iter().map(|plan| (plan.name.as_str(), plan)).collect(),
            made: Graph { nodes: vec![], ..graph.clone() },
            added: BTreeMap::new(),
            bytes: BTreeMap::new(),
            floats: graph.inputs.iter().map(|port| port.value.name.clone()).collect(),
            joined: BTreeMap::new(),
            given,
        }
    }

    fn drawn(mut self) -> InBytes {
        let graph = self.graph;
        let mut at = 0;
        while let Some(node) = graph.nodes.get(at) {
            at += self.node(at, node).unwrap_or_else(|| self.in_floats(node));
        }
        for port in &graph.outputs {
            self.as_floats(&port.value.name);
        }
        prune(&mut self.made);
        drop_copies(&mut self.made);
        let in_bytes = |node: &&Node| {
            let is_bytes = |name: &str| {
                self.made.values.get(name).is_some_and(|value| value.dtype == Dtype::I8)
            };
            node.values().iter().all(|value| is_bytes(&value.name))
        };
        let nodes = &self.made.nodes;
        let operations = [nodes.iter().filter(in_bytes).count(), nodes.len()];
        let (mut tensors, mut known) = (vec![], BTreeSet::new());
        for name in nodes.iter().flat_map(Node::weights) {
            if known.insert(name.clone()) {
                let plan = self.tensors.get(name.as_str()).copied().or(self.added.get(&name));
                tensors.extend(plan.cloned());
            }
        }
        InBytes { graph: self.made, tensors, operations }
    }

    /// Draws a node, and those that are fused to it, in bytes, and says how many they are; nothing where it can't.
    fn node(&mut self, at: usize, node: &Node) -> Option<usize> {
        match node {
            Node::Dequantize(op) => self.were_bytes(op),
            Node::Quantize(op) => self.become_bytes(op),
            Node::FloatConv2d(op) => self.convolved(at, op),
            Node::Pool(op) => self.pooled(op),
            Node::Resize(op) => self.resized(op),
            Node::Binary(op) => self.paired(at, op),
            Node::Fill(op) => self.filled(op),
            Node::Rearrange(op) => self.moved(at, op),
            _ => None,
        }
    }

    /// Draws a node as it is.
    fn in_floats(&mut self, node: &Node) -> usize {
        let written = written(node);
        for value in node.values() {
            if !written.contains(&value.name) {
                self.as_floats(&value.name);
            }
        }
        for name in written {
            // What is changed in place, or in part.
            if self.bytes.contains_key(&name) {
                self.as_floats(&name);
                self.bytes.remove(&name);
            }
            self.floats.insert(name);
        }
        self.made.nodes.push(node.clone());
        1
    }

    /// Has a value be there as floats.
    fn as_floats(&mut self, name: &str) {
        let known = self.bytes.get(name).filter(|_| !self.floats.contains(name));
        let Some((step, bytes)) = known else { return };
        let (input, output) = (ValueRef::all(bytes), ValueRef::all(name));
        let Step { scale, zero } = *step;
        self.made.nodes.push(Dequantize::<Names> { input, output, scale, zero }.into());
        self.floats.insert(name.to_owned());
    }

    /// Has a value be there as bytes: their step and their name.
    fn as_bytes(&mut self, name: &str) -> Option<(Step, String)> {
        if let Some(known) = self.bytes.get(name) {
            return Some(known.clone());
        }
        let step = *self.steps.operands.get(name)?;
        let output = self.value(name, step)?;
        let (input, bytes) = (ValueRef::all(name), output.name.clone());
        let Step { scale, zero } = step;
        let quantize = Quantize::<Names> { input, output, scale, zero, ties_away: true };
        self.made.nodes.push(quantize.into());
        Some((step, bytes))
    }

    /// The step of a value that an operation has as its result.
    fn step(&self, name: &str) -> Option<Step> {
        self.steps.results.get(name).copied()
    }

    /// Adds the bytes of a value, which shall be there: those that the graph makes of it, if these are the same.
    fn value(&mut self, name: &str, step: Step) -> Option<ValueRef> {
        let shape = self.graph.values.get(name).filter(|shape| shape.dtype == Dtype::F32)?;
        let shape = ValueShape { dtype: Dtype::I8, ..*shape };
        let own = self.given.get(name).filter(|(given, _)| *given == step);
        let own = own.filter(|(_, own)| self.graph.values.get(*own) == Some(&shape));
        let bytes = own.map_or_else(|| format!("{name}.i8"), |(_, own)| (*own).to_owned());
        self.made.values.insert(bytes.clone(), shape);
        self.bytes.insert(name.to_owned(), (step, bytes.clone()));
        Some(ValueRef::all(&bytes))
    }

    /// Floats that are made of bytes may be left out.
    fn were_bytes(&mut self, op: &Dequantize<Names>) -> Option<usize> {
        let whole = op.input.rows.is_none() && op.output.rows.is_none();
        if !whole || self.index.writers(&op.output.name).len() != 1 {
            return None;
        }
        let step = Step { scale: op.scale, zero: op.zero };
        let [bytes, floats] = [&op.input.name, &op.output.name];
        let shapes = [bytes, floats].map(|name| self.graph.values.get(name).copied());
        let [Some(own), Some(shape)] = shapes else { return None };
        if own.dims == shape.dims {
            self.bytes.insert(floats.clone(), (step, bytes.clone()));
        } else {
            // Values have one shape each.
            let copy = self.value(floats, step)?;
            self.made.nodes.push(whole_copy(bytes, &copy.name, own.width));
        }
        Some(1)
    }

    /// Bytes that are made of floats may be there already.
    fn become_bytes(&mut self, op: &Quantize<Names>) -> Option<usize> {
        let (from, bytes) = self.bytes.get(&op.input.name)?.clone();
        if op.input.rows.is_some() || op.output.rows.is_some() {
            return None;
        }
        let to = Step { scale: op.scale, zero: op.zero };
        let width = self.width(&op.input.name)?;
        if from != to {
            self.lookup(&bytes, &op.output.name, |x| to.byte(from.number(x)));
        } else if bytes != op.output.name {
            self.made.nodes.push(whole_copy(&bytes, &op.output.name, width));
        }
        Some(1)
    }

    fn convolved(&mut self, at: usize, op: &FloatConv2d<Names>) -> Option<usize> {
        if op.dilation != [1, 1] || op.input.rows.is_some() || op.output.rows.is_some() {
            return None;
        }
        let numbers = |name: &str| self.tensors.get(name).and_then(|plan| numbers_of(plan));
        let weights = numbers(&op.weight)?;
        let bias = match &op.bias {
            Some(bias) => Some(numbers(bias)?),
            None => None,
        };
        let outputs = self.graph.values.get(&op.output.name)?.dims[3].into();
        let weights = Weights { numbers: weights, rows: outputs, turned: op.depthwise };
        if self.steps.exact && !weights.are_whole() {
            return None;
        }
        let fused = fused(self.graph, &self.index, at, &op.output.name);
        let to = self.step(&fused.target)?;
        let (from, input) = self.as_bytes(&op.input.name)?;
        let name = format!("{}.i8.{}", op.weight, self.added.len());
        let plan = channels(name, &weights, bias, (from, to))?;
        let weight = plan.name.clone();
        self.added.insert(weight.clone(), plan);
        let output = self.value(&fused.target, to)?;
        self.made.nodes.push(
            Conv2d::<Names> {
                weight,
                input: ValueRef::all(&input),
                output,
                kernel: op.kernel,
                stride: op.stride,
                pad: op.pad,
                input_zero: from.zero,
                output_zero: to.zero,
                clamp: clamp(&fused, to),
                depthwise: op.depthwise,
            }
            .into(),
        );
        Some(fused.nodes)
    }

    fn pooled(&mut self, op: &Pool<Names>) -> Option<usize> {
        let (step, bytes) = self.bytes.get(&op.input.name)?.clone();
        let Pool { pooling, kernel, stride, pad, .. } = *op;
        // Means are rounded.
        if pooling == Pooling::MeanOfWindow
            || pooling == Pooling::Mean && self.step(&op.output.name).is_none()
        {
            return None;
        }
        let input = ValueRef::all(&bytes);
        let output = self.value(&op.output.name, step)?;
        self.made.nodes.push(match pooling {
            Pooling::Max => Pool::<Names> { pooling, input, output, kernel, stride, pad }.into(),
            _ => {
                let clamp = [i8::MIN, i8::MAX];
                AveragePool::<Names> { input, output, kernel, stride, pad, clamp }.into()
            }
        });
        Some(1)
    }

    fn resized(&mut self, op: &Resize<Names>) -> Option<usize> {
        let (step, bytes) = self.bytes.get(&op.input.name)?.clone();
        if op.bilinear && self.step(&op.output.name).is_none() {
            return None;
        }
        let input = ValueRef::all(&bytes);
        let output = self.value(&op.output.name, step)?;
        self.made.nodes.push(Resize::<Names> { input, output, ..op.clone() }.into());
        Some(1)
    }

    fn paired(&mut self, at: usize, op: &Binary<Names>) -> Option<usize> {
        let ends = [&op.first, &op.second];
        if !ends.iter().any(|end| self.bytes.contains_key(&end.name)) {
            return None;
        }
        let fused = fused(self.graph, &self.index, at, &op.output.name);
        let to = self.step(&fused.target)?;
        let function = match op.function {
            BinaryFunction::Add => None,
            BinaryFunction::Subtract => Some(QuantizedFunction::Subtract),
            BinaryFunction::Multiply => Some(QuantizedFunction::Multiply),
            _ => return None,
        };
        let [(first_step, first), (second_step, second)] =
            [self.as_bytes(&op.first.name)?, self.as_bytes(&op.second.name)?];
        let steps = [first_step, second_step, to];
        let output = self.value(&fused.target, to)?;
        let factors = match function {
            Some(QuantizedFunction::Multiply) => product(steps),
            _ => sum(steps),
        };
        let mut first = ValueRef { name: first, rows: op.first.rows };
        let mut second = ValueRef { name: second, rows: op.second.rows };
        if function.is_none() {
            // The only one that has no steps.
            first = self.in_order(first, op.dims, op.first_steps)?;
            second = self.in_order(second, op.dims, op.second_steps)?;
        }
        let zeros = steps.map(|step| step.zero);
        let multipliers = factors.map(|(multiplier, _)| multiplier);
        let shifts = factors.map(|(_, shift)| shift);
        let clamp = clamp(&fused, to);
        self.made.nodes.push(match function {
            None => {
                QuantizedAdd::<Names> { first, second, output, zeros, multipliers, shifts, clamp }
                    .into()
            }
            Some(function) => QuantizedBinary::<Names> {
                function,
                first,
                second,
                output,
                dims: op.dims,
                first_steps: op.first_steps,
                second_steps: op.second_steps,
                zeros,
                multipliers,
                shifts,
                clamp,
            }
            .into(),
        });
        Some(fused.nodes)
    }

    /// Bytes that steps lead to, one after another.
    fn in_order(&mut self, bytes: ValueRef, dims: [u32; 4], steps: [i32; 4]) -> Option<ValueRef> {
        let width = dims.iter().product();
        let shape = *self.made.values.get(&bytes.name)?;
        let (first, end) = bytes.rows.unwrap_or((0, shape.width));
        if is_in_order(dims, steps) && end - first == width {
            return Some(bytes);
        }
        let name = format!("{}.{}", bytes.name, self.made.nodes.len());
        self.made.values.insert(name.clone(), ValueShape { width, dims: [0; 4], ..shape });
        let mut to = [0, 0, 0, 0, 1];
        for axis in (0..4).rev() {
            to[axis] = to[axis + 1] * dims.get(axis).copied()?.cast_signed();
        }
        let [a, b, c, d] = dims;
        let [from_a, from_b, from_c, from_d] = steps;
        let repeated = Rearrange::<Names> {
            input: ValueRef::all(&bytes.name),
            output: ValueRef::all(&name),
            dims: [1, a, b, c, d],
            from: [0, from_a, from_b, from_c, from_d],
            to: [0, to[1], to[2], to[3], to[4]],
            from_first: first,
            to_first: 0,
        };
        self.made.nodes.push(repeated.into());
        Some(ValueRef::all(&name))
    }

    fn width(&self, name: &str) -> Option<u32> {
        self.graph.values.get(name).map(|value| value.width)
    }

    /// True if a value is put together of others that are all there as bytes.
    fn is_joined(&mut self, name: &str) -> bool {
        if let Some(known) = self.joined.get(name) {
            return *known;
        }
        let mut sources = 0;
        let graph = self.graph;
        let joined = self.index.writers(name).iter().all(|at| match &graph.nodes[*at] {
            Node::Fill(_) => true,
            Node::Rearrange(op) => {
                sources += 1;
                self.bytes.contains_key(&op.input.name)
            }
            _ => false,
        });
        self.joined.insert(name.to_owned(), joined && sources > 0);
        joined && sources > 0
    }

    /// The step of a value that is put together: that of what it is made of, if that is one.
    fn joined_step(&mut self, name: &str) -> Option<(Step, String)> {
        if let Some(known) = self.bytes.get(name) {
            return Some(known.clone());
        }
        let mut steps =
            self.index.writers(name).iter().filter_map(|at| match &self.graph.nodes[*at] {
                Node::Rearrange(op) => self.bytes.get(&op.input.name).map(|(step, _)| *step),
                _ => None,
            });
        let first = steps.next()?;
        let step = if steps.all(|step| step == first) { first } else { self.step(name)? };
        self.value(name, step)?;
        self.bytes.get(name).cloned()
    }

    fn filled(&mut self, op: &Fill<Names>) -> Option<usize> {
        if !self.is_joined(&op.output.name) {
            return None;
        }
        let (step, name) = self.joined_step(&op.output.name)?;
        let output = ValueRef { name, rows: op.output.rows };
        let number = f32::from(step.byte(op.number));
        self.made.nodes.push(Fill::<Names> { output, number }.into());
        Some(1)
    }

    fn moved(&mut self, at: usize, op: &Rearrange<Names>) -> Option<usize> {
        let (from, mut input) = self.bytes.get(&op.input.name)?.clone();
        let next = self.graph.nodes.get(at + 1);
        if next.and_then(changed) == Some(&op.output) {
            return self.changed((from, &input), op, next?);
        }
        if !self.is_joined(&op.output.name) {
            return None;
        }
        let (to, name) = self.joined_step(&op.output.name)?;
        if from != to {
            let rescaled = format!("{input}.{}", self.made.nodes.len());
            let shape = *self.made.values.get(&input)?;
            self.made.values.insert(rescaled.clone(), shape);
            self.lookup(&input, &rescaled, |x| to.byte(from.number(x)));
            input = rescaled;
        }
        let input = ValueRef { name: input, rows: op.input.rows };
        let output = ValueRef { name, rows: op.output.rows };
        self.made.nodes.push(Rearrange::<Names> { input, output, ..op.clone() }.into());
        Some(1)
    }

    /// A copy that a function changes, as a table.
    fn changed(
        &mut self,
        (from, bytes): (Step, &str),
        op: &Rearrange<Names>,
        node: &Node,
    ) -> Option<usize> {
        let function = function(node)?;
        if self.index.writers(&op.output.name).len() != 2 {
            return None;
        }
        let width = self.width(&op.input.name)?;
        let whole = op.input.rows.is_none()
            && (op.from, op.to) == ([0, 0, 0, 0, 1], [0, 0, 0, 0, 1])
            && op.dims == [1, 1, 1, 1, width];
        let to = self.step(&op.output.name)?;
        let output = self.value(&op.output.name, to)?;
        let table = |x| to.byte(function(from.number(x)));
        let (input, moved) = (ValueRef { name: bytes.to_owned(), rows: op.input.rows }, op.clone());
        if (i8::MIN..=i8::MAX).all(|x| table(x) == x) {
            self.made.nodes.push(Rearrange::<Names> { input, output, ..moved }.into());
        } else if whole {
            self.lookup(bytes, &output.name, table);
        } else {
            let name = format!("{}.{}", output.name, self.made.nodes.len());
            let shape = *self.made.values.get(&output.name)?;
            self.made.values.insert(name.clone(), shape);
            let between = ValueRef { name: name.clone(), rows: op.output.rows };
            self.made.nodes.push(Rearrange::<Names> { input, output: between, ..moved }.into());
            self.lookup(&name, &output.name, table);
        }
        Some(2)
    }

    fn lookup(&mut self, from: &str, to: &str, function: impl Fn(i8) -> i8) {
        let table = format!("table{}", self.added.len());
        let numbers = (i8::MIN..=i8::MAX).map(|x| f32::from(function(x))).collect();
        let plan = TensorPlan {
            name: table.clone(),
            role: Role::Vector,
            rows: 1,
            columns: 256,
            data: Data::Computed(numbers),
            skipped: 0,
        };
        self.added.insert(table.clone(), plan);
        let (input, output) = (ValueRef::all(from), ValueRef::all(to));
        self.made.nodes.push(Lookup::<Names> { table, input, output }.into());
    }
}

/// The least and the largest byte of a result.
fn clamp(fused: &Fused, to: Step) -> [i8; 2] {
    let ends = [(fused.low, i8::MIN), (fused.high, i8::MAX)];
    ends.map(|(end, none)| end.map_or(none, |end| to.byte(end)))
}

/// True if steps lead through elements one after another.
fn is_in_order(dims: [u32; 4], steps: [i32; 4]) -> bool {
    let mut expected = 1;
    dims.iter().zip(steps).rev().filter(|(dim, _)| **dim > 1).all(|(dim, step)| {
        let in_order = i64::from(step) == expected;
        expected *= i64::from(*dim);
        in_order
    })
}
