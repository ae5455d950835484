//! DeepSeek-V2 and its Lite: latent attention, and experts that are chosen by a softmax over all of them
//! (arXiv:2405.04434).

use super::blueprint::Blueprint;
use super::config::Config;
use super::decoder::{Decoder, Defaults, LLAMA};
use super::deepseek_v3::{Version, of_version};
use super::mixture::Mixture;
use crate::Result;
use omex_core::ops::{Activation, Weights};
use serde_json::Value;

/// Those of transformers' `DeepseekV2Config`.
const DEFAULTS: Defaults =
    Defaults { head_width: Some(64), vocab_size: 102_400, bos: Some(1), eos: Some(2), ..LLAMA };

const V2: Version = Version {
    family: "deepseek_v2",
    defaults: &DEFAULTS,
    mixture,
    shared: 2,
    dense: 0,
    guessing: 0,
};

pub(super) fn blueprint(config: &Config<'_>) -> Result<Blueprint> {
    of_version(config, &V2)
}

fn mixture(config: &Config<'_>, decoder: &Decoder, activation: Activation) -> Result<Mixture> {
    config.one_of("scoring_func", &["softmax"])?;
    config.size_within("moe_layer_freq", 1, 1..=1)?;
    // Published code makes shares of the weights of the chosen, transformers does not.
    config.only("norm_topk_prob", false)?;
    check_groups(config)?;
    let counts = ["n_routed_experts", "num_local_experts"];
    let wide = ("moe_intermediate_size", 1407);
    let mixture = Mixture::read(config, &counts, [64, 6], wide, decoder.sizes.hidden)?;
    let mut routing = mixture.routing;
    routing.weights = Weights::SoftmaxOfAll;
    routing.factor = config.positive("routed_scaling_factor")?.unwrap_or(1.0) as f32;
    Ok(Mixture { activation, routing, ..mixture })
}

/// Refuses a choice within some of the groups of experts: those whose best expert is best.
fn check_groups(config: &Config<'_>) -> Result<()> {
    let methods = ["greedy", "group_limited_greedy"];
    let limited = config.one_of("topk_method", &methods)? == Some(methods[1]);
    let (groups, kept) = (config.integer("n_group")?, config.integer("topk_group")?);
    match limited && groups != kept {
        true => {
            let found = kept.map_or(Value::Null, Value::from);
            let expected = "as many as n_group: all groups";
            Err(config.unsupported("topk_group", &found, expected))
        }
        false => Ok(()),
    }
}
