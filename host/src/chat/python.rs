//! Values as Python prints them, which templates rely on: `True`, `None`, `1e+20`, `['a', {'b': 1}]`.

use minijinja::Value;
use minijinja::value::ValueKind;
use std::fmt::{Error, Result, Write};

/// How deep lists and maps are followed.
const MAX_DEPTH: usize = 400;

/// A value as `str(value)` has it.
pub(super) fn write(out: &mut dyn Write, value: &Value) -> Result {
    match value.as_str() {
        Some(text) => out.write_str(text),
        None if value.is_undefined() => Ok(()),
        None => write_repr(out, value, 0),
    }
}

/// A value as `repr(value)` has it.
fn write_repr(out: &mut dyn Write, value: &Value, depth: usize) -> Result {
    if depth > MAX_DEPTH {
        return Err(Error);
    }
    match value.kind() {
        ValueKind::Undefined => out.write_str("Undefined"),
        ValueKind::String => write_string(out, value.as_str().unwrap_or_default()),
        ValueKind::Number if !value.is_integer() => match f64::try_from(value.clone()) {
            Ok(number) => out.write_str(&float(number)),
            Err(_) => write!(out, "{value}"),
        },
        ValueKind::Map => write_map(out, value, depth),
        ValueKind::Seq | ValueKind::Iterable => write_list(out, value, depth),
        _ => write!(out, "{value}"),
    }
}

fn write_map(out: &mut dyn Write, value: &Value, depth: usize) -> Result {
    let pairs = value.as_object().and_then(|object| object.try_iter_pairs());
    out.write_char('{')?;
    for (index, (key, item)) in pairs.into_iter().flatten().enumerate() {
        out.write_str(if index > 0 { ", " } else { "" })?;
        write_repr(out, &key, depth + 1)?;
        out.write_str(": ")?;
        write_repr(out, &item, depth + 1)?;
    }
    out.write_char('}')
}

fn write_list(out: &mut dyn Write, value: &Value, depth: usize) -> Result {
    let (open, close) = if value.is_tuple() { ('(', ')') } else { ('[', ']') };
    out.write_char(open)?;
    let mut count = 0;
    for item in value.try_iter().into_iter().flatten() {
        out.write_str(if count > 0 { ", " } else { "" })?;
        write_repr(out, &item, depth + 1)?;
        count += 1;
    }
    out.write_str(if count == 1 && value.is_tuple() { "," } else { "" })?;
    out.write_char(close)
}

fn write_string(out: &mut dyn Write, text: &str) -> Result {
    let quote = if text.contains('\'') && !text.contains('"') { '"' } else { '\'' };
    out.write_char(quote)?;
    for c in text.chars() {
        match c {
            '\n' => out.write_str("\\n")?,
            '\r' => out.write_str("\\r")?,
            '\t' => out.write_str("\\t")?,
            '\\' => out.write_str("\\\\")?,
            _ if c == quote => write!(out, "\\{c}")?,
            _ if is_printable(c) => out.write_char(c)?,
            _ if u32::from(c) < 0x100 => write!(out, "\\x{:02x}", u32::from(c))?,
            _ if u32::from(c) < 0x1_0000 => write!(out, "\\u{:04x}", u32::from(c))?,
            _ => write!(out, "\\U{:08x}", u32::from(c))?,
        }
    }
    out.write_char(quote)
}

/// Whether Python shows a character as it is: no control, no format character, no space but the plain one.
fn is_printable(c: char) -> bool {
    let hidden = matches!(
        c,
        '\u{ad}' | '\u{600}'..='\u{605}' | '\u{61c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}' | '\u{e000}'..='\u{f8ff}' | '\u{feff}' | '\u{f0000}'..
    );
    c == ' ' || !(c.is_control() || c.is_whitespace() || hidden)
}

/// A float as Python's `repr` has it.
pub(super) fn float(number: f64) -> String {
    if !number.is_finite() {
        let sign = if number.is_sign_negative() { "-" } else { "" };
        return if number.is_nan() { "nan".to_owned() } else { format!("{sign}inf") };
    }
    // The shortest digits that give the number back, as d.ddde-x.
    let scientific = format!("{number:e}");
    let Some((digits, Ok(exponent))) =
        scientific.split_once('e').map(|(d, e)| (d, e.parse::<i32>()))
    else {
        return scientific;
    };
    if (-4..16).contains(&exponent) {
        let plain = number.to_string();
        return if plain.contains('.') { plain } else { format!("{plain}.0") };
    }
    let sign = if exponent < 0 { '-' } else { '+' };
    format!("{digits}e{sign}{:02}", exponent.abs())
}

/// What Python's `str.strip` takes for white space.
pub(super) fn is_space(c: char) -> bool {
    c.is_whitespace() || ('\x1c'..='\x1f').contains(&c)
}
