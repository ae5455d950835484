//! Packages that get adapters.

use omex::graph::{Graph, Names, Node, PartShape, ValueRef, ValueShape, name_in_layer};
use omex::package::{FileEntry, Package, TensorEntry, renew_checksums};
use omex::quantize::{Precision, quantize, write_panel};
use omex_core::ops::{Delta, Linear};
use omex_core::program::PartKind;
use omex_core::quant::{Format, GROUP, PANEL};
use std::collections::BTreeMap;
use std::path::Path;

/// A matrix, row by row.
pub type Matrix = Vec<Vec<f32>>;

/// A low-rank change of some rows of a product.
pub struct Change<'c> {
    /// The product's weight, as the graph calls it.
    pub weight: &'c str,
    /// The rows that are changed; all if `None`.
    pub rows: Option<(u32, u32)>,
    /// The matrices of a layer, down to the rank and up again, for a product from so many inputs to
    /// so many outputs.
    pub matrices: &'c dyn Fn(u32, [u32; 2]) -> [Matrix; 2],
}

/// Adds an adapter of this name to a package: its matrices in a file of their own, and an operation
/// behind each product that it changes.
pub fn add_adapter(
    package: &Path,
    name: &str,
    scale: f32,
    format: Precision,
    changes: &[Change<'_>],
) {
    let opened = Package::open(package).unwrap_or_else(|e| panic!("{e}"));
    let (mut graph, mut index) = (opened.graph.clone(), opened.index.clone());
    let file = format!("adapter_{name}.bin");
    let mut adding = Adding { name, scale, format, file, bytes: vec![], tensors: vec![] };
    graph.parts.insert(name.to_owned(), PartShape { kind: PartKind::Adapter });
    for change in changes {
        adding.add(&mut graph, change);
    }
    let Adding { mut bytes, file, tensors, .. } = adding;
    let page = index.page_size as usize;
    bytes.resize(bytes.len().next_multiple_of(page), 0);
    std::fs::write(package.join("weights").join(&file), &bytes).unwrap();
    let page_crc32c = bytes.chunks(page).map(checksum).collect();
    index.tensors.extend(tensors);
    index.files.push(FileEntry { name: file, length: bytes.len() as u64, page_crc32c });
    let write = |name: &str, text: String| std::fs::write(package.join(name), text).unwrap();
    write("graph.json", graph.to_json().unwrap());
    write("weights/quantization.json", serde_json::to_string(&index).unwrap());
    renew_checksums(package).unwrap_or_else(|e| panic!("{e}"));
}

fn checksum(bytes: &[u8]) -> String {
    format!("{:08x}", crc32c::crc32c(bytes))
}

/// An adapter on its way into a package.
struct Adding<'a> {
    name: &'a str,
    scale: f32,
    format: Precision,
    file: String,
    bytes: Vec<u8>,
    tensors: Vec<TensorEntry>,
}

impl Adding<'_> {
    fn add(&mut self, graph: &mut Graph, change: &Change<'_>) {
        let layers: BTreeMap<String, u32> = graph
            .nodes
            .iter()
            .filter_map(|node| match node {
                Node::Repeat { subgraph, layers } => Some((subgraph.clone(), *layers)),
                _ => None,
            })
            .collect();
        let bodies = graph.subgraphs.iter_mut().map(|(name, body)| (body, layers[name]));
        for (body, layers) in bodies.chain([(&mut graph.nodes, 1)]) {
            let found = body.iter().enumerate().find_map(|(at, node)| match node {
                Node::Linear(op) if op.weight == change.weight => Some((at, op.clone())),
                _ => None,
            });
            if let Some((at, product)) = found {
                let delta = self.delta(&mut graph.values, &product, layers, change);
                body.insert(at + 1, delta.into());
                return;
            }
        }
        panic!("no product with {}", change.weight);
    }

    fn delta(
        &mut self,
        values: &mut BTreeMap<String, ValueShape>,
        product: &Linear<Names>,
        layers: u32,
        change: &Change<'_>,
    ) -> Delta<Names> {
        let width = |value: &ValueRef, values: &BTreeMap<String, ValueShape>| {
            value.rows.map_or(values[&value.name].width, |(first, end)| end - first)
        };
        let (input, mut output) = (product.input.clone(), product.output.clone());
        if let Some((first, end)) = change.rows {
            let before = output.rows.map_or(0, |(first, _)| first);
            output = ValueRef::rows(&output.name, before + first, before + end);
        }
        let shape = [width(&input, values), width(&output, values)];
        let prefix =
            format!("{}.{}.{}", self.name, change.weight, change.rows.unwrap_or_default().0);
        let (down, up) = (format!("{prefix}.down"), format!("{prefix}.up"));
        let mut rank = 0;
        for layer in 0..layers {
            let [low, high] = (change.matrices)(layer, shape);
            rank = low.len() as u32;
            self.tensor(name_in_layer(&down, layer).unwrap(), &low);
            self.tensor(name_in_layer(&up, layer).unwrap(), &high);
        }
        let per = values[&output.name].per;
        let mut room = |what: &str, width: u32| {
            let name = format!("{}.{what}.{width}", self.name);
            values.insert(name.clone(), ValueShape { width, per, ..ValueShape::default() });
            ValueRef::all(&name)
        };
        let gathered = room("gathered", shape[0]);
        let (low, result) = (room("low", rank), room("result", shape[1]));
        let (scale, part) = (self.scale, Some(self.name.to_owned()));
        Delta { down, up, scale, input, gathered, low, result, output, part }
    }

    fn tensor(&mut self, name: String, matrix: &Matrix) {
        self.bytes.resize(self.bytes.len().next_multiple_of(64), 0);
        let (offset, format) = (self.bytes.len(), Format::from(self.format));
        let group = |numbers: &[f32]| {
            let mut group = [0.0; GROUP];
            group[..numbers.len()].copy_from_slice(numbers);
            quantize(format, &group)
        };
        for panel in matrix.chunks(PANEL) {
            let panel: Vec<Vec<_>> =
                panel.iter().map(|row| row.chunks(GROUP).map(group).collect()).collect();
            write_panel(format, &panel, &mut self.bytes);
        }
        let bytes = &self.bytes[offset..];
        let entry = TensorEntry {
            name,
            plane: 0,
            file: self.file.clone(),
            offset: offset as u64,
            length: bytes.len() as u64,
            shape: [matrix.len() as u32, matrix[0].len() as u32],
            format: self.format,
            crc32c: checksum(bytes),
            error: 0.0,
        };
        self.tensors.push(entry);
    }
}
