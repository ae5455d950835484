//! Architectures compute what transformers does, with weights that follow from their tensors' names.

use omex::quantize::Precision;
use omex_tests::{Setting, convert_from, logits, made_models, worst_error};

#[test]
fn logits_are_those_of_transformers() {
    for model in made_models() {
        let (kind, ids) = (&model.name, &model.ids);
        let package = convert_from(model.folder.path(), Some(Precision::F32));
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
