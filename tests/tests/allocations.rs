//! Once a text is under way, no token costs an allocation; a prompt costs what the plan says.
#![allow(unsafe_code, reason = "a counting allocator")]

use omex::Error;
use omex::pager::{PageSource, Space, Tiles};
use omex::plan::Kv;
use omex::quantize::Precision;
use omex::session::{Session, SessionOptions, plan_model};
use omex::tokenizer::ENCODING_BYTES;
use omex_core::generate::Generation;
use omex_core::sample::{Sampler, Sampling};
use omex_core::token::{Decoder, Tokenizer};
use omex_tests::{convert_from, shipped_model};
use std::alloc::{GlobalAlloc, Layout, System};
use std::path::Path;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

/// Counts what any thread allocates.
struct Counting;

static ALLOCATIONS: AtomicU64 = AtomicU64::new(0);
/// Bytes allocated now, and the most of them.
static BYTES: AtomicUsize = AtomicUsize::new(0);
static PEAK: AtomicUsize = AtomicUsize::new(0);

fn grow(bytes: usize) {
    ALLOCATIONS.fetch_add(1, Ordering::SeqCst);
    PEAK.fetch_max(BYTES.fetch_add(bytes, Ordering::SeqCst) + bytes, Ordering::SeqCst);
}

// SAFETY: the system's allocator does the work.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        grow(layout.size());
        // SAFETY: the caller's promises are passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn realloc(&self, old: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // The old one may have to be copied.
        grow(size);
        BYTES.fetch_sub(layout.size(), Ordering::SeqCst);
        // SAFETY: the caller's promises are passed on.
        unsafe { System.realloc(old, layout, size) }
    }

    unsafe fn dealloc(&self, old: *mut u8, layout: Layout) {
        BYTES.fetch_sub(layout.size(), Ordering::SeqCst);
        // SAFETY: the caller's promises are passed on.
        unsafe { System.dealloc(old, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// One test in this binary: another one's allocations would be counted too.
#[test]
fn decoding_allocates_nothing_and_encoding_what_was_planned() {
    let package = convert_from(&shipped_model(), Some(Precision::Int8));
    encoding_allocates_what_was_planned(&package.path);
    tables_of_tiles_do_not_grow_with_the_model();
    let spilled =
        SessionOptions { context: Some(900), kv: Some(Kv::F16), ..SessionOptions::default() };
    let spilled = SessionOptions { memory: Some(least(&package.path, &spilled)), ..spilled };
    for (pages, threads, options) in [
        (PageSource::Mmap, 1, SessionOptions::default()),
        (PageSource::Mmap, 3, SessionOptions::default()),
        (PageSource::Read, 1, SessionOptions::default()),
        (PageSource::Read, 2, SessionOptions::default()),
        (PageSource::Read, 1, spilled),
    ] {
        let options = SessionOptions { pages: Some(pages), threads: Some(threads), ..options };
        let mut session = Session::open(&package.path, &options).unwrap();
        assert_eq!(session.plan().kv_spill.is_some(), options.memory.is_some());
        let prompt = session.encode("Once upon a time").unwrap();
        let tables = session.tokenizer_tables().unwrap().to_vec();
        let mut tokenizer = Tokenizer::open(tables.as_slice()).unwrap();
        let mut decoder = Decoder::new(false);
        let mut engine = session.engine().unwrap();
        let sampling = Sampling {
            temperature: 1.0,
            top_k: 40,
            top_p: 0.9,
            min_p: 0.01,
            repetition_penalty: 1.1,
            seed: 7,
        };
        let mut text = Generation::prefill(&mut engine, Sampler::new(sampling), &prompt).unwrap();
        let mut length = 0;
        let mut step = || {
            let Some(id) = text.next_token().unwrap() else { return false };
            tokenizer.decode(&mut decoder, id, &mut |piece| length += piece.len()).unwrap();
            true
        };
        // The first passes may still start what is started once a thread.
        assert!(step() && step());
        let before = ALLOCATIONS.load(Ordering::SeqCst);
        let mut tokens = 0;
        while tokens < 120 && step() {
            tokens += 1;
        }
        let allocations = ALLOCATIONS.load(Ordering::SeqCst) - before;
        println!(
            "{pages:?}, {threads} threads: {allocations} allocations for {tokens} tokens, {length} bytes of text"
        );
        assert!(tokens > 20, "a text of {tokens} tokens shows little");
        // A thread allocates when it begins, and when a channel first makes it wait: both may come late.
        let others = threads > 1 || options.memory.is_some();
        assert!(
            allocations <= if others { 8 } else { 0 },
            "{pages:?}, {threads} threads: for {tokens} tokens"
        );
    }
}

/// What the smallest plan needs.
fn least(model: &Path, options: &SessionOptions) -> u64 {
    match plan_model(model, &SessionOptions { memory: Some(1), ..options.clone() }) {
        Err(Error::Budget { needed, .. }) => needed,
        other => panic!("{other:?} with a byte of memory"),
    }
}

fn encoding_allocates_what_was_planned(model: &Path) {
    let session = Session::open(model, &SessionOptions::default()).unwrap();
    let tables = session.tokenizer_tables().unwrap().len();
    assert!(session.plan().bytes.tables as usize >= ENCODING_BYTES + tables);
    let peak = |text: &str| {
        let before = BYTES.load(Ordering::SeqCst);
        PEAK.store(before, Ordering::SeqCst);
        let ids = session.encode(text).unwrap();
        let peak = PEAK.load(Ordering::SeqCst) - before;
        println!("{} bytes of text: {} ids, {peak} bytes at the peak", text.len(), ids.len());
        peak
    };
    let words = "Once upon a time there was a robot. ".repeat(10_000);
    // The ids grow by doubling.
    let ids = 4 * words.len();
    assert!(peak(&words) <= ENCODING_BYTES + ids);
    let long = 20_000;
    let peak = peak(&format!("{words}{}", "x".repeat(long)));
    assert!(peak <= ENCODING_BYTES + ids + 96 * long && peak > 24 * long, "{peak}");
}

/// What no plan counts is not needed, however large the model.
fn tables_of_tiles_do_not_grow_with_the_model() {
    let peak = |layer: u64| {
        let files = (0..80).map(|i| (format!("layer_{i}.bin").into(), layer)).collect();
        let space = Space { files, page_size: 4096, open: vec![] };
        let tensors = (0..space.length()).step_by(layer as usize / 8);
        let used = tensors.map(|start| start..start + layer / 8);
        let before = BYTES.load(Ordering::SeqCst);
        PEAK.store(before, Ordering::SeqCst);
        let mut tiles = Tiles::new(&space, 16, used);
        tiles.pin(1 << 30);
        assert_eq!(tiles.bytes(), (tiles.bytes().0, space.length() - tiles.bytes().0));
        PEAK.load(Ordering::SeqCst) - before
    };
    let (small, large) = (peak(64 << 20), peak(8 << 30));
    assert_eq!(small, large, "for 5 GB and for 640 GB");
}
