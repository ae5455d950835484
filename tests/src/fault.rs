//! A pager that fails when it is told to.

use omex_hal::{PageError, PageErrorKind, PageGeometry, Pager};

/// What goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// A bit is read wrongly: this one of the page.
    Flip(u32),
    /// The device reports an error.
    Device,
}

/// Pages of a byte string, one tile in memory at a time, as a board reads them from a card.
pub struct FaultyPager {
    bytes: Vec<u8>,
    page_size: u32,
    /// The first page in memory, and the bytes from there on.
    resident: Option<(u32, Vec<u8>)>,
    /// Pages of a tile.
    pub tile_pages: u32,
    /// The page that fails, how, and how many more reads of it do.
    pub fault: Option<(u32, Fault, u32)>,
    /// Reads of any page so far.
    pub reads: u32,
}

impl FaultyPager {
    /// A pager over the bytes of a device.
    #[must_use]
    pub fn new(bytes: Vec<u8>, page_size: u32) -> Self {
        Self { bytes, page_size, resident: None, tile_pages: 1, fault: None, reads: 0 }
    }

    fn read(&mut self, page: u32) -> Result<Vec<u8>, PageError> {
        self.reads += 1;
        let size = self.page_size as usize;
        let Some(bytes) = self.bytes.chunks(size).nth(page as usize) else {
            return Err(PageError { page, kind: PageErrorKind::OutOfRange });
        };
        let mut bytes = bytes.to_vec();
        if let Some((at, fault, times)) = &mut self.fault
            && *at == page
            && *times > 0
        {
            *times -= 1;
            match fault {
                Fault::Flip(bit) => bytes[*bit as usize / 8] ^= 1 << (*bit % 8),
                Fault::Device => return Err(PageError { page, kind: PageErrorKind::Device }),
            }
        }
        Ok(bytes)
    }

    fn pages(&self) -> u32 {
        self.bytes.len().div_ceil(self.page_size as usize) as u32
    }

    /// How many bytes of the tile in memory lie before a page, if the page is in it.
    fn before(&self, page: u32) -> Option<usize> {
        let (first, bytes) = self.resident.as_ref()?;
        let before = page.checked_sub(*first)? as usize * self.page_size as usize;
        (before < bytes.len()).then_some(before)
    }
}

impl Pager for FaultyPager {
    fn geometry(&self) -> PageGeometry {
        PageGeometry { page_size: self.page_size, pages: self.pages() }
    }

    fn page(&mut self, page: u32) -> Result<&[u8], PageError> {
        if self.before(page).is_none() {
            self.resident = None;
            let mut tile = self.read(page)?;
            for next in page + 1..(page + self.tile_pages).min(self.pages()) {
                tile.extend(self.read(next)?);
            }
            self.resident = Some((page, tile));
        }
        let before = self.before(page).unwrap_or_default();
        Ok(self.resident.as_ref().map(|(_, bytes)| &bytes[before..]).unwrap_or_default())
    }

    fn discard(&mut self, page: u32) {
        if self.before(page).is_some() {
            self.resident = None;
        }
    }
}
