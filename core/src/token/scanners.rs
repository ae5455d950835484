//! More scanners for regular expressions that tokenizers were trained with; `words` has the most common ones.
//!
//! GPT-4o's: `[^\r\n\p{L}\p{N}]?C*S+K?|[^\r\n\p{L}\p{N}]?C+S*K?|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+`,
//! where C is `[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]`, S is `[\p{Ll}\p{Lm}\p{Lo}\p{M}]`, and K is
//! `(?i:'s|'t|'re|'ve|'m|'ll|'d)` (`openai_public.py` of openai/tiktoken). Tekken's has no K, and `\p{N}` for `\p{N}{1,3}`.
//!
//! DeepSeek-V3's: first `\p{N}{1,3}`, then `[一-龥぀-ゟ゠-ヿ]+`, then
//! ``[!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+``
//! are words, and so is what lies between words (`tokenizer.json` of deepseek-ai/DeepSeek-V3).
//!
//! CLIP's: `'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+`; what lies between words is left out
//! (`simple_tokenizer.py` of openai/CLIP, where special tokens, which are found before, are words, too).
//!
//! Every scanner looks at each character of the word a constant number of times, and at most two further.

use super::layout::class;
use super::source::{SourceError, TableSource};
use super::tables::Tables;
use super::words::{Class, contraction, is_newline};

/// What may be in words that capitals begin.
const CASES: u32 = class::CAPITAL | class::SMALL;

/// The classes of a letter and of a mark among ideographs and kana.
const IDEOGRAPH: u32 = class::IDEOGRAPH | class::LETTER;
const KANA_MARK: u32 = class::IDEOGRAPH | class::PUNCTUATION;

impl<S: TableSource> Tables<S> {
    /// Which of [`CASES`] the character at `at` has, and its length.
    #[inline]
    fn case_at(&mut self, text: &str, at: usize) -> Result<(u32, usize), SourceError> {
        match text.as_bytes().get(at) {
            Some(b'a'..=b'z') => Ok((class::SMALL, 1)),
            Some(b'A'..=b'Z') => Ok((class::CAPITAL, 1)),
            Some(0x80..) => match text.get(at..).and_then(|rest| rest.chars().next()) {
                Some(c) => Ok((self.class(c)? & CASES, c.len_utf8())),
                None => Ok((0, 0)),
            },
            _ => Ok((0, 0)),
        }
    }

    /// The end of the run of characters from `at` that may be small.
    fn after_small(&mut self, text: &str, mut at: usize) -> Result<usize, SourceError> {
        loop {
            let (cases, length) = self.case_at(text, at)?;
            if cases & class::SMALL == 0 {
                return Ok(at);
            }
            at += length;
        }
    }

    /// The first word by GPT-4o's expression, with numbers of at most `digits` digits.
    pub(super) fn gpt4o(
        &mut self,
        text: &str,
        digits: usize,
        contractions: bool,
    ) -> Result<usize, SourceError> {
        let Some(&first) = text.as_bytes().first() else { return Ok(0) };
        let (class, length) = self.class_at(text, 0)?;
        let (cases, _) = self.case_at(text, 0)?;
        // What is no letter, number or newline may come before a word; so may a mark, which may begin one, too.
        let prefix = class != Class::Letter && class != Class::Number && !is_newline(first);
        let mut end = if prefix { self.cased_word(text, length)? } else { None };
        if cases == CASES && end.is_some_and(|(_, begins)| !begins) {
            end = None;
        }
        if end.is_none() && cases != 0 {
            end = self.cased_word(text, 0)?;
        }
        if let Some((end, _)) = end {
            let rest = text.as_bytes().get(end..).unwrap_or_default();
            let more = contraction(rest, true).filter(|_| contractions && rest.starts_with(b"'"));
            return Ok(end + more.unwrap_or(0));
        }
        if class == Class::Number {
            return self.after_numbers(digits.saturating_sub(1), text, length);
        }
        let next = self.class_at(text, length)?.0;
        if class == Class::Other || (first == b' ' && next == Class::Other) {
            let end = self.after(Class::Other, text, length)?;
            let rest = text.as_bytes().get(end..).unwrap_or_default();
            let behind = rest.iter().take_while(|&&byte| is_newline(byte) || byte == b'/');
            return Ok(end + behind.count());
        }
        match self.after_newlines(text)? {
            Some(end) => Ok(end),
            None => self.after_spaces(text, false),
        }
    }

    /// The end of the word from `at`: capitals, then small letters; and whether some of it may be small.
    fn cased_word(
        &mut self,
        text: &str,
        start: usize,
    ) -> Result<Option<(usize, bool)>, SourceError> {
        let (mut at, mut small) = (start, None);
        loop {
            let (cases, length) = self.case_at(text, at)?;
            if cases & class::CAPITAL == 0 {
                break;
            }
            at += length;
            small = if cases == CASES { Some(at) } else { small };
        }
        let end = self.after_small(text, at)?;
        Ok(match small {
            _ if end > at => Some((end, true)),
            // Of the capitals, the last that may be small must be the small letter.
            Some(small) => Some((small, true)),
            None => Some((at, false)).filter(|_| at > start),
        })
    }

    /// The first word by DeepSeek-V3's expressions.
    pub(super) fn deepseek_v3(&mut self, text: &str) -> Result<usize, SourceError> {
        let (kind, length) = self.sort_at(text, 0)?;
        let (next, next_length) = self.sort_at(text, length)?;
        let bytes = text.as_bytes();
        let first = bytes.first().copied().unwrap_or(0);
        match kind {
            Sort::Number => return self.after_numbers(2, text, length),
            Sort::Letter | Sort::Ideograph | Sort::KanaMark => {
                return self.after_sort(kind, text, length);
            }
            Sort::Mark if bytes.get(length).is_some_and(u8::is_ascii_alphabetic) && length == 1 => {
                let rest = bytes.get(length..).unwrap_or_default();
                return Ok(
                    length + rest.iter().take_while(|byte| byte.is_ascii_alphabetic()).count()
                );
            }
            Sort::Space | Sort::Other if next == Sort::Letter && !is_newline(first) => {
                return self.after_sort(Sort::Letter, text, length + next_length);
            }
            Sort::Other => return self.after_others(kind, Sort::Letter, text),
            Sort::KanaOther if next == Sort::Ideograph => {
                return self.after_sort(next, text, length + next_length);
            }
            Sort::KanaOther => return self.after_others(kind, Sort::Ideograph, text),
            _ => {}
        }
        if kind == Sort::Mark || (first == b' ' && next == Sort::Mark) {
            let end = self.after_sort(Sort::Mark, text, length)?;
            let rest = bytes.get(end..).unwrap_or_default();
            return Ok(end + rest.iter().take_while(|&&byte| is_newline(byte)).count());
        }
        if let Some(end) = self.after_newlines(text)? {
            return Ok(end);
        }
        let end = self.after_sort(Sort::Space, text, 0)?;
        // Numbers, ideographs and kana end the text before them.
        let whole = !matches!(self.sort_at(text, end)?.0, Sort::Letter | Sort::Mark | Sort::Other);
        let last = text.get(..end).and_then(|spaces| spaces.chars().next_back());
        let before_last = end.saturating_sub(last.map_or(0, char::len_utf8));
        Ok(if whole || before_last == 0 { end } else { before_last })
    }

    /// The end of what is in no word at the start: the last of it begins a word, if a letter follows.
    fn after_others(
        &mut self,
        other: Sort,
        letter: Sort,
        text: &str,
    ) -> Result<usize, SourceError> {
        let (mut end, mut last) = (0, 0);
        loop {
            let (kind, length) = self.sort_at(text, end)?;
            if kind != other {
                return Ok(if kind == letter && last > 0 { last } else { end });
            }
            (last, end) = (end, end + length);
        }
    }

    /// The first word by CLIP's expression, or the white space before it.
    pub(super) fn clip(&mut self, text: &str) -> Result<usize, SourceError> {
        let short = contraction(text.as_bytes(), false).filter(|_| text.starts_with('\''));
        let (class, length) = self.class_at(text, 0)?;
        match (short, class) {
            (Some(end), _) => Ok(end),
            (None, Class::Letter | Class::Other | Class::Space) => self.after(class, text, length),
            (None, Class::Number | Class::BeyondAscii | Class::End) => Ok(length),
        }
    }

    fn after_sort(&mut self, sort: Sort, text: &str, mut at: usize) -> Result<usize, SourceError> {
        loop {
            let (found, length) = self.sort_at(text, at)?;
            if found != sort {
                return Ok(at);
            }
            at += length;
        }
    }

    /// What DeepSeek-V3's expressions make of the character at `at`, and its length.
    fn sort_at(&mut self, text: &str, at: usize) -> Result<(Sort, usize), SourceError> {
        let Some(&byte) = text.as_bytes().get(at) else { return Ok((Sort::End, 0)) };
        let sort = match byte {
            b'a'..=b'z' | b'A'..=b'Z' => Sort::Letter,
            b'0'..=b'9' => Sort::Number,
            b'\t'..=b'\r' | b' ' => Sort::Space,
            b'!'..=b'~' => Sort::Mark,
            0..0x80 => Sort::Other,
            0x80.. => {
                let Some(c) = text.get(at..).and_then(|rest| rest.chars().next()) else {
                    return Ok((Sort::End, 0));
                };
                let sort = match self.class(c)? {
                    class::LETTER => Sort::Letter,
                    class::NUMBER => Sort::Number,
                    class::PUNCTUATION => Sort::Mark,
                    IDEOGRAPH => Sort::Ideograph,
                    KANA_MARK => Sort::KanaMark,
                    class::IDEOGRAPH => Sort::KanaOther,
                    _ if c.is_whitespace() => Sort::Space,
                    _ => Sort::Other,
                };
                return Ok((sort, c.len_utf8()));
            }
        };
        Ok((sort, 1))
    }
}

/// What DeepSeek-V3's expressions distinguish.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sort {
    /// `[\p{L}\p{M}]`.
    Letter,
    Number,
    /// Ideographs and kana, which are words of their own: those of `[\p{L}\p{M}]`.
    Ideograph,
    /// Those of `[\p{P}\p{S}]`.
    KanaMark,
    KanaOther,
    Space,
    /// `[\p{P}\p{S}]`.
    Mark,
    Other,
    /// The text ends here.
    End,
}
