//! llama2.c's `tokenizer.bin`: u32 length of the longest piece, then for every token an f32 score, a u32 length and
//! the piece (`tokenizer.py` and `run.c` of karpathy/llama2.c).
//!
//! Its pieces have spaces where SentencePiece's have U+2581, and it encodes spaces as they are: one is put before
//! the text, none is removed. The character U+2581 is therefore an unknown one, spelled in bytes.

use super::{Added, Kind, Lookup, PreTokenizer, Spec, scores};
use crate::{Error, Result, input};
use omex_core::token::layout::{CHARACTER, flag};
use std::path::Path;

/// The pieces of the first three ids: unknown, beginning, end.
const SPECIAL: [&str; 3] = ["<unk>", "<s>", "</s>"];
/// Longer pieces than this are not a tokenizer's.
const MAX_PIECE: usize = 1024;

impl Spec {
    /// Reads llama2.c's `tokenizer.bin`; the file does not tell how many tokens it holds, the model does.
    ///
    /// # Errors
    /// If the file cannot be read, is cut short, or lacks the byte tokens.
    pub fn from_llama2c(path: &Path, vocab_size: usize) -> Result<Self> {
        let file = input::read(path, input::MAX_TOKENIZER_BYTES)?;
        let (mut pieces, scores) = read(path, &file, vocab_size)?;
        for (piece, name) in pieces.iter_mut().zip(SPECIAL) {
            *piece = name.into();
        }
        if let Some((id, piece)) =
            pieces.iter().enumerate().skip(3).take(256).find(|(id, p)| **p != byte_name(id - 3))
        {
            return Err(Error::malformed(
                path,
                format!("token {id}"),
                format!("{:?}", String::from_utf8_lossy(piece)),
                format!("{:?}", String::from_utf8_lossy(&byte_name(id - 3))),
                "export the tokenizer with byte fallback",
            ));
        }
        let merges = scores::merges(&pieces, &scores).ok_or_else(|| {
            Error::malformed(
                path,
                "scores",
                "not a number",
                "finite scores",
                "export the tokenizer again",
            )
        })?;
        let special = |(content, id): (&str, u32)| Added {
            id,
            content: content.into(),
            special: true,
            strip_left: false,
            strip_right: false,
            normalized: false,
        };
        Ok(Self {
            origin: path.to_owned(),
            kind: Kind::Characters,
            pre_tokenizer: PreTokenizer::None,
            flags: flag::PREFIX_ALWAYS | flag::STRIP_START,
            pieces,
            merges,
            added: SPECIAL.into_iter().zip(0..).map(special).collect(),
            unknown: Some(0),
            byte_fallback: true,
            ignore_merges: false,
            before: vec![1],
            after: vec![],
            lookup: Lookup::default(),
            json: None,
        })
    }
}

fn byte_name(byte: usize) -> Vec<u8> {
    format!("<0x{byte:02X}>").into_bytes()
}

/// The pieces and scores of a file.
fn read(path: &Path, file: &[u8], count: usize) -> Result<(Vec<Vec<u8>>, Vec<f32>)> {
    let cut_short = |id: usize| {
        Error::malformed(
            path,
            format!("token {id}"),
            "the end of the file, or a length beyond it",
            format!("{count} tokens"),
            "give the vocabulary size that the tokenizer was exported with",
        )
    };
    if !(3 + 256..CHARACTER as usize).contains(&count) {
        return Err(Error::malformed(
            path,
            "vocabulary size",
            count.to_string(),
            "at least 259",
            "give the model's vocabulary size",
        ));
    }
    let mut rest = file.get(4..).ok_or_else(|| cut_short(0))?;
    let word = |rest: &mut &[u8]| -> Option<[u8; 4]> {
        let (word, after) = rest.split_first_chunk()?;
        *rest = after;
        Some(*word)
    };
    let (mut pieces, mut scores) = (Vec::new(), Vec::new());
    for id in 0..count {
        let score = word(&mut rest).ok_or_else(|| cut_short(id))?;
        let length = u32::from_le_bytes(word(&mut rest).ok_or_else(|| cut_short(id))?) as usize;
        let (piece, after) = rest
            .split_at_checked(length)
            .filter(|_| length <= MAX_PIECE)
            .ok_or_else(|| cut_short(id))?;
        rest = after;
        if std::str::from_utf8(piece).is_err() {
            return Err(Error::malformed(
                path,
                format!("token {id}"),
                "bytes that are not UTF-8",
                "text",
                "export the tokenizer again",
            ));
        }
        pieces.push(piece.to_vec());
        scores.push(f32::from_le_bytes(score));
    }
    if !rest.is_empty() {
        return Err(Error::malformed(
            path,
            "tokens",
            format!("{} bytes behind token {}", rest.len(), count - 1),
            format!("the model's {count} tokens"),
            "give the tokenizer that the model was trained with",
        ));
    }
    Ok((pieces, scores))
}
