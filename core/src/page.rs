//! Pages of weights: checked on arrival, and read as a stream of whole blocks.

use crate::simd::Kernels;
use core::num::NonZeroU64;
use core::ops::Range;
use core::sync::atomic::{AtomicBool, Ordering};
use omex_hal::{PageError, PageErrorKind, Pager, Parallel};

/// Pieces as long as this are checked on all cores.
const PARALLEL_BYTES: u64 = 256 << 10;

/// Tensors that are looked at to find the next page.
const LOOK_AHEAD: usize = 64;

/// The weights' pages, each checked against its CRC-32C before it is used.
pub struct Pages<'a> {
    pager: &'a mut dyn Pager,
    crc32c: fn(u32, &[u8]) -> u32,
    parallel: &'a dyn Parallel,
    page_size: NonZeroU64,
    /// End of the data; the last page may be short.
    end: u64,
    /// Checksums from page `first_checked` on; pages before it are checked by other means.
    checksums: &'a [[u8; 4]],
    first_checked: u32,
    /// One bit a page, for pagers whose pages stay as they are.
    verified: &'a mut [u8],
    /// The pages checked last, still resident.
    recent: Range<u32>,
    /// Where the tensor in use ends, and the pages that are wanted after it.
    next: Option<(u64, Range<u32>)>,
}

impl<'a> Pages<'a> {
    /// Pages of `pager`, whose data end at `end`, with checksums from page `first_checked` on.
    ///
    /// `verified` holds a bit for every page of a stable pager; with less, pages are checked each
    /// time.
    pub fn new(
        pager: &'a mut dyn Pager,
        kernels: &Kernels,
        parallel: &'a dyn Parallel,
        end: u64,
        checksums: &'a [[u8; 4]],
        first_checked: u32,
        verified: &'a mut [u8],
    ) -> Self {
        let page_size =
            NonZeroU64::new(u64::from(pager.geometry().page_size)).unwrap_or(NonZeroU64::MIN);
        verified.fill(0);
        let crc32c = kernels.crc32c;
        let (recent, next) = (0..0, None);
        Self {
            pager,
            crc32c,
            parallel,
            page_size,
            end,
            checksums,
            first_checked,
            verified,
            recent,
            next,
        }
    }

    /// Says which tensors are read after the one in use, so that leaving the order is announced.
    /// Without this, what lies behind a page is wanted next.
    pub fn expect(&mut self, now: &Range<u64>, later: impl Iterator<Item = Range<u64>>) {
        let end = self.pages_of(now).end;
        let after = |range: Range<u64>| {
            let pages = self.pages_of(&range);
            let pages = if pages.contains(&end.saturating_sub(1)) { end..pages.end } else { pages };
            (!pages.is_empty()).then_some(pages)
        };
        self.next = later.take(LOOK_AHEAD).find_map(after).map(|pages| (now.end, pages));
    }

    /// Takes [`Self::expect`] back.
    pub fn expect_what_lies_behind(&mut self) {
        self.next = None;
    }

    /// Announces that the bytes at these addresses are wanted next, behind those announced before.
    pub fn want(&mut self, addresses: &Range<u64>) {
        let pages = self.pages_of(addresses);
        let ends = [pages.start, pages.end.saturating_sub(1)];
        // What stays as it was verified is in memory.
        if !pages.is_empty() && !ends.into_iter().all(|page| self.is_marked(page)) {
            self.pager.want(pages);
        }
    }

    fn pages_of(&self, addresses: &Range<u64>) -> Range<u32> {
        let page = |page: u64| u32::try_from(page).unwrap_or(u32::MAX);
        let end = addresses.end.div_ceil(self.page_size.get());
        page(addresses.start / self.page_size)..page(end)
    }

    /// Ends a pass.
    ///
    /// # Errors
    /// Pages changed while they were in use.
    pub fn end_pass(&mut self) -> Result<(), PageError> {
        self.pager.intact()
    }

    /// The bytes from `address` on: at least one, at most `limit`, as many as lie in one piece.
    ///
    /// # Errors
    /// The pager's, or a checksum that fails twice.
    pub fn run(&mut self, address: u64, limit: u64) -> Result<&[u8], PageError> {
        let page = u32::try_from(address / self.page_size).unwrap_or(u32::MAX);
        let offset = (address % self.page_size) as usize;
        let pages = self.verify(page, offset as u64 + limit)?;
        let read_to = u64::from(pages.end).saturating_mul(self.page_size.get());
        if let Some((_, next)) = self.next.take_if(|(end, _)| *end <= read_to)
            && next.start > pages.end
        {
            self.pager.want(next);
        }
        let bytes = self.pager.page(page)?;
        let length = (u64::from(pages.end - page) * self.page_size.get()).min(bytes.len() as u64);
        let length = length.min(offset as u64 + limit) as usize;
        bytes.get(offset..length).filter(|b| !b.is_empty()).ok_or(truncated(page))
    }

    /// Checks `page` and those behind it in the same piece, up to `bytes` in all; a page that does
    /// not match its checksum is read once more.
    fn verify(&mut self, page: u32, bytes: u64) -> Result<Range<u32>, PageError> {
        let Err(damaged) = self.verify_piece(page, bytes)? else { return Ok(self.recent.clone()) };
        self.recent = 0..0;
        // What is read anew together with it may have other bytes.
        self.verified.fill(0);
        self.pager.discard(damaged);
        match self.verify_piece(page, bytes)? {
            Ok(()) => Ok(self.recent.clone()),
            Err(page) => Err(PageError { page, kind: PageErrorKind::Checksum }),
        }
    }

    /// As [`Self::verify`], once: the inner result is the page that does not match.
    fn verify_piece(&mut self, page: u32, bytes: u64) -> Result<Result<(), u32>, PageError> {
        // After an error, what was resident may be no longer.
        let recent = core::mem::replace(&mut self.recent, 0..0);
        let available = self.pager.page(page)?.len() as u64;
        // Another piece holds what was read with it, which may differ from what was checked.
        if recent.contains(&page) {
            self.recent = recent;
        }
        let wanted =
            u32::try_from(bytes.min(available).div_ceil(self.page_size.get())).unwrap_or(1);
        let pages = page..page.saturating_add(wanted.max(1));
        if pages.clone().all(|page| self.is_verified(page)) {
            self.recent = pages;
            return Ok(Ok(()));
        }
        let all_match = self.match_together(pages.clone())?;
        for next in pages.clone() {
            if !all_match && !self.is_verified(next) && !self.check(page, next)? {
                return Ok(Err(next));
            }
            self.mark(next);
        }
        self.recent = pages;
        Ok(Ok(()))
    }

    /// True if pages that lie in one piece match their checksums, found out on all cores; where
    /// that is not worth it, false.
    fn match_together(&mut self, pages: Range<u32>) -> Result<bool, PageError> {
        let bytes = pages.len() as u64 * self.page_size.get();
        let checksums = pages
            .start
            .checked_sub(self.first_checked)
            .and_then(|first| self.checksums.get(first as usize..)?.get(..pages.len()));
        let Some(checksums) = checksums else { return Ok(false) };
        let cores = self.parallel.cores();
        if cores < 2 || bytes < PARALLEL_BYTES {
            return Ok(false);
        }
        let (page_size, crc32c) = (self.page_size.get() as usize, self.crc32c);
        let rest = self.end.saturating_sub(u64::from(pages.start) * self.page_size.get());
        let piece = self.pager.page(pages.start)?;
        let length = bytes.min(rest).min(piece.len() as u64) as usize;
        let piece = piece.get(..length).unwrap_or_default();
        if piece.len().div_ceil(page_size.max(1)) != pages.len() {
            return Ok(false);
        }
        let share = pages.len().div_ceil(cores.saturating_mul(4)).max(1);
        let differs = AtomicBool::new(false);
        self.parallel.run(pages.len().div_ceil(share), &|task| {
            let pages = piece.chunks(page_size.max(1)).zip(checksums);
            for (bytes, expected) in pages.skip(task * share).take(share) {
                if crc32c(0, bytes) != u32::from_le_bytes(*expected) {
                    differs.store(true, Ordering::Relaxed);
                }
            }
        });
        Ok(!differs.into_inner())
    }

    fn is_verified(&self, page: u32) -> bool {
        self.is_marked(page) || self.recent.contains(&page)
    }

    fn is_marked(&self, page: u32) -> bool {
        self.verified.get(page as usize / 8).is_some_and(|b| b >> (page % 8) & 1 == 1)
    }

    fn mark(&mut self, page: u32) {
        if self.pager.is_stable(page)
            && let Some(byte) = self.verified.get_mut(page as usize / 8)
        {
            *byte |= 1 << (page % 8);
        }
    }

    /// True if `page`, seen in the piece that begins with page `first`, matches its checksum.
    fn check(&mut self, first: u32, page: u32) -> Result<bool, PageError> {
        let Some(index) = page.checked_sub(self.first_checked) else { return Ok(true) };
        let out_of_range = PageError { page, kind: PageErrorKind::OutOfRange };
        let expected = self.checksums.get(index as usize).ok_or(out_of_range)?;
        let start = u64::from(page) * self.page_size.get();
        let length = self.end.saturating_sub(start).min(self.page_size.get());
        let before = u64::from(page - first) * self.page_size.get();
        let piece = self.pager.page(first)?;
        let bytes = usize::try_from(before)
            .ok()
            .and_then(|from| piece.get(from..from.checked_add(length as usize)?));
        let bytes = bytes.ok_or(truncated(page))?;
        Ok((self.crc32c)(0, bytes) == u32::from_le_bytes(*expected))
    }
}

fn truncated(page: u32) -> PageError {
    PageError { page, kind: PageErrorKind::Truncated }
}

/// Reads consecutive units (blocks, or floats) that page edges may cut.
pub struct Stream<'s, 'a> {
    pages: &'s mut Pages<'a>,
    carry: &'s mut [u8],
    address: u64,
    remaining: u64,
    unit: usize,
}

impl<'s, 'a> Stream<'s, 'a> {
    /// `bytes` bytes from `address` on, in units of `unit` bytes, no longer than `carry`.
    pub fn new(
        pages: &'s mut Pages<'a>,
        carry: &'s mut [u8],
        address: u64,
        bytes: u64,
        unit: usize,
    ) -> Self {
        Self { pages, carry, address, remaining: bytes, unit: unit.max(1) }
    }

    /// The next whole units, at least one; `None` at the end.
    ///
    /// # Errors
    /// The pages'.
    pub fn next_units(&mut self) -> Result<Option<&[u8]>, PageError> {
        let unit = (self.unit as u64).max(1);
        if self.remaining < unit {
            return Ok(None);
        }
        let here = self.pages.run(self.address, self.remaining)?.len() as u64;
        let whole = here - here % unit;
        if whole == 0 {
            return self.gather().map(Some);
        }
        let address = self.advance(whole);
        self.pages.run(address, whole).map(Some)
    }

    /// Moves on and returns where the bytes passed over begin.
    fn advance(&mut self, bytes: u64) -> u64 {
        let address = self.address;
        self.address += bytes;
        self.remaining = self.remaining.saturating_sub(bytes);
        address
    }

    /// Puts together one unit that lies on several pages.
    fn gather(&mut self) -> Result<&[u8], PageError> {
        let mut filled = 0;
        let unit = self.unit.min(self.carry.len());
        loop {
            // Where nothing is carried, since the pager said that it is mapped, this is an error.
            let piece = self.pages.run(self.address, (unit - filled) as u64)?;
            let length = piece.len();
            if let Some(space) = self.carry.get_mut(filled..filled + length) {
                space.copy_from_slice(piece);
            }
            filled += length;
            self.advance(length as u64);
            if filled >= unit {
                return Ok(self.carry.get(..unit).unwrap_or_default());
            }
        }
    }
}
