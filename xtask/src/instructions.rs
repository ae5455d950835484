//! `cargo xtask instructions`: instructions of the hot loops, beside what is on record.

use crate::tools::VALGRIND;
use crate::{Result, output_of, root, run, target_dir};
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::process::Command;

const USAGE: &str = "\
Usage: cargo xtask instructions [--update]

Counts the instructions of the kernels' loops under callgrind, and compares them with those in
benches/record/instructions.txt: a loop that takes over 5 % more fails. Another compiler than the one on record counts
without comparing.

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
    let (expected, counted) = (on_record()?, count()?);
    if expected.compiler != compiler()? {
        println!("not compared: the record is of {}", expected.compiler);
        return Ok(());
    }
    let table = |name: &str| name.split('/').next().unwrap_or_default().to_owned();
    let tables: BTreeSet<_> = counted.keys().map(|name| table(name)).collect();
    let mut misses = vec![];
    for (name, expected) in expected.loops.iter().filter(|(name, _)| tables.contains(&table(name)))
    {
        let Some(found) = counted.get(name) else {
            misses.push(format!("{name}: on record, but not counted"));
            continue;
        };
        let change = *found as f64 / *expected as f64 - 1.0;
        println!("{name:<20} {found:>9} {:+6.1} %", 100.0 * change);
        if change > TOLERANCE {
            misses.push(format!("{name}: {found} instructions, {expected} on record"));
        }
    }
    if misses.is_empty() { Ok(()) } else { Err(misses.join("\n")) }
}

fn update() -> Result<()> {
    let loops = count()?;
    let lines = loops.iter().map(|(name, n)| format!("{name} {n}\n"));
    let text = std::iter::once(format!("{}\n", compiler()?)).chain(lines).collect::<String>();
    std::fs::write(record(), text).map_err(|e| format!("{}: {e}", record().display()))
}

/// What compiles this, as `rustc 1.95.0`.
fn compiler() -> Result<String> {
    let version = output_of(Command::new("rustc").arg("--version"))?;
    Ok(version.split(' ').take(2).collect::<Vec<_>>().join(" "))
}

/// What was counted before.
struct Record {
    compiler: String,
    loops: BTreeMap<String, u64>,
}

fn record() -> PathBuf {
    root().join("benches/record/instructions.txt")
}

fn on_record() -> Result<Record> {
    let path = record();
    let text = std::fs::read_to_string(&path).map_err(|e| format!("{}: {e}", path.display()))?;
    let (compiler, lines) = text.split_once('\n').unwrap_or_default();
    let line = |line: &str| {
        let (name, count) = line.split_once(' ')?;
        Some((name.to_owned(), count.parse().ok()?))
    };
    let lines = lines.lines().map(|l| line(l).ok_or(format!("{}: \"{l}\"", path.display())));
    Ok(Record { compiler: compiler.to_owned(), loops: lines.collect::<Result<_>>()? })
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
