//! Functions of one number, which are tables of bytes.

use crate::graph::Node;
use omex_core::math;
use omex_core::ops::{Activation, UnaryFunction};

/// What a node makes of each number, if it is a usual function.
pub(super) fn function(node: &Node) -> Option<fn(f32) -> f32> {
    Some(match node {
        Node::Activate(op) => match op.activation {
            Activation::Relu => |x| x.max(0.0),
            Activation::Tanh => math::tanh,
            Activation::Sigmoid => |x| 1.0 / (1.0 + math::exp(-x)),
            Activation::Silu => |x| x / (1.0 + math::exp(-x)),
            Activation::Gelu => math::gelu,
            Activation::GeluTanh => math::gelu_tanh,
            _ => return None,
        },
        Node::Unary(op) => match op.function {
            UnaryFunction::HardSwish => |x| x * (x + 3.0).clamp(0.0, 6.0) / 6.0,
            UnaryFunction::Elu => |x| if x < 0.0 { x.exp_m1() } else { x },
            UnaryFunction::Abs => f32::abs,
            UnaryFunction::Softplus => math::softplus,
            _ => return None,
        },
        _ => return None,
    })
}
