//! `graph.json`: what a model computes, as named operations over named values.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

/// A computation graph. A block is stored once, as a subgraph, and repeated for each layer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct Graph {
    /// Version of this file's format: 1.
    pub format: u32,
    /// Tokens in the vocabulary.
    pub vocab_size: u32,
    /// Positions that the model was trained for.
    pub context_length: u32,
    /// KV caches.
    pub kv: KvShape,
    /// Name of the value that holds the logits in the end.
    pub logits: String,
    /// Intermediate values by name.
    pub values: BTreeMap<String, ValueShape>,
    /// Operations that are repeated, by name.
    pub subgraphs: BTreeMap<String, Vec<Node>>,
    /// The operations, in order.
    pub nodes: Vec<Node>,
}

/// The KV caches of a model.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct KvShape {
    /// Number of caches.
    pub caches: u32,
    /// Values a position of one cache, for keys and as many for values.
    pub width: u32,
}

/// The shape of a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct ValueShape {
    /// Floats a token.
    pub width: u32,
    /// Exists only for tokens whose logits are wanted.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub selected: bool,
}

/// A value, or some of its rows, written `name` or `name[first..end]`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(try_from = "String", into = "String")]
#[schemars(with = "String", rename = "ValueRef")]
pub struct ValueRef {
    /// The value's name.
    pub name: String,
    /// The rows, if not all.
    pub rows: Option<(u32, u32)>,
}

/// An operation. Names of weights may contain `{layer}`, the number of the repetition.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(tag = "op", rename_all = "snake_case")]
pub enum Node {
    /// Runs a subgraph once for each layer.
    Repeat {
        /// The subgraph's name.
        subgraph: String,
        /// Number of layers.
        layers: u32,
    },
    /// Rows of a matrix, chosen by the tokens.
    Embed {
        /// Matrix [vocabulary, output width].
        weight: String,
        /// The embedded tokens.
        output: ValueRef,
    },
    /// RMSNorm: `input` / sqrt(mean(`input`²) + `epsilon`) * `weight`.
    RmsNorm {
        /// Vector [width].
        weight: String,
        /// Added to the mean of the squares.
        epsilon: f32,
        /// What is normalized.
        input: ValueRef,
        /// The result, apart from the input.
        output: ValueRef,
    },
    /// A matrix times activations.
    #[serde(rename = "matmul")]
    MatMul {
        /// Matrix [output width, input width].
        weight: String,
        /// What is multiplied.
        input: ValueRef,
        /// The result, apart from the input.
        output: ValueRef,
        /// Adds to what the output holds.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        accumulate: bool,
    },
    /// Cosines and sines of RoPE's angles for the tokens' positions.
    RotaryAngles {
        /// Vector [head width / 2] of inverse frequencies, scaling included.
        frequencies: String,
        /// The angles: twice the head width.
        output: ValueRef,
    },
    /// RoPE: turns the pairs (i, i + head width / 2) of each head, in place.
    Rotary {
        /// The angles.
        angles: ValueRef,
        /// The heads.
        value: ValueRef,
        /// Width of a head; even, 256 at most.
        head_width: u32,
    },
    /// Appends keys and values to a KV cache and attends to it causally; cache number = `cache` +
    /// the layer.
    Attention {
        /// The KV cache of layer 0.
        cache: u32,
        /// Number of query heads.
        query_heads: u32,
        /// Number of key and value heads; divides the number of query heads.
        kv_heads: u32,
        /// Width of a head; even, 256 at most.
        head_width: u32,
        /// What scores are multiplied with.
        scale: f32,
        /// Queries, rotated.
        query: ValueRef,
        /// Keys, rotated.
        key: ValueRef,
        /// Values.
        value: ValueRef,
        /// RoPE's angles, to turn queries for the attention sinks.
        angles: ValueRef,
        /// The result, apart from the inputs.
        output: ValueRef,
    },
    /// Activation of one value times another.
    Gated {
        /// The activation.
        activation: Activation,
        /// What is activated.
        gate: ValueRef,
        /// What it is multiplied with.
        up: ValueRef,
        /// The result, apart from both.
        output: ValueRef,
    },
    /// Keeps the tokens whose logits are wanted.
    Select {
        /// All tokens.
        input: ValueRef,
        /// The selected ones.
        output: ValueRef,
    },
}

/// An activation function.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Activation {
    /// x / (1 + exp(-x)).
    Silu,
}

impl ValueRef {
    /// All rows of a value.
    #[must_use]
    pub fn all(name: &str) -> Self {
        Self { name: name.to_owned(), rows: None }
    }

    /// Rows `first` to `end` of a value.
    #[must_use]
    pub fn rows(name: &str, first: u32, end: u32) -> Self {
        Self { name: name.to_owned(), rows: Some((first, end)) }
    }
}

impl fmt::Display for ValueRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.rows {
            None => f.write_str(&self.name),
            Some((first, end)) => write!(f, "{}[{first}..{end}]", self.name),
        }
    }
}

impl FromStr for ValueRef {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let Some((name, rows)) = text.split_once('[') else { return Ok(Self::all(text)) };
        let rows = rows.strip_suffix(']').and_then(|rows| rows.split_once(".."));
        let rows = rows.and_then(|(first, end)| Some((first.parse().ok()?, end.parse().ok()?)));
        match rows {
            Some((first, end)) if first < end => Ok(Self::rows(name, first, end)),
            _ => Err(format!("\"{text}\" is neither a value's name nor name[first..end]")),
        }
    }
}

impl TryFrom<String> for ValueRef {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<ValueRef> for String {
    fn from(value: ValueRef) -> Self {
        value.to_string()
    }
}

impl Node {
    /// The values read and the value written.
    pub(crate) fn values(&self) -> (Vec<&ValueRef>, Option<&ValueRef>) {
        match self {
            Node::Repeat { .. } => (vec![], None),
            Node::Embed { output, .. } | Node::RotaryAngles { output, .. } => {
                (vec![], Some(output))
            }
            Node::RmsNorm { input, output, .. } | Node::Select { input, output } => {
                (vec![input], Some(output))
            }
            Node::MatMul { input, output, accumulate, .. } => {
                let mut inputs = vec![input];
                inputs.extend(accumulate.then_some(output));
                (inputs, Some(output))
            }
            Node::Rotary { angles, value, .. } => (vec![angles, value], Some(value)),
            Node::Attention { query, key, value, angles, output, .. } => {
                (vec![query, key, value, angles], Some(output))
            }
            Node::Gated { gate, up, output, .. } => (vec![gate, up], Some(output)),
        }
    }

    /// The weight's name, with `{layer}` in it if it differs between layers.
    pub(crate) fn weight(&self) -> Option<&str> {
        match self {
            Node::Embed { weight, .. }
            | Node::RmsNorm { weight, .. }
            | Node::MatMul { weight, .. } => Some(weight),
            Node::RotaryAngles { frequencies, .. } => Some(frequencies),
            _ => None,
        }
    }
}

/// The name of a weight in a layer.
#[must_use]
pub fn weight_name(name: &str, layer: u32) -> String {
    name.replace("{layer}", &layer.to_string())
}
