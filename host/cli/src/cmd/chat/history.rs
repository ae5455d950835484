//! The messages of a chat, and the file that keeps them.

use super::prompt::read_json;
use omex::chat::Value;
use omex::chat::answer::call_number;
use omex::{Error, Result, durable};
use std::path::Path;

/// The messages of a file: a list, or an object with one.
pub(super) fn read(path: &Path) -> Result<Value> {
    let json = read_json(path)?;
    let list = json.get_attr("messages").ok().filter(|list| !list.is_undefined()).unwrap_or(json);
    if is_list(&list) && list.try_iter().is_ok_and(|mut all| all.all(|one| role(&one).is_some())) {
        return Ok(list);
    }
    let expected = "a list of objects with role and content";
    Err(Error::malformed(path, "messages", "something else", expected, "correct the file"))
}

fn is_list(value: &Value) -> bool {
    value.as_object().is_some_and(|object| object.repr() == omex::chat::ObjectRepr::Seq)
}

/// Who says a message.
fn role(message: &Value) -> Option<String> {
    let role = message.get_attr("role").ok()?;
    role.as_str().map(str::to_owned)
}

/// The messages of a chat.
#[derive(Default)]
pub(super) struct History {
    messages: Vec<Value>,
}

impl History {
    /// A chat that begins with what the system says.
    pub(super) fn new(system: Option<&str>) -> Self {
        let mut history = Self::default();
        system.into_iter().for_each(|text| history.push("system", text));
        history
    }

    pub(super) fn load(path: &Path) -> Result<Self> {
        Ok(Self { messages: read(path)?.try_iter().into_iter().flatten().collect() })
    }

    pub(super) fn save(&self, path: &Path) -> Result<()> {
        let failed = |source| Error::io(path, "write", source);
        let mut text = serde_json::to_vec_pretty(&self.messages).map_err(|e| failed(e.into()))?;
        text.push(b'\n');
        durable::write(path, &text)
    }

    pub(super) fn push(&mut self, role: &str, content: &str) {
        self.messages.push(Value::from_pairs([("role", role), ("content", content)]));
    }

    /// Adds a message that is more than its text.
    pub(super) fn push_message(&mut self, message: Value) {
        self.messages.push(message);
    }

    /// The number of the next call of a tool: identifiers that were given before are not given again.
    pub(super) fn next_call(&self) -> usize {
        let calls = self.messages.iter().filter_map(|message| message.get_attr("tool_calls").ok());
        let calls = calls.filter_map(|calls| calls.try_iter().ok()).flatten();
        let number = |call: Value| call_number(call.get_attr("id").ok()?.as_str()?);
        calls.filter_map(number).max().map_or(0, |last| last.saturating_add(1))
    }

    /// The calls of the last answer that no tool has answered yet: identifiers and names.
    pub(super) fn open_calls(&self) -> Vec<(Value, Value)> {
        let of_tool = |message: &&Value| role(message).is_some_and(|role| role == "tool");
        let answered = self.messages.iter().rev().take_while(of_tool).count();
        let before = self.messages.iter().rev().nth(answered);
        let calls = before.and_then(|message| message.get_attr("tool_calls").ok());
        let calls = calls.iter().filter_map(|calls| calls.try_iter().ok()).flatten();
        let named = |call: Value| {
            let function = call.get_attr("function").ok()?;
            Some((call.get_attr("id").ok()?, function.get_attr("name").ok()?))
        };
        calls.filter_map(named).skip(answered).collect()
    }

    /// Takes back the last message if it is of this role.
    pub(super) fn pop(&mut self, of: &str) -> bool {
        let is = self.messages.last().and_then(role).is_some_and(|role| role == of);
        if is {
            self.messages.pop();
        }
        is
    }

    pub(super) fn value(&self) -> Value {
        Value::from(self.messages.clone())
    }

    pub(super) fn len(&self) -> usize {
        self.messages.len()
    }

    /// Forgets the oldest message of the user with all that answers it; false if it is the only one.
    pub(super) fn forget_oldest(&mut self) -> bool {
        let of_user = |message: &Value| role(message).is_some_and(|role| role == "user");
        let mut places = (0..).zip(&self.messages).filter(|(_, m)| of_user(m)).map(|(i, _)| i);
        let (Some(first), Some(second)) = (places.next(), places.next()) else { return false };
        self.messages.drain(first..second);
        true
    }
}
