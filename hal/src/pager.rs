//! Where pages of weights come from.

use core::fmt;

/// The size and number of a device's pages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PageGeometry {
    /// Bytes a page; a power of two. The last page may be shorter.
    pub page_size: u32,
    /// Number of pages.
    pub pages: u32,
}

/// A source of read-only pages.
///
/// A page is at least [`PageGeometry::page_size`] bytes long, except where the data end. An
/// implementation whose next pages lie behind this one in memory may return a longer slice:
/// mapped flash and `mmap` return everything up to the end of the mapping, and nothing is copied.
///
/// Pages are asked for in the order of use, over and over; that order is the best one to read
/// ahead in.
pub trait Pager {
    /// The size and number of pages.
    fn geometry(&self) -> PageGeometry;

    /// True if `page`, once read, stays as it is, so that checking it once is enough.
    fn is_stable(&self, _page: u32) -> bool {
        false
    }

    /// Hints that `page` is wanted soon. Never blocks, never fails.
    fn prefetch(&mut self, page: u32);

    /// Waits until `page` is resident and returns it.
    ///
    /// # Errors
    /// [`PageErrorKind::OutOfRange`] for a page past the end; the device's failures otherwise.
    fn page(&mut self, page: u32) -> Result<&[u8], PageError>;

    /// Forgets a resident copy of `page`, so that the next [`Pager::page`] reads it anew.
    fn discard(&mut self, page: u32);

    /// Asked after every pass: were all bytes what they were when they were checked?
    ///
    /// # Errors
    /// [`PageErrorKind::Truncated`] or [`PageErrorKind::Changed`] if pages that are not copied
    /// changed while they were in use.
    fn intact(&self) -> Result<(), PageError> {
        Ok(())
    }
}

/// A page that could not be had.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PageError {
    /// The page's number.
    pub page: u32,
    /// What went wrong.
    pub kind: PageErrorKind,
}

/// What went wrong with a page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum PageErrorKind {
    /// There is no such page.
    OutOfRange,
    /// The device reported a failure, or did not answer.
    Device,
    /// The device has fewer bytes than the page needs.
    Truncated,
    /// The bytes do not match their checksum, even when read again.
    Checksum,
    /// The bytes changed while they were in use.
    Changed,
    /// Nobody wants it any more: the caller asked the pager to stop.
    Cancelled,
}

impl fmt::Display for PageError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let what = match self.kind {
            PageErrorKind::OutOfRange => "is past the end of the device",
            PageErrorKind::Device => "could not be read",
            PageErrorKind::Truncated => "is cut short",
            PageErrorKind::Checksum => "does not match its checksum, read twice",
            PageErrorKind::Changed => "is in a file that changed while it was in use",
            PageErrorKind::Cancelled => "was not read: the work was cancelled",
        };
        write!(f, "page {} {what}", self.page)
    }
}

impl core::error::Error for PageError {}
