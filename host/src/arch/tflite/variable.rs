//! What is known of a variable.

use super::super::tensors::View;
use crate::import::Array;

/// A variable, as far as the graph is drawn.
#[derive(Clone, Debug, Default)]
pub(super) struct Variable {
    /// What it holds before the first inference, if the file says so.
    pub(super) initial: Option<Array>,
    /// What it holds by now.
    pub(super) now: Option<View>,
    /// What has it from one inference to the next; one that is assigned before it is read has nothing.
    pub(super) state: Option<String>,
}
