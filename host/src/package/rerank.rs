//! `postprocessors/rerank.json`: how two texts are put together, and what becomes of the scores of both.

use serde::{Deserialize, Serialize};

/// The file's name in a package.
pub(crate) const RERANK: &str = "postprocessors/rerank.json";

/// How a query and a document become scores.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RerankSettings {
    /// What both are put together of, part after part.
    pub template: Vec<PairPart>,
    /// What is made of the scores.
    #[serde(default)]
    pub activation: ScoreActivation,
    /// Tokens of both that count; the ends of longer ones are left out. As many as the context if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_tokens: Option<u32>,
}

/// A part of a pair, in some segment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(tag = "part", rename_all = "snake_case", deny_unknown_fields)]
pub enum PairPart {
    /// These tokens.
    Tokens {
        /// Their ids.
        ids: Vec<u32>,
        /// Their segment.
        segment: u8,
    },
    /// What is asked.
    Query {
        /// Its segment.
        segment: u8,
    },
    /// What may answer it.
    Document {
        /// Its segment.
        segment: u8,
    },
}

/// What is made of a score.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum ScoreActivation {
    /// Nothing.
    #[default]
    Identity,
    /// 1 / (1 + exp(-score)).
    Sigmoid,
}

impl ScoreActivation {
    /// What becomes of a score.
    #[must_use]
    pub fn of(self, score: f32) -> f32 {
        match self {
            Self::Identity => score,
            Self::Sigmoid => 1.0 / (1.0 + libm::expf(-score)),
        }
    }
}
