//! A program that is being made up: its graph, and weights that fit it.

use super::choices::Choices;
use omex::compile::compile;
use omex::graph::{FORMAT, Graph, Node, ValueRef, ValueShape};
use omex::quantize::{quantize, write_panel};
use omex_core::ops::Mask;
use omex_core::program::{Program, Tensor};
use omex_core::quant::{Format, GROUP, PANEL};
use std::collections::BTreeMap;

/// A program that is being made up.
pub(super) struct Maker<'c> {
    pub(super) random: Choices<'c>,
    pub(super) graph: Graph,
    pub(super) nodes: Vec<Node>,
    /// Formats that its matrices may have.
    pub(super) formats: &'static [Format],
    /// What its tokens may see.
    pub(super) masks: &'static [Mask],
    /// Its caches have room for every text.
    pub(super) fits: bool,
    /// The layers of the block at hand.
    pub(super) layers: u32,
    weights: Vec<u8>,
    tensors: BTreeMap<(String, u32), Tensor>,
    number: u32,
}

/// A compiled program with its weights.
pub(super) struct Made {
    pub(super) graph: Graph,
    program: Vec<u8>,
    tensors: Vec<u8>,
    pub(super) weights: Vec<u8>,
}

impl Made {
    /// True if some products are of integers.
    pub(super) fn rounds(&self) -> bool {
        self.program().tensors().any(|tensor| tensor.format.is_integer())
    }

    pub(super) fn program(&self) -> Program<'_> {
        let end = self.weights.len() as u64;
        Program::parse(&self.program, &self.tensors, 0..end).expect("a valid program")
    }
}

impl<'c> Maker<'c> {
    pub(super) fn new(random: Choices<'c>) -> Self {
        Self {
            random,
            graph: Graph { format: FORMAT, ..Graph::default() },
            nodes: vec![],
            formats: &[Format::F32],
            masks: &[Mask::Causal],
            fits: true,
            layers: 1,
            weights: vec![],
            tensors: BTreeMap::new(),
            number: 0,
        }
    }

    pub(super) fn compile(mut self) -> Made {
        self.graph.nodes = self.nodes;
        let find = |name: &str, plane: u32| self.tensors.get(&(name.to_owned(), plane)).copied();
        let compiled = compile(&self.graph, &[], find);
        let compiled = compiled.unwrap_or_else(|error| panic!("{error}: {:?}", self.graph));
        let (graph, weights) = (self.graph, self.weights);
        Made { graph, program: compiled.program, tensors: compiled.tensors, weights }
    }

    pub(super) fn name(&mut self, what: &str) -> String {
        self.number += 1;
        format!("{what}{}", self.number)
    }

    /// A value of this shape.
    pub(super) fn shaped(&mut self, shape: ValueShape) -> ValueRef {
        let name = self.name("v");
        self.graph.values.insert(name.clone(), shape);
        ValueRef::all(&name)
    }

    /// A value, which now and then is a part of a wider one.
    pub(super) fn value(&mut self, width: u32) -> ValueRef {
        if !self.random.chance(6) {
            return self.shaped(ValueShape { width, ..ValueShape::default() });
        }
        let (before, behind) = (self.random.below(5), self.random.below(5));
        let whole = ValueShape { width: before + width + behind, ..ValueShape::default() };
        ValueRef::rows(&self.shaped(whole).name, before, before + width)
    }

    pub(super) fn push(&mut self, node: impl Into<Node>) {
        self.nodes.push(node.into());
    }

    /// A name for each layer's own tensor or state.
    pub(super) fn in_layers(&self, name: &str, [before, behind]: [&str; 2]) -> String {
        if self.layers > 1 { format!("{name}{before}{{layer}}{behind}") } else { name.to_owned() }
    }

    /// A tensor for each layer; what the graph calls it.
    pub(super) fn tensor(
        &mut self,
        format: Format,
        rows: u32,
        columns: u32,
        around: f32,
        plane: u32,
    ) -> String {
        let name = self.name("w");
        for layer in 0..self.layers {
            let name = if self.layers > 1 { format!("{name}.{layer}") } else { name.clone() };
            for plane in 0..=plane {
                let size = if plane == 0 { 1.0 } else { 0.05 };
                self.store_numbers((name.clone(), plane), format, [rows, columns], around, size);
            }
        }
        self.in_layers(&name, [".", ""])
    }

    pub(super) fn vector(&mut self, length: u32, around: f32) -> String {
        self.tensor(Format::Vector, 1, length, around, 0)
    }

    fn store_numbers(
        &mut self,
        key: (String, u32),
        format: Format,
        [rows, columns]: [u32; 2],
        around: f32,
        size: f32,
    ) {
        let scale =
            if format == Format::Vector { 0.3 } else { size * (3.0 / columns as f32).sqrt() };
        let count = (rows * columns) as usize;
        let numbers: Vec<f32> = (0..count).map(|_| around + scale * self.random.unit()).collect();
        let bytes = match format {
            Format::Vector => numbers.iter().flat_map(|x| x.to_le_bytes()).collect(),
            _ => panels(format, &numbers, columns as usize),
        };
        self.store(key, format, [rows, columns], &bytes);
    }

    /// Puts a tensor behind the others, now and then with a gap before it.
    pub(super) fn store(
        &mut self,
        key: (String, u32),
        format: Format,
        [rows, columns]: [u32; 2],
        bytes: &[u8],
    ) {
        while !self.weights.len().is_multiple_of(4) || self.random.chance(3) {
            self.weights.push(0);
        }
        let address = self.weights.len() as u64;
        self.weights.extend(bytes);
        self.tensors.insert(key, Tensor { format, rows, columns, address });
    }
}

/// A matrix in the kernels' layout.
fn panels(format: Format, numbers: &[f32], columns: usize) -> Vec<u8> {
    let group = |chunk: &[f32]| {
        let mut group = [0.0; GROUP];
        group[..chunk.len()].copy_from_slice(chunk);
        quantize(format, &group)
    };
    let rows: Vec<Vec<_>> =
        numbers.chunks(columns).map(|row| row.chunks(GROUP).map(group).collect()).collect();
    let mut bytes = vec![];
    rows.chunks(PANEL).for_each(|panel| write_panel(format, panel, &mut bytes));
    bytes
}
