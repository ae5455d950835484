//! `chat.json`: how a conversation becomes the model's prompt.

use super::{CONVERT_AGAIN, Package};
use crate::{Error, Result};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// The file's name.
pub(crate) const FILE: &str = "chat.json";
/// The version of its format.
const FORMAT: u32 = 1;
/// The template that is meant where none is named.
pub(crate) const DEFAULT_TEMPLATE: &str = "default";

/// How a conversation becomes the model's prompt.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct Chat {
    /// Version of this file's format: 1.
    pub format: u32,
    /// Chat templates in Jinja2 by name: `default`, and perhaps others, as `tool_use`.
    pub templates: BTreeMap<String, String>,
    /// The texts of tokens that templates name, as `bos_token`.
    pub special_tokens: BTreeMap<String, String>,
}

impl Chat {
    /// Templates and the tokens that they name; none without a template.
    pub(crate) fn new(
        templates: BTreeMap<String, String>,
        special_tokens: BTreeMap<String, String>,
    ) -> Option<Self> {
        (!templates.is_empty()).then_some(Self { format: FORMAT, templates, special_tokens })
    }

    /// The template of this name; without one, `tool_use` where there are tools and it is there, or else `default`.
    #[must_use]
    pub fn template(&self, name: Option<&str>, tools: bool) -> Option<&str> {
        let of_tools = self.templates.get("tool_use").filter(|_| tools && name.is_none());
        of_tools
            .or_else(|| self.templates.get(name.unwrap_or(DEFAULT_TEMPLATE)))
            .map(String::as_str)
    }
}

impl Package {
    /// The chat templates, if the model has some.
    ///
    /// # Errors
    /// A file that is damaged, or of another format.
    pub fn chat(&self) -> Result<Option<Chat>> {
        let Some(chat) = self.metadata.read_optional::<Chat>(&self.path, FILE)? else {
            return Ok(None);
        };
        if chat.format == FORMAT {
            return Ok(Some(chat));
        }
        let (path, found) = (self.path.join(FILE), chat.format.to_string());
        Err(Error::malformed(&path, "format", found, FORMAT.to_string(), CONVERT_AGAIN))
    }
}
