//! `omex run`.

use super::chat::answer::{Parts, Shown};
use super::chat::prompt::{Chat, TemplateArgs};
use super::constrain::{self, RuleArgs};
use super::draft::{DraftArgs, Models};
use super::sampling::SamplingArgs;
use super::text::{self, TextArgs, kept_bytes};
use super::{RunArgs, parse_ids};
use crate::{bytes, output, signals, standard_input};
use omex::chat::answer::Answer;
use omex::draft::{Counts, Drafting};
use omex::generate::{Event, Generated, Request, generate};
use omex::mask::Mask;
use omex::pager::PageSource;
use omex::plan::{Kv, RunPrecision};
use omex::saved_session::SavedSession;
use omex::session::{Model, Session, Tables};
use omex::system::peak_bytes;
use omex::{Error, Result};
use serde::Serialize;
use std::path::PathBuf;
use std::time::{Duration, Instant};

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
  omex run qwen.omex --chat \"Invent a person.\" --json-schema person.json
  omex run qwen.omex \"Is the sky blue? Answer:\" --regex \" (yes|no)\"
  omex run llama.omex \"Q: What is 2 + 2? A:\" --stop Q: --stop $'\\n\\n'
  omex run qwen.omex --chat \"Who was Ada Lovelace?\" --set enable_thinking=false
  omex run card.img \"The cat\" (a flash image, with the board's memory plan)")]
pub(crate) struct Args {
    /// A package, a flash image, or hf:ORGANISATION/NAME: a model of a hub, got and converted on first use
    pub(crate) model: PathBuf,
    /// What the text begins with; - reads it from standard input
    #[arg(default_value = "")]
    prompt: String,
    /// Take the prompt for a message, as omex chat does, and print the answer alone
    #[arg(long, conflicts_with_all = ["ids", "session"])]
    chat: bool,
    #[command(flatten)]
    template: TemplateArgs,
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
    text: TextArgs,
    #[command(flatten)]
    sampling: SamplingArgs,
    #[command(flatten)]
    rule: RuleArgs,
    #[command(flatten)]
    run: RunArgs,
    #[command(flatten)]
    pub(crate) draft: DraftArgs,
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
    /// With `--chat`: the text without thoughts and calls, thoughts, and `tool_calls`.
    #[serde(flatten)]
    answer: Option<Answer>,
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
    /// Or for fewer positions.
    context: u32,
    /// What of the prompt was out of the context when the text went on, and of both in the end.
    forgotten_prompt_tokens: usize,
    forgotten_tokens: usize,
    /// As does the choice of planes.
    precision: RunPrecision,
    /// Passes that left planes out because memory was short, which `--precision auto` allows.
    reduced_passes: u64,
}

pub(crate) fn main(args: &Args) -> Result<()> {
    let asked = &args.run;
    let (prompt, chat) = args.prompt()?;
    let start = Instant::now();
    let tables = Tables::open(&args.model)?;
    let goes_on = args.session.as_ref().is_some_and(|file| file.symlink_metadata().is_ok());
    let ids = match &args.ids {
        Some(ids) => ids.clone(),
        // The template has put the tokens around the text that belong there.
        None if args.chat => args.text.encode(asked.memory, &tables, &prompt, false)?,
        None => args.text.encode(asked.memory, &tables, &prompt, !goes_on)?,
    };
    let mut constraint = args.rule.open(&tables)?;
    let of_rule = constraint.as_ref().map_or(0, |constraint| constraint.bytes());
    let texts = kept_bytes(&prompt, &ids) + of_rule;
    let models = args.draft.open(asked, &args.model, tables, texts)?;
    let Models { model: mut session, mut draft } = models;
    let of_draft = draft.as_ref().map_or(0, |draft| draft.plan().total);
    let saved = args.session.as_ref().map(|file| SavedSession::open(file, &session)).transpose()?;
    let earlier = saved.as_ref().map_or(0, |saved| saved.tokens().len());
    asked.tell_of_prompt(&session, earlier + ids.len(), args.max_tokens as usize)?;
    let drafting = args.draft.drafting(&session, draft.as_mut(), earlier + ids.len())?;
    let request = Request {
        saved,
        prompt: &ids,
        max_tokens: args.max_tokens as usize,
        sampling: args.sampling.sampling(),
        mask: constraint.as_mut().map(|constraint| constraint as &mut dyn Mask),
        stop: args.sampling.stop(),
        cancel: signals::cancel(),
    };
    let model = session.model();
    let parts = chat.as_ref().map(|chat| Parts::behind(&prompt, chat, &model)).transpose()?;
    let mut telling = Telling { parts, shown: (!args.json).then(Shown::new) };
    if !args.json {
        output::text(if args.chat { "" } else { &prompt })?;
    }
    let tell = &mut |id, text: &str| telling.push(id, text);
    let result = run(&mut session, request, drafting, start, tell);
    let answer = telling.finish()?;
    if args.json {
        let mut output = Output { answer, ..result? };
        output.stats.planned_bytes += of_draft;
        constrain::tell_of(&mut constraint);
        return output::json(&output);
    }
    output::text("\n")?;
    let mut output = result?;
    constrain::tell_of(&mut constraint);
    output.stats.planned_bytes += of_draft;
    if args.stats {
        output.stats.print();
    }
    Ok(())
}

/// How a text is told as it comes: that of a chat in parts, and none that is printed as JSON.
struct Telling<'m> {
    parts: Option<Parts<'m>>,
    shown: Option<Shown>,
}

impl Telling<'_> {
    fn push(&mut self, id: Option<u32>, text: &str) -> Result<()> {
        let parts = match (&mut self.parts, id) {
            (Some(parts), Some(id)) => parts.push(id, text)?,
            (Some(parts), None) => parts.reader.push(text),
            (None, _) if self.shown.is_some() => return output::text(text),
            (None, _) => return Ok(()),
        };
        self.shown.as_mut().map_or(Ok(()), |shown| shown.show(&parts))
    }

    /// Tells the last of it; gives an answer of a chat.
    fn finish(&mut self) -> Result<Option<Answer>> {
        let Some(parts) = &mut self.parts else { return Ok(None) };
        let last = parts.reader.finish();
        if let Some(shown) = &mut self.shown {
            shown.show(&last)?;
            shown.finish()?;
        }
        Ok(Some(parts.reader.answer().clone()))
    }
}

impl Args {
    /// The text to begin with, and the template that made it.
    fn prompt(&self) -> Result<(String, Option<Chat>)> {
        let prompt = match self.prompt.as_str() {
            "-" => standard_input::read(text::longest(self.run.memory))?,
            text => text.to_owned(),
        };
        if self.chat {
            let chat = self.template.open(Some(&self.model))?;
            return Ok((chat.of_text(&prompt)?, Some(chat)));
        }
        if self.template.given() {
            let unused = "a template, its name, tools, variables and a date are for --chat: add it";
            return Err(Error::Usage(unused.into()));
        }
        Ok((prompt, None))
    }
}

/// Generates text, hands it to `emit` with its tokens as it comes, and says what it took since the command began.
pub(crate) fn run(
    session: &mut Session,
    request: Request<'_>,
    drafting: Drafting<'_>,
    start: Instant,
    emit: &mut dyn FnMut(Option<u32>, &str) -> Result<()>,
) -> Result<Output> {
    let model = session.model();
    let mut engine = session.engine()?;
    let held = request.saved.as_ref().map_or(0, |saved| saved.tokens().len());
    let prompt = held + request.prompt.len();
    let kept = request.saved.is_some();
    let (mut first_token, mut tokens) = (Duration::ZERO, 0);
    let generated = generate(&model, &mut engine, request, drafting, &mut |event| match event {
        Event::Pass { .. } => Ok(()),
        Event::Prompt => {
            first_token = start.elapsed();
            Ok(())
        }
        Event::Token { id, .. } if !model.has_tokenizer() => {
            tokens += 1;
            emit(None, &format!("{}{id}", if tokens > 1 { "," } else { "" }))
        }
        Event::Token { id, text } => emit(Some(id), text),
        Event::End { text } => emit(None, text),
    });
    if kept && first_token.is_zero() && generated.is_err() {
        output::note("note: the prompt did not come to its end: the session's file is as it was");
    }
    let generated = generated?;
    let mut stats = Stats::new(&model, &generated, first_token);
    stats.forgotten_prompt_tokens = model.forgotten(prompt, 0);
    stats.forgotten_tokens = model.forgotten(prompt, generated.ids.len());
    if stats.forgotten_prompt_tokens == 0 && stats.forgotten_tokens > 0 {
        let forgetting = model.forgetting("text", prompt + generated.ids.len());
        forgetting.into_iter().for_each(|it| output::note(&format!("\nnote: {it}")));
    }
    Ok(Output { ids: generated.ids, text: generated.text, answer: None, stats })
}

impl Stats {
    fn new(model: &Model, generated: &Generated, first_token: Duration) -> Self {
        let rate = |tokens: usize, time: Duration| match tokens {
            0 => 0.0,
            tokens => tokens as f64 / time.as_secs_f64(),
        };
        let (prompt, prefill) = generated.prefill;
        // The first token came from the prompt's last pass.
        let decoded = generated.ids.len().saturating_sub(1);
        let [weights, kv] = generated.bytes_read.map(|bytes| bytes / decoded.max(1) as u64);
        let passes = generated.drafts.passes.max(1) as f64;
        let plan = model.plan();
        Self {
            time_to_first_token_ms: first_token.as_secs_f64() * 1e3,
            prefill_tok_s: rate(prompt, prefill),
            decode_tok_s: rate(decoded, generated.decode),
            planned_bytes: plan.total,
            peak_bytes: peak_bytes(),
            streamed_bytes_per_token: weights,
            kv_bytes_read_per_token: kv,
            pages: model.source(),
            drafts: generated.drafts,
            tokens_per_pass: decoded as f64 / passes,
            kv_format: plan.kv_format,
            context: plan.context,
            precision: plan.precision,
            reduced_passes: generated.reduced_passes,
            ..Self::default()
        }
    }

    fn print(&self) {
        let fewer = match self.reduced_passes {
            0 => String::new(),
            passes => format!(", fewer in {passes} passes"),
        };
        let spilled = match self.kv_bytes_read_per_token {
            0 => String::new(),
            bytes => format!(", {} a token read from storage", bytes::show(bytes)),
        };
        let forgotten = match self.forgotten_tokens {
            0 => String::new(),
            tokens => format!(", {tokens} tokens forgotten"),
        };
        let peak = self.peak_bytes.map_or("unknown".to_owned(), bytes::show);
        output::note(&format!(
            "time to first token  {:.1} ms\nprefill              {:.1} tok/s\n\
             decode               {:.1} tok/s\nmemory               {} planned, {peak} peak\n\
             streamed             {} a token\nKV cache             {}, {} positions{forgotten}{spilled}\n\
             planes               {}{fewer}\n\
             drafts               {} of {} tokens accepted, {:.2} tokens a pass\n\
             pages                {}",
            self.time_to_first_token_ms,
            self.prefill_tok_s,
            self.decode_tok_s,
            bytes::show(self.planned_bytes),
            bytes::show(self.streamed_bytes_per_token),
            self.kv_format,
            self.context,
            self.precision,
            self.drafts.accepted_tokens,
            self.drafts.drafted_tokens,
            self.tokens_per_pass,
            self.pages,
        ));
    }
}
