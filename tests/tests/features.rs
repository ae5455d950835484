//! What firmware has to be built with for a model.

use omex::features;
use omex::import::open;
use omex::package::Package;
use omex::plan::Kv;
use omex::quantize::Precision;
use omex_tests::{Converted, shared, shipped_model};
use std::path::Path;

fn of(model: &Path) -> String {
    let package = Converted::new(&*open(model, None).unwrap(), Some(Precision::Int8));
    let features = features::of(&Package::open(&package.path).unwrap(), Kv::F16).unwrap();
    features.into_iter().collect::<Vec<_>>().join(" ")
}

#[test]
fn the_model_that_ships_here_needs_what_boards_have() {
    assert_eq!(of(&shipped_model()), "text");
}

#[test]
fn other_models_name_what_else_they_need() {
    for (model, expected) in [
        ("models/mlperf_tiny/kws_ref_model.tflite", "int8"),
        ("golden/gpt2", "float text"),
        ("golden/gemma2", "float text"),
        ("golden/llama_tied", "text"),
        ("golden/bert", "float text"),
    ] {
        match shared(model) {
            Some(path) => assert_eq!(of(&path), expected, "{model}"),
            None => println!("skipped: the test data {model} are not beside the repository"),
        }
    }
}
