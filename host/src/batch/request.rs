//! What a line of prompts asks for.

use crate::chat::Moment;
use crate::format::Formatter;
use crate::mask::Mask;
use crate::package::{FormatterSettings, PreprocessorSettings};
use crate::preprocess::{Preprocessor, prompt_room};
use crate::printable::printable;
use crate::session::Model;
use crate::stop::{DecodedText, Stops};
use crate::tokenizer::TEXT_BYTES;
use crate::{Error, sampling, tokenizer};
use omex_core::pass::LAST_POSITION;
use omex_core::sample::Sampling;
use omex_core::token::{Decoder, EncodeOptions, Tokenizer};
use serde::de::{Deserialize, Deserializer, Error as _};
use std::sync::Arc;

/// Makes what a text keeps to, at its beginning.
pub type Rule<'r> = &'r dyn Fn() -> Box<dyn Mask>;

/// What lines that say nothing else ask for.
#[derive(Clone, Debug, PartialEq)]
pub struct Defaults {
    /// Tokens to generate at most.
    pub max_tokens: u32,
    /// How tokens are chosen.
    pub sampling: Sampling,
    /// Strings that end a text, besides the formatter's.
    pub stop: Vec<String>,
    /// What prompts go through, if anything.
    pub preprocessor: Option<PreprocessorSettings>,
    /// What becomes of texts, if anything.
    pub formatter: Option<FormatterSettings>,
    /// CRC-32C of what texts keep to, if they keep to anything.
    pub rule_crc32c: Option<u32>,
    /// What its templates take for the present, if not the time at which they run.
    pub date: Option<Moment>,
    /// Whether control tokens in a prompt are what they say.
    pub parse_special: bool,
    /// Whether a line whose text may grow past the context is refused.
    pub strict: bool,
}

/// A text to generate.
pub(super) struct LineRequest {
    pub(super) line: u64,
    /// A string or a number, which the output repeats.
    pub(super) id: Option<serde_json::Value>,
    pub(super) prompt: Vec<u32>,
    pub(super) max_tokens: u32,
    pub(super) sampling: Sampling,
    /// The text as its tokens come.
    pub(super) text: DecodedText,
    /// What the text keeps to.
    pub(super) mask: Option<Box<dyn Mask>>,
    /// What its author should know.
    pub(super) notes: [Option<String>; 2],
}

/// A line as it is written.
#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    #[serde(default, deserialize_with = "string_or_number")]
    id: Option<serde_json::Value>,
    prompt: Option<String>,
    ids: Option<Vec<u32>>,
    max_tokens: Option<u32>,
    #[serde(default, deserialize_with = "temperature")]
    temperature: Option<f32>,
    top_k: Option<u32>,
    #[serde(default, deserialize_with = "probability")]
    top_p: Option<f32>,
    #[serde(default, deserialize_with = "probability")]
    min_p: Option<f32>,
    #[serde(default, deserialize_with = "penalty")]
    repetition_penalty: Option<f32>,
    seed: Option<u64>,
    stop: Option<Vec<String>>,
    parse_special: Option<bool>,
}

fn string_or_number<'de, D: Deserializer<'de>>(
    from: D,
) -> Result<Option<serde_json::Value>, D::Error> {
    let id = Option::<serde_json::Value>::deserialize(from)?;
    match id.as_ref().is_none_or(is_repeatable) {
        true => Ok(id),
        false => Err(D::Error::custom("expected a string or a number that 64 bits hold")),
    }
}

/// Whether the output can say it as it is: larger numbers would become others.
fn is_repeatable(id: &serde_json::Value) -> bool {
    const EXACT: f64 = (1_u64 << f64::MANTISSA_DIGITS) as f64;
    let exact = |number: f64| number.abs() < EXACT;
    id.is_string() || id.is_i64() || id.is_u64() || id.as_f64().is_some_and(exact)
}

/// The id in a line that is wrong elsewhere, if it can be told.
pub(super) fn id_of(line: &[u8]) -> Option<serde_json::Value> {
    #[derive(serde::Deserialize)]
    struct Known {
        id: Option<serde_json::Value>,
    }
    let object = line.trim_ascii_start().first() == Some(&b'{');
    let known: Known = serde_json::from_slice(line).ok().filter(|_| object)?;
    known.id.filter(is_repeatable)
}

fn number<'de, D: Deserializer<'de>>(
    from: D,
    check: fn(f32) -> Result<f32, &'static str>,
) -> Result<Option<f32>, D::Error> {
    let number = Option::<f32>::deserialize(from)?;
    number.map(check).transpose().map_err(D::Error::custom)
}

fn temperature<'de, D: Deserializer<'de>>(from: D) -> Result<Option<f32>, D::Error> {
    number(from, sampling::temperature)
}

fn probability<'de, D: Deserializer<'de>>(from: D) -> Result<Option<f32>, D::Error> {
    number(from, sampling::probability)
}

fn penalty<'de, D: Deserializer<'de>>(from: D) -> Result<Option<f32>, D::Error> {
    number(from, sampling::penalty)
}

/// Reads lines for a model.
pub(super) struct Requests<'t> {
    pub(super) tokenizer: Option<Tokenizer<&'t [u8]>>,
    pub(super) model: Arc<Model>,
    pub(super) vocabulary: u32,
    pub(super) defaults: Defaults,
    pub(super) preprocessor: Option<Preprocessor>,
    pub(super) rule: Option<Rule<'t>>,
    /// Bytes that texts may take.
    pub(super) for_texts: u64,
    /// Bytes that a line may have.
    pub(super) longest: usize,
}

impl Requests<'_> {
    /// The request in a line, or what is wrong with it; texts take so many bytes already.
    pub(super) fn read(
        &mut self,
        number: u64,
        line: &[u8],
        held: u64,
    ) -> Result<LineRequest, String> {
        let line = parse(line, self.longest).map_err(printable)?;
        let Defaults { max_tokens, sampling, parse_special, strict, .. } = self.defaults;
        let max_tokens = line.max_tokens.unwrap_or(max_tokens);
        let parse_special = line.parse_special.unwrap_or(parse_special);
        let (prompt, note) = match (&line.prompt, line.ids) {
            (Some(text), None) => self.prepared(text, parse_special, (held, max_tokens))?,
            (None, Some(ids)) => (ids, None),
            (Some(_), Some(_)) => return Err("found prompt and ids, expected one of them".into()),
            (None, None) => return Err("expected prompt, or ids".into()),
        };
        if prompt.is_empty() {
            return Err("the prompt has no tokens, expected one at least".into());
        }
        if let Some(id) = prompt.iter().find(|id| **id >= self.vocabulary) {
            return Err(format!("found token {id}, expected ids below {}", self.vocabulary));
        }
        let room = self.model.longest_text(prompt.len()).map_err(|error| error.to_string())?;
        let room = u32::try_from(room - prompt.len()).unwrap_or(u32::MAX);
        let max_tokens = max_tokens.min(room);
        let length = prompt.len() as u64 + u64::from(max_tokens);
        if length > LAST_POSITION.into() {
            return Err(format!(
                "found {length} tokens with max_tokens, expected at most {LAST_POSITION}"
            ));
        }
        let forgetting = self.model.forgetting("prompt", prompt.len());
        let outgrows = || self.model.outgrows(prompt.len(), max_tokens as usize);
        if let (true, Some(error)) = (strict, forgetting.clone().or_else(outgrows)) {
            return Err(error);
        }
        let notes = [note, forgetting];
        let text = self.text_behind(&prompt, line.stop.as_deref())?;
        let sampling = Sampling {
            temperature: line.temperature.unwrap_or(sampling.temperature),
            top_k: line.top_k.unwrap_or(sampling.top_k),
            top_p: line.top_p.unwrap_or(sampling.top_p),
            min_p: line.min_p.unwrap_or(sampling.min_p),
            repetition_penalty: line.repetition_penalty.unwrap_or(sampling.repetition_penalty),
            seed: line.seed.unwrap_or(sampling.seed),
        };
        let (id, mask) = (line.id, self.rule.map(|rule| rule()));
        Ok(LineRequest { line: number, id, prompt, max_tokens, sampling, text, mask, notes })
    }

    /// As [`Self::encode`], of what a preprocessor makes of the text.
    fn prepared(
        &mut self,
        text: &str,
        parse_special: bool,
        (held, max_tokens): (u64, u32),
    ) -> Result<(Vec<u32>, Option<String>), String> {
        let Some(preprocessor) = self.preprocessor.take() else {
            return self.encode(text, parse_special, held);
        };
        let most = prompt_room(self.model.plan().context, max_tokens);
        let parts = preprocessor.run(text, most, &mut |part| {
            let encoded = self.encode(part, parse_special, held).map_err(Error::Usage);
            encoded.map(|(ids, _)| ids.len())
        });
        self.preprocessor = Some(preprocessor);
        match &parts.map_err(|error| error.to_string())?[..] {
            [part] => self.encode(part, parse_special, held),
            parts => Err(format!(
                "the preprocessor makes {} prompts of this one, expected one: give it in as many lines, or run it with \
                 omex run",
                parts.len()
            )),
        }
    }

    /// The tokens of a prompt, and what its author should know.
    fn encode(
        &mut self,
        text: &str,
        parse_special: bool,
        held: u64,
    ) -> Result<(Vec<u32>, Option<String>), String> {
        let Some(tokenizer) = &mut self.tokenizer else {
            return Err("the model has no tokenizer, expected ids instead of a prompt".into());
        };
        let options = EncodeOptions { add_special: true, parse_special };
        let left = self.for_texts.saturating_sub(held.saturating_sub(TEXT_BYTES));
        let ids =
            tokenizer::encode_within(tokenizer, text, options, left).map_err(|e| e.to_string())?;
        let note = tokenizer::doubled(tokenizer, &ids);
        Ok((ids, note))
    }

    /// The text that follows a prompt, up to one of these strings.
    fn text_behind(
        &mut self,
        prompt: &[u32],
        stop: Option<&[String]>,
    ) -> Result<DecodedText, String> {
        let own = stop.unwrap_or(&self.defaults.stop);
        if own.iter().any(String::is_empty) {
            return Err("stop: found \"\", expected some text".into());
        }
        let of_formatter = self.defaults.formatter.iter().flat_map(|formatter| &formatter.stop);
        let all: Vec<_> = of_formatter.chain(own).cloned().collect();
        let stops = Stops::new(&all, self.tokenizer.as_mut());
        let stops = stops.map_err(|error| error.to_string())?;
        let after = self.tokenizer.as_mut().map(|it| it.decoder_after(prompt, false));
        let decoder = after.unwrap_or(Ok(Decoder::new(false)));
        let decoder = decoder.map_err(|e| format!("the prompt can't be decoded: {e}"))?;
        Ok(DecodedText::behind(decoder, stops))
    }

    /// What becomes of a text.
    pub(super) fn formatted(&self, text: String) -> Result<String, String> {
        let Some(formatter) = &self.defaults.formatter else { return Ok(text) };
        Formatter::whole(formatter, &text).map_err(|error| error.to_string())
    }

    /// Adds a token to a request's text; empty without a tokenizer.
    pub(super) fn push(&mut self, text: &mut DecodedText, token: u32) -> Result<(), String> {
        let Some(tokenizer) = &mut self.tokenizer else { return Ok(()) };
        let pushed = text.push(tokenizer, token).map(drop);
        pushed.map_err(|error| format!("token {token} can't be decoded: {error}"))
    }
}

/// Reads the JSON of a line; an error names the field and the column.
fn parse(line: &[u8], longest: usize) -> Result<Line, String> {
    if line.len() > longest {
        return Err(format!("expected a line of at most {longest} bytes"));
    }
    // An array would be taken for the fields in order.
    if line.trim_ascii_start().first() != Some(&b'{') {
        return Err("expected a JSON object".into());
    }
    let mut json = serde_json::Deserializer::from_slice(line);
    let mut track = serde_path_to_error::Track::new();
    let tracked = serde_path_to_error::Deserializer::new(&mut json, &mut track);
    let parsed = Line::deserialize(tracked);
    parsed.and_then(|line| json.end().map(|()| line)).map_err(|error| {
        let (message, column) = (error.to_string(), error.column());
        let place = format!(" at line {} column {column}", error.line());
        let message = message.strip_suffix(&place).unwrap_or(&message);
        match track.path().to_string().as_str() {
            "." => format!("column {column}: {message}"),
            field => format!("{field} (column {column}): {message}"),
        }
    })
}
