//! Which drafts `omex run` takes.

use super::{RunArgs, parse_ids};
use crate::bytes;
use omex::draft::{Drafter, Drafting, ModelDrafter, Recorded, check_vocabularies};
use omex::plan::Residency;
use omex::session::{Session, SessionOptions, Tables};
use omex::{Error, Result, input};
use std::path::{Path, PathBuf};

#[derive(clap::Args)]
pub(crate) struct DraftArgs {
    /// Guesses at the tokens that follow, of which one pass verifies several: from the text so far,
    /// or from a smaller model; the text is the same with any
    #[arg(
        long, value_name = "lookup|none|MODEL", default_value = "lookup", value_parser = parse_source
    )]
    draft: Source,
    /// Tokens guessed at once, at most [default: 8, or 16 where weights are read for every pass]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=64))]
    draft_width: Option<u32>,
    /// Guesses that are known beforehand, for measurements
    #[arg(long, value_name = "FILE", hide = true, conflicts_with = "draft")]
    draft_ids: Option<PathBuf>,
    /// The part of these that is right
    #[arg(long, value_name = "P", hide = true, default_value_t = 1.0, requires = "draft_ids")]
    #[arg(value_parser = parse_part)]
    draft_acceptance: f64,
}

#[derive(Clone, Debug, PartialEq)]
enum Source {
    None,
    LookUp,
    Model(PathBuf),
}

fn parse_source(text: &str) -> Result<Source, String> {
    Ok(match text {
        "none" => Source::None,
        "lookup" => Source::LookUp,
        path => Source::Model(path.into()),
    })
}

fn parse_part(text: &str) -> Result<f64, String> {
    let part = text.parse().ok().filter(|part| (0.0..=1.0).contains(part));
    part.ok_or_else(|| "expected a number from 0 to 1".to_owned())
}

/// A model, and one that drafts for it.
pub(crate) struct Models {
    pub(crate) model: Session,
    pub(crate) draft: Option<Session>,
}

impl DraftArgs {
    /// The model that drafts, if one does.
    pub(crate) fn model(&mut self) -> Option<&mut PathBuf> {
        match &mut self.draft {
            Source::Model(path) => Some(path),
            Source::None | Source::LookUp => None,
        }
    }

    /// Opens the draft's model beside the one that is at `path`; the memory is for both, and for
    /// texts of so many bytes.
    pub(crate) fn open(
        &self,
        asked: &RunArgs,
        path: &Path,
        tables: Tables,
        texts: u64,
    ) -> Result<Models> {
        let Source::Model(draft_path) = &self.draft else {
            return Ok(Models { model: self.open_model(asked, tables, texts)?, draft: None });
        };
        let small = RunArgs { kv: None, pages: None, ..asked.clone() };
        let draft = Session::open(draft_path, &small.options(1))?;
        let taken = draft.plan().total;
        let memory = asked.memory.map(|memory| memory.saturating_sub(taken));
        let rest = RunArgs { memory, ..asked.clone() };
        let of_both = |error| match error {
            Error::Budget { needed, .. } => Error::Usage(format!(
                "{}: drafts take {} of the memory, which leaves {} where {} are needed; raise \
                 --memory, or use --draft lookup",
                draft_path.display(),
                bytes::show(taken),
                bytes::show(memory.unwrap_or(0)),
                bytes::show(needed),
            )),
            error => error,
        };
        let model = self.open_model(&rest, tables, texts).map_err(of_both)?;
        check_vocabularies((&model, path), (&draft, draft_path))?;
        Ok(Models { model, draft: Some(draft) })
    }

    fn open_model(&self, asked: &RunArgs, tables: Tables, texts: u64) -> Result<Session> {
        let mut options = SessionOptions { texts, ..asked.options(1) };
        if self.draft != Source::None || self.draft_ids.is_some() {
            options = with_drafts(&tables, options, self.draft_width)?;
        }
        asked.open_with(tables, &options)
    }

    /// Drafts for a text that begins with `prompt` tokens.
    pub(crate) fn drafting<'m>(
        &self,
        model: &Session,
        draft: Option<&'m mut Session>,
        prompt: usize,
    ) -> Result<Drafting<'m>> {
        let drafter = match (&self.draft_ids, draft) {
            (Some(file), _) => Some(Drafter::Recorded(self.recorded(file, model, prompt)?)),
            (None, Some(draft)) => Some(Drafter::Model(Box::new(ModelDrafter::new(draft)?))),
            (None, None) => Some(Drafter::LookUp).filter(|_| self.draft == Source::LookUp),
        };
        Ok(Drafting::new(drafter, model.logit_columns().saturating_sub(1), model))
    }

    fn recorded(&self, file: &Path, model: &Session, prompt: usize) -> Result<Recorded> {
        let text = input::read_text(file, input::MAX_TEXT_BYTES)?;
        let vocabulary = model.program()?.header().vocab_size;
        let ids = parse_ids(&text)
            .map_err(|error| Error::Usage(format!("{}: {error}", file.display())))?;
        if let Some(id) = ids.iter().find(|id| **id >= vocabulary) {
            let message = format!("{}: token {id}: the model has {vocabulary}", file.display());
            return Err(Error::Usage(message));
        }
        Ok(Recorded::new(ids, prompt, self.draft_acceptance, vocabulary))
    }
}

/// The options with room for the logits of drafted tokens: of as many as leave the plan as it is,
/// since a draft must not cost the text its context or its precision.
pub(super) fn with_drafts(
    tables: &Tables,
    plain: SessionOptions,
    most: Option<u32>,
) -> Result<SessionOptions> {
    let plan = tables.plan(&plain)?;
    let default = if plan.residency == Residency::Mapped { 8 } else { 16 };
    let with = |width| SessionOptions { logit_columns: 1 + width, ..plain.clone() };
    let widths =
        std::iter::successors(Some(most.unwrap_or(default)), |w| Some(w / 2).filter(|w| *w > 0));
    let leaves_plan = |options: &SessionOptions| {
        tables.plan(options).is_ok_and(|with_drafts| with_drafts.agrees_with(&plan))
    };
    Ok(widths.map(with).find(leaves_plan).unwrap_or_else(|| plain.clone()))
}
