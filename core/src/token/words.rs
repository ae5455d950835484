//! Cutting text into words, by hand-written scanners for the regular expressions that tokenizers were trained with.
//!
//! GPT-2's: `'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+`
//! (`encoder.py` of openai/gpt-2).
//!
//! Llama 3's: `(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+`
//! (`tokenizer.py` of meta-llama/llama3); Qwen2's has `\p{N}` for `\p{N}{1,3}`.
//!
//! Every scanner looks at each character of the word a constant number of times, and at most one further.

use super::layout::PreTokenizer;
use super::source::{SourceError, TableSource};
use super::tables::Tables;
use core::str::Chars;

/// What the expressions distinguish.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Class {
    Letter,
    Number,
    Space,
    Other,
}

/// Class bits in the section's ranges.
const LETTER: u32 = 1;
const NUMBER: u32 = 2;

fn ascii_class(c: char) -> Class {
    match c {
        'a'..='z' | 'A'..='Z' => Class::Letter,
        '0'..='9' => Class::Number,
        '\t'..='\r' | ' ' => Class::Space,
        _ => Class::Other,
    }
}

fn is_newline(c: char) -> bool {
    matches!(c, '\r' | '\n')
}

impl<S: TableSource> Tables<S> {
    #[inline]
    fn class_of(&mut self, c: char) -> Result<Class, SourceError> {
        if c.is_ascii() {
            return Ok(ascii_class(c));
        }
        Ok(match self.class(c)? {
            LETTER => Class::Letter,
            NUMBER => Class::Number,
            _ if c.is_whitespace() => Class::Space,
            _ => Class::Other,
        })
    }

    /// The length in bytes of the first word of `text`: 0 only if `text` is empty.
    pub(super) fn first_word(&mut self, text: &str) -> Result<usize, SourceError> {
        let rest = match self.header.pre_tokenizer {
            PreTokenizer::None => "",
            PreTokenizer::Gpt2 => self.gpt2(text, usize::MAX)?,
            PreTokenizer::Gpt2Digits => self.gpt2(text, 1)?,
            PreTokenizer::Llama3 => self.llama3(text, 3)?,
            PreTokenizer::Qwen2 => self.llama3(text, 1)?,
        };
        Ok(text.len().saturating_sub(rest.len()))
    }

    /// What follows the longest run of `class`, of at most `limit` characters.
    fn after<'t>(
        &mut self,
        class: Class,
        limit: usize,
        mut rest: Chars<'t>,
    ) -> Result<&'t str, SourceError> {
        for _ in 0..limit {
            let here = rest.as_str();
            match rest.next() {
                Some(c) if self.class_of(c)? == class => {}
                _ => return Ok(here),
            }
        }
        Ok(rest.as_str())
    }

    /// What follows the first word by GPT-2's expression. With one digit at a time, digits end the text before them.
    fn gpt2<'t>(&mut self, text: &'t str, digits: usize) -> Result<&'t str, SourceError> {
        let mut rest = text.chars();
        let Some(first) = rest.next() else { return Ok("") };
        if first == '\''
            && let Some(rest) = after_contraction(rest.clone(), false)
        {
            return Ok(rest);
        }
        let mut class = self.class_of(first)?;
        if first == ' ' {
            let mut ahead = rest.clone();
            if let Some(c) = ahead.next() {
                let next = self.class_of(c)?;
                if next != Class::Space && !(next == Class::Number && digits == 1) {
                    (class, rest) = (next, ahead);
                }
            }
        }
        match class {
            Class::Space => self.after_spaces(text, digits == 1),
            Class::Number => self.after(class, digits.saturating_sub(1), rest),
            _ => self.after(class, usize::MAX, rest),
        }
    }

    /// What follows the first word by Llama 3's expression, with numbers of at most `digits` digits.
    fn llama3<'t>(&mut self, text: &'t str, digits: usize) -> Result<&'t str, SourceError> {
        let mut rest = text.chars();
        let Some(first) = rest.next() else { return Ok("") };
        if first == '\''
            && let Some(rest) = after_contraction(rest.clone(), true)
        {
            return Ok(rest);
        }
        let class = self.class_of(first)?;
        match class {
            Class::Letter => return self.after(class, usize::MAX, rest),
            Class::Number => return self.after(class, digits.saturating_sub(1), rest),
            Class::Space | Class::Other => {}
        }
        let mut ahead = rest.clone();
        let next = match ahead.next() {
            Some(c) => Some(self.class_of(c)?),
            None => None,
        };
        if next == Some(Class::Letter) && !is_newline(first) {
            return self.after(Class::Letter, usize::MAX, ahead);
        }
        if class == Class::Other || (first == ' ' && next == Some(Class::Other)) {
            let rest = self.after(Class::Other, usize::MAX, rest)?;
            return Ok(rest.trim_start_matches(is_newline));
        }
        match self.after_newlines(text)? {
            Some(rest) => Ok(rest),
            None => self.after_spaces(text, false),
        }
    }

    /// `\s*[\r\n]+`: what follows the last newline of the whitespace at the start.
    fn after_newlines<'t>(&mut self, text: &'t str) -> Result<Option<&'t str>, SourceError> {
        let mut rest = text.chars();
        let mut found = None;
        while let Some(c) = rest.next() {
            if is_newline(c) {
                found = Some(rest.as_str());
            } else if self.class_of(c)? != Class::Space {
                break;
            }
        }
        Ok(found)
    }

    /// `\s+(?!\S)|\s+`: what follows the whitespace at the start, less its last character if a word follows.
    fn after_spaces<'t>(
        &mut self,
        text: &'t str,
        digits_end: bool,
    ) -> Result<&'t str, SourceError> {
        let mut rest = text.chars();
        let (mut before_last, mut after) = (text, text);
        while let Some(c) = rest.next() {
            let class = self.class_of(c)?;
            if class != Class::Space {
                let one = before_last.len() == text.len();
                let whole = one || (digits_end && class == Class::Number);
                return Ok(if whole { after } else { before_last });
            }
            (before_last, after) = (after, rest.as_str());
        }
        Ok("")
    }
}

/// What follows `'s`, `'t`, `'re`, `'ve`, `'m`, `'ll` or `'d`, whose apostrophe has been read.
fn after_contraction(mut rest: Chars<'_>, any_case: bool) -> Option<&str> {
    // Unicode's case folding makes the long s an s.
    let lower = |c: char| match c {
        '\u{17F}' if any_case => 's',
        c if any_case => c.to_ascii_lowercase(),
        c => c,
    };
    match lower(rest.next()?) {
        's' | 't' | 'm' | 'd' => Some(rest.as_str()),
        'r' | 'v' if lower(rest.clone().next()?) == 'e' => {
            rest.next();
            Some(rest.as_str())
        }
        'l' if lower(rest.clone().next()?) == 'l' => {
            rest.next();
            Some(rest.as_str())
        }
        _ => None,
    }
}
