//! Hyperparameters that a checkpoint holds beside the weights.

use super::global::Global;
use super::pickle::{Id, Node, Pickle};
use crate::import::Fields;
use serde_json::{Number, Value};

/// How deep hyperparameters may lie, and how many values they may have: a value may be named many
/// times over.
const MAX_DEPTH: usize = 16;
const MAX_VALUES: usize = 100_000;

/// The dictionary `name` of a checkpoint, as JSON. What JSON has no word for is left out.
pub(super) fn fields(pickle: &Pickle, name: &str) -> Option<Fields> {
    let id = *pickle.entries(pickle.root)?.get(name)?;
    let mut left = MAX_VALUES;
    match json(pickle, id, MAX_DEPTH, &mut left)? {
        Value::Object(fields) => Some(fields),
        _ => None,
    }
}

fn json(pickle: &Pickle, id: Id, depth: usize, left: &mut usize) -> Option<Value> {
    let depth = depth.checked_sub(1)?;
    *left = left.checked_sub(1)?;
    Some(match pickle.get(id) {
        Node::None => Value::Null,
        Node::Bool(value) => Value::Bool(*value),
        Node::Integer(value) => (*value).into(),
        Node::Float(value) => Number::from_f64(*value)?.into(),
        Node::Text(text) => Value::String(text.to_string()),
        Node::Global(Global::Type(_, name)) => (*name).into(),
        Node::Tuple(items) | Node::List(items) => {
            items.iter().map(|id| json(pickle, *id, depth, left)).collect::<Option<_>>()?
        }
        Node::Dict(_) => {
            let mut fields = Fields::new();
            for (name, id) in pickle.entries(id)? {
                fields.extend(json(pickle, id, depth, left).map(|value| (name.to_owned(), value)));
            }
            Value::Object(fields)
        }
        _ => return None,
    })
}
