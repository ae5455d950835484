//! Tokenizers: opened, and a text encoded and decoded.

use crate::split_sized;
use omex::tokenizer::{Spec, compile};
use omex_core::token::{CachedWord, Decoder, EncodeOptions, Symbol, Tokenizer};
use std::path::Path;

/// The length of a text in two bytes, the text, and a compiled section.
pub fn tokenizer(data: &[u8]) {
    let (text, section) = split_sized(data);
    exercise(section, &String::from_utf8_lossy(text));
}

/// A `tokenizer.json`. What compiles also opens, and gives the text back or an error.
pub fn tokenizer_json(data: &[u8]) {
    let spec = Spec::from_hf_bytes(Path::new("tokenizer.json"), data.to_vec());
    spec.iter().for_each(exercise_spec);
}

/// A `tokenizer.model`: SentencePiece's, or tiktoken's ranks.
pub fn tokenizer_model(data: &[u8]) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tokenizer.model");
    std::fs::write(&path, data).unwrap();
    Spec::from_model(&path).iter().for_each(exercise_spec);
}

fn exercise_spec(spec: &Spec) {
    let _ = spec.pair_template();
    let Ok(section) = compile(spec) else { return };
    assert!(Tokenizer::open(section.as_slice()).is_ok());
    exercise(&section, "Hello  wörld's 12345\n\n<s>日本🙂 <|end|>\u{2581}\0");
}

fn exercise(section: &[u8], text: &str) {
    let Ok(mut tokenizer) = Tokenizer::open(section) else { return };
    for symbols in [16, text.len() + 16] {
        let mut scratch = vec![Symbol::EMPTY; symbols];
        let mut ids = vec![];
        for parse_special in [false, true] {
            let options = EncodeOptions { add_special: parse_special, parse_special };
            // Tables that are damaged give an error.
            let _ = tokenizer.encode(text, options, &mut scratch, |id| {
                ids.push(id);
                Ok(())
            });
            let mut cache = [CachedWord::EMPTY; 4];
            let _ = tokenizer.encode_cached(text, options, &mut scratch, &mut cache, |_| Ok(()));
        }
        let mut decoder = Decoder::new(true);
        for id in ids.into_iter().chain([0, u32::MAX]) {
            let _ = tokenizer.decode(&mut decoder, id, &mut |_| {});
        }
        decoder.finish(&mut |_| {});
    }
}
