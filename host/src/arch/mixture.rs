//! Mixtures of experts: feed-forward layers of which each token meets some.

use super::builder::{Builder, Routing, all, stored};
use super::config::Config;
use super::decoder::MAX_WIDTH as MAX_SIZE;
use crate::Result;
use crate::graph::ValueRef;
use omex_core::ops::{Activation, Weights};
use omex_core::program::MAX_WIDTH;
use omex_core::quant::PANEL;

/// The most experts, and the most that a token is sent to.
const MOST: [u32; 2] = [512, 64];

/// A mixture of experts.
pub(super) struct Mixture {
    pub(super) experts: u32,
    /// How many of them a token is sent to.
    pub(super) chosen: u32,
    /// Width of an expert.
    pub(super) wide: u32,
    pub(super) activation: Activation,
    pub(super) routing: Routing,
    pub(super) names: Names,
}

/// What a mixture's tensors are called in a layer.
#[derive(Clone, Copy)]
pub(super) struct Names {
    pub(super) router: &'static str,
    /// The experts, and of each its gate, and its up and its down matrix.
    pub(super) experts: (&'static str, [&'static str; 3]),
}

/// Those of most.
pub(super) const NAMES: Names =
    Names { router: "mlp.gate", experts: ("mlp.experts", ["gate_proj", "up_proj", "down_proj"]) };

impl Mixture {
    /// Reads how many experts there are, in one of these fields, and how many of them a token is sent
    /// to; `[experts, chosen]` stand in for what is absent. An expert's width is a field of its own, too.
    pub(super) fn read(
        config: &Config<'_>,
        counts: &[&str],
        [experts, chosen]: [u32; 2],
        (wide, width): (&str, u32),
        hidden: u32,
    ) -> Result<Self> {
        let experts = config.count(counts, experts, MOST[0])?;
        let chosen = config.size("num_experts_per_tok", chosen, MOST[1].min(experts))?;
        let width = config.size(wide, width, MAX_SIZE)?;
        check_rows(config, ("hidden_size", hidden), 1, experts)?;
        check_rows(config, (wide, width), 2, experts)?;
        let routing = Routing::default();
        Ok(Self {
            experts,
            chosen,
            wide: width,
            activation: Activation::Silu,
            routing,
            names: NAMES,
        })
    }

    /// The same, with weights that are a softmax over the chosen as `norm_topk_prob` says, or over all.
    pub(super) fn with_norm(mut self, config: &Config<'_>, default: bool) -> Result<Self> {
        self.routing.weights = match config.boolean("norm_topk_prob", default)? {
            true => Weights::Softmax,
            false => Weights::SoftmaxOfAll,
        };
        Ok(self)
    }

    /// The experts that each token of `normed` is sent to, added to the residual stream.
    pub(super) fn draw(&self, graph: &mut Builder) {
        let Self { experts, chosen, wide, activation, .. } = *self;
        graph.values([("scores", experts), ("route", 2 * chosen)]);
        graph.linear("router", stored(self.names.router), "normed", &all("scores"));
        graph.route("scores", self.routing, "route");
        let (of, parts) = self.names.experts;
        let stored: Vec<_> =
            (0..experts).map(|number| parts.map(|part| format!("{of}.{number}.{part}"))).collect();
        graph.experts("experts", activation, wide, &stored, ["normed", "route", "residual"]);
    }
}

/// Which layers have experts, by transformers' fields: every `decoder_sparse_step`-th but those in
/// `mlp_only_layers`.
pub(super) fn sparse_layers(config: &Config<'_>, layers: u32) -> Result<Vec<bool>> {
    let step = config.size("decoder_sparse_step", 1, u32::MAX)?;
    let dense = config.integers("mlp_only_layers")?;
    Ok((0..layers)
        .map(|layer| (layer + 1).is_multiple_of(step) && !dense.contains(&layer))
        .collect())
}

/// A feed-forward layer that every token of `normed` meets beside the experts.
pub(super) struct SharedExpert<'n> {
    pub(super) activation: Activation,
    pub(super) wide: u32,
    /// What its tensors are called: the gate, the up and the down matrix.
    pub(super) names: [&'n str; 3],
    /// A matrix of one row: its sigmoid is what the result is multiplied with.
    pub(super) score: Option<&'n str>,
}

impl SharedExpert<'_> {
    /// The layer, added to the residual stream.
    pub(super) fn draw(&self, graph: &mut Builder) {
        let Self { activation, wide, names, score } = *self;
        if let Some(score) = score {
            return self.draw_scored(graph, score);
        }
        graph.values([("shared_gate_up", 2 * wide), ("shared_gated", wide)]);
        let [gated, plain] =
            [0, wide].map(|first| ValueRef::rows("shared_gate_up", first, first + wide));
        graph.linear("shared_expert.gate", stored(names[0]), "normed", &gated);
        graph.linear("shared_expert.up", stored(names[1]), "normed", &plain);
        graph.gated(activation, [&gated, &plain], "shared_gated");
        graph.linear_onto("shared_expert.down", stored(names[2]), "shared_gated", "residual");
    }

    /// The layer as the only expert that tokens can be sent to: its weight is the score's sigmoid.
    fn draw_scored(&self, graph: &mut Builder, score: &str) {
        graph.values([("shared_score", 1), ("shared_route", 2)]);
        graph.linear("shared_expert.score", stored(score), "normed", &all("shared_score"));
        graph.activate(Activation::Sigmoid, &all("shared_score"));
        let routing = Routing { weights: Weights::Scores, ..Routing::default() };
        graph.route("shared_score", routing, "shared_route");
        let values = ["normed", "shared_route", "residual"];
        let stored = [self.names.map(str::to_owned)];
        graph.experts("shared_expert", self.activation, self.wide, &stored, values);
    }
}

/// Refuses matrices that do not lie one below the other in whole panels, or in one tensor: those of so
/// many experts, each with so many rows for each number of a field.
fn check_rows(
    config: &Config<'_>,
    (name, width): (&str, u32),
    rows: u32,
    experts: u32,
) -> Result<()> {
    let step = PANEL as u32 / rows;
    if !width.is_multiple_of(step) {
        return Err(config.unsupported(name, &width.into(), &format!("a multiple of {step}")));
    }
    let most = MAX_WIDTH / experts / rows;
    if width > most {
        let expected = format!("at most {most}, with {experts} experts");
        return Err(config.unsupported(name, &width.into(), &expected));
    }
    Ok(())
}
