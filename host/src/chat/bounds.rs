//! What keeps a template from filling the memory: every value that gets a name is weighed, and text is paid for while
//! it grows. The engine itself charges for instructions and for what they make, but follows what is nested unasked.

use minijinja::value::ValueKind;
use minijinja::{Environment, Error, ErrorKind, State, Value};

/// The filter that checks a value before it gets a name.
pub(super) const VALUE: &str = "omex_bounded";
/// The same for a field of a namespace, which may hold no namespace: it could hold itself.
pub(super) const FIELD: &str = "omex_bounded_field";
/// The same for each item of a list.
pub(super) const EACH: &str = "omex_bounded_each";

/// Bytes of text that one unit of fuel pays for, as in the engine.
pub(super) const BYTES_PER_FUEL: usize = 64;
/// How deep lists and maps may lie in each other.
const MAX_DEPTH: usize = 160;
/// A walk over this many values costs one unit of fuel.
const VALUES_PER_FUEL: u64 = 16;

pub(super) fn add_checks(environment: &mut Environment) {
    environment.add_filter(VALUE, |state: &State, value: Value| check(state, value, true));
    environment.add_filter(FIELD, |state: &State, value: Value| check(state, value, false));
    environment.add_filter(EACH, |state: &State, list: Value| {
        list.try_iter()?.try_for_each(|value| check(state, value, true).map(drop))
    });
}

/// Hands on a value that is not larger, as it would be printed, than what may still be spent.
fn check(state: &State, value: Value, namespaces: bool) -> Result<Value, Error> {
    if value.as_object().is_some() {
        let most = state.fuel_levels().map_or(u64::MAX, |(_, left)| left);
        let weight = weigh(&value, namespaces, most)?;
        state.consume_fuel(weight / VALUES_PER_FUEL)?;
    }
    Ok(value)
}

/// How many values there are in one, and in those, as often as each is there, long texts counted more.
///
/// # Errors
/// More than `most`, or nested too deep.
pub(super) fn weigh(value: &Value, namespaces: bool, most: u64) -> Result<u64, Error> {
    let mut total = 0;
    add_weight(value, namespaces, most, 0, &mut total)?;
    Ok(total)
}

fn add_weight(
    value: &Value,
    namespaces: bool,
    most: u64,
    depth: usize,
    total: &mut u64,
) -> Result<(), Error> {
    *total += 1 + value.as_str().map_or(0, |text| (text.len() / BYTES_PER_FUEL) as u64);
    if *total > most {
        return Err(Error::from(ErrorKind::OutOfFuel));
    }
    if depth > MAX_DEPTH {
        let what = format!("lists or maps lie more than {MAX_DEPTH} deep in each other");
        return Err(Error::new(ErrorKind::InvalidOperation, what));
    }
    let Some(object) = value.as_object() else { return Ok(()) };
    if !namespaces && object.type_name().ends_with("::Namespace") {
        let what = "a namespace can't be a field of a namespace";
        return Err(Error::new(ErrorKind::InvalidOperation, what));
    }
    let mut add = |item: &Value| add_weight(item, namespaces, most, depth + 1, total);
    match value.kind() {
        ValueKind::Map => {
            let mut pairs = object.try_iter_pairs().into_iter().flatten();
            pairs.try_for_each(|(key, item)| add(&key).and_then(|()| add(&item)))
        }
        ValueKind::Seq | ValueKind::Iterable => {
            object.try_iter().into_iter().flatten().try_for_each(|item| add(&item))
        }
        _ => Ok(()),
    }
}

/// A text that is paid for while it grows.
pub(super) struct Text<'a, 'template, 'env> {
    state: &'a State<'template, 'env>,
    text: String,
    paid: usize,
}

impl<'a, 'template, 'env> Text<'a, 'template, 'env> {
    pub(super) fn new(state: &'a State<'template, 'env>) -> Self {
        Text { state, text: String::new(), paid: 0 }
    }

    pub(super) fn push(&mut self, text: &str) -> Result<(), Error> {
        let fuel = (self.text.len() + text.len() - self.paid) / BYTES_PER_FUEL;
        if fuel > 0 {
            self.state.consume_fuel(fuel as u64)?;
            self.paid += fuel * BYTES_PER_FUEL;
        }
        self.text.push_str(text);
        Ok(())
    }

    /// Adds a text so many times.
    pub(super) fn repeat(&mut self, text: &str, times: usize) -> Result<(), Error> {
        (0..times).try_for_each(|_| self.push(text))
    }

    pub(super) fn finish(self) -> String {
        self.text
    }
}

impl std::fmt::Write for Text<'_, '_, '_> {
    fn write_str(&mut self, text: &str) -> std::fmt::Result {
        self.push(text).map_err(|_| std::fmt::Error)
    }
}

/// What a failed write to a text or to the output means.
pub(super) fn unwritten(_: std::fmt::Error) -> Error {
    Error::from(ErrorKind::OutOfFuel)
}
