//! Where a session's pages come from.

use crate::cancel::Cancel;
use crate::pager::{MappedPager, Progress, StreamPager};
use omex_hal::{PageError, PageErrorKind, PageGeometry, Pager};
use std::ops::Range;
use std::sync::Arc;

/// What a plan says that weights come from.
pub(super) enum Source {
    Mapped(MappedPager),
    Stream(Box<StreamPager>),
}

impl Source {
    /// What was read so far, unless pages are mapped.
    pub(super) fn progress(&self) -> Option<Arc<Progress>> {
        match self {
            Self::Mapped(_) => None,
            Self::Stream(pager) => Some(pager.progress()),
        }
    }

    fn pager(&self) -> &dyn Pager {
        match self {
            Self::Mapped(pager) => pager,
            Self::Stream(pager) => &**pager,
        }
    }

    fn pager_mut(&mut self) -> &mut dyn Pager {
        match self {
            Self::Mapped(pager) => pager,
            Self::Stream(pager) => &mut **pager,
        }
    }
}

/// Pages, until the work is cancelled: a pass over a large model takes long.
pub(super) struct Pages {
    pub(super) source: Source,
    pub(super) cancel: Cancel,
}

impl Pager for Pages {
    fn geometry(&self) -> PageGeometry {
        self.source.pager().geometry()
    }

    fn is_stable(&self, page: u32) -> bool {
        self.source.pager().is_stable(page)
    }

    fn want(&mut self, pages: Range<u32>) {
        self.source.pager_mut().want(pages);
    }

    fn page(&mut self, page: u32) -> Result<&[u8], PageError> {
        if self.cancel.is_cancelled() {
            return Err(PageError { page, kind: PageErrorKind::Cancelled });
        }
        self.source.pager_mut().page(page)
    }

    fn discard(&mut self, page: u32) {
        self.source.pager_mut().discard(page);
    }

    fn intact(&self) -> Result<(), PageError> {
        self.source.pager().intact()
    }
}
