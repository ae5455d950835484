//! Checkpoints of PyTorch give the numbers that were saved, and run nothing.

use omex::convert::{Calibration, ConvertOptions, convert};
use omex::import::{Encoding, open};
use omex::quantize::Precision;
use omex_tests::pickle::{dict, global, integer, tensor, text, tuple, whole};
use omex_tests::{
    Checkpointed, Converted, Setting, Synthetic, archive, checkpoint, greedy_logits, json, logits,
    numbers, older_checkpoint, omex_binary, read_npy, require_shared, rows, run, state_dict,
    worst_error,
};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// What opening or converting a model says; `None` if it is read.
fn refusal(path: &Path) -> Option<String> {
    let output = path.with_extension("omex");
    let converted = open(path, None).and_then(|source| {
        let options = ConvertOptions { calibration: Calibration::Off, ..Default::default() };
        convert(&*source, "test", "test", &output, &options, &mut |_, _| {})
    });
    let error = converted.err().map(|error| error.to_string());
    assert_eq!(error.is_some(), !output.exists());
    error
}

fn copy(from: &Path, names: &[&str]) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    names.iter().for_each(|name| {
        fs::copy(from.join(name), folder.path().join(name)).unwrap();
    });
    folder
}

/// The ways in which the reference's models are stored: the files of a folder, and what is opened.
const STORED: [(&[&str], &str); 3] = [
    (&["config.json", "pytorch_model.bin"], ""),
    (&["config.json", "legacy.pt"], "legacy.pt"),
    // Its hyperparameters lie in it, and some of its tensors are views of transposed ones.
    (&["checkpoint_nested.pt"], "checkpoint_nested.pt"),
];

#[test]
fn checkpoints_hold_the_numbers_of_safetensors() {
    for name in ["bert", "gpt2", "llama_tied", "llama_untied"] {
        let model = require_shared!(&format!("golden/{name}"));
        let expected = open(&model, None).unwrap();
        let package = Converted::new(&*expected, Some(Precision::F32));
        for (files, opened) in STORED {
            let folder = copy(&model, files);
            let found = open(&folder.path().join(opened), None).unwrap();
            for tensor in expected.names() {
                let same = rows(&*found, &tensor) == rows(&*expected, &tensor);
                assert!(same, "{name}, {files:?}: {tensor}");
            }
            let converted = Converted::new(&*found, Some(Precision::F32));
            let weights = |model: &Converted| json(&model.path.join("weights/quantization.json"));
            assert_eq!(weights(&converted), weights(&package), "{name}, {files:?}");
        }
    }
}

#[test]
fn a_checkpoint_of_llama2c_is_read_with_its_own_arguments() {
    let path = require_shared!("models/llama2xs/ckpt.pt");
    let references = require_shared!("refs/llama2xs");
    let said = json(&references.join("ckpt_pt.json"));
    let source = open(&path, None).unwrap();
    for (name, tensor) in said["tensors"].as_object().unwrap() {
        let info = source.tensor(name).unwrap_or_else(|| panic!("no {name}"));
        let shape: Vec<u32> = numbers(&tensor[1]);
        let (columns, rows) = shape.split_last().unwrap();
        assert_eq!((info.rows, info.columns), (rows.iter().product(), *columns), "{name}");
        assert_eq!(info.encoding, Encoding::F32);
    }
    let model = Converted::new(&*source, Some(Precision::F32));
    let reference = json(&references.join("ref.json"));
    for (number, case) in reference["cases"].as_array().unwrap().iter().enumerate() {
        let (prompt, expected) = (numbers(&case["prompt_ids"]), numbers(&case["greedy_ids"]));
        let (ids, _) = greedy_logits(&model.path, &prompt, expected.len(), &Setting::default());
        assert_eq!(ids, expected, "case {number}");
        let all = read_npy(&references.join(format!("case{number}_logits_all.npy"))).rows;
        let whole = [&prompt[..], &expected].concat();
        let found = logits(&model.path, &whole[..all.len()], &Setting::default());
        let worst = worst_error(&found, &all);
        assert!(worst <= 1e-4, "case {number}: {worst:e}");
    }
}

/// A folder with a small model's `config.json`, and the tensors of that model.
fn small() -> (tempfile::TempDir, Vec<Checkpointed>) {
    let folder = tempfile::tempdir().unwrap();
    let model = Synthetic::odd();
    model.write_hugging_face(folder.path());
    let source = open(folder.path(), None).unwrap();
    let tensor = |name: String| {
        let info = source.tensor(&name).unwrap();
        let numbers = rows(&*source, &name).concat();
        let shape = match info.rows {
            1 => vec![info.columns],
            rows => vec![rows, info.columns],
        };
        Checkpointed::new(&name, &shape, numbers)
    };
    let tensors = source.names().into_iter().map(tensor).collect();
    fs::remove_file(folder.path().join("model.safetensors")).unwrap();
    (folder, tensors)
}

fn write(folder: &Path, name: &str, bytes: &[u8]) -> PathBuf {
    let path = folder.join(name);
    fs::write(&path, bytes).unwrap();
    path
}

#[test]
fn weights_are_found_wherever_programs_keep_them() {
    let (folder, tensors) = small();
    let renamed = |prefix: &str| {
        let mut tensors = tensors.clone();
        tensors.iter_mut().for_each(|tensor| tensor.name = format!("{prefix}{}", tensor.name));
        tensors
    };
    let plain = state_dict(&tensors);
    let values = [
        plain.clone(),
        dict(&[("epoch", integer(3)), ("state_dict", plain.clone())]),
        dict(&[("model", dict(&[("state_dict", plain)])), ("optimizer", dict(&[]))]),
        dict(&[("module", state_dict(&renamed("module.")))]),
        state_dict(&renamed("module._orig_mod.")),
    ];
    for value in values {
        for file in [checkpoint(&value, &tensors), older_checkpoint(&value, &tensors)] {
            let path = write(folder.path(), "model.pth", &file);
            let found = open(&path, None).unwrap();
            for tensor in &tensors {
                assert!(rows(&*found, &tensor.name).concat() == tensor.numbers, "{}", tensor.name);
            }
            assert_eq!(refusal(&path), None);
            fs::remove_dir_all(path.with_extension("omex")).unwrap();
        }
    }
    let none = dict(&[("epoch", integer(3)), ("scores", dict(&[]))]);
    let said = refusal(&write(folder.path(), "model.pth", &checkpoint(&none, &[]))).unwrap();
    assert!(
        said.contains("found epoch, scores, expected tensors by name")
            && said.contains("state_dict"),
        "{said}"
    );
}

#[test]
fn the_files_of_a_folder_are_those_that_its_index_names() {
    let (folder, tensors) = small();
    let (first, second) = tensors.split_at(tensors.len() / 2);
    let shards = ["pytorch_model-1.bin", "pytorch_model-2.bin"];
    for (shard, tensors) in shards.iter().zip([first, second]) {
        write(folder.path(), shard, &checkpoint(&state_dict(tensors), tensors));
    }
    let index = |shard: &dyn Fn(usize) -> String| {
        let map: serde_json::Map<_, _> =
            (0..).zip(&tensors).map(|(at, t)| (t.name.clone(), shard(at).into())).collect();
        serde_json::json!({ "weight_map": map }).to_string()
    };
    let name = "pytorch_model.bin.index.json";
    let right = index(&|at| shards[usize::from(at >= first.len())].to_owned());
    write(folder.path(), name, right.as_bytes());
    let found = open(folder.path(), None).unwrap();
    for tensor in &tensors {
        assert!(rows(&*found, &tensor.name).concat() == tensor.numbers, "{}", tensor.name);
    }
    for outside in ["../pytorch_model-1.bin", "/tmp/pytorch_model-1.bin", "a/b.bin", "config.json"]
    {
        write(folder.path(), name, index(&|_| outside.to_owned()).as_bytes());
        let said = refusal(folder.path()).unwrap();
        assert!(said.contains("expected the name of a .bin file in the folder"), "{said}");
    }
    write(folder.path(), name, index(&|_| shards[0].to_owned()).as_bytes());
    assert!(refusal(folder.path()).unwrap().contains(&second[0].name));
}

/// What it is, where it begins, its sides and strides, and the numbers or words that are expected.
type View = (&'static str, u32, &'static [u32], &'static [u32], Result<Vec<f32>, &'static str>);

#[test]
fn views_give_the_numbers_that_pytorch_shows() {
    let folder = tempfile::tempdir().unwrap();
    let numbers: Vec<f32> = (0..24u16).map(f32::from).collect();
    write(folder.path(), "config.json", b"{}");
    let views: [View; 9] = [
        ("whole", 0, &[4, 6], &[6, 1], Ok(numbers.clone())),
        ("turned", 0, &[2, 3], &[1, 2], Ok(vec![0.0, 2.0, 4.0, 1.0, 3.0, 5.0])),
        ("some columns", 2, &[2, 3], &[6, 1], Ok(vec![2.0, 3.0, 4.0, 8.0, 9.0, 10.0])),
        ("swapped", 0, &[2, 2, 2], &[2, 4, 1], Ok(vec![0.0, 1.0, 4.0, 5.0, 2.0, 3.0, 6.0, 7.0])),
        ("a number", 7, &[], &[], Ok(vec![7.0])),
        ("one step", 3, &[1, 2], &[999, 1], Ok(vec![3.0, 4.0])),
        ("behind the end", 1, &[4, 6], &[6, 1], Err("place of x")),
        ("again and again", 0, &[1 << 20, 24], &[0, 1], Err("none used twice")),
        ("every other", 0, &[2, 3], &[6, 2], Err("strides of x: found [6, 2]")),
    ];
    for (what, start, shape, strides, expected) in views {
        let value = dict(&[("x", tensor("0", 24, start, shape, strides))]);
        let storage = [Checkpointed::new("", &[24], numbers.clone())];
        for file in [checkpoint(&value, &storage), older_checkpoint(&value, &storage)] {
            let found = open(&write(folder.path(), "x.pt", &file), None);
            match (found, &expected) {
                (Ok(model), Ok(expected)) => {
                    assert_eq!(rows(&*model, "x").concat(), *expected, "{what}")
                }
                (Err(error), Err(expected)) => {
                    assert!(error.to_string().contains(*expected), "{what}: {error}");
                }
                (found, _) => panic!("{what}: {found:?}"),
            }
        }
    }
}

#[test]
fn rows_of_a_turned_matrix_are_right_across_all_tiles_and_threads() {
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), "config.json", b"{}");
    let [rows, columns] = [1300u32, 70];
    let numbers = (0..rows * columns).map(|n| n as f32).collect();
    let mut turned = Checkpointed::new("x", &[rows, columns], numbers);
    turned.strides = vec![1, rows];
    let file = checkpoint(&state_dict(std::slice::from_ref(&turned)), &[turned]);
    let model = open(&write(folder.path(), "x.pt", &file), None).unwrap();
    std::thread::scope(|scope| {
        for first in 0..4 {
            let model = &model;
            scope.spawn(move || {
                for row in (first..rows).step_by(4).rev() {
                    let mut out = vec![0.0; columns as usize];
                    model.read_row("x", row, &mut out).unwrap();
                    let expected = (0..columns).map(|column| (column * rows + row) as f32);
                    assert!(expected.eq(out), "row {row}");
                }
            });
        }
    });
}

/// Opcodes that call a global with a text.
fn called(module: &str, name: &str) -> Vec<u8> {
    [global(module, name), tuple(&[text("touch hacked")]), b"R".to_vec()].concat()
}

#[test]
fn pickles_that_would_run_code_are_refused_by_the_name_of_what_they_ask_for() {
    let (folder, _) = small();
    let stacked = [text("os"), text("system"), b"\x93".to_vec()].concat();
    // The name is made of what was remembered.
    let recalled = [text("posix"), b"q\x05".to_vec(), text("system"), b"h\x05".to_vec()].concat();
    let recalled = [recalled, b"0\x93".to_vec()].concat();
    let hostile: Vec<(Vec<u8>, &str)> = vec![
        (called("os", "system"), "global os.system"),
        (called("posix", "system"), "global posix.system"),
        (called("builtins", "eval"), "global builtins.eval"),
        (called("__builtin__", "exec"), "global __builtin__.exec"),
        (called("torch", "load"), "global torch.load"),
        (called("torch._utils", "_rebuild_tensor_v2.__globals__"), "global torch._utils._rebuild"),
        (called("collections", "OrderedDict.fromkeys"), "global collections.OrderedDict.fromkeys"),
        (stacked, "global os.system"),
        (recalled, "global posix.system"),
        ([integer(1), integer(2), b"\x93".to_vec()].concat(), "STACK_GLOBAL of what is no text"),
        (called("torch", "FloatStorage"), "REDUCE of a storage's type"),
        ([text("x"), tuple(&[]), b"R".to_vec()].concat(), "REDUCE of what is no global"),
        (b"(ios\nsystem\n".to_vec(), "opcode INST"),
        (b"(cos\nsystem\no".to_vec(), "global os.system"),
        ([global("collections", "OrderedDict"), b")\x81".to_vec()].concat(), "opcode NEWOBJ"),
        ([global("collections", "OrderedDict"), b")}\x92".to_vec()].concat(), "opcode NEWOBJ_EX"),
        (b"\x82\x01".to_vec(), "opcode EXT1"),
        (b"Psomewhere\n".to_vec(), "opcode PERSID"),
        ([integer(1), dict(&[]), b"b".to_vec()].concat(), "BUILD of what is no dictionary"),
        ([global("torch", "Size"), dict(&[]), b"b".to_vec()].concat(), "BUILD of what is no"),
        ([integer(1), b"Q".to_vec()].concat(), "BINPERSID of what is no tuple"),
        (
            [tuple(&[text("module"), integer(1)]), b"Q".to_vec()].concat(),
            "persistent id \"module\"",
        ),
        ([tuple(&[text("storage"), integer(1)]), b"Q".to_vec()].concat(), "names no storage"),
        (b"\xff".to_vec(), "opcode 0xff"),
    ];
    for (value, named) in hostile {
        let inside = dict(&[("state_dict", value.clone())]);
        for value in [value, inside] {
            for file in [checkpoint(&value, &[]), older_checkpoint(&value, &[])] {
                let said = refusal(&write(folder.path(), "model.pt", &file)).unwrap();
                let good = said.contains(named) && said.contains("model.pt: pickle, byte ");
                assert!(good, "{named}: {said}");
            }
        }
    }
    assert!(!Path::new("hacked").exists());
}

#[test]
fn damaged_checkpoints_are_errors_that_name_the_file() {
    let (folder, tensors) = small();
    let value = state_dict(&tensors);
    for file in [checkpoint(&value, &tensors), older_checkpoint(&value, &tensors)] {
        for length in (0..file.len()).step_by(file.len() / 97) {
            let said = refusal(&write(folder.path(), "model.pt", &file[..length])).unwrap();
            assert!(said.contains("model.pt"), "{length}: {said}");
        }
    }
    let pickles: [(&[u8], &str); 9] = [
        (b"0", "an empty stack"),
        (b"(0", "an empty stack"),
        (b"t", "the end of what has no start"),
        (b"h\x07", "a reference to value 7"),
        (b"](I1\ne", "opcode INT"),
        (b"](K\x01u", "a key without a value"),
        (b"(K\x01K\x02u", "an empty stack"),
        (b"K\x01K\x02a", "APPEND to what is no list"),
        (b"X\xff\xff\xff\x7fabc", "more than 16777216 bytes of text"),
    ];
    for (value, named) in pickles {
        let said = refusal(&write(folder.path(), "model.pt", &checkpoint(value, &[]))).unwrap();
        assert!(said.contains(named), "{named}: {said}");
    }
}

/// A checkpoint of one tensor of 4 numbers, with the files of its archive changed.
fn changed(change: impl FnOnce(&mut Vec<(String, Vec<u8>)>)) -> Vec<u8> {
    let value = dict(&[("x", tensor("0", 4, 0, &[4], &[1]))]);
    let mut files: Vec<_> = [
        ("m/data.pkl", whole(&value)),
        ("m/byteorder", b"little".to_vec()),
        ("m/data/0", vec![0; 16]),
    ]
    .map(|(name, content)| (name.to_owned(), content))
    .into();
    change(&mut files);
    archive(&files)
}

#[test]
fn archives_that_are_not_what_pytorch_writes_are_refused_by_the_reason() {
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), "config.json", b"{}");
    let said = |file: &[u8]| {
        let found = open(&write(folder.path(), "x.pt", file), None);
        found.err().map(|error| error.to_string()).unwrap_or_default()
    };
    assert_eq!(said(&changed(|_| {})), "");
    let expected: Vec<(Vec<u8>, &str)> = vec![
        (changed(|files| files[1].1 = b"big".to_vec()), "m/byteorder: found another byte order"),
        (changed(|files| drop(files.remove(0))), "an archive without data.pkl"),
        (changed(|files| drop(files.remove(2))), "m/data/0: found no such file"),
        (changed(|files| files[2].1.push(0)), "m/data/0: found 17 bytes, expected 4 numbers"),
        (changed(|files| files.push(files[2].clone())), "m/data/0 a second time"),
        (changed(|files| files.push(("m/constants.pkl".into(), vec![]))), "TorchScript"),
    ];
    for (file, named) in expected {
        let said = said(&file);
        assert!(said.contains(named), "{named}: {said}");
    }
    let compressed = compressed(&changed(|_| {}));
    let refused = said(&compressed);
    assert!(refused.contains("m/byteorder: found a file compressed by method 8"), "{refused}");
    // Both storages lie at one place, by the archive's list.
    let two = dict(&[("x", tensor("0", 4, 0, &[4], &[1])), ("y", tensor("1", 4, 0, &[4], &[1]))]);
    let mut file = changed(|files| {
        files[0].1 = whole(&two);
        files.push(("m/data/1".into(), vec![0; 16]));
    });
    assert_eq!(said(&file), "");
    let last = |file: &[u8]| file.windows(4).rposition(|bytes| bytes == b"PK\x01\x02").unwrap();
    let (second, first) = (last(&file), last(&file[..last(&file)]));
    file.copy_within(first + 42..first + 46, second + 42);
    assert!(said(&file).contains("storages: found a storage from byte"), "{}", said(&file));
}

/// The same archive with its files compressed.
fn compressed(file: &[u8]) -> Vec<u8> {
    use std::io::{Cursor, Read, Write};
    let mut stored = zip::ZipArchive::new(Cursor::new(file)).unwrap();
    let mut out = zip::ZipWriter::new(Cursor::new(vec![]));
    for number in 0..stored.len() {
        let mut content = vec![];
        // Without checksums, what is read is right, and said to be wrong.
        let _ = stored.by_index(number).unwrap().read_to_end(&mut content);
        let name = stored.by_index(number).unwrap().name().to_owned();
        let deflated = zip::CompressionMethod::Deflated;
        let options = zip::write::SimpleFileOptions::default().compression_method(deflated);
        out.start_file(name, options).unwrap();
        out.write_all(&content).unwrap();
    }
    out.finish().unwrap().into_inner()
}

#[test]
fn small_files_take_little_memory_and_time() {
    let (folder, _) = small();
    let doubled = |times: usize| {
        // Each list names the one before twice: as many values as atoms, if they were written out.
        let lists = b"](h\0h\0eq\x000".repeat(times);
        [&b"]q\x000"[..], &lists, b"h\0"].concat()
    };
    let config = dict(&[("model_type", text("llama")), ("layers", doubled(60))]);
    let long = [&b"("[..], &b"K\x01".repeat(1 << 18), b"tq\x01"].concat();
    let bombs = [
        dict(&[("config", config)]),
        dict(&[("state_dict", doubled(60))]),
        // Memory for what is only said to follow.
        [&b"\x8e"[..], &u64::MAX.to_le_bytes()].concat(),
        [&b"\x8d"[..], &(1u64 << 40).to_le_bytes()].concat(),
        b"r\xff\xff\xff\xff".to_vec(),
        // The same arguments again and again, which would be copied each time.
        [global("torch", "Size"), b"q\x02".to_vec(), long, b"0h\x02h\x01R".repeat(1 << 16)]
            .concat(),
        b"(".repeat(1 << 20),
        b"N2".repeat(1 << 20),
        b"}".repeat(3 << 20),
    ];
    for (number, value) in bombs.iter().enumerate() {
        let path = write(folder.path(), "model.pt", &checkpoint(value, &[]));
        let mut command = Command::new("timeout");
        command.args(["20", "sh", "-c", "ulimit -v 250000; exec \"$@\"", "sh"]).arg(omex_binary());
        command.args(["convert", "--output-dir"]).arg(folder.path().join("out"));
        let said = run(command.arg("--model-path").arg(&path));
        assert!(said.code == Some(1) && said.err.contains("model.pt"), "{number}: {said:?}");
    }
}
