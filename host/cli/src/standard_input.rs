//! Texts from standard input.

use omex::{Result, input, interrupt};

/// Reads all of standard input, or until a signal.
pub(crate) fn read() -> Result<String> {
    let text = || input::read_text_from(std::io::stdin().lock(), "standard input");
    interrupt::unless_interrupted(text)
}
