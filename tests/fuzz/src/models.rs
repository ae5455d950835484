//! Other programs' models: converted, and what comes out is a package without fault.

use crate::{package, split_at_zero, split_sized};
use omex::cancel::Cancel;
use omex::convert::{ConvertOptions, convert};
use omex::import::{SourceFormat, open};
use std::fs;
use std::path::Path;

/// A GGUF file.
pub fn gguf(data: &[u8]) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.gguf");
    fs::write(&path, data).unwrap();
    import(&path, SourceFormat::Gguf);
}

/// `config.json`, a zero byte, and `model.safetensors`.
pub fn hugging_face(data: &[u8]) {
    let (config, weights) = split_at_zero(data);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model");
    fs::create_dir(&path).unwrap();
    fs::write(path.join("config.json"), config).unwrap();
    fs::write(path.join("model.safetensors"), weights).unwrap();
    import(&path, SourceFormat::HuggingFace);
}

/// The length of `tokenizer.bin` in two bytes, `tokenizer.bin` (none if empty), and the model.
pub fn llama2c(data: &[u8]) {
    let (tokenizer, model) = split_sized(data);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.bin");
    if !tokenizer.is_empty() {
        fs::write(folder.path().join("tokenizer.bin"), tokenizer).unwrap();
    }
    fs::write(&path, model).unwrap();
    import(&path, SourceFormat::Llama2c);
}

/// `config.json`, a zero byte, and a checkpoint.
pub fn pytorch(data: &[u8]) {
    let (config, checkpoint) = split_at_zero(data);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.pt");
    fs::write(folder.path().join("config.json"), config).unwrap();
    fs::write(&path, checkpoint).unwrap();
    import(&path, SourceFormat::PyTorch);
}

/// `config.json`, a zero byte, and an ONNX file, beside a file that it may have its numbers in.
pub fn onnx(data: &[u8]) {
    let (config, model) = split_at_zero(data);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.onnx");
    fs::write(folder.path().join("config.json"), config).unwrap();
    fs::write(folder.path().join(ONNX_DATA), [0x3c; 4096]).unwrap();
    fs::write(&path, model).unwrap();
    import(&path, SourceFormat::Onnx);
}

/// A graph of TensorFlow Lite.
pub fn tflite(data: &[u8]) {
    graph(data, "graph.tflite", SourceFormat::Tflite);
}

/// A graph over arrays in ONNX.
pub fn onnx_graph(data: &[u8]) {
    graph(data, "graph.onnx", SourceFormat::Onnx);
}

fn graph(data: &[u8], name: &str, format: SourceFormat) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(name);
    fs::write(&path, data).unwrap();
    import(&path, format);
}

/// The file beside an ONNX file.
pub(crate) const ONNX_DATA: &str = "model.onnx_data";

fn import(path: &Path, format: SourceFormat) {
    // Both may fail; they must not panic.
    let _ = omex::import::detect(path);
    let Ok(source) = open(path, Some(format)) else { return };
    let output = path.with_extension("omex");
    let converted = convert(
        &*source,
        &format.to_string(),
        "fuzz",
        &output,
        &ConvertOptions::default(),
        &mut |_, _| {},
    );
    // The package is there, or nothing is.
    assert_eq!(converted.is_ok(), output.exists());
    let mut beside = fs::read_dir(path.parent().unwrap()).unwrap().flatten();
    assert!(!beside.any(|e| e.file_name().to_string_lossy().ends_with(".partial")));
    if converted.is_ok() {
        let report =
            omex::package::validate::validate(&output, &Cancel::default(), &mut |_| {}).unwrap();
        assert!(report.problems.is_empty(), "{:?}", report.problems);
        package::run(&output);
    }
}
