//! The library's loop from prompt to text: cancelled anywhere, and held where no lifetime reaches.

use omex::Error;
use omex::cancel::Cancel;
use omex::draft::{Drafter, Drafting};
use omex::generate::{Event, Generated, Request, generate};
use omex::pager::{PageSource, Read, Reader};
use omex::plan::Kv;
use omex::quantize::Precision;
use omex::saved_session::SavedSession;
use omex::session::{Model, OwnedEngine, Session, SessionOptions, plan_model};
use omex_core::engine::Engine;
use omex_core::sample::Sampling;
use omex_tests::{Converted, Synthetic, convert_from, shipped_model};
use std::io;
use std::path::Path;

const WARM: Sampling =
    Sampling { temperature: 1.0, top_k: 40, seed: 3, repetition_penalty: 1.2, ..Sampling::GREEDY };

fn request(prompt: &[u32], max_tokens: usize) -> Request<'_> {
    Request {
        saved: None,
        prompt,
        max_tokens,
        sampling: WARM,
        mask: None,
        stop: &[],
        cancel: Cancel::default(),
    }
}

fn plainly(
    model: &Model,
    engine: &mut Engine<'_>,
    request: Request<'_>,
) -> omex::Result<Generated> {
    generate(model, engine, request, Drafting::new(None, 0, model), &mut |_| Ok(()))
}

/// Asks the work to stop when a number of reads have begun.
struct Stopping {
    inner: Box<dyn Reader>,
    left: usize,
    cancel: Cancel,
}

impl Reader for Stopping {
    fn submit(&mut self, read: Read) {
        match self.left {
            0 => self.cancel.cancel(),
            _ => self.left -= 1,
        }
        self.inner.submit(read);
    }

    fn wait(&mut self) -> Option<(Read, io::Result<usize>)> {
        self.inner.wait()
    }

    fn poll(&mut self) -> Option<(Read, io::Result<usize>)> {
        self.inner.poll()
    }
}

/// The least memory, so that every pass reads weights.
fn streamed(model: &Path) -> SessionOptions {
    let options = SessionOptions {
        pages: Some(PageSource::Read),
        kv: Some(Kv::F16),
        context: Some(96),
        threads: Some(1),
        ..SessionOptions::default()
    };
    match plan_model(model, &SessionOptions { memory: Some(1), ..options.clone() }) {
        Err(Error::Budget { needed, .. }) => SessionOptions { memory: Some(needed), ..options },
        other => panic!("{other:?} with a byte of memory"),
    }
}

#[test]
fn a_text_that_is_cancelled_within_a_pass_is_saved_and_goes_on_as_if_it_was_not() {
    let model = Converted::new(&Synthetic::odd(), Some(Precision::Int8));
    let file = model.folder.path().join("text.session");
    let options = streamed(&model.path);
    let mut session = Session::open(&model.path, &options).unwrap();
    let (about, prompt) = (session.model(), [7, 3, 7, 3, 7]);
    let whole = plainly(&about, &mut session.engine().unwrap(), request(&prompt, 40)).unwrap().ids;
    let mut lengths = vec![];
    for left in (1..).step_by(7) {
        let _ = std::fs::remove_file(&file);
        let cancel = Cancel::default();
        let options = SessionOptions { cancel: cancel.clone(), ..options.clone() };
        let mut session = Session::open(&model.path, &options).unwrap();
        session.wrap_reader(|inner| Box::new(Stopping { inner, left, cancel }));
        let saved = Some(SavedSession::open(&file, &session).unwrap());
        let about = session.model();
        let begun = Request { saved, ..request(&prompt, 40) };
        let Err(error) = plainly(&about, &mut session.engine().unwrap(), begun) else { break };
        assert!(matches!(error, Error::Interrupted), "{error}");
        drop(session);
        let mut session = Session::open(&model.path, &streamed(&model.path)).unwrap();
        let saved = SavedSession::open(&file, &session).unwrap();
        // Within the prompt, there is nothing to save.
        if saved.tokens().is_empty() {
            continue;
        }
        let said = saved.tokens()[prompt.len()..].to_vec();
        lengths.push(said.len());
        let about = session.model();
        let rest = Request { saved: Some(saved), ..request(&[], 40 - said.len()) };
        let rest = plainly(&about, &mut session.engine().unwrap(), rest).unwrap().ids;
        assert_eq!([said, rest].concat(), whole, "cancelled after {left} reads");
    }
    println!("texts of {lengths:?} tokens were saved");
    assert!(lengths.len() > 10, "{lengths:?}");
}

#[test]
fn a_request_is_cancelled_between_two_passes_and_the_next_one_is_not() {
    let model = convert_from(&shipped_model(), Some(Precision::Int8));
    let mut session = Session::open(&model.path, &SessionOptions::default()).unwrap();
    let prompt = session.encode("Once upon a time").unwrap();
    let about = session.model();
    let mut engine = session.engine().unwrap();
    let whole = plainly(&about, &mut engine, request(&prompt, 30)).unwrap();
    let stopped = request(&prompt, 30);
    let (cancel, mut told) = (stopped.cancel.clone(), vec![]);
    let drafting = Drafting::new(None, 0, &about);
    let result = generate(&about, &mut engine, stopped, drafting, &mut |event| {
        if let Event::Token { id, .. } = event {
            told.push(id);
            if told.len() == 12 {
                cancel.cancel();
            }
        }
        Ok(())
    });
    assert!(matches!(result, Err(Error::Interrupted)));
    assert_eq!(told, whole.ids[..12]);
    let again = plainly(&about, &mut engine, request(&prompt, 30)).unwrap();
    assert_eq!((again.ids, again.text), (whole.ids, whole.text));
}

/// As a server does it: each model in a thread of its own, which outlives the one that opened it.
#[test]
fn an_engine_that_owns_its_session_goes_to_another_thread_with_its_text() {
    let model = convert_from(&shipped_model(), Some(Precision::Int8));
    let mut session = Session::open(&model.path, &SessionOptions::default()).unwrap();
    let prompt = session.encode("The robot").unwrap();
    let about = session.model();
    let expected = plainly(&about, &mut session.engine().unwrap(), request(&prompt, 20)).unwrap();
    let mut owned = OwnedEngine::new(session).unwrap();
    owned.with(|engine| engine.forward(&prompt, omex_core::engine::Wanted::Last)).unwrap();
    let thread = std::thread::spawn(move || {
        let position = owned.with(|engine| engine.position());
        let about = owned.model().clone();
        let generated = owned.with(|engine| plainly(&about, engine, request(&prompt, 20)));
        (position, prompt.len(), generated)
    });
    let (position, length, generated) = thread.join().unwrap();
    assert_eq!(position as usize, length);
    let generated = generated.unwrap();
    assert_eq!((generated.ids, &generated.text), (expected.ids, &expected.text));
    assert!(generated.text.len() > 20, "{}", generated.text);
}

/// The text comes in pieces that make up the whole, with and without drafts.
#[test]
fn what_is_told_is_the_text_and_every_pass() {
    let model = convert_from(&shipped_model(), Some(Precision::Int8));
    let options = SessionOptions { logit_columns: 5, ..SessionOptions::default() };
    let mut session = Session::open(&model.path, &options).unwrap();
    let prompt = session.encode("Tom and Lily and Tom and Lily").unwrap();
    let about = session.model();
    let mut texts = vec![];
    for drafter in [None, Some(Drafter::LookUp)] {
        let (mut ids, mut text, mut passes, mut run, mut prompts) =
            (vec![], String::new(), 0, 0, 0);
        let drafting = Drafting::new(drafter, 4, &about);
        let mut engine = session.engine().unwrap();
        let request = Request { sampling: Sampling::GREEDY, ..request(&prompt, 60) };
        let generated = generate(&about, &mut engine, request, drafting, &mut |event| {
            match event {
                Event::Pass { tokens, .. } if prompts == 0 => run += tokens,
                Event::Pass { .. } => passes += 1,
                Event::Prompt => prompts += 1,
                Event::Token { id, text: piece } => {
                    ids.push(id);
                    text.push_str(piece);
                }
                Event::End { text: piece } => text.push_str(piece),
            }
            Ok(())
        })
        .unwrap();
        assert_eq!((run, prompts), (prompt.len(), 1));
        assert_eq!((&ids, &text), (&generated.ids, &generated.text));
        assert!(passes <= ids.len() && passes >= ids.len() / 5, "{passes} for {}", ids.len());
        texts.push(text);
    }
    assert_eq!(texts[0], texts[1]);
}
