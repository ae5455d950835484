//! Trained and random models, with references from the programs that wrote them. They are not
//! part of the repository: without them these tests print that they are skipped.

use super::{Model, open};
use crate::arch::{Blueprint, of_config};
use crate::import::{Encoding, SourceFormat, TokenizerSource, gguf};
use std::{
    fs,
    path::{Path, PathBuf},
};

pub(super) fn shared(path: &str) -> Option<PathBuf> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared").join(path);
    if !path.exists() {
        println!("skipped: there is no {}", path.display());
        return None;
    }
    Some(path)
}

fn load(path: &str) -> Option<Model> {
    shared(path).map(|path| open(&path, None).unwrap_or_else(|e| panic!("{e}")))
}

/// The largest difference between the models, relative to the largest number of the row.
fn difference(a: &Model, b: &Model) -> f32 {
    let mut worst = 0.0f32;
    for plan in a.blueprint.tensors() {
        for (a, b) in a.rows(&plan.name).iter().zip(&b.rows(&plan.name)) {
            let largest = a.iter().fold(0.0f32, |max, x| max.max(x.abs()));
            for (a, b) in a.iter().zip(b) {
                worst = worst.max((a - b).abs() / largest);
            }
        }
    }
    worst
}

/// What models must have in common to be the same, but for what stored tensors are called.
fn essence(blueprint: &Blueprint) -> impl PartialEq + std::fmt::Debug {
    let shapes = blueprint.tensors().map(|p| (p.name.clone(), p.role, p.rows, p.columns));
    let computed = blueprint.tensors().filter(|p| p.sources().is_empty()).cloned();
    let (graph, sizes) = (blueprint.graph.clone(), blueprint.sizes);
    (graph, sizes, blueprint.bos, shapes.collect::<Vec<_>>(), computed.collect::<Vec<_>>())
}

#[test]
fn a_model_is_the_same_from_every_format() {
    for (bin, name) in
        [("stories260K/stories260K.bin", "stories260K"), ("llama2xs/model.bin", "llama2xs")]
    {
        let Some(bin) = load(&format!("models/{bin}")) else { return };
        let hf = load(&format!("models/{name}-hf")).unwrap();
        let gguf = load(&format!("models/{name}-gguf/{name}-f32.gguf")).unwrap();
        assert_eq!(essence(&hf.blueprint), essence(&gguf.blueprint));
        assert_eq!(essence(&hf.blueprint), essence(&bin.blueprint));
        assert_eq!(hf.blueprint.eos, gguf.blueprint.eos);
        assert_eq!((&hf.blueprint.eos[..], &bin.blueprint.eos[..]), (&[2][..], &[1, 2][..]));
        assert_eq!(difference(&hf, &bin), 0.0);
        assert_eq!(difference(&hf, &gguf), 0.0);
        // Half a step of the format, and what rounding the scale to f16 adds; Q4_0 has no step 8.
        let f16 = 1.0 / 2048.0;
        for (kind, tolerance) in [
            ("f16", f16),
            ("bf16", 1.0 / 256.0),
            ("q8_0", 1.0 / 254.0 + f16),
            ("q4_0", 1.0 / 8.0 + f16),
        ] {
            let other = load(&format!("models/{name}-gguf/{name}-{kind}.gguf")).unwrap();
            let difference = difference(&hf, &other);
            assert!(difference > 0.0 && difference <= tolerance, "{kind}: {difference}");
        }
    }
}

#[test]
fn stored_rows_decode_to_the_rows_read() {
    let Some(model) = load("models/stories260K-gguf/stories260K-q4_0.gguf") else { return };
    let mut encodings = Vec::new();
    let container = &model.container;
    for name in container.names() {
        let info = container.tensor(&name).unwrap();
        encodings.push(info.encoding);
        for row in 0..info.rows {
            let (mut bytes, mut decoded) = (Vec::new(), vec![0.0; info.columns as usize]);
            let mut read = decoded.clone();
            container.read_row_bytes(&name, row, &mut bytes).unwrap();
            container.read_row(&name, row, &mut read).unwrap();
            info.encoding.decode(&bytes, &mut decoded);
            assert_eq!(decoded, read);
        }
    }
    assert!(encodings.contains(&Encoding::Q4_0) && encodings.contains(&Encoding::F16));
}

#[test]
fn tokenizers_are_found() {
    let Some(model) = load("models/stories260K/stories260K.bin") else { return };
    let Some(TokenizerSource::Llama2c(path)) = model.container.tokenizer() else { panic!() };
    assert!(path.ends_with("tok512.bin"));
    let model = load("models/stories260K-gguf/stories260K-f32.gguf").unwrap();
    let Some(TokenizerSource::Gguf(vocabulary)) = model.container.tokenizer() else { panic!() };
    assert_eq!(vocabulary.model, "llama");
    assert_eq!(vocabulary.tokens[..3], [&b"<unk>"[..], b"<s>", b"</s>"]);
    assert_eq!((vocabulary.tokens.len(), vocabulary.scores.len()), (512, 512));
    assert_eq!(vocabulary.token_types[..4], [2, 3, 3, 6]);
    assert_eq!((vocabulary.bos, vocabulary.eos, vocabulary.unknown), (Some(1), Some(2), Some(0)));
    assert_eq!((vocabulary.add_bos, vocabulary.add_eos), (Some(true), None));
}

/// Copies a golden model with the configuration that transformers 5 writes.
fn with_new_config(folder: &Path) -> tempfile::TempDir {
    let copy = tempfile::tempdir().unwrap();
    fs::copy(folder.join("config_v5.json"), copy.path().join("config.json")).unwrap();
    let weights = "model.safetensors";
    fs::copy(folder.join(weights), copy.path().join(weights)).unwrap();
    copy
}

#[test]
fn both_styles_of_configuration_load() {
    for (name, encoding) in [
        ("llama_tied", Encoding::Bf16),
        ("llama_untied", Encoding::F32),
        ("llama3_rope", Encoding::F16),
    ] {
        let Some(folder) = shared(&format!("golden/{name}")) else { return };
        let old = open(&folder, Some(SourceFormat::HuggingFace)).unwrap();
        let copy = with_new_config(&folder);
        let new = open(copy.path(), None).unwrap();
        assert_eq!(essence(&old.blueprint), essence(&new.blueprint));
        assert_eq!(old.blueprint.eos, new.blueprint.eos);
        let embedding = old.container.tensor("model.embed_tokens.weight").unwrap();
        assert_eq!(embedding.encoding, encoding);
        let output = old.blueprint.tensors().any(|plan| plan.name == "output");
        assert_eq!(old.container.tensor("lm_head.weight").is_some(), output);
    }
}

fn refusal(path: &Path, format: Option<SourceFormat>) -> String {
    open(path, format).err().map(|error| error.to_string()).expect("it is refused")
}

#[test]
fn other_architectures_are_refused_by_name() {
    for name in ["mamba", "t5"] {
        let fields = serde_json::json!({ "model_type": name });
        let error = of_config(Path::new("config.json"), fields.as_object().unwrap());
        let error = error.unwrap_err().to_string();
        assert!(error.contains("model_type") && error.contains(name), "{error}");
    }
    let Some(path) = shared("golden/gguf_kquant/model.gguf") else { return };
    assert!(gguf::Gguf::open(&path).is_ok());
    let error = refusal(&path, Some(SourceFormat::Llama2c));
    assert!(error.contains("found"), "{error}");
}

/// The elements of the first arrays of the .npz file: a zip archive of .npy files.
fn read_npz<const N: usize>(path: &Path) -> [Vec<u8>; N] {
    let file = fs::read(path).unwrap();
    let word = |at: usize| u16::from_le_bytes([file[at], file[at + 1]]) as usize;
    let long = |at: usize| word(at) | word(at + 2) << 16;
    let mut position = 0;
    std::array::from_fn(|_| {
        assert_eq!(&file[position..position + 4], b"PK\x03\x04");
        let extra = position + 30 + word(position + 26);
        let data = extra + word(position + 28);
        // numpy writes zip64: the compressed length is the second number of the extra field.
        position = data + long(extra + 12);
        let npy = miniz_oxide::inflate::decompress_to_vec(&file[data..position]).unwrap();
        let header = 10 + u16::from_le_bytes([npy[8], npy[9]]) as usize;
        npy[header..].to_vec()
    })
}

#[test]
fn quantized_blocks_decode_as_ggml_decodes_them() {
    for (name, encoding) in
        [("Q8_0", Encoding::Q8_0), ("Q4_0", Encoding::Q4_0), ("BF16", Encoding::Bf16)]
    {
        let Some(path) = shared(&format!("refs/gguf_blocks/{name}.npz")) else { return };
        let [raw, expected] = read_npz(&path);
        let mut decoded = vec![0.0; expected.len() / 4];
        encoding.decode(&raw, &mut decoded);
        for (value, expected) in decoded.iter().zip(expected.as_chunks().0) {
            let expected = f32::from_le_bytes(*expected);
            let same =
                value.to_bits() == expected.to_bits() || (value.is_nan() && expected.is_nan());
            assert!(same, "{name}: {value} instead of {expected}");
        }
    }
}
