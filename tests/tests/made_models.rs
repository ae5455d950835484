//! Architectures compute what transformers does, with weights that follow from their tensors' names.

use omex::convert::ConvertOptions;
use omex::import::open;
use omex::quantize::Precision;
use omex_tests::{
    Converted, MadeModel, Setting, json, json_of, logits, made_models, run_in, worst_error,
};
use std::path::Path;

/// Its package, for texts of any length.
fn converted(model: &Path, long_context: bool) -> Converted {
    let precision = Some(Precision::F32);
    let options = ConvertOptions { precision, long_context, ..ConvertOptions::default() };
    Converted::with(&*open(model, None).unwrap(), &options)
}

/// The model that has other factors for long texts.
fn of_long_texts() -> MadeModel {
    made_models().find(|model| model.short.is_some()).unwrap()
}

#[test]
fn logits_are_those_of_transformers() {
    for model in made_models() {
        let (kind, ids) = (&model.name, &model.ids);
        let package = converted(model.folder.path(), model.short.is_some());
        let whole = logits(&package.path, ids, &Setting::default());
        let worst = worst_error(&whole, &model.logits);
        println!("{kind}: largest relative error {worst:.2e}");
        assert!(worst < 1e-4, "{kind}: {worst:e}");
        for chunks in [&[1][..], &[4, 2]] {
            let setting = Setting { chunks, ..Setting::default() };
            assert!(
                logits(&package.path, ids, &setting) == whole,
                "{kind} in passes of {chunks:?}"
            );
        }
    }
}

#[test]
fn short_texts_have_factors_of_their_own_unless_long_ones_are_wanted() {
    let model = of_long_texts();
    let (source, short) = (model.folder.path(), model.short.as_ref().unwrap());
    let package = converted(source, false);
    assert_eq!(json(&package.path.join("graph.json"))["context_length"], short.len());
    let found = logits(&package.path, &model.ids[..short.len()], &Setting::default());
    assert!(worst_error(&found, short) < 1e-4, "{}", worst_error(&found, short));

    let here = |args: &[&str]| run_in(source, args);
    let options = ["convert", ".", "--output-dir", "m.omex", "--quantization", "f32", "--force"];
    let plain = here(&[&options[..], &["--dry-run"]].concat());
    assert!(plain.out.contains("context    6 tokens; --long-context takes 64"), "{plain:?}");
    assert!(plain.out.contains("with 6 tokens at most"), "{plain:?}");
    let said = json_of(&here(&[&options[..], &["--long-context", "--json"]].concat()));
    assert_eq!(said["planned"]["context"], 64);
    assert_eq!(json(&source.join("m.omex/graph.json"))["context_length"], 64);
    // The model with its weights as they are stored takes the same factors.
    assert!(said["check"]["compared"]["kl_divergence"].as_f64().unwrap() < 1e-9, "{said}");
    let found = logits(&source.join("m.omex"), &model.ids, &Setting::default());
    assert!(worst_error(&found, &model.logits) < 1e-4);
}

#[test]
fn both_kinds_of_factors_go_into_a_gguf_file_and_come_back() {
    let model = of_long_texts();
    let folder = model.folder.path();
    let packages = [false, true].map(|long| converted(folder, long));
    let texts = [&model.ids[..model.short.as_ref().unwrap().len()], &model.ids[..]];
    for package in &packages {
        let path = package.path.to_str().unwrap();
        let export = ["export", path, "--format", "gguf", "--output", "m.gguf"];
        let said = run_in(folder, &export);
        assert!(said.code == Some(0), "{said:?}");
        for long in [false, true] {
            let again = converted(&folder.join("m.gguf"), long);
            let [found, expected] = [&again, &packages[usize::from(long)]].map(|package| {
                logits(&package.path, texts[usize::from(long)], &Setting::default())
            });
            assert!(found == expected, "long {long}: {}", worst_error(&found, &expected));
        }
    }
}

#[test]
fn a_model_without_factors_for_long_texts_is_not_made_for_them() {
    let model = made_models().find(|model| model.short.is_none()).unwrap();
    let said = run_in(model.folder.path(), &["convert", ".", "--long-context"]);
    assert!(said.code == Some(1) && said.err.contains("without --long-context"), "{said:?}");
    let dry = run_in(model.folder.path(), &["convert", ".", "--long-context", "--dry-run"]);
    assert!(dry.code == Some(1) && dry.err.contains("rope_scaling"), "{dry:?}");
}
