//! What flows from operation to operation.

use super::{Block, Costs, Flow, Node};
use crate::layers;
use omex_core::ops::{Op, Operand};
use omex_core::program::{Program, Value};
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

/// A block, and a node in it.
type Place = (usize, usize);

/// Who wrote what last.
#[derive(Default)]
struct Written {
    /// For each slot the ranges that were written.
    values: BTreeMap<u16, Vec<(Range<u64>, Place)>>,
    states: BTreeMap<u32, Place>,
    flows: BTreeSet<Flow>,
}

/// Adds what a model takes in and gives out to its first and its last block, and finds what flows where.
pub(super) fn flows(
    program: &Program<'_>,
    found: &[layers::Block],
    blocks: &mut [Block],
) -> Vec<Flow> {
    let plays = |block: &Block| !block.nodes.is_empty();
    let (first, last) = (blocks.iter().position(plays), blocks.iter().rposition(plays));
    let Some((first, last)) = first.zip(last) else { return vec![] };
    let mut written = Written::default();
    let inputs: Vec<_> = program.inputs().collect();
    let node = |op, name: &str, width| Node {
        op,
        name: Some(name.to_owned()),
        weights: vec![],
        width,
        costs: Costs::default(),
    };
    for (number, port) in inputs.iter().enumerate() {
        written.write(port.value, (first, number));
    }
    let added = inputs.iter().map(|port| node("Input", port.name, port.value.width));
    blocks[first].nodes.splice(0..0, added);
    for (block, of) in found.iter().enumerate() {
        let before = if block == first { inputs.len() } else { 0 };
        for (number, of) in of.operations.iter().enumerate() {
            written.play(&of.op, of.layer, (block, before + number));
        }
    }
    for port in program.outputs() {
        let nodes = &mut blocks[last].nodes;
        written.read(port.value, (last, nodes.len()));
        nodes.push(node("Output", port.name, port.value.width));
    }
    written.flows.into_iter().collect()
}

impl Written {
    fn play(&mut self, op: &Op, layer: u32, place: Place) {
        let (mut written, mut states) = (vec![], vec![]);
        op.operands(&mut |operand| match operand {
            Operand::Read(value) | Operand::Source(value) => self.read(*value, place),
            Operand::Update(value) => {
                if adds(op) {
                    self.read(*value, place);
                }
                written.push(*value);
            }
            Operand::Write(value) => written.push(*value),
            Operand::State(state) => states.push(state.at(layer)),
            Operand::Weight(_) => {}
        });
        for state in states {
            if let Some(from) = self.states.insert(state, place) {
                self.flows.insert(Flow { from, to: place });
            }
        }
        written.into_iter().for_each(|value| self.write(value, place));
    }

    fn read(&mut self, value: Value, place: Place) {
        let wanted = range(value);
        let writers = self.values.get(&value.slot).into_iter().flatten();
        let overlap = |range: &Range<u64>| range.start < wanted.end && wanted.start < range.end;
        let from = writers.filter(|(range, _)| overlap(range)).map(|(_, from)| *from);
        self.flows.extend(from.map(|from| Flow { from, to: place }));
    }

    fn write(&mut self, value: Value, place: Place) {
        let new = range(value);
        let writers = self.values.entry(value.slot).or_default();
        writers.retain(|(old, _)| old.start < new.start || new.end < old.end);
        writers.push((new, place));
    }
}

fn range(value: Value) -> Range<u64> {
    let first = u64::from(value.first);
    first..first + u64::from(value.width)
}

/// True if an operation adds to what is there, or changes it, where it need not.
fn adds(op: &Op) -> bool {
    match op {
        Op::Linear(op) => op.accumulate,
        Op::Embed(op) => op.accumulate,
        _ => true,
    }
}
