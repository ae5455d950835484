//! Tensors of exported graphs: what exporters call them, and what they leave of how checkpoints store them.

use super::blueprint::{Blueprint, Sizes, Slice, Source, TensorPlan};
use crate::import::{Container, SourceFormat};

/// Tensors that are looked for to learn what names begin with.
const LOOKED_FOR: usize = 8;
/// Matrices that ONNX Runtime's builder of models lays one below the other.
const ATTENTION: [&str; 3] = [".self_attn.q_proj.", ".self_attn.k_proj.", ".self_attn.v_proj."];

/// How a graph was exported.
pub(super) struct Exported {
    /// What all names begin with because the model lay in another one.
    wrapper: String,
    sizes: Sizes,
}

impl Exported {
    pub(super) fn new(container: &dyn Container, blueprint: &Blueprint, base: &str) -> Self {
        Self { wrapper: wrapper(container, blueprint, base), sizes: blueprint.sizes }
    }

    /// What a graph may call a tensor, besides its name and the one without the base's.
    pub(super) fn names(&self, name: &str, bare: &str) -> Vec<String> {
        let variants = |name: String| {
            let of = |from: &str, to: &str| Some(format!("{}{to}", name.strip_suffix(from)?));
            let last = format!(".layers.{}.final_norm_layernorm.weight", self.sizes.layers);
            let others = [
                // A bias that two modules share has the name of one of them.
                of(".bias", ".decoder.bias"),
                // Classes have other names for it than their checkpoints.
                of("embed_out.weight", "lm_head.weight"),
                // Convolutions that are called as functions have no name but that.
                of(".conv1d.weight", ".conv.weight"),
                // Those of ONNX Runtime's builder.
                of("model.norm.weight", &format!("model{last}")),
                Some(name.replace(".self_attn.", ".attn.")),
            ];
            others.into_iter().flatten().chain([name.clone()]).collect::<Vec<_>>()
        };
        [name, bare]
            .into_iter()
            .flat_map(|name| variants(format!("{}{name}", self.wrapper)))
            .collect()
    }

    /// Takes tensors as the container has them: matrices that lie in others, and what is stored as it is used.
    pub(super) fn take(
        &self,
        blueprint: &mut Blueprint,
        container: &dyn Container,
        by_inputs: bool,
    ) {
        if container.format() == SourceFormat::Onnx {
            // RoPE's frequencies, which exporters keep.
            blueprint.derived.push("inv_freq");
        }
        for source in blueprint.sources_mut() {
            if container.tensor(&source.tensor).is_none() {
                self.take_part(source, container);
            }
            if container.is_as_used(&source.tensor) {
                source.plus = 0.0;
                source.transposed &= !by_inputs;
            }
        }
    }

    /// Takes queries, keys or values from the matrix that holds them one below the other.
    fn take_part(&self, source: &mut Source, container: &dyn Container) {
        let number = ATTENTION.iter().position(|part| source.tensor.contains(part));
        let number =
            number.filter(|_| source.slice.is_none() && source.tensor.ends_with(".weight"));
        let Some(number) = number else { return };
        let all = source.tensor.replace(ATTENTION[number], ".attn.qkv_proj.");
        let Some(stored) = container.stored_name(&all) else { return };
        let Sizes { heads, kv_heads, head_width: width, .. } = self.sizes;
        let rows = [heads, kv_heads, kv_heads].map(|heads| heads.saturating_mul(width));
        let sum = |rows: &[u32]| rows.iter().fold(0, |sum: u32, rows| sum.saturating_add(*rows));
        source.tensor = stored;
        source.slice = Some(Slice { first: sum(&rows[..number]), of: sum(&rows) });
    }
}

/// What all names begin with because the model lay in another one when it was exported; nothing for others.
fn wrapper(container: &dyn Container, blueprint: &Blueprint, base: &str) -> String {
    let sources = || blueprint.tensors().flat_map(TensorPlan::sources).take(LOOKED_FOR);
    let bare = |name: &str| name.strip_prefix(base).unwrap_or(name).to_owned();
    let there = |name: &str| {
        [name, &bare(name)].into_iter().any(|name| container.stored_name(name).is_some())
    };
    if sources().any(|source| there(&source.tensor)) {
        return String::new();
    }
    let names = container.names();
    let within = |source: &Source| {
        [source.tensor.clone(), bare(&source.tensor)].into_iter().find_map(|name| {
            let mut before = names.iter().filter_map(|other| other.strip_suffix(&name));
            before.find(|before| before.ends_with('.')).map(str::to_owned)
        })
    };
    sources().find_map(within).unwrap_or_default()
}
