//! How a model is to be run.

use crate::cancel::Cancel;
use crate::pager::PageSource;
use crate::plan::{Kv, RunPrecision};

/// How a model is to be run.
#[derive(Clone, Debug, Default)]
pub struct SessionOptions {
    /// Bytes that may be used; if `None`, all, or what is available where the plan needs more.
    pub memory: Option<u64>,
    /// Positions of the KV cache; the planner chooses if `None`. An image was packed for some.
    pub context: Option<u32>,
    /// How keys and values are stored; the planner chooses if `None`. An image was packed for one.
    pub kv: Option<Kv>,
    /// Threads; as many as the machine has cores if `None`.
    pub threads: Option<usize>,
    /// Logits of this many tokens are wanted in one pass; 0 counts as 1.
    pub logit_columns: u32,
    /// Texts that are under way at once; 0 counts as 1. An image is for one.
    pub sequences: u32,
    /// Positions that these take on average: memory for all of them to be as long as the context is
    /// only set aside where it has no other use, and who runs them sees to it that they fit, as
    /// [`crate::batch`] does. As many as the context if `None`.
    pub text_positions: Option<u32>,
    /// Bytes of these that texts take, besides [`TEXT_BYTES`](crate::tokenizer::TEXT_BYTES).
    pub texts: u64,
    /// Where weights come from; the planner chooses if `None`.
    pub pages: Option<PageSource>,
    /// The planes to read of weights that have two.
    pub precision: RunPrecision,
    /// Stops what is done with the model, also within a pass.
    pub cancel: Cancel,
}
