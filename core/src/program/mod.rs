//! A compiled model: tables that are read in place, and a short list of operations.
//!
//! A block of a model is stored once, behind [`Record::Repeat`]; what differs between its layers is
//! which tensors and which states it uses, said by [`PerLayer`].

mod check;
mod encoding;
mod needs;
mod operands;
mod parts;
mod record;
mod steps;
mod tensor;
mod value;

pub use encoding::MAX_FIELD_BYTES;
pub(crate) use encoding::{get, put};
pub use needs::Needs;
pub(crate) use operands::Check;
pub use parts::{ALL, BASE, NONE, PART_BYTES, Part, PartKind, Parts};
pub use record::{REPEAT, Record, Records};
pub use steps::Steps;
pub use tensor::Tensor;
pub(crate) use value::Counts;
pub use value::{Dtype, PORT_BYTES, Per, PerLayer, Port, Slot, Value};

use crate::error::{LoadError, Section};
use crate::quant::{Format, GROUP};
use crate::state::State;
use core::ops::Range;

/// The most records that a program may have.
pub const MAX_RECORDS: u16 = 4096;
/// The largest width of anything, so that products of two fit 64 bits with room to spare.
pub const MAX_WIDTH: u32 = 1 << 24;
/// The most states, and the most layers of a repetition.
pub const MAX_LAYERS: u32 = 1 << 12;
/// The widest head of an attention.
pub const MAX_HEAD_WIDTH: u32 = if cfg!(feature = "float") { 1024 } else { 256 };
/// The most tokens that end a text.
pub const MAX_STOP_TOKENS: usize = 64;

/// What a program is about, and how long its tables are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Header {
    /// Tokens in the vocabulary; 0 if the program does not take tokens.
    pub vocab_size: u32,
    /// Positions that the model was trained for; 0 if it has none.
    pub context_length: u32,
    /// Bytes of the operations.
    pub record_bytes: u32,
    /// Bytes of the ports' names.
    pub name_bytes: u32,
    /// Number of records.
    pub records: u16,
    /// Number of slots.
    pub slots: u16,
    /// Number of states.
    pub states: u16,
    /// Number of inputs.
    pub inputs: u16,
    /// Number of outputs.
    pub outputs: u16,
    /// Number of tokens that end a text.
    pub stop_tokens: u16,
    /// Number of parts.
    pub parts: u16,
}

impl Header {
    /// Bytes of the header: vocabulary, context, bytes of operations and of names (u32 each);
    /// records, slots, states, inputs, outputs, stop tokens, parts, reserved (u16 each).
    pub const BYTES: usize = 32;

    /// The header's bytes.
    #[must_use]
    pub fn to_bytes(&self) -> [u8; Self::BYTES] {
        let pair = |low: u16, high: u16| u32::from(low) | u32::from(high) << 16;
        let words = [
            self.vocab_size,
            self.context_length,
            self.record_bytes,
            self.name_bytes,
            pair(self.records, self.slots),
            pair(self.states, self.inputs),
            pair(self.outputs, self.stop_tokens),
            u32::from(self.parts),
        ];
        let mut bytes = [0; Self::BYTES];
        for (bytes, word) in bytes.as_chunks_mut::<4>().0.iter_mut().zip(words) {
            *bytes = word.to_le_bytes();
        }
        bytes
    }

    fn from_bytes(bytes: &[u8; Self::BYTES]) -> Self {
        let mut words = [0; 8];
        for (word, bytes) in words.iter_mut().zip(bytes.as_chunks::<4>().0) {
            *word = u32::from_le_bytes(*bytes);
        }
        let [vocab_size, context_length, record_bytes, name_bytes, a, b, c, d] = words;
        let [[records, slots], [states, inputs], [outputs, stop_tokens], [parts, _]] =
            [a, b, c, d].map(|pair| [pair as u16, (pair >> 16) as u16]);
        Self {
            vocab_size,
            context_length,
            record_bytes,
            name_bytes,
            records,
            slots,
            states,
            inputs,
            outputs,
            stop_tokens,
            parts,
        }
    }
}

/// A checked program. Its tables and operations are read where they lie.
#[derive(Clone, Debug)]
pub struct Program<'a> {
    header: Header,
    slots: &'a [[u8; Slot::RECORD_BYTES]],
    states: &'a [[u8; State::RECORD_BYTES]],
    inputs: &'a [[u8; PORT_BYTES]],
    outputs: &'a [[u8; PORT_BYTES]],
    stop_tokens: &'a [[u8; 4]],
    parts: &'a [[u8; PART_BYTES]],
    names: &'a [u8],
    records: &'a [u8],
    tensors: &'a [[u8; Tensor::RECORD_BYTES]],
}

/// Takes `count` records from the front of `bytes`.
fn table<'a, const N: usize>(bytes: &mut &'a [u8], count: u16) -> Option<&'a [[u8; N]]> {
    let (table, rest) = bytes.split_at_checked(usize::from(count) * N)?;
    *bytes = rest;
    Some(table.as_chunks().0)
}

impl<'a> Program<'a> {
    fn tables(program: &'a [u8], tensors: &'a [[u8; Tensor::RECORD_BYTES]]) -> Option<Self> {
        let (header, mut rest) = program.split_first_chunk()?;
        let header = Header::from_bytes(header);
        let (slots, states) = (table(&mut rest, header.slots)?, table(&mut rest, header.states)?);
        let inputs = table(&mut rest, header.inputs)?;
        let outputs = table(&mut rest, header.outputs)?;
        let stop_tokens = table(&mut rest, header.stop_tokens)?;
        let parts = table(&mut rest, header.parts)?;
        let (names, records) = rest.split_at_checked(header.name_bytes as usize)?;
        let whole = records.len() == header.record_bytes as usize;
        let program = Self {
            header,
            slots,
            states,
            inputs,
            outputs,
            stop_tokens,
            parts,
            names,
            records,
            tensors,
        };
        whole.then_some(program)
    }

    /// What the program is about.
    #[must_use]
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// The tensor with this number.
    #[must_use]
    pub fn tensor(&self, index: u32) -> Option<Tensor> {
        Tensor::from_record(self.tensors.get(index as usize)?)
    }

    /// All tensors.
    pub fn tensors(&self) -> impl Iterator<Item = Tensor> + use<'a> {
        self.tensors.iter().map_while(Tensor::from_record)
    }

    /// The slot with this number.
    #[must_use]
    pub fn slot(&self, index: u16) -> Option<Slot> {
        Slot::from_record(self.slots.get(usize::from(index))?)
    }

    /// All slots.
    pub fn slots(&self) -> impl Iterator<Item = Slot> + use<'a> {
        self.slots.iter().map_while(Slot::from_record)
    }

    /// The state with this number.
    #[must_use]
    pub fn state(&self, index: u32) -> Option<State> {
        State::from_record(self.states.get(index as usize)?)
    }

    /// All states.
    pub fn states(&self) -> impl Iterator<Item = State> + use<'a> {
        self.states.iter().map_while(State::from_record)
    }

    /// What the program takes in besides tokens.
    pub fn inputs(&self) -> impl Iterator<Item = Port<'a>> + use<'a> {
        let names = self.names;
        self.inputs.iter().map_while(|record| Port::from_record(record, names))
    }

    /// What it gives out. The first output of a program that takes tokens is the logits.
    pub fn outputs(&self) -> impl Iterator<Item = Port<'a>> + use<'a> {
        let names = self.names;
        self.outputs.iter().map_while(|record| Port::from_record(record, names))
    }

    /// The tokens that end a text.
    pub fn stop_tokens(&self) -> impl Iterator<Item = u32> + use<'a> {
        self.stop_tokens.iter().map(|bytes| u32::from_le_bytes(*bytes))
    }

    /// The parts, which operations number from 1 on.
    pub fn parts(&self) -> impl Iterator<Item = Part<'a>> + use<'a> {
        let names = self.names;
        self.parts.iter().map_while(|record| Part::from_record(record, names))
    }

    /// What the part with this number is; `None` for 0, and past the last.
    #[must_use]
    pub fn part_kind(&self, number: u16) -> Option<PartKind> {
        parts::kind(self.parts, number)
    }

    /// The number of the adapter of this name.
    #[must_use]
    pub fn adapter(&self, name: &str) -> Option<u16> {
        let adapter = Part { name, kind: PartKind::Adapter };
        (1..).zip(self.parts()).find(|(_, part)| *part == adapter).map(|(number, _)| number)
    }

    /// Bytes a column of all slots of a kind together.
    #[must_use]
    pub fn column_bytes(&self, per: Per) -> u64 {
        let slots = self.slots().filter(|slot| slot.per == per);
        slots.map(|slot| slot.end().next_multiple_of(4)).max().unwrap_or(0)
    }

    /// The KV caches' heads and width if there are caches, all are alike, and there is no other
    /// state.
    #[must_use]
    pub fn uniform_cache(&self) -> Option<State> {
        let mut states = self.states();
        let first = states.next().filter(|s| matches!(s, State::Kv { window: 0, .. }))?;
        states.all(|state| state == first).then_some(first)
    }

    /// Columns of the widest matrix, a multiple of a group.
    #[must_use]
    pub fn widest_input(&self) -> u64 {
        let matrices = self.tensors().filter(Tensor::is_matrix);
        let widest = matrices.map(|t| t.columns).max().unwrap_or(0);
        u64::from(widest).next_multiple_of(GROUP as u64)
    }

    /// The most bytes that an operation stages numbers in, beside those of matrices with panels.
    #[must_use]
    pub fn staging_bytes(&self) -> u64 {
        let bytes = self.records().map(|record| match record {
            Record::Op(op) => op.staging_bytes(self),
            Record::Repeat { .. } => 0,
        });
        bytes.max().unwrap_or(0)
    }

    /// Bytes of the longest unit that a page's edge may cut.
    #[must_use]
    pub fn longest_unit(&self) -> u64 {
        self.tensors().map(|t| t.unit_bytes() as u64).max().unwrap_or(0)
    }

    /// True if some part makes weights more precise.
    #[must_use]
    pub fn has_corrections(&self) -> bool {
        (1..=self.header.parts).any(|part| self.part_kind(part) == Some(PartKind::Correction))
    }

    /// True if some matrix meets activations that are not quantized.
    #[must_use]
    pub fn has_float_matrices(&self) -> bool {
        self.tensors().any(|t| matches!(t.format, Format::F32 | Format::F16))
    }

    fn check_tables(&self) -> Result<(), LoadError> {
        let header = &self.header;
        let widths = [header.vocab_size, header.context_length];
        let slots = self.slots().filter(|slot| {
            (1..=MAX_WIDTH).contains(&slot.width)
                && slot.offset.is_multiple_of(4)
                && slot.offset <= 4 * MAX_WIDTH
                && dims_fit(slot)
        });
        let states = self.states().filter(|state| match *state {
            State::Kv { heads, width, window } => {
                (1..=MAX_WIDTH).contains(&heads)
                    && (1..=MAX_HEAD_WIDTH).contains(&width)
                    && heads.saturating_mul(width) <= MAX_WIDTH
                    && window <= MAX_WIDTH
            }
            State::Bytes(bytes) => (1..=4 * MAX_WIDTH).contains(&bytes),
        });
        let whole = slots.count() == self.slots.len()
            && states.count() == self.states.len()
            && self.inputs().count() == self.inputs.len()
            && self.outputs().count() == self.outputs.len()
            && (1..=header.parts).all(|part| self.part_kind(part).is_some());
        let counts = header.records <= MAX_RECORDS
            && u32::from(header.states) <= MAX_LAYERS
            && self.stop_tokens.len() <= MAX_STOP_TOKENS;
        let ports = self.inputs().chain(self.outputs()).all(|port| self.holds(port.value));
        let fits = whole && counts && ports && widths.iter().all(|w| *w <= MAX_WIDTH);
        if fits { Ok(()) } else { Err(LoadError::Section(Section::Program)) }
    }

    /// True if a value lies in its slot.
    pub(crate) fn holds(&self, value: Value) -> bool {
        let end = value.first.checked_add(value.width);
        let slot = self.slot(value.slot);
        value.width > 0 && slot.zip(end).is_some_and(|(slot, end)| end <= slot.width)
    }

    fn check_tensors(&self, space: &Range<u64>) -> Result<(), LoadError> {
        for (index, record) in self.tensors.iter().enumerate() {
            let fits = Tensor::from_record(record).is_some_and(|t| {
                t.format.is_played()
                    && (1..=MAX_WIDTH).contains(&t.rows)
                    && (1..=MAX_WIDTH).contains(&t.columns)
                    && t.address.is_multiple_of(4)
                    && t.address.checked_add(t.bytes()).is_some_and(|end| end <= space.end)
                    && t.address >= space.start
            });
            if !fits {
                return Err(LoadError::Tensor(index as u32));
            }
        }
        Ok(())
    }
}

/// A slot's dimensions, where it has some, are as many elements as it is wide.
fn dims_fit(slot: &Slot) -> bool {
    // Zeros in front stand for dimensions that a tensor does not have.
    let dims = slot.dims.iter().skip_while(|n| cfg!(feature = "tensors") && **n == 0);
    let elements: u64 = dims.map(|n| u64::from(*n)).product();
    slot.dims == [0; 4] || elements == u64::from(slot.width)
}
