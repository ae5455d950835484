//! What the user types, line by line, while signals may come.

use crate::output;
use omex::cancel::Cancel;
use omex::{Error, Result};
use std::io::{BufRead, IsTerminal};
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::time::Duration;

/// How long a signal may stay unseen.
const INTERVAL: Duration = Duration::from_millis(50);
/// Begins and ends a message of many lines.
const QUOTES: &str = "\"\"\"";
/// The longest line.
const MAX_LINE: u64 = 16 << 20;

/// Lines of standard input. A read is taken up again after a signal, so a thread of its own reads.
pub(super) struct Lines {
    lines: Receiver<std::io::Result<String>>,
    pub(super) terminal: bool,
    cancel: Cancel,
}

/// What was typed.
pub(super) enum Line {
    Message(String),
    /// Begins with a slash.
    Command(String),
}

impl Lines {
    pub(super) fn new(cancel: Cancel) -> Result<Self> {
        let (sender, lines) = sync_channel(1);
        let read = move || {
            let mut input = std::io::stdin().lock();
            loop {
                let mut line = vec![];
                let read = std::io::Read::take(&mut input, MAX_LINE).read_until(b'\n', &mut line);
                let line = match read {
                    Ok(0) => return,
                    Ok(_) => Ok(String::from_utf8_lossy(&line).into_owned()),
                    Err(error) => Err(error),
                };
                if sender.send(line).is_err() {
                    return;
                }
            }
        };
        let thread = std::thread::Builder::new().spawn(read);
        thread.map_err(|e| Error::io("standard input".as_ref(), "read", e))?;
        Ok(Self { lines, terminal: std::io::stdin().is_terminal(), cancel })
    }

    /// The next message or command; `None` at the end of the input.
    pub(super) fn next(&self) -> Result<Option<Line>> {
        let Some(mut text) = self.line("> ")? else { return Ok(None) };
        if let Some(begun) = text.trim_start().strip_prefix(QUOTES) {
            return self.quoted(begun.to_owned()).map(|text| Some(Line::Message(text)));
        }
        while let Some(before) = text.strip_suffix('\\') {
            let Some(next) = self.line(". ")? else {
                text.pop();
                break;
            };
            text = format!("{before}\n{next}");
        }
        let is_command = text.trim_start().starts_with('/');
        Ok(Some(if is_command { Line::Command(text) } else { Line::Message(text) }))
    }

    /// The rest of a message of many lines.
    fn quoted(&self, mut text: String) -> Result<String> {
        loop {
            if let Some(at) = text.find(QUOTES) {
                let behind = text.split_off(at);
                let behind = behind[QUOTES.len()..].trim();
                if !behind.is_empty() {
                    let message = format!(
                        "found {behind:?} behind {QUOTES}, which ends a message: leave it out"
                    );
                    return Err(Error::Usage(message));
                }
                return Ok(text.trim_matches('\n').to_owned());
            }
            let Some(next) = self.line(". ")? else { return Ok(text) };
            text = format!("{text}\n{next}");
        }
    }

    fn line(&self, mark: &str) -> Result<Option<String>> {
        self.prompt(mark)?;
        loop {
            match self.lines.recv_timeout(INTERVAL) {
                Ok(line) => {
                    let line = line.map_err(|e| Error::io("standard input".as_ref(), "read", e))?;
                    return Ok(Some(line.trim_end_matches(['\n', '\r']).to_owned()));
                }
                Err(RecvTimeoutError::Disconnected) => return Ok(None),
                Err(RecvTimeoutError::Timeout) if self.cancel.is_cancelled() => {
                    stopped_by_user(&self.cancel)?;
                    output::note("\n/quit leaves");
                    self.prompt(mark)?;
                }
                Err(RecvTimeoutError::Timeout) => {}
            }
        }
    }

    fn prompt(&self, mark: &str) -> Result<()> {
        if self.terminal { output::text(mark) } else { Ok(()) }
    }
}

/// Takes back a Ctrl-C on a terminal, which stops one thing and not the program; other signals end it.
pub(super) fn stopped_by_user(cancel: &Cancel) -> Result<()> {
    if crate::signals::exit_code() != crate::signals::CTRL_C || !std::io::stdin().is_terminal() {
        return Err(Error::Interrupted);
    }
    cancel.flag().store(false, Ordering::Relaxed);
    Ok(())
}
