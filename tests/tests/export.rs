//! What is written as GGUF is the very same model.

use omex::cancel::Cancel;
use omex::export::gguf;
use omex::import::open;
use omex::package::Package;
use omex::quantize::Precision;
use omex::synth::{RandomModel, SHAPES};
use omex_tests::{Converted, Setting, Synthetic, logits, mix, shipped_model};

/// Exports a package, imports that again, and compares every logit.
fn assert_same_model(what: &str, original: &Converted, precision: Option<Precision>) {
    let package = Package::open(&original.path).unwrap();
    let path = original.folder.path().join("model.gguf");
    assert!(!gguf::is_of(&package, &path).unwrap());
    let mut last = (0, 0);
    gguf::write(&package, &path, &Cancel::default(), &mut |done, all| last = (done, all)).unwrap();
    assert_eq!(last.0, last.1, "{what}: all bytes are foreseen");
    assert_eq!(std::fs::metadata(&path).unwrap().len(), last.1, "{what}");
    assert!(gguf::is_of(&package, &path).unwrap(), "{what}");
    let source = open(&path, None).unwrap_or_else(|e| panic!("{what}: {e}"));
    let again = Converted::new(&*source, precision);
    let vocabulary = package.graph.vocab_size;
    let ids: Vec<_> = (0..40).map(|i| (i * i * 7 + i * 3 + 1) % vocabulary).collect();
    let setting = Setting::default();
    assert_eq!(
        logits(&again.path, &ids, &setting),
        logits(&original.path, &ids, &setting),
        "{what}"
    );
}

#[test]
fn quantized_blocks_come_back_as_they_were() {
    let source = open(&shipped_model(), None).unwrap();
    for precision in [Precision::Int8, Precision::Int4] {
        let package = Converted::new(&*source, Some(precision));
        assert_same_model(&format!("the shipped model, {precision:?}"), &package, None);
        let random = RandomModel::new(&SHAPES[0], precision, 7).unwrap();
        let package = Converted::new(&random, Some(precision));
        assert_same_model(&format!("random, {precision:?}"), &package, None);
    }
    let mixed = mix(&*source, &[Precision::Int8, Precision::Int4]);
    assert_same_model("layers of int8 and int4 in turn", &mixed, None);
}

#[test]
fn floats_come_back_as_they_were_whatever_the_shape() {
    for (what, source) in [("odd", Synthetic::odd()), ("odd, untied", Synthetic::odd_untied())] {
        for precision in [Precision::F16, Precision::F32] {
            let package = Converted::new(&source, Some(precision));
            assert_same_model(&format!("{what}, {precision:?}"), &package, Some(precision));
        }
    }
}

#[test]
fn a_file_of_other_weights_is_told_apart() {
    let [first, second] = [0, 1].map(|seed| {
        let random = RandomModel::new(&SHAPES[0], Precision::Int8, seed).unwrap();
        Converted::new(&random, Some(Precision::Int8))
    });
    let path = first.folder.path().join("model.gguf");
    gguf::write(&Package::open(&first.path).unwrap(), &path, &Cancel::default(), &mut |_, _| {})
        .unwrap();
    assert!(gguf::is_of(&Package::open(&first.path).unwrap(), &path).unwrap());
    assert!(!gguf::is_of(&Package::open(&second.path).unwrap(), &path).unwrap());
}

#[test]
fn a_row_of_part_of_a_block_has_no_place_in_a_quantized_gguf() {
    let package = Converted::new(&Synthetic::odd(), Some(Precision::Int8));
    let path = package.folder.path().join("model.gguf");
    let refused = gguf::write(
        &Package::open(&package.path).unwrap(),
        &path,
        &Cancel::default(),
        &mut |_, _| {},
    );
    let message = refused.unwrap_err().to_string();
    assert!(message.contains("graph.json") && message.contains("36"), "{message}");
    assert!(!path.exists());
}
