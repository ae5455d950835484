//! GGUF files: their keys and names of tensors into Hugging Face's.

use super::blueprint::Blueprint;
use super::config::{Config, Names};
use super::{ARCHITECTURES, draw, unknown};
use crate::import::{Container, Fields, TokenizerSource};
use crate::{Error, Result};
use serde_json::{Value, json};
use std::borrow::Cow;
use std::path::Path;

/// Factors that divide the RoPE frequencies: how converters store Llama 3's scaling.
const ROPE_FACTORS: &str = "rope_freqs.weight";
const EMBEDDING: &str = "token_embd.weight";
const OUTPUT: &str = "output.weight";

/// Hugging Face's fields, the keys behind the architecture's name that hold them, and whether they
/// must be there.
const FIELDS: [(&str, &str, bool); 12] = [
    ("hidden_size", "embedding_length", true),
    ("intermediate_size", "feed_forward_length", true),
    ("num_hidden_layers", "block_count", true),
    ("num_attention_heads", "attention.head_count", true),
    ("num_key_value_heads", "attention.head_count_kv", false),
    ("head_dim", "attention.key_length", false),
    ("max_position_embeddings", "context_length", true),
    ("rms_norm_eps", "attention.layer_norm_rms_epsilon", true),
    ("rope_theta", "rope.freq_base", false),
    ("sliding_window", "attention.sliding_window", false),
    ("num_local_experts", "expert_count", false),
    ("final_logit_softcapping", "final_logit_softcapping", false),
];

/// Hugging Face's tensors, and what GGUF calls them.
const TENSORS: [(&str, &str); 3] = [
    ("model.embed_tokens.weight", EMBEDDING),
    ("model.norm.weight", "output_norm.weight"),
    ("lm_head.weight", OUTPUT),
];

/// Those of a layer, without `.weight` and `.bias`.
const LAYER_TENSORS: [(&str, &str); 11] = [
    ("input_layernorm", "attn_norm"),
    ("self_attn.q_proj", "attn_q"),
    ("self_attn.k_proj", "attn_k"),
    ("self_attn.v_proj", "attn_v"),
    ("self_attn.o_proj", "attn_output"),
    ("self_attn.q_norm", "attn_q_norm"),
    ("self_attn.k_norm", "attn_k_norm"),
    ("post_attention_layernorm", "ffn_norm"),
    ("mlp.gate_proj", "ffn_gate"),
    ("mlp.up_proj", "ffn_up"),
    ("mlp.down_proj", "ffn_down"),
];

/// The blueprint of a GGUF file.
pub(super) fn blueprint(container: &dyn Container) -> Result<Blueprint> {
    let keys = Keys { container, path: container.path() };
    let (config, name) = keys.config()?;
    let architecture = ARCHITECTURES.iter().find(|a| a.gguf == Some(name.as_str()));
    let architecture = architecture.ok_or_else(|| {
        unknown(&config, "general.architecture", &name.as_str().into(), |a| a.gguf)
    })?;
    let mut blueprint = draw(architecture, &config)?;
    blueprint.derived.push(ROPE_FACTORS);
    blueprint.rename(|name| {
        stored_name(name).ok_or_else(|| {
            let (found, expected) = ("a tensor without a name in GGUF", "one that it has");
            let remedy = "convert the original model";
            Error::malformed(container.path(), name, found, expected, remedy)
        })
    })?;
    Ok(blueprint)
}

/// The metadata of a container.
struct Keys<'a> {
    container: &'a dyn Container,
    path: &'a Path,
}

impl<'a> Keys<'a> {
    /// The hyperparameters under Hugging Face's names, and the architecture's name.
    fn config(&self) -> Result<(Config<'a>, String)> {
        let key = "general.architecture";
        let metadata = self.container.config();
        let architecture = metadata.get(key).ok_or_else(|| self.missing(key))?;
        let architecture = architecture.as_str().unwrap_or_default().to_owned();
        let (mut fields, mut names) = (Fields::new(), Names::new());
        for (name, key, required) in FIELDS {
            let key = format!("{architecture}.{key}");
            match metadata.get(&key) {
                Some(value) => _ = fields.insert(name.to_owned(), value.clone()),
                // An architecture that is not known is better named than its keys.
                None if required && known(&architecture) => return Err(self.missing(&key)),
                None => {}
            }
            names.insert(name, key);
        }
        if known(&architecture) {
            self.add_tokens(&mut fields)?;
            self.add_scaling(&architecture, &mut fields, &mut names)?;
            self.add_vocabulary(&architecture, &mut fields)?;
        }
        let mut config = Config::renamed(self.path, fields, names);
        self.check_widths(&architecture, &config)?;
        config.rope_factors = self.rope_factors()?;
        // Converters reorder the queries and keys of Llamas only.
        config.interleaved = architecture == "llama";
        Ok((config, architecture))
    }

    /// The metadata as they are.
    fn raw(&self) -> Config<'a> {
        Config::new(self.path, Cow::Borrowed(self.container.config()))
    }

    /// Tokens that begin a text, and that end a text, a turn of a chat, or a message.
    fn add_tokens(&self, fields: &mut Fields) -> Result<()> {
        let raw = self.raw();
        let bos = raw.integer("tokenizer.ggml.bos_token_id")?;
        let mut eos = Vec::new();
        for key in ["eos", "eot", "eom"].map(|kind| format!("tokenizer.ggml.{kind}_token_id")) {
            let token = raw.integer(&key)?;
            eos.extend(token.filter(|token| !eos.contains(token)));
        }
        fields.insert("bos_token_id".into(), json!(bos));
        fields.insert("eos_token_id".into(), json!(eos));
        Ok(())
    }

    /// How RoPE is stretched.
    fn add_scaling(
        &self,
        architecture: &str,
        fields: &mut Fields,
        names: &mut Names,
    ) -> Result<()> {
        let raw = self.raw();
        let named = |key: &str| format!("{architecture}.rope.{key}");
        let kind = named("scaling.type");
        let factor = match raw.number(&named("scaling.factor"))? {
            Some(factor) => Some(factor),
            // As older converters named it.
            None => raw.number(&named("scale_linear"))?,
        };
        // llama.cpp takes 0 for "no factor", and a factor without a type for a linear one.
        let default = Value::from("linear");
        let found = raw.get(&kind).unwrap_or(&default);
        match (found.as_str(), factor.filter(|&factor| factor != 0.0)) {
            (Some("none"), _) | (Some("linear"), None) => {}
            (Some("linear"), Some(factor)) => {
                let scaling = json!({ "rope_type": "linear", "factor": factor });
                fields.insert("rope_scaling".into(), scaling);
                names.insert("rope_scaling.factor", named("scaling.factor"));
            }
            _ => return Err(raw.unsupported(&kind, found, "none or linear")),
        }
        Ok(())
    }

    /// The vocabulary's size, which no key has to hold, and whether the output matrix is missing.
    fn add_vocabulary(&self, architecture: &str, fields: &mut Fields) -> Result<()> {
        let rows = self.container.tensor(EMBEDDING).map(|info| info.rows).ok_or_else(|| {
            let (found, expected) = ("no such tensor", "a matrix with a row for each token");
            Error::malformed(self.path, EMBEDDING, found, expected, "get the file again")
        })?;
        let tokens = match self.container.tokenizer() {
            Some(TokenizerSource::Gguf(vocabulary)) => Some(vocabulary.tokens.len() as u64),
            _ => None,
        };
        let key = format!("{architecture}.vocab_size");
        let declared = self.raw().integer(&key)?.map(u64::from);
        for (field, size) in [("tokenizer.ggml.tokens", tokens), (&key, declared)] {
            if let Some(size) = size.filter(|&size| size != u64::from(rows)) {
                let expected = format!("{rows}, the rows of {EMBEDDING}");
                let (found, remedy) = (format!("{size} tokens"), "convert the model again");
                return Err(Error::malformed(self.path, field, found, expected, remedy));
            }
        }
        let tied = self.container.tensor(OUTPUT).is_none();
        fields.insert("vocab_size".into(), json!(rows));
        fields.insert("tie_word_embeddings".into(), json!(tied));
        Ok(())
    }

    /// Refuses values of another width than keys, and RoPE on a part of a head.
    fn check_widths(&self, architecture: &str, config: &Config<'_>) -> Result<()> {
        let (hidden, heads) =
            (config.integer("hidden_size")?, config.integer("num_attention_heads")?);
        let divided = hidden.zip(heads).and_then(|(hidden, heads)| hidden.checked_div(heads));
        let Some(width) = config.integer("head_dim")?.or(divided) else { return Ok(()) };
        for key in ["attention.value_length", "rope.dimension_count"] {
            let key = format!("{architecture}.{key}");
            if let Some(other) = self.raw().integer(&key)?.filter(|&other| other != width) {
                let expected = format!("{width}, the width of a head");
                let remedy = "partial RoPE and values of another width are not supported";
                return Err(Error::malformed(self.path, key, other.to_string(), expected, remedy));
            }
        }
        Ok(())
    }

    /// The factors that a tensor holds.
    fn rope_factors(&self) -> Result<Option<Vec<f64>>> {
        let Some(info) = self.container.tensor(ROPE_FACTORS) else { return Ok(None) };
        if info.rows != 1 {
            let (found, remedy) = (format!("{} rows", info.rows), "convert the model again");
            return Err(Error::malformed(self.path, ROPE_FACTORS, found, "a vector", remedy));
        }
        let mut factors = vec![0.0; info.columns as usize];
        self.container.read_row(ROPE_FACTORS, 0, &mut factors)?;
        Ok(Some(factors.into_iter().map(f64::from).collect()))
    }

    fn missing(&self, key: &str) -> Error {
        Error::malformed(self.path, key, "no such key", "a value", "convert the model again")
    }
}

fn known(architecture: &str) -> bool {
    ARCHITECTURES.iter().any(|a| a.gguf == Some(architecture))
}

/// What GGUF calls a tensor.
fn stored_name(name: &str) -> Option<String> {
    let Some(rest) = name.strip_prefix("model.layers.") else {
        let found = TENSORS.iter().find(|(theirs, _)| *theirs == name);
        return found.map(|(_, ours)| (*ours).to_owned());
    };
    let (layer, part) = rest.split_once('.')?;
    let (part, kind) = part.rsplit_once('.')?;
    let (_, part) = LAYER_TENSORS.iter().find(|(theirs, _)| *theirs == part)?;
    Some(format!("blk.{layer}.{part}.{kind}"))
}
