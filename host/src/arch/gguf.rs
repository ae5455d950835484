//! GGUF files: their keys and names of tensors into Hugging Face's.

mod adjust;
mod gemma4;
mod keys;
mod kinds;
mod names;
mod rope;
mod write;

pub(crate) use write::{InGguf, in_gguf};

use super::blueprint::Blueprint;
use super::decoder::MAX_LAYERS;
use super::draw;
use crate::import::Container;
use crate::{Error, Result};
use keys::Keys;
use kinds::Kind;
use names::{LONG_ROPE, ROPE_FACTORS, stored_name};
use std::path::Path;

/// The blueprint of a GGUF file.
pub(super) fn blueprint(container: &dyn Container) -> Result<Blueprint> {
    let keys = Keys { container, path: container.path() };
    let (architecture, kind) = keys.kind()?;
    let config = keys.config(kind).map_err(|mut problems| problems.swap_remove(0))?;
    let mut blueprint = draw(architecture, &config)?;
    // What guesses several tokens at once lies behind the layers.
    let more = keys.integer(kind, "nextn_predict_layers")?.unwrap_or(0).min(MAX_LAYERS);
    let layers = blueprint.sizes.layers;
    blueprint.aside.extend((layers..layers + more).map(|layer| format!("blk.{layer}.")));
    blueprint.derived.extend([ROPE_FACTORS, LONG_ROPE[0].1, LONG_ROPE[1].1]);
    renamed(blueprint, container.path(), kind, "convert the original model")
}

/// The same with the names of GGUF's tensors, which converters have put in the order of use.
fn renamed(mut blueprint: Blueprint, path: &Path, kind: &Kind, remedy: &str) -> Result<Blueprint> {
    blueprint.as_converted();
    blueprint.rename(|name| {
        stored_name(name, kind).ok_or_else(|| {
            let (found, expected) = ("a tensor without a name in GGUF", "one that it has");
            Error::malformed(path, name, found, expected, remedy)
        })
    })?;
    Ok(blueprint)
}

/// All that is wrong with the metadata of a file whose architecture is known.
pub(super) fn problems(container: &dyn Container) -> Vec<Error> {
    let keys = Keys { container, path: container.path() };
    let Ok((architecture, kind)) = keys.kind() else { return vec![] };
    match keys.config(kind) {
        Ok(config) => (architecture.blueprint)(&config).map_or(vec![], |_| config.unread()),
        Err(problems) => problems,
    }
}
