//! Operations over images.

use crate::graph::Node;

/// True for operations whose values are images.
pub(super) fn is_over_images(node: &Node) -> bool {
    matches!(
        node,
        Node::Conv2d(_)
            | Node::AveragePool(_)
            | Node::FloatConv2d(_)
            | Node::Pool(_)
            | Node::Resize(_)
    )
}
