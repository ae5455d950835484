//! What goes to standard output, and what to standard error.

use omex::{Error, Result};
use serde::Serialize;
use std::io::{BufWriter, IsTerminal, Write};
use std::path::Path;

/// Writes text to standard output at once, so that it streams.
pub(crate) fn text(text: &str) -> Result<()> {
    let mut out = std::io::stdout().lock();
    out.write_all(text.as_bytes()).and_then(|()| out.flush()).map_err(output_error)
}

/// Writes one JSON object to standard output: piece by piece, as it may be as long as a text.
pub(crate) fn json(value: &impl Serialize) -> Result<()> {
    by_pieces(|out| {
        serde_json::to_writer(&mut *out, value)?;
        out.write_all(b"\n")
    })
}

/// Writes token ids to standard output, separated by commas.
pub(crate) fn ids(ids: &[u32]) -> Result<()> {
    by_pieces(|out| {
        for (index, id) in ids.iter().enumerate() {
            write!(out, "{}{id}", if index > 0 { "," } else { "" })?;
        }
        out.write_all(b"\n")
    })
}

fn by_pieces(write: impl FnOnce(&mut dyn Write) -> std::io::Result<()>) -> Result<()> {
    let mut out = BufWriter::with_capacity(PIECE, std::io::stdout().lock());
    write(&mut out).and_then(|()| out.flush()).map_err(output_error)
}

/// Bytes that are written at once of what may be long.
const PIECE: usize = 64 << 10;

fn output_error(source: std::io::Error) -> Error {
    Error::io(Path::new("standard output"), "write", source)
}

/// Writes a message to standard error. What can't be written is lost: work does not depend on it.
pub(crate) fn note(message: &str) {
    let _ = writeln!(std::io::stderr(), "{message}");
}

/// Writes an error to standard error, red on a terminal.
pub(crate) fn error(error: &Error) {
    if std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none() {
        note(&format!("\x1b[31merror:\x1b[0m {error}"));
    } else {
        note(&format!("error: {error}"));
    }
}

/// Writes an error to standard output as a JSON object, for programs.
pub(crate) fn json_error(kind: &str, message: &str) {
    let error = serde_json::json!({ "error": { "kind": kind, "message": message } });
    // Whoever closed standard output reads the exit code.
    let _ = json(&error);
}

/// Shows on a bar what is done and how much there is in all.
pub(crate) fn advance(bar: &indicatif::ProgressBar) -> impl FnMut(u64, u64) {
    |done, all| {
        bar.set_length(all);
        bar.set_position(done);
    }
}

/// A progress bar on standard error; nothing where that is no terminal.
pub(crate) fn progress(what: &'static str, length: u64, bytes: bool) -> indicatif::ProgressBar {
    let bar = indicatif::ProgressBar::new(length);
    let template = match bytes {
        true => "{msg} {wide_bar} {bytes}/{total_bytes} {eta}",
        false => "{msg} {wide_bar} {percent}% {eta}",
    };
    if let Ok(style) = indicatif::ProgressStyle::with_template(template) {
        bar.set_style(style);
    }
    bar.with_message(what)
}
