//! Pages read from a device into memory that the caller gives.

use crate::announced::Announced;
use core::fmt;
use core::ops::Range;
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

    /// Hints that the next read begins at `offset`, so that a device that takes time to find its
    /// place may begin. Never waits for data, never fails.
    fn want(&mut self, _offset: u64) {}
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
/// Pages that were announced are read together, and none behind them. So a weight stream soon costs
/// few and long reads, a jump costs no more than its page, and what is announced, as an embedding's
/// row is, costs exactly its pages.
#[derive(Debug)]
pub struct BufferedPager<'m, S> {
    storage: S,
    memory: &'m mut [u8],
    geometry: PageGeometry,
    length: u64,
    /// The first page in the window, and how many there are.
    first: u32,
    resident: u32,
    announced: Announced,
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
        let announced = Announced::default();
        Ok(Self { storage, memory, geometry, length, first: 0, resident: 0, announced })
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
        let room = u32::try_from(self.memory.len() / self.page_size().max(1)).unwrap_or(u32::MAX);
        let follows = page == self.first.saturating_add(self.resident);
        let ahead = match self.announced.reach(page) {
            Some(announced) => announced,
            None if follows => self.resident.saturating_mul(2),
            None => 1,
        };
        // `clamp` panics where its bounds cross, which the compiler can't rule out.
        let ahead = ahead.min(room).min(self.geometry.pages.saturating_sub(page)).max(1);
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
        if let Some(next) = self.announced.pass(page.saturating_add(self.resident)) {
            self.expect(next);
        }
        Ok(())
    }

    /// Has the device go to a page, unless that is in the window.
    fn expect(&mut self, page: u32) {
        if !self.is_resident(page) {
            self.storage.want(u64::from(page) * u64::from(self.geometry.page_size));
        }
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

    /// The device goes to the first announced page; the memory holds what was returned last, so
    /// nothing is read before it is asked for.
    fn want(&mut self, pages: Range<u32>) {
        let pages = pages.start..pages.end.min(self.geometry.pages);
        if pages.is_empty() {
            return;
        }
        if self.announced.is_empty() {
            self.expect(pages.start);
        }
        self.announced.push(pages);
    }

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
    use core::cell::Cell;

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
    fn reads_as_rarely_as_is_promised() {
        let weights = weights::<5000>();
        for pages in 1..6 {
            let mut memory = [0; 6 * 512];
            let disk = Counting(Disk::new(&weights), Cell::new([0; 10]));
            let memory = &mut memory[..pages * 512 + 100];
            let mut pager = BufferedPager::new(&disk, memory, 512, 5000).unwrap();
            let reads = |page: u32| disk.1.get()[page as usize];
            assert_eq!(conformance::check_reads(&mut pager, 0..10, &reads), Ok(()));
        }
    }

    /// Counts how often each page is read.
    struct Counting<'a>(Disk<'a>, Cell<[u32; 10]>);

    impl Storage for &Counting<'_> {
        const READ_BYTES: u32 = 4;

        fn read(&mut self, offset: u64, out: &mut [u8]) -> Result<(), StorageError> {
            let mut reads = self.1.get();
            for page in offset / 512..(offset + out.len() as u64).div_ceil(512) {
                reads[page as usize] += 1;
            }
            self.1.set(reads);
            self.0.copy(offset, out)
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
    fn what_is_announced_is_read_together_and_nothing_behind_it() {
        let weights = weights::<{ 40 * 512 }>();
        let mut memory = [0; 4 * 512];
        let length = weights.len() as u64;
        let mut pager = BufferedPager::new(Disk::new(&weights), &mut memory, 512, length).unwrap();
        let pages = |first: u64, count: usize| (first * 512, count * 512);
        pager.want(7..10);
        pager.want(20..26);
        pager.want(2..3);
        for page in [7, 8, 9, 20, 21, 22, 23, 24, 25, 2, 30] {
            assert_eq!(pager.page(page).unwrap()[..512], weights[page as usize * 512..][..512]);
        }
        let reads = [pages(7, 3), pages(20, 4), pages(24, 2), pages(2, 1), pages(30, 1)];
        assert_eq!(pager.storage.reads(), reads);
        // The device is sent on as soon as an announced piece is in memory.
        assert_eq!(pager.storage.wanted(), [7 * 512, 20 * 512, 2 * 512]);
        // Passed over: what was announced before is not expected any more.
        pager.want(5..7);
        pager.want(11..13);
        for page in [11, 12, 5, 6] {
            pager.page(page).unwrap();
        }
        assert_eq!(pager.storage.reads()[5..], [pages(11, 2), pages(5, 1), pages(6, 2)]);
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
