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

/// Pages of a byte string, one in memory at a time, as a board reads them from a card.
pub struct FaultyPager {
    bytes: Vec<u8>,
    page_size: u32,
    resident: Option<(u32, Vec<u8>)>,
    /// The page that fails, how, and how many more reads of it do.
    pub fault: Option<(u32, Fault, u32)>,
    /// Reads of any page so far.
    pub reads: u32,
}

impl FaultyPager {
    /// A pager over the bytes of a device.
    #[must_use]
    pub fn new(bytes: Vec<u8>, page_size: u32) -> Self {
        Self { bytes, page_size, resident: None, fault: None, reads: 0 }
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
}

impl Pager for FaultyPager {
    fn geometry(&self) -> PageGeometry {
        let pages = self.bytes.len().div_ceil(self.page_size as usize);
        PageGeometry { page_size: self.page_size, pages: pages as u32 }
    }

    fn prefetch(&mut self, _page: u32) {}

    fn page(&mut self, page: u32) -> Result<&[u8], PageError> {
        if self.resident.as_ref().is_none_or(|(resident, _)| *resident != page) {
            self.resident = None;
            self.resident = Some((page, self.read(page)?));
        }
        Ok(self.resident.as_ref().map(|(_, bytes)| bytes.as_slice()).unwrap_or_default())
    }

    fn discard(&mut self, page: u32) {
        if self.resident.as_ref().is_some_and(|(resident, _)| *resident == page) {
            self.resident = None;
        }
    }
}
