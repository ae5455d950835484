//! What of an ONNX file says which weights there are, and what they are used for: constants, and the nodes
//! that may name them (<https://github.com/onnx/onnx/blob/main/onnx/onnx.proto>). Other nodes are passed over.

use super::names::{path_of_name, path_of_scopes};
use super::wire::{Reader, Span, Value};
use crate::Result;
use crate::import::source_file::SourceFile;
use std::collections::BTreeMap;

/// How deep graphs may lie within nodes of graphs.
const MAX_DEPTH: u32 = 8;
/// The most dimensions of a constant, and the most integers of an attribute.
const MAX_SIDES: usize = 16;
/// Bytes of names that are kept. Graphs of the largest models have some MB.
const MAX_NAMES: usize = 256 << 20;
/// The most fields of a model before its graph.
const MAX_HEADER: usize = 64;
/// The most inputs and outputs of a node that says something of weights.
const MAX_ENDS: usize = 64;

/// Operations that say something of the constants they take, and those that hold other graphs.
const OPERATIONS: [&str; 21] = [
    "Add",
    "Cast",
    "Constant",
    "Conv",
    "DequantizeLinear",
    "Gather",
    "Gemm",
    "Identity",
    "If",
    "LayerNormalization",
    "Loop",
    "MatMul",
    "MatMulInteger",
    "MatMulNBits",
    "Mul",
    "RMSNormalization",
    "Scan",
    "SimplifiedLayerNormalization",
    "SkipLayerNormalization",
    "SkipSimplifiedLayerNormalization",
    "Transpose",
];
const WITH_GRAPHS: [&str; 3] = ["If", "Loop", "Scan"];

/// A file's constants, and nodes that take them.
#[derive(Debug, Default)]
pub(super) struct Graph {
    /// By the names that nodes take them by.
    pub(super) constants: BTreeMap<String, Constant>,
    /// In the order of the file, in which none comes before what it takes.
    pub(super) nodes: Vec<Node>,
    /// Names of what it gives.
    pub(super) outputs: Vec<String>,
    /// Bytes of names so far.
    names: usize,
}

/// Numbers that are stored.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Constant {
    pub(super) sides: Vec<u64>,
    /// The format's number for the type.
    pub(super) kind: u64,
    pub(super) place: Place,
    /// It is listed as one of the graph's weights, not written into a node.
    pub(super) listed: bool,
}

/// Where numbers lie.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) enum Place {
    #[default]
    Nowhere,
    /// As bytes one after another.
    Bytes(Span),
    /// As integers of variable length.
    Integers(Span),
    /// In another file.
    External { location: String, offset: u64, length: Option<u64> },
    /// As what no weights are stored as.
    Other(&'static str),
}

/// An operation.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Node {
    pub(super) operation: &'static str,
    /// Where the module lies that it was made of, as parameters are named.
    pub(super) path: Option<String>,
    pub(super) inputs: Vec<String>,
    pub(super) outputs: Vec<String>,
    /// Attributes that are integers.
    pub(super) integers: BTreeMap<String, Vec<i64>>,
}

impl Node {
    /// An attribute that is an integer.
    pub(super) fn integer(&self, name: &str) -> Option<i64> {
        self.integers.get(name)?.first().copied()
    }
}

impl Constant {
    /// How many numbers there are.
    pub(super) fn count(&self) -> Option<u64> {
        self.sides.iter().try_fold(1, |count: u64, side| count.checked_mul(*side))
    }
}

/// True if a file begins as an ONNX model does: a version, then fields that such a model has.
pub(in super::super) fn is_plausible(file: &SourceFile) -> bool {
    let mut reader = Reader::new(file);
    let mut left = reader.whole();
    let mut has_version = false;
    // What is no model gives errors that say nothing.
    for _ in 0..MAX_HEADER {
        match reader.field(&mut left) {
            Ok(Some((1, Value::Number(1..=100)))) => has_version = true,
            Ok(Some((7, Value::Span(_)))) => return has_version,
            Ok(Some((2..=26, Value::Span(_)) | (5, Value::Number(_)))) => {}
            _ => return false,
        }
    }
    false
}

/// Reads a file but for its numbers.
pub(super) fn read(file: &SourceFile) -> Result<Graph> {
    let (mut reader, mut graph) = (Reader::new(file), Graph::default());
    let (mut left, mut found) = (reader.whole(), false);
    while let Some((number, value)) = reader.field(&mut left)? {
        if let (7, Value::Span(span)) = (number, value) {
            graph.read(&mut reader, span, 0)?;
            found = true;
        }
    }
    if !found {
        return Err(reader.damaged(0, "a message without a graph".into()));
    }
    Ok(graph)
}

impl Graph {
    fn read(&mut self, reader: &mut Reader<'_>, mut left: Span, depth: u32) -> Result<()> {
        if depth > MAX_DEPTH {
            return Err(reader.damaged(left.start, format!("graphs {depth} deep in one another")));
        }
        while let Some((number, value)) = reader.field(&mut left)? {
            match (number, value) {
                (1, Value::Span(span)) => self.node(reader, span, depth)?,
                (5, Value::Span(span)) => {
                    let start = span.start;
                    let (name, constant) = tensor(reader, span)?;
                    self.keep(reader, start, &[&name])?;
                    let constant = Constant { listed: true, ..constant };
                    // Branches may have constants of the same names.
                    if self.constants.insert(name.clone(), constant).is_some() && depth == 0 {
                        return Err(reader.damaged(start, format!("{name} a second time")));
                    }
                }
                (12, Value::Span(span)) if depth == 0 => {
                    let name = first_text(reader, span)?;
                    self.keep(reader, left.start, &[&name])?;
                    self.outputs.push(name);
                }
                _ => {}
            }
        }
        Ok(())
    }

    fn node(&mut self, reader: &mut Reader<'_>, span: Span, depth: u32) -> Result<()> {
        let Some(operation) = operation(reader, span.clone())? else { return Ok(()) };
        let mut node = Node { operation, ..Node::default() };
        let (mut name, mut scopes) = (String::new(), None);
        let mut left = span.clone();
        while let Some((number, value)) = reader.field(&mut left)? {
            match (number, value) {
                (1, Value::Span(text)) => node.inputs.push(reader.text(&text)?),
                (2, Value::Span(text)) => node.outputs.push(reader.text(&text)?),
                (3, Value::Span(text)) => name = reader.text(&text)?,
                (5, Value::Span(attribute)) => {
                    self.attribute(reader, attribute, &mut node, depth)?;
                }
                (9, Value::Span(property)) => {
                    let [key, value] = pair(reader, property)?;
                    scopes = path_of_scopes(&key, &value).or(scopes);
                }
                _ => {}
            }
            if node.inputs.len() > MAX_ENDS || node.outputs.len() > MAX_ENDS {
                return Ok(());
            }
        }
        node.path = scopes.or_else(|| path_of_name(&name));
        let kept = node.inputs.iter().chain(&node.outputs).chain(&node.path);
        self.keep(reader, span.start, &kept.map(String::as_str).collect::<Vec<_>>())?;
        if operation != "Constant" && !WITH_GRAPHS.contains(&operation) {
            self.nodes.push(node);
        }
        Ok(())
    }

    fn attribute(
        &mut self,
        reader: &mut Reader<'_>,
        mut left: Span,
        node: &mut Node,
        depth: u32,
    ) -> Result<()> {
        let (mut name, mut integers) = (String::new(), vec![]);
        while let Some((number, value)) = reader.field(&mut left)? {
            match (number, value) {
                (1, Value::Span(text)) => name = reader.text(&text)?,
                (3, Value::Number(number)) => integers.push(number.cast_signed()),
                (8, value) => some(reader, value, &mut integers)?,
                (5, Value::Span(span)) if node.operation == "Constant" => {
                    let (_, constant) = tensor(reader, span)?;
                    if let Some(output) = node.outputs.first() {
                        self.constants.entry(output.clone()).or_insert(constant);
                    }
                }
                (6 | 11, Value::Span(span)) if WITH_GRAPHS.contains(&node.operation) => {
                    self.read(reader, span, depth + 1)?;
                }
                _ => {}
            }
        }
        self.keep(reader, left.start, &[&name])?;
        if !integers.is_empty() {
            node.integers.insert(name, integers);
        }
        Ok(())
    }

    /// Counts what is kept of a file.
    fn keep(&mut self, reader: &Reader<'_>, at: u64, names: &[&str]) -> Result<()> {
        /// What a constant or a node takes besides its names.
        const ENTRY: usize = 256;
        self.names += ENTRY + names.iter().map(|name| name.len() + 32).sum::<usize>();
        if self.names > MAX_NAMES {
            return Err(reader.damaged(at, "more names than any model has".into()));
        }
        Ok(())
    }
}

/// The operation of a node, if it is one that matters here.
fn operation(reader: &mut Reader<'_>, mut left: Span) -> Result<Option<&'static str>> {
    while let Some((number, value)) = reader.field(&mut left)? {
        if let (4, Value::Span(span)) = (number, value) {
            let name = reader.text(&span)?;
            return Ok(OPERATIONS.into_iter().find(|known| *known == name));
        }
    }
    Ok(None)
}

/// A constant with its name.
pub(super) fn tensor(reader: &mut Reader<'_>, mut left: Span) -> Result<(String, Constant)> {
    let (mut name, mut constant) = (String::new(), Constant::default());
    let (mut sides, mut external, mut is_external) = (vec![], BTreeMap::new(), false);
    while let Some((number, value)) = reader.field(&mut left)? {
        let at = left.start;
        match (number, value) {
            (1, value) => some(reader, value, &mut sides)?,
            (2, Value::Number(kind)) => constant.kind = kind,
            (8, Value::Span(text)) => name = reader.text(&text)?,
            (4 | 9, Value::Span(span)) => put(reader, &mut constant, Place::Bytes(span), at)?,
            (5 | 7, Value::Span(span)) => put(reader, &mut constant, Place::Integers(span), at)?,
            (6 | 10 | 11, _) => constant.place = Place::Other("texts or numbers of 64 bits"),
            (4 | 5 | 7, _) => constant.place = Place::Other("numbers one by one"),
            (13, Value::Span(entry)) if external.len() < MAX_SIDES => {
                let [key, value] = pair(reader, entry)?;
                external.insert(key, value);
            }
            (14, Value::Number(location)) => is_external = location == 1,
            _ => {}
        }
    }
    let side = |side: i64| u64::try_from(side).ok();
    let Some(sides) = sides.into_iter().map(side).collect() else {
        return Err(reader.damaged(left.start, format!("negative sides of {name}")));
    };
    constant.sides = sides;
    if is_external {
        constant.place = elsewhere(reader, &name, &external, left.start)?;
    }
    Ok((name, constant))
}

/// Notes where numbers lie, of which there is one place.
fn put(reader: &Reader<'_>, constant: &mut Constant, place: Place, at: u64) -> Result<()> {
    let empty =
        |place: &Place| matches!(place, Place::Bytes(s) | Place::Integers(s) if s.is_empty());
    match &constant.place {
        old if *old == Place::Nowhere || empty(old) => constant.place = place,
        _ if empty(&place) => {}
        _ => return Err(reader.damaged(at, "numbers of a tensor in several pieces".into())),
    }
    Ok(())
}

/// A place in another file.
fn elsewhere(
    reader: &Reader<'_>,
    name: &str,
    entries: &BTreeMap<String, String>,
    at: u64,
) -> Result<Place> {
    let number = |key: &str| match entries.get(key).map(|text| text.parse::<u64>()) {
        None => Ok(None),
        Some(Ok(number)) => Ok(Some(number)),
        Some(Err(_)) => Err(reader.damaged(at, format!("an {key} of {name} that is no number"))),
    };
    let Some(location) = entries.get("location").cloned() else {
        return Err(reader.damaged(at, format!("{name} in another file without a location")));
    };
    Ok(Place::External {
        location,
        offset: number("offset")?.unwrap_or(0),
        length: number("length")?,
    })
}

/// Adds one integer or several to some; those behind the first [`MAX_SIDES`] are of nothing that is read.
fn some(reader: &mut Reader<'_>, value: Value, to: &mut Vec<i64>) -> Result<()> {
    match value {
        Value::Number(number) if to.len() < MAX_SIDES => to.push(number.cast_signed()),
        Value::Number(_) | Value::Fixed(_) => {}
        Value::Span(mut left) => {
            while !left.is_empty() && to.len() < MAX_SIDES {
                to.push(reader.number(&mut left)?.cast_signed());
            }
        }
    }
    Ok(())
}

/// The first field of a message, a text.
fn first_text(reader: &mut Reader<'_>, mut left: Span) -> Result<String> {
    while let Some((number, value)) = reader.field(&mut left)? {
        if let (1, Value::Span(span)) = (number, value) {
            return reader.text(&span);
        }
    }
    Ok(String::new())
}

/// A key with its value, both texts. What is too long to be meant for anybody here is left out.
fn pair(reader: &mut Reader<'_>, mut left: Span) -> Result<[String; 2]> {
    const LONG: u64 = 8 << 10;
    let mut pair = [String::new(), String::new()];
    while let Some((number, value)) = reader.field(&mut left)? {
        if let (1 | 2, Value::Span(span)) = (number, value)
            && span.end - span.start <= LONG
        {
            pair[number as usize - 1] = reader.text(&span)?;
        }
    }
    Ok(pair)
}
