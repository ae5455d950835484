//! Weights that are larger than memory: some tiles are pinned, the others stream through a ring of
//! buffers that is read ahead, always as far as there are buffers.

use super::Space;
use super::reader::{ALIGNMENT, Buffer, Read, Reader, buffer};
use super::returned::Returned;
use super::tiles::{ENTRY_BYTES, Place, Tile, Tiles};
use crate::lending::Lent;
use crate::{Error, Result};
use omex_hal::{PageError, PageErrorKind, PageGeometry, Pager};
use std::collections::VecDeque;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Tries that may bring nothing before a read has failed.
const RETRIES: u32 = 3;

/// Bytes that are read for a page out of order, as an embedding's row is.
pub(crate) fn aside_bytes(page_size: u32) -> usize {
    (64 << 10).max(page_size as usize + ALIGNMENT)
}

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
    aside: Aside,
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

enum State {
    /// Number of the read.
    Reading(u64),
    Ready(Buffer),
    Failed(PageErrorKind, Buffer),
}

impl State {
    fn is_reading(&self) -> bool {
        matches!(self, Self::Reading(_))
    }

    /// What was read.
    fn buffer(&self) -> Option<&Buffer> {
        match self {
            Self::Ready(buffer) => Some(buffer),
            _ => None,
        }
    }
}

/// Pages that were read out of order.
struct Aside {
    first: u32,
    bytes: usize,
    capacity: usize,
    state: State,
    /// True if what was returned last lies here.
    is_in_use: bool,
}

/// Where a page is.
enum Found {
    Resident(u32),
    Ring,
    Aside,
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
        let capacity = aside_bytes(space.page_size);
        let state = State::Ready(buffer(capacity)?);
        let aside = Aside { first: 0, bytes: 0, capacity, state, is_in_use: false };
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
            aside,
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
        let aside = self.aside.state.buffer().map_or(0, |_| self.aside.bytes as u64);
        self.progress.ring.store(ring + aside, Ordering::Relaxed);
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
            if let Some(buffer) = self.resident.get_mut(number).and_then(Option::take) {
                self.progress.pinned.fetch_sub(buffer.len() as u64, Ordering::Relaxed);
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
        let Some((mut read, result)) = self.reader.wait() else { return false };
        self.progress.waited.fetch_add(start.elapsed().as_nanos() as u64, Ordering::Relaxed);
        let end = match result {
            Ok(bytes) => self.advance(&mut read, bytes),
            Err(error) => {
                read.failures += u32::from(error.kind() != io::ErrorKind::Interrupted);
                (read.failures > RETRIES).then_some(Err(PageErrorKind::Device))
            }
        };
        let Some(end) = end else {
            self.reader.submit(read);
            return true;
        };
        let id = read.id;
        let mut states = self.ring.iter_mut().map(|entry| &mut entry.state);
        let own = states.find(|state| matches!(state, State::Reading(i) if *i == id));
        *own.unwrap_or(&mut self.aside.state) = match end {
            Ok(()) => State::Ready(read.buffer),
            Err(kind) => State::Failed(kind, read.buffer),
        };
        self.tell();
        true
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
        self.aside.is_in_use &= self.aside.holds(page, self.geometry.page_size);
        if self.aside.is_in_use {
            return self.read_aside(page, tile);
        }
        if self.resident(tile).is_some() {
            return Ok(Found::Resident(tile));
        }
        if self.ring.iter().take(2).all(|entry| entry.tile != tile) {
            match self.resumes_at(page, tile, last) {
                Some(place) => self.seek(place),
                None => return self.read_aside(page, tile),
            }
        }
        while self.ring.len() > 1 && self.ring.front().is_some_and(|entry| entry.tile != tile) {
            self.retire();
        }
        self.refill();
        self.ready(tile)
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

    /// Waits until `tile`, the first of the ring, is read; if that failed, it is tried anew.
    fn ready(&mut self, tile: u32) -> Result<Found, PageErrorKind> {
        let front = self.ring.front_mut().filter(|entry| entry.tile == tile);
        let entry = front.ok_or(PageErrorKind::Device)?;
        let state = std::mem::replace(&mut entry.state, State::Reading(0));
        let state = match state {
            State::Failed(_, buffer) => State::Reading(self.submit(tile, buffer)),
            state => state,
        };
        if let Some(entry) = self.ring.front_mut() {
            entry.state = state;
        }
        while self.ring.front().is_some_and(|entry| entry.state.is_reading()) {
            if !self.settle() {
                return Err(PageErrorKind::Device);
            }
        }
        match self.ring.front().map(|entry| &entry.state) {
            Some(State::Ready(_)) => Ok(Found::Ring),
            Some(State::Failed(kind, _)) => Err(*kind),
            _ => Err(PageErrorKind::Device),
        }
    }

    /// Reads a page out of order, and some behind it.
    fn read_aside(&mut self, page: u32, tile: u32) -> Result<Found, PageErrorKind> {
        self.aside.is_in_use = true;
        if !self.aside.holds(page, self.geometry.page_size) {
            self.submit_aside(page, tile)?;
        }
        while self.aside.state.is_reading() {
            if !self.settle() {
                return Err(PageErrorKind::Device);
            }
        }
        match &self.aside.state {
            State::Failed(kind, _) => Err(*kind),
            _ => Ok(Found::Aside),
        }
    }

    fn submit_aside(&mut self, page: u32, tile: u32) -> Result<(), PageErrorKind> {
        let tile = self.tiles.tile(tile).ok_or(PageErrorKind::OutOfRange)?;
        let page_size = u64::from(self.geometry.page_size);
        let offset = tile.offset + u64::from(page - tile.page) * page_size;
        let start = offset / ALIGNMENT as u64 * ALIGNMENT as u64;
        // Whole pages, except where the data end.
        let before = offset - start;
        let room = (self.aside.capacity as u64 - before) / page_size * page_size;
        let needed = before + self.tiles.rest_of_file(tile.file, offset).min(room);
        self.aside.first = page - (before / page_size) as u32;
        self.aside.bytes = needed as usize;
        let file = tile.file;
        self.aside.state = match std::mem::replace(&mut self.aside.state, State::Reading(0)) {
            State::Ready(buffer) | State::Failed(_, buffer) => {
                State::Reading(self.begin(file, start, needed as usize, buffer))
            }
            reading @ State::Reading(_) => reading,
        };
        Ok(())
    }
}

impl Aside {
    fn holds(&self, page: u32, page_size: u32) -> bool {
        let before = page.checked_sub(self.first).map(|pages| pages as usize * page_size as usize);
        !matches!(self.state, State::Failed(..)) && before.is_some_and(|before| before < self.bytes)
    }
}

impl Pager for StreamPager {
    fn geometry(&self) -> PageGeometry {
        self.geometry
    }

    fn is_stable(&self, page: u32) -> bool {
        let number = self.tiles.at(page).and_then(|tile| self.pinned_number(tile));
        number.is_some_and(|number| !self.borrowing.holds(number))
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
            Found::Resident(tile) => self.resident(tile).zip(of_tile(tile)),
            Found::Ring => {
                let entry = self.ring.front();
                entry.and_then(|entry| entry.state.buffer().zip(of_tile(entry.tile)))
            }
            Found::Aside => {
                self.aside.state.buffer().zip(Some((self.aside.first, self.aside.bytes)))
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
        if self.aside.holds(page, self.geometry.page_size) {
            self.aside.bytes = 0;
        }
        if let Some(buffer) = self.resident_mut(tile).and_then(Option::take) {
            self.progress.pinned.fetch_sub(self.tile_length(tile), Ordering::Relaxed);
            let state = State::Failed(PageErrorKind::Checksum, buffer);
            self.ring.push_front(Entry { tile, state, own: true });
        }
        if let Some(entry) = self.ring.iter_mut().find(|entry| entry.tile == tile) {
            // What failed is read anew when it is asked for.
            entry.state = match std::mem::replace(&mut entry.state, State::Reading(0)) {
                State::Ready(buffer) => State::Failed(PageErrorKind::Checksum, buffer),
                other => other,
            };
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
