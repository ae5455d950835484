//! An answer as it is shown: what the model thinks is dimmed on a terminal, and calls of tools are lines.

use super::prompt::Chat;
use crate::cmd::format::Format;
use crate::output;
use omex::chat::answer::{Part, Reader, ToolCall, is_mark};
use omex::format::Formatter;
use omex::session::Model;
use omex::{Error, Result};
use omex_core::token::{Decoder, Tokenizer};
use std::io::IsTerminal;

const DIM: &str = "\x1b[2m";
const PLAIN: &str = "\x1b[0m";

/// Takes an answer apart, token by token.
pub(crate) struct Parts<'m> {
    pub(crate) reader: Reader,
    tokenizer: Tokenizer<&'m [u8]>,
}

impl<'m> Parts<'m> {
    /// The answer to a prompt of a chat, whose calls are numbered from here on.
    pub(crate) fn behind(
        prompt: &str,
        chat: &Chat,
        model: &'m Model,
        first_call: usize,
    ) -> Result<Self> {
        let reader = Reader::behind(prompt, chat.tools()).numbering_calls_from(first_call);
        Ok(Self { reader, tokenizer: model.tokenizer()? })
    }

    /// The parts that a token completes, of which `text` can be read.
    pub(crate) fn push(&mut self, id: u32, text: &str) -> Result<Vec<Part>> {
        if !text.is_empty() {
            return Ok(self.reader.push(text));
        }
        let mut special = String::new();
        let (mut decoder, tell) = (Decoder::new(true), &mut |text: &str| special.push_str(text));
        let decoded = self.tokenizer.decode(&mut decoder, id, tell);
        decoded.map_err(|e| Error::Usage(format!("token {id} can't be decoded: {e}")))?;
        Ok(if is_mark(&special) { self.reader.push(&special) } else { vec![] })
    }
}

/// Shows parts of an answer as they come.
pub(crate) struct Shown {
    dims: bool,
    thinking: bool,
    /// Whether the last line has ended.
    at_line: bool,
    /// What becomes of the text that is no thought.
    format: Format,
    formatter: Option<Formatter>,
    /// Whether a tool was called: then there need be no text.
    called: bool,
}

impl Shown {
    pub(crate) fn new(format: &Format) -> Self {
        let dims = std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none();
        let (format, formatter) = (format.clone(), format.begin());
        Self { dims, thinking: false, at_line: true, format, formatter, called: false }
    }

    pub(crate) fn show(&mut self, parts: &[Part]) -> Result<()> {
        parts.iter().try_for_each(|part| match part {
            Part::Text(text) => match &mut self.formatter {
                Some(formatter) => {
                    let formatted = formatter.push(text);
                    self.write(false, &formatted)
                }
                None => self.write(false, text),
            },
            Part::Thought(text) => self.write(true, text),
            Part::Call(call) => self.call(call),
        })
    }

    /// Ends a thought that nothing followed, and shows what a formatter held back.
    pub(crate) fn finish(&mut self) -> Result<()> {
        let rest = self.formatter.take().map(|mut formatter| match formatter.finish() {
            Err(_) if self.called => Ok(String::new()),
            finished => finished,
        });
        self.write(false, &rest.transpose()?.unwrap_or_default())
    }

    fn write(&mut self, thinking: bool, text: &str) -> Result<()> {
        let (begin, end) = if self.dims { (DIM, PLAIN) } else { ("<think>", "</think>") };
        let changed = std::mem::replace(&mut self.thinking, thinking) != thinking;
        let mark = if thinking { begin } else { end };
        let mark = if changed { mark } else { "" };
        if let Some(last) = text.chars().last() {
            self.at_line = last == '\n';
        }
        output::text(&format!("{mark}{text}"))
    }

    fn call(&mut self, call: &ToolCall) -> Result<()> {
        self.called = true;
        self.finish()?;
        self.formatter = self.format.begin();
        let arguments = serde_json::to_string(&call.function.arguments).unwrap_or_default();
        let begin = if self.at_line { "" } else { "\n" };
        self.write(false, &format!("{begin}tool call: {} {arguments}\n", call.function.name))
    }
}
