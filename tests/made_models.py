#!/usr/bin/env python3
"""Writes made_models.json: tiny models of architectures, whose weights follow from their tensors' names, and
what transformers computes with them.

    pip install torch transformers
    python3 tests/made_models.py

`tests/tests/made_models.rs` makes the same weights, and compares.
"""

import copy
import json
import zlib
from pathlib import Path

import numpy
import torch
import transformers

IDS = [3, 14, 15, 9, 26, 5, 31, 8, 9]
DEEPSEEK_V2 = {
    "hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 3, "num_attention_heads": 2, "vocab_size": 32,
    "q_lora_rank": None, "kv_lora_rank": 8, "qk_nope_head_dim": 8, "qk_rope_head_dim": 4, "v_head_dim": 8,
    "n_routed_experts": 4, "num_experts_per_tok": 2, "n_shared_experts": 2, "moe_intermediate_size": 8,
    "first_k_dense_replace": 1, "routed_scaling_factor": 1.5, "max_position_embeddings": 64,
}  # fmt: skip
MODELS = {
    "deepseek_v2": DEEPSEEK_V2,
    "deepseek_v2_groups": DEEPSEEK_V2 | {
        "model_type": "deepseek_v2", "n_routed_experts": 8, "num_experts_per_tok": 3,
        "topk_method": "group_limited_greedy", "n_group": 4, "topk_group": 2,
    },
    "granitemoehybrid": {
        "hidden_size": 16, "num_hidden_layers": 3, "num_attention_heads": 2, "num_key_value_heads": 1, "vocab_size": 32,
        "num_local_experts": 0, "shared_intermediate_size": 24, "layer_types": ["mamba", "attention", "mamba"],
        "mamba_n_heads": 4, "mamba_n_groups": 2, "mamba_d_state": 8, "mamba_d_head": 8, "mamba_expand": 2,
        "mamba_d_conv": 4, "max_position_embeddings": 64, "pad_token_id": 0, "tie_word_embeddings": False,
    },
    # As Phi 4 mini is published. What transformers reads is longer than the original context.
    "phi3": {
        "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2,
        "num_key_value_heads": 1, "vocab_size": 32, "pad_token_id": 0, "partial_rotary_factor": 0.75,
        "max_position_embeddings": 64, "original_max_position_embeddings": 6,
        "rope_scaling": {"type": "longrope", "short_factor": [1.0, 1.25, 2.0], "long_factor": [1.5, 3.0, 9.0]},
    },
    "bloom": {"hidden_size": 12, "n_layer": 2, "n_head": 3, "vocab_size": 32},
    "qwen3_5_moe_text": {
        "hidden_size": 16, "num_hidden_layers": 4, "num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 8,
        "linear_num_key_heads": 1, "linear_num_value_heads": 2, "linear_key_head_dim": 8, "linear_value_head_dim": 8,
        "moe_intermediate_size": 8, "shared_expert_intermediate_size": 8, "num_experts": 4, "num_experts_per_tok": 2,
        "vocab_size": 32, "max_position_embeddings": 64,
    },
}  # fmt: skip


def weights(name, shape):
    """Multiples of 2^-25 within 1/4 of 0, or of 1 for vectors: SplitMix64's output function, from a checksum of the name."""
    count = int(numpy.prod(shape))
    z = (numpy.arange(1, count + 1, dtype=numpy.uint64) + numpy.uint64(zlib.crc32(name.encode()))) * numpy.uint64(
        0x9E3779B97F4A7C15
    )
    z = (z ^ z >> numpy.uint64(30)) * numpy.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ z >> numpy.uint64(27)) * numpy.uint64(0x94D049BB133111EB)
    z = z ^ z >> numpy.uint64(31)
    unit = (z >> numpy.uint64(40)).astype(numpy.float32) / numpy.float32(2**23) - numpy.float32(1)
    middle = 1 if len(shape) == 1 else 0
    return (numpy.float32(middle) + unit / numpy.float32(4)).reshape(shape)


def made(kind, fields):
    fields = {"model_type": kind, "bos_token_id": 1, "eos_token_id": 2, **fields}
    config = transformers.AutoConfig.for_model(**copy.deepcopy(fields))
    model = transformers.AutoModelForCausalLM.from_config(config, attn_implementation="eager").float().eval()
    tied = set(model.all_tied_weights_keys)
    state = {name: weights(name, tensor.shape) for name, tensor in model.state_dict().items() if name not in tied}
    model.load_state_dict({name: torch.from_numpy(tensor) for name, tensor in state.items()}, strict=not tied)
    model.tie_weights()
    original = fields.get("original_max_position_embeddings")
    with torch.no_grad():
        short, logits = (model(torch.tensor([ids])).logits[0] for ids in (IDS[:original], IDS))
    shapes = {name: list(tensor.shape) for name, tensor in state.items()}
    short, logits = ([[float(f"{x:.7g}") for x in row] for row in rows.tolist()] for rows in (short, logits))
    return {"config": fields, "tensors": shapes, "logits": logits} | ({"short": short} if original else {})


if __name__ == "__main__":
    models = {name: made(fields.get("model_type", name), fields) for name, fields in MODELS.items()}
    path = Path(__file__).with_name("made_models.json")
    parts = [f"{json.dumps(kind)}: {json.dumps(model)}" for kind, model in models.items()]
    path.write_text('{"ids": ' + json.dumps(IDS) + ",\n" + ",\n".join(parts) + "}\n")
