//! What one pass does, in order: the operations of every layer, and the weights that they read.

use super::{Program, Record, Records};
use crate::ops::{Op, Reads};
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

/// The operations of a pass, each with its layer; corrections that are not played are left out.
#[derive(Clone, Debug)]
pub struct Steps<'a> {
    planes: Planes,
    records: Records<'a>,
    /// Records of the program that are still to come, those of this repetition left out.
    left: u16,
    /// The repetition under way: its records, how many they are, and how often they are repeated.
    body: Records<'a>,
    length: u16,
    layers: u32,
    layer: u32,
    /// Records of this layer that are still to come.
    inside: u16,
}

impl Steps<'_> {
    fn advance(&mut self) -> Option<(Op, u32)> {
        if self.inside == 0 && self.layer + 1 < self.layers {
            self.layer += 1;
            (self.records, self.inside) = (self.body, self.length);
        }
        if self.inside == 0 {
            (self.layer, self.layers) = (0, 0);
            self.left = self.left.checked_sub(1)?;
            match self.records.next()? {
                Record::Op(op) => return Some((op, 0)),
                Record::Repeat { records, layers } => {
                    (self.body, self.length, self.layers) = (self.records, records, layers);
                    self.inside = records;
                    self.left = self.left.saturating_sub(records);
                }
            }
        }
        self.inside = self.inside.checked_sub(1)?;
        match self.records.next()? {
            Record::Op(op) => Some((op, self.layer)),
            Record::Repeat { .. } => None,
        }
    }
}

impl Iterator for Steps<'_> {
    type Item = (Op, u32);

    fn next(&mut self) -> Option<(Op, u32)> {
        loop {
            let (op, layer) = self.advance()?;
            if !matches!(op, Op::Correction(_)) || self.planes.is_full(layer) {
                return Some((op, layer));
            }
        }
    }
}

impl<'a> Program<'a> {
    /// The operations of a pass.
    #[must_use]
    pub fn steps(&self, planes: Planes) -> Steps<'a> {
        let records = self.records();
        let left = self.header().records;
        Steps { planes, records, left, body: records, length: 0, layers: 0, layer: 0, inside: 0 }
    }

    /// The bytes of the paged space that a pass reads, tensor by tensor in the order of use. Rows
    /// that tokens choose are left out.
    pub fn ranges_in_order(
        &self,
        planes: Planes,
    ) -> impl Iterator<Item = Range<u64>> + use<'_, 'a> {
        self.steps(planes).flat_map(|(op, layer)| self.ranges(&op, layer))
    }

    /// The bytes that an operation reads from first to last, tensor by tensor.
    pub(crate) fn ranges(&self, op: &Op, layer: u32) -> impl Iterator<Item = Range<u64>> + use<'a> {
        // No operation has more than four weights.
        let mut found = [const { None }; 4];
        let mut places = found.iter_mut();
        if op.reads() == Reads::Whole {
            op.weights(&mut |weight| {
                if let (Some(tensor), Some(place)) = (self.tensor(weight.at(layer)), places.next())
                {
                    *place = Some(tensor.address..tensor.address.saturating_add(tensor.bytes()));
                }
            });
        }
        found.into_iter().flatten()
    }
}
