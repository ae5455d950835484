//! What `omex layer-inspect` shows of the layers is what `omex plan` says of the model.

use omex_tests::{json_of, run_in, shipped_model};
use serde_json::Value;
use std::path::Path;

/// Both commands' objects for the same arguments.
fn inspected(folder: &Path, args: &[&str]) -> (Value, Value) {
    let say = |command| {
        let args = [&[command][..], args, &["--storage-bandwidth", "1GB/s", "--json"]].concat();
        json_of(&run_in(folder, &args))
    };
    (say("layer-inspect"), say("plan"))
}

fn rows(inspected: &Value) -> &[Value] {
    inspected["layers"].as_array().unwrap()
}

fn sum(inspected: &Value, field: &str) -> u64 {
    rows(inspected).iter().map(|row| row[field].as_u64().unwrap()).sum()
}

fn seconds(inspected: &Value, field: &str) -> f64 {
    rows(inspected).iter().map(|row| row[field].as_f64().unwrap()).sum()
}

/// A package, an image and one in planes, of the model that ships here.
fn models(folder: &Path) {
    let source = shipped_model();
    let convert = ["convert", "--model-path", source.to_str().unwrap(), "--no-calibration"];
    for to in [
        &["--output-dir", "int8.omex"][..],
        &["--output-dir", "planes.omex", "--quantization", "int4+4"],
    ] {
        assert_eq!(run_in(folder, &[&convert[..], to].concat()).code, Some(0));
    }
    let pack = ["pack", "int8.omex", "--ram", "64K", "-o", "card.img"];
    assert_eq!(run_in(folder, &pack).code, Some(0));
    std::fs::copy(source.join("config.json"), folder.join("config.json")).unwrap();
}

#[test]
fn layers_add_up_to_the_plan() {
    let folder = tempfile::tempdir().unwrap();
    models(folder.path());
    let mut partly_pinned = 0;
    for args in [
        &["int8.omex"][..],
        &["int8.omex", "--memory", "600KB"],
        &["int8.omex", "--memory", "800KB"],
        &["planes.omex"],
        &["planes.omex", "--precision", "base"],
        &["planes.omex", "--memory", "800KB", "--precision", "base"],
        &["card.img"],
        &["card.img", "--memory", "600KB"],
        &["config.json", "--quantization", "int4", "--memory", "400KB"],
    ] {
        let (layers, plan) = inspected(folder.path(), args);
        let names: Vec<_> = rows(&layers).iter().map(|row| row["name"].as_str().unwrap()).collect();
        let expected = ["embedding", "layer 0", "layer 1", "layer 2", "layer 3", "head"];
        assert_eq!(names[..6], expected, "{args:?}");
        for (field, total) in [
            ("resident_bytes", &plan["bytes"]["weights"]),
            ("streamed_bytes", &plan["streamed_bytes"]),
            ("kv_cache_bytes", &plan["bytes"]["kv_cache"]),
        ] {
            assert_eq!(sum(&layers, field), total.as_u64().unwrap(), "{args:?}: {field}");
        }
        let weights = sum(&layers, "base_bytes") + sum(&layers, "residual_bytes");
        assert_eq!(weights, plan["forecast"]["weight_bytes_per_token"], "{args:?}");
        let pass = seconds(&layers, "read_seconds").max(seconds(&layers, "compute_seconds"));
        let forecast = plan["forecast"]["pass_seconds"].as_f64().unwrap();
        assert!((pass / forecast - 1.0).abs() < 1e-9, "{args:?}: {pass} of {forecast} seconds");
        assert_eq!(layers["forecast"], plan["forecast"], "{args:?}");
        assert_eq!(layers["plan"]["bytes"], plan["bytes"], "{args:?}");
        let pinned = |row: &&Value| row["resident_bytes"] != 0 && row["streamed_bytes"] != 0;
        partly_pinned += rows(&layers).iter().filter(pinned).count();
    }
    assert!(partly_pinned > 0, "some layer is pinned in part");
}

#[test]
fn planes_and_operations_are_counted_layer_by_layer() {
    let folder = tempfile::tempdir().unwrap();
    models(folder.path());
    let (full, _) = inspected(folder.path(), &["planes.omex"]);
    let (base, _) = inspected(folder.path(), &["planes.omex", "--precision", "base"]);
    for (full, base) in rows(&full)[1..5].iter().zip(&rows(&base)[1..5]) {
        assert_eq!(
            (&full["base_bytes"], &base["residual_bytes"]),
            (&base["base_bytes"], &0.into())
        );
        assert!(full["residual_bytes"].as_u64() > Some(40_000), "{full}");
        // Of 3 × 96 × 96 for queries, keys, values and the output, 3 × 96 × 192 for feed forward, and
        // of attention over 256 positions; residual planes double all but the last.
        let products = |row: &Value| row["multiply_adds"].as_u64().unwrap() - 2 * 96 * 256;
        assert_eq!(products(base), 3 * 96 * 96 + 3 * 96 * 192, "{base}");
        assert_eq!(products(full), 2 * products(base), "{full}");
    }
    let text = run_in(folder.path(), &["layer-inspect", "planes.omex", "--memory", "700KB"]);
    assert_eq!(text.code, Some(0), "{text:?}");
    for word in ["residual", "streamed", "KV cache", "layer 3", "in all", "limited by"] {
        assert!(text.out.contains(word), "{word} in {}", text.out);
    }
    let refused = ["layer-inspect", "planes.omex", "--quantization", "int4"];
    assert_eq!(run_in(folder.path(), &refused).code, Some(2));
}
