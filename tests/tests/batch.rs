//! A batch gives every prompt the text that it has alone, once, whatever cuts the batch off.

use omex::plan::Kv;
use omex::quantize::Precision;
use omex_tests::{Converted, Finished, convert_from, json_of, omex, run_in, shipped_model};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::time::Duration;

/// A folder with `model.omex` and `prompts.jsonl`.
fn folder() -> &'static Path {
    static MODEL: OnceLock<Converted> = OnceLock::new();
    let make = || {
        let model = convert_from(&shipped_model(), Some(Precision::Int4));
        write_lines(&model.folder.path().join("prompts.jsonl"), &prompts());
        model
    };
    MODEL.get_or_init(make).folder.path()
}

fn write_lines(path: &Path, lines: &[Value]) {
    let text: Vec<_> = lines.iter().map(|line| format!("{line}\n")).collect();
    fs::write(path, text.concat()).unwrap();
}

/// Greedy and sampled texts of many lengths; one prompt takes more than one pass.
fn prompts() -> Vec<Value> {
    let long = "Once upon a time, a clever robot called Nell lived by the sea. ".repeat(9);
    let warm = json!({"temperature": 0.9, "top_k": 40, "seed": 11});
    let strict = json!({"temperature": 1.2, "top_p": 0.8, "min_p": 0.05, "seed": 5});
    let penalized = json!({"repetition_penalty": 1.4});
    let of = |prompt: &str, max_tokens: u32, more: &Value| {
        let mut line = more.clone();
        line["prompt"] = prompt.into();
        line["max_tokens"] = max_tokens.into();
        line
    };
    vec![
        of("Once upon a time", 40, &json!({"id": "first"})),
        of("The robot", 25, &warm),
        of(&long, 30, &json!({"id": 18446744073709551615u64})),
        of("One day, Leo", 300, &json!({})),
        of("", 12, &strict),
        json!({"ids": [1, 15, 27], "max_tokens": 9}),
        of("The sea", 33, &penalized),
        of(&long, 8, &strict),
        of("Nell felt", 1, &warm),
        of("Nell felt", 0, &warm),
        of("A friend", 50, &json!({"temperature": 0.9, "seed": 12})),
        json!({"prompt": "The sun"}),
    ]
}

fn batch(prompts: &str, output: &str, more: &[&str]) -> Finished {
    let all = ["batch", "model.omex", prompts, "-o", output, "--max-tokens", "20"];
    run_in(folder(), &[&all, more].concat())
}

fn succeeds(said: &Finished) {
    assert_eq!(said.code, Some(0), "{said:?}");
}

/// What an output holds by number of line, each once.
fn outputs(name: &str) -> BTreeMap<u64, Value> {
    let text = fs::read_to_string(folder().join(name)).unwrap();
    let mut lines = text.split_inclusive('\n');
    let header: Value = serde_json::from_str(lines.next().unwrap()).unwrap();
    assert_eq!(header["omex_batch"], 1, "{header}");
    let mut outputs = BTreeMap::new();
    for line in lines.filter(|line| line.ends_with('\n')) {
        let mut output: Value = serde_json::from_str(line).unwrap();
        assert!(output.as_object_mut().unwrap().remove("prompt_crc32c").is_some(), "{line}");
        let number = output["line"].as_u64().unwrap();
        assert!(outputs.insert(number, output).is_none(), "line {number} twice in {text}");
    }
    outputs
}

/// What `omex run` makes of a line of prompts, as a line of output.
fn alone(number: u64, line: &Value, model: &str) -> Value {
    let most = line["max_tokens"].as_u64().unwrap_or(20);
    let mut args =
        vec!["run".into(), model.into(), format!("--max-tokens={most}"), "--json".into()];
    match &line["prompt"] {
        Value::String(prompt) => args.push(prompt.clone()),
        _ => args.push(format!("--ids={}", line["ids"].to_string().trim_matches(['[', ']']))),
    }
    for name in ["temperature", "top_k", "top_p", "min_p", "repetition_penalty", "seed"] {
        if let Some(value) = line.get(name) {
            args.push(format!("--{}={value}", name.replace('_', "-")));
        }
    }
    let args: Vec<_> = args.iter().map(String::as_str).collect();
    let said = json_of(&run_in(folder(), &args));
    let length = said["ids"].as_array().unwrap().len() as u64;
    let finish = if length == most { "length" } else { "stop" };
    let mut output =
        json!({"line": number, "text": said["text"], "ids": said["ids"], "finish": finish});
    for name in ["forgotten_prompt_tokens", "forgotten_tokens"] {
        let count = &said["stats"][name];
        if *count != 0 {
            output[name] = count.clone();
        }
    }
    if let Some(id) = line.get("id") {
        output["id"] = id.clone();
    }
    output
}

fn all_alone() -> &'static BTreeMap<u64, Value> {
    static OUTPUTS: OnceLock<BTreeMap<u64, Value>> = OnceLock::new();
    let make =
        || (1..).zip(&prompts()).map(|(n, line)| (n, alone(n, line, "model.omex"))).collect();
    OUTPUTS.get_or_init(make)
}

#[test]
fn every_text_is_the_one_that_omex_run_gives() {
    let expected = all_alone();
    for finish in ["stop", "length"] {
        assert!(expected.values().any(|output| output["finish"] == finish), "{expected:?}");
    }
    let few = ["--memory", "1MB", "--pages", "read"];
    let ways: [&[&str]; 4] =
        [&[], &["--parallel", "1"], &["--parallel", "3", "--threads", "2"], &few];
    for (number, way) in ways.iter().enumerate() {
        let output = format!("way-{number}.jsonl");
        let said = json_of(&batch("prompts.jsonl", &output, &[way, &["--json"][..]].concat()));
        assert_eq!(&outputs(&output), expected, "{way:?}");
        let tokens =
            expected.values().map(|o| o["ids"].as_array().unwrap().len() as u64).sum::<u64>();
        let counts = ["requests", "done", "failed", "skipped", "tokens"].map(|name| &said[name]);
        assert_eq!(
            counts,
            [&json!(12), &json!(12), &json!(0), &json!(0), &json!(tokens)],
            "{said}"
        );
        let passes = said["passes"].as_u64().unwrap();
        assert!(if number == 1 { passes >= tokens } else { passes < tokens }, "{way:?}: {said}");
        assert!(said["seconds"].is_number() && said["tok_s"].is_number(), "{said}");
    }
}

/// What prompts begin with in common is run once, and changes no text.
#[test]
fn prompts_that_begin_alike_share_what_was_run() {
    let system = "Nell was a clever robot. She lived by the sea with her friend Leo. ".repeat(3);
    let ends = ["One day", "The sun", "One day, Leo", "\"Look!\"", "One day", "She", "He"];
    let line = |(i, end): (usize, &&str)| json!({"prompt": format!("{system}{end}"), "temperature": 0.7, "seed": i, "max_tokens": 5 + 9 * i});
    let lines: Vec<_> = ends.iter().enumerate().map(line).collect();
    write_lines(&folder().join("alike.jsonl"), &lines);
    for parallel in ["1", "3", "8"] {
        let name = format!("alike-{parallel}.jsonl");
        let said = batch("alike.jsonl", &name, &["--parallel", parallel, "--json"]);
        succeeds(&said);
        let said = json_of(&said);
        let outputs = outputs(&name);
        assert_eq!(outputs.len(), lines.len());
        for (number, line) in (1..).zip(&lines) {
            assert_eq!(outputs[&number], alone(number, line, "model.omex"), "{parallel} at once");
        }
        let shared = said["shared_tokens"].as_u64().unwrap();
        let tokens = run_in(folder(), &["tokenize", "model.omex", &system, "--json"]);
        let of_system = json_of(&tokens)["ids"].as_array().unwrap().len() as u64 - 2;
        assert!(shared >= 6 * of_system, "{shared} shared of 6 times {of_system}");
    }
}

#[test]
fn an_image_plays_one_text_after_another() {
    static MODEL: OnceLock<Converted> = OnceLock::new();
    let model = MODEL.get_or_init(|| convert_from(&shipped_model(), Some(Precision::Int4)));
    let image = model.image_with(4096, 4, 96, Some(Kv::F16));
    let image = image.to_str().unwrap();
    let args = ["batch", image, "prompts.jsonl", "-o", "image.jsonl", "--max-tokens", "20"];
    succeeds(&run_in(folder(), &[&args[..], &["--json"]].concat()));
    let found = outputs("image.jsonl");
    for number in [2, 4] {
        assert_eq!(found[&number], alone(number, &prompts()[number as usize - 1], image));
    }
    assert!(found[&4]["forgotten_tokens"].is_number(), "{found:?}");
}

#[test]
fn standard_input_is_a_file_of_prompts_too() {
    let input = || fs::File::open(folder().join("prompts.jsonl")).unwrap();
    let all = ["batch", "model.omex", "-", "-o", "stdin.jsonl", "--max-tokens", "20", "--json"];
    let mut command = omex(all);
    let said = json_of(&omex_tests::run(command.current_dir(folder()).stdin(input())));
    assert_eq!(said["done"], 12, "{said}");
    assert_eq!(&outputs("stdin.jsonl"), all_alone());
    let again = json_of(&batch("prompts.jsonl", "stdin.jsonl", &["--json"]));
    assert_eq!((&again["skipped"], &again["passes"]), (&json!(12), &json!(0)), "{again}");
}

#[test]
fn bad_lines_are_reported_and_do_not_stop_the_others() {
    let good = r#"{"prompt": "The robot", "id": 7}"#;
    let long = format!(r#"{{"prompt": "{}"}}"#, "x".repeat(17 << 20));
    let bad = [
        (r#"{"prompt": "#, "prompt (column 11): EOF"),
        (r#"{"prompt": 5}"#, "prompt (column 12): invalid type: integer `5`"),
        (
            r#"{"prompt": "x", "temperature": -1}"#,
            "temperature (column 34): expected a number from 0",
        ),
        (r#"{"prompt": "x", "top_p": 1.5}"#, "top_p (column 29): expected a number from 0 to 1"),
        (r#"{"ids": [1, 999999]}"#, "found token 999999, expected ids below"),
        (r#"{"ids": [1, -2], "id": "b"}"#, "ids[1] (column 14): invalid value: integer `-2`"),
        (r#"{"ids": []}"#, "the prompt has no tokens"),
        (r#"{"ids": [1], "prompt": "x"}"#, "found prompt and ids"),
        (r#"{"id": 3}"#, "expected prompt, or ids"),
        (r#"{"id": [3], "ids": [1]}"#, "id (column 10): expected a string or a number"),
        (r#"{"id": 12345678901234567890123, "ids": [1]}"#, "id (column 30): expected a string or"),
        (r#"{"promt": "x"}"#, "unknown field `promt`"),
        (r#"{"prompt": "x"} {}"#, "trailing characters"),
        (r#"["x", "The robot"]"#, "expected a JSON object"),
        (r#"{"ids": [1], "max_tokens": 16777216}"#, "found 16777217 tokens"),
        (&long, "expected a line of at most 16777216 bytes"),
    ];
    let mut text = format!("{good}\n").into_bytes();
    bad.iter().for_each(|(line, _)| text.extend(format!("{line}\n").bytes()));
    text.extend(b"{\"prompt\": \"\xff\"}\n");
    text.extend(good.bytes());
    fs::write(folder().join("bad.jsonl"), text).unwrap();
    let said = batch("bad.jsonl", "bad-out.jsonl", &[]);
    assert_eq!(said.code, Some(1), "{said:?}");
    assert!(said.err.contains("error: bad.jsonl: 17 problems"), "{}", said.err);
    assert!(said.out.starts_with("2 done, 17 failed, 0 skipped: "), "{}", said.out);
    let found = outputs("bad-out.jsonl");
    assert_eq!(found.len(), bad.len() + 3);
    for (number, (line, expected)) in (2..).zip(&bad) {
        let error = found[&number]["error"].as_str().unwrap();
        assert!(error.contains(expected), "{error:?} for {line:.50}");
        assert!(said.err.contains(&format!("bad.jsonl: line {number}: {error}\n")), "{}", said.err);
    }
    // The id is repeated wherever it can be told.
    let ids = [7, 10, 11].map(|number| found[&number]["id"].clone());
    assert_eq!(ids, [json!("b"), json!(3), Value::Null]);
    assert!(found[&18]["error"].as_str().unwrap().contains("column 13"), "{}", found[&18]);
    assert_eq!((&found[&1]["ids"], &found[&1]["id"]), (&found[&19]["ids"], &json!(7)));
    assert_eq!(found[&1]["ids"].as_array().unwrap().len(), 20);
    let again = batch("bad.jsonl", "bad-out.jsonl", &[]);
    assert_eq!(again.code, Some(1), "{again:?}");
    assert!(again.out.starts_with("0 done, 0 failed, 19 skipped: "), "{}", again.out);
    assert_eq!(outputs("bad-out.jsonl"), found);
}

/// Below `limit`, from SplitMix64.
fn below(random: &mut u64, limit: u64) -> u64 {
    *random = random.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let z = (*random ^ *random >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    (z ^ z >> 31) % limit
}

/// Prompts that take a while.
fn many() -> Vec<Value> {
    let line =
        |n| json!({"ids": [1, n], "seed": n, "temperature": 0.9, "max_tokens": 5 + n * 7 % 40});
    (2..150).map(line).collect()
}

#[test]
fn a_killed_batch_goes_on_and_loses_and_repeats_nothing() {
    let mut random = 3;
    let line =
        |n| json!({"ids": [1, n], "seed": n, "temperature": 0.9, "max_tokens": 5 + n * 7 % 40});
    let many: Vec<_> = (2..150).map(line).collect();
    write_lines(&folder().join("many.jsonl"), &many);
    succeeds(&batch("many.jsonl", "whole.jsonl", &["--json"]));
    let expected = outputs("whole.jsonl");
    let done = || {
        if folder().join("killed.jsonl").exists() {
            outputs("killed.jsonl")
        } else {
            BTreeMap::new()
        }
    };
    let mut midway = 0;
    for _ in 0..20 {
        let args =
            ["batch", "model.omex", "many.jsonl", "-o", "killed.jsonl", "--max-tokens", "20"];
        let mut command = omex(args);
        command.current_dir(folder()).stdout(Stdio::null()).stderr(Stdio::null());
        let enough = done().len() + below(&mut random, 10) as usize;
        let mut process = command.spawn().unwrap();
        while done().len() < enough && process.try_wait().unwrap().is_none() {
            std::thread::sleep(Duration::from_millis(1));
        }
        std::thread::sleep(Duration::from_micros(below(&mut random, 40_000)));
        process.kill().unwrap();
        let killed = process.wait().unwrap().code().is_none();
        let found = done();
        assert!(found.iter().all(|(line, output)| expected[line] == *output), "{found:?}");
        midway += u32::from(killed && !found.is_empty() && found.len() < expected.len());
    }
    assert!(midway > 5, "{midway} killed midway");
    let before = outputs("killed.jsonl").len();
    let said = json_of(&batch("many.jsonl", "killed.jsonl", &["--json"]));
    assert_eq!(said["skipped"], before, "{said}");
    assert_eq!(outputs("killed.jsonl"), expected);
}

#[test]
fn ctrl_c_ends_a_batch_and_keeps_what_is_finished() {
    write_lines(&folder().join("long.jsonl"), &many());
    let mut command = omex(["batch", "model.omex", "long.jsonl", "-o", "interrupted.jsonl"]);
    let mut process = command.current_dir(folder()).stderr(Stdio::null()).spawn().unwrap();
    let output = folder().join("interrupted.jsonl");
    while !output.exists() || outputs("interrupted.jsonl").is_empty() {
        assert!(process.try_wait().unwrap().is_none(), "it ended too soon to be interrupted");
        std::thread::sleep(Duration::from_millis(5));
    }
    let id = process.id();
    let sent = Command::new("sh").args(["-c", &format!("kill -INT {id}")]).status().unwrap();
    assert!(sent.success());
    assert_eq!(process.wait().unwrap().code(), Some(130));
    let found = outputs("interrupted.jsonl").len();
    assert!(found > 0 && found < many().len(), "{found}");
    assert!(fs::read(output).unwrap().ends_with(b"\n"), "no line is cut off");
}

#[test]
fn a_last_line_that_was_cut_off_is_made_again() {
    succeeds(&batch("prompts.jsonl", "torn.jsonl", &["--json"]));
    let path = folder().join("torn.jsonl");
    let text = fs::read(&path).unwrap();
    let header = 1 + text.iter().position(|byte| *byte == b'\n').unwrap();
    for cut in [header, header + 1, text.len() / 2, text.len() - 1] {
        fs::write(&path, &text[..cut]).unwrap();
        let kept = outputs("torn.jsonl").len();
        let said = json_of(&batch("prompts.jsonl", "torn.jsonl", &["--json"]));
        assert_eq!((&said["skipped"], &said["done"]), (&json!(kept), &json!(12 - kept)), "{cut}");
        assert_eq!(&outputs("torn.jsonl"), all_alone(), "cut at {cut}");
    }
    for damaged in
        [&text[..header - 2], &[&text[..], b"{\"line\": 3}\n"].concat(), b"{\"omex_batch\":1}\n"]
    {
        fs::write(&path, damaged).unwrap();
        refused(
            &batch("prompts.jsonl", "torn.jsonl", &[]),
            &["torn.jsonl: line 1", "--restart"],
            1,
        );
        assert_eq!(fs::read(&path).unwrap(), damaged, "what is refused is left alone");
    }
    succeeds(&batch("prompts.jsonl", "torn.jsonl", &["--restart", "--json"]));
    assert_eq!(&outputs("torn.jsonl"), all_alone());
}

#[test]
fn of_corrected_prompts_only_what_changed_is_done_again() {
    let mut lines = prompts();
    let (right, added) = (lines[4].clone(), json!({"prompt": "A cat", "max_tokens": 7}));
    lines[4] = json!({"prompt": "", "temperature": -1});
    write_lines(&folder().join("corrected.jsonl"), &lines);
    let go = || batch("corrected.jsonl", "corrected-out.jsonl", &["--json"]);
    let said = go();
    assert_eq!(said.code, Some(1), "{said:?}");
    let summary = |said: &Finished| -> [u64; 3] {
        let said: Value = serde_json::from_str(said.out.lines().next().unwrap()).unwrap();
        ["done", "failed", "skipped"].map(|name| said[name].as_u64().unwrap())
    };
    assert_eq!(summary(&said), [11, 1, 0], "{said:?}");
    // Unchanged, the bad line stays bad and nothing is done.
    assert_eq!(summary(&go()), [0, 0, 12]);
    lines[4] = right;
    write_lines(&folder().join("corrected.jsonl"), &lines);
    let said = go();
    assert_eq!((said.code, summary(&said)), (Some(0), [1, 0, 11]), "{said:?}");
    assert!(said.err.contains("note: corrected.jsonl: 1 lines are not what they were"), "{said:?}");
    assert_eq!(&outputs("corrected-out.jsonl"), all_alone());
    // A finished text is done again where its prompt changed, a new line is added, others stay.
    let before = outputs("corrected-out.jsonl");
    lines[1]["seed"] = 12.into();
    lines.push(added);
    write_lines(&folder().join("corrected.jsonl"), &lines);
    assert_eq!(summary(&go()), [2, 0, 11]);
    let mut after = outputs("corrected-out.jsonl");
    assert_eq!(after.remove(&13), Some(alone(13, &lines[12], "model.omex")));
    assert_eq!(after.insert(2, before[&2].clone()), Some(alone(2, &lines[1], "model.omex")));
    assert_eq!(after, before);
    // Lines that are gone are gone from the output, too.
    write_lines(&folder().join("corrected.jsonl"), &lines[..3]);
    assert_eq!(summary(&go()), [0, 0, 3]);
    assert_eq!(outputs("corrected-out.jsonl").len(), 3);
}

fn refused(said: &Finished, words: &[&str], code: i32) {
    assert_eq!(said.code, Some(code), "{said:?}");
    words.iter().for_each(|word| assert!(said.err.contains(word), "{word} in {}", said.err));
}

#[test]
fn an_output_of_something_else_is_refused_and_left_alone() {
    write_lines(&folder().join("one.jsonl"), &prompts()[..1]);
    write_lines(&folder().join("other.jsonl"), &prompts()[1..2]);
    succeeds(&batch("one.jsonl", "one-out.jsonl", &["--json"]));
    let before = outputs("one-out.jsonl");
    let restart = "write to another file with -o, or begin anew with --restart";
    let other = batch("other.jsonl", "one-out.jsonl", &[]);
    refused(&other, &["one-out.jsonl: prompt_crc32c: found other prompts", restart], 1);
    let settings = batch("one.jsonl", "one-out.jsonl", &["--temperature", "0.8"]);
    refused(&settings, &["settings.temperature: found \"0\", expected \"0.8\"", restart], 1);
    let context = batch("one.jsonl", "one-out.jsonl", &["--context", "33"]);
    refused(&context, &["settings.context: found", "expected 33", restart], 1);
    let model = convert_from(&shipped_model(), Some(Precision::Int8));
    let model = model.path.to_str().unwrap();
    let args = ["batch", model, "one.jsonl", "-o", "one-out.jsonl", "--max-tokens", "20"];
    refused(&run_in(folder(), &args), &["model_crc32c: found", restart], 1);
    let lock = fs::File::open(folder().join("one-out.jsonl")).unwrap();
    lock.lock().unwrap();
    refused(&batch("one.jsonl", "one-out.jsonl", &[]), &["another omex batch is writing"], 2);
    drop(lock);
    assert_eq!(outputs("one-out.jsonl"), before);
    succeeds(&batch("other.jsonl", "one-out.jsonl", &["--restart", "--json"]));
    assert_ne!(outputs("one-out.jsonl"), before);
    // Not even a restart replaces a file that is no output: it may be the prompts themselves.
    let prompts = fs::read(folder().join("one.jsonl")).unwrap();
    let itself = batch("one.jsonl", "one.jsonl", &["--restart"]);
    refused(&itself, &["one.jsonl: line 1: found", "expected the header of a batch", "-o"], 1);
    assert_eq!(fs::read(folder().join("one.jsonl")).unwrap(), prompts);
    refused(&batch("one.jsonl", "nowhere/out.jsonl", &[]), &["nowhere"], 1);
    refused(&batch("missing.jsonl", "new.jsonl", &[]), &["missing.jsonl: cannot read"], 1);
    assert!(!folder().join("new.jsonl").exists());
}
