//! Where values lie while a pass is played.

use crate::columns::{Columns, ColumnsMut};
use crate::error::RunError;
use crate::program::{Counts, Program, Slot, Value};
use core::ops::Range;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// The slots of one kind.
pub(crate) struct Region<'a> {
    pub(crate) bytes: &'a mut [u8],
    /// Columns that there is room for.
    pub(crate) columns: usize,
}

/// All slots: those with one column, with one a token, and with one a wanted output.
pub(crate) struct Memory<'a>(pub(crate) [Region<'a>; 3]);

/// What an element can be.
pub(crate) trait Element: FromBytes + IntoBytes + KnownLayout + Immutable {}
impl Element for f32 {}
impl Element for i8 {}
impl Element for i16 {}
impl Element for i32 {}

/// The bytes between a value's first element and the end of its slot's last column.
fn range(slot: &Slot, value: Value, columns: usize) -> Range<usize> {
    let (start, size) = (slot.offset as usize * columns, slot.dtype.bytes() as usize);
    start + value.first as usize * size..start + slot.width as usize * size * columns
}

fn columns_of<'m, T: Element>(
    bytes: Option<&'m [u8]>,
    slot: &Slot,
    value: Value,
) -> Columns<'m, T> {
    let values = bytes.and_then(|bytes| <[T]>::ref_from_bytes(bytes).ok()).unwrap_or_default();
    Columns { values, stride: slot.width as usize, width: value.width as usize }
}

impl Memory<'_> {
    /// The inputs' columns, and the output's to write. Inputs lie in slots that do not overlap with the
    /// output's.
    pub(crate) fn split<const N: usize>(
        &mut self,
        program: &Program<'_>,
        counts: Counts,
        inputs: [Value; N],
        output: Value,
    ) -> Result<([Columns<'_>; N], ColumnsMut<'_>), RunError> {
        self.split_as(program, counts, inputs, output)
    }

    /// As [`Self::split`], of any elements.
    pub(crate) fn split_as<const N: usize, I: Element, O: Element>(
        &mut self,
        program: &Program<'_>,
        counts: Counts,
        inputs: [Value; N],
        output: Value,
    ) -> Result<([Columns<'_, I>; N], ColumnsMut<'_, O>), RunError> {
        let slot = program.slot(output.slot).ok_or(RunError::Program)?;
        let mut slots = [slot; N];
        for (slot, input) in slots.iter_mut().zip(inputs) {
            *slot = program.slot(input.slot).ok_or(RunError::Program)?;
        }
        let mut regions =
            self.0.each_mut().map(|region| (Some(&mut *region.bytes), region.columns));
        let (bytes, columns) = regions.get_mut(slot.per as usize).ok_or(RunError::Program)?;
        let target = range(&slot, output, *columns);
        let bytes = bytes.take().ok_or(RunError::Program)?;
        let (before, rest) = bytes.split_at_mut_checked(target.start).ok_or(RunError::Program)?;
        let (values, behind) = rest.split_at_mut_checked(target.len()).ok_or(RunError::Program)?;
        let (before, behind) = (&*before, &*behind);
        let others = regions.map(|(bytes, columns)| (bytes.map(|bytes| &*bytes), columns));
        let mut found = [const { Columns { values: &[], stride: 0, width: 0 } }; N];
        for ((found, slot), value) in found.iter_mut().zip(&slots).zip(inputs) {
            let (bytes, columns) = others.get(slot.per as usize).ok_or(RunError::Program)?;
            let wanted = range(slot, value, *columns);
            let bytes = match (bytes, wanted.start.checked_sub(target.end)) {
                (Some(bytes), _) => bytes.get(wanted),
                (None, Some(start)) => behind.get(start..start + wanted.len()),
                (None, None) => before.get(wanted),
            };
            *found = columns_of(bytes, slot, value);
        }
        let values = <[O]>::mut_from_bytes(values).map_err(|_| RunError::Program)?;
        let (stride, width) = (slot.width as usize, output.width as usize);
        Ok((found, ColumnsMut { values, stride, width, count: counts.of(slot.per) }))
    }

    /// A value's columns.
    pub(crate) fn read<T: Element>(
        &self,
        program: &Program<'_>,
        value: Value,
    ) -> Result<Columns<'_, T>, RunError> {
        let slot = program.slot(value.slot).ok_or(RunError::Program)?;
        let region = self.0.get(slot.per as usize).ok_or(RunError::Program)?;
        Ok(columns_of(region.bytes.get(range(&slot, value, region.columns)), &slot, value))
    }

    /// The bytes of the first column of a value.
    pub(crate) fn bytes_mut(&mut self, program: &Program<'_>, value: Value) -> &mut [u8] {
        let Some(slot) = program.slot(value.slot) else { return &mut [] };
        let Some(region) = self.0.get_mut(slot.per as usize) else { return &mut [] };
        let start = range(&slot, value, region.columns).start;
        let length = value.width as usize * slot.dtype.bytes() as usize;
        region.bytes.get_mut(start..start + length).unwrap_or_default()
    }
}
