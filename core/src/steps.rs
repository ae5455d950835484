//! What one pass does, in order: the operations of every layer, and the weights that they read.

use crate::program::{Op, Ops, Program};
use core::ops::Range;

/// Which layers add their residual planes to the base planes.
///
/// A layer without them reads fewer bytes and computes with the precision of its base planes. What
/// lies outside of a repetition goes with layer 0; layers from 127 on go together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Planes(u128);

impl Planes {
    /// Base planes only.
    pub const BASE: Self = Self(0);
    /// All planes.
    pub const FULL: Self = Self(u128::MAX);

    /// Residual planes in the layers for which `full` holds.
    #[must_use]
    pub fn by_layer(full: impl Fn(u32) -> bool) -> Self {
        Self((0..u128::BITS).filter(|layer| full(*layer)).fold(0, |bits, layer| bits | 1 << layer))
    }

    /// True if this layer adds its residual planes.
    #[must_use]
    pub fn is_full(self, layer: u32) -> bool {
        self.0 >> layer.min(u128::BITS - 1) & 1 == 1
    }
}

/// The operations of a pass, each with its layer. A residual plane comes as the [`Op::MatMul`] that
/// adds it; those that are not played are left out.
#[derive(Clone, Debug)]
pub struct Steps<'a> {
    planes: Planes,
    ops: Ops<'a>,
    /// Operations of the program that are still to come, those of this repetition left out.
    left: u16,
    /// The repetition under way: its operations, how many they are, and how often they are repeated.
    body: Ops<'a>,
    length: u16,
    layers: u32,
    layer: u32,
    /// Operations of this layer that are still to come.
    inside: u16,
}

impl Steps<'_> {
    fn advance(&mut self) -> Option<(Op, u32)> {
        if self.inside == 0 && self.layer + 1 < self.layers {
            self.layer += 1;
            (self.ops, self.inside) = (self.body, self.length);
        }
        if self.inside == 0 {
            (self.layer, self.layers) = (0, 0);
            self.left = self.left.checked_sub(1)?;
            let op = self.ops.next()?;
            let Op::Repeat { ops, layers } = op else { return Some((op, 0)) };
            (self.body, self.length, self.layers, self.inside) = (self.ops, ops, layers, ops);
            self.left = self.left.saturating_sub(ops);
        }
        self.inside = self.inside.checked_sub(1)?;
        Some((self.ops.next()?, self.layer))
    }
}

impl Iterator for Steps<'_> {
    type Item = (Op, u32);

    fn next(&mut self) -> Option<(Op, u32)> {
        loop {
            let (op, layer) = self.advance()?;
            let Op::Residual { weight, input, output } = op else { return Some((op, layer)) };
            if self.planes.is_full(layer) {
                return Some((Op::MatMul { weight, input, output, accumulate: true }, layer));
            }
        }
    }
}

impl<'a> Program<'a> {
    /// The operations of a pass.
    #[must_use]
    pub fn steps(&self, planes: Planes) -> Steps<'a> {
        let ops = self.ops();
        let left = self.header().ops;
        Steps { planes, ops, left, body: ops, length: 0, layers: 0, layer: 0, inside: 0 }
    }

    /// The bytes of the paged space that a pass reads, tensor by tensor in the order of use. Rows of
    /// an embedding, which tokens choose, are left out.
    pub fn ranges_in_order(
        &self,
        planes: Planes,
    ) -> impl Iterator<Item = Range<u64>> + use<'_, 'a> {
        self.steps(planes).filter_map(|(op, layer)| self.range(&op, layer))
    }

    /// The bytes that an operation reads from first to last.
    pub(crate) fn range(&self, op: &Op, layer: u32) -> Option<Range<u64>> {
        let weight = match *op {
            Op::RmsNorm { weight, .. } | Op::MatMul { weight, .. } => weight,
            Op::RotaryAngles { frequencies, .. } => frequencies,
            _ => return None,
        };
        let tensor = self.tensor(weight.at(layer))?;
        Some(tensor.address..tensor.address.saturating_add(tensor.bytes()))
    }
}
