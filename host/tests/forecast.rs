//! What a plan costs, on machines that are made up.

use omex::Error;
use omex::cancel::Cancel;
use omex::forecast::{Forecast, Limit, forecast};
use omex::pager::PageSource;
use omex::plan::{MemoryPlan, Residency};
use omex::profile::Profile;
use omex::quantize::Precision;
use omex::session::{SessionOptions, Tables};
use omex::synth::{SHAPES, write};
use serde_json::json;
use std::path::Path;

/// A machine that reads memory at `memory` and storage at `storage` bytes a second, and takes
/// `seconds` for a GiB of weights and a column.
fn machine(memory: f64, storage: Option<f64>, seconds: f64) -> Profile {
    let product = |format: &str, columns: u32| {
        let seconds = seconds * f64::from(columns);
        let at = json!({ "from_cache": seconds, "from_memory": seconds });
        json!({ "format": format, "columns": columns, "one_thread": at, "all_threads": at })
    };
    let products: Vec<_> = ["f32", "int8", "int4"].map(|format| product(format, 1)).into();
    let profile = json!({
        "omex_version": "0", "cpu": "made up", "cores": 2, "kernels": [],
        "read_bandwidth": { "one_thread": memory, "all_threads": memory },
        "storage_bandwidth": storage,
        "products": products,
        "passes": { "operation": 0, "element": 0, "job": 0, "attention": [] },
    });
    serde_json::from_value(profile).unwrap()
}

fn tables(folder: &Path) -> Tables {
    let path = folder.join("random.omex");
    write(&SHAPES[0], Precision::Int8, 0, &path, false, &Cancel::default(), &mut |_, _| {})
        .unwrap();
    Tables::open(&path).unwrap()
}

fn costs(tables: &Tables, plan: &MemoryPlan, profile: &Profile) -> Option<Forecast> {
    forecast(profile, &tables.program().unwrap(), plan, 2)
}

const FAST: f64 = 1e15;

#[test]
fn a_pass_takes_as_long_as_the_slower_of_reading_and_computing() {
    let folder = tempfile::tempdir().unwrap();
    let tables = tables(folder.path());
    let options = SessionOptions { memory: Some(400_000), ..SessionOptions::default() };
    let plan = tables.plan(&options).unwrap();
    assert!(matches!(plan.residency, Residency::Streamed { .. }) && plan.streamed_bytes > 0);
    let on = |memory, storage, seconds| {
        costs(&tables, &plan, &machine(memory, Some(storage), seconds)).unwrap()
    };
    let close = |found: f64, expected: f64| (found / expected - 1.0).abs() < 1e-6;

    let storage = on(FAST, 1e3, 1e-9);
    assert_eq!(storage.decode_limit, Limit::Storage);
    assert!(close(storage.pass_seconds, storage.streamed_bytes as f64 / 1e3), "{storage:?}");
    assert!(close(storage.decode_tok_s * storage.pass_seconds, 1.0), "{storage:?}");
    let passes = f64::from(storage.prompt_tokens.div_ceil(plan.prefill_chunk));
    let prompt = f64::from(storage.prompt_tokens) / (passes * storage.pass_seconds);
    assert!(close(storage.prompt_tok_s, prompt), "a pass reads the same for all its tokens");

    // Matrices of int8, and nothing beside them.
    let compute = on(FAST, FAST, 1e6);
    assert_eq!((compute.decode_limit, compute.prompt_limit), (Limit::Compute, Limit::Compute));
    let matrices = compute.weight_bytes_per_token as f64 / f64::from(1 << 30) * 1e6;
    assert!((0.95..1.0).contains(&(compute.pass_seconds / matrices)), "{compute:?}");
    assert_eq!(on(1e3, FAST, 1e-9).decode_limit, Limit::Memory);
    assert_eq!(on(1e3, 1e-3, 1e-9).decode_limit, Limit::Storage);
}

#[test]
fn spilled_caches_are_read_for_every_pass() {
    let folder = tempfile::tempdir().unwrap();
    let tables = tables(folder.path());
    let pages = Some(PageSource::Mmap);
    let options = SessionOptions { context: Some(8192), pages, ..SessionOptions::default() };
    let refused = tables.plan(&SessionOptions { memory: Some(1), ..options.clone() });
    let Err(Error::Budget { needed, .. }) = refused else { panic!("{refused:?}") };
    let plan = tables.plan(&SessionOptions { memory: Some(needed), ..options }).unwrap();
    let spill = plan.kv_spill.unwrap();
    assert_eq!(costs(&tables, &plan, &machine(FAST, None, 1e-9)), None);
    let forecast = costs(&tables, &plan, &machine(FAST, Some(1e3), 1e-9)).unwrap();
    assert_eq!(forecast.full_cache_pass_seconds, spill.bytes as f64 / 1e3);
    let before = f64::from(forecast.prompt_tokens + 1) / 8192.0;
    assert_eq!(forecast.pass_seconds, before * spill.bytes as f64 / 1e3);
}

#[test]
fn storage_matters_only_to_what_streams() {
    let folder = tempfile::tempdir().unwrap();
    let tables = tables(folder.path());
    let unknown = machine(1e9, None, 1.0);
    let mapped = tables.plan(&SessionOptions::default()).unwrap();
    let forecast = costs(&tables, &mapped, &unknown).unwrap();
    assert_eq!(forecast.streamed_bytes, 0);
    assert_eq!(forecast.resident_bytes, forecast.weight_bytes_per_token);
    let streamed = SessionOptions { memory: Some(400_000), ..SessionOptions::default() };
    assert_eq!(costs(&tables, &tables.plan(&streamed).unwrap(), &unknown), None);
}
