//! How the paged space is cut into tiles: what is read at once, and what is pinned.
//!
//! A pass uses tiles in the same order every time. Of a cycle, whatever is kept saves the same:
//! each pinned tile one read a pass, whichever tile it is. No policy saves more, since every pass
//! uses every tile and memory holds no more of them (LRU, which keeps the newest, saves nothing:
//! what it keeps is wanted last). So what counts is only where pinned tiles lie: evenly spread, the
//! time between two reads is the same all along, and a short ring is enough to overlap them with
//! computing.

use super::Space;
use std::ops::Range;

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

/// The tiles of a space, in what order a pass uses them, and which are pinned.
#[derive(Clone, Debug)]
pub struct Tiles {
    pub(super) tiles: Vec<Tile>,
    /// Tiles in the order of use.
    pub(super) order: Vec<u32>,
    /// By tile.
    pub(super) pinned: Vec<bool>,
    /// Bytes of a whole tile.
    pub(super) tile_bytes: usize,
    page_size: u32,
    /// Pages and first tile of each file.
    files: Vec<(Range<u32>, u32)>,
}

impl Tiles {
    /// Cuts a space into tiles of `tile_pages` pages. `used` are the ranges of addresses that every
    /// pass uses, in the order of use.
    #[must_use]
    pub fn new(space: &Space, tile_pages: u32, used: impl Iterator<Item = Range<u64>>) -> Self {
        let page_bytes = u64::from(space.page_size);
        let tile_bytes = page_bytes * u64::from(tile_pages.max(1));
        let (mut tiles, mut files, mut page) = (vec![], vec![], 0u32);
        for (file, (_, length)) in space.files.iter().enumerate() {
            let pages = u32::try_from(length.div_ceil(page_bytes)).unwrap_or(u32::MAX);
            let end = page.saturating_add(pages);
            files.push((page..end, tiles.len() as u32));
            for offset in (0..*length).step_by(tile_bytes as usize) {
                let first = page + (offset / page_bytes) as u32;
                let length = tile_bytes.min(length - offset) as usize;
                tiles.push(Tile { page: first, file, offset, length });
            }
            page = end;
        }
        let pinned = vec![false; tiles.len()];
        let tile_bytes = tile_bytes as usize;
        let (order, page_size) = (vec![], space.page_size);
        let mut tiles = Self { tiles, order, pinned, tile_bytes, page_size, files };
        for range in used {
            let (first, last) =
                (range.start / page_bytes, range.end.saturating_sub(1) / page_bytes);
            let tile = |page: u64| u32::try_from(page).ok().and_then(|page| tiles.at(page));
            let (Some(first), Some(last)) = (tile(first), tile(last)) else { continue };
            let seen = tiles.order.last() == Some(&first);
            tiles.order.extend(first + u32::from(seen)..=last);
        }
        tiles
    }

    /// Pins as many tiles as fit into `bytes`, evenly spread over a pass.
    pub fn pin(&mut self, bytes: u64) {
        let distinct = self.distinct();
        let (count, fit) = (distinct.len() as u64, bytes / self.tile_bytes.max(1) as u64);
        let fit = fit.min(count);
        self.pinned.fill(false);
        for (i, tile) in (0u64..).zip(distinct) {
            if (i + 1) * fit / count > i * fit / count
                && let Some(pinned) = self.pinned.get_mut(tile as usize)
            {
                *pinned = true;
            }
        }
    }

    /// Bytes of the tiles that a pass uses: those pinned, and those read anew every time.
    #[must_use]
    pub fn bytes(&self) -> (u64, u64) {
        let sum = |wanted: bool| {
            let tiles = self.distinct().into_iter().map(|tile| tile as usize);
            let tiles = tiles.filter(|tile| self.pinned.get(*tile) == Some(&wanted));
            tiles.filter_map(|tile| self.tiles.get(tile)).map(|tile| tile.length as u64).sum()
        };
        (sum(true), sum(false))
    }

    /// Bytes of a range of addresses: those in pinned tiles, and those in the others.
    #[must_use]
    pub fn bytes_in(&self, range: &Range<u64>) -> (u64, u64) {
        let page_bytes = u64::from(self.page_size);
        let (mut at, mut pinned, mut streamed) = (range.start, 0, 0);
        while at < range.end {
            let page = u32::try_from(at / page_bytes).ok();
            let Some(number) = page.and_then(|page| self.at(page)) else { break };
            let Some(tile) = self.tiles.get(number as usize) else { break };
            let end = (u64::from(tile.page) * page_bytes + tile.length as u64).min(range.end);
            let is_pinned = self.pinned.get(number as usize) == Some(&true);
            *(if is_pinned { &mut pinned } else { &mut streamed }) += end.saturating_sub(at);
            at = end.max(at + 1);
        }
        (pinned, streamed)
    }

    /// Tiles that a pass uses, each once.
    fn distinct(&self) -> Vec<u32> {
        let mut seen = vec![false; self.tiles.len()];
        let first_time = |tile: &u32| match seen.get_mut(*tile as usize) {
            Some(seen) => !std::mem::replace(seen, true),
            None => false,
        };
        self.order.iter().copied().filter(first_time).collect()
    }

    /// The tile that a page lies in.
    pub(super) fn at(&self, page: u32) -> Option<u32> {
        let file = self.files.partition_point(|(pages, _)| pages.end <= page);
        let (pages, first) = self.files.get(file).filter(|(pages, _)| pages.contains(&page))?;
        let tile_pages = (self.tile_bytes as u32 / self.page_size).max(1);
        Some(first + (page - pages.start) / tile_pages)
    }

    /// Bytes of a file's end that `offset` leaves.
    pub(super) fn rest_of_file(&self, file: usize, offset: u64) -> u64 {
        let last = self.tiles.partition_point(|tile| tile.file <= file).checked_sub(1);
        let last = last.and_then(|last| self.tiles.get(last));
        last.map_or(0, |last| (last.offset + last.length as u64).saturating_sub(offset))
    }
}
