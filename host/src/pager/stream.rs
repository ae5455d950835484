//! Weights that are larger than memory: some tiles are pinned, the others stream through a ring of
//! buffers that is read ahead, always as far as there are buffers. What is not read in order has a
//! region of its own.

use super::Space;
use super::reader::{ALIGNMENT, Buffer, Read, Reader, State, buffer};
use super::region::{self, Region};
use super::returned::Returned;
use super::tiles::{ENTRY_BYTES, Place, Tile, Tiles};
use crate::states::Lent;
use crate::{Error, Result};
use omex_hal::{PageError, PageErrorKind, PageGeometry, Pager};
use std::collections::VecDeque;
use std::io;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Tries that may bring nothing before a read has failed.
const RETRIES: u32 = 3;

/// Pages that are pinned or stream through a ring.
pub struct StreamPager {
    geometry: PageGeometry,
    tiles: Tiles,
    /// What is pinned and was read, by the tiles' numbers among pinned ones.
    resident: Vec<Option<Buffer>>,
    /// Bytes that there are for pinned tiles besides what is lent.
    room_to_pin: u64,
    lent: Lent,
    returned: Returned,
    /// What is returned in the end, when nothing is lent any more.
    borrowing: Returned,
    /// Consecutive tiles of the order, the one in use first; pinned ones only until they were read.
    ring: VecDeque<Entry>,
    depth: usize,
    /// Where in the order the ring ends.
    next: Place,
    spare: Vec<Buffer>,
    region: Region,
    /// The tile asked for last.
    last: Option<u32>,
    reader: Box<dyn Reader>,
    reads: u64,
    progress: Arc<Progress>,
}

/// What a pager has read so far, and what it holds of that.
#[derive(Debug, Default)]
pub struct Progress {
    bytes: AtomicU64,
    /// Nanoseconds.
    waited: AtomicU64,
    /// Bytes that are pinned and were read.
    pinned: AtomicU64,
    /// Bytes that were read and lie in the ring or beside it.
    ring: AtomicU64,
}

impl Progress {
    /// Bytes read.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    /// Bytes that are pinned and were read.
    #[must_use]
    pub fn pinned(&self) -> u64 {
        self.pinned.load(Ordering::Relaxed)
    }

    /// Bytes that were read and lie in the ring or beside it.
    #[must_use]
    pub fn ring(&self) -> u64 {
        self.ring.load(Ordering::Relaxed)
    }

    /// The time that nothing was done but to wait for reads.
    #[must_use]
    pub fn waited(&self) -> Duration {
        Duration::from_nanos(self.waited.load(Ordering::Relaxed))
    }
}

struct Entry {
    tile: u32,
    state: State,
    /// The buffer is not one of the ring's: it stays with the tile.
    own: bool,
}

/// Where a page is.
enum Found {
    Resident(u32),
    /// At this place of the ring.
    Ring(usize),
    Region,
}

impl StreamPager {
    /// A pager that keeps at most `depth` tiles in its ring, read by `reader`.
    ///
    /// # Errors
    /// No address space is left for the buffers.
    pub fn new(
        space: &Space,
        tiles: Tiles,
        depth: usize,
        (room_to_pin, lent): (u64, Lent),
        mut reader: Box<dyn Reader>,
    ) -> Result<Self> {
        let depth = depth.max(2);
        let buffer = |bytes| buffer(bytes).map_err(|e| Error::io(Path::new("memory"), "get", e));
        let mut spare = (0..depth).map(|_| buffer(tiles.tile_bytes)).collect::<Result<Vec<_>>>()?;
        reader.register(&mut spare);
        let region = Region::new(tiles.aside(space), tiles.aside_count())?;
        let mut pager = Self {
            geometry: PageGeometry { page_size: space.page_size, pages: space.pages() },
            resident: (0..tiles.pinned_count()).map(|_| None).collect(),
            returned: Returned::new(tiles.pinned_count()),
            borrowing: Returned::new(tiles.pinned_count()),
            room_to_pin,
            lent,
            tiles,
            // One more for a pinned tile that has to be read anew.
            ring: VecDeque::with_capacity(depth + 1),
            depth,
            next: 0,
            spare,
            region,
            last: None,
            reader,
            reads: 0,
            progress: Arc::default(),
        };
        let (all, fit) = (pager.resident.len(), pager.pinned_that_fit(0));
        (fit..all).for_each(|_| _ = pager.borrowing.next(all));
        pager.refill();
        Ok(pager)
    }

    /// What was read so far, and what is held of that.
    #[must_use]
    pub fn progress(&self) -> Arc<Progress> {
        Arc::clone(&self.progress)
    }

    /// Numbers of the tiles' reads that are under way, and their bytes.
    pub(crate) fn under_way(&self) -> Vec<(u64, u64)> {
        let reads = self.ring.iter().map(|entry| match entry.state {
            State::Reading(id) => Some((id, self.tile_length(entry.tile))),
            _ => None,
        });
        reads.flatten().collect()
    }

    fn tile_length(&self, tile: u32) -> u64 {
        self.tiles.tile(tile).map_or(0, |tile| tile.length as u64)
    }

    /// Says what the ring holds.
    fn tell(&self) {
        let ready = self.ring.iter().filter(|entry| entry.state.buffer().is_some());
        let ring: u64 = ready.map(|entry| self.tile_length(entry.tile)).sum();
        self.progress.ring.store(ring + self.region.held(), Ordering::Relaxed);
    }

    /// Puts something between the pager and its reader: a tracer, or a source of faults.
    pub fn wrap_reader(&mut self, wrap: impl FnOnce(Box<dyn Reader>) -> Box<dyn Reader>) {
        let nothing = std::mem::replace(&mut self.reader, Box::new(Nothing));
        self.reader = wrap(nothing);
    }

    /// Begins reads until the ring is full.
    fn refill(&mut self) {
        while self.ring.len() < self.depth {
            let Some((place, tile)) = self.next_to_read() else { return };
            if self.ring.iter().any(|entry| entry.tile == tile) {
                return;
            }
            let Some((buffer, own)) = self.buffer_for(tile) else { return };
            self.next = place + 1;
            let id = self.submit(tile, buffer);
            self.ring.push_back(Entry { tile, state: State::Reading(id), own });
        }
    }

    /// The next tile in order that is not in memory for good.
    fn next_to_read(&self) -> Option<(Place, u32)> {
        self.tiles.next_where(self.next, |tile| self.resident(tile).is_none())
    }

    /// A pinned tile that was read.
    fn resident(&self, tile: u32) -> Option<&Buffer> {
        self.resident.get(self.pinned_number(tile)?)?.as_ref()
    }

    /// Where a pinned tile lies once it is read.
    fn resident_mut(&mut self, tile: u32) -> Option<&mut Option<Buffer>> {
        let number = self.pinned_number(tile)?;
        self.resident.get_mut(number)
    }

    /// A buffer to read a tile into, and whether it is the tile's own.
    fn buffer_for(&mut self, tile: u32) -> Option<(Buffer, bool)> {
        if self.is_pinned(tile)
            && let Ok(own) = buffer(self.tiles.tile(tile)?.length)
        {
            return Some((own, true));
        }
        Some((self.spare.pop()?, false))
    }

    fn is_pinned(&self, tile: u32) -> bool {
        self.pinned_number(tile).is_some()
    }

    /// A tile's number among those that are pinned, unless its memory was given back.
    fn pinned_number(&self, tile: u32) -> Option<usize> {
        let number = self.tiles.pinned_number(tile)?;
        (!self.returned.holds(number)).then_some(number)
    }

    /// How many tiles can be pinned while so many bytes are lent.
    fn pinned_that_fit(&self, lent: u64) -> usize {
        let entries = self.resident.len().saturating_mul(ENTRY_BYTES) as u64;
        let room = self.room_to_pin.saturating_add(lent).saturating_sub(entries);
        let fit = room / self.tiles.tile_bytes.next_multiple_of(ALIGNMENT) as u64;
        usize::try_from(fit).unwrap_or(usize::MAX)
    }

    /// Gives back the memory of pinned tiles that is no longer lent.
    fn give_back(&mut self) {
        let all = self.resident.len();
        let fit = self.pinned_that_fit(self.lent.bytes());
        while all - self.returned.count() > fit {
            let number = self.returned.next(all);
            if self.resident.get_mut(number).and_then(Option::take).is_some() {
                let length = self.tiles.pinned_tile(number).map_or(0, |tile| tile.length as u64);
                self.progress.pinned.fetch_sub(length, Ordering::Relaxed);
            }
        }
    }

    /// Begins to read a tile.
    fn submit(&mut self, tile: u32, buffer: Buffer) -> u64 {
        let tile = self.tiles.tile(tile);
        let (file, offset, needed) = tile.map_or((0, 0, 0), |t| (t.file, t.offset, t.length));
        self.begin(file, offset, needed, buffer)
    }

    /// Begins to read `needed` bytes of a file, and returns the read's number.
    fn begin(&mut self, file: usize, offset: u64, needed: usize, buffer: Buffer) -> u64 {
        self.tell();
        self.reads += 1;
        let id = self.reads;
        self.reader.submit(Read { id, file, offset, buffer, filled: 0, needed, failures: 0 });
        id
    }

    /// Waits until a read has ended, well or not; false if none is under way.
    fn settle(&mut self) -> bool {
        let start = Instant::now();
        let Some((read, result)) = self.reader.wait() else { return false };
        self.progress.waited.fetch_add(start.elapsed().as_nanos() as u64, Ordering::Relaxed);
        self.end(read, result);
        true
    }

    /// Notes what a read brought; it goes on if that is not all and another try may help.
    fn end(&mut self, mut read: Read, result: io::Result<usize>) {
        let end = match result {
            Ok(bytes) => self.advance(&mut read, bytes),
            Err(error) => {
                read.failures += u32::from(error.kind() != io::ErrorKind::Interrupted);
                (read.failures > RETRIES).then_some(Err(PageErrorKind::Device))
            }
        };
        let Some(end) = end else {
            self.reader.submit(read);
            return;
        };
        let id = read.id;
        let end = match end {
            Ok(()) => State::Ready(read.buffer),
            Err(kind) => State::Failed(kind, read.buffer),
        };
        match self.ring.iter_mut().find(|entry| entry.state.is_read(id)) {
            Some(entry) => entry.state = end,
            None => self.region.ended(id, end),
        }
        self.tell();
    }

    /// Counts what a read brought; `None` if it has to go on.
    fn advance(&mut self, read: &mut Read, bytes: usize) -> Option<Result<(), PageErrorKind>> {
        let bytes = bytes.min(read.rest().len());
        self.progress.bytes.fetch_add(bytes as u64, Ordering::Relaxed);
        let filled = read.filled + bytes;
        if filled >= read.needed {
            return Some(Ok(()));
        }
        // Direct reads go on at whole multiples only.
        let whole = filled / ALIGNMENT * ALIGNMENT;
        read.failures += u32::from(whole == read.filled);
        read.filled = whole;
        (read.failures > RETRIES).then_some(Err(PageErrorKind::Truncated))
    }

    /// Takes the first entry out of the ring, once it is read: a pinned tile stays, another leaves
    /// its buffer.
    fn retire(&mut self) {
        while self.ring.front().is_some_and(|entry| entry.state.is_reading()) {
            if !self.settle() {
                break;
            }
        }
        let Some(Entry { tile, state, own }) = self.ring.pop_front() else { return };
        match state {
            State::Ready(buffer) if own => {
                // Its memory may have been given back meanwhile.
                if let Some(resident) = self.resident_mut(tile) {
                    *resident = Some(buffer);
                    self.progress.pinned.fetch_add(self.tile_length(tile), Ordering::Relaxed);
                }
            }
            State::Ready(buffer) | State::Failed(_, buffer) if !own => self.spare.push(buffer),
            _ => {}
        }
        self.tell();
    }

    /// Makes the ring begin with this tile of the order.
    fn seek(&mut self, place: Place) {
        while !self.ring.is_empty() {
            self.retire();
        }
        self.next = place;
        self.refill();
    }

    /// Makes a page resident.
    fn ensure(&mut self, page: u32) -> Result<Found, PageErrorKind> {
        let tile = self.tiles.at(page).ok_or(PageErrorKind::OutOfRange)?;
        let last = self.last.replace(tile);
        // What was returned last stays, even where the same page lies in the ring as well.
        if self.region.is_current(page) {
            return Ok(Found::Region);
        }
        if self.resident(tile).is_some() {
            self.region.leave();
            return Ok(Found::Resident(tile));
        }
        let again = last == Some(tile) && !self.region.is_in_use();
        if !again && self.region.is_announced(page) {
            return self.read_aside(page);
        }
        if self.ring.iter().take(2).all(|entry| entry.tile != tile) {
            match (self.resumes_at(page, tile, last), self.place_in_ring(tile)) {
                (Some(place), _) => {
                    self.seek(place);
                    // A pinned tile that lay in the ring stays now.
                    if self.resident(tile).is_some() {
                        self.region.leave();
                        return Ok(Found::Resident(tile));
                    }
                }
                (None, Some(place)) => return self.ready(tile, place),
                (None, None) => return self.read_aside(page),
            }
        }
        while self.ring.len() > 1 && self.ring.front().is_some_and(|entry| entry.tile != tile) {
            self.retire();
        }
        self.refill();
        self.ready(tile, 0)
    }

    fn place_in_ring(&self, tile: u32) -> Option<usize> {
        self.ring.iter().position(|entry| entry.tile == tile)
    }

    /// Where in the order to go on from a tile that is not the next one: at the beginning, where
    /// every pass begins, or behind the tile asked for last, where one goes on after an error.
    /// Other tiles are out of order.
    fn resumes_at(&self, page: u32, tile: u32, last: Option<u32>) -> Option<Place> {
        if self.tiles.is_first(tile) {
            return Some(0);
        }
        let is_first_page = self.tiles.tile(tile).is_some_and(|t| t.page == page);
        self.tiles.place_behind(last.filter(|_| is_first_page)?, tile)
    }

    /// Waits until `tile`, which is at this place of the ring, is read; if that failed, it is tried
    /// anew.
    fn ready(&mut self, tile: u32, place: usize) -> Result<Found, PageErrorKind> {
        self.region.leave();
        let entry = self.ring.get_mut(place).filter(|entry| entry.tile == tile);
        let failed = entry.ok_or(PageErrorKind::Device)?.state.take_failed();
        if let Some(buffer) = failed {
            let id = self.submit(tile, buffer);
            if let Some(entry) = self.ring.get_mut(place) {
                entry.state = State::Reading(id);
            }
        }
        while self.ring.get(place).is_some_and(|entry| entry.state.is_reading()) {
            if !self.settle() {
                return Err(PageErrorKind::Device);
            }
        }
        match self.ring.get(place).map(|entry| &entry.state) {
            Some(State::Ready(_)) => Ok(Found::Ring(place)),
            Some(State::Failed(kind, _)) => Err(*kind),
            _ => Err(PageErrorKind::Device),
        }
    }

    /// Waits until a page out of order is read; if that failed before, it is tried anew.
    fn read_aside(&mut self, page: u32) -> Result<Found, PageErrorKind> {
        let tile = self.region.tile_of(page).ok_or(PageErrorKind::OutOfRange)?;
        let mut tried = false;
        loop {
            let claim = match self.region.find(tile) {
                region::Found::Ready(frame) => {
                    self.region.enter(frame);
                    self.read_announced();
                    return Ok(Found::Region);
                }
                region::Found::Failed(_, kind) if tried => return Err(kind),
                region::Found::Failed(frame, _) => self.region.again(frame),
                region::Found::Absent => self.region.demand(tile),
                region::Found::Reading => None,
            };
            match claim {
                Some(claim) => self.submit_aside(claim),
                None if self.settle() => {}
                None => return Err(PageErrorKind::Device),
            }
            tried = true;
        }
    }

    /// Begins to read what was announced, as far as there is room.
    fn read_announced(&mut self) {
        while let Some((read, result)) = self.reader.poll() {
            self.end(read, result);
        }
        while let Some(claim) = self.region.next_read() {
            self.submit_aside(claim);
        }
    }

    fn submit_aside(&mut self, claim: region::Claim) {
        let Tile { file, offset, length, .. } = claim.tile;
        let id = self.begin(file, offset, length, claim.buffer);
        self.region.begun(claim.frame, id);
    }

    /// True if a tile is in memory, or the next ones of the order.
    fn comes_in_order(&self, tile: u32) -> bool {
        self.resident(tile).is_some() || self.place_in_ring(tile).is_some()
    }
}

impl Pager for StreamPager {
    fn geometry(&self) -> PageGeometry {
        self.geometry
    }

    fn is_stable(&self, page: u32) -> bool {
        // A copy in the region says nothing about one that is pinned.
        let pinned = self.tiles.at(page).and_then(|tile| self.pinned_number(tile));
        let number = pinned.filter(|_| !self.region.is_current(page));
        number.is_some_and(|number| !self.borrowing.holds(number))
    }

    /// What begins in order goes on in order; the rest is read into the region.
    fn want(&mut self, pages: Range<u32>) {
        let pages = pages.start..pages.end.min(self.geometry.pages);
        let first = self.tiles.at(pages.start).filter(|_| !pages.is_empty());
        if first.is_some_and(|tile| !self.comes_in_order(tile)) {
            self.region.announce(&pages);
        }
        self.read_announced();
    }

    fn page(&mut self, page: u32) -> Result<&[u8], PageError> {
        // What was returned last stays where it is.
        if self.tiles.at(page) != self.last {
            self.give_back();
        }
        let failed = |kind| PageError { page, kind };
        let place = self.ensure(page).map_err(failed)?;
        let of_tile =
            |tile: u32| self.tiles.tile(tile).map(|Tile { page, length, .. }| (page, length));
        let found = match place {
            Found::Region => return self.region.bytes(page).ok_or(failed(PageErrorKind::Device)),
            Found::Resident(tile) => self.resident(tile).zip(of_tile(tile)),
            Found::Ring(place) => {
                let entry = self.ring.get(place);
                entry.and_then(|entry| entry.state.buffer().zip(of_tile(entry.tile)))
            }
        };
        let bytes = found.and_then(|(buffer, (first, length))| {
            let before = page.checked_sub(first)? as usize * self.geometry.page_size as usize;
            buffer.get(before..length)
        });
        bytes.filter(|bytes| !bytes.is_empty()).ok_or(failed(PageErrorKind::OutOfRange))
    }

    fn discard(&mut self, page: u32) {
        let Some(tile) = self.tiles.at(page) else { return };
        self.region.discard(page);
        if let Some(buffer) = self.resident_mut(tile).and_then(Option::take) {
            self.progress.pinned.fetch_sub(self.tile_length(tile), Ordering::Relaxed);
            let state = State::Failed(PageErrorKind::Checksum, buffer);
            self.ring.push_front(Entry { tile, state, own: true });
        }
        if let Some(entry) = self.ring.iter_mut().find(|entry| entry.tile == tile) {
            // What failed is read anew when it is asked for.
            entry.state.discard();
        }
        self.tell();
    }
}

/// Stands in for a reader that is being wrapped.
struct Nothing;

impl Reader for Nothing {
    fn submit(&mut self, _read: Read) {}

    fn wait(&mut self) -> Option<(Read, io::Result<usize>)> {
        None
    }
}
