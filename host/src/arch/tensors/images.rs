//! Operations over images.

use crate::graph::{Graph, Node};

/// True for operations whose values are images.
fn is_over_images(node: &Node) -> bool {
    matches!(
        node,
        Node::Conv2d(_)
            | Node::AveragePool(_)
            | Node::FloatConv2d(_)
            | Node::Pool(_)
            | Node::Resize(_)
    )
}

/// True if some operation takes the value as an image.
pub(super) fn is_image(graph: &Graph, name: &str) -> bool {
    let mut over_images = graph.nodes.iter().filter(|node| is_over_images(node));
    over_images.any(|node| node.values().iter().any(|value| value.name == name))
}
