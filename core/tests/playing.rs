//! The image of the first example, played from the smallest pieces of memory that it fits into.
#![expect(clippy::indexing_slicing, clippy::unwrap_used, reason = "a test may panic")]

use omex_core::arena::ALIGNMENT;
use omex_core::engine::{Engine, Wanted};
use omex_core::error::LoadError;
use omex_core::image;
use omex_core::sample::greedy;
use omex_core::simd::PORTABLE;
use omex_hal::{PageError, PageErrorKind, PageGeometry, Pager, Serial};

const PAGE: usize = 512;

/// Pages that are copied into a buffer of one page.
struct Card<'a> {
    image: &'a [u8],
    page: [u8; PAGE],
}

impl Pager for Card<'_> {
    fn geometry(&self) -> PageGeometry {
        PageGeometry { page_size: PAGE as u32, pages: self.image.len().div_ceil(PAGE) as u32 }
    }

    fn page(&mut self, page: u32) -> Result<&[u8], PageError> {
        let bytes = self.image.chunks(PAGE).nth(page as usize);
        let bytes = bytes.ok_or(PageError { page, kind: PageErrorKind::OutOfRange })?;
        self.page[..bytes.len()].copy_from_slice(bytes);
        Ok(&self.page[..bytes.len()])
    }

    fn discard(&mut self, _page: u32) {}
}

fn card() -> Card<'static> {
    Card { image: include_bytes!("words.img"), page: [0; PAGE] }
}

/// Memory that begins `offset` bytes behind a multiple of the alignment.
fn memory(bytes: usize, offset: usize) -> (Vec<u8>, usize) {
    let memory = vec![0; bytes + 2 * ALIGNMENT];
    let aligned = memory.as_ptr().align_offset(ALIGNMENT);
    (memory, aligned + offset)
}

#[test]
fn exactly_the_planned_memory_is_enough() {
    let mut card = card();
    let mut tables = [0; 1024];
    let (_, model, _) = image::open(&mut card, PORTABLE.crc32c, &mut tables).unwrap();
    let bytes = model.layout(&card).unwrap().total() as usize;
    let (mut memory, start) = memory(bytes, 0);
    let memory = &mut memory[start..start + bytes];
    let mut engine = Engine::new(model, memory, &mut card, &PORTABLE, &Serial).unwrap();
    engine.forward(&[3, 4], Wanted::Last).unwrap();
    for expected in 5..=10 {
        let token = greedy(engine.logits(0));
        assert_eq!(token, expected);
        engine.forward(&[token], Wanted::Last).unwrap();
    }
    assert_eq!(greedy(engine.logits(0)), 2, "the end of the text");
}

#[test]
fn less_memory_or_an_odd_address_is_refused() {
    let mut card = card();
    let mut tables = [0; 1024];
    let (_, model, _) = image::open(&mut card, PORTABLE.crc32c, &mut tables).unwrap();
    let needed = model.layout(&card).unwrap().total();
    for (bytes, offset, expected) in [
        (needed - 1, 0, LoadError::Memory { needed, given: needed - 1 }),
        (needed, 1, LoadError::Alignment),
        (needed, 8, LoadError::Alignment),
    ] {
        let (mut memory, start) = memory(bytes as usize, offset);
        let memory = &mut memory[start..start + bytes as usize];
        let refused = Engine::new(model.clone(), memory, &mut card, &PORTABLE, &Serial);
        assert_eq!(refused.err(), Some(expected));
    }
}
