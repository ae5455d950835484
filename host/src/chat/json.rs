//! The filter `tojson` as transformers has it: Python's `json.dumps` without escapes for HTML.

use super::bounds::Text;
use super::python;
use minijinja::value::{Kwargs, ValueKind};
use minijinja::{Error, ErrorKind, State, Value};
use std::fmt::Write;

/// How deep lists and maps are followed.
const MAX_DEPTH: usize = 400;

struct Layout {
    ascii: bool,
    indent: Option<String>,
    between_items: String,
    behind_key: String,
    sorted: bool,
}

/// `value|tojson(ensure_ascii=false, indent=none, separators=none, sort_keys=false)`.
pub(super) fn tojson(
    state: &State,
    value: &Value,
    ascii: Option<bool>,
    indent: Option<Value>,
    kwargs: Kwargs,
) -> Result<String, Error> {
    let layout = Layout::new(ascii, indent, &kwargs)?;
    let mut out = Text::new(state);
    layout.write(&mut out, value, 0)?;
    Ok(out.finish())
}

impl Layout {
    fn new(ascii: Option<bool>, indent: Option<Value>, kwargs: &Kwargs) -> Result<Self, Error> {
        let indent = match indent {
            Some(indent) => Some(indent),
            None => kwargs.get::<Option<Value>>("indent")?,
        };
        let indent = match indent.filter(|indent| !indent.is_none()) {
            None => None,
            Some(text) if text.as_str().is_some() => text.as_str().map(str::to_owned),
            Some(width) => {
                Some(" ".repeat(usize::try_from(i64::try_from(width)?.clamp(0, 64)).unwrap_or(0)))
            }
        };
        let separators: Option<Vec<String>> = kwargs.get("separators")?;
        let (between_items, behind_key) = match separators.as_deref() {
            Some([items, key]) => (items.clone(), key.clone()),
            Some(_) => {
                let what = "separators must be two: between items, and behind a key";
                return Err(Error::new(ErrorKind::InvalidOperation, what));
            }
            None => (if indent.is_some() { "," } else { ", " }.to_owned(), ": ".to_owned()),
        };
        let ascii = match ascii {
            Some(ascii) => ascii,
            None => kwargs.get::<Option<bool>>("ensure_ascii")?.unwrap_or(false),
        };
        let sorted = kwargs.get::<Option<bool>>("sort_keys")?.unwrap_or(false);
        kwargs.assert_all_used()?;
        Ok(Layout { ascii, indent, between_items, behind_key, sorted })
    }

    fn write(&self, out: &mut Text, value: &Value, depth: usize) -> Result<(), Error> {
        if depth > MAX_DEPTH {
            return Err(Error::new(
                ErrorKind::BadSerialization,
                "lists or maps lie too deep in each other",
            ));
        }
        match value.kind() {
            ValueKind::None => out.push("null"),
            ValueKind::Bool => out.push(if value.is_true() { "true" } else { "false" }),
            ValueKind::Number => out.push(&number(value)),
            ValueKind::String => self.write_string(out, value.as_str().unwrap_or_default()),
            ValueKind::Map => self.write_map(out, value, depth),
            ValueKind::Seq | ValueKind::Iterable => self.write_list(out, value, depth),
            kind => {
                let what = format!("a value that is {kind} can't be written as JSON");
                Err(Error::new(ErrorKind::BadSerialization, what))
            }
        }
    }

    fn write_map(&self, out: &mut Text, value: &Value, depth: usize) -> Result<(), Error> {
        let pairs = value.as_object().and_then(|object| object.try_iter_pairs());
        let mut pairs: Vec<(Value, Value)> = pairs.into_iter().flatten().collect();
        if self.sorted {
            pairs.sort_by(|a, b| a.0.cmp(&b.0));
        }
        if pairs.is_empty() {
            return out.push("{}");
        }
        out.push("{")?;
        for (index, (key, item)) in pairs.iter().enumerate() {
            self.begin_item(out, index, depth + 1)?;
            self.write_string(out, &key_text(key))?;
            out.push(&self.behind_key)?;
            self.write(out, item, depth + 1)?;
        }
        self.break_line(out, depth)?;
        out.push("}")
    }

    fn write_list(&self, out: &mut Text, value: &Value, depth: usize) -> Result<(), Error> {
        let mut count = 0;
        out.push("[")?;
        for item in value.try_iter()? {
            self.begin_item(out, count, depth + 1)?;
            self.write(out, &item, depth + 1)?;
            count += 1;
        }
        if count > 0 {
            self.break_line(out, depth)?;
        }
        out.push("]")
    }

    fn begin_item(&self, out: &mut Text, index: usize, depth: usize) -> Result<(), Error> {
        out.push(if index > 0 { &self.between_items } else { "" })?;
        self.break_line(out, depth)
    }

    fn break_line(&self, out: &mut Text, depth: usize) -> Result<(), Error> {
        let Some(indent) = &self.indent else { return Ok(()) };
        out.push("\n")?;
        out.repeat(indent, depth)
    }

    fn write_string(&self, out: &mut Text, text: &str) -> Result<(), Error> {
        let mut quoted = String::with_capacity(text.len() + 2);
        quoted.push('"');
        for c in text.chars() {
            push_escaped(&mut quoted, c, self.ascii);
        }
        quoted.push('"');
        out.push(&quoted)
    }
}

fn push_escaped(out: &mut String, c: char, ascii: bool) {
    match c {
        '"' => out.push_str("\\\""),
        '\\' => out.push_str("\\\\"),
        '\n' => out.push_str("\\n"),
        '\r' => out.push_str("\\r"),
        '\t' => out.push_str("\\t"),
        '\x08' => out.push_str("\\b"),
        '\x0c' => out.push_str("\\f"),
        _ if c < ' ' || (ascii && !c.is_ascii()) => {
            for unit in c.encode_utf16(&mut [0; 2]) {
                // Writing to a string can't fail.
                let _ = write!(out, "\\u{unit:04x}");
            }
        }
        _ => out.push(c),
    }
}

/// A number as Python's `json` writes it.
fn number(value: &Value) -> String {
    match f64::try_from(value.clone()) {
        _ if value.is_integer() => value.to_string(),
        Ok(number) if number.is_nan() => "NaN".to_owned(),
        Ok(number) if number.is_infinite() => {
            if number > 0.0 { "Infinity" } else { "-Infinity" }.to_owned()
        }
        Ok(number) => python::float(number),
        Err(_) => value.to_string(),
    }
}

/// A key of a map as JSON has it, where keys are strings.
fn key_text(key: &Value) -> String {
    match key.kind() {
        ValueKind::None => "null".to_owned(),
        ValueKind::Bool => if key.is_true() { "true" } else { "false" }.to_owned(),
        ValueKind::Number => number(key),
        _ => key.to_string(),
    }
}
