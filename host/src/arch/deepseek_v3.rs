//! DeepSeek-V3, and what versions have in common: latent attention, and experts whose choice is balanced by biases (arXiv:2412.19437).
//!
//! The cache keeps latents, one for all heads, behind the part of keys that RoPE turns. What a head's
//! keys are made of them with is multiplied with queries, what its values are, with what it attends to
//! (arXiv:2405.04434, section 2.1.2).

use super::blueprint::{Blueprint, Order, Slice, Source};
use super::builder::{Builder, FREQUENCIES, NormOf, Stored, all, stored};
use super::config::Config;
use super::decoder::{Decoder, Defaults, LLAMA, MAX_LAYERS, MAX_WIDTH};
use super::mixture::{Mixture, SharedExpert};
use super::rope::Rope;
use crate::Result;
use crate::graph::ValueRef;
use omex_core::ops::{Activation, NormKind, Weights};
use omex_core::program::MAX_HEAD_WIDTH;

/// Those of transformers' `DeepseekV3Config`.
const DEFAULTS: Defaults = Defaults {
    hidden_size: 7168,
    intermediate_size: 18432,
    layers: 61,
    heads: 128,
    kv_heads: Some(128),
    head_width: Some(64),
    vocab_size: 129_280,
    context_length: 4096,
    bos: Some(0),
    eos: Some(1),
    ..LLAMA
};

/// What norms of latents add, which no field says.
const EPSILON: f32 = 1e-6;

/// What versions of DeepSeek differ in, and what stands in for fields that are absent.
pub(super) struct Version {
    pub(super) family: &'static str,
    pub(super) defaults: &'static Defaults,
    pub(super) mixture: fn(&Config<'_>, &Decoder, Activation) -> Result<Mixture>,
    /// Experts that all tokens meet.
    pub(super) shared: u32,
    /// Layers without experts, which are the first.
    pub(super) dense: u32,
    /// Layers behind the last that guess several tokens at once.
    pub(super) guessing: u32,
}

const V3: Version = Version {
    family: "deepseek_v3",
    defaults: &DEFAULTS,
    mixture,
    shared: 1,
    dense: 3,
    guessing: 1,
};

pub(super) fn blueprint(config: &Config<'_>) -> Result<Blueprint> {
    of_version(config, &V3)
}

/// The blueprint of a version.
pub(super) fn of_version(config: &Config<'_>, version: &Version) -> Result<Blueprint> {
    let activation = config.activation("hidden_act", Activation::Silu)?;
    let bias = config.boolean("attention_bias", false)?;
    let mut decoder = Decoder::read(config, version.defaults)?;
    let rope = Rope::read(config, version.defaults.theta)?;
    let latent = Latent::read(config, decoder.sizes.heads, bias)?;
    decoder.score_scale =
        (f64::from(latent.plain + latent.turned).sqrt().recip() * rope.score_factor()) as f32;
    latent.place(&mut decoder);
    let mixture = (version.mixture)(config, &decoder, activation)?;
    let shared = config.size("n_shared_experts", version.shared, 64)?;
    let shared = SharedExpert {
        activation,
        wide: shared.saturating_mul(mixture.wide).min(MAX_WIDTH),
        names: [
            "mlp.shared_experts.gate_proj",
            "mlp.shared_experts.up_proj",
            "mlp.shared_experts.down_proj",
        ],
        score: None,
    };
    let dense = config.integer("first_k_dense_replace")?.unwrap_or(version.dense);
    let kinds: Vec<_> = (0..decoder.sizes.layers).map(|layer| layer >= dense).collect();
    let mut graph = decoder.graph();
    latent.declare(&mut graph);
    decoder.angles_of(&mut graph, ["angles", FREQUENCIES], &rope, latent.turned, config)?;
    decoder.embed(&mut graph);
    graph.layers(&kinds, "model.layers", |graph, sparse| {
        decoder.norm(graph, "attention_norm", "input_layernorm", ["residual", "normed"]);
        latent.draw(&decoder, graph);
        let into = ["residual", "normed"];
        decoder.norm(graph, "feed_forward_norm", "post_attention_layernorm", into);
        match sparse {
            true => {
                match mixture.routing.bias {
                    Some(_) => draw(&mixture, graph),
                    None => mixture.draw(graph),
                }
                shared.draw(graph);
            }
            false => decoder.feed_forward(graph, activation, false),
        }
    });
    // What guesses several tokens at once lies behind the layers.
    let more = config.integer("num_nextn_predict_layers")?;
    let more = more.unwrap_or(version.guessing).min(MAX_LAYERS);
    let layers = decoder.sizes.layers;
    let aside = (layers..layers + more).map(|layer| format!("model.layers.{layer}.")).collect();
    Ok(Blueprint { aside, ..decoder.finish(version.family, graph) })
}

fn mixture(config: &Config<'_>, decoder: &Decoder, activation: Activation) -> Result<Mixture> {
    config.one_of("scoring_func", &["sigmoid"])?;
    config.one_of("topk_method", &["noaux_tc"])?;
    config.size_within("moe_layer_freq", 1, 1..=1)?;
    let counts = ["n_routed_experts", "num_local_experts"];
    let wide = ("moe_intermediate_size", 2048);
    let mixture = Mixture::read(config, &counts, [256, 8], wide, decoder.sizes.hidden)?;
    let mut routing = mixture.routing;
    routing.weights = match config.boolean("norm_topk_prob", true)? {
        true => Weights::Shares,
        false => Weights::Scores,
    };
    routing.factor = config.positive("routed_scaling_factor")?.unwrap_or(2.5) as f32;
    routing.bias = Some("balance");
    routing.groups = read_groups(config, &mixture, [8, 4])?;
    Ok(Mixture { activation, routing, ..mixture })
}

/// In how many groups experts lie, and of how many a token's are chosen.
pub(super) fn read_groups(
    config: &Config<'_>,
    mixture: &Mixture,
    [groups, kept]: [u32; 2],
) -> Result<[u32; 2]> {
    let groups = config.size("n_group", groups, 64)?;
    let kept = config.size("topk_group", kept, groups)?;
    let of_group = mixture.experts / groups;
    if of_group < 2 || of_group * groups != mixture.experts {
        let expected = format!("groups of two and more of the {} experts", mixture.experts);
        return Err(config.bad("n_group", &groups.into(), &expected));
    }
    if of_group * kept < mixture.chosen {
        let expected =
            format!("groups of {of_group} that hold a token's {} experts", mixture.chosen);
        return Err(config.bad("topk_group", &kept.into(), &expected));
    }
    Ok([groups, kept])
}

fn draw(mixture: &Mixture, graph: &mut Builder) {
    mixture.scores(graph, stored(mixture.names.router), "normed");
    graph.activate(Activation::Sigmoid, &all("scores"));
    let balance = Source::whole("mlp.gate.e_score_correction_bias", [1, mixture.experts]);
    graph.constants("router.balance", &[balance], "balance");
    graph.route("scores", mixture.routing, "route");
    graph.experts("experts", &mixture.stored(), ["normed", "route", "residual"]);
}

/// The sizes of a latent attention.
struct Latent {
    heads: u32,
    /// Width of the latents of queries, if they have some.
    queries: Option<u32>,
    /// Width of the latents of keys and values.
    width: u32,
    /// Of a key, the part that RoPE turns, and the other.
    turned: u32,
    plain: u32,
    value: u32,
    /// Neighbours are turned together.
    interleaved: bool,
    bias: bool,
    /// What makes keys and values of latents is stored apart, the first transposed.
    apart: bool,
}

impl Latent {
    fn read(config: &Config<'_>, heads: u32, bias: bool) -> Result<Self> {
        let queries = match config.is_null("q_lora_rank") {
            true => None,
            false => Some(config.size("q_lora_rank", 1536, MAX_WIDTH)?),
        };
        let most = MAX_WIDTH / heads;
        let latent = Self {
            heads,
            queries,
            width: config.size("kv_lora_rank", 512, most)?,
            turned: config.size("qk_rope_head_dim", 64, most)?,
            plain: config.size("qk_nope_head_dim", 128, most)?,
            value: config.size("v_head_dim", 128, most)?,
            interleaved: config.boolean("rope_interleave", true)?,
            bias,
            apart: config.is_converted() && !config.boolean("joint_kv_b", false)?,
        };
        if latent.head() > MAX_HEAD_WIDTH.min(most) {
            let expected = format!("at most {} with qk_rope_head_dim", MAX_HEAD_WIDTH.min(most));
            return Err(config.bad("kv_lora_rank", &latent.width.into(), &expected));
        }
        if !latent.turned.is_multiple_of(2) {
            let expected = "an even number: RoPE rotates pairs";
            return Err(config.bad("qk_rope_head_dim", &latent.turned.into(), expected));
        }
        // transformers computes it, and does not read it.
        config.get("qk_head_dim");
        Ok(latent)
    }

    /// Width of a query, and of what is kept.
    fn head(&self) -> u32 {
        self.turned + self.width
    }

    /// Tells the decoder where queries and keys lie; values are keys.
    fn place(&self, decoder: &mut Decoder) {
        let (queries, head) = (self.heads * self.head(), self.head());
        let key = ValueRef::rows("qkv", queries, queries + head);
        decoder.query_key_value = [ValueRef::rows("qkv", 0, queries), key.clone(), key];
        decoder.sizes.kv_heads = 1;
        decoder.sizes.head_width = head;
    }

    fn declare(&self, graph: &mut Builder) {
        if let Some(queries) = self.queries {
            graph.values([("query_latent", queries)]);
        }
        graph.values([
            ("plain_query", self.heads * self.plain),
            ("values", self.heads * self.value),
        ]);
    }

    /// The attention, from `normed`, added to the residual stream.
    fn draw(&self, decoder: &Decoder, graph: &mut Builder) {
        self.queries(graph);
        self.keys(graph);
        let [query, key, _] = &decoder.query_key_value;
        graph.rotary("angles", query, self.head());
        graph.rotary("angles", key, self.head());
        decoder.attend_by(graph, Some("angles"), 0);
        for head in 0..self.heads {
            let first = head * self.head() + self.turned;
            let input = ValueRef::rows("attended", first, first + self.width);
            let output = ValueRef::rows("values", head * self.value, (head + 1) * self.value);
            let from = self.values_of(head);
            let name = format!("attention.value_{head}");
            graph.linear_of(&name, from, &input, &output);
        }
        let output = Stored { bias: self.bias, ..stored("self_attn.o_proj") };
        graph.linear_onto("attention.output", output, "values", "residual");
    }

    /// What a head makes queries for latents with: what makes keys of them, transposed.
    fn queries_of(&self, head: u32) -> Stored<'static> {
        match self.apart {
            true => self.part("self_attn.k_b_proj", head, self.width),
            false => Stored { transposed: true, ..self.of_head(head, 0) },
        }
    }

    /// What a head makes values of latents with.
    fn values_of(&self, head: u32) -> Stored<'static> {
        match self.apart {
            true => self.part("self_attn.v_b_proj", head, self.value),
            false => self.of_head(head, self.plain),
        }
    }

    /// A head's rows of a tensor that has as many for each.
    fn part(&self, name: &'static str, head: u32, rows: u32) -> Stored<'static> {
        let slice = Some(Slice { first: head * rows, of: self.heads * rows });
        Stored { slice, depth: self.heads, ..stored(name) }
    }

    /// What a head makes keys and values of latents with, from this row on.
    fn of_head(&self, head: u32, first: u32) -> Stored<'static> {
        let rows = self.plain + self.value;
        let slice = Some(Slice { first: head * rows + first, of: self.heads * rows });
        Stored { slice, ..stored("self_attn.kv_b_proj") }
    }

    /// Queries of all heads: the part that is turned, then the other, multiplied with what keys are made
    /// of latents with.
    fn queries(&self, graph: &mut Builder) {
        let (from, input) = match self.queries {
            None => ("self_attn.q_proj", "normed"),
            Some(_) => {
                let from = Stored { bias: self.bias, ..stored("self_attn.q_a_proj") };
                graph.linear("attention.query_latent", from, "normed", &all("query_latent"));
                let latent = all("query_latent");
                norm(graph, "attention.query_norm", "self_attn.q_a_layernorm", &latent);
                ("self_attn.q_b_proj", "query_latent")
            }
        };
        let (rows, input) = (self.plain + self.turned, all(input));
        let of = self.heads * rows;
        for head in 0..self.heads {
            let slice = |first| Some(Slice { first: head * rows + first, of });
            let plain = ValueRef::rows("plain_query", head * self.plain, (head + 1) * self.plain);
            let name = format!("attention.plain_query_{head}");
            graph.linear_of(&name, Stored { slice: slice(0), ..stored(from) }, &input, &plain);
            let first = head * self.head();
            let turned = ValueRef::rows("qkv", first, first + self.turned);
            let order = self.order();
            let stored = Stored { slice: slice(self.plain), order, ..stored(from) };
            graph.linear_of(&format!("attention.turned_query_{head}"), stored, &input, &turned);
            let query = ValueRef::rows("qkv", first + self.turned, first + self.head());
            let stored = self.queries_of(head);
            graph.linear_of(&format!("attention.query_{head}"), stored, &plain, &query);
        }
    }

    /// The part of keys that is turned, and latents.
    fn keys(&self, graph: &mut Builder) {
        let first = self.heads * self.head();
        let turned = ValueRef::rows("qkv", first, first + self.turned);
        let latent = ValueRef::rows("qkv", first + self.turned, first + self.head());
        let slice = |first| Some(Slice { first, of: self.width + self.turned });
        let from = Stored { bias: self.bias, ..stored("self_attn.kv_a_proj_with_mqa") };
        let input = all("normed");
        let stored = Stored { slice: slice(0), ..from };
        graph.linear_of("attention.latent", stored, &input, &latent);
        let stored = Stored { slice: slice(self.width), order: self.order(), ..from };
        graph.linear_of("attention.turned_key", stored, &input, &turned);
        norm(graph, "attention.latent_norm", "self_attn.kv_a_layernorm", &latent);
    }

    /// The order in which the rows are stored that RoPE turns.
    fn order(&self) -> Order {
        if self.interleaved { Order::Interleaved(self.turned) } else { Order::Plain }
    }
}

fn norm(graph: &mut Builder, name: &str, from: &str, value: &ValueRef) {
    let of = NormOf { kind: NormKind::Rms, epsilon: EPSILON, group: 0 };
    graph.norm(name, stored(from), of, [value, value]);
}
