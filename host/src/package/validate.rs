//! Checks everything in a package: every file, every checksum, every cross-reference.

use super::{
    FORMATTERS, HYPERPARAMETERS, PREPROCESSORS, Package, PreprocessorSettings, TensorEntry,
    read_part,
};
use crate::cancel::Cancel;
use crate::chat::Moment;
use crate::preprocess::Preprocessor;
use crate::{Result, dispatch};
use serde::Serialize;
use serde_json::Value;
use std::collections::BTreeSet;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;

/// What a check found.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Report {
    /// Files checked.
    pub files: u64,
    /// Bytes checked.
    pub bytes: u64,
    /// What is wrong; empty if the package is valid.
    pub problems: Vec<String>,
    /// What is odd but harmless: unknown fields and files, which are kept.
    pub notes: Vec<String>,
}

/// The folders of a package that may be there and hold JSON files.
const OPTIONAL_FOLDERS: [&str; 5] =
    ["optimization", "preprocessors", "postprocessors", "agents", "extensions"];

/// Checks a package.
///
/// # Errors
/// Only [`crate::Error::Interrupted`]; everything that is wrong with the package is in the report.
pub fn validate(path: &Path, cancel: &Cancel, progress: &mut dyn FnMut(u64)) -> Result<Report> {
    let mut step = |bytes| {
        progress(bytes);
        cancel.check()
    };
    super::steadily(path, || check(path, &mut step))
}

fn check(path: &Path, step: &mut dyn FnMut(u64) -> Result<()>) -> Result<Report> {
    let mut report = Report::default();
    match Package::open(path) {
        Ok(package) => {
            report.files += 3;
            check_unknown_fields(path, &mut report);
            check_weights(&package, &mut report, step)?;
            check_tokenizer(&package, &mut report);
            check_chat(&package, &mut report);
            check_processors(&package, &mut report);
            match package.hyperparameters() {
                Ok(found) => report.files += u64::from(found.is_some()),
                Err(error) => report.problems.push(error.to_string()),
            }
        }
        Err(error) => report.problems.push(error.to_string()),
    }
    check_folders(path, &mut report);
    Ok(report)
}

fn check_unknown_fields(path: &Path, report: &mut Report) {
    let mut note =
        |file: &str, field: String| report.notes.push(format!("{file}: unknown field {field}"));
    // These were read before: only their unknown fields are of interest.
    let file = "metadata.json";
    let _ = read_part::<super::Metadata>(path, file, &mut |f| note(file, f));
    let file = "graph.json";
    let _ = read_part::<crate::graph::Graph>(path, file, &mut |f| note(file, f));
    let file = "weights/quantization.json";
    let _ = read_part::<super::WeightIndex>(path, file, &mut |f| note(file, f));
}

fn check_weights(
    package: &Package,
    report: &mut Report,
    step: &mut dyn FnMut(u64) -> Result<()>,
) -> Result<()> {
    let folder = package.path.join("weights");
    let crc32c = dispatch::kernels()?.crc32c;
    let mut page = vec![0; package.index.page_size as usize];
    for (entry, file) in package.index.files.iter().zip(&package.files) {
        let path = folder.join(&entry.name);
        for (number, digits) in entry.page_crc32c.as_bytes().chunks(8).enumerate() {
            let offset = number as u64 * page.len() as u64;
            let field = || format!("{}: page {number} at byte {offset}", path.display());
            match file.read_exact_at(&mut page, offset) {
                Ok(()) => compare(&field(), crc32c(0, &page), digits, report),
                Err(e) => report.problems.push(format!("{}: cannot be read: {e}", field())),
            }
            report.bytes += page.len() as u64;
            step(page.len() as u64)?;
        }
        for tensor in package.index.tensors.iter().filter(|t| t.file == entry.name) {
            check_tensor(file, &path, tensor, crc32c, report);
        }
        report.files += 1;
    }
    let used: BTreeSet<_> = package.compiled.names.iter().collect();
    let unused = |t: &&TensorEntry| !used.contains(&(t.name.clone(), t.plane));
    for tensor in package.index.tensors.iter().filter(unused) {
        report.notes.push(format!(
            "weights/quantization.json: tensor \"{}\"{} is not used by graph.json",
            tensor.name,
            if tensor.plane == 0 { "" } else { ", residual plane," }
        ));
    }
    let known =
        package.index.files.iter().map(|f| f.name.as_str()).chain(["quantization.json"]).collect();
    note_strangers(&folder, &known, report);
    Ok(())
}

fn check_tensor(
    file: &File,
    path: &Path,
    tensor: &TensorEntry,
    crc32c: fn(u32, &[u8]) -> u32,
    report: &mut Report,
) {
    let mut crc = 0;
    let mut buffer = vec![0; 1 << 20];
    let mut left = tensor.length;
    while left > 0 {
        let now = buffer.len().min(left as usize);
        let offset = tensor.offset + tensor.length - left;
        if let Err(e) = file.read_exact_at(&mut buffer[..now], offset) {
            report.problems.push(format!(
                "{}: tensor \"{}\": cannot be read: {e}",
                path.display(),
                tensor.name
            ));
            return;
        }
        crc = crc32c(crc, &buffer[..now]);
        left -= now as u64;
    }
    compare(
        &format!("{}: tensor \"{}\"", path.display(), tensor.name),
        crc,
        tensor.crc32c.as_bytes(),
        report,
    );
}

fn compare(what: &str, found: u32, digits: &[u8], report: &mut Report) {
    let expected = super::parse_crc(digits);
    if expected != Some(found) {
        let expected = String::from_utf8_lossy(digits);
        let remedy = "the file is damaged: copy or convert the package again";
        report
            .problems
            .push(format!("{what}: crc32c: found {found:08x}, expected {expected}; {remedy}"));
    }
}

fn check_tokenizer(package: &Package, report: &mut Report) {
    let folder = package.path.join("tokenizer");
    if folder.symlink_metadata().is_err() {
        report.notes.push("tokenizer: there is none; the model takes token ids only".into());
        return;
    }
    let spec = crate::tokenizer::Spec::from_package(&package.path);
    match spec.and_then(|spec| crate::tokenizer::compile(&spec)) {
        Err(error) => report.problems.push(error.to_string()),
        Ok(expected) => match package.tokenizer_tables() {
            Some(found) if found == expected => report.files += 2,
            _ => report.problems.push(format!(
                "{}: found other tables, expected those of tokenizer.json; convert the model again",
                folder.join("tokenizer.bin").display()
            )),
        },
    }
}

fn check_chat(package: &Package, report: &mut Report) {
    let templates = match package.chat() {
        Err(error) => return report.problems.push(error.to_string()),
        Ok(None) => return,
        Ok(Some(chat)) => chat.templates,
    };
    report.files += 1;
    for (name, text) in templates {
        // Such a model still goes on with texts.
        if let Err(error) = crate::chat::Template::new(&name, &text) {
            report.notes.push(format!("chat.json: template {error}"));
        }
    }
}

/// Preprocessors and formatters must be such; that they are JSON is seen elsewhere.
fn check_processors(package: &Package, report: &mut Report) {
    let listed = package.metadata.files.keys().filter(|name| super::is_processor(name));
    for name in listed.filter(|name| !package.path.join(name).exists()) {
        let file = package.path.join(name);
        report
            .problems
            .push(format!("{}: found no file, but metadata.json lists it", file.display()));
    }
    for (folder, end) in [PREPROCESSORS, FORMATTERS] {
        let Ok(entries) = std::fs::read_dir(package.path.join(folder)) else { continue };
        for entry in entries.flatten() {
            let file = entry.file_name();
            let Some(name) = file.to_str().and_then(|file| file.strip_suffix(end)) else {
                continue;
            };
            let found = match folder {
                "preprocessors" => package
                    .preprocessor(name)
                    .and_then(|settings| prepared(settings, &entry.path().display().to_string())),
                _ => package.formatter(name).map(drop),
            };
            report.problems.extend(found.err().map(|error| error.to_string()));
        }
    }
}

/// Templates must be such.
fn prepared(settings: Option<PreprocessorSettings>, file: &str) -> Result<()> {
    let prepare = |settings| Preprocessor::new(&settings, file, Moment::from_unix(0)).map(drop);
    settings.map_or(Ok(()), prepare)
}

/// JSON files of the optional folders must be JSON; files that nobody knows are noted.
fn check_folders(path: &Path, report: &mut Report) {
    for name in OPTIONAL_FOLDERS {
        let folder = path.join(name);
        match folder.is_symlink() {
            true => report.problems.push(symbolic_link(&folder)),
            false => check_json_files(&folder, 0, report),
        }
    }
    let known =
        ["metadata.json", "graph.json", "chat.json", HYPERPARAMETERS, "weights", "tokenizer"];
    note_strangers(path, &known.into_iter().chain(OPTIONAL_FOLDERS).collect(), report);
}

fn check_json_files(folder: &Path, depth: u32, report: &mut Report) {
    let Ok(entries) = std::fs::read_dir(folder) else { return };
    for entry in entries.flatten() {
        let path = entry.path();
        let Ok(kind) = entry.file_type() else { continue };
        if kind.is_symlink() {
            report.problems.push(symbolic_link(&path));
        } else if kind.is_dir() && depth < 8 {
            check_json_files(&path, depth + 1, report);
        } else if path.extension().is_some_and(|e| e == "json") {
            report.files += 1;
            if let Err(error) = super::read_json::<Value>(&path) {
                report.problems.push(error.to_string());
            }
        }
    }
}

fn symbolic_link(path: &Path) -> String {
    format!("{}: found a symbolic link, expected what it stands for", path.display())
}

fn note_strangers(folder: &Path, known: &BTreeSet<&str>, report: &mut Report) {
    let Ok(entries) = std::fs::read_dir(folder) else { return };
    for entry in entries.flatten() {
        if !entry.file_name().to_str().is_some_and(|name| known.contains(name)) {
            report.notes.push(format!("{}: not part of a package", entry.path().display()));
        }
    }
}
