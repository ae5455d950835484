//! `cargo xtask instructions`: instructions of the hot loops, beside what is on record.

use crate::tools::VALGRIND;
use crate::{Result, output_of, root, run, target_dir};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::Command;

const USAGE: &str = "\
Usage: cargo xtask instructions [--update]

Counts the instructions of the kernels' loops under callgrind, and compares them with those in
benches/record/instructions.txt: a loop that takes over 5 % more fails.

  --update   put what was counted on record";

/// What a loop may take more than is on record: compilers differ.
const TOLERANCE: f64 = 0.05;

/// Runs the command.
///
/// # Errors
/// Wrong arguments, no valgrind, or a loop that takes more than it did.
pub(crate) fn main(arguments: &[String]) -> Result<()> {
    match arguments {
        [] => check(),
        [flag] if flag == "--update" => update(),
        [flag] if flag == "--help" || flag == "-h" => {
            println!("{USAGE}");
            Ok(())
        }
        _ => Err(USAGE.to_owned()),
    }
}

/// Compares with what is on record.
pub(crate) fn check() -> Result<()> {
    let expected = on_record()?;
    let counted = count()?;
    let gone = expected.keys().filter(|name| !counted.contains_key(*name));
    let mut misses: Vec<_> =
        gone.map(|name| format!("{name}: on record, but not counted")).collect();
    for (name, found) in counted {
        let Some(expected) = expected.get(&name) else {
            misses.push(format!("{name}: not on record, see --update"));
            continue;
        };
        let change = found as f64 / *expected as f64 - 1.0;
        println!("{name:<20} {found:>9} {:+6.1} %", 100.0 * change);
        if change > TOLERANCE {
            misses.push(format!("{name}: {found} instructions, {expected} on record"));
        }
    }
    if misses.is_empty() { Ok(()) } else { Err(misses.join("\n")) }
}

fn update() -> Result<()> {
    let lines: Vec<_> = count()?.iter().map(|(name, n)| format!("{name} {n}\n")).collect();
    std::fs::write(record(), lines.concat()).map_err(|e| format!("{}: {e}", record().display()))
}

fn record() -> PathBuf {
    root().join("benches/record/instructions.txt")
}

fn on_record() -> Result<BTreeMap<String, u64>> {
    let path = record();
    let text = std::fs::read_to_string(&path).map_err(|e| format!("{}: {e}", path.display()))?;
    let line = |line: &str| {
        let (name, count) = line.split_once(' ')?;
        Some((name.to_owned(), count.parse().ok()?))
    };
    let lines = text.lines().map(|l| line(l).ok_or(format!("{}: \"{l}\"", path.display())));
    lines.collect()
}

/// Instructions by the loop's name.
fn count() -> Result<BTreeMap<String, u64>> {
    let valgrind = VALGRIND.find()?;
    let folder = target_dir("instructions");
    let mut build = Command::new(std::env::var_os("CARGO").unwrap_or("cargo".into()));
    build.args([
        "build",
        "--quiet",
        "--release",
        "--package",
        "omex-benches",
        "--example",
        "counted",
    ]);
    // One unit each: what is inlined where must not hang on chance.
    build.args(["--config", "profile.release.codegen-units=1", "--target-dir"]).arg(&folder);
    run(build.current_dir(root()))?;
    let program = folder.join("release/examples/counted");
    let names = output_of(&mut Command::new(&program))?;
    names.lines().map(|name| Ok((name.to_owned(), count_one(&valgrind, &program, name)?))).collect()
}

fn count_one(valgrind: &PathBuf, program: &PathBuf, name: &str) -> Result<u64> {
    let mut command = Command::new(valgrind);
    command.args(["--tool=callgrind", "--callgrind-out-file=/dev/null"]);
    command.args(["--toggle-collect=*counted::counted*"]).arg(program).arg(name);
    let output = command.output().map_err(|e| format!("valgrind: {e}"))?;
    let text = String::from_utf8_lossy(&output.stderr);
    if !output.status.success() {
        return Err(format!("{name}: {}: {}", output.status, text.trim()));
    }
    let collected = text.lines().find_map(|line| line.split_once("Collected : "));
    let count = collected.and_then(|(_, count)| count.trim().parse().ok());
    count.ok_or_else(|| format!("valgrind counted nothing for {name}: {}", text.trim()))
}
