//! The core for C does what it does for Rust: in a program on this machine, and in firmware without a libc.

mod npz;

use omex::convert::{ConvertOptions, convert};
use omex::import;
use omex::pack::Target;
use omex_tests::{Finished, pack_with, require_shared, run};
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

const STRICT: [&str; 4] = ["-Wall", "-Wextra", "-Werror", "-pedantic"];

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// True if a program is there; says so if not.
fn has(program: &str) -> bool {
    let found = Command::new(program).arg("--version").output().is_ok_and(|o| o.status.success());
    if !found {
        println!("skipped: {program} is not installed");
    }
    found
}

/// The static library, built with these arguments besides.
fn library(arguments: &[&str]) -> PathBuf {
    let mut build = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    build.args(["build", "--quiet", "--package", "omex-core-c", "--message-format", "json"]);
    build.args(arguments).current_dir(repository()).stderr(Stdio::inherit());
    for (name, _) in std::env::vars_os() {
        let text = name.to_string_lossy();
        if ["CARGO_PKG_", "CARGO_MANIFEST_"].iter().any(|prefix| text.starts_with(prefix)) {
            build.env_remove(&name);
        }
    }
    let output = build.output().expect("cargo can be run");
    assert!(output.status.success(), "building the library failed");
    let lines = output.stdout.split(|byte| *byte == b'\n');
    let messages = lines.filter_map(|line| serde_json::from_slice::<Value>(line).ok());
    let files = messages.filter_map(|m| Some(m["filenames"].as_array()?.clone())).flatten();
    let mut files = files.filter_map(|file| file.as_str().map(PathBuf::from));
    files.find(|file| file.ends_with("libomexcore.a")).expect("cargo names the library")
}

/// A program of `examples/`, compiled and linked with the library.
fn compiled(compiler: &[&str], source: &str, program: &Path) -> PathBuf {
    let mut compile = Command::new(compiler[0]);
    compile.args(&compiler[1..]).args(STRICT).arg("-g").arg("-I");
    compile.arg(repository().join("core/capi/include"));
    compile.arg(repository().join("examples").join(source)).arg(library(&[]));
    compile.args(["-lpthread", "-ldl", "-lm", "-o"]).arg(program);
    let done = run(&mut compile);
    assert_eq!(done.code, Some(0), "compiling {source}: {done:?}");
    program.to_owned()
}

/// Under valgrind where that is there, which then finds no fault.
fn checked(program: &Path) -> Command {
    if !has("valgrind") {
        return Command::new(program);
    }
    let mut valgrind = Command::new("valgrind");
    valgrind.args(["--quiet", "--error-exitcode=9", "--leak-check=full"]).arg(program);
    valgrind
}

/// The image of the core's first example, and what it says of it.
fn words() -> PathBuf {
    repository().join("core/tests/words.img")
}

/// The ids in what a program printed.
fn ids(finished: &Finished) -> Vec<u32> {
    assert_eq!(finished.code, Some(0), "{finished:?}");
    let first = |line: &str| line.split(' ').next().and_then(|id| id.parse().ok());
    finished.out.lines().map(|line| first(line).unwrap()).collect()
}

#[test]
fn a_text_in_c_is_the_one_in_rust_and_its_errors_are_told() {
    if !has("gcc") {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let program = compiled(&["gcc", "-std=c11"], "c/play.c", &folder.path().join("play"));
    for read in [false, true] {
        let mut play = checked(&program);
        play.arg(words()).arg("3");
        if read {
            play.env("OMEX_READ", "1");
        }
        assert_eq!(ids(&run(&mut play)), [4, 5, 6, 7, 8, 9, 10], "read: {read}");
    }

    let said = |image: &Path, token: &str| {
        let finished = run(checked(&program).arg(image).arg(token));
        assert_eq!(finished.code, Some(1), "{finished:?}");
        finished.err
    };
    assert!(said(&words(), "11").contains("outside of the vocabulary"));
    let image = folder.path().join("damaged.img");
    let bytes = std::fs::read(words()).unwrap();
    for (length, place, expected) in [
        (0, 0, "not an OMEX image"),
        (100, 0, "not an OMEX image"),
        (1000, 0, "cut short"),
        (bytes.len(), 4, "not an OMEX image"),
        (bytes.len(), 8, "version is not supported"),
        (bytes.len(), bytes.len() - 9, "does not match its checksums"),
    ] {
        let mut damaged = bytes[..length].to_vec();
        if place > 0 {
            damaged[place] ^= 0x55;
        }
        std::fs::write(&image, damaged).unwrap();
        let said = said(&image, "3");
        assert!(said.contains(expected), "{length} bytes, place {place}: {said}");
    }
}

#[test]
fn a_text_in_cpp_is_the_one_in_rust() {
    let header = std::fs::read_to_string(repository().join("core/capi/include/omex.hpp")).unwrap();
    assert!(header.lines().count() <= 150);
    if !has("g++") {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let program = compiled(&["g++", "-std=c++20"], "cpp/play.cpp", &folder.path().join("play"));
    assert_eq!(ids(&run(checked(&program).arg(words()).arg("3"))), [4, 5, 6, 7, 8, 9, 10]);
    let refused = run(checked(&program).arg(words()).arg("99"));
    assert_eq!(refused.code, Some(1));
    assert!(refused.err.contains("outside of the vocabulary"), "{refused:?}");
}

/// An image of keyword spotting, its first input, and what TensorFlow Lite gives for it.
fn keywords(model: &Path, references: &Path, folder: &Path) -> (PathBuf, PathBuf, Vec<i8>) {
    let references = npz::arrays(references);
    let [package, image, input] = ["kws.omex", "kws.img", "in.bin"].map(|name| folder.join(name));
    let (source, options) = (import::open(model, None).unwrap(), ConvertOptions::default());
    convert(&*source, "tflite", "kws", &package, &options, &mut |_, _| {}).unwrap();
    let (page_size, columns, context, kv) = (None, None, None, None);
    let target = Target {
        ram: 256 << 10,
        reserve: 11 << 10,
        mapped: false,
        page_size,
        columns,
        context,
        kv,
    };
    pack_with(&package, &target, &image);
    let first = |name: &str| {
        let array = &references[name];
        array.bytes[..array.bytes.len() / array.shape[0]].to_vec()
    };
    std::fs::write(&input, first("inputs")).unwrap();
    (image, input, first("out_tflm").into_iter().map(u8::cast_signed).collect())
}

#[test]
fn arrays_in_c_are_bit_equal_to_the_reference() {
    let model = require_shared!("models/mlperf_tiny/kws_ref_model.tflite");
    let references = require_shared!("refs/tflite/kws_ref_model.npz");
    if !has("gcc") {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let (image, input, expected) = keywords(&model, &references, folder.path());
    let program = compiled(&["gcc", "-std=c11"], "c/play.c", &folder.path().join("play"));
    for read in [false, true] {
        let mut play = checked(&program);
        play.arg(&image).stdin(std::fs::File::open(&input).unwrap());
        if read {
            play.env("OMEX_READ", "1");
        }
        let output = play.output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let found: Vec<_> = output.stdout.into_iter().map(u8::cast_signed).collect();
        assert_eq!(found, expected, "read: {read}");
    }
}

const CORTEX_M4: [&str; 5] =
    ["-mcpu=cortex-m4", "-mthumb", "-mfloat-abi=hard", "-mfpu=fpv4-sp-d16", "-Os"];

/// Firmware in C, linked with nothing but the library, in which no panic can be reached.
#[test]
fn firmware_in_c_is_bit_equal_to_the_reference_and_needs_no_libc() {
    let model = require_shared!("models/mlperf_tiny/kws_ref_model.tflite");
    let references = require_shared!("refs/tflite/kws_ref_model.npz");
    if !has("arm-none-eabi-gcc") || !has("qemu-system-arm") || !has_target() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let (image, input, expected) = keywords(&model, &references, folder.path());
    let examples = repository().join("examples/c");
    let target_dir = repository().join("target/c-firmware");
    let library = library(&[
        "--release",
        "--target",
        TARGET,
        "--target-dir",
        target_dir.to_str().unwrap(),
        "--no-default-features",
        "--features",
        "int8,assert-no-panic",
        "--config",
        "profile.release.opt-level=\"s\"",
        "--config",
        "profile.release.lto=\"fat\"",
        "--config",
        "profile.release.codegen-units=1",
    ]);
    let mut compile = Command::new("arm-none-eabi-gcc");
    compile.args(CORTEX_M4).args(STRICT).args(["-std=c11", "-ffreestanding", "-nostdlib"]);
    compile.args(["-Wl,--gc-sections", "-T"]).arg(examples.join("firmware.ld"));
    compile.arg("-I").arg(repository().join("core/capi/include"));
    compile.arg(format!("-DIMAGE=\"{}\"", image.display()));
    compile.arg(format!("-DINPUT=\"{}\"", input.display()));
    let firmware = folder.path().join("firmware.elf");
    compile.args([examples.join("firmware.c"), examples.join("model.S"), library]);
    let linked = run(compile.arg("-o").arg(&firmware));
    assert_eq!(linked.code, Some(0), "{linked:?}");

    let mut qemu = Command::new("qemu-system-arm");
    qemu.args(["-M", "mps2-an386", "-nographic", "-monitor", "none", "-serial", "none"]);
    qemu.args(["-semihosting-config", "enable=on,target=native", "-kernel"]).arg(&firmware);
    let said = run(&mut qemu);
    // Semihosting writes to standard error.
    let said = format!("{}{}", said.out, said.err);
    let line = |name: &str| said.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
    assert_eq!(line("status "), Some("done"), "{said}");
    let output = line("output ").expect("an output").split(' ').map(|x| x.parse().unwrap());
    assert_eq!(output.collect::<Vec<i8>>(), expected);
    println!("arena_bytes={}", line("arena ").expect("the arena's size"));
}

const TARGET: &str = "thumbv7em-none-eabihf";

fn has_target() -> bool {
    let asked =
        Command::new("rustc").args(["--print", "target-libdir", "--target", TARGET]).output();
    let folder = asked.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned());
    let found = folder.is_ok_and(|folder| Path::new(&folder).exists());
    if !found {
        println!("skipped: Rust's library for {TARGET} is not installed");
    }
    found
}
