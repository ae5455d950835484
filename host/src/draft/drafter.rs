//! Where drafts come from.

use crate::session::Session;
use crate::{Error, Result};
use omex_core::draft::{Drafted, look_up};
use omex_core::engine::Engine;
use omex_core::error::RunError;
use omex_core::pass::Input;
use omex_core::sample::greedy;
use std::path::Path;

/// Tokens of a text, latest first, that prompt look-up searches.
const SEARCHED: usize = 4096;

/// Guesses how a text goes on.
pub enum Drafter<'d> {
    /// It goes on as it did before.
    LookUp,
    /// A smaller model's most likely tokens.
    Model(Box<ModelDrafter<'d>>),
    /// A text that is known beforehand, for measurements.
    Recorded(Recorded),
}

impl Drafter<'_> {
    /// At most `most` guesses at what follows `text`, prompt included.
    ///
    /// # Errors
    /// Those of a draft model's passes.
    pub fn propose(&mut self, text: &[u32], most: usize, draft: &mut Vec<Drafted>) -> Result<()> {
        draft.clear();
        match self {
            Self::LookUp => {
                draft.resize(most, Drafted::default());
                let searched = &text[text.len().saturating_sub(SEARCHED)..];
                let found = look_up(searched, draft);
                draft.truncate(found);
            }
            Self::Model(model) => model.propose(text, most, draft)?,
            Self::Recorded(recorded) => draft.extend(recorded.propose(text.len(), most)),
        }
        Ok(())
    }

    /// Tokens of `text` that have to be run before the next one can be guessed.
    #[must_use]
    pub fn behind(&self, text: &[u32]) -> usize {
        match self {
            Self::Model(model) => text.len().saturating_sub(model.held.len() + 1),
            Self::LookUp | Self::Recorded(_) => 0,
        }
    }
}

/// A branch of these tokens.
fn branch(tokens: impl Iterator<Item = u32>) -> impl Iterator<Item = Drafted> {
    tokens.zip(1..).map(|(token, depth)| Drafted { token, depth })
}

/// A model that drafts for a larger one.
pub struct ModelDrafter<'d> {
    engine: Engine<'d>,
    failed: Box<dyn Fn(RunError) -> Error>,
    /// The text that its cache holds.
    held: Vec<u32>,
}

impl<'d> ModelDrafter<'d> {
    /// A drafter that runs the model of a session.
    ///
    /// # Errors
    /// None once the session is open.
    pub fn new(session: &'d mut Session) -> Result<Self> {
        let failed = Box::new(session.failure());
        Ok(Self { engine: session.engine()?, failed, held: vec![] })
    }

    fn propose(&mut self, text: &[u32], most: usize, draft: &mut Vec<Drafted>) -> Result<()> {
        // A cache that is full can't take a guess back.
        if text.len() + most > self.engine.plan().kv_capacity as usize {
            return Ok(());
        }
        let same = self.held.iter().zip(text).take_while(|(a, b)| a == b).count();
        self.held.truncate(same.min(text.len().saturating_sub(1)));
        let columns = self.engine.plan().columns as usize;
        while self.held.len() < text.len() {
            let rest = &text[self.held.len()..];
            self.run(&rest[..rest.len().min(columns)])?;
        }
        for depth in 1..=most as u32 {
            let token = greedy(self.engine.logits(0));
            draft.push(Drafted { token, depth });
            if depth < most as u32 {
                self.run(&[token])?;
            }
        }
        Ok(())
    }

    /// Runs tokens behind the text that is held.
    fn run(&mut self, tokens: &[u32]) -> Result<()> {
        let first = self.held.len() as u32;
        let inputs = tokens.iter().zip(first..).map(|(token, position)| Input {
            token: *token,
            sequence: 0,
            position,
            logits: (position - first) as usize + 1 == tokens.len(),
            adapter: 0,
            segment: 0,
        });
        self.engine.pass(inputs).map_err(&self.failed)?;
        self.held.extend(tokens);
        Ok(())
    }
}

/// Refuses a draft model whose tokens mean something else.
///
/// # Errors
/// Vocabularies of other sizes, or other tokenizers.
pub fn check_vocabularies(
    (model, path): (&Session, &Path),
    (draft, draft_path): (&Session, &Path),
) -> Result<()> {
    let sizes = (model.program()?.header().vocab_size, draft.program()?.header().vocab_size);
    let same = match (model.tokenizer_tables(), draft.tokenizer_tables()) {
        (Some(of_model), Some(of_draft)) => of_model == of_draft,
        _ => true,
    };
    if sizes.0 == sizes.1 && same {
        return Ok(());
    }
    let what = if sizes.0 == sizes.1 {
        "another tokenizer".to_owned()
    } else {
        format!("a vocabulary of {} tokens, expected {}", sizes.1, sizes.0)
    };
    let (path, draft_path) = (path.display(), draft_path.display());
    let message = format!(
        "{draft_path}: {what}: a draft model needs the tokenizer of {path}; give --draft another \
         model, or lookup"
    );
    Err(Error::Usage(message))
}

/// A text that is known beforehand, of which some tokens are wrong.
pub struct Recorded {
    ids: Vec<u32>,
    /// Tokens of the prompt.
    prompt: usize,
    /// The part of the guesses that is right.
    acceptance: f64,
    vocabulary: u32,
}

impl Recorded {
    /// What follows a prompt of `prompt` tokens.
    #[must_use]
    pub fn new(ids: Vec<u32>, prompt: usize, acceptance: f64, vocabulary: u32) -> Self {
        Self { ids, prompt, acceptance, vocabulary }
    }

    fn propose(&self, length: usize, most: usize) -> impl Iterator<Item = Drafted> {
        let known = length.saturating_sub(self.prompt);
        branch(self.ids.iter().enumerate().skip(known).take(most).map(|(place, id)| {
            let wrong = (id + 1) % self.vocabulary.max(1);
            if self.is_right(place as u64) { *id } else { wrong }
        }))
    }

    /// Of each [`SHUFFLED`] places, as many are right as the acceptance says: short texts have it
    /// too.
    fn is_right(&self, place: u64) -> bool {
        let first = place - place % SHUFFLED;
        let rank = (first..first + SHUFFLED).filter(|p| unit(*p) < unit(place)).count();
        (rank as f64) < self.acceptance * SHUFFLED as f64
    }
}

/// Places among which right and wrong guesses are shuffled.
const SHUFFLED: u64 = 20;

/// A number in [0, 1) for each place: the output function of SplitMix64.
fn unit(place: u64) -> f64 {
    let z = (place + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    ((z ^ z >> 31) >> 11) as f64 / (1u64 << 53) as f64
}
