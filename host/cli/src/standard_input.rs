//! Texts from standard input.

use crate::signals;
use omex::{Result, input};

/// Reads all of standard input, or until a signal.
pub(crate) fn read() -> Result<String> {
    let text = || input::read_text_from(std::io::stdin().lock(), "standard input");
    signals::cancel().or_read(text)
}
