//! Which nodes of a graph name which values.

use crate::graph::{Graph, Node};
use omex_core::ops::Operand;
use std::collections::BTreeMap;

/// The places of a graph's nodes, by the values that they name.
#[derive(Debug, Default)]
pub(super) struct Index {
    writers: BTreeMap<String, Vec<usize>>,
    /// How often nodes and outputs name a value.
    uses: BTreeMap<String, usize>,
}

impl Index {
    pub(super) fn new(graph: &Graph) -> Self {
        let mut index = Self::default();
        for (at, node) in graph.nodes.iter().enumerate() {
            for name in written(node) {
                index.writers.entry(name).or_default().push(at);
            }
            for value in node.values() {
                *index.uses.entry(value.name).or_default() += 1;
            }
        }
        for port in &graph.outputs {
            *index.uses.entry(port.value.name.clone()).or_default() += 1;
        }
        index
    }

    /// The places of the nodes that write a value, or some of it.
    pub(super) fn writers(&self, name: &str) -> &[usize] {
        self.writers.get(name).map_or(&[], Vec::as_slice)
    }

    pub(super) fn uses(&self, name: &str) -> usize {
        self.uses.get(name).copied().unwrap_or(0)
    }
}

/// The values that a node writes, or some of them.
pub(super) fn written(node: &Node) -> Vec<String> {
    let mut names = vec![];
    if let Some(op) = node.op() {
        op.operands(&mut |operand| {
            if let Operand::Write(value) | Operand::Update(value) = operand {
                names.push(value.name.clone());
            }
        });
    }
    names
}
