//! The `omex` command as a process.

use omex_core::engine::STACK_BYTES;
use serde_json::Value;
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::OnceLock;

/// The `omex` command, built in the profile of these tests, or the one that `OMEX_BINARY` names.
#[must_use]
pub fn omex_binary() -> &'static Path {
    static BINARY: OnceLock<PathBuf> = OnceLock::new();
    BINARY.get_or_init(|| {
        let built = std::env::var_os("OMEX_BINARY").map(PathBuf::from);
        if let Some(built) = built.filter(|built| built.is_file()) {
            return built;
        }
        let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        let mut build = Command::new(cargo);
        build.args(["build", "--package", "omex-cli", "--bin", "omex", "--message-format", "json"]);
        if !cfg!(debug_assertions) {
            build.arg("--release");
        }
        without_package(&mut build);
        build.current_dir(env!("CARGO_MANIFEST_DIR")).stderr(Stdio::inherit());
        let output = build.output().expect("cargo can be run");
        assert!(output.status.success(), "building the omex command failed");
        let lines = output.stdout.split(|b| *b == b'\n');
        let messages = lines.filter_map(|line| serde_json::from_slice::<Value>(line).ok());
        let mut executables = messages.filter_map(|m| m["executable"].as_str().map(PathBuf::from));
        executables.next_back().expect("cargo names the executable")
    })
}

/// Removes what cargo tells a test of its package: a crate whose build depends on that is built anew.
fn without_package(cargo: &mut Command) {
    for (name, _) in std::env::vars_os() {
        let text = name.to_string_lossy();
        if ["CARGO_PKG_", "CARGO_MANIFEST_"].iter().any(|prefix| text.starts_with(prefix)) {
            cargo.env_remove(&name);
        }
    }
}

/// The `omex` command with these arguments.
#[must_use]
pub fn omex<S: AsRef<std::ffi::OsStr>>(args: impl IntoIterator<Item = S>) -> Command {
    let mut command = Command::new(omex_binary());
    command.args(args).env_remove("OMEX_KERNELS").env("OMEX_CONFIG", "").stdin(Stdio::null());
    command
}

/// `cargo xtask board` with a flash image on the emulated board of this name; `None`, with a line that
/// says so, where boards are not to be tested.
#[must_use]
pub fn board(name: &str, image: &Path) -> Option<Command> {
    if std::env::var_os("OMEX_BOARD").is_none() {
        println!(
            "skipped: OMEX_BOARD is not set (cargo xtask test sets it where QEMU is installed)"
        );
        return None;
    }
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut board = Command::new(cargo);
    board.current_dir(Path::new(env!("CARGO_MANIFEST_DIR")).parent()?);
    board.args(["xtask", "board", name]).arg(image).arg("--json");
    Some(board)
}

/// As [`board`], but connected with the board's serial port.
#[must_use]
pub fn serial_board(name: &str, image: &Path) -> Option<Command> {
    let cargo = board(name, image)?;
    let mut board = Command::new(cargo.get_program());
    let arguments = cargo.get_args().filter(|argument| *argument != "--json");
    board.args(arguments).arg("--serial").current_dir(cargo.get_current_dir()?);
    Some(board)
}

/// What a command says when this is typed.
///
/// # Panics
/// If it fails.
#[must_use]
pub fn answered(mut command: Command, typed: Vec<u8>) -> String {
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let typing = std::thread::spawn(move || stdin.write_all(&typed).map(|()| stdin));
    let output = child.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stderr));
    typing.join().unwrap().unwrap();
    said
}

/// Checks that a board's `ram` bytes held what its summary says was used, with 1 KB of stack to spare
/// beyond what the engine is said to need.
pub fn check_memory(said: &Value, ram: u64) {
    let number = |name| said[name].as_u64().unwrap_or_else(|| panic!("no {name}: {said}"));
    let (stack, room) = (number("stack_bytes"), number("stack_room_bytes"));
    println!("on the board: {} bytes of memory, {stack} of them stack", number("ram_bytes"));
    assert!(number("ram_bytes") <= ram, "{said}");
    assert!(stack <= STACK_BYTES as u64, "{stack} bytes of stack, {STACK_BYTES} documented");
    assert!(room >= STACK_BYTES as u64 + 1024, "{room} bytes for the stack");
}

/// What a process left behind.
#[derive(Clone, Debug)]
pub struct Finished {
    /// Its exit code; `None` if a signal ended it.
    pub code: Option<i32>,
    /// Standard output.
    pub out: String,
    /// Standard error.
    pub err: String,
}

impl Finished {
    /// Refuses what no command may ever do, whatever its input.
    #[must_use]
    pub fn orderly(self) -> Self {
        assert!(self.code.is_some(), "ended by a signal: {self:?}");
        assert!(!self.err.contains("panicked at"), "panicked: {self:?}");
        assert_ne!(self.code, Some(101), "panicked: {self:?}");
        self
    }
}

/// Runs a command to its end.
pub fn run(command: &mut Command) -> Finished {
    finished(command.output().expect("the command can be run"))
}

/// The same with a text on standard input, which a command that is refused may leave unread.
pub fn run_with(command: &mut Command, input: &str) -> Finished {
    let pipes = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = pipes.spawn().expect("the command can be run");
    let told = child.stdin.take().expect("a pipe").write_all(input.as_bytes());
    assert!(told.as_ref().err().is_none_or(|e| e.kind() == ErrorKind::BrokenPipe), "{told:?}");
    finished(child.wait_with_output().expect("the command ends"))
}

fn finished(output: Output) -> Finished {
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("output is UTF-8");
    Finished { code: output.status.code(), out: text(output.stdout), err: text(output.stderr) }
        .orderly()
}

/// Runs `omex` in a folder.
pub fn run_in(folder: &Path, args: &[&str]) -> Finished {
    run(omex(args).current_dir(folder))
}

/// The one JSON object that a successful command printed.
#[must_use]
pub fn json_of(finished: &Finished) -> Value {
    assert_eq!(finished.code, Some(0), "{finished:?}");
    assert_eq!(finished.out.lines().count(), 1, "one line: {}", finished.out);
    let value: Value = serde_json::from_str(&finished.out).expect("JSON on standard output");
    assert!(value.is_object(), "{value}");
    value
}
