//! What every [`Pager`] must do, as a function that tries it.
//!
//! It needs neither memory nor `std`, so it runs on the device as well as in a test.

use core::fmt;
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
    /// A page is a whole page, or all that is left of the data.
    Length,
    /// The bytes are the data's, however many pages are returned at once.
    Bytes,
    /// A page past the end is an error that says so and names the page.
    OutOfRange,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let page = self.page;
        match self.rule {
            Rule::Geometry => write!(f, "the geometry does not fit the data"),
            Rule::Readable(error) => write!(f, "page {page} exists, but {error}"),
            Rule::Length => write!(f, "page {page} has too few or too many bytes"),
            Rule::Bytes => write!(f, "page {page} has other bytes than the data"),
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
    suite.hints(pages)?;
    suite.ends(pages)
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
        let bytes = self.pager.page(page).map_err(|e| broken(Rule::Readable(e)))?;
        if bytes.len() < self.page_size.min(rest.len()) || bytes.len() > rest.len() {
            return Err(broken(Rule::Length));
        }
        if rest.starts_with(bytes) { Ok(()) } else { Err(broken(Rule::Bytes)) }
    }

    /// Hints, right or wrong, and discarding change no bytes.
    fn hints(&mut self, pages: u32) -> Result<(), Violation> {
        for page in 0..pages {
            self.pager.prefetch(page);
            self.pager.prefetch(pages - 1 - page);
            self.page(page)?;
            self.pager.discard(page);
            self.page(page)?;
            self.pager.discard(pages - 1 - page);
            self.pager.prefetch(page + 1);
            self.page(page)?;
        }
        self.pager.prefetch(pages);
        self.pager.prefetch(u32::MAX);
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
}
