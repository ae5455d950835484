//! Steps that tidy a text.

use crate::package::{Step, UnicodeForm};
use unicode_normalization::UnicodeNormalization;

/// What a step makes of a text, or more than `most` bytes of it; others than those of this file leave it as it is.
pub(super) fn step(step: &Step, text: String, most: u64) -> String {
    match step {
        Step::Unicode { form: UnicodeForm::Nfc } => within(text.nfc(), most),
        Step::Unicode { form: UnicodeForm::Nfd } => within(text.nfd(), most),
        Step::Unicode { form: UnicodeForm::Nfkc } => within(text.nfkc(), most),
        Step::Unicode { form: UnicodeForm::Nfkd } => within(text.nfkd(), most),
        Step::Lowercase {} => text.to_lowercase(),
        Step::LineEnds {} => text.replace("\r\n", "\n").replace('\r', "\n"),
        Step::RemoveControl {} => {
            text.chars().filter(|c| !c.is_control() || matches!(c, '\n' | '\t')).collect()
        }
        Step::CollapseSpaces {} => collapse_spaces(&text),
        Step::Trim {} => text.trim().to_owned(),
        Step::Template { .. } | Step::Chunk { .. } => text,
    }
}

/// Characters, up to the first one that is too much.
fn within(characters: impl Iterator<Item = char>, most: u64) -> String {
    let mut text = String::new();
    for c in characters {
        text.push(c);
        if text.len() as u64 > most {
            break;
        }
    }
    text
}

fn collapse_spaces(text: &str) -> String {
    let (mut out, mut blank) = (String::with_capacity(text.len()), 0);
    for line in text.split_inclusive('\n') {
        let words = line.split([' ', '\t', '\n']).filter(|word| !word.is_empty());
        let start = out.len();
        for word in words {
            out.push_str(if out.len() > start { " " } else { "" });
            out.push_str(word);
        }
        blank = if out.len() > start { 0 } else { blank + 1 };
        if line.ends_with('\n') && blank < 2 {
            out.push('\n');
        }
    }
    out
}
