//! Cutting text into words, by hand-written scanners for the regular expressions that tokenizers were trained with.
//!
//! GPT-2's: `'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+`
//! (`encoder.py` of openai/gpt-2).
//!
//! Llama 3's: `(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+`
//! (`tokenizer.py` of meta-llama/llama3); Qwen2's has `\p{N}` for `\p{N}{1,3}`. In Qwen3.5's, the section counts marks among
//! the letters. `scanners` has others.
//!
//! Every scanner looks at each character of the word a constant number of times, and at most one further. Positions
//! are bytes of the text.

use super::layout::{PreTokenizer, class, flag};
use super::source::{SourceError, TableSource};
use super::tables::Tables;

/// What the expressions distinguish.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Class {
    Letter,
    Number,
    Space,
    Other,
    /// A byte of a character whose class is in the section.
    BeyondAscii,
    /// The text ends here.
    End,
}

/// The class of every byte.
static CLASSES: [Class; 256] = {
    let mut classes = [Class::BeyondAscii; 256];
    let (mut byte, mut rest) = (0u8, classes.as_mut_slice());
    while let Some((class, next)) = rest.split_first_mut() {
        *class = match byte {
            b'a'..=b'z' | b'A'..=b'Z' => Class::Letter,
            b'0'..=b'9' => Class::Number,
            b'\t'..=b'\r' | b' ' => Class::Space,
            0x80.. => Class::BeyondAscii,
            _ => Class::Other,
        };
        (byte, rest) = (byte.wrapping_add(1), next);
    }
    classes
};

#[inline(always)]
fn byte_class(byte: u8) -> Class {
    CLASSES.get(usize::from(byte)).copied().unwrap_or(Class::Other)
}

pub(super) fn is_newline(byte: u8) -> bool {
    matches!(byte, b'\r' | b'\n')
}

impl<S: TableSource> Tables<S> {
    /// The class of the character at `at`, and its length.
    #[inline(always)]
    pub(super) fn class_at(
        &mut self,
        text: &str,
        at: usize,
    ) -> Result<(Class, usize), SourceError> {
        match text.as_bytes().get(at).map(|&byte| byte_class(byte)) {
            Some(Class::BeyondAscii) => self.class_beyond_ascii(text, at),
            Some(class) => Ok((class, 1)),
            None => Ok((Class::End, 0)),
        }
    }

    #[inline(never)]
    fn class_beyond_ascii(&mut self, text: &str, at: usize) -> Result<(Class, usize), SourceError> {
        let Some(c) = text.get(at..).and_then(|rest| rest.chars().next()) else {
            return Ok((Class::End, 0));
        };
        let class = self.class(c)?;
        // Sections for other scanners tell more classes apart.
        #[cfg(feature = "scanners")]
        let class = class & (class::LETTER | class::NUMBER);
        let class = match class {
            class::LETTER => Class::Letter,
            class::NUMBER => Class::Number,
            _ if c.is_whitespace() => Class::Space,
            _ => Class::Other,
        };
        Ok((class, c.len_utf8()))
    }

    /// The length of the first word of `text`: 0 only if `text` is empty.
    #[inline]
    pub(super) fn first_word(&mut self, text: &str) -> Result<usize, SourceError> {
        match self.header.pre_tokenizer {
            PreTokenizer::None => Ok(text.len()),
            PreTokenizer::Gpt2 => self.gpt2(text, usize::MAX),
            PreTokenizer::Gpt2Digits => self.gpt2(text, 1),
            PreTokenizer::Llama3 => self.llama3(text, 3),
            PreTokenizer::Qwen2 => self.llama3(text, 1),
            #[cfg(feature = "scanners")]
            PreTokenizer::Qwen3_5 => self.llama3(text, 1),
            #[cfg(feature = "scanners")]
            PreTokenizer::Gpt4o => self.gpt4o(text, 3, true),
            #[cfg(feature = "scanners")]
            PreTokenizer::Tekken => self.gpt4o(text, 1, false),
            #[cfg(feature = "scanners")]
            PreTokenizer::DeepSeekV3 => self.deepseek_v3(text),
            #[cfg(feature = "scanners")]
            PreTokenizer::Clip => self.clip(text),
        }
    }

    /// The end of the run of `class` from `at`.
    #[inline(always)]
    pub(super) fn after(
        &mut self,
        class: Class,
        text: &str,
        mut at: usize,
    ) -> Result<usize, SourceError> {
        loop {
            let rest = text.as_bytes().get(at..).unwrap_or_default();
            at += rest.iter().take_while(|&&byte| byte_class(byte) == class).count();
            let (found, length) = self.class_at(text, at)?;
            if found != class {
                return Ok(at);
            }
            at += length;
        }
    }

    /// The end of the run of numbers from `at`, of at most `limit`.
    pub(super) fn after_numbers(
        &mut self,
        limit: usize,
        text: &str,
        mut at: usize,
    ) -> Result<usize, SourceError> {
        for _ in 0..limit {
            match self.class_at(text, at)? {
                (Class::Number, length) => at += length,
                _ => break,
            }
        }
        Ok(at)
    }

    /// The first word by GPT-2's expression. With one digit at a time, digits end the text before them.
    #[inline]
    fn gpt2(&mut self, text: &str, digits: usize) -> Result<usize, SourceError> {
        let first = text.as_bytes().first().copied();
        if first == Some(b'\'')
            && let Some(end) = contraction(text.as_bytes(), false)
        {
            return Ok(end);
        }
        let (mut class, mut at) = self.class_at(text, 0)?;
        if first == Some(b' ') {
            let (next, length) = self.class_at(text, 1)?;
            let joins = match next {
                Class::Letter | Class::Other => true,
                Class::Number => digits > 1,
                Class::Space | Class::BeyondAscii | Class::End => false,
            };
            if joins {
                (class, at) = (next, 1 + length);
            }
        }
        match class {
            Class::Letter | Class::Other => self.after(class, text, at),
            Class::Number => self.after_numbers(digits.saturating_sub(1), text, at),
            Class::Space => self.after_spaces(text, digits == 1),
            Class::BeyondAscii | Class::End => Ok(at),
        }
    }

    /// The first word by Llama 3's expression, with numbers of at most `digits` digits.
    #[inline]
    fn llama3(&mut self, text: &str, digits: usize) -> Result<usize, SourceError> {
        let Some(&first) = text.as_bytes().first() else { return Ok(0) };
        if first == b'\''
            && let Some(end) = contraction(text.as_bytes(), true)
        {
            return Ok(end);
        }
        let (class, length) = self.class_at(text, 0)?;
        match class {
            Class::Letter => return self.after(class, text, length),
            Class::Number => return self.after_numbers(digits.saturating_sub(1), text, length),
            _ => {}
        }
        let (next, next_length) = self.class_at(text, length)?;
        if next == Class::Letter && !is_newline(first) {
            return self.after(next, text, length + next_length);
        }
        if class == Class::Other || (first == b' ' && next == Class::Other) {
            let end = self.after(Class::Other, text, length)?;
            let rest = text.as_bytes().get(end..).unwrap_or_default();
            return Ok(end + rest.iter().take_while(|&&byte| is_newline(byte)).count());
        }
        match self.after_newlines(text)? {
            Some(end) => Ok(end),
            None => self.after_spaces(text, false),
        }
    }

    /// `\s*[\r\n]+`: the end of the last newline of the whitespace at the start.
    pub(super) fn after_newlines(&mut self, text: &str) -> Result<Option<usize>, SourceError> {
        let end = self.after(Class::Space, text, 0)?;
        let spaces = text.as_bytes().get(..end).unwrap_or_default();
        Ok(spaces.iter().rposition(|&byte| is_newline(byte)).map(|last| last + 1))
    }

    /// `\s+(?!\S)|\s+`: the whitespace at the start, less its last character if a word follows.
    pub(super) fn after_spaces(
        &mut self,
        text: &str,
        digits_end: bool,
    ) -> Result<usize, SourceError> {
        let end = self.after(Class::Space, text, 0)?;
        let whole = match self.class_at(text, end)?.0 {
            Class::End => true,
            Class::Number => digits_end,
            _ => false,
        };
        let last = text.get(..end).and_then(|spaces| spaces.chars().next_back());
        let before_last = end.saturating_sub(last.map_or(0, char::len_utf8));
        Ok(if whole || before_last == 0 { end } else { before_last })
    }

    /// The length of the first word of `text` where a piece is made of characters: with SPLIT_SPACES, what there is
    /// before the next space; with SPLIT_WORDS, spaces and what follows up to the next space. `inside` if a space that
    /// is not in the text comes before it.
    pub(super) fn first_marked_word(&self, text: &str, inside: bool) -> usize {
        let bytes = text.as_bytes();
        let marks = self.header.has(flag::SPACE_MARK);
        let space_at = |at: usize| match bytes.get(at) {
            Some(b' ') => 1,
            Some(0xE2) if marks && bytes.get(at + 1..at + 3) == Some(&[0x96, 0x81]) => 3,
            _ => 0,
        };
        let mut at = 0;
        if self.header.has(flag::SPLIT_SPACES) {
            at = if inside { 0 } else { space_at(0) };
        } else if self.header.has(flag::SPLIT_WORDS) {
            while space_at(at) > 0 {
                at += space_at(at);
            }
        } else {
            return text.len();
        }
        while at < bytes.len() && space_at(at) == 0 {
            at += 1;
        }
        at
    }
}

/// The length of `'s`, `'t`, `'re`, `'ve`, `'m`, `'ll` or `'d`, whose apostrophe is the first byte of `text`.
pub(super) fn contraction(text: &[u8], any_case: bool) -> Option<usize> {
    let lower = |at: usize| match text.get(at) {
        Some(byte) if any_case => byte.to_ascii_lowercase(),
        Some(byte) => *byte,
        None => 0,
    };
    match (lower(1), lower(2)) {
        (b's' | b't' | b'm' | b'd', _) => Some(2),
        (b'r' | b'v', b'e') | (b'l', b'l') => Some(3),
        // Unicode's case folding makes the long s an s.
        (0xC5, 0xBF) if any_case => Some(3),
        _ => None,
    }
}
