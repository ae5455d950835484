//! Values: what a program computes, and the slots of the arena that they lie in.

use serde::{Deserialize, Serialize};

/// How many columns a value has in a pass.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
#[repr(u8)]
pub enum Per {
    /// One, whatever the pass is over: an image, a window of sound.
    Pass = 0,
    /// One for each token of the pass.
    #[default]
    Token = 1,
    /// One for each token whose outputs are wanted.
    Output = 2,
}

impl Per {
    const fn from_number(number: u8) -> Option<Self> {
        match number {
            0 => Some(Self::Pass),
            1 => Some(Self::Token),
            2 => Some(Self::Output),
            _ => None,
        }
    }
}

/// What a value's elements are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
#[repr(u8)]
pub enum Dtype {
    /// 32-bit floats.
    #[default]
    F32 = 0,
    /// Signed bytes.
    I8 = 1,
    /// Signed 16-bit integers.
    I16 = 2,
    /// Signed 32-bit integers.
    I32 = 3,
}

impl Dtype {
    const fn from_number(number: u8) -> Option<Self> {
        match number {
            0 => Some(Self::F32),
            1 => Some(Self::I8),
            2 => Some(Self::I16),
            3 => Some(Self::I32),
            _ => None,
        }
    }

    /// Bytes of an element.
    #[must_use]
    pub const fn bytes(self) -> u32 {
        match self {
            Self::F32 | Self::I32 => 4,
            Self::I16 => 2,
            Self::I8 => 1,
        }
    }
}

/// A place for a value. Slots whose lifetimes do not overlap may share one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Slot {
    /// Bytes a column of the slots of the same [`Per`] that lie before this one; a multiple of 4.
    pub offset: u32,
    /// Elements a column.
    pub width: u32,
    /// The elements as an image or a tensor, innermost last; zeros in front of what has fewer dimensions, and
    /// where a value is just a row.
    pub dims: [u16; 4],
    /// How many columns there are.
    pub per: Per,
    /// What the elements are.
    pub dtype: Dtype,
}

impl Slot {
    /// Bytes of a record: offset, width (u32 each), 4 dimensions (u16 each), per, type (u8 each),
    /// reserved (u16).
    pub const RECORD_BYTES: usize = 20;

    /// Bytes a column.
    #[must_use]
    pub const fn bytes(&self) -> u64 {
        self.width as u64 * self.dtype.bytes() as u64
    }

    /// Where a column's bytes end; the next slot may begin at the next multiple of 4.
    #[must_use]
    pub const fn end(&self) -> u64 {
        self.offset as u64 + self.bytes()
    }

    /// True if the places of two slots have a byte in common.
    #[must_use]
    pub const fn overlaps(&self, other: &Self) -> bool {
        self.per as u8 == other.per as u8
            && (self.offset as u64) < other.end()
            && (other.offset as u64) < self.end()
    }

    /// The record.
    #[must_use]
    pub fn to_record(&self) -> [u8; Self::RECORD_BYTES] {
        let [o0, o1, o2, o3] = self.offset.to_le_bytes();
        let [w0, w1, w2, w3] = self.width.to_le_bytes();
        let [[a0, a1], [b0, b1], [c0, c1], [d0, d1]] = self.dims.map(u16::to_le_bytes);
        let (per, dtype) = (self.per as u8, self.dtype as u8);
        [o0, o1, o2, o3, w0, w1, w2, w3, a0, a1, b0, b1, c0, c1, d0, d1, per, dtype, 0, 0]
    }

    pub(super) fn from_record(record: &[u8; Self::RECORD_BYTES]) -> Option<Self> {
        let [o0, o1, o2, o3, w0, w1, w2, w3, a0, a1, b0, b1, c0, c1, d0, d1, per, dtype, _, _] =
            *record;
        Some(Self {
            offset: u32::from_le_bytes([o0, o1, o2, o3]),
            width: u32::from_le_bytes([w0, w1, w2, w3]),
            dims: [[a0, a1], [b0, b1], [c0, c1], [d0, d1]].map(u16::from_le_bytes),
            per: Per::from_number(per)?,
            dtype: Dtype::from_number(dtype)?,
        })
    }
}

/// Consecutive elements of a slot's columns.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Value {
    /// The slot.
    pub slot: u16,
    /// The first element.
    pub first: u32,
    /// Number of elements.
    pub width: u32,
}

/// A number that grows by `stride` from layer to layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PerLayer {
    /// The number in layer 0.
    pub first: u32,
    /// What every further layer adds.
    pub stride: u32,
}

impl PerLayer {
    /// The number in a layer.
    #[must_use]
    pub fn at(self, layer: u32) -> u32 {
        self.first.saturating_add(self.stride.saturating_mul(layer))
    }
}

/// A value that a program takes in or gives out, by name.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Port<'a> {
    /// Its name.
    pub name: &'a str,
    /// Where it lies.
    pub value: Value,
    /// Of integers: what a step is worth, and the integer that stands for 0. Scale 0: not quantized.
    pub scale: f32,
    /// The integer that stands for 0.
    pub zero_point: i32,
}

/// Bytes of a port's record: place and length of the name in the names (u32, u16), slot (u16), first
/// element, width (u32 each), scale (f32), zero point (i32).
pub const PORT_BYTES: usize = 24;

impl Port<'_> {
    /// The record of a port whose name begins at byte `name` of the names.
    #[must_use]
    pub fn to_record(&self, name: u32) -> [u8; PORT_BYTES] {
        let length = self.name.len().min(usize::from(u16::MAX)) as u16;
        let words = [
            name,
            u32::from(length) | u32::from(self.value.slot) << 16,
            self.value.first,
            self.value.width,
            self.scale.to_bits(),
            self.zero_point.cast_unsigned(),
        ];
        let mut record = [0; PORT_BYTES];
        for (bytes, word) in record.as_chunks_mut::<4>().0.iter_mut().zip(words) {
            *bytes = word.to_le_bytes();
        }
        record
    }
}

impl<'a> Port<'a> {
    pub(super) fn from_record(record: &[u8; PORT_BYTES], names: &'a [u8]) -> Option<Self> {
        let mut words = [0; 6];
        for (word, bytes) in words.iter_mut().zip(record.as_chunks::<4>().0) {
            *word = u32::from_le_bytes(*bytes);
        }
        let [name, length_and_slot, first, width, scale, zero_point] = words;
        let start = usize::try_from(name).ok()?;
        let end = start.checked_add((length_and_slot & 0xffff) as usize)?;
        Some(Self {
            name: core::str::from_utf8(names.get(start..end)?).ok()?,
            value: Value { slot: (length_and_slot >> 16) as u16, first, width },
            scale: f32::from_bits(scale),
            zero_point: zero_point.cast_signed(),
        })
    }
}

/// How many columns a pass has of each kind of value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Counts {
    pub(crate) tokens: usize,
    pub(crate) outputs: usize,
}

impl Counts {
    pub(crate) fn of(self, per: Per) -> usize {
        match per {
            Per::Pass => 1,
            Per::Token => self.tokens,
            Per::Output => self.outputs,
        }
    }
}
