//! Checks a program's operations once, so that the engine can rely on them.

use crate::error::{Fault, LoadError};
use crate::program::{MAX_HEAD_WIDTH, MAX_LAYERS, Op, PerLayer, Program, Tensor, Value, fault};
use crate::quant::Format;

/// Checks every operation, for every layer that it runs in.
///
/// # Errors
/// The first operation with a fault.
pub(crate) fn check_ops(program: &Program<'_>) -> Result<(), LoadError> {
    let count = program.header().ops;
    let mut ops = program.ops();
    // The operations that are still inside of a repetition, and its layers.
    let (mut inside, mut layers) = (0u16, 1u32);
    for index in 0..count {
        let op = ops.next().ok_or_else(|| fault(index, Fault::Encoding))?;
        if let Op::Repeat { ops, layers: times } = op {
            let rest = count - index - 1;
            if inside > 0 || ops == 0 || ops > rest || times == 0 || times > MAX_LAYERS {
                return Err(fault(index, Fault::Repeat));
            }
            (inside, layers) = (ops + 1, times);
        } else {
            check_op(program, &op, layers).map_err(|f| fault(index, f))?;
        }
        inside = inside.saturating_sub(1);
        if inside == 0 {
            layers = 1;
        }
    }
    Ok(())
}

fn check_op(program: &Program<'_>, op: &Op, layers: u32) -> Result<(), Fault> {
    let check = Check { program, layers };
    match *op {
        Op::Repeat { .. } => Err(Fault::Repeat),
        Op::Embed { weight, output } => {
            check.value(output, false)?;
            check.matrix(weight, program.header().vocab_size, output.width)
        }
        Op::RmsNorm { weight, epsilon, input, output } => {
            check.values(&[input], output)?;
            check.equal(input.width, output.width)?;
            check.that(epsilon.is_finite() && epsilon >= 0.0)?;
            check.vector(weight, input.width)
        }
        Op::MatMul { weight, input, output, .. } | Op::Residual { weight, input, output } => {
            check.values(&[input], output)?;
            check.matrix(weight, output.width, input.width)
        }
        Op::RotaryAngles { frequencies, output } => {
            check.value(output, false)?;
            check.that(output.width.is_multiple_of(4))?;
            check.vector(frequencies, output.width / 4)
        }
        Op::Rotary { angles, value, head_width } => {
            check.values(&[angles], value)?;
            check.angles(angles, head_width)?;
            check.that(value.width.is_multiple_of(head_width.max(1)))
        }
        Op::Attention { cache, heads, scale, query, key, value, angles, output } => {
            check.value(output, false)?;
            check.values(&[query, key, value, angles], output)?;
            check.angles(angles, heads.width)?;
            check.that(scale.is_finite())?;
            check.that(heads.kv > 0 && heads.query.is_multiple_of(heads.kv.max(1)))?;
            let width = |count: u32| count.checked_mul(heads.width).ok_or(Fault::Shape);
            check.equal(query.width, width(heads.query)?)?;
            check.equal(key.width, width(heads.kv)?)?;
            check.equal(value.width, key.width)?;
            check.equal(output.width, query.width)?;
            check.equal(key.width, program.header().kv_width)?;
            check.that(check.layers().all(|l| cache.at(l) < program.header().kv_caches))
        }
        Op::Gated { gate, up, output, .. } => {
            check.values(&[gate, up], output)?;
            check.equal(gate.width, output.width)?;
            check.equal(up.width, output.width)
        }
        Op::Select { input, output } => {
            check.value(input, false)?;
            check.value(output, true)?;
            check.equal(input.width, output.width)
        }
    }
}

struct Check<'p> {
    program: &'p Program<'p>,
    layers: u32,
}

impl Check<'_> {
    fn layers(&self) -> core::ops::Range<u32> {
        0..self.layers
    }

    fn that(&self, holds: bool) -> Result<(), Fault> {
        if holds { Ok(()) } else { Err(Fault::Shape) }
    }

    fn equal(&self, a: u32, b: u32) -> Result<(), Fault> {
        self.that(a == b)
    }

    fn value(&self, value: Value, selected: bool) -> Result<(), Fault> {
        let slot = self.program.slot(value.slot).ok_or(Fault::Value)?;
        let end = value.first.checked_add(value.width).ok_or(Fault::Value)?;
        if slot.selected == selected && value.width > 0 && end <= slot.width {
            Ok(())
        } else {
            Err(Fault::Value)
        }
    }

    /// The inputs and the output lie in slots of one kind, and the output's slot overlaps with no
    /// input's.
    fn values(&self, inputs: &[Value], output: Value) -> Result<(), Fault> {
        let slot = self.program.slot(output.slot).ok_or(Fault::Value)?;
        self.value(output, slot.selected)?;
        for input in inputs {
            self.value(*input, slot.selected)?;
            let other = self.program.slot(input.slot).ok_or(Fault::Value)?;
            let before = other.offset + other.width <= slot.offset;
            let after = slot.offset + slot.width <= other.offset;
            if !(before || after) {
                return Err(Fault::Value);
            }
        }
        Ok(())
    }

    fn angles(&self, angles: Value, head_width: u32) -> Result<(), Fault> {
        self.that((2..=MAX_HEAD_WIDTH).contains(&head_width) && head_width.is_multiple_of(2))?;
        self.equal(angles.width, 2 * head_width)
    }

    fn tensors(&self, weight: PerLayer, fits: impl Fn(Tensor) -> bool) -> Result<(), Fault> {
        let tensor = |layer| self.program.tensor(weight.at(layer));
        if self.layers().all(|layer| tensor(layer).is_some_and(&fits)) {
            Ok(())
        } else {
            Err(Fault::Tensor)
        }
    }

    fn matrix(&self, weight: PerLayer, rows: u32, columns: u32) -> Result<(), Fault> {
        self.tensors(weight, |t| {
            t.format != Format::Vector && (t.rows, t.columns) == (rows, columns)
        })
    }

    fn vector(&self, weight: PerLayer, length: u32) -> Result<(), Fault> {
        self.tensors(weight, |t| t.format == Format::Vector && (t.rows, t.columns) == (1, length))
    }
}
