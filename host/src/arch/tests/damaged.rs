//! Files that are damaged or made to do harm: reading them ends in an error, or in a model, and
//! never in a panic.

use super::{Model, open};
use crate::arch::Data;
use crate::import::{Encoding, SourceFormat};
use std::{
    fs,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
};
use tempfile::TempDir;

const WIDTH: u64 = 32;
const VOCABULARY: u64 = 6;

/// Name, GGUF name, and shape of the tensors of a model with one layer and two heads of 16.
const TENSORS: [(&str, &str, &[u64]); 11] = [
    ("model.embed_tokens.weight", "token_embd.weight", &[VOCABULARY, WIDTH]),
    ("model.norm.weight", "output_norm.weight", &[WIDTH]),
    ("model.layers.0.input_layernorm.weight", "blk.0.attn_norm.weight", &[WIDTH]),
    ("model.layers.0.self_attn.q_proj.weight", "blk.0.attn_q.weight", &[WIDTH, WIDTH]),
    ("model.layers.0.self_attn.k_proj.weight", "blk.0.attn_k.weight", &[16, WIDTH]),
    ("model.layers.0.self_attn.v_proj.weight", "blk.0.attn_v.weight", &[16, WIDTH]),
    ("model.layers.0.self_attn.o_proj.weight", "blk.0.attn_output.weight", &[WIDTH, WIDTH]),
    ("model.layers.0.post_attention_layernorm.weight", "blk.0.ffn_norm.weight", &[WIDTH]),
    ("model.layers.0.mlp.gate_proj.weight", "blk.0.ffn_gate.weight", &[WIDTH, WIDTH]),
    ("model.layers.0.mlp.up_proj.weight", "blk.0.ffn_up.weight", &[WIDTH, WIDTH]),
    ("model.layers.0.mlp.down_proj.weight", "blk.0.ffn_down.weight", &[WIDTH, WIDTH]),
];

const CONFIG: &str = r#"{"model_type":"llama","hidden_size":32,"intermediate_size":32,
"num_hidden_layers":1,"num_attention_heads":2,"num_key_value_heads":1,"vocab_size":6,
"max_position_embeddings":8,"tie_word_embeddings":true,"eos_token_id":[2,3]}"#;

fn elements(shape: &[u64]) -> u64 {
    shape.iter().product()
}

fn string(text: &str) -> Vec<u8> {
    [&(text.len() as u64).to_le_bytes(), text.as_bytes()].concat()
}

fn key(name: &str, kind: u32, value: &[u8]) -> Vec<u8> {
    [&string(name), &kind.to_le_bytes()[..], value].concat()
}

fn strings(texts: &[&str]) -> Vec<u8> {
    let count = (texts.len() as u64).to_le_bytes();
    let texts: Vec<u8> = texts.iter().flat_map(|text| string(text)).collect();
    [&8u32.to_le_bytes()[..], &count, &texts].concat()
}

fn metadata() -> Vec<Vec<u8>> {
    let integer = |name: &str, value: u32| key(name, 4, &value.to_le_bytes());
    let tokens = ["<unk>", "<s>", "</s>", "a", "b", "c"];
    let scores = [&6u32.to_le_bytes()[..], &6u64.to_le_bytes(), &[0; 24]].concat();
    vec![
        key("general.architecture", 8, &string("llama")),
        integer("llama.context_length", 8),
        integer("llama.embedding_length", 32),
        integer("llama.block_count", 1),
        integer("llama.feed_forward_length", 32),
        integer("llama.attention.head_count", 2),
        integer("llama.attention.head_count_kv", 1),
        key("llama.attention.layer_norm_rms_epsilon", 6, &1e-5f32.to_le_bytes()),
        key("tokenizer.ggml.model", 8, &string("llama")),
        key("tokenizer.ggml.tokens", 9, &strings(&tokens)),
        key("tokenizer.ggml.scores", 9, &scores),
        key("tokenizer.ggml.merges", 9, &strings(&["a b"])),
        key("tokenizer.ggml.add_bos_token", 7, &[1]),
    ]
}

/// A GGUF file with Q8_0 matrices, and the length of its header.
fn gguf_with(metadata: &[Vec<u8>], extra: Option<(&str, &[u64], u32, u64)>) -> (Vec<u8>, usize) {
    let tensors = TENSORS.len() as u64 + u64::from(extra.is_some());
    let mut file = [b"GGUF", &3u32.to_le_bytes()[..], &tensors.to_le_bytes()].concat();
    file.extend((metadata.len() as u64).to_le_bytes());
    file.extend(metadata.concat());
    let mut offset = 0u64;
    let mut entry = |name: &str, shape: &[u64], kind: u32, bytes: u64| {
        file.extend(string(name));
        file.extend((shape.len() as u32).to_le_bytes());
        shape.iter().rev().for_each(|side| file.extend(side.to_le_bytes()));
        file.extend(kind.to_le_bytes());
        file.extend(offset.to_le_bytes());
        offset = (offset + bytes).next_multiple_of(32);
    };
    for (_, name, shape) in TENSORS {
        let (kind, bytes) =
            if shape.len() == 1 { (0, 4 * WIDTH) } else { (8, elements(shape) / 32 * 34) };
        entry(name, shape, kind, bytes);
    }
    if let Some((name, shape, kind, bytes)) = extra {
        entry(name, shape, kind, bytes);
    }
    let header = file.len();
    file.resize(header.next_multiple_of(32) + offset as usize, 1);
    (file, header)
}

fn gguf() -> (Vec<u8>, usize) {
    gguf_with(&metadata(), None)
}

/// A safetensors file with BF16 tensors.
fn safetensors(names: &[&str]) -> Vec<u8> {
    let (mut header, mut offset) = (String::from("{\"__metadata__\":{\"format\":\"pt\"}"), 0);
    for (name, _, shape) in TENSORS.iter().filter(|tensor| names.contains(&tensor.0)) {
        let end = offset + 2 * elements(shape);
        header += &format!(
            ",\"{name}\":{{\"dtype\":\"BF16\",\"shape\":{shape:?},\"data_offsets\":[{offset},{end}]}}"
        );
        offset = end;
    }
    raw_safetensors(&(header + "}"), offset as usize)
}

fn raw_safetensors(header: &str, data: usize) -> Vec<u8> {
    [&(header.len() as u64).to_le_bytes(), header.as_bytes(), &vec![0; data]].concat()
}

fn all_names() -> Vec<&'static str> {
    TENSORS.iter().map(|tensor| tensor.0).collect()
}

fn llama2c() -> Vec<u8> {
    let header = [32i32, 32, 1, 2, 1, 6, 8];
    let floats: u64 = TENSORS.iter().map(|tensor| elements(tensor.2)).sum::<u64>() + 8 * 16;
    let mut file: Vec<u8> = header.iter().flat_map(|value| value.to_le_bytes()).collect();
    file.resize(file.len() + 4 * floats as usize, 0);
    file
}

/// The same with an output matrix, and every float its own number.
fn untied_llama2c() -> Vec<u8> {
    let mut file = llama2c();
    file[20..24].copy_from_slice(&(-6i32).to_le_bytes());
    file.resize(file.len() + 4 * (VOCABULARY * WIDTH) as usize, 0);
    for (i, float) in file[28..].as_chunks_mut().0.iter_mut().enumerate() {
        *float = (i as f32).to_le_bytes();
    }
    file
}

fn folder(config: &str, weights: &[u8]) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("config.json"), config).unwrap();
    fs::write(folder.path().join("model.safetensors"), weights).unwrap();
    folder
}

/// The error of a folder with this configuration or these weights.
fn folder_error(config: &str, weights: &[u8]) -> String {
    error(folder(config, weights).path(), None)
}

fn error(path: &Path, format: Option<SourceFormat>) -> String {
    match open(path, format) {
        Ok(_) => panic!("{} loads", path.display()),
        Err(error) => error.to_string(),
    }
}

fn gguf_error(file: &[u8]) -> String {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.gguf");
    fs::write(&path, file).unwrap();
    error(&path, Some(SourceFormat::Gguf))
}

/// Reads all rows: what has been opened can be read.
fn read_all(model: &Model) {
    for plan in model.blueprint.tensors() {
        let rows = model.rows(&plan.name);
        assert_eq!(rows.len(), plan.rows as usize, "{}", plan.name);
    }
}

/// Opens `file` cut at every length, which must fail.
fn truncate(file: &[u8], path: &Path, model: &Path, format: SourceFormat) {
    fs::write(path, file).unwrap();
    let open_file = fs::OpenOptions::new().write(true).open(path).unwrap();
    for length in (0..file.len()).rev().filter(|length| *length < 3000 || length % 97 == 0) {
        open_file.set_len(length as u64).unwrap();
        let error = error(model, Some(format));
        assert!(error.contains("found") && error.contains("expected"), "{length}: {error}");
    }
    fs::write(path, file).unwrap();
    read_all(&open(model, Some(format)).unwrap());
}

/// Opens `file` with every byte of its header changed in several ways, and restored; most of it
/// fails.
fn flip(file: &[u8], header: usize, path: &Path, model: &Path, format: SourceFormat) {
    fs::write(path, file).unwrap();
    let open_file = fs::OpenOptions::new().write(true).open(path).unwrap();
    let mut failed = 0;
    for (i, byte) in file[..header].iter().enumerate() {
        for mask in [0x01, 0x80, 0xff, 0] {
            open_file.write_all_at(&[byte ^ mask], i as u64).unwrap();
            match open(model, Some(format)) {
                Ok(model) => read_all(&model),
                Err(error) => {
                    assert!(error.to_string().contains("expected"), "{i}: {error}");
                    failed += 1;
                }
            }
        }
    }
    assert!(failed > header, "{failed} failures only");
}

fn temporary(name: &str) -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(name);
    (folder, path)
}

#[test]
fn gguf_truncated_or_flipped() {
    let (_folder, path) = temporary("model.gguf");
    let (file, header) = gguf();
    truncate(&file, &path, &path, SourceFormat::Gguf);
    flip(&file, header, &path, &path, SourceFormat::Gguf);
}

#[test]
fn safetensors_truncated_or_flipped() {
    let file = safetensors(&all_names());
    let header = 8 + u64::from_le_bytes(*file.first_chunk().unwrap()) as usize;
    let folder = folder(CONFIG, &file);
    let path = folder.path().join("model.safetensors");
    truncate(&file, &path, folder.path(), SourceFormat::HuggingFace);
    flip(&file, header, &path, folder.path(), SourceFormat::HuggingFace);
}

#[test]
fn config_truncated_or_flipped() {
    let folder = folder(CONFIG, &safetensors(&all_names()));
    let path = folder.path().join("config.json");
    truncate(CONFIG.as_bytes(), &path, folder.path(), SourceFormat::HuggingFace);
    flip(CONFIG.as_bytes(), CONFIG.len(), &path, folder.path(), SourceFormat::HuggingFace);
}

#[test]
fn llama2c_truncated_or_flipped() {
    let (_folder, path) = temporary("model.bin");
    let file = llama2c();
    truncate(&file, &path, &path, SourceFormat::Llama2c);
    flip(&file, 28, &path, &path, SourceFormat::Llama2c);
    fs::write(&path, [&file[..], &[0]].concat()).unwrap();
    assert!(error(&path, None).contains("file length"));
}

#[test]
fn llama2c_rows_lie_where_run_c_maps_them() {
    let (_folder, path) = temporary("model.bin");
    fs::write(&path, untied_llama2c()).unwrap();
    let model = open(&path, None).unwrap();
    let first = |name: &str, row: usize| model.rows(name)[row][0] as u64;
    let attention_norm = VOCABULARY * WIDTH;
    let q = attention_norm + WIDTH;
    let up = q + 32 * WIDTH + 16 * WIDTH * 2 + 32 * WIDTH + WIDTH + 2 * 32 * WIDTH;
    let norm = up + 32 * WIDTH;
    let output = norm + WIDTH + 2 * 8 * 8;
    assert_eq!(first("embedding", 5), 5 * WIDTH);
    assert_eq!(first("layers.0.attention_norm", 0), attention_norm);
    // Rows 1 and 9 of the second head are its second pair.
    assert_eq!(first("layers.0.attention.query", 17), q + 18 * WIDTH);
    assert_eq!(first("layers.0.attention.query", 25), q + 19 * WIDTH);
    assert_eq!(first("layers.0.feed_forward.up", 3), up + 3 * WIDTH);
    assert_eq!(first("layers.0.feed_forward.down", 31), up - WIDTH);
    assert_eq!(first("norm", 0), norm);
    assert_eq!(first("output", 5), output + 5 * WIDTH);
}

#[test]
fn formats_are_detected() {
    let (folder, path) = temporary("model");
    fs::write(&path, gguf().0).unwrap();
    assert!(open(&path, None).unwrap().blueprint.eos.is_empty());
    fs::write(&path, llama2c()).unwrap();
    assert_eq!(open(&path, None).unwrap().blueprint.eos, [1, 2]);
    for junk in [&b""[..], b"GGU", &[0xff; 100], &safetensors(&all_names())] {
        fs::write(&path, junk).unwrap();
        assert!(error(&path, None).contains("format"));
    }
    fs::write(&path, [&0x616b_3432u32.to_le_bytes()[..], &[0; 100]].concat()).unwrap();
    assert!(error(&path, None).contains("--version 0"));
    assert!(error(folder.path(), None).contains("config.json"));
    assert!(error(folder.path(), Some(SourceFormat::Gguf)).contains("no GGUF file"));
    for format in [SourceFormat::HuggingFace, SourceFormat::Gguf, SourceFormat::Onnx] {
        assert_eq!(format.to_string().parse(), Ok(format));
    }
    assert!("coreml".parse::<SourceFormat>().unwrap_err().to_string().contains("llama2c"));
}

#[test]
fn wrong_rows_and_buffers_are_errors() {
    let folder = folder(CONFIG, &safetensors(&all_names()));
    let Model { container: model, blueprint } = open(folder.path(), None).unwrap();
    let (name, mut bytes) = ("model.embed_tokens.weight", Vec::new());
    assert!(model.read_row(name, 0, &mut [0.0; 31]).is_err());
    assert!(model.read_row(name, 6, &mut [0.0; 32]).is_err());
    assert!(model.read_row("lm_head.weight", 0, &mut [0.0; 32]).is_err());
    assert!(model.read_row_bytes(name, u32::MAX, &mut bytes).is_err());
    assert_eq!(model.tensor(name).unwrap().encoding, Encoding::Bf16);
    assert_eq!(blueprint.eos, [2, 3]);
}

#[test]
fn files_that_shrink_while_open_are_errors() {
    let folder = folder(CONFIG, &safetensors(&all_names()));
    let Model { container: model, .. } = open(folder.path(), None).unwrap();
    let path = folder.path().join("model.safetensors");
    fs::OpenOptions::new().write(true).open(path).unwrap().set_len(1000).unwrap();
    let name = "model.layers.0.mlp.down_proj.weight";
    let error = model.read_row(name, 3, &mut [0.0; 32]).unwrap_err().to_string();
    assert!(error.contains(name) && error.contains("end of the file"), "{error}");
}

#[test]
fn gguf_lengths_that_lie_are_errors() {
    let huge = u64::MAX.to_le_bytes();
    for position in [8, 16, 24] {
        let (mut file, _) = gguf();
        file[position..position + 8].copy_from_slice(&huge);
        assert!(gguf_error(&file).contains("the rest of the file"));
    }
    for count in [u64::MAX, u64::MAX / 4 + 1, 1 << 40] {
        for element in [0u32, 4, 8, 12] {
            let array = [&element.to_le_bytes()[..], &count.to_le_bytes()].concat();
            let (file, _) = gguf_with(&[metadata(), vec![key("a", 9, &array)]].concat(), None);
            assert!(gguf_error(&file).contains("the rest of the file"));
        }
    }
}

#[test]
fn gguf_metadata_that_is_not_supported_is_refused() {
    let integer = |name: &str, value: u32| key(name, 4, &value.to_le_bytes());
    let nested = [&9u32.to_le_bytes()[..], &1u64.to_le_bytes()].concat();
    for (extra, expected) in [
        (key("a", 9, &nested), "array of arrays"),
        (key("a", 13, &[]), "type 13"),
        (key("a", 7, &[2]), "0 or 1"),
        (integer("llama.block_count", 1), "second time"),
        (integer("general.alignment", 0), "power of two"),
        (integer("general.alignment", 24), "power of two"),
        (integer("split.count", 3), "-of-00003"),
        (integer("llama.expert_count", 8), "blk.0.ffn_gate_inp.weight"),
        (integer("llama.expert_count", 513), "llama.expert_count"),
        (integer("llama.rope.dimension_count", 8), "16"),
        (integer("llama.attention.key_length", 15), "even"),
        (integer("llama.vocab_size", 7), "token_embd"),
        (integer("tokenizer.ggml.eos_token_id", 6), "vocabulary"),
        (key("llama.rope.scaling.type", 8, &string("yarn")), "yarn"),
        (key("llama.rope.freq_base", 6, &0f32.to_le_bytes()), "RoPE"),
        (key("tokenizer.ggml.token_type", 9, &strings(&["a"])), "I32"),
    ] {
        let (file, _) = gguf_with(&[metadata(), vec![extra]].concat(), None);
        let error = gguf_error(&file);
        assert!(error.contains(expected), "{expected}: {error}");
    }
    let mut other = metadata();
    other[0] = key("general.architecture", 8, &string("qwen2"));
    assert!(gguf_error(&gguf_with(&other, None).0).contains("qwen2"));
    for (version, expected) in [(1u32, "found 1"), (3 << 24, "big-endian"), (9, "found 9")] {
        let (mut file, _) = gguf();
        file[4..8].copy_from_slice(&version.to_le_bytes());
        assert!(gguf_error(&file).contains(expected));
    }
}

#[test]
fn gguf_tensors_that_are_not_supported_are_refused() {
    let error = |extra| gguf_error(&gguf_with(&metadata(), Some(extra)).0);
    assert!(error(("blk.0.ffn_norm.bias", &[32], 0, 128)).contains("ffn_norm.bias"));
    assert!(error(("output.weight", &[6, 32], 16, 999)).contains("IQ2_XXS (type 16)"));
    assert!(error(("output.weight", &[6, 33], 8, 999)).contains("whole blocks"));
    assert!(error(("output.weight", &[6, 31], 0, 999)).contains("shape [6, 32]"));
    assert!(error(("output.weight", &[2, 6, 32], 0, 1536)).contains("shape [12, 32]"));
    assert!(error(("output.weight", &[1, 1, 1, 6, 32], 0, 999)).contains("dimensions"));
    assert!(error(("output.weight", &[1 << 62, 32], 0, 999)).contains("dimensions"));
    assert!(error(("output.weight", &[1 << 31, 1 << 31], 0, 999)).contains("file's"));
    assert!(error(("output.weight", &[0, 32], 0, 0)).contains("positive"));
    assert!(error(("blk.1.attn_norm.weight", &[32], 0, 128)).contains("blk.1.attn_norm.weight"));
    assert!(error(("output_norm.weight", &[32], 0, 128)).contains("second time"));
    assert!(error(("rope_freqs.weight", &[7], 0, 28)).contains("RoPE"));
}

#[test]
fn gguf_rope_factors_divide_the_frequencies() {
    let mut scaled = metadata();
    scaled.push(key("llama.rope.scaling.factor", 6, &2f32.to_le_bytes()));
    let (mut file, _) = gguf_with(&scaled, Some(("rope_freqs.weight", &[8], 0, 32)));
    let end = file.len();
    file[end - 32..].copy_from_slice(&[4f32.to_le_bytes(); 8].concat());
    let (_folder, path) = temporary("model.gguf");
    fs::write(&path, &file).unwrap();
    let model = open(&path, None).unwrap();
    let plan = model.blueprint.tensors().find(|plan| plan.name == "rotary.frequencies").unwrap();
    let Data::Computed(frequencies) = &plan.data else { panic!("{plan:?}") };
    assert_eq!((frequencies.len(), frequencies[0]), (8, 0.125));
}

#[test]
fn gguf_tensors_must_not_overlap() {
    let (mut file, header) = gguf();
    // The last entry's offset ends the header: one byte short of a block, then on the first tensor.
    file[header - 8..header].copy_from_slice(&32u64.to_le_bytes());
    assert!(gguf_error(&file).contains("behind"));
    file[header - 8..header].copy_from_slice(&u64::MAX.to_le_bytes());
    assert!(gguf_error(&file).contains("offset"));
}

#[test]
fn configurations_that_are_not_supported_are_refused() {
    let weights = safetensors(&all_names());
    for (field, expected) in [
        (r#""attention_bias":true"#, "q_proj.bias"),
        (r#""mlp_bias":true"#, "gate_proj.bias"),
        (r#""hidden_act":"gelu""#, "gelu"),
        (r#""attn_logit_softcapping":50.0"#, "attn_logit_softcapping"),
        (r#""final_logit_softcapping":30"#, "final_logit_softcapping"),
        (r#""num_local_experts":4"#, "num_local_experts"),
        (r#""embedding_multiplier":12.0"#, "embedding_multiplier"),
        (r#""sliding_window":4"#, "sliding_window"),
        (r#""quantization_config":{"bits":4}"#, "quantization_config"),
        (r#""layer_types":["sliding_attention"]"#, "layer_types"),
        (r#""architectures":["LlamaForSequenceClassification"]"#, "architectures"),
        (r#""partial_rotary_factor":0.5"#, "partial_rotary_factor"),
        (r#""rope_scaling":{"type":"ntk","factor":2}"#, "ntk"),
        (r#""rope_scaling":{"type":"yarn"}"#, "rope_scaling.factor"),
        (
            r#""rope_scaling":{"type":"yarn","factor":2,"attention_factor":1e200}"#,
            "attention_factor",
        ),
        (r#""rope_scaling":{"type":"linear"}"#, "rope_scaling.factor"),
        (r#""rope_scaling":{"type":"linear","factor":0}"#, "RoPE"),
        (r#""rope_scaling":[]"#, "an object"),
        (r#""rope_scaling":{},"rope_parameters":{}"#, "beside"),
        (r#""rope_parameters":{"full_attention":{},"rope_type":{}}"#, "rope_type"),
        (r#""bos_token_id":-1"#, "bos_token_id"),
        (r#""eos_token_id":[2,"x"]"#, "eos_token_id"),
        (r#""head_dim":15"#, "head_dim"),
        (r#""rms_norm_eps":1e999"#, "JSON"),
        (r#""num_hidden_layers":4294967296"#, "num_hidden_layers"),
        (r#""model_type":"mamba""#, "mamba"),
    ] {
        let config = format!("{},{field}}}", CONFIG.trim_end_matches('}'));
        let error = folder_error(&config, &weights);
        assert!(error.contains(expected), "{expected}: {error}");
    }
    let config = format!(
        "{},\"attention_bias\":false,\"partial_rotary_factor\":1,\"num_local_experts\":0}}",
        CONFIG.trim_end_matches('}')
    );
    open(folder(&config, &weights).path(), None).unwrap();
}

#[test]
fn safetensors_headers_that_lie_are_errors() {
    let entry = |dtype: &str, shape: &str, offsets: &str| {
        format!(
            r#""model.norm.weight":{{"dtype":"{dtype}","shape":{shape},"data_offsets":{offsets}}}"#
        )
    };
    let good = entry("F32", "[32]", "[0,128]");
    for (entries, expected) in [
        (entry("I64", "[16]", "[0,128]"), "I64"),
        (entry("F9", "[16]", "[0,128]"), "F9"),
        (entry("F32", "[33]", "[0,128]"), "end within"),
        (entry("F32", "[31]", "[0,128]"), "as its shape says"),
        (entry("F32", "[18446744073709551615,2]", "[0,128]"), "dimensions"),
        (entry("F32", "[4294967295,4294967295]", "[0,128]"), "end within"),
        (entry("F32", "[0]", "[0,0]"), "dimensions"),
        (entry("F32", "[32]", "[18446744073709551615,128]"), "data_offsets"),
        (entry("F32", "[31]", "[4,128]"), "no holes"),
        (entry("F32", "[31]", "[0,124]"), "file length"),
        (format!("{good},{good}"), "second time"),
        (format!("{good},{}", good.replace("norm", "n")), "no overlaps"),
        (r#""a":[]"#.to_owned(), "JSON"),
    ] {
        let error = folder_error(CONFIG, &raw_safetensors(&format!("{{{entries}}}"), 128));
        assert!(error.contains(expected), "{expected}: {error}");
    }
    let mut huge = raw_safetensors("{}", 0);
    huge[..8].copy_from_slice(&u64::MAX.to_le_bytes());
    assert!(folder_error(CONFIG, &huge).contains("header length"));
}

/// A folder with two shards and, if given, an index.
fn sharded(weight_map: Option<&str>) -> TempDir {
    let names = all_names();
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, bytes: &[u8]| fs::write(folder.path().join(name), bytes).unwrap();
    write("config.json", CONFIG.as_bytes());
    write("a.safetensors", &safetensors(&names[..4]));
    write("b.safetensors", &safetensors(&names[4..]));
    if let Some(map) = weight_map {
        write("model.safetensors.index.json", format!("{{\"weight_map\":{map}}}").as_bytes());
    }
    folder
}

#[test]
fn shards_are_found_with_and_without_an_index() {
    let names = all_names();
    let map = |swap: usize| {
        let shard = |i: usize| if (i < 4) != (i == swap) { "a" } else { "b" };
        let entry = |(i, name): (usize, &&str)| format!("\"{name}\":\"{}.safetensors\"", shard(i));
        format!("{{{}}}", names.iter().enumerate().map(entry).collect::<Vec<_>>().join(","))
    };
    read_all(&open(sharded(None).path(), None).unwrap());
    read_all(&open(sharded(Some(&map(99))).path(), None).unwrap());
    let error = |map: &str| error(sharded(Some(map)).path(), None);
    assert!(error(&map(2)).contains("index.json says"));
    assert!(error(&map(99).replace("a.safetensors", "c.safetensors")).contains("c.safetensors"));
    assert!(error("{}").contains("at least one"));
    assert!(error("[]").contains("a map"));
    for outside in ["../a.safetensors", "/a.safetensors", "x/a.safetensors", "..", "config.json"] {
        assert!(
            error(&format!("{{\"model.norm.weight\":\"{outside}\"}}")).contains("in the folder")
        );
    }
    let both = sharded(None);
    fs::copy(both.path().join("a.safetensors"), both.path().join("c.safetensors")).unwrap();
    assert!(self::error(both.path(), None).contains("second time"));
}

#[test]
fn missing_and_unknown_tensors_are_named() {
    let names = all_names();
    for missing in &names {
        let others: Vec<&str> = names.iter().copied().filter(|name| name != missing).collect();
        let error = folder_error(CONFIG, &safetensors(&others));
        assert!(error.contains(missing) && error.contains("no tensor"), "{error}");
    }
    let untied = CONFIG.replace("\"tie_word_embeddings\":true", "\"tie_word_embeddings\":false");
    assert!(folder_error(&untied, &safetensors(&names)).contains("lm_head.weight"));
    let layers = CONFIG.replace("\"num_key_value_heads\":1", "\"num_key_value_heads\":2");
    assert!(folder_error(&layers, &safetensors(&names)).contains("shape [16, 32]"));
    let header = r#"{"model.layers.0.self_attn.q_proj.bias":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}"#;
    let folder = sharded(None);
    fs::write(folder.path().join("c.safetensors"), raw_safetensors(header, 4)).unwrap();
    let error = error(folder.path(), None);
    assert!(error.contains("q_proj.bias") && error.contains("biases"), "{error}");
}
