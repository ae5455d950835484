//! From the card to a model that is ready; what it takes says how it is played.

use crate::card::Card;
use crate::failure::Failure;
#[cfg(feature = "text")]
use crate::generate;
use crate::host::Output;
#[cfg(feature = "int8")]
use crate::infer;
use crate::report::Report;
use omex_core::arena::{ALIGNMENT, Layout};
use omex_core::engine::{Engine, Model};
use omex_core::error::LoadError;
use omex_core::image::{self, Header};
use omex_core::simd::PORTABLE;
use omex_hal::Serial;
use omex_hal_adapters::{Blocks, BufferedPager, SetupError};

/// Why an image is refused whose operations this firmware has, but not what the image takes.
#[cfg(not(all(feature = "text", feature = "int8")))]
const OTHER_KIND: &str = if cfg!(feature = "text") {
    "the image takes arrays: build the firmware with the feature int8"
} else {
    "the image takes tokens: build the firmware with the feature text"
};

/// Plays the image on the card within `arena`, as the command line asks.
///
/// The arena holds, front to back: the image's tables, a block of the tokenizer's tables, the
/// engine's memory, and pages of weights, as many as fit. Each step is a function that is never
/// inlined, so that what it needs of the stack is free again before the next.
///
/// # Errors
/// A command that is none, a card or an image that is damaged, or does not fit the board.
pub fn run(arena: &mut [u8], output: &mut Output) -> Result<(), Failure> {
    let card = Card::start()?;
    let image = Image { header: card.header()?, card: &card };
    let tables_bytes = image.header.resident_bytes();
    let (tables, rest) = split(arena, tables_bytes).map_err(|e| image.load(e))?;
    let model = image.open(tables, rest)?;
    let mut report = Report::new(output, tables_bytes);
    match model.program.header().vocab_size > 0 {
        #[cfg(feature = "text")]
        true => generate::run(&image, &model, rest, &mut report),
        #[cfg(feature = "int8")]
        false => infer::run(&image, &model, rest, &mut report),
        #[cfg(not(all(feature = "text", feature = "int8")))]
        _ => Err(Failure::Task(OTHER_KIND)),
    }
}

/// The image on the card.
pub struct Image<'c> {
    /// The card.
    pub card: &'c Card,
    /// What the image begins with.
    pub header: Header,
}

impl<'c> Image<'c> {
    /// A failure to load.
    pub fn load(&self, error: LoadError) -> Failure {
        Failure::load(error, self.header.page_size)
    }

    /// Loads the tables, through pages in memory that is free afterwards.
    #[inline(never)]
    fn open<'a>(&self, tables: &'a mut [u8], free: &mut [u8]) -> Result<Model<'a>, Failure> {
        let mut pager = self.pages(free)?;
        let opened = image::open(&mut pager, PORTABLE.crc32c, tables);
        opened.map(|(_, model, _)| model).map_err(|error| self.load(error))
    }

    /// The pages, read through `ring`.
    fn pages<'m>(
        &self,
        ring: &'m mut [u8],
    ) -> Result<BufferedPager<'m, Blocks<&'c Card>>, SetupError> {
        let pages = self.header.pages;
        let length = pages.offset.saturating_add(pages.length);
        BufferedPager::new(Blocks(self.card), ring, self.header.page_size, length)
    }

    /// Has `play` use an engine in `memory`; what the engine leaves is for pages.
    ///
    /// # Errors
    /// Too little memory, and those of `play`.
    pub fn with_engine(
        &self,
        model: &Model<'_>,
        memory: &mut [u8],
        report: &mut Report<'_>,
        play: impl FnOnce(&mut Engine<'_>, &mut Report<'_>) -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        let load = |error| self.load(error);
        let layout = Layout::new(&model.program, &model.plan, 0).map_err(load)?;
        let needed = layout.total() + u64::from(self.header.page_size);
        let given = memory.len() as u64;
        if given < needed {
            return Err(load(LoadError::Memory { needed, given }));
        }
        let (memory, ring) = split(memory, layout.total()).map_err(load)?;
        report.memory(memory.len(), ring.len());
        let mut pager = self.pages(ring)?;
        let engine = Engine::new(model.clone(), memory, &mut pager, &PORTABLE, &Serial);
        play(&mut engine.map_err(load)?, report)
    }
}

/// The first `bytes` bytes, rounded up so that what follows is aligned, and the rest.
///
/// # Errors
/// There are fewer.
pub fn split(memory: &mut [u8], bytes: u64) -> Result<(&mut [u8], &mut [u8]), LoadError> {
    let given = memory.len() as u64;
    let place = usize::try_from(bytes).ok().and_then(|b| b.checked_next_multiple_of(ALIGNMENT));
    place
        .and_then(|place| memory.split_at_mut_checked(place))
        .ok_or(LoadError::Memory { needed: bytes, given })
}
