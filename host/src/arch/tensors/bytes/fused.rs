//! Activations that follow an operation and cut its numbers off.

use super::apart::is_relu_of;
use super::index::Index;
use crate::graph::{Graph, Node};
use omex_core::ops::BinaryFunction;

/// What becomes of an operation's numbers before anything else sees them.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Fused {
    /// The value that has them then.
    pub(super) target: String,
    /// The least number, and the largest.
    pub(super) low: Option<f32>,
    pub(super) high: Option<f32>,
    /// The nodes from the operation on that this is.
    pub(super) nodes: usize,
}

/// What follows node number `at`, whose output is a value of this name.
pub(super) fn fused(graph: &Graph, index: &Index, at: usize, output: &str) -> Fused {
    let none = Fused { target: output.to_owned(), low: None, high: None, nodes: 1 };
    let nodes = &graph.nodes[at..];
    let relu = nodes.get(1).is_some_and(|next| is_relu_of(next, &nodes[0]));
    let fused = if relu { Fused { low: Some(0.0), nodes: 2, ..none } } else { none };
    let (Some(Node::Fill(most)), Some(Node::Binary(op))) =
        (nodes.get(fused.nodes), nodes.get(fused.nodes + 1))
    else {
        return fused;
    };
    let own = |first: &str| first == output && op.second.name == most.output.name;
    let shape = |name: &str| graph.values.get(name).map(|value| (value.width, value.dims));
    // Nothing else sees what is cut off here, nor the number.
    let alone = index.uses(output) == fused.nodes + 1 && index.uses(&most.output.name) == 2;
    let fits = op.function == BinaryFunction::Min
        && own(&op.first.name)
        && op.first_steps != op.second_steps
        && shape(output) == shape(&op.output.name)
        && index.writers(&op.output.name).len() == 1;
    match alone && fits {
        true => Fused {
            target: op.output.name.clone(),
            high: Some(most.number),
            nodes: fused.nodes + 2,
            ..fused
        },
        false => fused,
    }
}
