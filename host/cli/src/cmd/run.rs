//! `omex run`.

use super::draft::{DraftArgs, Models};
use super::sampling::SamplingArgs;
use super::{Machine, parse_ids, prompt_ids};
use crate::{bytes, output, standard_input};
use omex::draft::{Counts, Drafting};
use omex::pager::PageSource;
use omex::plan::{Kv, RunPrecision};
use omex::profile::peak_bytes;
use omex::saved_session::SavedSession;
use omex::session::Session;
use omex::{Error, Result, interrupt};
use omex_core::arena::Plan;
use omex_core::engine::{Engine, Wanted};
use omex_core::generate::Generation;
use omex_core::program::Planes;
use omex_core::sample::{Sampler, Sampling};
use omex_core::token::{Decoder, Tokenizer};
use serde::Serialize;
use std::path::PathBuf;
use std::sync::atomic::Ordering;
use std::time::Instant;

/// Generate text.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  omex run stories.omex \"Once upon a time\"
  omex run stories.omex \"The robot\" --temperature 0.8 --top-p 0.9 --seed 7 --stats
  omex run llama.omex \"Once upon a time\" --draft lookup --draft-width 4 --stats
  echo \"Long ago\" | omex run stories.omex - --max-tokens 100 --json
  omex run llama.omex \"Who was Ada Lovelace?\" --session ada.session
  omex run llama.omex \" And Charles Babbage?\" --session ada.session (goes on from there)
  omex run card.img \"The cat\" (a flash image, with the board's memory plan)")]
pub(crate) struct Args {
    /// A package, or a flash image
    model: PathBuf,
    /// What the text begins with; - reads it from standard input
    #[arg(default_value = "")]
    prompt: String,
    /// Token ids to begin with, instead of a prompt
    #[arg(long, value_name = "1,2,3", value_parser = parse_ids, conflicts_with = "prompt")]
    ids: Option<::std::vec::Vec<u32>>,
    /// Keep the text in this file, and go on from it in the next run, without running again what is
    /// there, and with its random numbers; an empty prompt just goes on
    #[arg(long, value_name = "FILE")]
    session: Option<PathBuf>,
    /// Tokens to generate at most
    #[arg(long, allow_negative_numbers = true, value_name = "N", default_value_t = 256)]
    max_tokens: u32,
    #[command(flatten)]
    sampling: SamplingArgs,
    #[command(flatten)]
    machine: Machine,
    #[command(flatten)]
    draft: DraftArgs,
    /// Print times and memory to standard error
    #[arg(long)]
    stats: bool,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

/// What `--json` prints.
#[derive(Debug, Serialize)]
pub(crate) struct Output {
    pub(crate) ids: Vec<u32>,
    pub(crate) text: String,
    pub(crate) stats: Stats,
}

/// Times and memory of a run.
#[derive(Debug, Default, Serialize)]
pub(crate) struct Stats {
    time_to_first_token_ms: f64,
    prefill_tok_s: f64,
    decode_tok_s: f64,
    pub(crate) planned_bytes: u64,
    peak_bytes: Option<u64>,
    streamed_bytes_per_token: u64,
    /// Of KV caches, from storage.
    kv_bytes_read_per_token: u64,
    pages: PageSource,
    #[serde(flatten)]
    drafts: Counts,
    tokens_per_pass: f64,
    /// A budget may ask for another format, and that changes what is computed.
    kv_format: Kv,
    /// As does the choice of planes.
    precision: RunPrecision,
    /// Passes that left planes out because memory was short, which `--precision auto` allows.
    reduced_passes: u64,
}

pub(crate) fn main(args: &Args) -> Result<()> {
    let prompt = match args.prompt.as_str() {
        "-" => standard_input::read()?,
        text => text.to_owned(),
    };
    let start = Instant::now();
    let Models { model: mut session, mut draft } = args.draft.open(&args.machine, &args.model)?;
    let of_draft = draft.as_ref().map_or(0, |draft| draft.plan().total);
    let saved = args.session.as_ref().map(|file| SavedSession::open(file, &session)).transpose()?;
    let earlier = saved.as_ref().map_or(0, |saved| saved.tokens().len());
    let ids = match &args.ids {
        None if earlier > 0 => session.encode_more(&prompt)?,
        ids => prompt_ids(&session, &prompt, ids.as_ref())?,
    };
    let drafting = args.draft.drafting(&session, draft.as_mut(), earlier + ids.len())?;
    let request = Request {
        saved,
        prompt: &ids,
        max_tokens: args.max_tokens,
        sampling: args.sampling.sampling(),
        start,
    };
    if args.json {
        let mut output = generate(&mut session, request, drafting, &mut |_| Ok(()))?;
        output.stats.planned_bytes += of_draft;
        return output::json(&output);
    }
    output::text(&prompt)?;
    let result = generate(&mut session, request, drafting, &mut output::text);
    output::text("\n")?;
    let mut output = result?;
    output.stats.planned_bytes += of_draft;
    if args.stats {
        output.stats.print();
    }
    Ok(())
}

/// What to generate.
pub(crate) struct Request<'r> {
    /// The text that it goes on with, and the file that it is saved in.
    pub(crate) saved: Option<SavedSession>,
    pub(crate) prompt: &'r [u32],
    pub(crate) max_tokens: u32,
    pub(crate) sampling: Sampling,
    /// When the command began.
    pub(crate) start: Instant,
}

impl Request<'_> {
    /// Puts the saved text into an engine. Returns it with the prompt behind it, and a sampler that
    /// has seen what the engine holds: all but the saved text's last token, and the prompt.
    fn begin(&mut self, engine: &mut Engine<'_>) -> Result<(Vec<u32>, Sampler)> {
        let (mut ids, mut sampling) = (vec![], self.sampling);
        if let Some(saved) = &mut self.saved {
            saved.restore(engine)?;
            ids.extend(saved.tokens());
            sampling.seed = saved.seed().unwrap_or(sampling.seed);
        }
        let mut sampler = Sampler::new(sampling);
        let held = ids.len().saturating_sub(1);
        ids[..held].iter().for_each(|token| sampler.observe(*token));
        ids.extend(self.prompt);
        Ok((ids, sampler))
    }
}

/// Generates text and hands it to `emit` as it comes.
pub(crate) fn generate(
    session: &mut Session,
    mut request: Request<'_>,
    mut drafting: Drafting<'_>,
    emit: &mut dyn FnMut(&str) -> Result<()>,
) -> Result<Output> {
    let tables = session.tokenizer_tables();
    let tokenizer = tables.as_deref().map(Tokenizer::open).transpose();
    let mut tokenizer = tokenizer.map_err(|error| session.bad_tokenizer(&error))?;
    let plan = *session.plan();
    let (planned_bytes, kv_format, precision) = (plan.total, plan.kv_format, plan.precision);
    let pages = session.source();
    let mut stats = Stats { planned_bytes, kv_format, precision, pages, ..Stats::default() };
    let (weights_read, kv_read) = (session.progress(), session.kv_bytes_read());
    let read = || {
        let weights = weights_read.as_ref().map_or(0, |progress| progress.bytes());
        [weights, kv_read.as_ref().map_or(0, |bytes| bytes.load(Ordering::Relaxed))]
    };
    let failed = session.failure();
    let columns = plan.prefill_chunk as usize;
    let keys_only = session.program()?.uniform_cache().is_some();
    let mut watch = session.pressure_watch()?;
    let mut engine = session.engine()?;
    let (mut ids, mut sampler) = request.begin(&mut engine)?;
    let held = engine.position() as usize;
    let after = tokenizer.as_mut().map(|tokenizer| tokenizer.decoder_after(&ids, false));
    let decoder = after.unwrap_or(Ok(Decoder::new(false)));
    let decoder = decoder.map_err(|e| Error::Usage(format!("the prompt can't be decoded: {e}")))?;
    let mut text = Text { decoder, all: String::new() };
    let (prefill, prompt) = (Instant::now(), ids.len());
    note_forgotten(prompt, engine.plan());
    // All passes but the last here, to be able to stop between them.
    let last = held + (prompt - held).saturating_sub(1) / columns.max(1) * columns;
    for tokens in ids[held..last].chunks(columns.max(1)) {
        engine.forward(tokens, Wanted::Last).map_err(&failed)?;
        interrupt::check()?;
    }
    ids[held..last].iter().for_each(|token| sampler.observe(*token));
    let mut generation =
        Generation::prefill(&mut engine, sampler, &ids[last..]).map_err(&failed)?;
    stats.prefill_tok_s = rate(prompt - held, prefill);
    drafting.begin(&ids, held, columns, prefill.elapsed())?;
    stats.time_to_first_token_ms = request.start.elapsed().as_secs_f64() * 1e3;
    let (decode, before, most) = (Instant::now(), read(), request.max_tokens as usize);
    // What is told of the text may fail, and the text is saved all the same.
    let (mut stopped, mut pass_failed) = (Ok(()), false);
    while ids.len() < prompt + most && stopped.is_ok() {
        if let Some(watch) = &mut watch {
            let planes = watch.planes();
            generation.set_planes(planes);
            stats.reduced_passes += u64::from(planes != Planes::FULL);
        }
        let left = prompt + most - ids.len();
        let next = drafting
            .run(&mut generation, &ids, left, &failed)
            .and_then(|_| generation.next_token().map_err(&failed));
        let id = match next {
            Ok(Some(id)) => id,
            Ok(None) => break,
            Err(error) => {
                (stopped, pass_failed) = (Err(error), true);
                break;
            }
        };
        ids.push(id);
        let told = if let Some(tokenizer) = &mut tokenizer {
            text.push(tokenizer, id, emit)
        } else {
            let comma = if ids.len() > prompt + 1 { "," } else { "" };
            emit(&format!("{comma}{id}"))
        };
        stopped = told.and_then(|()| interrupt::check());
    }
    stopped = stopped.and(text.finish(emit));
    let seed = generation.finish().map_err(&failed)?.seed();
    // What a failed pass stored of its token in KV caches is stored anew when the text goes on;
    // another state may be half changed.
    if let Some(saved) = request.saved.filter(|_| keys_only || !pass_failed) {
        saved.save(&mut engine, &ids, seed)?;
    }
    stopped?;
    stats.drafts = drafting.finish(ids.len());
    ids.drain(..prompt);
    // The first token came from the prompt's last pass.
    let decoded = ids.len().saturating_sub(1);
    if decoded > 0 {
        stats.decode_tok_s = rate(decoded, decode);
        let now = read();
        let [weights, kv] = [0, 1].map(|i| (now[i] - before[i]) / decoded as u64);
        (stats.streamed_bytes_per_token, stats.kv_bytes_read_per_token) = (weights, kv);
        stats.tokens_per_pass = decoded as f64 / stats.drafts.passes.max(1) as f64;
    }
    stats.peak_bytes = peak_bytes();
    Ok(Output { ids, text: text.all, stats })
}

/// Says so if the cache has no room for the whole prompt.
fn note_forgotten(prompt: usize, plan: &Plan) {
    let (context, sinks) = (plan.kv_capacity as usize, plan.kv_sinks as usize);
    if prompt > context {
        output::note(&format!(
            "note: the prompt has {prompt} tokens, the context {context}: all but the first {sinks} and \
             the last {} are forgotten; --context {prompt} keeps them",
            context - sinks.min(context)
        ));
    }
}

fn rate(tokens: usize, since: Instant) -> f64 {
    tokens as f64 / since.elapsed().as_secs_f64()
}

/// Text that is decoded as tokens come.
struct Text {
    decoder: Decoder,
    all: String,
}

impl Text {
    fn push(
        &mut self,
        tokenizer: &mut Tokenizer<&[u8]>,
        id: u32,
        emit: &mut dyn FnMut(&str) -> Result<()>,
    ) -> Result<()> {
        let start = self.all.len();
        let decoded = tokenizer.decode(&mut self.decoder, id, &mut |text| self.all.push_str(text));
        decoded.map_err(|e| Error::Usage(format!("token {id} can't be decoded: {e}")))?;
        emit(&self.all[start..])
    }

    fn finish(&mut self, emit: &mut dyn FnMut(&str) -> Result<()>) -> Result<()> {
        let start = self.all.len();
        self.decoder.finish(&mut |text| self.all.push_str(text));
        emit(&self.all[start..])
    }
}

impl Stats {
    fn print(&self) {
        let fewer = match self.reduced_passes {
            0 => String::new(),
            passes => format!(", fewer in {passes} passes"),
        };
        let spilled = match self.kv_bytes_read_per_token {
            0 => String::new(),
            bytes => format!(", {} a token read from storage", bytes::show(bytes)),
        };
        let peak = self.peak_bytes.map_or("unknown".to_owned(), bytes::show);
        output::note(&format!(
            "time to first token  {:.1} ms\nprefill              {:.1} tok/s\n\
             decode               {:.1} tok/s\nmemory               {} planned, {peak} peak\n\
             streamed             {} a token\nKV cache             {}{spilled}\n\
             planes               {}{fewer}\n\
             drafts               {} of {} tokens accepted, {:.2} tokens a pass\n\
             pages                {}",
            self.time_to_first_token_ms,
            self.prefill_tok_s,
            self.decode_tok_s,
            bytes::show(self.planned_bytes),
            bytes::show(self.streamed_bytes_per_token),
            self.kv_format,
            self.precision,
            self.drafts.accepted_tokens,
            self.drafts.drafted_tokens,
            self.tokens_per_pass,
            self.pages,
        ));
    }
}
