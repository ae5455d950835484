//! Bytes of text a second through the tokenizers, as a prompt takes them: English, code, and text made to be slow.

use criterion::{Criterion, SamplingMode, Throughput, criterion_group, criterion_main};
use flate2::read::GzDecoder;
use omex::tokenizer::{Spec, compile, encode};
use omex_core::token::{EncodeOptions, Tokenizer};
use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Bytes of a text.
const SIZE: usize = 1_000_000;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// All the files with this ending below a folder, one after another, as often as it takes.
fn files(folder: &str, ending: &str) -> String {
    let (mut folders, mut found) = (vec![root().join(folder)], vec![]);
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|found| found == ending) {
                found.push(path);
            }
        }
    }
    found.sort();
    let text: String = found.iter().map(|path| fs::read_to_string(path).unwrap()).collect();
    repeated(&text)
}

fn repeated(text: &str) -> String {
    text.chars().cycle().take(SIZE).collect()
}

/// Names and sections of the vocabularies: the repository's own, and those beside it.
fn vocabularies() -> Vec<(&'static str, Vec<u8>)> {
    let shared = |name: &str| root().join("../shared/models/tokenizers").join(name);
    let mut sections = vec![];
    for (name, path) in [
        ("tiny-stories", root().join("models/tiny-stories/tokenizer.json")),
        ("gpt2", shared("gpt2/tokenizer.json")),
        ("llama3", shared("llama3/tokenizer.json.gz")),
        ("llama2", shared("llama2/tokenizer.json")),
    ] {
        let Ok(mut json) = fs::read(&path) else {
            println!("skipped: {} is absent", path.display());
            continue;
        };
        if path.extension().is_some_and(|ending| ending == "gz") {
            let packed = std::mem::take(&mut json);
            GzDecoder::new(packed.as_slice()).read_to_end(&mut json).unwrap();
        }
        sections.push((name, compile(&Spec::from_hf_bytes(&path, json).unwrap()).unwrap()));
    }
    sections
}

fn tokenizers(criterion: &mut Criterion) {
    let texts = [
        ("english", files("docs", "md")),
        ("code", files("core", "rs")),
        ("one letter", repeated("a")),
        ("spaces", repeated(" ")),
        ("digits", repeated("1234567890")),
        ("beyond ASCII", repeated("Straße, κόσμος, こんにちは世界🙂 ")),
    ];
    for (name, section) in vocabularies() {
        let mut tokenizer = Tokenizer::open(section.as_slice()).unwrap();
        let mut group = criterion.benchmark_group(name);
        group.sampling_mode(SamplingMode::Flat);
        for (kind, text) in &texts {
            group.throughput(Throughput::Bytes(text.len() as u64));
            group.bench_function(*kind, |bencher| {
                bencher.iter(|| encode(&mut tokenizer, text, EncodeOptions::default()).unwrap());
            });
        }
        group.finish();
    }
}

/// Few and short measurements.
fn quick() -> Criterion {
    Criterion::default()
        .sample_size(10)
        .nresamples(1000)
        .warm_up_time(Duration::from_millis(200))
        .measurement_time(Duration::from_millis(500))
}

criterion_group! { name = benches; config = quick(); targets = tokenizers }
criterion_main!(benches);
