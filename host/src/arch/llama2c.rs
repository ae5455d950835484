//! llama2.c's files: always a Llama, with run.c's names.

use super::blueprint::Blueprint;
use super::config::{Config, Names};
use super::{LLAMA, draw};
use crate::import::{Container, Fields};
use crate::{Error, Result};
use serde_json::{Value, json};

/// How a program that keeps Llamas with Meta's names calls what Hugging Face calls otherwise.
pub(super) struct Dialect {
    /// What stands before a field's name in errors.
    pub(super) prefix: &'static str,
    /// Fields besides `SIZES`.
    pub(super) fields: &'static [(&'static str, &'static str)],
    pub(super) tensors: &'static [(&'static str, &'static str)],
    /// Those of a layer.
    pub(super) layer_tensors: &'static [(&'static str, &'static str)],
    /// The name of a layer's tensor, of its part and the layer's number.
    pub(super) of_layer: fn(&str, &str) -> String,
    /// What is said of a tensor that has no name: what was found, and the remedy.
    pub(super) unnamed: [&'static str; 2],
}

/// Hugging Face's fields, and what all of these programs call them.
const SIZES: [(&str, &str); 6] = [
    ("hidden_size", "dim"),
    ("intermediate_size", "hidden_dim"),
    ("num_hidden_layers", "n_layers"),
    ("num_attention_heads", "n_heads"),
    ("num_key_value_heads", "n_kv_heads"),
    ("vocab_size", "vocab_size"),
];

/// What run.c reads.
const RUN_C: Dialect = Dialect {
    prefix: "",
    fields: &[("max_position_embeddings", "seq_len")],
    tensors: &TENSORS,
    layer_tensors: &LAYER_TENSORS,
    of_layer: |part, layer| format!("{part}.{layer}"),
    unnamed: ["no place for it in a llama2.c file", "convert the original model"],
};

/// Hugging Face's tensors, and what run.c calls them.
const TENSORS: [(&str, &str); 3] = [
    ("model.embed_tokens.weight", "token_embedding_table"),
    ("model.norm.weight", "rms_final_weight"),
    ("lm_head.weight", "wcls"),
];

/// Those of a layer.
const LAYER_TENSORS: [(&str, &str); 9] = [
    ("input_layernorm.weight", "rms_att_weight"),
    ("self_attn.q_proj.weight", "wq"),
    ("self_attn.k_proj.weight", "wk"),
    ("self_attn.v_proj.weight", "wv"),
    ("self_attn.o_proj.weight", "wo"),
    ("post_attention_layernorm.weight", "rms_ffn_weight"),
    ("mlp.gate_proj.weight", "w1"),
    ("mlp.down_proj.weight", "w2"),
    ("mlp.up_proj.weight", "w3"),
];

/// The blueprint of a llama2.c file.
pub(super) fn blueprint(container: &dyn Container) -> Result<Blueprint> {
    let mut fields = RUN_C.fields(container.config());
    // The sign of the vocabulary's size says whether there is an output matrix.
    let vocabulary = container.config().get("vocab_size").and_then(Value::as_i64).unwrap_or(0);
    fields.insert("vocab_size".to_owned(), vocabulary.unsigned_abs().into());
    fields.insert("rms_norm_eps".to_owned(), json!(1e-5));
    RUN_C.draw(container, fields, vocabulary > 0)
}

impl Dialect {
    /// Hugging Face's names of fields, and this dialect's.
    pub(super) fn names(&self) -> impl Iterator<Item = (&'static str, &'static str)> {
        SIZES.iter().chain(self.fields).copied()
    }

    /// Fields that have this dialect's names, by Hugging Face's.
    pub(super) fn fields(&self, theirs: &Fields) -> Fields {
        let field = |(name, of): (&str, &str)| Some((name.to_owned(), theirs.get(of)?.clone()));
        self.names().filter_map(field).collect()
    }

    /// The Llama with these hyperparameters, and this dialect's tensors.
    pub(super) fn draw(
        &self,
        container: &dyn Container,
        mut fields: Fields,
        tied: bool,
    ) -> Result<Blueprint> {
        // run.c stops at BOS, which separated the texts in training; EOS ends a chat's turn.
        for (name, value) in [
            ("tie_word_embeddings", json!(tied)),
            ("bos_token_id", json!(1)),
            ("eos_token_id", json!([1, 2])),
        ] {
            fields.insert(name.to_owned(), value);
        }
        let prefix = self.prefix;
        let names: Names = self.names().map(|(name, of)| (name, format!("{prefix}{of}"))).collect();
        let mut config = Config::renamed(container.path(), fields, names);
        config.interleaved = true;
        let mut blueprint = draw(&LLAMA, &config)?;
        blueprint.rename(|name| {
            self.stored_name(name).ok_or_else(|| {
                let [found, remedy] = self.unnamed;
                Error::malformed(container.path(), name, found, "a Llama's tensor", remedy)
            })
        })?;
        Ok(blueprint)
    }

    /// What this dialect calls a tensor.
    pub(super) fn stored_name(&self, name: &str) -> Option<String> {
        let find = |table: &[(&str, &'static str)], name: &str| {
            table.iter().find(|(theirs, _)| *theirs == name).map(|(_, ours)| *ours)
        };
        match name.strip_prefix("model.layers.").and_then(|rest| rest.split_once('.')) {
            Some((layer, part)) => {
                find(self.layer_tensors, part).map(|part| (self.of_layer)(part, layer))
            }
            None => find(self.tensors, name).map(str::to_owned),
        }
    }
}
