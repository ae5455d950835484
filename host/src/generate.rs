//! From a prompt to text: the loop that all share who have a model and an engine.

use crate::cancel::Cancel;
use crate::draft::{Counts, Drafting};
pub use crate::event::{Event, Listener};
use crate::mask::Mask;
use crate::saved_session::SavedSession;
use crate::session::{Model, holds_only_keys, shares_caches};
use crate::stop::{DecodedText, Stops};
use crate::{Error, Result};
use omex_core::engine::{Engine, Wanted};
use omex_core::error::RunError;
use omex_core::generate::Generation;
use omex_core::sample::{Sampler, Sampling};
use omex_core::token::{Decoder, Tokenizer};
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

/// What to generate.
pub struct Request<'r> {
    /// The text that it goes on with, and the file that it is saved in.
    pub saved: Option<SavedSession>,
    /// Ids of the tokens that the text, or what is new of it, begins with.
    pub prompt: &'r [u32],
    /// Tokens to generate at most.
    pub max_tokens: usize,
    /// How tokens are chosen.
    pub sampling: Sampling,
    /// Among which.
    pub mask: Option<&'r mut dyn Mask>,
    /// Strings that end the text, which is told up to the first of them; its tokens have them.
    pub stop: &'r [String],
    /// Ends the text between two passes. Within one, the model's own ends it.
    pub cancel: Cancel,
}

/// What was generated, and what it took.
#[derive(Clone, Debug, Default)]
pub struct Generated {
    /// The tokens behind the prompt.
    pub ids: Vec<u32>,
    /// Their text; empty if the model has no tokenizer.
    pub text: String,
    /// Tokens that were run for the prompt, and how long that took.
    pub prefill: (usize, Duration),
    /// How long it took from then on.
    pub decode: Duration,
    /// Bytes of weights and of KV caches read from storage meanwhile.
    pub bytes_read: [u64; 2],
    /// Whether it was as long as asked for before anything else ended it.
    pub cut_off: bool,
    /// What came of drafts.
    pub drafts: Counts,
    /// Passes that left corrections out because memory was short.
    pub reduced_passes: u64,
}

/// Generates a text with an engine of the model. A text that is kept is saved however it ends.
///
/// # Errors
/// A prompt without tokens, a pass that fails, [`Error::Interrupted`], a text that can't be saved, or
/// the listener's.
pub fn generate(
    model: &Model,
    engine: &mut Engine<'_>,
    mut request: Request<'_>,
    mut drafting: Drafting<'_>,
    listener: Listener<'_>,
) -> Result<Generated> {
    let failed = model.failure();
    let (mut ids, sampler) = request.begin(engine)?;
    let mut text = Text::behind(model, &ids, request.stop)?;
    let (held, prompt) = (engine.position() as usize, ids.len());
    let longest = model.longest_text(prompt)?;
    let only_keys = holds_only_keys(engine.program());
    let start = Instant::now();
    let columns = engine.plan().columns as usize;
    let prefill = Prefill { cancel: &request.cancel, failed: &failed };
    let mut generation = prefill.run(engine, sampler, &ids[held..], listener)?;
    let mut made = Generated { prefill: (prompt - held, start.elapsed()), ..Generated::default() };
    drafting.begin(&ids, held, columns, made.prefill.1)?;
    listener(Event::Prompt)?;
    let (start, before) = (Instant::now(), bytes_read(model));
    let (cancel, most) = (&request.cancel, longest.min(prompt + request.max_tokens));
    let mask = request.mask.as_deref_mut();
    let mut writing = Writing { model, cancel, most, mask };
    let written = writing.run(&mut generation, &mut drafting, &mut text, &mut ids, listener);
    made.reduced_passes = written.reduced_passes;
    made.cut_off = ids.len() >= most && !writing.has_ended(&text);
    // What is told of the text may fail, and the text is saved all the same.
    let stopped = written.stopped.and(listener(Event::End { text: text.finish() }));
    let seed = generation.finish().map_err(&failed)?.seed();
    // What a failed pass stored of its token in KV caches is stored anew when the text goes on;
    // another state may be half changed.
    if let Some(saved) = request.saved.filter(|_| only_keys || !written.pass_failed) {
        saved.save(engine, &ids, seed)?;
    }
    stopped?;
    made.drafts = drafting.finish(ids.len());
    made.ids = ids.split_off(prompt);
    (made.text, made.decode) = (text.decoded.all, start.elapsed());
    let after = bytes_read(model);
    made.bytes_read = [0, 1].map(|i| after[i] - before[i]);
    Ok(made)
}

/// As [`generate`], of a text of which the engine holds the first tokens that `held` has, or some of
/// them: only the others are run. The prompt is the whole text, and nothing is saved.
///
/// # Errors
/// Those of [`generate`].
pub fn generate_behind(
    model: &Model,
    engine: &mut Engine<'_>,
    held: &[u32],
    mut request: Request<'_>,
    listener: Listener<'_>,
) -> Result<()> {
    let failed = model.failure();
    let prompt = request.prompt;
    let longest = model.longest_text(prompt.len())?;
    let common = held.iter().zip(prompt).take_while(|(old, new)| old == new).count();
    let mut kept = common.min(engine.position() as usize).min(prompt.len().saturating_sub(1));
    // Where the engine can't go back, the text begins anew.
    if engine.fork(0, 0, kept as u32).is_err() {
        engine.reset();
        kept = 0;
    }
    let mut sampler = Sampler::new(request.sampling);
    prompt[..kept].iter().for_each(|token| sampler.observe(*token));
    let columns = engine.plan().columns as usize;
    let prefill = Prefill { cancel: &request.cancel, failed: &failed };
    let mut text = Text::behind(model, prompt, request.stop)?;
    let mut generation = prefill.run(engine, sampler, &prompt[kept..], listener)?;
    let mut drafting = Drafting::new(None, 0, model);
    drafting.begin(prompt, kept, columns, Duration::ZERO)?;
    listener(Event::Prompt)?;
    let mut ids = prompt.to_vec();
    let (cancel, most) = (&request.cancel, longest.min(ids.len() + request.max_tokens));
    let mut writing = Writing { model, cancel, most, mask: request.mask.as_deref_mut() };
    writing.run(&mut generation, &mut drafting, &mut text, &mut ids, listener).stopped?;
    listener(Event::End { text: text.finish() })
}

/// How a text is gone on with.
struct Writing<'w, 'm> {
    model: &'w Model,
    cancel: &'w Cancel,
    /// Tokens of the whole text at most.
    most: usize,
    mask: Option<&'w mut (dyn Mask + 'm)>,
}

/// What came of it.
struct Written {
    stopped: Result<()>,
    pass_failed: bool,
    reduced_passes: u64,
}

impl Writing<'_, '_> {
    fn has_ended(&self, text: &Text<'_>) -> bool {
        text.decoded.has_ended() || self.mask.as_ref().is_some_and(|mask| mask.has_ended())
    }

    /// Goes on behind a prompt until the model ends the text, it is long enough, or something stops it.
    fn run(
        &mut self,
        generation: &mut Generation<'_, '_>,
        drafting: &mut Drafting<'_>,
        text: &mut Text<'_>,
        ids: &mut Vec<u32>,
        listener: Listener<'_>,
    ) -> Written {
        let failed = self.model.failure();
        let mut written = Written { stopped: Ok(()), pass_failed: false, reduced_passes: 0 };
        while ids.len() < self.most && written.stopped.is_ok() && !self.has_ended(text) {
            // The session's engine plays what its watch says.
            if let Some(watch) = self.model.pressure_watch() {
                written.reduced_passes += u64::from(!watch.ask());
            }
            let (left, mask) = (self.most - ids.len(), &mut self.mask);
            let next = drafting
                .run(generation, ids, left, mask.as_deref_mut(), listener, &failed)
                .and_then(|()| next_token(generation, mask.as_deref_mut(), &failed));
            let id = match next {
                Ok(Some(id)) => id,
                Ok(None) => break,
                Err(error) => {
                    (written.stopped, written.pass_failed) = (Err(error), true);
                    break;
                }
            };
            ids.push(id);
            let told = text.push(id).and_then(|text| listener(Event::Token { id, text }));
            written.stopped = told.and_then(|()| self.cancel.check());
        }
        written
    }
}

/// The next token, among those that a mask leaves; `None` once the text has ended.
fn next_token(
    generation: &mut Generation<'_, '_>,
    mask: Option<&mut (dyn Mask + '_)>,
    failed: &dyn Fn(RunError) -> Error,
) -> Result<Option<u32>> {
    let Some(mask) = mask else { return generation.next_token().map_err(failed) };
    if let Some(logits) = generation.next_logits()
        && !mask.apply(logits)?
    {
        return Ok(None);
    }
    let token = generation.next_token().map_err(failed)?;
    if let Some(token) = token {
        mask.accept(token)?;
    }
    Ok(token)
}

/// Bytes of weights and of KV caches that were read from storage so far.
fn bytes_read(model: &Model) -> [u64; 2] {
    let weights = model.progress().map_or(0, |progress| progress.bytes());
    [weights, model.kv_bytes_read().map_or(0, |bytes| bytes.load(Ordering::Relaxed))]
}

impl Request<'_> {
    /// Puts the saved text into an engine. Returns it with the prompt behind it, and a sampler that
    /// has seen what the engine holds: all but the saved text's last token.
    fn begin(&mut self, engine: &mut Engine<'_>) -> Result<(Vec<u32>, Sampler)> {
        engine.reset();
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

/// How the tokens of a prompt are run.
struct Prefill<'p> {
    cancel: &'p Cancel,
    failed: &'p dyn Fn(RunError) -> Error,
}

impl Prefill<'_> {
    fn run<'g, 'a>(
        &self,
        engine: &'g mut Engine<'a>,
        mut sampler: Sampler,
        tokens: &[u32],
        listener: Listener<'_>,
    ) -> Result<Generation<'g, 'a>> {
        // All passes but the last here, to be able to stop between them.
        let columns = most_columns(engine, tokens.len());
        let last = tokens.len().saturating_sub(1) / columns * columns;
        let (before, last) = tokens.split_at(last);
        let mut began = Instant::now();
        forward(engine, before, Wanted::Last, self.cancel, self.failed, &mut |_, tokens| {
            let pass = Event::Pass { began, tokens: tokens.len() };
            began = Instant::now();
            listener(pass)
        })?;
        before.iter().for_each(|token| sampler.observe(*token));
        let began = Instant::now();
        let generation = Generation::prefill(engine, sampler, last).map_err(self.failed)?;
        listener(Event::Pass { began, tokens: last.len() })?;
        Ok(generation)
    }
}

/// Is shown the engine behind a pass, and the pass's tokens.
pub type Seen<'s> = &'s mut dyn FnMut(&Engine<'_>, &[u32]) -> Result<()>;

/// Runs the tokens that follow in as few passes as the plan allows.
///
/// # Errors
/// A pass that fails, [`Error::Interrupted`], or those of `seen`.
pub fn forward(
    engine: &mut Engine<'_>,
    tokens: &[u32],
    wanted: Wanted,
    cancel: &Cancel,
    failed: &dyn Fn(RunError) -> Error,
    seen: Seen<'_>,
) -> Result<()> {
    let most = most_columns(engine, tokens.len());
    let columns = match wanted {
        Wanted::Last => most,
        Wanted::All => most.min(engine.plan().logit_columns as usize).max(1),
    };
    for tokens in tokens.chunks(columns) {
        engine.forward(tokens, wanted).map_err(failed)?;
        seen(engine, tokens)?;
        cancel.check()?;
    }
    Ok(())
}

/// How many of so many tokens that follow a pass may take: one where operations share a cache that these are
/// too many for, since each token is in its place only until the next one comes.
fn most_columns(engine: &Engine<'_>, tokens: usize) -> usize {
    let plan = engine.plan();
    let end = engine.position() as usize + tokens;
    let beyond = end > plan.kv_capacity as usize && shares_caches(engine.program());
    if beyond { 1 } else { (plan.columns as usize).max(1) }
}

/// Text that is decoded as tokens come; none without a tokenizer.
struct Text<'m> {
    tokenizer: Option<Tokenizer<&'m [u8]>>,
    decoded: DecodedText,
}

impl<'m> Text<'m> {
    /// What follows these tokens, up to one of these strings.
    fn behind(model: &'m Model, ids: &[u32], stop: &[String]) -> Result<Self> {
        let mut tokenizer = model.has_tokenizer().then(|| model.tokenizer()).transpose()?;
        let stops = Stops::new(stop, tokenizer.as_mut())?;
        let after = tokenizer.as_mut().map(|tokenizer| tokenizer.decoder_after(ids, false));
        let decoder = after.unwrap_or(Ok(Decoder::new(false)));
        let decoder =
            decoder.map_err(|e| Error::Usage(format!("the prompt can't be decoded: {e}")))?;
        Ok(Self { tokenizer, decoded: DecodedText::behind(decoder, stops) })
    }

    /// What can be read with this token.
    fn push(&mut self, id: u32) -> Result<&str> {
        let Some(tokenizer) = &mut self.tokenizer else { return Ok("") };
        let decoded = self.decoded.push(tokenizer, id);
        decoded.map_err(|e| Error::Usage(format!("token {id} can't be decoded: {e}")))
    }

    fn finish(&mut self) -> &str {
        self.decoded.finish()
    }
}
