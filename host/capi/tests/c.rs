//! The library for C, used by a program in C: what it writes is what the library for Rust writes.

use host::cancel::Cancel;
use host::convert::{ConvertOptions, convert};
use host::generate::Event;
use host::import;
use host::runner::{Continuation, Runner};
use host::session::SessionOptions;
use omex_core::sample::Sampling;
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// True if a program is there; says so if not.
fn has(program: &str) -> bool {
    let found = Command::new(program).arg("--version").output().is_ok_and(|o| o.status.success());
    if !found {
        println!("skipped: {program} is not installed");
    }
    found
}

/// The folder with the library.
fn libraries() -> PathBuf {
    let mut build = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    build.args(["build", "--quiet", "--message-format", "json"]).current_dir(repository());
    // With the command, as other tests build it, so that nothing is built twice.
    build.args(["--package", "omex-cli", "--package", "omex-c"]);
    for (name, _) in std::env::vars_os() {
        let text = name.to_string_lossy();
        if ["CARGO_PKG_", "CARGO_MANIFEST_"].iter().any(|prefix| text.starts_with(prefix)) {
            build.env_remove(&name);
        }
    }
    let output = build.stderr(Stdio::inherit()).output().expect("cargo can be run");
    assert!(output.status.success(), "building the library failed");
    let text = String::from_utf8(output.stdout).unwrap();
    let messages = text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let files = messages.filter_map(|m| Some(m["filenames"].as_array()?.clone())).flatten();
    let mut files = files.filter_map(|file| file.as_str().map(PathBuf::from));
    let library = files.find(|file| file.ends_with("libomex.so")).expect("cargo names the library");
    library.parent().unwrap().to_owned()
}

/// A program of `examples/` or of these tests, linked with the shared library.
fn compiled(libraries: &Path, source: &Path, program: &Path) -> PathBuf {
    let mut compile = Command::new("gcc");
    compile.args(["-std=c11", "-Wall", "-Wextra", "-Werror", "-pedantic", "-g", "-I"]);
    compile.arg(repository().join("host/capi/include")).arg(source).arg("-L").arg(libraries);
    let output = compile.args(["-lomex", "-lm", "-o"]).arg(program).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    program.to_owned()
}

/// Runs a program with the library.
fn ran(libraries: &Path, mut program: Command, arguments: &[&str]) -> Output {
    program.env("LD_LIBRARY_PATH", libraries).args(arguments).output().unwrap()
}

/// Under valgrind where that is there, which then finds no fault and nothing that is lost.
fn checked(program: &Path) -> Command {
    if !has("valgrind") {
        return Command::new(program);
    }
    let mut valgrind = Command::new("valgrind");
    valgrind.args(["--quiet", "--error-exitcode=9", "--leak-check=full"]);
    valgrind.args(["--show-leak-kinds=definite", "--errors-for-leak-kinds=definite"]).arg(program);
    // It knows no AVX-512.
    valgrind.env("OMEX_KERNELS", "portable");
    valgrind
}

/// The model that ships, converted.
fn model(folder: &Path) -> PathBuf {
    let path = folder.join("stories.omex");
    let source = import::open(&repository().join("models/tiny-stories"), None).unwrap();
    let options = ConvertOptions::default();
    convert(&*source, "test", "stories", &path, &options, &mut |_, _| {}).unwrap();
    path
}

#[test]
fn a_text_in_c_is_the_one_in_rust() {
    if !has("gcc") {
        return;
    }
    let (libraries, folder) = (libraries(), tempfile::tempdir().unwrap());
    let path = model(folder.path());
    let (memory, prompt) = (32, "The robot");
    let options = SessionOptions { memory: Some(memory * 1_000_000), ..SessionOptions::default() };
    let mut runner = Runner::open(&path, &options).unwrap();
    let ids = runner.model().encode(prompt).unwrap();
    let how = Continuation {
        max_tokens: 40,
        sampling: Sampling::GREEDY,
        stop: &[],
        cancel: Cancel::default(),
    };
    let mut expected = String::new();
    let tell = &mut |event: Event<'_>| {
        if let Event::Token { text, .. } | Event::End { text } = event {
            expected.push_str(text);
        }
        Ok(())
    };
    runner.generate(&ids, how, tell).unwrap();
    assert!(expected.len() > 40, "{expected}");

    let source = repository().join("examples/c/generate.c");
    let program = compiled(&libraries, &source, &folder.path().join("generate"));
    let path = path.to_str().unwrap();
    let arguments = [path, &memory.to_string(), prompt];
    let output = ran(&libraries, Command::new(&program), &arguments);
    let (said, error) =
        (String::from_utf8(output.stdout).unwrap(), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{error}");
    assert_eq!(said.trim_end_matches('\n'), expected.trim_end_matches('\n'));

    let refused = ran(&libraries, Command::new(&program), &["nowhere.omex", "32", prompt]);
    let error = String::from_utf8_lossy(&refused.stderr);
    assert_eq!(refused.status.code(), Some(1), "{error}");
    assert!(error.contains("nowhere.omex"), "{error}");
}

/// Every function, what it refuses, and that null is told and not followed.
#[test]
fn what_is_wrong_is_told_in_words() {
    if !has("gcc") {
        return;
    }
    let (libraries, folder) = (libraries(), tempfile::tempdir().unwrap());
    let path = model(folder.path());
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/calls.c");
    let program = compiled(&libraries, &source, &folder.path().join("calls"));
    let output = ran(&libraries, checked(&program), &[path.to_str().unwrap()]);
    assert!(
        output.status.success(),
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
}
