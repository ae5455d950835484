//! The seeds, made from a model of one or two small blocks with random weights.
//!
//! `OMEX_UPDATE_SEEDS=1 cargo test -p omex-fuzz seeds` writes them to
//! `seeds/`.

use crate::models::ONNX_DATA;
use half::f16;
use omex::cancel::Cancel;
use omex::convert::{ConvertOptions, convert};
use omex::import::{SourceFormat, open};
use omex::pack::{Target, pack};
use omex::package::Package;
use omex::plan::Kv;
use omex::quantize::Precision;
use omex::tokenizer::{GgufVocabulary, Spec, compile};
use omex_tests::onnx::{Onnx, attribute, external, piece, scopes, tensor};
use omex_tests::{Checkpointed, checkpoint, older_checkpoint, pickle, state_dict};
use std::fs;
use std::path::Path;
use tempfile::TempDir;

/// The names and contents of a target's seeds.
pub fn all(target: &str) -> Vec<(&'static str, Vec<u8>)> {
    match target {
        "image" => images(),
        "tokenizer" => {
            let sized = |text: &str, section: Vec<u8>| sized(text.as_bytes(), &section);
            vec![
                ("characters", sized(TEXT, compile(&characters()).unwrap())),
                ("bytes", sized(TEXT, compile(&bytes()).unwrap())),
                ("word_piece", sized(TEXT, compile(&word_piece("null")).unwrap())),
                ("unigram", sized(TEXT, compile(&unigram("null")).unwrap())),
            ]
        }
        "package" => {
            let folder = package_folder();
            let read = |name| fs::read(folder.path().join(name)).unwrap();
            let parts =
                ["metadata.json", "graph.json", "weights/quantization.json"].map(read).join(&0);
            vec![("llama", parts)]
        }
        "gguf" => vec![
            ("f16", gguf(&SMALL, F16)),
            ("q8_0", gguf(&WIDE, Q8_0)),
            ("q4_0", gguf(&WIDE, Q4_0)),
        ],
        "hugging_face" => {
            let folder = |settings: &str, tensors: &[StoredTensor]| {
                let config = config(&SMALL);
                let config = format!("{}{settings}}}", config.strip_suffix('}').unwrap());
                [config.into_bytes(), vec![0], safetensors(tensors)].concat()
            };
            let gptq = r#","quantization_config":{"quant_method":"gptq","bits":4,"group_size":8}"#;
            let fp8 = r#","quantization_config":{"quant_method":"fp8","weight_block_size":[8,8]}"#;
            vec![
                ("bf16", folder("", &halves(&SMALL))),
                ("gptq", folder(gptq, &quantized(&SMALL, true))),
                ("fp8", folder(fp8, &quantized(&SMALL, false))),
            ]
        }
        "pytorch" => {
            let (tensors, arguments) = (checkpointed(&SMALL), model_args(&SMALL));
            let weights = state_dict(&tensors);
            let with_config = |file: Vec<u8>| [config(&SMALL).into_bytes(), vec![0], file].concat();
            let own =
                pickle::dict(&[("model", state_dict(&arguments.1)), ("model_args", arguments.0)]);
            vec![
                ("archive", with_config(checkpoint(&weights, &tensors))),
                ("pickles", with_config(older_checkpoint(&weights, &tensors))),
                ("arguments", [vec![0], checkpoint(&own, &arguments.1)].concat()),
            ]
        }
        "onnx" => {
            let with_config = |file: Vec<u8>| [config(&SMALL).into_bytes(), vec![0], file].concat();
            vec![
                ("named", with_config(onnx(&SMALL, Exporter::Names))),
                ("paths", with_config(onnx(&SMALL, Exporter::Paths))),
                ("integers", with_config(onnx(&SMALL, Exporter::Integers))),
                ("blocks", with_config(onnx(&SMALL, Exporter::Blocks))),
            ]
        }
        "tflite" => TFLITE.iter().map(|(name, file)| (*name, file.to_vec())).collect(),
        "onnx_graph" => vec![
            ("image", onnx_image()),
            ("integers", onnx_integers()),
            ("steps", onnx_steps()),
        ],
        "llama2c" => vec![
            ("bare", sized(&[], &llama2c(&SMALL))),
            ("tokenizer", sized(&tokenizer_bin(), &llama2c(&NARROW))),
        ],
        "tokenizer_json" => vec![
            ("unigram", json(&unigram(CHARSMAP))),
            ("characters", json(&characters())),
            ("bytes", json(&bytes())),
            ("word_piece", json(&word_piece(r#"{"type":"BertNormalizer","lowercase":true}"#))),
        ],
        "tokenizer_model" => vec![
            ("unigram", sentencepiece(1)),
            ("bpe", sentencepiece(2)),
            ("ranks", b"IQ== 0\nIg== 1\nISI= 2\n".to_vec()),
        ],
        "chat_template" => [
            "{{ bos_token }}{% for m in messages %}{{ '[' + m['role'] | upper + ']' + m['content'] | trim }}\
             {% endfor %}{% if add_generation_prompt %}[ASSISTANT]{% endif %}",
            "{%- set ns = namespace(n=0) -%}{% macro f(x) %}<{{ x.content[:3] | tojson(indent=2) }}>\
             {% endmacro %}{% for m in messages if loop.index0 is divisibleby(2) %}{% set ns.n = ns.n + 1 %}\
             {{ f(m) }}{% else %}{{ raise_exception('none') }}{% endfor %}{{ strftime_now('%d %b %Y') }}{{ ns.n }}",
        ]
        .iter()
        .zip(["simple", "dialect"])
        .map(|(template, name)| {
            let messages = r#"[{"role":"user","content":" Hi. "},{"role":"assistant","content":"Yes?"}]"#;
            (name, [template.as_bytes(), b"\0", messages.as_bytes()].concat())
        })
        .collect(),
        "answer" => [
            ("thought", "<think>", "So.</think>Yes."),
            ("json", "", "Now: <tool_call>{\"name\": \"f\", \"arguments\": {\"x\": [1, 2]}}</tool_call>"),
            ("tags", "", "<tool_call><function=f><parameter=x>1</parameter></function></tool_call>"),
            ("python", "", "<|tool_call_start|>[f(x=1, y='a\\n', z=[True, None])]<|tool_call_end|>"),
            (
                "harmony",
                "<|start|>assistant",
                "<|channel|>analysis<|message|>So.<|end|><|start|>assistant to=functions.f<|channel|>commentary json\
                 <|message|>{\"x\": 1}<|call|>",
            ),
        ]
        .map(|(name, prompt, answer)| (name, [prompt, answer].join("\0").into_bytes()))
        .to_vec(),
        "program" => {
            let choices = |seed: u8| (0..64u8).map(|i| i.wrapping_mul(seed) ^ seed).collect();
            vec![("one", choices(1)), ("three", choices(3)), ("last", choices(255))]
        }
        _ => vec![],
    }
}

/// A SentencePiece model of this type.
fn sentencepiece(kind: u8) -> Vec<u8> {
    let field = |number: u8, bytes: &[u8]| [&[number << 3 | 2, bytes.len() as u8], bytes].concat();
    let piece = |(text, score, kind): (&str, f32, u8)| {
        let score = [&[2 << 3 | 5][..], &score.to_le_bytes()].concat();
        field(1, &[field(1, text.as_bytes()), score, vec![3 << 3, kind]].concat())
    };
    let pieces = [
        ("<unk>", 0.0, 2),
        ("<s>", 0.0, 3),
        ("\u{2581}", -2.5, 1),
        ("\u{2581}he", -3.0, 1),
        ("h", -6.0, 1),
        ("e", -6.5, 1),
        ("he", -3.5, 1),
        ("l", -5.0, 1),
        ("o", -5.5, 1),
        ("<end>", 0.0, 4),
    ];
    let trainer = field(2, &[3 << 3, kind]);
    let normalizer = field(3, &[field(1, b"identity"), vec![3 << 3, 1, 4 << 3, 1]].concat());
    [pieces.map(piece).concat(), trainer, normalizer].concat()
}

const TEXT: &str = "hello  wörld's 12\n\n<s>日🙂 ab";

/// The shape of a model; its head width is 8, with one head for keys and values.
struct SeedShape {
    hidden: u32,
    wide: u32,
    layers: u32,
    heads: u32,
    vocabulary: u32,
}

const SMALL: SeedShape = SeedShape { hidden: 16, wide: 24, layers: 1, heads: 2, vocabulary: 12 };
/// With a vocabulary that has all bytes.
const NARROW: SeedShape = SeedShape { hidden: 8, wide: 8, layers: 1, heads: 1, vocabulary: 262 };
/// Whole blocks of ggml's formats.
const WIDE: SeedShape = SeedShape { hidden: 32, wide: 32, layers: 1, heads: 4, vocabulary: 12 };
const HEAD: u32 = 8;
const CONTEXT: u32 = 8;

/// Hugging Face's name, GGUF's name, rows and columns; 0 rows for a vector.
type TensorShape = (String, String, u32, u32);

impl SeedShape {
    fn tensors(&self) -> Vec<TensorShape> {
        let (hidden, wide) = (self.hidden, self.wide);
        let tensor = |hf: &str, gguf: &str, rows, columns| -> TensorShape {
            (format!("model.{hf}.weight"), format!("{gguf}.weight"), rows, columns)
        };
        let mut tensors = vec![tensor("embed_tokens", "token_embd", self.vocabulary, hidden)];
        for (hf, gguf, rows, columns) in [
            ("input_layernorm", "attn_norm", 0, hidden),
            ("self_attn.q_proj", "attn_q", self.heads * HEAD, hidden),
            ("self_attn.k_proj", "attn_k", HEAD, hidden),
            ("self_attn.v_proj", "attn_v", HEAD, hidden),
            ("self_attn.o_proj", "attn_output", hidden, self.heads * HEAD),
            ("post_attention_layernorm", "ffn_norm", 0, hidden),
            ("mlp.gate_proj", "ffn_gate", wide, hidden),
            ("mlp.down_proj", "ffn_down", hidden, wide),
            ("mlp.up_proj", "ffn_up", wide, hidden),
        ] {
            for layer in 0..self.layers {
                let (hf, gguf) = (format!("layers.{layer}.{hf}"), format!("blk.{layer}.{gguf}"));
                tensors.push(tensor(&hf, &gguf, rows, columns));
            }
        }
        tensors.push(tensor("norm", "output_norm", 0, hidden));
        tensors
    }
}

/// Numbers in [-1, 1), the same every time.
fn numbers(count: u32) -> impl Iterator<Item = f32> {
    let mut state = 1u32;
    (0..count).map(move |_| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 8) as f32 / (1 << 23) as f32 - 1.0
    })
}

fn sized(piece: &[u8], rest: &[u8]) -> Vec<u8> {
    [&(piece.len() as u16).to_le_bytes(), piece, rest].concat()
}

fn llama2c(shape: &SeedShape) -> Vec<u8> {
    let SeedShape { hidden, wide, layers, heads, vocabulary } = shape;
    let mut file = vec![];
    for number in [*hidden, *wide, *layers, *heads, 1, *vocabulary, CONTEXT] {
        file.extend(number.to_le_bytes());
    }
    let count = shape.tensors().iter().map(|(_, _, rows, columns)| rows.max(&1) * columns).sum();
    file.extend(numbers(count).flat_map(f32::to_le_bytes));
    file.resize(file.len() + (4 * CONTEXT * HEAD) as usize, 0);
    file
}

/// How matrices of an ONNX file are stored.
#[derive(Clone, Copy, PartialEq)]
enum Exporter {
    /// By their names, some in another file.
    Names,
    /// By the paths of nodes, turned.
    Paths,
    /// As integers with a scale.
    Integers,
    /// As blocks of 4 bits.
    Blocks,
}

/// Graphs that the tests of operators have.
const TFLITE: [(&str, &[u8]); 9] = [
    ("add_repeated", include_bytes!("../../tflite/add_repeated.tflite")),
    ("conv_dilated", include_bytes!("../../tflite/conv_dilated.tflite")),
    ("logistic", include_bytes!("../../tflite/logistic.tflite")),
    ("mean", include_bytes!("../../tflite/mean.tflite")),
    ("pad", include_bytes!("../../tflite/pad.tflite")),
    ("resize", include_bytes!("../../tflite/resize_bilinear.tflite")),
    ("strided_slice", include_bytes!("../../tflite/strided_slice.tflite")),
    ("transposed", include_bytes!("../../tflite/transposed.tflite")),
    ("variable", include_bytes!("../../tflite/variable.tflite")),
];

/// The type of floats, of whole numbers and of signed bytes in ONNX.
const ONNX_TYPES: [i64; 3] = [1, 7, 3];

fn onnx_floats(name: &str, sides: &[u32]) -> Vec<u8> {
    let count = sides.iter().product();
    let bytes: Vec<u8> = numbers(count).flat_map(f32::to_le_bytes).collect();
    tensor(name, sides, ONNX_TYPES[0], &piece(9, bytes))
}

fn onnx_whole(name: &str, whole: &[i64]) -> Vec<u8> {
    let bytes: Vec<u8> = whole.iter().flat_map(|n| n.to_le_bytes()).collect();
    tensor(name, &[whole.len() as u32], ONNX_TYPES[1], &piece(9, bytes))
}

/// A graph over an image: convolved, padded, pooled, resized, reshaped.
fn onnx_image() -> Vec<u8> {
    let mut graph = Onnx::default();
    graph.input("x", &[1, 2, 6, 5]);
    graph.constant(onnx_floats("w", &[3, 2, 3, 2]));
    graph.constant(onnx_whole("pads", &[0, 0, 1, 0, 0, 0, 0, 2]));
    graph.constant(onnx_whole("sizes", &[1, 3, 7, 4]));
    graph.constant(onnx_whole("shape", &[3, -1]));
    let window = [attribute("strides", &[2, 1]), attribute("pads", &[1, 0, 1, 1])].concat();
    graph.node("Conv", "", &["x", "w"], "a", &window);
    graph.node("Pad", "", &["a", "pads"], "b", &[]);
    graph.node("MaxPool", "", &["b"], "c", &attribute("kernel_shape", &[2, 2]));
    graph.node("Resize", "", &["c", "", "", "sizes"], "d", &[]);
    graph.node("Relu", "", &["d"], "e", &[]);
    graph.node("Reshape", "", &["e", "shape"], "f", &[]);
    graph.node("Transpose", "", &["f"], "g", &attribute("perm", &[1, 0]));
    graph.node("Softmax", "", &["g"], "y", &[]);
    graph.output("y");
    graph.file()
}

/// A graph whose matrix and activations are quantized.
fn onnx_integers() -> Vec<u8> {
    let mut graph = Onnx::default();
    graph.input("x", &[2, 4]);
    let bytes: Vec<u8> = (0..12).map(|n| (n * 21) as u8).collect();
    graph.constant(tensor("w8", &[4, 3], ONNX_TYPES[2], &piece(9, bytes)));
    graph.constant(tensor("s", &[], ONNX_TYPES[0], &piece(9, 0.05f32.to_le_bytes())));
    graph.constant(tensor("z", &[], ONNX_TYPES[2], &piece(9, [5])));
    graph.node("QuantizeLinear", "", &["x", "s", "z"], "x8", &[]);
    graph.node("DequantizeLinear", "", &["x8", "s", "z"], "xf", &[]);
    graph.node("DequantizeLinear", "", &["w8", "s", "z"], "wf", &[]);
    graph.node("MatMul", "", &["xf", "wf"], "a", &[]);
    graph.node("QuantizeLinear", "", &["a", "s", "z"], "b", &[]);
    graph.node("DequantizeLinear", "", &["b", "s", "z"], "y", &[]);
    graph.output("y");
    graph.file()
}

/// A graph over a sequence.
fn onnx_steps() -> Vec<u8> {
    let mut graph = Onnx::default();
    graph.input("x", &[3, 1, 2]);
    graph.constant(onnx_floats("w", &[1, 8, 2]));
    graph.constant(onnx_floats("r", &[1, 8, 2]));
    graph.constant(onnx_whole("axes", &[1]));
    graph.node("LSTM", "", &["x", "w", "r"], "a", &attribute("hidden_size", &[2]));
    graph.node("Squeeze", "", &["a", "axes"], "b", &[]);
    graph.node("Shape", "", &["b"], "shape", &[]);
    graph.node("Add", "", &["b", "b"], "c", &[]);
    graph.node("Expand", "", &["c", "shape"], "y", &[]);
    graph.output("y");
    graph.file()
}

fn onnx(shape: &SeedShape, exporter: Exporter) -> Vec<u8> {
    const F32: i64 = 1;
    const U8: i64 = 2;
    const I8: i64 = 3;
    let mut graph = Onnx::default();
    graph.output("logits");
    let floats = |count: u32| numbers(count).flat_map(f32::to_le_bytes).collect::<Vec<u8>>();
    let bytes = |count: u32| (0..count).map(|n| (n * 7) as u8).collect::<Vec<u8>>();
    for (number, (name, _, rows, columns)) in shape.tensors().into_iter().enumerate() {
        let path = name.trim_end_matches(".weight");
        let node = format!("/{}/MatMul", path.replace('.', "/"));
        let (count, made_up, y) = (rows * columns, format!("val_{number}"), format!("y_{number}"));
        let is_matrix = rows > 0 && !name.contains("embed");
        match exporter {
            Exporter::Paths if is_matrix => {
                let place = piece(4, floats(count));
                graph.constant(tensor(&made_up, &[columns, rows], F32, &place));
                graph.node("MatMul", "", &["x", &made_up], &y, &scopes(path));
            }
            Exporter::Integers if is_matrix => {
                let integers = format!("{made_up}_quantized");
                graph.constant(tensor(&integers, &[columns, rows], I8, &piece(9, bytes(count))));
                let scale = format!("{made_up}_scale");
                graph.constant(tensor(&scale, &[rows], F32, &piece(9, floats(rows))));
                let zero = format!("{made_up}_zero_point");
                graph.constant(tensor(&zero, &[rows], I8, &piece(5, bytes(rows))));
                let inputs = [integers.as_str(), &scale, &zero];
                graph.node("DequantizeLinear", "", &inputs, &made_up, &attribute("axis", &[1]));
                graph.node("MatMul", &node, &["x", &made_up], &y, &[]);
            }
            Exporter::Blocks if is_matrix => {
                let blocks = columns.div_ceil(16);
                let integers = format!("{made_up}_Q4");
                let place = piece(9, bytes(rows * blocks * 8));
                graph.constant(tensor(&integers, &[rows, blocks, 8], U8, &place));
                let scales = format!("{made_up}_scales");
                let place = piece(9, floats(rows * blocks));
                graph.constant(tensor(&scales, &[rows * blocks], F32, &place));
                let sizes = [("N", rows), ("K", columns), ("bits", 4), ("block_size", 16)];
                let sizes = sizes.map(|(name, size)| attribute(name, &[size.into()])).concat();
                graph.node("MatMulNBits", &node, &["x", &integers, &scales], &y, &sizes);
            }
            _ => {
                let length = 4 * u64::from(rows.max(1) * columns);
                let place = match number % 3 {
                    0 => external(ONNX_DATA, 64 * number as u64, length),
                    _ => piece(9, floats(rows.max(1) * columns)),
                };
                let sides = if rows == 0 { vec![columns] } else { vec![rows, columns] };
                graph.constant(tensor(&name, &sides, F32, &place));
                let turned = format!("t_{number}");
                if is_matrix {
                    graph.node("Transpose", "", &[&name], &turned, &attribute("perm", &[1, 0]));
                    graph.node("MatMul", &node, &["x", &turned], &y, &[]);
                }
            }
        }
    }
    graph.file()
}

fn config(shape: &SeedShape) -> String {
    let SeedShape { hidden, wide, layers, heads, vocabulary } = shape;
    format!(
        r#"{{"model_type":"llama","hidden_size":{hidden},"intermediate_size":{wide},
"num_hidden_layers":{layers},"num_attention_heads":{heads},"num_key_value_heads":1,
"vocab_size":{vocabulary},"max_position_embeddings":{CONTEXT},"rms_norm_eps":1e-5,
"rope_theta":10000.0,"tie_word_embeddings":true,"bos_token_id":1,"eos_token_id":[2]}}"#
    )
}

/// A stored tensor: name, type, sides, bytes.
type StoredTensor = (String, &'static str, Vec<u32>, Vec<u8>);

/// With BF16 tensors: the upper halves of floats.
fn halves(shape: &SeedShape) -> Vec<StoredTensor> {
    let tensor = |(name, _, rows, columns): TensorShape| {
        let halves = numbers(rows.max(1) * columns).flat_map(|x| (x.to_bits() >> 16).to_le_bytes());
        let bytes: Vec<u8> = halves.collect();
        let bytes = bytes.chunks(4).flat_map(|word| word[..2].to_vec()).collect();
        (name, "BF16", if rows == 0 { vec![columns] } else { vec![rows, columns] }, bytes)
    };
    shape.tensors().into_iter().map(tensor).collect()
}

/// The same with queries packed by GPTQ, in groups of 8, and keys in floats of 8 bits with scales.
fn quantized(shape: &SeedShape, gptq: bool) -> Vec<StoredTensor> {
    let mut all = halves(shape);
    let part = if gptq { "q_proj" } else { "k_proj" };
    let at = all.iter().position(|(name, ..)| name.contains(part)).unwrap();
    let (name, _, sides, _) = all.remove(at);
    let (rows, columns) = (sides[0], sides[1]);
    let bytes = |count: u32| (0..count).map(|n| (n * 7 % 120) as u8).collect::<Vec<_>>();
    if !gptq {
        all.push((format!("{name}_scale_inv"), "F32", vec![1, 2], bytes(8)));
        all.push((name, "F8_E4M3", sides, bytes(rows * columns)));
        return all;
    }
    let stem = name.strip_suffix(".weight").unwrap();
    let groups = (0..columns).flat_map(|column| (column / 8).to_le_bytes()).collect();
    let scales = numbers(rows * columns / 8).flat_map(|x| f16::from_f32(x).to_le_bytes());
    all.extend([
        (format!("{stem}.qweight"), "I32", vec![columns / 8, rows], bytes(columns / 2 * rows)),
        (format!("{stem}.qzeros"), "I32", vec![columns / 8, rows / 8], bytes(columns / 16 * rows)),
        (format!("{stem}.scales"), "F16", vec![columns / 8, rows], scales.collect()),
        (format!("{stem}.g_idx"), "I32", vec![columns], groups),
    ]);
    all
}

fn safetensors(tensors: &[StoredTensor]) -> Vec<u8> {
    let (mut entries, mut data) = (vec![], vec![]);
    for (name, dtype, sides, bytes) in tensors {
        let start = data.len();
        data.extend(bytes);
        let sides: Vec<_> = sides.iter().map(u32::to_string).collect();
        let (sides, end) = (sides.join(","), data.len());
        entries.push(format!(
            r#""{name}":{{"dtype":"{dtype}","shape":[{sides}],"data_offsets":[{start},{end}]}}"#
        ));
    }
    let header = format!("{{{}}}", entries.join(","));
    [&(header.len() as u64).to_le_bytes(), header.as_bytes(), &data].concat()
}

/// The tensors of a checkpoint; one of them is a view of a transposed one.
fn checkpointed(shape: &SeedShape) -> Vec<Checkpointed> {
    let tensor = |(name, _, rows, columns): TensorShape| {
        let sides = if rows == 0 { vec![columns] } else { vec![rows, columns] };
        let mut tensor = Checkpointed::new(&name, &sides, numbers(rows.max(1) * columns).collect());
        if name.ends_with("up_proj.weight") {
            tensor.strides = vec![1, rows];
        }
        tensor
    };
    shape.tensors().into_iter().map(tensor).collect()
}

/// The hyperparameters of a checkpoint of llama2.c, and its tensors.
fn model_args(shape: &SeedShape) -> (Vec<u8>, Vec<Checkpointed>) {
    let arguments = [
        ("dim", shape.hidden),
        ("n_layers", shape.layers),
        ("n_heads", shape.heads),
        ("n_kv_heads", 1),
        ("vocab_size", shape.vocabulary),
        ("max_seq_len", CONTEXT),
    ];
    let mut tensors = checkpointed(shape);
    for tensor in &mut tensors {
        for (theirs, ours) in [
            ("model.", ""),
            ("embed_tokens", "tok_embeddings"),
            ("input_layernorm", "attention_norm"),
            ("self_attn.q_proj", "attention.wq"),
            ("self_attn.k_proj", "attention.wk"),
            ("self_attn.v_proj", "attention.wv"),
            ("self_attn.o_proj", "attention.wo"),
            ("post_attention_layernorm", "ffn_norm"),
            ("mlp.gate_proj", "feed_forward.w1"),
            ("mlp.down_proj", "feed_forward.w2"),
            ("mlp.up_proj", "feed_forward.w3"),
        ] {
            tensor.name = tensor.name.replace(theirs, ours);
        }
    }
    (pickle::dict(&arguments.map(|(name, value)| (name, pickle::integer(value)))), tensors)
}

/// ggml's numbers of encodings.
const F32: u32 = 0;
const F16: u32 = 1;
const Q4_0: u32 = 2;
const Q8_0: u32 = 8;

fn gguf(shape: &SeedShape, kind: u32) -> Vec<u8> {
    let string = |text: &[u8]| [&(text.len() as u64).to_le_bytes(), text].concat();
    let key = |name: &str, kind: u32, value: &[u8]| {
        [&string(name.as_bytes()), &kind.to_le_bytes()[..], value].concat()
    };
    let integer = |name: &str, value: u32| key(name, 4, &value.to_le_bytes());
    let array = |kind: u32, items: Vec<Vec<u8>>| {
        [&kind.to_le_bytes()[..], &(items.len() as u64).to_le_bytes(), &items.concat()].concat()
    };
    let vocabulary = vocabulary();
    let tokens = vocabulary.tokens.iter().map(|t| string(t)).collect();
    let scores = vocabulary.scores.iter().map(|s| s.to_le_bytes().to_vec()).collect();
    let types = vocabulary.token_types.iter().map(|t| t.to_le_bytes().to_vec()).collect();
    let metadata = [
        key("general.architecture", 8, &string(b"llama")),
        integer("llama.context_length", CONTEXT),
        integer("llama.embedding_length", shape.hidden),
        integer("llama.block_count", shape.layers),
        integer("llama.feed_forward_length", shape.wide),
        integer("llama.attention.head_count", shape.heads),
        integer("llama.attention.head_count_kv", 1),
        key("llama.attention.layer_norm_rms_epsilon", 6, &1e-5f32.to_le_bytes()),
        key("tokenizer.ggml.model", 8, &string(b"llama")),
        key("tokenizer.ggml.tokens", 9, &array(8, tokens)),
        key("tokenizer.ggml.scores", 9, &array(6, scores)),
        key("tokenizer.ggml.token_type", 9, &array(5, types)),
        key("tokenizer.ggml.add_bos_token", 7, &[1]),
    ];
    let (mut entries, mut data) = (vec![], vec![]);
    let tensors = shape.tensors();
    for (_, name, rows, columns) in &tensors {
        let kind = if *rows == 0 { F32 } else { kind };
        entries.extend(string(name.as_bytes()));
        let sides = if *rows == 0 { vec![*columns] } else { vec![*columns, *rows] };
        entries.extend((sides.len() as u32).to_le_bytes());
        sides.iter().for_each(|side| entries.extend(u64::from(*side).to_le_bytes()));
        entries.extend(kind.to_le_bytes());
        entries.extend((data.len() as u64).to_le_bytes());
        let floats: Vec<_> = numbers(rows.max(&1) * columns).collect();
        match kind {
            F32 => data.extend(floats.iter().flat_map(|x| x.to_le_bytes())),
            F16 => data.extend(floats.iter().flat_map(|x| f16::from_f32(*x).to_le_bytes())),
            _ => floats.chunks(32).for_each(|block| {
                data.extend(f16::from_f32(1.0 / 128.0).to_le_bytes());
                let bytes = if kind == Q8_0 { 32 } else { 16 };
                data.extend(block[..bytes].iter().map(|x| (x * 127.0) as i8 as u8));
            }),
        }
        data.resize(data.len().next_multiple_of(32), 0);
    }
    let mut file =
        [&b"GGUF"[..], &3u32.to_le_bytes(), &(tensors.len() as u64).to_le_bytes()].concat();
    file.extend((metadata.len() as u64).to_le_bytes());
    file.extend(metadata.concat());
    file.extend(entries);
    file.resize(file.len().next_multiple_of(32), 0);
    file.extend(data);
    file
}

/// As many tokens as the models have.
fn vocabulary() -> GgufVocabulary {
    let tokens =
        ["<unk>", "<s>", "</s>", "h", "e", "l", "o", "\u{2581}", "he", "ll", "llo", "hello"];
    GgufVocabulary {
        model: "llama".into(),
        tokens: tokens.map(|t| t.as_bytes().to_vec()).into(),
        scores: (0..tokens.len()).map(|id| -((id / 2) as f32)).collect(),
        token_types: (0..tokens.len()).map(|id| if id < 3 { 3 } else { 1 }).collect(),
        ..GgufVocabulary::default()
    }
}

fn characters() -> Spec {
    Spec::from_gguf(Path::new("seed"), vocabulary()).unwrap()
}

/// Byte-level BPE: GPT-2's spelling of all bytes, and three pieces more.
fn bytes() -> Spec {
    let mut others = 0x100..;
    let letters = (0..=255u8).map(|byte| match byte {
        b'!'..=b'~' | 0xA1..=0xAC | 0xAE.. => char::from(byte),
        _ => others.next().and_then(char::from_u32).unwrap(),
    });
    let mut tokens: Vec<_> = letters.map(String::from).collect();
    tokens.extend(["he", "ll", "hell", "<|end|>"].map(String::from));
    let vocabulary = GgufVocabulary {
        model: "gpt2".into(),
        pre: Some("llama-bpe".into()),
        token_types: (0..tokens.len()).map(|id| if id == 259 { 3 } else { 1 }).collect(),
        tokens: tokens.into_iter().map(String::into_bytes).collect(),
        merges: ["h e", "l l", "he ll"].map(String::from).into(),
        bos: Some(259),
        ..GgufVocabulary::default()
    };
    Spec::from_gguf(Path::new("seed"), vocabulary).unwrap()
}

/// WordPiece, with a normalizer that its text may have.
fn word_piece(normalizer: &str) -> Spec {
    let json = format!(
        r###"{{"normalizer":{normalizer},"pre_tokenizer":{{"type":"BertPreTokenizer"}},
"post_processor":{{"type":"BertProcessing","cls":["<s>",1],"sep":["<s>",1]}},
"added_tokens":[{{"id":1,"content":"<s>","special":true}}],
"decoder":{{"type":"WordPiece","prefix":"##","cleanup":true}},
"model":{{"type":"WordPiece","unk_token":"[UNK]","continuing_subword_prefix":"##",
"max_input_chars_per_word":9,"vocab":{{"[UNK]":0,"<s>":1,"he":2,"##llo":3,"w":4,"'":5,"s":6}}}}}}"###
    );
    Spec::from_hf_bytes(Path::new("seed"), json.into_bytes()).unwrap()
}

/// Unigram, with a normalizer that its text may have.
fn unigram(normalizer: &str) -> Spec {
    let json = format!(
        r##"{{"normalizer":{normalizer},"pre_tokenizer":{{"type":"Metaspace","replacement":"▁"}},
"decoder":{{"type":"Metaspace","replacement":"▁"}},"added_tokens":[{{"id":1,"content":"<s>","special":true}}],
"model":{{"type":"Unigram","unk_id":0,"vocab":[["<unk>",0],["<s>",0],["▁",-2.5],["▁he",-3],["llo",-4],["l",-5],["o",-6]]}}}}"##
    );
    Spec::from_hf_bytes(Path::new("seed"), json.into_bytes()).unwrap()
}

/// One that makes "ab" of nothing: its trie has a root alone.
const CHARSMAP: &str = r#"{"type":"Precompiled","precompiled_charsmap":"BAAAAAAAAABhYgA="}"#;

fn json(spec: &Spec) -> Vec<u8> {
    let folder = tempfile::tempdir().unwrap();
    spec.write_package(folder.path()).unwrap();
    fs::read(folder.path().join("tokenizer.json")).unwrap()
}

/// llama2.c's: the longest token, then score, length and text of each.
fn tokenizer_bin() -> Vec<u8> {
    let special = ["<unk>", "\n<s>\n", "\n</s>\n"].map(String::from);
    let bytes = (0..256).map(|byte| format!("<0x{byte:02X}>"));
    let pieces = ["a", "b", "ab"].map(String::from);
    let mut file = 8u32.to_le_bytes().to_vec();
    for token in special.into_iter().chain(bytes).chain(pieces) {
        file.extend((-(token.len() as f32)).to_le_bytes());
        file.extend((token.len() as u32).to_le_bytes());
        file.extend(token.into_bytes());
    }
    file
}

/// A package with int8 weights.
pub(crate) fn package_folder() -> TempDir {
    converted(Q8_0)
}

/// A package whose weights are those of the GGUF file as they are: how other weights are quantized
/// may change, and the seeds would with it.
fn converted(kind: u32) -> TempDir {
    let (shape, precision) =
        if kind == F16 { (&SMALL, Some(Precision::F16)) } else { (&WIDE, None) };
    let folder = tempfile::tempdir().unwrap();
    let (model, package) = (folder.path().join("model.gguf"), folder.path().join("package"));
    fs::write(&model, gguf(shape, kind)).unwrap();
    let source = open(&model, Some(SourceFormat::Gguf)).unwrap();
    let options = ConvertOptions { precision, ..ConvertOptions::default() };
    convert(&*source, "gguf", "seed", &package, &options, &mut |_, _| {}).unwrap();
    let alone = tempfile::tempdir().unwrap();
    for entry in ["metadata.json", "graph.json", "hyperparameters.json", "weights", "tokenizer"] {
        fs::rename(package.join(entry), alone.path().join(entry)).unwrap();
    }
    alone
}

fn images() -> Vec<(&'static str, Vec<u8>)> {
    let image = |kind, context, kv| {
        let folder = converted(kind);
        let path = folder.path().join("image");
        let package = Package::open(folder.path()).unwrap();
        let target = Target {
            ram: 64 << 10,
            reserve: 0,
            mapped: false,
            page_size: Some(512),
            columns: Some(4),
            context: Some(context),
            kv,
        };
        pack(&package, &target, &path, &Cancel::default()).unwrap();
        fs::read(&path).unwrap()
    };
    vec![
        ("int8", image(Q8_0, 8, None)),
        ("int4-unchecked", unchecked(image(Q4_0, 6, Some(Kv::Int8)))),
        ("f16-unchecked", unchecked(image(F16, 16, None))),
    ]
}

/// The image with 0 for every checksum, as if they all were right.
fn unchecked(mut image: Vec<u8>) -> Vec<u8> {
    let number = |image: &[u8], at: usize| {
        u64::from_le_bytes(image[at..at + 8].try_into().unwrap()) as usize
    };
    let (checksums, length) = (number(&image, 112), number(&image, 120));
    image[checksums..checksums + length].fill(0);
    for section in 0..5 {
        image[40 + 24 * section + 16..][..4].fill(0);
    }
    image[252..256].fill(0);
    image
}
