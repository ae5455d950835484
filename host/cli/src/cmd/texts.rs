//! Files of many texts.

use crate::{output, standard_input};
use omex::session::{SessionOptions, Tables};
use omex::tokenizer::TEXT_BYTES;
use omex::{Error, Result, input};
use serde::Deserialize;
use std::path::{Path, PathBuf};

/// A line of a file of objects.
#[derive(Deserialize)]
#[serde(untagged)]
enum Line {
    Text(String),
    Object { text: String },
}

/// Where texts come from that are not given as they are: shared by the commands that take many.
#[derive(clap::Args, Clone, Debug)]
pub(super) struct DataArgs {
    /// A text a line, which may be blank, but for blank lines at the end; of a file that ends in .jsonl, a
    /// string or an object with "text" a line; - reads standard input
    #[arg(long, value_name = "FILE")]
    data: Option<PathBuf>,
    /// Take the lines of --data for JSON, whatever its name ends in
    #[arg(long, requires = "data")]
    jsonl: bool,
}

impl DataArgs {
    /// The texts that a command is given, in a file of `most` bytes at most or as they are; `what` they are
    /// called.
    pub(super) fn or(&self, texts: &[String], what: &str, most: u64) -> Result<Vec<String>> {
        match &self.data {
            Some(file) => self.read(file, most.min(input::MAX_TEXT_BYTES)),
            None if texts.is_empty() => {
                Err(Error::Usage(format!("no {what}: give some, or a file with --data")))
            }
            None => Ok(texts.to_vec()),
        }
    }

    /// A text of each line, so that their numbers are those of lines.
    fn read(&self, file: &Path, most: u64) -> Result<Vec<String>> {
        let (file, text) = match file == Path::new("-") {
            true => (Path::new("standard input"), standard_input::read(most)?),
            false => (file, input::read_text(file, most)?),
        };
        let mut lines: Vec<_> = text.lines().collect();
        let end = lines.iter().rposition(|line| !line.trim().is_empty());
        lines.truncate(end.map_or(0, |last| last + 1));
        if self.jsonl || file.extension().is_some_and(|extension| extension == "jsonl") {
            let parsed =
                lines.iter().enumerate().map(|(place, line)| parsed(file, place + 1, line));
            return parsed.collect();
        }
        if lines.first().is_some_and(|line| is_object(line)) {
            output::note(
                "note: lines are taken as they are: --jsonl takes the text of each object",
            );
        }
        Ok(lines.into_iter().map(str::to_owned).collect())
    }
}

/// The text of a line in JSON.
fn parsed(file: &Path, number: usize, line: &str) -> Result<String> {
    match serde_json::from_str(line) {
        Ok(Line::Text(text) | Line::Object { text }) => Ok(text),
        Err(_) => Err(Error::malformed(
            file,
            format!("line {number}"),
            line,
            "a JSON string, or an object with \"text\"",
            "correct the line",
        )),
    }
}

fn is_object(line: &str) -> bool {
    matches!(serde_json::from_str(line), Ok(Line::Object { .. }))
}

/// Room that a budget leaves to texts and their tokens, while they come.
pub(super) struct Room {
    /// Bytes that all else needs.
    least: u64,
    given: Option<u64>,
    taken: u64,
}

impl Room {
    /// With these options, for one text at a time.
    pub(super) fn new(tables: &Tables, options: &SessionOptions) -> Result<Self> {
        let tight = SessionOptions { memory: Some(1), texts: 0, ..options.clone() };
        let least = match tables.plan(&tight) {
            Err(Error::Budget { needed, .. }) => needed,
            plan => plan?.total,
        };
        Ok(Self { least, given: options.memory, taken: 0 })
    }

    /// Takes some for `done` of all texts, as [`held`] counts them.
    ///
    /// # Errors
    /// There is less than that: other texts need not be looked at.
    pub(super) fn take(&mut self, bytes: u64, [done, all]: [usize; 2]) -> Result<()> {
        self.taken += bytes;
        let needed = self.least.saturating_add(self.taken.saturating_sub(TEXT_BYTES));
        match self.given {
            Some(given) if given < self.least => Err(Error::Budget { needed: self.least, given }),
            Some(given) if given < needed => Err(Error::Texts { done, all, needed, given }),
            _ => Ok(()),
        }
    }
}

/// Bytes that an allocation takes besides what lies in it, and where it is noted.
const ALLOCATION: usize = 48;

/// Bytes that texts take with their tokens, and with `each` more for every token.
pub(super) fn held(texts: &[String], tokens: &[Vec<u32>], each: usize) -> u64 {
    // While they are read, there are lines and the file.
    let of_text = |text: &String| 2 * text.len() + ALLOCATION;
    let of_tokens =
        |ids: &Vec<u32>| ids.capacity() * size_of::<u32>() + ids.len() * each + ALLOCATION;
    let bytes =
        texts.iter().map(of_text).sum::<usize>() + tokens.iter().map(of_tokens).sum::<usize>();
    bytes as u64
}

/// The same, besides those that every plan has.
pub(super) fn planned(texts: &[String], tokens: &[Vec<u32>], each: usize) -> u64 {
    held(texts, tokens, each).saturating_sub(TEXT_BYTES)
}
