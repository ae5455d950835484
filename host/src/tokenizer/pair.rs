//! How a tokenizer puts two texts together, for models that compare them.

use super::Spec;
use super::hf::{parts, type_of};
use crate::package::PairPart;
use crate::{Error, Result};
use serde_json::Value;

impl Spec {
    /// The template of pairs in the `tokenizer.json` that this was read from; `None` if it came from
    /// another file that puts nothing around texts. Without one there, the texts are put one behind the other.
    ///
    /// # Errors
    /// A template that is damaged, or that has no place for one of the texts.
    pub fn pair_template(&self) -> Result<Option<Vec<PairPart>>> {
        let Some(json) = &self.json else { return Ok(self.pair_without_template()) };
        let file: Value = serde_json::from_slice(json)
            .map_err(|error| self.damaged("JSON", &error.to_string(), "a tokenizer"))?;
        let processors = parts(&file["post_processor"], "processors");
        let template = processors.into_iter().find(|part| type_of(part) != "ByteLevel");
        let parts = match template.map(|template| (template, type_of(template))) {
            None => vec![query(0), document(1)],
            Some((template, kind)) if kind == "TemplateProcessing" => self.listed(template)?,
            Some((template, kind)) => self.around(template, kind == "RobertaProcessing")?,
        };
        self.check_pair(&parts)?;
        Ok(Some(parts))
    }

    /// The texts with what goes around each of them: between them twice, as RoBERTas put them together, or once
    /// if it is BERT's token; none where nothing goes around them, as then nothing says how pairs look.
    fn pair_without_template(&self) -> Option<Vec<PairPart>> {
        if self.before.is_empty() || self.after.is_empty() {
            return None;
        }
        let tokens = |ids: &[u32]| PairPart::Tokens { ids: ids.to_vec(), segment: 0 };
        let piece = |id: &u32| self.pieces.get(*id as usize).map(Vec::as_slice);
        let once = self.after.iter().any(|id| piece(id) == Some(b"[SEP]"));
        let between = tokens(&self.after.repeat(if once { 1 } else { 2 }));
        Some(vec![tokens(&self.before), query(0), between, document(0), tokens(&self.after)])
    }

    /// The parts that a template lists.
    fn listed(&self, template: &Value) -> Result<Vec<PairPart>> {
        let part = |item: &Value| {
            let segment = |kind: &str| u8::try_from(item[kind]["type_id"].as_u64()?).ok();
            let part = match item.pointer("/Sequence/id").and_then(Value::as_str) {
                Some("A") => segment("Sequence").map(query),
                Some("B") => segment("Sequence").map(document),
                _ => {
                    let name = item.pointer("/SpecialToken/id").and_then(Value::as_str);
                    let ids = name.map(|name| &template["special_tokens"][name]["ids"]);
                    let ids = ids.and_then(|ids| ids.as_array()?.iter().map(id).collect());
                    let part = |(ids, segment)| PairPart::Tokens { ids, segment };
                    ids.zip(segment("SpecialToken")).map(part)
                }
            };
            let expected = "special tokens and the sequences A and B";
            part.ok_or_else(|| self.damaged("post_processor.pair", &item.to_string(), expected))
        };
        template["pair"].as_array().into_iter().flatten().map(part).collect()
    }

    /// The parts of a processor that puts tokens around texts: BERT's, which tells the texts apart, or
    /// RoBERTa's, which puts another between them.
    fn around(&self, processor: &Value, doubled: bool) -> Result<Vec<PairPart>> {
        let token = |key: &str| {
            let (field, found) = (format!("post_processor.{key}"), &processor[key]);
            id(&found[1])
                .ok_or_else(|| self.damaged(&field, &found.to_string(), "a token and its id"))
        };
        let (cls, sep) = (token("cls")?, token("sep")?);
        let second = u8::from(!doubled);
        let tokens = |ids, segment| PairPart::Tokens { ids, segment };
        let between = if doubled { vec![sep; 2] } else { vec![sep] };
        let first = [tokens(vec![cls], 0), query(0), tokens(between, 0)];
        Ok(first.into_iter().chain([document(second), tokens(vec![sep], second)]).collect())
    }

    /// Checks that each text has one place, and that all tokens are there.
    fn check_pair(&self, parts: &[PairPart]) -> Result<()> {
        let count = |of: fn(&PairPart) -> bool| parts.iter().filter(|part| of(part)).count();
        let places = [
            count(|part| matches!(part, PairPart::Query { .. })),
            count(|part| matches!(part, PairPart::Document { .. })),
        ];
        if places != [1, 1] {
            let found = format!("{} and {} places for them", places[0], places[1]);
            return Err(self.damaged("post_processor.pair", &found, "one place for each text"));
        }
        let ids = parts.iter().flat_map(|part| match part {
            PairPart::Tokens { ids, .. } => &ids[..],
            _ => &[],
        });
        match ids.into_iter().find(|id| **id as usize >= self.pieces.len()) {
            Some(id) => {
                let expected = format!("ids below {}", self.pieces.len());
                Err(self.damaged("post_processor.pair", &format!("id {id}"), &expected))
            }
            None => Ok(()),
        }
    }

    fn damaged(&self, field: &str, found: &str, expected: &str) -> Error {
        self.malformed(field, found, expected, "save the tokenizer again: the file is damaged")
    }
}

fn query(segment: u8) -> PairPart {
    PairPart::Query { segment }
}

fn document(segment: u8) -> PairPart {
    PairPart::Document { segment }
}

fn id(value: &Value) -> Option<u32> {
    u32::try_from(value.as_u64()?).ok()
}
