//! What may come next in a text: asked before each token is chosen, whoever guessed it.

use crate::Result;
use omex_core::draft::Drafted;

/// A rule that a text keeps to, at one place of it.
pub trait Mask {
    /// Sets the logits, `[vocab_size]`, of all tokens that may not come next to negative infinity. False
    /// if none may: the text has to end.
    ///
    /// # Errors
    /// A rule that can't be followed.
    fn apply(&mut self, logits: &mut [f32]) -> Result<bool>;

    /// Goes on with the token that was chosen, which ends no text.
    ///
    /// # Errors
    /// Those of [`Mask::apply`].
    fn accept(&mut self, token: u32) -> Result<()>;

    /// Whether nothing may follow.
    fn has_ended(&self) -> bool;

    /// Removes guesses that would not be chosen, with those behind them: running them is no use.
    ///
    /// # Errors
    /// Those of [`Mask::apply`].
    fn prune(&mut self, draft: &mut Vec<Drafted>) -> Result<()>;
}
