//! Where pages of weights come from.

use core::fmt;
use core::ops::Range;

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
/// Pages are asked for in the order in which they lie, over and over; that order is the best one to
/// read ahead in. Where the caller leaves it (for experts, for rows of a table, over parts that are
/// left out), it says with [`Pager::want`] where to.
///
/// # What is promised
///
/// * **Bytes** are what the device gave. The caller verifies them; a pager knows no checksums.
/// * **What was returned last stays.** The bytes that [`Pager::page`] returned remain where they
///   are, read once, until a page outside of them is asked for, or one of them is discarded. Until
///   then each of their pages is returned from the same memory, so what was verified once needs no
///   second look.
/// * **[`Pager::want`] changes nothing that can be seen** but the time that a later
///   [`Pager::page`] takes: it neither moves nor overwrites what was returned last, and what it
///   makes a pager read is read again for nobody.
/// * **After [`Pager::discard`]**, a device that copies is read anew.
/// * **An error spoils nothing**: the same page may be asked for again, and others as before.
///
/// `conformance::check` in the crate `omex-hal-adapters` tries all of this.
pub trait Pager {
    /// The size and number of pages.
    fn geometry(&self) -> PageGeometry;

    /// True if `page`, which was returned last or lies in the bytes that were, will have the same
    /// bytes whenever it is asked for until some page is discarded: verifying it once is enough.
    fn is_stable(&self, _page: u32) -> bool {
        false
    }

    /// True if [`Pager::page`] returns everything from the page to the end of the data, so that no page's edge
    /// cuts anything.
    fn is_mapped(&self) -> bool {
        false
    }

    /// Announces that `pages` will be asked for next, after those announced before, in this order.
    ///
    /// Never waits for data and never fails. Pages past the end are ignored, and so may be any
    /// others: an announcement is a chance to begin reading, and what is not announced is read all
    /// the same. One that is passed over by a later one is not expected any more.
    fn want(&mut self, _pages: Range<u32>) {}

    /// Waits until `page` is resident and returns it, with whatever lies behind it in memory.
    ///
    /// That is [`PageGeometry::page_size`] bytes or more, except where the data end. Mapped flash
    /// and `mmap` return everything up to the end of the mapping, and nothing is copied.
    ///
    /// # Errors
    /// [`PageErrorKind::OutOfRange`] for a page past the end; the device's failures otherwise.
    fn page(&mut self, page: u32) -> Result<&[u8], PageError>;

    /// Forgets a resident copy of `page`, so that the next [`Pager::page`] reads it anew. Others
    /// that were read with it may be forgotten as well.
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
