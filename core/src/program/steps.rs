//! What one pass does, in order: the operations of every layer, and the weights that they read.

use super::Program;
use super::parts::{self, PART_BYTES, Parts};
use super::record::{Record, Records};
use crate::ops::{Op, Reads};
use core::ops::Range;

/// The operations of a pass, each with its layer, without those of parts that are not played.
#[derive(Clone)]
pub struct Steps<'a> {
    parts: &'a dyn Parts,
    table: &'a [[u8; PART_BYTES]],
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
            if plays(self.table, self.parts, &op, layer) {
                return Some((op, layer));
            }
        }
    }
}

/// True if an operation is played: it belongs to no part, or to one that is.
fn plays(table: &[[u8; PART_BYTES]], parts: &dyn Parts, op: &Op, layer: u32) -> bool {
    let part = op.part().copied().unwrap_or(0);
    parts::kind(table, part).is_none_or(|kind| parts.plays(part, kind, layer))
}

impl<'a> Program<'a> {
    /// The operations of a pass.
    #[must_use]
    pub fn steps<'s>(&self, parts: &'s dyn Parts) -> Steps<'s>
    where
        'a: 's,
    {
        let (records, table) = (self.records(), self.parts);
        Steps {
            parts,
            table,
            records,
            left: self.header().records,
            body: records,
            length: 0,
            layers: 0,
            layer: 0,
            inside: 0,
        }
    }

    /// True if an operation is played in a layer: it belongs to no part, or to one that is.
    #[must_use]
    pub fn plays(&self, parts: &dyn Parts, op: &Op, layer: u32) -> bool {
        plays(self.parts, parts, op, layer)
    }

    /// The bytes of the paged space that a pass reads, tensor by tensor in the order of use. What
    /// tokens choose is left out.
    pub fn ranges_in_order<'s>(
        &'s self,
        parts: &'s dyn Parts,
    ) -> impl Iterator<Item = Range<u64>> + use<'s, 'a> {
        self.steps(parts).flat_map(|(op, layer)| self.ranges(&op, layer))
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
