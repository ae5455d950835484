//! The user's defaults.

use omex_tests::{Converted, Finished, convert_from, json_of, omex, run, shipped_model};
use serde_json::Value;
use std::path::Path;
use std::process::Command;
use std::sync::OnceLock;
use tempfile::TempDir;

fn model() -> &'static str {
    static MODEL: OnceLock<Converted> = OnceLock::new();
    MODEL.get_or_init(|| convert_from(&shipped_model(), None)).path.to_str().unwrap()
}

const RUN: [&str; 4] = ["Once", "--max-tokens", "2", "--json"];

/// A user's home with this configuration.
fn home(config: &str) -> TempDir {
    let home = tempfile::tempdir().unwrap();
    std::fs::create_dir(home.path().join(".omex")).unwrap();
    std::fs::write(home.path().join(".omex/config.toml"), config).unwrap();
    home
}

fn at(home: &Path, command: &str, more: &[&str]) -> Command {
    let mut omex = omex([&[command, model()], more].concat());
    omex.env_remove("OMEX_CONFIG").env("HOME", home).env("XDG_CACHE_HOME", home);
    omex
}

fn with(config: &str, command: &str, more: &[&str]) -> Finished {
    run(&mut at(home(config).path(), command, more))
}

#[test]
fn settings_are_defaults_that_options_override() {
    let limited = "[device]\nmemory_limit = \"1KB\"\n";
    let refused = with(limited, "run", &RUN);
    assert!(refused.code == Some(1) && refused.err.contains("budget of 1000 bytes"), "{refused:?}");
    let said = with(limited, "run", &[&RUN[..], &["--memory", "100MB"]].concat());
    assert!(said.code == Some(0) && said.err.is_empty(), "{said:?}");
    let tokenize = with(limited, "tokenize", &["--help"]);
    assert!(tokenize.out.contains("[default: 1KB]"), "{tokenize:?}");
    let pages = |config: &str| json_of(&with(config, "run", &RUN))["stats"]["pages"].clone();
    let [mapped, read] = ["true", "false"].map(|is| pages(&format!("device.enable_mmap = {is}")));
    assert!(mapped == "mmap" && read == "read", "{mapped} {read}");
    // The device's memory is what was asked for.
    let plan = ["--json", "--device", "raspberry-pi-4"];
    let [plain, beside] = ["", limited].map(|config| json_of(&with(config, "plan", &plan)));
    assert_eq!(plain["total"], beside["total"]);
    assert!(plain["total"].is_u64());
}

#[test]
fn a_broken_configuration_is_an_error_that_says_where() {
    let cases = [
        ("[device]\n\ncpu_threads = = 2\n", "line 3"),
        ("[device]\ncpu_threads = 0\n", "device.cpu_threads: found 0, expected a number from 1"),
        ("[device]\ncpu_threads = \"2\"\n", "device.cpu_threads: found \"2\""),
        ("device.memory_limit = 5\n", "device.memory_limit: found 5, expected a size"),
        ("device.memory_limit = \"5 pounds\"\n", "device.memory_limit: found \"5 pounds\""),
        (
            "device.enable_mmap = \"no\"\n",
            "device.enable_mmap: found \"no\", expected true or false",
        ),
    ];
    for (config, words) in cases {
        let said = with(config, "run", &RUN);
        assert_eq!(said.code, Some(1), "{config}: {said:?}");
        for words in ["config.toml: ", words, "correct it, or remove the file"] {
            assert!(said.err.contains(words), "{words} in {said:?}");
        }
        let error: Value = serde_json::from_str(&said.out).unwrap();
        assert_eq!(error["error"]["kind"], "malformed");
        assert_eq!(with(config, "run", &["--help"]).code, Some(0));
    }
    let home = home("");
    let named = |name: &str| run(at(home.path(), "run", &RUN).env("OMEX_CONFIG", name));
    let missing = named("/nowhere.toml");
    assert!(missing.code == Some(1) && missing.err.contains("/nowhere.toml"), "{missing:?}");
    assert_eq!(named("").code, Some(0));
    let file = home.path().join(".omex/config.toml");
    std::fs::write(&file, [0xff]).unwrap();
    assert!(named(file.to_str().unwrap()).err.contains("bytes that are not UTF-8"));
}

#[test]
fn settings_that_have_no_effect_are_named() {
    let config = "[runtime]\ndefault_runner = \"local_device\"\n[device]\ncpu_threads = 1\n\
                  swap_path = \"~/.omex/swap\"\n[storage]\nlog_retention_days = 7\n";
    let said = with(config, "run", &RUN);
    assert_eq!(said.code, Some(0), "{said:?}");
    let words = "config.toml: without effect in this version: device.swap_path and 2 more";
    assert!(said.err.contains(words), "{said:?}");
}
