//! What is decided without being asked for and changes texts is told, or refused.

use omex::plan::Kv;
use omex::quantize::Precision;
use omex::session::{SessionOptions, plan_model};
use omex_tests::{Converted, Finished, convert_from, json_of, omex, run, shipped_model};
use serde_json::Value;
use std::sync::OnceLock;

fn model() -> &'static str {
    static MODEL: OnceLock<Converted> = OnceLock::new();
    let make = || convert_from(&shipped_model(), Some(Precision::Int8));
    MODEL.get_or_init(make).path.to_str().unwrap()
}

fn generate(args: &[&str]) -> Finished {
    run(&mut omex([&["run", model()], args].concat()))
}

fn stat(said: &Finished, name: &str) -> Value {
    assert_eq!(said.code, Some(0), "{said:?}");
    json_of(said)["stats"][name].clone()
}

/// A budget under which the plan is another one in this, and what it says.
fn forced(changed: impl Fn(u32, Kv) -> bool) -> (String, u32, Kv) {
    let path = std::path::Path::new(model());
    let most = plan_model(path, &SessionOptions::default()).unwrap().total;
    let budgets = (1..=200).map(|step| most - most / 250 * step);
    let mut plans = budgets.map_while(|memory| {
        let options = SessionOptions { memory: Some(memory), ..SessionOptions::default() };
        plan_model(path, &options).ok().map(|plan| (memory.to_string(), plan))
    });
    let found = plans.find(|(_, plan)| changed(plan.context, plan.kv_format));
    let (memory, plan) = found.expect("a budget");
    (memory, plan.context, plan.kv_format)
}

#[test]
fn what_a_budget_does_to_the_text_is_told_or_refused() {
    let free = generate(&["Once", "--max-tokens", "2", "--json", "--strict"]);
    assert!(free.err.is_empty(), "{free:?}");
    let context = stat(&free, "context").as_u64().unwrap() as u32;
    let (less_exact, shorter) =
        (forced(|_, kv| kv == Kv::Int8), forced(|positions, _| positions < context));
    let told = [
        (less_exact, "keys and values in f16, they are stored in int8"),
        (shorter, &*format!("a context of {context} positions, it is ")),
    ];
    for ((memory, context, kv), words) in told {
        let args = ["Once", "--max-tokens", "2", "--json", "--memory", &memory];
        let said = generate(&args);
        assert!(said.err.contains("note: the memory is too small for"), "{said:?}");
        assert!(said.err.contains(words), "{words} in {said:?}");
        assert_eq!(stat(&said, "context"), context);
        assert_eq!(stat(&said, "kv_format"), kv.to_string());
        let refused = generate(&[&args[..], &["--strict"]].concat());
        assert_eq!(refused.code, Some(2), "{refused:?}");
        assert!(refused.err.contains(words) && refused.err.contains("--strict"), "{refused:?}");
        // What was asked for is no decision.
        let (context, kv) = (context.to_string(), kv.to_string());
        let asked = ["--context", &context, "--kv", &kv, "--strict"];
        let asked = generate(&[&args[..], &asked].concat());
        assert!(asked.code == Some(0) && asked.err.is_empty(), "{asked:?}");
    }
}

#[test]
fn a_context_beyond_the_models_is_told() {
    let said = generate(&["Once", "--max-tokens", "1", "--context", "100000"]);
    assert!(said.err.contains("100000 positions is more than the 256"), "{said:?}");
}

#[test]
fn what_is_forgotten_of_a_text_is_told_and_counted_or_refused() {
    let ids = |count: u32| (0..count).map(|id| (1 + id).to_string()).collect::<Vec<_>>().join(",");
    let with = |count: u32, max_tokens: &str, more: &[&str]| {
        let ids = ids(count);
        let args = ["--ids", &ids, "--max-tokens", max_tokens, "--context", "32", "--json"];
        generate(&[&args[..], more].concat())
    };
    let counts = |said: &Finished| {
        ["forgotten_prompt_tokens", "forgotten_tokens"]
            .map(|name| stat(said, name).as_u64().unwrap())
    };
    let short = with(20, "13", &["--strict"]);
    assert!(counts(&short) == [0, 0] && short.err.is_empty(), "{short:?}");
    let grown = with(20, "14", &[]);
    assert_eq!(counts(&grown), [0, 1], "{grown:?}");
    assert!(
        grown.err.contains("note: the text has 34 tokens, the context 32: all but"),
        "{grown:?}"
    );
    let cut = with(40, "3", &[]);
    assert_eq!(counts(&cut), [8, 10], "{cut:?}");
    assert!(cut.err.contains("note: the prompt has 40 tokens, the context 32: all but"), "{cut:?}");
    assert_eq!(cut.err.matches("forgotten").count(), 1, "{cut:?}");
    let refused = [with(20, "14", &["--strict"]), with(40, "1", &["--strict"])];
    for (said, words) in refused.iter().zip(["lower --max-tokens to 13", "prompt has 40 tokens"]) {
        assert!(said.code == Some(2) && said.err.contains(words), "{said:?}");
    }
    let logits = run(&mut omex(["logits", model(), "--ids", &ids(40), "--context", "32"]));
    assert!(logits.err.contains("note: the prompt has 40 tokens"), "{logits:?}");
    let trace = run(&mut omex(["memory-trace", model(), "--ids", &ids(40), "--context", "32"]));
    assert!(trace.err.contains("note: the prompt has 40 tokens"), "{trace:?}");
}

#[test]
fn lines_of_a_batch_say_what_they_forget() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let line = |count: usize, most: u32| {
        let ids: Vec<_> = (1..=count).collect();
        format!("{}\n", serde_json::json!({"ids": ids, "max_tokens": most}))
    };
    std::fs::write(at("in"), [line(20, 13), line(20, 14), line(40, 3)].concat()).unwrap();
    let batch = |output: &str, more: &[&str]| {
        let args = ["batch", model(), &at("in"), "-o", &at(output), "--context", "32", "--json"];
        let said = run(&mut omex([&args[..], more].concat()));
        let text = std::fs::read_to_string(at(output)).unwrap();
        let lines = text.lines().skip(1).map(|line| serde_json::from_str::<Value>(line).unwrap());
        let mut lines: Vec<_> = lines.collect();
        lines.sort_by_key(|line| line["line"].as_u64());
        (said, lines)
    };
    let (said, lines) = batch("out", &[]);
    let counts = lines.iter().map(|l| [&l["forgotten_prompt_tokens"], &l["forgotten_tokens"]]);
    let null = Value::Null;
    let expected = [[&null, &null], [&null, &1.into()], [&8.into(), &10.into()]];
    assert_eq!(counts.collect::<Vec<_>>(), expected);
    assert_eq!(json_of(&said)["forgetful"], 2);
    assert!(said.err.contains("line 3: the prompt has 40 tokens, the context 32"), "{said:?}");
    assert!(said.err.contains("note: 2 texts are longer than the context of 32"), "{said:?}");
    let (said, lines) = batch("strict", &["--strict"]);
    assert!(said.code == Some(1) && said.out.contains("\"failed\":2"), "{said:?}");
    assert!(lines[1]["error"].as_str().unwrap().contains("lower --max-tokens to 13"), "{lines:?}");
}
