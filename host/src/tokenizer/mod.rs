//! Tokenizers as other programs store them, compiled into the tables that the core reads.

/// A tokenizer, as data.
#[derive(Clone, Debug, PartialEq)]
pub struct Spec {}
