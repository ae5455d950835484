//! Cutting a text that is too long where it hurts least.

use crate::package::Blocks;
use crate::{Error, Result};
use std::ops::Range;

/// Counts the tokens of a part of a text with what is put around it.
pub(super) type Count<'c> = &'c mut dyn FnMut(&str) -> Result<usize>;

/// Bytes of a token, as a first guess.
const TOKEN_BYTES: usize = 4;

/// How a text is cut.
pub(super) struct Cut {
    /// Where it is best cut.
    pub(super) blocks: Blocks,
    /// Tokens of a part at most.
    pub(super) most: usize,
    /// Tokens at its end, at most, that the next part begins with.
    pub(super) overlap: usize,
}

impl Cut {
    /// The parts of a text, each of `most` tokens at most, as `count` counts them with what is put around the part.
    /// Without overlap, the parts together are the text.
    ///
    /// # Errors
    /// A character that takes more tokens, or those of `count`.
    pub(super) fn parts(&self, text: &str, count: Count<'_>) -> Result<Vec<Range<usize>>> {
        let (mut parts, mut start, mut done) = (vec![], 0, 0);
        while done < text.len() || parts.is_empty() {
            let part = match self.end(text, start, done, count)? {
                Some(end) => start..end,
                // What is put around the text may leave no room for the overlap.
                None if start < done => {
                    start = done;
                    continue;
                }
                None => return Err(self.too_small(text, start)),
            };
            done = part.end;
            if done < text.len() {
                start = self.next_start(text, &part, count)?;
            }
            parts.push(part);
        }
        Ok(parts)
    }

    /// Where a part ends that begins at `start`, behind `done`, if there is such a place.
    fn end(
        &self,
        text: &str,
        start: usize,
        done: usize,
        count: Count<'_>,
    ) -> Result<Option<usize>> {
        let mut fits = |end: usize| Ok::<_, Error>(count(&text[start..end])? <= self.most);
        let mut furthest = furthest(text, start, &mut fits)?;
        loop {
            if furthest <= done && furthest < text.len() {
                return Ok(None);
            }
            let best = self.best(text, done.max(start + (furthest - start) / 2), furthest);
            // More text may make fewer tokens: what fitted as a beginning need not fit alone.
            if best == furthest || fits(best)? {
                return Ok(Some(best));
            }
            furthest = boundary_before(text, best);
        }
    }

    fn too_small(&self, text: &str, start: usize) -> Error {
        let next: String = text[start..].chars().take(1).collect();
        Error::Usage(format!(
            "a part of the text may have {} tokens with what is put around it, and {next:?} alone takes more: raise \
             max_tokens of the preprocessor or --context, or lower --max-tokens",
            self.most
        ))
    }

    /// The best place to cut in `after..=end`; the last of equals, and `end` if the text ends there.
    fn best(&self, text: &str, after: usize, end: usize) -> usize {
        if end == text.len() {
            return end;
        }
        let places = (after + 1..=end).rev().filter(|at| text.is_char_boundary(*at));
        places.min_by_key(|at| cost(self.blocks, text, *at)).unwrap_or(end)
    }

    /// Where the next part begins, which repeats the end of this one.
    fn next_start(&self, text: &str, part: &Range<usize>, count: Count<'_>) -> Result<usize> {
        if self.overlap == 0 {
            return Ok(part.end);
        }
        let around = count("")?;
        let mut start = part.end;
        let most = part.end.saturating_sub(self.overlap.saturating_mul(4 * TOKEN_BYTES));
        for at in (most.max(part.start + 1)..part.end).rev() {
            if text.is_char_boundary(at) && is_word_start(text, at) {
                if count(&text[at..part.end])?.saturating_sub(around) > self.overlap {
                    break;
                }
                start = at;
            }
        }
        Ok(start)
    }
}

/// The last place up to which a text fits, at least the first character's beginning.
fn furthest(
    text: &str,
    start: usize,
    fits: &mut dyn FnMut(usize) -> Result<bool>,
) -> Result<usize> {
    let (mut good, mut step) = (start, 64 * TOKEN_BYTES);
    let mut bad = loop {
        let next = boundary_from(text, good + step);
        if !fits(next)? {
            break next;
        }
        if next == text.len() {
            return Ok(next);
        }
        (good, step) = (next, step * 2);
    };
    loop {
        let middle = boundary_from(text, good + (bad - good).div_ceil(2));
        let middle = if middle < bad { middle } else { boundary_from(text, good + 1) };
        if middle >= bad {
            return Ok(good);
        }
        if fits(middle)? { good = middle } else { bad = middle }
    }
}

/// The first place between two characters that is not before this one.
fn boundary_from(text: &str, at: usize) -> usize {
    (at..text.len()).find(|at| text.is_char_boundary(*at)).unwrap_or(text.len())
}

/// The last one before this place.
fn boundary_before(text: &str, at: usize) -> usize {
    (0..at).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0)
}

fn is_word_start(text: &str, at: usize) -> bool {
    let before = text[..at].chars().next_back().is_none_or(char::is_whitespace);
    before && !text[at..].starts_with(char::is_whitespace)
}

/// How bad it is to cut a text here.
fn cost(blocks: Blocks, text: &str, at: usize) -> u32 {
    const LINE: u32 = 1000;
    let (before, after) = text.split_at(at);
    if before.ends_with('\n') {
        return match blocks {
            Blocks::Paragraphs => paragraph_cost(before, after),
            Blocks::Code => code_cost(before, after).min(LINE),
        };
    }
    let spaced = before.ends_with(' ') && !after.starts_with(' ');
    let ends = |text: &str| text.trim_end_matches(' ').ends_with(['.', '!', '?', ':', ';']);
    let sentence = spaced && ends(before);
    match () {
        () if sentence || before.ends_with(['。', '！', '？']) => LINE + 1,
        () if spaced || before.ends_with('\t') => LINE + 2,
        () => LINE + 3,
    }
}

/// Before a heading, behind a blank line, or at a line's end.
fn paragraph_cost(before: &str, after: &str) -> u32 {
    let heading = after.starts_with('#');
    // A blank line belongs to what it ends.
    let blank = is_blank_line(last_line(before)) && !is_blank_line(first_line(after));
    match (heading, blank) {
        (true, _) => 0,
        (false, true) => 1,
        (false, false) => 2,
    }
}

/// The indentation of what begins here: blocks within others are cut last. A blank line before makes it
/// better, and what closes or goes on with a block stays with it.
fn code_cost(before: &str, after: &str) -> u32 {
    let line = first_line(after);
    if is_blank_line(line) {
        return 900;
    }
    let indentation = line.chars().take_while(|c| c.is_whitespace());
    let columns: u32 = indentation.map(|c| if c == '\t' { 4 } else { 1 }).sum();
    let closes = line.trim_start().starts_with([')', ']', '}']) || is_continuation(line);
    let blank = is_blank_line(last_line(before));
    2 * columns.min(200) + u32::from(!blank) + if closes { 450 } else { 0 }
}

/// Words that go on with the block before them in many languages.
fn is_continuation(line: &str) -> bool {
    let word = line.split(|c: char| !c.is_alphanumeric()).find(|word| !word.is_empty());
    let words =
        ["else", "elif", "elsif", "except", "finally", "catch", "end", "endif", "fi", "done"];
    word.is_some_and(|word| words.contains(&word))
}

fn first_line(text: &str) -> &str {
    text.split('\n').next().unwrap_or_default()
}

/// The last line of a text that ends with one's end.
fn last_line(text: &str) -> &str {
    let text = text.strip_suffix('\n').unwrap_or(text);
    text.rsplit('\n').next().unwrap_or_default()
}

fn is_blank_line(line: &str) -> bool {
    line.trim().is_empty()
}
