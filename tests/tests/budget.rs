//! A memory budget is a promise.

use omex::Error;
use omex::pager::PageSource;
use omex::plan::{Kv, MemoryPlan, PROCESS_BYTES, Residency};
use omex::quantize::Precision;
use omex::session::{SessionOptions, plan_model};
use omex_tests::{Converted, Finished, Synthetic, convert_from, json_of, omex, run, shipped_model};
use serde_json::Value;
use std::io::{Seek, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::time::Duration;

/// 80 MB of weights.
fn large_model() -> &'static Path {
    static MODEL: OnceLock<Converted> = OnceLock::new();
    let make = || Converted::new(&Synthetic::new(512, 1408, 24, 8, 4, 8192, 512).in_q8_0(), None);
    &MODEL.get_or_init(make).path
}

fn generate(memory: u64) -> Command {
    let mut command =
        omex(["run", large_model().to_str().unwrap(), "--ids", "1,5,9,700,8191", "--json"]);
    command.args(["--max-tokens", "4", "--threads", "2", "--memory", &memory.to_string()]);
    command
}

/// Runs a command and looks at its peak memory from outside as well, until it ends.
fn watched(command: &mut Command) -> (Finished, u64) {
    let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let status = format!("/proc/{}/status", child.id());
    let watcher = std::thread::spawn(move || {
        let mut peak = 0;
        while let Ok(text) = std::fs::read_to_string(&status) {
            let line = text.lines().find(|line| line.starts_with("VmHWM:"));
            // A process that has ended has no memory any more.
            let Some(kib) = line.and_then(|l| l.split_whitespace().nth(1)?.parse::<u64>().ok())
            else {
                break;
            };
            peak = peak.max(kib << 10);
            std::thread::sleep(Duration::from_millis(2));
        }
        peak
    });
    let output = child.wait_with_output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    let finished =
        Finished { code: output.status.code(), out: text(output.stdout), err: text(output.stderr) };
    (finished.orderly(), watcher.join().unwrap())
}

fn bytes(said: &Value, name: &str) -> u64 {
    said["stats"][name].as_u64().unwrap_or_else(|| panic!("{name} in {said}"))
}

#[test]
fn peak_memory_stays_within_the_budget() {
    let mut texts = vec![];
    for memory in [6, 10, 20, 50, 90, 200].map(|mb| mb * 1_000_000) {
        let (finished, seen) = watched(&mut generate(memory));
        let said = json_of(&finished);
        let (planned, peak) = (bytes(&said, "planned_bytes"), bytes(&said, "peak_bytes").max(seen));
        println!(
            "budget {memory}: {planned} planned, {peak} peak ({seen} seen from outside), {} streamed a token",
            bytes(&said, "streamed_bytes_per_token")
        );
        assert!(planned <= memory, "{planned} planned of {memory}");
        assert!(peak <= memory + PROCESS_BYTES, "{peak} at the peak, of {memory}");
        let kv = plan(large_model(), Some(memory), None, None).unwrap().kv_format;
        texts.push((kv, said["ids"].clone()));
    }
    let [half, int8] = [Kv::F16, Kv::Int8].map(|kv| texts.iter().filter(move |text| text.0 == kv));
    for mut texts in [half, int8] {
        let first = texts.next().expect("budgets for a cache in each format");
        assert!(texts.all(|text| text == first), "the budget changes the text: {first:?}");
    }
}

/// Three times the budget in keys and values.
#[test]
fn peak_memory_stays_within_the_budget_where_caches_are_spilled() {
    const MEMORY: u64 = 10_000_000;
    let prompt: Vec<_> = (0..640).map(|i| (i * 13 % 8192).to_string()).collect();
    let mut command = omex(["run", large_model().to_str().unwrap(), "--ids", &prompt.join(",")]);
    command.args(["--context", "640", "--kv", "f32", "--memory", &MEMORY.to_string()]);
    command.args(["--max-tokens", "3", "--json"]);
    let (finished, seen) = watched(&mut command);
    let said = json_of(&finished);
    let (planned, peak) = (bytes(&said, "planned_bytes"), bytes(&said, "peak_bytes").max(seen));
    let read = bytes(&said, "kv_bytes_read_per_token");
    println!("{planned} planned, {peak} peak, {read} of KV caches read a token");
    assert!(
        planned <= MEMORY && peak <= MEMORY + PROCESS_BYTES,
        "{planned} planned, {peak} at the peak"
    );
    // Each position has 256 numbers of 32 bits in keys, and as many in values, of 24 layers.
    let all = 640 * 2 * 4 * 256 * 24;
    assert!(
        all > MEMORY + PROCESS_BYTES && read > all * 3 / 4 && read <= all * 11 / 10,
        "{read} of {all}"
    );
    let Some(finished) = in_cgroup("spill", MEMORY + PROCESS_BYTES, &command) else { return };
    assert_eq!(json_of(&finished)["ids"], said["ids"]);
}

/// Weights are pinned in what the KV cache does not use yet, and make way for it.
#[test]
fn what_the_cache_lends_is_given_back_as_the_text_grows() {
    const MEMORY: u64 = 32_000_000;
    let model = Converted::new(&Synthetic::new(512, 1408, 6, 8, 4, 8192, 2048).in_q8_0(), None);
    let run = |tokens: u32, memory: u64| {
        let prompt: Vec<_> = (0..tokens).map(|i| (i * 13 % 8192).to_string()).collect();
        let mut command = omex(["run", model.path.to_str().unwrap(), "--ids", &prompt.join(",")]);
        command.args(["--context", "2048", "--kv", "f32", "--memory", &memory.to_string()]);
        command.args(["--max-tokens", "3", "--json"]);
        watched(&mut command)
    };
    let options = SessionOptions {
        memory: Some(MEMORY),
        context: Some(2048),
        kv: Some(Kv::F32),
        ..SessionOptions::default()
    };
    let streamed = plan_model(&model.path, &options).unwrap().streamed_bytes;
    let [(at_first, _), (full, seen)] = [20, 2000].map(|tokens| run(tokens, MEMORY));
    let [at_first, full] = [at_first, full].map(|finished| json_of(&finished));
    let peak = bytes(&full, "peak_bytes").max(seen);
    let read = [&at_first, &full].map(|said| bytes(said, "streamed_bytes_per_token"));
    println!("{peak} at the peak; {read:?} of {streamed} read a token");
    assert!(peak <= MEMORY + PROCESS_BYTES, "{peak} at the peak");
    assert!(read[0] < streamed / 2 && read[1] > streamed * 9 / 10, "{read:?} of {streamed}");
    assert_eq!(json_of(&run(2000, 200_000_000).0)["ids"], full["ids"]);
}

/// Memory for one text as long as the context is enough for many that are short.
#[test]
fn texts_of_a_batch_share_memory_that_one_would_need_at_its_longest() {
    let model = Converted::new(&Synthetic::new(512, 1408, 6, 8, 4, 8192, 2048).in_q8_0(), None);
    let exact = SessionOptions { kv: Some(Kv::F32), sequences: 1, ..SessionOptions::default() };
    let memory = plan_model(&model.path, &exact).unwrap().total + 8_000_000;
    let line = |number: usize, tokens: usize| {
        let ids: Vec<_> = (0..tokens).map(|i| (i * 13 + number * 7) % 8192).collect();
        format!("{}\n", serde_json::json!({"ids": ids, "max_tokens": 24}))
    };
    // Of the long ones, two do not fit at once.
    let lines: String = (0..18).map(|n| line(n, if n % 8 == 3 { 1900 } else { 4 })).collect();
    let prompts = model.folder.path().join("prompts.jsonl");
    std::fs::write(&prompts, lines).unwrap();
    let run = |memory: u64| {
        let output = model.folder.path().join(format!("{memory}.jsonl"));
        let mut command = omex(["batch", model.path.to_str().unwrap(), prompts.to_str().unwrap()]);
        command.args(["-o", output.to_str().unwrap(), "--kv", "f32", "--json"]);
        command.args(["--max-tokens", "24", "--memory", &memory.to_string()]);
        let (finished, seen) = watched(&mut command);
        (json_of(&finished), seen, std::fs::read_to_string(output).unwrap())
    };
    let (said, peak, texts) = run(memory);
    println!("{memory} bytes, {peak} at the peak: {said}");
    assert!(peak <= memory + PROCESS_BYTES, "{peak} at the peak");
    let sorted = |texts: &str| {
        let mut lines: Vec<_> = texts.lines().map(str::to_owned).collect();
        lines.sort_unstable();
        lines
    };
    let (with_more, _, all) = run(1_000_000_000);
    assert_eq!(sorted(&texts), sorted(&all));
    let passes = [&said, &with_more].map(|said| said["passes"].as_u64().unwrap());
    assert!(passes[0] < 2 * passes[1], "{passes:?} passes");
}

#[test]
fn what_is_planned_is_not_exceeded_without_a_budget_either() {
    // A prompt that fills the KV cache, so that its memory is not only promised but used.
    let prompt: Vec<_> = (0..512).map(|i| (i * 13).to_string()).collect();
    for pages in ["mmap", "read"] {
        let more =
            ["run", large_model().to_str().unwrap(), "--ids", &prompt.join(","), "--pages", pages];
        let (finished, seen) = watched(omex(more).args(["--max-tokens", "2", "--json"]));
        let said = json_of(&finished);
        let (planned, peak) = (bytes(&said, "planned_bytes"), bytes(&said, "peak_bytes").max(seen));
        println!("{pages}: {planned} planned, {peak} peak");
        assert!(peak <= planned + PROCESS_BYTES, "{pages}: {peak} at the peak, {planned} planned");
    }
}

fn plan(
    model: &Path,
    memory: Option<u64>,
    kv: Option<Kv>,
    pages: Option<PageSource>,
) -> omex::Result<MemoryPlan> {
    plan_model(model, &SessionOptions { memory, kv, pages, ..SessionOptions::default() })
}

/// What the smallest plan needs.
fn needed(model: &Path, kv: Option<Kv>) -> u64 {
    let options = SessionOptions { memory: Some(1), kv, ..SessionOptions::default() };
    match plan_model(model, &options) {
        Err(Error::Budget { needed, .. }) => needed,
        other => panic!("{other:?} with a byte of memory"),
    }
}

/// The least memory that holds all of a cache in f16 for 512 positions, with weights from there.
fn least(model: &Path, pages: PageSource) -> u64 {
    let (kv, context, pages) = (Some(Kv::F16), Some(512), Some(pages));
    let (mut refused, mut fits) = (0, 1u64 << 30);
    while fits - refused > 1 {
        let middle = fits.midpoint(refused);
        let options = SessionOptions {
            memory: Some(middle),
            kv,
            context,
            pages,
            ..SessionOptions::default()
        };
        match plan_model(model, &options) {
            Ok(plan) if plan.kv_spill.is_none() => fits = middle,
            _ => refused = middle,
        }
    }
    fits
}

#[test]
fn the_cache_is_in_int8_before_its_context_shrinks_or_weights_are_streamed() {
    let model = large_model();
    let choice = |memory, kv| {
        let plan = plan(model, memory, kv, None).unwrap();
        (plan.kv_format, plan.residency == Residency::Mapped, plan.context)
    };
    assert_eq!(choice(None, None), (Kv::F16, true, 512));
    let mapped = least(model, PageSource::Mmap);
    assert_eq!(choice(Some(mapped), None), (Kv::F16, true, 512));
    assert_eq!(choice(Some(mapped - 1), None), (Kv::Int8, true, 512));
    assert_eq!(choice(Some(mapped - 1), Some(Kv::F16)), (Kv::F16, false, 512));
    let streamed = least(model, PageSource::Read);
    assert_eq!(choice(Some(streamed), None), (Kv::F16, false, 512));
    assert_eq!(choice(Some(streamed - 1), None), (Kv::Int8, false, 512));
    let (_, _, shorter) = choice(Some(streamed - 1), Some(Kv::F16));
    assert!(shorter < 512, "{shorter}");
    assert!(needed(model, None) < needed(model, Some(Kv::F16)));
}

/// Who keeps a model in 32-bit floats wants it exact.
#[test]
fn the_cache_of_a_model_in_f32_stays_in_f32() {
    let model = Converted::new(&Synthetic::odd(), Some(Precision::F32));
    let least = needed(&model.path, None);
    assert_eq!(plan(&model.path, Some(least), None, None).unwrap().kv_format, Kv::F32);
    assert_eq!(plan(&model.path, Some(least), Some(Kv::Int8), None).unwrap().kv_format, Kv::Int8);
}

/// The number before a word.
fn number_before(text: &str, word: &str) -> u64 {
    let before = text.split(word).next().unwrap().trim_end();
    before
        .rsplit(' ')
        .next()
        .unwrap()
        .parse()
        .unwrap_or_else(|_| panic!("a number before {word} in {text}"))
}

#[test]
fn a_budget_too_small_is_refused_with_the_shortfall() {
    for memory in [1, 1000, 100_000] {
        let refused = run(&mut generate(memory));
        assert_eq!(refused.code, Some(1), "{refused:?}");
        assert!(refused.out.starts_with("{\"error\":"), "{refused:?}");
        let needed = number_before(&refused.err, "bytes needed");
        let short = number_before(&refused.err, "bytes too small");
        assert_eq!(needed - short, memory, "{}", refused.err);
        assert!(refused.err.contains("--memory"), "{}", refused.err);
        // The shortfall is exact: with it the model runs, with a byte less it does not.
        assert_eq!(run(&mut generate(needed - 1)).code, Some(1));
        if memory == 1 {
            assert_eq!(run(&mut generate(needed)).code, Some(0));
        }
    }
}

#[test]
fn the_plan_is_what_the_run_plans() {
    for memory in ["8MB", "50MB", "1GB"] {
        let model = large_model().to_str().unwrap();
        let plan = json_of(&run(&mut omex(["plan", model, "--memory", memory, "--json"])));
        let said = json_of(&run(&mut omex([
            "run",
            model,
            "--ids",
            "1",
            "--max-tokens",
            "1",
            "--memory",
            memory,
            "--json",
        ])));
        assert_eq!(plan["total"], said["stats"]["planned_bytes"], "{memory}");
        let parts = plan["bytes"].as_object().unwrap().values().map(|v| v.as_u64().unwrap());
        assert_eq!(
            parts.sum::<u64>(),
            plan["total"].as_u64().unwrap(),
            "every byte has a purpose: {plan}"
        );
    }
}

/// The same under a limit that the kernel enforces, page cache included.
#[test]
fn the_budget_holds_under_a_memory_cgroup() {
    let memory = 10_000_000;
    let Some(finished) = in_cgroup("budget", memory + PROCESS_BYTES, &generate(memory)) else {
        return;
    };
    assert!(bytes(&json_of(&finished), "planned_bytes") <= memory);
}

#[test]
fn weights_that_are_more_than_memory_are_streamed_without_being_asked() {
    let mut plain = omex(["run", large_model().to_str().unwrap(), "--ids", "1,5,9,700,8191"]);
    plain.args(["--max-tokens", "4", "--json", "--context", "64", "--kv", "f16"]);
    let expected = json_of(&run(&mut plain));
    assert_eq!(expected["stats"]["pages"], "mmap", "{expected}");
    let Some(finished) = in_cgroup("default", 60_000_000, &plain) else { return };
    let said = json_of(&finished);
    assert_ne!(said["stats"]["pages"], "mmap", "{said}");
    assert_eq!(said["ids"], expected["ids"]);
}

/// Runs a command in a memory control group with this limit; `None`, with a line that says so,
/// where such groups can't be made.
fn in_cgroup(name: &str, limit: u64, command: &Command) -> Option<Finished> {
    let name = format!("omex-test-{name}-{}", std::process::id());
    let group = Path::new("/sys/fs/cgroup/memory").join(name);
    if std::fs::create_dir(&group).is_err() {
        println!("skipped: memory cgroups (version 1) can't be made here");
        return None;
    }
    let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        if std::fs::write(group.join("memory.limit_in_bytes"), limit.to_string()).is_err() {
            println!("skipped: a memory cgroup's limit can't be set here");
            return None;
        }
        let mut shell = Command::new("sh");
        shell.arg("-c").arg("echo $$ > \"$0\" && exec \"$@\"").arg(group.join("cgroup.procs"));
        shell.arg(command.get_program()).args(command.get_args()).env("OMEX_CONFIG", "");
        let finished = run(&mut shell);
        let peak = std::fs::read_to_string(group.join("memory.max_usage_in_bytes"));
        println!("limit {limit}: {} at the peak with page cache", peak.unwrap_or_default().trim());
        Some(finished)
    }));
    // The group goes once its last process has gone.
    for _ in 0..100 {
        if std::fs::remove_dir(&group).is_ok() {
            break;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    result.unwrap_or_else(|e| std::panic::resume_unwind(e))
}

#[test]
fn the_shipped_model_runs_in_what_its_plan_says() {
    let package = convert_from(&shipped_model(), Some(Precision::Int8));
    let model = package.path.to_str().unwrap();
    let refused = run(&mut omex(["run", model, "Once", "--memory", "1KB"]));
    assert_eq!(refused.code, Some(1), "{refused:?}");
    let needed = number_before(&refused.err, "bytes needed");
    let (finished, seen) =
        watched(&mut omex(["run", model, "Once", "--memory", &needed.to_string(), "--json"]));
    let said = json_of(&finished);
    println!("shipped model: {needed} needed, {seen} at the peak");
    assert!(bytes(&said, "planned_bytes") <= needed && seen <= needed + PROCESS_BYTES);
}

/// Runs a command of the shipped model with a text on standard input.
fn with_text(args: &[&str], text: &str) -> (Finished, u64) {
    static MODEL: OnceLock<Converted> = OnceLock::new();
    let model = MODEL.get_or_init(|| convert_from(&shipped_model(), Some(Precision::Int8)));
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(text.as_bytes()).unwrap();
    file.rewind().unwrap();
    watched(omex([&[args[0], model.path.to_str().unwrap()], &args[1..]].concat()).stdin(file))
}

/// Texts as long as people paste them, with words of any length.
#[test]
fn texts_stay_within_the_budget_or_are_refused() {
    let words = "Once upon a time there was a robot. ";
    let run = ["run", "-", "--max-tokens", "1", "--json"];
    let (tokenize, eval) = (["tokenize", "-"], ["eval", "--data", "-"]);
    let long = ["a".repeat(1_000_000), "\u{4f60}".repeat(500_000), words.repeat(100_000)];
    let short = ["a".repeat(5_000), "a".repeat(50_000), words.repeat(50_000)];
    let [chinese, fits] = [&long[1], &short[0]];
    let as_json = ["tokenize", "-", "--json"];
    let cases: [(&[&str], &str, bool); 10] = [
        (&run, &long[0], false),
        (&run, chinese, false),
        (&run, &long[2], false),
        (&tokenize, chinese, false),
        (&eval, chinese, false),
        (&run, fits, true),
        (&eval, fits, true),
        (&tokenize, &short[1], true),
        (&tokenize, &short[2], true),
        (&as_json, &short[2], true),
    ];
    for (args, text, fits) in cases {
        let memory = if fits { 8_000_000 } else { 2_000_000 };
        let budget = ["--memory", &memory.to_string()];
        let (said, peak) = with_text(&[args, &budget].concat(), text);
        let what = format!("{args:?}, {:.12}, {} bytes", text, text.len());
        assert_eq!(said.code == Some(0), fits, "{what}: {}", said.err);
        assert!(peak <= memory + PROCESS_BYTES, "{what}: {peak} at the peak");
        assert!(fits || said.err.contains("raise --memory"), "{what}: {}", said.err);
        if fits && args[0] == "run" {
            assert!(bytes(&json_of(&said), "planned_bytes") <= memory, "{what}: {said:?}");
        }
    }
}

/// Without a budget, what the system leaves is one.
#[test]
fn texts_stay_within_the_limits_of_a_memory_cgroup() {
    let folder = tempfile::tempdir().unwrap();
    let text = folder.path().join("text");
    std::fs::write(&text, "\u{4f60}".repeat(2_000_000)).unwrap();
    let model = convert_from(&shipped_model(), Some(Precision::Int8));
    let args = ["eval", model.path.to_str().unwrap(), "--data", text.to_str().unwrap()];
    let Some(said) = in_cgroup("texts", 60_000_000, &omex(args)) else { return };
    assert_eq!(said.code, Some(1), "{said:?}");
    assert!(said.err.contains("encoding a text of 6000000 bytes takes up to"), "{said:?}");
}

#[test]
fn lines_of_a_batch_that_take_more_than_the_budget_are_refused_one_by_one() {
    let folder = tempfile::tempdir().unwrap();
    let output = folder.path().join("out.jsonl");
    let long = format!("{{\"prompt\": \"{}\", \"max_tokens\": 2}}\n", "a".repeat(3_000_000));
    let short = "{\"prompt\": \"Once\", \"max_tokens\": 2}\n";
    let text = [short, &long, &long, &long, &long, short].concat();
    let args = ["batch", "-", "-o", output.to_str().unwrap(), "--memory", "3MB"];
    let (said, peak) = with_text(&args, &text);
    assert!(said.out.starts_with("2 done, 4 failed"), "{said:?}");
    assert!(peak <= 3_000_000 + PROCESS_BYTES, "{peak} at the peak");
}
