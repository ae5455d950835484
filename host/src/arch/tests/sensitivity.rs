//! Each field that moves a reference model's logits is read, or refused by name.

use super::models::shared;
use crate::arch::of_config;
use serde_json::{Map, Value};
use std::fs;
use std::path::Path;

/// Below this, a change may be noise.
const MOVES: f64 = 1e-3;

fn read(path: &Path) -> Option<Map<String, Value>> {
    serde_json::from_slice(&fs::read(path).ok()?).ok()
}

/// What Python prints, as JSON.
fn value(text: &str) -> Option<Value> {
    let text = text.replace('\'', "\"").replace("None", "null");
    let text = text.replace("True", "true").replace("False", "false");
    serde_json::from_str(&text).ok().or_else(|| Some(text.into()))
}

/// The names of the field that a change is about, from the outermost, and its new value: `rope.` stands for
/// RoPE's parameters.
fn change(text: &str) -> Option<(Vec<&str>, Value)> {
    let (name, values) = text.split_once(": ")?;
    let (_, new) = values.rsplit_once(" -> ")?;
    let names = match name.strip_prefix("rope.") {
        Some(rope) => ["rope_parameters"].into_iter().chain(rope.split('.')).collect(),
        None => vec![name],
    };
    // A note on a whole style of scaling names no field.
    (!name.contains(' ')).then_some((names, value(new)?))
}

/// Sets a field, if it is there.
fn set(fields: &mut Map<String, Value>, names: &[&str], new: Value) -> bool {
    let (last, outer) = names.split_last().unwrap();
    let inner =
        outer.iter().try_fold(fields, |fields, name| fields.get_mut(*name)?.as_object_mut());
    inner.is_some_and(|fields| fields.insert((*last).to_owned(), new).is_some())
}

#[test]
fn what_moves_logits_is_read_or_refused() {
    let Some(goldens) = shared("golden") else { return };
    let mut changes = 0;
    for folder in fs::read_dir(goldens).unwrap().map(|entry| entry.unwrap().path()) {
        for (measured, key, config) in [
            ("sensitivity.json", "fields", "config_v5.json"),
            ("ref.json", "config_sensitivity", "config.json"),
        ] {
            let (Some(measured), Some(good)) =
                (read(&folder.join(measured)), read(&folder.join(config)))
            else {
                continue;
            };
            // Those of architectures that have no door are refused anyway.
            let Ok(expected) = of_config(Path::new(config), &good) else { continue };
            let moved = measured.get(key).and_then(Value::as_object).into_iter().flatten();
            for (text, _) in moved.filter(|(_, by)| by.as_f64().is_some_and(|by| by > MOVES)) {
                let Some((names, new)) = change(text) else { continue };
                let mut fields = good.clone();
                if !set(&mut fields, &names, new) {
                    continue;
                }
                let what = format!("{}: {text}", folder.display());
                changes += 1;
                match of_config(Path::new(config), &fields) {
                    Ok(found) => assert!(
                        format!("{found:?}") != format!("{expected:?}"),
                        "{what} changes nothing"
                    ),
                    Err(error) => {
                        let error = error.to_string();
                        assert!(error.contains(names.last().unwrap()), "{what}: {error}");
                    }
                }
            }
        }
    }
    assert!(changes > 50, "{changes} changes only");
}
