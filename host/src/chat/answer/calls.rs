//! The styles in which models write calls between marks, but for Harmony.

use super::pythonic;
use super::schema::Schema;
use minijinja::Value;
use minijinja::value::ObjectRepr;

/// A call as it was read.
pub(super) struct Call {
    pub(super) id: Option<String>,
    pub(super) name: String,
    pub(super) arguments: Value,
}

/// How calls are written behind a mark.
#[derive(Debug)]
pub(super) struct Style {
    pub(super) open: &'static str,
    /// What ends them, besides the answer's end.
    pub(super) close: &'static [&'static str],
    read: fn(&str, &Schema) -> Option<Vec<Call>>,
}

pub(super) const STYLES: [Style; 6] = [
    Style { open: "<tool_call>", close: &["</tool_call>"], read: tagged },
    Style { open: "<function=", close: &["</function>"], read: function },
    Style { open: "[TOOL_CALLS]", close: &["[TOOL_CALLS]", "</s>"], read: mistral },
    Style { open: "<|python_tag|>", close: &["<|eom_id|>", "<|eot_id|>"], read: python_tag },
    Style { open: "<|tool_call|>", close: &["<|/tool_call|>", "<|end_of_text|>"], read: json },
    Style { open: "<|tool_call_start|>", close: &["<|tool_call_end|>"], read: expressions },
];

impl Style {
    /// The calls of a text between marks; none if it can't be read.
    pub(super) fn read(&self, body: &str, schema: &Schema) -> Option<Vec<Call>> {
        (self.read)(body.trim(), schema)
    }
}

/// A call without marks: an object that is nothing else.
pub(super) fn bare(text: &str) -> Option<Vec<Call>> {
    objects(text)
}

/// Hermes' JSON, or Qwen3-Coder's tags.
fn tagged(body: &str, schema: &Schema) -> Option<Vec<Call>> {
    match body.strip_prefix("<function=") {
        Some(behind) => function(behind.trim_end().strip_suffix("</function>")?, schema),
        None => json(body, schema),
    }
}

/// A call as an object, or a list of some.
fn json(body: &str, _: &Schema) -> Option<Vec<Call>> {
    let value: Value = serde_json::from_str(body).ok()?;
    if !body.starts_with('[') {
        return Some(vec![call(&value)?]);
    }
    let calls: Option<Vec<Call>> = value.try_iter().ok()?.map(|value| call(&value)).collect();
    calls.filter(|calls| !calls.is_empty())
}

/// Objects one after the other, perhaps with semicolons between them.
fn objects(text: &str) -> Option<Vec<Call>> {
    let (mut calls, mut rest) = (vec![], text.trim());
    while !rest.is_empty() {
        let mut values = serde_json::Deserializer::from_str(rest).into_iter::<Value>();
        calls.push(call(&values.next()?.ok()?)?);
        let behind = rest.get(values.byte_offset()..)?.trim_start();
        rest = behind.strip_prefix(';').unwrap_or(behind).trim_start();
    }
    Some(calls)
}

fn attribute(value: &Value, names: &[&str]) -> Option<Value> {
    let values = names.iter().filter_map(|name| value.get_attr(name).ok());
    values.into_iter().find(|value| !value.is_undefined())
}

/// The call that an object stands for.
fn call(value: &Value) -> Option<Call> {
    let function = attribute(value, &["function"]).filter(|value| value.as_object().is_some());
    let function = function.as_ref().unwrap_or(value);
    let name = attribute(function, &["name"])?;
    let name = name.as_str().filter(|name| !name.is_empty())?.to_owned();
    let arguments = match attribute(function, &["arguments", "parameters"]) {
        Some(arguments) => map(arguments)?,
        None => Value::from_pairs(std::iter::empty::<(String, Value)>()),
    };
    let id = attribute(value, &["id"]).and_then(|id| id.as_str().map(str::to_owned));
    Some(Call { id: id.filter(|id| !id.is_empty()), name, arguments })
}

/// Arguments by name, which may be written as a text of JSON.
fn map(value: Value) -> Option<Value> {
    let value = match value.as_str() {
        Some(text) => serde_json::from_str(text).ok()?,
        None => value,
    };
    let is_map = value.as_object().is_some_and(|object| object.repr() == ObjectRepr::Map);
    is_map.then_some(value)
}

/// `NAME>`, and parameters in tags, or arguments as JSON (Llama 3).
fn function(body: &str, schema: &Schema) -> Option<Vec<Call>> {
    let (name, behind) = body.split_once('>')?;
    let name = name.trim().to_owned();
    if name.is_empty() || name.contains(['<', '\n']) {
        return None;
    }
    let behind = behind.trim();
    let arguments = match behind.starts_with('{') {
        true => map(serde_json::from_str(behind).ok()?)?,
        false => parameters(&name, behind, schema)?,
    };
    Some(vec![Call { id: None, name, arguments }])
}

/// `<parameter=NAME>VALUE</parameter>`, one after the other.
fn parameters(function: &str, mut rest: &str, schema: &Schema) -> Option<Value> {
    let mut arguments = vec![];
    while !rest.is_empty() {
        let (name, behind) = rest.strip_prefix("<parameter=")?.split_once('>')?;
        let (value, behind) = behind.split_once("</parameter>")?;
        let value = value.strip_prefix('\n').unwrap_or(value);
        let value = value.strip_suffix('\n').unwrap_or(value);
        arguments.push((name.trim().to_owned(), schema.argument(function, name.trim(), value)));
        rest = behind.trim_start();
    }
    Some(Value::from_pairs(arguments))
}

/// A list as JSON; or, of later models, `NAME[ARGS]{…}`, perhaps with `[CALL_ID]…` behind the name.
fn mistral(body: &str, schema: &Schema) -> Option<Vec<Call>> {
    if body.starts_with('[') {
        return json(body, schema);
    }
    let (head, arguments) = body.split_at_checked(body.find('{')?)?;
    let head = head.trim();
    let head = head.strip_suffix("[ARGS]").unwrap_or(head);
    let (name, id) =
        head.split_once("[CALL_ID]").map_or((head, None), |(name, id)| (name, Some(id)));
    if name.is_empty() || name.contains(char::is_whitespace) {
        return None;
    }
    let arguments = map(serde_json::from_str(arguments).ok()?)?;
    Some(vec![Call { id: id.map(str::to_owned), name: name.to_owned(), arguments }])
}

/// JSON, `NAME.call(…)` of a tool that is built in, or a program in Python.
fn python_tag(body: &str, _: &Schema) -> Option<Vec<Call>> {
    if body.is_empty() {
        return None;
    }
    if body.starts_with('{') {
        return objects(body);
    }
    let called = |(name, arguments): (String, Value)| {
        Some((name.strip_suffix(".call")?.to_owned(), arguments))
    };
    let (name, arguments) = pythonic::call(body)
        .and_then(called)
        .unwrap_or_else(|| ("python".to_owned(), Value::from_pairs([("code", Value::from(body))])));
    Some(vec![Call { id: None, name, arguments }])
}

/// A list of calls as Python has them.
fn expressions(body: &str, _: &Schema) -> Option<Vec<Call>> {
    let calls = pythonic::calls(body)?.into_iter();
    Some(calls.map(|(name, arguments)| Call { id: None, name, arguments }).collect())
}
