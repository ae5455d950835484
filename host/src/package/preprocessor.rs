//! `preprocessors/NAME_preprocessor.json`: what texts go through before they become tokens.

use super::{Package, read_written};
use crate::{Error, Result};
use serde::{Deserialize, Serialize};
use std::path::Path;

/// The one that texts go through where none is named.
pub(crate) const TEXT_PREPROCESSOR: &str = "preprocessors/text_preprocessor.json";

/// The version of its format.
const FORMAT: u32 = 1;
/// Steps of a preprocessor at most.
const MAX_STEPS: usize = 32;

/// What texts go through before they become tokens, step after step.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PreprocessorSettings {
    /// Version of this file's format: 1.
    pub format: u32,
    /// The steps, at most 32. `chunk` is among them once at most; what stands behind it is done to each part.
    pub steps: Vec<Step>,
}

/// One step.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(tag = "step", rename_all = "snake_case", deny_unknown_fields)]
pub enum Step {
    /// A normalization form of Unicode.
    Unicode {
        /// Which one.
        form: UnicodeForm,
    },
    /// Small letters.
    Lowercase {},
    /// Lines end with one line feed.
    LineEnds {},
    /// Control characters are left out, but for line feeds and tabs.
    RemoveControl {},
    /// Spaces and tabs that follow each other within a line become one space, blank lines one blank line.
    CollapseSpaces {},
    /// White space at both ends is left out.
    Trim {},
    /// A program in Jinja2 puts something around the text.
    Template {
        /// It knows `text`, and as `part` the number of the part, counted from 1.
        template: String,
    },
    /// A text that is too long becomes several.
    Chunk {
        /// Where it is cut.
        by: Blocks,
        /// Tokens of a part at most, with all that is put around it; as many as fit the context if absent.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        max_tokens: Option<u32>,
        /// Tokens at the end of a part, at most, with which the next one begins.
        #[serde(default)]
        overlap_tokens: u32,
    },
}

/// A normalization form of Unicode (Unicode Standard Annex 15).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum UnicodeForm {
    /// Canonical composition.
    Nfc,
    /// Canonical decomposition.
    Nfd,
    /// Compatibility composition.
    Nfkc,
    /// Compatibility decomposition.
    Nfkd,
}

/// Where a text is best cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Blocks {
    /// Before headings, behind blank lines, lines, sentences, and words, in this order.
    Paragraphs,
    /// Before lines that are indented least, the better behind a blank line, and not before what closes a block.
    Code,
}

impl PreprocessorSettings {
    /// These steps.
    #[must_use]
    pub fn new(steps: Vec<Step>) -> Self {
        Self { format: FORMAT, steps }
    }

    /// These steps, with one that cuts at such places what is longer than the context: before the first template;
    /// one that is there cuts at these.
    #[must_use]
    pub fn cutting(mut self, by: Blocks) -> Self {
        for step in &mut self.steps {
            if let Step::Chunk { by: found, .. } = step {
                *found = by;
                return self;
            }
        }
        let chunk = Step::Chunk { by, max_tokens: None, overlap_tokens: 0 };
        let template = self.steps.iter().position(|step| matches!(step, Step::Template { .. }));
        self.steps.insert(template.unwrap_or(self.steps.len()), chunk);
        self
    }

    /// Reads a file.
    ///
    /// # Errors
    /// A file that can't be read, or that is malformed.
    pub fn read(path: &Path) -> Result<Self> {
        let settings: Self = read_written(path)?;
        settings.check(path)?;
        Ok(settings)
    }

    fn check(&self, path: &Path) -> Result<()> {
        let wrong = |field: &str, found: String, expected: &str| {
            Err(Error::malformed(path, field, found, expected, "correct the file"))
        };
        if self.format != FORMAT {
            return wrong("format", self.format.to_string(), "1");
        }
        let chunks = self.steps.iter().filter(|step| matches!(step, Step::Chunk { .. })).count();
        match (self.steps.len(), chunks) {
            (count, _) if count > MAX_STEPS => {
                wrong("steps", self.steps.len().to_string(), "at most 32")
            }
            (_, 2..) => wrong("steps", format!("{chunks} steps \"chunk\""), "one at most"),
            _ => self.steps.iter().try_for_each(|step| match step {
                Step::Chunk { max_tokens: Some(0), .. } => {
                    wrong("steps[].max_tokens", "0".to_owned(), "1 at least")
                }
                Step::Chunk { max_tokens: Some(most), overlap_tokens, .. }
                    if overlap_tokens.saturating_mul(2) > *most =>
                {
                    let expected = "at most half of max_tokens";
                    wrong("steps[].overlap_tokens", overlap_tokens.to_string(), expected)
                }
                _ => Ok(()),
            }),
        }
    }
}

impl Package {
    /// The preprocessor of a name, as `text`, if the package has it.
    ///
    /// # Errors
    /// A file that is damaged or malformed.
    pub fn preprocessor(&self, name: &str) -> Result<Option<PreprocessorSettings>> {
        self.processor(super::PREPROCESSORS, name, PreprocessorSettings::check)
    }
}
