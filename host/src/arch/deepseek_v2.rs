//! DeepSeek-V2 and its Lite: latent attention, and experts that are chosen by a softmax over all of them
//! (arXiv:2405.04434).

use super::blueprint::Blueprint;
use super::config::Config;
use super::decoder::{Decoder, Defaults, LLAMA};
use super::deepseek_v3::{Version, of_version, read_groups};
use super::mixture::Mixture;
use crate::Result;
use omex_core::ops::{Activation, Weights};

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
    let counts = ["n_routed_experts", "num_local_experts"];
    let wide = ("moe_intermediate_size", 1407);
    let mixture = Mixture::read(config, &counts, [64, 6], wide, decoder.sizes.hidden)?;
    let mut routing = mixture.routing;
    routing.weights = Weights::SoftmaxOfAll;
    routing.factor = config.positive("routed_scaling_factor")?.unwrap_or(1.0) as f32;
    let methods = ["greedy", "group_limited_greedy"];
    if config.one_of("topk_method", &methods)? == Some(methods[1]) {
        let [groups, kept] = read_groups(config, &mixture, [1, 1])?;
        // All groups are none.
        if kept < groups {
            (routing.groups, routing.by_best) = ([groups, kept], true);
        }
    }
    Ok(Mixture { activation, routing, ..mixture })
}
