//! A chat: messages come line by line, answers stream.

use super::answer::{Parts, Shown};
use super::args::Args;
use super::history::History;
use super::lines::{Line, Lines, stopped_by_user};
use super::prompt::Chat;
use crate::cmd::constrain::{self, Constraint};
use crate::cmd::format::Format;
use crate::{output, signals};
use omex::cancel::Cancel;
use omex::chat::Value;
use omex::generate::{Event, Request, generate_behind};
use omex::mask::Mask;
use omex::preprocess::Preprocessor;
use omex::session::{Model, Session, SessionOptions, Tables};
use omex::{Error, Result};
use omex_core::engine::Engine;
use omex_core::token::EncodeOptions;
use std::path::Path;
use std::time::{Duration, Instant};

/// A chat that is under way.
struct Talk<'t, 'e> {
    args: &'t Args,
    chat: Chat,
    model: &'t Model,
    engine: &'t mut Engine<'e>,
    /// The tokens of the text that the engine holds.
    held: Vec<u32>,
    history: History,
    cancel: Cancel,
    stats: Option<Stats>,
    constraint: Option<Constraint>,
    preprocessor: Option<Preprocessor>,
    format: Format,
    /// Each moves the random numbers.
    retries: u64,
}

/// What the last answer took.
struct Stats {
    prompt: usize,
    run: usize,
    tokens: usize,
    prefill: Duration,
    decode: Duration,
}

/// Whether the chat goes on.
#[derive(PartialEq)]
enum Next {
    On,
    Quit,
}

pub(super) fn talk(args: &Args, path: &Path) -> Result<()> {
    let chat = args.template.open(Some(path))?;
    let tables = Tables::open(path)?;
    let constraint = args.rule.open(&tables)?;
    let texts = constraint.as_ref().map_or(0, |constraint| constraint.bytes());
    let options = SessionOptions { texts, ..args.run.options(1) };
    let mut session: Session = args.run.open_with(tables, &options)?;
    let model = session.model();
    let (preprocessor, format) = (
        args.preprocess.open(path, args.run.memory, args.template.now())?,
        args.format.open(path)?,
    );
    let history = match &args.messages {
        Some(file) => History::load(file)?,
        None => History::new(args.system.as_deref()),
    };
    let mut engine = session.engine()?;
    let (held, stats, cancel) = (vec![], None, signals::cancel());
    let lines = Lines::new(cancel.clone())?;
    let mut talk = Talk {
        args,
        chat,
        model: &model,
        engine: &mut engine,
        held,
        history,
        cancel,
        stats,
        constraint,
        preprocessor,
        format,
        retries: 0,
    };
    if lines.terminal {
        output::note("/system, /save, /load, /retry, /tool, /stats, /quit; Ctrl-C stops an answer");
    }
    loop {
        let next = match lines.next() {
            Ok(None) => break,
            Ok(Some(line)) => talk.take(&line),
            Err(error) => Err(error),
        };
        match next {
            Ok(Next::On) => {}
            Ok(Next::Quit) => break,
            // On a terminal the user can mend it; elsewhere nobody would see it.
            Err(
                error @ (Error::Usage(_)
                | Error::Chat(_)
                | Error::Malformed(_)
                | Error::Text(_)
                | Error::NoJson { .. }),
            ) if lines.terminal => {
                output::error(&error);
            }
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

impl Talk<'_, '_> {
    /// Carries out a command, or answers a message.
    fn take(&mut self, line: &Line) -> Result<Next> {
        match line {
            Line::Command(command) => return self.command(command),
            Line::Message(message) if message.trim().is_empty() => {}
            Line::Message(message) => {
                // What does not fit the context is said where all of the chat is known.
                let prepared =
                    self.preprocessor.as_ref().map(|it| it.whole(message)).transpose()?;
                self.history.push("user", prepared.as_deref().unwrap_or(message));
                self.answer_or_take_back("user")?;
            }
        }
        Ok(Next::On)
    }

    fn command(&mut self, message: &str) -> Result<Next> {
        let (word, rest) = message.trim().split_once(' ').unwrap_or((message.trim(), ""));
        match (word, rest.trim()) {
            ("/quit" | "/exit", _) => return Ok(Next::Quit),
            ("/system", text) => self.history = History::new(Some(text).filter(|t| !t.is_empty())),
            ("/stats", _) => self.stats.iter().for_each(Stats::print),
            ("/retry", _) => self.retry()?,
            ("/tool", result) => self.tool(result)?,
            ("/save" | "/load", "") => return Err(Error::Usage(format!("{word} needs a file"))),
            ("/save", file) => self.history.save(file.as_ref()).map_err(mistaken)?,
            ("/load", file) => self.history = History::load(file.as_ref()).map_err(mistaken)?,
            (command, _) => {
                let known = "/system, /save, /load, /retry, /tool, /stats and /quit";
                return Err(Error::Usage(format!(
                    "{command} is no command: there are {known}; a message that begins with a slash stands in \"\"\""
                )));
            }
        }
        Ok(Next::On)
    }

    /// Takes the last answer back and makes another, with other random numbers.
    fn retry(&mut self) -> Result<()> {
        if !self.history.pop("assistant") {
            return Err(Error::Usage("there is no answer to make once more".into()));
        }
        self.retries += 1;
        self.answer()
    }

    /// Answers a call of a tool; once all are answered, the model goes on.
    fn tool(&mut self, result: &str) -> Result<()> {
        let open = self.history.open_calls();
        let Some((id, name)) = open.first().cloned() else {
            return Err(Error::Usage(
                "the model has called no tool that waits for an answer".into(),
            ));
        };
        let fields = [("role", Value::from("tool")), ("content", Value::from(result))];
        let fields = fields.into_iter().chain([("tool_call_id", id), ("name", name)]);
        self.history.push_message(Value::from_pairs(fields));
        match open.get(1) {
            Some((_, next)) => {
                output::note(&format!("note: {next} waits for an answer, too"));
                Ok(())
            }
            None => self.answer_or_take_back("tool"),
        }
    }

    /// Answers the last message, which is forgotten if it can't be.
    fn answer_or_take_back(&mut self, role: &str) -> Result<()> {
        let result = self.answer();
        if result.is_err() {
            self.history.pop(role);
        }
        result
    }

    fn answer(&mut self) -> Result<()> {
        let (prompt, ids) = self.fitting_prompt()?;
        let mut parts = Parts::behind(&prompt, &self.chat, self.model, self.history.next_call())?;
        let mut shown = Shown::new(&self.format);
        let result = self.generate(&ids, &mut parts, &mut shown);
        let ended = shown.show(&parts.reader.finish()).and_then(|()| shown.finish());
        output::text("\n")?;
        match result {
            Err(Error::Interrupted) => {
                // A pass that was cut off may have left states half changed.
                self.engine.reset();
                self.held.clear();
                stopped_by_user(&self.cancel)?;
            }
            result => result?,
        }
        self.history.push_message(parts.reader.message());
        ended?;
        if self.args.stats {
            self.stats.iter().for_each(Stats::print);
        }
        Ok(())
    }

    /// The prompt and its tokens, once they fit the context with room for an answer.
    fn fitting_prompt(&mut self) -> Result<(String, Vec<u32>)> {
        let context = self.model.plan().context as usize;
        let before = self.history.len();
        loop {
            let prompt = self.chat.render(self.history.value(), true)?;
            // The template has put the tokens around the text that belong there.
            let options = EncodeOptions { add_special: false, parse_special: true };
            let ids = self.model.encode_with(&prompt, options)?;
            if ids.len() < context {
                let forgotten = before - self.history.len();
                if forgotten > 0 {
                    output::note(&format!(
                        "note: the {forgotten} oldest messages are forgotten: --context {context} is full"
                    ));
                }
                return Ok((prompt, ids));
            }
            if self.args.when_full == "stop" || !self.history.forget_oldest() {
                return Err(Error::Usage(format!(
                    "the chat has {} tokens, and the context {context} positions: raise --context, begin \
                     anew with /system, or start with --when-full forget-oldest",
                    ids.len()
                )));
            }
        }
    }

    /// Generates an answer, and notes what the engine holds of it.
    fn generate(&mut self, ids: &[u32], parts: &mut Parts<'_>, shown: &mut Shown) -> Result<()> {
        let context = self.model.plan().context as usize;
        let room = context.saturating_sub(ids.len());
        let mut sampling = self.args.sampling.sampling();
        sampling.seed = sampling.seed.wrapping_add(self.retries);
        self.constraint.as_mut().map_or(Ok(()), Constraint::restart)?;
        let stop = self.format.stop(self.args.sampling.stop());
        let request = Request {
            saved: None,
            prompt: ids,
            max_tokens: room.min(self.args.max_tokens as usize),
            sampling,
            mask: self.constraint.as_mut().map(|constraint| constraint as &mut dyn Mask),
            stop: &stop,
            cancel: self.cancel.clone(),
        };
        let most = request.max_tokens;
        let (mut text, mut run) = (ids.to_vec(), 0);
        let (start, mut prefill) = (Instant::now(), Duration::ZERO);
        let tell = &mut |event: Event<'_>| match event {
            Event::Pass { tokens, .. } => {
                run += if prefill.is_zero() { tokens } else { 0 };
                Ok(())
            }
            Event::Prompt => {
                prefill = start.elapsed();
                Ok(())
            }
            Event::Token { id, text: piece } => {
                text.push(id);
                shown.show(&parts.push(id, piece)?)
            }
            Event::End { text } => shown.show(&parts.reader.push(text)),
        };
        let result = generate_behind(self.model, self.engine, &self.held, request, tell);
        let tokens = text.len() - ids.len();
        text.truncate(self.engine.position() as usize);
        self.held = text;
        let decode = start.elapsed().saturating_sub(prefill);
        self.stats = Some(Stats { prompt: ids.len(), run, tokens, prefill, decode });
        result?;
        let kept = self.constraint.as_mut().is_some_and(Constraint::is_complete);
        if tokens == most && !kept {
            constrain::tell_of(&mut self.constraint);
            let why = if tokens == room { "the context is full" } else { "--max-tokens" };
            output::note(&format!("\nnote: the answer is cut off after {tokens} tokens: {why}"));
        }
        Ok(())
    }
}

/// A file that a command names can be another one next time.
fn mistaken(error: Error) -> Error {
    match error {
        Error::Io { .. } => Error::Usage(error.to_string()),
        error => error,
    }
}

impl Stats {
    fn print(&self) {
        let rate = |tokens: usize, time: Duration| tokens as f64 / time.as_secs_f64().max(1e-9);
        output::note(&format!(
            "prompt  {} tokens, {} of them run, {:.1} tok/s\nanswer  {} tokens, {:.1} tok/s",
            self.prompt,
            self.run,
            rate(self.run, self.prefill),
            self.tokens,
            rate(self.tokens.saturating_sub(1), self.decode),
        ));
    }
}
