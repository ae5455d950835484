//! Texts from standard input.

use crate::signals;
use omex::{Result, input};

/// Reads all of standard input, or until a signal; more than `most` bytes are refused.
pub(crate) fn read(most: u64) -> Result<String> {
    let text = move || input::read_text_from(std::io::stdin().lock(), "standard input", most);
    signals::cancel().or_read(text)
}
