//! The host's pagers: every way of reading gives the same pages, whatever is pinned and however
//! reads fail.

use omex::pager::{
    PageSource, Read, Reader, Space, StreamPager, Tiles, guard_mapped_files, open_reader,
};
use omex::states::Lent;
use omex_core::engine::Wanted;
use omex_core::error::RunError;
use omex_hal::{PageError, PageErrorKind, Pager};
use omex_hal_adapters::conformance;
use omex_tests::{Converted, Setting, Synthetic, logits, sources};
use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

const PAGE: u32 = 4096;

/// Two files, the second of which ends inside of a page, and what is in them.
struct Files {
    _folder: tempfile::TempDir,
    space: Space,
    bytes: Vec<u8>,
}

impl Files {
    fn new(pages: [usize; 2], rest: usize) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (mut files, mut bytes, mut state) = (vec![], vec![], 1u32);
        for (name, length) in
            [("a", pages[0] * PAGE as usize), ("b", pages[1] * PAGE as usize + rest)]
        {
            let data: Vec<u8> = (0..length)
                .map(|_| {
                    state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                    (state >> 24) as u8
                })
                .collect();
            let path = folder.path().join(name);
            std::fs::write(&path, &data).unwrap();
            files.push((path, length as u64));
            bytes.extend(data);
        }
        Self { _folder: folder, space: Space { files, page_size: PAGE, open: vec![] }, bytes }
    }

    fn pager(&self, source: PageSource, tile_pages: u32, depth: usize, pinned: u64) -> StreamPager {
        let used = used(self.bytes.len() as u64);
        let mut tiles = Tiles::new(&self.space, tile_pages, used.into_iter());
        tiles.pin(pinned);
        let (reader, _) =
            open_reader(&self.space, Some(source), depth + 1 + tiles.reads_aside()).unwrap();
        StreamPager::new(&self.space, tiles, depth, (u64::MAX, Lent::default()), reader).unwrap()
    }
}

/// Everything but the beginning, which is used last: as a tied embedding is.
fn used(length: u64) -> [Range<u64>; 2] {
    let first = length / 5;
    [first..length, 0..first]
}

#[test]
fn every_reader_keeps_to_the_rules() {
    let files = Files::new([23, 41], 1000);
    let length = files.bytes.len() as u64;
    for source in sources() {
        for (tile_pages, depth) in [(1, 2), (3, 2), (4, 5), (64, 3)] {
            for pinned in [0, length / 3, 2 * length] {
                let mut pager = files.pager(source, tile_pages, depth, pinned);
                if let Err(violation) = conformance::check(&mut pager, &files.bytes) {
                    panic!("{source}, {tile_pages} pages, ring of {depth}, {pinned}: {violation}");
                }
            }
        }
    }
}

/// Plays a pass: the pages of the used ranges, in order.
fn pass(pager: &mut StreamPager, files: &Files) -> Result<(), PageError> {
    for range in used(files.bytes.len() as u64) {
        let mut at = range.start;
        while at < range.end {
            let page = (at / u64::from(PAGE)) as u32;
            let start = u64::from(page) * u64::from(PAGE);
            let piece = pager.page(page)?;
            let expected = &files.bytes[start as usize..];
            assert!(expected.starts_with(piece), "page {page} has other bytes");
            at = start + piece.len() as u64;
        }
    }
    Ok(())
}

#[test]
fn a_pass_reads_what_is_not_pinned_once() {
    let files = Files::new([40, 59], 96);
    let length = files.bytes.len() as u64;
    for source in sources() {
        let mut last = u64::MAX;
        for pinned in [0, length / 4, length / 2, length, 2 * length] {
            let mut tiles = Tiles::new(&files.space, 2, used(length).into_iter());
            tiles.pin(pinned);
            let (kept, streamed) = tiles.bytes();
            assert_eq!(kept + streamed, length);
            assert!(kept <= pinned && streamed < last, "{kept} of {pinned}, {streamed} streamed");
            last = streamed;
            let mut pager = files.pager(source, 2, 4, pinned);
            pass(&mut pager, &files).unwrap();
            let progress = pager.progress();
            let before = progress.bytes();
            let passes = 5;
            for _ in 0..passes {
                pass(&mut pager, &files).unwrap();
            }
            let read = progress.bytes() - before;
            // What the ring is ahead by differs by when one looks, and direct reads are rounded up.
            let slack = 5 * 2 * u64::from(PAGE) + passes * u64::from(PAGE);
            assert!(
                read.abs_diff(passes * streamed) <= slack,
                "{source}: {read} of {passes} × {streamed}"
            );
        }
    }
}

#[test]
fn what_lies_in_lent_memory_is_verified_again_and_stays_while_it_is_in_use() {
    let files = Files::new([40, 59], 96);
    let length = files.bytes.len() as u64;
    let (room, lent) = (length / 2, Lent::default());
    lent.set(length);
    let mut tiles = Tiles::new(&files.space, 2, used(length).into_iter());
    tiles.pin(room + lent.bytes());
    let (reader, _) =
        open_reader(&files.space, Some(PageSource::Read), 5 + tiles.reads_aside()).unwrap();
    let mut pager = StreamPager::new(&files.space, tiles, 4, (room, lent.clone()), reader).unwrap();
    (0..2).for_each(|_| pass(&mut pager, &files).unwrap());
    let before = pager.progress().bytes();
    let pages = 0..pager.geometry().pages;
    let stable: Vec<u32> = pages.clone().filter(|page| pager.is_stable(*page)).collect();
    assert!((30..60).contains(&stable.len()), "{stable:?}");
    let in_use = pages.clone().find(|page| !stable.contains(page)).unwrap();
    let place = pager.page(in_use).unwrap().as_ptr().addr();
    lent.set(0);
    assert_eq!(pager.page(in_use).unwrap().as_ptr().addr(), place, "what is in use moved");
    for page in stable {
        pager.page(page).unwrap();
        assert!(pager.is_stable(page), "page {page} was stable");
    }
    let ahead = 4 * 2 * u64::from(PAGE);
    assert!(pager.progress().bytes() <= before + ahead, "what is stable was read again");
    pass(&mut pager, &files).unwrap();
    assert!(pager.progress().bytes() > before + length / 3, "lent memory was not given back");
}

/// What is held of pinned tiles is counted as it was, also of those that are not whole.
#[test]
fn what_is_given_back_is_no_longer_counted() {
    let files = Files::new([40, 59], 96);
    let (length, lent) = (files.bytes.len() as u64, Lent::default());
    lent.set(2 * length);
    let mut tiles = Tiles::new(&files.space, 2, used(length).into_iter());
    tiles.pin(lent.bytes());
    let (reader, _) =
        open_reader(&files.space, Some(PageSource::Read), 5 + tiles.reads_aside()).unwrap();
    let mut pager = StreamPager::new(&files.space, tiles, 4, (0, lent.clone()), reader).unwrap();
    (0..2).for_each(|_| pass(&mut pager, &files).unwrap());
    // The tile in use lies in the ring.
    assert!(pager.progress().pinned() + 2 * u64::from(PAGE) >= length);
    for bytes in (0..length).rev().step_by(PAGE as usize) {
        lent.set(bytes);
        pager.page(0).unwrap();
    }
    lent.set(0);
    pass(&mut pager, &files).unwrap();
    assert_eq!(pager.progress().pinned(), 0);
}

/// Fails reads at random: errors, short reads, delays, flipped bits.
struct Faulty {
    inner: Box<dyn Reader>,
    state: u64,
    injected: Arc<AtomicU64>,
}

impl Faulty {
    fn random(&mut self, below: u64) -> u64 {
        self.state = self.state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (self.state >> 33) % below
    }
}

impl Reader for Faulty {
    fn submit(&mut self, read: Read) {
        self.inner.submit(read);
    }

    fn wait(&mut self) -> Option<(Read, io::Result<usize>)> {
        let (mut read, mut result) = self.inner.wait()?;
        let fault = self.random(64);
        if fault < 4 {
            self.injected.fetch_add(1, Ordering::Relaxed);
        }
        match (fault, &mut result) {
            (0, result) => *result = Err(io::Error::other("injected")),
            (1, Ok(bytes)) => *bytes = self.random(*bytes as u64 + 1) as usize,
            (2, _) => std::thread::sleep(std::time::Duration::from_micros(50)),
            (3, Ok(_)) => {
                let at = self.random(read.bytes_mut().len() as u64) as usize;
                read.bytes_mut()[at] ^= 1 << self.random(8);
            }
            _ => {}
        }
        Some((read, result))
    }
}

#[test]
fn ten_thousand_faults_are_retried_or_reported() {
    let converted = Converted::new(&Synthetic::new(128, 352, 6, 4, 2, 512, 64).in_q8_0(), None);
    let model = converted.path.as_path();
    let ids = [1, 5, 9, 300, 511, 77];
    let expected = logits(model, &ids, &Setting::default());
    let sources = sources();
    let enough = 10_000 / sources.len() as u64 + 1;
    for source in sources {
        let setting = Setting { memory: Some(900_000), pages: Some(source), ..Setting::default() };
        let mut session = setting.open(model, 1).unwrap();
        assert!(session.plan().streamed_bytes > 0 && session.plan().bytes.weights > 0);
        let injected = Arc::new(AtomicU64::new(0));
        let counter = Arc::clone(&injected);
        session.wrap_reader(|inner| Box::new(Faulty { inner, state: 7, injected: counter }));
        let mut engine = session.engine().unwrap();
        let (mut passes, mut reported) = (0, 0);
        while injected.load(Ordering::Relaxed) < enough {
            engine.reset();
            for (id, expected) in ids.iter().zip(&expected) {
                // A pass that failed did not happen: the same one again.
                while let Err(error) = engine.forward(&[*id], Wanted::Last) {
                    assert!(matches!(error, RunError::Page(_)), "{error}");
                    reported += 1;
                }
                assert!(engine.logits(0) == &expected[..], "{source}: wrong logits");
                passes += 1;
            }
        }
        let injected = injected.load(Ordering::Relaxed);
        println!("{source}: {injected} faults in {passes} passes, {reported} reported");
        assert!(reported > 0 && passes > reported, "{passes} passes, {reported} reported");
    }
}

#[test]
fn a_mapped_file_that_changes_is_an_error_and_no_crash() {
    assert!(guard_mapped_files());
    type Change = fn(&File) -> io::Result<()>;
    let changes: [(Change, PageErrorKind); 4] = [
        (refill_under_the_old_time, PageErrorKind::Changed),
        (|file| file.set_len(0), PageErrorKind::Truncated),
        (|file| file.set_len(5000), PageErrorKind::Truncated),
        (|file| file.write_all_at(&[1], 300), PageErrorKind::Changed),
    ];
    for (change, kind) in changes {
        let converted = Converted::new(&Synthetic::new(128, 352, 6, 4, 2, 512, 64).in_q8_0(), None);
        let mut session = Setting::default().open(&converted.path, 1).unwrap();
        let mut engine = session.engine().unwrap();
        engine.forward(&[1], Wanted::Last).unwrap();
        let files = (1..4).map(|layer| converted.path.join(format!("weights/layer_{layer}.bin")));
        for file in files {
            let file = File::options().write(true).open(file).unwrap();
            // Files tell their changes by the clock's ticks.
            std::thread::sleep(std::time::Duration::from_millis(20));
            change(&file).unwrap();
        }
        for _ in 0..2 {
            let failed = engine.forward(&[5], Wanted::Last).unwrap_err();
            assert!(matches!(failed, RunError::Page(error) if error.kind == kind), "{failed}");
        }
    }
}

/// Puts zeros in a file's place, and sets the time back at which they came there.
fn refill_under_the_old_time(file: &File) -> io::Result<()> {
    let before = file.metadata()?;
    file.set_len(0)?;
    file.set_len(before.len())?;
    file.set_modified(before.modified()?)
}

#[test]
fn a_mapped_file_that_loses_its_name_is_the_same_file() {
    let converted = Converted::new(&Synthetic::new(128, 352, 6, 4, 2, 512, 64).in_q8_0(), None);
    let mut session = Setting::default().open(&converted.path, 1).unwrap();
    let mut engine = session.engine().unwrap();
    engine.forward(&[1], Wanted::Last).unwrap();
    std::thread::sleep(std::time::Duration::from_millis(20));
    std::fs::remove_dir_all(&converted.path).unwrap();
    engine.forward(&[5], Wanted::Last).unwrap();
}

#[test]
fn what_was_lost_is_not_forgotten_when_the_file_is_whole_again() {
    assert!(guard_mapped_files());
    let converted = Converted::new(&Synthetic::new(128, 352, 6, 4, 2, 512, 64).in_q8_0(), None);
    let mut session = Setting::default().open(&converted.path, 1).unwrap();
    let mut engine = session.engine().unwrap();
    engine.forward(&[1], Wanted::Last).unwrap();
    let path = converted.path.join("weights/layer_2.bin");
    let (bytes, modified) =
        (std::fs::read(&path).unwrap(), path.metadata().unwrap().modified().unwrap());
    let file = File::options().write(true).open(&path).unwrap();
    file.set_len(0).unwrap();
    assert!(engine.forward(&[5], Wanted::Last).is_err());
    file.write_all_at(&bytes, 0).unwrap();
    file.set_modified(modified).unwrap();
    let failed = engine.forward(&[5], Wanted::Last).unwrap_err();
    let device = |error: &PageError| error.kind == PageErrorKind::Device;
    assert!(matches!(&failed, RunError::Page(error) if device(error)), "{failed}");
}
