//! Parts: operations that may be left out, a model's second planes and its adapters.
//!
//! An operation says which part it belongs to, by number; 0 is none, and such an operation is always
//! played. What a pass does not play, it does not read either.

use serde::{Deserialize, Serialize};

/// What a part is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
#[repr(u8)]
pub enum PartKind {
    /// Makes weights more precise. A pass plays it for all of its tokens or for none.
    #[default]
    Correction = 0,
    /// Changes what a model does. It is played for the tokens whose input asks for it.
    Adapter = 1,
}

impl PartKind {
    const fn from_number(number: u8) -> Option<Self> {
        match number {
            0 => Some(Self::Correction),
            1 => Some(Self::Adapter),
            _ => None,
        }
    }
}

/// A part of a program. The first one has the number 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Part<'a> {
    /// Its name.
    pub name: &'a str,
    /// What it is.
    pub kind: PartKind,
}

/// Bytes of a part's record: place and length of the name in the names (u32, u16), kind, reserved (u8
/// each).
pub const PART_BYTES: usize = 8;

impl<'a> Part<'a> {
    /// The record of a part whose name begins at byte `name` of the names.
    #[must_use]
    pub fn to_record(&self, name: u32) -> [u8; PART_BYTES] {
        let [a, b, c, d] = name.to_le_bytes();
        let [l0, l1] = (self.name.len().min(usize::from(u16::MAX)) as u16).to_le_bytes();
        [a, b, c, d, l0, l1, self.kind as u8, 0]
    }

    pub(super) fn from_record(record: &[u8; PART_BYTES], names: &'a [u8]) -> Option<Self> {
        let [a, b, c, d, l0, l1, kind, _] = *record;
        let start = usize::try_from(u32::from_le_bytes([a, b, c, d])).ok()?;
        let end = start.checked_add(u16::from_le_bytes([l0, l1]).into())?;
        let name = core::str::from_utf8(names.get(start..end)?).ok()?;
        Some(Self { name, kind: PartKind::from_number(kind)? })
    }
}

/// The kind of the part with this number; `None` for 0.
pub(super) fn kind(table: &[[u8; PART_BYTES]], number: u16) -> Option<PartKind> {
    let [.., kind, _] = table.get(usize::from(number).checked_sub(1)?)?;
    PartKind::from_number(*kind)
}

/// Which parts are played, layer by layer. Where a layer plays no corrections, it reads fewer bytes
/// and computes with the precision of its base planes. What lies outside of a repetition goes with
/// layer 0.
pub trait Parts: Sync {
    /// True if the part of this number and kind is played in a layer.
    fn plays(&self, part: u16, kind: PartKind, layer: u32) -> bool;
}

impl<F: Fn(u16, PartKind, u32) -> bool + Sync> Parts for F {
    fn plays(&self, part: u16, kind: PartKind, layer: u32) -> bool {
        self(part, kind, layer)
    }
}

/// All parts.
pub const ALL: &dyn Parts = &|_: u16, _: PartKind, _: u32| true;
/// None: only what is always played.
pub const NONE: &dyn Parts = &|_: u16, _: PartKind, _: u32| false;
/// All but corrections: weights have their base planes only.
pub const BASE: &dyn Parts = &|_: u16, kind: PartKind, _: u32| matches!(kind, PartKind::Adapter);
