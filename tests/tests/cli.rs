//! Every command, as a process.

use omex_tests::{Finished, json_of, numbers, omex, run, run_in, run_with, shipped_model};
use serde_json::{Value, json};
use std::io::Read;
use std::path::Path;
use std::process::Stdio;
use std::sync::OnceLock;
use tempfile::TempDir;

const COMMANDS: [&str; 18] = [
    "convert",
    "run",
    "batch",
    "plan",
    "validate",
    "pack",
    "inspect",
    "tokenize",
    "logits",
    "eval",
    "benchmark",
    "profile",
    "layer-inspect",
    "memory-trace",
    "compare",
    "pull",
    "load-model",
    "optimize",
];

/// A folder with `tiny.omex`, `card.img` and `story.txt`, made by the commands themselves.
fn folder() -> &'static Path {
    static FOLDER: OnceLock<TempDir> = OnceLock::new();
    let make = || {
        let folder = tempfile::tempdir().unwrap();
        let source = shipped_model();
        let source = source.to_str().unwrap();
        succeeds(run_in(
            folder.path(),
            &["convert", "--model-path", source, "--output-dir", "tiny.omex"],
        ));
        succeeds(run_in(folder.path(), &["pack", "tiny.omex", "--ram", "64K", "-o", "card.img"]));
        std::fs::write(
            folder.path().join("story.txt"),
            "Once upon a time there was a small robot.\n",
        )
        .unwrap();
        folder
    };
    FOLDER.get_or_init(make).path()
}

fn here(args: &[&str]) -> Finished {
    run_in(folder(), args)
}

fn succeeds(finished: Finished) -> Finished {
    assert_eq!(finished.code, Some(0), "{finished:?}");
    finished
}

#[test]
fn help_has_examples_and_names_every_option() {
    let all = succeeds(here(&["--help"]));
    for command in COMMANDS {
        assert!(all.out.contains(&format!("\n  {command} ")), "{command} in {}", all.out);
        let help = succeeds(here(&[command, "--help"]));
        assert!(
            help.out.contains("Examples:\n  omex ") || help.out.contains("Examples:\n"),
            "{}",
            help.out
        );
        assert!(help.out.contains(&format!("omex {command} ")), "{}", help.out);
        assert!(help.out.contains("--json") && help.err.is_empty(), "{help:?}");
    }
    for missing in ["train", "agent", "extension"] {
        assert!(!all.out.contains(&format!("\n  {missing} ")), "{missing} is not built yet");
    }
}

#[test]
fn the_way_from_a_download_to_a_card() {
    let folder = tempfile::tempdir().unwrap();
    let source = shipped_model();
    let convert = [
        "convert",
        "--source-format",
        "huggingface",
        "--model-path",
        source.to_str().unwrap(),
        "--output-dir",
        "OUT.omex",
        "--quantization",
        "int8",
    ];
    let said = succeeds(run_in(folder.path(), &convert));
    assert!(said.out.contains("OUT.omex") && said.err.is_empty(), "{said:?}");
    let valid = succeeds(run_in(folder.path(), &["validate", "OUT.omex"]));
    assert!(valid.out.starts_with("valid: "), "{valid:?}");
    let plan = succeeds(run_in(folder.path(), &["plan", "OUT.omex", "--memory", "1MB"]));
    assert!(plan.out.contains("KV cache") && plan.out.contains("in all"), "{plan:?}");
    let int8 = succeeds(run_in(folder.path(), &["plan", "OUT.omex", "--kv", "int8"]));
    assert!(int8.out.contains("positions, int8"), "{int8:?}");
    let plan = json_of(&run_in(folder.path(), &["plan", "OUT.omex", "--json"]));
    assert_eq!(plan["kv_format"], "f16", "{plan}");
    let text = succeeds(run_in(
        folder.path(),
        &["run", "OUT.omex", "Once upon a time", "--max-tokens", "20"],
    ));
    assert!(text.out.starts_with("Once upon a time") && text.out.len() > 30, "{text:?}");
    let pack = ["pack", "OUT.omex", "--ram", "64K", "-o", "card.img"];
    let longer = succeeds(run_in(folder.path(), &pack));
    let pack = succeeds(run_in(folder.path(), &[&pack[..], &["--kv", "f16"]].concat()));
    assert!(pack.out.contains("card.img"), "{pack:?}");
    // More of a text fits in bytes, and either way it is said how much.
    let thread = |packed: &Finished| {
        let found = packed.out.split_once("a text keeps its thread for ")?.1;
        found.split_once(' ')?.0.parse::<u32>().ok()
    };
    assert!(longer.out.contains("positions, int8"), "{longer:?}");
    assert!(thread(&longer) > thread(&pack) && thread(&pack) > Some(1), "{longer:?}, {pack:?}");
    let whole = ["pack", "OUT.omex", "--ram", "1M", "-o", "whole.img"];
    let whole = succeeds(run_in(folder.path(), &whole));
    assert!(thread(&whole).is_none() && whole.out.contains("positions, f16"), "{whole:?}");
    succeeds(run_in(folder.path(), &["validate", "card.img"]));
    let other = run_in(folder.path(), &["run", "card.img", "--ids", "1", "--kv", "int8"]);
    assert_eq!(other.code, Some(2), "{other:?}");
    assert!(other.err.contains("pack it again with --kv int8"), "{other:?}");
    let plan = json_of(&run_in(folder.path(), &["plan", "card.img", "--json"]));
    let context = plan["context"].as_u64().unwrap();
    let with_context = |context: u64| {
        let context = context.to_string();
        run_in(folder.path(), &["run", "card.img", "--ids", "1", "--context", &context])
    };
    let other = with_context(context + 1);
    assert_eq!(other.code, Some(2), "{other:?}");
    let remedy = format!("{context} positions: leave --context out, or pack it again with");
    assert!(other.err.contains(&remedy), "{other:?}");
    succeeds(with_context(context));
    for model in ["OUT.omex", "card.img"] {
        succeeds(run_in(folder.path(), &["inspect", model]));
        succeeds(run_in(folder.path(), &["logits", model, "--ids", "1,5,9"]));
        let again = succeeds(run_in(
            folder.path(),
            &["run", model, "Once upon a time", "--max-tokens", "20"],
        ));
        assert_eq!(again.out, text.out, "{model}");
    }
    std::fs::write(folder.path().join("story.txt"), &text.out).unwrap();
    let eval = succeeds(run_in(folder.path(), &["eval", "OUT.omex", "--data", "story.txt"]));
    assert!(eval.out.starts_with("perplexity "), "{eval:?}");
}

/// The names of an object's fields, which must be there.
fn has(value: &Value, fields: &[&str]) {
    for field in fields {
        assert!(value.get(field).is_some(), "{field} in {value}");
    }
}

#[test]
fn json_is_one_object_on_standard_output() {
    let said = json_of(&here(&["run", "tiny.omex", "Once upon", "--max-tokens", "5", "--json"]));
    has(&said, &["ids", "text", "stats"]);
    let stats = [
        "time_to_first_token_ms",
        "prefill_tok_s",
        "decode_tok_s",
        "planned_bytes",
        "peak_bytes",
        "streamed_bytes_per_token",
        "drafted_tokens",
        "accepted_tokens",
        "tokens_per_pass",
    ];
    has(&said["stats"], &stats);
    assert!(stats.iter().all(|s| said["stats"][s].is_number()), "{said}");
    assert_eq!(numbers(&said["ids"]).len(), 5);
    let ids: Vec<_> = numbers(&said["ids"]).iter().map(u32::to_string).collect();

    let tokens = json_of(&here(&["tokenize", "tiny.omex", "Once upon", "--json"]));
    has(&tokens, &["ids", "text"]);
    let text = json_of(&here(&["tokenize", "tiny.omex", "--ids", &ids.join(","), "--json"]));
    assert_eq!(text["ids"], said["ids"]);

    let logits = json_of(&here(&["logits", "tiny.omex", "--ids", "1,15,27", "--json"]));
    let rows = logits["logits"].as_array().unwrap();
    assert_eq!(rows.len(), 3);
    assert!(rows.iter().all(|row| row.as_array().unwrap().len() == 576));

    let eval = json_of(&here(&["eval", "tiny.omex", "--data", "story.txt", "--json"]));
    assert!(
        eval["perplexity"].as_f64().unwrap() > 1.0 && eval["tokens"].as_u64().unwrap() > 5,
        "{eval}"
    );

    has(
        &json_of(&here(&["plan", "tiny.omex", "--memory", "1MB", "--json"])),
        &["residency", "bytes", "total"],
    );
    has(
        &json_of(&here(&["inspect", "tiny.omex", "--json"])),
        &["metadata", "tensors", "operations"],
    );
    has(&json_of(&here(&["inspect", "card.img", "--json"])), &["page_size", "sections", "tensors"]);
    let report = json_of(&here(&["validate", "tiny.omex", "--json"]));
    assert_eq!(report["problems"], serde_json::json!([]));
    has(
        &json_of(&here(&["pack", "tiny.omex", "--ram", "64K", "-o", "other.img", "--json"])),
        &["ram", "image", "kv_cache"],
    );
    let source = shipped_model();
    let convert = [
        "convert",
        "--model-path",
        source.to_str().unwrap(),
        "--output-dir",
        "json.omex",
        "--json",
    ];
    has(&json_of(&here(&convert)), &["path", "parameters", "quantization", "weight_bytes"]);
}

#[test]
fn planes_are_converted_inspected_and_read_as_asked() {
    let source = shipped_model();
    let source = source.to_str().unwrap();
    let convert = ["convert", "--model-path", source, "--quantization", "int4+4", "--json"];
    let said = json_of(&here(&[&convert[..], &["--output-dir", "planes.omex"]].concat()));
    assert_eq!(said["quantization"], "int4+4+int8");
    let report = json_of(&here(&["validate", "planes.omex", "--json"]));
    assert_eq!((&report["problems"], &report["notes"]), (&json!([]), &json!([])));
    let inspected = succeeds(here(&["inspect", "planes.omex"])).out;
    assert!(inspected.contains("layers.0.attention.qkv residual"), "{inspected}");
    let run = |precision| {
        let run = ["run", "planes.omex", "The cat", "--max-tokens", "9", "--precision", precision];
        let text = succeeds(here(&[&run[..], &["--stats"]].concat()));
        let expected = if precision == "base" { "base" } else { "full" };
        let line = text.err.lines().find(|line| line.starts_with("planes")).unwrap().to_owned();
        assert!(line.contains(expected), "{line}");
        let json = json_of(&here(&[&run[..], &["--json"]].concat()));
        assert_eq!(json["stats"]["precision"], expected);
        text.out
    };
    assert_eq!(run("full"), run("full"));
    assert!(run("base").starts_with("The cat") && run("auto").starts_with("The cat"));
    let eval = |more: &[&str]| {
        let eval = ["eval", "planes.omex", "--data", "story.txt", "--json"];
        json_of(&here(&[&eval[..], more].concat()))["perplexity"].as_f64().unwrap()
    };
    assert_ne!(eval(&["--precision", "base"]), eval(&[]));
    let plan = succeeds(here(&["plan", "planes.omex", "--precision", "base"])).out;
    assert!(plan.contains("weights, base planes, mapped"), "{plan}");
}

#[test]
fn wrong_usage_ends_with_2_and_says_so_on_standard_error() {
    let wrong: [&[&str]; 18] = [
        &["no-such-command"],
        &["run"],
        &["run", "tiny.omex", "Once", "--no-such-option"],
        &["run", "tiny.omex", "Once", "--memory", "64XB"],
        &["run", "tiny.omex", "Once", "--memory", "-1"],
        &["run", "tiny.omex", "Once", "--temperature", "nan"],
        &["run", "tiny.omex", "Once", "--top-p", "2"],
        &["run", "tiny.omex", "Once", "--threads", "0"],
        &["run", "tiny.omex", "Once", "--ids", "1"],
        &["logits", "tiny.omex", "--ids", "1,x"],
        &["convert", "--model-path", "x", "--output-dir", "y", "--quantization", "int3"],
        &["pack", "tiny.omex", "--ram", "64K", "-o", "x.img", "--page-size", "1000"],
        &["plan", "tiny.omex", "--device", "no-such-device"],
        &["tokenize", "tiny.omex"],
        &["benchmark", "tiny.omex", "--prefill", "0"],
        &["benchmark", "tiny.omex", "--runs", "0"],
        &["compare", "card.img"],
        &["synth", "--shape", "no-such-shape", "--output-dir", "x.omex"],
    ];
    for args in wrong {
        let refused = here(args);
        assert_eq!(refused.code, Some(2), "{args:?}: {refused:?}");
        assert!(
            refused.out.is_empty() && refused.err.starts_with("error: "),
            "{args:?}: {refused:?}"
        );
    }
}

#[test]
fn failures_end_with_1_and_name_the_file() {
    let failing: [&[&str]; 8] = [
        &["run", "missing.omex", "Once"],
        &["plan", "missing.omex"],
        &["validate", "missing.omex"],
        &["inspect", "missing.omex"],
        &["convert", "--model-path", "missing.gguf", "--output-dir", "new.omex"],
        &["eval", "tiny.omex", "--data", "missing.txt"],
        &["run", "story.txt", "Once"],
        &["convert", "--model-path", "story.txt", "--output-dir", "new.omex"],
    ];
    for args in failing {
        let refused = here(args);
        assert_eq!(refused.code, Some(1), "{args:?}: {refused:?}");
        let file = args.iter().find(|a| a.starts_with("missing") || **a == "story.txt").unwrap();
        assert!(refused.err.contains(file), "{args:?}: {refused:?}");
    }
    assert!(!folder().join("new.omex").exists());
    for ids in ["576", "4294967295"] {
        let refused = here(&["logits", "tiny.omex", "--ids", ids, "--json"]);
        assert_eq!(refused.code, Some(1), "{refused:?}");
        assert!(refused.out.starts_with("{\"error\":"), "{refused:?}");
        assert!(refused.err.contains("vocabulary"), "{refused:?}");
    }
}

#[test]
fn a_dash_reads_the_prompt_from_standard_input() {
    let mut piped = omex(["run", "tiny.omex", "-", "--max-tokens", "8", "--json"]);
    let piped = json_of(&run_with(piped.current_dir(folder()), "The robot"));
    let given = json_of(&here(&["run", "tiny.omex", "The robot", "--max-tokens", "8", "--json"]));
    assert_eq!(piped["ids"], given["ids"]);
    assert_eq!(piped["text"], given["text"]);
}

#[test]
fn text_comes_as_it_is_made() {
    let mut child = omex(["run", "tiny.omex", "Once upon a time", "--max-tokens", "60"])
        .current_dir(folder())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let (mut out, mut pieces, mut all) = (child.stdout.take().unwrap(), 0, vec![]);
    let mut buffer = [0; 4096];
    loop {
        let length = out.read(&mut buffer).unwrap();
        if length == 0 {
            break;
        }
        pieces += 1;
        all.extend_from_slice(&buffer[..length]);
    }
    assert!(child.wait().unwrap().success());
    println!("{pieces} pieces for {} bytes", all.len());
    assert!(pieces >= 3, "{pieces} pieces for {} bytes: it does not stream", all.len());
    // What was streamed is what --json says at once.
    let said =
        json_of(&here(&["run", "tiny.omex", "Once upon a time", "--max-tokens", "60", "--json"]));
    let streamed = String::from_utf8(all).unwrap();
    assert_eq!(streamed, format!("Once upon a time{}\n", said["text"].as_str().unwrap()));
}

#[test]
fn a_broken_pipe_ends_quietly() {
    for args in [
        &["run", "tiny.omex", "Once upon a time", "--max-tokens", "200", "--temperature", "1"][..],
        &[
            "logits",
            "tiny.omex",
            "--ids",
            "1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17,18,19,20",
            "--json",
        ],
        &["inspect", "tiny.omex"],
    ] {
        let mut child = omex(args)
            .current_dir(folder())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        drop(child.stdout.take());
        let output = child.wait_with_output().unwrap();
        let err = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(err.is_empty(), "{args:?}: {err}");
        assert_eq!(output.status.code(), Some(0), "{args:?}");
    }
}

#[test]
fn no_colour_and_no_bars_where_there_is_no_terminal() {
    let source = shipped_model();
    let convert =
        ["convert", "--model-path", source.to_str().unwrap(), "--output-dir", "plain.omex"];
    for args in [
        &convert[..],
        &["--help"],
        &["run", "--help"],
        &["validate", "tiny.omex"],
        &["run", "missing.omex"],
        &["no-such-command"],
        &["eval", "tiny.omex", "--data", "story.txt"],
    ] {
        let said = run(omex(args)
            .current_dir(folder())
            .env("CLICOLOR", "1")
            .env("TERM", "xterm-256color"));
        let all = said.out + &said.err;
        assert!(!all.contains('\x1b') && !all.contains('\r'), "{args:?}: {all:?}");
    }
}

#[test]
fn a_configuration_is_planned_before_its_weights_are_there() {
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("config.json");
    let source = shipped_model();
    std::fs::copy(source.join("config.json"), &config).unwrap();
    let source = source.to_str().unwrap();
    for quantization in ["int4", "int8", "f32", "int4+4"] {
        let convert = ["convert", "--model-path", source, "--output-dir", "real.omex", "--force"];
        let quantize = ["--quantization", quantization];
        let to = [&convert[..], &quantize, &["--no-calibration"]].concat();
        succeeds(run_in(folder.path(), &to));
        let plan = |model: &str, more: &[&str]| {
            let plan = ["plan", model, "--memory", "900KB", "--storage-bandwidth", "1GB/s"];
            json_of(&run_in(folder.path(), &[&plan[..], more, &["--json"]].concat()))
        };
        let real = plan("real.omex", &[]);
        for model in ["config.json", "."] {
            let said = plan(model, &quantize);
            for field in ["weight_bytes_per_token", "kv_bytes_per_position"] {
                assert_eq!(said["forecast"][field], real["forecast"][field], "{quantization}");
            }
            // All but the tokenizer.
            let tables = |plan: &Value| plan["bytes"]["tables"].as_u64().unwrap();
            assert!(0 < tables(&said) && tables(&said) < tables(&real), "{said} {real}");
        }
    }
    let text = run_in(folder.path(), &["plan", "real.omex", "--quantization", "int4"]);
    assert!(text.code == Some(2) && text.err.contains("--quantization is for"), "{text:?}");
    let missing = run_in(folder.path(), &["plan", "nowhere/config.json"]);
    assert!(missing.code == Some(1) && missing.err.contains("nowhere/config.json"), "{missing:?}");
    std::fs::write(&config, "{\"model_type\": \"mamba\"}").unwrap();
    let other = run_in(folder.path(), &["plan", "config.json"]);
    assert!(other.code == Some(1) && other.err.contains("model_type"), "{other:?}");
}

/// How fast another device is, nobody knows here.
#[test]
fn another_device_has_a_forecast_only_with_its_own_profile() {
    let at = json!({ "from_cache": 0.5, "from_memory": 1.0 });
    let products: Vec<_> = ["f32", "f16", "int8", "int4"]
        .map(
            |format| json!({ "format": format, "columns": 1, "one_thread": at, "all_threads": at }),
        )
        .into();
    let profile = json!({
        "omex_version": "0", "cpu": "another", "cores": 4, "kernels": [], "products": products,
        "read_bandwidth": { "one_thread": 1e9, "all_threads": 2e9 }, "storage_bandwidth": 1e7,
        "passes": { "operation": 0.0, "element": 0.0, "job": 0.0, "attention": [] },
    });
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("pi.json");
    std::fs::write(&file, profile.to_string()).unwrap();
    let file = file.to_str().unwrap();
    for device in ["raspberry-pi-zero", "raspberry-pi-4", "raspberry-pi-5"] {
        let plan = ["plan", "tiny.omex", "--device", device, "--json"];
        let alone = here(&plan);
        assert!(alone.err.contains("no forecast") && alone.err.contains("--profile"), "{alone:?}");
        let alone = json_of(&alone);
        assert_eq!(alone["forecast"], Value::Null, "{alone}");
        assert!(alone["total"].as_u64().unwrap() > 0);
        let with = json_of(&here(&[&plan[..], &["--profile", file]].concat()));
        let bytes = with["forecast"]["weight_bytes_per_token"].as_f64().unwrap();
        let tok_s = with["forecast"]["decode_tok_s"].as_f64().unwrap();
        // Half a second a GiB, and what else a pass does.
        let most = 2.0 * (1u64 << 30) as f64 / bytes;
        assert!(tok_s < most && tok_s > most / 4.0, "{tok_s} of {most}");
    }
    std::fs::write(file, "{\"cores\": 4}").unwrap();
    let bad = here(&["plan", "tiny.omex", "--device", "raspberry-pi-5", "--profile", file]);
    assert!(bad.code == Some(1) && bad.err.contains("omex profile --json"), "{bad:?}");
}

#[test]
fn statistics_go_to_standard_error() {
    let plain = succeeds(here(&["run", "tiny.omex", "The cat", "--max-tokens", "9"]));
    let stats = succeeds(here(&["run", "tiny.omex", "The cat", "--max-tokens", "9", "--stats"]));
    assert_eq!(stats.out, plain.out);
    for line in ["time to first token", "prefill", "decode", "memory", "streamed"] {
        assert!(stats.err.contains(line), "{}", stats.err);
    }
    assert!(plain.err.is_empty(), "{plain:?}");
}

#[test]
fn a_seed_gives_the_same_text_again_and_another_one_another() {
    let sample = |seed: &str, threads: &str| {
        let args = [
            "run",
            "tiny.omex",
            "The",
            "--max-tokens",
            "30",
            "--temperature",
            "1.2",
            "--top-k",
            "50",
            "--top-p",
            "0.95",
            "--min-p",
            "0.01",
            "--repetition-penalty",
            "1.1",
            "--seed",
            seed,
            "--threads",
            threads,
        ];
        succeeds(here(&args)).out
    };
    assert_eq!(sample("7", "1"), sample("7", "2"));
    assert_ne!(sample("7", "1"), sample("8", "1"));
}

#[test]
fn random_weights_are_a_valid_model_of_the_asked_precision_throughout() {
    let folder = tempfile::tempdir().unwrap();
    let synth = |quantization: &str, more: &[&str]| {
        let args = ["synth", "--shape", "stories", "--quantization", quantization];
        let to = ["--output-dir", "random.omex", "--force", "--json"];
        run_in(folder.path(), &[&args[..], &to, more].concat())
    };
    for quantization in ["int4", "int8", "f16", "f32"] {
        let said = json_of(&synth(quantization, &[]));
        assert_eq!(said["quantization"], quantization);
        succeeds(run_in(folder.path(), &["validate", "random.omex"]));
        let run = ["run", "random.omex", "--ids", "1,2,3", "--max-tokens", "40", "--json"];
        let said = json_of(&run_in(folder.path(), &run));
        let mut ids = numbers(&said["ids"]);
        assert_eq!(ids.len(), 40, "no token ends a text");
        ids.sort_unstable();
        ids.dedup();
        assert!(ids.len() > 5, "{quantization}: a text of {} tokens over and over", ids.len());
    }
    let logits =
        || json_of(&run_in(folder.path(), &["logits", "random.omex", "--ids", "1", "--json"]));
    let first = logits();
    succeeds(synth("f32", &["--seed", "0"]));
    assert_eq!(logits(), first);
    succeeds(synth("f32", &["--seed", "1"]));
    assert_ne!(logits(), first);
    let help = succeeds(here(&["synth", "--help"]));
    assert!(help.out.contains("Examples:\n  omex synth "), "{help:?}");
    assert!(!succeeds(here(&["--help"])).out.contains("synth"));
}

/// A command with a cache folder of its own.
fn with_cache(cache: &Path, args: &[&str]) -> Finished {
    run(omex(args).current_dir(folder()).env("XDG_CACHE_HOME", cache).env_remove("VIRTUAL_ENV"))
}

/// Other tests run meanwhile, which may be told.
fn measures_nothing(finished: &Finished) -> bool {
    finished.err.lines().all(|line| line.contains("other programs ran"))
}

#[test]
fn a_machine_is_measured_once_and_a_model_against_it() {
    let cache = tempfile::tempdir().unwrap();
    let measured = with_cache(cache.path(), &["profile", "--json"]);
    assert!(measured.err.contains("measuring"), "{measured:?}");
    let profile = json_of(&measured);
    has(&profile, &["cpu", "cores", "kernels", "read_bandwidth", "storage_bandwidth", "products"]);
    let bandwidth = &profile["read_bandwidth"];
    assert!(bandwidth["one_thread"].as_f64().unwrap() > 1e8, "{profile}");
    let products = profile["products"].as_array().unwrap();
    assert_eq!(products.len(), 4 * 5, "formats by columns");
    for product in products {
        for threads in ["one_thread", "all_threads"] {
            for from in ["from_cache", "from_memory"] {
                // From 1 KiB/s to 1 PiB/s.
                let seconds = product[threads][from].as_f64().unwrap();
                assert!(1e-6 < seconds && seconds < 1e6, "{product}");
            }
        }
    }
    let passes = &profile["passes"];
    let attention = passes["attention"].as_array().unwrap();
    assert_eq!(attention.len(), 3 * 4 * 3, "formats by widths by queries");
    let attention = attention.iter().map(|time| &time["seconds"]);
    for seconds in attention.chain([&passes["operation"], &passes["element"]]) {
        let seconds = seconds.as_f64().unwrap();
        assert!(1e-12 < seconds && seconds < 1e-3, "{seconds}: {passes}");
    }
    assert!(cache.path().join("omex/profile.json").is_file());
    let kept = with_cache(cache.path(), &["profile", "tiny.omex", "--json"]);
    assert!(measures_nothing(&kept), "{kept:?}");
    let kept = json_of(&kept);
    assert_eq!(kept["read_bandwidth"], *bandwidth);
    let forecast = &kept["forecast"];
    let weights = forecast["weight_bytes_per_token"].as_f64().unwrap();
    assert_eq!(forecast["resident_bytes"].as_f64(), Some(weights));
    assert_eq!(forecast["streamed_bytes"], 0);

    let plan = |more: &[&str]| {
        let plan = ["plan", "tiny.omex", "--storage-bandwidth", "1KB/s", "--json"];
        let planned = with_cache(cache.path(), &[&plan[..], more].concat());
        assert!(measures_nothing(&planned), "{planned:?}");
        json_of(&planned)
    };
    let mapped = plan(&[]);
    assert_eq!(mapped["forecast"], *forecast);
    assert_eq!(mapped["decode_tok_s_with_another_gb"], Value::Null);
    let streamed = plan(&["--memory", "600KB"]);
    let pass = streamed["forecast"]["streamed_bytes"].as_f64().unwrap() / 1e3;
    assert_eq!(streamed["forecast"]["pass_seconds"], pass, "{streamed}");
    assert_eq!(streamed["forecast"]["decode_limit"], "storage");
    let more = streamed["decode_tok_s_with_another_gb"].as_f64().unwrap();
    assert!(more > 2.0 / pass, "all of it fits: {streamed}");
    let args = ["plan", "tiny.omex", "--memory", "600KB", "--storage-bandwidth", "1KB/s"];
    let text = with_cache(cache.path(), &args).out;
    assert!(text.contains("limited by storage") && text.contains("with 1 GB more"), "{text}");

    let nowhere = with_cache(cache.path(), &["profile", "--storage", "nowhere"]);
    assert!(nowhere.code == Some(1) && nowhere.err.contains("nowhere: cannot find"), "{nowhere:?}");
    let card = ["profile", "--storage", "tiny.omex/graph.json", "--json"];
    let card = json_of(&with_cache(cache.path(), &card));
    assert!(card["storage_bandwidth"].as_f64().unwrap() > 1e4, "{card}");
    assert_eq!(card["products"], profile["products"]);
    let kept = json_of(&with_cache(cache.path(), &["profile", "--json"]));
    assert_eq!(kept, profile, "another storage is not kept");

    let lengths = ["--prefill", "8,4096", "--decode-at", "0,40,9999", "--runs", "2"];
    let benchmark = [&["benchmark", "tiny.omex", "--threads", "1"][..], &lengths].concat();
    let benchmark = [&benchmark[..], &["--json"]].concat();
    let finished = with_cache(cache.path(), &benchmark);
    for skipped in ["4096", "9999"] {
        assert!(finished.err.contains(&format!("note: {skipped} tokens")), "{finished:?}");
    }
    let report = json_of(&finished);
    assert_eq!(
        (&report["threads"], &report["read_bandwidth"]),
        (&1.into(), &bandwidth["one_thread"])
    );
    let lengths = |name: &str, field: &str| -> Vec<u64> {
        report[name].as_array().unwrap().iter().map(|x| x[field].as_u64().unwrap()).collect()
    };
    assert_eq!(lengths("prefill", "tokens"), [8]);
    assert_eq!(lengths("decode", "context"), [0, 40]);
    let bytes = lengths("decode", "bytes_per_token");
    // 4 layers, 4 heads of 12 floats, keys and values, in 16 bits.
    assert_eq!(bytes[1] - bytes[0], 40 * 4 * 4 * 12 * 2 * 2);
    assert_eq!(bytes[0], forecast["weight_bytes_per_token"]);
    for figure in [&report["prefill"][0], &report["decode"][1]] {
        let [least, median, most] = ["min", "tok_s", "max"].map(|f| figure[f].as_f64().unwrap());
        assert!(0.0 < least && least <= median && median <= most, "{report}");
    }
    for positive in ["startup_ms", "peak_bytes"] {
        assert!(report[positive].as_f64().unwrap() > 0.0, "{report}");
    }
    let picture = succeeds(with_cache(
        cache.path(),
        &["benchmark", "tiny.omex", "--prefill", "8", "--decode-at", "0", "--runs", "1"],
    ));
    assert!(picture.out.contains("█ ") && picture.out.contains("tok/s"), "{picture:?}");
}

/// Programs that answer as llama.cpp's do, with figures that no machine has.
const LLAMA_BENCH: &str = r#"#!/bin/sh
case "$*" in *--help*) exit 0 ;; esac
[ "$(head -c 4 "$2")" = GGUF ] || exit 1
case "$*" in
*"-p 8 -n 0"*) echo '[{"n_prompt":8,"n_gen":0,"n_depth":0,"avg_ts":1e-3}]' ;;
*"-d 0,16"*) echo '[{"n_prompt":0,"n_gen":32,"n_depth":0,"avg_ts":1e-4},
    {"n_prompt":0,"n_gen":32,"n_depth":16,"avg_ts":1e-5}]' ;;
esac
"#;
const PYTHON: &str = r#"#!/bin/sh
case "$3" in
*find_spec*) exit 0 ;;
"import llama_cpp; print"*) echo 1.2.3 ;;
*) echo '{"prefill":[1e-3],"decode":[1e-4,1e-5]}' ;;
esac
"#;

#[test]
#[cfg(unix)]
fn peers_do_the_same_work_and_the_missing_are_named() {
    use std::os::unix::fs::PermissionsExt;
    let cache = tempfile::tempdir().unwrap();
    for (name, text) in [("llama-bench", LLAMA_BENCH), ("python", PYTHON)] {
        let path = cache.path().join(name);
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    }
    let work = ["--prefill", "8", "--decode-at", "0,16", "--runs", "2", "--json"];
    let compare = |more: &[&str]| {
        let args = [&["compare", "tiny.omex"][..], &work, more].concat();
        run(omex(args)
            .current_dir(folder())
            .env("XDG_CACHE_HOME", cache.path())
            .env("PATH", "/usr/bin:/bin"))
    };
    let file = |name: &str| cache.path().join(name).to_str().unwrap().to_owned();
    // One left behind by a process that was killed, and one in use.
    let [stale, used] = ["omex/compare-stale", "omex/compare-used"].map(|f| cache.path().join(f));
    for folder in [&stale, &used] {
        std::fs::create_dir_all(folder).unwrap();
        std::fs::write(folder.join("model.gguf"), "GGUF").unwrap();
    }
    let lock = std::fs::File::open(&used).unwrap();
    lock.lock().unwrap();
    let bench = json_of(&compare(&["--llama-bench", &file("llama-bench")]));
    let python = json_of(&compare(&["--python", &file("python")]));
    for report in [&bench, &python] {
        for (row, peer) in [
            (&report["prefill"][0], 1e-3),
            (&report["decode"][0], 1e-4),
            (&report["decode"][1], 1e-5),
        ] {
            assert_eq!(row["peer"]["tok_s"], peer, "{report}");
            let ratio = row["omex"]["tok_s"].as_f64().unwrap() / peer;
            assert!((row["ratio"].as_f64().unwrap() / ratio - 1.0).abs() < 1e-9, "{report}");
        }
    }
    assert_eq!(python["peer"], "llama.cpp (llama-cpp-python 1.2.3)");
    assert_eq!(python["not_compared"][0]["name"], "ONNX Runtime");
    let left = std::fs::read_dir(cache.path().join("omex")).unwrap();
    let left: Vec<_> = left.map(|entry| entry.unwrap().path()).collect();
    assert_eq!(left, [used], "other weights are removed");

    // A Python without any modules.
    let none = compare(&["--python", "false"]);
    assert!(
        none.err.contains("llama.cpp is not compared") && none.err.contains("pip install"),
        "{none:?}"
    );
    let report = json_of(&none);
    assert!(
        report["peer"].is_null() && report["decode"][0]["omex"]["tok_s"].is_number(),
        "{report}"
    );
    assert_eq!((&report["residency"], &report["kv_format"]), (&"mapped".into(), &"f16".into()));
    let args = ["compare", "tiny.omex", "--prefill", "8", "--decode-at", "0", "--runs", "1"];
    let streamed = ["--pages", "read", "--kv", "int8", "--python", "false"];
    let table = succeeds(with_cache(cache.path(), &[&args[..], &streamed].concat()));
    let heading = "OMEX: weights are read for every pass, KV cache in int8\n";
    assert!(table.out.contains(heading), "{table:?}");

    let kept = file("kept.gguf");
    let keep = ["--llama-bench", &file("llama-bench"), "--gguf", &kept];
    succeeds(compare(&keep));
    let mode = |path: &str| std::fs::metadata(path).unwrap().permissions().mode();
    std::fs::write(file("usual"), "").unwrap();
    assert_eq!(mode(&kept), mode(&file("usual")));
    let written = std::fs::metadata(&kept).unwrap().modified().unwrap();
    succeeds(compare(&keep));
    assert_eq!(std::fs::metadata(&kept).unwrap().modified().unwrap(), written);
    std::fs::write(&kept, "a thesis").unwrap();
    let refused = compare(&keep);
    assert!(refused.code == Some(2) && refused.err.contains("kept.gguf"), "{refused:?}");
    assert_eq!(std::fs::read_to_string(&kept).unwrap(), "a thesis");
}

#[test]
fn tokens_of_text_and_text_of_tokens() {
    let ids = succeeds(here(&["tokenize", "tiny.omex", "The robot saw a cat."]));
    let text = succeeds(here(&["tokenize", "tiny.omex", "--ids", ids.out.trim()]));
    assert_eq!(text.out.trim(), "The robot saw a cat.");
}

#[test]
fn a_package_is_replaced_only_when_asked_and_a_stranger_never() {
    let folder = tempfile::tempdir().unwrap();
    let source = shipped_model();
    let convert = ["convert", "--model-path", source.to_str().unwrap(), "--output-dir"];
    let to = |output: &str, more: &[&str]| {
        run_in(folder.path(), &[&convert[..], &[output], more].concat())
    };
    succeeds(to("a.omex", &[]));
    let refused = to("a.omex", &[]);
    assert_eq!(refused.code, Some(2), "{refused:?}");
    assert!(refused.err.contains("--force"), "{refused:?}");
    succeeds(to("a.omex", &["--force", "--quantization", "f16"]));
    let inspected = json_of(&run_in(folder.path(), &["inspect", "a.omex", "--json"]));
    assert_eq!(inspected["metadata"]["model_architecture"]["quantization"], "f16");
    std::fs::create_dir(folder.path().join("precious")).unwrap();
    std::fs::write(folder.path().join("precious/thesis.txt"), "years of work").unwrap();
    let refused = to("precious", &["--force"]);
    assert_eq!(refused.code, Some(2), "{refused:?}");
    assert!(folder.path().join("precious/thesis.txt").is_file());
    let left: Vec<_> =
        std::fs::read_dir(folder.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(left.len(), 2, "nothing half-written is left: {left:?}");
}

/// A message that can't be written is lost, and nothing else.
#[test]
fn a_full_standard_error_changes_no_exit_code() {
    let full = || std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
    for (args, code) in [
        (&["run", "nowhere.omex", "x"][..], 1),
        (&["run", "tiny.omex", "The", "--max-tokens", "4", "--stats"], 0),
    ] {
        let status = omex(args).current_dir(folder()).stdout(Stdio::null()).stderr(full()).status();
        assert_eq!(status.unwrap().code(), Some(code), "{args:?}");
    }
}

#[test]
fn errors_are_objects_for_programs() {
    for (args, code, kind) in [
        (&["run", "nowhere.omex", "x", "--json"][..], 1, "io"),
        (&["run", "tiny.omex", "x", "--seed", "-1", "--json"], 2, "usage"),
        (&["plan", "tiny.omex", "--memory", "1KB", "--json"], 1, "budget"),
    ] {
        let finished = here(args);
        assert_eq!(finished.code, Some(code), "{finished:?}");
        let value: Value = serde_json::from_str(&finished.out).unwrap();
        assert_eq!(value["error"]["kind"], kind, "{value}");
        assert!(!value["error"]["message"].as_str().unwrap().is_empty());
        assert!(finished.err.starts_with("error:"), "{finished:?}");
    }
}

/// Ctrl-C, SIGTERM and SIGHUP end a command that waits for standard input.
#[test]
fn signals_end_the_wait_for_standard_input() {
    for (args, signal, code) in [
        (&["run", "tiny.omex", "-"][..], "INT", 130),
        (&["tokenize", "tiny.omex", "-"], "TERM", 143),
        (&["batch", "tiny.omex", "-", "-o", "never.jsonl"], "HUP", 129),
        (&["eval", "tiny.omex", "--data", "-"], "INT", 130),
        (&["memory-trace", "tiny.omex", "-"], "TERM", 143),
    ] {
        let mut child = omex(args)
            .current_dir(folder())
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        std::thread::sleep(std::time::Duration::from_millis(500));
        let kill = format!("kill -{signal} {}", child.id());
        assert!(std::process::Command::new("sh").args(["-c", &kill]).status().unwrap().success());
        let start = std::time::Instant::now();
        let status = loop {
            match child.try_wait().unwrap() {
                Some(status) => break status,
                None if start.elapsed().as_secs() > 5 => {
                    child.kill().unwrap();
                    panic!("{args:?} still waits");
                }
                None => std::thread::sleep(std::time::Duration::from_millis(10)),
            }
        };
        assert_eq!(status.code(), Some(code), "{args:?}");
    }
}

#[test]
fn what_begins_with_a_hyphen_is_taken_as_it_was_meant() {
    let negative = here(&["run", "tiny.omex", "x", "--seed", "-1"]);
    assert!(
        negative.code == Some(2) && negative.err.contains("invalid value '-1' for '--seed"),
        "{negative:?}"
    );
    let unknown = here(&["run", "tiny.omex", "x", "-n", "5"]);
    assert!(unknown.code == Some(2) && !unknown.err.contains("-- -n"), "{unknown:?}");
    let prompt = succeeds(here(&["run", "tiny.omex", "- The robot", "--max-tokens", "3"]));
    assert!(prompt.out.starts_with("- The robot"), "{prompt:?}");
}

#[test]
fn a_prompt_beyond_the_context_is_told() {
    let long = "The robot was happy. ".repeat(40);
    let args = ["run", "tiny.omex", &long, "--context", "32", "--max-tokens", "1"];
    let told = succeeds(here(&args));
    assert!(
        told.err.contains("note: the prompt has") && told.err.contains("--context"),
        "{told:?}"
    );
    let short = succeeds(here(&["run", "tiny.omex", "The", "--max-tokens", "1"]));
    assert!(short.err.is_empty(), "{short:?}");
}

/// What was not read to its end is not in the file.
#[test]
fn signals_during_a_prompt_leave_a_session_as_it_was() {
    let text = "Once upon a time there was a small robot. ".repeat(5_000);
    std::fs::write(folder().join("long.txt"), text).unwrap();
    for (signal, code) in [("INT", 130), ("TERM", 143), ("HUP", 129)] {
        let session = format!("prompt-{signal}.session");
        let args = ["run", "tiny.omex", "-", "--session", &session, "--max-tokens", "2"];
        for known in [false, true] {
            if known {
                succeeds(here(&[
                    "run",
                    "tiny.omex",
                    "The",
                    "--session",
                    &session,
                    "--max-tokens",
                    "2",
                ]));
            }
            let before = std::fs::read(folder().join(&session)).ok();
            let mut child = omex(args)
                .current_dir(folder())
                .stdin(std::fs::File::open(folder().join("long.txt")).unwrap())
                .stdout(Stdio::piped())
                .stderr(Stdio::piped())
                .spawn()
                .unwrap();
            // The prompt is repeated before it is run, and does not fit the pipe at once.
            child.stdout.as_mut().unwrap().read_exact(&mut [0; 4]).unwrap();
            let kill = format!("kill -{signal} {}", child.id());
            assert!(
                std::process::Command::new("sh").args(["-c", &kill]).status().unwrap().success()
            );
            let said = child.wait_with_output().unwrap();
            let err = String::from_utf8(said.stderr).unwrap();
            assert_eq!(said.status.code(), Some(code), "{signal}: {err}");
            assert!(err.contains("the session's file is as it was"), "{err}");
            assert_eq!(std::fs::read(folder().join(&session)).ok(), before, "{signal}");
        }
    }
}

/// Editors on Windows write them.
#[test]
fn encodings_other_than_utf_8_are_named_and_byte_order_marks_are_no_text() {
    let write = |name: &str, bytes: &[u8]| std::fs::write(folder().join(name), bytes).unwrap();
    write("plain.txt", b"Once upon a time");
    write("mark.txt", b"\xef\xbb\xbfOnce upon a time");
    let wide: Vec<u8> =
        "\u{feff}{\"prompt\": \"A\"}".encode_utf16().flat_map(u16::to_le_bytes).collect();
    write("wide.txt", &wide);
    let read = |args: &[&str], file: &str| {
        let file = std::fs::File::open(folder().join(file)).unwrap();
        run(omex(args).current_dir(folder()).stdin(file))
    };
    let commands: [&[&str]; 5] = [
        &["memory-trace", "tiny.omex", "-", "--max-tokens", "2", "--json"],
        &["tokenize", "tiny.omex", "-"],
        &["run", "tiny.omex", "-", "--max-tokens", "2"],
        &["eval", "tiny.omex", "--data", "-"],
        &["batch", "tiny.omex", "-", "-o", "wide.jsonl"],
    ];
    for args in commands {
        let refused = read(args, "wide.txt");
        let words = "standard input: encoding: found UTF-16, expected UTF-8; convert it (iconv";
        assert!(refused.code == Some(1) && refused.err.contains(words), "{refused:?}");
        if args[0] == "batch" {
            continue;
        }
        let said = ["plain.txt", "mark.txt"].map(|file| succeeds(read(args, file)));
        let [plain, marked] = match args[0] {
            "memory-trace" => said.map(|said| json_of(&said)["ids"].to_string()),
            _ => said.map(|said| said.out),
        };
        assert_eq!(plain, marked, "{args:?}");
    }
    let eval = |file: &str| succeeds(here(&["eval", "tiny.omex", "--data", file])).out;
    assert_eq!(eval("plain.txt"), eval("mark.txt"));
}

/// As a model's files may be after somebody corrected them.
#[test]
fn json_with_a_byte_order_mark_is_json() {
    let source = folder().join("marked");
    std::fs::create_dir(&source).unwrap();
    for entry in std::fs::read_dir(shipped_model()).unwrap().map(Result::unwrap) {
        let mut bytes = std::fs::read(entry.path()).unwrap();
        if entry.path().extension().is_some_and(|extension| extension == "json") {
            bytes.splice(0..0, *b"\xef\xbb\xbf");
        }
        std::fs::write(source.join(entry.file_name()), bytes).unwrap();
    }
    std::fs::write(source.join("generation_config.json"), "\u{feff}{\"eos_token_id\": 2}").unwrap();
    succeeds(here(&["convert", "--model-path", "marked", "--output-dir", "marked.omex"]));
    let text = |model| succeeds(here(&["run", model, "Once", "--max-tokens", "5"])).out;
    assert_eq!(text("marked.omex"), text("tiny.omex"));
}

#[test]
fn a_byte_order_mark_and_blank_lines_are_no_prompts() {
    let lines = "\u{feff}{\"prompt\": \"The\"}\r\n\n  \n{\"prompt\": \"A\"}\n\n";
    std::fs::write(folder().join("marked.jsonl"), lines).unwrap();
    let args =
        ["batch", "tiny.omex", "marked.jsonl", "-o", "marked.out", "--max-tokens", "2", "--json"];
    let summary = json_of(&here(&args));
    assert_eq!((&summary["requests"], &summary["done"]), (&json!(2), &json!(2)), "{summary}");
}

/// A model that rarely ends a text must be made to go on.
const HOT: [&str; 4] = ["--temperature", "3", "--repetition-penalty", "1.5"];

/// A run that goes on for long with a session, and the first that it said.
fn speaking(model: &str, session: &str) -> (std::process::Child, [u8; 64]) {
    let args = ["run", model, "The", "--session", session, "--max-tokens", "1000000"];
    let mut child = omex(args.iter().chain(&HOT))
        .current_dir(folder())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut some = [0; 64];
    child.stdout.as_mut().unwrap().read_exact(&mut some).unwrap();
    (child, some)
}

/// What was said is saved when the weights are lost in the middle.
#[test]
fn a_pass_that_fails_loses_no_text_of_a_session() {
    let source = shipped_model();
    let convert =
        ["convert", "--output-dir", "lost.omex", "--model-path", source.to_str().unwrap()];
    succeeds(here(&convert));
    let (mut child, _) = speaking("lost.omex", "lost.session");
    for file in std::fs::read_dir(folder().join("lost.omex/weights")).unwrap() {
        let file = std::fs::OpenOptions::new().write(true).open(file.unwrap().path()).unwrap();
        file.set_len(0).unwrap();
    }
    let mut rest = vec![];
    child.stdout.take().unwrap().read_to_end(&mut rest).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(1));
    let session = std::fs::metadata(folder().join("lost.session")).unwrap();
    assert!(session.len() > 1000, "{} bytes", session.len());
}

/// What was said is saved when a signal ends the run, and the text goes on from there.
#[test]
fn signals_lose_no_text_of_a_session() {
    for (signal, code) in [("INT", 130), ("TERM", 143), ("HUP", 129)] {
        let session = format!("{signal}.session");
        let (mut child, some) = speaking("tiny.omex", &session);
        let kill = format!("kill -{signal} {}", child.id());
        assert!(std::process::Command::new("sh").args(["-c", &kill]).status().unwrap().success());
        let mut said = some.to_vec();
        child.stdout.take().unwrap().read_to_end(&mut said).unwrap();
        assert_eq!(child.wait().unwrap().code(), Some(code), "{signal}");
        let saved = std::fs::read(folder().join(&session)).unwrap();
        // docs/format-session.md: the number of tokens.
        let tokens = u32::from_le_bytes(saved[44..48].try_into().unwrap()) as usize;
        let ids: Vec<_> = saved[64..].chunks(4).take(tokens).collect();
        let ids = ids.iter().map(|id| u32::from_le_bytes((*id).try_into().unwrap()).to_string());
        let ids = ids.collect::<Vec<_>>().join(",");
        let text = succeeds(here(&["tokenize", "tiny.omex", "--ids", &ids])).out;
        let said = String::from_utf8_lossy(&said).into_owned();
        assert_eq!(text.trim(), said.trim(), "{signal}");
        let args = ["run", "tiny.omex", "--session", &session, "--max-tokens", "2"];
        succeeds(here(&[&args[..], &HOT].concat()));
    }
}

#[test]
fn control_tokens_in_a_text_are_what_they_say_unless_told_otherwise() {
    let ids = |args: &[&str]| {
        let said = here(&[&["tokenize", "tiny.omex"], args, &["--json"]].concat());
        (numbers(&json_of(&said)["ids"]), json_of(&said)["text"].clone(), said.err)
    };
    let (plain, _, quiet) = ids(&["Once</s>"]);
    let (strange, text, _) = ids(&["Once</s>", "--no-parse-special"]);
    assert_eq!((plain.last(), quiet.as_str()), (Some(&2), ""));
    assert!(!strange[1..].contains(&2) && text.as_str().unwrap().contains("Once</s>"), "{text}");
    // A begin token before the tokenizer's own is told, and kept.
    let (twice, _, told) = ids(&["<s>Once"]);
    assert_eq!(twice[..2], [1, 1]);
    let note = "begins with token 1, which is put before every text: it is there twice";
    assert!(told.contains(note), "{told}");
    assert!(!ids(&["<s>Once", "--no-parse-special"]).2.contains("note"));
    let run = |more: &[&str]| {
        here(&[&["run", "tiny.omex", "<s>Once", "--max-tokens", "4", "--json"], more].concat())
    };
    let (special, as_text) = (run(&[]), run(&["--no-parse-special"]));
    assert!(special.err.contains(note) && as_text.err.is_empty(), "{special:?} {as_text:?}");
    let lines = "{\"prompt\": \"<s>Once\"}\n{\"prompt\": \"<s>Once\", \"parse_special\": false}\n";
    std::fs::write(folder().join("special.jsonl"), lines).unwrap();
    let batch = |output: &str, more: &[&str]| {
        let args = ["batch", "tiny.omex", "special.jsonl", "-o", output, "--max-tokens", "4"];
        let said = succeeds(here(&[&args, more].concat()));
        let text = std::fs::read_to_string(folder().join(output)).unwrap();
        let lines = text.lines().skip(1).map(|line| serde_json::from_str::<Value>(line).unwrap());
        let mut lines: Vec<_> = lines.collect();
        lines.sort_by_key(|line| line["line"].as_u64());
        (lines.iter().map(|line| line["ids"].clone()).collect::<Vec<_>>(), said.err)
    };
    let [special, as_text] = [special, as_text].map(|said| json_of(&said)["ids"].clone());
    let (ids, told) = batch("special-1.jsonl", &[]);
    assert_eq!(ids, [special, as_text.clone()]);
    assert!(told.contains("special.jsonl: line 1: ") && told.contains(note), "{told}");
    assert_eq!(batch("special-2.jsonl", &["--no-parse-special"]).0, [as_text.clone(), as_text]);
}

#[test]
fn a_tokenizer_of_another_kind_is_named_and_can_be_left_out() {
    let source = folder().join("wordlevel");
    std::fs::create_dir(&source).unwrap();
    for name in ["config.json", "model.safetensors"] {
        std::fs::copy(shipped_model().join(name), source.join(name)).unwrap();
    }
    let tokenizer = json!({
        "normalizer": {"type": "BertNormalizer"},
        "pre_tokenizer": {"type": "BertPreTokenizer"},
        "model": {
            "type": "WordLevel", "unk_token": "[UNK]",
            "vocab": {"[UNK]": 0, "a": 1}
        },
    });
    std::fs::write(source.join("tokenizer.json"), tokenizer.to_string()).unwrap();
    let args = ["convert", "--model-path", "wordlevel", "--output-dir", "wordlevel.omex"];
    let refused = here(&args);
    let words = ["tokenizer.json: model.type: found WordLevel, expected ", "--no-tokenizer"];
    assert_eq!(refused.code, Some(1), "{refused:?}");
    assert!(words.iter().all(|word| refused.err.contains(word)), "{refused:?}");
    succeeds(here(&[&args[..], &["--no-tokenizer"]].concat()));
    let ids = ["--ids", "1,15,27", "--max-tokens", "3"];
    let run = |model| succeeds(here(&[&["run", model], &ids[..], &["--json"]].concat()));
    let without = json_of(&run("wordlevel.omex"));
    assert_eq!(without["ids"], json_of(&run("tiny.omex"))["ids"]);
}
