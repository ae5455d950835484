//! Checks a program's operations once, so that the engine can rely on them.

use super::{Dtype, MAX_LAYERS, PartKind, Per, PerLayer, Program, Record, Tensor, Value, fault};
use crate::error::{Fault, LoadError};
use crate::ops::{Op, Operand};
use crate::quant::Format;
use crate::state::State;

/// Checks every operation, for every layer that it is played in.
///
/// # Errors
/// The first record with a fault.
pub(super) fn check_records(program: &Program<'_>) -> Result<(), LoadError> {
    let count = program.header().records;
    let mut bytes = program.records().0;
    // The records that are still inside of a repetition, and its layers.
    let (mut inside, mut layers) = (0u16, 1u32);
    let mut stored = None;
    for index in 0..count {
        let record = Record::take(&mut bytes).map_err(|f| fault(index, f))?;
        let checked = match record {
            Record::Repeat { records, layers: times } => {
                let rest = count - index - 1;
                let fits = (1..=rest).contains(&records) && (1..=MAX_LAYERS).contains(&times);
                let outside = inside == 0 && stored.is_none();
                (inside, layers) = (records.saturating_add(1), times);
                if fits && outside { Ok(()) } else { Err(Fault::Repeat) }
            }
            Record::Op(op) => {
                let check = Check { program, layers };
                check
                    .part(&op)
                    .and_then(|()| check.operands(&op))
                    .and_then(|()| op.check(&check))
                    .and_then(|()| {
                        // A cache that is full replaces positions, which its own attention still sees.
                        let before = core::mem::replace(&mut stored, op.stores());
                        if before.is_none_or(|state| op.attends() == Some(state)) {
                            Ok(())
                        } else {
                            Err(Fault::Order)
                        }
                    })
            }
        };
        checked.map_err(|f| fault(index, f))?;
        inside = inside.saturating_sub(1);
        if inside == 0 {
            layers = 1;
        }
    }
    let whole = bytes.is_empty() && stored.is_none();
    let written = program.outputs().all(|port| writes(program, port.value));
    if whole && written { Ok(()) } else { Err(fault(count, Fault::Encoding)) }
}

/// True if some operation writes into the slot of a value.
fn writes(program: &Program<'_>, value: Value) -> bool {
    program.records().any(|record| {
        let mut found = false;
        if let Record::Op(op) = record {
            op.operands(&mut |operand| {
                if let Operand::Write(written) | Operand::Update(written) = operand {
                    found |= written.slot == value.slot;
                }
            });
        }
        found
    })
}

/// What operations are checked with.
pub(crate) struct Check<'p> {
    program: &'p Program<'p>,
    layers: u32,
}

impl Check<'_> {
    /// What every operation keeps to: values lie in slots, what it writes overlaps with nothing that
    /// it reads, tensors and states are there in every layer.
    fn operands(&self, op: &Op) -> Result<(), Fault> {
        let mut result = Ok(());
        let mut written = None;
        op.operands(&mut |operand| {
            let checked = match operand {
                Operand::Write(value) | Operand::Update(value) => {
                    written = Some(*value);
                    self.value(*value).map(|_| ())
                }
                Operand::Read(value) | Operand::Source(value) => self.value(*value).map(|_| ()),
                Operand::Weight(weight) => self.tensors(*weight, |_| true),
                Operand::State(state) => self.states(*state, |_| true),
            };
            result = result.and(checked);
        });
        op.operands(&mut |operand| {
            let clash = match (operand, written) {
                (Operand::Read(read), Some(written)) => self.overlap(*read, written),
                (Operand::Source(read), Some(written)) => {
                    *read != written && self.overlap(*read, written)
                }
                _ => false,
            };
            if clash {
                result = result.and(Err(Fault::Value));
            }
        });
        result
    }

    /// The part that an operation belongs to is there.
    fn part(&self, op: &Op) -> Result<(), Fault> {
        let part = op.part().copied().unwrap_or(0);
        if part <= self.program.header().parts { Ok(()) } else { Err(Fault::Part) }
    }

    /// A part of some kind that is not this one, or none.
    pub(crate) fn part_is_not(&self, part: u16, kind: PartKind) -> Result<(), Fault> {
        if self.program.part_kind(part) == Some(kind) { Err(Fault::Part) } else { Ok(()) }
    }

    /// Values of which no two lie in slots that overlap.
    pub(crate) fn apart(&self, values: &[Value]) -> Result<(), Fault> {
        let mut rest = values;
        while let Some((first, others)) = rest.split_first() {
            if others.iter().any(|other| self.overlap(*first, *other)) {
                return Err(Fault::Value);
            }
            rest = others;
        }
        Ok(())
    }

    fn overlap(&self, a: Value, b: Value) -> bool {
        let slots = self.program.slot(a.slot).zip(self.program.slot(b.slot));
        slots.is_none_or(|(a, b)| a.overlaps(&b))
    }

    pub(crate) fn program(&self) -> &Program<'_> {
        self.program
    }

    pub(crate) fn that(&self, holds: bool) -> Result<(), Fault> {
        if holds { Ok(()) } else { Err(Fault::Shape) }
    }

    pub(crate) fn equal(&self, a: u32, b: u32) -> Result<(), Fault> {
        self.that(a == b)
    }

    /// A value that lies in its slot: how many columns it has, and what its elements are.
    pub(crate) fn value(&self, value: Value) -> Result<(Per, Dtype), Fault> {
        let slot = self.program.slot(value.slot).ok_or(Fault::Value)?;
        if self.program.holds(value) { Ok((slot.per, slot.dtype)) } else { Err(Fault::Value) }
    }

    /// Values of floats, all with one number of columns.
    pub(crate) fn floats(&self, values: &[Value]) -> Result<Per, Fault> {
        let first = values.first().ok_or(Fault::Value)?;
        let (per, _) = self.value(*first)?;
        for value in values {
            if self.value(*value)? != (per, Dtype::F32) {
                return Err(Fault::Value);
            }
        }
        Ok(per)
    }

    /// Values of floats with a column for each token.
    pub(crate) fn tokens(&self, values: &[Value]) -> Result<(), Fault> {
        if self.floats(values)? == Per::Token { Ok(()) } else { Err(Fault::Value) }
    }

    /// Tensors that fit in every layer.
    pub(crate) fn tensors(
        &self,
        weight: PerLayer,
        fits: impl Fn(Tensor) -> bool,
    ) -> Result<(), Fault> {
        let tensor = |layer| self.program.tensor(weight.at(layer));
        let all = (0..self.layers).all(|layer| tensor(layer).is_some_and(&fits));
        if all { Ok(()) } else { Err(Fault::Tensor) }
    }

    /// States that fit in every layer.
    pub(crate) fn states(
        &self,
        state: PerLayer,
        fits: impl Fn(State) -> bool,
    ) -> Result<(), Fault> {
        let found = |layer| self.program.state(state.at(layer));
        let all = (0..self.layers).all(|layer| found(layer).is_some_and(&fits));
        if all { Ok(()) } else { Err(Fault::State) }
    }

    pub(crate) fn matrix(&self, weight: PerLayer, rows: u32, columns: u32) -> Result<(), Fault> {
        self.tensors(weight, |t| t.is_matrix() && (t.rows, t.columns) == (rows, columns))
    }

    pub(crate) fn vector(&self, weight: PerLayer, length: u32) -> Result<(), Fault> {
        self.tensors(weight, |t| t.format == Format::Vector && (t.rows, t.columns) == (1, length))
    }
}
