//! How a text becomes tokens.

use crate::output;
use omex::Result;
use omex::session::Tables;
use omex::tokenizer::{TEXT_BYTES, doubled};
use omex_core::token::EncodeOptions;

/// How a text becomes tokens: shared by the commands that take one.
#[derive(clap::Args, Clone, Debug)]
pub(crate) struct TextArgs {
    /// Take control tokens that are written out in the text, as `</s>`, for plain text: for texts from
    /// strangers
    #[arg(long)]
    no_parse_special: bool,
}

impl TextArgs {
    /// Whether control tokens in a text are what they say.
    pub(crate) fn parse_special(&self) -> bool {
        !self.no_parse_special
    }

    /// The tokens of a text that begins, or of more of one, before the memory is planned.
    pub(crate) fn encode(
        &self,
        memory: Option<u64>,
        tables: &Tables,
        text: &str,
        begins: bool,
    ) -> Result<Vec<u32>> {
        let options = EncodeOptions { add_special: begins, parse_special: self.parse_special() };
        let left = longest(memory).saturating_sub(tables.bytes());
        let ids = tables.encode(text, options, left)?;
        let note = if begins { doubled(&tables.tokenizer()?, &ids) } else { None };
        note.into_iter().for_each(|note| output::note(&format!("note: {note}")));
        Ok(ids)
    }
}

/// The longest text that is worth reading: all of the budget, or of what is available without one.
pub(crate) fn longest(memory: Option<u64>) -> u64 {
    memory.or_else(omex::memory::usable).unwrap_or(u64::MAX)
}

/// Bytes that a text and its tokens take while they are at hand, besides those that every plan has.
pub(crate) fn kept_bytes(text: &str, ids: &[u32]) -> u64 {
    // Of a text that is printed with what follows there is a copy.
    let bytes = 2 * text.len() + size_of_val(ids);
    (bytes as u64).saturating_sub(TEXT_BYTES)
}
