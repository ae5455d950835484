//! Harmony, the style of gpt-oss: messages with a header that names a channel and perhaps a recipient.

use super::calls::Call;
use minijinja::Value;

/// What a prompt ends with where the model goes on with a header.
pub(super) const BEGUN: &str = "<|start|>assistant";
const CHANNEL: &str = "<|channel|>";
/// What ends a header.
pub(super) const MESSAGE: &str = "<|message|>";
/// What ends a message.
pub(super) const ENDS: [&str; 4] = ["<|end|>", "<|call|>", "<|return|>", "<|start|>"];

/// All the marks, which are special tokens.
pub(super) const MARKS: [&str; 7] =
    ["<|start|>", CHANNEL, "<|constrain|>", MESSAGE, "<|end|>", "<|call|>", "<|return|>"];

/// What of a message comes.
#[derive(Clone, Debug)]
pub(super) enum Harmony {
    /// Its header, or what is before it.
    Header,
    Thought,
    Text,
    /// A message to a tool, with its header.
    Call(String),
}

impl Harmony {
    /// The message behind a header.
    pub(super) fn new(header: &str) -> Self {
        match (recipient(header), channel(header)) {
            (Some(_), _) => Self::Call(header.to_owned()),
            (None, "analysis") => Self::Thought,
            (None, _) => Self::Text,
        }
    }
}

/// The first word behind the mark of a channel.
fn channel(header: &str) -> &str {
    let behind = header.split_once(CHANNEL).map_or("", |(_, behind)| behind);
    behind.split(|c: char| c.is_whitespace() || c == '<').next().unwrap_or("")
}

/// The tool that a message is for.
fn recipient(header: &str) -> Option<&str> {
    let (_, behind) = header.split_once("to=")?;
    let name = behind.split(|c: char| c.is_whitespace() || c == '<').next()?;
    let name = name.strip_prefix("functions.").unwrap_or(name);
    Some(name).filter(|name| !name.is_empty() && *name != "assistant" && *name != "user")
}

/// A call: JSON where the header says so, or else perhaps another text.
pub(super) fn call(header: &str, body: &str) -> Option<Vec<Call>> {
    let read: Option<Value> = serde_json::from_str(body.trim()).ok();
    let is_json = |value: &Value| value.as_object().is_some();
    let text = || Some(Value::from(body)).filter(|_| !header.contains("json"));
    let arguments = read.filter(is_json).or_else(text)?;
    Some(vec![Call { id: None, name: recipient(header)?.to_owned(), arguments }])
}
