//! A text under way, kept in a file between runs; `docs/format-session.md` draws the file.
//!
//! It holds all tokens of the text, and the keys and values of all but the last one: that one is
//! run when the text goes on, whatever follows it.

use crate::durable::{create_beside, persist, persist_new};
use crate::plan::Kv;
use crate::session::Session;
use crate::{Error, Result, dispatch, input};
use omex_core::engine::Engine;
use omex_core::error::RunError;
use omex_core::state::kv::KvFormat;
use std::fs::{File, TryLockError};
use std::io::{BufRead, BufReader, BufWriter, ErrorKind, Read, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// How a file begins.
const MAGIC: [u8; 8] = *b"OMEXSES\0";
const VERSION: u32 = 2;
const HEADER_BYTES: usize = 64;
/// The longest text, in tokens.
const MAX_TOKENS: u32 = 1 << 24;
/// The header's numbers behind the magic: those that must be as the model and its plan say.
const FIELDS: [&str; 9] = [
    "version",
    "program",
    "weights",
    "KV format",
    "positions",
    "sinks",
    "states",
    "bytes of states, low half",
    "bytes of states, high half",
];

/// A text under way, of one model, and the file that keeps it.
pub struct SavedSession {
    path: PathBuf,
    crc32c: fn(u32, &[u8]) -> u32,
    /// What the header must say.
    expected: [u32; FIELDS.len()],
    tokens: Vec<u32>,
    seed: u64,
    /// The file from its keys and values on.
    rest: Option<BufReader<File>>,
    /// The file that was there when this was opened, locked against other runs.
    locked: Option<File>,
    failed: Box<dyn Fn(RunError) -> Error>,
}

impl SavedSession {
    /// Reads the tokens of a file for a model that is open. A file that does not exist is a text
    /// without tokens.
    ///
    /// # Errors
    /// A file of another model or plan, one that is damaged, or a folder that can't be written to.
    pub fn open(path: &Path, model: &Session) -> Result<Self> {
        let crc32c = dispatch::kernels()?.crc32c;
        let expected = fields(model, crc32c)?;
        let path = path.to_owned();
        let failed = Box::new(model.failure());
        let (tokens, rest, locked) = (vec![], None, None);
        let mut saved = Self { path, crc32c, expected, tokens, seed: 0, rest, locked, failed };
        // What can't be written in the end is better known before the text is made.
        drop(create_beside(&saved.path)?);
        if saved.path.symlink_metadata().is_ok() {
            let file = open_locked(&saved.path)?;
            saved.locked = Some(file.try_clone().map_err(|e| Error::io(&saved.path, "read", e))?);
            saved.read(file, model.program()?.header().vocab_size)?;
        }
        Ok(saved)
    }

    /// The tokens of the text.
    #[must_use]
    pub fn tokens(&self) -> &[u32] {
        &self.tokens
    }

    /// The seed of the random numbers that the text goes on with; `None` if there is no text yet.
    #[must_use]
    pub fn seed(&self) -> Option<u64> {
        (!self.tokens.is_empty()).then_some(self.seed)
    }

    fn read(&mut self, file: File, vocabulary: u32) -> Result<()> {
        let length = file.metadata().map_err(|e| Error::io(&self.path, "read", e))?.len();
        let mut file = BufReader::new(file);
        let mut header = [0; HEADER_BYTES];
        self.fill(&mut file, &mut header)?;
        let (count, seed) = self.check_header(&header)?;
        let least = (HEADER_BYTES + 8) as u64 + 4 * u64::from(count);
        if length < least {
            let expected = format!("{least} bytes at least");
            return Err(self.damaged("length", format!("{length} bytes"), expected));
        }
        let mut bytes = vec![0; 4 * count as usize];
        self.fill(&mut file, &mut bytes)?;
        self.check_crc32c("tokens", (self.crc32c)(0, &bytes), &mut file)?;
        self.tokens = bytes.as_chunks().0.iter().map(|token| u32::from_le_bytes(*token)).collect();
        if let Some(token) = self.tokens.iter().find(|token| **token >= vocabulary) {
            let expected = format!("tokens below {vocabulary}");
            return Err(self.damaged("tokens", token.to_string(), expected));
        }
        (self.seed, self.rest) = (seed, Some(file));
        Ok(())
    }

    /// Checks a header, and returns the number of tokens and the seed.
    fn check_header(&self, header: &[u8; HEADER_BYTES]) -> Result<(u32, u64)> {
        let (magic, numbers) = header.split_at(MAGIC.len());
        if magic != MAGIC {
            return Err(self.damaged("magic", format!("{magic:02x?}"), format!("{MAGIC:02x?}")));
        }
        let numbers = numbers.as_chunks().0.iter().map(|number| u32::from_le_bytes(*number));
        let numbers: Vec<_> = numbers.collect();
        let same = |(field, (found, expected))| self.check_field(field, found, expected);
        let pairs = numbers.iter().copied().zip(self.expected);
        // Of another version, nothing behind it is known, its checksum included.
        FIELDS.into_iter().zip(pairs.clone()).take(1).try_for_each(same)?;
        let covered = &header[..HEADER_BYTES - 4];
        let (found, expected) = ((self.crc32c)(0, covered), numbers[numbers.len() - 1]);
        if found != expected {
            return Err(self.bad_crc32c("header", found, expected));
        }
        FIELDS.into_iter().zip(pairs).try_for_each(same)?;
        let [count, low, high] = [9, 10, 11].map(|place| numbers[place]);
        if !(1..=MAX_TOKENS).contains(&count) {
            return Err(self.damaged("tokens", count.to_string(), format!("1 to {MAX_TOKENS}")));
        }
        Ok((count, u64::from(high) << 32 | u64::from(low)))
    }

    fn check_field(&self, field: &str, found: u32, expected: u32) -> Result<()> {
        if found == expected {
            return Ok(());
        }
        let kv = |number| KvFormat::from_number(number).map(|format| Kv::from(format).to_string());
        let show = |number: u32| match field {
            "program" | "weights" => format!("CRC-32C {number:08x}"),
            "KV format" => kv(number).unwrap_or_else(|| format!("format {number}")),
            _ => number.to_string(),
        };
        let remedy = match field {
            "version" => "use the version of omex that wrote it".to_owned(),
            "KV format" => format!("add --kv {}", show(found)),
            "positions" => format!("add --context {found}"),
            _ => "name the model that the session was begun with".to_owned(),
        };
        let remedy = format!("{remedy}, or begin another session in another file");
        Err(Error::malformed(&self.path, field, show(found), show(expected), remedy))
    }

    /// Fills an engine's KV caches with those of the file, and sets it behind all tokens but the
    /// last one. Does nothing if there is no text yet.
    ///
    /// # Errors
    /// A file that is damaged, or keys and values that can't be put on storage.
    pub fn restore(&mut self, engine: &mut Engine<'_>) -> Result<()> {
        let Some(mut file) = self.rest.take() else { return Ok(()) };
        let held = self.tokens.len() as u32 - 1;
        let mut crc = 0;
        let filled = engine.fill_states(held, |bytes| {
            self.fill(&mut file, bytes)?;
            crc = (self.crc32c)(crc, bytes);
            Ok::<_, Error>(())
        });
        filled.map_err(&self.failed)??;
        self.check_crc32c("keys and values", crc, &mut file)?;
        if !file.fill_buf().map_err(|e| Error::io(&self.path, "read", e))?.is_empty() {
            return Err(self.damaged("length", "more bytes", "an end behind keys and values"));
        }
        engine.resume(held).map_err(&self.failed)
    }

    /// Writes a text, the keys and values that an engine holds of it, and the seed of the random
    /// numbers that it goes on with; the file is the old one until all is written.
    ///
    /// # Errors
    /// The operating system's, or keys and values that can't be had from storage.
    pub fn save(&self, engine: &mut Engine<'_>, tokens: &[u32], seed: u64) -> Result<()> {
        let mut file = create_beside(&self.path)?;
        self.write(file.as_file_mut(), engine, tokens, seed)?;
        match self.locked {
            Some(_) => persist(file, &self.path),
            // Without a file there was nothing to lock: another run may have made one.
            None => persist_new(file, &self.path).map(drop).map_err(|error| match error {
                Error::Io { source, .. } if source.kind() == ErrorKind::AlreadyExists => {
                    taken(&self.path, "saved its text here meanwhile", "name another file")
                }
                error => error,
            }),
        }
    }

    fn write(
        &self,
        file: &mut File,
        engine: &mut Engine<'_>,
        tokens: &[u32],
        seed: u64,
    ) -> Result<()> {
        let mut file = BufWriter::new(file);
        let tokens: Vec<u8> = tokens.iter().flat_map(|token| token.to_le_bytes()).collect();
        let count = (tokens.len() / 4) as u32;
        let header = header(&self.expected, count, seed, self.crc32c);
        let crc = (self.crc32c)(0, &tokens).to_le_bytes();
        let failed = |error| self.not_written(error);
        file.write_all(&[&header[..], &tokens, &crc].concat()).map_err(failed)?;
        let mut crc = 0;
        let written = engine.visit_states(count.saturating_sub(1), |bytes| {
            crc = (self.crc32c)(crc, bytes);
            file.write_all(bytes)
        });
        written.map_err(&self.failed)?.map_err(failed)?;
        file.write_all(&crc.to_le_bytes()).and_then(|()| file.flush()).map_err(failed)
    }

    fn not_written(&self, error: std::io::Error) -> Error {
        Error::io(&self.path, "write", error)
    }

    fn fill(&self, file: &mut impl Read, bytes: &mut [u8]) -> Result<()> {
        file.read_exact(bytes).map_err(|error| match error.kind() {
            ErrorKind::UnexpectedEof => self.damaged("length", "too few bytes", "a whole session"),
            _ => Error::io(&self.path, "read", error),
        })
    }

    /// Compares a checksum with the file's next four bytes.
    fn check_crc32c(&self, part: &str, found: u32, file: &mut impl Read) -> Result<()> {
        let mut expected = [0; 4];
        self.fill(file, &mut expected)?;
        let expected = u32::from_le_bytes(expected);
        if found == expected { Ok(()) } else { Err(self.bad_crc32c(part, found, expected)) }
    }

    fn bad_crc32c(&self, part: &str, found: u32, expected: u32) -> Error {
        let part = format!("{part}: CRC-32C");
        self.damaged(&part, format!("{found:08x}"), format!("{expected:08x}"))
    }

    fn damaged(&self, field: &str, found: impl Into<String>, expected: impl Into<String>) -> Error {
        let remedy = "the file is damaged: copy it again, or delete it to begin a new session";
        Error::malformed(&self.path, field, found, expected, remedy)
    }
}

/// How long a run that ends may still hold its file. A process that another thread starts has it too
/// for a moment.
const ENDING: Duration = Duration::from_secs(2);

/// Opens a file that no other run goes on with.
fn open_locked(path: &Path) -> Result<File> {
    let start = Instant::now();
    loop {
        let file = input::open(path)?;
        // Where a file system has no locks, nothing keeps other runs out.
        if let Err(TryLockError::WouldBlock) = file.try_lock() {
            if start.elapsed() < ENDING {
                std::thread::sleep(ENDING / 100);
                continue;
            }
            let remedy = "wait for its end, or name another file";
            return Err(taken(path, "goes on with this session", remedy));
        }
        // The other run may have ended, and put a longer text in place, since this one was opened.
        let identity =
            |found: std::io::Result<std::fs::Metadata>| found.ok().map(|m| (m.dev(), m.ino()));
        if identity(file.metadata()) == identity(path.metadata()) {
            return Ok(file);
        }
    }
}

fn taken(path: &Path, how: &str, remedy: &str) -> Error {
    Error::Usage(format!("{}: another omex run {how}: {remedy}", path.display()))
}

/// What a file for this model says.
fn fields(model: &Session, crc32c: fn(u32, &[u8]) -> u32) -> Result<[u32; FIELDS.len()]> {
    let program = model.program()?;
    let plan = model.plan().plan;
    let [code, weights] = model.checksums(crc32c);
    let bytes: u64 = program.states().map(|state| plan.state_bytes(&state)).sum();
    let (states, format) = (program.header().states.into(), plan.kv_format as u32);
    let (low, high) = (bytes as u32, (bytes >> 32) as u32);
    let (positions, sinks) = (plan.kv_capacity, plan.kv_sinks);
    Ok([VERSION, code, weights, format, positions, sinks, states, low, high])
}

fn header(
    fields: &[u32; FIELDS.len()],
    tokens: u32,
    seed: u64,
    crc32c: fn(u32, &[u8]) -> u32,
) -> [u8; HEADER_BYTES] {
    let mut bytes = MAGIC.to_vec();
    fields.iter().chain([&tokens]).for_each(|number| bytes.extend(number.to_le_bytes()));
    bytes.extend(seed.to_le_bytes());
    bytes.resize(HEADER_BYTES - 4, 0);
    bytes.extend(crc32c(0, &bytes).to_le_bytes());
    let mut header = [0; HEADER_BYTES];
    header.copy_from_slice(&bytes);
    header
}

#[cfg(test)]
mod tests {
    use super::*;

    const DOCUMENT: &str = include_str!("../../docs/format-session.md");

    #[test]
    fn the_header_is_as_documented() {
        let numbers = std::array::from_fn(|i| 0x1234_5601 + i as u32);
        let bytes = header(&numbers, 0x1234_5677, 0x1122_3344_5566_7788, |_, _| 0x99aa_bbcc);
        let row = |number: &[u8], field: &str| {
            let place = bytes.windows(number.len()).position(|w| w == number).unwrap();
            let row = format!("\n| {place} | {} | {field}", number.len());
            assert!(DOCUMENT.contains(&row), "the page does not say: {row}");
        };
        row(&MAGIC, "magic, `OMEXSES` and a zero byte");
        for (field, number) in FIELDS.iter().zip(numbers) {
            row(&number.to_le_bytes(), field);
        }
        row(&0x1234_5677_u32.to_le_bytes(), "tokens");
        row(&0x1122_3344_5566_7788_u64.to_le_bytes(), "seed");
        row(&0x99aa_bbcc_u32.to_le_bytes(), "CRC-32C of the 60 bytes before");
        assert!(DOCUMENT.contains(&format!("version, {VERSION}")));
    }
}
