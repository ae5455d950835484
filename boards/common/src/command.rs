//! What the command line asks for: `omex MAX_TOKENS ids 1,2,3` or `omex MAX_TOKENS text PROMPT`.

use crate::text::{Prompt, number};

/// What to do.
#[derive(Clone, Copy)]
pub struct Command<'a> {
    /// Tokens to generate at most.
    pub max_tokens: u32,
    /// What the text begins with.
    pub prompt: Prompt<'a>,
}

impl<'a> Command<'a> {
    /// Reads the command line; `None` if it is no command.
    pub fn parse(line: &'a [u8]) -> Option<Self> {
        let (_program, rest) = word(line)?;
        let (max_tokens, rest) = word(rest)?;
        let (kind, rest) = word(rest)?;
        let prompt = match kind {
            b"ids" => Prompt::Ids(rest),
            b"text" => Prompt::Text(core::str::from_utf8(rest).ok()?),
            _ => return None,
        };
        Some(Self { max_tokens: number(max_tokens)?, prompt })
    }
}

/// What comes before the first space, and what comes behind it.
fn word(line: &[u8]) -> Option<(&[u8], &[u8])> {
    let (word, rest) = line.split_at_checked(line.iter().position(|byte| *byte == b' ')?)?;
    Some((word, rest.get(1..)?))
}
