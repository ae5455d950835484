//! Checks a program's operations once, so that the engine can rely on them.

use super::operands::Check;
use super::record::Record;
use super::{MAX_LAYERS, Program, Value};
use crate::error::{Fault, LoadError, Section};
use crate::ops::{Op, Operand};
use core::ops::Range;

impl<'a> Program<'a> {
    /// Reads and checks a program whose tensors lie in `space` of the paged space. `program` is the
    /// whole section; `tensors` is `[tensors][Tensor::RECORD_BYTES]`.
    ///
    /// # Errors
    /// The first record or tensor with a fault.
    pub fn parse(
        program: &'a [u8],
        tensors: &'a [u8],
        space: Range<u64>,
    ) -> Result<Self, LoadError> {
        let (tensors, rest) = tensors.as_chunks();
        if !rest.is_empty() {
            return Err(LoadError::Section(Section::Tensors));
        }
        let program = Self::tables(program, tensors);
        let program = program.ok_or(LoadError::Section(Section::Program))?;
        program.check_tables()?;
        program.check_tensors(&space)?;
        check_records(&program)?;
        Ok(program)
    }
}

/// Checks every operation, for every layer that it is played in.
fn check_records(program: &Program<'_>) -> Result<(), LoadError> {
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
                        let before = core::mem::replace(&mut stored, op.stored());
                        before.map_or(Ok(()), |store| op.check_behind(&store, &check))
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
}

fn fault(index: u16, fault: Fault) -> LoadError {
    LoadError::Record { index, fault }
}
