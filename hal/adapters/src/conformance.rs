//! What every [`Pager`] must do, as functions that try it.
//!
//! It needs neither memory nor `std`, so it runs on the device as well as in a test.

use core::fmt;
use core::ops::Range;
use omex_hal::{PageError, PageErrorKind, Pager};

/// The first thing that a pager does wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Violation {
    /// The page that was asked for.
    pub page: u32,
    /// What is wrong.
    pub rule: Rule,
}

/// What a pager must keep to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rule {
    /// The number of pages is that of the data, and their size a power of two.
    Geometry,
    /// A page that exists can be read.
    Readable(PageError),
    /// A page is a whole page, or all that is left of the data; of pagers that are mapped, always that.
    Length,
    /// The bytes are the data's, however many pages are returned at once.
    Bytes,
    /// A page past the end is an error that says so and names the page.
    OutOfRange,
    /// What was returned last stays where it is, and each of its pages is returned from there.
    Stays,
    /// What was returned last is not read again, and what is announced is read once.
    ReadAgain,
    /// A page that was discarded is read anew.
    NotReadAnew,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let page = self.page;
        match self.rule {
            Rule::Geometry => write!(f, "the geometry does not fit the data"),
            Rule::Readable(error) => write!(f, "page {page} exists, but {error}"),
            Rule::Length => write!(f, "page {page} has too few or too many bytes"),
            Rule::Bytes => write!(f, "page {page} has other bytes than the data"),
            Rule::Stays => write!(f, "page {page} was in what was returned last, but did not stay"),
            Rule::ReadAgain => write!(f, "page {page} is read more than once"),
            Rule::NotReadAnew => write!(f, "page {page} was discarded, but is not read anew"),
            Rule::OutOfRange => write!(f, "page {page} is past the end, which is not reported"),
        }
    }
}

impl core::error::Error for Violation {}

/// Reads all pages of `pager` in many ways, and compares them with `expected`.
///
/// # Errors
/// The first rule that is broken.
pub fn check(pager: &mut dyn Pager, expected: &[u8]) -> Result<(), Violation> {
    let geometry = pager.geometry();
    let pages = geometry.pages;
    let fits = expected.len().div_ceil(geometry.page_size.max(1) as usize) == pages as usize;
    if !geometry.page_size.is_power_of_two() || !fits {
        return Err(Violation { page: 0, rule: Rule::Geometry });
    }
    let mut suite = Suite { pager, expected, page_size: geometry.page_size as usize };
    // Front to back and over again, as weights are used.
    for page in (0..pages).chain(0..pages) {
        suite.page(page)?;
    }
    // Back to front, twice each, and by leaps.
    for page in (0..pages).rev() {
        suite.page(page)?;
        suite.page(page)?;
    }
    for step in [3, 7] {
        for page in (0..pages).map(|i| i * step % pages) {
            suite.page(page)?;
        }
    }
    suite.stays(pages)?;
    suite.announcements(pages)?;
    suite.ends(pages)
}

/// The most pages that [`check_reads`] announces at once.
const MOST: usize = 5;

/// Tries what [`check`] can't see: when a device that copies is read. `reads` says how often each of
/// `pages` was read from it so far; no read ahead brings these unless some of them are asked for or
/// announced.
///
/// # Errors
/// The first rule that is broken.
pub fn check_reads(
    pager: &mut dyn Pager,
    pages: Range<u32>,
    reads: &dyn Fn(u32) -> u32,
) -> Result<(), Violation> {
    for page in pages.clone() {
        let broken = |rule| Violation { page, rule };
        let before = reads_of_page(pager, page, reads)?;
        pager.want(page..page.saturating_add(3).min(pages.end));
        if reads_of_page(pager, page, reads)? != before {
            return Err(broken(Rule::ReadAgain));
        }
        pager.discard(page);
        if reads_of_page(pager, page, reads)? == before {
            return Err(broken(Rule::NotReadAnew));
        }
    }
    for count in [1, 2, MOST as u32] {
        let leaps =
            pages.clone().map(|page| pages.start + (page - pages.start) * 7 % pages.len() as u32);
        for first in leaps {
            announced_once(pager, first..first.saturating_add(count).min(pages.end), reads)?;
        }
    }
    Ok(())
}

/// How often a page was read, now that it was asked for.
fn reads_of_page(
    pager: &mut dyn Pager,
    page: u32,
    reads: &dyn Fn(u32) -> u32,
) -> Result<u32, Violation> {
    let found = pager.page(page).map(|_| reads(page));
    found.map_err(|error| Violation { page, rule: Rule::Readable(error) })
}

/// Pages that are announced together are read once at most by the time that all were asked for.
fn announced_once(
    pager: &mut dyn Pager,
    pages: Range<u32>,
    reads: &dyn Fn(u32) -> u32,
) -> Result<(), Violation> {
    let mut before = [0; MOST];
    before.iter_mut().zip(pages.clone()).for_each(|(count, page)| *count = reads(page));
    pager.want(pages.clone());
    for page in pages.clone() {
        reads_of_page(pager, page, reads)?;
    }
    match before.into_iter().zip(pages).find(|(before, page)| reads(*page) > before + 1) {
        Some((_, page)) => Err(Violation { page, rule: Rule::ReadAgain }),
        None => Ok(()),
    }
}

struct Suite<'s> {
    pager: &'s mut dyn Pager,
    expected: &'s [u8],
    page_size: usize,
}

impl Suite<'_> {
    fn page(&mut self, page: u32) -> Result<(), Violation> {
        let broken = |rule| Violation { page, rule };
        let rest = self.expected.get(page as usize * self.page_size..).unwrap_or_default();
        let least =
            if self.pager.is_mapped() { rest.len() } else { self.page_size.min(rest.len()) };
        let bytes = self.pager.page(page).map_err(|e| broken(Rule::Readable(e)))?;
        if bytes.len() < least || bytes.len() > rest.len() {
            return Err(broken(Rule::Length));
        }
        if rest.starts_with(bytes) { Ok(()) } else { Err(broken(Rule::Bytes)) }
    }

    /// What was returned last is there again, page by page, whatever is announced meanwhile.
    fn stays(&mut self, pages: u32) -> Result<(), Violation> {
        for first in (0..pages).chain((0..pages).rev()) {
            let broken = |rule| Violation { page: first, rule };
            self.page(first)?;
            let last = self.place(first)?;
            let count = (last.len().div_ceil(self.page_size.max(1)) as u32).min(64);
            let end = first.saturating_add(count);
            for page in (first..end).chain([first]) {
                self.pager.want(page..page.saturating_add(3));
                self.pager.want(0..u32::MAX);
                let place = self.place(page)?;
                let before = (page - first) as usize * self.page_size;
                if place.start != last.start + before || place.end < last.end {
                    return Err(broken(Rule::Stays));
                }
                self.page(page)?;
            }
        }
        Ok(())
    }

    /// The addresses at which a page lies.
    fn place(&mut self, page: u32) -> Result<Range<usize>, Violation> {
        let bytes = self.pager.page(page);
        let bytes = bytes.map_err(|e| Violation { page, rule: Rule::Readable(e) })?.as_ptr_range();
        Ok(bytes.start.addr()..bytes.end.addr())
    }

    /// Announcements, right or wrong, and discarding change no bytes.
    fn announcements(&mut self, pages: u32) -> Result<(), Violation> {
        for page in 0..pages {
            let opposite = pages - 1 - page;
            self.pager.want(page..page + 1);
            self.pager.want(opposite..opposite + 2);
            self.page(page)?;
            self.pager.discard(page);
            self.page(page)?;
            self.pager.discard(opposite);
            self.pager.want(page + 1..pages);
            self.page(page)?;
            self.page(opposite)?;
        }
        let (reversed, empty) = (Range { start: pages, end: 0 }, 0..0);
        for wrong in [pages..u32::MAX, u32::MAX..u32::MAX, reversed, empty, 0..u32::MAX] {
            self.pager.want(wrong);
        }
        self.pager.discard(pages);
        self.pager.discard(u32::MAX);
        (0..pages).try_for_each(|page| self.page(page))
    }

    /// Past the end is an error, which spoils no page.
    fn ends(&mut self, pages: u32) -> Result<(), Violation> {
        for page in [pages, pages.saturating_add(1), u32::MAX] {
            let expected = PageError { page, kind: PageErrorKind::OutOfRange };
            if self.pager.page(page).err() != Some(expected) {
                return Err(Violation { page, rule: Rule::OutOfRange });
            }
        }
        (0..pages).rev().try_for_each(|page| self.page(page))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::weights;
    use crate::{Faults, FaultyPager, SlicePager};
    use core::cell::Cell;
    use omex_hal::PageGeometry;

    #[test]
    fn a_pager_of_other_data_is_found_out() {
        let weights = weights::<2048>();
        let mut other = weights;
        other[1500] ^= 1;
        let mut pager = SlicePager::new(&other, 512).unwrap();
        assert_eq!(check(&mut pager, &weights), Err(Violation { page: 0, rule: Rule::Bytes }));
        assert_eq!(check(&mut pager, &weights[..1024]).unwrap_err().rule, Rule::Geometry);
        assert_eq!(check(&mut pager, &weights[..2047]).unwrap_err().rule, Rule::Length);
    }

    #[test]
    fn a_faulty_pager_is_found_out() {
        let weights = weights::<2048>();
        let kinds = [
            Faults { device_errors: 1_000_000, ..Faults::NONE },
            Faults { flipped_bits: 1_000_000, ..Faults::NONE },
            Faults { truncations: 1_000_000, ..Faults::NONE },
        ];
        for (faults, rule) in kinds.into_iter().zip(["Readable", "Bytes", "Length"]) {
            let mut buffer = [0; 512];
            let inner = SlicePager::new(&weights, 512).unwrap();
            let mut pager = FaultyPager::new(inner, faults, &mut buffer).unwrap();
            let violation = check(&mut pager, &weights).unwrap_err();
            let expected = match rule {
                "Readable" => matches!(violation.rule, Rule::Readable(_)),
                "Bytes" => violation.rule == Rule::Bytes,
                _ => violation.rule == Rule::Length,
            };
            assert!(expected, "{violation}");
        }
    }

    /// Breaks one rule.
    struct Bad<'a> {
        weights: &'a [u8],
        copies: [[u8; 512]; 2],
        turn: usize,
        last: Option<u32>,
        fault: Rule,
        reads: &'a Cell<u32>,
    }

    impl Pager for Bad<'_> {
        fn geometry(&self) -> PageGeometry {
            PageGeometry { page_size: 512, pages: 2 }
        }

        fn want(&mut self, _: Range<u32>) {
            if self.fault == Rule::ReadAgain {
                self.last = None;
            }
        }

        fn page(&mut self, page: u32) -> Result<&[u8], PageError> {
            let bytes = self.weights.as_chunks::<512>().0.get(page as usize);
            let bytes = bytes.ok_or(PageError { page, kind: PageErrorKind::OutOfRange })?;
            if self.last != Some(page) {
                self.reads.update(|reads| reads + 1);
                self.last = Some(page);
            }
            // Reading the same again, to where something else was, would do as well.
            self.turn ^= usize::from(self.fault == Rule::Stays);
            self.copies[self.turn] = *bytes;
            Ok(&self.copies[self.turn])
        }

        fn discard(&mut self, _: u32) {
            self.last = self.last.filter(|_| self.fault == Rule::NotReadAnew);
        }
    }

    #[test]
    fn what_moves_or_is_read_at_the_wrong_time_is_found_out() {
        let (weights, reads) = (weights::<1024>(), Cell::new(0));
        let bad = |fault| {
            let copies = [[0; 512]; 2];
            Bad { weights: &weights, copies, turn: 0, last: None, fault, reads: &reads }
        };
        let count = |_| reads.get();
        assert_eq!(check(&mut bad(Rule::Bytes), &weights), Ok(()));
        assert_eq!(check(&mut bad(Rule::Stays), &weights).unwrap_err().rule, Rule::Stays);
        for fault in [Rule::ReadAgain, Rule::NotReadAnew] {
            let found = check_reads(&mut bad(fault), 0..2, &count);
            assert_eq!(found, Err(Violation { page: 0, rule: fault }));
        }
        assert_eq!(check_reads(&mut bad(Rule::Bytes), 0..1, &count), Ok(()));
    }
}
