//! Several texts, and trees of drafted tokens, in one pass: the logits are those of one token after
//! another.

use omex::plan::Kv;
use omex::quantize::Precision;
use omex::session::{Session, SessionOptions};
use omex_core::engine::{Engine, Wanted};
use omex_core::error::RunError;
use omex_core::pass::Input;
use omex_tests::{Converted, Random, Synthetic};
use std::collections::HashMap;
use std::path::Path;

const SEQUENCES: u32 = 3;
const COLUMNS: u32 = 16;
const VOCABULARY: usize = 283;

fn open(model: &Path, context: u32, kv: Kv, threads: usize) -> Session {
    let options = SessionOptions {
        context: Some(context),
        kv: Some(kv),
        threads: Some(threads),
        logit_columns: COLUMNS,
        sequences: SEQUENCES,
        ..SessionOptions::default()
    };
    Session::open(model, &options).unwrap()
}

fn token(random: &mut Random) -> u32 {
    random.below(VOCABULARY) as u32
}

/// The logits after texts, from passes of one token each.
struct Plain<'s> {
    engine: Engine<'s>,
    known: HashMap<Vec<u32>, Vec<f32>>,
}

impl Plain<'_> {
    fn logits(&mut self, text: &[u32]) -> &[f32] {
        if !self.known.contains_key(text) {
            self.engine.reset();
            for (token, length) in text.iter().zip(1..) {
                self.engine.forward(&[*token], Wanted::Last).unwrap();
                let logits = self.engine.logits(0).to_vec();
                self.known.insert(text[..length].to_vec(), logits);
            }
        }
        &self.known[text]
    }
}

/// A pass under construction: the inputs, and the text that each one ends.
#[derive(Default)]
struct Pass {
    inputs: Vec<Input>,
    texts: Vec<Vec<u32>>,
}

impl Pass {
    fn push(&mut self, sequence: usize, text: Vec<u32>, logits: bool) {
        let (token, position) = (*text.last().unwrap(), text.len() as u32 - 1);
        let sequence = sequence as u32;
        self.inputs.push(Input { token, sequence, position, logits, adapter: 0, segment: 0 });
        self.texts.push(text);
    }

    /// A random tree in preorder, below a text that is not in it.
    fn grow(&mut self, random: &mut Random, sequence: usize, text: &[u32], most: &mut u64) {
        let children = 1 + random.below(3);
        for _ in 0..children {
            if *most == 0 {
                return;
            }
            *most -= 1;
            let text = [text, &[token(random)]].concat();
            self.push(sequence, text.clone(), random.below(4) > 0);
            if random.below(3) > 0 {
                self.grow(random, sequence, &text, most);
            }
        }
    }

    fn run_and_compare(&self, engine: &mut Engine<'_>, plain: &mut Plain<'_>, what: &str) {
        engine.pass(self.inputs.iter().copied()).unwrap_or_else(|e| panic!("{what}: {e}"));
        let wanted = self.texts.iter().zip(&self.inputs).filter(|(_, input)| input.logits);
        for (column, (text, _)) in wanted.enumerate() {
            let expected = plain.logits(text);
            assert!(engine.logits(column) == expected, "{what}: {text:?} in {:?}", self.inputs);
        }
    }
}

fn with_engines(context: u32, kv: Kv, threads: usize, test: impl Fn(Engine<'_>, Plain<'_>, &str)) {
    for precision in [Precision::F32, Precision::Int8] {
        let package = Converted::new(&Synthetic::odd(), Some(precision));
        let mut session = open(&package.path, context, kv, threads);
        let mut one = open(&package.path, context, kv, 1);
        let plain = Plain { engine: one.engine().unwrap(), known: HashMap::new() };
        let what = format!("{precision:?}, {kv} cache of {context}, {threads} threads");
        test(session.engine().unwrap(), plain, &what);
    }
}

const CACHES: [(Kv, usize); 3] = [(Kv::F16, 1), (Kv::F32, 2), (Kv::Int8, 3)];

/// Texts that begin as others do, or end earlier, go on as if they had been run alone.
#[test]
fn a_fork_goes_on_as_the_text_that_it_was_taken_from() {
    for (kv, threads) in CACHES {
        with_engines(64, kv, threads, |mut engine, mut plain, what| {
            let mut random = Random(23);
            let mut texts = vec![vec![]; SEQUENCES as usize];
            for _ in 0..40 {
                let (from, to) = (random.below(3), random.below(3));
                let length = random.below(texts[from].len() + 1);
                engine.fork(from as u32, to as u32, length as u32).unwrap();
                texts[to] = texts[from][..length].to_vec();
                let mut pass = Pass::default();
                for (sequence, text) in texts.iter_mut().enumerate() {
                    if text.len() > 50 {
                        engine.fork(sequence as u32, sequence as u32, 0).unwrap();
                        text.clear();
                    }
                    for _ in 0..random.below(5) {
                        text.push(token(&mut random));
                        pass.push(sequence, text.clone(), random.below(3) > 0);
                    }
                }
                if !pass.inputs.is_empty() {
                    pass.run_and_compare(&mut engine, &mut plain, what);
                }
            }
            assert!(matches!(engine.fork(0, 3, 0), Err(RunError::Sequence(3))));
            assert!(matches!(engine.fork(0, 1, 65), Err(RunError::Position(65))));
        });
    }
}

#[test]
fn trees_of_several_sequences_give_the_logits_of_plain_decoding() {
    for (kv, threads) in CACHES {
        with_engines(64, kv, threads, |mut engine, mut plain, what| {
            let mut random = Random(7);
            let mut texts = vec![vec![]; SEQUENCES as usize];
            for round in 0..18 {
                if round % 6 == 0 {
                    texts.iter_mut().for_each(Vec::clear);
                }
                let mut pass = Pass::default();
                let mut most = u64::from(COLUMNS);
                for (sequence, text) in texts.iter().enumerate() {
                    let mut share = most.min(1 + random.below(8) as u64);
                    most -= share;
                    pass.grow(&mut random, sequence, text, &mut share);
                    most += share;
                }
                pass.run_and_compare(&mut engine, &mut plain, what);
                // Each sequence goes on behind a column of its own, the first and the last included.
                for (sequence, text) in texts.iter_mut().enumerate() {
                    let of_sequence = |c: &usize| pass.inputs[*c].sequence == sequence as u32;
                    let columns: Vec<_> = (0..pass.inputs.len()).filter(of_sequence).collect();
                    if !columns.is_empty() {
                        let column = columns[random.below(columns.len())];
                        engine.accept(column).unwrap();
                        text.clone_from(&pass.texts[column]);
                    }
                }
            }
        });
    }
}

#[test]
fn sequences_that_are_longer_than_the_cache_do_not_disturb_one_another() {
    for (kv, threads) in CACHES {
        with_engines(9, kv, threads, |mut engine, mut plain, what| {
            let mut random = Random(11);
            let mut texts = vec![vec![]; SEQUENCES as usize];
            for _ in 0..8 {
                let mut pass = Pass::default();
                for _ in 0..4 {
                    let sequence = random.below(SEQUENCES as usize);
                    for _ in 0..=random.below(4) {
                        texts[sequence].push(token(&mut random));
                        pass.push(sequence, texts[sequence].clone(), true);
                    }
                }
                pass.run_and_compare(&mut engine, &mut plain, what);
            }
            assert!(texts.iter().any(|text| text.len() > 18), "{what}: {texts:?}");
        });
    }
}

/// A linear draft needs no spare places: it fits up to the cache's very end.
#[test]
fn a_wrong_draft_is_taken_back_and_a_new_text_begins_at_0() {
    for (kv, threads) in CACHES {
        with_engines(8, kv, threads, |mut engine, mut plain, what| {
            let text: Vec<_> = (0..8).map(|i| i * 31 + 2).collect();
            let mut draft = Pass::default();
            (1..=8).for_each(|length| draft.push(1, text[..length].to_vec(), length > 2));
            draft.run_and_compare(&mut engine, &mut plain, what);
            engine.accept(3).unwrap();
            let mut other = Pass::default();
            let texts = (1..=4).map(|more| [&text[..4], &text[..more]].concat());
            texts.for_each(|text| other.push(1, text, true));
            other.run_and_compare(&mut engine, &mut plain, what);
            let mut longer = Pass::default();
            longer.push(1, [&text[..4], &text[..5]].concat(), true);
            longer.run_and_compare(&mut engine, &mut plain, what);
            draft.run_and_compare(&mut engine, &mut plain, what);
        });
    }
}

fn input(sequence: u32, position: u32) -> Input {
    Input { token: 1, sequence, position, logits: true, adapter: 0, segment: 0 }
}

#[test]
fn inputs_that_can_not_be_run_are_refused_and_change_nothing() {
    let package = Converted::new(&Synthetic::odd(), Some(Precision::Int8));
    let mut session = open(&package.path, 8, Kv::F16, 1);
    let mut engine = session.engine().unwrap();
    engine.pass([0, 1, 2, 3].map(|position| input(0, position))).unwrap();
    let expected = engine.logits(3).to_vec();
    let refused = |engine: &mut Engine<'_>, inputs: &[Input]| {
        let error = engine.pass(inputs.iter().copied()).unwrap_err();
        assert_eq!(engine.position(), 4, "{error}");
        assert!(engine.accept(0).is_err(), "a pass that did not happen has no columns");
        error
    };
    let (limit, most) = (engine.plan().columns, COLUMNS);
    let many: Vec<_> = (4..=4 + limit).map(|position| input(0, position)).collect();
    let too_many = RunError::TokenCount { given: 1 + limit, limit };
    assert_eq!(refused(&mut engine, &[]), RunError::TokenCount { given: 0, limit });
    assert_eq!(refused(&mut engine, &many), too_many);
    let too_many = RunError::TokenCount { given: 1 + most, limit: most };
    assert_eq!(refused(&mut engine, &many[..=most as usize]), too_many);
    assert_eq!(refused(&mut engine, &[input(3, 0)]), RunError::Sequence(3));
    assert_eq!(refused(&mut engine, &[input(0, 5)]), RunError::Position(5));
    assert_eq!(refused(&mut engine, &[input(0, 4), input(1, 1)]), RunError::Position(1));
    assert_eq!(refused(&mut engine, &[input(0, 4), input(0, 6)]), RunError::Position(6));
    // The first input still sees what the second would replace.
    assert_eq!(refused(&mut engine, &[input(0, 4), input(0, 3)]), RunError::Position(3));
    assert_eq!(refused(&mut engine, &[input(0, 2), input(0, 0)]), RunError::Position(0));
    let unknown = Input { token: VOCABULARY as u32, ..input(0, 4) };
    assert_eq!(refused(&mut engine, &[unknown]), RunError::Token(VOCABULARY as u32));
    let unknown = Input { adapter: 1, ..input(0, 4) };
    assert_eq!(refused(&mut engine, &[unknown]), RunError::Adapter(1));
    // Two branches of two end at position 6; four spare places would end at 10.
    let tree = [input(0, 4), input(0, 5), input(0, 4), input(0, 5)];
    assert_eq!(refused(&mut engine, &tree), RunError::Branches);
    engine.pass([input(0, 3)]).unwrap();
    assert_eq!(engine.logits(0), expected);
    assert!(engine.accept(1).is_err());
    // Past the cache's end, what a draft replaced can't be had back.
    engine.pass((4..10).map(|position| input(0, position))).unwrap();
    assert_eq!(engine.accept(3), Err(RunError::Position(8)));
    engine.accept(5).unwrap();
    assert_eq!(engine.pass([input(0, 6)]), Err(RunError::Position(6)));
    engine.pass([input(0, 10)]).unwrap();
}
