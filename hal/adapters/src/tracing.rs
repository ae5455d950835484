//! Tells what is asked of a pager.

use core::ops::Range;
use omex_hal::{PageError, PageGeometry, Pager};

/// One call of a pager.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// Pages were announced.
    Want {
        /// The first of them.
        first: u32,
        /// The first one behind them.
        end: u32,
    },
    /// The page was asked for and returned.
    Page {
        /// Its number.
        page: u32,
        /// Bytes returned: this page's and perhaps those behind it.
        bytes: usize,
        /// True if it is the page of the call before.
        again: bool,
        /// True if it follows on the page of the call before.
        sequential: bool,
    },
    /// A page was asked for and could not be had.
    Failed(PageError),
    /// The page was discarded.
    Discard(u32),
}

/// Sums over events.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Pages asked for, each run of calls for one page counted once.
    pub pages: u64,
    /// Those of them that follow on the page before.
    pub sequential: u64,
    /// Bytes of those pages.
    pub bytes: u64,
    /// Failures.
    pub failures: u64,
    /// Discarded pages.
    pub discards: u64,
}

impl Counters {
    /// Adds an event.
    pub fn add(&mut self, event: Event) {
        match event {
            Event::Page { bytes, again: false, sequential, .. } => {
                self.pages += 1;
                self.sequential += u64::from(sequential);
                self.bytes += bytes as u64;
            }
            Event::Failed(_) => self.failures += 1,
            Event::Discard(_) => self.discards += 1,
            Event::Page { .. } | Event::Want { .. } => {}
        }
    }
}

/// A pager that reports every call to a closure.
///
/// ```
/// # use omex_hal::Pager;
/// # use omex_hal_adapters::{Counters, SlicePager, TracingPager};
/// let mut counters = Counters::default();
/// let pager = SlicePager::new(&[0; 2048], 512)?;
/// let mut pager = TracingPager::new(pager, |event| counters.add(event));
/// pager.page(0)?;
/// pager.page(1)?;
/// assert_eq!((counters.pages, counters.sequential), (2, 1));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct TracingPager<P, F> {
    inner: P,
    report: F,
    last: Option<u32>,
}

impl<P: Pager, F: FnMut(Event)> TracingPager<P, F> {
    /// Reports calls of `inner`.
    pub fn new(inner: P, report: F) -> Self {
        Self { inner, report, last: None }
    }

    /// The pager inside.
    pub fn into_inner(self) -> P {
        self.inner
    }
}

impl<P: Pager, F: FnMut(Event)> Pager for TracingPager<P, F> {
    fn geometry(&self) -> PageGeometry {
        self.inner.geometry()
    }

    fn is_stable(&self, page: u32) -> bool {
        self.inner.is_stable(page)
    }

    fn is_mapped(&self) -> bool {
        self.inner.is_mapped()
    }

    fn want(&mut self, pages: Range<u32>) {
        (self.report)(Event::Want { first: pages.start, end: pages.end });
        self.inner.want(pages);
    }

    fn page(&mut self, page: u32) -> Result<&[u8], PageError> {
        let last = self.last.replace(page);
        let result = self.inner.page(page);
        (self.report)(match result {
            Ok(bytes) => Event::Page {
                page,
                bytes: bytes.len(),
                again: last == Some(page),
                sequential: last.and_then(|last| last.checked_add(1)) == Some(page),
            },
            Err(error) => Event::Failed(error),
        });
        result
    }

    fn discard(&mut self, page: u32) {
        (self.report)(Event::Discard(page));
        self.inner.discard(page);
    }

    fn intact(&self) -> Result<(), PageError> {
        self.inner.intact()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Disk, weights};
    use crate::{BufferedPager, SlicePager, conformance};
    use omex_hal::PageErrorKind;

    #[test]
    fn conforms_and_passes_everything_on() {
        let weights = weights::<2000>();
        let inner = SlicePager::new(&weights, 512).unwrap();
        let mut calls = 0;
        let mut pager = TracingPager::new(inner, |_| calls += 1);
        assert!(pager.is_stable(0));
        assert_eq!(conformance::check(&mut pager, &weights), Ok(()));
        assert!(calls > 0);
    }

    #[test]
    fn calls_are_reported_as_they_come() {
        let weights = weights::<1024>();
        let mut memory = [0; 512];
        let inner = BufferedPager::new(Disk::new(&weights), &mut memory, 512, 1024).unwrap();
        let mut seen = [const { None }; 8];
        let mut count = 0;
        let mut pager = TracingPager::new(inner, |event| {
            seen[count] = Some(event);
            count += 1;
        });
        pager.want(1..3);
        for page in [0, 0, 1, 2] {
            let _ = pager.page(page);
        }
        pager.discard(1);
        let page = |page, again, sequential| Event::Page { page, bytes: 512, again, sequential };
        let failed = Event::Failed(PageError { page: 2, kind: PageErrorKind::OutOfRange });
        let expected = [
            Event::Want { first: 1, end: 3 },
            page(0, false, false),
            page(0, true, false),
            page(1, false, true),
            failed,
            Event::Discard(1),
        ];
        assert!(seen.into_iter().flatten().eq(expected));
    }

    #[test]
    fn counters_add_up() {
        let mut counters = Counters::default();
        let page = Event::Page { page: 3, bytes: 512, again: false, sequential: true };
        let again = Event::Page { page: 3, bytes: 512, again: true, sequential: false };
        let failed = Event::Failed(PageError { page: 9, kind: PageErrorKind::Device });
        for event in
            [page, again, page, failed, Event::Discard(3), Event::Want { first: 4, end: 5 }]
        {
            counters.add(event);
        }
        let expected = Counters { pages: 2, sequential: 2, bytes: 1024, failures: 1, discards: 1 };
        assert_eq!(counters, expected);
    }
}
