//! What decoders have in common: hyperparameters, and the usual parts of a block.

use super::blueprint::{Blueprint, Order, Sizes};
use super::builder::{Builder, KvHeads};
use super::config::Config;
use super::rope::Rope;
use crate::Result;
use crate::graph::ValueRef;
use omex_core::ops::Activation;
use serde_json::Value;

const MAX_LAYERS: u32 = 1000;
const MAX_WIDTH: u32 = 1 << 20;
const MAX_VOCABULARY: u32 = 1 << 24;
const MAX_CONTEXT: u32 = 1 << 30;

/// What stands in for fields that are absent.
pub(super) struct Defaults {
    pub(super) hidden_size: u32,
    pub(super) intermediate_size: u32,
    pub(super) layers: u32,
    pub(super) heads: u32,
    pub(super) vocab_size: u32,
    pub(super) context_length: u32,
    pub(super) epsilon: f64,
    pub(super) tied_embeddings: bool,
    pub(super) bos: Option<u32>,
    pub(super) eos: Option<u32>,
}

/// The hyperparameters of a decoder with RMSNorm, RoPE and a gated feed-forward layer.
pub(super) struct Decoder {
    sizes: Sizes,
    vocab_size: u32,
    context_length: u32,
    epsilon: f32,
    tied_embeddings: bool,
    tokens: (Option<u32>, Vec<u32>),
    /// Inverse frequencies of RoPE, scaling included.
    frequencies: Vec<f32>,
    /// What scores are multiplied with.
    score_scale: f32,
    /// The order in which rows of queries and keys are stored.
    order: Order,
}

impl Decoder {
    /// Reads the fields that have the same names in most decoders, within bounds that keep
    /// arithmetic on them from overflowing.
    pub(super) fn read(config: &Config<'_>, defaults: &Defaults) -> Result<Self> {
        let sizes = read_sizes(config, defaults)?;
        let vocab_size = config.size("vocab_size", defaults.vocab_size, MAX_VOCABULARY)?;
        let rope = Rope::read(config)?;
        let score_scale = (rope.score_factor() / f64::from(sizes.head_width).sqrt()) as f32;
        if !score_scale.is_finite() {
            let found = Value::from(rope.score_factor());
            return Err(config.bad("attention_factor", &found, "a number of usual size"));
        }
        Ok(Self {
            sizes,
            vocab_size,
            context_length: config.size(
                "max_position_embeddings",
                defaults.context_length,
                MAX_CONTEXT,
            )?,
            epsilon: read_epsilon(config, "rms_norm_eps", defaults.epsilon)?,
            tied_embeddings: config.boolean("tie_word_embeddings", defaults.tied_embeddings)?,
            tokens: read_tokens(config, defaults, vocab_size)?,
            frequencies: rope.frequencies(sizes.head_width, config)?,
            score_scale,
            order: match config.interleaved {
                true => Order::Interleaved(sizes.head_width),
                false => Order::Plain,
            },
        })
    }

    /// The blueprint of a decoder whose layers are this block, from `residual` to `residual`.
    pub(super) fn blueprint(
        self,
        family: &'static str,
        block: impl FnOnce(&Self, &mut Builder),
    ) -> Blueprint {
        let (sizes, [q, kv]) = (self.sizes, self.widths());
        let mut graph = Builder::new(self.vocab_size, self.context_length);
        graph.values([
            ("angles", 2 * sizes.head_width),
            ("residual", sizes.hidden),
            ("normed", sizes.hidden),
            ("qkv", q + 2 * kv),
            ("attended", q),
            ("gate_up", 2 * sizes.intermediate),
            ("gated", sizes.intermediate),
        ]);
        graph.selected_values([
            ("selected", sizes.hidden),
            ("final", sizes.hidden),
            ("logits", self.vocab_size),
        ]);
        graph.angles(self.frequencies.clone(), "angles");
        graph.embed("residual");
        graph.repeat(sizes.layers, "model.layers.{layer}.", |graph| block(&self, graph));
        graph.select("residual", "selected");
        graph.norm("norm", "model.norm.weight", ["selected", "final"], self.epsilon);
        let output = (!self.tied_embeddings).then_some("lm_head.weight");
        graph.logits("model.embed_tokens.weight", output, "final");
        // Early versions of transformers stored the frequencies; tied output matrices replace none.
        let mut derived = vec![".self_attn.rotary_emb.inv_freq"];
        derived.extend(self.tied_embeddings.then_some("lm_head.weight"));
        graph.finish(family, sizes, self.tokens, derived)
    }

    /// A norm of the residual stream into `normed`.
    pub(super) fn norm(&self, graph: &mut Builder, name: &str, stored: &str) {
        graph.norm(name, stored, ["residual", "normed"], self.epsilon);
    }

    /// Queries, keys and values of `normed`.
    pub(super) fn project(&self, graph: &mut Builder) {
        let [query, key, value] = self.query_key_value();
        for (name, stored, order, output) in [
            ("attention.query", "self_attn.q_proj.weight", self.order, query),
            ("attention.key", "self_attn.k_proj.weight", self.order, key),
            ("attention.value", "self_attn.v_proj.weight", Order::Plain, value),
        ] {
            graph.ordered_linear(name, stored, order, "normed", &output);
        }
    }

    /// Turns queries and keys, attends, and adds the result to the residual stream.
    pub(super) fn attend(&self, graph: &mut Builder) {
        let [query, key, value] = self.query_key_value();
        let Sizes { kv_heads: count, head_width: width, .. } = self.sizes;
        graph.rotary("angles", &query, width);
        graph.rotary("angles", &key, width);
        let heads = KvHeads { count, width };
        let operands = [&query, &key, &value];
        graph.attention(heads, self.score_scale, operands, "angles", "attended");
        graph.linear_onto("attention.output", "self_attn.o_proj.weight", "attended", "residual");
    }

    /// The feed-forward layer of `normed`, added to the residual stream.
    pub(super) fn feed_forward(&self, graph: &mut Builder, activation: Activation) {
        let wide = self.sizes.intermediate;
        let gate = ValueRef::rows("gate_up", 0, wide);
        let up = ValueRef::rows("gate_up", wide, 2 * wide);
        graph.linear("feed_forward.gate", "mlp.gate_proj.weight", "normed", &gate);
        graph.linear("feed_forward.up", "mlp.up_proj.weight", "normed", &up);
        graph.gated(activation, [&gate, &up], "gated");
        graph.linear_onto("feed_forward.down", "mlp.down_proj.weight", "gated", "residual");
    }

    /// Where queries, keys and values lie, side by side.
    fn query_key_value(&self) -> [ValueRef; 3] {
        let [q, kv] = self.widths();
        [(0, q), (q, q + kv), (q + kv, q + 2 * kv)]
            .map(|(first, end)| ValueRef::rows("qkv", first, end))
    }

    /// Widths of all queries of a token, and of all keys.
    fn widths(&self) -> [u32; 2] {
        [self.sizes.heads, self.sizes.kv_heads].map(|heads| heads * self.sizes.head_width)
    }
}

fn read_sizes(config: &Config<'_>, defaults: &Defaults) -> Result<Sizes> {
    let hidden = config.size("hidden_size", defaults.hidden_size, MAX_WIDTH)?;
    let heads = config.size("num_attention_heads", defaults.heads, MAX_WIDTH)?;
    if config.get("head_dim").is_none() && !hidden.is_multiple_of(heads) {
        let expected = format!("a divisor of hidden_size = {hidden}, or head_dim");
        return Err(config.bad("num_attention_heads", &heads.into(), &expected));
    }
    let head_width = config.size("head_dim", hidden / heads, MAX_WIDTH / heads)?;
    if !head_width.is_multiple_of(2) {
        let expected = "an even number: RoPE rotates pairs";
        return Err(config.bad("head_dim", &head_width.into(), expected));
    }
    let kv_heads = config.size("num_key_value_heads", heads, heads)?;
    if !heads.is_multiple_of(kv_heads) {
        let expected = format!("a divisor of the {heads} attention heads");
        return Err(config.bad("num_key_value_heads", &kv_heads.into(), &expected));
    }
    Ok(Sizes {
        hidden,
        intermediate: config.size("intermediate_size", defaults.intermediate_size, MAX_WIDTH)?,
        layers: config.size("num_hidden_layers", defaults.layers, MAX_LAYERS)?,
        heads,
        kv_heads,
        head_width,
    })
}

/// What a norm adds so as not to divide by 0.
fn read_epsilon(config: &Config<'_>, name: &str, default: f64) -> Result<f32> {
    let epsilon = config.number(name)?.unwrap_or(default);
    if (0.0..1.0).contains(&epsilon) {
        return Ok(epsilon as f32);
    }
    Err(config.bad(name, &epsilon.into(), "a number from 0 to 1"))
}

/// The tokens that begin and end a text.
fn read_tokens(
    config: &Config<'_>,
    defaults: &Defaults,
    vocab_size: u32,
) -> Result<(Option<u32>, Vec<u32>)> {
    let bos = config.tokens("bos_token_id", defaults.bos)?.first().copied();
    let eos = config.tokens("eos_token_id", defaults.eos)?;
    match bos.iter().chain(&eos).find(|&&id| id >= vocab_size) {
        Some(id) => {
            let expected = format!("less than the vocabulary's {vocab_size}");
            Err(config.bad("id of a token that begins or ends a text", &(*id).into(), &expected))
        }
        None => Ok((bos, eos)),
    }
}
