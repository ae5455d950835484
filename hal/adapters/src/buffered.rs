//! Pages read from a device into memory that the caller gives.

use core::fmt;
use omex_hal::{PageError, PageErrorKind, PageGeometry, Pager};

/// A device that is read by address.
pub trait Storage {
    /// Bytes that are read together: offsets and lengths are multiples of it.
    const READ_BYTES: u32;

    /// Fills `out` with the bytes from `offset` on.
    ///
    /// # Errors
    /// The device failed, or ends before `out` is full.
    fn read(&mut self, offset: u64, out: &mut [u8]) -> Result<(), StorageError>;
}

/// Why a device was not read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StorageError {
    /// It reported a failure, or did not answer.
    Device,
    /// It ends before the bytes that were asked for.
    End,
}

/// Why a pager can't be set up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SetupError {
    /// The page size is no power of two, not a multiple of what the device reads at once, or so
    /// small that pages can't be numbered.
    PageSize,
    /// The memory given is shorter than one page.
    Memory,
}

impl fmt::Display for SetupError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::PageSize => "the page size does not suit the device",
            Self::Memory => "the memory given is shorter than one page",
        })
    }
}

impl core::error::Error for SetupError {}

/// The number of pages of `page_size` bytes in `length` bytes.
pub(crate) fn page_count(length: u64, page_size: u32) -> Result<u32, SetupError> {
    if !page_size.is_power_of_two() {
        return Err(SetupError::PageSize);
    }
    u32::try_from(length.div_ceil(u64::from(page_size))).map_err(|_| SetupError::PageSize)
}

/// Reads pages from a [`Storage`] into a window of consecutive pages.
///
/// A page that follows on the window is read together with those behind it, twice as many as the
/// window held, up to what the memory holds, in one call of the device; any other page is read alone.
/// So a weight stream soon costs few and long reads, a jump costs no more than its page, and a short
/// stream behind a jump, as an embedding's row is, not much more than its pages.
#[derive(Debug)]
pub struct BufferedPager<'m, S> {
    storage: S,
    memory: &'m mut [u8],
    geometry: PageGeometry,
    length: u64,
    /// The first page in the window, and how many there are.
    first: u32,
    resident: u32,
}

impl<'m, S: Storage> BufferedPager<'m, S> {
    /// Pages of `page_size` bytes in the first `length` bytes of `storage`, read into `memory`,
    /// which holds at least one page.
    ///
    /// # Errors
    /// A page size that does not suit the device, or memory shorter than a page.
    pub fn new(
        storage: S,
        memory: &'m mut [u8],
        page_size: u32,
        length: u64,
    ) -> Result<Self, SetupError> {
        let pages = page_count(length, page_size)?;
        if S::READ_BYTES == 0 || !page_size.is_multiple_of(S::READ_BYTES) {
            return Err(SetupError::PageSize);
        }
        if memory.len() < page_size as usize {
            return Err(SetupError::Memory);
        }
        let geometry = PageGeometry { page_size, pages };
        Ok(Self { storage, memory, geometry, length, first: 0, resident: 0 })
    }

    fn page_size(&self) -> usize {
        self.geometry.page_size as usize
    }

    fn is_resident(&self, page: u32) -> bool {
        page.checked_sub(self.first).is_some_and(|index| index < self.resident)
    }

    /// Bytes of the data from `page` on.
    fn bytes_from(&self, page: u32) -> u64 {
        self.length.saturating_sub(u64::from(page) * u64::from(self.geometry.page_size))
    }

    /// Makes `page` the first of the window.
    fn fill(&mut self, page: u32) -> Result<(), PageError> {
        let follows = page == self.first.saturating_add(self.resident);
        let room = u32::try_from(self.memory.len() / self.page_size().max(1)).unwrap_or(u32::MAX);
        let ahead = if follows { self.resident.saturating_mul(2).min(room).max(1) } else { 1 };
        let ahead = ahead.min(self.geometry.pages - page);
        (self.first, self.resident) = (page, 0);
        // A failure on the way ahead must not be blamed on the page that is wanted now.
        let read = match self.read(page, ahead) {
            Err(_) if ahead > 1 => self.read(page, 1),
            read => read,
        };
        self.resident = read.map_err(|e| {
            let kind = match e {
                StorageError::Device => PageErrorKind::Device,
                StorageError::End => PageErrorKind::Truncated,
            };
            PageError { page, kind }
        })?;
        Ok(())
    }

    /// Reads `count` pages and returns how many there are now.
    fn read(&mut self, page: u32, count: u32) -> Result<u32, StorageError> {
        let room = count as usize * self.page_size();
        let wanted = self.bytes_from(page).next_multiple_of(u64::from(S::READ_BYTES));
        let length = usize::try_from(wanted).unwrap_or(usize::MAX).min(room);
        let out = self.memory.get_mut(..length).ok_or(StorageError::End)?;
        let offset = u64::from(page) * u64::from(self.geometry.page_size);
        self.storage.read(offset, out)?;
        Ok(count)
    }
}

impl<S: Storage> Pager for BufferedPager<'_, S> {
    fn geometry(&self) -> PageGeometry {
        self.geometry
    }

    /// Does nothing: reading blocks, so there is nothing to gain before the page is wanted.
    fn prefetch(&mut self, _page: u32) {}

    fn page(&mut self, page: u32) -> Result<&[u8], PageError> {
        let out_of_range = PageError { page, kind: PageErrorKind::OutOfRange };
        if page >= self.geometry.pages {
            return Err(out_of_range);
        }
        if !self.is_resident(page) {
            self.fill(page)?;
        }
        let start = (page - self.first) as usize * self.page_size();
        let resident = (self.resident - (page - self.first)) as usize * self.page_size();
        let length = usize::try_from(self.bytes_from(page)).unwrap_or(usize::MAX).min(resident);
        self.memory.get(start..start + length).ok_or(out_of_range)
    }

    /// Forgets `page` and those read behind it.
    fn discard(&mut self, page: u32) {
        if self.is_resident(page) {
            self.resident = page - self.first;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::conformance;
    use crate::testing::{Disk, weights};

    #[test]
    fn conforms_for_every_window_and_length() {
        let weights = weights::<5000>();
        for length in [0, 1, 511, 512, 513, 2048, 5000] {
            for pages in 1..6 {
                let mut memory = [0; 6 * 512];
                let disk = Disk::new(&weights[..length]);
                let memory = &mut memory[..pages * 512 + 100];
                let mut pager = BufferedPager::new(disk, memory, 512, length as u64).unwrap();
                assert_eq!(conformance::check(&mut pager, &weights[..length]), Ok(()));
            }
        }
    }

    #[test]
    fn a_stream_is_read_ahead_and_a_jump_is_not() {
        let weights = weights::<{ 12 * 512 }>();
        let mut memory = [0; 4 * 512];
        let length = weights.len() as u64;
        let mut pager = BufferedPager::new(Disk::new(&weights), &mut memory, 512, length).unwrap();
        for page in [7, 0, 1, 2, 3, 4, 5] {
            pager.page(page).unwrap();
        }
        let reads: &[_] = &[(7 * 512, 512), (0, 512), (512, 2 * 512), (3 * 512, 4 * 512)];
        assert_eq!(pager.storage.reads(), reads);
    }

    #[test]
    fn a_failure_ahead_is_reported_for_its_own_page() {
        let weights = weights::<{ 4 * 512 }>();
        let mut memory = [0; 4 * 512];
        let mut disk = Disk::new(&weights);
        disk.broken = Some(2 * 512);
        let mut pager = BufferedPager::new(disk, &mut memory, 512, 4 * 512).unwrap();
        assert_eq!(pager.page(0).unwrap(), &weights[..512]);
        assert_eq!(pager.page(1).unwrap(), &weights[512..1024]);
        assert_eq!(pager.page(2).unwrap_err(), PageError { page: 2, kind: PageErrorKind::Device });
        assert_eq!(pager.page(3).unwrap(), &weights[1536..]);
    }

    #[test]
    fn a_device_that_ends_early_truncates() {
        let weights = weights::<700>();
        let mut memory = [0; 512];
        let mut pager = BufferedPager::new(Disk::new(&weights), &mut memory, 512, 2000).unwrap();
        assert!(pager.page(0).is_ok());
        assert_eq!(pager.page(1).unwrap_err().kind, PageErrorKind::Truncated);
    }

    #[test]
    fn setups_that_cannot_work_are_refused() {
        let setup = |page_size, memory: &mut [u8]| {
            BufferedPager::new(Disk::new(&[]), memory, page_size, 1 << 40).err()
        };
        assert_eq!(setup(500, &mut [0; 512]), Some(SetupError::PageSize));
        assert_eq!(setup(2, &mut [0; 512]), Some(SetupError::PageSize));
        assert_eq!(setup(1024, &mut [0; 512]), Some(SetupError::Memory));
        assert_eq!(setup(512, &mut [0; 512]), None);
    }
}
