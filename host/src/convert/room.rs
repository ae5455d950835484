//! What a conversion takes of memory, and how much it does at a time so that this holds.
//!
//! Sources are read into buffers and never mapped, so all that the process has resident is counted
//! here. Factors are bounds of what was measured.

use super::job::Job;
use super::options::TokenizerChoice;
use super::planned::Planned;
use super::weights::WeightLayout;
use crate::arch::Data;
use crate::import::{Container, TokenizerSource};
use crate::memory;
use crate::package::WeightIndex;
use crate::{Error, Result};
use omex_core::quant::{Format, PANEL};
use std::path::Path;

/// Bytes written at once: the operating system keeps them in one piece, so that a map of the file
/// needs few entries of the page tables. Decoding straight from the page cache is half as fast again.
pub(super) const WRITE_BYTES: usize = 4 << 20;

/// A program that has done nothing yet, its threads, and what an allocator keeps.
const BASE: u64 = 24 << 20;
/// What is known of a tensor: its name, where it lies, and what it becomes.
const TENSOR: u64 = 2048;
/// Numbers that are read and encoded together: about as many as are written at once.
const BATCH: u64 = 2 << 20;

/// Memory that a conversion may take.
#[derive(Clone, Copy, Debug)]
pub(super) struct Room {
    /// For what is done a part at a time; `None` without a limit.
    left: Option<u64>,
    /// Bytes that a number takes while it is encoded.
    number: u64,
}

impl Room {
    /// The room of a conversion within its limit.
    ///
    /// # Errors
    /// A limit that is too small.
    pub(super) fn new(job: &Job<'_>, layout: &WeightLayout, calibrating: u64) -> Result<Self> {
        let number = layout.in_order().map(bytes_a_number).max().unwrap_or(0);
        let Some(given) = job.options.memory else { return Ok(Self { left: None, number }) };
        let base = base(job.source, layout);
        let tokenizer = tokenizer(job.source, job.options.tokenizer);
        let least = layout.in_order().map(least).max().unwrap_or(0) + 2 * WRITE_BYTES as u64;
        let parts = [
            (base, "the program itself and what it knows of the tensors"),
            (base + least, "a part of the largest tensor"),
            (base + tokenizer, "the tokenizer (--no-tokenizer leaves it out)"),
            (base + calibrating, "calibrating (--no-calibration leaves it out)"),
            // As by a header that is longer than any should be.
            (memory::peak().unwrap_or(0), "what the source says of itself"),
        ];
        let (needed, part) = parts.into_iter().max_by_key(|(bytes, _)| *bytes).unwrap_or_default();
        if needed > given {
            return Err(Error::Room { path: job.source.path().to_owned(), part, needed, given });
        }
        Ok(Self { left: Some(given - base), number })
    }

    /// Numbers that are read and encoded together.
    pub(super) fn batch(&self) -> u32 {
        let left = self.left.map(|left| left.saturating_sub(2 * WRITE_BYTES as u64));
        let fit = left.map_or(BATCH, |left| left / self.number.max(1));
        fit.min(BATCH) as u32
    }

    /// Bytes for what calibrating keeps.
    pub(super) fn calibrating(&self) -> u64 {
        self.left.or_else(memory::usable).unwrap_or(u64::MAX)
    }
}

/// What stays resident all the time.
pub(super) fn base(source: &dyn Container, layout: &WeightLayout) -> u64 {
    let made = layout.in_order().map(|tensor| match &tensor.plan.data {
        Data::Stored(_) => 0,
        Data::Computed(numbers) => 4 * numbers.len() as u64,
        Data::Raw(bytes) => bytes.len() as u64,
    });
    BASE + source.kept_bytes() + index(&layout.index()) + made.sum::<u64>()
}

/// What the index takes while it is written or read: as text, and as what the text says.
pub(super) fn index(index: &WeightIndex) -> u64 {
    let checksums: usize = index.files.iter().map(|file| file.page_crc32c.len()).sum();
    4 * checksums as u64 + TENSOR * index.tensors.len() as u64
}

/// Bytes that a number takes while it is encoded: as a float, in a group, and in panels of the part
/// under way, twice, and of the last one, whose buffers may have grown to twice their length.
fn bytes_a_number(tensor: &Planned) -> u64 {
    let encoded = match tensor.format {
        Format::F32 | Format::Vector => 24,
        Format::F16 => 12,
        Format::Int8 | Format::Channels => 7,
        Format::Int4 => 4,
    };
    let turned = if tensor.plan.sources().iter().any(|source| source.transposed) { 8 } else { 0 };
    8 + encoded + turned
}

/// The least that writing a tensor takes: a panel at a time, or all of one that has none.
fn least(tensor: &Planned) -> u64 {
    let columns = u64::from(tensor.plan.columns);
    let numbers = match (&tensor.plan.data, tensor.format) {
        (Data::Stored(_), Format::Vector) => u64::from(tensor.plan.rows) * columns,
        (Data::Stored(_), _) => PANEL as u64 * columns,
        // A copy of what is there already.
        _ => return tensor.bytes(),
    };
    numbers * bytes_a_number(tensor)
}

/// What a tokenizer takes while it is read and compiled, from how long it is.
fn tokenizer(source: &dyn Container, choice: TokenizerChoice<'_>) -> u64 {
    const LEAST: u64 = 24 << 20;
    let of_file = |path: &Path| {
        let json = path.extension().is_some_and(|ending| ending == "json");
        let length = path.metadata().map_or(0, |found| found.len());
        LEAST + length * if json { 20 } else { 110 }
    };
    match (choice, source.tokenizer()) {
        (TokenizerChoice::None, _) | (TokenizerChoice::Own, None) => 0,
        (TokenizerChoice::File(path), _) => of_file(path),
        (_, Some(TokenizerSource::Gguf(vocabulary))) => {
            LEAST + 2048 * vocabulary.tokens.len() as u64
        }
        (_, Some(own)) => own.path().map_or(0, of_file),
    }
}
