//! What files of Gemma 4 say otherwise: global layers have heads of another width, and RoPE that turns some
//! pairs only.

use super::keys::Keys;
use super::kinds::Kind;
use super::names::ROPE_FACTORS;
use super::write::Words;
use crate::arch::builder::FREQUENCIES;
use crate::arch::gemma3::LOCAL_FREQUENCIES;
use crate::arch::rope::STAYS;
use crate::import::Fields;
use crate::{Error, Result};
use serde_json::{Value, json};

impl Keys<'_> {
    pub(super) fn adjust_gemma4(&self, kind: &Kind, fields: &mut Fields) -> Result<()> {
        for (theirs, ours) in
            [("num_local_experts", "num_experts"), ("num_experts_per_tok", "top_k_experts")]
        {
            if let Some(count) = fields.remove(theirs) {
                fields.insert(ours.to_owned(), count);
            }
        }
        let experts = fields.get("num_experts").and_then(Value::as_u64).unwrap_or(0);
        fields.insert("enable_moe_block".to_owned(), (experts > 0).into());
        if let Some(Value::Array(widths)) = fields.get("intermediate_size").cloned() {
            let first = widths.first().cloned().unwrap_or_default();
            let doubled = widths.iter().any(|width| *width != first);
            fields.insert("intermediate_size".to_owned(), first);
            fields.insert("use_double_wide_mlp".to_owned(), doubled.into());
        }
        fields.entry("hidden_size_per_layer_input").or_insert(0.into());
        let vocabulary = fields.get("vocab_size").cloned().unwrap_or_default();
        fields.insert("vocab_size_per_layer_input".to_owned(), vocabulary);
        self.adjust_kv_heads(fields);
        self.adjust_ropes(kind, fields)
    }

    /// How many heads of keys local and global layers have, and whether values of global ones are keys.
    fn adjust_kv_heads(&self, fields: &mut Fields) {
        let slides = fields.get("sliding_window_pattern").and_then(Value::as_array).cloned();
        let slides = slides.unwrap_or_default();
        let heads = fields.get("num_key_value_heads").cloned().unwrap_or_default();
        let of_layer = |layer: usize| match &heads {
            Value::Array(heads) => heads.get(layer).cloned().unwrap_or_default(),
            all => all.clone(),
        };
        let first = |kind: bool| slides.iter().position(|slides| *slides == kind);
        let [local, global] = [true, false].map(|kind| of_layer(first(kind).unwrap_or(0)));
        let there = |layer: usize, part: &str| {
            self.container.tensor(&format!("blk.{layer}.attn_{part}.weight")).is_some()
        };
        let same = first(false).is_some_and(|layer| there(layer, "k") && !there(layer, "v"));
        fields.insert("attention_k_eq_v".to_owned(), same.into());
        if same {
            fields.insert("num_global_key_value_heads".to_owned(), global);
        } else if global != local {
            let width = fields.get("global_head_dim").cloned().unwrap_or_default();
            let layers = slides.iter().enumerate().filter(|(_, slides)| **slides == false);
            let own = json!({ "head_dim": width, "num_key_value_heads": global });
            let layers = layers.map(|(layer, _)| (layer.to_string(), own.clone()));
            fields.insert("per_layer_config".to_owned(), Value::Object(layers.collect()));
        }
        fields.insert("num_key_value_heads".to_owned(), local);
    }

    /// The RoPE of global layers, of which factors tell the pairs that stay, and that of local ones.
    fn adjust_ropes(&self, kind: &Kind, fields: &mut Fields) -> Result<()> {
        let wrong = |field: &str, found: String, expected: &str| {
            let remedy = "models with any other value are not supported";
            Err(Error::malformed(self.path, field, found, expected, remedy))
        };
        if let Some(scaling) = fields.get("rope_scaling") {
            return wrong("gemma4.rope.scaling", scaling.to_string(), "no such keys");
        }
        for (key, width) in
            [("rope.dimension_count", "global_head_dim"), ("rope.dimension_count_swa", "head_dim")]
        {
            let turned = self.integer(kind, key)?.map(Value::from);
            let width = fields.get(width).cloned().unwrap_or_default();
            if let Some(turned) = turned.filter(|turned| *turned != width) {
                let expected = format!("{width}, the width of a head");
                return wrong(&format!("gemma4.{key}"), turned.to_string(), &expected);
            }
        }
        let factors = self.rope_factors(ROPE_FACTORS)?.unwrap_or_default();
        let factor = factors.first().copied().unwrap_or(1.0);
        let turned = factors.iter().take_while(|other| **other == factor).count();
        if factors[turned..].iter().any(|other| *other < f64::from(STAYS) / 2.0) {
            let expected = "one factor, and behind it those of pairs that are not turned";
            return wrong(ROPE_FACTORS, "others".to_owned(), expected);
        }
        let (turned, all) = (turned as f64, factors.len() as f64);
        let part = if all == 0.0 { 1.0 } else { turned / all };
        // Pairs are counted by rounding down.
        let part = if part * all < turned { part.next_up() } else { part };
        let theta = fields.remove("rope_theta").unwrap_or(1e4.into());
        let local = fields.remove("rope_local_base_freq").unwrap_or(theta.clone());
        let ropes = json!({
            "full_attention": {
                "rope_type": "proportional", "rope_theta": theta, "partial_rotary_factor": part,
                "factor": factor,
            },
            "sliding_attention": { "rope_type": "default", "rope_theta": local },
        });
        fields.insert("rope_parameters".to_owned(), ropes);
        Ok(())
    }
}

/// True if the last layers that keep keys are those that llama.cpp takes them of: a local one, and the last,
/// which is global.
fn shares_as_llama_cpp(shared: &Value, slides: &Value) -> bool {
    let (shared, slides) = (shared.as_u64().unwrap_or(0) as usize, slides.as_array());
    let own = slides.and_then(|slides| Some(&slides[..slides.len().checked_sub(shared)?]));
    shared == 0 || own.is_some_and(|own| own.ends_with(&[true.into(), false.into()]))
}

impl Words<'_> {
    /// Widths of values, and RoPEs.
    pub(super) fn add_gemma4(&mut self) -> Result<()> {
        let noted = |name: &str| self.config.noted(name).unwrap_or_default();
        let refused = |field: &str, found: &Value, expected: &str| {
            let remedy = "use --format safetensors";
            Err(Error::malformed(self.config.file(), field, found.to_string(), expected, remedy))
        };
        let (tokens, all) = (noted("vocab_size_per_layer_input"), noted("vocab_size"));
        if noted("hidden_size_per_layer_input") != 0 && tokens != all {
            let expected = format!("{all}, as vocab_size");
            return refused("vocab_size_per_layer_input", &tokens, &expected);
        }
        let (shared, slides) = (noted("num_kv_shared_layers"), noted("sliding_window_pattern"));
        if !shares_as_llama_cpp(&shared, &slides) {
            let expected =
                "layers that share keys behind a local and a global one, whose keys they share";
            return refused("num_kv_shared_layers", &shared, expected);
        }
        let [global, local] = [FREQUENCIES, LOCAL_FREQUENCIES].map(noted);
        let stretched = |rope: &Value| {
            ["kind", "divisors", "short"].iter().any(|field| rope.get(field).is_some())
        };
        if stretched(&local) || (stretched(&global) && global["kind"] != "proportional") {
            let expected = "proportional in global layers, and default in others";
            return refused("rope_parameters", &global["kind"], expected);
        }
        let width = |rope: &Value| rope["width"].as_u64().unwrap_or(0);
        let divisors = match global["divisors"].as_array() {
            Some(divisors) => divisors.iter().filter_map(Value::as_f64).map(|x| x as f32).collect(),
            None => vec![1.0; width(&global) as usize / 2],
        };
        for (key, value) in [
            ("attention.value_length", &global["width"]),
            ("attention.value_length_swa", &local["width"]),
            ("rope.dimension_count", &global["width"]),
            ("rope.dimension_count_swa", &local["width"]),
            ("rope.freq_base", &global["theta"]),
            ("rope.freq_base_swa", &local["theta"]),
        ] {
            self.add(key, value.clone());
        }
        self.factors.push((ROPE_FACTORS, divisors));
        Ok(())
    }
}
