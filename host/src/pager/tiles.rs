//! How the paged space is cut into tiles: what is read at once, and what is pinned.
//!
//! A pass uses tiles in the same order every time. Of a cycle, whatever is kept saves the same:
//! each pinned tile one read a pass, whichever tile it is. No policy saves more, since every pass
//! uses every tile and memory holds no more of them (LRU, which keeps the newest, saves nothing:
//! what it keeps is wanted last). So what counts is only where pinned tiles lie: evenly spread, the
//! time between two reads is the same all along, and a short ring is enough to overlap them with
//! computing.
//!
//! Nothing here grows with the number of tiles, which would be memory that no plan counts: a model
//! larger than memory has millions. Tiles are numbers, in runs.

use super::Space;
use super::reader::{ALIGNMENT, Buffer};
use std::ops::Range;

/// Reads out of order under way at once.
pub(super) const READS_ASIDE: usize = 16;

/// What a pinned tile takes in the pager's table.
pub(super) const ENTRY_BYTES: usize = size_of::<Option<Buffer>>();

/// Consecutive pages of a file that are read at once.
#[derive(Clone, Copy, Debug)]
pub(super) struct Tile {
    /// The first page.
    pub(super) page: u32,
    /// Number of the file, and the first byte there.
    pub(super) file: usize,
    pub(super) offset: u64,
    /// Bytes; the file's last tile may be shorter than the others.
    pub(super) length: usize,
}

/// The pages and tiles of a file.
#[derive(Clone, Debug)]
struct FileTiles {
    pages: Range<u32>,
    tiles: Range<u32>,
    length: u64,
}

/// Tiles that follow one another in a pass.
#[derive(Clone, Debug)]
struct Run {
    tiles: Range<u32>,
    /// How many come before them.
    before: u32,
}

impl Run {
    /// How many have come when it ends.
    fn end(&self) -> u32 {
        self.before.saturating_add(self.tiles.len() as u32)
    }

    /// The place of one of its tiles.
    fn place(&self, tile: u32) -> Place {
        self.before.saturating_add(tile - self.tiles.start)
    }
}

/// A place in the order of use, as [`Tiles`] counts them.
pub(super) type Place = u32;

/// The tiles of a space, in what order a pass uses them, and which are pinned.
#[derive(Clone, Debug)]
pub struct Tiles {
    files: Vec<FileTiles>,
    /// Tiles in the order of use.
    order: Vec<Run>,
    /// The same, each tile only where it is first used, by rising numbers of the tiles.
    distinct: Vec<Run>,
    /// How many different tiles a pass uses, and how many of them are pinned.
    count: u32,
    pinned: u32,
    /// Bytes of a whole tile.
    pub(super) tile_bytes: usize,
    page_size: u32,
    /// What is read out of order is read in tiles of as many pages, and as many of them are kept.
    aside: (u32, usize),
}

/// Bytes that are read at once out of order, as an embedding's row is, and how many of these are
/// kept, where a plan says nothing else.
const ASIDE: (u32, usize) = (16 << 10, 4);

impl Tiles {
    /// Cuts a space into tiles of `tile_pages` pages. `used` are the ranges of addresses that every
    /// pass uses, in the order of use.
    #[must_use]
    pub fn new(space: &Space, tile_pages: u32, used: impl Iterator<Item = Range<u64>>) -> Self {
        let page_bytes = u64::from(space.page_size);
        let tile_bytes = page_bytes * u64::from(tile_pages.max(1));
        let files = files(space, tile_bytes);
        let (order, distinct, page_size) = (vec![], vec![], space.page_size);
        let tile_bytes = tile_bytes as usize;
        let (count, pinned, aside) = (0, 0, aside(space.page_size));
        let mut tiles =
            Self { files, order, distinct, count, pinned, tile_bytes, page_size, aside };
        for range in used {
            let (first, last) =
                (range.start / page_bytes, range.end.saturating_sub(1) / page_bytes);
            let tile = |page: u64| u32::try_from(page).ok().and_then(|page| tiles.at(page));
            let (Some(first), Some(last)) = (tile(first), tile(last)) else { continue };
            tiles.follow(first, last);
        }
        tiles.find_distinct();
        tiles
    }

    /// Has two tiles and those between them used next.
    fn follow(&mut self, first: u32, last: u32) {
        let before = match self.order.last_mut() {
            // It goes on where the last run ended, with the tile that this one ended in or the next.
            Some(run) if run.tiles.end == first || run.tiles.end == first + 1 => {
                run.tiles.end = run.tiles.end.max(last + 1);
                return;
            }
            Some(run) => run.end(),
            None => 0,
        };
        self.order.push(Run { tiles: first..last + 1, before });
    }

    /// Finds where each tile is first used.
    fn find_distinct(&mut self) {
        let mut distinct: Vec<Run> = vec![];
        for run in &self.order {
            let mut at = run.tiles.start;
            while at < run.tiles.end {
                let next = distinct.partition_point(|seen| seen.tiles.end <= at);
                let seen = distinct.get(next).map_or(u32::MAX..u32::MAX, |seen| seen.tiles.clone());
                if seen.contains(&at) {
                    at = seen.end;
                    continue;
                }
                let tiles = at..run.tiles.end.min(seen.start);
                at = tiles.end;
                let run = Run { tiles, before: self.count };
                self.count = run.end();
                distinct.insert(next, run);
            }
        }
        self.distinct = distinct;
    }

    /// Pins as many tiles as fit into `bytes` with what is kept of each, evenly spread over a pass.
    pub fn pin(&mut self, bytes: u64) {
        let fit = bytes / self.pinned_tile_bytes();
        self.pinned = u32::try_from(fit).unwrap_or(u32::MAX).min(self.count);
    }

    /// Has `count` tiles of `tile_pages` pages, at least two, kept of what is read out of order.
    pub fn keep_aside(&mut self, tile_pages: u32, count: usize) {
        let least = (ALIGNMENT as u32).div_ceil(self.page_size);
        self.aside = (tile_pages.max(least), count);
    }

    /// The same space cut for what is read out of order.
    pub(super) fn aside(&self, space: &Space) -> Self {
        Self::new(space, self.aside.0, std::iter::empty())
    }

    /// The most reads out of order that are under way at once.
    #[must_use]
    pub fn reads_aside(&self) -> usize {
        self.aside.1.min(READS_ASIDE + 1)
    }

    /// How many tiles are kept of what is read out of order.
    pub(super) fn aside_count(&self) -> usize {
        self.aside.1
    }

    /// Bytes that a pinned tile takes, with its entry in the pager's table.
    fn pinned_tile_bytes(&self) -> u64 {
        (self.tile_bytes.next_multiple_of(ALIGNMENT) + ENTRY_BYTES) as u64
    }

    /// Bytes of memory that pinned tiles take.
    #[must_use]
    pub fn pinned_bytes(&self) -> u64 {
        u64::from(self.pinned) * self.pinned_tile_bytes()
    }

    /// How many tiles are pinned.
    pub(super) fn pinned_count(&self) -> usize {
        self.pinned as usize
    }

    /// A pinned tile's number among those that are pinned.
    pub(super) fn pinned_number(&self, tile: u32) -> Option<usize> {
        let place = u64::from(self.first_use(tile)?);
        let before = |place: u64| place * u64::from(self.pinned) / u64::from(self.count.max(1));
        (before(place + 1) > before(place)).then(|| before(place) as usize)
    }

    /// The tile with this number among those that are pinned.
    pub(super) fn pinned_tile(&self, number: usize) -> Option<Tile> {
        let (pinned, next) = (u64::from(self.pinned), number as u64 + 1);
        let place = (next * u64::from(self.count)).div_ceil(pinned.max(1)).checked_sub(1)?;
        let place = u32::try_from(place).ok()?;
        let run = self.distinct.iter().find(|run| (run.before..run.end()).contains(&place))?;
        self.tile(run.tiles.start + (place - run.before))
    }

    /// Bytes of the tiles that a pass uses: those pinned, and those read anew every time.
    #[must_use]
    pub fn bytes(&self) -> (u64, u64) {
        let all = |count: u32| u64::from(count) * self.tile_bytes as u64;
        let (mut pinned, mut streamed) = (all(self.pinned), all(self.count - self.pinned));
        // Only the last tile of a file is shorter.
        for file in &self.files {
            let Some(last) = file.tiles.end.checked_sub(1) else { continue };
            let missing = self.tile(last).map_or(0, |tile| (self.tile_bytes - tile.length) as u64);
            match self.pinned_number(last) {
                Some(_) => pinned -= missing,
                None if self.first_use(last).is_some() => streamed -= missing,
                None => {}
            }
        }
        (pinned, streamed)
    }

    /// How many different tiles a pass uses before this one; `None` if it never uses this one.
    fn first_use(&self, tile: u32) -> Option<u32> {
        let run = self.distinct.partition_point(|run| run.tiles.end <= tile);
        let run = self.distinct.get(run).filter(|run| run.tiles.contains(&tile))?;
        Some(run.place(tile))
    }

    /// Bytes of a range of addresses: those in pinned tiles, and those in the others.
    #[must_use]
    pub fn bytes_in(&self, range: &Range<u64>) -> (u64, u64) {
        let page_bytes = u64::from(self.page_size);
        let (mut at, mut pinned, mut streamed) = (range.start, 0, 0);
        while at < range.end {
            let page = u32::try_from(at / page_bytes).ok();
            let Some(number) = page.and_then(|page| self.at(page)) else { break };
            let Some(tile) = self.tile(number) else { break };
            let end = (u64::from(tile.page) * page_bytes + tile.length as u64).min(range.end);
            let is_pinned = self.pinned_number(number).is_some();
            *(if is_pinned { &mut pinned } else { &mut streamed }) += end.saturating_sub(at);
            at = end.max(at + 1);
        }
        (pinned, streamed)
    }

    /// The tile with this number.
    pub(super) fn tile(&self, number: u32) -> Option<Tile> {
        let file = self.files.partition_point(|cut| cut.tiles.end <= number);
        let cut = self.files.get(file).filter(|cut| cut.tiles.contains(&number))?;
        let index = number - cut.tiles.start;
        let offset = u64::from(index) * self.tile_bytes as u64;
        let page = cut.pages.start + index * self.tile_pages();
        let length = (cut.length - offset).min(self.tile_bytes as u64) as usize;
        Some(Tile { page, file, offset, length })
    }

    /// The tile that a page lies in.
    pub(super) fn at(&self, page: u32) -> Option<u32> {
        let file = self.files.partition_point(|cut| cut.pages.end <= page);
        let cut = self.files.get(file).filter(|cut| cut.pages.contains(&page))?;
        Some(cut.tiles.start + (page - cut.pages.start) / self.tile_pages())
    }

    /// Bytes of a page.
    pub(super) fn page_bytes(&self) -> usize {
        self.page_size as usize
    }

    fn tile_pages(&self) -> u32 {
        (self.tile_bytes as u32 / self.page_size).max(1)
    }

    /// The first place from `place` on, or else from the beginning, whose tile is `wanted`.
    pub(super) fn next_where(
        &self,
        place: Place,
        wanted: impl Fn(u32) -> bool,
    ) -> Option<(Place, u32)> {
        let from = self.order.partition_point(|run| run.end() <= place);
        let later = self.order.iter().skip(from).chain(self.order.iter().take(from + 1));
        let mut skip = place.saturating_sub(self.order.get(from).map_or(place, |run| run.before));
        for run in later {
            for tile in run.tiles.clone().skip(std::mem::take(&mut skip) as usize) {
                if wanted(tile) {
                    return Some((run.place(tile), tile));
                }
            }
        }
        None
    }

    /// True if a pass begins with this tile.
    pub(super) fn is_first(&self, tile: u32) -> bool {
        self.order.first().is_some_and(|run| run.tiles.start == tile)
    }

    /// The first place at which `tile` follows `last`.
    pub(super) fn place_behind(&self, last: u32, tile: u32) -> Option<Place> {
        let mut before: Option<u32> = None;
        for run in &self.order {
            if run.tiles.start == tile && before == Some(last) {
                return Some(run.before);
            }
            if last.checked_add(1) == Some(tile)
                && run.tiles.contains(&last)
                && run.tiles.contains(&tile)
            {
                return Some(run.place(tile));
            }
            before = run.tiles.end.checked_sub(1);
        }
        None
    }
}

/// What is kept of what is read out of order, for pages of this size.
pub(crate) fn aside(page_size: u32) -> (u32, usize) {
    let (bytes, count) = ASIDE;
    let pages = (bytes / page_size).max(1);
    (pages, (bytes as usize * count / (pages * page_size) as usize).max(2))
}

/// The files of a space, cut into tiles.
fn files(space: &Space, tile_bytes: u64) -> Vec<FileTiles> {
    let (mut page, mut tile) = (0u32, 0u32);
    let next = |at: &mut u32, length: u64, bytes: u64| {
        let count = u32::try_from(length.div_ceil(bytes)).unwrap_or(u32::MAX);
        let start = std::mem::replace(at, at.saturating_add(count));
        start..*at
    };
    let file = |(_, length): &(_, u64)| FileTiles {
        pages: next(&mut page, *length, u64::from(space.page_size)),
        tiles: next(&mut tile, *length, tile_bytes),
        length: *length,
    };
    space.files.iter().map(file).collect()
}
