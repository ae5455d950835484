//! Tokenizers as other programs store them, compiled into the tables that the core reads.

/// A tokenizer, as data.
#[derive(Clone, Debug, PartialEq)]
pub struct Spec {}

/// A tokenizer as the metadata of a GGUF file describes it (keys `tokenizer.ggml.*`).
#[derive(Clone, Debug, Default, PartialEq)]
pub struct GgufVocabulary {
    /// The algorithm: "llama" is SentencePiece BPE, "gpt2" is byte-level BPE.
    pub model: String,
    /// The name of the pre-tokenizer of a byte-level BPE.
    pub pre: Option<String>,
    /// The tokens, as the algorithm spells them.
    pub tokens: Vec<Vec<u8>>,
    /// The tokens' scores; none, or as many as tokens.
    pub scores: Vec<f32>,
    /// 1 normal, 2 unknown, 3 control, 4 user-defined, 5 unused, 6 byte; none, or as many as tokens.
    pub token_types: Vec<i32>,
    /// The merges of a byte-level BPE, best first: two tokens with a space between.
    pub merges: Vec<String>,
    /// Token that begins a text.
    pub bos: Option<u32>,
    /// Token that ends a text.
    pub eos: Option<u32>,
    /// Token for what no other token spells.
    pub unknown: Option<u32>,
    /// Whether [`Self::bos`] is put before every text.
    pub add_bos: Option<bool>,
    /// Whether [`Self::eos`] is put behind every text.
    pub add_eos: Option<bool>,
    /// Whether a space is put before every text.
    pub add_space_prefix: Option<bool>,
}
