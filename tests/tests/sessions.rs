//! A text that is saved and gone on with is the one that a single run makes, bit for bit.

use omex::pager::PageSource;
use omex::plan::Kv;
use omex::quantize::Precision;
use omex::saved_session::SavedSession;
use omex::session::Session;
use omex_core::generate::Generation;
use omex_core::sample::{Sampler, Sampling};
use omex_core::state::State;
use omex_tests::{
    Converted, Setting, Synthetic, convert_from, json_of, numbers, omex, run_in, shipped_model,
};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

const PENALIZED: Sampling = Sampling { repetition_penalty: 1.2, ..Sampling::GREEDY };
const WARM: Sampling = Sampling { temperature: 1.0, top_k: 40, seed: 3, ..PENALIZED };

/// Tokens, each with the bits of what is left of the logits that it was chosen from.
type Steps = Vec<(u32, Vec<u32>)>;

/// Goes on with a saved text, adds a prompt and `most` tokens, and saves it again.
fn go_on(
    session: &mut Session,
    file: &Path,
    sampling: Sampling,
    prompt: &[u32],
    most: usize,
) -> Steps {
    let mut saved = SavedSession::open(file, session).unwrap();
    let mut engine = session.engine().unwrap();
    saved.restore(&mut engine).unwrap();
    let mut ids = saved.tokens().to_vec();
    let held = engine.position() as usize;
    assert_eq!(held, ids.len().saturating_sub(1));
    let mut sampler = Sampler::new(Sampling { seed: saved.seed().unwrap_or(3), ..sampling });
    ids[..held].iter().for_each(|token| sampler.observe(*token));
    ids.extend(prompt);
    let mut text = Generation::prefill(&mut engine, sampler, &ids[held..]).unwrap();
    let mut steps = vec![];
    for _ in 0..most {
        let token = text.next_token().unwrap().unwrap();
        steps.push((token, text.logits().iter().map(|x| x.to_bits()).collect()));
        ids.push(token);
    }
    let seed = text.finish().unwrap().seed();
    saved.save(&mut engine, &ids, seed).unwrap();
    steps
}

/// For every format of the cache, within it and past its end, where the second run has other
/// threads, other pages and other passes over the prompt.
#[test]
fn two_runs_are_one() {
    const BEGIN: [u32; 5] = [7, 3, 7, 3, 7];
    const MORE: [u32; 10] = [9, 11, 9, 2, 4, 6, 8, 10, 12, 14];
    let model = Converted::new(&Synthetic::odd(), Some(Precision::Int8));
    let file = model.folder.path().join("text.session");
    let settings = [
        Setting::default(),
        Setting { threads: Some(3), pages: Some(PageSource::Mmap), ..Setting::default() },
        Setting { pages: Some(PageSource::Read), ..Setting::default() },
    ];
    for (kv, context) in [Kv::F16, Kv::F32, Kv::Int8].into_iter().flat_map(|k| [(k, 96), (k, 13)]) {
        let open = |setting: &Setting<'_>| {
            let setting = Setting { kv: Some(kv), context: Some(context), ..*setting };
            setting.open(&model.path, 1).unwrap()
        };
        let begin = |sampling, prompt: &[u32], most| {
            let _ = std::fs::remove_file(&file);
            go_on(&mut open(&settings[0]), &file, sampling, prompt, most)
        };
        for sampling in [PENALIZED, WARM] {
            let whole = begin(sampling, &BEGIN, 40);
            for (setting, first) in settings.iter().zip([9, 0, 1]) {
                let begun = begin(sampling, &BEGIN, first);
                let rest = go_on(&mut open(setting), &file, sampling, &[], 40 - first);
                let same = [begun, rest].concat() == whole;
                assert!(same, "{kv} cache of {context}, {sampling:?}, {first} tokens first");
            }
        }
        let begun = begin(PENALIZED, &BEGIN, 9);
        let ids: Vec<_> = begun.iter().map(|(token, _)| *token).collect();
        let whole = begin(PENALIZED, &[&BEGIN[..], &ids, &MORE].concat(), 20);
        for setting in &settings {
            begin(PENALIZED, &BEGIN, 9);
            let rest = go_on(&mut open(setting), &file, PENALIZED, &MORE, 20);
            assert!(rest == whole, "{kv} cache of {context}, a prompt in between");
        }
    }
}

/// Places in use are stored, and no others.
#[test]
fn a_short_text_is_a_short_file() {
    let model = convert_from(&shipped_model(), Some(Precision::Int8));
    let file = model.folder.path().join("text.session");
    let setting = Setting { context: Some(256), kv: Some(Kv::F16), ..Setting::default() };
    let mut session = setting.open(&model.path, 1).unwrap();
    go_on(&mut session, &file, Sampling::GREEDY, &[1, 2, 3], 30);
    let widths = session.program().unwrap().states().map(|state| match state {
        State::Kv { heads, width, .. } => u64::from(heads * width),
        State::Bytes(_) => 0,
    });
    let place = 2 * 2 * widths.sum::<u64>();
    let length = std::fs::metadata(&file).unwrap().len();
    // 32 positions are whole panels; header and checksums are 72 bytes, a token 4.
    assert_eq!(length, 72 + 4 * 33 + 32 * place);
}

#[test]
fn omex_run_goes_on_with_a_session() {
    let model = convert_from(&shipped_model(), Some(Precision::Int8));
    let folder = model.folder.path();
    let here = |args: &[&str]| run_in(folder, &[&["run", "model.omex"], args].concat());
    let ids = |args: &[&str]| numbers(&json_of(&here(&[args, &["--json"]].concat()))["ids"]);
    for (file, same) in [
        ("greedy.session", &[][..]),
        ("warm.session", &["--temperature", "0.9", "--seed", "5"]),
        ("ring.session", &["--context", "48", "--kv", "int8", "--temperature", "0.5"]),
        ("drafts.session", &["--draft", "lookup", "--draft-width", "5"]),
    ] {
        let whole = ids(&[&["Once upon a time", "--max-tokens", "90"], same].concat());
        let begin = ["Once upon a time", "--max-tokens", "40", "--session", file];
        let mut found = ids(&[&begin, same].concat());
        for most in ["0", "13", "37"] {
            let more = ["--session", file, "--max-tokens", most, "--threads", "1"];
            found.extend(ids(&[&more, same].concat()));
        }
        assert_eq!(found, whole, "{same:?}");
    }
    let said = here(&[" The robot", "--session", "greedy.session", "--max-tokens", "5"]);
    assert!(said.code == Some(0) && said.out.starts_with(" The robot"), "{said:?}");
    for (args, message) in [
        (&["--context", "64"][..], "add --context 256"),
        (&["--kv", "int8"], "KV format: found f16, expected int8; add --kv f16"),
    ] {
        let refused = here(&[&["--session", "greedy.session"], args].concat());
        assert!(refused.code == Some(1) && refused.err.contains(message), "{refused:?}");
    }
    let other = convert_from(&shipped_model(), Some(Precision::Int4));
    let other = other.path.to_str().unwrap();
    let refused = run_in(folder, &["run", other, "--session", "greedy.session"]);
    assert!(refused.code == Some(1) && refused.err.contains("program: found CRC"), "{refused:?}");
    let refused = here(&["Once", "--session", "missing/text.session"]);
    assert!(refused.code == Some(1) && refused.err.contains("missing"), "{refused:?}");
}

/// What was said until then is kept.
#[test]
fn ctrl_c_saves_the_session() {
    let model = Converted::new(&Synthetic::odd(), Some(Precision::Int8));
    let folder = model.folder.path();
    let args = ["run", "model.omex", "--ids", "7,3", "--session", "text.session"];
    let mut command = omex(args.into_iter().chain(["--max-tokens", "10000000"]));
    let command = command.current_dir(folder).stdout(Stdio::null()).stderr(Stdio::null());
    let mut child = command.spawn().unwrap();
    std::thread::sleep(Duration::from_millis(500));
    let id = child.id().to_string();
    assert!(Command::new("kill").args(["-INT", &id]).status().unwrap().success());
    let start = Instant::now();
    assert_eq!(child.wait().unwrap().code(), Some(130));
    assert!(start.elapsed() < Duration::from_secs(10), "it took its time");
    let more = ["run", "model.omex", "--session", "text.session", "--max-tokens", "3", "--json"];
    let more = [&more[..], &["--ids", "5"]].concat();
    assert_eq!(numbers(&json_of(&run_in(folder, &more))["ids"]).len(), 3);
}

/// A reader that goes away, as `head` does, takes no text with it.
#[test]
fn a_closed_output_loses_no_text() {
    let model = Converted::new(&Synthetic::odd(), Some(Precision::Int8));
    let folder = model.folder.path();
    let args = ["run", "model.omex", "--ids", "7,3", "--session", "text.session"];
    let mut command = omex(args.into_iter().chain(["--max-tokens", "10000000"]));
    let mut child = command.current_dir(folder).stdout(Stdio::piped()).spawn().unwrap();
    drop(child.stdout.take());
    assert_eq!(child.wait().unwrap().code(), Some(0));
    let more = ["run", "model.omex", "--session", "text.session", "--max-tokens", "3", "--json"];
    let more = [&more[..], &["--ids", "5"]].concat();
    assert_eq!(numbers(&json_of(&run_in(folder, &more))["ids"]).len(), 3);
}

#[test]
fn of_two_runs_with_one_file_the_second_is_told() {
    let model = Converted::new(&Synthetic::odd(), Some(Precision::Int8));
    let file = model.folder.path().join("text.session");
    let open = || Setting::default().open(&model.path, 1).unwrap();
    let (mut first, mut second) = (open(), open());
    // There is no file yet: whoever saves first makes it.
    let new = SavedSession::open(&file, &second).unwrap();
    go_on(&mut first, &file, WARM, &[7, 3], 4);
    let mut engine = second.engine().unwrap();
    engine.forward(&[7], omex_core::engine::Wanted::Last).unwrap();
    let error = new.save(&mut engine, &[7, 3], 1).unwrap_err().to_string();
    assert!(error.contains("another omex run saved its text here meanwhile"), "{error}");
    let saved = SavedSession::open(&file, &first).unwrap();
    let error = SavedSession::open(&file, &second).err().unwrap().to_string();
    assert!(error.contains("another omex run goes on with this session"), "{error}");
    drop(saved);
    assert_eq!(SavedSession::open(&file, &second).unwrap().tokens().len(), 6);
}
