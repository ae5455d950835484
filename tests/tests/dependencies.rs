//! Who may know whom.

use serde_json::Value;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

fn cargo(args: &[&str]) -> String {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = Command::new(cargo).args(args).current_dir(repository()).output().unwrap();
    assert!(output.status.success(), "cargo {args:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// The packages of a workspace.
fn packages(manifest: &str) -> Vec<Value> {
    let text =
        cargo(&["metadata", "--no-deps", "--format-version", "1", "--manifest-path", manifest]);
    let metadata: Value = serde_json::from_str(&text).unwrap();
    metadata["packages"].as_array().unwrap().clone()
}

/// What a package depends on, and whether only for tests.
fn dependencies(package: &Value) -> Vec<(String, bool)> {
    let all = package["dependencies"].as_array().unwrap().iter();
    all.map(|d| (d["name"].as_str().unwrap().to_owned(), d["kind"] == "dev")).collect()
}

fn is_ours(name: &str) -> bool {
    name == "omex" || name.starts_with("omex-") || name == "xtask"
}

fn ours_of(package: &Value) -> BTreeSet<String> {
    let normal = dependencies(package).into_iter().filter(|(name, dev)| !dev && is_ours(name));
    normal.map(|(name, _)| name).collect()
}

#[test]
fn arrows_point_down_only() {
    let allowed: [(&str, &[&str]); 8] = [
        ("omex-hal", &[]),
        ("omex-hal-adapters", &["omex-hal"]),
        ("omex-core", &["omex-hal"]),
        ("omex", &["omex-core", "omex-hal", "omex-hal-adapters"]),
        ("omex-cli", &["omex", "omex-core"]),
        ("omex-core-c", &["omex-core", "omex-hal", "omex-hal-adapters"]),
        ("omex-c", &["omex", "omex-core"]),
        ("omex-python", &["omex", "omex-core"]),
    ];
    let packages = packages("Cargo.toml");
    for (name, allowed) in allowed {
        let package =
            packages.iter().find(|p| p["name"] == name).unwrap_or_else(|| panic!("no {name}"));
        let allowed: BTreeSet<_> = allowed.iter().map(|n| (*n).to_owned()).collect();
        let found = ours_of(package);
        assert!(found.is_subset(&allowed), "{name} knows {found:?}, may know {allowed:?}");
    }
}

#[test]
fn the_library_parses_no_arguments_draws_no_bars_and_handles_no_signals() {
    let packages = packages("Cargo.toml");
    let library = packages.iter().find(|p| p["name"] == "omex").unwrap();
    let (known, _): (Vec<_>, Vec<_>) = dependencies(library).into_iter().unzip();
    for of_the_command in ["clap", "indicatif", "ctrlc", "signal-hook"] {
        assert!(!known.iter().any(|k| k == of_the_command), "the library knows {of_the_command}");
    }
}

#[test]
fn nothing_that_ships_knows_tests_benches_or_chores() {
    for package in packages("Cargo.toml") {
        let name = package["name"].as_str().unwrap();
        let chores = ["omex-tests", "omex-fuzz", "omex-benches", "xtask"];
        let (known, _): (Vec<_>, Vec<_>) = dependencies(&package).into_iter().unzip();
        let known: Vec<_> = known.iter().filter(|k| chores.contains(&k.as_str())).collect();
        assert!(known.is_empty() || chores.contains(&name), "{name} knows {known:?}");
    }
}

#[test]
fn firmware_never_knows_the_host() {
    if !repository().join("boards/Cargo.toml").is_file() {
        println!("skipped: there are no boards");
        return;
    }
    for package in packages("boards/Cargo.toml") {
        let allowed = ["omex-audio", "omex-board", "omex-core", "omex-hal", "omex-hal-adapters"];
        let allowed = allowed.map(str::to_owned).into();
        let found = ours_of(&package);
        assert!(found.is_subset(&allowed), "{} knows {found:?}", package["name"]);
    }
}

/// Every crate that is linked into firmware with the core; one more is a decision, not an accident.
const IN_FIRMWARE: [&str; 15] = [
    "byteorder",
    "cfg-if",
    "cobs",
    "half",
    "hash32",
    "heapless",
    "libm",
    "omex-core",
    "omex-hal",
    "postcard",
    "serde",
    "serde_core",
    "stable_deref_trait",
    "thiserror",
    "zerocopy",
];

#[test]
fn the_core_links_neither_std_nor_alloc_nor_strangers() {
    for package in ["omex-core", "omex-hal"] {
        let tree = cargo(&[
            "tree",
            "--package",
            package,
            "--edges",
            "normal,no-proc-macro",
            "--prefix",
            "none",
            "--format",
            "{p}|{f}",
        ]);
        let mut seen = 0;
        for line in tree.lines().filter(|line| !line.is_empty()) {
            let (crate_, features) = line.split_once('|').unwrap();
            let name = crate_.split(' ').next().unwrap();
            let features = features.trim_end_matches(" (*)");
            let bad =
                features.split(',').find(|f| matches!(*f, "std" | "alloc" | "use-std" | "use_std"));
            assert_eq!(bad, None, "{package}: {name} with {features}");
            assert!(IN_FIRMWARE.contains(&name), "{package} links {name}: if it must, list it");
            seen += 1;
        }
        assert!(seen > 0, "cargo tree showed nothing");
    }
}
