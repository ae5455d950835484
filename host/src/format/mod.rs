//! What becomes of a text that a model has written, as it comes: a package's `postprocessors/NAME_formatter.json`.

mod fences;
mod plain;
mod trim;

use crate::package::{FormatterSettings, Style};
use crate::{Error, Result};
use fences::Fences;
use plain::Plain;
use serde::de::IgnoredAny;
use trim::Trim;

/// Formats a text that comes in pieces; the pieces change nothing.
pub struct Formatter {
    style: Formatting,
    trim: Option<Trim>,
}

enum Formatting {
    Text,
    Plain(Plain),
    Markdown(Fences),
    Code(Fences),
    Json(String),
}

impl Formatter {
    /// Begins a text.
    #[must_use]
    pub fn new(settings: &FormatterSettings) -> Self {
        let style = match settings.style {
            Style::Text => Formatting::Text,
            Style::Plain => Formatting::Plain(Plain::default()),
            Style::Markdown => Formatting::Markdown(Fences::default()),
            Style::Code => Formatting::Code(Fences::default()),
            Style::Json => Formatting::Json(String::new()),
        };
        Self { style, trim: settings.trim.then(Trim::default) }
    }

    /// All of a text at once.
    ///
    /// # Errors
    /// Those of [`Self::finish`].
    pub fn whole(settings: &FormatterSettings, text: &str) -> Result<String> {
        let mut formatter = Self::new(settings);
        let mut formatted = formatter.push(text);
        formatted.push_str(&formatter.finish()?);
        Ok(formatted)
    }

    /// What can be told once a piece has come.
    pub fn push(&mut self, piece: &str) -> String {
        let formatted = match &mut self.style {
            Formatting::Text => piece.to_owned(),
            Formatting::Plain(plain) => plain.push(piece),
            Formatting::Markdown(fences) => {
                fences.push(piece);
                piece.to_owned()
            }
            Formatting::Code(fences) => fences.push(piece),
            Formatting::Json(text) => {
                text.push_str(piece);
                String::new()
            }
        };
        self.trimmed(formatted)
    }

    /// The rest of the text, which has ended.
    ///
    /// # Errors
    /// No JSON in a text that is to be some.
    pub fn finish(&mut self) -> Result<String> {
        let rest = match &mut self.style {
            Formatting::Text => String::new(),
            Formatting::Plain(plain) => plain.finish(),
            Formatting::Markdown(fences) => fences.closing(),
            Formatting::Code(fences) => fences.finish(),
            Formatting::Json(text) => {
                let found = first_json(text).map(str::to_owned);
                found.ok_or(Error::NoJson { bytes: text.len() })?
            }
        };
        Ok(self.trimmed(rest))
    }

    fn trimmed(&mut self, text: String) -> String {
        match &mut self.trim {
            Some(trim) => trim.push(&text),
            None => text,
        }
    }
}

/// The first object or list in JSON of a text. What lies in one that is none is no part of its own.
fn first_json(text: &str) -> Option<&str> {
    let mut rest = text;
    while let Some(start) = rest.find(['{', '[']) {
        rest = &rest[start..];
        // Neither bounded in depth nor in the size of numbers.
        let mut values = serde_json::Deserializer::from_str(rest).into_iter::<IgnoredAny>();
        match values.next() {
            Some(Ok(_)) => return Some(&rest[..values.byte_offset()]),
            Some(Err(error)) => {
                let behind = balanced(rest).unwrap_or_else(|| place(rest, &error));
                rest = rest.get(behind..).unwrap_or_default();
            }
            None => return None,
        }
    }
    None
}

/// Where the brackets are closed that a text begins with, whatever else is in it.
fn balanced(text: &str) -> Option<usize> {
    let mut open = 0usize;
    text.char_indices().find_map(|(at, c)| {
        match c {
            '{' | '[' => open += 1,
            '}' | ']' => open = open.saturating_sub(1),
            _ => {}
        }
        (open == 0).then_some(at + 1)
    })
}

/// Where an error is: at least behind the first byte.
fn place(text: &str, error: &serde_json::Error) -> usize {
    let lines = text.split_inclusive('\n').take(error.line().saturating_sub(1));
    let at = lines.map(str::len).sum::<usize>() + error.column();
    (at.max(1)..text.len()).find(|at| text.is_char_boundary(*at)).unwrap_or(text.len())
}
