//! `metadata.json`: what the model is.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// What a model is, and where it comes from.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct Metadata {
    /// Version of the package format.
    pub omex_version: String,
    /// The model's name.
    pub name: String,
    /// What kind of model it is.
    pub model_architecture: Architecture,
    /// Format that it was converted from: `huggingface`, `gguf`, `llama2c`, `tflite`, `pytorch` or `onnx`; `random` weights came from nowhere.
    pub source_format: String,
    /// Tokens with a meaning of their own.
    pub tokens: TokenIds,
    /// CRC-32C of the other files that decide what the model says, by name: eight hexadecimal digits.
    pub files: BTreeMap<String, String>,
    /// CRC-32C of this file, with zeros for these eight hexadecimal digits.
    pub crc32c: String,
}

/// What kind of model it is.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct Architecture {
    /// The family, such as `llama`.
    #[serde(rename = "type")]
    pub family: String,
    /// Number of parameters; shared ones count once.
    pub parameters: u64,
    /// Precisions of the matrices, most used first, as `int8` or `int4+int8`; `int4+4` is int4 with
    /// a residual plane in int4.
    pub quantization: String,
    /// Width of the residual stream.
    pub hidden_size: u32,
    /// Width of the feed-forward layers.
    pub intermediate_size: u32,
    /// Number of blocks.
    pub layers: u32,
    /// Number of query heads.
    pub heads: u32,
    /// Number of key and value heads.
    pub kv_heads: u32,
    /// Width of a head.
    pub head_width: u32,
}

/// Tokens with a meaning of their own.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct TokenIds {
    /// Begins a text.
    #[serde(default)]
    pub bos: Option<u32>,
    /// End a text.
    #[serde(default)]
    pub eos: Vec<u32>,
}
