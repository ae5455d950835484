//! The package for Python, put together as a wheel has it, passes the tests beside this file.

use omex::convert::{ConvertOptions, convert};
use omex::import;
use std::env::consts::{DLL_PREFIX, DLL_SUFFIX};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

fn package() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The library, which lies beside the tests.
fn library() -> PathBuf {
    let test = std::env::current_exe().unwrap();
    test.with_file_name(format!("{DLL_PREFIX}_omex{DLL_SUFFIX}"))
}

fn converted(model: &Path, path: &Path) {
    let source = import::open(model, None).unwrap();
    convert(&*source, "test", "test", path, &ConvertOptions::default(), &mut |_, _| {}).unwrap();
}

/// Models for the tests: the one that ships, and keyword spotting where it is.
fn models(folder: &Path) {
    let repository = package().join("../..");
    converted(&repository.join("models/tiny-stories"), &folder.join("stories.omex"));
    let shared = repository.join("../shared");
    let model = shared.join("models/mlperf_tiny/kws_ref_model.tflite");
    if model.exists() {
        converted(&model, &folder.join("keywords.omex"));
        let references = shared.join("refs/tflite/kws_ref_model.npz");
        fs::copy(references, folder.join("keywords.npz")).unwrap();
    }
}

#[test]
fn the_package_passes_its_tests() {
    let mut python = Command::new("python3");
    let needed = python.args(["-c", "import numpy, pytest"]).output();
    if !needed.is_ok_and(|output| output.status.success()) {
        println!(
            "skipped: no python3 with NumPy and pytest; `pip install numpy pytest` installs them"
        );
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let omex = folder.path().join("omex");
    fs::create_dir(&omex).unwrap();
    for file in ["__init__.py", "_omex.pyi", "py.typed"] {
        fs::copy(package().join("python/omex").join(file), omex.join(file)).unwrap();
    }
    fs::copy(library(), omex.join("_omex.abi3.so")).unwrap();
    models(folder.path());
    let mut test = Command::new("python3");
    test.args(["-m", "pytest", "--quiet", "-rs", "-p", "no:cacheprovider"]);
    test.arg(package().join("tests")).current_dir(folder.path());
    let output =
        test.env("PYTHONPATH", folder.path()).env("OMEX_MODELS", folder.path()).output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stderr));
    println!("{said}");
}
