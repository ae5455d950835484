//! Pages that were announced and are not read yet.

use core::ops::Range;

/// How many announcements are remembered.
const MOST: usize = 4;

/// Announcements in the order of use; the oldest give way to new ones.
#[derive(Debug, Default)]
pub(crate) struct Announced {
    /// First page and end of each, in a ring.
    ranges: [(u32, u32); MOST],
    oldest: usize,
    count: usize,
}

impl Announced {
    pub(crate) fn push(&mut self, pages: Range<u32>) {
        if self.count == MOST {
            self.drop_first();
        }
        if let Some(free) = self.ranges.get_mut((self.oldest + self.count) % MOST) {
            *free = (pages.start, pages.end);
            self.count += 1;
        }
    }

    /// How many pages from `page` on were announced, if it was; what was announced before it was
    /// passed over.
    pub(crate) fn reach(&mut self, page: u32) -> Option<u32> {
        let known = (0..self.count).find_map(|passed| {
            let (first, end) = *self.ranges.get((self.oldest + passed) % MOST)?;
            (first..end).contains(&page).then(|| (passed, end - page))
        });
        let (passed, reach) = known?;
        (0..passed).for_each(|_| self.drop_first());
        Some(reach)
    }

    /// Forgets the first announcement if it ends before `page`, and returns what is wanted then.
    pub(crate) fn pass(&mut self, page: u32) -> Option<u32> {
        let (_, end) = self.first()?;
        if end > page {
            return None;
        }
        self.drop_first();
        self.first().map(|(first, _)| first)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.count == 0
    }

    fn first(&self) -> Option<(u32, u32)> {
        self.ranges.get(self.oldest).copied().filter(|_| self.count > 0)
    }

    fn drop_first(&mut self) {
        self.oldest = (self.oldest + 1) % MOST;
        self.count = self.count.saturating_sub(1);
    }
}
