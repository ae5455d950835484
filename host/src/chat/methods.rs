//! Methods of Python's strings, dictionaries and lists, which templates call.

use super::bounds::{BYTES_PER_FUEL, Text, unwritten};
use super::python;
use minijinja::formatting::{FormatStyle, format};
use minijinja::value::{Kwargs, Tuple, ValueKind, from_args};
use minijinja::{Error, ErrorKind, State, Value};

/// Calls a method that the engine does not have itself.
pub(super) fn call(
    state: &mut State,
    value: &Value,
    method: &str,
    args: &[Value],
) -> Result<Value, Error> {
    match (value.kind(), value.as_str()) {
        (_, Some(text)) => {
            let found = look(text, method, args).or_else(|| change(state, text, method, args));
            found.or_else(|| split_or_join(state, text, method, args)).unwrap_or_else(unknown)
        }
        (ValueKind::Map, _) => of_map(value, method, args),
        (ValueKind::Seq | ValueKind::Iterable, _) => of_list(value, method, args),
        _ => unknown(),
    }
}

fn unknown() -> Result<Value, Error> {
    Err(Error::from(ErrorKind::UnknownMethod))
}

/// Methods that look at a string.
fn look(text: &str, method: &str, args: &[Value]) -> Option<Result<Value, Error>> {
    let all = |holds: fn(char) -> bool| {
        no_arguments(args, || !text.is_empty() && text.chars().all(holds))
    };
    Some(match method {
        "startswith" => affix(args, |affix| text.starts_with(affix)),
        "endswith" => affix(args, |affix| text.ends_with(affix)),
        "find" | "index" => place(text, args, method == "index", |text, what| text.find(what)),
        "rfind" | "rindex" => place(text, args, method == "rindex", |text, what| text.rfind(what)),
        "count" => from_args(args).map(|(what,): (&str,)| Value::from(text.matches(what).count())),
        "isdigit" | "isdecimal" | "isnumeric" => all(char::is_numeric),
        "isalpha" => all(char::is_alphabetic),
        "isalnum" => all(char::is_alphanumeric),
        "isspace" => all(python::is_space),
        "isascii" => no_arguments(args, || text.is_ascii()),
        "islower" => no_arguments(args, || has_case(text, char::is_lowercase, char::is_uppercase)),
        "isupper" => no_arguments(args, || has_case(text, char::is_uppercase, char::is_lowercase)),
        _ => return None,
    })
}

fn no_arguments(args: &[Value], result: impl FnOnce() -> bool) -> Result<Value, Error> {
    from_args(args).map(|()| Value::from(result()))
}

fn has_case(text: &str, wanted: fn(char) -> bool, other: fn(char) -> bool) -> bool {
    text.chars().any(wanted) && !text.chars().any(other)
}

/// Whether a string, or one of a tuple of them, begins or ends a text.
fn affix(args: &[Value], holds: impl Fn(&str) -> bool) -> Result<Value, Error> {
    let (affixes,): (&Value,) = from_args(args)?;
    let text = |value: &Value| {
        let found = value.as_str().map(&holds);
        let what = || format!("expected a string or a tuple of strings, found {}", value.kind());
        found.ok_or_else(|| Error::new(ErrorKind::InvalidOperation, what()))
    };
    if !affixes.is_tuple() {
        return text(affixes).map(Value::from);
    }
    for value in affixes.try_iter()? {
        if text(&value)? {
            return Ok(Value::from(true));
        }
    }
    Ok(Value::from(false))
}

/// Where a string lies in another, in characters.
fn place(
    text: &str,
    args: &[Value],
    must: bool,
    find: impl FnOnce(&str, &str) -> Option<usize>,
) -> Result<Value, Error> {
    let (what, start, end): (&str, Option<i64>, Option<i64>) = from_args(args)?;
    let length = text.chars().count() as i64;
    let bound = |at: i64| if at < 0 { (length + at).max(0) } else { at.min(length) };
    let (start, end) = (bound(start.unwrap_or(0)), bound(end.unwrap_or(length)));
    let byte = |at: i64| text.char_indices().nth(at as usize).map_or(text.len(), |(byte, _)| byte);
    let (from, to) = (byte(start), byte(end));
    let found = text.get(from..to).and_then(|part| find(part, what));
    match found {
        Some(at) => Ok(Value::from(start + text[from..from + at].chars().count() as i64)),
        None if must => Err(Error::new(ErrorKind::InvalidOperation, "substring not found")),
        None => Ok(Value::from(-1)),
    }
}

/// Methods that make another string.
fn change(state: &State, text: &str, method: &str, args: &[Value]) -> Option<Result<Value, Error>> {
    let plain = |result: String| from_args(args).map(|()| Value::from(result));
    Some(match method {
        "strip" => strip(args, |is| text.trim_matches(is)),
        "lstrip" => strip(args, |is| text.trim_start_matches(is)),
        "rstrip" => strip(args, |is| text.trim_end_matches(is)),
        "upper" => plain(text.to_uppercase()),
        "lower" | "casefold" => plain(text.to_lowercase()),
        "title" => plain(title(text)),
        "capitalize" => plain(capitalize(text)),
        "swapcase" => plain(text.chars().flat_map(swap_case).collect()),
        "replace" => replace(state, text, args),
        "removeprefix" => remove(text, args, |text, affix| text.strip_prefix(affix)),
        "removesuffix" => remove(text, args, |text, affix| text.strip_suffix(affix)),
        "ljust" | "rjust" | "center" | "zfill" => pad(state, text, method, args),
        "format" => bounded_format(state, text, args),
        _ => return None,
    })
}

/// The widest field that `str.format` may make: the engine makes it before it is paid for.
const MAX_WIDTH_DIGITS: usize = 3;
const MAX_WIDTH: usize = 1000;

fn bounded_format(state: &State, text: &str, args: &[Value]) -> Result<Value, Error> {
    if text.split(|c: char| !c.is_ascii_digit()).any(|digits| digits.len() > MAX_WIDTH_DIGITS) {
        let what = format!("a number of more than {MAX_WIDTH_DIGITS} digits in a format");
        return Err(Error::new(ErrorKind::InvalidOperation, what));
    }
    let fields = text.matches('{').count();
    state.consume_fuel((fields * MAX_WIDTH / BYTES_PER_FUEL) as u64)?;
    format(FormatStyle::StrFormat, text, args).map(Value::from)
}

fn strip<'a>(
    args: &[Value],
    trim: impl FnOnce(&dyn Fn(char) -> bool) -> &'a str,
) -> Result<Value, Error> {
    let (chars,): (Option<&str>,) = from_args(args)?;
    Ok(Value::from(match chars {
        Some(chars) => trim(&|c| chars.contains(c)),
        None => trim(&python::is_space),
    }))
}

pub(super) fn capitalize(text: &str) -> String {
    let mut chars = text.chars();
    let first = chars.next().into_iter().flat_map(char::to_uppercase);
    first.chain(chars.flat_map(char::to_lowercase)).collect()
}

fn title(text: &str) -> String {
    let mut in_word = false;
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if in_word {
            out.extend(c.to_lowercase())
        } else {
            out.extend(c.to_uppercase())
        }
        in_word = c.is_alphabetic();
    }
    out
}

fn swap_case(c: char) -> Vec<char> {
    if c.is_uppercase() { c.to_lowercase().collect() } else { c.to_uppercase().collect() }
}

fn replace(state: &State, text: &str, args: &[Value]) -> Result<Value, Error> {
    let (old, new, count, kwargs): (&str, &str, Option<i64>, Kwargs) = from_args(args)?;
    let count = match count {
        Some(count) => Some(count),
        None => kwargs.get("count")?,
    };
    kwargs.assert_all_used()?;
    let most = count.and_then(|count| usize::try_from(count).ok()).unwrap_or(usize::MAX);
    let mut out = Text::new(state);
    let mut from = 0;
    for (at, found) in text.match_indices(old).take(most) {
        out.push(&text[from..at])?;
        out.push(new)?;
        from = at + found.len();
    }
    out.push(&text[from..])?;
    Ok(Value::from(out.finish()))
}

fn remove<'a>(
    text: &'a str,
    args: &[Value],
    stripped: impl FnOnce(&'a str, &str) -> Option<&'a str>,
) -> Result<Value, Error> {
    let (affix,): (&str,) = from_args(args)?;
    Ok(Value::from(stripped(text, affix).unwrap_or(text)))
}

fn pad(state: &State, text: &str, method: &str, args: &[Value]) -> Result<Value, Error> {
    let (width, fill): (usize, Option<&str>) = from_args(args)?;
    let missing = width.saturating_sub(text.chars().count());
    let fill = fill.unwrap_or(if method == "zfill" { "0" } else { " " });
    let before = match method {
        "ljust" => 0,
        // Python puts the odd one to the left where the width is odd.
        "center" => missing / 2 + (missing & width & 1),
        _ => missing,
    };
    let mut out = Text::new(state);
    let sign = text.starts_with(['-', '+']) && method == "zfill";
    let (sign, digits) = text.split_at(usize::from(sign));
    out.push(sign)?;
    out.repeat(fill, before)?;
    out.push(digits)?;
    out.repeat(fill, missing - before)?;
    Ok(Value::from(out.finish()))
}

/// Methods that take a string to pieces, or put one together.
fn split_or_join(
    state: &State,
    text: &str,
    method: &str,
    args: &[Value],
) -> Option<Result<Value, Error>> {
    Some(match method {
        "split" => split(state, text, args, false),
        "rsplit" => split(state, text, args, true),
        "splitlines" => split_lines(text, args),
        "partition" => parts(text, args, true),
        "rpartition" => parts(text, args, false),
        "join" => from_args(args).and_then(|(items,): (&Value,)| join(state, items, text)),
        _ => return None,
    })
}

/// The items of a list with a text between them.
pub(super) fn join(state: &State, items: &Value, between: &str) -> Result<Value, Error> {
    let mut out = Text::new(state);
    for (index, item) in items.try_iter()?.enumerate() {
        out.push(if index > 0 { between } else { "" })?;
        python::write(&mut out, &item).map_err(unwritten)?;
    }
    Ok(Value::from(out.finish()))
}

fn split(state: &State, text: &str, args: &[Value], from_end: bool) -> Result<Value, Error> {
    let (separator, most, kwargs): (Option<&str>, Option<i64>, Kwargs) = from_args(args)?;
    let separator = match separator {
        Some(separator) => Some(separator),
        None => kwargs.get("sep")?,
    };
    let most = match most {
        Some(most) => Some(most),
        None => kwargs.get("maxsplit")?,
    };
    kwargs.assert_all_used()?;
    let most = most.and_then(|most| usize::try_from(most).ok()).unwrap_or(usize::MAX - 1);
    let pieces = match separator {
        Some("") => return Err(Error::new(ErrorKind::InvalidOperation, "empty separator")),
        Some(separator) if from_end => reversed(text.rsplitn(most + 1, separator).collect()),
        Some(separator) => text.splitn(most + 1, separator).map(Value::from).collect(),
        None if from_end => reversed(words(text, most, true)),
        None => words(text, most, false).into_iter().map(Value::from).collect(),
    };
    state.consume_fuel(pieces.len() as u64 / 2)?;
    Ok(Value::from(pieces))
}

fn reversed(pieces: Vec<&str>) -> Vec<Value> {
    pieces.into_iter().rev().map(Value::from).collect()
}

/// The words of a text, of which so many are split off.
fn words(text: &str, most: usize, from_end: bool) -> Vec<&str> {
    let mut found = vec![];
    let mut rest = text;
    loop {
        rest = if from_end {
            rest.trim_end_matches(python::is_space)
        } else {
            rest.trim_start_matches(python::is_space)
        };
        if rest.is_empty() {
            return found;
        }
        let cut = if from_end { rest.rfind(python::is_space) } else { rest.find(python::is_space) };
        let Some(at) = cut.filter(|_| found.len() < most) else {
            found.push(rest);
            return found;
        };
        let space = rest[at..].chars().next().map_or(1, char::len_utf8);
        let (word, left) = match from_end {
            true => (&rest[at + space..], &rest[..at]),
            false => (&rest[..at], &rest[at..]),
        };
        found.push(word);
        rest = left;
    }
}

/// What ends a line, where Python splits lines.
fn is_line_end(c: char) -> bool {
    matches!(
        c,
        '\n' | '\r' | '\x0b' | '\x0c' | '\x1c'..='\x1e' | '\u{85}' | '\u{2028}' | '\u{2029}'
    )
}

/// The lines of a text, with what ends them or without.
pub(super) fn lines(text: &str, with_ends: bool) -> Vec<&str> {
    let mut found = vec![];
    let mut rest = text;
    while !rest.is_empty() {
        let end = rest.find(is_line_end).unwrap_or(rest.len());
        let width = match rest[end..].chars().next() {
            Some('\r') if rest[end..].starts_with("\r\n") => 2,
            Some(c) => c.len_utf8(),
            None => 0,
        };
        found.push(&rest[..if with_ends { end + width } else { end }]);
        rest = &rest[end + width..];
    }
    found
}

fn split_lines(text: &str, args: &[Value]) -> Result<Value, Error> {
    let (keep, kwargs): (Option<bool>, Kwargs) = from_args(args)?;
    let keep = match keep {
        Some(keep) => keep,
        None => kwargs.get::<Option<bool>>("keepends")?.unwrap_or(false),
    };
    kwargs.assert_all_used()?;
    Ok(lines(text, keep).into_iter().map(Value::from).collect())
}

fn parts(text: &str, args: &[Value], first: bool) -> Result<Value, Error> {
    let (separator,): (&str,) = from_args(args)?;
    let found = if first { text.split_once(separator) } else { text.rsplit_once(separator) };
    let parts = match found {
        Some((before, behind)) => [before, separator, behind],
        None if first => [text, "", ""],
        None => ["", "", text],
    };
    Ok(Value::from(Tuple::from(parts.map(Value::from))))
}

fn of_map(value: &Value, method: &str, args: &[Value]) -> Result<Value, Error> {
    let Some(object) = value.as_object() else { return unknown() };
    let pairs = || object.try_iter_pairs().into_iter().flatten();
    match method {
        "get" => {
            let (key, default): (&Value, Option<Value>) = from_args(args)?;
            Ok(object.get_value(key).or(default).unwrap_or_else(|| Value::from(())))
        }
        "keys" => from_args(args).map(|()| pairs().map(|(key, _)| key).collect()),
        "values" => from_args(args).map(|()| pairs().map(|(_, item)| item).collect()),
        "items" => from_args(args)
            .map(|()| pairs().map(|(key, item)| Value::from(Tuple::from([key, item]))).collect()),
        "copy" => from_args(args).map(|()| value.clone()),
        _ => unknown(),
    }
}

fn of_list(value: &Value, method: &str, args: &[Value]) -> Result<Value, Error> {
    match method {
        "count" => {
            let (what,): (&Value,) = from_args(args)?;
            Ok(Value::from(value.try_iter()?.filter(|item| item == what).count()))
        }
        "index" => {
            let (what,): (&Value,) = from_args(args)?;
            let at = value.try_iter()?.position(|item| item == *what);
            at.map(Value::from).ok_or_else(|| {
                Error::new(ErrorKind::InvalidOperation, "the list holds no such item")
            })
        }
        "copy" => from_args(args).map(|()| value.clone()),
        _ => unknown(),
    }
}
