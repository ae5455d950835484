//! Built without the feature `constrain`: no text keeps to anything.

use omex::Result;
use omex::mask::Mask;
use omex::session::Tables;
use omex_core::draft::Drafted;

#[derive(clap::Args, Clone, Debug)]
pub(crate) struct RuleArgs {}

/// There is none.
pub(crate) enum Constraint {}

impl RuleArgs {
    pub(crate) fn open(&self, _tables: &Tables) -> Result<Option<Constraint>> {
        Ok(None)
    }
}

pub(crate) fn tell_of(_constraint: &mut Option<Constraint>) {}

impl Constraint {
    pub(crate) fn bytes(&self) -> u64 {
        match *self {}
    }

    pub(crate) fn is_complete(&mut self) -> bool {
        match *self {}
    }

    pub(crate) fn fork(&self) -> Self {
        match *self {}
    }

    pub(crate) fn crc32c(&self) -> u32 {
        match *self {}
    }

    pub(crate) fn fork_bytes(&self) -> u64 {
        match *self {}
    }

    pub(crate) fn restart(&mut self) -> Result<()> {
        match *self {}
    }
}

impl Mask for Constraint {
    fn apply(&mut self, _logits: &mut [f32]) -> Result<bool> {
        match *self {}
    }

    fn accept(&mut self, _token: u32) -> Result<()> {
        match *self {}
    }

    fn has_ended(&self) -> bool {
        match *self {}
    }

    fn prune(&mut self, _draft: &mut Vec<Drafted>) -> Result<()> {
        match *self {}
    }
}
