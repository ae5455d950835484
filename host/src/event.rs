//! What is told while a text is generated.

use crate::Result;
use std::time::Instant;

/// What is told while a text is generated.
#[derive(Clone, Copy, Debug)]
pub enum Event<'e> {
    /// A pass was run.
    Pass {
        /// When it began.
        began: Instant,
        /// Tokens of the text that it ran.
        tokens: usize,
    },
    /// The whole prompt was run.
    Prompt,
    /// The text goes on.
    Token {
        /// The token.
        id: u32,
        /// What can be read with it: a character may take several tokens. Empty if the model has no
        /// tokenizer.
        text: &'e str,
    },
    /// The text has ended, with what could not be read until now.
    End {
        /// The rest of it.
        text: &'e str,
    },
}

/// Is told what happens; an error ends the text.
pub type Listener<'l> = &'l mut dyn FnMut(Event<'_>) -> Result<()>;
