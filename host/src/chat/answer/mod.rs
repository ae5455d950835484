//! What a model answers, taken apart as it comes: text, thoughts, and calls of tools.
//!
//! Models write calls in styles of their own, between marks: JSON in `<tool_call>` (Hermes, Qwen) or behind
//! `[TOOL_CALLS]` (Mistral), `<|python_tag|>` (Llama 3) or `<|tool_call|>` (Granite, Phi 4); tags as
//! `<function=…><parameter=…>` (Qwen3-Coder); expressions of Python in `<|tool_call_start|>` (LFM2); and messages to a
//! recipient (Harmony, gpt-oss). Marks may be special tokens: the text must have them. What is between marks and can't
//! be read as a call stays text, marks and all.

mod calls;
mod harmony;
mod pythonic;
mod schema;

use calls::{Call, Style};
use harmony::Harmony;
use minijinja::Value;
use schema::Schema;
use serde::Serialize;

/// A piece of an answer.
#[derive(Clone, Debug, PartialEq)]
pub enum Part {
    /// Text for the user.
    Text(String),
    /// What the model thinks.
    Thought(String),
    /// A tool that the model calls.
    Call(ToolCall),
}

/// A call of a tool, as templates expect it in a message's `tool_calls`.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ToolCall {
    /// Nine letters and digits, as Mistral's templates ask for.
    pub id: String,
    /// `function`.
    #[serde(rename = "type")]
    pub kind: &'static str,
    /// What is called.
    pub function: Function,
}

/// The function that a [`ToolCall`] calls.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Function {
    /// Its name.
    pub name: String,
    /// Its arguments by name; or a text, where the model writes no JSON.
    pub arguments: Value,
}

impl ToolCall {
    fn value(&self) -> Value {
        let function = [
            ("name", Value::from(self.function.name.as_str())),
            ("arguments", self.function.arguments.clone()),
        ];
        Value::from_pairs([
            ("id", Value::from(self.id.as_str())),
            ("type", Value::from(self.kind)),
            ("function", Value::from_pairs(function)),
        ])
    }
}

/// An answer.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Answer {
    /// Text for the user.
    pub content: String,
    /// What the model thought.
    pub thinking: String,
    /// The tools that it calls.
    pub tool_calls: Vec<ToolCall>,
}

impl Answer {
    /// Puts parts together.
    pub fn extend(&mut self, parts: impl IntoIterator<Item = Part>) {
        for part in parts {
            match part {
                Part::Text(text) => self.content.push_str(&text),
                Part::Thought(text) => self.thinking.push_str(&text),
                Part::Call(call) => self.tool_calls.push(call),
            }
        }
    }
}

/// The identifier of a call by its number; of nine characters for the first hundred thousand.
fn call_id(number: usize) -> String {
    format!("call{number:05}")
}

/// The number of a call, of an identifier that was made of one.
#[must_use]
pub fn call_number(id: &str) -> Option<usize> {
    let number = id.strip_prefix("call")?.parse().ok()?;
    (call_id(number) == id).then_some(number)
}

/// Whether a special token's text is one that tells parts of an answer apart; others say nothing.
#[must_use]
pub fn is_mark(text: &str) -> bool {
    let thoughts = THOUGHTS.iter().any(|(open, close)| [open, close].contains(&&text));
    let calls = calls::STYLES.iter().any(|style| style.open == text || style.close.contains(&text));
    thoughts || calls || harmony::MARKS.contains(&text)
}

/// What begins and ends thoughts.
const THOUGHTS: [(&str, &str); 3] =
    [("<think>", "</think>"), ("[THINK]", "[/THINK]"), ("<|channel>", "<channel|>")];

/// What the text is part of.
#[derive(Clone, Debug)]
enum State {
    /// Nothing but white space so far: what follows may be a call without marks.
    Start,
    Text,
    /// A thought, and what ends it.
    Thought(&'static str),
    /// A call.
    Call(&'static Style),
    /// All that follows is a call without marks, if it can be read as one.
    Bare,
    Harmony(Harmony),
}

/// Takes an answer apart.
#[derive(Clone, Debug)]
pub struct Reader {
    schema: Schema,
    state: State,
    /// What has come and belongs to no part yet.
    rest: String,
    /// What is to be passed on.
    parts: Vec<Part>,
    /// What was passed on.
    answer: Answer,
    /// The number of its first call.
    first_call: usize,
    /// The answer as it came, but for calls.
    kept: String,
}

impl Reader {
    /// For the answer to a prompt, in which the model may have begun to think. A call without marks is taken for one
    /// only where there are `tools`, as they are given to the template.
    #[must_use]
    pub fn behind(prompt: &str, tools: &Value) -> Self {
        let prompt = prompt.trim_end();
        let begun = THOUGHTS.iter().find(|(open, _)| prompt.ends_with(open));
        let state = match begun {
            Some((_, close)) => State::Thought(close),
            None if prompt.ends_with(harmony::BEGUN) => State::Harmony(Harmony::Header),
            None => State::Start,
        };
        Self {
            schema: Schema::of(tools),
            state,
            rest: String::new(),
            parts: vec![],
            answer: Answer::default(),
            first_call: 0,
            kept: begun.map_or(String::new(), |(open, _)| (*open).to_owned()),
        }
    }

    /// The same, in a chat that has so many calls already: each gets an identifier of its own.
    #[must_use]
    pub fn numbering_calls_from(self, first_call: usize) -> Self {
        Self { first_call, ..self }
    }

    /// The parts that a piece of text completes; those of text and thoughts are passed on as soon as no mark can begin
    /// in them.
    pub fn push(&mut self, piece: &str) -> Vec<Part> {
        self.rest.push_str(piece);
        while self.step() {}
        self.pass_on()
    }

    /// The parts that the answer's end completes.
    pub fn finish(&mut self) -> Vec<Part> {
        let rest = std::mem::take(&mut self.rest);
        match self.state.clone() {
            State::Start | State::Text => self.say(&rest),
            State::Thought(_) => self.think(&rest),
            State::Call(style) => {
                self.call_or_say(style.read(&rest, &self.schema), &[style.open, &rest])
            }
            State::Bare => self.call_or_say(calls::bare(&rest), &[&rest]),
            State::Harmony(harmony) => self.end_message(&harmony, &rest),
        }
        self.pass_on()
    }

    /// All that was passed on.
    #[must_use]
    pub fn answer(&self) -> &Answer {
        &self.answer
    }

    /// The answer as a message for templates, which take thoughts out of the content themselves; those for Harmony
    /// expect them in a field.
    #[must_use]
    pub fn message(&self) -> Value {
        let Answer { content, thinking, tool_calls } = &self.answer;
        let harmony = matches!(self.state, State::Harmony(_));
        let content = if harmony { content } else { &self.kept };
        let mut fields =
            vec![("role", Value::from("assistant")), ("content", Value::from(content.trim_end()))];
        if harmony && !thinking.is_empty() {
            fields.push(("thinking", Value::from(thinking.as_str())));
        }
        if !tool_calls.is_empty() {
            fields.push(("tool_calls", tool_calls.iter().map(ToolCall::value).collect()));
        }
        Value::from_pairs(fields)
    }

    fn pass_on(&mut self) -> Vec<Part> {
        let parts = std::mem::take(&mut self.parts);
        self.answer.extend(parts.iter().cloned());
        parts
    }

    /// Takes the next of what has come; false if more must come first.
    fn step(&mut self) -> bool {
        match self.state.clone() {
            State::Start => self.start(),
            State::Text => self.text(),
            State::Thought(close) => self.thought(close),
            State::Call(style) => self.call(style),
            State::Bare => false,
            State::Harmony(harmony) => self.harmony(&harmony),
        }
    }

    fn start(&mut self) -> bool {
        let begin = self.rest.trim_start();
        let bare = begin.starts_with('{') && !self.schema.is_empty();
        self.state = match begin {
            "" => return false,
            _ if bare => State::Bare,
            _ => State::Text,
        };
        true
    }

    fn text(&mut self) -> bool {
        let thoughts = THOUGHTS.iter().map(|&(open, close)| (open, State::Thought(close)));
        let calls = calls::STYLES.iter().map(|style| (style.open, State::Call(style)));
        let marks: Vec<(&str, State)> = thoughts.chain(calls).collect();
        let places =
            marks.iter().filter_map(|(open, state)| Some((self.rest.find(open)?, open, state)));
        match places.min_by_key(|(at, ..)| *at) {
            Some((at, open, state)) => {
                let (text, open, state) = (self.take(at, open.len()), *open, state.clone());
                self.say(&text);
                if matches!(state, State::Thought(_)) {
                    self.kept.push_str(open);
                }
                self.state = state;
                true
            }
            None => {
                let text = self.take_sure(marks.iter().map(|(open, _)| *open));
                self.say(&text);
                false
            }
        }
    }

    fn thought(&mut self, close: &'static str) -> bool {
        match self.rest.find(close) {
            Some(at) => {
                let text = self.take(at, close.len());
                self.think(&text);
                self.kept.push_str(close);
                self.state = State::Start;
                true
            }
            None => {
                let text = self.take_sure([close].into_iter());
                self.think(&text);
                false
            }
        }
    }

    fn call(&mut self, style: &'static Style) -> bool {
        let places = style.close.iter().filter_map(|close| Some((self.rest.find(close)?, *close)));
        let Some((at, close)) = places.min() else { return false };
        // The next call's mark is not this one's.
        let length = if close == style.open { 0 } else { close.len() };
        let body = self.take(at, length);
        self.state = State::Text;
        let shown = if length == 0 { "" } else { close };
        self.call_or_say(style.read(&body, &self.schema), &[style.open, &body, shown]);
        true
    }

    /// Takes the next of one of Harmony's messages.
    fn harmony(&mut self, harmony: &Harmony) -> bool {
        if matches!(harmony, Harmony::Header) {
            let Some(at) = self.rest.find(harmony::MESSAGE) else { return false };
            let header = self.take(at, harmony::MESSAGE.len());
            self.state = State::Harmony(Harmony::new(&header));
            return true;
        }
        let places = harmony::ENDS.iter().filter_map(|end| Some((self.rest.find(end)?, *end)));
        if let Some((at, end)) = places.min() {
            let body = self.take(at, end.len());
            self.end_message(harmony, &body);
            self.state = State::Harmony(Harmony::Header);
            return true;
        }
        if !matches!(harmony, Harmony::Call(_)) {
            let text = self.take_sure(harmony::ENDS.into_iter());
            self.end_message(harmony, &text);
        }
        false
    }

    /// Passes on what there is of a message.
    fn end_message(&mut self, harmony: &Harmony, body: &str) {
        match harmony {
            // Marks alone say nothing.
            Harmony::Header if body.is_empty() || body.starts_with("<|") => {}
            Harmony::Header | Harmony::Text => self.say(body),
            Harmony::Thought => self.think(body),
            Harmony::Call(header) => {
                let shown = [header.as_str(), harmony::MESSAGE, body];
                self.call_or_say(harmony::call(header, body), &shown);
            }
        }
    }

    /// Passes calls on, or what they were read from where it can't be read.
    fn call_or_say(&mut self, read: Option<Vec<Call>>, shown: &[&str]) {
        let Some(calls) = read else { return self.say(&shown.concat()) };
        for Call { id, name, arguments } in calls {
            let is_call = |part: &&Part| matches!(part, Part::Call(_));
            let before = self.parts.iter().filter(is_call).count() + self.answer.tool_calls.len();
            let id = id.unwrap_or_else(|| call_id(self.first_call.saturating_add(before)));
            let function = Function { name, arguments };
            self.parts.push(Part::Call(ToolCall { id, kind: "function", function }));
        }
    }

    fn say(&mut self, text: &str) {
        if !text.is_empty() {
            self.kept.push_str(text);
            self.parts.push(Part::Text(text.to_owned()));
        }
    }

    fn think(&mut self, text: &str) {
        if !text.is_empty() {
            self.kept.push_str(text);
            self.parts.push(Part::Thought(text.to_owned()));
        }
    }

    /// Takes the first bytes of the rest, and drops some behind them.
    fn take(&mut self, at: usize, drop: usize) -> String {
        let behind = self.rest.split_off(at + drop);
        let mut taken = std::mem::replace(&mut self.rest, behind);
        taken.truncate(at);
        taken
    }

    /// Takes that of the rest in which none of these marks can begin.
    fn take_sure<'m>(&mut self, marks: impl Iterator<Item = &'m str>) -> String {
        let begun = |mark: &str| {
            let lengths = (1..mark.len()).rev().filter(|length| mark.is_char_boundary(*length));
            lengths.into_iter().find(|length| self.rest.ends_with(&mark[..*length]))
        };
        let kept = marks.filter_map(begun).max().unwrap_or(0);
        self.take(self.rest.len() - kept, 0)
    }
}

#[cfg(test)]
mod tests;
