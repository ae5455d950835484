//! KV caches that memory has no room for lie on storage, and change no bit.

use omex::Error;
use omex::pager::PageSource;
use omex::plan::{Kv, MemoryPlan, Residency};
use omex::quantize::Precision;
use omex::saved_session::SavedSession;
use omex::session::{Session, SessionOptions, plan_model};
use omex::spill::{BLOCK, SpillFile};
use omex_core::engine::{Engine, Wanted};
use omex_core::error::RunError;
use omex_core::pass::Input;
use omex_core::state::KvErrorKind;
use omex_tests::{Converted, Rows, Setting, Synthetic, convert_from, logits, shipped_model};
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Positions of a cache.
const CONTEXT: u32 = 400;

/// A model with six caches of one head, which is 64 wide.
fn synthetic() -> Converted {
    Converted::new(&Synthetic::new(128, 352, 6, 2, 1, 283, 512).in_q8_0(), None)
}

fn token(i: u32) -> u32 {
    i * 7919 % 283
}

/// What the smallest plan needs, which spills all caches.
fn least(model: &Path, options: &SessionOptions) -> u64 {
    match plan_model(model, &SessionOptions { memory: Some(1), ..options.clone() }) {
        Err(Error::Budget { needed, .. }) => needed,
        other => panic!("{other:?} with a byte of memory"),
    }
}

fn options(setting: &Setting<'_>, logit_columns: u32) -> SessionOptions {
    let (context, kv, pages) = (setting.context, setting.kv, setting.pages);
    SessionOptions { context, kv, pages, logit_columns, ..SessionOptions::default() }
}

/// The setting with the smallest budget, and room for a few caches or as many bytes of weights; and
/// how many caches are spilled.
fn spilling<'s>(model: &Path, setting: Setting<'s>, columns: u32, more: u64) -> (Setting<'s>, u32) {
    let options = options(&setting, columns);
    let least = least(model, &options);
    let spilled = |memory| {
        let plan =
            plan_model(model, &SessionOptions { memory: Some(memory), ..options.clone() }).unwrap();
        plan.kv_spill.unwrap_or_else(|| panic!("nothing is spilled: {plan:?}"))
    };
    let all = spilled(least);
    let cache = (all.bytes / u64::from(all.caches)).next_multiple_of(BLOCK as u64);
    let memory = least + more * cache;
    (Setting { memory: Some(memory), ..setting }, spilled(memory).caches)
}

/// In passes of any length, up to the cache's end and past it, with weights that stream or are
/// mapped, and however many caches stay in memory.
#[test]
fn logits_are_the_same_bits() {
    let model = synthetic();
    let ids: Vec<_> = (0..CONTEXT + 40).map(token).collect();
    for kv in [Kv::F16, Kv::Int8, Kv::F32] {
        let plain = Setting { context: Some(CONTEXT), kv: Some(kv), ..Setting::default() };
        let expected = logits(&model.path, &ids, &plain);
        for (pages, chunks, more, count) in [
            (PageSource::Mmap, &[16][..], 0, 6),
            (PageSource::Mmap, &[7, 16, 1, 3], 1, 5),
            (PageSource::Read, &[1], 1, 6),
        ] {
            let setting = Setting { pages: Some(pages), chunks, threads: Some(2), ..plain };
            let (setting, spilled) = spilling(&model.path, setting, 16, more);
            let same = logits(&model.path, &ids, &setting) == expected;
            assert!(same, "{kv}, {pages}, {chunks:?}, {spilled} spilled");
            assert_eq!(spilled, count, "{kv}, {pages}, {chunks:?}");
        }
    }
    let shipped = convert_from(&shipped_model(), Some(Precision::Int8));
    let ids: Vec<_> = (0..840).map(|i| token(i) + 200).collect();
    let plain = Setting { context: Some(800), kv: Some(Kv::F16), ..Setting::default() };
    let (spilled, _) = spilling(&shipped.path, plain, 16, 0);
    assert!(logits(&shipped.path, &ids, &plain) == logits(&shipped.path, &ids, &spilled));
}

/// Texts that branch, go back, and begin anew.
#[test]
fn drafts_and_going_back_change_nothing() {
    let model = synthetic();
    for (kv, more) in [(Kv::F16, 0), (Kv::Int8, 0), (Kv::F16, 2)] {
        let pages = Some(PageSource::Mmap);
        let plain = Setting { context: Some(CONTEXT), kv: Some(kv), pages, ..Setting::default() };
        let (spilled, _) = spilling(&model.path, plain, 8, more);
        let mut sessions = [plain, spilled].map(|setting| setting.open(&model.path, 8).unwrap());
        let [a, b] = &mut sessions;
        let mut engines = [a.engine().unwrap(), b.engine().unwrap()];
        let mut both = |what: &str, run: &dyn Fn(&mut Engine<'_>)| {
            let [plain, spilled] = engines.each_mut().map(|engine| {
                run(engine);
                (0..3).map(|column| engine.logits(column).to_vec()).collect::<Vec<_>>()
            });
            assert!(plain == spilled, "{kv}, {more}: {what}");
        };
        for turn in 0..3 {
            for start in (0..64).step_by(8) {
                let ids: Vec<_> = (start..start + 8).map(|i| token(i + turn)).collect();
                both("prompt", &|engine| engine.forward(&ids, Wanted::Last).unwrap());
            }
            for round in 0..12 {
                both("tree", &|engine| {
                    let first = engine.position();
                    // Depths of a tree in preorder; column 4 is on its second branch.
                    let depths = [0, 1, 2, 1, 2, 2];
                    let inputs = depths.into_iter().zip(0..).map(|(depth, column)| Input {
                        token: token(7 * round + column),
                        sequence: 0,
                        position: first + depth,
                        logits: column >= 3,
                        adapter: 0,
                        segment: 0,
                    });
                    engine.pass(inputs).unwrap();
                    engine.accept(round as usize % 6).unwrap();
                });
                both("token", &|engine| engine.forward(&[token(round)], Wanted::Last).unwrap());
            }
            both("going back", &|engine| {
                let back = |position| Input {
                    token: 5,
                    sequence: 0,
                    position,
                    logits: true,
                    adapter: 0,
                    segment: 0,
                };
                engine.pass([back(20), back(21)]).unwrap();
                engine.forward(&[9], Wanted::Last).unwrap();
            });
            both("a new text", &|engine| {
                engine.reset();
                engine.forward(&[turn, 3], Wanted::All).unwrap();
                engine.reset();
            });
        }
    }
}

/// A session is the same file, whichever side wrote it.
#[test]
fn a_saved_session_goes_on_with_caches_anywhere() {
    let model = synthetic();
    let plain = Setting { context: Some(CONTEXT), kv: Some(Kv::Int8), ..Setting::default() };
    let (spilled, _) = spilling(&model.path, plain, 1, 0);
    let file = model.folder.path().join("text.session");
    let ids: Vec<_> = (0..70).map(token).collect();
    let expected = logits(&model.path, &ids, &plain).pop().unwrap();
    for [first, second] in [[plain, spilled], [spilled, plain], [spilled, spilled]] {
        let _ = std::fs::remove_file(&file);
        let mut session = first.open(&model.path, 1).unwrap();
        let saved = SavedSession::open(&file, &session).unwrap();
        let mut engine = session.engine().unwrap();
        for id in &ids[..68] {
            engine.forward(&[*id], Wanted::Last).unwrap();
        }
        saved.save(&mut engine, &ids[..69], 0).unwrap();
        let mut session = second.open(&model.path, 1).unwrap();
        let mut saved = SavedSession::open(&file, &session).unwrap();
        let mut engine = session.engine().unwrap();
        saved.restore(&mut engine).unwrap();
        for id in &ids[68..] {
            engine.forward(&[*id], Wanted::Last).unwrap();
        }
        assert!(engine.logits(0) == expected);
    }
}

/// Fails reads or writes at random: errors, and flipped bits.
struct Faulty {
    inner: Box<dyn SpillFile>,
    state: AtomicU64,
    writes: bool,
    injected: Arc<AtomicU64>,
}

impl Faulty {
    fn random(&self, below: u64) -> u64 {
        let next = |x: u64| Some(x.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1));
        let last = self.state.fetch_update(Ordering::Relaxed, Ordering::Relaxed, next);
        (last.unwrap() >> 33) % below
    }

    fn fails(&self) -> bool {
        let fails = self.random(40) == 0;
        self.injected.fetch_add(u64::from(fails), Ordering::Relaxed);
        fails
    }
}

impl SpillFile for Faulty {
    fn read(&self, bytes: &mut [u8], offset: u64) -> io::Result<()> {
        self.inner.read(bytes, offset)?;
        if !self.writes && self.fails() {
            if self.random(2) == 0 {
                return Err(io::Error::other("injected"));
            }
            bytes[self.random(bytes.len() as u64) as usize] ^= 1 << self.random(8);
        }
        Ok(())
    }

    fn write(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        if self.writes && self.random(200) == 0 {
            self.injected.fetch_add(1, Ordering::Relaxed);
            return Err(io::ErrorKind::StorageFull.into());
        }
        self.inner.write(bytes, offset)
    }
}

/// The caches are in 16-bit floats.
fn half() -> Setting<'static> {
    Setting { context: Some(CONTEXT), kv: Some(Kv::F16), ..Setting::default() }
}

/// A text that is longer than the cache, and its logits where all caches are in memory.
fn long_text(model: &Path) -> (Vec<u32>, Rows) {
    let ids: Vec<_> = (0..CONTEXT + 60).map(token).collect();
    let expected = logits(model, &ids, &half());
    (ids, expected)
}

/// Opens the synthetic model with spilled caches on a faulty file.
fn faulty(model: &Path, writes: bool) -> (Session, Arc<AtomicU64>) {
    let (setting, _) = spilling(model, half(), 1, 0);
    let mut session = setting.open(model, 1).unwrap();
    let injected = Arc::new(AtomicU64::new(0));
    let counter = Arc::clone(&injected);
    session.wrap_spill(|inner| {
        Box::new(Faulty { inner, state: AtomicU64::new(7), writes, injected: counter })
    });
    (session, injected)
}

#[test]
fn reads_that_fail_are_repeated_or_reported() {
    let model = synthetic();
    let (ids, expected) = long_text(&model.path);
    let (mut session, injected) = faulty(&model.path, false);
    let failure = session.failure();
    let mut engine = session.engine().unwrap();
    let mut reported = 0;
    for (id, expected) in ids.iter().zip(&expected) {
        // A pass that failed did not happen: the same one again.
        while let Err(error) = engine.forward(&[*id], Wanted::Last) {
            let RunError::Kv(found) = error else { panic!("{error}") };
            assert_ne!(found.kind, KvErrorKind::Write);
            assert!(failure(error).to_string().contains("spilled keys and values"));
            reported += 1;
        }
        assert!(engine.logits(0) == expected, "wrong logits");
    }
    let injected = injected.load(Ordering::Relaxed);
    println!("{injected} faults, {reported} reported");
    assert!(reported > 0 && reported < injected, "{injected} faults, {reported} reported");
}

#[test]
fn what_is_not_written_ends_the_text() {
    let model = synthetic();
    let (ids, expected) = long_text(&model.path);
    let (mut session, _) = faulty(&model.path, true);
    let failure = session.failure();
    let mut engine = session.engine().unwrap();
    let failed = ids.iter().zip(&expected).find_map(|(id, expected)| {
        let error = engine.forward(&[*id], Wanted::Last).err();
        assert!(error.is_some() || engine.logits(0) == expected, "wrong logits");
        error
    });
    let error = failed.expect("a write fails before the text ends");
    assert!(matches!(error, RunError::Kv(e) if e.kind == KvErrorKind::Write), "{error}");
    assert_eq!(engine.forward(&[1], Wanted::Last), Err(error), "it is lost for good");
    let said = failure(error).to_string();
    assert!(said.contains("could not be written") && said.contains("--memory"), "{said}");
}

#[test]
fn the_planner_spills_only_what_fits_in_no_other_way() {
    let model = &synthetic().path;
    let plan = |options: &SessionOptions| plan_model(model, options);
    let asked = SessionOptions { context: Some(CONTEXT), ..SessionOptions::default() };
    let whole = plan(&asked).unwrap();
    assert!(whole.kv_spill.is_none() && whole.kv_format == Kv::F16);
    let least = least(model, &asked);
    let at = |memory| plan(&SessionOptions { memory: Some(memory), ..asked.clone() });
    let spills = |memory| at(memory).unwrap().kv_spill.is_some();
    assert!(spills(least) && !spills(whole.total));
    // The most memory that still spills: beyond, the smaller format streams without.
    let mut range = least..whole.total;
    while range.end - range.start > 1 {
        let middle = range.start.midpoint(range.end);
        if spills(middle) { range.start = middle } else { range.end = middle }
    }
    let (spilled, kept) = (at(range.start).unwrap(), at(range.end).unwrap());
    assert_eq!((kept.kv_format, kept.context), (Kv::Int8, CONTEXT));
    assert!(matches!(kept.residency, Residency::Streamed { .. }) && kept.kv_spill.is_none());
    assert_eq!((spilled.kv_format, spilled.context), (Kv::Int8, CONTEXT));
    let adds_up = |plan: &MemoryPlan| {
        let b = plan.bytes;
        b.weights + b.ring + b.kv_cache + b.activations + b.tables == plan.total
    };
    assert!([&whole, &spilled, &kept].into_iter().all(adds_up));
    // A context that nobody asked for shrinks, and several texts are refused.
    let free = SessionOptions { memory: Some(range.start), ..SessionOptions::default() };
    let shorter = plan(&free).unwrap();
    assert!(shorter.kv_spill.is_none() && shorter.context < CONTEXT, "{shorter:?}");
    let several = SessionOptions { memory: Some(range.start), sequences: 2, ..asked.clone() };
    assert!(matches!(plan(&several), Err(Error::Budget { .. })));
}
