//! What texts go through before they become tokens: a package's `preprocessors/NAME_preprocessor.json`.

mod chunk;
mod normalize;

use crate::chat::{Conversation, Moment, Template, Value};
use crate::package::{PreprocessorSettings, Step};
use crate::{Error, Result};
use chunk::Cut;

/// Tokens that a prompt may have in a context, with room for as many behind it as may follow, or else half of it.
#[must_use]
pub fn prompt_room(context: u32, max_tokens: u32) -> usize {
    context.saturating_sub(max_tokens).max(context / 2) as usize
}

/// Steps that are ready to be taken.
pub struct Preprocessor {
    before: Vec<Ready>,
    cut: Option<Cut>,
    /// What is done to each part.
    after: Vec<Ready>,
    now: Moment,
    /// Bytes that a step may make of a text.
    most_bytes: u64,
}

/// A step that makes one text of one.
enum Ready {
    Normalize(Step),
    Template(Template),
}

impl Preprocessor {
    /// Prepares the steps, which `origin` has; templates believe to be at the moment `now`.
    ///
    /// # Errors
    /// A template that is none.
    pub fn new(settings: &PreprocessorSettings, origin: &str, now: Moment) -> Result<Self> {
        let (mut before, mut cut, mut after) = (vec![], None, vec![]);
        for (number, step) in settings.steps.iter().enumerate() {
            let ready = match step {
                Step::Chunk { by, max_tokens, overlap_tokens } => {
                    let most = max_tokens.map_or(usize::MAX, |most| most as usize);
                    cut = Some(Cut { blocks: *by, most, overlap: *overlap_tokens as usize });
                    continue;
                }
                Step::Template { template } => {
                    let name = format!("{origin}: steps[{number}].template");
                    Ready::Template(Template::new(&name, template)?)
                }
                other => Ready::Normalize(other.clone()),
            };
            if cut.is_none() { before.push(ready) } else { after.push(ready) }
        }
        Ok(Self { before, cut, after, now, most_bytes: u64::MAX })
    }

    /// Refuses texts that would take more than so many bytes of memory while a step makes one of another.
    #[must_use]
    pub fn within(self, bytes: u64) -> Self {
        // What a step makes stands beside what it makes it of, the text as it was given, and the parts.
        Self { most_bytes: bytes / 4, ..self }
    }

    /// Whether long texts become several.
    #[must_use]
    pub fn cuts(&self) -> bool {
        self.cut.is_some()
    }

    /// The texts that one becomes: several, if it is cut and does not fit. Each has `most` tokens at most, as `count`
    /// counts those of a text that is ready. A text that is not cut stays as long as it is.
    ///
    /// # Errors
    /// A template that fails, a character that takes more tokens than there may be, or those of `count`.
    pub fn run(
        &self,
        text: &str,
        most: usize,
        count: &mut dyn FnMut(&str) -> Result<usize>,
    ) -> Result<Vec<String>> {
        let text = self.pass(&self.before, text, 1)?;
        let Some(cut) = &self.cut else { return Ok(vec![text]) };
        let most = cut.most.min(most);
        let cut = Cut { most, overlap: cut.overlap.min(most / 2), ..*cut };
        let parts = cut.parts(&text, &mut |part| count(&self.pass(&self.after, part, 1)?))?;
        let ready = |(number, part)| self.pass(&self.after, part, number);
        (1..).zip(parts.into_iter().map(|part| &text[part])).map(ready).collect()
    }

    /// What a text becomes that is not to be cut.
    ///
    /// # Errors
    /// A template that fails.
    pub fn whole(&self, text: &str) -> Result<String> {
        self.pass(&self.after, &self.pass(&self.before, text, 1)?, 1)
    }

    fn pass(&self, steps: &[Ready], text: &str, part: usize) -> Result<String> {
        self.fits(text)?;
        steps.iter().try_fold(text.to_owned(), |text, step| {
            let made = match step {
                Ready::Normalize(step) => normalize::step(step, text, self.most_bytes),
                Ready::Template(template) => {
                    let variables = vec![
                        ("text".to_owned(), Value::from(text)),
                        ("part".to_owned(), Value::from(part)),
                    ];
                    template.render(&self.conversation(variables))?
                }
            };
            self.fits(&made).map(|()| made)
        })
    }

    fn fits(&self, text: &str) -> Result<()> {
        if text.len() as u64 <= self.most_bytes {
            return Ok(());
        }
        Err(Error::Usage(format!(
            "a preprocessor has a text of {} bytes or more, and may make texts of {}, a quarter of the memory: raise \
             --memory, or give a shorter text",
            text.len(),
            self.most_bytes
        )))
    }

    fn conversation(&self, variables: Vec<(String, Value)>) -> Conversation {
        Conversation {
            messages: Value::from(Vec::<Value>::new()),
            tools: Value::from(()),
            add_generation_prompt: false,
            variables,
            now: self.now,
        }
    }
}
