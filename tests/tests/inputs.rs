//! An input that is no regular file of a sensible length is refused at once, whatever it is an input of.

use omex::cancel::Cancel;
use omex::package::validate::validate;
use omex::quantize::Precision;
use omex_tests::{Converted, Finished, convert_from, omex_binary, run, shipped_model};
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::{Command, Stdio};

const FILES: [&str; 4] =
    ["metadata.json", "graph.json", "weights/quantization.json", "tokenizer/tokenizer.bin"];

/// Runs `omex` with at most 2 GB of address space, for at most half a minute.
fn bounded(folder: &Path, args: &[&str]) -> Finished {
    let mut command = Command::new("timeout");
    command.args(["30", "sh", "-c", "ulimit -v 2000000; exec \"$@\"", "sh"]).arg(omex_binary());
    let said = run(command.args(args).current_dir(folder).stdin(Stdio::null()));
    assert_ne!(said.code, Some(124), "{args:?} hangs: {said:?}");
    said
}

fn refused(said: &Finished, what: &str) {
    let words = ["a regular file", "a folder of the package", "name what it stands for"];
    let named = words.iter().any(|words| said.err.contains(words));
    assert!(said.code != Some(0) && named, "{what}: {said:?}");
}

fn model() -> Converted {
    convert_from(&shipped_model(), Some(Precision::Int8))
}

fn pipe(path: &Path) {
    assert!(Command::new("mkfifo").arg(path).status().unwrap().success());
}

/// Puts something else in a file's place.
fn put_stranger(kind: &str, file: &Path, elsewhere: &Path) {
    match kind {
        "a pipe" => pipe(file),
        "a link to a device" => symlink("/dev/zero", file).unwrap(),
        _ => symlink(elsewhere, file).unwrap(),
    }
}

#[test]
fn files_of_a_package() {
    let model = model();
    let elsewhere = model.folder.path().join("elsewhere");
    for name in FILES {
        let file = model.path.join(name);
        std::fs::rename(&file, &elsewhere).unwrap();
        for kind in ["a pipe", "a link to a device", "a link"] {
            put_stranger(kind, &file, &elsewhere);
            for args in [
                &["run", "model.omex", "Once", "--max-tokens", "2"][..],
                &["validate", "model.omex"],
            ] {
                refused(
                    &bounded(model.folder.path(), args),
                    &format!("{name} is {kind}, {}", args[0]),
                );
            }
            std::fs::remove_file(&file).unwrap();
        }
        std::fs::rename(&elsewhere, &file).unwrap();
    }
    for name in ["weights", "tokenizer"] {
        let folder = model.path.join(name);
        std::fs::rename(&folder, &elsewhere).unwrap();
        symlink(&elsewhere, &folder).unwrap();
        refused(&bounded(model.folder.path(), &["run", "model.omex", "Once"]), name);
        std::fs::remove_file(&folder).unwrap();
        std::fs::rename(&elsewhere, &folder).unwrap();
    }
    std::fs::create_dir(model.path.join("agents")).unwrap();
    pipe(&model.path.join("agents/agent.json"));
    assert!(!validate(&model.path, &Cancel::default(), &mut |_| {}).unwrap().problems.is_empty());
}

#[test]
fn files_that_a_command_is_given() {
    let model = model();
    let folder = model.folder.path();
    let shipped = shipped_model();
    let shipped = shipped.to_str().unwrap();
    pipe(&folder.join("pipe"));
    symlink("/dev/zero", folder.join("zero")).unwrap();
    for input in ["pipe", "zero"] {
        let commands: [&[&str]; 11] = [
            &["run", input, "Once"],
            &["run", "model.omex", "Once", "--max-tokens", "2", "--session", input],
            &["run", "model.omex", "Once", "--max-tokens", "2", "--draft-ids", input],
            &["validate", input],
            &["inspect", input],
            &["plan", input],
            &["eval", "model.omex", "--data", input],
            &["batch", "model.omex", input, "-o", "out.jsonl"],
            &["convert", "--model-path", input, "--output-dir", "o.omex"],
            &["convert", "--model-path", shipped, "--tokenizer", input, "--output-dir", "o.omex"],
            &[
                "convert",
                "--model-path",
                shipped,
                "--quantization",
                "int4",
                "--calibration",
                input,
                "--output-dir",
                "o.omex",
            ],
        ];
        for args in commands {
            refused(&bounded(folder, args), &args.join(" "));
        }
    }
}

#[test]
fn what_is_too_long() {
    let model = model();
    let folder = model.folder.path();
    let long = |name: &str| {
        std::fs::File::create(folder.join(name)).unwrap().set_len(1 << 40).unwrap();
    };
    long("long");
    let out = folder.join("out.jsonl");
    std::fs::write(folder.join("prompts.jsonl"), "{\"prompt\":\"Once\"}\n").unwrap();
    let batch = ["batch", "model.omex", "prompts.jsonl", "-o", "out.jsonl", "--max-tokens", "1"];
    assert_eq!(bounded(folder, &batch).code, Some(0));
    // A journal whose last line has no end.
    let file = std::fs::OpenOptions::new().write(true).open(&out).unwrap();
    file.set_len(1 << 40).unwrap();
    let commands: [&[&str]; 5] = [
        &batch,
        &["eval", "model.omex", "--data", "long"],
        &["run", "model.omex", "Once", "--draft-ids", "long"],
        &["convert", "--model-path", "model.omex", "--tokenizer", "long", "--output-dir", "o.omex"],
        &["run", "long", "Once"],
    ];
    for args in commands {
        let said = bounded(folder, args);
        assert!(said.code.is_some_and(|code| code != 0), "{args:?}: {said:?}");
        assert!(!said.err.contains("memory allocation"), "{args:?}: {said:?}");
    }
}

#[test]
fn standard_input_without_an_end() {
    let model = model();
    let endless = Command::new("timeout")
        .args(["60", "sh", "-c", "ulimit -v 2000000; exec \"$@\" </dev/zero", "sh"])
        .arg(omex_binary())
        .args(["run", "model.omex", "-", "--max-tokens", "1"])
        .current_dir(model.folder.path())
        .output()
        .unwrap();
    let said = String::from_utf8(endless.stderr).unwrap();
    assert_eq!(endless.status.code(), Some(1), "{said}");
    assert!(said.contains("standard input: length: found"), "{said}");
}

#[test]
fn folders_of_a_package_that_are_links() {
    let model = model();
    let outside = model.folder.path().join("outside");
    std::fs::create_dir(&outside).unwrap();
    symlink(&outside, model.path.join("agents")).unwrap();
    let problems = validate(&model.path, &Cancel::default(), &mut |_| {}).unwrap().problems;
    assert!(problems.iter().any(|p| p.contains("agents: found a symbolic link")), "{problems:?}");
}

#[test]
fn pointers_of_git_lfs() {
    let folder = tempfile::tempdir().unwrap();
    let pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 4\n";
    let source = folder.path().join("hf");
    std::fs::create_dir(&source).unwrap();
    omex_tests::Synthetic::odd().write_hugging_face(&source);
    std::fs::write(folder.path().join("model.gguf"), pointer).unwrap();
    std::fs::write(folder.path().join("tokenizer.json"), pointer).unwrap();
    let convert = |args: &[&str]| {
        let args = [&["convert", "--output-dir", "o.omex"][..], args].concat();
        let said = bounded(folder.path(), &args);
        assert!(
            said.err.contains("Git LFS pointer") && said.err.contains("git lfs pull"),
            "{said:?}"
        );
    };
    convert(&["--model-path", "model.gguf"]);
    convert(&["--model-path", "hf", "--tokenizer", "tokenizer.json"]);
    std::fs::write(source.join("model.safetensors"), pointer).unwrap();
    convert(&["--model-path", "hf"]);
}
