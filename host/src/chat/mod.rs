//! Chat templates: programs that come with a model and make its prompt from a conversation; and what its answers hold
//! ([`answer`]).
//!
//! They are in the language of Jinja2 as transformers runs it: [`Template::render`] gives its output byte for byte. A template is
//! read from a file that anybody may have written: what it may do is bounded by the length of what
//! goes into it.

pub mod answer;
mod bounds;
mod dialect;
mod json;
mod methods;
mod moment;
mod python;
mod source;

pub use minijinja::Value;
pub use minijinja::value::{ObjectRepr, ValueKind};
pub use moment::Moment;

use crate::printable::printable;
use std::error::Error as _;

/// The longest template.
pub const MAX_TEMPLATE_BYTES: u64 = 256 << 10;
/// What a template may spend on the shortest conversation.
const BASE_FUEL: u64 = 400_000;
/// What it may spend on each unit of what goes into it, which is a value or 64 bytes of text.
const FUEL_PER_UNIT: u64 = 256;
/// Drops and comparisons of nested values, and the engine itself, go down by recursion.
const STACK_BYTES: usize = 32 << 20;

/// Why there is no prompt.
#[derive(Debug, thiserror::Error)]
pub enum NotRendered {
    /// The template refuses this conversation, in its own words.
    #[error("{0}")]
    Refused(String),
    /// The template is no valid one, or can't go on.
    #[error("{name}: line {line}: {reason}; {remedy}")]
    Failed {
        /// The template.
        name: String,
        /// Where in it.
        line: usize,
        /// What is wrong there.
        reason: String,
        /// What to do about it.
        remedy: &'static str,
    },
    /// No thread could be started.
    #[error("no thread could be started for a chat template: {0}; close other programs")]
    NoThread(std::io::Error),
}

/// What a template makes a prompt of.
#[derive(Clone, Debug)]
pub struct Conversation {
    /// Messages, as a list of maps with `role` and `content`.
    pub messages: Value,
    /// Tools that the model may call, as a list; none is `None`.
    pub tools: Value,
    /// Whether the answer's beginning is added.
    pub add_generation_prompt: bool,
    /// Other variables, as `bos_token` and `enable_thinking`; the last of a name counts.
    pub variables: Vec<(String, Value)>,
    /// The moment at which the template believes to be.
    pub now: Moment,
}

/// A chat template.
#[derive(Clone, Debug)]
pub struct Template {
    name: String,
    adapted: String,
    bytes: u64,
}

impl Template {
    /// A template by its text; `name` is for errors.
    ///
    /// # Errors
    /// Text that is no template.
    pub fn new(name: &str, text: &str) -> Result<Self, NotRendered> {
        let bytes = text.len() as u64;
        if bytes > MAX_TEMPLATE_BYTES {
            let reason = format!("{bytes} bytes, at most {MAX_TEMPLATE_BYTES} are read");
            return Err(failed(name, 1, reason, TAKE_ANOTHER));
        }
        let adapted = source::adapt(text)
            .map_err(|(line, reason)| failed(name, line, reason, TAKE_ANOTHER))?;
        let template = Template { name: name.to_owned(), adapted, bytes };
        template.on_own_stack(|| {
            template.with_environment(BASE_FUEL, Moment::from_unix(0), |_| Ok(()))
        })?;
        Ok(template)
    }

    /// The prompt that the template makes of a conversation.
    ///
    /// # Errors
    /// The template refuses the conversation, or does what it can't.
    pub fn render(&self, conversation: &Conversation) -> Result<String, NotRendered> {
        let fuel = self.fuel(conversation)?;
        let variables = conversation.variables();
        self.on_own_stack(|| {
            self.with_environment(fuel, conversation.now, |template| template.render(variables))
        })
    }

    fn fuel(&self, conversation: &Conversation) -> Result<u64, NotRendered> {
        let mut units = self.bytes / bounds::BYTES_PER_FUEL as u64;
        for value in conversation.values() {
            let weight = bounds::weigh(value, true, u64::MAX);
            units += weight.map_err(|error| self.error(&error))?;
        }
        Ok(BASE_FUEL.saturating_add(units.saturating_mul(FUEL_PER_UNIT)))
    }

    fn with_environment<T>(
        &self,
        fuel: u64,
        now: Moment,
        work: impl FnOnce(minijinja::Template) -> Result<T, minijinja::Error>,
    ) -> Result<T, NotRendered> {
        let environment = dialect::environment(fuel, now).map_err(|error| self.error(&error))?;
        let template = environment.template_from_named_str(&self.name, &self.adapted);
        template.and_then(work).map_err(|error| self.error(&error))
    }

    fn on_own_stack<T: Send>(
        &self,
        work: impl FnOnce() -> Result<T, NotRendered> + Send,
    ) -> Result<T, NotRendered> {
        std::thread::scope(|scope| {
            let builder = std::thread::Builder::new().stack_size(STACK_BYTES);
            let thread = builder.spawn_scoped(scope, work).map_err(NotRendered::NoThread)?;
            let lost =
                || failed(&self.name, 1, "the template engine failed".to_owned(), TAKE_ANOTHER);
            thread.join().unwrap_or_else(|_| Err(lost()))
        })
    }

    fn error(&self, error: &minijinja::Error) -> NotRendered {
        let mut source = error.source();
        while let Some(cause) = source {
            if let Some(refusal) = cause.downcast_ref::<dialect::Refusal>() {
                return NotRendered::Refused(refusal.0.clone());
            }
            source = cause.source();
        }
        let kind = error.kind();
        let reason = match error.detail() {
            Some(detail) => format!("{kind}: {detail}"),
            None => kind.to_string(),
        };
        let remedy = match kind {
            minijinja::ErrorKind::OutOfFuel => "shorten the conversation, or take another template",
            minijinja::ErrorKind::SyntaxError => TAKE_ANOTHER,
            _ => "see that the messages and tools are as the template expects, or take another one",
        };
        failed(&self.name, error.line().unwrap_or(1), reason, remedy)
    }
}

const TAKE_ANOTHER: &str = "get the template again, or take another one";

fn failed(name: &str, line: usize, reason: String, remedy: &'static str) -> NotRendered {
    NotRendered::Failed { name: name.to_owned(), line, reason: printable(reason), remedy }
}

impl Conversation {
    fn values(&self) -> impl Iterator<Item = &Value> {
        let variables = self.variables.iter().map(|(_, value)| value);
        [&self.messages, &self.tools].into_iter().chain(variables)
    }

    fn variables(&self) -> Value {
        let own = [
            ("messages", self.messages.clone()),
            ("tools", self.tools.clone()),
            ("documents", Value::from(())),
            ("add_generation_prompt", Value::from(self.add_generation_prompt)),
        ];
        let given = self.variables.iter().map(|(name, value)| (name.as_str(), value.clone()));
        Value::from_pairs(own.into_iter().chain(given))
    }
}
