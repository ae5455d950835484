//! Mixtures of experts: feed-forward layers of which each token meets some.

use super::blueprint::Source;
use super::builder::{Builder, ExpertsOf, Routing, Stored, all, stored};
use super::config::{Config, Stacking};
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
    /// Width of what they read.
    pub(super) hidden: u32,
    pub(super) stacking: Stacking,
}

/// What a mixture's tensors are called in a layer.
#[derive(Clone, Copy)]
pub(super) struct Names {
    pub(super) router: &'static str,
    pub(super) experts: Stacks,
}

/// What tensors of experts are called.
#[derive(Clone, Copy)]
pub(super) enum Stacks {
    /// Each in tensors of its own, unless they are stacked: what their names begin with, and of each its
    /// gate, its up and its down matrix.
    Apart(&'static str, [&'static str; 3]),
    /// All in two tensors: of each the rows of its gate and those of its up matrix, and its down matrix.
    Together([&'static str; 2]),
}

/// Those of most.
pub(super) const NAMES: Names = Names {
    router: "mlp.gate",
    experts: Stacks::Apart("mlp.experts", ["gate_proj", "up_proj", "down_proj"]),
};

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
        let names = (counts, "num_experts_per_tok");
        Self::read_as(config, names, [experts, chosen], (wide, width), hidden)
    }

    /// The same, where another field says how many experts a token is sent to.
    pub(super) fn read_as(
        config: &Config<'_>,
        (counts, per_token): (&[&str], &str),
        [experts, chosen]: [u32; 2],
        (wide, width): (&str, u32),
        hidden: u32,
    ) -> Result<Self> {
        let experts = config.count(counts, experts, MOST[0])?;
        let chosen = config.size(per_token, chosen, MOST[1].min(experts))?;
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
            hidden,
            stacking: config.stacking,
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
        self.scores(graph, stored(self.names.router), "normed");
        graph.route("scores", self.routing, "route");
        graph.experts("experts", &self.stored(), ["normed", "route", "residual"]);
    }

    /// A score for each expert.
    pub(super) fn scores(&self, graph: &mut Builder, router: Stored<'_>, input: &str) {
        graph.values([("scores", self.experts), ("route", 2 * self.chosen)]);
        graph.linear("router", router, input, &all("scores"));
    }

    /// The rows of each expert's gate and up matrix in two tensors, and the tensor of down matrices.
    pub(super) fn in_stacks(&self, [gate, up, down]: [String; 3]) -> (Vec<Source>, Vec<Source>) {
        let Self { experts, wide, hidden, .. } = *self;
        let one =
            |name: &String, number| Source::whole(name, [wide, hidden]).one_of(number, experts);
        let gate_up = (0..experts).flat_map(|number| [one(&gate, number), one(&up, number)]);
        (gate_up.collect(), vec![Source::all_of(down, [experts * hidden, wide], experts)])
    }

    /// The experts as they are stored.
    pub(super) fn stored(&self) -> ExpertsOf {
        let Self { experts, wide, hidden, activation, .. } = *self;
        let joint = |gate_up: &str, down: &str| {
            let gate_up = Source::all_of(gate_up, [2 * experts * wide, hidden], experts);
            (vec![gate_up], vec![Source::all_of(down, [experts * hidden, wide], experts)])
        };
        let (gate_up, down) = match (self.names.experts, self.stacking) {
            (Stacks::Apart(of, parts), Stacking::Parts) => {
                self.in_stacks(parts.map(|part| format!("{of}.{part}.weight")))
            }
            (Stacks::Apart(of, _), Stacking::Joint) => {
                joint(&format!("{of}.gate_up_proj"), &format!("{of}.down_proj"))
            }
            (Stacks::Apart(of, parts), Stacking::Apart) => {
                let names = |number| parts.map(|part| format!("{of}.{number}.{part}"));
                apart((0..experts).map(names), [hidden, wide])
            }
            (Stacks::Together(_), Stacking::Parts) => {
                let parts = ["gate_proj", "up_proj", "down_proj"];
                self.in_stacks(parts.map(|part| format!("mlp.experts.{part}.weight")))
            }
            (Stacks::Together([gate_up, down]), _) => joint(gate_up, down),
        };
        ExpertsOf { experts, wide, activation, gate_up, down, ..ExpertsOf::default() }
    }
}

/// Gates and up matrices, and down matrices, of experts that are called so.
fn apart(
    names: impl Iterator<Item = [String; 3]>,
    [hidden, wide]: [u32; 2],
) -> (Vec<Source>, Vec<Source>) {
    let (mut gate_up, mut downs) = (vec![], vec![]);
    for [gate, up, down] in names.map(|parts| parts.map(|part| format!("{part}.weight"))) {
        gate_up.extend([gate, up].map(|name| Source::whole(name, [wide, hidden])));
        downs.push(Source::whole(down, [hidden, wide]));
    }
    (gate_up, downs)
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
        let Self { activation, wide, names, .. } = *self;
        let names = [names.map(str::to_owned)].into_iter();
        let (gate_up, down) = apart(names, [graph.width(&all("normed")), wide]);
        let experts = 1;
        let of = ExpertsOf { experts, wide, activation, gate_up, down, ..ExpertsOf::default() };
        graph.experts("shared_expert", &of, values);
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
