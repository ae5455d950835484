//! The image of the core's first example: a model of a few words, each of which leads to the next.
//!
//! After a change of the format: `OMEX_UPDATE_EXAMPLE=1 cargo test -p omex-tests --test example_image`.

use omex::cancel::Cancel;
use omex::pack::{Target, pack};
use omex::package::Package;
use omex::quantize::Precision;
use omex_tests::convert_from;
use std::path::Path;

const UPDATE: &str = "OMEX_UPDATE_EXAMPLE";
/// A column for each word, and more, as blocks have 32.
const WIDTH: usize = 32;
/// Tokens, of which the first three are the unknown word, the beginning and the end.
const WORDS: usize = 11;

/// A Llama whose attention and MLP add nothing: what is embedded for a word reaches the output
/// matrix, in which it is the next word's row. The last word leads to the end.
fn llama2c_file() -> Vec<u8> {
    let next = |token: usize| if token + 1 < WORDS { token + 1 } else { 2 };
    let unit = |at: usize, size: f32| (0..WIDTH).map(move |i| if i == at { size } else { 0.0 });
    let ones = || std::iter::repeat_n(1.0f32, WIDTH);
    let zeros = |count: usize| std::iter::repeat_n(0.0f32, count);
    let square = WIDTH * WIDTH;
    let mut floats: Vec<f32> = (0..WORDS).flat_map(|word| unit(word, 1.0)).collect();
    floats.extend(ones().chain(zeros(4 * square)));
    floats.extend(ones().chain(zeros(3 * square)));
    floats.extend(ones().chain(zeros(POSITIONS * WIDTH)));
    let before = |word: usize| (3..WORDS).find(|token| next(*token) == word);
    floats.extend((0..WORDS).flat_map(|word| unit(before(word).unwrap_or(WIDTH), 8.0)));
    let header = [WIDTH, WIDTH, 1, 1, 1].map(|n| n as i32);
    let header = header.into_iter().chain([-(WORDS as i32), POSITIONS as i32]);
    header.flat_map(i32::to_le_bytes).chain(floats.into_iter().flat_map(f32::to_le_bytes)).collect()
}

const POSITIONS: usize = 16;

#[test]
fn the_examples_image_is_what_pack_makes_today() {
    let folder = tempfile::tempdir().unwrap();
    let source = folder.path().join("words.bin");
    std::fs::write(&source, llama2c_file()).unwrap();
    let model = convert_from(&source, Some(Precision::Int4));
    let target = Target {
        ram: 64 << 10,
        reserve: 0,
        mapped: false,
        page_size: Some(512),
        columns: Some(2),
        context: Some(POSITIONS as u32),
        kv: None,
    };
    let path = folder.path().join("words.img");
    pack(&Package::open(&model.path).unwrap(), &target, &path, &Cancel::default()).unwrap();
    let made = std::fs::read(path).unwrap();
    let kept = Path::new(env!("CARGO_MANIFEST_DIR")).join("../core/tests/words.img");
    if std::env::var_os(UPDATE).is_some() {
        std::fs::write(kept, made).unwrap();
        return;
    }
    let found = std::fs::read(kept).unwrap_or_default();
    assert!(found == made, "core/tests/words.img is out of date: run with {UPDATE}=1");
}
