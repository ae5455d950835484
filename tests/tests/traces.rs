//! What `omex memory-trace` shows is what happened: within the plan, and in agreement with `omex run`.

use omex::plan::PROCESS_BYTES;
use omex_tests::{check_xml, convert_from, json_of, run_in, shipped_model};
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::OnceLock;
use tempfile::TempDir;

/// A folder with the model that ships here, `tiny.omex`.
fn folder() -> &'static Path {
    static FOLDER: OnceLock<TempDir> = OnceLock::new();
    let make = || {
        let converted = convert_from(&shipped_model(), None);
        std::fs::rename(&converted.path, converted.folder.path().join("tiny.omex")).unwrap();
        converted.folder
    };
    FOLDER.get_or_init(make).path()
}

/// What `--json` prints for a command over the model.
fn said(command: &str, more: &[&str]) -> Value {
    let args = [&[command, "tiny.omex", "Once upon a time", "--max-tokens", "20"], more];
    json_of(&run_in(folder(), &[&args.concat()[..], &["--json"]].concat()))
}

fn number(value: &Value) -> u64 {
    value.as_u64().unwrap_or_else(|| panic!("{value} is no number"))
}

fn seconds(value: &Value) -> f64 {
    value.as_f64().unwrap_or_else(|| panic!("{value} is no number"))
}

/// What is in a file that a command wrote.
fn written(name: &str) -> String {
    std::fs::read_to_string(folder().join(name)).unwrap()
}

#[test]
fn memory_stays_within_the_plan_and_reads_are_those_of_a_run() {
    for pages in [&[][..], &["--pages", "read"]] {
        let machine = [&["--memory", "800KB"], pages].concat();
        let (trace, run) = (
            said("memory-trace", &machine),
            said("run", &[&machine[..], &["--draft", "none"]].concat()),
        );
        let (plan, summary) = (&trace["plan"], &trace["summary"]);
        assert_eq!(trace["ids"], run["ids"], "tracing changes nothing");
        assert!(number(&plan["bytes"]["weights"]) > 0 && number(&plan["streamed_bytes"]) > 0);

        let samples = trace["samples"].as_array().unwrap();
        let mut last = 0.0;
        for sample in samples {
            assert!(sample["pinned_bytes"].as_u64() <= plan["bytes"]["weights"].as_u64());
            let ring = number(&sample["ring_bytes"]) + number(&sample["reading_bytes"]);
            assert!(ring <= number(&plan["bytes"]["ring"]), "{sample}");
            assert!(sample["kv_bytes"].as_u64() <= plan["bytes"]["kv_cache"].as_u64());
            assert_eq!(sample["reads"] == 0, sample["reading_bytes"] == 0, "{sample}");
            assert!(last <= seconds(&sample["seconds"]), "{sample}");
            last = seconds(&sample["seconds"]);
        }
        let end = samples.last().unwrap();
        let tokens = number(&summary["prompt_tokens"]) + number(&summary["generated_tokens"]);
        assert_eq!(number(&end["tokens"]), tokens - 1, "the last one is not run");
        let stalled: f64 = samples.iter().map(|sample| seconds(&sample["stalled_seconds"])).sum();
        assert!((stalled - seconds(&summary["stalled_seconds"])).abs() < 1e-6, "{summary}");
        assert!(0.0 < stalled && stalled < seconds(&summary["pass_seconds"]), "{summary}");
        let overlap = seconds(&summary["overlap"]);
        assert!((0.0..1.0).contains(&overlap), "{summary}");

        let pinned = &summary["pinned"];
        assert_eq!(
            (&pinned["peak"], &pinned["planned"]),
            (&pinned["planned"], &plan["bytes"]["weights"])
        );
        assert_eq!(summary["ring"]["planned"], plan["bytes"]["ring"]);
        let per_position = number(&plan["bytes"]["kv_cache"]) / number(&plan["context"]);
        assert_eq!(number(&summary["kv_cache"]["peak"]), (tokens - 1) * per_position);
        let resident = number(&summary["peak_resident_bytes"]);
        assert!(resident <= 800_000 + PROCESS_BYTES, "{summary}");
        assert_eq!(
            (&summary["budget_bytes"], &summary["budget_kept"]),
            (&800_000.into(), &true.into())
        );

        // How far the ring is ahead differs by when one looks, before and after.
        let decoded = number(&summary["generated_tokens"]) - 1;
        let [traced, ran] =
            [summary, &run["stats"]].map(|s| number(&s["streamed_bytes_per_token"]));
        let ahead = 2 * number(&plan["bytes"]["ring"]) / decoded + 1;
        assert!(traced.abs_diff(ran) <= ahead, "{traced} and {ran} bytes a token");
        assert!(traced.abs_diff(number(&plan["streamed_bytes"])) <= ahead, "{summary}");
    }
}

/// The slices of a Chrome trace by the names of their lanes.
fn slices(chrome: &Value) -> BTreeMap<String, Vec<&Value>> {
    let events = chrome["traceEvents"].as_array().unwrap();
    let named = |event: &&Value| event["ph"] == "M";
    let names =
        events.iter().filter(named).map(|event| (number(&event["tid"]), &event["args"]["name"]));
    let names: BTreeMap<_, _> = names.collect();
    let mut lanes: BTreeMap<_, Vec<_>> = BTreeMap::new();
    for event in events.iter().filter(|event| event["ph"] == "X") {
        let name = names[&number(&event["tid"])].as_str().unwrap();
        lanes.entry(name.to_owned()).or_default().push(event);
    }
    lanes
}

/// When a slice begins and ends, in microseconds.
fn times(slice: &Value) -> (f64, f64) {
    let [begin, length] = ["ts", "dur"].map(|field| seconds(&slice[field]));
    assert!(begin >= 0.0 && length >= 0.0, "{slice}");
    (begin, begin + length)
}

#[test]
fn a_chrome_trace_has_a_slice_for_each_read_stall_and_pass() {
    let trace = said("memory-trace", &["--memory", "700KB", "--chrome", "trace.json"]);
    let summary = &trace["summary"];
    let chrome: Value = serde_json::from_str(&written("trace.json")).unwrap();
    let lanes = slices(&chrome);
    let sum = |field: &str, of: &str| -> u64 {
        let lanes = lanes.iter().filter(|(name, _)| name.starts_with(of));
        lanes.flat_map(|(_, slices)| slices).map(|slice| number(&slice["args"][field])).sum()
    };
    assert_eq!(sum("bytes", "reads"), number(&summary["read_bytes"]));
    assert_eq!(
        sum("tokens", "passes"),
        number(&trace["samples"].as_array().unwrap().last().unwrap()["tokens"])
    );
    assert_eq!(lanes["passes"].len() as u64, number(&summary["passes"]));
    let reads = lanes.iter().filter(|(name, _)| name.starts_with("reads"));
    assert_eq!(
        reads.map(|(_, slices)| slices.len() as u64).sum::<u64>(),
        number(&summary["reads"])
    );
    for (name, slices) in &lanes {
        let times: Vec<_> = slices.iter().map(|slice| times(slice)).collect();
        let apart = |pair: &[(f64, f64)]| pair[0].1 <= pair[1].0 + 1e-3;
        assert!(times.windows(2).all(apart), "slices of {name} overlap");
    }
    let stalled: f64 = lanes["stalls"].iter().map(|slice| seconds(&slice["dur"])).sum();
    assert!((stalled / 1e6 - seconds(&summary["stalled_seconds"])).abs() < 1e-5, "{summary}");
    for stall in &lanes["stalls"] {
        let (begin, end) = times(stall);
        let holds = |pass: &&&Value| times(pass).0 <= begin && end <= times(pass).1 + 1e-3;
        assert!(
            lanes["passes"].iter().any(|pass| holds(&pass)),
            "a stall outside of passes: {stall}"
        );
    }
    let events = chrome["traceEvents"].as_array().unwrap();
    for counter in ["memory in bytes", "reads under way", "tokens"] {
        let of = events.iter().filter(|event| event["ph"] == "C" && event["name"] == counter);
        assert_eq!(of.count(), trace["samples"].as_array().unwrap().len(), "{counter}");
    }
}

#[test]
fn the_picture_is_well_formed_and_says_what_it_shows() {
    let model = "R&D <1> \u{1}.omex";
    let copy = ["-r", "tiny.omex", model];
    let copied = std::process::Command::new("cp").args(copy).current_dir(folder()).status();
    assert!(copied.unwrap().success());
    let trace = ["memory-trace", model, "The cat", "--max-tokens", "9", "--memory", "800KB"];
    let finished = run_in(folder(), &[&trace[..], &["-o", "trace.svg"]].concat());
    assert_eq!(finished.code, Some(0), "{finished:?}");
    for line in ["budget    800 KB given", ": kept", "pinned", "ring", "stalled", "overlap"] {
        assert!(finished.out.contains(line), "{line} in {}", finished.out);
    }
    let svg = written("trace.svg");
    check_xml(&svg);
    assert!(svg.starts_with("<svg xmlns=\"http://www.w3.org/2000/svg\""), "{svg}");
    assert!(svg.contains("R&amp;D &lt;1&gt; \u{fffd}.omex"), "{svg}");
    for text in [
        "prefers-color-scheme:dark",
        ">pinned weights<",
        ">in the ring, being read<",
        ">KV cache<",
        ">weights and KV cache in KB<",
        ">resident set of the process in MB<",
        ">reads under way<",
        ">waiting for reads in % of the time<",
        ">time in ",
    ] {
        assert!(svg.contains(text), "{text} in {svg}");
    }
    assert!(!svg.contains("NaN") && !svg.contains("inf"), "{svg}");
}

#[test]
fn mapped_weights_have_no_reads_and_the_trace_says_so() {
    let files = ["-o", "mapped.svg", "--chrome", "mapped.json"];
    let trace = said("memory-trace", &files);
    assert_eq!(trace["plan"]["residency"], "mapped");
    let summary = &trace["summary"];
    assert_eq!((&summary["reads"], &summary["overlap"]), (&0.into(), &Value::Null));
    assert_eq!(
        (&summary["pinned"]["planned"], &summary["stalled_seconds"]),
        (&0.into(), &0.0.into())
    );
    assert!(
        number(&summary["kv_cache"]["peak"]) > 0 && summary["budget_kept"] == true,
        "{summary}"
    );
    let chrome: Value = serde_json::from_str(&written("mapped.json")).unwrap();
    assert_eq!(slices(&chrome).keys().collect::<Vec<_>>(), ["passes"]);
    let svg = written("mapped.svg");
    check_xml(&svg);
    assert!(
        svg.contains("KV cache (weights are mapped)") && !svg.contains(">in the ring"),
        "{svg}"
    );
    let text = run_in(folder(), &["memory-trace", "tiny.omex", "The cat"]);
    assert!(text.out.contains("mapped: part of what is resident"), "{text:?}");
}

#[test]
fn a_long_run_is_traced_in_bounded_memory() {
    let synth = ["synth", "--shape", "stories", "--quantization", "int8", "--output-dir"];
    assert_eq!(run_in(folder(), &[&synth[..], &["random.omex"]].concat()).code, Some(0));
    let more = ["--ids", "1", "--max-tokens", "250", "--memory", "250KB", "--pages", "read"];
    let files = ["--chrome", "long.json", "--json"];
    let trace = run_in(folder(), &[&["memory-trace", "random.omex"], &more[..], &files].concat());
    let trace = json_of(&trace);
    let chrome: Value = serde_json::from_str(&written("long.json")).unwrap();
    let lanes = slices(&chrome);
    let reads = lanes.iter().filter(|(name, _)| name.starts_with("reads"));
    let kept: usize = reads.map(|(_, slices)| slices.len()).sum();
    let left_out = number(&chrome["otherData"]["reads_left_out"]);
    assert!(left_out > 0 && kept == 1 << 14, "{kept} reads, {left_out} left out");
    assert_eq!(kept as u64 + left_out, number(&trace["summary"]["reads"]));
    assert!(trace["samples"].as_array().unwrap().len() <= 2048);
    assert_eq!(trace["summary"]["budget_kept"], true, "{}", trace["summary"]);
}

#[test]
fn a_file_that_cannot_be_written_is_named() {
    let trace = ["memory-trace", "tiny.omex", "The cat", "--max-tokens", "1"];
    for option in ["-o", "--chrome"] {
        let refused = run_in(folder(), &[&trace[..], &[option, "nowhere/trace"]].concat());
        assert!(refused.code == Some(1) && refused.err.contains("nowhere"), "{refused:?}");
    }
}
