//! The output of a batch, which is its journal too: a header, then a line for each line of prompts
//! that is done. What was written stays, so a batch that was cut off goes on behind it.

use super::active::Finish;
use crate::durable::{create_beside, link, persist, persist_new};
use crate::{Error, Result};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::fs::{File, OpenOptions, TryLockError};
use std::io::{BufRead, BufReader, BufWriter, ErrorKind, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// What every output begins with.
const MAGIC: &[u8] = b"{\"omex_batch\":";

/// No line of an output is as long: it would hold a text of millions of tokens.
const MAX_RECORD_BYTES: u64 = 64 << 20;

/// What an output depends on, besides the lines of prompts.
#[derive(Clone, Debug, Serialize)]
pub(super) struct JournalHeader {
    pub(super) omex_batch: u32,
    pub(super) model_crc32c: u32,
    pub(super) settings: Value,
}

/// What came of a line of prompts.
#[derive(Serialize)]
pub(super) struct Record<'r> {
    pub(super) line: u64,
    /// Of the line of prompts: a line that was changed since is done again.
    pub(super) prompt_crc32c: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) id: Option<Value>,
    #[serde(flatten)]
    pub(super) outcome: Outcome<'r>,
}

#[derive(Serialize)]
#[serde(untagged)]
pub(super) enum Outcome<'r> {
    Answer {
        text: String,
        ids: &'r [u32],
        finish: Finish,
        #[serde(flatten)]
        forgotten: Forgotten,
    },
    Failure {
        error: &'r str,
    },
}

/// Tokens that were out of the context: of the prompt when the text went on, and in the end.
#[derive(Clone, Copy, Serialize)]
pub(super) struct Forgotten {
    #[serde(rename = "forgotten_prompt_tokens", skip_serializing_if = "is_zero")]
    pub(super) prompt: usize,
    #[serde(rename = "forgotten_tokens", skip_serializing_if = "is_zero")]
    pub(super) all: usize,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
fn is_zero(count: &usize) -> bool {
    *count == 0
}

/// What is read again of a record.
#[derive(Deserialize)]
struct Kept {
    line: u64,
    prompt_crc32c: u32,
    error: Option<serde::de::IgnoredAny>,
}

/// An output file, open to append to.
pub struct Journal {
    path: PathBuf,
    file: File,
    /// Whether each line of prompts is done.
    done: Vec<bool>,
    failures: usize,
    outdated: usize,
}

impl Journal {
    /// Opens an output for lines of prompts with these checksums, or makes it; `restart` makes it
    /// anew.
    pub(super) fn open(
        path: &Path,
        header: &JournalHeader,
        prompts: &[u32],
        restart: bool,
    ) -> Result<Self> {
        let failed = |error| Error::io(path, "open", error);
        if path.is_symlink() {
            return Err(link(path));
        }
        // Without waiting for a reader, should the name be a pipe's.
        let mut existing = OpenOptions::new();
        existing.read(true).write(true).custom_flags(libc::O_NONBLOCK);
        let file = match existing.open(path) {
            Ok(file) => Some(file),
            Err(error) if error.kind() == ErrorKind::NotFound => None,
            Err(error) => return Err(failed(error)),
        };
        let mut header = serde_json::to_string(header).map_err(|e| failed(e.into()))?;
        header.push('\n');
        let done = vec![false; prompts.len()];
        let journal = |file| Self { path: path.to_owned(), file, done, failures: 0, outdated: 0 };
        let Some(mut file) = file else { return Ok(journal(create(path, &header)?)) };
        lock(&file, path)?;
        if is_replaceable(&mut file, path, restart)? {
            std::fs::remove_file(path).map_err(|e| Error::io(path, "remove", e))?;
            return Ok(journal(create(path, &header)?));
        }
        let mut journal = journal(file);
        journal.resume(&header, prompts)?;
        Ok(journal)
    }

    /// True if a line of prompts, counted from 1, is done.
    pub(super) fn has(&self, line: u64) -> bool {
        self.place(line).is_some_and(|place| self.done[place])
    }

    /// How many lines are done.
    pub(super) fn count(&self) -> u64 {
        self.done.iter().filter(|done| **done).count() as u64
    }

    /// Lines of prompts that could not be run.
    #[must_use]
    pub fn failures(&self) -> usize {
        self.failures
    }

    /// Lines of prompts that were changed since they were done, or are gone.
    #[must_use]
    pub fn outdated(&self) -> usize {
        self.outdated
    }

    /// Appends a record; it is durable after [`Self::sync`].
    pub(super) fn append(&mut self, record: &Record<'_>) -> Result<()> {
        let failed = |error| Error::io(&self.path, "write", error);
        let mut line = serde_json::to_vec(record).map_err(|e| failed(e.into()))?;
        line.push(b'\n');
        self.file.write_all(&line).map_err(failed)?;
        self.failures += usize::from(matches!(record.outcome, Outcome::Failure { .. }));
        self.note(record.line);
        Ok(())
    }

    /// Waits until all records are on the disk.
    pub(super) fn sync(&mut self) -> Result<()> {
        self.file.sync_data().map_err(|e| Error::io(&self.path, "write", e))
    }

    fn place(&self, line: u64) -> Option<usize> {
        let place = usize::try_from(line.checked_sub(1)?).ok()?;
        (place < self.done.len()).then_some(place)
    }

    /// Notes that a line is done; false if there is no such line, or it was done already.
    fn note(&mut self, line: u64) -> bool {
        self.place(line).is_some_and(|place| !std::mem::replace(&mut self.done[place], true))
    }

    /// Reads what is done, and drops a last line that was cut off, and what lines of prompts led to
    /// that are not what they were.
    fn resume(&mut self, header: &str, prompts: &[u32]) -> Result<()> {
        let mut lines = Lines::new(&self.path, &self.file)?;
        let (mut seen, mut answers) = (self.done.clone(), [0, 0]);
        while lines.advance()? {
            if lines.number == 1 {
                compare_headers(&self.path, header, &lines.line)?;
                continue;
            }
            let new = |kept: &Kept| match kept.place(prompts) {
                Some(place) => !std::mem::replace(&mut seen[place], true),
                None => kept.line > 0,
            };
            let Some(kept) = Kept::read(&lines.line).filter(new) else {
                let found = String::from_utf8_lossy(lines.line.trim_ascii_end());
                let expected = "the output for a line of prompts, once";
                return Err(refusal(&self.path, format!("line {}", lines.number), found, expected));
            };
            let (fails, place) = (kept.error.is_some(), kept.current_place(prompts));
            answers[usize::from(place.is_some())] += usize::from(!fails);
            match place {
                Some(place) => {
                    (self.done[place], self.failures) = (true, self.failures + usize::from(fails));
                }
                None => self.outdated += 1,
            }
        }
        if lines.number == 0 {
            let found = String::from_utf8_lossy(&lines.line);
            return Err(refusal(&self.path, "line 1", found, "the header of a batch"));
        }
        // Where nothing is as it was, these are hardly the same prompts, corrected.
        if answers[0] > 0 && answers[1] == 0 {
            let expected = "some line of the prompts as it was when it was done";
            return Err(refusal(&self.path, "prompt_crc32c", "other prompts", expected));
        }
        let end = lines.end;
        self.file.set_len(end).map_err(|e| Error::io(&self.path, "shorten", e))?;
        if self.outdated > 0 {
            return self.rewrite(prompts);
        }
        let at_end = self.file.seek(SeekFrom::End(0));
        at_end.map(|_| ()).map_err(|e| Error::io(&self.path, "read", e))
    }

    /// Writes the output anew, without what lines of prompts led to that are not what they were.
    fn rewrite(&mut self, prompts: &[u32]) -> Result<()> {
        let failed = |error| Error::io(&self.path, "write", error);
        let mut new = create_beside(&self.path)?;
        lock(new.as_file(), &self.path)?;
        let mut lines = Lines::new(&self.path, &self.file)?;
        let mut writer = BufWriter::new(new.as_file_mut());
        while lines.advance()? {
            let current = |kept: Kept| kept.current_place(prompts).is_some();
            if lines.number == 1 || Kept::read(&lines.line).is_some_and(current) {
                writer.write_all(&lines.line).map_err(failed)?;
            }
        }
        writer.flush().map_err(failed)?;
        drop(writer);
        // The same lock holds for both.
        let file = new.as_file().try_clone().map_err(failed)?;
        persist(new, &self.path)?;
        self.file = file;
        Ok(())
    }
}

impl Kept {
    fn read(line: &[u8]) -> Option<Self> {
        serde_json::from_slice(line).ok()
    }

    /// Where the line of prompts is among all of them, if it is there still.
    fn place(&self, prompts: &[u32]) -> Option<usize> {
        usize::try_from(self.line.checked_sub(1)?).ok().filter(|place| *place < prompts.len())
    }

    /// As [`Self::place`], if the line is what it was.
    fn current_place(&self, prompts: &[u32]) -> Option<usize> {
        self.place(prompts).filter(|place| prompts[*place] == self.prompt_crc32c)
    }
}

/// The whole lines of an output.
struct Lines<'o> {
    path: &'o Path,
    reader: BufReader<File>,
    line: Vec<u8>,
    /// Of the last one, counted from 1.
    number: u64,
    /// Where it ends.
    end: u64,
}

impl<'o> Lines<'o> {
    fn new(path: &'o Path, file: &File) -> Result<Self> {
        let failed = |error| Error::io(path, "read", error);
        let mut reader = BufReader::new(file.try_clone().map_err(failed)?);
        reader.rewind().map_err(failed)?;
        Ok(Self { path, reader, line: vec![], number: 0, end: 0 })
    }

    /// Goes to the next line; false behind the last one, or where that is cut off.
    fn advance(&mut self) -> Result<bool> {
        self.line.clear();
        let read = (&mut self.reader).take(MAX_RECORD_BYTES).read_until(b'\n', &mut self.line);
        if read.map_err(|e| Error::io(self.path, "read", e))? as u64 == MAX_RECORD_BYTES {
            let field = format!("line {}", self.number + 1);
            let expected = format!("fewer than {MAX_RECORD_BYTES} bytes");
            return Err(refusal(self.path, field, "a longer line", &expected));
        }
        if self.line.last() != Some(&b'\n') {
            return Ok(false);
        }
        (self.number, self.end) = (self.number + 1, self.end + self.line.len() as u64);
        Ok(true)
    }
}

/// A new output that holds the header; it appears whole.
fn create(path: &Path, header: &str) -> Result<File> {
    let failed = |error| Error::io(path, "create", error);
    let mut new = create_beside(path)?;
    lock(new.as_file(), path)?;
    new.write_all(header.as_bytes()).map_err(failed)?;
    persist_new(new, path)
}

/// Keeps other batches out. Where a file system has no locks, nothing does.
fn lock(file: &File, path: &Path) -> Result<()> {
    match file.try_lock() {
        Err(TryLockError::WouldBlock) => Err(Error::Usage(format!(
            "{}: another omex batch is writing to it: wait for its end, or write to another file \
             with -o",
            path.display()
        ))),
        _ => Ok(()),
    }
}

/// True for an empty file, and where a restart was asked for, an output.
fn is_replaceable(file: &mut File, path: &Path, restart: bool) -> Result<bool> {
    let failed = |error| Error::io(path, "read", error);
    if !file.metadata().map_err(failed)?.is_file() {
        return Err(Error::Usage(format!(
            "{}: found no regular file: give another -o",
            path.display()
        )));
    }
    let mut start = vec![];
    file.take(MAGIC.len() as u64).read_to_end(&mut start).map_err(failed)?;
    file.rewind().map_err(failed)?;
    if !start.is_empty() && start != MAGIC {
        return Err(Error::malformed(
            path,
            "line 1",
            String::from_utf8_lossy(&start),
            "the header of a batch",
            "write to another file with -o",
        ));
    }
    Ok(start.is_empty() || restart)
}

/// Refuses an output that belongs to other prompts, another model, or other settings.
fn compare_headers(path: &Path, expected: &str, found: &[u8]) -> Result<()> {
    if expected.as_bytes() == found {
        return Ok(());
    }
    let expected = serde_json::from_str(expected).unwrap_or_default();
    let found = serde_json::from_slice(found).unwrap_or_default();
    let (field, expected, found) = difference(&expected, &found);
    let field = format!("line 1, {field}");
    Err(refusal(path, field, found.to_string(), &format!("{expected} as asked for now")))
}

/// The first field that differs, and its values.
fn difference<'v>(expected: &'v Value, found: &'v Value) -> (String, &'v Value, &'v Value) {
    let fields = expected.as_object().into_iter().flatten();
    let mut differing = fields.filter(|(name, value)| **value != found[name.as_str()]);
    match differing.next() {
        None => ("header".to_owned(), expected, found),
        Some((name, value)) if value.is_object() => {
            let (field, expected, found) = difference(value, &found[name.as_str()]);
            (format!("{name}.{field}"), expected, found)
        }
        Some((name, value)) => (name.clone(), value, &found[name.as_str()]),
    }
}

fn refusal(
    path: &Path,
    field: impl Into<String>,
    found: impl Into<String>,
    expected: &str,
) -> Error {
    let remedy = "write to another file with -o, or begin anew with --restart";
    Error::malformed(path, field, found, expected, remedy)
}
