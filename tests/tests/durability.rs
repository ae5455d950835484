//! What is written appears whole, stays, and takes nothing with it that was there before.

use omex::cancel::Cancel;
use omex::convert::{Calibration, ConvertOptions, convert};
use omex::pack::{Target, pack};
use omex::package::Package;
use omex::package::validate::validate;
use omex::pager::PageSource;
use omex::quantize::Precision;
use omex::session::{Session, SessionOptions};
use omex_core::engine::Wanted;
use omex_tests::{Converted, Finished, Synthetic, omex, run_in};
use std::os::unix::fs::{FileTypeExt, symlink};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

fn model() -> Converted {
    Converted::new(&Synthetic::odd(), Some(Precision::F32))
}

fn replace(model: &Path, precision: Precision) -> omex::Result<()> {
    let options = ConvertOptions {
        precision: Some(precision),
        calibration: Calibration::Off,
        force: true,
        ..ConvertOptions::default()
    };
    convert(&Synthetic::odd(), "test", "test", model, &options, &mut |_, _| {}).map(|_| ())
}

fn is_valid(model: &Path) -> bool {
    validate(model, &Cancel::default(), &mut |_| {}).unwrap().problems.is_empty()
}

fn names(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).unwrap().map(|e| e.unwrap().file_name());
    let mut names: Vec<_> = entries.map(|name| name.into_string().unwrap()).collect();
    names.sort();
    names
}

fn refused(said: &Finished, words: &str) {
    assert!(said.code != Some(0) && said.err.contains(words), "{words}: {said:?}");
}

#[test]
fn a_package_is_old_or_new_whenever_its_replacement_is_killed() {
    let folder = tempfile::tempdir().unwrap();
    let convert = |more: &[&str]| {
        let args = ["synth", "--shape", "stories", "--output-dir", "m.omex"];
        let mut command = omex(args.iter().chain(more));
        command.current_dir(folder.path()).stdout(Stdio::null()).stderr(Stdio::null());
        command
    };
    assert!(convert(&[]).status().unwrap().success());
    for milliseconds in (1..80).step_by(2) {
        let mut child = convert(&["--force", "--quantization", "int8"]).spawn().unwrap();
        std::thread::sleep(Duration::from_millis(milliseconds));
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(is_valid(&folder.path().join("m.omex")), "after {milliseconds} ms");
    }
    // The last run removes what those before left.
    assert!(convert(&["--force"]).status().unwrap().success());
    assert_eq!(names(folder.path()), ["m.omex"]);
}

#[test]
fn readers_see_the_old_package_or_the_new_one() {
    let model = model();
    let done = AtomicBool::new(false);
    let read = |pages| {
        let options = SessionOptions { pages, ..SessionOptions::default() };
        let mut session = Session::open(&model.path, &options).unwrap();
        let failed = session.failure();
        let mut engine = session.engine().unwrap();
        engine.forward(&[1, 2], Wanted::Last).map_err(failed).unwrap();
    };
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for round in 0..60 {
                replace(&model.path, [Precision::Int8, Precision::F16][round % 2]).unwrap();
            }
            done.store(true, Ordering::Relaxed);
        });
        while !done.load(Ordering::Relaxed) {
            [Some(PageSource::Mmap), Some(PageSource::Read), None].into_iter().for_each(read);
            assert!(is_valid(&model.path));
            let target = Target {
                ram: 64 << 20,
                reserve: 0,
                mapped: false,
                page_size: None,
                columns: None,
                context: Some(16),
                kv: None,
            };
            let image = model.folder.path().join("m.img");
            pack(&Package::open(&model.path).unwrap(), &target, &image, &Cancel::default())
                .unwrap();
            assert!(omex::pack::validate(&image, &Cancel::default()).unwrap().problems.is_empty());
        }
    });
}

#[test]
fn what_is_no_package_is_not_replaced_and_an_empty_folder_is_filled() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("m.omex");
    std::fs::create_dir(&path).unwrap();
    replace(&path, Precision::Int8).unwrap();
    assert!(is_valid(&path));
    symlink(&path, folder.path().join("link")).unwrap();
    let error = replace(&folder.path().join("link"), Precision::Int8).unwrap_err().to_string();
    assert!(error.contains("m.omex: name what it stands for"), "{error}");
    std::fs::create_dir(folder.path().join("mine")).unwrap();
    std::fs::write(folder.path().join("mine/letter"), "text").unwrap();
    let error = replace(&folder.path().join("mine"), Precision::Int8).unwrap_err().to_string();
    assert!(error.contains("is not a package"), "{error}");
    let error = replace(&folder.path().join("no/such.omex"), Precision::Int8).unwrap_err();
    assert!(error.to_string().contains("no: cannot write into"), "{error}");
    assert_eq!(names(folder.path()), ["link", "m.omex", "mine"]);
}

/// The system calls of a command that name or write files, in order; `None` without `strace`.
fn calls(folder: &Path, args: &[&str]) -> Option<Vec<String>> {
    let log = folder.join("calls");
    let mut command = Command::new("strace");
    command.args([
        "-f",
        "-qq",
        "-y",
        "-e",
        "trace=fsync,fdatasync,rename,renameat,renameat2",
        "-o",
    ]);
    command.arg(&log).arg(omex_tests::omex_binary()).args(args).current_dir(folder);
    let status = command.stdin(Stdio::null()).stdout(Stdio::null()).status().ok()?;
    assert!(status.success(), "{args:?}");
    let calls = std::fs::read_to_string(&log).unwrap().lines().map(str::to_owned).collect();
    std::fs::remove_file(log).unwrap();
    Some(calls)
}

#[test]
fn files_and_folders_are_on_the_disk_before_they_get_their_names() {
    let model = model();
    let folder = model.folder.path();
    let real = std::fs::canonicalize(folder).unwrap();
    let run = ["run", "model.omex", "--ids", "1,2", "--max-tokens", "2", "--session", "s"];
    let commands: [(&[&str], &[&str]); 4] = [
        (
            &["synth", "--shape", "stories", "--output-dir", "m.omex"],
            &[
                "graph.json>",
                "metadata.json>",
                "quantization.json>",
                "layer_0.bin>",
                "weights>",
                "package>",
            ],
        ),
        (
            &["synth", "--shape", "stories", "--output-dir", "m.omex", "--force"],
            &["graph.json>", "package>"],
        ),
        (&run, &[".omex-new-"]),
        (&["pack", "model.omex", "--ram", "1M", "-o", "m.img"], &[".omex-new-"]),
    ];
    for (args, parts) in commands {
        let Some(calls) = calls(folder, args) else {
            println!("skipped: there is no strace");
            return;
        };
        let named = calls.iter().rposition(|call| call.contains("rename")).unwrap();
        let synced =
            |part: &str| calls[..named].iter().any(|c| c.contains("sync(") && c.contains(part));
        parts.iter().for_each(|part| assert!(synced(part), "{part} of {args:?}: {calls:#?}"));
        let parent = format!("{}>", real.display());
        let after = calls[named..].iter().any(|c| c.contains("fsync(") && c.contains(&parent));
        assert!(after, "{args:?}: {calls:#?}");
    }
}

#[test]
fn outputs_never_take_the_place_of_links_and_devices() {
    let model = model();
    let folder = model.folder.path();
    std::fs::write(folder.join("target"), "kept").unwrap();
    symlink("target", folder.join("link")).unwrap();
    symlink("nowhere", folder.join("dangling")).unwrap();
    std::fs::write(folder.join("prompts"), "{\"ids\":[1]}\n").unwrap();
    assert!(Command::new("mkfifo").arg(folder.join("pipe")).status().unwrap().success());
    let run = ["--ids", "1", "--max-tokens", "1"];
    for output in ["link", "dangling", "pipe"] {
        let commands = [
            ["pack", "model.omex", "--ram", "1M", "-o", output].to_vec(),
            [&["run", "model.omex", "--session", output][..], &run].concat(),
            [&["memory-trace", "model.omex", "-o", output][..], &run].concat(),
            ["batch", "model.omex", "prompts", "-o", output].to_vec(),
        ];
        for args in commands {
            let said = run_in(folder, &args);
            assert!(said.code != Some(0), "{args:?}: {said:?}");
        }
    }
    refused(
        &run_in(folder, &["pack", "model.omex", "--ram", "1M", "-o", "link"]),
        "a symbolic link to target",
    );
    assert_eq!(std::fs::read_to_string(folder.join("target")).unwrap(), "kept");
    assert!(folder.join("link").is_symlink() && folder.join("dangling").is_symlink());
    assert!(folder.join("pipe").symlink_metadata().unwrap().file_type().is_fifo());
    assert!(!folder.join("nowhere").exists());
}

#[test]
fn damaged_weights_are_not_packed() {
    let model = model();
    let folder = model.folder.path();
    let path = model.path.join("weights/layer_1.bin");
    let mut bytes = std::fs::read(&path).unwrap();
    bytes[100] ^= 1;
    std::fs::write(&path, bytes).unwrap();
    refused(
        &run_in(folder, &["pack", "model.omex", "--ram", "1M", "-o", "m.img"]),
        "layer_1.bin: checksum of",
    );
    assert!(!folder.join("m.img").exists());
}

/// A block device over a file, for as long as this lives; `None` where there can't be one.
struct LoopDevice(String);

impl LoopDevice {
    fn new(file: &Path) -> Option<Self> {
        let output = Command::new("losetup").args(["-f", "--show"]).arg(file).output().ok()?;
        let name = String::from_utf8(output.stdout).ok()?.trim().to_owned();
        output.status.success().then_some(Self(name))
    }
}

impl Drop for LoopDevice {
    fn drop(&mut self) {
        let _ = Command::new("losetup").args(["-d", &self.0]).status();
    }
}

#[test]
fn an_image_is_written_to_the_card_that_is_named() {
    let model = model();
    let folder = model.folder.path();
    let pack = |output: &str| run_in(folder, &["pack", "model.omex", "--ram", "1M", "-o", output]);
    assert_eq!(pack("m.img").code, Some(0));
    let image = std::fs::read(folder.join("m.img")).unwrap();
    let card = |bytes: u64| {
        let path = folder.join(format!("card-{bytes}"));
        std::fs::File::create(&path).unwrap().set_len(bytes).unwrap();
        LoopDevice::new(&path).map(|device| (device, path))
    };
    let (Some((large, path)), Some((small, _))) = (card(8 << 20), card(4096)) else {
        println!("skipped: no loop devices here");
        return;
    };
    assert_eq!(pack(&large.0).code, Some(0));
    assert!(Path::new(&large.0).metadata().unwrap().file_type().is_block_device());
    let written = std::fs::read(path).unwrap();
    assert!(written[..image.len()] == image[..]);
    refused(&pack(&small.0), "the device room for 4096");
}
