//! Files of many texts.

use omex::{Error, Result, input};
use serde::Deserialize;
use std::path::Path;

/// A line of a file of objects.
#[derive(Deserialize)]
#[serde(untagged)]
enum Line {
    Text(String),
    Object { text: String },
}

/// The texts that a command is given, in a file or as they are; `what` they are called.
pub(super) fn given(data: Option<&Path>, texts: &[String], what: &str) -> Result<Vec<String>> {
    match data {
        Some(file) => read(file),
        None if texts.is_empty() => {
            Err(Error::Usage(format!("no {what}: give some, or a file with --data")))
        }
        None => Ok(texts.to_vec()),
    }
}

/// The texts in a file: a line each, or in one that ends in .jsonl a string or an object each; `-` is
/// standard input.
fn read(file: &Path) -> Result<Vec<String>> {
    let text = if file == Path::new("-") {
        input::read_text_from(std::io::stdin().lock(), "standard input", input::MAX_TEXT_BYTES)?
    } else {
        input::read_text(file, input::MAX_TEXT_BYTES)?
    };
    let lines = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
    if file.extension().is_none_or(|extension| extension != "jsonl") {
        return Ok(lines.map(|(_, line)| line.to_owned()).collect());
    }
    let parse = |(number, line): (usize, &str)| match serde_json::from_str(line) {
        Ok(Line::Text(text) | Line::Object { text }) => Ok(text),
        Err(_) => Err(Error::malformed(
            file,
            format!("line {}", number + 1),
            line,
            "a JSON string, or an object with \"text\"",
            "correct the line",
        )),
    };
    lines.map(parse).collect()
}
