//! Each architecture computes what the reference implementation does, from both styles of config.

use omex::arch::blueprint;
use omex::cancel::Cancel;
use omex::convert::{Calibration, ConvertOptions, convert};
use omex::generate::forward;
use omex::import::open;
use omex::pager::PageSource;
use omex::plan::Kv;
use omex::quantize::Precision;
use omex_core::engine::Wanted;
use omex_tests::{
    Converted, Setting, Tensor, all_tensors, convert_from, greedy_logits, is_half, json, logits,
    numbers, read_npy, require_shared, tensors, worst_error, write_safetensors,
};
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::Path;

/// How far a logit may be off, relative to the largest of its row.
const TOLERANCE: f32 = 1e-4;

/// Copies the weights of a model beside one of its configurations.
fn with_config(model: &Path, config: &str) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    std::fs::copy(model.join(config), folder.path().join("config.json")).unwrap();
    for file in std::fs::read_dir(model).unwrap().map(Result::unwrap) {
        let name = file.file_name();
        if name.to_str().unwrap().contains(".safetensors") {
            std::fs::copy(file.path(), folder.path().join(name)).unwrap();
        }
    }
    folder
}

/// The same for gated DeltaNets, whose float32 noise in the reference is that large.
const RECURRENT: f32 = 3e-4;

/// Compares prompt and greedy text with the reference, for each of these configurations.
fn equals_the_reference(model: &Path, configs: &[&str]) {
    equals_the_reference_within(model, configs, TOLERANCE);
}

fn equals_the_reference_within(model: &Path, configs: &[&str], tolerance: f32) {
    let reference = json(&model.join("ref.json"));
    let prompt = numbers(&reference["input_ids"]);
    let greedy = numbers(&reference["greedy_ids"]);
    for config in configs {
        let folder = with_config(model, config);
        let package = convert_from(folder.path(), Some(Precision::F32));
        let what = format!("{} with {config}", model.file_name().unwrap().display());
        let found = logits(&package.path, &prompt, &Setting::default());
        let worst = worst_error(&found, &read_npy(&model.join("logits.npy")).rows);
        let cut = Setting { chunks: &[3, 1, 5], ..Setting::default() };
        assert!(found == logits(&package.path, &prompt, &cut), "{what}: passes of 3, 1, 5 tokens");
        let (ids, rows) = greedy_logits(&package.path, &prompt, greedy.len(), &Setting::default());
        let greedily = worst_error(&rows, &read_npy(&model.join("logits_with_greedy.npy")).rows);
        println!("{what}: largest relative error {worst:.2e}, greedily {greedily:.2e}");
        assert_eq!(ids, greedy, "{what}: greedy tokens");
        assert!(worst <= tolerance && greedily <= tolerance, "{what}: {worst:e}, {greedily:e}");
    }
}

const BOTH: [&str; 2] = ["config.json", "config_v5.json"];

#[test]
fn llamas() {
    for name in ["llama_tied", "llama_untied", "llama_bias"] {
        equals_the_reference(&require_shared!(&format!("golden/{name}")), &BOTH);
    }
}

#[test]
fn ropes_that_are_stretched() {
    for name in ["llama3_rope", "llama_linear", "llama_yarn", "llama_yarn2"] {
        equals_the_reference(&require_shared!(&format!("golden/{name}")), &BOTH);
    }
}

#[test]
fn mistral() {
    equals_the_reference(&require_shared!("golden/mistral_sw"), &BOTH);
}

#[test]
fn qwen2() {
    equals_the_reference(&require_shared!("golden/qwen2"), &BOTH);
}

#[test]
fn qwen3() {
    equals_the_reference(&require_shared!("golden/qwen3"), &BOTH);
}

#[test]
fn gemma2() {
    equals_the_reference(&require_shared!("golden/gemma2"), &BOTH);
}

#[test]
fn gemma3() {
    equals_the_reference(&require_shared!("golden/gemma3_text"), &BOTH);
}

#[test]
fn gemma4_with_keys_that_layers_share_and_with_experts() {
    for name in ["gemma4_text", "gemma4_e", "gemma4_moe"] {
        equals_the_reference(&require_shared!(&format!("golden/{name}")), &BOTH);
    }
}

#[test]
fn layers_that_share_keys_write_on_beyond_their_context() {
    let model = require_shared!("golden/gemma4_e");
    let reference = json(&model.join("ref.json"));
    let [prompt, greedy] = ["input_ids", "greedy_ids"].map(|name| numbers(&reference[name]));
    let package = convert_from(&model, Some(Precision::F32));
    let within = 24 - prompt.len() as u32;
    let setting = Setting { context: Some(24), ..Setting::default() };
    let (ids, rows) = greedy_logits(&package.path, &prompt, greedy.len(), &setting);
    assert_eq!(ids[..=within as usize], greedy[..=within as usize]);
    let streamed = Setting { pages: Some(PageSource::Read), threads: Some(2), ..setting };
    assert!((ids, rows) == greedy_logits(&package.path, &prompt, greedy.len(), &streamed));
    // A prompt that is too long goes token by token.
    let short = Setting { context: Some(12), ..Setting::default() };
    let singly = Setting { chunks: &[1], ..short };
    let mut session = short.open(&package.path, 1).unwrap();
    let mut engine = session.engine().unwrap();
    let failed = |error| panic!("{error}");
    let wanted = Wanted::Last;
    forward(&mut engine, &prompt, wanted, &Cancel::default(), &failed, &mut |_, _| Ok(())).unwrap();
    assert_eq!(engine.logits(0), logits(&package.path, &prompt, &singly)[prompt.len() - 1]);
}

#[test]
fn gpt2() {
    equals_the_reference(&require_shared!("golden/gpt2"), &BOTH);
}

#[test]
fn granite() {
    equals_the_reference(&require_shared!("golden/granite"), &BOTH);
}

#[test]
fn smollm3() {
    equals_the_reference(&require_shared!("golden/smollm3"), &BOTH);
}

#[test]
fn olmo2() {
    equals_the_reference(&require_shared!("golden/olmo2"), &BOTH);
}

#[test]
fn starcoder2() {
    equals_the_reference(&require_shared!("golden/starcoder2"), &BOTH);
}

#[test]
fn phi() {
    equals_the_reference(&require_shared!("golden/phi"), &BOTH);
}

#[test]
fn phi3() {
    equals_the_reference(&require_shared!("golden/phi3"), &BOTH);
}

#[test]
fn stablelm() {
    equals_the_reference(&require_shared!("golden/stablelm"), &BOTH);
}

#[test]
fn gpt_neox() {
    equals_the_reference(&require_shared!("golden/gpt_neox"), &BOTH);
}

#[test]
fn lfm2_also_as_published() {
    let configs = [BOTH[0], BOTH[1], "config_hub.json"];
    equals_the_reference(&require_shared!("golden/lfm2"), &configs);
}

#[test]
fn qwen3_5_with_gated_delta_nets() {
    equals_the_reference_within(&require_shared!("golden/qwen3_5_text"), &BOTH, RECURRENT);
}

#[test]
fn qwen3_next_with_experts() {
    equals_the_reference_within(&require_shared!("golden/qwen3_next"), &BOTH, RECURRENT);
}

#[test]
fn gpt_oss_with_learned_scores_and_limited_gates() {
    for name in ["gpt_oss", "gpt_oss_clamp"] {
        equals_the_reference(&require_shared!(&format!("golden/{name}")), &BOTH);
    }
}

#[test]
fn deepseek_v3_with_latent_attention() {
    for name in ["deepseek_v3", "deepseek_v3_yarn"] {
        equals_the_reference(&require_shared!(&format!("golden/{name}")), &BOTH);
    }
}

#[test]
fn granites_with_state_space_models() {
    equals_the_reference(&require_shared!("golden/granitehybrid_dense"), &BOTH);
}

#[test]
fn granites_with_state_space_models_and_experts() {
    equals_the_reference(&require_shared!("golden/granitemoehybrid"), &BOTH);
}

#[test]
fn mixtral() {
    equals_the_reference(&require_shared!("golden/mixtral"), &BOTH);
}

#[test]
fn olmoe() {
    equals_the_reference(&require_shared!("golden/olmoe"), &BOTH);
}

#[test]
fn qwen3_moe() {
    equals_the_reference(&require_shared!("golden/qwen3_moe"), &BOTH);
}

#[test]
fn images_and_streamed_weights_give_the_same_bits() {
    for name in [
        "llama_bias",
        "mistral_sw",
        "qwen2",
        "qwen3",
        "gemma2",
        "gemma3_text",
        "gpt2",
        "lfm2",
        "mixtral",
        "olmoe",
        "qwen3_moe",
        "granite",
        "smollm3",
        "olmo2",
        "starcoder2",
        "phi",
        "stablelm",
        "phi3",
        "gpt_neox",
        "qwen3_5_text",
        "granitehybrid_dense",
        "qwen3_next",
        "granitemoehybrid",
        "gpt_oss",
        "gemma4_e",
        "gemma4_moe",
        "deepseek_v3",
    ] {
        let model = require_shared!(&format!("golden/{name}"));
        let prompt: Vec<u32> = numbers(&json(&model.join("ref.json"))["input_ids"]);
        let package = convert_from(&model, Some(Precision::Int8));
        for kv in [Kv::F16, Kv::Int8] {
            let one = Setting { chunks: &[1], kv: Some(kv), ..Setting::default() };
            let expected = logits(&package.path, &prompt, &one);
            let image = package.image_with(512, 4, 64, Some(kv));
            let of_image = Setting { chunks: &[1], ..Setting::default() };
            assert!(logits(&image, &prompt, &of_image) == expected, "{name}'s image, {kv:?}");
            let streamed = Setting { pages: Some(PageSource::Read), ..one };
            assert!(logits(&package.path, &prompt, &streamed) == expected, "{name}, {kv:?}");
        }
    }
}

#[test]
fn int4_experts_have_no_residual_planes() {
    let model = require_shared!("golden/mixtral");
    let source = open(&model, None).unwrap();
    let package = Converted::in_planes(&*source);
    let index = json(&package.path.join("weights/quantization.json"));
    let tensors = index["tensors"].as_array().unwrap();
    let residuals: Vec<_> = tensors.iter().filter(|t| t["plane"] == 1).collect();
    assert!(!residuals.is_empty());
    assert!(residuals.iter().all(|t| !t["name"].as_str().unwrap().contains("experts")));
    let prompt: Vec<u32> = numbers(&json(&model.join("ref.json"))["input_ids"]);
    let found = logits(&package.path, &prompt, &Setting::default());
    let worst = worst_error(&found, &read_npy(&model.join("logits.npy")).rows);
    assert!(worst > TOLERANCE && worst < 1.0, "{worst:e}");
}

#[test]
fn bert_with_both_of_its_outputs() {
    hidden_states_and_scores(&require_shared!("golden/bert"), &BOTH);
}

#[test]
fn a_roberta_of_many_languages() {
    hidden_states_and_scores(&require_shared!("golden/xlm_roberta"), &BOTH);
}

#[test]
fn mpnet_with_distances() {
    hidden_states_and_scores(&require_shared!("golden/mpnet"), &BOTH);
}

#[test]
fn modernbert_also_as_published() {
    let configs = [BOTH[0], BOTH[1], "config_hub.json"];
    hidden_states_and_scores(&require_shared!("golden/modernbert"), &configs);
}

/// Compares both outputs of an encoder that guesses masked tokens with the reference.
fn hidden_states_and_scores(model: &Path, configs: &[&str]) {
    let prompt: Vec<u32> = numbers(&json(&model.join("ref.json"))["input_ids"]);
    for config in configs {
        let folder = with_config(model, config);
        let package = convert_from(folder.path(), Some(Precision::F32));
        let mut session = Setting::default().open(&package.path, prompt.len() as u32).unwrap();
        let mut engine = session.engine().unwrap();
        engine.forward(&prompt, Wanted::All).unwrap();
        for (name, file) in [("hidden", "hidden_plain.npy"), ("logits", "logits.npy")] {
            let port = engine.program().outputs().find(|port| port.name == name).unwrap();
            let found: Vec<Vec<f32>> =
                (0..prompt.len()).map(|column| engine.output(&port, column).to_vec()).collect();
            let worst = worst_error(&found, &read_npy(&model.join(file)).rows);
            println!(
                "{}: {name} with {config}: largest relative error {worst:.2e}",
                model.display()
            );
            assert!(worst <= TOLERANCE, "{name}: {worst:e}");
        }
    }
}

#[test]
fn an_encoder_is_rounded_to_int4_without_writing_texts() {
    let model = require_shared!("golden/bert");
    let source = open(&model, None).unwrap();
    let options = ConvertOptions { precision: Some(Precision::Int4), ..ConvertOptions::default() };
    let package = Converted::with(&*source, &options);
    let prompt: Vec<u32> = numbers(&json(&model.join("ref.json"))["input_ids"]);
    let whole = Setting { chunks: &[17], ..Setting::default() };
    let found = logits(&package.path, &prompt, &whole);
    let worst = worst_error(&found, &read_npy(&model.join("logits.npy")).rows);
    assert!(worst > TOLERANCE && worst < 0.5, "{worst:e}");
    let text = package.folder.path().join("text");
    std::fs::write(&text, "Some text.").unwrap();
    let options = ConvertOptions { calibration: Calibration::Text(&text), ..options };
    let path = package.folder.path().join("calibrated.omex");
    let error = convert(&*source, "huggingface", "bert", &path, &options, &mut |_, _| {});
    assert!(error.unwrap_err().to_string().contains("--no-calibration"));
}

/// Writes a GGUF file of an architecture as llama.cpp's converter names things.
fn write_gguf(
    architecture: &str,
    config: &Value,
    more: &[(&str, u32, [u8; 4])],
    tensors: &[Tensor],
    path: &Path,
) {
    let string = |text: &str| [&(text.len() as u64).to_le_bytes(), text.as_bytes()].concat();
    let mut keys = vec![[string("general.architecture"), vec![8, 0, 0, 0], string(architecture)]];
    let mut key = |key: &str, kind: u32, bytes: &[u8]| {
        let key = string(&format!("{architecture}.{key}"));
        keys.push([key, kind.to_le_bytes().to_vec(), bytes.to_vec()]);
    };
    for (name, field, kind) in GGUF_KEYS {
        let Some(value) = config[field].as_f64() else { continue };
        let bytes =
            if kind == 4 { (value as u32).to_le_bytes() } else { (value as f32).to_le_bytes() };
        key(name, kind, &bytes);
    }
    if architecture == "gpt-oss" {
        key("rope.scaling.type", 8, &string("yarn"));
    }
    for (name, kind, bytes) in more {
        // A boolean is one byte.
        key(name, *kind, if *kind == 7 { &bytes[..1] } else { bytes });
    }
    let counts = [tensors.len() as u64, keys.len() as u64].map(u64::to_le_bytes).concat();
    let mut file = [b"GGUF", &3u32.to_le_bytes()[..], &counts, &keys.concat().concat()].concat();
    let mut data: Vec<u8> = vec![];
    for (name, shape, bytes) in tensors {
        file.extend(string(&gguf_name(architecture, name)));
        file.extend((shape.len() as u32).to_le_bytes());
        file.extend(shape.iter().rev().flat_map(|side| side.to_le_bytes()));
        file.extend(if is_half(shape, bytes) { 30u32 } else { 0 }.to_le_bytes());
        file.extend((data.len() as u64).to_le_bytes());
        data.extend(bytes);
        data.resize(data.len().next_multiple_of(32), 0);
    }
    file.resize(file.len().next_multiple_of(32), 0);
    std::fs::write(path, [file, data].concat()).unwrap();
}

/// Keys behind the architecture's name, Hugging Face's fields, and types: 4 a u32, 6 an f32.
const GGUF_KEYS: [(&str, &str, u32); 29] = [
    ("expert_count", "num_local_experts", 4),
    ("expert_count", "num_experts", 4),
    ("expert_used_count", "num_experts_per_tok", 4),
    ("expert_feed_forward_length", "moe_intermediate_size", 4),
    ("embedding_length", "hidden_size", 4),
    ("feed_forward_length", "intermediate_size", 4),
    ("block_count", "num_hidden_layers", 4),
    ("attention.head_count", "num_attention_heads", 4),
    ("attention.head_count_kv", "num_key_value_heads", 4),
    ("attention.key_length", "head_dim", 4),
    ("context_length", "max_position_embeddings", 4),
    ("attention.layer_norm_rms_epsilon", "rms_norm_eps", 6),
    ("attention.layer_norm_epsilon", "layer_norm_eps", 6),
    ("attention.layer_norm_epsilon", "layer_norm_epsilon", 6),
    ("attention.layer_norm_epsilon", "norm_epsilon", 6),
    ("rope.freq_base", "rope_theta", 6),
    ("attention.sliding_window", "sliding_window", 4),
    ("attn_logit_softcapping", "attn_logit_softcapping", 6),
    ("final_logit_softcapping", "final_logit_softcapping", 6),
    ("attention.scale", "attention_multiplier", 6),
    ("embedding_scale", "embedding_multiplier", 6),
    ("residual_scale", "residual_multiplier", 6),
    ("logit_scale", "logits_scaling", 6),
    ("embedding_length", "n_embd", 4),
    ("feed_forward_length", "n_inner", 4),
    ("block_count", "n_layer", 4),
    ("attention.head_count", "n_head", 4),
    ("context_length", "n_positions", 4),
    ("rope.scaling.original_context_length", "original_max_position_embeddings", 4),
];

fn gguf_name(architecture: &str, name: &str) -> String {
    let behind = matches!(architecture, "gemma2" | "gemma3" | "olmo2" | "gpt-oss");
    let pairs = [
        ("post_feedforward_layernorm", "post_ffw_norm"),
        ("pre_feedforward_layernorm", "ffn_norm"),
        ("post_attention_layernorm", if behind { "post_attention_norm" } else { "ffn_norm" }),
        ("input_layernorm", "attn_norm"),
        ("model.embed_tokens", "token_embd"),
        ("gpt_neox.embed_in", "token_embd"),
        ("transformer.wte", "token_embd"),
        ("transformer.wpe", "position_embd"),
        ("bert.embeddings.word_embeddings", "token_embd"),
        ("bert.embeddings.position_embeddings", "position_embd"),
        ("bert.embeddings.token_type_embeddings", "token_types"),
        ("bert.embeddings.LayerNorm", "token_embd_norm"),
        ("bert.encoder.layer", "blk"),
        ("attention.self.query", "attn_q"),
        ("attention.self.key", "attn_k"),
        ("attention.self.value", "attn_v"),
        ("attention.output.dense", "attn_output"),
        ("attention.output.LayerNorm", "attn_output_norm"),
        ("intermediate.dense", "ffn_up"),
        ("output.dense", "ffn_down"),
        (".output.LayerNorm", ".layer_output_norm"),
        ("model.norm", "output_norm"),
        ("model.final_layernorm", "output_norm"),
        ("gpt_neox.final_layer_norm", "output_norm"),
        ("transformer.ln_f", "output_norm"),
        ("lm_head", "output"),
        ("embed_out", "output"),
        ("model.layers", "blk"),
        ("gpt_neox.layers", "blk"),
        ("transformer.h", "blk"),
        ("ln_1", "attn_norm"),
        ("ln_2", "ffn_norm"),
        ("attention.query_key_value", "attn_qkv"),
        ("self_attn.qkv_proj", "attn_qkv"),
        ("attn.c_attn", "attn_qkv"),
        ("attention.dense", "attn_output"),
        ("self_attn.dense", "attn_output"),
        ("attn.c_proj", "attn_output"),
        ("self_attn.o_proj", "attn_output"),
        ("mlp.dense_h_to_4h", "ffn_up"),
        ("mlp.dense_4h_to_h", "ffn_down"),
        ("mlp.fc1", "ffn_up"),
        ("mlp.fc2", "ffn_down"),
        ("mlp.c_fc", "ffn_up"),
        ("mlp.c_proj", "ffn_down"),
        ("mlp.gate_up_proj", "ffn_up"),
        ("mlp.experts.gate_proj", "ffn_gate_exps"),
        ("mlp.experts.up_proj", "ffn_up_exps"),
        ("mlp.experts.down_proj", "ffn_down_exps"),
        ("mlp.router", "ffn_gate_inp"),
        ("mlp.gate.", "ffn_gate_inp."),
        ("block_sparse_moe.experts.w1", "ffn_gate_exps"),
        ("block_sparse_moe.experts.w3", "ffn_up_exps"),
        ("block_sparse_moe.experts.w2", "ffn_down_exps"),
        ("block_sparse_moe.gate", "ffn_gate_inp"),
        ("self_attn.sinks", "attn_sinks.weight"),
        ("self_attn.", "attn_"),
        ("mlp.", "ffn_"),
        ("_proj", ""),
    ];
    pairs.iter().fold(name.to_owned(), |name, (from, to)| name.replace(from, to))
}

/// What llama.cpp's converter makes of a tensor: Llamas' queries and keys are stored for a RoPE that turns
/// neighbours, Gemmas' norms with the 1 that is added, GPT-2's matrices by rows, and GPT-NeoX's queries,
/// keys and values one below the other.
fn converted(architecture: &str, config: &Value, (name, shape, bytes): Tensor) -> Tensor {
    let part = |part: &str| name.contains(part);
    let wide = bytes.len() / shape[0] as usize;
    let row = |row: usize| bytes[row * wide..(row + 1) * wide].to_vec();
    let rows = |from: &dyn Fn(usize) -> usize| {
        (0..shape[0] as usize).flat_map(|to| row(from(to))).collect::<Vec<_>>()
    };
    let of = |field: &str| config[field].as_u64().unwrap_or(1) as usize;
    let width = of("hidden_size") / of("num_attention_heads");
    match architecture {
        "granite" | "smollm3" | "llama" if part("q_proj") || part("k_proj") => {
            let halves = |to: usize| to - to % width + to % width / 2 + to % 2 * (width / 2);
            let bytes = rows(&halves);
            (name, shape, bytes)
        }
        "gemma2" | "gemma3" if part("norm") => {
            let numbers = match is_half(&shape, &bytes) {
                true => bytes.as_chunks::<2>().0.iter().map(|x| [0, 0, x[0], x[1]]).collect(),
                false => bytes.as_chunks::<4>().0.to_vec(),
            };
            let plus = numbers.iter().flat_map(|x| (f32::from_le_bytes(*x) + 1.0).to_le_bytes());
            (name, shape, plus.collect())
        }
        "gpt2" if shape.len() == 2 && part(".c_") => {
            let [rows, columns] = [shape[0] as usize, shape[1] as usize];
            let number = |i: usize| &bytes[4 * (i % rows * columns + i / rows)..][..4];
            let bytes = (0..rows * columns).flat_map(number).copied().collect();
            (name, vec![shape[1], shape[0]], bytes)
        }
        "gptneox" if part("query_key_value") => {
            let heads = of("num_attention_heads");
            let by_head = |to: usize| {
                let (of, head) = (to / (heads * width), to / width % heads);
                (3 * head + of) * width + to % width
            };
            let bytes = rows(&by_head);
            (name, shape, bytes)
        }
        _ => (name, shape, bytes),
    }
}

/// Matrices of experts one below the other, in a tensor for all that are one part of an expert; gpt-oss's
/// turned, and those that alternate apart.
fn in_stacks(stored: Vec<Tensor>) -> Vec<Tensor> {
    let mut stacks: BTreeMap<String, Tensor> = BTreeMap::new();
    let mut expert = |number: usize, name: String, shape: &[u64], bytes: &[u8]| {
        let stack = stacks.entry(name.clone()).or_insert_with(|| {
            let shape = [&[0], shape].concat();
            (name, shape, vec![])
        });
        assert_eq!(stack.1[0], number as u64);
        stack.1[0] += 1;
        stack.2.extend(bytes);
    };
    let mut others = vec![];
    let mut sorted = stored;
    let number = |name: &str| name.split('.').rev().find_map(|part| part.parse::<usize>().ok());
    sorted.sort_by_key(|(name, ..)| number(name));
    for (name, shape, bytes) in sorted {
        let Some((before, after)) = name.split_once(".experts.") else {
            others.push((name, shape, bytes));
            continue;
        };
        if let Some((number, part)) = after.split_once('.') {
            let name = format!("{before}.experts.{part}");
            expert(number.parse().unwrap(), name, &shape, &bytes);
            continue;
        }
        let (part, bias) = match after.strip_suffix("_bias") {
            Some(part) => (part, true),
            None => (after, false),
        };
        let floats = bytes.as_chunks::<4>().0;
        let (columns, of_one) = (*shape.last().unwrap() as usize, floats.len() / shape[0] as usize);
        let inner = if bias { 1 } else { shape[1] as usize };
        for (number, floats) in floats.chunks(of_one).enumerate() {
            let parts: &[(&str, usize, usize)] = match part {
                "gate_up_proj" => &[("gate_proj", 0, 2), ("up_proj", 1, 2)],
                _ => &[(part, 0, 1)],
            };
            for (part, first, step) in parts {
                let rows = (*first..columns).step_by(*step);
                let turned: Vec<u8> = rows
                    .flat_map(|row| (0..inner).map(move |column| column * columns + row))
                    .flat_map(|at| floats[at])
                    .collect();
                let end = if bias { "bias" } else { "weight" };
                let rows = (columns / step) as u64;
                let shape = if bias { vec![rows] } else { vec![rows, inner as u64] };
                expert(number, format!("{before}.experts.{part}.{end}"), &shape, &turned);
            }
        }
    }
    others.into_iter().chain(stacks.into_values()).collect()
}

/// The same model from a GGUF file becomes the same package.
fn equals_its_gguf(
    golden: &Path,
    architecture: &str,
    more: &[(&str, u32, [u8; 4])],
    fields: Value,
) {
    let mut config = json(&golden.join("config.json"));
    config.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
    let folder = with_config(golden, "config.json");
    std::fs::write(folder.path().join("config.json"), config.to_string()).unwrap();
    // Norms of each head have another shape there.
    let of_heads = |(name, ..): &Tensor| name.contains("layernorm.norms");
    let mut stored = all_tensors(golden);
    // BERT's head is left out there.
    stored.retain(|tensor| !of_heads(tensor) && !tensor.0.starts_with("cls."));
    write_safetensors(&folder.path().join("model.safetensors"), &stored);
    for file in std::fs::read_dir(folder.path()).unwrap().map(|file| file.unwrap().path()) {
        let name = file.file_name().unwrap().to_str().unwrap();
        if name.contains("safetensors") && name != "model.safetensors" {
            std::fs::remove_file(file).unwrap();
        }
    }
    let stored = in_stacks(stored);
    let stored: Vec<_> = stored.into_iter().map(|t| converted(architecture, &config, t)).collect();
    let path = folder.path().join("model.gguf");
    write_gguf(architecture, &config, more, &stored, &path);
    become_one(folder.path(), &path);
}

#[test]
fn models_from_gguf_have_the_same_weights() {
    let rotated = |width: u32| ("rope.dimension_count", 4, width.to_le_bytes());
    let parallel = |is: bool| ("use_parallel_residual", 7, [is.into(), 0, 0, 0]);
    let none = || serde_json::json!({});
    for (golden, architecture, more, fields) in [
        ("qwen2", "qwen2", vec![], none()),
        ("qwen3", "qwen3", vec![], none()),
        ("llama_untied", "llama", vec![rotated(8)], none()),
        // llama.cpp knows these fields by the number of layers.
        ("gemma2", "gemma2", vec![], serde_json::json!({ "query_pre_attn_scalar": 32 })),
        ("gemma3_text", "gemma3", vec![], serde_json::json!({ "sliding_window_pattern": 6 })),
        ("phi3", "phi3", vec![rotated(16)], none()),
        ("smollm3", "smollm3", vec![rotated(16)], none()),
        ("granite", "granite", vec![rotated(16)], none()),
        ("olmo2", "olmo2", vec![], none()),
        ("starcoder2", "starcoder2", vec![], none()),
        ("phi", "phi2", vec![rotated(8)], none()),
        (
            "stablelm",
            "stablelm",
            vec![rotated(8), parallel(true)],
            serde_json::json!({ "qk_layernorm": false }),
        ),
        ("gpt_neox", "gptneox", vec![rotated(8), parallel(false)], none()),
        ("qwen3_moe", "qwen3moe", vec![], none()),
        ("olmoe", "olmoe", vec![], none()),
        ("mixtral", "llama", vec![], none()),
        (
            "gpt_oss",
            "gpt-oss",
            vec![
                ("rope.scaling.factor", 6, 8f32.to_le_bytes()),
                ("rope.scaling.original_context_length", 4, 64u32.to_le_bytes()),
            ],
            // As llama.cpp's converter wants it.
            serde_json::json!({ "rope_scaling": {
                "rope_type": "yarn", "factor": 8.0, "original_max_position_embeddings": 64,
                "truncate": false,
            } }),
        ),
        ("gpt2", "gpt2", vec![("feed_forward_length", 4, 256u32.to_le_bytes())], none()),
        (
            "bert",
            "bert",
            vec![("pooling_type", 4, 2u32.to_le_bytes()), ("attention.causal", 7, [0; 4])],
            serde_json::json!({ "architectures": ["BertModel"] }),
        ),
    ] {
        println!("{golden}");
        equals_its_gguf(&require_shared!(&format!("golden/{golden}")), architecture, &more, fields);
    }
}

#[test]
fn the_pooling_of_an_encoder_in_gguf_is_kept() {
    let golden = require_shared!("golden/bert");
    let config = json(&golden.join("config.json"));
    let mut stored = tensors(&golden.join("model.safetensors"));
    stored.retain(|(name, ..)| !name.starts_with("cls."));
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.gguf");
    let write = |pooling: u32| {
        let more = [("pooling_type", 4, pooling.to_le_bytes())];
        write_gguf("bert", &config, &more, &stored, &path);
    };
    for (number, name) in [(1, "mean"), (2, "first_token"), (3, "last_token")] {
        write(number);
        let package = convert_from(&path, Some(Precision::F32));
        let settings = json(&package.path.join("postprocessors/embedding.json"));
        assert_eq!((&settings["pooling"], &settings["normalize"]), (&name.into(), &true.into()));
    }
    write(0);
    let package = convert_from(&path, Some(Precision::F32));
    assert!(!package.path.join("postprocessors/embedding.json").exists());
    write(4);
    let source = open(&path, None).unwrap();
    let output = folder.path().join("model.omex");
    let error = convert(&*source, "", "", &output, &ConvertOptions::default(), &mut |_, _| {});
    let error = error.unwrap_err().to_string();
    assert!(error.contains("bert.pooling_type: found 4, expected 0 (none), 1 (mean)"), "{error}");
}

/// Writes a model of F32 or BF16 tensors with other names, and with more of them, of zeros: name, type,
/// shape and bytes.
fn renamed(
    model: &Path,
    name: impl Fn(&str) -> String,
    more: &[(&str, &str, &[usize], usize)],
) -> tempfile::TempDir {
    let folder = with_config(model, "config.json");
    let path = folder.path().join("model.safetensors");
    let (mut header, mut data) = (serde_json::Map::new(), vec![]);
    let mut add = |name: String, dtype: &str, shape: &Value, bytes: &[u8]| {
        let span = [data.len(), data.len() + bytes.len()];
        let entry = serde_json::json!({ "dtype": dtype, "shape": shape, "data_offsets": span });
        header.insert(name, entry);
        data.extend(bytes);
    };
    for (stored, shape, bytes) in tensors(&path) {
        let dtype =
            if bytes.len() as u64 == 2 * shape.iter().product::<u64>() { "BF16" } else { "F32" };
        add(name(&stored), dtype, &shape.into(), &bytes);
    }
    for (name, dtype, shape, bytes) in more {
        add((*name).to_owned(), dtype, &shape.to_vec().into(), &vec![0; *bytes]);
    }
    let header = serde_json::to_vec(&header).unwrap();
    let length = (header.len() as u64).to_le_bytes();
    std::fs::write(&path, [&length[..], &header, &data].concat()).unwrap();
    folder
}

/// Asserts that two folders become the same package.
fn become_one(model: &Path, other: &Path) {
    let [a, b] = [model, other].map(|path| convert_from(path, Some(Precision::Int8)));
    for file in ["graph.json", "weights/layer_0.bin", "weights/quantization.json"] {
        let [a, b] = [&a, &b].map(|package| std::fs::read(package.path.join(file)).unwrap());
        assert!(a == b, "{file} of {}", model.display());
    }
}

#[test]
fn names_without_the_models_own_and_stored_masks_change_nothing() {
    let model = require_shared!("golden/gpt2");
    let bare = |name: &str| name.strip_prefix("transformer.").unwrap_or(name).to_owned();
    let masks: [(&str, &str, &[usize], usize); 2] =
        [("h.0.attn.bias", "F32", &[1, 1, 8, 8], 256), ("h.1.attn.masked_bias", "BOOL", &[1], 1)];
    become_one(&model, renamed(&model, bare, &masks).path());
}

#[test]
fn masks_and_frequencies_that_early_pythias_stored_change_nothing() {
    let model = require_shared!("golden/gpt_neox");
    let more: [(&str, &str, &[usize], usize); 3] = [
        ("gpt_neox.layers.0.attention.bias", "BOOL", &[1, 1, 8, 8], 64),
        ("gpt_neox.layers.0.attention.masked_bias", "F32", &[], 4),
        ("gpt_neox.layers.1.attention.rotary_emb.inv_freq", "F32", &[4], 16),
    ];
    become_one(&model, renamed(&model, str::to_owned, &more).path());
}

#[test]
fn what_guesses_several_tokens_at_once_changes_nothing() {
    for (golden, name) in
        [("deepseek_v3", "model.layers.3.eh_proj.weight"), ("qwen3_next", "mtp.fc.weight")]
    {
        let model = require_shared!(&format!("golden/{golden}"));
        let more: [(&str, &str, &[usize], usize); 1] = [(name, "F32", &[2, 2], 16)];
        become_one(&model, renamed(&model, str::to_owned, &more).path());
    }
}

#[test]
fn the_text_part_of_a_model_that_sees_pictures_is_the_model_by_itself() {
    let new = |name: &str| match name.strip_prefix("model.") {
        Some(bare) => format!("model.language_model.{bare}"),
        None => name.to_owned(),
    };
    let more: [(&str, &str, &[usize], usize); 2] = [
        ("vision_tower.w.weight", "F32", &[2, 2], 16),
        ("model.multi_modal_projector.w", "F32", &[2], 8),
    ];
    for (golden, kind) in
        [("mistral_sw", "Mistral3"), ("gemma3_text", "Gemma3"), ("gemma4_e", "Gemma4")]
    {
        let model = require_shared!(&format!("golden/{golden}"));
        for config in BOTH {
            let old = renamed(&model, |name| format!("language_model.{name}"), &more);
            for folder in [old, renamed(&model, new, &more)] {
                let mut inner = json(&model.join(config));
                inner.as_object_mut().unwrap().remove("architectures");
                let outer = serde_json::json!({
                    "model_type": kind.to_lowercase(), "text_config": inner, "vision_config": {},
                    "architectures": [format!("{kind}ForConditionalGeneration")],
                });
                std::fs::write(folder.path().join("config.json"), outer.to_string()).unwrap();
                become_one(&model, folder.path());
            }
        }
    }
}

#[test]
fn names_from_tensorflow_and_heads_that_nothing_reads_change_nothing() {
    let model = require_shared!("golden/bert");
    let old = |name: &str| {
        let gamma = name.replace("LayerNorm.weight", "LayerNorm.gamma");
        gamma.replace("LayerNorm.bias", "LayerNorm.beta")
    };
    let more: [(&str, &str, &[usize], usize); 2] = [
        ("bert.embeddings.position_ids", "I64", &[1, 128], 1024),
        ("bert.pooler.dense.bias", "F32", &[64], 256),
    ];
    become_one(&model, renamed(&model, old, &more).path());
}

#[test]
fn what_an_architecture_does_not_compute_is_refused_by_name() {
    for (model, field, value) in [
        ("qwen2", "attn_logit_softcapping", 50.0.into()),
        ("gemma2", "attn_logit_softcapping", "50".into()),
        ("qwen3", "hidden_act", "gelu".into()),
        ("gemma3_text", "use_bidirectional_attention", true.into()),
        ("gpt2", "scale_attn_by_inverse_layer_idx", true.into()),
        ("bert", "position_embedding_type", "relative_key".into()),
        ("lfm2", "layer_types", vec!["conv", "mamba", "conv", "conv"].into()),
        ("mistral_sw", "layer_types", vec!["full_attention"].into()),
        ("mistral_sw", "sliding_window", 0.into()),
        ("mixtral", "norm_topk_prob", false.into()),
        ("mixtral", "scoring_func", "sigmoid".into()),
        ("mixtral", "n_shared_experts", 1.into()),
        ("mixtral", "routed_scaling_factor", 2.5.into()),
        ("mixtral", "num_experts_per_tok", 5.into()),
        ("mixtral", "intermediate_size", 126.into()),
        ("olmoe", "clip_qkv", 8.0.into()),
        ("olmoe", "num_local_experts", 9.into()),
        ("qwen3_moe", "mlp_only_layers", 1.into()),
        ("qwen3_moe", "decoder_sparse_step", 0.into()),
        ("qwen3_moe", "n_shared_experts", 1.into()),
        ("mistral_sw", "num_local_experts", 4.into()),
    ] {
        let model = require_shared!(&format!("golden/{model}"));
        let mut config: Value = json(&model.join("config.json"));
        config[field] = value;
        let folder = with_config(&model, "config.json");
        std::fs::write(folder.path().join("config.json"), config.to_string()).unwrap();
        let source = open(folder.path(), None).unwrap();
        let error = blueprint(&*source).unwrap_err().to_string();
        assert!(error.contains(field), "{field}: {error}");
    }
}
