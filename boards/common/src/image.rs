//! An image on a medium, and the engine that plays it.

use crate::failure::Failure;
use crate::medium::Medium;
use omex_core::arena::ALIGNMENT;
use omex_core::engine::{Engine, Model};
use omex_core::error::LoadError;
use omex_core::image::{self, HEADER_BYTES, ImageHeader};
use omex_core::simd::{NATIVE, PORTABLE};
use omex_hal::{Parallel, Serial};
use omex_hal_adapters::{BLOCK_BYTES, SetupError};

/// An image.
pub struct Image<'i, M> {
    /// Where it lies.
    pub medium: &'i M,
    /// What it begins with.
    pub header: ImageHeader,
}

impl<M: Medium> Image<'_, M> {
    /// A failure to load.
    pub fn load(&self, error: LoadError) -> Failure {
        Failure::load(error, self.header.page_size)
    }

    /// Loads the tables, through pages in memory that is free afterwards.
    ///
    /// # Errors
    /// A device or an image that is damaged, or does not fit the board.
    #[inline(never)]
    pub fn open<'a>(&self, tables: &'a mut [u8], free: &mut [u8]) -> Result<Model<'a>, Failure> {
        let mut pager = self.pager(free)?;
        let opened = image::open(&mut pager, PORTABLE.crc32c, tables);
        opened.map(|(_, model, _)| model).map_err(|error| self.load(error))
    }

    /// The pages, read through `ring`.
    fn pager<'m>(&'m self, ring: &'m mut [u8]) -> Result<M::Pager<'m>, SetupError> {
        let pages = self.header.pages;
        let length = pages.offset.saturating_add(pages.length);
        self.medium.pager(ring, self.header.page_size, length)
    }

    /// Has `play` use an engine in `memory`; what the engine leaves is for pages. `play` is told the bytes of both.
    ///
    /// # Errors
    /// Too little memory, and those of `play`.
    pub fn with_engine<R>(
        &self,
        model: &Model<'_>,
        memory: &mut [u8],
        cores: &dyn Parallel,
        play: impl FnOnce(&mut Engine<'_>, [usize; 2]) -> Result<R, Failure>,
    ) -> Result<R, Failure> {
        let load = |error| self.load(error);
        let layout = model.layout(&self.pager(memory)?).map_err(load)?;
        let page = if M::COPIES { self.header.page_size.into() } else { 0 };
        let (needed, given) = (layout.total() + page, memory.len() as u64);
        if given < needed {
            return Err(load(LoadError::Memory { needed, given }));
        }
        let (memory, ring) = split(memory, layout.total()).map_err(load)?;
        let bytes = [memory.len(), ring.len()];
        let mut pager = self.pager(ring)?;
        let engine = Engine::new(model.clone(), memory, &mut pager, &NATIVE, cores);
        play(&mut engine.map_err(load)?, bytes)
    }
}

/// Has `play` use the model of the image on `medium`, within `arena`, on one core.
///
/// # Errors
/// A device or an image that is damaged or does not fit the board, and those of `play`.
pub fn with_model<R>(
    medium: &impl Medium,
    arena: &mut [u8],
    play: impl FnOnce(&mut Engine<'_>) -> Result<R, Failure>,
) -> Result<R, Failure> {
    let image = Image { header: header(medium, arena)?, medium };
    let (tables, rest) = split(arena, image.header.resident_bytes()).map_err(|e| image.load(e))?;
    let model = image.open(tables, rest)?;
    image.with_engine(&model, rest, &Serial, |engine, _| play(engine))
}

/// The header of the image on `medium`, read through memory that is free afterwards.
///
/// # Errors
/// A device or an image that is damaged.
#[inline(never)]
pub fn header(medium: &impl Medium, memory: &mut [u8]) -> Result<ImageHeader, Failure> {
    let mut pager = medium.pager(memory, BLOCK_BYTES as u32, BLOCK_BYTES as u64)?;
    let mut bytes = [0; HEADER_BYTES];
    let read = image::read(&mut pager, 0, &mut bytes);
    let header = read.and_then(|()| ImageHeader::parse(&bytes, PORTABLE.crc32c));
    header.map_err(|error| Failure::load(error, BLOCK_BYTES as u32))
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
