//! Hyperparameters that no model has: an error that names a field, or a graph, and never a panic.

use crate::arch::{ARCHITECTURES, of_config};
use serde_json::{Map, Value, json};
use std::path::Path;

/// The fields that some architecture reads, with a value that fits a small model.
const SMALL: &str = r#"{
    "hidden_size": 32, "n_embd": 32, "intermediate_size": 48, "n_inner": 48, "block_ff_dim": 48,
    "num_hidden_layers": 3, "n_layer": 3, "num_attention_heads": 4, "n_head": 4,
    "num_key_value_heads": 2, "head_dim": 8, "vocab_size": 11,
    "max_position_embeddings": 16, "n_positions": 16, "type_vocab_size": 2,
    "rms_norm_eps": 1e-6, "norm_eps": 1e-6, "layer_norm_eps": 1e-6, "layer_norm_epsilon": 1e-6,
    "rope_theta": 1e4, "rope_local_base_freq": 1e4, "sliding_window": 4,
    "sliding_window_pattern": 2, "max_window_layers": 1, "use_sliding_window": true,
    "query_pre_attn_scalar": 8, "final_logit_softcapping": 30.0, "conv_L_cache": 3,
    "conv_bias": true, "block_auto_adjust_ff_dim": true, "block_ffn_dim_multiplier": 1.0,
    "block_multiple_of": 16, "full_attn_idxs": [1], "tie_word_embeddings": true,
    "tie_embedding": true, "attention_bias": false, "mlp_bias": false,
    "bos_token_id": 1, "eos_token_id": [2, 3], "layer_types": null,
    "rope_scaling": {
        "rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 8,
        "beta_fast": 32.0, "beta_slow": 1.0, "attention_factor": 1.0, "mscale": 1.0,
        "mscale_all_dim": 1.0, "truncate": true
    }
}"#;

/// Those of an architecture.
fn small(model_type: &str) -> Map<String, Value> {
    let mut fields: Map<String, Value> = serde_json::from_str(SMALL).unwrap();
    fields.insert("model_type".into(), model_type.into());
    let own = match model_type {
        "mixtral" => json!({ "num_local_experts": 4, "num_experts_per_tok": 2 }),
        "olmoe" => json!({ "num_experts": 4, "num_experts_per_tok": 2, "norm_topk_prob": true }),
        "qwen3_moe" => json!({
            "num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 8,
            "decoder_sparse_step": 2, "mlp_only_layers": [1], "norm_topk_prob": true,
        }),
        "granite" => json!({
            "embedding_multiplier": 6.0, "attention_multiplier": 0.1, "residual_multiplier": 0.4,
            "logits_scaling": 2.0,
        }),
        "granitemoehybrid" => json!({
            "num_local_experts": 4, "num_experts_per_tok": 2, "shared_intermediate_size": 16, "mamba_n_heads": 4,
            "mamba_n_groups": 1, "mamba_d_state": 8, "mamba_d_conv": 4, "mamba_expand": 2,
            "mamba_d_head": "auto", "mamba_conv_bias": true, "mamba_proj_bias": true,
            "time_step_limit": [0.01, 2.0], "position_embedding_type": "rope",
            "layers_block_type": null, "embedding_multiplier": 6.0, "residual_multiplier": 0.4,
            "attention_multiplier": 0.1, "logits_scaling": 2.0,
        }),
        "qwen3_5_text" => json!({
            "linear_num_key_heads": 2, "linear_num_value_heads": 4, "linear_key_head_dim": 8,
            "linear_value_head_dim": 8, "linear_conv_kernel_dim": 4,
            "full_attention_interval": 2, "partial_rotary_factor": 0.5,
        }),
        "qwen3_5_moe_text" => json!({
            "linear_num_key_heads": 2, "linear_num_value_heads": 4, "linear_key_head_dim": 8,
            "linear_value_head_dim": 8, "linear_conv_kernel_dim": 4,
            "full_attention_interval": 2, "partial_rotary_factor": 0.5,
            "num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 8,
            "shared_expert_intermediate_size": 8,
        }),
        "qwen3_next" => json!({
            "linear_num_key_heads": 2, "linear_num_value_heads": 4, "linear_key_head_dim": 8,
            "linear_value_head_dim": 8, "linear_conv_kernel_dim": 4,
            "full_attention_interval": 2, "partial_rotary_factor": 0.5,
            "num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 8,
            "shared_expert_intermediate_size": 8, "decoder_sparse_step": 1,
            "mlp_only_layers": [1], "norm_topk_prob": true,
        }),
        "gpt_oss" => json!({
            "num_local_experts": 4, "num_experts_per_tok": 2, "swiglu_limit": 7.0,
            "swiglu_alpha": 1.702, "attention_bias": true,
        }),
        "deepseek_v2" => json!({
            "q_lora_rank": null, "kv_lora_rank": 16, "qk_rope_head_dim": 8, "qk_nope_head_dim": 8,
            "v_head_dim": 8, "n_routed_experts": 4, "n_shared_experts": 1, "num_experts_per_tok": 2,
            "moe_intermediate_size": 8, "topk_method": "group_limited_greedy", "n_group": 2,
            "topk_group": 2, "first_k_dense_replace": 1, "moe_layer_freq": 1,
            "norm_topk_prob": false, "routed_scaling_factor": 2.5,
        }),
        "deepseek_v3" => json!({
            "q_lora_rank": 16, "kv_lora_rank": 16, "qk_rope_head_dim": 8, "qk_nope_head_dim": 8,
            "v_head_dim": 8, "rope_interleave": true, "n_routed_experts": 4,
            "n_shared_experts": 1, "num_experts_per_tok": 2, "moe_intermediate_size": 8,
            "n_group": 2, "topk_group": 1, "first_k_dense_replace": 1, "moe_layer_freq": 1,
            "norm_topk_prob": true, "routed_scaling_factor": 2.5,
        }),
        "gemma4_text" => json!({
            "global_head_dim": 16, "num_global_key_value_heads": 1, "attention_k_eq_v": true,
            "num_kv_shared_layers": 0, "use_double_wide_mlp": true, "enable_moe_block": true,
            "num_experts": 4, "top_k_experts": 2, "moe_intermediate_size": 8,
            "hidden_size_per_layer_input": 4, "vocab_size_per_layer_input": 11,
            "rope_scaling": {}, "rope_parameters": {
                "sliding_attention": { "rope_type": "default", "rope_theta": 1e4 },
                "full_attention": {
                    "rope_type": "proportional", "rope_theta": 1e6, "partial_rotary_factor": 0.25,
                },
            },
        }),
        "smollm3" => json!({ "no_rope_layers": [1, 0, 1], "no_rope_layer_interval": 2 }),
        "starcoder2" => json!({ "norm_epsilon": 1e-6, "use_bias": true }),
        "phi" => json!({ "partial_rotary_factor": 0.5, "qk_layernorm": true }),
        "phi3" => json!({
            "partial_rotary_factor": 0.5, "original_max_position_embeddings": 8,
            "rope_scaling": {
                "rope_type": "longrope", "short_factor": [1.0, 1.1], "long_factor": [2.0, 3.0],
                "factor": 2.0, "attention_factor": 1.1,
            },
        }),
        "stablelm" => json!({
            "partial_rotary_factor": 0.5, "qk_layernorm": true, "use_qkv_bias": true,
            "use_parallel_residual": false,
        }),
        "gpt_neox" => json!({
            "num_key_value_heads": 4,
            "rotary_pct": 0.5, "rotary_emb_base": 10000, "use_parallel_residual": true,
        }),
        _ => json!({}),
    };
    fields.extend(own.as_object().cloned().unwrap_or_default());
    // Those that do not read these refuse them.
    for name in ["sliding_window", "final_logit_softcapping"] {
        let refusal = of_config(Path::new("config.json"), &fields).err().map(|e| e.to_string());
        if refusal.is_some_and(|error| error.contains(name)) {
            fields.remove(name);
        }
    }
    fields
}

/// Values at the edges of what fields hold.
fn edges() -> Vec<Value> {
    let numbers = [0.0, -1.0, 0.5, 1e-320, 1e300, -1e300, 1.0, 2.0, 3.0, 7.0, 1e6];
    let integers = [0, 1, 2, 3, 5, 9, 64, 255, 1000, 1001, 1 << 20, 1 << 24, (1u64 << 32) - 1];
    let others =
        [json!(null), json!(true), json!("x"), json!([]), json!([1, 1u64 << 40]), json!({})];
    let numbers = numbers.map(Value::from).into_iter().chain(integers.map(Value::from));
    numbers.chain([json!(-1), json!(u64::MAX)]).chain(others).collect()
}

#[test]
fn fields_at_their_edges_are_errors_or_graphs() {
    let path = Path::new("config.json");
    for architecture in ARCHITECTURES {
        let good = small(architecture.model_type);
        of_config(path, &good).unwrap_or_else(|e| panic!("{}: {e}", architecture.model_type));
        let mut refused = 0;
        let mut attempt = |fields: &Map<String, Value>| {
            if let Err(error) = of_config(path, fields) {
                let text = error.to_string();
                assert!(text.contains("found") && text.contains("expected"), "{text}");
                refused += 1;
            }
        };
        for edge in edges() {
            for name in good.keys().filter(|name| *name != "model_type") {
                let mut fields = good.clone();
                fields[name] = edge.clone();
                attempt(&fields);
            }
            for name in good["rope_scaling"].as_object().unwrap().keys() {
                let mut fields = good.clone();
                fields["rope_scaling"][name] = edge.clone();
                attempt(&fields);
            }
        }
        assert!(refused > 50, "{}: {refused} refusals only", architecture.model_type);
    }
}
