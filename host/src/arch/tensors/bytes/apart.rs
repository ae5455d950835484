//! Values that mean one thing each: what changes one in place gets a copy of it, which is then used.

use super::index::Index;
use crate::graph::{Graph, Names, Node, ValueRef};
use omex_core::ops::{Activation, Rearrange};

/// The value that a node changes in place.
pub(super) fn changed(node: &Node) -> Option<&ValueRef> {
    match node {
        Node::Activate(op) => Some(&op.value),
        Node::Unary(op) => Some(&op.value),
        Node::FloatSoftmax(op) => Some(&op.value),
        _ => None,
    }
}

/// True for an activation that belongs to the operation before it.
pub(super) fn is_relu_of(node: &Node, before: &Node) -> bool {
    let output = match before {
        Node::FloatConv2d(op) => &op.output,
        Node::Binary(op) => &op.output,
        _ => return false,
    };
    matches!(node, Node::Activate(op) if op.activation == Activation::Relu && op.value == *output)
}

/// Puts copies before all nodes that change a value in place which others mean, too.
pub(crate) fn apart(graph: &mut Graph) {
    let index = Index::new(graph);
    let nodes = std::mem::take(&mut graph.nodes);
    let mut renamed = Renamed::default();
    let mut before = None;
    for node in nodes {
        let own = before
            .as_ref()
            .is_some_and(|before| is_relu_of(&node, before) || is_copy_for(&index, before, &node));
        before = Some(node.clone());
        let mut node = renamed.node(node);
        let value = changed(&node).filter(|value| value.rows.is_none() && !own).cloned();
        let shape = value.as_ref().and_then(|value| graph.values.get(&value.name)).copied();
        if let (Some(value), Some(shape)) = (value, shape) {
            let name = unused(graph, &value.name);
            graph.values.insert(name.clone(), shape);
            node.rename_value(&value.name, &name);
            renamed.add(&value.name, &name);
            graph.nodes.push(whole_copy(&value.name, &name, shape.width));
        }
        graph.nodes.push(node);
    }
    for port in &mut graph.outputs {
        port.value = renamed.value(&port.value);
    }
}

/// What values are called by now, by what they are called in the graph.
#[derive(Default)]
struct Renamed(std::collections::BTreeMap<String, String>);

impl Renamed {
    /// From now on the value with the name `from` is called `to`.
    fn add(&mut self, from: &str, to: &str) {
        let first = self.0.iter().find(|(_, name)| *name == from).map(|(first, _)| first.clone());
        self.0.insert(first.unwrap_or_else(|| from.to_owned()), to.to_owned());
    }

    fn value(&self, value: &ValueRef) -> ValueRef {
        let name = self.0.get(&value.name).unwrap_or(&value.name);
        ValueRef { name: name.clone(), rows: value.rows }
    }

    fn node(&self, mut node: Node) -> Node {
        for value in node.values() {
            if let Some(name) = self.0.get(&value.name) {
                node.rename_value(&value.name, name);
            }
        }
        node
    }
}

/// A copy of a whole value of so many elements.
pub(super) fn whole_copy(from: &str, to: &str, width: u32) -> Node {
    let (dims, steps) = ([1, 1, 1, 1, width], [0, 0, 0, 0, 1]);
    let (input, output) = (ValueRef::all(from), ValueRef::all(to));
    let (from_first, to_first) = (0, 0);
    Rearrange::<Names> { input, output, dims, from: steps, to: steps, from_first, to_first }.into()
}

/// True if a node copies to a value that the next changes, and nothing else writes it.
fn is_copy_for(index: &Index, before: &Node, node: &Node) -> bool {
    let (Node::Rearrange(copy), Some(value)) = (before, changed(node)) else { return false };
    copy.output == *value && index.writers(&value.name).len() == 2
}

/// A name like this one that no value has.
pub(super) fn unused(graph: &Graph, name: &str) -> String {
    let names = (1..).map(|n| format!("{name}.{n}"));
    let mut free = names.filter(|name| !graph.values.contains_key(name));
    free.next().unwrap_or_default()
}
