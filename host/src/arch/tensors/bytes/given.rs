//! Steps that a graph of floats and bytes says itself: where it makes bytes of floats.

use super::draw::numbers_of;
use super::index::Index;
use super::step::{Step, Steps};
use crate::arch::blueprint::TensorPlan;
use crate::graph::{Graph, Node};
use omex_core::ops::{Activation, Pooling};

/// True if a graph makes floats of bytes.
pub(in super::super) fn is_quantized(graph: &Graph) -> bool {
    graph.nodes.iter().any(|node| matches!(node, Node::Dequantize(_)))
}

/// The steps of values that a graph quantizes, and steps for its constants.
pub(in super::super) fn given_steps(graph: &Graph, tensors: &[TensorPlan]) -> Steps {
    let mut steps = Steps { exact: true, ..Steps::default() };
    let index = Index::new(graph);
    for node in &graph.nodes {
        match node {
            Node::Quantize(op) if op.input.rows.is_none() && op.output.rows.is_none() => {
                let step = Step { scale: op.scale, zero: op.zero };
                steps.results.entry(op.input.name.clone()).or_insert(step);
            }
            Node::Constant(op) if index.writers(&op.output.name).len() == 1 => {
                let numbers = tensors.iter().find(|plan| plan.name == op.weight);
                let numbers = numbers.and_then(numbers_of).unwrap_or_default();
                let low = numbers.iter().copied().fold(0.0, f32::min);
                let high = numbers.iter().copied().fold(0.0, f32::max);
                steps.operands.insert(op.output.name.clone(), Step::of([low, high]));
            }
            Node::Fill(op)
                if op.output.rows.is_none() && index.writers(&op.output.name).len() == 1 =>
            {
                let step = Step::of([op.number, op.number]);
                steps.operands.insert(op.output.name.clone(), step);
            }
            _ => {}
        }
    }
    for node in graph.nodes.iter().rev() {
        let (from, to) = match node {
            Node::Rearrange(op) => (&op.input.name, &op.output.name),
            Node::Pool(op) if op.pooling == Pooling::Max => (&op.input.name, &op.output.name),
            _ => continue,
        };
        // What is only moved, and cut off at 0, may be rounded before.
        let moves = |at: &usize| match &graph.nodes[*at] {
            Node::Rearrange(_) | Node::Fill(_) | Node::Pool(_) => true,
            Node::Activate(op) => op.activation == Activation::Relu,
            _ => false,
        };
        let alone = index.uses(from) == index.writers(from).len() + 1
            && index.writers(to).iter().all(moves);
        if let (true, Some(step)) = (alone, steps.results.get(to).copied()) {
            steps.results.entry(from.clone()).or_insert(step);
        }
    }
    steps
}
