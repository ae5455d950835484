//! `omex embed`.

use super::chat::prompt::today;
use super::preprocess::{ChunkArgs, PreprocessArgs};
use super::texts::{self, DataArgs, Room};
use super::{RunArgs, affordable, parse_ids, text};
use crate::{output, signals};
use omex::Result;
use omex::embed::{HIDDEN, combined, embed, fitting};
use omex::npy::{Array, Element};
use omex::package::EmbeddingSettings;
use omex::session::{SessionOptions, Tables};
use omex::whole::longest;
use omex_core::token::EncodeOptions;
use serde::Serialize;
use std::path::PathBuf;

/// Turn texts into vectors, to compare what they mean.
///
/// Pooling, normalization, prompts and the most tokens of a text are those that the model was
/// converted with; without them, a text is the mean of its tokens. The vector of a text that a
/// preprocessor cuts is the mean of its parts', by their tokens.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  omex embed minilm.omex \"The cat sits outside\" \"A feline rests outdoors\" --json
  omex embed minilm.omex --data sentences.txt -o vectors.npy
  omex embed minilm.omex --data articles.jsonl --chunk paragraphs -o vectors.npy
  omex embed e5.omex --prompt query --data questions.jsonl -o questions.npy")]
pub(crate) struct Args {
    /// A package of an encoder, or its flash image
    pub(crate) model: PathBuf,
    /// Texts
    #[arg(conflicts_with = "data")]
    texts: Vec<String>,
    #[command(flatten)]
    data: DataArgs,
    /// Ids of the tokens of one text, as they are
    #[arg(long, value_name = "1,2,3", value_parser = parse_ids, conflicts_with_all = ["texts", "data", "preprocessor", "chunk"])]
    ids: Option<::std::vec::Vec<u32>>,
    /// What kind of texts they are, such as query: it decides what they begin with
    #[arg(long, value_name = "NAME")]
    prompt: Option<String>,
    /// Write the vectors into a file in NumPy's format, [texts, width]
    #[arg(short, long, value_name = "OUT.npy")]
    output: Option<PathBuf>,
    /// Texts in one pass, at most
    #[arg(long, value_name = "N", default_value_t = 8)]
    #[arg(value_parser = clap::value_parser!(u32).range(1..=256))]
    parallel: u32,
    #[command(flatten)]
    preprocess: PreprocessArgs,
    #[command(flatten)]
    chunk: ChunkArgs,
    #[command(flatten)]
    run: RunArgs,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Output {
    embeddings: Vec<Vec<f32>>,
}

pub(crate) fn main(args: &Args) -> Result<()> {
    let tables = Tables::open(&args.model)?;
    let settings = tables.embedding_settings().cloned().unwrap_or_default();
    let Texts { parts, counts, bytes } = args.tokens(&tables, &settings)?;
    // The vectors are put together once more, of parts or for a file.
    let width = hidden_width(&tables)? * size_of::<f32>() as u64 + 48;
    let texts = bytes + 2 * width * parts.len() as u64;
    let options = affordable(&tables, args.parallel, |sequences| SessionOptions {
        sequences,
        texts,
        ..args.run.options(1)
    })?;
    let after = tables.tokenizer().map_or(0, |tokenizer| tokenizer.template()[1]);
    let mut session = args.run.open_with(tables, &options)?;
    let most = longest(session.plan(), settings.max_tokens);
    let cut = parts.iter().filter(|part| part.len() > most).count();
    if cut > 0 {
        args.run.tell(&format!(
            "{cut} texts have more than {most} tokens, and their ends are left out: --chunk paragraphs takes all of \
             them, part by part"
        ))?;
    }
    let parts: Vec<_> = parts.into_iter().map(|part| fitting(part, after, most)).collect();
    let progress = output::progress("embedding", parts.len() as u64, false);
    let embedded =
        embed(&mut session, &settings, &parts, &mut |done| progress.set_position(done as u64));
    progress.finish_and_clear();
    let mut vectors = embedded?.into_iter().zip(parts.iter().map(Vec::len));
    let embeddings = counts.into_iter().map(|count| vectors.by_ref().take(count).collect());
    let embeddings: Vec<_> = embeddings.map(|parts| combined(&settings, parts)).collect();
    if let Some(path) = &args.output {
        array(&embeddings).write(path)?;
    }
    if args.json {
        return output::json(&Output { embeddings });
    }
    match args.output {
        Some(_) => Ok(()),
        None => embeddings.iter().try_for_each(|vector| output::text(&shown(vector))),
    }
}

/// What is to become vectors.
struct Texts {
    /// Tokens of all parts of the texts.
    parts: Vec<Vec<u32>>,
    /// How many parts each text has.
    counts: Vec<usize>,
    /// What they take.
    bytes: u64,
}

fn hidden_width(tables: &Tables) -> Result<u64> {
    let program = tables.program()?;
    let hidden = program.outputs().find(|port| port.name == HIDDEN);
    Ok(hidden.map_or(0, |port| port.value.width.into()))
}

impl Args {
    /// The texts' tokens, part by part.
    fn tokens(&self, tables: &Tables, settings: &EmbeddingSettings) -> Result<Texts> {
        if let Some(ids) = &self.ids {
            return Ok(Texts { parts: vec![ids.clone()], counts: vec![1], bytes: 0 });
        }
        let prompt = settings.prompt(self.prompt.as_deref())?;
        let longest_file = text::longest(self.run.memory);
        let texts = self.data.or(&self.texts, "texts", longest_file)?;
        let (parts, counts) = self.parts(tables, settings, prompt, &texts)?;
        let bytes = texts::planned(&texts, &parts, 0);
        Ok(Texts { parts, counts, bytes })
    }

    fn parts(
        &self,
        tables: &Tables,
        settings: &EmbeddingSettings,
        prompt: &str,
        texts: &[String],
    ) -> Result<(Vec<Vec<u32>>, Vec<usize>)> {
        // A control token that a text spells is text.
        let options = EncodeOptions { add_special: true, parse_special: false };
        let memory = self.run.memory.unwrap_or(u64::MAX);
        let encode = |text: &str| tables.encode(text, options, memory);
        let preprocessor =
            self.preprocess.open_with(&self.chunk, &self.model, self.run.memory, today())?;
        let most = match &preprocessor {
            Some(preprocessor) if preprocessor.cuts() => {
                longest(&tables.plan(&self.run.options(1))?, settings.max_tokens)
            }
            _ => usize::MAX,
        };
        let count = &mut |part: &str| {
            signals::cancel().check()?;
            Ok(encode(&format!("{prompt}{part}"))?.len())
        };
        let mut room = Room::new(tables, &self.run.options(1))?;
        room.take(texts::held(texts, &[], 0), [0, texts.len()])?;
        let (mut parts, mut counts) = (vec![], vec![]);
        for (place, text) in texts.iter().enumerate() {
            signals::cancel().check()?;
            // Each part of a text that is cut begins with the prompt; another is prepared with it.
            let found = match &preprocessor {
                Some(preprocessor) if preprocessor.cuts() => {
                    let found = preprocessor.run(text, most, count)?;
                    found.into_iter().map(|part| format!("{prompt}{part}")).collect()
                }
                Some(preprocessor) => vec![preprocessor.whole(&format!("{prompt}{text}"))?],
                None => vec![format!("{prompt}{text}")],
            };
            counts.push(found.len());
            for part in found {
                let ids = [encode(&part)?];
                room.take(texts::held(&[], &ids, 0), [place + 1, texts.len()])?;
                parts.extend(ids);
            }
        }
        Ok((parts, counts))
    }
}

fn array(vectors: &[Vec<f32>]) -> Array {
    let width = vectors.first().map_or(0, Vec::len);
    let bytes = vectors.iter().flatten().flat_map(|x| x.to_le_bytes()).collect();
    Array { element: Element::F32, shape: vec![vectors.len(), width], bytes }
}

/// A vector's first numbers.
fn shown(vector: &[f32]) -> String {
    let first: Vec<_> = vector.iter().take(6).map(|x| format!("{x:.4}")).collect();
    let more = if vector.len() > first.len() { ", ..." } else { "" };
    format!("[{}{more}] {} numbers\n", first.join(", "), vector.len())
}
