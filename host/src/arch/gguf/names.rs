//! Names of tensors.

use super::kinds::Kind;

/// Factors that divide the RoPE frequencies: how converters store Llama 3's scaling.
pub(super) const ROPE_FACTORS: &str = "rope_freqs.weight";
pub(super) const EMBEDDING: &str = "token_embd.weight";
pub(super) const OUTPUT: &str = "output.weight";

/// LongRoPE's factors, for short texts and for long ones.
pub(super) const LONG_ROPE: [(&str, &str); 2] =
    [("short_factor", "rope_factors_short.weight"), ("long_factor", "rope_factors_long.weight")];

/// Hugging Face's tensors, and what GGUF calls them, without `.weight` and `.bias`.
const TENSORS: [(&str, &str); 29] = [
    ("model.embed_tokens", "token_embd"),
    ("model.norm", "output_norm"),
    // llama.cpp's own slip.
    ("model.embedding_norm", "token_embd_norm"),
    ("model.final_layernorm", "output_norm"),
    ("lm_head", "output"),
    ("gpt_neox.embed_in", "token_embd"),
    ("gpt_neox.final_layer_norm", "output_norm"),
    ("embed_out", "output"),
    ("transformer.wte", "token_embd"),
    ("transformer.wpe", "position_embd"),
    ("transformer.ln_f", "output_norm"),
    ("model.embed_tokens_per_layer", "per_layer_token_embd"),
    ("model.per_layer_model_projection", "per_layer_model_proj"),
    ("model.per_layer_projection_norm", "per_layer_proj_norm"),
    ("transformer.word_embeddings", "token_embd"),
    ("transformer.word_embeddings_layernorm", "token_embd_norm"),
    ("bert.embeddings.word_embeddings", "token_embd"),
    ("bert.embeddings.position_embeddings", "position_embd"),
    ("bert.embeddings.token_type_embeddings", SEGMENTS),
    ("bert.embeddings.LayerNorm", "token_embd_norm"),
    ("bert.pooler.dense", "cls"),
    ("classifier", CLASSIFIER),
    ("classifier.dense", "cls"),
    ("classifier.out_proj", CLASSIFIER),
    ("model.embeddings.tok_embeddings", "token_embd"),
    ("model.embeddings.norm", "token_embd_norm"),
    ("model.final_norm", "output_norm"),
    ("head.dense", "cls"),
    ("head.norm", "cls.norm"),
];
/// Tensors whose biases have no place there.
const UNBIASED: [&str; 2] = ["head.dense", "head.norm"];

/// Embeddings of segments, as many as there are.
pub(super) const SEGMENTS: &str = "token_types";

/// The matrix that sorts texts into classes.
pub(super) const CLASSIFIER: &str = "cls.output";

/// What names of layers' tensors begin with.
const LAYERS: [&str; 4] =
    ["model.layers.", "gpt_neox.layers.", "transformer.h.", "bert.encoder.layer."];

/// Those of a layer, without `.weight` and `.bias`.
const LAYER_TENSORS: [(&str, &str); 104] = [
    ("input_layernorm", "attn_norm"),
    ("ln_1", "attn_norm"),
    ("self_attn.q_proj", "attn_q"),
    ("self_attn.k_proj", "attn_k"),
    ("self_attn.v_proj", "attn_v"),
    ("self_attn.qkv_proj", "attn_qkv"),
    ("attention.query_key_value", "attn_qkv"),
    ("attn.c_attn", "attn_qkv"),
    ("self_attn.o_proj", "attn_output"),
    ("self_attn.dense", "attn_output"),
    ("attention.dense", "attn_output"),
    ("self_attention.query_key_value", "attn_qkv"),
    ("self_attention.dense", "attn_output"),
    ("attn.c_proj", "attn_output"),
    ("self_attn.sinks", "attn_sinks"),
    ("self_attn.q_norm", "attn_q_norm"),
    ("self_attn.k_norm", "attn_k_norm"),
    ("post_attention_layernorm", "ffn_norm"),
    ("pre_feedforward_layernorm", "ffn_norm"),
    ("post_feedforward_layernorm", "post_ffw_norm"),
    ("post_feedforward_layernorm_1", "post_ffw_norm_1"),
    ("pre_feedforward_layernorm_2", "pre_ffw_norm_2"),
    ("post_feedforward_layernorm_2", "post_ffw_norm_2"),
    ("router", "ffn_gate_inp"),
    ("router.proj", "ffn_gate_inp"),
    ("per_layer_input_gate", "inp_gate"),
    ("per_layer_projection", "proj"),
    ("post_per_layer_input_norm", "post_norm"),
    ("ln_2", "ffn_norm"),
    ("mlp.gate_proj", "ffn_gate"),
    ("mlp.up_proj", "ffn_up"),
    ("mlp.gate", "ffn_gate_inp"),
    ("mlp.router", "ffn_gate_inp"),
    ("mlp.experts.gate_proj", "ffn_gate_exps"),
    ("mlp.experts.up_proj", "ffn_up_exps"),
    ("mlp.experts.down_proj", "ffn_down_exps"),
    ("block_sparse_moe.gate", "ffn_gate_inp"),
    ("block_sparse_moe.experts.w1", "ffn_gate_exps"),
    ("block_sparse_moe.experts.w3", "ffn_up_exps"),
    ("block_sparse_moe.experts.w2", "ffn_down_exps"),
    ("mlp.gate_up_proj", "ffn_up"),
    ("mlp.fc1", "ffn_up"),
    ("mlp.c_fc", "ffn_up"),
    ("mlp.dense_h_to_4h", "ffn_up"),
    ("mlp.down_proj", "ffn_down"),
    ("mlp.fc2", "ffn_down"),
    ("mlp.c_proj", "ffn_down"),
    ("mlp.dense_4h_to_h", "ffn_down"),
    ("attention.self.query", "attn_q"),
    ("attention.self.key", "attn_k"),
    ("attention.self.value", "attn_v"),
    ("attention.output.dense", "attn_output"),
    ("attention.output.LayerNorm", "attn_output_norm"),
    ("intermediate.dense", "ffn_up"),
    ("output.dense", "ffn_down"),
    ("output.LayerNorm", "layer_output_norm"),
    ("attn_norm", "attn_norm"),
    ("attn.Wqkv", "attn_qkv"),
    ("attn.Wo", "attn_output"),
    ("mlp_norm", "ffn_norm"),
    ("mlp.Wi", "ffn_up"),
    ("mlp.Wo", "ffn_down"),
    ("linear_attn.in_proj_qkv", "attn_qkv"),
    ("linear_attn.in_proj_z", "attn_gate"),
    ("linear_attn.in_proj_ba", "ssm_ba"),
    ("linear_attn.in_proj_b", "ssm_beta"),
    ("linear_attn.in_proj_a", "ssm_alpha"),
    ("linear_attn.conv1d", "ssm_conv1d"),
    ("linear_attn.dt", "ssm_dt"),
    ("linear_attn.norm", "ssm_norm"),
    ("linear_attn.out_proj", "ssm_out"),
    ("mlp.shared_expert.gate_proj", "ffn_gate_shexp"),
    ("mlp.shared_expert.up_proj", "ffn_up_shexp"),
    ("mlp.shared_expert.down_proj", "ffn_down_shexp"),
    ("mlp.shared_expert_gate", "ffn_gate_inp_shexp"),
    ("block_sparse_moe.router.layer", "ffn_gate_inp"),
    ("mamba.in_proj", "ssm_in"),
    ("mamba.conv1d", "ssm_conv1d"),
    ("mamba.dt", "ssm_dt"),
    ("mamba.norm", "ssm_norm"),
    ("mamba.out_proj", "ssm_out"),
    ("operator_norm", "attn_norm"),
    ("self_attn.q_layernorm", "attn_q_norm"),
    ("self_attn.k_layernorm", "attn_k_norm"),
    ("self_attn.out_proj", "attn_output"),
    ("conv.conv", "shortconv.conv"),
    ("conv.in_proj", "shortconv.in_proj"),
    ("conv.out_proj", "shortconv.out_proj"),
    ("ffn_norm", "ffn_norm"),
    ("feed_forward.w1", "ffn_gate"),
    ("feed_forward.w3", "ffn_up"),
    ("feed_forward.w2", "ffn_down"),
    ("self_attn.q_a_proj", "attn_q_a"),
    ("self_attn.q_a_layernorm", "attn_q_a_norm"),
    ("self_attn.q_b_proj", "attn_q_b"),
    ("self_attn.kv_a_proj_with_mqa", "attn_kv_a_mqa"),
    ("self_attn.kv_a_layernorm", "attn_kv_a_norm"),
    ("self_attn.kv_b_proj", "attn_kv_b"),
    ("self_attn.k_b_proj", "attn_k_b"),
    ("self_attn.v_b_proj", "attn_v_b"),
    ("exp_probs_b", "exp_probs_b"),
    ("mlp.shared_experts.gate_proj", "ffn_gate_shexp"),
    ("mlp.shared_experts.up_proj", "ffn_up_shexp"),
    ("mlp.shared_experts.down_proj", "ffn_down_shexp"),
];

/// What GGUF calls a tensor.
pub(super) fn stored_name(name: &str, kind: &Kind) -> Option<String> {
    // Vectors that are called weights and biases there.
    let weight = name.strip_suffix(".sinks").map(|stem| format!("{stem}.sinks.weight"));
    let bias = name.strip_suffix(".mlp.gate.e_score_correction_bias");
    let bias = bias.map(|layer| format!("{layer}.exp_probs_b.bias"));
    let step = name.strip_suffix(".dt_bias").map(|part| format!("{part}.dt.bias"));
    let renamed = name.strip_prefix("roberta.").map(|rest| format!("bert.{rest}"));
    let name = weight
        .as_deref()
        .or(bias.as_deref())
        .or(step.as_deref())
        .or(renamed.as_deref())
        .unwrap_or(name);
    // Tensors that are called nothing else.
    const BARE: [(&str, &str); 8] = [
        (".mamba.A_log", "ssm_a"),
        (".mamba.D", "ssm_d"),
        (".linear_attn.A_log", "ssm_a"),
        (".layer_scalar", "layer_output_scale.weight"),
        (".router.per_expert_scale", "ffn_down_exps.scale"),
        (".mlp.experts.gate_up_proj", "ffn_gate_up_exps.weight"),
        (".experts.gate_up_proj", "ffn_gate_up_exps.weight"),
        (".experts.down_proj", "ffn_down_exps.weight"),
    ];
    for (theirs, ours) in BARE {
        if let Some(layer) = name.strip_suffix(theirs).and_then(|stem| stem.strip_prefix(LAYERS[0]))
        {
            return Some(format!("blk.{layer}.{ours}"));
        }
    }
    let (stem, end) = name.rsplit_once('.')?;
    let Some(rest) = LAYERS.iter().find_map(|layers| stem.strip_prefix(layers)) else {
        let (_, found) = TENSORS.iter().find(|(theirs, _)| *theirs == stem)?;
        let has_place = end == "weight" || !UNBIASED.contains(&stem);
        return has_place.then(|| format!("{found}.{end}"));
    };
    let (layer, part) = rest.split_once('.')?;
    let (_, found) = LAYER_TENSORS.iter().find(|(theirs, _)| *theirs == part)?;
    let behind = kind.norms_behind && part == "post_attention_layernorm";
    let found = if behind { "post_attention_norm" } else { found };
    Some(format!("blk.{layer}.{found}.{end}"))
}
