//! Where KV caches lie.

use crate::lending::LendingCaches;
use crate::spill::Spill;

/// Where KV caches lie.
pub(super) enum Caches {
    /// In the arena, among other states.
    Arena,
    /// In memory of their own, of which the pager has what they don't use yet.
    Lending(LendingCaches),
    /// Some on storage.
    Spilled(Box<Spill>),
}
