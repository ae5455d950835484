//! The Llama family: its hyperparameters and the tensors that they call for.

use crate::{Error, Result};
use std::path::Path;

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

/// A tensor that a model must have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Expected {
    pub(crate) name: String,
    pub(crate) rows: u32,
    pub(crate) columns: u32,
}

const MAX_LAYERS: u32 = 1000;
const MAX_WIDTH: u32 = 1 << 20;
const MAX_VOCABULARY: u32 = 1 << 24;
const MAX_CONTEXT: u32 = 1 << 30;

impl LlamaConfig {
    /// Refuses hyperparameters that no model has, so that arithmetic on them cannot overflow.
    pub(super) fn check(&self, file: &Path) -> Result<()> {
        check_range(file, "num_hidden_layers", self.layers, MAX_LAYERS)?;
        check_range(file, "hidden_size", self.hidden_size, MAX_WIDTH)?;
        check_range(file, "intermediate_size", self.intermediate_size, MAX_WIDTH)?;
        check_range(file, "head_dim", self.head_dim, MAX_WIDTH)?;
        check_range(file, "num_attention_heads", self.heads, MAX_WIDTH / self.head_dim)?;
        check_range(file, "num_key_value_heads", self.kv_heads, self.heads)?;
        check_range(file, "vocab_size", self.vocab_size, MAX_VOCABULARY)?;
        check_range(file, "max_position_embeddings", self.context_length, MAX_CONTEXT)?;
        if !self.heads.is_multiple_of(self.kv_heads) {
            let expected = format!("a divisor of the {} attention heads", self.heads);
            return Err(bad(file, "num_key_value_heads", self.kv_heads.to_string(), expected));
        }
        if !self.head_dim.is_multiple_of(2) {
            let expected = "an even number: RoPE rotates pairs";
            return Err(bad(file, "head_dim", self.head_dim.to_string(), expected));
        }
        if !(self.rms_norm_epsilon >= 0.0 && self.rms_norm_epsilon < 1.0) {
            let found = self.rms_norm_epsilon.to_string();
            return Err(bad(file, "rms_norm_eps", found, "a number from 0 to 1"));
        }
        match self.bos.iter().chain(&self.eos).find(|&&id| id >= self.vocab_size) {
            Some(id) => {
                let expected = format!("less than the vocabulary's {}", self.vocab_size);
                Err(bad(file, "id of a token that begins or ends a text", id.to_string(), expected))
            }
            None => Ok(()),
        }
    }

    /// The tensors that a model with these hyperparameters has. They have passed [`Self::check`].
    pub(super) fn tensors(&self) -> impl Iterator<Item = Expected> {
        let layers = (0..self.layers).flat_map(|layer| self.layer_tensors(layer));
        self.outer_tensors().chain(layers)
    }

    fn outer_tensors(&self) -> impl Iterator<Item = Expected> {
        let matrix = |name: &str, rows, columns| Expected { name: name.into(), rows, columns };
        let output = (!self.tied_embeddings)
            .then(|| matrix("lm_head.weight", self.vocab_size, self.hidden_size));
        [
            matrix("model.embed_tokens.weight", self.vocab_size, self.hidden_size),
            matrix("model.norm.weight", 1, self.hidden_size),
        ]
        .into_iter()
        .chain(output)
    }

    /// The tensor with this name, if a model with these hyperparameters has it.
    pub(crate) fn tensor(&self, name: &str) -> Option<Expected> {
        let layer = name.strip_prefix("model.layers.").and_then(|rest| rest.split_once('.'));
        match layer.map(|(layer, _)| layer.parse().ok().filter(|layer| *layer < self.layers)) {
            Some(layer) => self.layer_tensors(layer?).into_iter().find(|t| t.name == name),
            None => self.outer_tensors().find(|t| t.name == name),
        }
    }

    fn layer_tensors(&self, layer: u32) -> [Expected; 9] {
        let (hidden, ffn) = (self.hidden_size, self.intermediate_size);
        let (q, kv) = (self.heads * self.head_dim, self.kv_heads * self.head_dim);
        [
            ("input_layernorm", 1, hidden),
            ("self_attn.q_proj", q, hidden),
            ("self_attn.k_proj", kv, hidden),
            ("self_attn.v_proj", kv, hidden),
            ("self_attn.o_proj", hidden, q),
            ("post_attention_layernorm", 1, hidden),
            ("mlp.gate_proj", ffn, hidden),
            ("mlp.up_proj", ffn, hidden),
            ("mlp.down_proj", hidden, ffn),
        ]
        .map(|(part, rows, columns)| {
            let name = format!("model.layers.{layer}.{part}.weight");
            Expected { name, rows, columns }
        })
    }
}

fn check_range(file: &Path, field: &str, value: u32, max: u32) -> Result<()> {
    if (1..=max).contains(&value) {
        return Ok(());
    }
    Err(bad(file, field, value.to_string(), format!("a number from 1 to {max}")))
}

fn bad(file: &Path, field: &str, found: String, expected: impl Into<String>) -> Error {
    Error::malformed(
        file,
        field,
        found,
        expected,
        "correct the hyperparameter, or get the file again",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config() -> LlamaConfig {
        LlamaConfig {
            hidden_size: 8,
            intermediate_size: 12,
            layers: 2,
            heads: 4,
            kv_heads: 2,
            head_dim: 2,
            vocab_size: 10,
            context_length: 16,
            rms_norm_epsilon: 1e-5,
            rope_frequencies: vec![1.0],
            tied_embeddings: true,
            bos: Some(1),
            eos: vec![2],
        }
    }

    #[test]
    fn tied_models_have_no_output_matrix() {
        assert_eq!(config().tensors().count(), 2 + 2 * 9);
        let untied = LlamaConfig { tied_embeddings: false, ..config() };
        assert_eq!(untied.tensors().count(), 3 + 2 * 9);
        let k = untied.tensors().find(|t| t.name == "model.layers.1.self_attn.k_proj.weight");
        assert_eq!(k.map(|t| (t.rows, t.columns)), Some((4, 8)));
    }

    #[test]
    fn hyperparameters_out_of_bounds_are_errors() {
        let check = |config: LlamaConfig| config.check(Path::new("config.json"));
        check(config()).unwrap();
        let bad: [fn(&mut LlamaConfig); 13] = [
            |c| c.layers = 0,
            |c| c.layers = 1001,
            |c| c.hidden_size = 0,
            |c| c.intermediate_size = u32::MAX,
            |c| c.head_dim = 0,
            |c| c.head_dim = 3,
            |c| c.heads = u32::MAX,
            |c| c.kv_heads = 0,
            |c| c.kv_heads = 3,
            |c| c.vocab_size = 1 << 25,
            |c| c.context_length = 0,
            |c| c.rms_norm_epsilon = f32::NAN,
            |c| c.eos = vec![10],
        ];
        for (i, change) in bad.iter().enumerate() {
            let mut config = config();
            change(&mut config);
            assert!(check(config).is_err(), "case {i}");
        }
    }
}
