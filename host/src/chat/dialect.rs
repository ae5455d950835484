//! The dialect of transformers: filters, tests and functions that the engine lacks, or has in another way.

use super::bounds::{self, Text, unwritten};
use super::moment::Moment;
use super::{methods, python};
use minijinja::syntax::SyntaxConfig;
use minijinja::value::{Kwargs, ValueKind};
use minijinja::{Environment, Error, ErrorKind, State, UndefinedBehavior, Value};
use std::fmt;

/// How deep blocks, macros and recursive loops may lie in each other; a macro counts four.
const MAX_RECURSION: usize = 400;

/// What a template refused a conversation with.
#[derive(Debug)]
pub(super) struct Refusal(pub(super) String);

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Refusal {}

/// An environment in which templates do what they do in transformers.
pub(super) fn environment<'source>(fuel: u64, now: Moment) -> Result<Environment<'source>, Error> {
    let mut environment = Environment::new();
    environment.set_syntax(SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build()?);
    environment.set_undefined_behavior(UndefinedBehavior::Lenient);
    environment.set_auto_escape_callback(|_| minijinja::AutoEscape::None);
    environment.set_recursion_limit(MAX_RECURSION);
    environment.set_fuel(Some(fuel));
    environment.set_formatter(|out, _, value| python::write(out, value).map_err(unwritten));
    environment.set_unknown_method_callback(methods::call);
    bounds::add_checks(&mut environment);
    add_filters(&mut environment);
    add_tests(&mut environment);
    environment.remove_global("debug");
    environment.add_function("raise_exception", |message: String| -> Result<Value, Error> {
        let error = Error::new(ErrorKind::InvalidOperation, message.clone());
        Err(error.with_source(Refusal(message)))
    });
    environment.add_function("strftime_now", move |format: &str| now.format(format));
    Ok(environment)
}

fn add_filters(environment: &mut Environment) {
    environment.add_filter("tojson", super::json::tojson);
    environment
        .add_filter("string", |state: &State, value: &Value| text(state, value).map(Value::from));
    environment.add_filter("join", join);
    environment.add_filter("indent", indent);
    environment.add_filter("trim", |state: &State, value: &Value, chars: Option<String>| {
        let text = text(state, value)?;
        Ok::<_, Error>(match chars {
            Some(chars) => text.trim_matches(|c| chars.contains(c)).to_owned(),
            None => text.trim_matches(python::is_space).to_owned(),
        })
    });
    environment.add_filter("capitalize", |state: &State, value: &Value| {
        text(state, value).map(|text| methods::capitalize(&text))
    });
    environment.add_filter("int", int);
    environment.add_filter("center", |state: &mut State, text: Value, width: Option<usize>| {
        methods::call(state, &text, "center", &[Value::from(width.unwrap_or(80))])
    });
    environment.add_filter("wordcount", |text: &str| {
        text.split(|c: char| !c.is_alphanumeric() && c != '_')
            .filter(|word| !word.is_empty())
            .count()
    });
}

/// A whole number, or the default for what is none.
fn int(value: &Value, default: Option<Value>, kwargs: Kwargs) -> Result<Value, Error> {
    let default = default.or(kwargs.get("default")?).unwrap_or_else(|| Value::from(0));
    kwargs.assert_all_used()?;
    let number = match value.as_str().map(str::trim) {
        Some(text) => {
            text.parse::<i64>().ok().map(Value::from).or(text.parse().ok().and_then(whole))
        }
        None if value.is_integer() => Some(value.clone()),
        None if value.kind() == ValueKind::Bool => Some(Value::from(i64::from(value.is_true()))),
        None => f64::try_from(value.clone()).ok().and_then(whole),
    };
    Ok(number.unwrap_or(default))
}

fn whole(number: f64) -> Option<Value> {
    number.is_finite().then(|| Value::from(number.trunc() as i64))
}

/// A value's text, as Python's `str` has it.
fn text(state: &State, value: &Value) -> Result<String, Error> {
    let mut out = Text::new(state);
    python::write(&mut out, value).map_err(unwritten)?;
    Ok(out.finish())
}

fn join(
    state: &State,
    items: &Value,
    between: Option<String>,
    attribute: Option<String>,
    kwargs: Kwargs,
) -> Result<Value, Error> {
    let between = match between {
        Some(between) => between,
        None => kwargs.get::<Option<String>>("d")?.unwrap_or_default(),
    };
    let attribute = match attribute {
        Some(attribute) => Some(attribute),
        None => kwargs.get::<Option<String>>("attribute")?,
    };
    kwargs.assert_all_used()?;
    let Some(attribute) = attribute else { return methods::join(state, items, &between) };
    let field = |item: Value| item.get_attr(&attribute);
    let fields: Result<Value, Error> =
        items.try_iter()?.map(field).collect::<Result<Vec<_>, _>>().map(Value::from);
    methods::join(state, &fields?, &between)
}

fn indent(
    state: &State,
    text: &str,
    width: Option<Value>,
    first: Option<bool>,
    kwargs: Kwargs,
) -> Result<String, Error> {
    let width = match width {
        Some(width) => Some(width),
        None => kwargs.get("width")?,
    };
    let first = first.or(kwargs.get("first")?).unwrap_or(false);
    let blank = kwargs.get::<Option<bool>>("blank")?.unwrap_or(false);
    kwargs.assert_all_used()?;
    let mut margin = Text::new(state);
    match width {
        Some(text) if text.as_str().is_some() => margin.push(text.as_str().unwrap_or_default())?,
        Some(width) => margin.repeat(" ", usize::try_from(width)?)?,
        None => margin.repeat(" ", 4)?,
    }
    let margin = margin.finish();
    let ended = format!("{text}\n");
    let mut out = Text::new(state);
    for (index, line) in methods::lines(&ended, false).into_iter().enumerate() {
        out.push(if index > 0 { "\n" } else { "" })?;
        let indented = if index == 0 { first } else { blank || !line.is_empty() };
        out.push(if indented { &margin } else { "" })?;
        out.push(line)?;
    }
    Ok(out.finish())
}

fn add_tests(environment: &mut Environment) {
    use ValueKind::{Iterable, Map, Plain, Seq, String, Undefined};
    environment.add_test("sequence", |value: &Value| {
        matches!(value.kind(), Seq | Map | String | Iterable | Undefined)
    });
    environment.add_test("iterable", |value: &Value| {
        matches!(value.kind(), Seq | Map | String | Iterable | Undefined)
    });
    environment.add_test("callable", |value: &Value| matches!(value.kind(), Plain | Undefined));
}
