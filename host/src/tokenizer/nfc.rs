//! Unicode's normalization form C, as the `tokenizers` library has it.

use regex_syntax::hir::{Class, ClassUnicode, HirKind};
use std::borrow::Cow;
use std::sync::OnceLock;
use unicode_normalization::{UnicodeNormalization, is_nfc};

/// `text` in Unicode's normalization form C, which some tokenizers ask for
/// ([`omex_core::token::Tokenizer::wants_nfc`]).
pub fn nfc(text: &str) -> Cow<'_, str> {
    // Nothing combines with a newline, so each line is by itself; most are ASCII.
    let normal = text.split('\n').all(|line| line.is_ascii() || is_nfc(line));
    if normal { Cow::Borrowed(text) } else { Cow::Owned(composed(text)) }
}

/// The reference's tables are of Unicode 9: what is newer combines with nothing there.
fn composed(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for part in text.split_inclusive(is_newer) {
        let last = part.chars().next_back().filter(|&c| is_newer(c));
        let before = &part[..part.len() - last.map_or(0, char::len_utf8)];
        out.extend(before.nfc());
        out.extend(last);
    }
    out
}

fn is_newer(c: char) -> bool {
    static KNOWN: OnceLock<ClassUnicode> = OnceLock::new();
    let known = KNOWN.get_or_init(known).ranges();
    let after = known.partition_point(|range| range.end() < c);
    !c.is_ascii() && known.get(after).is_none_or(|range| range.start() > c)
}

/// The characters of Unicode 9.
fn known() -> ClassUnicode {
    match regex_syntax::parse(r"\p{age=9.0}").map(regex_syntax::hir::Hir::into_kind) {
        Ok(HirKind::Class(Class::Unicode(known))) => known,
        // Not with the feature that the manifest asks for.
        _ => ClassUnicode::empty(),
    }
}

#[cfg(test)]
mod tests {
    use super::nfc;

    #[test]
    fn composes_but_for_characters_that_the_reference_does_not_know() {
        assert_eq!(nfc("e\u{301}"), "\u{E9}");
        // Of Unicode 9, and of Unicode 10: both are put in order by a later library.
        assert_eq!(nfc("a\u{301}\u{8D4}\u{327}"), "\u{E1}\u{327}\u{8D4}");
        assert_eq!(nfc("e\u{301}\u{1DF6}\u{327}o\u{308}"), "\u{E9}\u{1DF6}\u{327}\u{F6}");
    }
}
