//! Random programs reach whatever a program can have, and scripts whatever can be done with texts. What
//! there is comes from the schema of graphs and from the core's own lists, so that nothing new is
//! forgotten.

use super::choices::Choices;
use super::script::{Step, write};
use super::{Takes, images, programs, rules, takes, tensors};
use omex::graph::Graph;
use omex_core::arena::Plan;
use omex_core::program::Program;
use omex_core::quant::Format;
use omex_core::state::kv::KvFormat;
use serde_json::Value;
use std::collections::BTreeSet;

const SEEDS: u64 = 800;

/// What was found, or is to be found, as words.
type Words = BTreeSet<String>;

fn all_found(expected: &Words, found: &Words) {
    let missing: Vec<_> = expected.difference(found).collect();
    assert!(missing.is_empty(), "{SEEDS} seeds never reach {missing:?}");
}

/// The kinds of operations and states: for each the field that tells it, and its schema.
fn kinds(schema: &Value) -> impl Iterator<Item = (&'static str, &Value)> {
    let of = |name: &str, tag| {
        let kinds = schema["$defs"][name]["oneOf"].as_array().expect("a list of kinds");
        kinds.iter().map(move |kind| (tag, kind))
    };
    of("Node", "op").chain(of("StateShape", "kind"))
}

/// The variants that a field can have, if it matters which one it has: all of an enumeration, both of a
/// flag, there or not, the default or another.
fn variants(schema: &Value, kind: &Value, key: &str) -> Vec<String> {
    let field = &kind["properties"][key];
    let name = field["$ref"].as_str().and_then(|name| name.rsplit('/').next());
    let constants = name.and_then(|name| schema["$defs"][name]["oneOf"].as_array());
    if let Some(constants) = constants {
        return constants.iter().map(|one| one["const"].to_string()).collect();
    }
    let required = kind["required"].as_array().is_some_and(|all| all.iter().any(|one| one == key));
    let variants: &[&str] = match field["type"].as_str() {
        Some("boolean") => &["false", "true"],
        _ if required => &[],
        _ if field.get("default").is_some() => &["default", "some"],
        _ => &["none", "some"],
    };
    variants.iter().map(|&variant| variant.to_owned()).collect()
}

/// The variant that a field has.
fn variant(schema: &Value, kind: &Value, key: &str, value: &Value) -> String {
    match value {
        Value::Bool(_) => value.to_string(),
        Value::Null => "none".into(),
        _ if variants(schema, kind, key).contains(&value.to_string()) => value.to_string(),
        _ if kind["properties"][key].get("default") == Some(value) => "default".into(),
        _ => "some".into(),
    }
}

/// Everything that graphs can have.
fn expected(schema: &Value) -> Words {
    let mut words = Words::new();
    for (tag, kind) in kinds(schema) {
        let name = &kind["properties"][tag]["const"];
        words.insert(name.to_string());
        for key in kind["properties"].as_object().expect("fields").keys() {
            words.extend(variants(schema, kind, key).iter().map(|v| format!("{name}, {key} {v}")));
        }
    }
    words
}

/// What a graph has.
fn look_at(schema: &Value, graph: &Graph, words: &mut Words) {
    let graph = serde_json::to_value(graph).expect("finite numbers");
    let bodies = graph["subgraphs"].as_object().into_iter().flat_map(|all| all.values());
    let nodes =
        bodies.chain([&graph["nodes"]]).flat_map(|nodes| nodes.as_array().into_iter().flatten());
    let states = graph["states"].as_object().into_iter().flat_map(|all| all.values());
    for value in nodes.chain(states) {
        let is = |(tag, kind): &(&str, &Value)| kind["properties"][tag]["const"] == value[tag];
        let (tag, kind) = kinds(schema).find(is).expect("a kind of the schema");
        let name = &kind["properties"][tag]["const"];
        words.insert(name.to_string());
        for key in kind["properties"].as_object().expect("fields").keys() {
            words.insert(format!("{name}, {key} {}", variant(schema, kind, key, &value[key])));
        }
    }
}

fn formats(program: &Program<'_>, words: &mut Words) {
    let mut number = 0;
    while let Some(tensor) = program.tensor(number) {
        words.insert(tensor.format.name().to_owned());
        number += 1;
    }
}

#[test]
fn every_operation_and_every_variant_of_its_fields_occurs() {
    let schema = include_str!("../../../docs/schema/graph.schema.json");
    let schema: Value = serde_json::from_str(schema).unwrap();
    let mut wanted = expected(&schema);
    wanted.extend((0..).map_while(Format::from_number).map(|format| format.name().to_owned()));
    let caches = (0..).map_while(KvFormat::from_number);
    wanted.extend(caches.map(|format| format!("a cache of {}", format.name())));
    let mut found = Words::new();
    for seed in 0..SEEDS {
        let choices = seed.to_le_bytes();
        let made = match takes(&choices) {
            Takes::Images => Some(images::make(&choices)),
            Takes::Tensors => Some(tensors::make(&choices)),
            Takes::Texts => None,
        };
        if let Some(made) = made {
            look_at(&schema, &made.graph, &mut found);
            formats(&made.program(), &mut found);
        } else {
            let setting = programs::make(&choices);
            look_at(&schema, &setting.made.graph, &mut found);
            formats(&setting.made.program(), &mut found);
            found.insert(format!("a cache of {}", setting.plan.kv_format.name()));
        }
    }
    all_found(&wanted, &found);
}

/// What a script does.
fn look_at_script(script: &[Step], capacity: usize, words: &mut Words) {
    let mut ends = [0; 3];
    let mut last = &[][..];
    for step in script {
        match step {
            Step::Pass(inputs, _) => {
                for (column, input) in inputs.iter().enumerate() {
                    let end =
                        std::mem::replace(&mut ends[input.sequence as usize], input.position + 1);
                    let first = inputs[..column].iter().all(|i| i.sequence != input.sequence);
                    words.insert(match input.position {
                        0 if end > 0 => "a new text".to_owned(),
                        position if position < end && first => "back".to_owned(),
                        position if position < end => "a branch".to_owned(),
                        position if position as usize >= capacity => "a full cache".to_owned(),
                        _ => "on".to_owned(),
                    });
                    if inputs[0].sequence != input.sequence {
                        words.insert("several texts".to_owned());
                    }
                }
                last = inputs;
            }
            Step::Accept(column) => {
                let end = last[*column].position + 1;
                let old = std::mem::replace(&mut ends[last[*column].sequence as usize], end);
                let what = if rules::branch(last) { "of branches" } else { "of a run" };
                words.insert(format!(
                    "{} {what}",
                    if old > end { "a shorter text" } else { "as long a text" }
                ));
            }
            Step::Fork([from, to], length) => {
                let whole = ends[*from as usize] as usize == *length;
                ends[*to as usize] = *length as u32;
                words.insert(format!("{} fork", if whole { "a whole" } else { "a shorter" }));
                words.insert(format!(
                    "a fork {}",
                    if from == to { "of itself" } else { "of another" }
                ));
            }
            Step::Refused(_) => {
                words.insert("refused".to_owned());
            }
            Step::Failed(inputs) => {
                for input in inputs {
                    let end = &mut ends[input.sequence as usize];
                    *end = input.position.min(*end);
                }
                words.insert("failed".to_owned());
            }
        }
    }
}

#[test]
fn scripts_do_whatever_can_be_done() {
    let wanted = [
        "a new text",
        "back",
        "a branch",
        "a full cache",
        "several texts",
        "a shorter text of branches",
        "as long a text of branches",
        "a shorter text of a run",
        "a whole fork",
        "a shorter fork",
        "a fork of itself",
        "a fork of another",
        "refused",
        "failed",
    ];
    let mut found = Words::new();
    for seed in 0..SEEDS {
        let choices = seed.to_le_bytes();
        if takes(&choices) == Takes::Texts {
            let setting = programs::make(&choices);
            let plan = Plan { columns: 24, logit_columns: 24, sequences: 3, ..setting.plan };
            let script = write(&mut Choices::others(&choices), &setting.rules(plan));
            look_at_script(&script, plan.kv_capacity as usize, &mut found);
        }
    }
    all_found(&wanted.map(str::to_owned).into(), &found);
}
