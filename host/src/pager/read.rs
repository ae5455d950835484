//! Plain reads into buffers of fixed size: memory stays within the budget, whatever the operating
//! system caches. A thread reads the next tile while the engine works on this one.

use super::{Space, open};
use crate::{Error, Result};
use omex_hal::{PageError, PageErrorKind, PageGeometry, Pager};
use std::fs::File;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;

/// Consecutive pages of one file in memory.
struct Tile {
    pages: Range<u32>,
    bytes: Vec<u8>,
    result: Result<(), PageErrorKind>,
}

/// The files, and what was read of them.
struct Source {
    page_size: u32,
    /// Pages of each file, the file, and its length.
    files: Vec<(Range<u32>, File, u64)>,
    bytes_read: Arc<AtomicU64>,
}

/// Pages that are read into a ring of [`ReadPager::BUFFERS`] tiles.
pub struct ReadPager {
    geometry: PageGeometry,
    source: Arc<Source>,
    tile_pages: u32,
    current: Tile,
    /// What the thread is reading, and the buffer that it fills.
    ahead: Option<Range<u32>>,
    spare: Option<Vec<u8>>,
    requests: Option<SyncSender<(Range<u32>, Vec<u8>)>>,
    tiles: Receiver<Tile>,
    thread: Option<JoinHandle<()>>,
}

impl ReadPager {
    /// Tiles in memory at once: one in use, one being read.
    pub const BUFFERS: u64 = 2;

    /// Opens the files, to be read `tile_pages` pages at a time.
    ///
    /// # Errors
    /// A file that can't be opened or has another length, or a thread that can't be started.
    pub fn new(space: &Space, tile_pages: u32) -> Result<Self> {
        let geometry = PageGeometry { page_size: space.page_size, pages: space.pages() };
        let mut files = vec![];
        let mut first = 0u32;
        for (path, length) in &space.files {
            let pages = length.div_ceil(u64::from(space.page_size));
            let end = first.saturating_add(u32::try_from(pages).unwrap_or(u32::MAX));
            files.push((first..end, open(path, *length)?, *length));
            first = end;
        }
        let tile_pages = tile_pages.max(1);
        let buffer = || Vec::with_capacity(tile_pages as usize * space.page_size as usize);
        let bytes_read = Arc::new(AtomicU64::new(0));
        let source = Arc::new(Source { page_size: space.page_size, files, bytes_read });
        // Bounded, so that sending allocates nothing; there is never more than one tile under way.
        let (requests, incoming) = sync_channel::<(Range<u32>, Vec<u8>)>(1);
        let (outgoing, tiles) = sync_channel(1);
        let reader = Arc::clone(&source);
        let thread = std::thread::Builder::new()
            .name("omex-read".into())
            .stack_size(256 << 10)
            .spawn(move || {
                for (pages, buffer) in incoming {
                    if outgoing.send(reader.read(pages, buffer)).is_err() {
                        return;
                    }
                }
            })
            .map_err(|e| Error::io(std::path::Path::new("thread"), "start", e))?;
        Ok(Self {
            geometry,
            source,
            tile_pages,
            current: Tile { pages: 0..0, bytes: buffer(), result: Ok(()) },
            ahead: None,
            spare: Some(buffer()),
            requests: Some(requests),
            tiles,
            thread: Some(thread),
        })
    }

    /// A counter of the bytes read so far.
    #[must_use]
    pub fn bytes_read(&self) -> Arc<AtomicU64> {
        Arc::clone(&self.source.bytes_read)
    }

    /// Makes a tile with `page` current.
    fn load(&mut self, page: u32) {
        if self.ahead.as_ref().is_some_and(|ahead| ahead.contains(&page)) {
            self.receive();
        } else {
            // A page out of order, as an embedding is: just this one.
            let buffer = std::mem::take(&mut self.current.bytes);
            self.current = self.source.read(page..page.saturating_add(1), buffer);
        }
    }

    /// Waits for the tile being read and makes it current.
    fn receive(&mut self) {
        if self.ahead.take().is_some()
            && let Ok(tile) = self.tiles.recv()
        {
            self.spare = Some(std::mem::replace(&mut self.current, tile).bytes);
        }
    }
}

impl Source {
    /// The pages that lie in the same file as the first.
    fn in_one_file(&self, pages: Range<u32>) -> Range<u32> {
        let file = self.files.iter().find(|(range, ..)| range.contains(&pages.start));
        pages.start..file.map_or(pages.end, |(range, ..)| pages.end.min(range.end))
    }

    /// Reads pages that lie in one file; a request that reaches beyond is cut.
    fn read(&self, pages: Range<u32>, mut bytes: Vec<u8>) -> Tile {
        let file = self.files.iter().find(|(range, ..)| range.contains(&pages.start));
        let Some((range, file, length)) = file else {
            bytes.clear();
            return Tile { pages, bytes, result: Err(PageErrorKind::OutOfRange) };
        };
        let pages = pages.start..pages.end.min(range.end);
        let page_size = u64::from(self.page_size);
        let start = u64::from(pages.start - range.start) * page_size;
        let end = (start + pages.len() as u64 * page_size).min(*length);
        bytes.resize((end - start) as usize, 0);
        let result = match file.read_exact_at(&mut bytes, start) {
            Ok(()) => Ok(()),
            Err(e) if e.kind() == std::io::ErrorKind::UnexpectedEof => {
                Err(PageErrorKind::Truncated)
            }
            Err(_) => Err(PageErrorKind::Device),
        };
        self.bytes_read.fetch_add(bytes.len() as u64, Ordering::Relaxed);
        Tile { pages, bytes, result }
    }
}

impl Pager for ReadPager {
    fn geometry(&self) -> PageGeometry {
        self.geometry
    }

    fn prefetch(&mut self, page: u32) {
        // Behind the last page comes the first one again, with the next token.
        let page = if page < self.geometry.pages { page } else { 0 };
        if self.ahead.is_some() || self.current.pages.contains(&page) {
            return;
        }
        let pages = self.source.in_one_file(page..page.saturating_add(self.tile_pages));
        if let (Some(requests), Some(buffer)) = (&self.requests, self.spare.take()) {
            self.ahead = requests.send((pages.clone(), buffer)).is_ok().then_some(pages);
        }
    }

    fn page(&mut self, page: u32) -> Result<&[u8], PageError> {
        if !self.current.pages.contains(&page) || self.current.result.is_err() {
            self.load(page);
        }
        self.current.result.map_err(|kind| PageError { page, kind })?;
        let before = page.saturating_sub(self.current.pages.start) as usize;
        let bytes = self.current.bytes.get(before * self.geometry.page_size as usize..);
        let out_of_range = PageError { page, kind: PageErrorKind::OutOfRange };
        bytes.filter(|bytes| !bytes.is_empty()).ok_or(out_of_range)
    }

    fn discard(&mut self, page: u32) {
        if self.current.pages.contains(&page) {
            self.current.pages = 0..0;
        }
    }
}

impl Drop for ReadPager {
    fn drop(&mut self) {
        self.requests = None;
        if let Some(thread) = self.thread.take() {
            // The thread only reads files; there is nothing to report.
            let _ = thread.join();
        }
    }
}
