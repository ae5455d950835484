//! `omex run`.

use super::chat::answer::{Parts, Shown};
use super::chat::prompt::{Chat, TemplateArgs};
use super::constrain::{self, Constraint, RuleArgs};
use super::draft::{DraftArgs, Models};
use super::format::{Format, FormatArgs};
use super::preprocess::{ChunkArgs, PreprocessArgs};
use super::sampling::SamplingArgs;
use super::stats::Stats;
use super::text::{self, TextArgs, kept_bytes};
use super::{RunArgs, parse_ids};
use crate::{output, signals, standard_input};
use omex::chat::answer::{Answer, Part};
use omex::draft::Drafting;
use omex::generate::{Event, Request, generate};
use omex::mask::Mask;
use omex::preprocess::prompt_room;
use omex::saved_session::SavedSession;
use omex::session::{Session, SessionOptions, Tables};
use omex::{Error, Result};
use omex_core::token::EncodeOptions;
use serde::Serialize;
use std::mem::take;
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
  omex run qwen.omex --chat - --chunk code --formatter plain < main.rs
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
    #[arg(long, value_name = "1,2,3", value_parser = parse_ids)]
    #[arg(conflicts_with_all = ["prompt", "preprocessor", "chunk"])]
    ids: Option<::std::vec::Vec<u32>>,
    /// Keep the text in this file, and go on from it in the next run, without running again what is
    /// there, and with its random numbers; an empty prompt just goes on
    #[arg(long, value_name = "FILE")]
    session: Option<PathBuf>,
    /// Tokens to generate at most
    #[arg(long, allow_negative_numbers = true, value_name = "N", default_value_t = 256)]
    max_tokens: u32,
    #[command(flatten)]
    preprocess: PreprocessArgs,
    #[command(flatten)]
    chunk: ChunkArgs,
    #[command(flatten)]
    format: FormatArgs,
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
    /// `length` of a text that is as long as asked for, or `stop`.
    finish: &'static str,
    /// With `--chat`: the text without thoughts and calls, thoughts, and `tool_calls`.
    #[serde(flatten)]
    answer: Option<Answer>,
    pub(crate) stats: Stats,
}

pub(crate) fn main(args: &Args) -> Result<()> {
    let asked = &args.run;
    let chat = args.chat()?;
    let start = Instant::now();
    let tables = Tables::open(&args.model)?;
    let format = args.format.open(&args.model)?;
    let prompts = args.prompts(&tables, chat.as_ref())?;
    let mut constraint = args.rule.open(&tables)?;
    let of_rule = constraint.as_ref().map_or(0, |constraint| constraint.bytes());
    let kept = prompts.iter().map(|prompt| kept_bytes(&prompt.text, &prompt.ids)).sum::<u64>();
    let mut models = args.draft.open(asked, &args.model, tables, kept + of_rule)?;
    let mut outputs = vec![];
    for (number, prompt) in prompts.iter().enumerate() {
        if number > 0 {
            constraint.as_mut().map_or(Ok(()), Constraint::restart)?;
            if !args.json {
                output::text(format.join())?;
            }
        }
        let begun = if number > 0 { Instant::now() } else { start };
        let rule = constraint.as_mut();
        let made = args.one(prompt, &mut models, (chat.as_ref(), &format), rule, begun);
        if !args.json && (made.is_err() || number + 1 == prompts.len()) {
            output::text("\n")?;
        }
        let made = made?;
        if made.finish == "length" {
            constrain::tell_of(&mut constraint);
        }
        outputs.push(made);
        if args.stats {
            outputs.iter().skip(number).for_each(|output| output.stats.print());
        }
    }
    match (args.json, outputs.pop()) {
        (false, _) => Ok(()),
        (true, Some(last)) if outputs.is_empty() => output::json(&last),
        (true, last) => {
            outputs.extend(last);
            output::json(&InParts::new(outputs, format.join()))
        }
    }
}

/// What a text begins with.
struct Prompt {
    text: String,
    ids: Vec<u32>,
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
            (None, _) => vec![Part::Text(text.to_owned())],
        };
        self.shown.as_mut().map_or(Ok(()), |shown| shown.show(&parts))
    }

    /// Tells the last of it; gives an answer of a chat.
    fn finish(&mut self) -> Result<Option<Answer>> {
        let last = self.parts.as_mut().map(|parts| parts.reader.finish()).unwrap_or_default();
        if let Some(shown) = &mut self.shown {
            shown.show(&last)?;
            shown.finish()?;
        }
        Ok(self.parts.as_ref().map(|parts| parts.reader.answer().clone()))
    }
}

impl Args {
    /// The template that makes a prompt of a message.
    fn chat(&self) -> Result<Option<Chat>> {
        if self.chat {
            return self.template.open(Some(&self.model)).map(Some);
        }
        if self.template.given() {
            let unused = "a template, its name, tools, variables and a date are for --chat: add it";
            return Err(Error::Usage(unused.into()));
        }
        Ok(None)
    }

    /// What to begin with: several, if a preprocessor cuts the prompt.
    fn prompts(&self, tables: &Tables, chat: Option<&Chat>) -> Result<Vec<Prompt>> {
        if let Some(ids) = &self.ids {
            return Ok(vec![Prompt { text: String::new(), ids: ids.clone() }]);
        }
        let text = match self.prompt.as_str() {
            "-" => standard_input::read(text::longest(self.run.memory))?,
            text => text.to_owned(),
        };
        let ready = |text: &str| chat.map_or(Ok(text.to_owned()), |chat| chat.of_text(text));
        // The template has put the tokens around the text that belong there.
        let goes_on = self.session.as_ref().is_some_and(|file| file.symlink_metadata().is_ok());
        let begins = chat.is_none() && !goes_on;
        let (memory, now) = (self.run.memory, self.template.now());
        let texts = match self.preprocess.open_with(&self.chunk, &self.model, memory, now)? {
            None => vec![text],
            Some(preprocessor) => {
                let most = self.room(tables, &text, preprocessor.cuts())?;
                let count = &mut |text: &str| {
                    signals::cancel().check()?;
                    let options = EncodeOptions {
                        add_special: begins,
                        parse_special: self.text.parse_special(),
                    };
                    Ok(tables.encode(&ready(text)?, options, text::longest(self.run.memory))?.len())
                };
                preprocessor.run(&text, most, count)?
            }
        };
        if self.session.is_some() && texts.len() > 1 {
            return Err(Error::Usage(format!(
                "the preprocessor makes {} texts of the prompt, and --session goes on with one: leave it out, or add \
                 --no-preprocess",
                texts.len()
            )));
        }
        let prompt = |text: String| {
            let text = ready(&text)?;
            let ids = self.text.encode(self.run.memory, tables, &text, begins)?;
            Ok(Prompt { text, ids })
        };
        texts.into_iter().map(prompt).collect()
    }

    /// Tokens that a prompt may have, with room for the text behind it.
    fn room(&self, tables: &Tables, text: &str, cuts: bool) -> Result<usize> {
        if !cuts {
            return Ok(usize::MAX);
        }
        let texts = kept_bytes(text, &[]) + text.len() as u64 * size_of::<u32>() as u64;
        let options = SessionOptions { texts, ..self.run.options(1) };
        Ok(prompt_room(tables.plan(&options)?.context, self.max_tokens))
    }

    /// Goes on with one prompt.
    fn one(
        &self,
        prompt: &Prompt,
        models: &mut Models,
        (chat, format): (Option<&Chat>, &Format),
        rule: Option<&mut Constraint>,
        start: Instant,
    ) -> Result<Output> {
        let Models { model: session, draft } = models;
        let of_draft = draft.as_ref().map_or(0, |draft| draft.plan().total);
        let saved =
            self.session.as_ref().map(|file| SavedSession::open(file, session)).transpose()?;
        let before = saved.as_ref().map_or(0, |saved| saved.tokens().len()) + prompt.ids.len();
        self.run.tell_of_prompt(session, before, self.max_tokens as usize)?;
        let drafting = self.draft.drafting(session, draft.as_mut(), before)?;
        let request = Request {
            saved,
            prompt: &prompt.ids,
            max_tokens: self.max_tokens as usize,
            sampling: self.sampling.sampling(),
            mask: rule.map(|constraint| constraint as &mut dyn Mask),
            stop: &format.stop(self.sampling.stop()),
            cancel: signals::cancel(),
        };
        let model = session.model();
        let parts = chat.map(|chat| Parts::behind(&prompt.text, chat, &model, 0)).transpose()?;
        let shown = (!self.json).then(|| Shown::new(format));
        let mut telling = Telling { parts, shown };
        // What is formatted stands alone.
        if !self.json && chat.is_none() && format.settings().is_none() {
            output::text(&prompt.text)?;
        }
        let result = run(session, request, drafting, start, &mut |id, text| telling.push(id, text));
        let answer = telling.finish();
        let mut output = result?;
        output.answer = answer?;
        if self.json {
            match &mut output.answer {
                // A call needs no text beside it.
                Some(answer) if answer.tool_calls.is_empty() => {
                    answer.content = format.whole(take(&mut answer.content))?;
                }
                Some(answer) => {
                    answer.content = format.whole(take(&mut answer.content)).unwrap_or_default();
                }
                None => output.text = format.whole(take(&mut output.text))?,
            }
        }
        output.stats.planned_bytes += of_draft;
        Ok(output)
    }
}

/// What `--json` prints of a prompt that became several.
#[derive(Debug, Serialize)]
struct InParts {
    text: String,
    parts: Vec<Output>,
}

impl InParts {
    fn new(parts: Vec<Output>, join: &str) -> Self {
        let text = |output: &Output| match &output.answer {
            Some(answer) => answer.content.clone(),
            None => output.text.clone(),
        };
        let texts: Vec<_> = parts.iter().map(text).collect();
        Self { text: texts.join(join), parts }
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
    let finish = if generated.cut_off { "length" } else { "stop" };
    Ok(Output { ids: generated.ids, text: generated.text, finish, answer: None, stats })
}
