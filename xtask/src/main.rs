//! The project's own chores: `cargo xtask board`, `cargo xtask test`, `cargo xtask size`.

mod arrays;
mod board;
mod card;
mod dist;
mod elf;
mod escapes;
mod firmware;
mod images;
mod instructions;
mod json;
mod kernels;
mod modules;
mod record;
mod size;
mod test;
mod toolchain;
mod tools;

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

/// What went wrong, for people to read.
type Result<T> = std::result::Result<T, String>;

const USAGE: &str = "\
Usage: cargo xtask COMMAND

  board NAME IMAGE   run a flash image on a board in QEMU: cargo xtask board lm3s6965evb card.img
  test               run everything that is tested
  instructions       count the instructions of the hot loops, beside those on record
  dist [NAME]        build omex for Linux boards: static files and Debian packages
  size [NAME]        show what a board's firmware takes of its flash and memory, beside what is on record

cargo xtask COMMAND --help tells more.";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let Some((command, arguments)) = arguments.split_first() else {
        eprintln!("{USAGE}");
        return ExitCode::from(2);
    };
    let result = match command.as_str() {
        "board" => board::main(arguments),
        "test" => test::main(arguments),
        "instructions" => instructions::main(arguments),
        "dist" => dist::main(arguments),
        "size" => size::main(arguments),
        "help" | "--help" | "-h" => {
            println!("{USAGE}");
            Ok(())
        }
        other => Err(format!("no command {other}\n\n{USAGE}")),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("error: {message}");
            ExitCode::FAILURE
        }
    }
}

/// The folder of the workspace.
fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap_or(Path::new("."))
}

/// A folder for what is built, apart from the host's own build.
fn target_dir(name: &str) -> PathBuf {
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or(root().join("target"), PathBuf::from);
    std::env::current_dir().unwrap_or_default().join(target).join(name)
}

/// Runs a command to its end.
fn run(command: &mut Command) -> Result<()> {
    let program = command.get_program().to_string_lossy().into_owned();
    match command.status() {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(format!("{}: {status}", describe(command))),
        Err(error) => Err(format!("{program}: {error}")),
    }
}

/// A command's standard output, without the white space around it.
fn output_of(command: &mut Command) -> Result<String> {
    let output = command.output().map_err(|e| format!("{}: {e}", describe(command)))?;
    if output.status.success() {
        Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
    } else {
        let errors = String::from_utf8_lossy(&output.stderr);
        Err(format!("{}: {}: {}", describe(command), output.status, errors.trim()))
    }
}

fn describe(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words.map(|word| word.to_string_lossy()).collect::<Vec<_>>().join(" ")
}
