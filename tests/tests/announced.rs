//! Pages that are not read in order: they are announced, read once and before they are asked for,
//! and have memory of their own.

use omex::pager::{PageSource, Read, Reader, Space, StreamPager, Tiles, open_reader};
use omex::states::Lent;
use omex_hal::{PageError, Pager};
use omex_hal_adapters::conformance;
use omex_tests::sources;
use std::io;
use std::ops::Range;
use std::sync::{Arc, Mutex};

const PAGE: u32 = 4096;
/// Pages that every pass reads, in the first file.
const IN_ORDER: u32 = 24;
/// Pages of the second file.
const OTHERS: u32 = 40;

/// How often each page was read.
type Reads = Arc<Mutex<Vec<u32>>>;

/// A reader that counts what it is asked for.
struct Counting {
    inner: Box<dyn Reader>,
    reads: Reads,
}

impl Reader for Counting {
    fn submit(&mut self, read: Read) {
        let (file, offset) = read.place();
        let first = file as u32 * IN_ORDER + (offset / u64::from(PAGE)) as u32;
        let count = read.length().div_ceil(u64::from(PAGE)) as u32;
        let mut reads = self.reads.lock().unwrap();
        (first..first + count).for_each(|page| reads[page as usize] += 1);
        self.inner.submit(read);
    }

    fn wait(&mut self) -> Option<(Read, io::Result<usize>)> {
        self.inner.wait()
    }

    fn poll(&mut self) -> Option<(Read, io::Result<usize>)> {
        self.inner.poll()
    }
}

/// Two files, of which the first is read in order.
struct Files {
    _folder: tempfile::TempDir,
    space: Space,
    bytes: Vec<u8>,
}

impl Files {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (mut files, mut bytes) = (vec![], vec![]);
        for (name, pages) in [("in order", IN_ORDER), ("others", OTHERS)] {
            let begin = bytes.len() as u32;
            let all =
                (begin..begin + pages * PAGE).map(|i| (i.wrapping_mul(2_654_435_761) >> 23) as u8);
            let data: Vec<u8> = all.collect();
            let path = folder.path().join(name);
            std::fs::write(&path, &data).unwrap();
            files.push((path, data.len() as u64));
            bytes.extend(data);
        }
        Self { _folder: folder, space: Space { files, page_size: PAGE, open: vec![] }, bytes }
    }

    /// A pager with a ring of 3 tiles of 2 pages, and `count` tiles of `tile_pages` pages beside it.
    fn pager(&self, source: PageSource, tile_pages: u32, count: usize) -> (StreamPager, Reads) {
        let used = 0..u64::from(IN_ORDER * PAGE);
        let mut tiles = Tiles::new(&self.space, 2, std::iter::once(used));
        tiles.keep_aside(tile_pages, count);
        let (reader, _) = open_reader(&self.space, Some(source), 4 + tiles.reads_aside()).unwrap();
        let mut pager =
            StreamPager::new(&self.space, tiles, 3, (u64::MAX, Lent::default()), reader).unwrap();
        let reads = Reads::new(Mutex::new(vec![0; (IN_ORDER + OTHERS) as usize]));
        let counts = Arc::clone(&reads);
        pager.wrap_reader(|inner| Box::new(Counting { inner, reads: counts }));
        (pager, reads)
    }

    /// Asks for pages and compares them.
    fn ask(&self, pager: &mut StreamPager, pages: Range<u32>) -> Result<(), PageError> {
        for page in pages {
            let piece = pager.page(page)?;
            let expected = &self.bytes[(page * PAGE) as usize..];
            assert!(expected.starts_with(piece), "page {page} has other bytes");
        }
        Ok(())
    }
}

fn sum(reads: &Reads, pages: Range<u32>) -> u32 {
    reads.lock().unwrap()[pages.start as usize..pages.end as usize].iter().sum()
}

#[test]
fn every_reader_reads_what_is_announced_once() {
    let files = Files::new();
    for source in sources() {
        for (tile_pages, count) in [(1, 2), (1, 7), (2, 4), (4, 3), (8, 20)] {
            let (mut pager, reads) = files.pager(source, tile_pages, count);
            let reads = |page: u32| reads.lock().unwrap()[page as usize];
            // Read-ahead within a tile: only whole tiles are told apart.
            let pages = IN_ORDER..IN_ORDER + OTHERS;
            if let Err(violation) = conformance::check_reads(&mut pager, pages, &reads) {
                panic!("{source}, {count} tiles of {tile_pages} pages: {violation}");
            }
            if let Err(violation) = conformance::check(&mut pager, &files.bytes) {
                panic!("{source}, {count} tiles of {tile_pages} pages: {violation}");
            }
        }
    }
}

#[test]
fn announced_pages_are_read_before_they_are_asked_for_as_far_as_there_is_room() {
    let files = Files::new();
    for source in sources() {
        let (mut pager, reads) = files.pager(source, 2, 5);
        let parts = [30..34, 50..54, 40..44, 60..63];
        parts.iter().for_each(|part| pager.want(part.clone()));
        // Five tiles of two pages: the first two parts, and half of the third.
        assert_eq!(sum(&reads, IN_ORDER..IN_ORDER + OTHERS), 10, "{source}");
        assert_eq!(sum(&reads, 30..34) + sum(&reads, 50..54) + sum(&reads, 40..42), 10);
        for part in parts.clone() {
            files.ask(&mut pager, part).unwrap();
        }
        for page in parts.into_iter().flatten() {
            assert_eq!(reads.lock().unwrap()[page as usize], 1, "{source}, page {page}");
        }
        // With the page beside the last one.
        assert_eq!(sum(&reads, IN_ORDER..IN_ORDER + OTHERS), 16, "{source}");
    }
}

#[test]
fn what_is_used_most_stays_and_then_gives_way() {
    let files = Files::new();
    let (mut pager, reads) = files.pager(PageSource::Read, 2, 6);
    let (hot, later) = ([30..32, 44..46], [54..56, 60..62]);
    let mut round = |often: &[Range<u32>; 2], i: u32| {
        let others = [34, 36, 38, 40, 42, 48, 50, 52];
        let other = |i: u32| others[i as usize % others.len()];
        let seldom = [other(3 * i), other(3 * i + 1), other(3 * i + 2)].map(|page| page..page + 2);
        let parts = seldom.iter().chain(often);
        parts.clone().for_each(|part| pager.want(part.clone()));
        parts.for_each(|part| files.ask(&mut pager, part.clone()).unwrap());
    };
    let read = |parts: &[Range<u32>; 2]| -> u32 {
        parts.iter().map(|part| sum(&reads, part.clone())).sum()
    };
    for often in [&hot, &later] {
        (0..100).for_each(|i| round(often, i));
        let before = read(often);
        (0..20).for_each(|i| round(often, i));
        // Of 80 pages that are asked for.
        assert!(read(often) - before <= 8, "{} are read again", read(often) - before);
    }
}

#[test]
fn what_is_out_of_order_pushes_nothing_out_of_the_ring() {
    let files = Files::new();
    for source in sources() {
        let (mut pager, reads) = files.pager(source, 2, 4);
        files.ask(&mut pager, 0..IN_ORDER).unwrap();
        let before = sum(&reads, 0..IN_ORDER);
        let passes = 6;
        for pass in 0..passes {
            for page in (0..IN_ORDER).step_by(4) {
                let chosen = IN_ORDER + (page * 5 + pass * 8) % (OTHERS - 6);
                pager.want(chosen..chosen + 6);
                files.ask(&mut pager, page..page + 4).unwrap();
                files.ask(&mut pager, chosen..chosen + 6).unwrap();
                // What began in order goes on in order.
                pager.want(page + 4..IN_ORDER);
            }
        }
        let read = sum(&reads, 0..IN_ORDER) - before;
        assert!(read.abs_diff(passes * IN_ORDER) <= 6, "{source}: {read} pages");
        let held = pager.progress().ring();
        assert!(held <= u64::from(PAGE) * (3 * 2 + 4 * 2), "{source}: {held} bytes");
    }
}

#[test]
fn announcements_that_nobody_follows_give_way() {
    let files = Files::new();
    let (mut pager, reads) = files.pager(PageSource::Read, 2, 4);
    (0..3000).for_each(|_| pager.want(IN_ORDER..IN_ORDER + OTHERS));
    for page in [61, 25, 47, 33, 55, 39] {
        files.ask(&mut pager, page..page + 1).unwrap();
    }
    pager.want(50..54);
    files.ask(&mut pager, 50..54).unwrap();
    // For each of ten pages no more than there is room for, and the page itself.
    assert!(
        reads.lock().unwrap().iter().sum::<u32>() <= 10 * (4 + 1) * 2,
        "{:?}",
        reads.lock().unwrap()
    );
}
