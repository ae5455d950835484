//! A model that is split into several GGUF files is one model, whichever of them is named.

use omex::import::{Container, SourceFormat, detect, model_name, open};
use omex_tests::{omex, run};
use std::fs;
use std::path::Path;

fn string(text: &str) -> Vec<u8> {
    [&(text.len() as u64).to_le_bytes(), text.as_bytes()].concat()
}

fn integer(name: &str, value: u32) -> Vec<u8> {
    [&string(name), &4u32.to_le_bytes()[..], &value.to_le_bytes()].concat()
}

/// A GGUF file of vectors of 8 floats; the first number of each is given.
fn gguf(keys: &[Vec<u8>], tensors: &[(&str, f32)]) -> Vec<u8> {
    let counts = [tensors.len() as u64, keys.len() as u64].map(u64::to_le_bytes).concat();
    let mut file = [&b"GGUF\x03\0\0\0"[..], &counts, &keys.concat()].concat();
    for (at, (name, _)) in tensors.iter().enumerate() {
        file.extend(string(name));
        file.extend(1u32.to_le_bytes());
        file.extend(8u64.to_le_bytes());
        file.extend(0u32.to_le_bytes());
        file.extend((32 * at as u64).to_le_bytes());
    }
    file.resize(file.len().next_multiple_of(32), 0);
    for (_, first) in tensors {
        file.extend((0..8u8).flat_map(|n| (first + f32::from(n)).to_le_bytes()));
    }
    file
}

/// A part with this number, from 0 on; the first has the model's fields.
fn part(number: u32, count: u32, tensors: &[(&str, f32)]) -> Vec<u8> {
    let architecture =
        [string("general.architecture"), 8u32.to_le_bytes().to_vec(), string("llama")];
    let mut keys = vec![
        integer("split.no", number),
        integer("split.count", count),
        integer("split.tensors.count", 5),
    ];
    if number == 0 {
        keys.push(architecture.concat());
    }
    gguf(&keys, tensors)
}

const NAMES: [&str; 3] =
    ["m-00001-of-00003.gguf", "m-00002-of-00003.gguf", "m-00003-of-00003.gguf"];

/// A folder with a model in three parts.
fn split() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let tensors: [&[(&str, f32)]; 3] =
        [&[("a", 0.0), ("b", 100.0)], &[("c", 200.0)], &[("d", 300.0), ("e", 400.0)]];
    for ((number, name), tensors) in (0..).zip(NAMES).zip(tensors) {
        fs::write(folder.path().join(name), part(number, 3, tensors)).unwrap();
    }
    folder
}

fn is_whole(model: &dyn Container) {
    assert_eq!(model.names(), ["a", "b", "c", "d", "e"]);
    assert_eq!(model.config()["general.architecture"], "llama");
    for (name, first) in model.names().iter().zip([0.0, 100.0, 200.0, 300.0, 400.0]) {
        let mut row = [0.0; 8];
        model.read_row(name, 0, &mut row).unwrap();
        assert_eq!((row[0], row[7]), (first, first + 7.0), "{name}");
    }
}

fn refusal(path: &Path) -> String {
    open(path, None).map(|_| ()).unwrap_err().to_string()
}

#[test]
fn any_part_and_the_folder_stand_for_the_whole_model() {
    let folder = split();
    for name in NAMES {
        let path = folder.path().join(name);
        is_whole(&*open(&path, None).unwrap());
        assert_eq!(model_name(&path), "m");
    }
    assert_eq!(detect(folder.path()).unwrap(), SourceFormat::Gguf);
    is_whole(&*open(folder.path(), None).unwrap());
    // Beside another model, the folder could mean either.
    fs::write(folder.path().join("n.gguf"), gguf(&[], &[])).unwrap();
    let said = refusal(folder.path());
    assert!(said.contains("2 models: m-00001-of-00003.gguf, n.gguf"), "{said}");
    is_whole(&*open(&folder.path().join(NAMES[1]), None).unwrap());
}

#[test]
fn parts_that_are_missing_are_named() {
    let folder = split();
    let at = |name: &str| folder.path().join(name);
    fs::remove_file(at(NAMES[0])).unwrap();
    for path in [at(NAMES[1]), at(NAMES[2]), folder.path().to_owned()] {
        let said = refusal(&path);
        assert!(
            said.contains("the parts: found no m-00001-of-00003.gguf, expected all 3"),
            "{said}"
        );
    }
    // Told by the command, too, where it looks for a package.
    let said = run(omex(["run"]).arg(folder.path()));
    assert!(said.code == Some(1) && said.err.contains("omex convert"), "{said:?}");
    let many = at("k-00007-of-00012.gguf");
    fs::write(&many, part(6, 12, &[])).unwrap();
    let said = refusal(&many);
    assert!(said.contains("k-00005-of-00012.gguf and 6 others"), "{said}");
}

#[test]
fn parts_of_several_models_are_refused() {
    let said = |name: &str, bytes: &[u8]| {
        let folder = split();
        fs::write(folder.path().join(name), bytes).unwrap();
        refusal(&folder.path().join(NAMES[0]))
    };
    let found = said(NAMES[1], &part(2, 3, &[("c", 0.0)]));
    assert!(found.contains("m-00002-of-00003.gguf: split.no: found 2, expected 1"), "{found}");
    let found = said(NAMES[1], &part(1, 4, &[("c", 0.0)]));
    assert!(found.contains("split.count: found 4, expected 3"), "{found}");
    let found = said(NAMES[1], &gguf(&[], &[("c", 0.0)]));
    assert!(found.contains("split.no: found no such key"), "{found}");
    let found = said(NAMES[1], &part(1, 3, &[("a", 0.0)]));
    assert!(found.contains("a: found the tensor a second time"), "{found}");
    let found = said(NAMES[1], &part(1, 3, &[]));
    assert!(found.contains("split.tensors.count: found 4 in all parts, expected 5"), "{found}");
    let folder = split();
    let other = folder.path().join("renamed.gguf");
    fs::copy(folder.path().join(NAMES[0]), &other).unwrap();
    let found = refusal(&other);
    assert!(found.contains("expected NAME-00001-of-00003.gguf"), "{found}");
}
