//! Strings that end a text end it before them, in whatever pieces it comes, alone, in batches and in chats.

use omex::quantize::Precision;
use omex::session::Tables;
use omex::stop::Stops;
use omex_core::token::EncodeOptions;
use omex_tests::{Converted, convert_from, json_of, run_in, shipped_model};
use proptest::prelude::*;
use std::path::Path;
use std::sync::OnceLock;

fn folder() -> &'static Path {
    static MODEL: OnceLock<Converted> = OnceLock::new();
    let make = || convert_from(&shipped_model(), Some(Precision::Int8));
    MODEL.get_or_init(make).folder.path()
}

/// What a run with these arguments says, as JSON.
fn text(more: &[&str]) -> serde_json::Value {
    let all = ["run", "model.omex", "Once upon a time", "--max-tokens", "60", "--json"];
    json_of(&run_in(folder(), &[&all, more].concat()))
}

/// What is told of a text in pieces of so many characters.
fn told(strings: &[String], text: &str, length: usize) -> (String, bool) {
    let mut stops = Stops::new(strings, None).unwrap();
    let mut told = String::new();
    let characters: Vec<_> = text.chars().collect();
    for piece in characters.chunks(length) {
        stops.push(&piece.iter().collect::<String>(), &mut told);
    }
    stops.finish(&mut told);
    (told, stops.reached())
}

/// The same, looked up in the whole text: the string that is complete first counts.
fn cut<'t>(strings: &[String], text: &'t str) -> &'t str {
    let found = strings.iter().filter(|s| !s.is_empty());
    let found = found.filter_map(|s| text.find(s.as_str()).map(|at| (at + s.len(), at)));
    found.min().map_or(text, |(_, at)| &text[..at])
}

proptest! {
    #[test]
    fn pieces_change_nothing(
        strings in prop::collection::vec("[ab é]{0,4}", 0..4),
        text in "[ab é]{0,40}",
        length in 1_usize..9,
    ) {
        let (told, reached) = told(&strings, &text, length);
        prop_assert_eq!(&told, cut(&strings, &text));
        prop_assert_eq!(reached, strings.iter().any(|s| !s.is_empty() && text.contains(s.as_str())));
    }
}

#[test]
fn a_text_ends_before_the_first_string() {
    let whole = text(&[])["text"].as_str().unwrap().to_owned();
    let words: Vec<_> = whole.split(' ').collect();
    let stop = format!("{} {}", words[8], words[9]);
    let said = text(&["--stop", "never said", "--stop", &stop]);
    let (before, _) = whole.split_once(&stop).unwrap();
    assert_eq!(said["text"], before);
    assert!(said["ids"].as_array().unwrap().len() < 60, "{said}");
    // Streamed, too; and a draft writes nothing behind it.
    let plain = ["run", "model.omex", "Once upon a time", "--stop", &stop, "--draft", "none"];
    let streamed = run_in(folder(), &plain);
    assert_eq!(streamed.out, format!("Once upon a time{before}\n"));
    let refused = run_in(folder(), &["run", "model.omex", "Once", "--stop", ""]);
    assert_eq!(refused.code, Some(2), "{refused:?}");
}

#[test]
fn a_batch_ends_texts_as_a_run_does() {
    let alone = text(&["--stop", "day", "--stop", "."]);
    let lines = concat!(
        r#"{"prompt": "Once upon a time", "max_tokens": 60, "stop": ["day", "."]}"#,
        "\n",
        r#"{"prompt": "Once upon a time", "max_tokens": 60}"#,
        "\n"
    );
    std::fs::write(folder().join("prompts.jsonl"), lines).unwrap();
    let args = ["batch", "model.omex", "prompts.jsonl", "-o", "out.jsonl", "--stop", ","];
    let said = run_in(folder(), &args);
    assert_eq!(said.code, Some(0), "{said:?}");
    let output = std::fs::read_to_string(folder().join("out.jsonl")).unwrap();
    let records = output.lines().skip(1).map(|line| serde_json::from_str(line).unwrap());
    let mut records: Vec<serde_json::Value> = records.collect();
    records.sort_by_key(|record| record["line"].as_u64());
    assert_eq!(records[0]["text"], alone["text"]);
    assert_eq!(records[0]["ids"], alone["ids"]);
    assert_eq!(records[0]["finish"], "stop");
    assert_eq!(records[1]["text"], text(&["--stop", ","])["text"]);
}

#[test]
fn a_control_token_ends_a_text_by_its_name() {
    let tables = Tables::open(&folder().join("model.omex")).unwrap();
    let options = EncodeOptions { add_special: false, parse_special: true };
    let spelled = tables.encode("</s>", options, u64::MAX).unwrap();
    let [end] = spelled[..] else { panic!("{spelled:?}") };
    let mut tokenizer = tables.tokenizer().unwrap();
    let strings = ["</s>", "a"].map(str::to_owned);
    let mut stops = Stops::new(&strings, Some(&mut tokenizer)).unwrap();
    for id in (0..end).chain(end + 1..40) {
        stops.see(id);
        assert!(!stops.reached(), "{id}");
    }
    stops.see(end);
    assert!(stops.reached());
}
