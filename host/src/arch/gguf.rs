//! GGUF files: their keys and names of tensors into Hugging Face's.

use super::blueprint::Blueprint;
use super::config::{Config, Names, Stacking};
use super::{ARCHITECTURES, Architecture, draw, unknown};
use crate::import::{Container, Fields, TokenizerSource};
use crate::{Error, Result};
use serde_json::{Value, json};
use std::borrow::Cow;
use std::path::Path;

/// Factors that divide the RoPE frequencies: how converters store Llama 3's scaling.
const ROPE_FACTORS: &str = "rope_freqs.weight";
const EMBEDDING: &str = "token_embd.weight";
const OUTPUT: &str = "output.weight";

/// LongRoPE's factors, for short texts and for long ones.
const LONG_ROPE: [(&str, &str); 2] =
    [("short_factor", "rope_factors_short.weight"), ("long_factor", "rope_factors_long.weight")];

/// What an architecture's files hold besides what all do.
struct Kind {
    /// `general.architecture`.
    name: &'static str,
    /// Fields that must be there, with their keys.
    fields: &'static [(&'static str, &'static str)],
    /// Hugging Face's name of what norms add.
    epsilon: (&'static str, &'static str),
    /// The field that says whether there are biases, which files show by having them.
    bias: Option<&'static str>,
    /// Queries and keys are stored for a RoPE that turns neighbours.
    interleaved: bool,
    /// RoPE may turn a part of each head.
    partial: bool,
    /// Norms behind branches have names of their own.
    norms_behind: bool,
}

const RMS: (&str, &str) = ("rms_norm_eps", "attention.layer_norm_rms_epsilon");
const PLAIN: Kind = Kind {
    name: "",
    fields: &SIZES,
    epsilon: RMS,
    bias: None,
    interleaved: false,
    partial: false,
    norms_behind: false,
};
const LAYER_NORM: Kind =
    Kind { epsilon: ("layer_norm_eps", "attention.layer_norm_epsilon"), ..PLAIN };

const KINDS: [Kind; 18] = [
    Kind { name: "llama", bias: Some("attention_bias"), interleaved: true, ..PLAIN },
    Kind { name: "qwen2", ..PLAIN },
    Kind { name: "qwen3", bias: Some("attention_bias"), ..PLAIN },
    Kind { name: "qwen3moe", bias: Some("attention_bias"), ..PLAIN },
    Kind { name: "olmoe", ..PLAIN },
    Kind { name: "gpt-oss", bias: Some("attention_bias"), norms_behind: true, ..PLAIN },
    Kind { name: "gemma2", norms_behind: true, ..PLAIN },
    Kind { name: "gemma3", norms_behind: true, ..PLAIN },
    Kind { name: "phi3", partial: true, ..PLAIN },
    Kind { name: "smollm3", interleaved: true, ..PLAIN },
    Kind { name: "granite", interleaved: true, ..PLAIN },
    Kind { name: "olmo2", norms_behind: true, ..PLAIN },
    Kind {
        name: "starcoder2",
        epsilon: ("norm_epsilon", LAYER_NORM.epsilon.1),
        bias: Some("use_bias"),
        ..LAYER_NORM
    },
    Kind { name: "phi2", partial: true, ..LAYER_NORM },
    Kind { name: "stablelm", bias: Some("use_qkv_bias"), partial: true, ..LAYER_NORM },
    Kind { name: "gptneox", bias: Some("attention_bias"), partial: true, ..LAYER_NORM },
    Kind {
        name: "gpt2",
        fields: &GPT2_SIZES,
        epsilon: ("layer_norm_epsilon", LAYER_NORM.epsilon.1),
        ..LAYER_NORM
    },
    Kind { name: "bert", ..LAYER_NORM },
];
const SIZES: [(&str, &str); 5] = [
    ("hidden_size", "embedding_length"),
    ("intermediate_size", "feed_forward_length"),
    ("num_hidden_layers", "block_count"),
    ("num_attention_heads", "attention.head_count"),
    ("max_position_embeddings", "context_length"),
];
const GPT2_SIZES: [(&str, &str); 5] = [
    ("n_embd", "embedding_length"),
    ("n_inner", "feed_forward_length"),
    ("n_layer", "block_count"),
    ("n_head", "attention.head_count"),
    ("n_positions", "context_length"),
];

/// Fields that need not be there, with their keys.
const OPTIONAL: [(&str, &str); 16] = [
    ("num_key_value_heads", "attention.head_count_kv"),
    ("head_dim", "attention.key_length"),
    ("rope_theta", "rope.freq_base"),
    ("rope_local_base_freq", "rope.freq_base_swa"),
    ("sliding_window", "attention.sliding_window"),
    ("num_local_experts", "expert_count"),
    ("num_experts_per_tok", "expert_used_count"),
    ("moe_intermediate_size", "expert_feed_forward_length"),
    ("attn_logit_softcapping", "attn_logit_softcapping"),
    ("final_logit_softcapping", "final_logit_softcapping"),
    ("use_parallel_residual", "use_parallel_residual"),
    ("attention_multiplier", "attention.scale"),
    ("embedding_multiplier", "embedding_scale"),
    ("residual_multiplier", "residual_scale"),
    ("logits_scaling", "logit_scale"),
    ("original_max_position_embeddings", "rope.scaling.original_context_length"),
];

/// Hugging Face's tensors, and what GGUF calls them, without `.weight` and `.bias`.
const TENSORS: [(&str, &str); 14] = [
    ("model.embed_tokens", "token_embd"),
    ("model.norm", "output_norm"),
    ("model.final_layernorm", "output_norm"),
    ("lm_head", "output"),
    ("gpt_neox.embed_in", "token_embd"),
    ("gpt_neox.final_layer_norm", "output_norm"),
    ("embed_out", "output"),
    ("transformer.wte", "token_embd"),
    ("transformer.wpe", "position_embd"),
    ("transformer.ln_f", "output_norm"),
    ("bert.embeddings.word_embeddings", "token_embd"),
    ("bert.embeddings.position_embeddings", "position_embd"),
    ("bert.embeddings.token_type_embeddings", SEGMENTS),
    ("bert.embeddings.LayerNorm", "token_embd_norm"),
];
/// Embeddings of segments, as many as there are.
const SEGMENTS: &str = "token_types";

/// What names of layers' tensors begin with.
const LAYERS: [&str; 4] =
    ["model.layers.", "gpt_neox.layers.", "transformer.h.", "bert.encoder.layer."];

/// Those of a layer, without `.weight` and `.bias`.
const LAYER_TENSORS: [(&str, &str); 46] = [
    ("input_layernorm", "attn_norm"),
    ("ln_1", "attn_norm"),
    ("self_attn.q_proj", "attn_q"),
    ("self_attn.k_proj", "attn_k"),
    ("self_attn.v_proj", "attn_v"),
    ("self_attn.qkv_proj", "attn_qkv"),
    ("attention.query_key_value", "attn_qkv"),
    ("attn.c_attn", "attn_qkv"),
    ("self_attn.o_proj", "attn_output"),
    ("self_attn.dense", "attn_output"),
    ("attention.dense", "attn_output"),
    ("attn.c_proj", "attn_output"),
    ("self_attn.sinks", "attn_sinks"),
    ("self_attn.q_norm", "attn_q_norm"),
    ("self_attn.k_norm", "attn_k_norm"),
    ("post_attention_layernorm", "ffn_norm"),
    ("pre_feedforward_layernorm", "ffn_norm"),
    ("post_feedforward_layernorm", "post_ffw_norm"),
    ("ln_2", "ffn_norm"),
    ("mlp.gate_proj", "ffn_gate"),
    ("mlp.up_proj", "ffn_up"),
    ("mlp.gate", "ffn_gate_inp"),
    ("mlp.router", "ffn_gate_inp"),
    ("mlp.experts.gate_proj", "ffn_gate_exps"),
    ("mlp.experts.up_proj", "ffn_up_exps"),
    ("mlp.experts.down_proj", "ffn_down_exps"),
    ("block_sparse_moe.gate", "ffn_gate_inp"),
    ("block_sparse_moe.experts.w1", "ffn_gate_exps"),
    ("block_sparse_moe.experts.w3", "ffn_up_exps"),
    ("block_sparse_moe.experts.w2", "ffn_down_exps"),
    ("mlp.gate_up_proj", "ffn_up"),
    ("mlp.fc1", "ffn_up"),
    ("mlp.c_fc", "ffn_up"),
    ("mlp.dense_h_to_4h", "ffn_up"),
    ("mlp.down_proj", "ffn_down"),
    ("mlp.fc2", "ffn_down"),
    ("mlp.c_proj", "ffn_down"),
    ("mlp.dense_4h_to_h", "ffn_down"),
    ("attention.self.query", "attn_q"),
    ("attention.self.key", "attn_k"),
    ("attention.self.value", "attn_v"),
    ("attention.output.dense", "attn_output"),
    ("attention.output.LayerNorm", "attn_output_norm"),
    ("intermediate.dense", "ffn_up"),
    ("output.dense", "ffn_down"),
    ("output.LayerNorm", "layer_output_norm"),
];

/// The blueprint of a GGUF file.
pub(super) fn blueprint(container: &dyn Container) -> Result<Blueprint> {
    let keys = Keys { container, path: container.path() };
    let (architecture, kind) = keys.kind()?;
    let config = keys.config(kind).map_err(|mut problems| problems.swap_remove(0))?;
    let mut blueprint = draw(architecture, &config)?;
    blueprint.derived.extend([ROPE_FACTORS, LONG_ROPE[0].1, LONG_ROPE[1].1]);
    blueprint.as_converted();
    blueprint.rename(|name| {
        stored_name(name, kind).ok_or_else(|| {
            let (found, expected) = ("a tensor without a name in GGUF", "one that it has");
            let remedy = "convert the original model";
            Error::malformed(container.path(), name, found, expected, remedy)
        })
    })?;
    Ok(blueprint)
}

/// All that is wrong with the metadata of a file whose architecture is known.
pub(super) fn problems(container: &dyn Container) -> Vec<Error> {
    let keys = Keys { container, path: container.path() };
    let Ok((architecture, kind)) = keys.kind() else { return vec![] };
    match keys.config(kind) {
        Ok(config) => (architecture.blueprint)(&config).map_or(vec![], |_| config.unread()),
        Err(problems) => problems,
    }
}

/// The metadata of a container.
struct Keys<'a> {
    container: &'a dyn Container,
    path: &'a Path,
}

impl<'a> Keys<'a> {
    /// The architecture, and what its files hold.
    fn kind(&self) -> Result<(&'static Architecture, &'static Kind)> {
        let name = self.architecture()?;
        let experts = self.raw().integer(&format!("{name}.expert_count"))?.unwrap_or(0);
        // Mixtrals are Llamas with experts there.
        let architecture = match (name, experts) {
            ("llama", 1..) => ARCHITECTURES.iter().find(|a| a.model_type == "mixtral"),
            _ => ARCHITECTURES.iter().find(|a| a.gguf == Some(name)),
        };
        let kind = KINDS.iter().find(|kind| kind.name == name);
        let unknown = || unknown(&self.raw(), "general.architecture", &name.into(), |a| a.gguf);
        architecture.zip(kind).ok_or_else(unknown)
    }

    /// The architecture's name.
    fn architecture(&self) -> Result<&'a str> {
        let key = "general.architecture";
        let architecture = self.container.config().get(key).ok_or_else(|| self.missing(key))?;
        Ok(architecture.as_str().unwrap_or_default())
    }

    /// The hyperparameters under Hugging Face's names, or all that is wrong with them.
    fn config(&self, kind: &Kind) -> Result<Config<'a>, Vec<Error>> {
        let metadata = self.container.config();
        let (mut fields, mut names, mut problems) = (Fields::new(), Names::new(), vec![]);
        let required = kind.fields.iter().chain([&kind.epsilon]).map(|pair| (pair, true));
        for (&(name, key), required) in required.chain(OPTIONAL.iter().map(|pair| (pair, false))) {
            let key = format!("{}.{key}", kind.name);
            match metadata.get(&key) {
                Some(value) => _ = fields.insert(name.to_owned(), value.clone()),
                None if required => problems.push(self.missing(&key)),
                None => {}
            }
            names.insert(name, key);
        }
        problems.extend(self.add_tokens(&mut fields).err());
        problems.extend(self.add_scaling(kind.name, &mut fields, &mut names).err());
        problems.extend(self.add_vocabulary(kind.name, &mut fields).err());
        if kind.name == "qwen3moe" {
            fields.insert("norm_topk_prob".to_owned(), true.into());
        }
        if let Some(name) = kind.bias {
            let biased = |part: &str| self.container.tensor(&format!("blk.0.{part}.bias"));
            let there = biased("attn_q").or(biased("attn_qkv")).is_some();
            fields.insert(name.to_owned(), there.into());
        }
        if let Some(segments) = self.container.tensor(&format!("{SEGMENTS}.weight")) {
            fields.insert("type_vocab_size".to_owned(), segments.rows.into());
        }
        let config = self.with_widths(kind, Config::renamed(self.path, fields, names));
        match (config, self.rope_factors(ROPE_FACTORS)) {
            (Ok(mut config), Ok(factors)) if problems.is_empty() => {
                config.rope_factors = factors;
                config.interleaved = kind.interleaved;
                config.stacking = Stacking::Parts;
                Ok(config)
            }
            (config, factors) => {
                problems.extend(config.err().into_iter().chain(factors.err()));
                Err(problems)
            }
        }
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
        if let Some(short) = self.rope_factors(LONG_ROPE[0].1)? {
            let long = self.rope_factors(LONG_ROPE[1].1)?;
            let attention_factor = raw.number(&named("scaling.attn_factor"))?;
            let scaling = json!({
                "rope_type": "longrope", "short_factor": short, "long_factor": long,
                "attention_factor": attention_factor,
            });
            fields.insert("rope_scaling".into(), scaling);
            return Ok(());
        }
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
            (Some("yarn"), Some(factor)) => {
                let original = raw.integer(&named("scaling.original_context_length"))?;
                let scaling = json!({
                    "rope_type": "yarn", "factor": factor,
                    "original_max_position_embeddings": original,
                    "truncate": architecture != "gpt-oss",
                });
                fields.insert("rope_scaling".into(), scaling);
                names.insert("rope_scaling.factor", named("scaling.factor"));
            }
            _ => return Err(raw.unsupported(&kind, found, "none, linear or yarn")),
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

    /// Checks that values are as wide as keys, and adds the fields that follow from a head's width.
    fn with_widths(&self, kind: &Kind, config: Config<'a>) -> Result<Config<'a>> {
        let [hidden, heads] = [kind.fields[0].0, kind.fields[3].0].map(|name| config.integer(name));
        let divided = hidden?.zip(heads?).and_then(|(hidden, heads)| hidden.checked_div(heads));
        let Some(width) = config.integer("head_dim")?.or(divided) else { return Ok(config) };
        let of = |key| Ok::<_, Error>((format!("{}.{key}", kind.name), self.integer(kind, key)?));
        let (key, values) = of("attention.value_length")?;
        let (turned_key, turned) = of("rope.dimension_count")?;
        let turned_key = Some(turned_key).filter(|_| !kind.partial);
        for (key, other) in [(Some(key), values), (turned_key, turned)] {
            if let Some((key, other)) = key.zip(other).filter(|(_, other)| *other != width) {
                let expected = format!("{width}, the width of a head");
                let remedy = "partial RoPE and values of another width are not supported";
                return Err(Error::malformed(self.path, key, other.to_string(), expected, remedy));
            }
        }
        // The largest Gemmas divide by the width that heads would have if they were as wide as hidden
        // states together, as llama.cpp knows by their number of layers.
        let layers = config.integer("num_hidden_layers")?;
        let largest = matches!((kind.name, layers), ("gemma2", Some(46)) | ("gemma3", Some(62)));
        Ok(config.with(|fields| {
            if kind.name.starts_with("gemma") {
                let scalar = divided.filter(|_| largest).unwrap_or(width);
                fields.insert("query_pre_attn_scalar".into(), scalar.into());
            }
            if let Some(turned) = turned.filter(|_| kind.partial) {
                let part = f64::from(turned) / f64::from(width.max(1));
                fields.insert("partial_rotary_factor".into(), part.into());
            }
        }))
    }

    /// One of the architecture's keys.
    fn integer(&self, kind: &Kind, key: &str) -> Result<Option<u32>> {
        self.raw().integer(&format!("{}.{key}", kind.name))
    }

    /// The factors that a tensor holds.
    fn rope_factors(&self, name: &str) -> Result<Option<Vec<f64>>> {
        let Some(info) = self.container.tensor(name) else { return Ok(None) };
        if info.rows != 1 {
            let (found, remedy) = (format!("{} rows", info.rows), "convert the model again");
            return Err(Error::malformed(self.path, name, found, "a vector", remedy));
        }
        let mut factors = vec![0.0; info.columns as usize];
        self.container.read_row(name, 0, &mut factors)?;
        Ok(Some(factors.into_iter().map(f64::from).collect()))
    }

    fn missing(&self, key: &str) -> Error {
        Error::malformed(self.path, key, "no such key", "a value", "convert the model again")
    }
}

/// What GGUF calls a tensor.
fn stored_name(name: &str, kind: &Kind) -> Option<String> {
    // A vector that is called a weight there.
    let weight = name.strip_suffix(".sinks").map(|stem| format!("{stem}.sinks.weight"));
    let name = weight.as_deref().unwrap_or(name);
    let (stem, end) = name.rsplit_once('.')?;
    let Some(rest) = LAYERS.iter().find_map(|layers| stem.strip_prefix(layers)) else {
        let (_, found) = TENSORS.iter().find(|(theirs, _)| *theirs == stem)?;
        return Some(format!("{found}.{end}"));
    };
    let (layer, part) = rest.split_once('.')?;
    let (_, found) = LAYER_TENSORS.iter().find(|(theirs, _)| *theirs == part)?;
    let behind = kind.norms_behind && part == "post_attention_layernorm";
    let found = if behind { "post_attention_norm" } else { found };
    Some(format!("blk.{layer}.{found}.{end}"))
}
