//! What tools say of their parameters.

use minijinja::Value;
use std::collections::BTreeMap;

/// The types of parameters, by tool and name.
#[derive(Clone, Debug)]
pub(super) struct Schema(BTreeMap<String, BTreeMap<String, String>>);

impl Schema {
    /// Of a list of tools, each with its `name` and `parameters`, perhaps in a `function`.
    pub(super) fn of(tools: &Value) -> Self {
        let all = tools.try_iter().into_iter().flatten();
        Self(all.filter_map(|tool| of_tool(&tool)).collect())
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// An argument that is written as text: of another type only where the tool asks for one and the text is of it.
    pub(super) fn argument(&self, tool: &str, name: &str, text: &str) -> Value {
        let kind = self.0.get(tool).and_then(|parameters| parameters.get(name));
        match kind.map_or("string", String::as_str) {
            "string" => Value::from(text),
            _ => serde_json::from_str(text.trim()).unwrap_or_else(|_| Value::from(text)),
        }
    }
}

fn attribute(value: &Value, name: &str) -> Option<Value> {
    value.get_attr(name).ok().filter(|value| !value.is_undefined() && !value.is_none())
}

fn of_tool(tool: &Value) -> Option<(String, BTreeMap<String, String>)> {
    let function = attribute(tool, "function").unwrap_or_else(|| tool.clone());
    let name = attribute(&function, "name")?.as_str()?.to_owned();
    let properties = attribute(&function, "parameters").and_then(|p| attribute(&p, "properties"));
    let properties = properties.unwrap_or_default();
    let names = properties.try_iter().into_iter().flatten();
    let kind = |name: Value| {
        let kind = attribute(&properties.get_item(&name).ok()?, "type")?;
        Some((name.as_str()?.to_owned(), kind.as_str()?.to_owned()))
    };
    Some((name, names.filter_map(kind).collect()))
}
