//! What an operation's values, tensors and states have to be.

use super::{Dtype, PartKind, Per, PerLayer, Program, Tensor, Value};
use crate::error::Fault;
use crate::quant::Format;
use crate::state::State;

/// What operations are checked with.
pub(crate) struct Check<'p> {
    pub(super) program: &'p Program<'p>,
    pub(super) layers: u32,
}

impl Check<'_> {
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

    pub(super) fn overlap(&self, a: Value, b: Value) -> bool {
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
