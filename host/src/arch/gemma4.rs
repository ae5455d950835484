//! Gemma 4, text only: global layers have wider heads, the last layers see keys of earlier ones, tokens
//! have an embedding for each layer, and there may be experts beside the feed-forward layer.

use super::blueprint::{Blueprint, Source};
use super::builder::{Builder, FREQUENCIES, NormOf, Routing, Stored, all, stored};
use super::config::Config;
use super::decoder::{Decoder, Defaults, MAX_VOCABULARY, MAX_WIDTH, cache};
use super::gemma3;
use super::mixture::{Mixture, Names, Stacks};
use super::rope::Rope;
use crate::Result;
use crate::graph::ValueRef;
use omex_core::ops::{Activation, Index, NormKind};
use omex_core::program::MAX_HEAD_WIDTH;

/// Those of transformers' `Gemma4TextConfig`.
const DEFAULTS: Defaults = Defaults { layers: 30, vocab_size: 262_144, ..gemma3::DEFAULTS };

const EXPERTS: Names = Names {
    router: "router.proj",
    experts: Stacks::Together(["experts.gate_up_proj", "experts.down_proj"]),
};

pub(super) fn blueprint(config: &Config<'_>) -> Result<Blueprint> {
    let model = Model::read(config)?;
    let [local, global] = &model.decoders;
    let mut graph = local.graph();
    model.declare(&mut graph);
    let ropes = match gemma3::ropes_of_kinds(config, [1e6, 1e4])? {
        Some(ropes) => ropes,
        None => [Rope::proportional(1e6, 0.25), Rope::plain(1e4)],
    };
    let [of_global, of_local] = &ropes;
    let widths = [local, global].map(|decoder| decoder.sizes.head_width);
    let names = ["local_angles", gemma3::LOCAL_FREQUENCIES];
    local.angles_of(&mut graph, names, of_local, widths[0], config)?;
    global.angles_of(&mut graph, ["angles", FREQUENCIES], of_global, widths[1], config)?;
    local.embed(&mut graph);
    model.embed_for_layers(&mut graph);
    graph.unrolled = model.of_layer > 0;
    graph.layers(&model.kinds, "model.layers", |graph, kind| model.layer(graph, *kind));
    Ok(local.clone().finish("gemma4", graph))
}

/// What a layer is.
#[derive(Clone, Copy, PartialEq)]
struct Kind {
    /// How many positions it sees; 0 for all.
    window: u32,
    /// The number of the layer, among those of its kind, whose keys it sees instead of its own.
    shares: Option<u32>,
    /// Width of its feed-forward layer.
    wide: u32,
}

/// The hyperparameters.
struct Model {
    /// Of local and of global layers.
    decoders: [Decoder; 2],
    kinds: Vec<Kind>,
    /// Values of global layers are their keys.
    keys_are_values: bool,
    bias: bool,
    mixture: Option<Mixture>,
    /// Width of what tokens have for each layer; 0 for nothing, and of how many tokens.
    of_layer: u32,
    of_tokens: u32,
}

impl Model {
    fn read(config: &Config<'_>) -> Result<Self> {
        config.one_of("hidden_activation", &["gelu_pytorch_tanh"])?;
        // Pictures' tokens may see each other; there are none.
        config.one_of("use_bidirectional_attention", &["vision"])?;
        let bias = config.boolean("attention_bias", false)?;
        let mut local = Decoder::read(config, &DEFAULTS)?;
        local.score_scale = 1.0;
        local.embedding_scale = Some((local.sizes.hidden as f32).sqrt());
        local.logit_cap = config.positive("final_logit_softcapping")?;
        let kinds = kinds(config, &local)?;
        let keys_are_values = config.boolean("attention_k_eq_v", false)?;
        let global = global(config, &local, &kinds, keys_are_values)?;
        let mixture = match config.boolean("enable_moe_block", false)? {
            true => Some(mixture(config, local.sizes.hidden)?),
            false => {
                // What experts would be like.
                for name in ["num_experts", "top_k_experts"] {
                    config.get(name);
                }
                None
            }
        };
        let of_layer = match config.integer("hidden_size_per_layer_input")? {
            Some(0) => 0,
            _ => config.size("hidden_size_per_layer_input", 256, MAX_WIDTH / local.sizes.layers)?,
        };
        let of_tokens = config.size("vocab_size_per_layer_input", 262_144, MAX_VOCABULARY)?;
        if of_layer > 0 && of_tokens < local.vocab_size {
            let expected = format!("at least the vocabulary's {}", local.vocab_size);
            return Err(config.bad("vocab_size_per_layer_input", &of_tokens.into(), &expected));
        }
        note(config, &kinds, [&local, &global], of_layer);
        let decoders = [local, global];
        Ok(Self { decoders, kinds, keys_are_values, bias, mixture, of_layer, of_tokens })
    }

    /// The values that are not a local layer's.
    fn declare(&self, graph: &mut Builder) {
        let sizes = self.decoders[1].sizes;
        let [queries, keys] = [sizes.heads, sizes.kv_heads].map(|heads| heads * sizes.head_width);
        let hidden = sizes.hidden;
        graph.values([
            ("branch", hidden),
            ("global_query_key", queries + keys),
            ("global_value", keys),
            ("global_attended", queries),
        ]);
        if self.mixture.is_some() {
            graph.values([("routed", hidden), ("expert_sum", hidden)]);
        }
        if self.of_layer > 0 {
            let all = self.of_layer * sizes.layers;
            graph.values([("of_layers", all), ("gate_of_layer", self.of_layer)]);
            graph.values([("gated_of_layer", self.of_layer)]);
        }
        let wide = self.kinds.iter().map(|kind| kind.wide).max().unwrap_or_default();
        if wide > sizes.intermediate {
            graph.values([("wide_gate_up", 2 * wide), ("wide_gated", wide)]);
        }
    }

    /// What each token has for each layer, from its embeddings.
    fn embed_for_layers(&self, graph: &mut Builder) {
        if self.of_layer == 0 {
            return;
        }
        let (value, hidden) = (all("of_layers"), self.decoders[0].sizes.hidden as f32);
        let projection = stored("model.per_layer_model_projection");
        graph.linear("per_layer.projection", projection, "residual", &value);
        graph.scale("of_layers", 1.0 / hidden.sqrt());
        let of = NormOf { group: self.of_layer, ..self.decoders[0].whole() };
        let norm = stored("model.per_layer_projection_norm");
        graph.norm("per_layer.norm", norm, of, [&value, &value]);
        // Embeddings are multiplied with the root of their width before they are added.
        let root = (self.of_layer as f32).sqrt();
        graph.scale("of_layers", 1.0 / root);
        let from = stored("model.embed_tokens_per_layer");
        let by_token = (Index::Token, 0);
        graph.embed_onto("per_layer.embedding", from, self.of_tokens, by_token, "of_layers");
        graph.scale("of_layers", root / 2f32.sqrt());
    }

    fn layer(&self, graph: &mut Builder, kind: Kind) {
        let local = &self.decoders[0];
        local.norm(graph, "attention_norm", "input_layernorm", ["residual", "normed"]);
        self.attention(graph, kind);
        local.norm(graph, "after_attention_norm", "post_attention_layernorm", ["branch"; 2]);
        graph.add("branch", "residual");
        local.norm(graph, "feed_forward_norm", "pre_feedforward_layernorm", ["residual", "normed"]);
        self.feed_forward(graph, kind.wide);
        if let Some(mixture) = &self.mixture {
            self.experts(mixture, graph);
        }
        local.norm(graph, "after_feed_forward_norm", "post_feedforward_layernorm", ["branch"; 2]);
        graph.add("branch", "residual");
        if self.of_layer > 0 {
            self.add_own(graph);
        }
        graph.constants("layer_scalar", &[Source::whole("layer_scalar", [1, 1])], "layer_scalar");
        graph.scale_by("residual", "layer_scalar");
    }

    /// The attention, from `normed` to `branch`.
    fn attention(&self, graph: &mut Builder, kind: Kind) {
        let global = kind.window == 0;
        let decoder = &self.decoders[usize::from(global)];
        let angles = if global { "angles" } else { "local_angles" };
        let [query, key, value] = &decoder.query_key_value;
        let width = decoder.sizes.head_width;
        let from = |name| Stored { bias: self.bias, ..stored(name) };
        let group = NormOf { group: width, ..decoder.whole() };
        graph.linear("attention.query", from("self_attn.q_proj"), "normed", query);
        let norm = stored("self_attn.q_norm");
        graph.norm("attention.query_norm", norm, group, [query, query]);
        graph.rotary(angles, query, width);
        if let Some(number) = kind.shares {
            let state = format!("{}[{number}]", cache(true, kind.window));
            let attending = decoder.attending(Some(angles));
            graph.attend(&state, query, attending, decoder.attended);
        } else {
            graph.linear("attention.key", from("self_attn.k_proj"), "normed", key);
            let mut values = value;
            if global && self.keys_are_values {
                values = key;
            } else {
                graph.linear("attention.value", from("self_attn.v_proj"), "normed", value);
            }
            let of = NormOf { kind: NormKind::Rms, ..group };
            graph.plain_norm("attention.value_norm", of, [values, value]);
            let norm = stored("self_attn.k_norm");
            graph.norm("attention.key_norm", norm, group, [key, key]);
            graph.rotary(angles, key, width);
            decoder.attend_by(graph, Some(angles), kind.window);
        }
        let output = from("self_attn.o_proj");
        graph.linear("attention.output", output, decoder.attended, &all("branch"));
    }

    /// The feed-forward layer, from `normed` to `branch`.
    fn feed_forward(&self, graph: &mut Builder, wide: u32) {
        let names = match wide > self.decoders[0].sizes.intermediate {
            true => ["wide_gate_up", "wide_gated"],
            false => ["gate_up", "gated"],
        };
        let [gate, up] = [0, wide].map(|first| ValueRef::rows(names[0], first, first + wide));
        graph.linear("feed_forward.gate", stored("mlp.gate_proj"), "normed", &gate);
        graph.linear("feed_forward.up", stored("mlp.up_proj"), "normed", &up);
        graph.gated(Activation::GeluTanh, [&gate, &up], names[1]);
        graph.linear("feed_forward.down", stored("mlp.down_proj"), names[1], &all("branch"));
    }

    /// What experts make of the residual stream, added to what the feed-forward layer did.
    fn experts(&self, mixture: &Mixture, graph: &mut Builder) {
        let decoder = &self.decoders[0];
        let [residual, routed] = ["residual", "routed"].map(all);
        decoder.norm(graph, "dense_norm", "post_feedforward_layernorm_1", ["branch"; 2]);
        graph.named_norm("router.norm", "router.scale", decoder.whole(), [&residual, &routed]);
        mixture.scores(graph, stored(mixture.names.router), "routed");
        graph.scale("scores", 1.0 / (decoder.sizes.hidden as f32).sqrt());
        let factors = Source::whole("router.per_expert_scale", [1, mixture.experts]);
        graph.constants("router.factors", &[factors], "expert_factors");
        graph.route("scores", mixture.routing, "route");
        let into = ["residual", "routed"];
        decoder.norm(graph, "expert_norm", "pre_feedforward_layernorm_2", into);
        // Experts add to what is there.
        decoder.norm(
            graph,
            "expert_norm_again",
            "pre_feedforward_layernorm_2",
            ["residual", "expert_sum"],
        );
        graph.scale("expert_sum", 0.0);
        graph.experts("experts", &mixture.stored(), ["routed", "route", "expert_sum"]);
        let name = "post_feedforward_layernorm_2";
        decoder.norm(graph, "after_experts_norm", name, ["expert_sum"; 2]);
        graph.add("expert_sum", "branch");
    }

    /// What the token has for this layer, gated by the residual stream and added to it.
    fn add_own(&self, graph: &mut Builder) {
        let (of_layer, number) = (self.of_layer, graph.layer());
        let own = ValueRef::rows("of_layers", number * of_layer, (number + 1) * of_layer);
        let gate = all("gate_of_layer");
        graph.linear("per_layer.gate", stored("per_layer_input_gate"), "residual", &gate);
        graph.gated(Activation::GeluTanh, [&gate, &own], "gated_of_layer");
        let projection = stored("per_layer_projection");
        graph.linear("per_layer.output", projection, "gated_of_layer", &all("branch"));
        let decoder = &self.decoders[0];
        decoder.norm(graph, "per_layer.output_norm", "post_per_layer_input_norm", ["branch"; 2]);
        graph.add("branch", "residual");
    }
}

/// Notes what GGUF files say of layers one by one, or by other names.
fn note(config: &Config<'_>, kinds: &[Kind], [local, global]: [&Decoder; 2], of_layer: u32) {
    let slides = kinds.iter().map(|kind| kind.window > 0);
    config.note("sliding_window_pattern", slides.collect::<Vec<_>>());
    let heads = |kind: &Kind| match kind.window {
        0 => global.sizes.kv_heads,
        _ => local.sizes.kv_heads,
    };
    if local.sizes.kv_heads != global.sizes.kv_heads {
        config.note("num_key_value_heads", kinds.iter().map(heads).collect::<Vec<_>>());
    }
    if kinds.iter().any(|kind| kind.wide != local.sizes.intermediate) {
        config.note("intermediate_size", kinds.iter().map(|kind| kind.wide).collect::<Vec<_>>());
    }
    let sharing = kinds.iter().filter(|kind| kind.shares.is_some()).count();
    config.note("num_kv_shared_layers", sharing);
    config.note("global_head_dim", global.sizes.head_width);
    config.note("hidden_size_per_layer_input", of_layer);
}

/// What the layers are.
fn kinds(config: &Config<'_>, decoder: &Decoder) -> Result<Vec<Kind>> {
    let mut windows = decoder.windows(config, Some(512), |layer| !(layer + 1).is_multiple_of(6))?;
    // As transformers does.
    if let Some(last) = windows.last_mut() {
        *last = 0;
    }
    let layers = decoder.sizes.layers;
    let sharing = config.integer("num_kv_shared_layers")?.unwrap_or(0);
    let own = windows.len().checked_sub(sharing as usize).filter(|own| *own > 0);
    let Some(own) = own else {
        let expected = format!("less than the {layers} layers");
        return Err(config.bad("num_kv_shared_layers", &sharing.into(), &expected));
    };
    let double = config.boolean("use_double_wide_mlp", false)?;
    let width = decoder.sizes.intermediate;
    let kind = |(layer, window): (usize, &u32)| {
        if layer < own {
            return Ok(Kind { window: *window, shares: None, wide: width });
        }
        let of_kind = windows[..own].iter().filter(|other| *other == window).count();
        let shares = (of_kind as u32).checked_sub(1).ok_or_else(|| {
            let expected = "layers of each kind before those that share keys";
            config.bad("num_kv_shared_layers", &sharing.into(), expected)
        })?;
        let wide = if double { (2 * width).min(MAX_WIDTH) } else { width };
        Ok(Kind { window: *window, shares: Some(shares), wide })
    };
    windows.iter().enumerate().map(kind).collect()
}

/// The decoder of global layers.
fn global(
    config: &Config<'_>,
    local: &Decoder,
    kinds: &[Kind],
    keys_are_values: bool,
) -> Result<Decoder> {
    let mut decoder = local.clone();
    let sizes = &mut decoder.sizes;
    let most = MAX_HEAD_WIDTH.min(MAX_WIDTH / sizes.heads);
    let width = config.size("global_head_dim", 512.min(most), most)?;
    let kv_heads = config.size("num_global_key_value_heads", sizes.kv_heads, sizes.heads)?;
    (sizes.head_width, sizes.kv_heads) =
        (width, if keys_are_values { kv_heads } else { sizes.kv_heads });
    if let Some(layers) = config.object("per_layer_config", "per_layer_config.")? {
        (sizes.head_width, sizes.kv_heads) = of_layers(&layers, local, kinds)?;
    }
    for (name, value, bad) in [
        ("global_head_dim", sizes.head_width, !sizes.head_width.is_multiple_of(2)),
        ("num_global_key_value_heads", sizes.kv_heads, !sizes.heads.is_multiple_of(sizes.kv_heads)),
    ] {
        if bad {
            let expected = format!("even widths, and a divisor of the {} heads", sizes.heads);
            return Err(config.bad(name, &value.into(), &expected));
        }
    }
    let [queries, keys] = [sizes.heads, sizes.kv_heads].map(|heads| heads * sizes.head_width);
    let [query, key] = [(0, queries), (queries, queries + keys)]
        .map(|(first, end)| ValueRef::rows("global_query_key", first, end));
    decoder.query_key_value = [query, key, all("global_value")];
    decoder.attended = "global_attended";
    Ok(decoder)
}

/// Width and number of key heads of global layers, as fields of single layers say.
fn of_layers(layers: &Config<'_>, local: &Decoder, kinds: &[Kind]) -> Result<(u32, u32)> {
    let sizes = local.sizes;
    let most = MAX_HEAD_WIDTH.min(MAX_WIDTH / sizes.heads);
    let mut found = None;
    for (number, kind) in kinds.iter().enumerate() {
        let layer = layers.object(&number.to_string(), "per_layer_config.*.")?;
        let mut own = (sizes.head_width, sizes.kv_heads);
        if let Some(layer) = &layer {
            let width = layer.size("head_dim", own.0, most)?;
            own = (width, layer.size("num_key_value_heads", own.1, sizes.heads)?);
        }
        let expected = match kind.window {
            0 => *found.get_or_insert(own),
            _ => (sizes.head_width, sizes.kv_heads),
        };
        if own != expected {
            let field = layers.get(&number.to_string()).cloned().unwrap_or_default();
            let expected =
                format!("heads as wide and as many as in other layers of its kind: {expected:?}");
            return Err(layers.unsupported(&number.to_string(), &field, &expected));
        }
    }
    Ok(found.unwrap_or((sizes.head_width, sizes.kv_heads)))
}

fn mixture(config: &Config<'_>, hidden: u32) -> Result<Mixture> {
    let names = (&["num_experts", "num_local_experts"][..], "top_k_experts");
    let wide = ("moe_intermediate_size", 704);
    let mixture = Mixture::read_as(config, names, [128, 8], wide, hidden)?;
    config.note("num_experts_per_tok", mixture.chosen);
    let routing = Routing { factors: Some("expert_factors"), ..mixture.routing };
    Ok(Mixture { activation: Activation::GeluTanh, routing, names: EXPERTS, ..mixture })
}
