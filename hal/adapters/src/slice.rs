//! Pages in memory that can be addressed.

use crate::buffered::{SetupError, page_count};
use omex_hal::{PageError, PageErrorKind, PageGeometry, Pager};

/// Flash that runs in place, a mapped file, or an array: copies nothing, and answers with all that
/// lies behind a page.
#[derive(Clone, Copy, Debug)]
pub struct SlicePager<'a> {
    bytes: &'a [u8],
    geometry: PageGeometry,
}

impl<'a> SlicePager<'a> {
    /// Pages of `page_size` bytes in `bytes`.
    ///
    /// # Errors
    /// [`SetupError::PageSize`] if `page_size` is no power of two, or there are too many pages.
    pub fn new(bytes: &'a [u8], page_size: u32) -> Result<Self, SetupError> {
        let pages = page_count(bytes.len() as u64, page_size)?;
        Ok(Self { bytes, geometry: PageGeometry { page_size, pages } })
    }
}

impl Pager for SlicePager<'_> {
    fn geometry(&self) -> PageGeometry {
        self.geometry
    }

    fn is_stable(&self, _page: u32) -> bool {
        true
    }

    fn is_mapped(&self) -> bool {
        true
    }

    fn page(&mut self, page: u32) -> Result<&[u8], PageError> {
        let start = u64::from(page) * u64::from(self.geometry.page_size);
        let rest = usize::try_from(start).ok().and_then(|start| self.bytes.get(start..));
        rest.filter(|bytes| !bytes.is_empty())
            .ok_or(PageError { page, kind: PageErrorKind::OutOfRange })
    }

    fn discard(&mut self, _page: u32) {}
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::conformance;
    use crate::testing::weights;

    #[test]
    fn conforms_for_every_length() {
        let weights = weights::<2500>();
        for length in [0, 1, 511, 512, 513, 2048, 2500] {
            let mut pager = SlicePager::new(&weights[..length], 512).unwrap();
            assert_eq!(conformance::check(&mut pager, &weights[..length]), Ok(()));
        }
    }

    #[test]
    fn page_returns_everything_to_the_end() {
        let weights = weights::<2500>();
        let mut pager = SlicePager::new(&weights, 512).unwrap();
        assert_eq!(pager.page(1).unwrap(), &weights[512..]);
    }

    #[test]
    fn odd_page_sizes_are_refused() {
        assert_eq!(SlicePager::new(&[], 0).unwrap_err(), SetupError::PageSize);
        assert_eq!(SlicePager::new(&[], 600).unwrap_err(), SetupError::PageSize);
    }
}
