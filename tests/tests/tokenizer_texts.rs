//! Ids and text are those of Hugging Face's `tokenizers`, on 10 MB of text of every kind.
//!
//! `tests/tokenizer_ids.py` recorded checksums of what it makes of the texts.

use flate2::Crc;
use flate2::read::GzDecoder;
use omex::tokenizer::{Spec, compile, encode};
use omex_core::token::{Decoder, EncodeOptions, Tokenizer};
use omex_tests::{json, mixed_texts, require_shared};
use serde_json::Value;
use std::fs;
use std::io::Read;
use std::path::Path;

/// The tokenizer of a record's entry: one beside the repository, some of whose parts are others.
fn section(folder: &Path, entry: &Value) -> Vec<u8> {
    let folder = folder.join(entry["base"].as_str().unwrap());
    let plain = folder.join("tokenizer.json");
    let packed = fs::read(&plain).or_else(|_| fs::read(folder.join("tokenizer.json.gz"))).unwrap();
    let mut text = packed.clone();
    if packed.starts_with(&[0x1F, 0x8B]) {
        text.clear();
        GzDecoder::new(packed.as_slice()).read_to_end(&mut text).unwrap();
    }
    if let Some(parts) = entry["parts"].as_object() {
        let mut file: Value = serde_json::from_slice(&text).unwrap();
        file.as_object_mut().unwrap().extend(parts.clone());
        text = file.to_string().into_bytes();
    }
    compile(&Spec::from_hf_bytes(&plain, text).unwrap()).unwrap()
}

fn sum(bytes: impl IntoIterator<Item = u8>) -> u32 {
    let mut crc = Crc::new();
    crc.update(&bytes.into_iter().collect::<Vec<u8>>());
    crc.sum()
}

fn decoded(tokenizer: &mut Tokenizer<&[u8]>, ids: &[u32]) -> String {
    let (mut decoder, mut text) = (Decoder::new(true), String::new());
    for &id in ids {
        tokenizer.decode(&mut decoder, id, &mut |part| text.push_str(part)).unwrap();
    }
    decoder.finish(&mut |part| text.push_str(part));
    text
}

/// Where a tokenizer's ids or text differ from the record.
fn differences(name: &str, section: &[u8], entry: &Value, texts: &[String]) -> Vec<String> {
    let mut tokenizer = Tokenizer::open(section).unwrap();
    let sums = entry["sums"].as_array().unwrap();
    assert_eq!(sums.len(), texts.len());
    let mut different = vec![];
    for ((text, expected), number) in texts.iter().zip(sums).zip(0..) {
        let ids = encode(&mut tokenizer, text, EncodeOptions::default()).unwrap();
        let said = sum(decoded(&mut tokenizer, &ids).into_bytes());
        let found = [sum(ids.into_iter().flat_map(u32::to_le_bytes)), said];
        let expected = expected.as_str().unwrap();
        for (what, found, expected) in
            [("ids", found[0], &expected[..8]), ("decoded text", found[1], &expected[8..])]
        {
            if format!("{found:08x}") != expected {
                different.push(format!("{name}: {what} of text {number}"));
            }
        }
    }
    different
}

#[test]
fn mixed_text_has_the_ids_of_the_reference() {
    let folder = require_shared!("models/tokenizers");
    let record = json(&Path::new(env!("CARGO_MANIFEST_DIR")).join("tokenizer_ids.json"));
    let texts: Vec<String> = mixed_texts().collect();
    let mut different = vec![];
    for (name, entry) in record["tokenizers"].as_object().unwrap() {
        different.extend(differences(name, &section(&folder, entry), entry, &texts));
    }
    assert!(different.is_empty(), "{} differ:\n{}", different.len(), different.join("\n"));
}
