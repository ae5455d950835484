//! `docs/schema/` is generated from the Rust types. After changing them:
//! `OMEX_UPDATE_SCHEMAS=1 cargo test -p omex --test schemas`.

use omex::graph::Graph;
use omex::package::{
    Chat, EmbeddingSettings, FormatterSettings, Metadata, PreprocessorSettings, RerankSettings,
    WeightIndex,
};
use schemars::{JsonSchema, Schema, generate::SchemaSettings};
use serde_json::Value;
use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

/// The files whose fields must all be known.
const CLOSED: [&str; 4] = ["embedding", "formatter", "preprocessor", "rerank"];

const UPDATE: &str = "OMEX_UPDATE_SCHEMAS";

fn schema<T: JsonSchema>(title: &str) -> Schema {
    let mut schema = SchemaSettings::draft2020_12().into_generator().into_root_schema_for::<T>();
    schema.insert("title".into(), title.into());
    schema
}

/// The files of a package, with their schemas.
fn schemas() -> [(&'static str, Schema); 8] {
    [
        ("metadata", schema::<Metadata>("OMEX metadata.json")),
        ("graph", schema::<Graph>("OMEX graph.json")),
        ("quantization", schema::<WeightIndex>("OMEX weights/quantization.json")),
        ("chat", schema::<Chat>("OMEX chat.json")),
        ("embedding", schema::<EmbeddingSettings>("OMEX postprocessors/embedding.json")),
        (
            "preprocessor",
            schema::<PreprocessorSettings>("OMEX preprocessors/NAME_preprocessor.json"),
        ),
        ("formatter", schema::<FormatterSettings>("OMEX postprocessors/NAME_formatter.json")),
        ("rerank", schema::<RerankSettings>("OMEX postprocessors/rerank.json")),
    ]
}

/// The names of all properties in a schema.
fn properties(schema: &Value, names: &mut BTreeSet<String>) {
    if let Some(object) = schema.get("properties").and_then(Value::as_object) {
        names.extend(object.keys().cloned());
    }
    match schema {
        Value::Object(map) => map.values().for_each(|value| properties(value, names)),
        Value::Array(items) => items.iter().for_each(|value| properties(value, names)),
        _ => {}
    }
}

#[test]
fn the_format_document_names_every_field() {
    let document = include_str!("../../docs/format.md");
    let mut names = BTreeSet::new();
    for schema in schemas().map(|(_, schema)| schema) {
        properties(schema.as_value(), &mut names);
    }
    for name in names {
        let ways =
            [format!("`{name}`"), format!(".{name}`"), format!("`{name}."), format!("`{name}[]`")];
        assert!(ways.iter().any(|way| document.contains(way)), "docs/format.md has no `{name}`");
    }
}

/// The paths of numbers whose width is the machine's: `usize` and `isize`.
fn machine_words(schema: &Value, path: &str, found: &mut Vec<String>) {
    match schema {
        Value::Object(map) => {
            if let Some("uint" | "int") = map.get("format").and_then(Value::as_str) {
                found.push(path.to_owned());
            }
            map.iter()
                .for_each(|(name, value)| machine_words(value, &format!("{path}/{name}"), found));
        }
        Value::Array(items) => items.iter().for_each(|value| machine_words(value, path, found)),
        _ => {}
    }
}

#[test]
fn every_stored_number_has_a_width() {
    #[derive(JsonSchema)]
    #[expect(dead_code, reason = "only its schema is looked at")]
    struct Odd {
        size: usize,
    }
    let mut found = vec![];
    machine_words(schema::<Odd>("").as_value(), "", &mut found);
    assert_eq!(found, ["/properties/size"], "what this test looks for");
    // Operations are those of programs, so images are looked at, too.
    found.clear();
    for schema in schemas().map(|(_, schema)| schema) {
        machine_words(schema.as_value(), "", &mut found);
    }
    assert!(
        found.is_empty(),
        "{found:?} are as wide as the machine that wrote them: use u32 or u64"
    );
}

#[test]
fn schemas_are_those_of_the_types() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/schema");
    for (name, schema) in schemas() {
        let path = folder.join(format!("{name}.schema.json"));
        let expected = serde_json::to_string_pretty(&schema).unwrap() + "\n";
        // Unknown fields of a file are kept: an older reader takes what a newer writer adds. Those of
        // an operation, or of how a text, a vector or a score is made, would change what is computed.
        let closed = schema.get("additionalProperties").is_some();
        assert_eq!(closed, CLOSED.contains(&name), "{name}");
        if std::env::var_os(UPDATE).is_some() {
            fs::create_dir_all(&folder).unwrap();
            fs::write(&path, expected).unwrap();
        } else {
            // In any order: a crate beside this one may make maps keep that in which fields came.
            let [found, expected] = [fs::read_to_string(&path).unwrap_or_default(), expected]
                .map(|text| serde_json::from_str::<Value>(&text).ok());
            assert!(found == expected, "{name}.schema.json is out of date: run with {UPDATE}=1");
        }
    }
}
