//! A model that is open: what it is, and how it is planned. All that run it may share it.

use super::failure::failure_of;
use super::tables::Tables;
use crate::cancel::Cancel;
use crate::pager::{PageSource, Progress};
use crate::plan::MemoryPlan;
use crate::pressure::PressureWatch;
use crate::{Error, Result};
use omex_core::error::RunError;
use omex_core::ops::Op;
use omex_core::program::{ALL, Program};
use omex_core::state::State;
use omex_core::token::{EncodeOptions, Tokenizer};
use omex_hal::{PageError, PageErrorKind};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

/// A model opened and planned, without what runs it.
pub struct Model {
    pub(super) tables: Tables,
    pub(super) plan: MemoryPlan,
    /// Bytes of the budget that texts may take.
    pub(super) for_texts: u64,
    /// If the precision was left to the machine, and it has a choice.
    pub(super) watch: Option<PressureWatch>,
    pub(super) source: PageSource,
    /// Of a pager that reads.
    pub(super) progress: Option<Arc<Progress>>,
    /// Where KV caches are spilled to, and the bytes read back from there.
    pub(super) spilled: Option<(PathBuf, Arc<AtomicU64>)>,
    pub(super) cancel: Cancel,
}

impl Model {
    /// What stops all work on this model.
    #[must_use]
    pub fn cancel(&self) -> &Cancel {
        &self.cancel
    }

    /// Whether there is a tokenizer.
    #[must_use]
    pub fn has_tokenizer(&self) -> bool {
        self.tables.tokenizer.is_some()
    }

    /// The plan.
    #[must_use]
    pub fn plan(&self) -> &MemoryPlan {
        &self.plan
    }

    /// The program.
    ///
    /// # Errors
    /// None once the session is open.
    pub fn program(&self) -> Result<Program<'_>> {
        self.tables.program()
    }

    /// CRC-32C of the program with the tensor table, and of the pages' checksums: the same for the
    /// same model in the same form.
    pub(crate) fn checksums(&self, crc32c: fn(u32, &[u8]) -> u32) -> [u32; 2] {
        let Tables { program, tensors, checksums, .. } = &self.tables;
        [crc32c(crc32c(0, program), tensors), crc32c(0, checksums.as_flattened())]
    }

    /// What chooses which layers play corrections, by the pressure on memory; `None` if the
    /// precision is not automatic or there is nothing to choose.
    #[must_use]
    pub fn pressure_watch(&self) -> Option<&PressureWatch> {
        self.watch.as_ref()
    }

    /// Tokens whose logits one pass can compute.
    #[must_use]
    pub fn logit_columns(&self) -> usize {
        self.plan.plan.logit_columns as usize
    }

    /// Texts that can be under way at once.
    #[must_use]
    pub fn sequences(&self) -> usize {
        self.plan.plan.sequences as usize
    }

    /// CRC-32C over the model's tables: its program, its weights' checksums, its tokenizer.
    #[must_use]
    pub fn crc32c(&self) -> u32 {
        let Tables { program, tensors, checksums, tokenizer, .. } = &self.tables;
        let parts =
            [program, tensors, checksums.as_flattened(), tokenizer.as_deref().unwrap_or(&[])];
        parts.into_iter().fold(0, crc32c::crc32c_append)
    }

    /// The tokenizer's tables, if the model has a tokenizer.
    #[must_use]
    pub fn tokenizer_tables(&self) -> Option<Arc<[u8]>> {
        self.tables.tokenizer.clone()
    }

    /// The tokenizer.
    ///
    /// # Errors
    /// The model has none, or its tables are damaged.
    pub fn tokenizer(&self) -> Result<Tokenizer<&[u8]>> {
        self.tables.tokenizer()
    }

    /// Says that the tokenizer's tables are damaged.
    pub fn bad_tokenizer(&self, error: &dyn std::fmt::Display) -> Error {
        self.tables.bad_tokenizer(error)
    }

    /// The bytes of the budget that texts may take; all if there is none.
    #[must_use]
    pub fn for_texts(&self) -> u64 {
        self.for_texts
    }

    /// A text's tokens, with those that the tokenizer puts around a text.
    ///
    /// # Errors
    /// A model without a tokenizer, damaged tables, or a text too long for the budget.
    pub fn encode(&self, text: &str) -> Result<Vec<u32>> {
        self.tables.encode(text, EncodeOptions::default(), self.for_texts)
    }

    /// As [`Self::encode`], with other options.
    ///
    /// # Errors
    /// Those of [`Self::encode`].
    pub fn encode_with(&self, text: &str, options: EncodeOptions) -> Result<Vec<u32>> {
        self.tables.encode(text, options, self.for_texts)
    }

    /// The text of some tokens; one outside of the vocabulary has none.
    ///
    /// # Errors
    /// A model without a tokenizer, or damaged tables.
    pub fn decode(&self, ids: &[u32]) -> Result<String> {
        self.tables.decode(ids)
    }

    /// What was read of the weights so far, unless they are mapped.
    #[must_use]
    pub fn progress(&self) -> Option<Arc<Progress>> {
        self.progress.clone()
    }

    /// A counter of the bytes of KV caches read from storage so far, if some lie there.
    #[must_use]
    pub fn kv_bytes_read(&self) -> Option<Arc<AtomicU64>> {
        self.spilled.as_ref().map(|(_, bytes)| Arc::clone(bytes))
    }

    /// Where pages come from.
    #[must_use]
    pub fn source(&self) -> PageSource {
        self.source
    }

    /// Says what an error of a pass over this model means, with the file and the place in it.
    pub fn failure(&self) -> impl Fn(RunError) -> Error + use<> {
        let (path, space) = (self.tables.path.clone(), self.tables.space.clone());
        let folder = self.spilled.as_ref().map(|(folder, _)| folder.clone());
        let format = self.plan.kv_format;
        move |error| match (error, &folder) {
            (RunError::Page(PageError { kind: PageErrorKind::Cancelled, .. }), _) => {
                Error::Interrupted
            }
            (RunError::NotFinite, _) => Error::NotFinite { path: path.clone(), format },
            (RunError::Kv(error), Some(folder)) => Error::Kv { folder: folder.clone(), error },
            (error, _) => failure_of(&path, &space, error),
        }
    }
}

/// True if a pass that was cut off changed nothing that the next one can't set right: there are KV
/// caches, and no other states.
pub(crate) fn holds_only_keys(program: &Program<'_>) -> bool {
    program.states().all(|state| matches!(state, State::Kv { .. }))
}

/// True if some operation attends to what another one has stored for itself.
pub(crate) fn shares_caches(program: &Program<'_>) -> bool {
    let mut stored = None;
    program.steps(ALL).any(|(op, layer)| match op {
        Op::Store(op) => {
            stored = Some(op.state.at(layer));
            false
        }
        Op::Attend(op) => stored.take() != Some(op.state.at(layer)),
        _ => false,
    })
}
