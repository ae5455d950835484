//! tiktoken's ranks: a line for each piece, with its bytes in base64 and its id. Two neighbours merge where what they
//! make is a piece, the lowest id first. How text is cut into words, and which tokens are added, is in each model's
//! code (`tokenizer.py` of meta-llama/llama3, `tokenization_qwen.py` of Qwen): the number of pieces tells the model.

use super::{Added, Kind, Lookup, Merge, PreTokenizer, Spec};
use crate::{Error, Result, input};
use base64::prelude::{BASE64_STANDARD, Engine};
use omex_core::token::layout::{CHARACTER, flag};
use std::collections::HashMap;
use std::path::Path;

/// A piece is no longer than this; the longest of known files has 128 bytes.
const MAX_PIECE: usize = 1024;

/// What a model's code says about its tokenizer.
struct Family {
    pieces: usize,
    pre_tokenizer: PreTokenizer,
    flags: u32,
    added: fn() -> Vec<String>,
    /// The first added token is put before texts.
    begins: bool,
}

/// Llama 3, the first Qwen, GPT-4 and GPT-4o.
const FAMILIES: [Family; 4] = [
    Family {
        pieces: 128_000,
        pre_tokenizer: PreTokenizer::Llama3,
        flags: 0,
        added: llama3,
        begins: true,
    },
    Family {
        pieces: 151_643,
        pre_tokenizer: PreTokenizer::Qwen2,
        flags: flag::NFC,
        added: qwen,
        begins: false,
    },
    Family {
        pieces: 100_256,
        pre_tokenizer: PreTokenizer::Llama3,
        flags: 0,
        added: Vec::new,
        begins: false,
    },
    Family {
        pieces: 199_998,
        pre_tokenizer: PreTokenizer::Gpt4o,
        flags: 0,
        added: Vec::new,
        begins: false,
    },
];

fn llama3() -> Vec<String> {
    let reserved = |number: u32| format!("reserved_special_token_{number}");
    let named = |name: &str| name.to_owned();
    let first = ["begin_of_text", "end_of_text"].map(named);
    let middle = [
        "finetune_right_pad_id",
        "step_id",
        "start_header_id",
        "end_header_id",
        "eom_id",
        "eot_id",
        "python_tag",
    ];
    let names = first.into_iter().chain((0..2).map(reserved));
    let names = names.chain(middle.map(named)).chain((2..247).map(reserved));
    names.map(|name| format!("<|{name}|>")).collect()
}

fn qwen() -> Vec<String> {
    let named = ["endoftext", "im_start", "im_end"].map(str::to_owned);
    let names = named.into_iter().chain((0..205).map(|number| format!("extra_{number}")));
    names.map(|name| format!("<|{name}|>")).collect()
}

impl Spec {
    /// Reads a `tokenizer.model`: SentencePiece's, or tiktoken's ranks, as Llama 3 has them.
    ///
    /// # Errors
    /// As [`Spec::from_sentencepiece`]; or for ranks that are damaged, or of a model that is not known.
    pub fn from_model(path: &Path) -> Result<Self> {
        let file = input::read(path, input::MAX_TOKENIZER_BYTES)?;
        let first = file.split(|&byte| byte == b'\n').next().unwrap_or_default();
        if line(first).is_some() { ranks(path, &file) } else { Self::from_sentencepiece(path) }
    }
}

/// The piece of a line, and its id.
fn line(bytes: &[u8]) -> Option<(Vec<u8>, u32)> {
    let (piece, id) = std::str::from_utf8(bytes).ok()?.trim_end().split_once(' ')?;
    Some((BASE64_STANDARD.decode(piece).ok()?, id.parse().ok()?))
}

fn ranks(path: &Path, file: &[u8]) -> Result<Spec> {
    let pieces = pieces(path, file)?;
    let family = FAMILIES.iter().find(|family| family.pieces == pieces.len()).ok_or_else(|| {
        let expected =
            "those of Llama 3 (128000), Qwen (151643), GPT-4 (100256) or GPT-4o (199998)";
        let remedy = "give the tokenizer.json of the same model, which says how text is cut";
        Error::malformed(path, "ranks", format!("{} pieces", pieces.len()), expected, remedy)
    })?;
    Ok(spec(path, pieces, family))
}

fn spec(path: &Path, mut pieces: Vec<Vec<u8>>, family: &Family) -> Spec {
    let merges = merges(&pieces);
    let first = pieces.len() as u32;
    let token = |(content, id): (String, u32)| Added {
        id,
        content,
        special: true,
        strip_left: false,
        strip_right: false,
        normalized: false,
    };
    let added: Vec<Added> = (family.added)().into_iter().zip(first..).map(token).collect();
    pieces.extend(added.iter().map(|token| token.content.clone().into_bytes()));
    Spec {
        origin: path.to_owned(),
        kind: Kind::Bytes,
        pre_tokenizer: family.pre_tokenizer,
        flags: family.flags,
        pieces,
        merges,
        added,
        unknown: None,
        byte_fallback: false,
        ignore_merges: true,
        before: if family.begins { vec![first] } else { vec![] },
        after: vec![],
        lookup: Lookup::default(),
        json: None,
    }
}

/// The pieces by their ids, all of which are there.
fn pieces(path: &Path, file: &[u8]) -> Result<Vec<Vec<u8>>> {
    let damaged = |number: usize, expected: &str| {
        let (field, remedy) = (format!("line {}", number + 1), "get the file again: it is damaged");
        let found = file.split(|&byte| byte == b'\n').nth(number).unwrap_or_default();
        let found: String = String::from_utf8_lossy(found).chars().take(120).collect();
        Error::malformed(path, field, found, expected, remedy)
    };
    let lines = file.split(|&byte| byte == b'\n').filter(|line| !line.trim_ascii().is_empty());
    let count = lines.clone().count();
    let mut pieces = vec![Vec::new(); count];
    let mut seen = HashMap::with_capacity(count);
    for (number, bytes) in lines.enumerate() {
        let (piece, id) =
            line(bytes).filter(|(piece, _)| (1..=MAX_PIECE).contains(&piece.len())).ok_or_else(
                || damaged(number, "a piece of up to 1024 bytes in base64, and its id"),
            )?;
        let place = pieces.get_mut(id as usize).filter(|place| place.is_empty() && id < CHARACTER);
        let place = place.ok_or_else(|| damaged(number, "ids from 0 on, each once"))?;
        if seen.insert(piece.clone(), id).is_some() {
            return Err(damaged(number, "different pieces"));
        }
        *place = piece;
    }
    Ok(pieces)
}

/// Every way to make a piece of two others; of ways to make one, that of the lowest ids comes first.
fn merges(pieces: &[Vec<u8>]) -> Vec<Merge> {
    let ids: HashMap<&[u8], u32> = pieces.iter().map(Vec::as_slice).zip(0..).collect();
    let mut merges: Vec<Merge> = Vec::with_capacity(2 * pieces.len());
    for (piece, merged) in pieces.iter().zip(0..) {
        let ways = (1..piece.len()).filter_map(|middle| {
            let (left, right) = piece.split_at(middle);
            Some(Merge { left: *ids.get(left)?, right: *ids.get(right)?, merged, rank: 0 })
        });
        let begin = merges.len();
        merges.extend(ways);
        merges[begin..].sort_by_key(|merge| (merge.left, merge.right));
    }
    merges.iter_mut().zip(0..).for_each(|(merge, rank)| merge.rank = rank);
    merges
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tokenizer::{compile, encode};
    use omex_core::token::{EncodeOptions, Tokenizer};

    /// The bytes, and some pieces of them.
    fn file(more: &[&str]) -> String {
        let bytes = (0..=255u8).map(|byte| vec![byte]);
        let pieces = bytes.chain(more.iter().map(|piece| piece.as_bytes().to_vec()));
        let lines =
            pieces.zip(0..).map(|(piece, id)| format!("{} {id}\n", BASE64_STANDARD.encode(piece)));
        lines.collect()
    }

    #[test]
    fn lowest_ids_merge_first_and_whole_pieces_are_tokens() {
        let pieces = pieces(Path::new("ranks"), file(&["bc", "ab", "abc d"]).as_bytes()).unwrap();
        let family = Family {
            pieces: 0,
            pre_tokenizer: PreTokenizer::None,
            flags: 0,
            added: || vec!["<|a|>".into()],
            begins: true,
        };
        let section = compile(&spec(Path::new("ranks"), pieces, &family)).unwrap();
        let mut tokenizer = Tokenizer::open(section.as_slice()).unwrap();
        let mut ids = |text| encode(&mut tokenizer, text, EncodeOptions::default()).unwrap();
        assert_eq!(ids("abc"), [259, 97, 256]);
        assert_eq!(ids("abab"), [259, 257, 257]);
        assert_eq!(ids("abc d<|a|>"), [259, 258, 259]);
    }

    #[test]
    fn damaged_ranks_are_refused_with_the_line() {
        let twice = file(&[]) + "AA== 256\n";
        let long = format!("{} 256\n", BASE64_STANDARD.encode([7; MAX_PIECE + 1]));
        for (text, line) in [
            (twice.as_str(), 257),
            ("AA== 0\nAQ== 0\n", 2),
            ("AA== 0\nAQ== 7\n", 2),
            ("AA== 0\n!!!! 1\n", 2),
            ("AA== 0\nAQ== one\n", 2),
            ("AA== 0\n 1\n", 2),
            (&(file(&[]) + &long), 257),
        ] {
            let message = pieces(Path::new("ranks"), text.as_bytes()).unwrap_err().to_string();
            assert!(message.contains(&format!("line {line}")), "{message}");
        }
        let message = ranks(Path::new("ranks"), file(&[]).as_bytes()).unwrap_err().to_string();
        assert!(message.contains("256 pieces") && message.contains("tokenizer.json"), "{message}");
    }
}
