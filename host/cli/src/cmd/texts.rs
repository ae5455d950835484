//! Files of many texts.

use omex::tokenizer::TEXT_BYTES;
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

/// The texts that a command is given, in a file of `most` bytes at most or as they are; `what` they are called.
pub(super) fn given(
    data: Option<&Path>,
    texts: &[String],
    what: &str,
    most: u64,
) -> Result<Vec<String>> {
    match data {
        Some(file) => read(file, most.min(input::MAX_TEXT_BYTES)),
        None if texts.is_empty() => {
            Err(Error::Usage(format!("no {what}: give some, or a file with --data")))
        }
        None => Ok(texts.to_vec()),
    }
}

/// The texts in a file: a line each, or in one that ends in .jsonl a string or an object each; `-` is
/// standard input.
fn read(file: &Path, most: u64) -> Result<Vec<String>> {
    let text = if file == Path::new("-") {
        input::read_text_from(std::io::stdin().lock(), "standard input", most)?
    } else {
        input::read_text(file, most)?
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

/// Bytes that an allocation takes besides what lies in it, and where it is noted.
const ALLOCATION: usize = 48;

/// Bytes that texts take with their tokens, and with `each` more for every token, besides those that every plan has.
pub(super) fn held(texts: &[String], tokens: &[Vec<u32>], each: usize) -> u64 {
    // While they are read, there are lines and the file.
    let of_text = |text: &String| 2 * text.len() + ALLOCATION;
    let of_tokens =
        |ids: &Vec<u32>| ids.capacity() * size_of::<u32>() + ids.len() * each + ALLOCATION;
    let bytes =
        texts.iter().map(of_text).sum::<usize>() + tokens.iter().map(of_tokens).sum::<usize>();
    (bytes as u64).saturating_sub(TEXT_BYTES)
}
