//! Texts that keep to a JSON schema, a regular expression or a grammar, by llguidance: before each token
//! is chosen, what may not come next is masked out.

use crate::mask::Mask;
use crate::session::Tables;
use crate::{Error, Result, input};
use llguidance::api::TopLevelGrammar;
use llguidance::{Matcher, ParserFactory};
use omex_core::draft::Drafted;
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use toktrie::{ApproximateTokEnv, InferenceCapabilities, TokEnv, TokRxInfo, TokTrie};

/// The longest schema or grammar.
const MAX_BYTES: u64 = 4 << 20;

/// What a text keeps to.
#[derive(Clone, Debug)]
pub enum Rule {
    /// A file with a JSON schema.
    JsonSchema(PathBuf),
    /// A regular expression for all of the text.
    Regex(String),
    /// A file with a grammar in llguidance's dialect of Lark.
    Grammar(PathBuf),
}

/// A text under way that keeps to a rule.
pub struct Constraint {
    matcher: Matcher,
    name: PathBuf,
    /// CRC-32C of the rule as it is written.
    crc32c: u32,
    /// Bytes of the tables of tokens, and of a parser.
    bytes: u64,
    /// The tokens with which the model ends a text.
    stops: Vec<u32>,
    /// Of a draft, the tokens on the way to the one that is looked at.
    way: Vec<u32>,
}

impl Rule {
    /// What it is called in messages.
    fn name(&self) -> &Path {
        match self {
            Self::JsonSchema(path) | Self::Grammar(path) => path,
            Self::Regex(_) => Path::new("--regex"),
        }
    }

    /// The rule as it is written.
    fn text(&self) -> Result<String> {
        match self {
            Self::Regex(regex) => Ok(regex.clone()),
            Self::Grammar(path) | Self::JsonSchema(path) => input::read_text(path, MAX_BYTES),
        }
    }

    fn grammar(&self, text: &str) -> Result<TopLevelGrammar> {
        Ok(match self {
            Self::Regex(_) => TopLevelGrammar::from_regex(text),
            Self::Grammar(_) => TopLevelGrammar::from_lark(text.to_owned()),
            Self::JsonSchema(path) => {
                TopLevelGrammar::from_json_schema(on_one_line(schema(path, text)?))
            }
        })
    }
}

fn schema(path: &Path, text: &str) -> Result<Value> {
    serde_json::from_str(text).map_err(|error| {
        let place = format!("line {}, column {}", error.line(), error.column());
        let remedy = "correct it there";
        Error::malformed(path, place, error.to_string(), "a JSON schema", remedy)
    })
}

/// A schema that says how values are written: as Python writes them, unless it says so itself. With white
/// space anywhere, small models write little else.
fn on_one_line(mut schema: Value) -> Value {
    if let Some(schema) = schema.as_object_mut() {
        let way = serde_json::json!({
            "whitespace_flexible": false, "item_separator": ", ", "key_separator": ": ",
        });
        schema.entry("x-guidance").or_insert(way);
    }
    schema
}

impl Constraint {
    /// For a text of a model, from its beginning.
    ///
    /// # Errors
    /// A model without a tokenizer; a rule that can't be read, is none, or that nothing keeps to.
    pub fn new(rule: &Rule, tables: &Tables) -> Result<Self> {
        let text = rule.text()?;
        let grammar = rule.grammar(&text)?;
        let vocabulary = Vocabulary::of(tables)?;
        let (bytes, stops) = (vocabulary.bytes(), vocabulary.stops.clone());
        let vocabulary = vocabulary.build();
        let failed = |error: anyhow::Error| rule_error(rule.name(), "the rule", &error.to_string());
        let mut factory = ParserFactory::new(&vocabulary, InferenceCapabilities::default(), &[])
            .map_err(failed)?;
        factory.quiet().limits_mut().verbose_errors = false;
        let compiled = |grammar| factory.create_parser(grammar);
        let parser = compiled(grammar).map_err(|error| match rule {
            Rule::JsonSchema(path) => match schema(path, &text) {
                Ok(schema) => wrong_schema(path, &schema, &error, &|part| {
                    compiled(TopLevelGrammar::from_json_schema(part)).err()
                }),
                Err(error) => error,
            },
            _ => failed(error),
        })?;
        let matcher = Matcher::new(Ok(parser));
        let (name, crc32c) = (rule.name().to_owned(), crc32c::crc32c(text.as_bytes()));
        let constraint = Self { matcher, name, crc32c, bytes, stops, way: vec![] };
        constraint.check()?;
        Ok(constraint)
    }

    /// The same for another text, which is where this one is.
    #[must_use]
    pub fn fork(&self) -> Self {
        let Self { name, crc32c, bytes, stops, .. } = self;
        let (name, stops, way) = (name.clone(), stops.clone(), vec![]);
        Self {
            matcher: self.matcher.deep_clone(),
            name,
            crc32c: *crc32c,
            bytes: *bytes,
            stops,
            way,
        }
    }

    /// CRC-32C of the rule as it is written.
    #[must_use]
    pub fn crc32c(&self) -> u32 {
        self.crc32c
    }

    /// Bytes that a [`Self::fork`] takes, if the parser is of usual size.
    #[must_use]
    pub fn fork_bytes(&self) -> u64 {
        PARSER_BYTES as u64
    }

    /// Bytes that the tables take, with a parser of usual size.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Begins another text.
    ///
    /// # Errors
    /// After an error.
    pub fn restart(&mut self) -> Result<()> {
        self.matcher.reset().map_err(|error| self.failed(&error))
    }

    /// Whether the text so far keeps to the rule as a whole.
    #[must_use]
    pub fn is_complete(&mut self) -> bool {
        self.matcher.is_accepting().unwrap_or(false) || self.has_ended()
    }

    fn check(&self) -> Result<()> {
        match self.matcher.get_error() {
            Some(error) => Err(rule_error(&self.name, "the rule", &error)),
            None => Ok(()),
        }
    }

    fn failed(&self, error: &anyhow::Error) -> Error {
        rule_error(&self.name, "the text", &error.to_string())
    }
}

fn rule_error(name: &Path, field: &str, error: &str) -> Error {
    // Drawings of where it is in the text are for terminals alone.
    let is_said = |line: &&str| !line.is_empty() && *line != "^" && !line.contains(" | ");
    let error = error.split("\n<").next().unwrap_or(error);
    let said: Vec<_> = error.lines().map(str::trim).filter(is_said).collect();
    let expected = "what a text can keep to";
    Error::malformed(name, field, said.join("; "), expected, "correct it, or simplify it")
}

/// Says where in a schema what is wrong with it is: the smallest part that is wrong alone.
fn wrong_schema(
    path: &Path,
    schema: &Value,
    error: &anyhow::Error,
    wrong: &dyn Fn(Value) -> Option<anyhow::Error>,
) -> Error {
    let (mut place, mut part, mut said) = ("#".to_owned(), schema.clone(), error.to_string());
    while let Some((name, inner, error)) = parts(&part).into_iter().find_map(|(name, inner)| {
        // References lead from the root to what is defined there.
        let mut alone = inner.clone();
        for definitions in ["$defs", "definitions"] {
            if let (Some(object), Some(found)) = (alone.as_object_mut(), schema.get(definitions)) {
                object.entry(definitions).or_insert_with(|| found.clone());
            }
        }
        wrong(alone).map(|error| (name, inner, error))
    }) {
        place.push_str(&format!("/{name}"));
        (part, said) = (inner, error.to_string());
    }
    rule_error(path, &place, &said)
}

/// The schemas in a schema, by their places in it.
fn parts(schema: &Value) -> Vec<(String, Value)> {
    let mut parts = vec![];
    for key in ["properties", "patternProperties", "$defs", "definitions"] {
        let named = schema.get(key).and_then(Value::as_object).into_iter().flatten();
        parts.extend(named.map(|(name, part)| (format!("{key}/{name}"), part.clone())));
    }
    for key in ["anyOf", "oneOf", "allOf", "prefixItems", "items"] {
        let listed = schema.get(key).and_then(Value::as_array).into_iter().flatten();
        parts.extend(listed.enumerate().map(|(i, part)| (format!("{key}/{i}"), part.clone())));
    }
    for key in ["items", "additionalProperties"] {
        let part = schema.get(key).filter(|part| part.is_object());
        parts.extend(part.map(|part| (key.to_owned(), part.clone())));
    }
    parts
}

impl Mask for Constraint {
    fn apply(&mut self, logits: &mut [f32]) -> Result<bool> {
        if self.has_ended() {
            return Ok(false);
        }
        let mut allowed = self.matcher.compute_mask().map_err(|error| self.failed(&error))?;
        if allowed.is_allowed(logits.len() as u32) {
            self.stops.iter().for_each(|stop| allowed.allow_token(*stop));
        }
        let mut any = false;
        for (token, logit) in logits.iter_mut().enumerate() {
            if allowed.is_allowed(token as u32) {
                any = true;
            } else {
                *logit = f32::NEG_INFINITY;
            }
        }
        Ok(any)
    }

    fn accept(&mut self, token: u32) -> Result<()> {
        self.matcher.consume_token(token).map_err(|error| self.failed(&error))
    }

    fn has_ended(&self) -> bool {
        self.matcher.is_stopped()
    }

    fn prune(&mut self, draft: &mut Vec<Drafted>) -> Result<()> {
        let (mut kept, mut last) = (vec![], 0);
        for drafted in draft.iter() {
            // What stands behind a guess that was removed goes with it.
            if drafted.depth as usize > last + 1 {
                continue;
            }
            self.way.truncate(drafted.depth.saturating_sub(1) as usize);
            self.way.push(drafted.token);
            let valid = self.matcher.validate_tokens(&self.way).map_err(|e| self.failed(&e))?;
            last = valid.min(self.way.len());
            if valid == self.way.len() {
                kept.push(*drafted);
            }
        }
        self.way.clear();
        *draft = kept;
        Ok(())
    }
}

/// The tokens' bytes, as llguidance wants them.
struct Vocabulary {
    words: Vec<Vec<u8>>,
    stops: Vec<u32>,
}

impl Vocabulary {
    fn of(tables: &Tables) -> Result<Self> {
        let mut tokenizer = tables.tokenizer()?;
        let header = tables.program()?;
        let count = header.header().vocab_size;
        let stops = header.stop_tokens().filter(|stop| *stop < count).collect();
        let mut words = vec![];
        for id in 0..count {
            let mut word = vec![];
            let special = tokenizer.piece(id, &mut |bytes| word.extend_from_slice(bytes));
            let special = special.map_err(|error| tables.bad_tokenizer(&error))?;
            // So control tokens are marked, which no text has in it.
            if special == Some(true) {
                word.insert(0, TokTrie::SPECIAL_TOKEN_MARKER);
            }
            words.push(word);
        }
        Ok(Self { words, stops })
    }

    /// Bytes that it takes once it is built, and a parser.
    fn bytes(&self) -> u64 {
        let words = self.words.iter().map(|word| WORD_BYTES + word.len() * LETTER_BYTES);
        (PARSER_BYTES + words.sum::<usize>()) as u64
    }

    /// With one token more, which stands for all that end a text: a model may have none, or several.
    fn build(mut self) -> TokEnv {
        let end = self.words.len() as u32;
        self.words.push([&[TokTrie::SPECIAL_TOKEN_MARKER], &b"end"[..]].concat());
        let info = TokRxInfo::new(self.words.len() as u32, end);
        Arc::new(ApproximateTokEnv::new(TokTrie::from(&info, &self.words)))
    }
}

/// What the parser of a rule of usual size takes.
const PARSER_BYTES: usize = 4 << 20;
/// What a token takes in the tables and while they are made, and each of its bytes at most: a node of a
/// tree beside itself.
const WORD_BYTES: usize = 72;
const LETTER_BYTES: usize = 9;
