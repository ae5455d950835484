//! `omex rerank`.

use super::texts::{self, DataArgs, Room};
use super::{RunArgs, affordable, text};
use crate::{output, signals};
use omex::package::ScoreActivation;
use omex::rerank::{pair, scores};
use omex::session::{SessionOptions, Tables};
use omex::whole::{Placed, longest};
use omex::{Error, Result};
use omex_core::token::EncodeOptions;
use serde::Serialize;
use std::path::PathBuf;

/// Say how well documents answer a query, the best first.
///
/// The model is a cross-encoder: it reads the query together with each document. How it reads both, and
/// what becomes of its scores, is what it was converted with.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  omex rerank minilm-reranker.omex \"who wrote Emma?\" \"Jane Austen did.\" \"It rains.\"
  omex rerank bge-reranker.omex \"who wrote Emma?\" --data passages.jsonl --top 3 --json
  jq -c .body posts.json | omex rerank bge-reranker.omex \"a trip\" --data - --jsonl
  omex rerank nli.omex \"A man sleeps.\" \"Somebody rests.\" --json   (all scores of a model with several)")]
pub(crate) struct Args {
    /// A package of a model that was trained to compare two texts
    pub(crate) model: PathBuf,
    /// What is asked
    query: String,
    /// What may answer it
    #[arg(conflicts_with = "data")]
    documents: Vec<String>,
    #[command(flatten)]
    data: DataArgs,
    /// Give out the scores as the model makes them, without the sigmoid
    #[arg(long)]
    logits: bool,
    /// Give out only the best
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    top: Option<u32>,
    /// Documents in one pass, at most
    #[arg(long, value_name = "N", default_value_t = 8)]
    #[arg(value_parser = clap::value_parser!(u32).range(1..=256))]
    parallel: u32,
    #[command(flatten)]
    run: RunArgs,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Output {
    results: Vec<Ranked>,
}

/// A document by its number, and its scores: one by which documents are sorted, or several.
#[derive(Serialize)]
struct Ranked {
    index: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    relevance_score: Option<f32>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    scores: Vec<f32>,
}

pub(crate) fn main(args: &Args) -> Result<()> {
    let tables = Tables::open(&args.model)?;
    let settings = tables.rerank_settings().cloned().ok_or_else(|| {
        let message = "the package does not say how two texts are compared: omex rerank takes a model \
                       for sequence classification that was converted with its tokenizer.json";
        Error::Usage(format!("{}: {message}", args.model.display()))
    })?;
    let longest_file = text::longest(args.run.memory);
    let documents = args.data.or(&args.documents, "documents", longest_file)?;
    // A control token that a text spells is text.
    let options = EncodeOptions { add_special: false, parse_special: false };
    let most = args.run.memory.unwrap_or(u64::MAX);
    let query = tables.encode(&args.query, options, most)?;
    // A pair has both texts' tokens, each with its segment; then there are scores, and ranks.
    let of_query = (query.len() * size_of::<Placed>() + 4 * 64) as u64;
    let mut room = Room::new(&tables, &args.run.options(1))?;
    room.take(texts::held(&documents, &[], 0), [0, documents.len()])?;
    let mut encoded = vec![];
    for (place, document) in documents.iter().enumerate() {
        signals::cancel().check()?;
        let ids = [tables.encode(document, options, most)?];
        let bytes = texts::held(&[], &ids, size_of::<Placed>()) + of_query;
        room.take(bytes, [place + 1, documents.len()])?;
        encoded.extend(ids);
    }
    let texts = texts::planned(&documents, &encoded, size_of::<Placed>())
        + of_query * documents.len() as u64;
    let options = affordable(&tables, args.parallel, |sequences| SessionOptions {
        sequences,
        texts,
        ..args.run.options(sequences)
    })?;
    let mut session = args.run.open_with(tables, &options)?;
    let most = longest(session.plan(), settings.max_tokens);
    let pairs = encoded.iter().map(|document| pair(&settings.template, &query, document, most));
    let (pairs, left_out): (Vec<_>, Vec<_>) =
        pairs.collect::<Result<Vec<_>>>()?.into_iter().unzip();
    let cut = left_out.iter().filter(|count| **count > 0).count();
    if cut > 0 {
        args.run.tell(&format!(
            "{cut} documents have more than {most} tokens with the query, and the ends of the longer \
             texts are left out"
        ))?;
    }
    let progress = output::progress("comparing", pairs.len() as u64, false);
    let found = scores(&mut session, &pairs, &mut |done| progress.set_position(done as u64));
    progress.finish_and_clear();
    let activation = if args.logits { ScoreActivation::Identity } else { settings.activation };
    let results = args.ranked(found?, activation)?;
    if args.json {
        return output::json(&Output { results });
    }
    results.iter().try_for_each(|result| output::text(&shown(result, &documents[result.index])))
}

impl Args {
    /// The documents, the best first; where the model has several scores, in their own order.
    fn ranked(&self, found: Vec<Vec<f32>>, activation: ScoreActivation) -> Result<Vec<Ranked>> {
        let several = found.iter().any(|scores| scores.len() > 1);
        if several && self.top.is_some() {
            let message = "--top: the model gives each document several scores, and no order";
            return Err(Error::Usage(message.to_owned()));
        }
        let ranked = |(index, scores): (usize, Vec<f32>)| {
            let scores: Vec<_> = scores.into_iter().map(|score| activation.of(score)).collect();
            let relevance_score = scores.first().copied().filter(|_| !several);
            let scores = if several { scores } else { vec![] };
            Ranked { index, relevance_score, scores }
        };
        let mut results: Vec<_> = found.into_iter().enumerate().map(ranked).collect();
        if !several {
            let score = |result: &Ranked| result.relevance_score.unwrap_or(f32::NEG_INFINITY);
            results.sort_by(|a, b| score(b).total_cmp(&score(a)));
        }
        results.truncate(self.top.map_or(usize::MAX, |top| top as usize));
        Ok(results)
    }
}

/// A document's scores, and how it begins.
fn shown(result: &Ranked, document: &str) -> String {
    let scores = result.relevance_score.iter().chain(&result.scores);
    let scores: Vec<_> = scores.map(|score| format!("{score:.4}")).collect();
    let begins: String = document.chars().take(60).collect();
    let more = if begins.len() < document.len() { "..." } else { "" };
    format!("{}  {}: {begins}{more}\n", scores.join(" "), result.index)
}
