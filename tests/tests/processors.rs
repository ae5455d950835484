//! A package's preprocessors and formatters, as the commands run and check them.

use omex::quantize::Precision;
use omex_tests::{Converted, Finished, convert_from, json_of, omex, run, run_in, shipped_model};
use serde_json::{Value, json};
use std::fs;
use std::path::Path;

const TEXT: &str = "preprocessors/text_preprocessor.json";
const FORMAT: &str = "postprocessors/text_formatter.json";

fn model() -> Converted {
    convert_from(&shipped_model(), Some(Precision::Int8))
}

fn write(package: &Path, name: &str, value: &Value) {
    let file = package.join(name);
    fs::create_dir_all(file.parent().unwrap()).unwrap();
    fs::write(file, value.to_string()).unwrap();
}

fn steps(steps: &Value) -> Value {
    json!({"format": 1, "steps": steps})
}

fn said(package: &Path, prompt: &str, more: &[&str]) -> Finished {
    let all = ["run", package.to_str().unwrap(), prompt, "--max-tokens", "20"];
    run(&mut omex([&all, more].concat()))
}

/// What the model writes, as JSON.
fn written(package: &Path, prompt: &str, more: &[&str]) -> Value {
    json_of(&said(package, prompt, &[more, &["--json"]].concat()))
}

#[test]
fn what_the_package_has_is_run_unless_told_otherwise() {
    let model = model();
    let plain = written(&model.path, "Once upon a time", &[]);
    let template = "Once upon {{ text }}";
    write(
        &model.path,
        TEXT,
        &steps(&json!([{"step": "trim"}, {"step": "template", "template": template}])),
    );
    assert_eq!(written(&model.path, "  a time\n", &[])["ids"], plain["ids"]);
    let raw = ["--no-preprocess"];
    assert_eq!(written(&model.path, "Once upon a time", &raw)["ids"], plain["ids"]);
    write(&model.path, FORMAT, &json!({"format": 1, "trim": true, "stop": ["."]}));
    let text = plain["text"].as_str().unwrap();
    let until = text.split('.').next().unwrap().trim();
    assert_eq!(written(&model.path, "a time", &[])["text"], until);
    assert_eq!(said(&model.path, "a time", &[]).out, format!("{until}\n"));
    let unformatted = said(&model.path, "a time", &["--no-format"]);
    assert_eq!(unformatted.out, format!("Once upon a time{text}\n"));
    let valid = run(&mut omex(["validate", model.path.to_str().unwrap()]));
    assert_eq!(valid.code, Some(0), "{valid:?}");
}

#[test]
fn files_and_names_choose_others() {
    let model = model();
    let folder = model.folder.path();
    let upper = steps(&json!([{"step": "template", "template": "{{ text | upper }}"}]));
    write(&model.path, "preprocessors/loud_preprocessor.json", &upper);
    fs::write(folder.join("loud.json"), upper.to_string()).unwrap();
    let loud = written(&model.path, "THE SEA", &[]);
    let file = folder.join("loud.json");
    for name in ["loud", file.to_str().unwrap()] {
        let found = written(&model.path, "the sea", &["--preprocessor", name]);
        assert_eq!(found["ids"], loud["ids"], "{name}");
    }
    let unknown = said(&model.path, "a", &["--preprocessor", "quiet"]);
    assert!(
        unknown.code == Some(2) && unknown.err.contains("no preprocessor of that name"),
        "{unknown:?}"
    );
    let unknown = said(&model.path, "a", &["--formatter", "html"]);
    assert!(unknown.code == Some(2) && unknown.err.contains("plain, markdown"), "{unknown:?}");
    let none = said(&model.path, "a", &["--formatter", "json", "--json"]);
    assert!(none.code == Some(1) && none.err.contains("--json-schema"), "{none:?}");
    let kind: Value = serde_json::from_str(&none.out).unwrap();
    assert_eq!(kind["error"]["kind"], "format");
}

#[test]
fn a_prompt_that_is_too_long_becomes_several() {
    let model = model();
    let paragraph =
        "Once upon a time, a clever robot called Nell lived by the sea. She was kind.\n\n";
    let text = paragraph.repeat(20);
    let cut = ["--chunk", "paragraphs", "--context", "128", "--strict", "--max-tokens", "8"];
    let all = ["run", model.path.to_str().unwrap(), &text, "--json"];
    let found = json_of(&run(&mut omex([&all[..], &cut].concat())));
    let parts = found["parts"].as_array().unwrap();
    assert!(parts.len() > 2, "{found}");
    let texts: Vec<_> = parts.iter().map(|part| part["text"].as_str().unwrap()).collect();
    assert_eq!(found["text"], texts.join("\n\n"));
    // Each is what its part gives alone, and the parts begin with paragraphs.
    let streamed = run(&mut omex([&all[..3], &cut].concat()));
    assert_eq!(streamed.code, Some(0), "{streamed:?}");
    let starts = streamed.out.matches(paragraph.trim_end()).count();
    assert_eq!(starts, 20, "{}", streamed.out);
    let whole = run(&mut omex([&all[..3], &cut[2..]].concat()));
    assert!(whole.code == Some(2) && whole.err.contains("--strict"), "{whole:?}");
    let session = model.folder.path().join("x.session");
    let kept = [&all[..3], &cut, &["--session", session.to_str().unwrap()]].concat();
    let refused = run(&mut omex(kept));
    assert!(refused.code == Some(2) && refused.err.contains("--session"), "{refused:?}");
}

#[test]
fn batches_prepare_and_format_as_runs_do() {
    let model = model();
    write(
        &model.path,
        TEXT,
        &steps(&json!([{"step": "trim"}, {"step": "chunk", "by": "paragraphs", "max_tokens": 12}])),
    );
    write(&model.path, FORMAT, &json!({"format": 1, "as": "plain", "stop": ["."]}));
    let folder = model.folder.path();
    let long = "The sea was blue and warm and deep. ".repeat(4);
    let lines = [json!({"prompt": "  The robot  "}), json!({"prompt": long})];
    fs::write(folder.join("in.jsonl"), lines.map(|line| format!("{line}\n")).concat()).unwrap();
    let name = model.path.file_name().unwrap().to_str().unwrap();
    let batch =
        run_in(folder, &["batch", name, "in.jsonl", "-o", "out.jsonl", "--max-tokens", "20"]);
    assert_eq!(batch.code, Some(1), "{batch:?}");
    let output = fs::read_to_string(folder.join("out.jsonl")).unwrap();
    let mut records: Vec<Value> =
        output.lines().skip(1).map(|line| serde_json::from_str(line).unwrap()).collect();
    records.sort_by_key(|record| record["line"].as_u64());
    assert_eq!(records[0]["text"], written(&model.path, "The robot", &[])["text"]);
    assert!(records[1]["error"].as_str().unwrap().contains("prompts of this one"), "{records:?}");
}

#[test]
fn templates_take_the_day_that_is_given() {
    let model = model();
    let template =
        json!([{"step": "template", "template": "{{ strftime_now('%Y-%m-%d') }} {{ text }}"}]);
    write(&model.path, TEXT, &steps(&template));
    let folder = model.folder.path();
    fs::write(folder.join("in.jsonl"), format!("{}\n", json!({"prompt": "The sea"}))).unwrap();
    let name = model.path.file_name().unwrap().to_str().unwrap();
    let batch = |date: &str| {
        let all = ["batch", name, "in.jsonl", "-o", "out.jsonl", "--date", date];
        run_in(folder, &[&all[..], &["--max-tokens", "20"]].concat())
    };
    let said = batch("2026-07-04");
    assert_eq!(said.code, Some(0), "{said:?}");
    let output = fs::read_to_string(folder.join("out.jsonl")).unwrap();
    let record: Value = serde_json::from_str(output.lines().nth(1).unwrap()).unwrap();
    let alone = ["--no-preprocess"];
    assert_eq!(record["ids"], written(&model.path, "2026-07-04 The sea", &alone)["ids"]);
    let other = batch("2026-07-05");
    assert!(other.code == Some(1) && other.err.contains("date"), "{other:?}");
    fs::write(folder.join("chat.jinja"), "{{ messages[0].content }}").unwrap();
    let chat = |prompt: &str, more: &[&str]| {
        let all = ["run", name, prompt, "--chat", "--template", "chat.jinja", "--json"];
        json_of(&run_in(folder, &[&all[..], &["--max-tokens", "8"], more].concat()))["ids"].clone()
    };
    let prepared = chat("The sea", &["--date", "2026-07-04"]);
    assert_eq!(prepared, chat("2026-07-04 The sea", &["--no-preprocess"]));
}

#[test]
fn files_that_are_wrong_are_found_before_they_are_run() {
    let model = model();
    let validated = || run(&mut omex(["validate", model.path.to_str().unwrap(), "--json"]));
    for (file, value, word) in [
        (TEXT, steps(&json!([{"step": "sing"}])), "sing"),
        (TEXT, steps(&json!([{"step": "trim", "form": "nfc"}])), "form"),
        (TEXT, json!({"format": 2, "steps": []}), "format"),
        (TEXT, steps(&json!([{"step": "template", "template": "{% if %}"}])), "steps[0].template"),
        (TEXT, steps(&json!([{"step": "chunk", "by": "words"}])), "words"),
        (
            TEXT,
            steps(&json!([{"step": "chunk", "by": "code"}, {"step": "chunk", "by": "code"}])),
            "one at most",
        ),
        (
            TEXT,
            steps(&json!([{"step": "chunk", "by": "code", "max_tokens": 9, "overlap_tokens": 5}])),
            "half",
        ),
        (TEXT, steps(&json!(vec![json!({"step": "trim"}); 33])), "at most 32"),
        (FORMAT, json!({"format": 1, "as": "html"}), "html"),
        (FORMAT, json!({"format": 1, "stop": [""]}), "stop"),
        (FORMAT, json!({"format": 1, "colour": 1}), "colour"),
    ] {
        write(&model.path, file, &value);
        let report = validated();
        assert!(report.code == Some(1) && report.out.contains(word), "{value}: {report:?}");
        let refused = said(&model.path, "a", &[]);
        assert!(refused.code == Some(1) && refused.err.contains(word), "{value}: {refused:?}");
        fs::remove_file(model.path.join(file)).unwrap();
    }
    assert_eq!(validated().code, Some(0));
}

#[test]
fn a_checksum_is_checked_where_there_is_one() {
    let model = model();
    write(&model.path, TEXT, &steps(&json!([{"step": "trim"}])));
    let file = model.path.join("metadata.json");
    let text = fs::read_to_string(&file).unwrap();
    let listed =
        text.replacen("\"files\": {", &format!("\"files\": {{\n    \"{TEXT}\": \"00000000\","), 1);
    assert_ne!(listed, text);
    fs::write(&file, listed).unwrap();
    let renewed = run(&mut omex(["validate", model.path.to_str().unwrap(), "--renew-checksums"]));
    assert_eq!(renewed.code, Some(0), "{renewed:?}");
    assert_eq!(said(&model.path, " a", &[]).code, Some(0));
    let valid = || run(&mut omex(["validate", model.path.to_str().unwrap()]));
    fs::rename(model.path.join(TEXT), model.path.join("aside.json")).unwrap();
    let lost = valid();
    assert!(lost.code == Some(1) && lost.err.contains(TEXT), "{lost:?}");
    write(&model.path, TEXT, &steps(&json!([{"step": "lowercase"}])));
    let damaged = said(&model.path, " a", &[]);
    assert!(damaged.code == Some(1) && damaged.err.contains("crc32c"), "{damaged:?}");
}
