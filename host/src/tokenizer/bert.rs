//! BERT's normalization, as `BertNormalizer` of the `tokenizers` library has it, and with its tables.

use unicode_categories::UnicodeCategories;
use unicode_normalization::UnicodeNormalization;

/// What BERT's normalizer does, in this order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BertNormalizer {
    /// Leaves out control characters, and makes white space spaces.
    pub clean_text: bool,
    /// Puts spaces around CJK ideographs.
    pub pad_ideographs: bool,
    /// Takes characters apart and leaves out their marks.
    pub strip_accents: bool,
    /// Makes letters small.
    pub lowercase: bool,
}

impl BertNormalizer {
    /// Appends what becomes of a character: nothing of that depends on its neighbours, but for the order of marks
    /// that stay when others are stripped.
    pub(super) fn push(self, c: char, out: &mut String) {
        let blank = c.is_whitespace() || matches!(c, '\t' | '\n' | '\r');
        let removed = matches!(c, '\0' | '\u{FFFD}') || is_control(c);
        if self.clean_text && removed {
            return;
        }
        let c = if self.clean_text && blank { ' ' } else { c };
        let padding = (self.pad_ideographs && is_ideograph(c)).then_some(' ');
        out.extend(padding);
        if self.strip_accents && !is_newer(c) {
            std::iter::once(c).nfd().filter(|c| !c.is_mark_nonspacing()).for_each(|c| {
                self.push_case(c, out);
            });
        } else if !self.strip_accents || !c.is_mark_nonspacing() {
            self.push_case(c, out);
        }
        out.extend(padding);
    }

    fn push_case(self, c: char, out: &mut String) {
        if self.lowercase { out.extend(c.to_lowercase()) } else { out.push(c) }
    }
}

/// A word by itself.
pub(super) fn is_punctuation(c: char) -> bool {
    c.is_ascii_punctuation() || c.is_punctuation()
}

fn is_control(c: char) -> bool {
    !matches!(c, '\t' | '\n' | '\r') && c.is_other()
}

fn is_ideograph(c: char) -> bool {
    matches!(
        u32::from(c),
        0x4E00..=0x9FFF
            | 0x3400..=0x4DBF
            | 0x20000..=0x2A6DF
            | 0x2A700..=0x2B73F
            | 0x2B740..=0x2B81F
            | 0x2B920..=0x2CEAF
            | 0xF900..=0xFAFF
            | 0x2F800..=0x2FA1F
    )
}

/// Characters that have parts only in versions of Unicode later than the reference's.
fn is_newer(c: char) -> bool {
    matches!(
        u32::from(c),
        0x105C9 | 0x105E4 | 0x11383..=0x113C8 | 0x11938 | 0x16121..=0x16128 | 0x16D68..=0x16D6A
    )
}
