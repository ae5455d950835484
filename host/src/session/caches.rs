//! Where states lie.

use crate::spill::Spill;
use crate::states::StateMemory;
use omex_core::state::StateStore;

/// Where states lie.
pub(super) enum Caches {
    Memory(StateMemory),
    /// KV caches, some of them on storage.
    Spilled(Box<Spill>),
}

impl Caches {
    pub(super) fn store(&mut self) -> &mut dyn StateStore {
        match self {
            Self::Memory(memory) => memory,
            Self::Spilled(spill) => spill.as_mut(),
        }
    }
}
