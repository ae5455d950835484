//! ONNX graphs over tensors (<https://onnx.ai/onnx/operators/>).

mod compute;
mod known;
mod layout;
mod quantized;
mod recurrent;
mod windows;

use super::blueprint::Blueprint;
use super::tensors::{
    Drawing, Drawn, FAR, MAX_MADE, Refused, Scale, Tensor, View, Weights, Window, axes, axis,
    count, span, viewed,
};
use crate::import::onnx_model::{OnnxAttribute, OnnxGraph, OnnxInput, OnnxNode, read};
use crate::import::{Array, Container, GraphInputs, Numbers};
use crate::{Error, Result};
use omex_core::program::Dtype;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

pub(super) fn blueprint(container: &dyn Container) -> Result<Blueprint> {
    let (graph, path) = (read(container.path())?, container.path());
    let mut door = Door::default();
    let inputs = container.graph_inputs().cloned().unwrap_or_default();
    door.begin(&graph, &inputs).map_err(|refused| bad(path, "inputs", refused))?;
    let mut problems = vec![];
    door.run(&graph, &mut |node, refused| {
        problems.push(bad(path, &title(node), refused));
        false
    });
    if let Some(problem) = problems.into_iter().next() {
        return Err(problem);
    }
    for name in &graph.outputs {
        let given = door.tensor(name).and_then(|tensor| door.drawing.output(name, &tensor));
        given.map_err(|refused| bad(path, &format!("output \"{name}\""), refused))?;
    }
    door.drawing.in_integers();
    Ok(door.drawing.finish("onnx"))
}

/// What is wrong with each node; one behind another that could not be drawn may be fine.
pub(super) fn problems(container: &dyn Container) -> Vec<Error> {
    let path = container.path();
    let Ok(graph) = read(path) else { return vec![] };
    let mut door = Door::default();
    let inputs = container.graph_inputs().cloned().unwrap_or_default();
    let mut problems = vec![];
    if let Err(refused) = door.begin(&graph, &inputs) {
        return vec![bad(path, "inputs", refused)];
    }
    door.run(&graph, &mut |node, refused| {
        problems.push(bad(path, &title(node), refused));
        true
    });
    problems
}

fn bad(path: &Path, node: &str, refused: Refused) -> Error {
    let remedy = "export the model with other operations, or leave this part of it to your program; a transformer \
                  is read with its config.json beside the file";
    Error::malformed(path, node, refused.found, &refused.expected, remedy)
}

/// A node, for people.
fn title(node: &OnnxNode) -> String {
    let domain = if node.domain.is_empty() { String::new() } else { format!("{}.", node.domain) };
    let makes =
        node.outputs.first().map_or_else(String::new, |to| format!(", which makes \"{to}\""));
    let name = if node.name.is_empty() { String::new() } else { format!(" \"{}\"", node.name) };
    format!("node{name} ({domain}{}){makes}", node.operation)
}

/// The integer that a condition compares an input with, where nothing else is known of it.
type Assumed = BTreeMap<String, i64>;

/// A file's graph on its way into a drawing.
#[derive(Default)]
struct Door {
    drawing: Drawing,
    /// What tensors are called, in the graph and in those within it that are drawn: each has names of its own.
    scopes: Vec<BTreeMap<String, Tensor>>,
    /// What could not be drawn, or hangs on it.
    missing: BTreeSet<String>,
}

/// What is said of a node that can't be drawn; false ends it.
type Refuse<'r> = dyn FnMut(&OnnxNode, Refused) -> bool + 'r;

impl Door {
    /// Takes the inputs and the constants.
    fn begin(&mut self, graph: &OnnxGraph, settled: &GraphInputs) -> Drawn<()> {
        self.drawing = Drawing::new();
        self.scopes = vec![BTreeMap::new()];
        self.constants(graph);
        let assumed = compared(graph);
        let names: BTreeSet<&str> = graph.inputs.iter().map(|input| input.name.as_str()).collect();
        let mut given = settled.shapes.keys().chain(settled.numbers.keys());
        if let Some(unknown) = given.find(|name| !names.contains(name.as_str())) {
            let names = Vec::from_iter(names).join(", ");
            return Err(Refused::new(
                format!("\"{unknown}\" is settled"),
                format!("one of {names}"),
            ));
        }
        for input in &graph.inputs {
            if self.find(&input.name).is_some() {
                continue;
            }
            let tensor = self.input(input, settled, &assumed)?;
            self.name(&input.name, tensor);
        }
        Ok(())
    }

    fn constants(&mut self, graph: &OnnxGraph) {
        for (name, array) in &graph.constants {
            self.name(name, Tensor::Known(array.clone()));
        }
    }

    fn input(
        &mut self,
        input: &OnnxInput,
        settled: &GraphInputs,
        assumed: &Assumed,
    ) -> Drawn<Tensor> {
        let name = &input.name;
        let number = settled.numbers.get(name).copied();
        let number = number.or_else(|| assumed.get(name).map(|number| *number as f64));
        if let Some(number) = number {
            return Ok(Tensor::Known(match input.kind {
                1 => Array::floats(vec![], vec![number as f32]),
                _ => Array::whole(vec![], vec![number as i64]),
            }));
        }
        let dtype = match input.kind {
            1 => Dtype::F32,
            3 => Dtype::I8,
            other => {
                let found = format!("input \"{name}\" of type {other}");
                let expected = "floats or signed bytes, or a number for it (--set NAME=NUMBER)";
                return Err(Refused::new(found, expected));
            }
        };
        let shape = match settled.shapes.get(name) {
            Some(shape) => shape.clone(),
            None => sides(input)?,
        };
        if input.sides.len() != shape.len() && !input.sides.is_empty() {
            let found = format!("{shape:?} for input \"{name}\"");
            return Err(Refused::new(found, format!("{} dimensions", input.sides.len())));
        }
        Ok(Tensor::Computed(self.drawing.input(name, dtype, &shape, None)?))
    }

    fn tensor(&self, name: &str) -> Drawn<Tensor> {
        let missing = || {
            Refused::new(
                format!("\"{name}\", which nothing makes"),
                "a tensor that is known by then",
            )
        };
        self.find(name).cloned().ok_or_else(missing)
    }

    fn find(&self, name: &str) -> Option<&Tensor> {
        self.scopes.iter().rev().find_map(|scope| scope.get(name))
    }

    fn name(&mut self, name: &str, tensor: Tensor) {
        if let Some(scope) = self.scopes.last_mut() {
            scope.insert(name.to_owned(), tensor);
        }
    }

    /// Draws all nodes of a graph.
    fn run(&mut self, graph: &OnnxGraph, refuse: &mut Refuse<'_>) {
        for node in &graph.nodes {
            let hangs = node.inputs.iter().any(|name| self.missing.contains(name));
            let drawn = if hangs && is_known(node) { None } else { Some(self.node(node, refuse)) };
            match drawn {
                Some(Ok(results)) => {
                    for (name, tensor) in node.outputs.iter().zip(results) {
                        if let Some(tensor) = tensor {
                            self.name(name, tensor);
                        }
                    }
                }
                Some(Err(refused)) => {
                    self.missing.extend(node.outputs.iter().cloned());
                    if !refuse(node, refused) {
                        return;
                    }
                }
                None => self.missing.extend(node.outputs.iter().cloned()),
            }
        }
    }

    /// Draws a node; none for results that nothing makes.
    fn node(&mut self, node: &OnnxNode, refuse: &mut Refuse<'_>) -> Drawn<Vec<Option<Tensor>>> {
        if node.operation == "If" && node.domain.is_empty() {
            return self.branch(node, refuse);
        }
        if let Some(known) = self.known(node)? {
            return Ok(vec![Some(Tensor::Known(known))]);
        }
        let call = Call { node, door: self };
        match node.domain.as_str() {
            "" | "com.microsoft" => call.draw(),
            other => Err(Refused::new(format!("an operation of {other}"), "one of the standard")),
        }
    }

    /// Draws the branch that a known condition chooses.
    fn branch(&mut self, node: &OnnxNode, refuse: &mut Refuse<'_>) -> Drawn<Vec<Option<Tensor>>> {
        let condition = node.inputs.first().map(String::as_str).unwrap_or_default();
        let Tensor::Known(condition) = self.tensor(condition)? else {
            let expected = "a condition that hangs on constants and shapes alone";
            return Err(Refused::new("a condition that is computed", expected));
        };
        let holds = condition.to_whole().and_then(|numbers| numbers.first().copied()) != Some(0);
        let name = if holds { "then_branch" } else { "else_branch" };
        let Some(OnnxAttribute::Graph(graph)) = node.attributes.get(name) else {
            return Err(Refused::new(format!("no {name}"), "one"));
        };
        self.scopes.push(BTreeMap::new());
        self.constants(graph);
        self.run(graph, refuse);
        let results: Drawn<Vec<_>> =
            graph.outputs.iter().map(|name| self.tensor(name).map(Some)).collect();
        self.scopes.pop();
        results
    }
}

/// A node's inputs and settings, and the drawing that it goes into.
struct Call<'c> {
    node: &'c OnnxNode,
    door: &'c mut Door,
}

impl Call<'_> {
    fn drawing(&mut self) -> &mut Drawing {
        &mut self.door.drawing
    }

    fn has(&self, place: usize) -> bool {
        self.node.inputs.get(place).is_some_and(|name| !name.is_empty())
    }

    fn input(&self, place: usize) -> Drawn<Tensor> {
        match self.node.inputs.get(place) {
            Some(name) if !name.is_empty() => self.door.tensor(name),
            _ => Err(Refused::new("no tensor", format!("input {place}"))),
        }
    }

    fn view(&mut self, place: usize) -> Drawn<View> {
        let tensor = self.input(place)?;
        self.door.drawing.computed(&tensor)
    }

    fn known(&self, place: usize) -> Drawn<Array> {
        match self.input(place)? {
            Tensor::Known(array) => Ok(array),
            Tensor::Computed(_) => {
                Err(Refused::new(format!("input {place} that is computed"), "a constant"))
            }
        }
    }

    fn whole(&self, place: usize) -> Drawn<Vec<i64>> {
        let whole = self.known(place)?.to_whole();
        whole.ok_or_else(|| Refused::new(format!("floats as input {place}"), "integers"))
    }

    fn number(&self, name: &str, default: i64) -> i64 {
        number(self.node, name).unwrap_or(default)
    }

    fn float(&self, name: &str, default: f32) -> f32 {
        match self.node.attributes.get(name) {
            Some(OnnxAttribute::Float(number)) => *number,
            _ => default,
        }
    }

    fn text(&self, name: &str) -> &str {
        match self.node.attributes.get(name) {
            Some(OnnxAttribute::Text(text)) => text,
            _ => "",
        }
    }

    fn numbers(&self, name: &str) -> Option<Vec<i64>> {
        numbers(self.node, name)
    }

    /// Integers that older versions have as a setting, and newer ones as an input.
    fn listed(&self, name: &str, place: usize) -> Drawn<Option<Vec<i64>>> {
        match self.numbers(name) {
            Some(numbers) => Ok(Some(numbers)),
            None if self.has(place) => self.whole(place).map(Some),
            None => Ok(None),
        }
    }

    /// A number that older versions have as a setting, and newer ones as an input.
    fn bound(&self, name: &str, place: usize) -> Drawn<Option<f32>> {
        match self.node.attributes.get(name) {
            Some(OnnxAttribute::Float(number)) => Ok(Some(*number)),
            _ if self.has(place) => Ok(self.known(place)?.to_floats().first().copied()),
            _ => Ok(None),
        }
    }

    fn draw(mut self) -> Drawn<Vec<Option<Tensor>>> {
        if let Some(several) = self.several()? {
            return Ok(several);
        }
        for way in [Self::layout, Self::windowed, Self::quantized, Self::computed] {
            if let Some(view) = way(&mut self)? {
                return Ok(vec![Some(Tensor::Computed(view))]);
            }
        }
        Err(Refused::new("this operation", "one that is supported"))
    }
}

fn number(node: &OnnxNode, name: &str) -> Option<i64> {
    match node.attributes.get(name) {
        Some(OnnxAttribute::Number(number)) => Some(*number),
        _ => None,
    }
}

fn numbers(node: &OnnxNode, name: &str) -> Option<Vec<i64>> {
    match node.attributes.get(name) {
        Some(OnnxAttribute::Numbers(numbers)) => Some(numbers.clone()),
        _ => None,
    }
}

/// The dimensions of an input; one that has a name in front is a batch of one.
fn sides(input: &OnnxInput) -> Drawn<Vec<usize>> {
    let side = |(place, side): (usize, &std::result::Result<usize, String>)| match side {
        Ok(size) => Ok(*size),
        Err(name) if place == 0 || name.contains("batch") => Ok(1),
        Err(name) => {
            let found = format!("dimension {place} (\"{name}\") of input \"{}\"", input.name);
            let expected = format!("a number: settle it with --input-shape {}=1x…", input.name);
            Err(Refused::new(found, expected))
        }
    };
    input.sides.iter().enumerate().map(side).collect()
}

/// Inputs that are numbers, with what the graph compares them with first.
fn compared(graph: &OnnxGraph) -> Assumed {
    let one = |array: &Array| array.to_whole().filter(|numbers| numbers.len() == 1).map(|n| n[0]);
    let stored = graph.constants.iter().filter_map(|(name, array)| Some((name, one(array)?)));
    let nodes = graph.nodes.iter().filter(|node| node.operation == "Constant");
    let made = nodes.filter_map(|node| match node.attributes.get("value") {
        Some(OnnxAttribute::Array(array)) => Some((node.outputs.first()?, one(array)?)),
        _ => None,
    });
    let constants: BTreeMap<&String, i64> = stored.chain(made).collect();
    let scalars = graph.inputs.iter().filter(|input| input.sides.is_empty() && input.kind != 1);
    let names: BTreeSet<&str> = scalars.map(|input| input.name.as_str()).collect();
    let mut assumed = Assumed::new();
    for node in graph.nodes.iter().filter(|node| node.operation == "Equal") {
        let [a, b] = &node.inputs[..] else { continue };
        for (input, constant) in [(a, b), (b, a)] {
            if let (true, Some(number)) = (names.contains(input.as_str()), constants.get(constant))
            {
                assumed.entry(input.clone()).or_insert(*number);
            }
        }
    }
    assumed
}

/// True if nodes of this kind are drawn.
fn is_known(node: &OnnxNode) -> bool {
    OPERATIONS.contains(&node.operation.as_str())
}

/// The operations that are drawn.
const OPERATIONS: &[&str] = &[
    "Abs",
    "Add",
    "AveragePool",
    "BatchNormalization",
    "Cast",
    "Ceil",
    "Clip",
    "Concat",
    "Constant",
    "ConstantOfShape",
    "Conv",
    "ConvInteger",
    "ConvTranspose",
    "Cos",
    "DepthToSpace",
    "DequantizeLinear",
    "Div",
    "Dropout",
    "DynamicQuantizeLinear",
    "Elu",
    "Equal",
    "Erf",
    "Exp",
    "Expand",
    "Flatten",
    "Floor",
    "GRU",
    "Gather",
    "Gelu",
    "Gemm",
    "GlobalAveragePool",
    "GlobalMaxPool",
    "HardSigmoid",
    "HardSwish",
    "Identity",
    "If",
    "LSTM",
    "LeakyRelu",
    "Log",
    "LogSoftmax",
    "MatMul",
    "MatMulInteger",
    "Max",
    "MaxPool",
    "Min",
    "Mul",
    "Neg",
    "Not",
    "PRelu",
    "Pad",
    "Pow",
    "QGemm",
    "QLinearAdd",
    "QLinearConcat",
    "QLinearConv",
    "QLinearLeakyRelu",
    "QLinearMatMul",
    "QLinearMul",
    "QLinearSigmoid",
    "QLinearSoftmax",
    "QuantizeLinear",
    "Range",
    "Reciprocal",
    "ReduceMax",
    "ReduceMean",
    "ReduceMin",
    "ReduceSum",
    "Relu",
    "Reshape",
    "Resize",
    "Round",
    "Shape",
    "Sigmoid",
    "Sin",
    "Size",
    "Slice",
    "Softmax",
    "Softplus",
    "SpaceToDepth",
    "Split",
    "Sqrt",
    "Squeeze",
    "Sub",
    "Sum",
    "Tanh",
    "Tile",
    "Transpose",
    "Unsqueeze",
    "Upsample",
];
