//! What a program needs of the build that plays it.

use super::Program;
use super::record::Record;
use crate::error::Lack;
use crate::ops;
use crate::quant::Format;
use core::fmt;

/// Operations and formats of weights, by number.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Needs {
    /// A bit for each operation's code, lowest first.
    pub ops: [u64; 4],
    /// A bit for each format's number.
    pub formats: u32,
}

impl fmt::Display for Lack {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (what, number, name) = match *self {
            Self::Op(code) => ("operation", code, ops::name(code)),
            Self::Format(number) => {
                let format = Format::from_number(u32::from(number));
                ("weight format", number, format.map(Format::name))
            }
            Self::Kv(format) => ("KV cache format", format as u8, Some(format.name())),
        };
        write!(f, "{what} {number}")?;
        name.map_or(Ok(()), |name| write!(f, " ({name})"))
    }
}

impl Needs {
    /// What a program needs.
    #[must_use]
    pub fn of(program: &Program<'_>) -> Self {
        let mut needs = Self::default();
        for record in program.records() {
            if let Record::Op(op) = record {
                needs.set(op.code());
            }
        }
        for tensor in program.tensors() {
            needs.formats |= 1 << (tensor.format as u32);
        }
        needs
    }

    fn set(&mut self, code: u8) {
        if let Some(bits) = self.ops.get_mut(usize::from(code / 64)) {
            *bits |= 1 << (code % 64);
        }
    }

    /// The first thing that this build lacks.
    #[must_use]
    pub fn lack(&self) -> Option<Lack> {
        let mut supported = Self::default();
        ops::CODES
            .iter()
            .filter(|code| ops::is_played(**code))
            .for_each(|code| supported.set(*code));
        for (word, (needed, known)) in self.ops.iter().zip(supported.ops).enumerate() {
            let missing = needed & !known;
            if missing != 0 {
                let code = 64 * word as u32 + missing.trailing_zeros();
                return Some(Lack::Op(code as u8));
            }
        }
        let known = |number| Format::from_number(number).is_some_and(Format::is_played);
        let missing = (0..u32::BITS).find(|n| self.formats >> n & 1 == 1 && !known(*n));
        missing.map(|number| Lack::Format(number as u8))
    }
}
