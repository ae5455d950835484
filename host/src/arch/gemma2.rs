//! Gemma 2: every other layer is local, scores and logits are capped (arXiv:2408.00118).

use super::blueprint::Blueprint;
use super::builder::FREQUENCIES;
use super::config::Config;
use super::decoder::Defaults;
use super::gemma3;
use super::rope::Rope;
use crate::Result;

/// Those of transformers' `Gemma2Config`.
const DEFAULTS: Defaults =
    Defaults { vocab_size: 256_000, context_length: 8192, theta: 1e4, ..gemma3::DEFAULTS };

pub(super) fn blueprint(config: &Config<'_>) -> Result<Blueprint> {
    let (mut decoder, bias) = gemma3::decoder(config, &DEFAULTS)?;
    decoder.score_cap = cap(config, "attn_logit_softcapping", 50.0)?.unwrap_or(0.0) as f32;
    decoder.logit_cap = cap(config, "final_logit_softcapping", 30.0)?;
    let windows = decoder.windows(config, Some(4096), |layer| layer.is_multiple_of(2))?;
    let mut graph = decoder.graph();
    graph.values([("branch", decoder.sizes.hidden)]);
    let rope = Rope::read(config, DEFAULTS.theta)?;
    decoder.angles(&mut graph, ["angles", FREQUENCIES], &rope, config)?;
    decoder.embed(&mut graph);
    graph.layers(&windows, "model.layers", |graph, window| {
        gemma3::layer(&decoder, graph, ("angles", *window), None, bias);
    });
    Ok(decoder.finish("gemma2", graph))
}

/// A bound, unless it is `null`.
fn cap(config: &Config<'_>, name: &str, default: f64) -> Result<Option<f64>> {
    match config.is_null(name) {
        true => Ok(None),
        false => Ok(Some(config.positive(name)?.unwrap_or(default))),
    }
}
