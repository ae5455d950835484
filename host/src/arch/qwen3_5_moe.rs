//! Qwen3.5 with experts beside one that all tokens meet: the part that writes texts.

use super::blueprint::Blueprint;
use super::config::Config;
use super::decoder::{Decoder, Defaults};
use super::gated_delta::{self, attends};
use super::mixture::Mixture;
use super::qwen3_5;
use super::qwen3_next::shared_expert;
use crate::Result;

/// Those of transformers' `Qwen3_5MoeTextConfig`.
const DEFAULTS: Defaults =
    Defaults { hidden_size: 2048, layers: 40, kv_heads: Some(2), ..qwen3_5::DEFAULTS };

pub(super) fn blueprint(config: &Config<'_>) -> Result<Blueprint> {
    let decoder = Decoder::read(config, &DEFAULTS)?;
    let wide = ("moe_intermediate_size", 512);
    let counts = ["num_experts", "num_local_experts"];
    let mixture = Mixture::read(config, &counts, [256, 8], wide, decoder.sizes.hidden)?;
    let shared = shared_expert(config)?;
    let attends = attends(config, decoder.sizes.layers)?;
    let kinds: Vec<_> = attends.into_iter().map(|attends| (attends, ())).collect();
    let of =
        gated_delta::blueprint("qwen3_5_moe", config, decoder, &kinds, false, |_, graph, ()| {
            mixture.draw(graph);
            shared.draw(graph);
        })?;
    // What guesses several tokens at once is not needed for one after another.
    Ok(Blueprint { aside: vec!["mtp.".to_owned()], ..of })
}
