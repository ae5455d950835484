//! What files of a kind say in another way than others, or not at all.

use super::keys::Keys;
use super::kinds::{
    BERT, DEEPSEEK, GEMMA4, GRANITE_HYBRID, Kind, MODERN_BERT, QWEN3_5, QWEN3_NEXT, SIGMOID,
};
use super::names::{CLASSIFIER, SEGMENTS};
use crate::Result;
use crate::import::Fields;
use serde_json::{Value, json};

impl Keys<'_> {
    /// Adds what files of a kind say in another way, or not at all.
    pub(super) fn adjust(&self, kind: &Kind, fields: &mut Fields) -> Result<()> {
        let mut put = |name: &str, value: Value| drop(fields.insert(name.to_owned(), value));
        match kind.name {
            "qwen3moe" => put("norm_topk_prob", true.into()),
            "lfm2" => put("block_auto_adjust_ff_dim", false.into()),
            DEEPSEEK => self.adjust_latent(kind, fields)?,
            "stablelm" => {
                let norms = self.container.tensor("blk.0.attn_q_norm.weight").is_some();
                fields.insert("qk_layernorm".to_owned(), norms.into());
            }
            GRANITE_HYBRID => self.adjust_hybrid(fields),
            BERT => self.adjust_encoder(fields),
            GEMMA4 => self.adjust_gemma4(kind, fields)?,
            name if name == QWEN3_NEXT || QWEN3_5.contains(&name) => {
                self.adjust_delta_nets(kind, fields)?;
            }
            MODERN_BERT => {
                for name in ["sliding_window", "sliding_window_pattern"] {
                    fields.remove(name);
                }
                // As llama.cpp has it, the mean of a text's tokens is sorted.
                fields.insert("classifier_pooling".to_owned(), "mean".into());
                self.adjust_classes("ModernBertForSequenceClassification", fields);
            }
            _ => {}
        }
        fields.retain(|name, value| name != "sliding_window" || *value != 0);
        // A number for each layer: none of keys where there is no attention, or which of them slide.
        if let Some(Value::Array(counts)) = fields.get("num_key_value_heads").cloned() {
            let other = if kind.name == GRANITE_HYBRID { "mamba" } else { "conv" };
            let layer = |count: &Value| if *count == 0 { other } else { "full_attention" };
            fields.insert("layer_types".to_owned(), counts.iter().map(layer).collect());
            let most = counts.iter().filter_map(Value::as_u64).max().unwrap_or(0);
            fields.insert("num_key_value_heads".to_owned(), most.into());
        }
        if let Some(Value::Array(recurrent)) = fields.remove("recurrent_layers") {
            let layer = |recurrent: &Value| match recurrent {
                Value::Bool(true) => "linear_attention",
                _ => "full_attention",
            };
            fields.insert("layer_types".to_owned(), recurrent.iter().map(layer).collect());
        }
        if let Some(Value::Array(slides)) = fields.get("sliding_window_pattern").cloned() {
            let slides = slides.iter().map(|slides| slides.as_bool() == Some(true));
            let layer = |slides| if slides { "sliding_attention" } else { "full_attention" };
            fields.insert("layer_types".to_owned(), slides.map(layer).collect());
            fields.remove("sliding_window_pattern");
        }
        Ok(())
    }

    /// Those of gated DeltaNets, without layers that guess several tokens at once.
    fn adjust_delta_nets(&self, kind: &Kind, fields: &mut Fields) -> Result<()> {
        let number = |name: &str| fields.get(name).and_then(Value::as_u64);
        let heads = number("linear_value_width").zip(number("linear_num_value_heads"));
        let width = heads.and_then(|(width, heads)| width.checked_div(heads));
        let more = self.integer(kind, "nextn_predict_layers")?.unwrap_or(0);
        let layers = number("num_hidden_layers").map(|all| all.saturating_sub(more.into()));
        fields.insert("linear_value_head_dim".to_owned(), json!(width));
        fields.insert("num_hidden_layers".to_owned(), json!(layers));
        if let Some(Value::Array(recurrent)) = fields.get_mut("recurrent_layers") {
            recurrent.truncate(layers.unwrap_or(0) as usize);
        }
        // As transformers names it.
        if let Some(experts) = fields.get("num_local_experts").cloned() {
            fields.insert("num_experts".to_owned(), experts);
        }
        Ok(())
    }

    /// How many segments and classes there are.
    fn adjust_encoder(&self, fields: &mut Fields) {
        if let Some(segments) = self.rows(SEGMENTS) {
            fields.insert("type_vocab_size".to_owned(), segments.into());
        }
        self.adjust_classes("BertForSequenceClassification", fields);
    }

    /// How many classes there are, if there are some: then the model is of another class itself.
    fn adjust_classes(&self, class: &str, fields: &mut Fields) {
        if let Some(classes) = self.rows(CLASSIFIER) {
            fields.insert("num_labels".to_owned(), classes.into());
            fields.insert("architectures".to_owned(), json!([class]));
        }
    }

    /// The rows of a matrix, if it is there.
    fn rows(&self, stem: &str) -> Option<u32> {
        self.container.tensor(&format!("{stem}.weight")).map(|tensor| tensor.rows)
    }

    /// Those of state space models, and of the feed-forward layer beside experts.
    fn adjust_hybrid(&self, fields: &mut Fields) {
        let number = |fields: &Fields, name: &str| fields.get(name).and_then(Value::as_u64);
        let inner = number(fields, "mamba_d_inner").zip(number(fields, "hidden_size"));
        let expand = inner.and_then(|(inner, hidden)| inner.checked_div(hidden));
        let turned = fields.remove("rope_finetuned") != Some(Value::Bool(false));
        let biased = |name: &String| name.ends_with(".ssm_conv1d.bias");
        let bias = self.container.names().iter().any(biased);
        if fields.get("shared_intermediate_size").is_none() {
            let wide = fields.get("intermediate_size").cloned().unwrap_or_default();
            fields.insert("shared_intermediate_size".to_owned(), wide);
        }
        for (name, value) in [
            ("mamba_expand", json!(expand)),
            ("mamba_conv_bias", bias.into()),
            ("position_embedding_type", if turned { "rope" } else { "nope" }.into()),
        ] {
            fields.insert(name.to_owned(), value);
        }
        fields.entry("num_local_experts").or_insert(0.into());
    }

    /// Those of latent attention, whose heads are not as wide as what is kept of them.
    fn adjust_latent(&self, kind: &Kind, fields: &mut Fields) -> Result<()> {
        let width = |key: &str| self.integer(kind, key);
        let turned = width("rope.dimension_count")?;
        // Older files have the widths of heads that are not put together, and one tensor for keys and values.
        let joint = self.container.tensor("blk.0.attn_kv_b.weight").is_some();
        let ends = if joint { "" } else { "_mla" };
        let of_head = |kind: &str| width(&format!("attention.{kind}_length{ends}"));
        let plain = of_head("key")?.zip(turned);
        let gates = width("expert_gating_func")?;
        fields.remove("head_dim");
        fields.insert("v_head_dim".to_owned(), json!(of_head("value")?));
        fields.insert("joint_kv_b".to_owned(), joint.into());
        let heads = fields.get("num_attention_heads").cloned().unwrap_or_default();
        fields.insert("num_key_value_heads".to_owned(), heads);
        let default = |fields: &mut Fields, name: &str, value: Value| {
            fields.entry(name).or_insert(value);
        };
        let scoring = if gates == Some(SIGMOID) { "sigmoid" } else { "softmax" };
        fields.insert("scoring_func".to_owned(), scoring.into());
        fields.insert("qk_rope_head_dim".to_owned(), json!(turned));
        let plain = plain.map(|(all, turned)| all.saturating_sub(turned));
        fields.insert("qk_nope_head_dim".to_owned(), json!(plain));
        default(fields, "q_lora_rank", Value::Null);
        default(fields, "norm_topk_prob", false.into());
        default(fields, "routed_scaling_factor", 1.0.into());
        if fields.get("n_group").is_some_and(|groups| *groups != 1) && gates != Some(SIGMOID) {
            fields.insert("topk_method".to_owned(), "group_limited_greedy".into());
        }
        for (name, value) in [("n_group", 1), ("topk_group", 1), ("first_k_dense_replace", 0)] {
            default(fields, name, value.into());
        }
        default(fields, "num_nextn_predict_layers", 0.into());
        Ok(())
    }
}
