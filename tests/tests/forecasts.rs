//! What a forecast is made of, on machines that take time for one thing only.

use omex::forecast::{Forecast, forecast};
use omex::plan::Kv;
use omex::profile::Profile;
use omex::quantize::Precision;
use omex::session::{SessionOptions, Tables};
use omex_core::program::ALL;
use omex_tests::{Converted, convert_from, shipped_model};
use serde_json::{Value, json};

const LAYERS: f64 = 4.0;
/// Heads of 12 numbers, two of which share a key.
const HEADS: f64 = 8.0;

/// A machine of two cores on which products and memory cost nothing, and what a pass does besides what
/// is said.
fn machine(passes: Value) -> Profile {
    let mut all = json!({ "operation": 0, "element": 0, "job": 0, "attention": [] });
    all.as_object_mut().unwrap().extend(passes.as_object().unwrap().clone());
    let profile = json!({
        "omex_version": "0", "cpu": "any", "cores": 2, "kernels": [], "products": [], "passes": all,
        "read_bandwidth": { "one_thread": 1e30, "all_threads": 1e30 }, "storage_bandwidth": null,
    });
    serde_json::from_value(profile).unwrap()
}

fn model() -> Converted {
    convert_from(&shipped_model(), Some(Precision::Int8))
}

/// The forecast for a text that fills the context.
fn of(model: &Converted, profile: &Profile, threads: usize, context: u32, kv: Kv) -> Forecast {
    let options =
        SessionOptions { context: Some(context), kv: Some(kv), ..SessionOptions::default() };
    let tables = Tables::open(&model.path).unwrap();
    let plan = tables.plan(&options).unwrap();
    assert_eq!(plan.prefill_chunk, 64.min(context));
    forecast(profile, &tables.program().unwrap(), &plan, threads).unwrap()
}

fn prompt_seconds(forecast: &Forecast) -> f64 {
    f64::from(forecast.prompt_tokens) / forecast.prompt_tok_s
}

fn is_near(found: f64, expected: f64) {
    assert!((found / expected - 1.0).abs() < 1e-9, "{found} instead of {expected}");
}

#[test]
fn each_operation_costs_as_much_whatever_a_pass_is_over() {
    let (model, profile) = (model(), machine(json!({ "operation": 1e-3 })));
    let tables = Tables::open(&model.path).unwrap();
    let operations = tables.program().unwrap().steps(ALL).count() as f64;
    for threads in [1, 2] {
        let of = |context| of(&model, &profile, threads, context, Kv::F16);
        is_near(of(64).pass_seconds, 1e-3 * operations);
        is_near(of(256).pass_seconds, 1e-3 * operations);
        is_near(prompt_seconds(&of(64)), 1e-3 * operations);
        is_near(prompt_seconds(&of(256)), 4e-3 * operations);
    }
}

#[test]
fn numbers_cost_by_tokens_and_not_by_what_is_before_them() {
    let (model, profile) = (model(), machine(json!({ "element": 1e-6 })));
    let of = |context| of(&model, &profile, 2, context, Kv::F16);
    let [short, long] = [64, 256].map(of);
    is_near(long.pass_seconds, short.pass_seconds);
    // Each layer: two norms, all heads, keys and values, the gates, and what is added to the residual.
    let least = 1e-6 * LAYERS * (5.0 * 96.0 + 2.0 * 2.0 * 48.0 + 3.0 * 192.0);
    assert!(short.pass_seconds > least, "{short:?}");
    // The head meets the last token of each pass alone.
    let (one, four) = (prompt_seconds(&short), prompt_seconds(&long));
    is_near(four, 4.0 * one);
    assert!(one < 64.0 * short.pass_seconds && one > 32.0 * short.pass_seconds, "{short:?}");
}

#[test]
fn attention_costs_by_what_a_token_sees_and_by_the_format_of_the_cache() {
    let model = model();
    let time = |width, seconds| json!({ "format": "f16", "width": width, "queries": 1, "seconds": seconds });
    let times = json!([time(8, 1e-6), time(16, 2e-6)]);
    let profile = machine(json!({ "attention": times }));
    for threads in [1, 2] {
        let of = |context| of(&model, &profile, threads, context, Kv::F16);
        let threads = threads as f64;
        // Between 8 and 16: a microsecond and a half.
        let places = |count: f64| 1.5e-6 * LAYERS * HEADS * count / threads;
        is_near(of(64).pass_seconds, places(64.0));
        is_near(of(256).pass_seconds, places(256.0));
        // In blocks of 32: half of the tokens of a pass see one block more than the other half.
        is_near(prompt_seconds(&of(64)), places(32.0 * (32.0 + 64.0)));
        let behind = (1..=8).map(|blocks| 32.0 * 32.0 * f64::from(blocks));
        is_near(prompt_seconds(&of(256)), places(behind.sum()));
    }
    let int8 = of(&model, &profile, 1, 64, Kv::Int8);
    assert!(int8.compute_seconds < 1e-12, "nothing is known of int8: {int8:?}");
}

#[test]
fn work_is_shared_out_where_that_is_faster_and_long_enough() {
    let model = model();
    let time = json!({ "format": "f16", "width": 8, "queries": 1, "seconds": 1e-6 });
    let pass = |job: f64, threads| {
        let times = json!({ "attention": [time], "job": job });
        of(&model, &machine(times), threads, 256, Kv::F16).pass_seconds
    };
    let alone = pass(0.0, 1);
    is_near(pass(0.0, 2), alone / 2.0);
    is_near(pass(1.0, 1), alone);
    // Attention alone is worth it: no matrix is of 64 KiB.
    is_near(pass(1e-6, 2), alone / 2.0 + LAYERS * 1e-6);
    is_near(pass(1.0, 2), alone);
    let short = json!({ "format": "f16", "width": 8, "queries": 1, "seconds": 1e-8 });
    let short = machine(json!({ "attention": [short] }));
    let [one, two] = [1, 2].map(|threads| of(&model, &short, threads, 256, Kv::F16).pass_seconds);
    assert!(one < 250e-6 && one == two, "{one} and {two}");
}
