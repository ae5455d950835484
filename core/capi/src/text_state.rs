//! What an engine keeps of the text that it is at.

use crate::source::{Checked, OMEX_BLOCK, Tables};
use crate::status::Status;
use omex_core::image::ImageHeader;
use omex_core::sample::{Sampler, Sampling};
use omex_core::token::{Decoder, OpenError, Tokenizer};

/// The text that an engine is at.
pub(crate) struct Text {
    pub(crate) tokenizer: Option<Tokenizer<Tables>>,
    pub(crate) decoder: Decoder,
    pub(crate) sampler: Sampler,
    pub(crate) next: Next,
}

/// What the next token is chosen from.
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Next {
    /// There is none: no token was run.
    Nothing,
    /// The logits of the last pass.
    Logits,
    /// Those that this token, which was chosen last, leads to.
    Behind(u32),
}

impl Text {
    /// Memory for a block of the tokenizer's tables, if they are read.
    pub(crate) fn block_bytes(mapped: bool, header: &ImageHeader) -> u64 {
        if mapped || header.tokenizer.length == 0 { 0 } else { OMEX_BLOCK as u64 }
    }

    /// With the tokenizer of the image, if it has one.
    #[inline(never)]
    pub(crate) fn open(
        source: Checked,
        header: &ImageHeader,
        block: &'static mut [u8],
    ) -> Result<Self, Status> {
        let extent = header.tokenizer;
        let tokenizer = if extent.length == 0 {
            None
        } else {
            let end = extent.offset.saturating_add(extent.length);
            let pages = source.pages(block, OMEX_BLOCK as u32, end)?;
            Some(Tokenizer::open(Tables::open(pages, extent)?)?)
        };
        let sampler = Sampler::new(Sampling::GREEDY);
        Ok(Self { tokenizer, decoder: Decoder::new(false), sampler, next: Next::Nothing })
    }

    pub(crate) fn has_tokenizer(&self) -> bool {
        self.tokenizer.is_some()
    }
}

impl From<OpenError> for Status {
    fn from(error: OpenError) -> Self {
        match error {
            OpenError::Source => Self::Read,
            OpenError::Kind | OpenError::Version | OpenError::Setting => Self::Unsupported,
            _ => Self::Damaged,
        }
    }
}
