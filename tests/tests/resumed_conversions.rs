//! A conversion that was cut off goes on where it was, and makes the package that it would have made.

use omex_tests::{Finished, Synthetic, omex, run_in, shipped_model};
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant, SystemTime};

/// The bytes of all files below a folder, by their paths in it.
fn contents(folder: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(next) = folders.pop() {
        for path in fs::read_dir(&next).unwrap().map(|entry| entry.unwrap().path()) {
            match path.is_dir() {
                true => folders.push(path),
                false => {
                    let bytes = fs::read(&path).unwrap();
                    found.insert(path.strip_prefix(folder).unwrap().to_owned(), bytes);
                }
            }
        }
    }
    found
}

/// The bytes of the files in a folder, which may vanish meanwhile.
fn size(folder: &Path) -> u64 {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.metadata().ok()).map(|found| found.len()).sum()
}

fn count(folder: &Path) -> usize {
    fs::read_dir(folder).map_or(0, Iterator::count)
}

/// A model of twelve layers in a folder of its own, and what it is converted with.
struct Case {
    folder: tempfile::TempDir,
    options: &'static [&'static str],
}

impl Case {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("model")).unwrap();
        Synthetic::new(256, 688, 12, 4, 4, 8192, 256)
            .write_hugging_face(&folder.path().join("model"));
        Self { folder, options: &["--quantization", "int8", "--no-tokenizer"] }
    }

    fn at(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn args<'a>(&'a self, output: &'a str) -> Vec<&'a str> {
        [&["convert", "model", "--output-dir", output, "--no-check"], self.options].concat()
    }

    fn convert(&self, output: &str) -> Finished {
        run_in(self.folder.path(), &self.args(output))
    }

    /// Kills a conversion as soon as `reached` says so; false if it ended before.
    fn kill_when(&self, output: &str, reached: impl Fn(&Path) -> bool) -> bool {
        let mut command = omex(self.args(output));
        command.current_dir(self.folder.path()).stdout(Stdio::null()).stderr(Stdio::null());
        let (mut child, start) = (command.spawn().unwrap(), Instant::now());
        let partial = self.at(&format!("{output}.partial"));
        while !reached(&partial) && child.try_wait().unwrap().is_none() {
            assert!(start.elapsed() < Duration::from_secs(60), "it takes too long");
            std::thread::sleep(Duration::from_micros(200));
        }
        child.kill().unwrap();
        child.wait().unwrap();
        !self.at(output).exists()
    }

    /// Kills a conversion when a layer is finished.
    fn cut_off(&self, output: &str) {
        assert!(self.kill_when(output, |partial| count(&partial.join("done")) >= 3), "too late");
    }

    fn has_only(&self, names: &[&str]) {
        let mut found: Vec<_> = fs::read_dir(self.folder.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        found.sort();
        assert_eq!(found, names);
    }
}

/// The layer that a conversion says it goes on at, and the layers in all.
fn goes_on_at(said: &Finished) -> Option<(usize, usize)> {
    let (_, rest) = said.err.split_once("goes on at layer ")?;
    let (layer, rest) = rest.split_once(" of ").unwrap();
    let layers = rest.split(',').next().unwrap();
    Some((layer.parse().unwrap(), layers.parse().unwrap()))
}

#[test]
fn a_killed_conversion_goes_on_and_ends_with_the_same_bytes() {
    let case = Case::new();
    assert_eq!(case.convert("whole.omex").code, Some(0));
    let (expected, all) = (contents(&case.at("whole.omex")), size(&case.at("whole.omex/weights")));
    let mut gone_on = vec![];
    for tenth in [0, 2, 5, 8] {
        let reached = |partial: &Path| size(&partial.join("package/weights")) >= all * tenth / 10;
        case.kill_when("m.omex", |partial| partial.exists() && reached(partial));
        // And once more, while it goes on.
        if tenth == 2 && !case.at("m.omex").exists() {
            let reached = |partial: &Path| size(&partial.join("package/weights")) >= all * 6 / 10;
            case.kill_when("m.omex", reached);
        }
        if !case.at("m.omex").exists() {
            let done = count(&case.at("m.omex.partial/done"));
            let said = case.convert("m.omex");
            assert_eq!(said.code, Some(0), "{said:?}");
            let at = goes_on_at(&said);
            assert!(done < 2 || at.is_some_and(|(layer, _)| layer > 1), "{done}: {said:?}");
            gone_on.extend(at);
        }
        assert!(contents(&case.at("m.omex")) == expected, "{tenth} tenths");
        fs::remove_dir_all(case.at("m.omex")).unwrap();
    }
    println!("gone on at {gone_on:?}");
    assert!(gone_on.len() >= 2 && gone_on.iter().all(|(at, all)| at <= all), "{gone_on:?}");
    case.has_only(&["model", "whole.omex"]);
}

#[test]
fn calibrating_goes_on_too() {
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir(folder.path().join("model")).unwrap();
    for file in shipped_model().read_dir().unwrap().map(|file| file.unwrap().path()) {
        fs::copy(&file, folder.path().join("model").join(file.file_name().unwrap())).unwrap();
    }
    let case = Case { folder, options: &["--quantization", "int4+4"] };
    assert_eq!(case.convert("whole.omex").code, Some(0));
    let expected = contents(&case.at("whole.omex"));
    let stages: [fn(&Path) -> bool; 2] = [
        |partial| count(&partial.join("calibration/done")) >= 2,
        |partial| count(&partial.join("done")) >= 2,
    ];
    for (number, reached) in stages.into_iter().enumerate() {
        if case.kill_when("m.omex", reached) {
            let said = case.convert("m.omex");
            assert!(said.code == Some(0) && goes_on_at(&said).is_some(), "{number}: {said:?}");
        }
        assert!(contents(&case.at("m.omex")) == expected, "{number}");
        fs::remove_dir_all(case.at("m.omex")).unwrap();
    }
}

#[test]
fn another_model_or_other_settings_start_anew() {
    let case = Case::new();
    let later = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000_000);
    let touched = |name: &str| File::options().append(true).open(case.at(name)).unwrap();
    let touch = || touched("model/model.safetensors").set_modified(later).unwrap();
    let other: &[_] = &["--quantization", "f16", "--no-tokenizer"];
    for (said, change) in [("another model", Some(&touch)), ("another precision", None)] {
        case.cut_off("m.omex");
        let options = match change {
            Some(change) => {
                change();
                case.options
            }
            None => other,
        };
        let args = [&["convert", "model", "--no-check"], options].concat();
        let convert =
            |output| run_in(case.folder.path(), &[&args[..], &["--output-dir", output]].concat());
        let anew = convert("m.omex");
        assert!(anew.code == Some(0) && anew.err.contains("starts anew"), "{anew:?}");
        assert!(anew.err.contains(said) && goes_on_at(&anew).is_none(), "{anew:?}");
        assert_eq!(convert("fresh.omex").code, Some(0));
        assert!(contents(&case.at("m.omex")) == contents(&case.at("fresh.omex")), "{said}");
        for output in ["m.omex", "fresh.omex"] {
            fs::remove_dir_all(case.at(output)).unwrap();
        }
    }
    case.has_only(&["model"]);
}

#[test]
fn what_is_damaged_meanwhile_is_written_again() {
    let case = Case::new();
    assert_eq!(case.convert("whole.omex").code, Some(0));
    case.cut_off("m.omex");
    let weights = case.at("m.omex.partial/package/weights");
    let mut bytes = fs::read(weights.join("layer_1.bin")).unwrap();
    bytes[5000] ^= 1;
    fs::write(weights.join("layer_1.bin"), bytes).unwrap();
    fs::write(case.at("m.omex.partial/done/layer_2.bin.json"), "{").unwrap();
    fs::write(weights.join("stranger"), "x").unwrap();
    fs::write(case.at("m.omex.partial/package/graph.json"), "{}").unwrap();
    let said = case.convert("m.omex");
    assert_eq!(goes_on_at(&said).map(|(layer, _)| layer), Some(2), "{said:?}");
    assert!(contents(&case.at("m.omex")) == contents(&case.at("whole.omex")));
}

#[test]
fn a_second_conversion_to_the_same_place_is_refused() {
    let case = Case::new();
    case.cut_off("m.omex");
    let partial = case.at("m.omex.partial");
    let before = contents(&partial);
    let lock = File::open(&partial).unwrap();
    lock.lock().unwrap();
    let said = case.convert("m.omex");
    let refused = said.err.contains("another conversion is writing m.omex");
    assert!(said.code == Some(2) && refused, "{said:?}");
    assert!(contents(&partial) == before);
    drop(lock);
    assert_eq!(case.convert("m.omex").code, Some(0));
    // What looks like it and is not stays.
    fs::create_dir(case.at("n.omex.partial")).unwrap();
    fs::write(case.at("n.omex.partial/letter"), "kept").unwrap();
    let said = case.convert("n.omex");
    assert!(said.err.contains("is not a conversion that was cut off"), "{said:?}");
    assert!(case.at("n.omex.partial/letter").exists() && !case.at("n.omex").exists());
}

/// A file system in memory, for as long as this lives; `None` where there can't be one.
struct Mounted(PathBuf);

impl Mounted {
    fn new(path: PathBuf, size: &str) -> Option<Self> {
        fs::create_dir(&path).unwrap();
        let size = format!("size={size}");
        let mount =
            Command::new("mount").args(["-t", "tmpfs", "-o", &size, "none"]).arg(&path).output();
        mount.ok()?.status.success().then_some(Self(path))
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(&self.0).status();
    }
}

#[test]
fn a_full_disk_takes_nothing_that_is_finished() {
    let case = Case::new();
    assert_eq!(case.convert("whole.omex").code, Some(0));
    let Some(disk) = Mounted::new(case.at("disk"), "8m") else {
        println!("skipped: nothing can be mounted here");
        return;
    };
    let said = case.convert("disk/m.omex");
    assert!(said.code == Some(1) && said.err.contains("the same command goes on"), "{said:?}");
    let remount = Command::new("mount").args(["-o", "remount,size=64m"]).arg(&disk.0).status();
    assert!(remount.unwrap().success());
    let said = case.convert("disk/m.omex");
    assert!(goes_on_at(&said).is_some_and(|(layer, _)| layer > 3), "{said:?}");
    assert!(contents(&case.at("disk/m.omex")) == contents(&case.at("whole.omex")));
}
