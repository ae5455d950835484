//! What files of each architecture hold, and what their keys are called.

/// What an architecture's files hold besides what all do.
pub(super) struct Kind {
    /// `general.architecture`.
    pub(super) name: &'static str,
    /// Fields that must be there, with their keys.
    pub(super) fields: &'static [(&'static str, &'static str)],
    /// Hugging Face's name of what norms add.
    pub(super) epsilon: (&'static str, &'static str),
    /// The field that says whether there are biases, which files show by having them.
    pub(super) bias: Option<&'static str>,
    /// Queries and keys are stored for a RoPE that turns neighbours.
    pub(super) interleaved: bool,
    /// RoPE may turn a part of each head.
    pub(super) partial: bool,
    /// Norms behind branches have names of their own.
    pub(super) norms_behind: bool,
    /// llama.cpp keeps to sliding windows.
    pub(super) slides: bool,
    /// Fields of its own say how wide heads are.
    pub(super) own_widths: bool,
    /// Fields that others don't have, or have other keys for, with their keys.
    pub(super) own: &'static [(&'static str, &'static str)],
}

const RMS: (&str, &str) = ("rms_norm_eps", "attention.layer_norm_rms_epsilon");
const PLAIN: Kind = Kind {
    name: "",
    fields: &SIZES,
    epsilon: RMS,
    bias: None,
    interleaved: false,
    partial: false,
    norms_behind: false,
    slides: false,
    own_widths: false,
    own: &[],
};
const LAYER_NORM: Kind =
    Kind { epsilon: ("layer_norm_eps", "attention.layer_norm_epsilon"), ..PLAIN };

const DELTA_NETS: Kind =
    Kind { name: QWEN3_NEXT, partial: true, norms_behind: true, own: &DELTA_NET, ..PLAIN };

pub(super) const KINDS: [Kind; 27] = [
    Kind { name: "llama", bias: Some("attention_bias"), interleaved: true, ..PLAIN },
    Kind { name: "qwen2", ..PLAIN },
    Kind { name: "qwen3", bias: Some("attention_bias"), ..PLAIN },
    Kind { name: "qwen3moe", bias: Some("attention_bias"), ..PLAIN },
    Kind { name: "olmoe", ..PLAIN },
    Kind {
        name: "gpt-oss",
        bias: Some("attention_bias"),
        norms_behind: true,
        slides: true,
        ..PLAIN
    },
    Kind { name: "gemma2", norms_behind: true, slides: true, ..PLAIN },
    Kind { name: "gemma3", norms_behind: true, slides: true, ..PLAIN },
    Kind {
        name: GEMMA4,
        norms_behind: true,
        slides: true,
        own_widths: true,
        own: &[
            ("head_dim", "attention.key_length_swa"),
            ("global_head_dim", "attention.key_length"),
            ("num_kv_shared_layers", "attention.shared_kv_layers"),
            ("hidden_size_per_layer_input", "embedding_length_per_layer_input"),
        ],
        ..PLAIN
    },
    Kind { name: "phi3", partial: true, ..PLAIN },
    Kind { name: "smollm3", interleaved: true, ..PLAIN },
    Kind { name: "granite", interleaved: true, ..PLAIN },
    Kind { name: "olmo2", norms_behind: true, ..PLAIN },
    Kind {
        name: "starcoder2",
        epsilon: ("norm_epsilon", LAYER_NORM.epsilon.1),
        bias: Some("use_bias"),
        ..LAYER_NORM
    },
    Kind { name: "phi2", partial: true, ..LAYER_NORM },
    Kind { name: "stablelm", bias: Some("use_qkv_bias"), partial: true, ..LAYER_NORM },
    Kind { name: "gptneox", bias: Some("attention_bias"), partial: true, ..LAYER_NORM },
    Kind {
        name: "gpt2",
        fields: &GPT2_SIZES,
        epsilon: ("layer_norm_epsilon", LAYER_NORM.epsilon.1),
        ..LAYER_NORM
    },
    Kind {
        name: "bloom",
        fields: &BLOOM_SIZES,
        epsilon: ("layer_norm_epsilon", LAYER_NORM.epsilon.1),
        ..LAYER_NORM
    },
    Kind { name: BERT, ..LAYER_NORM },
    Kind {
        name: "lfm2",
        epsilon: ("norm_eps", RMS.1),
        own: &[("conv_L_cache", "shortconv.l_cache")],
        ..PLAIN
    },
    Kind { name: DEEPSEEK, own_widths: true, own: &LATENT, ..PLAIN },
    DELTA_NETS,
    Kind { name: QWEN3_5[0], ..DELTA_NETS },
    Kind { name: QWEN3_5[1], fields: &MIXTURE_SIZES, ..DELTA_NETS },
    Kind {
        name: GRANITE_HYBRID,
        interleaved: true,
        own: &[
            ("mamba_d_conv", "ssm.conv_kernel"),
            ("mamba_d_state", "ssm.state_size"),
            ("mamba_d_inner", "ssm.inner_size"),
            ("mamba_n_heads", "ssm.time_step_rank"),
            ("mamba_n_groups", "ssm.group_count"),
            ("shared_intermediate_size", "expert_shared_feed_forward_length"),
            ("rope_finetuned", "rope.scaling.finetuned"),
        ],
        ..PLAIN
    },
    Kind {
        name: MODERN_BERT,
        epsilon: ("norm_eps", LAYER_NORM.epsilon.1),
        own: &[
            ("local_attention", "attention.sliding_window"),
            ("global_attn_every_n_layers", "attention.sliding_window_pattern"),
            ("global_rope_theta", "rope.freq_base"),
            ("local_rope_theta", "rope.freq_base_swa"),
            ("hidden_activation", "hidden_act"),
        ],
        ..LAYER_NORM
    },
];

impl Kind {
    /// Fields that need not be there, with their keys: those that most have, and its own.
    pub(super) fn optional(&self) -> impl Iterator<Item = &(&'static str, &'static str)> {
        let other = |(name, key): &&(&str, &str)| {
            self.own.iter().all(|(own_name, own_key)| own_name != name && own_key != key)
        };
        OPTIONAL.iter().filter(other).chain(self.own)
    }
}

pub(super) const BERT: &str = "bert";
/// Latent attention, as DeepSeek has it.
pub(super) const DEEPSEEK: &str = "deepseek2";
/// Gemma 4, whose global layers have heads of another width.
pub(super) const GEMMA4: &str = "gemma4";
/// Qwen3.5, and the same with experts.
pub(super) const QWEN3_5: [&str; 2] = ["qwen35", "qwen35moe"];
pub(super) const QWEN3_NEXT: &str = "qwen3next";
/// Granite 4, whose layers may be state space models.
pub(super) const GRANITE_HYBRID: &str = "granitehybrid";
/// ModernBERT, which counts windows on both sides.
pub(super) const MODERN_BERT: &str = "modern-bert";

/// The numbers of functions that make scores of experts.
pub(super) const SOFTMAX: u32 = 1;
pub(super) const SIGMOID: u32 = 2;

/// Fields of latent attention, and of the experts behind it.
const LATENT: [(&str, &str); 10] = [
    ("q_lora_rank", "attention.q_lora_rank"),
    ("kv_lora_rank", "attention.kv_lora_rank"),
    ("v_head_dim", "attention.value_length_mla"),
    ("n_shared_experts", "expert_shared_count"),
    ("routed_scaling_factor", "expert_weights_scale"),
    ("norm_topk_prob", "expert_weights_norm"),
    ("n_group", "expert_group_count"),
    ("topk_group", "expert_group_used_count"),
    ("first_k_dense_replace", "leading_dense_block_count"),
    ("num_nextn_predict_layers", "nextn_predict_layers"),
];

const SIZES: [(&str, &str); 5] = [
    ("hidden_size", "embedding_length"),
    ("intermediate_size", "feed_forward_length"),
    ("num_hidden_layers", "block_count"),
    ("num_attention_heads", "attention.head_count"),
    ("max_position_embeddings", "context_length"),
];
const GPT2_SIZES: [(&str, &str); 5] = [
    ("n_embd", "embedding_length"),
    ("n_inner", "feed_forward_length"),
    ("n_layer", "block_count"),
    ("n_head", "attention.head_count"),
    ("n_positions", "context_length"),
];

const BLOOM_SIZES: [(&str, &str); 5] = [
    ("hidden_size", "embedding_length"),
    ("intermediate_size", "feed_forward_length"),
    ("num_hidden_layers", "block_count"),
    ("num_attention_heads", "attention.head_count"),
    ("seq_length", "context_length"),
];

/// Of mixtures in which no feed-forward layer has another width than experts.
const MIXTURE_SIZES: [(&str, &str); 4] = [SIZES[0], SIZES[2], SIZES[4], SIZES[3]];

/// Sizes of gated DeltaNets.
const DELTA_NET: [(&str, &str); 8] = [
    ("linear_conv_kernel_dim", "ssm.conv_kernel"),
    ("linear_key_head_dim", "ssm.state_size"),
    ("linear_num_key_heads", "ssm.group_count"),
    ("linear_num_value_heads", "ssm.time_step_rank"),
    ("linear_value_width", "ssm.inner_size"),
    ("full_attention_interval", "full_attention_interval"),
    ("recurrent_layers", "attention.recurrent_layers"),
    ("shared_expert_intermediate_size", "expert_shared_feed_forward_length"),
];

/// Fields that need not be there, with their keys.
const OPTIONAL: [(&str, &str); 17] = [
    ("num_key_value_heads", "attention.head_count_kv"),
    ("head_dim", "attention.key_length"),
    ("rope_theta", "rope.freq_base"),
    ("rope_local_base_freq", "rope.freq_base_swa"),
    ("sliding_window", "attention.sliding_window"),
    ("sliding_window_pattern", "attention.sliding_window_pattern"),
    ("num_local_experts", "expert_count"),
    ("num_experts_per_tok", "expert_used_count"),
    ("moe_intermediate_size", "expert_feed_forward_length"),
    ("attn_logit_softcapping", "attn_logit_softcapping"),
    ("final_logit_softcapping", "final_logit_softcapping"),
    ("use_parallel_residual", "use_parallel_residual"),
    ("attention_multiplier", "attention.scale"),
    ("embedding_multiplier", "embedding_scale"),
    ("residual_multiplier", "residual_scale"),
    ("logits_scaling", "logit_scale"),
    ("original_max_position_embeddings", "rope.scaling.original_context_length"),
];
