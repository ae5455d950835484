//! One function for each thing that OMEX parses, and one for what it plays: it takes any bytes, and returns.
//!
//! A target that panics has found a fault. `fuzz_targets/` hands these functions to libFuzzer, and
//! `tests/replay.rs` runs them on the seeds without it.

mod chat;
mod image;
mod models;
mod package;
mod program;
pub mod seeds;
mod tokenizers;

pub use chat::{answer, chat_template};
pub use image::image;
pub use models::{gguf, hugging_face, llama2c, onnx, onnx_graph, pytorch, tflite};
pub use package::package;
pub use program::program;
pub use tokenizers::{tokenizer, tokenizer_json, tokenizer_model};

/// A target.
pub type Target = fn(&[u8]);

/// All targets by name.
pub const TARGETS: [(&str, Target); 15] = [
    ("image", image),
    ("tokenizer", tokenizer),
    ("package", package),
    ("gguf", gguf),
    ("hugging_face", hugging_face),
    ("llama2c", llama2c),
    ("pytorch", pytorch),
    ("onnx", onnx),
    ("tokenizer_json", tokenizer_json),
    ("tokenizer_model", tokenizer_model),
    ("chat_template", chat_template),
    ("answer", answer),
    ("program", program),
    ("tflite", tflite),
    ("onnx_graph", onnx_graph),
];

/// Splits `data` behind its first zero byte; JSON has none.
fn split_at_zero(data: &[u8]) -> (&[u8], &[u8]) {
    match data.iter().position(|byte| *byte == 0) {
        Some(zero) => (&data[..zero], &data[zero + 1..]),
        None => (data, &[]),
    }
}

/// Splits a piece off `data` whose length is its first two bytes.
fn split_sized(data: &[u8]) -> (&[u8], &[u8]) {
    let Some((length, rest)) = data.split_first_chunk() else { return (&[], &[]) };
    rest.split_at(usize::from(u16::from_le_bytes(*length)).min(rest.len()))
}
