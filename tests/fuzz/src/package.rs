//! Packages whose JSON files are anything.

use crate::image::{MAX_WORK, work};
use crate::{seeds, split_at_zero};
use omex::cancel::Cancel;
use omex::package::{Package, renew_checksums, validate::validate};
use omex::session::{Session, SessionOptions};
use std::cell::OnceCell;
use std::fs;
use std::path::Path;
use tempfile::TempDir;

thread_local! {
    /// A package with good weights.
    static FOLDER: OnceCell<TempDir> = const { OnceCell::new() };
}

/// `metadata.json`, `graph.json` and `weights/quantization.json` with zero bytes between them, over
/// the weights of a good package.
pub fn package(data: &[u8]) {
    let (metadata, rest) = split_at_zero(data);
    let (graph, index) = split_at_zero(rest);
    FOLDER.with(|folder| {
        let path = folder.get_or_init(seeds::package_folder).path();
        fs::write(path.join("metadata.json"), metadata).unwrap();
        fs::write(path.join("graph.json"), graph).unwrap();
        fs::write(path.join("weights/quantization.json"), index).unwrap();
        // Without right checksums nothing else would be read; they are right where the rest can be.
        let _ = renew_checksums(path);
        let report = validate(path, &Cancel::default(), &mut |_| {}).unwrap();
        let opened = Package::open(path);
        assert!(opened.is_ok() || !report.problems.is_empty());
        if opened.is_ok() {
            run(path);
        }
    });
}

/// Runs a token, or a graph over zeros, if that is little work.
pub(crate) fn run(path: &Path) {
    let options =
        SessionOptions { memory: Some(4 << 20), threads: Some(1), ..SessionOptions::default() };
    let Ok(mut session) = Session::open(path, &options) else { return };
    if session.program().is_ok_and(|program| work(&program) <= MAX_WORK) {
        // Weights may be damaged or infinite.
        let mut engine = session.engine().unwrap();
        let _ = match engine.program().header().vocab_size {
            0 => engine.infer().is_ok(),
            _ => engine.forward(&[0], omex_core::engine::Wanted::Last).is_ok(),
        };
    }
}
