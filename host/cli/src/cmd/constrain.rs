//! What a text keeps to: shared by the commands that write one.

use crate::output;
use omex::Result;
pub(crate) use omex::constrain::Constraint;
use omex::constrain::Rule;
use omex::session::Tables;
use std::path::PathBuf;

#[derive(clap::Args, Clone, Debug)]
#[group(multiple = false)]
pub(crate) struct RuleArgs {
    /// Keep to a JSON schema: only tokens that can go on with such a value are chosen
    #[arg(long, value_name = "FILE")]
    json_schema: Option<PathBuf>,
    /// Keep to a regular expression, as a whole
    #[arg(long, value_name = "RE")]
    regex: Option<String>,
    /// Keep to a grammar, in llguidance's dialect of Lark
    #[arg(long, value_name = "FILE")]
    grammar: Option<PathBuf>,
}

impl RuleArgs {
    /// The rule, at the beginning of a text of this model.
    pub(crate) fn open(&self, tables: &Tables) -> Result<Option<Constraint>> {
        let rule = match self {
            Self { json_schema: Some(file), .. } => Rule::JsonSchema(file.clone()),
            Self { regex: Some(regex), .. } => Rule::Regex(regex.clone()),
            Self { grammar: Some(file), .. } => Rule::Grammar(file.clone()),
            _ => return Ok(None),
        };
        Constraint::new(&rule, tables).map(Some)
    }
}

/// Says that a text ended before it kept to its rule.
pub(crate) fn tell_of(constraint: &mut Option<Constraint>) {
    if constraint.as_mut().is_some_and(|constraint| !constraint.is_complete()) {
        output::note("\nnote: the text ended before it kept to its rule: raise --max-tokens");
    }
}
