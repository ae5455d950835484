//! The graph of a Llama-family model.

use super::weights::{FREQUENCIES, WeightLayout};
use crate::graph::{FORMAT, Graph, Names, Node, Port, StateShape, ValueRef, ValueShape};
use crate::import::LlamaConfig;
use omex_core::ops::{
    Activation, Angles, Attend, Embed, Gated, Index, Linear, Mask, Norm, NormKind, Pairing, Rotary,
    Select, Store,
};
use omex_core::program::Per;

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
    let norm = |weight: &str, input: &str, output: &str| -> Node {
        Norm::<Names> {
            weight: weight.into(),
            bias: None,
            input: all(input),
            output: all(output),
            epsilon,
            kind: NormKind::Rms,
            group: 0,
        }
        .into()
    };
    let matmul = |weight: &str, input: &str, output: &ValueRef, accumulate| -> Node {
        Linear::<Names> {
            bias: None,
            weight: weight.into(),
            input: all(input),
            output: output.clone(),
            accumulate,
        }
        .into()
    };
    let rotary = |value: &ValueRef| -> Node {
        Rotary::<Names> {
            angles: all("angles"),
            value: value.clone(),
            head_width: config.head_dim,
            pairing: Pairing::Halves,
        }
        .into()
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
    block.push(Store::<Names> { state: "kv[{layer}]".into(), key, value }.into());
    let attend = Attend::<Names> {
        state: "kv[{layer}]".into(),
        query,
        angles: Some(all("angles")),
        output: all("attended"),
        scale: 1.0 / (config.head_dim as f32).sqrt(),
        pairing: Pairing::Halves,
        mask: Mask::Causal,
    };
    block.push(attend.into());
    block.push(matmul("layers.{layer}.attention.output", "attended", &all("residual"), true));
    block.push(norm("layers.{layer}.feed_forward_norm", "residual", "normed"));
    if fused_gate_up {
        block.push(matmul("layers.{layer}.feed_forward.gate_up", "normed", &all("gate_up"), false));
    } else {
        block.push(matmul("layers.{layer}.feed_forward.gate", "normed", &gate, false));
        block.push(matmul("layers.{layer}.feed_forward.up", "normed", &up, false));
    }
    let activation = Activation::Silu;
    block.push(Gated::<Names> { activation, gate, up, output: all("gated") }.into());
    block.push(matmul("layers.{layer}.feed_forward.down", "gated", &all("residual"), true));
    let output = if config.tied_embeddings { "embedding" } else { "output" };
    let nodes = vec![
        Angles::<Names> { frequencies: FREQUENCIES.into(), output: all("angles"), scale: 0.0 }
            .into(),
        Embed::<Names> {
            weight: "embedding".into(),
            output: all("residual"),
            index: Index::Token,
            offset: 0,
            accumulate: false,
        }
        .into(),
        Node::Repeat { subgraph: "block".into(), layers: config.layers },
        Select::<Names> { input: all("residual"), output: all("selected") }.into(),
        norm("norm", "selected", "final"),
        matmul(output, "final", &all("logits"), false),
    ];
    let shape = |width, selected| {
        let per = if selected { Per::Output } else { Per::Token };
        ValueShape { width, per, ..ValueShape::default() }
    };
    let (count, heads, width) = (config.layers, config.kv_heads, config.head_dim);
    let cache = StateShape::Kv { count, heads, width, window: 0 };
    let logits = Port { name: "logits".into(), value: all("logits"), scale: 0.0, zero_point: 0 };
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
        format: FORMAT,
        vocab_size: config.vocab_size,
        context_length: config.context_length,
        inputs: vec![],
        outputs: vec![logits],
        states: [("kv".to_owned(), cache)].into(),
        values: values.map(|(name, shape)| (name.to_owned(), shape)).into(),
        subgraphs: [("block".to_owned(), block)].into(),
        nodes,
    }
}
