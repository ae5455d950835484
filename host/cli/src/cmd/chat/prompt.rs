//! How a conversation becomes a prompt: the template, and what it is given.

use omex::chat::{Conversation, MAX_TEMPLATE_BYTES, Moment, Template, Value, ValueKind};
use omex::package::Package;
use omex::{Error, Result, input};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

/// The special tokens of a template that comes without a model.
const SPECIAL_TOKENS: [(&str, &str); 4] =
    [("bos_token", "<s>"), ("eos_token", "</s>"), ("pad_token", "<pad>"), ("unk_token", "<unk>")];

/// The template, and what it is given besides messages.
#[derive(clap::Args, Clone, Debug)]
pub(crate) struct TemplateArgs {
    /// A chat template to use instead of the package's; without a package its special tokens are <s>,
    /// </s>, <pad> and <unk>
    #[arg(long, value_name = "FILE")]
    template: Option<PathBuf>,
    /// Which of a package's templates to use [default: tool_use with --tools if it is there, or else
    /// default]
    #[arg(long, value_name = "NAME", conflicts_with = "template")]
    template_name: Option<String>,
    /// Tools that the model may call: JSON, a list
    #[arg(long, value_name = "FILE")]
    tools: Option<PathBuf>,
    /// A variable of the template, as enable_thinking=false or bos_token=<s>; what is JSON is taken
    /// as such
    #[arg(long = "set", value_name = "NAME=VALUE", value_parser = variable)]
    variables: Vec<(String, Value)>,
    /// The day that the template takes for today [default: today, in UTC]
    #[arg(long, value_name = "YYYY-MM-DD", value_parser = Moment::parse)]
    date: Option<Moment>,
}

fn variable(text: &str) -> Result<(String, Value), String> {
    let (name, value) = text.split_once('=').ok_or("expected NAME=VALUE")?;
    let value = serde_json::from_str(value).unwrap_or_else(|_| Value::from(value));
    Ok((name.to_owned(), value))
}

/// A template with all that it is given but the messages.
pub(crate) struct Chat {
    template: Template,
    tools: Value,
    variables: Vec<(String, Value)>,
    now: Moment,
}

impl TemplateArgs {
    /// Whether any of these was given.
    pub(crate) fn given(&self) -> bool {
        let files = [self.template.is_some(), self.template_name.is_some(), self.tools.is_some()];
        files.contains(&true) || !self.variables.is_empty() || self.date.is_some()
    }

    /// Opens the template, of a package or of its own.
    pub(crate) fn open(&self, model: Option<&Path>) -> Result<Chat> {
        let tools = self.tools.as_deref().map(read_tools).transpose()?;
        let chat = model.map(|model| Package::open(model)?.chat()).transpose()?.flatten();
        let template = match (&self.template, &chat) {
            (Some(file), _) => {
                let text = input::read_text(file, MAX_TEMPLATE_BYTES)?;
                Template::new(&file.display().to_string(), &text)?
            }
            (None, Some(chat)) => self.of_package(chat, tools.is_some())?,
            (None, None) => return Err(no_template(model)),
        };
        let mut variables: Vec<_> = match chat {
            Some(chat) => chat
                .special_tokens
                .into_iter()
                .map(|(name, text)| (name, Value::from(text)))
                .collect(),
            None => SPECIAL_TOKENS.map(|(name, text)| (name.to_owned(), Value::from(text))).into(),
        };
        variables.extend(self.variables.iter().cloned());
        let now = self.now();
        Ok(Chat { template, tools: tools.unwrap_or(Value::from(())), variables, now })
    }

    /// What templates take for the present.
    pub(crate) fn now(&self) -> Moment {
        self.date.unwrap_or_else(today)
    }

    fn of_package(&self, chat: &omex::package::Chat, tools: bool) -> Result<Template> {
        let name = self.template_name.as_deref();
        let text = chat.template(name, tools).ok_or_else(|| {
            let names: Vec<_> = chat.templates.keys().map(String::as_str).collect();
            let names = names.join(", ");
            Error::Usage(format!(
                "no template of that name: choose one with --template-name: {names}"
            ))
        })?;
        Ok(Template::new(name.unwrap_or("the model's chat template"), text)?)
    }
}

fn no_template(model: Option<&Path>) -> Error {
    let model = model.map(|model| model.display().to_string()).unwrap_or_default();
    Error::Usage(format!(
        "{model}: the package has no chat template: give one with --template FILE, use omex run, or \
         convert the model again if it has one"
    ))
}

#[expect(clippy::disallowed_methods, reason = "a prompt may name the day, and is written nowhere")]
pub(crate) fn today() -> Moment {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Moment::from_unix(since.as_secs())
}

/// Tools: a list of objects.
fn read_tools(path: &Path) -> Result<Value> {
    let tools = read_json(path)?;
    let is_object = |tool: &Value| tool.kind() == ValueKind::Map;
    if tools.kind() == ValueKind::Seq
        && tools.try_iter().is_ok_and(|mut all| all.all(|tool| is_object(&tool)))
    {
        return Ok(tools);
    }
    let found = format!("a {}", tools.kind());
    Err(Error::malformed(path, "the tools", found, "a list of objects", "correct the file"))
}

/// A JSON file, in the order of its keys.
pub(super) fn read_json(path: &Path) -> Result<Value> {
    let bytes = input::read(path, input::MAX_TEXT_BYTES)?;
    serde_json::from_slice(&bytes).map_err(|error| {
        let field = format!("line {}, column {}", error.line(), error.column());
        Error::malformed(path, field, error.to_string(), "JSON", "correct the file")
    })
}

impl Chat {
    /// The tools that the model may call.
    pub(crate) fn tools(&self) -> &Value {
        &self.tools
    }

    /// The prompt that the template makes of some messages.
    pub(crate) fn render(&self, messages: Value, add_generation_prompt: bool) -> Result<String> {
        Ok(self.template.render(&Conversation {
            messages,
            tools: self.tools.clone(),
            add_generation_prompt,
            variables: self.variables.clone(),
            now: self.now,
        })?)
    }

    /// The prompt of one message from the user.
    pub(crate) fn of_text(&self, text: &str) -> Result<String> {
        let message = Value::from_pairs([("role", "user"), ("content", text)]);
        self.render(Value::from(vec![message]), true)
    }
}
