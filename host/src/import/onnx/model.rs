//! All of an ONNX file: the graph that it holds, with its constants, and the graphs within it.

use super::graph::{Constant, Place, tensor};
use super::place::Files;
use super::wire::{Reader, Span, Value};
use crate::Result;
use crate::import::array::{Array, Numbers};
use crate::import::source_file::SourceFile;
use half::{bf16, f16};
use std::collections::BTreeMap;
use std::path::Path;

/// How deep graphs may lie within nodes of graphs.
const MAX_DEPTH: u32 = 8;
/// The most nodes, inputs and outputs of a graph, and names and attributes of a node.
const MAX_ITEMS: usize = 1 << 16;
/// Bytes of constants that are read.
const MAX_BYTES: u64 = 1 << 30;

/// A graph.
#[derive(Debug, Default)]
pub(crate) struct OnnxGraph {
    /// Names and numbers.
    pub(crate) constants: Vec<(String, Array)>,
    /// In the order in which they are run.
    pub(crate) nodes: Vec<OnnxNode>,
    pub(crate) inputs: Vec<OnnxInput>,
    /// Names of what it gives.
    pub(crate) outputs: Vec<String>,
}

/// What a graph takes.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct OnnxInput {
    pub(crate) name: String,
    /// The format's number for the type.
    pub(crate) kind: u64,
    /// Sizes, or what they are called.
    pub(crate) sides: Vec<std::result::Result<usize, String>>,
}

/// An operation.
#[derive(Debug, Default)]
pub(crate) struct OnnxNode {
    pub(crate) name: String,
    pub(crate) operation: String,
    /// Empty for the standard's own.
    pub(crate) domain: String,
    pub(crate) inputs: Vec<String>,
    pub(crate) outputs: Vec<String>,
    pub(crate) attributes: BTreeMap<String, OnnxAttribute>,
}

/// A setting of a node.
#[derive(Debug)]
pub(crate) enum OnnxAttribute {
    Number(i64),
    Float(f32),
    Text(String),
    Numbers(Vec<i64>),
    Floats(Vec<f32>),
    Array(Array),
    Graph(OnnxGraph),
}

/// Reads a file, and what lies beside it.
///
/// # Errors
/// A file that can't be read, is damaged or too large, or a constant that lies outside of its folder.
pub(crate) fn read(path: &Path) -> Result<OnnxGraph> {
    let file = SourceFile::open(path)?;
    let mut model = Model { files: Files::new(SourceFile::open(path)?), left: MAX_BYTES, items: 0 };
    let (mut reader, mut graph) = (Reader::new(&file), None);
    let mut left = reader.whole();
    while let Some((number, value)) = reader.field(&mut left)? {
        if let (7, Value::Span(span)) = (number, value) {
            graph = Some(model.graph(&mut reader, span, 0)?);
        }
    }
    graph.ok_or_else(|| reader.damaged(0, "a message without a graph".into()))
}

/// A file that is being read.
struct Model {
    files: Files,
    /// Bytes of constants that may still be read.
    left: u64,
    items: usize,
}

impl Model {
    /// Counts one of the many things that a graph has.
    fn count(&mut self, reader: &Reader<'_>, at: u64) -> Result<()> {
        self.items += 1;
        if self.items > MAX_ITEMS {
            return Err(reader.damaged(at, format!("more than {MAX_ITEMS} nodes and names")));
        }
        Ok(())
    }

    fn graph(&mut self, reader: &mut Reader<'_>, mut left: Span, depth: u32) -> Result<OnnxGraph> {
        if depth > MAX_DEPTH {
            return Err(reader.damaged(left.start, format!("graphs {depth} deep in one another")));
        }
        let mut graph = OnnxGraph::default();
        while let Some((number, value)) = reader.field(&mut left)? {
            self.count(reader, left.start)?;
            match (number, value) {
                (1, Value::Span(span)) => graph.nodes.push(self.node(reader, span, depth)?),
                (5, Value::Span(span)) => graph.constants.push(self.constant(reader, span)?),
                (11, Value::Span(span)) => graph.inputs.push(input(reader, span)?),
                (12, Value::Span(span)) => graph.outputs.push(input(reader, span)?.name),
                _ => {}
            }
        }
        Ok(graph)
    }

    fn node(&mut self, reader: &mut Reader<'_>, mut left: Span, depth: u32) -> Result<OnnxNode> {
        let mut node = OnnxNode::default();
        while let Some((number, value)) = reader.field(&mut left)? {
            self.count(reader, left.start)?;
            match (number, value) {
                (1, Value::Span(text)) => node.inputs.push(reader.text(&text)?),
                (2, Value::Span(text)) => node.outputs.push(reader.text(&text)?),
                (3, Value::Span(text)) => node.name = reader.text(&text)?,
                (4, Value::Span(text)) => node.operation = reader.text(&text)?,
                (7, Value::Span(text)) => node.domain = reader.text(&text)?,
                (5, Value::Span(span)) => {
                    let (name, attribute) = self.attribute(reader, span, depth)?;
                    if let Some(attribute) = attribute {
                        node.attributes.insert(name, attribute);
                    }
                }
                _ => {}
            }
        }
        if node.domain == "ai.onnx" {
            node.domain.clear();
        }
        Ok(node)
    }

    fn attribute(
        &mut self,
        reader: &mut Reader<'_>,
        mut left: Span,
        depth: u32,
    ) -> Result<(String, Option<OnnxAttribute>)> {
        let (mut name, mut found, mut kind) = (String::new(), None, 0);
        let (mut numbers, mut floats) = (vec![], vec![]);
        while let Some((number, value)) = reader.field(&mut left)? {
            match (number, value) {
                (1, Value::Span(text)) => name = reader.text(&text)?,
                (20, Value::Number(number)) => kind = number,
                (2, Value::Fixed(span)) => found = Some(OnnxAttribute::Float(float(reader, span)?)),
                (3, Value::Number(n)) => found = Some(OnnxAttribute::Number(n.cast_signed())),
                (4, Value::Span(text)) => found = Some(OnnxAttribute::Text(reader.text(&text)?)),
                (5, Value::Span(span)) => {
                    found = Some(OnnxAttribute::Array(self.constant(reader, span)?.1));
                }
                (6, Value::Span(span)) => {
                    found = Some(OnnxAttribute::Graph(self.graph(reader, span, depth + 1)?));
                }
                (7, Value::Fixed(span)) => floats.push(float(reader, span)?),
                (7, Value::Span(span)) => {
                    for at in span.clone().step_by(4) {
                        floats.push(float(reader, at..(at + 4).min(span.end))?);
                    }
                }
                (8, Value::Number(number)) => numbers.push(number.cast_signed()),
                (8, Value::Span(mut left)) => {
                    while !left.is_empty() {
                        numbers.push(reader.number(&mut left)?.cast_signed());
                    }
                }
                _ => {}
            }
            if numbers.len().max(floats.len()) > MAX_ITEMS {
                return Err(reader.damaged(left.start, "a list of more than 65536".into()));
            }
        }
        // Types 6 and 7 are lists, which may be empty.
        let found = match kind {
            6 => Some(OnnxAttribute::Floats(floats)),
            7 => Some(OnnxAttribute::Numbers(numbers)),
            _ if found.is_none() && !numbers.is_empty() => Some(OnnxAttribute::Numbers(numbers)),
            _ if found.is_none() && !floats.is_empty() => Some(OnnxAttribute::Floats(floats)),
            _ => found,
        };
        Ok((name, found))
    }

    /// A constant with its numbers.
    fn constant(&mut self, reader: &mut Reader<'_>, span: Span) -> Result<(String, Array)> {
        let (name, constant) = tensor(reader, span)?;
        let bytes = constant.count().and_then(|count| count.checked_mul(8));
        self.left = bytes.and_then(|bytes| self.left.checked_sub(bytes)).ok_or_else(|| {
            let found = format!("{name} of {:?}", constant.sides);
            self.files.refused("constants", found, &format!("{MAX_BYTES} bytes of them at most"))
        })?;
        let array = self.array(reader, &name, &constant)?;
        Ok((name, array))
    }

    fn array(&mut self, reader: &mut Reader<'_>, name: &str, constant: &Constant) -> Result<Array> {
        let count = constant.count().unwrap_or(0) as usize;
        let shape = constant.sides.iter().map(|side| *side as usize).collect();
        let expected = format!("{count} numbers, as its shape says");
        if let Place::Integers(span) = &constant.place {
            let (mut left, mut numbers) = (span.clone(), vec![]);
            while !left.is_empty() && numbers.len() <= count {
                numbers.push(reader.number(&mut left)?.cast_signed());
            }
            if numbers.len() != count {
                let found = format!("{} of them", numbers.len());
                return Err(self.files.refused(format!("data of {name}"), found, &expected));
            }
            return Ok(Array { shape, numbers: of_integers(constant.kind, numbers) });
        }
        if count == 0 {
            return Ok(Array { shape, numbers: of_integers(constant.kind, vec![]) });
        }
        let Some(width) = width(constant.kind) else {
            let found = constant.kind.to_string();
            let expected = "a type of numbers";
            return Err(self.files.refused(format!("data_type of {name}"), found, expected));
        };
        let (file, offset, length) = self.files.place(name, constant)?;
        let needed = count as u64 * width;
        let there = length.unwrap_or(needed);
        let file = &self.files.open[file];
        if there != needed || offset.checked_add(needed).is_none_or(|end| end > file.length) {
            let found = format!("{there} bytes from byte {offset} on");
            return Err(self.files.refused(format!("data of {name}"), found, &expected));
        }
        let mut bytes = vec![0; needed as usize];
        file.read(name, offset, &mut bytes)?;
        Ok(Array { shape, numbers: of_bytes(constant.kind, &bytes) })
    }
}

fn float(reader: &mut Reader<'_>, span: Span) -> Result<f32> {
    let at = span.start;
    let bytes = reader.bytes(span)?;
    let bytes: Option<[u8; 4]> = bytes.try_into().ok();
    bytes.map(f32::from_le_bytes).ok_or_else(|| reader.damaged(at, "a float of other bytes".into()))
}

/// The bytes of a number of a type.
fn width(kind: u64) -> Option<u64> {
    Some(match kind {
        2 | 3 | 9 => 1,
        4 | 5 | 10 | 16 => 2,
        1 | 6 | 12 => 4,
        7 | 11 | 13 => 8,
        _ => return None,
    })
}

/// Numbers of a type that are written as integers.
fn of_integers(kind: u64, numbers: Vec<i64>) -> Numbers {
    match kind {
        1 => Numbers::F32(numbers.iter().map(|n| *n as f32).collect()),
        2 => Numbers::U8(numbers.iter().map(|n| *n as u8).collect()),
        3 => Numbers::I8(numbers.iter().map(|n| *n as i8).collect()),
        10 => Numbers::F32(numbers.iter().map(|n| f16::from_bits(*n as u16).to_f32()).collect()),
        16 => Numbers::F32(numbers.iter().map(|n| bf16::from_bits(*n as u16).to_f32()).collect()),
        _ => Numbers::Whole(numbers),
    }
}

/// Numbers of a type by their bytes.
fn of_bytes(kind: u64, bytes: &[u8]) -> Numbers {
    fn each<const N: usize, T>(bytes: &[u8], number: impl Fn([u8; N]) -> T) -> Vec<T> {
        bytes.as_chunks::<N>().0.iter().map(|bytes| number(*bytes)).collect()
    }
    match kind {
        1 => Numbers::F32(each(bytes, f32::from_le_bytes)),
        2 => Numbers::U8(bytes.to_vec()),
        3 => Numbers::I8(bytes.iter().map(|byte| byte.cast_signed()).collect()),
        4 => Numbers::Whole(each(bytes, |b| i64::from(u16::from_le_bytes(b)))),
        5 => Numbers::Whole(each(bytes, |b| i64::from(i16::from_le_bytes(b)))),
        6 => Numbers::Whole(each(bytes, |b| i64::from(i32::from_le_bytes(b)))),
        7 => Numbers::Whole(each(bytes, i64::from_le_bytes)),
        9 => Numbers::Whole(bytes.iter().map(|byte| i64::from(*byte)).collect()),
        10 => Numbers::F32(each(bytes, |b| f16::from_le_bytes(b).to_f32())),
        11 => Numbers::F32(each(bytes, |b| f64::from_le_bytes(b) as f32)),
        12 => Numbers::Whole(each(bytes, |b| i64::from(u32::from_le_bytes(b)))),
        16 => Numbers::F32(each(bytes, |b| bf16::from_le_bytes(b).to_f32())),
        _ => Numbers::Whole(each(bytes, |b| u64::from_le_bytes(b).cast_signed())),
    }
}

/// A name with a type.
fn input(reader: &mut Reader<'_>, mut left: Span) -> Result<OnnxInput> {
    let mut input = OnnxInput::default();
    while let Some((number, value)) = reader.field(&mut left)? {
        match (number, value) {
            (1, Value::Span(text)) => input.name = reader.text(&text)?,
            (2, Value::Span(mut kind)) => {
                while let Some((number, value)) = reader.field(&mut kind)? {
                    if let (1, Value::Span(tensor)) = (number, value) {
                        of_tensor(reader, tensor, &mut input)?;
                    }
                }
            }
            _ => {}
        }
    }
    Ok(input)
}

fn of_tensor(reader: &mut Reader<'_>, mut left: Span, input: &mut OnnxInput) -> Result<()> {
    while let Some((number, value)) = reader.field(&mut left)? {
        match (number, value) {
            (1, Value::Number(kind)) => input.kind = kind,
            (2, Value::Span(mut shape)) => {
                while let Some((number, value)) = reader.field(&mut shape)? {
                    if let (1, Value::Span(side)) = (number, value) {
                        let found = self::side(reader, side)?;
                        input.sides.push(found);
                    }
                    if input.sides.len() > 8 {
                        return Err(reader.damaged(shape.start, "more than 8 sides".into()));
                    }
                }
            }
            _ => {}
        }
    }
    Ok(())
}

fn side(reader: &mut Reader<'_>, mut left: Span) -> Result<std::result::Result<usize, String>> {
    let mut side = Err(String::new());
    while let Some((number, value)) = reader.field(&mut left)? {
        match (number, value) {
            (1, Value::Number(size @ 1..)) => {
                side = usize::try_from(size).map_err(|_| String::new())
            }
            (2, Value::Span(text)) => side = Err(reader.text(&text)?),
            _ => {}
        }
    }
    Ok(side)
}
