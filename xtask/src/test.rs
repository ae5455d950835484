//! `cargo xtask test`: everything that is tested, step by step.

use crate::dist::AARCH64;
use crate::toolchain::{self, Toolchain};
use crate::tools::{self, GCC_AARCH64, NODE, QEMU_AARCH64, QEMU_ARM, QEMU_RISCV32, Tool, VALGRIND};
use crate::{Result, instructions, kernels, output_of, root, run, size, target_dir};
use std::collections::BTreeSet;
use std::process::Command;
use std::time::{Duration, Instant};

const USAGE: &str = "\
Usage: cargo xtask test [OPTIONS]

Runs everything that is tested, goes on after a failure, and ends with a table. Where apt-get can be
used, as root, it installs what is missing; elsewhere it says the command that does.

  --only STEP   run this step alone; may be given several times

Steps:";

/// A step, and what it needs besides Rust.
struct Step {
    name: &'static str,
    about: &'static str,
    tools: &'static [&'static Tool],
    /// What it builds for, besides this machine.
    targets: &'static [&'static str],
    run: fn() -> Result<()>,
    /// It is run without being asked for.
    by_default: bool,
}

const STEPS: &[Step] = &[
    Step {
        name: "clippy",
        about: "lints, warnings are errors",
        tools: &[],
        targets: &[],
        run: clippy,
        by_default: true,
    },
    Step {
        name: "deny",
        about: "licenses, sources and bans of deny.toml, where cargo-deny is installed",
        tools: &[],
        targets: &[],
        run: deny,
        by_default: true,
    },
    Step {
        name: "miri",
        about: "undefined behaviour in pool, rows, arena and integer kernels, where Miri is installed",
        tools: &[],
        targets: &[],
        run: miri,
        by_default: true,
    },
    Step {
        name: "host",
        about: "cargo test --workspace: boards in QEMU and replays of the fuzz targets' seeds included",
        tools: &[&QEMU_ARM, &QEMU_RISCV32],
        targets: &FIRMWARE,
        run: host,
        by_default: true,
    },
    Step {
        name: "firmware",
        about: "builds each board's firmware, with no panic reachable, within its flash and memory and near its record",
        tools: &[&QEMU_ARM, &QEMU_RISCV32],
        targets: &FIRMWARE,
        run: size::check,
        by_default: true,
    },
    Step {
        name: "kernels",
        about: "the kernels of boards' cores give the bits of the portable ones, in QEMU",
        tools: &[&QEMU_ARM],
        targets: &FIRMWARE,
        run: kernels::check,
        by_default: true,
    },
    Step {
        name: "boards-all",
        about: "the same of boards whose chip's crates take long to build; only if it is asked for",
        tools: &[],
        targets: &FIRMWARE,
        run: size::check_others,
        by_default: false,
    },
    Step {
        name: "bare",
        about: "builds core, hal and adapters without an operating system",
        tools: &[],
        targets: &BARE,
        run: bare,
        by_default: true,
    },
    Step {
        name: "aarch64",
        about: "tests of core, hal and adapters on 64-bit Arm under QEMU, kernels on several CPUs, and omex gives the same bits",
        tools: &[&QEMU_AARCH64, &GCC_AARCH64],
        targets: &[AARCH64.target],
        run: aarch64,
        by_default: true,
    },
    Step {
        name: "wasm",
        about: "kernels for WebAssembly under Node.js, and the core gives the same bits",
        tools: &[&NODE],
        targets: &[WASM],
        run: wasm,
        by_default: true,
    },
    Step {
        name: "counts",
        about: "instructions of the hot loops, beside those on record",
        tools: &[&VALGRIND],
        targets: &[],
        run: instructions::check,
        by_default: true,
    },
    Step {
        name: "python",
        about: "of host only the package for Python, where that has NumPy and pytest",
        tools: &[],
        targets: &[],
        run: python,
        by_default: false,
    },
];

/// Runs the command.
///
/// # Errors
/// Wrong arguments, or a step that failed.
pub(crate) fn main(arguments: &[String]) -> Result<()> {
    let Some(steps) = parse(arguments)? else { return Ok(()) };
    install_for(&steps);
    let mut results = vec![];
    for step in steps {
        eprintln!("\n== {}: {}", step.name, step.about);
        let start = Instant::now();
        let missing = step.tools.iter().try_for_each(|tool| tool.find().map(|_| ()));
        let result = missing.and_then(|()| (step.run)());
        if let Err(error) = &result {
            eprintln!("error: {error}");
        }
        results.push((step, result, start.elapsed()));
    }
    table(&results)
}

/// The steps to run; `None` if help was asked for.
fn parse(arguments: &[String]) -> Result<Option<Vec<&'static Step>>> {
    let mut only = vec![];
    let mut arguments = arguments.iter();
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "--help" | "-h" => {
                println!("{USAGE}");
                STEPS.iter().for_each(|step| println!("  {:<13} {}", step.name, step.about));
                return Ok(None);
            }
            "--only" => {
                let name = arguments.next().ok_or("--only needs the name of a step")?;
                let step = STEPS.iter().find(|step| step.name == name);
                only.push(step.ok_or_else(|| format!("no step {name}; --help lists them"))?);
            }
            other => return Err(format!("no option {other}; --help lists them")),
        }
    }
    let all = || STEPS.iter().filter(|step| step.by_default).collect();
    Ok(Some(if only.is_empty() { all() } else { only }))
}

/// Installs what the steps need, or says the command that does. A failure is not the end: the step
/// says what it lacks.
fn install_for(steps: &[&Step]) {
    let tools = steps.iter().flat_map(|step| step.tools);
    let missing: Vec<_> = tools.filter(|tool| tool.find().is_err()).collect();
    let mut targets = steps.iter().flat_map(|step| step.targets);
    let no_compiler = targets.any(|target| Toolchain::find(target).is_err());
    if missing.is_empty() && !no_compiler {
        return;
    }
    if !tools::may_install() {
        let compiler = if no_compiler { toolchain::packages() } else { &[] };
        let packages = missing.iter().flat_map(|tool| tool.packages()).chain(compiler);
        let packages: BTreeSet<_> = packages.copied().collect();
        let packages = packages.into_iter().collect::<Vec<_>>().join(" ");
        eprintln!("some steps need what is not installed here; on Debian, this installs it:");
        eprintln!("  sudo apt-get install {packages}");
        return;
    }
    let report = |installed: Result<()>| {
        if let Err(error) = installed {
            eprintln!("error: {error}");
        }
    };
    report(tools::update());
    missing.iter().for_each(|tool| report(tool.install()));
    if no_compiler {
        report(toolchain::install());
    }
}

fn table(results: &[(&Step, Result<()>, Duration)]) -> Result<()> {
    eprintln!();
    for (step, result, time) in results {
        let outcome = match result {
            Ok(()) => "ok",
            Err(error) => error.lines().next().unwrap_or("failed"),
        };
        eprintln!("{:<10} {:>6.1} s  {outcome}", step.name, time.as_secs_f32());
    }
    match results.iter().filter(|(_, result, _)| result.is_err()).count() {
        0 => Ok(()),
        failed => Err(format!("{failed} of {} steps failed", results.len())),
    }
}

fn cargo(arguments: &[&str]) -> Command {
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or("cargo".into()));
    cargo.args(arguments).current_dir(root());
    // A crate whose build depends on what this package is called is built anew.
    for (name, _) in std::env::vars_os() {
        let text = name.to_string_lossy();
        if ["CARGO_PKG_", "CARGO_MANIFEST_"].iter().any(|prefix| text.starts_with(prefix)) {
            cargo.env_remove(&name);
        }
    }
    cargo
}

/// A subcommand for all crates that can be tested here.
fn workspace(subcommand: &str) -> Command {
    let mut cargo = cargo(&[subcommand, "--workspace"]);
    if python_is_missing() {
        cargo.args(["--exclude", "omex-python"]);
    }
    cargo
}

fn clippy() -> Result<()> {
    let mut clippy = workspace("clippy");
    run(clippy.args(["--all-targets", "--", "--deny", "warnings"]))
}

/// True if a command answers when asked for its version; says how to install it if not.
fn has(command: &mut Command, install: &str) -> bool {
    let found = output_of(command.arg("--version"));
    if let Err(error) = &found {
        let reason = error.lines().next().unwrap_or_default();
        eprintln!("skipped: {reason}; `{install}` installs it");
    }
    found.is_ok()
}

/// Every workspace has a lock file of its own. Advisories need a network, and are left out.
fn deny() -> Result<()> {
    if !has(&mut cargo(&["deny"]), "cargo install --locked cargo-deny") {
        return Ok(());
    }
    for folder in [".", "boards", "tests/wasm"] {
        let mut deny = cargo(&["deny", "--log-level", "error", "--workspace", "--manifest-path"]);
        deny.arg(root().join(folder).join("Cargo.toml")).args(["--config", "deny.toml", "check"]);
        run(deny.args(["bans", "licenses", "sources"]))?;
    }
    Ok(())
}

/// What Miri can run of that which is unsafe, or which it lies on: no intrinsics and no files.
const UNDER_MIRI: [&[&str]; 3] = [
    &["--package", "omex-core", "--lib", "rows::"],
    &["--package", "omex-core", "--test", "playing", "--test", "kernels"],
    &["--package", "omex", "--lib", "pool::"],
];

fn miri() -> Result<()> {
    let nightly = || {
        let mut rustup = Command::new("rustup");
        rustup.args(["run", "nightly", "cargo", "miri"]).current_dir(root());
        rustup
    };
    if !has(&mut nightly(), "rustup toolchain install nightly --component miri,rust-src") {
        return Ok(());
    }
    for tests in UNDER_MIRI {
        run(nightly().args(["test", "--target-dir"]).arg(target_dir("miri")).args(tests))?;
    }
    Ok(())
}

/// Tests run the command that was built with them.
fn host() -> Result<()> {
    let omex = target_dir("debug").join("omex");
    run(workspace("test").env("OMEX_BOARD", "1").env("OMEX_BINARY", omex))
}

/// What boards are built for.
const FIRMWARE: [&str; 4] = [
    "thumbv7m-none-eabi",
    "thumbv7em-none-eabihf",
    "thumbv8m.main-none-eabihf",
    "riscv32imc-unknown-none-elf",
];

/// The crates that run without an operating system.
const PORTABLE: [&str; 6] =
    ["--package", "omex-core", "--package", "omex-hal", "--package", "omex-hal-adapters"];

/// Cortex-M0, which has the least of all, and WebAssembly; what boards are built for, their firmware shows.
const BARE: [&str; 2] = ["thumbv6m-none-eabi", WASM];

fn bare() -> Result<()> {
    for target in BARE {
        eprintln!("{target}");
        let toolchain = Toolchain::find(target)?;
        let mut build = toolchain.cargo("build");
        build.args(["--quiet", "--lib"]).args(PORTABLE).current_dir(root());
        run(build.arg("--target-dir").arg(target_dir(toolchain.folder())))?;
    }
    Ok(())
}

/// CPUs that QEMU can be: plain NEON, with SDOT, and with everything.
const ARM_CPUS: [&str; 3] = ["cortex-a53", "cortex-a76", "max"];

/// As `cargo xtask dist` builds: nothing that runs needs a library.
fn aarch64() -> Result<()> {
    run(AARCH64.cargo("test")?.arg("--lib").args(PORTABLE))?;
    for cpu in ARM_CPUS {
        let mut test = AARCH64.cargo("test")?;
        test.args(["--package", "omex-core", "--test", "kernels", "--", "--nocapture"]);
        run(test.env("QEMU_CPU", cpu))?;
    }
    // The core's bits depend on no feature of the command.
    let omex = ["--package", "omex-cli", "--bin", "omex", "--no-default-features"];
    run(AARCH64.cargo("build")?.args(omex))?;
    let mut test = cargo(&["test", "--package", "omex-tests", "--test", "same_bits", "arm_"]);
    run(test.env("OMEX_AARCH64", AARCH64.omex("debug")?))
}

const WASM: &str = "wasm32-unknown-unknown";

fn wasm() -> Result<()> {
    let toolchain = Toolchain::find(WASM)?;
    let folder = target_dir(toolchain.folder());
    let package = root().join("tests/wasm");
    let mut build = toolchain.cargo("build");
    build.args(["--quiet", "--manifest-path"]).arg(package.join("Cargo.toml"));
    build.env("CARGO_TARGET_WASM32_UNKNOWN_UNKNOWN_RUSTFLAGS", "-Ctarget-feature=+simd128");
    run(build.arg("--target-dir").arg(&folder).current_dir(root()))?;
    let module = folder.join(WASM).join("debug/omex_wasm_tests.wasm");
    run(Command::new(NODE.program).arg(package.join("run.mjs")).arg(&module))?;
    let mut test =
        cargo(&["test", "--package", "omex-tests", "--test", "same_bits", "web_assembly_"]);
    run(test.env("OMEX_WASM", module))
}

/// The package for Python, alone; `host` has it with everything else, built once.
fn python() -> Result<()> {
    if python_is_missing() {
        return Ok(());
    }
    run(&mut cargo(&["test", "--package", "omex-python"]))
}

/// True, with a line that says so, where the package for Python can't be tested: then it isn't built either.
fn python_is_missing() -> bool {
    let python = output_of(Command::new("python3").args(["-c", "import numpy, pytest"]));
    // Gets every crate that is not here yet.
    let crates = || output_of(&mut cargo(&["metadata", "--locked", "--format-version", "1"]));
    let missing = python.and_then(|_| crates());
    if let Err(error) = &missing {
        let reason = error.lines().last().unwrap_or_default();
        eprintln!(
            "skipped: host/python: {reason}; `pip install numpy pytest` installs what its tests need"
        );
    }
    missing.is_err()
}
