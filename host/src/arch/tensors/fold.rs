//! Copies that nobody needs.

use super::images::is_image;
use crate::graph::{Graph, Names, Node, Port};
use omex_core::ops::Rearrange;

/// Leaves out copies of whole values that are not used after them: the copy is the value itself.
pub(crate) fn drop_copies(graph: &mut Graph) {
    let mut at = 0;
    while at < graph.nodes.len() {
        match copy(graph, at) {
            Some((from, to)) => {
                graph.nodes.remove(at);
                rename(graph, &from, &to);
            }
            None => at += 1,
        }
    }
}

/// The source and the result of a copy that may be left out.
fn copy(graph: &Graph, at: usize) -> Option<(String, String)> {
    let Some(Node::Rearrange(op)) = graph.nodes.get(at) else { return None };
    let (from, to) = (graph.values.get(&op.input.name)?, graph.values.get(&op.output.name)?);
    let whole = op.input.rows.is_none()
        && op.output.rows.is_none()
        && op.from == op.to
        && (op.from_first, op.to_first) == (0, 0)
        && (from.width, from.dtype) == (to.width, to.dtype)
        && covers(op, from.width);
    let names = [&op.input.name, &op.output.name];
    let mentions = |node: &Node, name: &String| node.values().iter().any(|v| v.name == *name);
    let unused = !graph.nodes[at + 1..].iter().any(|node| mentions(node, names[0]))
        && !graph.nodes[..at].iter().any(|node| mentions(node, names[1]));
    let among = |ports: &[Port], name: &String| ports.iter().any(|port| port.value.name == *name);
    let kept = among(&graph.inputs, names[0]) || among(&graph.outputs, names[0]);
    // A slot has one shape.
    let image = names.map(|name| is_image(graph, name));
    let shown = among(&graph.outputs, names[1]);
    let one_shape = from.dims == to.dims || !image[0] || !(image[1] || shown);
    (whole && unused && !kept && one_shape).then(|| (names[0].clone(), names[1].clone()))
}

/// True if all of so many elements are copied, in order.
fn covers(op: &Rearrange<Names>, width: u32) -> bool {
    let mut step = 1;
    for (dim, from) in op.dims.iter().zip(op.from).rev().filter(|(dim, _)| **dim > 1) {
        if i64::from(from) != step {
            return false;
        }
        step *= i64::from(*dim);
    }
    step == i64::from(width)
}

/// Has everything that uses one value use the other.
fn rename(graph: &mut Graph, from: &str, to: &str) {
    let keeps_shape = is_image(graph, from);
    let shape = graph.values.remove(from);
    if let (Some(shape), true, Some(value)) = (shape, keeps_shape, graph.values.get_mut(to)) {
        value.dims = shape.dims;
    }
    graph.nodes.iter_mut().for_each(|node| node.rename_value(from, to));
}
