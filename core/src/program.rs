//! The program: a short list of operations over numbered slots, and the table of tensors.
//!
//! A block of a model is stored once, behind [`Op::Repeat`]; what differs between its layers is
//! which tensors and which part of the KV cache it uses, said by [`PerLayer`].

use crate::error::{Fault, LoadError, Section};
use crate::quant::Format;
use crate::steps::Planes;
use core::ops::Range;
use heapless::Vec;
use serde::{Deserialize, Serialize};

/// The most slots that a program may have.
pub const MAX_SLOTS: usize = 32;
/// The most operations that a program may have.
pub const MAX_OPS: u16 = 1024;
/// The largest width of anything, so that products of two fit 64 bits with room to spare.
pub const MAX_WIDTH: u32 = 1 << 24;

/// The most KV caches, and the most layers of a repetition.
pub const MAX_LAYERS: u32 = 1 << 12;

/// The widest head of an attention.
pub const MAX_HEAD_WIDTH: u32 = 256;

/// What a program is about.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Header {
    /// Tokens in the vocabulary.
    pub vocab_size: u32,
    /// Positions that the model was trained for.
    pub context_length: u32,
    /// Number of KV caches.
    pub kv_caches: u32,
    /// Values a position of one cache, for keys and as many for values.
    pub kv_width: u32,
    /// Tokens that end a text.
    pub stop_tokens: Vec<u32, 8>,
    /// Where activations lie.
    pub slots: Vec<Slot, MAX_SLOTS>,
    /// The slot that holds the logits in the end.
    pub logits: u16,
    /// Number of operations.
    pub ops: u16,
}

/// A place for activations: one column of `width` floats for every token.
///
/// Slots whose lifetimes do not overlap may share a place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Slot {
    /// Floats a column of the slots that lie before this one.
    pub offset: u32,
    /// Floats a column.
    pub width: u32,
    /// Holds columns only of those tokens whose logits are wanted.
    pub selected: bool,
}

/// Consecutive rows of a slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Value {
    /// The slot.
    pub slot: u16,
    /// The first row.
    pub first: u32,
    /// Number of rows.
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

/// The shape of an attention's heads.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Heads {
    /// Number of query heads.
    pub query: u32,
    /// Number of key and value heads (GQA); divides the number of query heads.
    pub kv: u32,
    /// Width of a head.
    pub width: u32,
}

/// An activation function.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Activation {
    /// x / (1 + exp(-x)), also called swish.
    Silu,
}

/// One step of a program. Variants are only ever appended: their order is the encoding.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub enum Op {
    /// Runs the next `ops` operations for layers 0 to `layers`.
    Repeat {
        /// Number of operations.
        ops: u16,
        /// Number of layers.
        layers: u32,
    },
    /// `output` = row of `weight` chosen by each token.
    Embed {
        /// Tensor [vocabulary, width].
        weight: PerLayer,
        /// Embedded tokens.
        output: Value,
    },
    /// `output` = `input` / sqrt(mean(`input`²) + epsilon) * `weight` (arXiv:1910.07467).
    RmsNorm {
        /// Vector [width].
        weight: PerLayer,
        /// Added to the mean of the squares.
        epsilon: f32,
        /// What is normalized.
        input: Value,
        /// The result, apart from the input.
        output: Value,
    },
    /// `output` = `weight` × `input`, added to what `output` holds if `accumulate`.
    MatMul {
        /// Tensor [output width, input width].
        weight: PerLayer,
        /// The columns to multiply.
        input: Value,
        /// The result, apart from the input.
        output: Value,
        /// Adds to the output.
        accumulate: bool,
    },
    /// `output` = cosines and sines of RoPE's angles for each token's position, then those of the
    /// angles by which a query is turned back before it meets the attention sinks.
    RotaryAngles {
        /// Vector [head width / 2] of inverse frequencies, scaling included.
        frequencies: PerLayer,
        /// Four values a frequency: all cosines, all sines, and the same for the sinks.
        output: Value,
    },
    /// Turns the pairs (i, i + width / 2) of each head by its angles, in place (arXiv:2104.09864).
    Rotary {
        /// The angles.
        angles: Value,
        /// The heads.
        value: Value,
        /// Width of a head.
        head_width: u32,
    },
    /// Appends keys and values to a cache, then attends to it causally.
    Attention {
        /// The KV cache.
        cache: PerLayer,
        /// The heads' shape.
        heads: Heads,
        /// What scores are multiplied with.
        scale: f32,
        /// Queries, rotated.
        query: Value,
        /// Keys, rotated.
        key: Value,
        /// Values.
        value: Value,
        /// RoPE's angles, to turn queries for the sinks.
        angles: Value,
        /// The result, apart from the inputs.
        output: Value,
    },
    /// `output` = activation(`gate`) * `up`, elementwise.
    Gated {
        /// The activation.
        activation: Activation,
        /// What is activated.
        gate: Value,
        /// What it is multiplied with.
        up: Value,
        /// The result, apart from both.
        output: Value,
    },
    /// `output` = the columns of `input` whose logits are wanted.
    Select {
        /// All columns.
        input: Value,
        /// The selected ones.
        output: Value,
    },
    /// Adds `weight` × `input` to `output`, where [`crate::steps::Planes`] says so: what the matrix
    /// of the [`Op::MatMul`] before it, the base plane, got wrong.
    Residual {
        /// Tensor [output width, input width].
        weight: PerLayer,
        /// The columns to multiply.
        input: Value,
        /// What is added to, apart from the input.
        output: Value,
    },
}

/// A row of the tensor table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tensor {
    /// How the numbers are stored.
    pub format: Format,
    /// Outputs of a matrix, 1 for a vector.
    pub rows: u32,
    /// Inputs of a matrix, length of a vector.
    pub columns: u32,
    /// Byte address in the paged space.
    pub address: u64,
}

impl Tensor {
    /// Bytes of a table row: format, rows, columns, reserved (u32 each), address (u64).
    pub const RECORD_BYTES: usize = 24;

    /// Length of the tensor in bytes.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.format.tensor_bytes(self.rows, self.columns)
    }

    /// The table row.
    #[must_use]
    pub fn to_record(&self) -> [u8; Self::RECORD_BYTES] {
        let mut record = [0; Self::RECORD_BYTES];
        let words = [self.format as u32, self.rows, self.columns, 0];
        let (head, address) = record.split_at_mut(16);
        for (bytes, word) in head.as_chunks_mut::<4>().0.iter_mut().zip(words) {
            *bytes = word.to_le_bytes();
        }
        address.copy_from_slice(&self.address.to_le_bytes());
        record
    }

    fn from_record(record: &[u8; Self::RECORD_BYTES]) -> Option<Self> {
        let [format, rows, columns, _] = words(record.first_chunk::<16>()?);
        Some(Self {
            format: Format::from_number(format)?,
            rows,
            columns,
            address: u64::from_le_bytes(*record.last_chunk::<8>()?),
        })
    }
}

fn words(bytes: &[u8; 16]) -> [u32; 4] {
    let mut words = [0; 4];
    for (word, bytes) in words.iter_mut().zip(bytes.as_chunks::<4>().0) {
        *word = u32::from_le_bytes(*bytes);
    }
    words
}

/// A program whose operations, slots and tensors have been checked against one another.
#[derive(Clone, Debug)]
pub struct Program<'a> {
    header: Header,
    ops: &'a [u8],
    tensors: &'a [[u8; Tensor::RECORD_BYTES]],
}

/// The operations from some point on.
#[derive(Clone, Copy, Debug)]
pub struct Ops<'a>(&'a [u8]);

impl Iterator for Ops<'_> {
    type Item = Op;

    fn next(&mut self) -> Option<Op> {
        let (op, rest) = postcard::take_from_bytes(self.0).ok()?;
        self.0 = rest;
        Some(op)
    }
}

impl<'a> Program<'a> {
    /// Reads a program and its tensor table, whose tensors lie at the addresses in `space`.
    ///
    /// # Errors
    /// Anything that does not fit together; a program that is returned can be run.
    pub fn parse(
        program: &'a [u8],
        tensors: &'a [u8],
        space: Range<u64>,
    ) -> Result<Self, LoadError> {
        let (header, ops): (Header, _) =
            postcard::take_from_bytes(program).map_err(|_| LoadError::Section(Section::Program))?;
        let (tensors, rest) = tensors.as_chunks();
        if !rest.is_empty() {
            return Err(LoadError::Section(Section::Tensors));
        }
        let program = Self { header, ops, tensors };
        program.check_header()?;
        program.check_tensors(&space)?;
        crate::check::check_ops(&program)?;
        Ok(program)
    }

    /// What the program is about.
    #[must_use]
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// All operations.
    #[must_use]
    pub fn ops(&self) -> Ops<'a> {
        Ops(self.ops)
    }

    /// The tensor with this number.
    #[must_use]
    pub fn tensor(&self, index: u32) -> Option<Tensor> {
        Tensor::from_record(self.tensors.get(index as usize)?)
    }

    /// The slot with this number.
    #[must_use]
    pub fn slot(&self, index: u16) -> Option<Slot> {
        self.header.slots.get(usize::from(index)).copied()
    }

    /// Floats a column of all slots together: of every token, and of selected ones.
    #[must_use]
    pub fn column_floats(&self) -> (u64, u64) {
        let end = |selected| {
            let slots = self.header.slots.iter().filter(|s| s.selected == selected);
            slots.map(|s| u64::from(s.offset) + u64::from(s.width)).max().unwrap_or(0)
        };
        (end(false), end(true))
    }

    /// Key and value heads of the attention that has the most.
    #[must_use]
    pub fn kv_heads(&self) -> u32 {
        let heads = self.ops().map(|op| match op {
            Op::Attention { heads, .. } => heads.kv,
            _ => 0,
        });
        heads.take(usize::from(self.header.ops)).max().unwrap_or(0)
    }

    /// The heads of the program's attentions; `None` if there are none, or they differ.
    #[must_use]
    pub fn attention_heads(&self) -> Option<Heads> {
        let mut all = self.steps(Planes::BASE).filter_map(|(op, _)| match op {
            Op::Attention { heads, .. } => Some(heads),
            _ => None,
        });
        let first = all.next()?;
        all.all(|heads| heads == first).then_some(first)
    }

    /// Columns of the widest matrix, a multiple of a group.
    #[must_use]
    pub fn widest_input(&self) -> u64 {
        let matrices = (0..self.tensors.len() as u32).filter_map(|i| self.tensor(i));
        let columns = matrices.filter(|t| t.format != Format::Vector).map(|t| t.columns);
        u64::from(columns.max().unwrap_or(0)).next_multiple_of(crate::quant::GROUP as u64)
    }

    /// Bytes of the longest unit that a page's edge may cut.
    #[must_use]
    pub fn longest_unit(&self) -> u64 {
        let tensors = (0..self.tensors.len() as u32).filter_map(|i| self.tensor(i));
        tensors.map(|t| t.format.unit_bytes() as u64).max().unwrap_or(0)
    }

    /// True if some matrix has a residual plane.
    #[must_use]
    pub fn has_residuals(&self) -> bool {
        let mut ops = self.ops().take(usize::from(self.header.ops));
        ops.any(|op| matches!(op, Op::Residual { .. }))
    }

    /// True if some matrix meets activations that are not quantized.
    #[must_use]
    pub fn has_float_matrices(&self) -> bool {
        let mut tensors = (0..self.tensors.len() as u32).filter_map(|i| self.tensor(i));
        tensors.any(|t| matches!(t.format, Format::F32 | Format::F16))
    }

    fn check_header(&self) -> Result<(), LoadError> {
        let h = &self.header;
        let widths = [h.vocab_size, h.context_length, h.kv_width];
        let slots = h.slots.iter().all(|s| s.offset <= MAX_WIDTH && s.width <= MAX_WIDTH);
        let logits = self.slot(h.logits).is_some_and(|s| s.selected && s.width >= h.vocab_size);
        let counts = h.vocab_size > 0 && h.ops <= MAX_OPS && h.kv_caches <= MAX_LAYERS;
        if widths.iter().all(|w| *w <= MAX_WIDTH) && slots && logits && counts {
            Ok(())
        } else {
            Err(LoadError::Section(Section::Program))
        }
    }

    fn check_tensors(&self, space: &Range<u64>) -> Result<(), LoadError> {
        for (index, record) in self.tensors.iter().enumerate() {
            let fits = Tensor::from_record(record).is_some_and(|t| {
                (1..=MAX_WIDTH).contains(&t.rows)
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

/// The fault of an operation, for [`crate::check`].
pub(crate) fn fault(index: u16, fault: Fault) -> LoadError {
    LoadError::Operation { index, fault }
}
