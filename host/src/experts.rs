//! Memory for the experts of a mixture, where weights stream: how it is cut, and what it saves.
//!
//! A pinned tile of what every pass reads saves a read in every pass, an expert that is kept only in
//! passes that choose it. So experts get a small region to be read into while others are computed
//! with, and of what is left of a budget only what nothing else needs.

use crate::pager::{aside, aside_bytes};
use omex_core::ops::Op;
use omex_core::program::{ALL, Program, Tensor};
use serde::Serialize;

/// An expert's rows of a matrix are read in about as many pieces, so that what lies around them
/// costs little, and several reads are under way at once.
const PIECES: u64 = 8;
/// The most that is read at once.
const LONGEST: u64 = 4 << 20;
/// The most pieces that are kept: each is looked at when one has to give way.
const MOST_PIECES: u64 = 1 << 14;
/// The fewest: one in use, the others being read.
const LEAST_PIECES: usize = 4;

/// Experts of a plan that streams weights.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct ExpertMemory {
    /// Bytes of all experts.
    pub all: u64,
    /// Bytes of those that are kept, which are the ones used most.
    pub kept: u64,
}

impl ExpertMemory {
    /// The part of these bytes of experts that has to be read, if tokens chose evenly.
    #[must_use]
    pub fn missing(&self, bytes: u64) -> u64 {
        let missing = u128::from(self.all.saturating_sub(self.kept));
        (u128::from(bytes) * missing / u128::from(self.all.max(1))) as u64
    }
}

/// How what is read out of order is cut, and how many pieces are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Pieces {
    page_size: u32,
    pub(crate) pages: u32,
    pub(crate) count: usize,
}

impl Pieces {
    /// Pieces for a program's experts beside a ring of `ring_tiles` tiles of `tile_pages` pages; or
    /// the few that an embedding's rows need.
    pub(crate) fn new(
        experts: Option<&Experts>,
        page_size: u32,
        tile_pages: u32,
        ring_tiles: u32,
    ) -> Self {
        let Some(experts) = experts else {
            let (pages, count) = aside(page_size);
            return Self { page_size, pages, count };
        };
        let page = u64::from(page_size);
        let fine = (experts.largest / PIECES).min(LONGEST).min(u64::from(tile_pages) * page);
        let wanted = fine.max(experts.all / MOST_PIECES).max(4096) / page;
        let pages = 1 << wanted.max(1).ilog2();
        let pieces = Self { page_size, pages, count: LEAST_PIECES };
        let of_ring = u64::from(ring_tiles) * u64::from(tile_pages) / u64::from(pages);
        pieces.of(of_ring.min(pieces.most(experts)))
    }

    fn of(self, count: u64) -> Self {
        Self { count: (count as usize).max(LEAST_PIECES), ..self }
    }

    /// As many pieces as all experts lie in, at most.
    fn most(&self, experts: &Experts) -> u64 {
        let piece = u64::from(self.page_size) * u64::from(self.pages);
        (experts.all / piece + 2 * experts.matrices).min(MOST_PIECES)
    }

    /// Bytes of memory that they take.
    pub(crate) fn bytes(&self) -> u64 {
        aside_bytes(self.page_size, self.pages, self.count)
    }

    /// As many more pieces as fit into `left` bytes and are of use.
    pub(crate) fn grown(self, experts: &Experts, left: u64) -> Self {
        let more = left / Self { count: 1, ..self }.bytes().max(1);
        let count = (self.count as u64 + more).min(self.most(experts));
        self.of(count.max(self.count as u64))
    }

    /// What of the experts they hold.
    pub(crate) fn memory(&self, experts: &Experts) -> ExpertMemory {
        let held = self.count as u64 * u64::from(self.page_size) * u64::from(self.pages);
        ExpertMemory { all: experts.all, kept: held.min(experts.all) }
    }
}

/// What a planner needs to know of a program's experts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Experts {
    /// Bytes of all of them.
    all: u64,
    /// Most bytes of one's rows of a matrix.
    largest: u64,
    /// Number of matrices.
    matrices: u64,
}

impl Experts {
    /// Those of a program, if it has any.
    pub(crate) fn of(program: &Program<'_>) -> Option<Self> {
        let mut found = Self::default();
        for (op, layer) in program.steps(ALL) {
            let Op::Experts(experts) = op else { continue };
            op.weights(&mut |weight| {
                let bytes = program.tensor(weight.at(layer)).map_or(0, |tensor| tensor.bytes());
                found.all += bytes;
                found.largest = found.largest.max(bytes / u64::from(experts.experts.max(1)));
                found.matrices += 1;
            });
        }
        (found.matrices > 0).then_some(found)
    }
}

/// Bytes that an operation of a plan reads from storage of a matrix whose rows its tokens choose, as
/// they choose this part of it.
pub(crate) fn read_of(memory: Option<ExpertMemory>, op: &Op, part: &Tensor) -> u64 {
    match (memory, op) {
        (Some(memory), Op::Experts(_)) => memory.missing(part.bytes()),
        _ => 0,
    }
}
