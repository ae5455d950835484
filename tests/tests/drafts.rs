//! A draft changes how many passes a text takes, and nothing else. Each seed gives the very text
//! that plain decoding gives, so the distribution is the same without a statistical test.

use omex::draft::{Drafter, ModelDrafter, Recorded};
use omex::plan::Kv;
use omex::quantize::Precision;
use omex::session::{Session, SessionOptions};
use omex_core::draft::Drafted;
use omex_core::generate::Generation;
use omex_core::sample::{Sampler, Sampling};
use omex_tests::{
    Converted, Synthetic, convert_from, json_of, numbers, omex, run, run_in, shared, shipped_model,
};
use std::path::Path;

const WIDTH: usize = 7;

fn session(model: &Path, context: u32, kv: Kv) -> Session {
    let options = SessionOptions {
        context: Some(context),
        kv: Some(kv),
        threads: Some(1),
        logit_columns: 1 + WIDTH as u32,
        ..SessionOptions::default()
    };
    Session::open(model, &options).unwrap()
}

fn samplings() -> [Sampling; 4] {
    let warm = Sampling { temperature: 1.0, top_k: 40, min_p: 0.02, ..Sampling::GREEDY };
    let penalized = Sampling { repetition_penalty: 1.3, ..Sampling::GREEDY };
    [
        Sampling::GREEDY,
        Sampling { seed: 3, ..warm },
        Sampling { seed: 4, repetition_penalty: 1.2, top_p: 0.95, ..warm },
        penalized,
    ]
}

fn plain(session: &mut Session, sampling: Sampling, prompt: &[u32], most: usize) -> Vec<u32> {
    let mut engine = session.engine().unwrap();
    let mut text = Generation::prefill(&mut engine, Sampler::new(sampling), prompt).unwrap();
    std::iter::from_fn(|| text.next_token().unwrap()).take(most).collect()
}

/// The same text from passes with drafts, of every width in turn; and the number of passes.
fn drafted(
    session: &mut Session,
    drafter: &mut Drafter<'_>,
    sampling: Sampling,
    prompt: &[u32],
    most: usize,
) -> (Vec<u32>, usize) {
    let mut engine = session.engine().unwrap();
    let mut generation = Generation::prefill(&mut engine, Sampler::new(sampling), prompt).unwrap();
    let (mut text, mut draft, mut passes) = (prompt.to_vec(), vec![], 0);
    while text.len() < prompt.len() + most {
        if generation.needs_pass() {
            passes += 1;
            drafter.propose(&text, 1 + passes % WIDTH, &mut draft).unwrap();
            let fitted = generation.run(&draft).unwrap();
            assert!(fitted <= draft.len());
        }
        let Some(token) = generation.next_token().unwrap() else { break };
        text.push(token);
    }
    (text.split_off(prompt.len()), passes)
}

/// Models with a prompt, and how many of their tokens a text may have.
fn models() -> Vec<(&'static str, Converted, Vec<u32>)> {
    let odd = Converted::new(&Synthetic::odd(), Some(Precision::F32));
    let mut models = vec![("odd", odd, vec![7, 3, 7, 3, 7])];
    let shipped = convert_from(&shipped_model(), Some(Precision::Int8));
    let prompt = session(&shipped.path, 64, Kv::F16).encode("Once upon a time").unwrap();
    models.push(("tiny-stories", shipped, prompt));
    match shared("models/stories260K/stories260K.bin") {
        Some(path) => {
            models.push(("stories260K", convert_from(&path, Some(Precision::Int8)), vec![1]))
        }
        None => println!("stories260K is skipped: shared/ is not here"),
    }
    models
}

/// With caches that the text fits into, and one that it outgrows, where drafts stop.
#[test]
fn every_drafter_leads_to_the_plain_text() {
    let small = convert_from(&shipped_model(), Some(Precision::Int4));
    for (name, model, prompt) in models() {
        for (context, kv) in [(128, Kv::F16), (128, Kv::Int8), (30, Kv::F32), (30, Kv::Int8)] {
            let mut session = session(&model.path, context, kv);
            let vocabulary = session.program().unwrap().header().vocab_size;
            for sampling in samplings() {
                let what = format!("{name}, {kv} cache of {context}, {sampling:?}");
                let expected = plain(&mut session, sampling, &prompt, 60);
                let mut compare = |drafter: &mut Drafter<'_>, of: &str| {
                    let (found, passes) = drafted(&mut session, drafter, sampling, &prompt, 60);
                    assert_eq!(found, expected, "{what}, {of}");
                    passes
                };
                compare(&mut Drafter::LookUp, "look-up");
                let [always, sometimes, never] = [1.0, 0.5, 0.0].map(|acceptance| {
                    let known = expected.clone();
                    let known = Recorded::new(known, prompt.len(), acceptance, vocabulary);
                    compare(&mut Drafter::Recorded(known), &format!("{acceptance} right"))
                });
                assert!(always < sometimes && sometimes < never, "{always} {sometimes} {never}");
                assert!(never + 1 >= expected.len(), "{what}: nothing was right");
                if name == "tiny-stories" {
                    let mut small = self::session(&small.path, 128, Kv::F16);
                    let drafter = ModelDrafter::new(&mut small).unwrap();
                    let passes = compare(&mut Drafter::Model(Box::new(drafter)), "a model");
                    let greedy = sampling.temperature == 0.0 && context == 128;
                    assert!(!greedy || passes < expected.len() * 3 / 4, "{what}: {passes}");
                }
            }
        }
    }
}

/// The stop token is chosen where it stands in a draft, and nothing behind it is.
#[test]
fn a_text_ends_in_the_middle_of_a_draft() {
    let model = convert_from(&shipped_model(), Some(Precision::Int8));
    let mut session = session(&model.path, 256, Kv::F16);
    let prompt = session.encode("Once upon a time").unwrap();
    let program = session.program().unwrap();
    let (vocab_size, stop) = (program.header().vocab_size, program.stop_tokens().next().unwrap());
    let mut ended = 0;
    for seed in 0..8 {
        let sampling = Sampling { temperature: 1.0, seed, ..Sampling::GREEDY };
        let expected = plain(&mut session, sampling, &prompt, 240);
        let known = [&expected[..], &[stop, 1, 1, 1, 1, 1, 1, 1]].concat();
        let known = Recorded::new(known, prompt.len(), 1.0, vocab_size);
        let mut drafter = Drafter::Recorded(known);
        let (found, _) = drafted(&mut session, &mut drafter, sampling, &prompt, 240);
        assert_eq!(found, expected, "seed {seed}");
        ended += usize::from(expected.len() < 240);
    }
    assert!(ended > 0, "no text ended");
}

/// Trees whose right branch comes anywhere among wrong ones.
#[test]
fn the_right_branch_may_be_any() {
    let model = Converted::new(&Synthetic::odd(), Some(Precision::Int8));
    for kv in [Kv::F16, Kv::F32, Kv::Int8] {
        let mut session = session(&model.path, 96, kv);
        let (sampling, prompt) = (samplings()[1], [5, 6]);
        let expected = plain(&mut session, sampling, &prompt, 60);
        let mut engine = session.engine().unwrap();
        let sampler = Sampler::new(sampling);
        let mut generation = Generation::prefill(&mut engine, sampler, &prompt).unwrap();
        let (mut found, mut passes) = (vec![], 0);
        while found.len() < expected.len() {
            if generation.needs_pass() {
                let next = |i: usize| expected.get(found.len() + i).copied().unwrap_or(0);
                let right = [(next(0), 1), (next(1), 2)];
                let wrong = [(next(0) ^ 1, 1), (next(1), 2)];
                let fork = [(next(0), 1), (next(1) ^ 1, 2), (next(1) ^ 2, 2)];
                let tree = match passes % 3 {
                    0 => [&right[..], &wrong[..1]].concat(),
                    1 => [&wrong[..], &right, &wrong].concat(),
                    _ => [&fork[..], &wrong].concat(),
                };
                let tree = tree.into_iter().map(|(token, depth)| Drafted { token, depth });
                let tree: Vec<_> = tree.collect();
                assert_eq!(generation.run(&tree).unwrap(), tree.len());
                passes += 1;
            }
            found.extend(generation.next_token().unwrap());
        }
        assert_eq!(found, expected, "{kv}");
        assert!(passes * 2 < expected.len(), "{passes} passes for {} tokens", expected.len());
    }
}

#[test]
fn omex_run_says_the_same_with_any_draft() {
    let model = convert_from(&shipped_model(), Some(Precision::Int8));
    let folder = model.folder.path();
    let other = Converted::new(&Synthetic::odd(), Some(Precision::Int8));
    let other = other.path.to_str().unwrap();
    let of = |more: &[&str]| {
        let args = ["run", "model.omex", "Once upon a time", "--max-tokens", "150", "--json"];
        json_of(&run(omex([&args[..], more].concat()).current_dir(folder)))
    };
    for same in [&["--temperature", "0.9", "--seed", "5"][..], &["--context", "48", "--kv", "int8"]]
    {
        let plain = of(same);
        let ids: Vec<_> = numbers(&plain["ids"]).iter().map(u32::to_string).collect();
        std::fs::write(folder.join("ids.txt"), ids.join(",") + "\n").unwrap();
        for draft in [
            &["--draft", "lookup"][..],
            &["--draft", "model.omex", "--draft-width", "3"],
            &["--draft-ids", "ids.txt", "--draft-acceptance", "0.7"],
            &["--draft", "lookup", "--memory", "3MB"],
        ] {
            let said = of(&[same, draft].concat());
            assert_eq!(said["ids"], plain["ids"], "{draft:?}");
            let [drafted, accepted, passes] = ["drafted_tokens", "accepted_tokens", "passes"]
                .map(|field| said["stats"][field].as_u64().unwrap());
            assert!(accepted <= drafted && accepted + passes == ids.len() as u64 - 1, "{said}");
        }
    }
    let refused = run_in(folder, &["run", "model.omex", "Once", "--draft", other]);
    assert_eq!(refused.code, Some(2), "{refused:?}");
    assert!(refused.err.contains("a vocabulary of 283 tokens, expected 576"), "{refused:?}");
    let plan = json_of(&run_in(folder, &["plan", "model.omex", "--json"]));
    let memory = plan["total"].to_string();
    let args = ["run", "model.omex", "Once", "--draft", "model.omex", "--memory", &memory];
    let refused = run_in(folder, &args);
    assert!(refused.code == Some(2) && refused.err.contains("drafts take"), "{refused:?}");
}
