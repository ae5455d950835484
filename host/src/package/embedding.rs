//! `postprocessors/embedding.json`: how a text's hidden states become one vector.

use crate::{Error, Result};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// The file's name in a package.
pub(crate) const EMBEDDING: &str = "postprocessors/embedding.json";

/// How a text becomes a vector.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct EmbeddingSettings {
    /// What is made of the hidden states of a text's tokens.
    pub pooling: Pooling,
    /// Divides the vector by its length.
    #[serde(default)]
    pub normalize: bool,
    /// Tokens of a text that count; those behind are left out. As many as the context if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_tokens: Option<u32>,
    /// What texts of some kind begin with, by the kind's name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub prompts: BTreeMap<String, String>,
    /// The kind of texts that come without one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub default_prompt: Option<String>,
}

/// What is made of the hidden states of a text's tokens.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum Pooling {
    /// Their mean.
    #[default]
    Mean,
    /// Their sum, divided by the square root of their number.
    MeanSqrtLength,
    /// The largest of each number.
    Max,
    /// The first token's.
    FirstToken,
    /// The last token's.
    LastToken,
}

impl EmbeddingSettings {
    /// What texts of a kind begin with; nothing for those without one if there is no default.
    ///
    /// # Errors
    /// A kind that the model does not know.
    pub fn prompt(&self, kind: Option<&str>) -> Result<&str> {
        let Some(kind) = kind.or(self.default_prompt.as_deref()) else { return Ok("") };
        self.prompts.get(kind).map(String::as_str).ok_or_else(|| {
            let known: Vec<_> = self.prompts.keys().map(String::as_str).collect();
            let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
            Error::Usage(format!("no prompt \"{kind}\": the model has {known}"))
        })
    }
}
