//! A model that is open, with all that it is run by in one value: for programs that hold models for long, as
//! libraries for other languages do.

use crate::cancel::Cancel;
use crate::chat::{Conversation, Moment, Template, Value};
use crate::embed::{embed, fitting};
use crate::event::Listener;
use crate::generate::{Request, forward, generate_behind};
use crate::package::{EmbeddingSettings, Package};
use crate::session::{Model, OwnedEngine, Session, SessionOptions, Tables};
use crate::whole::{self, longest};
use crate::{Error, Result};
use omex_core::engine::{Engine, LOGITS, Wanted};
use omex_core::sample::Sampling;
use omex_core::token::EncodeOptions;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// A model that is open.
pub struct Runner {
    path: PathBuf,
    model: Arc<Model>,
    engine: Held,
    /// The tokens of the text that the engine holds.
    held: Vec<u32>,
    embedding: EmbeddingSettings,
}

/// What runs a model.
enum Held {
    /// Of models that read whole texts.
    Session(Box<Session>),
    Engine(OwnedEngine),
}

/// How to go on with a text.
pub struct Continuation<'c> {
    /// Tokens to generate at most.
    pub max_tokens: usize,
    /// How they are chosen.
    pub sampling: Sampling,
    /// Strings that end the text.
    pub stop: &'c [String],
    /// Ends it between two tokens.
    pub cancel: Cancel,
}

/// Texts in one pass of a model that reads whole texts, where the budget has room for them.
const TEXTS: u32 = 8;

impl Runner {
    /// Opens a package or a flash image.
    ///
    /// # Errors
    /// Those of [`Session::open`].
    pub fn open(path: &Path, options: &SessionOptions) -> Result<Self> {
        let tables = Tables::open(path)?;
        let embedding = tables.embedding_settings().cloned().unwrap_or_default();
        let whole = tables.program()?.runs_texts_whole();
        let of_several = SessionOptions { sequences: TEXTS, ..options.clone() };
        let plan = match whole.then(|| tables.plan(&of_several)) {
            Some(Ok(plan)) => plan,
            Some(Err(Error::Budget { .. })) | None => tables.plan(options)?,
            Some(Err(error)) => return Err(error),
        };
        let session = Session::with_plan(tables, plan, options)?;
        let model = session.model();
        let engine = match whole {
            true => Held::Session(Box::new(session)),
            false => Held::Engine(OwnedEngine::new(session)?),
        };
        Ok(Self { path: path.to_owned(), model, engine, held: vec![], embedding })
    }

    /// The model.
    #[must_use]
    pub fn model(&self) -> &Arc<Model> {
        &self.model
    }

    /// Goes on behind the tokens of a prompt. What the engine holds of it already, as of a chat's earlier
    /// messages, is not run again.
    ///
    /// # Errors
    /// Those of [`generate_behind`].
    pub fn generate(
        &mut self,
        prompt: &[u32],
        how: Continuation<'_>,
        listener: Listener<'_>,
    ) -> Result<()> {
        let Held::Engine(engine) = &mut self.engine else { return Err(self.reads_whole()) };
        let Continuation { max_tokens, sampling, stop, cancel } = how;
        let request =
            Request { saved: None, prompt, max_tokens, sampling, mask: None, stop, cancel };
        let (model, held) = (&self.model, &mut self.held);
        let mut ids = prompt.to_vec();
        engine.with(|engine| {
            let listener = &mut |event: crate::event::Event<'_>| {
                if let crate::event::Event::Token { id, .. } = event {
                    ids.push(id);
                }
                listener(event)
            };
            let result = generate_behind(model, engine, held, request, listener);
            // A pass that failed or was cut off may have left states half changed.
            if result.is_err() {
                engine.reset();
            }
            ids.truncate(engine.position() as usize);
            *held = ids;
            result
        })
    }

    /// The tokens of the prompt that the model's chat template makes of messages, a list of maps with `role`
    /// and `content`.
    ///
    /// # Errors
    /// A model without a chat template, or one that refuses the messages.
    pub fn chat_prompt(&self, messages: Value, tools: Value, now: Moment) -> Result<Vec<u32>> {
        let path = self.path.display();
        let chat = if self.path.is_dir() { Package::open(&self.path)?.chat()? } else { None };
        let text = chat.as_ref().and_then(|chat| chat.template(None, !tools.is_none()));
        let (Some(chat), Some(text)) = (&chat, text) else {
            return Err(Error::Usage(format!(
                "{path}: the package has no chat template: generate from a prompt, or convert the model \
                 again if it has one"
            )));
        };
        let special = chat.special_tokens.iter();
        let prompt = Template::new("the model's chat template", text)?.render(&Conversation {
            messages,
            tools,
            add_generation_prompt: true,
            variables: special.map(|(name, text)| (name.clone(), text.as_str().into())).collect(),
            now,
        })?;
        // The template has put the tokens around the text that belong there.
        let options = EncodeOptions { add_special: false, parse_special: true };
        self.model.encode_with(&prompt, options)
    }

    /// A vector for each text, which begins with the model's prompt of this name; the ends of texts that are too
    /// long are left out.
    ///
    /// # Errors
    /// Those of [`embed()`].
    pub fn embed(&mut self, texts: &[&str], prompt: Option<&str>) -> Result<Vec<Vec<f32>>> {
        let prompt = self.embedding.prompt(prompt)?;
        let most = longest(self.model.plan(), self.embedding.max_tokens);
        let after = self.model.tokenizer().map_or(0, |tokenizer| tokenizer.template()[1]);
        // A control token that a text spells is text.
        let options = EncodeOptions { add_special: true, parse_special: false };
        let encode = |text: &&str| {
            let ids = self.model.encode_with(&format!("{prompt}{text}"), options)?;
            Ok(fitting(ids, after, most))
        };
        let texts = texts.iter().map(encode).collect::<Result<Vec<_>>>()?;
        let Held::Session(session) = &mut self.engine else {
            return Err(Error::Usage(format!(
                "{}: the model writes texts and makes no vectors of them: take an encoder",
                self.path.display()
            )));
        };
        embed(session, &self.embedding, &texts, &mut |_| {})
    }

    /// Logits behind each token of a text, `[tokens][vocabulary]`. They may be computed in one pass as many as
    /// [`SessionOptions::logit_columns`] say.
    ///
    /// # Errors
    /// A model that gives out no logits, tokens that are none, or a pass that fails.
    pub fn logits(&mut self, ids: &[u32]) -> Result<Vec<Vec<f32>>> {
        let mut rows = vec![];
        match &mut self.engine {
            Held::Session(session) => {
                let text = ids.iter().map(|id| (*id, 0)).collect::<Vec<_>>();
                let show: whole::Show<'_> = &mut |engine, port, _| {
                    let columns = (0..).map(|column| engine.output(port, column).to_vec());
                    rows.extend(columns.take_while(|row| !row.is_empty()));
                };
                whole::run(session, LOGITS, &[text], |text| text.iter().copied(), show)?;
            }
            Held::Engine(engine) => {
                let (failed, cancel) = (self.model.failure(), self.model.cancel());
                self.held.clear();
                engine.with(|engine| {
                    engine.reset();
                    let seen: crate::generate::Seen<'_> = &mut |engine, ids| {
                        rows.extend((0..ids.len()).map(|column| engine.logits(column).to_vec()));
                        Ok(())
                    };
                    forward(engine, ids, Wanted::All, cancel, &failed, seen)
                })?;
            }
        }
        Ok(rows)
    }

    /// Does something with the engine of a model that takes arrays.
    ///
    /// # Errors
    /// A model that takes tokens, and those of `action`.
    pub fn with_arrays<T>(
        &mut self,
        action: impl FnOnce(&mut Engine<'_>) -> Result<T>,
    ) -> Result<T> {
        match &mut self.engine {
            Held::Engine(engine) if self.model.program()?.header().vocab_size == 0 => {
                engine.with(action)
            }
            _ => Err(Error::Usage(format!(
                "{}: the model takes tokens, not arrays",
                self.path.display()
            ))),
        }
    }

    fn reads_whole(&self) -> Error {
        Error::Usage(format!(
            "{}: the model reads whole texts and writes none: embed them",
            self.path.display()
        ))
    }
}
