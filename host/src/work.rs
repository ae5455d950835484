//! What operations have to do in a pass: products with matrices, attention, and numbers that are
//! computed one by one.

use omex_core::arena::Plan;
use omex_core::ops::{Attend, Mask, Op, Operand, Reads};
use omex_core::program::{Per, Program, Tensor};
use omex_core::quant::Format;
use omex_core::simd::ATTENDED_AT_ONCE;
use omex_core::state::State;
use omex_core::state::kv::KvShape;

/// What an operation has to do.
#[derive(Default)]
pub(crate) struct Work {
    /// Parts of matrices, each with the columns that it meets.
    pub(crate) matrices: Vec<(Tensor, u32)>,
    /// Numbers that are computed one by one, those that take a series counted as [`SERIES`].
    pub(crate) elements: u64,
    /// What is attended to.
    pub(crate) attention: Option<Attention>,
}

/// How many additions and multiplications with loads and stores take as long as an exponential, a sine
/// or a quotient.
const SERIES: u64 = 10;
/// The core shares out products of so many bytes times columns, and attention to so many places times
/// columns; less is not worth another core.
const SHARED_BYTES: u64 = 64 << 10;
const SHARED_PLACES: u64 = 64;

/// Attention of an operation.
#[derive(Clone, Copy)]
pub(crate) struct Attention {
    /// The cache.
    pub(crate) shape: KvShape,
    /// Query heads that share a key head.
    pub(crate) group: u32,
    /// Places that the queries are shown, added up over query heads and columns.
    pub(crate) places: u64,
    /// Bytes of the cache that are read.
    pub(crate) bytes: u64,
    /// Whether it is shared out to several cores.
    pub(crate) is_shared: bool,
}

/// Whether the core shares out the product with a part of a matrix.
pub(crate) fn is_shared(tensor: &Tensor, columns: u32) -> bool {
    tensor.bytes() * u64::from(columns) >= SHARED_BYTES
}

/// What operations have to do in a pass over `columns` tokens of one text behind `position` others.
#[derive(Clone, Copy)]
pub(crate) struct Pass<'p> {
    pub(crate) program: &'p Program<'p>,
    pub(crate) plan: &'p Plan,
    pub(crate) columns: u32,
    pub(crate) position: u32,
}

impl Pass<'_> {
    /// What an operation has to do.
    pub(crate) fn of(&self, op: &Op, layer: u32) -> Work {
        let columns = if per(self.program, op) == Per::Token { self.columns } else { 1 };
        let mut matrices = vec![];
        // Rows that are looked up are not multiplied.
        if op.reads() == Reads::Whole || op.multiply_adds(self.program, layer) != (0, 0) {
            op.weights(&mut |weight| matrices.extend(self.program.tensor(weight.at(layer))));
        }
        matrices.retain(|tensor| tensor.format != Format::Vector);
        let attention = match op {
            Op::Attend(attend) => self.attention(attend, layer),
            _ => None,
        };
        Work {
            matrices: matrices.into_iter().map(|tensor| share(op, tensor, columns)).collect(),
            elements: elements(op) * u64::from(columns),
            attention,
        }
    }

    fn attention(&self, attend: &Attend, layer: u32) -> Option<Attention> {
        let state = self.program.state(attend.state.at(layer))?;
        let State::Kv { window, .. } = state else { return None };
        let (shape, visible) = (self.plan.cache_shape(&state)?, self.plan.window(window).visible);
        let heads = attend.query.width / shape.width.max(1);
        let end = self.position.saturating_add(self.columns);
        let seen = |column: u32| match attend.mask {
            Mask::Full => end.min(visible),
            Mask::Causal | Mask::Alibi => (self.position + column + 1).min(visible),
        };
        let block = ATTENDED_AT_ONCE as u64;
        let places = (0..self.columns).map(|c| u64::from(seen(c)).next_multiple_of(block));
        let bytes = shape.bytes() * u64::from(end.min(visible)) / u64::from(shape.capacity.max(1));
        Some(Attention {
            shape,
            group: (heads / shape.heads.max(1)).max(1),
            places: places.sum::<u64>() * u64::from(heads),
            bytes,
            is_shared: u64::from(end.min(visible)) * u64::from(self.columns) >= SHARED_PLACES,
        })
    }
}

/// The part of a matrix that some columns are multiplied with, and how many meet each row, as if
/// they chose rows evenly.
pub(crate) fn share(op: &Op, tensor: Tensor, columns: u32) -> (Tensor, u32) {
    let (rows, of_one) = (u64::from(tensor.rows), u64::from(op.part_per_token(&tensor).rows));
    let met = (of_one * u64::from(columns)).min(rows);
    let width = (of_one * u64::from(columns)).div_ceil(met.max(1));
    (Tensor { rows: met as u32, ..tensor }, width as u32)
}

/// How many columns an operation is played over, by what it writes.
fn per(program: &Program<'_>, op: &Op) -> Per {
    let mut per = Per::Token;
    op.operands(&mut |operand| {
        if let Operand::Write(value) | Operand::Update(value) = operand {
            per = program.slot(value.slot).map_or(per, |slot| slot.per);
        }
    });
    per
}

/// Numbers that an operation computes for a column: those that it writes, and those that are brought
/// into the form that kernels or a cache have.
fn elements(op: &Op) -> u64 {
    let mut numbers = 0;
    op.operands(&mut |operand| match (op, operand) {
        (_, Operand::Write(value) | Operand::Update(value)) => numbers += u64::from(value.width),
        (Op::Linear(_) | Op::Store(_), Operand::Read(value)) => numbers += u64::from(value.width),
        _ => {}
    });
    match op {
        Op::Angles(_)
        | Op::Gated(_)
        | Op::Activate(_)
        | Op::SoftCap(_)
        | Op::Softmax(_)
        | Op::Route(_) => SERIES * numbers,
        _ => numbers,
    }
}
