//! Models as other programs store them.
//!
//! Every reader presents a [`Checkpoint`]: the hyperparameters, and tensors by their Hugging Face
//! names with rows in the order in which Hugging Face stores them, whatever the file's own names
//! and order are.

use crate::{Result, tokenizer};

/// The hyperparameters of a Llama-family model.
#[derive(Clone, Debug, PartialEq)]
pub struct LlamaConfig {
    /// Width of the residual stream.
    pub hidden_size: u32,
    /// Width of the feed-forward layer.
    pub intermediate_size: u32,
    /// Number of blocks.
    pub layers: u32,
    /// Number of query heads.
    pub heads: u32,
    /// Number of key and value heads (GQA).
    pub kv_heads: u32,
    /// Width of a head.
    pub head_dim: u32,
    /// Number of tokens in the vocabulary.
    pub vocab_size: u32,
    /// Positions that the model was trained for.
    pub context_length: u32,
    /// Epsilon of RMSNorm.
    pub rms_norm_epsilon: f32,
    /// Inverse frequencies of RoPE, scaling included: `head_dim / 2` values.
    pub rope_frequencies: Vec<f32>,
    /// The output matrix is the embedding.
    pub tied_embeddings: bool,
    /// Token that begins a text, if the model has one.
    pub bos: Option<u32>,
    /// Tokens that end a text.
    pub eos: Vec<u32>,
}

/// How a file stores the numbers of a tensor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Encoding {
    /// 32-bit IEEE floats.
    F32,
    /// 16-bit IEEE floats.
    F16,
    /// bfloat16.
    Bf16,
    /// GGUF Q8_0: 32 values a block, f16 scale then 32 signed bytes.
    Q8_0,
    /// GGUF Q4_0: 32 values a block, f16 scale then 16 bytes, value = (nibble - 8) * scale; low
    /// nibbles hold values 0 to 15, high nibbles 16 to 31.
    Q4_0,
}

/// The shape and encoding of a tensor. A vector is one row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TensorInfo {
    /// Rows: outputs of a matrix, 1 for a vector.
    pub rows: u32,
    /// Columns: inputs of a matrix, length of a vector.
    pub columns: u32,
    /// How the numbers are stored.
    pub encoding: Encoding,
}

/// A model as another program stored it.
pub trait Checkpoint {
    /// The hyperparameters.
    fn config(&self) -> &LlamaConfig;

    /// The shape and encoding of the tensor with this Hugging Face name.
    fn tensor(&self, name: &str) -> Option<TensorInfo>;

    /// Reads one row as floats; `out` has exactly as many elements as the tensor has columns.
    fn read_row(&self, name: &str, row: u32, out: &mut [f32]) -> Result<()>;

    /// Reads one row as it is stored; `out` is resized to its length in bytes.
    fn read_row_bytes(&self, name: &str, row: u32, out: &mut Vec<u8>) -> Result<()>;

    /// The tokenizer stored with the model, if any.
    fn tokenizer(&self) -> Option<&tokenizer::Spec>;
}
