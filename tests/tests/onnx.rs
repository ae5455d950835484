//! Exported graphs give the numbers of the checkpoints that they were made of, whatever exporters call them.

use omex::import::{Container, Encoding, SourceFormat, detect, open};
use omex::quantize::Precision;
use omex_tests::onnx::{Onnx, attribute, external, integer, piece, scopes, tensor, varint};
use omex_tests::{
    Converted, Random, Setting, Synthetic, json, logits, numbers, omex_binary, read_npy,
    require_shared, rows, shared, worst_error,
};
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

const F32: i64 = 1;
const U8: i64 = 2;
const I8: i64 = 3;
const F16: i64 = 10;

/// A tensor of a checkpoint.
#[derive(Clone)]
struct Weight {
    name: String,
    /// Of the module.
    path: String,
    rows: usize,
    columns: usize,
    numbers: Vec<f32>,
}

fn weights(model: &dyn Container) -> Vec<Weight> {
    let weight = |name: String| {
        let info = model.tensor(&name).unwrap();
        let path = name.rsplit_once('.').map_or(name.as_str(), |(path, _)| path).to_owned();
        let numbers = rows(model, &name).concat();
        Weight { name, path, rows: info.rows as usize, columns: info.columns as usize, numbers }
    };
    model.names().into_iter().map(weight).collect()
}

fn turned(weight: &Weight) -> Vec<f32> {
    let at = |number: usize| number % weight.rows * weight.columns + number / weight.rows;
    (0..weight.numbers.len()).map(|number| weight.numbers[at(number)]).collect()
}

fn bytes(numbers: &[f32]) -> Vec<u8> {
    numbers.iter().flat_map(|x| x.to_le_bytes()).collect()
}

/// A model that is being exported, in one of the ways that there are for each tensor.
struct Export {
    graph: Onnx,
    random: Random,
    data: Vec<u8>,
    /// Checkpoints of this model have matrices with a row for each input.
    by_inputs: bool,
}

impl Export {
    fn new(seed: u64, by_inputs: bool) -> Self {
        Self { graph: Onnx::default(), random: Random(seed), data: vec![], by_inputs }
    }

    /// A constant whose numbers lie in one of the places that there are.
    fn constant(&mut self, name: &str, sides: &[usize], numbers: &[f32]) {
        let sides: Vec<u32> = sides.iter().map(|side| *side as u32).collect();
        let bytes = bytes(numbers);
        let place = match self.random.below(3) {
            0 => piece(9, bytes),
            1 => piece(4, bytes),
            _ => {
                let offset = self.data.len() as u64;
                self.data.extend(&bytes);
                external("model.onnx_data", offset, bytes.len() as u64)
            }
        };
        self.graph.constant(tensor(name, &sides, F32, &place));
    }

    /// A node of a module, which its name or a note tells.
    fn node(&mut self, operation: &str, path: &str, inputs: &[&str], fields: &[u8]) -> String {
        let output = format!("value_{}", self.random.draw());
        let (name, note) = match self.random.below(2) {
            0 => (format!("/{}/{operation}", path.replace('.', "/")), vec![]),
            _ => (format!("node_{output}"), scopes(path)),
        };
        self.graph.node(operation, &name, inputs, &output, &[fields, &note].concat());
        output
    }

    fn add(&mut self, weight: &Weight) {
        let made_up = format!("onnx::Op_{}", self.random.below(1 << 30));
        let own = weight.name.clone();
        let is_table = ["embed", "wte", "wpe"].iter().any(|part| weight.name.contains(part));
        match () {
            () if weight.rows == 1 => self.add_vector(weight, &own, &made_up),
            () if is_table && !weight.name.contains("LayerNorm") => {
                let name = if self.random.below(2) == 0 { own } else { made_up };
                self.constant(&name, &[weight.rows, weight.columns], &weight.numbers);
                self.node("Gather", &weight.path, &[&name, "ids"], &[]);
            }
            () => self.add_matrix(weight, own, made_up),
        }
    }

    fn add_vector(&mut self, weight: &Weight, own: &str, made_up: &str) {
        let is_bias = weight.name.ends_with("bias");
        let name = if self.random.below(2) == 0 { own } else { made_up };
        self.constant(name, &[weight.columns], &weight.numbers);
        let name = match self.random.below(3) {
            0 => {
                let other = if name == own { "copy" } else { own };
                self.graph.node("Identity", "Identity_1", &[name], other, &[]);
                other
            }
            _ => name,
        };
        match (is_bias, self.random.below(2)) {
            (true, 0) => self.node("Add", &weight.path, &[name, "x"], &[]),
            (true, _) => self.node("LayerNormalization", &weight.path, &["x", "w", name], &[]),
            (false, 0) => self.node("Mul", &weight.path, &["x", name], &[]),
            (false, _) => self.node("LayerNormalization", &weight.path, &["x", name], &[]),
        };
    }

    fn add_matrix(&mut self, weight: &Weight, own: String, made_up: String) {
        let sides = [weight.rows, weight.columns];
        let other_sides = [weight.columns, weight.rows];
        let (plain, other) = (weight.numbers.clone(), turned(weight));
        // What `x` is multiplied with has a row for each input.
        let (by_outputs, by_inputs) = match self.by_inputs {
            false => ((sides, plain), (other_sides, other)),
            true => ((other_sides, other), (sides, plain)),
        };
        match self.random.below(5) {
            0 => {
                self.constant(&made_up, &by_inputs.0, &by_inputs.1);
                self.node("MatMul", &weight.path, &["x", &made_up], &[]);
            }
            1 => {
                self.constant(&own, &by_outputs.0, &by_outputs.1);
                let turned = self.node("Transpose", "", &[&own], &attribute("perm", &[1, 0]));
                let cast = self.node("Cast", "", &[&turned], &attribute("to", &[1]));
                self.node("MatMul", &weight.path, &["x", &cast], &[]);
            }
            2 => {
                self.constant(&made_up, &by_outputs.0, &by_outputs.1);
                self.node("Gemm", &weight.path, &["x", &made_up], &attribute("transB", &[1]));
            }
            3 => {
                self.constant(&made_up, &by_inputs.0, &by_inputs.1);
                self.node("Gemm", &weight.path, &["x", &made_up], &[]);
            }
            // Nothing says how it is used.
            _ => self.constant(&own, &sides, &weight.numbers),
        }
    }

    fn write(&mut self, folder: &Path) -> PathBuf {
        self.graph.output("logits");
        fs::write(folder.join("model.onnx_data"), &self.data).unwrap();
        write(folder, &self.graph)
    }
}

fn write(folder: &Path, graph: &Onnx) -> PathBuf {
    let path = folder.join("model.onnx");
    fs::write(&path, graph.file()).unwrap();
    path
}

/// What the package of a model says of its weights, checksums and all.
fn written(source: &dyn Container) -> serde_json::Value {
    let converted = Converted::new(source, Some(Precision::F32));
    json(&converted.path.join("weights/quantization.json"))
}

/// A folder with a small model, and its weights.
fn small() -> (tempfile::TempDir, Vec<Weight>) {
    let folder = tempfile::tempdir().unwrap();
    Synthetic::odd().write_hugging_face(folder.path());
    let all = weights(&*open(folder.path(), None).unwrap());
    fs::remove_file(folder.path().join("model.safetensors")).unwrap();
    (folder, all)
}

/// What reading and drawing a model comes to.
fn refusal(path: &Path) -> String {
    match open(path, None).and_then(|source| omex::arch::blueprint(&*source).map(drop)) {
        Ok(()) => panic!("{} is read", path.display()),
        Err(error) => error.to_string(),
    }
}

#[test]
fn whatever_tensors_are_called_the_bits_are_those_of_the_checkpoint() {
    let goldens = ["bert", "gpt2", "qwen2", "qwen3", "phi3", "mpnet"];
    let goldens = goldens.into_iter().filter_map(|name| shared(&format!("golden/{name}")));
    let (folder, _) = small();
    Synthetic::odd().write_hugging_face(folder.path());
    for model in goldens.chain([folder.path().to_owned()]) {
        let source = open(&model, None).unwrap();
        let expected = written(&*source);
        for seed in 0..8 {
            let folder = tempfile::tempdir().unwrap();
            fs::copy(model.join("config.json"), folder.path().join("config.json")).unwrap();
            let mut export = Export::new(seed, model.ends_with("gpt2"));
            weights(&*source).iter().for_each(|weight| export.add(weight));
            export.write(folder.path());
            let found = open(folder.path(), None).unwrap();
            assert_eq!(found.format(), SourceFormat::Onnx);
            assert_eq!(written(&*found), expected, "{}, seed {seed}", model.display());
        }
    }
}

/// `tests/exports` has what torch 2.15 made of models with random weights: by TorchScript, and by dynamo.
#[test]
fn torchs_exports_are_the_models_that_were_exported() {
    let exports = Path::new(env!("CARGO_MANIFEST_DIR")).join("exports");
    for model in ["llama", "bert"] {
        let folder = exports.join(model);
        let expected = written(&*open(&folder, None).unwrap());
        for file in ["torchscript.onnx", "dynamo.onnx"] {
            assert_eq!(written(&*open(&folder.join(file), None).unwrap()), expected, "{file}");
        }
    }
}

#[test]
fn models_that_onnx_runtimes_builder_wrote_are_the_checkpoints() {
    let (folder, all) = small();
    Synthetic::odd().write_hugging_face(folder.path());
    let expected = written(&*open(folder.path(), None).unwrap());
    fs::remove_file(folder.path().join("model.safetensors")).unwrap();
    let layers = all.iter().filter(|weight| weight.name.ends_with("q_proj.weight")).count();
    let mut export = Export::new(1, false);
    let mut fused: Vec<(String, Weight)> = vec![];
    for weight in &all {
        let path = weight.path.replace(".self_attn.", ".attn.");
        let is_norm = weight.rows == 1;
        match weight.name.split('.').rev().nth(1).unwrap() {
            "norm" => {
                let path = format!("model.layers.{layers}.final_norm_layernorm");
                let name = format!("{path}.weight");
                export.constant(&name, &[weight.columns], &weight.numbers);
                let inputs = ["x", "y", &name];
                export.node("SkipSimplifiedLayerNormalization", &path, &inputs, &[]);
            }
            _ if is_norm => {
                export.constant(&weight.name, &[weight.columns], &weight.numbers);
                let inputs = ["x", &weight.name];
                export.node("SimplifiedLayerNormalization", &path, &inputs, &[]);
            }
            part @ ("q_proj" | "k_proj" | "v_proj") => {
                fused.push((path.replace(part, "qkv_proj"), weight.clone()));
            }
            "embed_tokens" => export.add(weight),
            _ => {
                let name = format!("{path}.MatMul.weight");
                export.constant(&name, &[weight.columns, weight.rows], &turned(weight));
                export.node("MatMul", &path, &["x", &name], &[]);
            }
        }
    }
    // By name, keys come before queries, and queries before values.
    let mut names: Vec<_> = fused.iter().map(|(path, _)| path.clone()).collect();
    names.dedup();
    for path in names {
        let part = |part: &str| {
            let found =
                fused.iter().find(|(of, weight)| *of == path && weight.path.ends_with(part));
            found.unwrap().1.clone()
        };
        let parts = ["q_proj", "k_proj", "v_proj"].map(part);
        let numbers = parts.iter().flat_map(|part| part.numbers.clone()).collect();
        let rows = parts.iter().map(|part| part.rows).sum();
        let whole = Weight { rows, numbers, ..parts[0].clone() };
        let name = format!("{path}.MatMul.weight");
        export.constant(&name, &[whole.columns, whole.rows], &turned(&whole));
        export.node("MatMul", &path, &["x", &name], &[]);
    }
    export.write(folder.path());
    assert_eq!(written(&*open(folder.path(), None).unwrap()), expected);
}

#[test]
fn factors_are_taken_with_what_is_added_to_them() {
    let model = require_shared!("golden/gemma2");
    let folder = tempfile::tempdir().unwrap();
    fs::copy(model.join("config.json"), folder.path().join("config.json")).unwrap();
    let source = open(&model, None).unwrap();
    let mut export = Export::new(1, false);
    for mut weight in weights(&*source) {
        if weight.name.ends_with("norm.weight") {
            weight.numbers.iter_mut().for_each(|x| *x += 1.0);
            let name = format!("folded_{}", weight.path.replace('.', "_"));
            export.constant(&name, &[weight.columns], &weight.numbers);
            export.node("Mul", &weight.path, &["x", &name], &[]);
        } else {
            export.add(&weight);
        }
    }
    export.write(folder.path());
    let reference = json(&model.join("ref.json"));
    let converted = omex_tests::convert_from(folder.path(), Some(Precision::F32));
    let ids = numbers(&reference["input_ids"]);
    let found = logits(&converted.path, &ids, &Setting::default());
    let worst = worst_error(&found, &read_npy(&model.join("logits.npy")).rows);
    assert!(worst <= 5e-4, "{worst:e}");
}

/// A model of one matrix, which is not one of any architecture.
fn one(folder: &Path, graph: &Onnx) -> Result<Box<dyn Container>, String> {
    fs::write(folder.join("config.json"), "{}").unwrap();
    open(&write(folder, graph), None).map_err(|error| error.to_string())
}

#[test]
fn integers_with_scales_stand_for_the_floats_of_their_definition() {
    let folder = tempfile::tempdir().unwrap();
    let [inputs, outputs] = [6usize, 4];
    let integers: Vec<u8> = (0..24u8).map(|i| i.wrapping_mul(37)).collect();
    let scales = [0.5f32, 0.25, 2.0, 0.125];
    for (kind, by_column, by_node) in
        [(U8, false, true), (U8, true, false), (I8, true, true), (I8, false, false)]
    {
        let zeros: [i64; 4] = if kind == U8 { [7, 200, 0, 128] } else { [-7, 100, 0, -128] };
        let count = if by_column { 4 } else { 1 };
        let sides: &[u32] = if by_column { &[4] } else { &[] };
        let mut graph = Onnx::default();
        graph.constant(tensor("w_quantized", &[6, 4], kind, &piece(9, &integers)));
        graph.constant(tensor("w_scale", sides, F32, &piece(4, bytes(&scales[..count]))));
        let listed = zeros[..count].iter().flat_map(|zero| varint(zero.cast_unsigned()));
        let listed = piece(5, listed.collect::<Vec<u8>>());
        graph.constant(tensor("w_zero_point", sides, kind, &listed));
        if by_node {
            let inputs = ["w_quantized", "w_scale", "w_zero_point"];
            graph.node("DequantizeLinear", "", &inputs, "w", &attribute("axis", &[1]));
            graph.node("MatMul", "/a/b/MatMul", &["x", "w"], "y", &[]);
        } else {
            graph.node("MatMulInteger", "/a/b/MatMul_quant", &["x", "w_quantized"], "y", &[]);
        }
        let model = one(folder.path(), &graph).unwrap();
        assert_eq!(model.names(), ["a.b.weight"]);
        let value = |output: usize, input: usize| {
            let at = if by_column { output } else { 0 };
            let byte = integers[input * outputs + output];
            let integer = if kind == U8 { i64::from(byte) } else { byte.cast_signed().into() };
            (integer - zeros[at]) as f32 * scales[at]
        };
        let expected: Vec<Vec<f32>> = (0..outputs)
            .map(|row| (0..inputs).map(|column| value(row, column)).collect())
            .collect();
        assert_eq!(rows(&*model, "a.b.weight"), expected, "{kind}, {by_column}, {by_node}");
    }
}

#[test]
fn blocks_of_a_few_bits_stand_for_the_floats_of_their_definition() {
    let folder = tempfile::tempdir().unwrap();
    let (rows_, columns, size) = (3u32, 70u32, 32u32);
    for (bits, has_zeros) in [(4u32, true), (4, false), (8, true), (2, false)] {
        let blocks = columns.div_ceil(size);
        let of_block = size * bits / 8;
        let mut random = Random(bits.into());
        let mut some = |count: u32| (0..count).map(|_| random.draw() as u8).collect::<Vec<u8>>();
        let integers = some(rows_ * blocks * of_block);
        let of_zeros = (blocks * bits).div_ceil(8);
        let zeros = some(rows_ * of_zeros);
        let scales: Vec<f32> = (1..=rows_ * blocks).map(|n| n as f32 / 64.0).collect();
        let mut graph = Onnx::default();
        graph.constant(tensor("w_Q", &[rows_, blocks, of_block], U8, &piece(9, &integers)));
        graph.constant(tensor("w_scales", &[rows_ * blocks], F32, &piece(9, bytes(&scales))));
        graph.constant(tensor("w_zeros", &[rows_ * of_zeros], U8, &piece(9, &zeros)));
        let inputs = ["x", "w_Q", "w_scales", "w_zeros"];
        let fields = [("N", rows_), ("K", columns), ("bits", bits), ("block_size", size)];
        let fields = fields.map(|(name, value)| attribute(name, &[value.into()])).concat();
        let inputs = if has_zeros { &inputs[..] } else { &inputs[..3] };
        graph.node("MatMulNBits", "/a/b/MatMul_Q4", inputs, "y", &fields);
        let model = one(folder.path(), &graph).unwrap();
        let integer = |bytes: &[u8], at: u32| {
            let bit = at * bits;
            f32::from(bytes[bit as usize / 8] >> (bit % 8) & u8::MAX >> (8 - bits))
        };
        let value = |row: u32, column: u32| {
            let block = column / size;
            let start = ((row * blocks + block) * of_block) as usize;
            let zero = match has_zeros {
                true => integer(&zeros[(row * of_zeros) as usize..], block),
                false => (1 << (bits - 1)) as f32,
            };
            let number = integer(&integers[start..], column % size);
            (number - zero) * scales[(row * blocks + block) as usize]
        };
        let expected: Vec<Vec<f32>> =
            (0..rows_).map(|row| (0..columns).map(|column| value(row, column)).collect()).collect();
        assert_eq!(rows(&*model, "a.b.weight"), expected, "{bits} bits");
    }
}

#[test]
fn blocks_that_are_those_of_a_native_format_are_kept() {
    let folder = tempfile::tempdir().unwrap();
    let mut random = Random(5);
    let integers: Vec<u8> = (0..2 * 2 * 16).map(|_| random.draw() as u8).collect();
    let scales = [0.5f32, -0.25, 3.0, 0.001];
    let scales = scales.into_iter().flat_map(|x| half::f16::from_f32(x).to_le_bytes());
    let mut graph = Onnx::default();
    graph.constant(tensor("w_Q4", &[2, 2, 16], U8, &piece(9, &integers)));
    graph.constant(tensor("w_scales", &[4], F16, &piece(9, scales.collect::<Vec<u8>>())));
    let fields = [("N", 2), ("K", 64), ("bits", 4), ("block_size", 32)];
    let fields = fields.map(|(name, value)| attribute(name, &[value])).concat();
    graph.node("MatMulNBits", "/a/b/MatMul_Q4", &["x", "w_Q4", "w_scales"], "y", &fields);
    let model = one(folder.path(), &graph).unwrap();
    let info = model.tensor("a.b.weight").unwrap();
    assert_eq!(info.encoding, Encoding::Q4_0);
    for (row, expected) in rows(&*model, "a.b.weight").into_iter().enumerate() {
        let (mut blocks, mut found) = (vec![], vec![0.0; 64]);
        model.read_row_bytes("a.b.weight", row as u32, &mut blocks).unwrap();
        info.encoding.decode(&blocks, &mut found);
        assert_eq!(found, expected);
    }
}

/// A small model whose first matrix lies at this place of another file.
fn placed_at(location: &str, offset: u64, length: u64) -> (tempfile::TempDir, PathBuf) {
    let (folder, weights) = small();
    let model = folder.path().join("snapshots/1");
    fs::create_dir_all(&model).unwrap();
    fs::rename(folder.path().join("config.json"), model.join("config.json")).unwrap();
    let mut graph = Onnx::default();
    let first = weights.iter().position(|weight| weight.rows > 1).unwrap();
    for (number, weight) in weights.iter().enumerate() {
        let all = bytes(&weight.numbers);
        let sides = [weight.rows as u32, weight.columns as u32];
        let sides = if weight.rows == 1 { &sides[1..] } else { &sides[..] };
        let place = match number == first {
            true => external(location, offset, length.min(all.len() as u64)),
            false => piece(9, &all),
        };
        if number == first {
            fs::write(folder.path().join("data"), &all).unwrap();
            fs::write(model.join("data"), &all).unwrap();
        }
        graph.constant(tensor(&weight.name, sides, F32, &place));
    }
    graph.output("logits");
    let path = write(&model, &graph);
    (folder, path)
}

#[test]
fn numbers_come_from_nowhere_but_the_models_folder() {
    let (_folder, path) = placed_at("data", 0, u64::MAX);
    assert!(open(&path, None).is_ok());
    let outside = ["../data", "/etc/passwd", "", ".", "./data", "a/../../../data", "data/.."];
    for location in outside {
        let (_folder, path) = placed_at(location, 0, u64::MAX);
        let said = refusal(&path);
        let good = said.contains("location of model.") && said.contains("in the model's folder");
        // A file that is named as in its own folder is one.
        assert!(good || location == "./data", "{location}: {said}");
    }
    let (folder, path) = placed_at("link", 0, u64::MAX);
    symlink(folder.path().join("data"), path.with_file_name("link")).unwrap();
    let said = refusal(&path);
    assert!(said.contains("found link, a link to "), "{said}");
    assert!(refusal(&placed_at("absent", 0, u64::MAX).1).contains("absent"));
    for (offset, length) in [(1, u64::MAX), (u64::MAX, u64::MAX), (0, 3), (1 << 40, 0)] {
        let said = refusal(&placed_at("data", offset, length).1);
        assert!(said.contains("data: model.") || said.contains("bytes of model."), "{said}");
    }
}

#[test]
fn in_a_hubs_cache_links_lead_to_files_side_by_side() {
    let (folder, path) = placed_at("model.onnx_data", 0, u64::MAX);
    let blobs = folder.path().join("blobs");
    fs::create_dir(&blobs).unwrap();
    fs::rename(&path, blobs.join("1a")).unwrap();
    fs::rename(folder.path().join("data"), blobs.join("2b")).unwrap();
    let onnx = path.with_file_name("onnx");
    fs::create_dir(&onnx).unwrap();
    symlink("../../../blobs/1a", onnx.join("model.onnx")).unwrap();
    symlink("../../../blobs/2b", onnx.join("model.onnx_data")).unwrap();
    let snapshot = path.parent().unwrap();
    assert_eq!(detect(snapshot).unwrap(), SourceFormat::Onnx);
    for path in [snapshot, &onnx, &onnx.join("model.onnx")] {
        let source = open(path, None).unwrap();
        assert!(omex::arch::blueprint(&*source).is_ok(), "{}", path.display());
        assert_eq!(source.path().file_name().unwrap(), "config.json");
    }
}

#[test]
fn what_is_not_understood_is_refused_by_its_name() {
    let (folder, all) = small();
    let export = |leave: &str, more: &dyn Fn(&mut Export)| {
        let mut export = Export::new(3, false);
        let kept = all.iter().filter(|weight| weight.name != leave);
        kept.for_each(|weight| export.add(weight));
        more(&mut export);
        refusal(&export.write(folder.path()))
    };
    let missing = "model.layers.0.self_attn.o_proj.weight";
    let said = export(missing, &|_| {});
    assert!(said.contains(&format!("{missing}: found no tensor")), "{said}");
    let said = export("", &|export| {
        export.constant("onnx::MatMul_7", &[4, 4], &[0.5; 16]);
        export.graph.node("MatMul", "MatMul_7", &["x", "onnx::MatMul_7"], "y", &[]);
    });
    assert!(said.contains("onnx::MatMul_7: found a tensor that a llama"), "{said}");
    let said = export("", &|export| export.constant("model.adapter.weight", &[2, 2], &[0.5; 4]));
    assert!(said.contains("model.adapter.weight: found a tensor that a llama"), "{said}");
    // Numbers that a graph computes with besides are none of the model's.
    let mut whole = Export::new(4, false);
    all.iter().for_each(|weight| whole.add(weight));
    whole.constant("val_1", &[3, 3], &[0.5; 9]);
    whole.graph.node("Where", "/model/Where", &["c", "val_1", "x"], "z", &[]);
    let path = whole.write(folder.path());
    assert!(omex::arch::blueprint(&*open(&path, None).unwrap()).is_ok());
    fs::remove_file(folder.path().join("config.json")).unwrap();
    let said = refusal(&path);
    assert!(said.contains("a transformer is read with its config.json beside"), "{said}");
}

#[test]
fn damaged_files_are_errors_that_name_the_file() {
    let (folder, all) = small();
    let mut export = Export::new(3, false);
    all.iter().for_each(|weight| export.add(weight));
    let path = export.write(folder.path());
    let file = fs::read(&path).unwrap();
    for length in (0..file.len()).step_by(file.len() / 97) {
        fs::write(&path, &file[..length]).unwrap();
        let said = refusal(&path);
        assert!(said.contains("model.onnx") && said.contains("byte "), "{length}: {said}");
    }
    // A graph in a graph in a graph, and numbers that claim to be many.
    let mut nested = Onnx::default().graph();
    for _ in 0..40 {
        let inner = piece(5, [piece(1, "body"), piece(6, &nested)].concat());
        nested = piece(1, [piece(4, "Loop"), inner].concat());
    }
    let huge =
        [integer(1, i64::MAX), integer(1, i64::MAX), integer(2, F32), piece(8, "a.b")].concat();
    let negative = [integer(1, -1), integer(2, F32), piece(8, "a.b"), piece(9, [0; 4])].concat();
    for graph in [nested, piece(5, huge), piece(5, negative)] {
        fs::write(&path, [integer(1, 8), piece(7, graph)].concat()).unwrap();
        assert!(refusal(&path).contains("model.onnx"));
    }
}

#[test]
fn a_dry_run_says_what_was_found() {
    let (folder, all) = small();
    let mut export = Export::new(9, false);
    all.iter().for_each(|weight| export.add(weight));
    let path = export.write(folder.path());
    let run = |arguments: &[&str]| {
        let run = Command::new(omex_binary()).arg("convert").arg(&path).args(arguments).output();
        String::from_utf8(run.unwrap().stdout).unwrap()
    };
    let said: serde_json::Value = serde_json::from_str(&run(&["--dry-run", "--json"])).unwrap();
    assert_eq!(said["found"]["source_format"], "onnx", "{said}");
    assert_eq!(said["found"]["architecture"], "llama", "{said}");
    assert!(run(&["--dry-run"]).contains("onnx"));
}
