//! What is decided before a model runs.

use crate::state::kv::KvFormat;

/// What is decided for a device: how much of everything there is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Plan {
    /// The most tokens in one pass.
    pub columns: u32,
    /// The most tokens in one pass whose logits are wanted.
    pub logit_columns: u32,
    /// Positions that a KV cache holds.
    pub kv_capacity: u32,
    /// The first of them, kept for ever as attention sinks (arXiv:2309.17453); the others form a
    /// ring.
    pub kv_sinks: u32,
    /// How keys and values are stored.
    pub kv_format: KvFormat,
    /// Texts that are under way at once, each with KV caches of its own.
    pub sequences: u32,
}
