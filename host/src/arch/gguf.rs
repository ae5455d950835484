//! GGUF files: their keys and names of tensors into Hugging Face's.

mod write;

pub(crate) use write::{InGguf, in_gguf};

use super::blueprint::Blueprint;
use super::config::{Config, Names, Stacking};
use super::rope;
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
    /// llama.cpp keeps to sliding windows.
    slides: bool,
    /// Fields that others don't have, with their keys.
    own: &'static [(&'static str, &'static str)],
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
    slides: false,
    own: &[],
};
const LAYER_NORM: Kind =
    Kind { epsilon: ("layer_norm_eps", "attention.layer_norm_epsilon"), ..PLAIN };

const KINDS: [Kind; 23] = [
    Kind { name: "llama", bias: Some("attention_bias"), interleaved: true, ..PLAIN },
    Kind { name: "qwen2", ..PLAIN },
    Kind { name: "qwen3", bias: Some("attention_bias"), ..PLAIN },
    Kind { name: "qwen3moe", bias: Some("attention_bias"), ..PLAIN },
    Kind { name: "olmoe", ..PLAIN },
    Kind {
        name: "gpt-oss",
        bias: Some("attention_bias"),
        norms_behind: true,
        slides: true,
        ..PLAIN
    },
    Kind { name: "gemma2", norms_behind: true, slides: true, ..PLAIN },
    Kind { name: "gemma3", norms_behind: true, slides: true, ..PLAIN },
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
    Kind {
        name: "lfm2",
        epsilon: ("norm_eps", RMS.1),
        own: &[("conv_L_cache", "shortconv.l_cache")],
        ..PLAIN
    },
    Kind { name: "deepseek2", own: &LATENT, ..PLAIN },
    Kind {
        name: QWEN3_NEXT,
        partial: true,
        norms_behind: true,
        own: &[
            ("linear_conv_kernel_dim", "ssm.conv_kernel"),
            ("linear_key_head_dim", "ssm.state_size"),
            ("linear_num_key_heads", "ssm.group_count"),
            ("linear_num_value_heads", "ssm.time_step_rank"),
            ("linear_value_width", "ssm.inner_size"),
            ("full_attention_interval", "full_attention_interval"),
            ("recurrent_layers", "attention.recurrent_layers"),
            ("shared_expert_intermediate_size", "expert_shared_feed_forward_length"),
        ],
        ..PLAIN
    },
    Kind {
        name: GRANITE_HYBRID,
        interleaved: true,
        own: &[
            ("mamba_d_conv", "ssm.conv_kernel"),
            ("mamba_d_state", "ssm.state_size"),
            ("mamba_d_inner", "ssm.inner_size"),
            ("mamba_n_heads", "ssm.time_step_rank"),
            ("mamba_n_groups", "ssm.group_count"),
            ("shared_intermediate_size", "expert_shared_feed_forward_length"),
            ("rope_finetuned", "rope.scaling.finetuned"),
        ],
        ..PLAIN
    },
    Kind {
        name: MODERN_BERT,
        epsilon: ("norm_eps", LAYER_NORM.epsilon.1),
        own: &[
            ("local_attention", "attention.sliding_window"),
            ("global_attn_every_n_layers", "attention.sliding_window_pattern"),
            ("global_rope_theta", "rope.freq_base"),
            ("local_rope_theta", "rope.freq_base_swa"),
            ("hidden_activation", "hidden_act"),
        ],
        ..LAYER_NORM
    },
];

const QWEN3_NEXT: &str = "qwen3next";
/// Granite 4, whose layers may be state space models.
const GRANITE_HYBRID: &str = "granitehybrid";
/// ModernBERT, which counts windows on both sides.
const MODERN_BERT: &str = "modern-bert";

/// The number of the function that makes scores of experts.
const SIGMOID: u32 = 2;

/// Fields of latent attention, and of the experts behind it.
const LATENT: [(&str, &str); 10] = [
    ("q_lora_rank", "attention.q_lora_rank"),
    ("kv_lora_rank", "attention.kv_lora_rank"),
    ("v_head_dim", "attention.value_length_mla"),
    ("n_shared_experts", "expert_shared_count"),
    ("routed_scaling_factor", "expert_weights_scale"),
    ("norm_topk_prob", "expert_weights_norm"),
    ("n_group", "expert_group_count"),
    ("topk_group", "expert_group_used_count"),
    ("first_k_dense_replace", "leading_dense_block_count"),
    ("num_nextn_predict_layers", "nextn_predict_layers"),
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
const OPTIONAL: [(&str, &str); 17] = [
    ("num_key_value_heads", "attention.head_count_kv"),
    ("head_dim", "attention.key_length"),
    ("rope_theta", "rope.freq_base"),
    ("rope_local_base_freq", "rope.freq_base_swa"),
    ("sliding_window", "attention.sliding_window"),
    ("sliding_window_pattern", "attention.sliding_window_pattern"),
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
const TENSORS: [(&str, &str); 18] = [
    ("model.embed_tokens", "token_embd"),
    ("model.norm", "output_norm"),
    // llama.cpp's own slip.
    ("model.embedding_norm", "token_embd_norm"),
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
    ("model.embeddings.tok_embeddings", "token_embd"),
    ("model.embeddings.norm", "token_embd_norm"),
    ("model.final_norm", "output_norm"),
];
/// Embeddings of segments, as many as there are.
const SEGMENTS: &str = "token_types";

/// What names of layers' tensors begin with.
const LAYERS: [&str; 4] =
    ["model.layers.", "gpt_neox.layers.", "transformer.h.", "bert.encoder.layer."];

/// Those of a layer, without `.weight` and `.bias`.
const LAYER_TENSORS: [(&str, &str); 91] = [
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
    ("attn_norm", "attn_norm"),
    ("attn.Wqkv", "attn_qkv"),
    ("attn.Wo", "attn_output"),
    ("mlp_norm", "ffn_norm"),
    ("mlp.Wi", "ffn_up"),
    ("mlp.Wo", "ffn_down"),
    ("linear_attn.in_proj_qkv", "attn_qkv"),
    ("linear_attn.in_proj_z", "attn_gate"),
    ("linear_attn.in_proj_ba", "ssm_ba"),
    ("linear_attn.conv1d", "ssm_conv1d"),
    ("linear_attn.dt", "ssm_dt"),
    ("linear_attn.norm", "ssm_norm"),
    ("linear_attn.out_proj", "ssm_out"),
    ("mlp.shared_expert.gate_proj", "ffn_gate_shexp"),
    ("mlp.shared_expert.up_proj", "ffn_up_shexp"),
    ("mlp.shared_expert.down_proj", "ffn_down_shexp"),
    ("mlp.shared_expert_gate", "ffn_gate_inp_shexp"),
    ("block_sparse_moe.router.layer", "ffn_gate_inp"),
    ("mamba.in_proj", "ssm_in"),
    ("mamba.conv1d", "ssm_conv1d"),
    ("mamba.dt", "ssm_dt"),
    ("mamba.norm", "ssm_norm"),
    ("mamba.out_proj", "ssm_out"),
    ("operator_norm", "attn_norm"),
    ("self_attn.q_layernorm", "attn_q_norm"),
    ("self_attn.k_layernorm", "attn_k_norm"),
    ("self_attn.out_proj", "attn_output"),
    ("conv.conv", "shortconv.conv"),
    ("conv.in_proj", "shortconv.in_proj"),
    ("conv.out_proj", "shortconv.out_proj"),
    ("ffn_norm", "ffn_norm"),
    ("feed_forward.w1", "ffn_gate"),
    ("feed_forward.w3", "ffn_up"),
    ("feed_forward.w2", "ffn_down"),
    ("self_attn.q_a_proj", "attn_q_a"),
    ("self_attn.q_a_layernorm", "attn_q_a_norm"),
    ("self_attn.q_b_proj", "attn_q_b"),
    ("self_attn.kv_a_proj_with_mqa", "attn_kv_a_mqa"),
    ("self_attn.kv_a_layernorm", "attn_kv_a_norm"),
    ("self_attn.k_b_proj", "attn_k_b"),
    ("self_attn.v_b_proj", "attn_v_b"),
    ("exp_probs_b", "exp_probs_b"),
    ("mlp.shared_experts.gate_proj", "ffn_gate_shexp"),
    ("mlp.shared_experts.up_proj", "ffn_up_shexp"),
    ("mlp.shared_experts.down_proj", "ffn_down_shexp"),
];

/// The blueprint of a GGUF file.
pub(super) fn blueprint(container: &dyn Container) -> Result<Blueprint> {
    let keys = Keys { container, path: container.path() };
    let (architecture, kind) = keys.kind()?;
    let config = keys.config(kind).map_err(|mut problems| problems.swap_remove(0))?;
    let mut blueprint = draw(architecture, &config)?;
    blueprint.derived.extend([ROPE_FACTORS, LONG_ROPE[0].1, LONG_ROPE[1].1]);
    renamed(blueprint, container.path(), kind, "convert the original model")
}

/// The same with the names of GGUF's tensors, which converters have put in the order of use.
fn renamed(mut blueprint: Blueprint, path: &Path, kind: &Kind, remedy: &str) -> Result<Blueprint> {
    blueprint.as_converted();
    blueprint.rename(|name| {
        stored_name(name, kind).ok_or_else(|| {
            let (found, expected) = ("a tensor without a name in GGUF", "one that it has");
            Error::malformed(path, name, found, expected, remedy)
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
        let count =
            |key| Ok::<_, Error>(self.raw().integer(&format!("{name}.{key}"))?.unwrap_or(0));
        let (experts, window) = (count("expert_count")?, self.window(name));
        // Mixtrals are Llamas with experts there, and Mistrals Llamas with windows.
        let architecture = match (name, experts) {
            ("llama", 1..) => ARCHITECTURES.iter().find(|a| a.model_type == "mixtral"),
            ("llama", 0) if window => ARCHITECTURES.iter().find(|a| a.model_type == "mistral"),
            _ => ARCHITECTURES.iter().find(|a| a.gguf == Some(name)),
        };
        let kind = KINDS.iter().find(|kind| kind.name == name);
        let unknown = || unknown(&self.raw(), "general.architecture", &name.into(), |a| a.gguf);
        architecture.zip(kind).ok_or_else(unknown)
    }

    /// True if the file says that windows slide.
    fn window(&self, name: &str) -> bool {
        let key = format!("{name}.attention.sliding_window");
        self.container.config().get(&key).is_some_and(|window| *window != 0)
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
        let optional = OPTIONAL.iter().chain(kind.own).map(|pair| (pair, false));
        for (&(name, key), required) in required.chain(optional) {
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
        problems.extend(self.adjust(kind, &mut fields).err());
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

    /// Adds what files of a kind say in another way, or not at all.
    fn adjust(&self, kind: &Kind, fields: &mut Fields) -> Result<()> {
        let mut put = |name: &str, value: Value| drop(fields.insert(name.to_owned(), value));
        match kind.name {
            "qwen3moe" => put("norm_topk_prob", true.into()),
            "lfm2" => put("block_auto_adjust_ff_dim", false.into()),
            "deepseek2" => self.adjust_latent(kind, fields)?,
            "stablelm" => {
                let norms = self.container.tensor("blk.0.attn_q_norm.weight").is_some();
                fields.insert("qk_layernorm".to_owned(), norms.into());
            }
            GRANITE_HYBRID => self.adjust_hybrid(fields),
            QWEN3_NEXT => {
                let number = |name: &str| fields.get(name).and_then(Value::as_u64);
                let heads = number("linear_value_width").zip(number("linear_num_value_heads"));
                let width = heads.and_then(|(width, heads)| width.checked_div(heads));
                fields.insert("linear_value_head_dim".to_owned(), json!(width));
                // As transformers names it.
                let experts = fields.get("num_local_experts").cloned().unwrap_or_default();
                fields.insert("num_experts".to_owned(), experts);
            }
            MODERN_BERT => {
                for name in ["sliding_window", "sliding_window_pattern"] {
                    fields.remove(name);
                }
            }
            _ => {}
        }
        fields.retain(|name, value| name != "sliding_window" || *value != 0);
        // A number for each layer: none of keys where there is no attention, or which of them slide.
        if let Some(Value::Array(counts)) = fields.get("num_key_value_heads").cloned() {
            let other = if kind.name == GRANITE_HYBRID { "mamba" } else { "conv" };
            let layer = |count: &Value| if *count == 0 { other } else { "full_attention" };
            fields.insert("layer_types".to_owned(), counts.iter().map(layer).collect());
            let most = counts.iter().filter_map(Value::as_u64).max().unwrap_or(0);
            fields.insert("num_key_value_heads".to_owned(), most.into());
        }
        if let Some(Value::Array(recurrent)) = fields.remove("recurrent_layers") {
            let layer = |recurrent: &Value| match recurrent {
                Value::Bool(true) => "linear_attention",
                _ => "full_attention",
            };
            fields.insert("layer_types".to_owned(), recurrent.iter().map(layer).collect());
        }
        if let Some(Value::Array(slides)) = fields.get("sliding_window_pattern").cloned() {
            let slides = slides.iter().map(|slides| slides.as_bool() == Some(true));
            let layer = |slides| if slides { "sliding_attention" } else { "full_attention" };
            fields.insert("layer_types".to_owned(), slides.map(layer).collect());
            fields.remove("sliding_window_pattern");
        }
        Ok(())
    }

    /// Those of state space models, and of the feed-forward layer beside experts.
    fn adjust_hybrid(&self, fields: &mut Fields) {
        let number = |fields: &Fields, name: &str| fields.get(name).and_then(Value::as_u64);
        let inner = number(fields, "mamba_d_inner").zip(number(fields, "hidden_size"));
        let expand = inner.and_then(|(inner, hidden)| inner.checked_div(hidden));
        let turned = fields.remove("rope_finetuned") != Some(Value::Bool(false));
        let biased = |name: &String| name.ends_with(".ssm_conv1d.bias");
        let bias = self.container.names().iter().any(biased);
        if fields.get("shared_intermediate_size").is_none() {
            let wide = fields.get("intermediate_size").cloned().unwrap_or_default();
            fields.insert("shared_intermediate_size".to_owned(), wide);
        }
        for (name, value) in [
            ("mamba_expand", json!(expand)),
            ("mamba_conv_bias", bias.into()),
            ("position_embedding_type", if turned { "rope" } else { "nope" }.into()),
        ] {
            fields.insert(name.to_owned(), value);
        }
        fields.entry("num_local_experts").or_insert(0.into());
    }

    /// Those of latent attention, whose heads are not as wide as what is kept of them.
    fn adjust_latent(&self, kind: &Kind, fields: &mut Fields) -> Result<()> {
        let width = |key| self.integer(kind, key);
        let turned = width("rope.dimension_count")?;
        let plain = width("attention.key_length_mla")?.zip(turned);
        let gates = width("expert_gating_func")?;
        fields.remove("head_dim");
        let heads = fields.get("num_attention_heads").cloned().unwrap_or_default();
        fields.insert("num_key_value_heads".to_owned(), heads);
        let default = |fields: &mut Fields, name: &str, value: Value| {
            fields.entry(name).or_insert(value);
        };
        let scoring = if gates == Some(SIGMOID) { "sigmoid" } else { "softmax" };
        fields.insert("scoring_func".to_owned(), scoring.into());
        fields.insert("qk_rope_head_dim".to_owned(), json!(turned));
        let plain = plain.map(|(all, turned)| all.saturating_sub(turned));
        fields.insert("qk_nope_head_dim".to_owned(), json!(plain));
        default(fields, "q_lora_rank", Value::Null);
        default(fields, "norm_topk_prob", false.into());
        default(fields, "routed_scaling_factor", 1.0.into());
        for (name, value) in [("n_group", 1), ("topk_group", 1), ("first_k_dense_replace", 0)] {
            default(fields, name, value.into());
        }
        default(fields, "num_nextn_predict_layers", 0.into());
        Ok(())
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
        let padding = raw.integer("tokenizer.ggml.padding_token_id")?;
        fields.insert("bos_token_id".into(), json!(bos));
        fields.insert("pad_token_id".into(), json!(padding));
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
                let number = |key: &str| raw.number(&named(&format!("scaling.{key}")));
                // The file has it as a part of what it would be.
                let part = number("attn_factor")?.filter(|part| *part != 1.0);
                // What it says of scores it takes away from queries and keys.
                let scores = number("yarn_log_multiplier")?.map(|multiplier| multiplier / 0.1);
                let scaling = json!({
                    "rope_type": "yarn", "factor": factor,
                    "original_max_position_embeddings": original,
                    "attention_factor": part.map(|part| part * rope::yarn_mscale(factor, 1.0)),
                    "mscale": scores, "mscale_all_dim": scores,
                    "beta_fast": number("yarn_beta_fast")?, "beta_slow": number("yarn_beta_slow")?,
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
        // Latent attention has other widths, which fields of its own say.
        if kind.own == LATENT {
            return Ok(config);
        }
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
    // Vectors that are called weights and biases there.
    let weight = name.strip_suffix(".sinks").map(|stem| format!("{stem}.sinks.weight"));
    let bias = name.strip_suffix(".mlp.gate.e_score_correction_bias");
    let bias = bias.map(|layer| format!("{layer}.exp_probs_b.bias"));
    let step = name.strip_suffix(".dt_bias").map(|part| format!("{part}.dt.bias"));
    let name = weight.as_deref().or(bias.as_deref()).or(step.as_deref()).unwrap_or(name);
    // Vectors that are called nothing else.
    const BARE: [(&str, &str); 3] =
        [(".mamba.A_log", "ssm_a"), (".mamba.D", "ssm_d"), (".linear_attn.A_log", "ssm_a")];
    for (theirs, ours) in BARE {
        if let Some(layer) = name.strip_suffix(theirs).and_then(|stem| stem.strip_prefix(LAYERS[0]))
        {
            return Some(format!("blk.{layer}.{ours}"));
        }
    }
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
