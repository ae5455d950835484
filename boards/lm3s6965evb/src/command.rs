//! What the command line asks for: `omex MAX_TOKENS ids 1,2,3` or `omex MAX_TOKENS text PROMPT`.

/// What to do.
#[derive(Clone, Copy)]
pub struct Command<'a> {
    /// Tokens to generate at most.
    pub max_tokens: u32,
    /// What the text begins with.
    pub prompt: Prompt<'a>,
}

/// What the text begins with.
#[derive(Clone, Copy)]
pub enum Prompt<'a> {
    /// Token ids, separated by commas.
    Ids(&'a str),
    /// Text: all that is left of the line.
    Text(&'a str),
}

impl<'a> Command<'a> {
    /// Reads the command line; `None` if it is no command.
    pub fn parse(line: &'a [u8]) -> Option<Self> {
        let mut words = core::str::from_utf8(line).ok()?.splitn(4, ' ');
        words.next()?;
        let max_tokens = number(words.next()?)?;
        let kind = words.next()?;
        let rest = words.next().unwrap_or_default();
        let prompt = match kind {
            "ids" => Prompt::Ids(rest),
            "text" => Prompt::Text(rest),
            _ => return None,
        };
        Some(Self { max_tokens, prompt })
    }
}

/// A decimal number.
pub fn number(text: &str) -> Option<u32> {
    let digits = |n: u32, byte: u8| {
        let digit = byte.checked_sub(b'0').filter(|digit| *digit < 10)?;
        n.checked_mul(10)?.checked_add(u32::from(digit))
    };
    if text.is_empty() { None } else { text.bytes().try_fold(0, digits) }
}
