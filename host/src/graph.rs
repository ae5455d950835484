//! `graph.json`: what a model computes, as named operations over named values.

pub use omex_core::engine::LOGITS;

/// The output of a model that sorts texts into classes: a score for each.
pub const CLASSES: &str = "classes";
use omex_core::ops::{self, Form, Op, Operand};
use omex_core::program::{Dtype, PartKind, Per};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

/// The version of the file's format.
pub const FORMAT: u32 = 2;

/// A computation graph. A block is stored once, as a subgraph, and repeated for each layer.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct Graph {
    /// Version of this file's format: 2.
    pub format: u32,
    /// Tokens in the vocabulary; 0 if the model does not take tokens.
    #[serde(default)]
    pub vocab_size: u32,
    /// Positions that the model was trained for; 0 if it has none.
    #[serde(default)]
    pub context_length: u32,
    /// What the model takes in besides tokens.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub inputs: Vec<Port>,
    /// What it gives out. The output named `logits` is what tokens are chosen from.
    pub outputs: Vec<Port>,
    /// Values by name.
    pub values: BTreeMap<String, ValueShape>,
    /// States by name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub states: BTreeMap<String, StateShape>,
    /// Parts by name: operations that may be left out.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub parts: BTreeMap<String, PartShape>,
    /// Operations that are repeated, by name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub subgraphs: BTreeMap<String, Vec<Node>>,
    /// The operations, in order.
    pub nodes: Vec<Node>,
}

/// A value that a model takes in or gives out.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Port {
    /// Its name.
    pub name: String,
    /// The value.
    pub value: ValueRef,
    /// Of integers: what a step is worth; 0 if they are not quantized.
    #[serde(default, skip_serializing_if = "is_default")]
    pub scale: f32,
    /// The integer that stands for 0.
    #[serde(default, skip_serializing_if = "is_default")]
    pub zero_point: i32,
}

/// The type and shape of a value.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema,
)]
#[serde(deny_unknown_fields)]
pub struct ValueShape {
    /// Elements a column.
    pub width: u32,
    /// How many columns there are.
    #[serde(default, skip_serializing_if = "is_default")]
    pub per: Per,
    /// What the elements are.
    #[serde(default, rename = "type", skip_serializing_if = "is_default")]
    pub dtype: Dtype,
    /// The elements as an image or a tensor, innermost last: numbers whose product is the width, with zeros in
    /// front where there are fewer than 4; zeros where a value is just a row.
    #[serde(default, skip_serializing_if = "is_default")]
    pub dims: [u16; 4],
}

/// What a text keeps from one pass to the next.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum StateShape {
    /// Keys and values of past positions.
    Kv {
        /// Number of such caches: `name[0]` and on.
        count: u32,
        /// Number of key and value heads.
        heads: u32,
        /// Width of a head.
        width: u32,
        /// Positions that a query sees at most, its own included; 0 for all.
        #[serde(default, skip_serializing_if = "is_default")]
        window: u32,
    },
    /// Bytes of a recurrence or a convolution.
    Bytes {
        /// Number of such states: `name[0]` and on.
        count: u32,
        /// Bytes of each.
        bytes: u32,
    },
}

/// Operations that may be left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PartShape {
    /// Which: what makes weights more precise, or what changes a model for some tokens.
    pub kind: PartKind,
}

/// The part of the corrections that weights with a residual plane get.
pub const RESIDUAL: &str = "residual";

impl StateShape {
    /// How many such states there are.
    #[must_use]
    pub fn count(&self) -> u32 {
        match self {
            Self::Kv { count, .. } | Self::Bytes { count, .. } => *count,
        }
    }
}

impl Port {
    /// The port of a value of its name, of floats.
    #[must_use]
    pub fn of(name: &str) -> Self {
        Self { name: name.to_owned(), value: ValueRef::all(name), scale: 0.0, zero_point: 0 }
    }
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

/// A value, or some of its rows, written `name` or `name[first..end]`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(try_from = "String", into = "String")]
#[schemars(with = "String", rename = "ValueRef")]
pub struct ValueRef {
    /// The value's name.
    pub name: String,
    /// The rows, if not all.
    pub rows: Option<(u32, u32)>,
}

/// The form of `graph.json`. In a subgraph, `{layer}` in a name is the number of the repetition, and so
/// is an expression of it: `{6*layer+5}`. A state is `name` or `name[number]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Names;

impl Form for Names {
    type Name = String;
    type Value = ValueRef;
    type Part = Option<String>;
}

macro_rules! nodes {
    ($($code:literal $op:ident $feature:tt,)*) => {
        /// An operation, or the repetition of some.
        #[derive(Clone, Debug, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
        #[serde(tag = "op", rename_all = "snake_case")]
        #[allow(missing_docs, reason = "each operation is described where it is defined")]
        pub enum Node {
            /// Plays a subgraph once for each layer.
            Repeat {
                /// The subgraph's name.
                subgraph: String,
                /// Number of layers.
                layers: u32,
            },
            $($op(ops::$op<Names>),)*
        }

        impl Node {
            /// The operation; `None` for a repetition.
            #[must_use]
            pub fn op(&self) -> Option<Op<Names>> {
                match self {
                    Self::Repeat { .. } => None,
                    $(Self::$op(op) => Some(Op::$op(op.clone())),)*
                }
            }
        }

        $(impl From<ops::$op<Names>> for Node {
            fn from(op: ops::$op<Names>) -> Self {
                Self::$op(op)
            }
        })*

        impl From<Op<Names>> for Node {
            fn from(op: Op<Names>) -> Self {
                match op { $(Op::$op(op) => Self::$op(op),)* }
            }
        }
    };
}
omex_core::for_each_op!(nodes);

impl Node {
    /// The values that it refers to.
    pub(crate) fn values(&self) -> Vec<ValueRef> {
        let mut values = vec![];
        let Some(op) = self.op() else { return values };
        op.operands(&mut |operand| match operand {
            Operand::Read(value)
            | Operand::Source(value)
            | Operand::Write(value)
            | Operand::Update(value) => values.push(value.clone()),
            Operand::Weight(_) | Operand::State(_) => {}
        });
        values
    }

    /// Has it refer to another value wherever it refers to one of this name.
    pub(crate) fn rename_value(&mut self, from: &str, to: &str) {
        let Ok(op) = self.op().map(|op| op.resolve(&mut Renamed { from, to })).transpose();
        if let Some(op) = op {
            *self = op.into();
        }
    }

    /// The names of its weights, in the order in which it reads them.
    pub(crate) fn weights(&self) -> Vec<String> {
        let mut weights = vec![];
        let Some(op) = self.op() else { return weights };
        op.operands(&mut |operand| {
            if let Operand::Weight(name) = operand {
                weights.push(name.clone());
            }
        });
        weights
    }
}

/// Gives one value another name.
struct Renamed<'n> {
    from: &'n str,
    to: &'n str,
}

impl ops::Resolve<Names> for Renamed<'_> {
    type To = Names;
    type Error = std::convert::Infallible;

    fn weight(&mut self, name: &String) -> Result<String, Self::Error> {
        Ok(name.clone())
    }

    fn state(&mut self, name: &String) -> Result<String, Self::Error> {
        Ok(name.clone())
    }

    fn value(&mut self, value: &ValueRef) -> Result<ValueRef, Self::Error> {
        let name = if value.name == self.from { self.to } else { &value.name };
        Ok(ValueRef { name: name.to_owned(), rows: value.rows })
    }

    fn part(&mut self, part: &Option<String>) -> Result<Option<String>, Self::Error> {
        Ok(part.clone())
    }
}

impl Graph {
    /// The file's text: fields that have their default are left out.
    ///
    /// # Errors
    /// None for a graph of finite numbers.
    pub fn to_json(&self) -> serde_json::Result<String> {
        let mut graph = serde_json::to_value(self)?;
        strip(&mut graph);
        let mut text = serde_json::to_string_pretty(&graph)?;
        text.push('\n');
        Ok(text)
    }
}

/// Removes fields that say nothing.
fn strip(value: &mut serde_json::Value) {
    match value {
        serde_json::Value::Object(fields) => {
            fields.retain(|_, field| !field.is_null() && *field != false);
            fields.values_mut().for_each(strip);
        }
        serde_json::Value::Array(items) => items.iter_mut().for_each(strip),
        _ => {}
    }
}

impl ValueRef {
    /// All rows of a value.
    #[must_use]
    pub fn all(name: &str) -> Self {
        Self { name: name.to_owned(), rows: None }
    }

    /// Rows `first` to `end` of a value.
    #[must_use]
    pub fn rows(name: &str, first: u32, end: u32) -> Self {
        Self { name: name.to_owned(), rows: Some((first, end)) }
    }
}

impl fmt::Display for ValueRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.rows {
            None => f.write_str(&self.name),
            Some((first, end)) => write!(f, "{}[{first}..{end}]", self.name),
        }
    }
}

impl FromStr for ValueRef {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let Some((name, rows)) = text.split_once('[') else { return Ok(Self::all(text)) };
        let rows = rows.strip_suffix(']').and_then(|rows| rows.split_once(".."));
        let rows = rows.and_then(|(first, end)| Some((first.parse().ok()?, end.parse().ok()?)));
        match rows {
            Some((first, end)) if first < end => Ok(Self::rows(name, first, end)),
            _ => Err(format!("\"{text}\" is neither a value's name nor name[first..end]")),
        }
    }
}

impl TryFrom<String> for ValueRef {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<ValueRef> for String {
    fn from(value: ValueRef) -> Self {
        value.to_string()
    }
}

/// A name in a layer: each `{…}` is replaced by the number that it stands for.
///
/// # Errors
/// An expression that is none.
pub fn name_in_layer(name: &str, layer: u32) -> Result<String, String> {
    let (mut text, mut rest) = (String::new(), name);
    while let Some((before, behind)) = rest.split_once('{') {
        let number = behind.split_once('}').and_then(|(expression, behind)| {
            rest = behind;
            evaluate(expression, layer)
        });
        let number = number.ok_or_else(|| {
            format!("\"{name}\" has braces around something that is not {{layer}} or {{6*layer+5}}")
        })?;
        text.push_str(before);
        text.push_str(&number.to_string());
    }
    text.push_str(rest);
    Ok(text)
}

/// `layer`, `6*layer`, `layer+5`, `6*layer+5` or a number.
fn evaluate(expression: &str, layer: u32) -> Option<u32> {
    let (product, sum) = match expression.split_once('+') {
        Some((product, sum)) => (product, sum.parse().ok()?),
        None => (expression, 0),
    };
    let product = match product.split_once('*') {
        Some((factor, "layer")) => factor.parse::<u32>().ok()?.checked_mul(layer)?,
        None if product == "layer" => layer,
        _ => product.parse().ok()?,
    };
    product.checked_add(sum)
}
