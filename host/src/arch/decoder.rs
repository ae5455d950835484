//! What decoders have in common: hyperparameters, and the usual parts of a block.

use super::blueprint::{Blueprint, Order, Sizes};
use super::builder::{Attending, Builder, FREQUENCIES, NormOf, Stored, all, stored};
use super::config::Config;
use super::rope::Rope;
use crate::Result;
use crate::graph::ValueRef;
use omex_core::ops::{Activation, NormKind};
use serde_json::Value;

pub(super) const MAX_LAYERS: u32 = 1000;
pub(super) const MAX_WIDTH: u32 = 1 << 20;
pub(super) const MAX_VOCABULARY: u32 = 1 << 24;
pub(super) const MAX_CONTEXT: u32 = 1 << 30;

/// What stands in for fields that are absent.
pub(super) struct Defaults {
    pub(super) hidden_size: u32,
    pub(super) intermediate_size: u32,
    pub(super) layers: u32,
    pub(super) heads: u32,
    /// Without one, as many as `heads`.
    pub(super) kv_heads: Option<u32>,
    /// Without one, `hidden_size / heads`.
    pub(super) head_width: Option<u32>,
    pub(super) vocab_size: u32,
    pub(super) context_length: u32,
    /// The field of norms, too.
    pub(super) epsilon: (&'static str, f64),
    pub(super) tied_embeddings: bool,
    /// Base of RoPE's frequencies.
    pub(super) theta: f64,
    /// The part of each head that RoPE turns, where the architecture lets it be another than all.
    pub(super) rotated: Option<f64>,
    pub(super) bos: Option<u32>,
    pub(super) eos: Option<u32>,
}

/// Those of transformers' `LlamaConfig`.
pub(super) const LLAMA: Defaults = Defaults {
    hidden_size: 4096,
    intermediate_size: 11008,
    layers: 32,
    heads: 32,
    kv_heads: None,
    head_width: None,
    vocab_size: 32000,
    context_length: 2048,
    epsilon: ("rms_norm_eps", 1e-6),
    tied_embeddings: false,
    theta: 1e4,
    rotated: None,
    bos: Some(1),
    eos: Some(2),
};

/// The hyperparameters of a decoder, with RMSNorm, RoPE on whole heads and the names of a Llama unless
/// its architecture says otherwise.
#[derive(Clone)]
pub(super) struct Decoder {
    pub(super) sizes: Sizes,
    pub(super) vocab_size: u32,
    pub(super) context_length: u32,
    epsilon: f32,
    pub(super) tied_embeddings: bool,
    tokens: (Option<u32>, Vec<u32>),
    theta: f64,
    rotated: Option<f64>,
    /// What the embedding is multiplied with.
    pub(super) embedding_scale: Option<f32>,
    /// What scores are multiplied with.
    pub(super) score_scale: f32,
    /// What scores stay below; 0 for no bound.
    pub(super) score_cap: f32,
    /// A value of scores that were learned for each head.
    pub(super) head_scores: Option<&'static str>,
    /// The order in which rows of queries and keys are stored.
    order: Order,
    /// What logits are multiplied with.
    pub(super) logit_scale: Option<f32>,
    /// What logits stay below.
    pub(super) logit_cap: Option<f64>,
    pub(super) norm_kind: NormKind,
    pub(super) norm_bias: bool,
    /// What is added to the weights of norms.
    pub(super) norm_plus: f32,
    /// What attention and feed-forward layers read.
    pub(super) input: &'static str,
    /// The feed-forward layers have a gate.
    pub(super) gated: bool,
    pub(super) names: Names,
    /// Where queries, keys and values lie, side by side.
    pub(super) query_key_value: [ValueRef; 3],
    /// What attention gives.
    pub(super) attended: &'static str,
}

/// What stored tensors outside of layers are called.
#[derive(Clone, Copy)]
pub(super) struct Names {
    pub(super) embedding: &'static str,
    /// What names of a layer's tensors begin with.
    pub(super) layers: &'static str,
    /// The norm behind the layers.
    pub(super) norm: &'static str,
    pub(super) output: &'static str,
    pub(super) output_bias: bool,
}

impl Decoder {
    /// Reads the fields that have the same names in most decoders, within bounds that keep
    /// arithmetic on them from overflowing.
    pub(super) fn read(config: &Config<'_>, defaults: &Defaults) -> Result<Self> {
        let sizes = read_sizes(config, defaults)?;
        let vocab_size = config.size("vocab_size", defaults.vocab_size, MAX_VOCABULARY)?;
        let context = defaults.context_length;
        let [q, kv] = [sizes.heads, sizes.kv_heads].map(|heads| heads * sizes.head_width);
        Ok(Self {
            sizes,
            vocab_size,
            context_length: config.size("max_position_embeddings", context, MAX_CONTEXT)?,
            epsilon: config.epsilon(defaults.epsilon.0, defaults.epsilon.1)?,
            tied_embeddings: config.boolean("tie_word_embeddings", defaults.tied_embeddings)?,
            tokens: read_tokens(config, [defaults.bos, defaults.eos], vocab_size)?,
            theta: defaults.theta,
            rotated: defaults.rotated,
            embedding_scale: None,
            score_scale: 1.0 / (sizes.head_width as f32).sqrt(),
            score_cap: 0.0,
            head_scores: None,
            order: match config.interleaved {
                true => Order::Interleaved(sizes.head_width),
                false => Order::Plain,
            },
            logit_scale: None,
            logit_cap: None,
            norm_kind: NormKind::Rms,
            norm_bias: false,
            norm_plus: 0.0,
            input: "normed",
            gated: true,
            names: Names {
                embedding: "model.embed_tokens",
                layers: "model.layers",
                norm: "model.norm",
                output: "lm_head",
                output_bias: false,
            },
            query_key_value: [(0, q), (q, q + kv), (q + kv, q + 2 * kv)]
                .map(|(first, end)| ValueRef::rows("qkv", first, end)),
            attended: "attended",
        })
    }

    /// How many positions each layer sees, 0 for all: `sliding_window` in those that `layer_types`
    /// or else `slides` names.
    pub(super) fn windows(
        &self,
        config: &Config<'_>,
        default: Option<u32>,
        slides: impl Fn(u32) -> bool,
    ) -> Result<Vec<u32>> {
        let window = match config.is_null("sliding_window") {
            true => None,
            false => config.integer("sliding_window")?.or(default),
        };
        if window == Some(0) {
            return Err(config.bad("sliding_window", &0.into(), "a positive number or null"));
        }
        let kinds =
            config.layer_types(self.sizes.layers, &["full_attention", "sliding_attention"])?;
        let of_layer = |layer: u32| {
            let slides = match &kinds {
                Some(kinds) => kinds[layer as usize] == "sliding_attention",
                None => slides(layer),
            };
            window.filter(|_| slides).unwrap_or(0)
        };
        let windows: Vec<_> = (0..self.sizes.layers).map(of_layer).collect();
        match windows.iter().find(|window| **window > 0) {
            Some(window) => config.note("sliding_window", *window),
            None => config.note("sliding_window", Value::Null),
        }
        Ok(windows)
    }

    /// The blueprint of a decoder with one RoPE, whose layers are of these kinds (how many positions
    /// they see, for most) and are this block, from `residual` to `residual`.
    pub(super) fn blueprint<K: Copy + PartialEq>(
        self,
        family: &'static str,
        config: &Config<'_>,
        kinds: &[K],
        block: impl Fn(&Self, &mut Builder, K),
    ) -> Result<Blueprint> {
        let rope = Rope::read(config, self.theta)?;
        let mut graph = self.graph();
        self.angles(&mut graph, ["angles", FREQUENCIES], &rope, config)?;
        self.embed(&mut graph);
        graph.layers(kinds, self.names.layers, |graph, kind| block(&self, graph, *kind));
        Ok(self.finish(family, graph))
    }

    /// The embedding of each token, into `residual`.
    pub(super) fn embed(&self, graph: &mut Builder) {
        graph.embed("residual");
        if let Some(scale) = self.embedding_scale {
            graph.scale("residual", scale);
        }
    }

    /// As many layers that see all positions as there are.
    pub(super) fn all_see_all(&self) -> Vec<u32> {
        vec![0; self.sizes.layers as usize]
    }

    /// A graph with the values that blocks are made of.
    pub(super) fn graph(&self) -> Builder {
        let sizes = self.sizes;
        let [query, _, value] = &self.query_key_value;
        let ends = [query, value].map(|value| value.rows.map_or(0, |(_, end)| end));
        let mut graph = Builder::new(self.vocab_size, self.context_length);
        graph.values([
            ("residual", sizes.hidden),
            ("normed", sizes.hidden),
            ("qkv", ends[1]),
            ("attended", ends[0]),
        ]);
        let wide = sizes.intermediate;
        match self.gated {
            true => graph.values([("gate_up", 2 * wide), ("gated", wide)]),
            false => graph.values([("wide", wide)]),
        }
        graph
    }

    /// Angles of a RoPE on the part of each head that it turns.
    pub(super) fn angles(
        &self,
        graph: &mut Builder,
        names: [&str; 2],
        rope: &Rope,
        config: &Config<'_>,
    ) -> Result<()> {
        let part = rope.part(self.rotated, config)?;
        // Rounded down as transformers does, but for what dividing by the width may have left.
        let width = (f64::from(self.sizes.head_width) * part + 1e-9) as u32;
        if width < 2 || !width.is_multiple_of(2) {
            let expected = "a part of a head that is a number of pairs";
            return Err(config.bad("partial_rotary_factor", &part.into(), expected));
        }
        self.angles_of(graph, names, rope, width, config)
    }

    /// Angles of a RoPE on so many numbers of each head.
    pub(super) fn angles_of(
        &self,
        graph: &mut Builder,
        [name, frequencies]: [&str; 2],
        rope: &Rope,
        width: u32,
        config: &Config<'_>,
    ) -> Result<()> {
        let values = rope.frequencies(width, config)?;
        config.note(frequencies, rope.described(width));
        if let Some((original, beyond)) = rope.beyond() {
            graph.limit_context(original, frequencies, beyond.frequencies(width, config)?);
        }
        let scale = rope.attention_factor() as f32;
        if !scale.is_finite() {
            let found = Value::from(rope.attention_factor());
            return Err(config.bad("attention_factor", &found, "a number of usual size"));
        }
        // 0 stands for 1, and is not written.
        graph.angles(frequencies, values, if scale == 1.0 { 0.0 } else { scale }, name);
        Ok(())
    }

    /// What comes behind the layers.
    pub(super) fn finish(self, family: &'static str, mut graph: Builder) -> Blueprint {
        let names = self.names;
        let (hidden, vocabulary) = (self.sizes.hidden, self.vocab_size);
        graph.selected_values([("selected", hidden), ("final", hidden), ("logits", vocabulary)]);
        graph.select("residual", "selected");
        self.norm(&mut graph, "norm", names.norm, ["selected", "final"]);
        let output = (!self.tied_embeddings).then_some(names.output);
        let bias = names.output_bias.then_some(names.output);
        graph.logits(names.embedding, output, bias, "final");
        if let Some(scale) = self.logit_scale {
            graph.scale("logits", scale);
        }
        if let Some(cap) = self.logit_cap {
            graph.soft_cap("logits", cap as f32);
        }
        // Early versions of transformers stored frequencies and masks; a tied output matrix is a copy.
        let mut derived = vec![".rotary_emb.inv_freq", ".attention.bias", ".attention.masked_bias"];
        derived.extend(
            self.tied_embeddings
                .then_some(["lm_head.weight", "embed_out.weight"])
                .into_iter()
                .flatten(),
        );
        graph.finish(family, self.sizes, self.tokens, derived)
    }

    /// A norm of a whole value.
    pub(super) fn whole(&self) -> NormOf {
        NormOf { kind: self.norm_kind, epsilon: self.epsilon, group: 0 }
    }

    /// A norm of this model's kind.
    pub(super) fn norm(&self, graph: &mut Builder, name: &str, from: &str, io: [&str; 2]) {
        let from = self.norm_from(from);
        let [input, output] = io.map(all);
        graph.norm(name, from, self.whole(), [&input, &output]);
    }

    /// Norms of each head of the queries and of the keys, in place.
    pub(super) fn head_norms(&self, graph: &mut Builder, from: [&str; 2]) {
        self.query_key_norms(graph, self.sizes.head_width, from);
    }

    /// Norms of pieces of this width of the queries and of the keys, in place; of all at once if it
    /// is 0.
    pub(super) fn query_key_norms(&self, graph: &mut Builder, group: u32, from: [&str; 2]) {
        let of = NormOf { group, ..self.whole() };
        let names = ["attention.query_norm", "attention.key_norm"];
        for ((name, from), value) in names.into_iter().zip(from).zip(&self.query_key_value) {
            graph.norm(name, self.norm_from(from), of, [value, value]);
        }
    }

    pub(super) fn norm_from<'n>(&self, name: &'n str) -> Stored<'n> {
        Stored { bias: self.norm_bias, plus: self.norm_plus, ..stored(name) }
    }

    /// Queries, keys and values of what the layer reads.
    pub(super) fn project(&self, graph: &mut Builder, bias: bool) {
        let [query, key, value] = &self.query_key_value;
        for (name, from, order, output) in [
            ("attention.query", "self_attn.q_proj", self.order, query),
            ("attention.key", "self_attn.k_proj", self.order, key),
            ("attention.value", "self_attn.v_proj", Order::Plain, value),
        ] {
            graph.linear(name, Stored { order, bias, ..stored(from) }, self.input, output);
        }
    }

    /// Turns queries and keys by these angles, stores and attends, into `attended`. The layer sees
    /// so many positions; 0 for all.
    pub(super) fn attend(&self, graph: &mut Builder, angles: &str, window: u32) {
        let [query, key, _] = &self.query_key_value;
        graph.rotary(angles, query, self.sizes.head_width);
        graph.rotary(angles, key, self.sizes.head_width);
        self.attend_by(graph, Some(angles), window);
    }

    /// Stores and attends, into `attended`; queries and keys are turned by these angles.
    pub(super) fn attend_by(&self, graph: &mut Builder, angles: Option<&str>, window: u32) {
        let [query, key, value] = &self.query_key_value;
        let Sizes { kv_heads, head_width: width, .. } = self.sizes;
        let state = graph.cache(cache(angles.is_some(), window), kv_heads, width, window);
        graph.attention_of(&state, [query, key, value], self.attending(angles), self.attended);
    }

    /// What its attention looks at, and how, where queries are turned by these angles.
    pub(super) fn attending<'n>(&self, angles: Option<&'n str>) -> Attending<'n> {
        let (scale, cap, head_scores) = (self.score_scale, self.score_cap, self.head_scores);
        Attending { angles, scale, cap, head_scores, ..Attending::default() }
    }

    /// The usual attention, added to the residual stream.
    pub(super) fn attention(&self, graph: &mut Builder, window: u32, bias: bool) {
        self.attend(graph, "angles", window);
        let output = Stored { bias, ..stored("self_attn.o_proj") };
        graph.linear_onto("attention.output", output, "attended", "residual");
    }

    /// The gate of the feed-forward layer, into `gated`, by these matrices.
    pub(super) fn gate(
        &self,
        graph: &mut Builder,
        activation: Activation,
        [gate, up]: [Stored<'_>; 2],
    ) {
        let [gated, plain] = self.gate_up();
        graph.linear("feed_forward.gate", gate, self.input, &gated);
        graph.linear("feed_forward.up", up, self.input, &plain);
        graph.gated(activation, [&gated, &plain], "gated");
    }

    /// A feed-forward layer whose gate and up matrix are stored as one, added to the residual stream.
    pub(super) fn joint_feed_forward(
        &self,
        graph: &mut Builder,
        activation: Activation,
        gate_up: Stored<'_>,
    ) {
        self.joint_gate(graph, activation, gate_up);
        graph.linear_onto("feed_forward.down", stored("mlp.down_proj"), "gated", "residual");
    }

    /// The gate of the feed-forward layer, into `gated`, by one matrix.
    pub(super) fn joint_gate(
        &self,
        graph: &mut Builder,
        activation: Activation,
        gate_up: Stored<'_>,
    ) {
        let [gated, plain] = self.gate_up();
        graph.linear("feed_forward.gate_up", gate_up, self.input, &all("gate_up"));
        graph.gated(activation, [&gated, &plain], "gated");
    }

    /// What the gate and the up matrix make.
    fn gate_up(&self) -> [ValueRef; 2] {
        let wide = self.sizes.intermediate;
        [0, wide].map(|first| ValueRef::rows("gate_up", first, first + wide))
    }

    /// A feed-forward layer without a gate, of these matrices, added to the residual stream.
    pub(super) fn plain_feed_forward(
        &self,
        graph: &mut Builder,
        activation: Activation,
        [up, down]: [Stored<'_>; 2],
    ) {
        graph.linear("feed_forward.up", up, self.input, &all("wide"));
        graph.activate(activation, &all("wide"));
        graph.linear_onto("feed_forward.down", down, "wide", "residual");
    }

    /// The usual feed-forward layer, added to the residual stream.
    pub(super) fn feed_forward(&self, graph: &mut Builder, activation: Activation, bias: bool) {
        let from = |name| Stored { bias, ..stored(name) };
        self.gate(graph, activation, [from("mlp.gate_proj"), from("mlp.up_proj")]);
        graph.linear_onto("feed_forward.down", from("mlp.down_proj"), "gated", "residual");
    }
}

/// What the cache of a kind of layers is called: those that turn keys, and see so many positions.
pub(super) fn cache(turned: bool, window: u32) -> &'static str {
    match (turned, window) {
        (true, 0) => "kv",
        (true, _) => "kv_window",
        (false, 0) => "kv_unturned",
        (false, _) => "kv_window_unturned",
    }
}

fn read_sizes(config: &Config<'_>, defaults: &Defaults) -> Result<Sizes> {
    let hidden = config.size("hidden_size", defaults.hidden_size, MAX_WIDTH)?;
    let heads = config.size("num_attention_heads", defaults.heads, MAX_WIDTH)?;
    let given = config.get("head_dim").is_some() || defaults.head_width.is_some();
    if !given && !hidden.is_multiple_of(heads) {
        let expected = format!("a divisor of hidden_size = {hidden}, or head_dim");
        return Err(config.bad("num_attention_heads", &heads.into(), &expected));
    }
    let width = defaults.head_width.unwrap_or(hidden / heads);
    let head_width = config.size("head_dim", width, MAX_WIDTH / heads)?;
    if !head_width.is_multiple_of(2) {
        let expected = "an even number: RoPE rotates pairs";
        return Err(config.bad("head_dim", &head_width.into(), expected));
    }
    let kv_heads = defaults.kv_heads.unwrap_or(heads);
    let kv_heads = config.size("num_key_value_heads", kv_heads, heads)?;
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

/// The tokens that begin and end a text.
pub(super) fn read_tokens(
    config: &Config<'_>,
    [bos, eos]: [Option<u32>; 2],
    vocab_size: u32,
) -> Result<(Option<u32>, Vec<u32>)> {
    let bos = config.tokens("bos_token_id", bos)?.first().copied();
    let eos = config.tokens("eos_token_id", eos)?;
    match bos.iter().chain(&eos).find(|&&id| id >= vocab_size) {
        Some(id) => {
            let expected = format!("less than the vocabulary's {vocab_size}");
            let field = "id of a token that begins or ends a text";
            Err(config.bad(field, &(*id).into(), &expected))
        }
        None => Ok((bos, eos)),
    }
}
