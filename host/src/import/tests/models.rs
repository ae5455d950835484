//! Trained and random models, with references from the programs that wrote them. They are not
//! part of the repository: without them these tests print that they are skipped.

use crate::import::{Checkpoint, Encoding, LlamaConfig, SourceFormat, TokenizerSource, gguf, open};
use std::{
    fs,
    path::{Path, PathBuf},
};

fn shared(path: &str) -> Option<PathBuf> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared").join(path);
    if !path.exists() {
        println!("skipped: there is no {}", path.display());
        return None;
    }
    Some(path)
}

fn load(path: &str) -> Option<Box<dyn Checkpoint>> {
    shared(path).map(|path| open(&path, None).unwrap_or_else(|e| panic!("{e}")))
}

fn row(model: &dyn Checkpoint, name: &str, row: u32) -> Vec<f32> {
    let mut out = vec![0.0; model.tensor(name).unwrap().columns as usize];
    model.read_row(name, row, &mut out).unwrap();
    out
}

/// The largest difference between the models, relative to the largest number of the row.
fn difference(a: &dyn Checkpoint, b: &dyn Checkpoint) -> f32 {
    let mut worst = 0.0f32;
    for tensor in a.config().tensors() {
        for i in 0..tensor.rows {
            let (a, b) = (row(a, &tensor.name, i), row(b, &tensor.name, i));
            let largest = a.iter().fold(0.0f32, |max, x| max.max(x.abs()));
            for (a, b) in a.iter().zip(&b) {
                worst = worst.max((a - b).abs() / largest);
            }
        }
    }
    worst
}

#[test]
fn a_model_is_the_same_from_every_format() {
    for (bin, name) in
        [("stories260K/stories260K.bin", "stories260K"), ("llama2xs/model.bin", "llama2xs")]
    {
        let Some(bin) = load(&format!("models/{bin}")) else { return };
        let hf = load(&format!("models/{name}-hf")).unwrap();
        let gguf = load(&format!("models/{name}-gguf/{name}-f32.gguf")).unwrap();
        assert_eq!(hf.config(), gguf.config());
        assert_eq!(hf.config(), &LlamaConfig { eos: vec![2], ..bin.config().clone() });
        assert_eq!(difference(&*hf, &*bin), 0.0);
        assert_eq!(difference(&*hf, &*gguf), 0.0);
        // Half a step of the format, and what rounding the scale to f16 adds; Q4_0 has no step 8.
        let f16 = 1.0 / 2048.0;
        for (kind, tolerance) in [
            ("f16", f16),
            ("bf16", 1.0 / 256.0),
            ("q8_0", 1.0 / 254.0 + f16),
            ("q4_0", 1.0 / 8.0 + f16),
        ] {
            let other = load(&format!("models/{name}-gguf/{name}-{kind}.gguf")).unwrap();
            let difference = difference(&*hf, &*other);
            assert!(difference > 0.0 && difference <= tolerance, "{kind}: {difference}");
        }
    }
}

#[test]
fn stored_rows_decode_to_the_rows_read() {
    let Some(model) = load("models/stories260K-gguf/stories260K-q4_0.gguf") else { return };
    let mut encodings = Vec::new();
    for tensor in model.config().tensors() {
        let info = model.tensor(&tensor.name).unwrap();
        encodings.push(info.encoding);
        for i in 0..info.rows {
            let (mut bytes, mut decoded) = (Vec::new(), vec![0.0; info.columns as usize]);
            model.read_row_bytes(&tensor.name, i, &mut bytes).unwrap();
            info.encoding.decode(&bytes, &mut decoded);
            assert_eq!(decoded, row(&*model, &tensor.name, i));
        }
    }
    assert!(encodings.contains(&Encoding::Q4_0) && encodings.contains(&Encoding::F16));
}

#[test]
fn tokenizers_are_found() {
    let Some(model) = load("models/stories260K/stories260K.bin") else { return };
    let Some(TokenizerSource::Llama2c(path)) = model.tokenizer() else { panic!() };
    assert!(path.ends_with("tok512.bin"));
    let model = load("models/stories260K-gguf/stories260K-f32.gguf").unwrap();
    let Some(TokenizerSource::Gguf(vocabulary)) = model.tokenizer() else { panic!() };
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
        assert_eq!(old.config(), new.config());
        assert_eq!(old.tensor("model.embed_tokens.weight").unwrap().encoding, encoding);
        assert_eq!(old.tensor("lm_head.weight").is_none(), old.config().tied_embeddings);
    }
}

#[test]
fn other_architectures_are_refused_by_name() {
    for name in ["bert", "gemma2", "gpt2", "granite", "mistral_sw", "mixtral", "phi3", "qwen3"] {
        let Some(folder) = shared(&format!("golden/{name}")) else { return };
        let error = open(&folder, None).unwrap_err().to_string();
        let kind = name.trim_end_matches("_sw");
        assert!(error.contains("model_type") && error.contains(kind), "{error}");
    }
    let Some(path) = shared("golden/gguf_kquant/model.gguf") else { return };
    let error = open(&path, None).unwrap_err().to_string();
    assert!(error.contains("_K") && error.contains("Q8_0 or Q4_0"), "{error}");
    assert!(gguf::Gguf::open(&path).is_ok());
    let error = open(&path, Some(SourceFormat::Llama2c)).unwrap_err().to_string();
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
