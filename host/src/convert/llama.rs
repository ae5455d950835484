//! The graph of a Llama-family model.

use super::weights::{FREQUENCIES, WeightLayout};
use crate::graph::{Activation, Graph, KvShape, Node, ValueRef, ValueShape};
use crate::import::LlamaConfig;

/// The graph of a Llama-family model.
pub(super) fn graph(config: &LlamaConfig, layout: &WeightLayout) -> Graph {
    let (q, kv) = (config.heads * config.head_dim, config.kv_heads * config.head_dim);
    let (hidden, wide) = (config.hidden_size, config.intermediate_size);
    let epsilon = config.rms_norm_epsilon;
    let (fused_qkv, fused_gate_up) = layout.fused.first().copied().unwrap_or((true, true));
    let all = ValueRef::all;
    let (query, key, value) = (
        ValueRef::rows("qkv", 0, q),
        ValueRef::rows("qkv", q, q + kv),
        ValueRef::rows("qkv", q + kv, q + 2 * kv),
    );
    let (gate, up) =
        (ValueRef::rows("gate_up", 0, wide), ValueRef::rows("gate_up", wide, 2 * wide));
    let norm = |weight: &str, input: &str, output: &str| Node::RmsNorm {
        weight: weight.into(),
        epsilon,
        input: all(input),
        output: all(output),
    };
    let matmul = |weight: &str, input: &str, output: &ValueRef, accumulate| Node::MatMul {
        weight: weight.into(),
        input: all(input),
        output: output.clone(),
        accumulate,
    };
    let rotary = |value: &ValueRef| Node::Rotary {
        angles: all("angles"),
        value: value.clone(),
        head_width: config.head_dim,
    };
    let mut block = vec![norm("layers.{layer}.attention_norm", "residual", "normed")];
    if fused_qkv {
        block.push(matmul("layers.{layer}.attention.qkv", "normed", &all("qkv"), false));
    } else {
        block.push(matmul("layers.{layer}.attention.query", "normed", &query, false));
        block.push(matmul("layers.{layer}.attention.key", "normed", &key, false));
        block.push(matmul("layers.{layer}.attention.value", "normed", &value, false));
    }
    block.extend([rotary(&query), rotary(&key)]);
    block.push(Node::Attention {
        cache: 0,
        query_heads: config.heads,
        kv_heads: config.kv_heads,
        head_width: config.head_dim,
        scale: 1.0 / (config.head_dim as f32).sqrt(),
        query,
        key,
        value,
        angles: all("angles"),
        output: all("attended"),
    });
    block.push(matmul("layers.{layer}.attention.output", "attended", &all("residual"), true));
    block.push(norm("layers.{layer}.feed_forward_norm", "residual", "normed"));
    if fused_gate_up {
        block.push(matmul("layers.{layer}.feed_forward.gate_up", "normed", &all("gate_up"), false));
    } else {
        block.push(matmul("layers.{layer}.feed_forward.gate", "normed", &gate, false));
        block.push(matmul("layers.{layer}.feed_forward.up", "normed", &up, false));
    }
    block.push(Node::Gated { activation: Activation::Silu, gate, up, output: all("gated") });
    block.push(matmul("layers.{layer}.feed_forward.down", "gated", &all("residual"), true));
    let output = if config.tied_embeddings { "embedding" } else { "output" };
    let nodes = vec![
        Node::RotaryAngles { frequencies: FREQUENCIES.into(), output: all("angles") },
        Node::Embed { weight: "embedding".into(), output: all("residual") },
        Node::Repeat { subgraph: "block".into(), layers: config.layers },
        Node::Select { input: all("residual"), output: all("selected") },
        norm("norm", "selected", "final"),
        matmul(output, "final", &all("logits"), false),
    ];
    let shape = |width, selected| ValueShape { width, selected };
    let values = [
        ("angles", shape(2 * config.head_dim, false)),
        ("residual", shape(hidden, false)),
        ("normed", shape(hidden, false)),
        ("qkv", shape(q + 2 * kv, false)),
        ("attended", shape(q, false)),
        ("gate_up", shape(2 * wide, false)),
        ("gated", shape(wide, false)),
        ("selected", shape(hidden, true)),
        ("final", shape(hidden, true)),
        ("logits", shape(config.vocab_size, true)),
    ];
    Graph {
        format: 1,
        vocab_size: config.vocab_size,
        context_length: config.context_length,
        kv: KvShape { caches: config.layers, width: kv },
        logits: "logits".into(),
        values: values.map(|(name, shape)| (name.to_owned(), shape)).into(),
        subgraphs: [("block".to_owned(), block)].into(),
        nodes,
    }
}
