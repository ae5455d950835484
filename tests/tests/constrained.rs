//! A text keeps to the rule that it was given, however tokens are drawn; and drafts change none of it.

use omex::Result;
use omex::cancel::Cancel;
use omex::constrain::{Constraint, Rule};
use omex::draft::{Drafter, Drafting, Recorded};
use omex::generate::{Generated, Request, generate};
use omex::mask::Mask;
use omex::quantize::Precision;
use omex::session::{Session, SessionOptions, Tables};
use omex_core::draft::Drafted;
use omex_core::sample::Sampling;
use omex_tests::{Converted, convert_from, omex, run, run_with, shared, shipped_model};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};

const WIDTH: usize = 7;

/// Models that write stories, of which the second needs the test data.
fn models() -> Vec<Converted> {
    let stories = shared("models/stories260K-gguf/stories260K-f32.gguf");
    if stories.is_none() {
        println!("skipped: the test data models/stories260K-gguf are not beside the repository");
    }
    let models = [Some(shipped_model()), stories];
    models.into_iter().flatten().map(|path| convert_from(&path, Some(Precision::Int8))).collect()
}

fn written(folder: &Path, name: &str, text: &str) -> PathBuf {
    let path = folder.join(name);
    std::fs::write(&path, text).unwrap();
    path
}

fn schema() -> Value {
    json!({
        "type": "object",
        "properties": {
            "name": { "type": "string", "maxLength": 12 },
            "age": { "type": "integer", "minimum": 0, "maximum": 120 },
            "tags": { "type": "array", "items": { "$ref": "#/$defs/color" }, "maxItems": 3 },
            "friend": { "type": ["string", "null"], "pattern": "^[A-Z][a-z]{1,8}$" },
        },
        "required": ["name", "age", "tags"],
        "additionalProperties": false,
        "$defs": { "color": { "enum": ["red", "green", "blue"] } },
    })
}

/// What a reader of the schema would check.
fn keeps_to_schema(text: &str) {
    let value: Value = serde_json::from_str(text).unwrap_or_else(|e| panic!("{e}: {text}"));
    let fields = value.as_object().unwrap();
    let known = ["name", "age", "tags", "friend"];
    assert!(fields.keys().all(|key| known.contains(&key.as_str())), "{text}");
    assert!(value["name"].as_str().unwrap().chars().count() <= 12, "{text}");
    assert!(value["age"].as_u64().unwrap() <= 120, "{text}");
    let tags = value["tags"].as_array().unwrap();
    let is_color = |tag: &Value| ["red", "green", "blue"].contains(&tag.as_str().unwrap());
    assert!(tags.len() <= 3 && tags.iter().all(is_color), "{text}");
    let friend = fields.get("friend").is_none_or(|friend| {
        friend.as_str().is_none_or(|name| name.starts_with(|c: char| c.is_ascii_uppercase()))
    });
    assert!(friend, "{text}");
}

fn samplings() -> Vec<Sampling> {
    let warm = |seed| Sampling { temperature: 0.8, top_p: 0.95, seed, ..Sampling::GREEDY };
    let hot =
        |seed| Sampling { temperature: 2.0, repetition_penalty: 1.3, seed, ..Sampling::GREEDY };
    let few = Sampling { temperature: 1.0, top_k: 1, min_p: 0.5, seed: 7, ..Sampling::GREEDY };
    let mut all = vec![Sampling::GREEDY, few];
    all.extend((1..5).flat_map(|seed| [warm(seed), hot(seed)]));
    all
}

fn open(model: &Path) -> Session {
    let logit_columns = 1 + WIDTH as u32;
    let options = SessionOptions { threads: Some(1), logit_columns, ..SessionOptions::default() };
    Session::open(model, &options).unwrap()
}

fn constraint(model: &Path, rule: &Rule) -> Result<Constraint> {
    Constraint::new(rule, &Tables::open(model)?)
}

/// A text behind a prompt, and whether it keeps to its rule as a whole.
fn text(
    session: &mut Session,
    drafter: Option<Drafter<'_>>,
    constraint: &mut Constraint,
    sampling: Sampling,
) -> (Generated, bool) {
    let (model, prompt) = (session.model(), session.encode("Once upon a time").unwrap());
    let mut engine = session.engine().unwrap();
    constraint.restart().unwrap();
    let request = Request {
        saved: None,
        prompt: &prompt,
        max_tokens: 200,
        sampling,
        mask: Some(constraint),
        stop: &[],
        cancel: Cancel::default(),
    };
    let drafting = Drafting::new(drafter, WIDTH, &model);
    let made = generate(&model, &mut engine, request, drafting, &mut |_| Ok(())).unwrap();
    (made, constraint.is_complete())
}

#[test]
fn any_sampling_writes_what_the_schema_asks_for_and_drafts_change_none_of_it() {
    for model in models() {
        let file = written(model.folder.path(), "schema.json", &schema().to_string());
        let mut constraint = constraint(&model.path, &Rule::JsonSchema(file)).unwrap();
        let mut session = open(&model.path);
        let vocabulary = session.program().unwrap().header().vocab_size;
        for sampling in samplings() {
            let (plain, is_complete) = text(&mut session, None, &mut constraint, sampling);
            assert!(is_complete, "{}", plain.text);
            keeps_to_schema(&plain.text);
            let looked_up = Some(Drafter::LookUp);
            let (drafted, _) = text(&mut session, looked_up, &mut constraint, sampling);
            assert_eq!((&drafted.ids, &drafted.text), (&plain.ids, &plain.text), "{sampling:?}");
            let recorded = Recorded::new(plain.ids.clone(), 5, 0.6, vocabulary);
            let recorded = Some(Drafter::Recorded(recorded));
            let (drafted, _) = text(&mut session, recorded, &mut constraint, sampling);
            assert_eq!((&drafted.ids, &drafted.text), (&plain.ids, &plain.text), "{sampling:?}");
        }
    }
}

#[test]
fn expressions_and_grammars_hold_for_the_whole_text() {
    for model in models() {
        let mut session = open(&model.path);
        let answer = Rule::Regex(" (yes|no|[0-9]{3})".into());
        let mut answer = constraint(&model.path, &answer).unwrap();
        let grammar = "start: (\" and \" NAME)+ \".\"\nNAME: /[A-Z][a-z]{2,6}/\n";
        let grammar = Rule::Grammar(written(model.folder.path(), "names.lark", grammar));
        let mut names = constraint(&model.path, &grammar).unwrap();
        for sampling in samplings() {
            let (made, is_complete) = text(&mut session, None, &mut answer, sampling);
            let said = made.text.strip_prefix(' ').unwrap_or(&made.text);
            let is_number = said.len() == 3 && said.bytes().all(|byte| byte.is_ascii_digit());
            assert!(is_complete && (["yes", "no"].contains(&said) || is_number), "{said:?}");
            let (made, is_complete) = text(&mut session, None, &mut names, sampling);
            // One that is cut off is the beginning of one that is not.
            let list = made.text.strip_suffix('.').filter(|_| is_complete).unwrap_or(&made.text);
            assert_eq!(is_complete, made.text.ends_with('.'), "{}", made.text);
            for name in list.trim_start().trim_start_matches("and ").split(" and ") {
                let is_name = |name: &str| name.bytes().all(|byte| byte.is_ascii_alphabetic());
                assert!(!is_complete || is_name(name) && name.len() >= 3, "{}", made.text);
            }
        }
    }
}

#[test]
fn guesses_that_the_rule_forbids_are_dropped_with_those_behind_them() {
    let model = convert_from(&shipped_model(), Some(Precision::Int8));
    let session = open(&model.path);
    let id = |text: &str| *session.encode(text).unwrap().last().unwrap();
    let mut constraint = constraint(&model.path, &Rule::Regex("aab*c".into())).unwrap();
    let [a, b, c] = ["aa", "ab", "ac"].map(id);
    let tree = |nodes: &[(u32, u32)]| -> Vec<Drafted> {
        nodes.iter().map(|&(token, depth)| Drafted { token, depth }).collect()
    };
    let mut draft =
        tree(&[(a, 1), (c, 2), (a, 3), (a, 2), (b, 3), (c, 4), (a, 5), (c, 3), (b, 1), (b, 2)]);
    constraint.prune(&mut draft).unwrap();
    assert_eq!(draft, tree(&[(a, 1), (a, 2), (b, 3), (c, 4), (c, 3)]));
    // Looking at guesses goes on with none of them.
    let mut logits = vec![0.0; session.program().unwrap().header().vocab_size as usize];
    assert!(constraint.apply(&mut logits).unwrap());
    assert!(logits[a as usize] == 0.0 && logits[b as usize] == f32::NEG_INFINITY);
    assert!(session.program().unwrap().stop_tokens().all(|stop| logits[stop as usize] < 0.0));
}

#[test]
fn what_is_no_rule_is_refused_by_file_and_place() {
    let model = convert_from(&shipped_model(), Some(Precision::Int8));
    let folder = model.folder.path();
    let nested = json!({ "type": "object", "$defs": { "d": {} }, "properties": { "a": {
        "type": "array", "items": { "anyOf": [{ "$ref": "#/$defs/d" }, { "type": "strin" }] } } } });
    let cases: [(&str, &str, String, &[&str]); 6] = [
        ("--json-schema", "a.json", "{ \"type\":\n }".into(), &["a.json: line 2, column 2"]),
        (
            "--json-schema",
            "b.json",
            nested.to_string(),
            &["b.json: #/properties/a/items/anyOf/1", "strin"],
        ),
        ("--json-schema", "c.json", "[1]".into(), &["c.json: #: "]),
        (
            "--json-schema",
            "d.json",
            r#"{"type": "string", "minLength": 3, "maxLength": 1}"#.into(),
            &["d.json: #: "],
        ),
        (
            "--grammar",
            "e.lark",
            "start: \"a\" b\n".into(),
            &["e.lark", "1(", "unknown name: \"b\""],
        ),
        ("--grammar", "none.lark", String::new(), &["none.lark: cannot read"]),
    ];
    for (option, name, text, expected) in cases {
        if !text.is_empty() {
            written(folder, name, &text);
        }
        let said = run(omex(["run", "model.omex", "A", option, name]).current_dir(folder));
        assert_eq!((said.code, said.out.as_str()), (Some(1), ""), "{said:?}");
        assert!(expected.iter().all(|part| said.err.contains(part)), "{said:?}");
        assert_eq!(said.err.lines().count(), 1, "{said:?}");
    }
    let said = run(omex(["run", "model.omex", "A", "--regex", "[a-z"]).current_dir(folder));
    assert!(said.err.contains("--regex") && said.err.contains("unclosed"), "{said:?}");
    let both = ["run", "model.omex", "A", "--regex", "a", "--grammar", "g"];
    assert_eq!(run(omex(both).current_dir(folder)).code, Some(2));
    let cut = ["run", "model.omex", "A", "--regex", "a{50}", "--max-tokens", "3"];
    let said = run(omex(cut).current_dir(folder));
    assert!(said.code == Some(0) && said.err.contains("before it kept to its rule"), "{said:?}");
}

#[test]
fn each_answer_of_a_chat_keeps_to_the_rule() {
    let model = convert_from(&shipped_model(), Some(Precision::Int8));
    let folder = model.folder.path();
    written(folder, "t.jinja", "{% for m in messages %}{{ m.content }} {% endfor %}");
    written(folder, "schema.json", &schema().to_string());
    let chat = ["chat", "model.omex", "--template", "t.jinja", "--json-schema", "schema.json"];
    let said = run_with(omex(chat).current_dir(folder), "Once upon a time\nThe robot\n");
    assert_eq!(said.code, Some(0), "{said:?}");
    let answers: Vec<_> = said.out.lines().filter(|line| line.contains('{')).collect();
    assert_eq!(answers.len(), 2, "{said:?}");
    answers.into_iter().for_each(keeps_to_schema);
}

/// What a chat says, and the messages that it saves.
fn saved_chat(folder: &Path, more: &[&str], lines: &str) -> Value {
    let mut command = omex(["chat", "model.omex", "--template", "t.jinja", "--temperature", "0"]);
    let lines = format!("{lines}/save saved.json\n");
    let said = run_with(command.args(more).current_dir(folder), &lines);
    assert_eq!(said.code, Some(0), "{said:?}");
    serde_json::from_slice(&std::fs::read(folder.join("saved.json")).unwrap()).unwrap()
}

#[test]
fn calls_of_tools_have_identifiers_of_their_own_in_a_chat() {
    let model = convert_from(&shipped_model(), Some(Precision::Int8));
    let folder = model.folder.path();
    written(folder, "t.jinja", "{% for m in messages %}{{ m.content }} {% endfor %}");
    let call = r#"<tool_call>\{"name": "clock", "arguments": \{\}\}</tool_call>"#;
    let rule = ["--regex", call, "--max-tokens", "200"];
    let ids = |messages: &Value| -> Vec<String> {
        let calls = messages.as_array().unwrap().iter().filter_map(|m| m["tool_calls"].as_array());
        calls.flatten().map(|call| call["id"].as_str().unwrap().to_owned()).collect()
    };
    let messages = saved_chat(folder, &rule, "What time is it?\n/tool noon\nAnd now?\n");
    assert_eq!(ids(&messages), ["call00000", "call00001", "call00002"], "{messages}");
    let more = [&rule[..], &["--messages", "saved.json"]].concat();
    assert_eq!(ids(&saved_chat(folder, &more, "And now?\n"))[3], "call00003");
}

#[test]
fn each_text_of_a_batch_keeps_to_the_rule() {
    let model = convert_from(&shipped_model(), Some(Precision::Int8));
    let folder = model.folder.path();
    written(folder, "schema.json", &schema().to_string());
    let prompts: String = (0..5)
        .map(|seed| {
            let line = json!({ "prompt": "The robot", "seed": seed, "temperature": 1.3 });
            format!("{line}\n")
        })
        .collect();
    written(folder, "in.jsonl", &prompts);
    let batch = |more: &[&str]| {
        let all = ["batch", "model.omex", "in.jsonl", "-o", "out.jsonl", "--max-tokens", "400"];
        run(omex(all).args(more).current_dir(folder))
    };
    let rule = ["--json-schema", "schema.json", "--parallel", "3", "--formatter", "json"];
    let said = batch(&rule);
    assert_eq!(said.code, Some(0), "{said:?}");
    let output = std::fs::read_to_string(folder.join("out.jsonl")).unwrap();
    let texts: Vec<_> = output.lines().skip(1).collect();
    assert_eq!(texts.len(), 5);
    for text in texts {
        let record: Value = serde_json::from_str(text).unwrap();
        keeps_to_schema(record["text"].as_str().unwrap());
        let seed = (record["line"].as_u64().unwrap() - 1).to_string();
        let alone = ["run", "model.omex", "The robot", "--json-schema", "schema.json", "--json"];
        let how = ["--seed", &seed, "--temperature", "1.3", "--max-tokens", "400"];
        let alone = run(omex(alone).args(how).args(&rule[4..]).current_dir(folder));
        let alone: Value = serde_json::from_str(&alone.out).unwrap();
        assert_eq!(record["ids"], alone["ids"], "as omex run");
    }
    written(folder, "schema.json", r#"{"type": "object"}"#);
    let other = batch(&rule);
    assert!(other.code == Some(1) && other.err.contains("rule_crc32c"), "{other:?}");
}
