//! What becomes of a text that a model has written, as it comes: a package's `postprocessors/NAME_formatter.json`.

mod fences;
mod plain;
mod trim;

use crate::package::{FormatterSettings, Style};
use crate::{Error, Result};
use fences::Fences;
use plain::Plain;
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

/// The first object or list in JSON of a text.
fn first_json(text: &str) -> Option<&str> {
    text.match_indices(['{', '[']).find_map(|(start, _)| {
        let rest = &text[start..];
        let mut values = serde_json::Deserializer::from_str(rest).into_iter::<serde_json::Value>();
        values.next()?.ok()?;
        Some(&rest[..values.byte_offset()])
    })
}
