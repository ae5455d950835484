//! Building the section that `omex_core::token` reads: `docs/format-tokenizer.md` draws it.

use super::characters::{byte_token, characters};
use super::lookup::{self, CharacterTables};
use super::{Added, Kind, PreTokenizer, Spec};
use crate::{Error, Result};
use omex_core::token::layout::{
    BUCKET, BUCKET_ENTRIES, CHARACTER, HEADER, ID_BITS, MAGIC, MAX_ADDED, MAX_TEMPLATE, NONE,
    OFFSET_MASK, SECOND_HEADER, SPECIAL, VERSION, added, class, field, flag, homes, key, second,
    word_key,
};
use omex_core::token::{EncodeOptions, MIN_SCRATCH, Symbol, Tokenizer};
use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};

/// Compiles a tokenizer into a section.
///
/// # Errors
/// If an id is outside the vocabulary, or a table is longer than the format allows.
pub fn compile(spec: &Spec) -> Result<Vec<u8>> {
    spec.check()?;
    // Kinds with a trie find whole words there.
    let words = if spec.kind.has_trie() { vec![] } else { whole_words(spec)? };
    compile_with(spec, &words)
}

fn compile_with(spec: &Spec, words: &[Entry]) -> Result<Vec<u8>> {
    let (index, pieces) = pieces(spec)?;
    let characters = spec.kind.has_trie().then(|| CharacterTables::new(spec)).transpose()?;
    let merges = if spec.kind.has_trie() { lookup::pieces(spec)? } else { buckets(&entries(spec)) };
    let words = if words.is_empty() { vec![] } else { buckets(words) };
    let classes = match &characters {
        Some(characters) => characters.ranges.clone(),
        None if spec.pre_tokenizer == PreTokenizer::None => Vec::new(),
        None => classes(spec)?,
    };
    let (added, second, first_bytes) = added_tokens(spec)?;
    let template = [&spec.before[..], &spec.after[..]];
    if template.iter().any(|ids| ids.len() > usize::from(MAX_TEMPLATE)) {
        return Err(too_long(spec, "template", format!("more than {MAX_TEMPLATE} ids on a side")));
    }
    let mut section = Section { bytes: vec![0; HEADER] };
    if let Some(characters) = &characters {
        section.second(spec, characters);
    }
    section.table(field::INDEX, None, &words_of(&index), 4);
    section.table(field::PIECES, None, &pieces, 4);
    section.table(field::MERGES, Some((field::MERGE_BUCKETS, BUCKET)), &merges, BUCKET);
    section.table(field::CLASSES, Some((field::CLASS_COUNT, 8)), &words_of(&classes), 4);
    section.table(field::WORDS, Some((field::WORD_BUCKETS, BUCKET)), &words, BUCKET);
    section.table(field::ADDED, Some((field::ADDED_COUNT, 8)), &words_of(&added), 4);
    section.table(field::TEMPLATE, None, &words_of(&template.concat()), 4);
    section.table(field::BYTES, None, &words_of(&byte_ids(spec)), 4);
    section.put(0, &MAGIC);
    section.put(field::VERSION, &VERSION.to_le_bytes());
    section.put(field::KIND, &[spec.kind as u8, spec.pre_tokenizer as u8]);
    let flags = spec.flags & !flag::SPLIT_WORDS | split_flag(spec);
    section.word(field::FLAGS, flags | characters.map_or(0, |characters| characters.flags));
    section.word(field::VOCABULARY, spec.pieces.len() as u32);
    section.word(field::UNKNOWN, spec.unknown.unwrap_or(NONE));
    section.put(field::BEFORE, &(spec.before.len() as u16).to_le_bytes());
    section.put(field::AFTER, &(spec.after.len() as u16).to_le_bytes());
    section.word(field::SECOND_COUNT, second);
    section.put(field::FIRST_BYTES, &first_bytes);
    let length = section.bytes.len();
    section.word(
        field::LENGTH,
        u32::try_from(length).map_err(|_| too_long(spec, "section", "more than 4 GiB".into()))?,
    );
    Ok(section.bytes)
}

fn too_long(spec: &Spec, field: &str, found: String) -> Error {
    spec.malformed(field, found, "what the format has room for", "use a smaller tokenizer")
}

fn words_of(words: &[u32]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_le_bytes()).collect()
}

/// A section being built.
struct Section {
    bytes: Vec<u8>,
}

impl Section {
    fn put(&mut self, at: usize, bytes: &[u8]) {
        self.bytes[at..at + bytes.len()].copy_from_slice(bytes);
    }

    fn word(&mut self, at: usize, word: u32) {
        self.put(at, &word.to_le_bytes());
    }

    /// Appends the second header and its tables.
    fn second(&mut self, spec: &Spec, characters: &CharacterTables) {
        self.bytes.resize(HEADER + SECOND_HEADER, 0);
        self.put(HEADER + second::ASCII, &characters.ascii);
        self.word(HEADER + second::LONGEST_WORD, spec.lookup.longest_word);
        self.word(HEADER + second::GROWTH, characters.growth);
        let unknown = spec.lookup.unknown_score.to_le_bytes();
        self.put(HEADER + second::UNKNOWN_SCORE, &unknown);
        let scores: Vec<u8> = spec.lookup.scores.iter().flat_map(|x| x.to_le_bytes()).collect();
        self.table(HEADER + second::SCORES, None, &scores, 8);
        let [units, length] = [second::REPLACED_UNITS, second::REPLACEMENTS_LENGTH];
        let [units, length] = [(HEADER + units, 4), (HEADER + length, 1)];
        self.table(HEADER + second::REPLACED, Some(units), &characters.replaced, 4);
        self.table(HEADER + second::REPLACEMENTS, Some(length), &characters.replacements, 4);
    }

    /// Appends a table, and notes where it is and, if asked, how many records of some size it has.
    fn table(&mut self, offset: usize, count: Option<(usize, usize)>, bytes: &[u8], align: usize) {
        self.bytes.resize(self.bytes.len().next_multiple_of(align), 0);
        // The whole length is checked when it is written: a table that starts beyond 4 GiB ends beyond it too.
        self.word(offset, self.bytes.len() as u32);
        if let Some((count, size)) = count {
            self.word(count, (bytes.len() / size) as u32);
        }
        self.bytes.extend_from_slice(bytes);
    }
}

/// The space as the vocabulary's pieces have it.
fn space(spec: &Spec) -> &'static str {
    if spec.flags & flag::SPACE_MARK != 0 { "\u{2581}" } else { " " }
}

/// Text may be cut before a space that follows something else if no merge makes a piece that has one inside.
fn split_flag(spec: &Spec) -> u32 {
    let space = space(spec);
    let inside = |piece: &str| {
        let crosses = |(at, _): (usize, &str)| at > 0 && !piece[..at].ends_with(space);
        piece.match_indices(space).any(crosses)
    };
    let crossing =
        |id: u32| !std::str::from_utf8(&spec.pieces[id as usize]).is_ok_and(|piece| !inside(piece));
    let exact = match spec.kind {
        Kind::Characters => !spec.merges.iter().any(|m| crossing(m.merged)),
        Kind::Unigram => !(0..spec.pieces.len() as u32).any(crossing),
        Kind::Bytes | Kind::WordPiece => false,
    };
    if exact { flag::SPLIT_WORDS } else { 0 }
}

/// The bytes that decoding an id gives.
fn decoded(spec: &Spec, piece: &[u8]) -> Vec<u8> {
    match spec.kind {
        Kind::Bytes | Kind::WordPiece => piece.to_vec(),
        Kind::Characters | Kind::Unigram => {
            match byte_token(piece).filter(|_| spec.byte_fallback) {
                Some(byte) => vec![byte],
                None => String::from_utf8_lossy(piece).replace(space(spec), " ").into_bytes(),
            }
        }
    }
}

/// The index of pieces and their bytes.
fn pieces(spec: &Spec) -> Result<(Vec<u32>, Vec<u8>)> {
    let added: BTreeMap<u32, &Added> = spec.added.iter().map(|token| (token.id, token)).collect();
    let (mut index, mut bytes) = (Vec::new(), Vec::new());
    let offset = |bytes: &Vec<u8>| {
        let offset = u32::try_from(bytes.len()).ok().filter(|&offset| offset <= OFFSET_MASK);
        offset.ok_or_else(|| too_long(spec, "pieces", "more than 2 GiB".into()))
    };
    for (piece, id) in spec.pieces.iter().zip(0..) {
        let token = added.get(&id);
        index.push(
            offset(&bytes)? | if token.is_some_and(|token| token.special) { SPECIAL } else { 0 },
        );
        match token {
            Some(token) => bytes.extend_from_slice(sought(spec, token).as_bytes()),
            None => bytes.extend(decoded(spec, piece)),
        }
    }
    index.push(offset(&bytes)?);
    Ok((index, bytes))
}

/// An entry of the merge table: its key with the id that it gives, and its rank.
#[derive(Clone, Copy)]
struct Entry {
    key: u64,
    id: u32,
    rank: u32,
}

/// Characters that are tokens, then merges; of merges of one pair the last counts.
fn entries(spec: &Spec) -> Vec<Entry> {
    let mut entries = BTreeMap::new();
    if spec.kind == Kind::Characters {
        for (piece, id) in spec.pieces.iter().zip(0..) {
            let mut characters = std::str::from_utf8(piece).unwrap_or("").chars();
            if let (Some(c), None) = (characters.next(), characters.next()) {
                let key = key(u32::from(c), CHARACTER);
                entries.entry(key).or_insert(Entry { key, id, rank: 0 });
            }
        }
    }
    for m in &spec.merges {
        let key = key(m.left, m.right);
        entries.insert(key, Entry { key, id: m.merged, rank: m.rank });
    }
    entries.into_values().collect()
}

/// The merge table: buckets four fifths full, or less where keys do not find room.
fn buckets(entries: &[Entry]) -> Vec<u8> {
    let mut count = entries.len().div_ceil(BUCKET_ENTRIES - 1).max(1);
    loop {
        if let Some(buckets) = fill(entries, count) {
            return bucket_bytes(&buckets);
        }
        count += count / 16 + 1;
    }
}

/// Puts every entry into one of its two buckets, moving others to theirs where both are full (cuckoo hashing:
/// Pagh and Rodler, 2001). None if an entry finds no room.
fn fill(entries: &[Entry], count: usize) -> Option<Vec<Vec<Entry>>> {
    const MOVES: usize = 500;
    let mut buckets: Vec<Vec<Entry>> = vec![Vec::new(); count];
    for &entry in entries {
        let mut entry = entry;
        let mut at = homes(entry.key, count as u32).0 as usize;
        for moves in 0.. {
            if moves == MOVES {
                return None;
            }
            let (first, second) = homes(entry.key, count as u32);
            let free = [first, second]
                .map(|home| home as usize)
                .into_iter()
                .find(|&b| buckets[b].len() < BUCKET_ENTRIES);
            if let Some(free) = free {
                buckets[free].push(entry);
                break;
            }
            std::mem::swap(&mut entry, &mut buckets[at][moves % BUCKET_ENTRIES]);
            let (first, second) = homes(entry.key, count as u32);
            at = if at == first as usize { second } else { first } as usize;
        }
    }
    Some(buckets)
}

fn bucket_bytes(buckets: &[Vec<Entry>]) -> Vec<u8> {
    let mut overflow = vec![0u32; buckets.len()];
    for (bucket, at) in buckets.iter().zip(0..) {
        for first in bucket
            .iter()
            .map(|entry| homes(entry.key, buckets.len() as u32).0)
            .filter(|&first| first != at)
        {
            overflow[first as usize] = 1;
        }
    }
    let mut table = Vec::with_capacity(buckets.len() * BUCKET);
    for (bucket, overflow) in buckets.iter().zip(overflow) {
        let mut bucket = bucket.clone();
        bucket.resize(BUCKET_ENTRIES, Entry { key: 0, id: 0, rank: 0 });
        table.extend(
            bucket.iter().flat_map(|e| (e.key | u64::from(e.id) << (2 * ID_BITS)).to_le_bytes()),
        );
        table.extend(bucket.iter().flat_map(|e| e.rank.to_le_bytes()));
        table.extend(overflow.to_le_bytes());
    }
    table
}

/// What the scanner of a tokenizer distinguishes beyond ASCII, as classes of characters.
fn distinguished(scanner: PreTokenizer) -> &'static [(&'static str, u32)] {
    use class::{CAPITAL, IDEOGRAPH, LETTER, NUMBER, PUNCTUATION, SMALL};
    match scanner {
        PreTokenizer::Qwen3_5 => &[(r"[\p{L}\p{M}]", LETTER), (r"\p{N}", NUMBER)],
        PreTokenizer::Gpt4o | PreTokenizer::Tekken => &[
            (r"[\p{Lu}\p{Lt}]", LETTER | CAPITAL),
            (r"\p{Ll}", LETTER | SMALL),
            (r"[\p{Lm}\p{Lo}]", LETTER | CAPITAL | SMALL),
            (r"\p{M}", CAPITAL | SMALL),
            (r"\p{N}", NUMBER),
        ],
        PreTokenizer::DeepSeekV3 => &[
            (r"[[\p{L}\p{M}]&&[\u4E00-\u9FA5\u3040-\u30FF]]", IDEOGRAPH | LETTER),
            (r"[[\p{P}\p{S}]&&[\u4E00-\u9FA5\u3040-\u30FF]]", IDEOGRAPH | PUNCTUATION),
            (r"[[^\p{L}\p{M}\p{P}\p{S}]&&[\u4E00-\u9FA5\u3040-\u30FF]]", IDEOGRAPH),
            (r"[[\p{L}\p{M}]--[\u4E00-\u9FA5\u3040-\u30FF]]", LETTER),
            (r"[[\p{P}\p{S}]--[\u4E00-\u9FA5\u3040-\u30FF]]", PUNCTUATION),
            (r"\p{N}", NUMBER),
        ],
        _ => &[(r"\p{L}", LETTER), (r"\p{N}", NUMBER)],
    }
}

/// Ranges of characters beyond ASCII: first character, last character with the class in its high byte.
fn classes(spec: &Spec) -> Result<Vec<u32>> {
    let mut ranges = BTreeMap::new();
    for &(expression, class) in distinguished(spec.pre_tokenizer) {
        let found = characters(spec, expression)?;
        for range in found.ranges().iter().filter(|range| !range.end().is_ascii()) {
            ranges.insert(u32::from(range.start()), u32::from(range.end()) | class << 24);
        }
    }
    Ok(ranges.into_iter().flat_map(|(start, end)| [start, end]).collect())
}

/// Words that are one token: those that merging makes one, and, if merges are ignored, all that are a piece.
fn whole_words(spec: &Spec) -> Result<Vec<Entry>> {
    let not_plain = flag::COLLAPSE_SPACES
        | flag::SECOND_IN_NORMALIZED
        | flag::PREFIX_ALWAYS
        | flag::PREFIX_FIRST
        | flag::PREFIX_UNLESS_SPACE;
    let plain = Spec {
        pre_tokenizer: PreTokenizer::None,
        added: vec![],
        flags: spec.flags & !not_plain,
        ..spec.clone()
    };
    let section = compile_with(&plain, &[])?;
    let broken = |_| {
        spec.malformed(
            "merges",
            "a vocabulary that does not encode itself",
            "BPE",
            "report this file",
        )
    };
    let mut tokenizer = Tokenizer::open(section.as_slice()).map_err(|e| broken(e.to_string()))?;
    let options = EncodeOptions { add_special: false, parse_special: false };
    let added: BTreeSet<u32> = spec.added.iter().map(|token| token.id).collect();
    let ignore_merges = spec.ignore_merges && spec.kind == Kind::Bytes;
    // Where unknown characters merge with others, a word may depend on the one before it.
    let unknown = |id: u32| spec.unknown == Some(id);
    let alone = !spec.merges.iter().any(|m| unknown(m.left) || unknown(m.right));
    let (mut forced, mut merged) = (vec![], vec![]);
    let mut scratch = vec![];
    for (piece, id) in spec.pieces.iter().zip(0..).filter(|(_, id)| !added.contains(id)) {
        // What is not text is never a whole word of a text.
        let Ok(text) = String::from_utf8(decoded(spec, piece)) else { continue };
        if text.is_empty() {
            continue;
        }
        scratch.resize(scratch.len().max(text.len() + MIN_SCRATCH), Symbol::EMPTY);
        let mut ids = [NONE; 2];
        let encoded = tokenizer.encode_into(&text, options, &mut scratch, &mut ids);
        let word = (text, id);
        if encoded.is_ok() && ids == [id, NONE] && alone && !unknown(id) {
            merged.push(word);
        } else if ignore_merges {
            forced.push(word);
        }
    }
    let mut words: BTreeMap<u64, (String, u32)> = BTreeMap::new();
    for (text, id) in forced {
        let (first, _) = words.entry(word_key(text.as_bytes())).or_insert((text.clone(), id));
        if *first != text {
            let found = format!("two pieces with one hash, {first:?} and {text:?}");
            return Err(too_long(spec, "vocabulary", found));
        }
    }
    for (text, id) in merged {
        // The table may lack words that merging makes anyway.
        words.entry(word_key(text.as_bytes())).or_insert((text, id));
    }
    Ok(words.into_iter().map(|(key, (_, id))| Entry { key, id, rank: 0 }).collect())
}

/// An added token as it is compared with text: where spaces are marked in both, they are spaces in both.
fn sought<'t>(spec: &Spec, token: &'t Added) -> Cow<'t, str> {
    let marked = flag::SPACE_MARK | flag::SECOND_IN_NORMALIZED;
    match token.normalized && spec.flags & marked == marked {
        true => token.content.replace('\u{2581}', " ").into(),
        false => token.content.as_str().into(),
    }
}

/// Added tokens by pass and bytes: id and flags of each; how many are of the second pass; and the set of bytes that
/// they start with.
fn added_tokens(spec: &Spec) -> Result<(Vec<u32>, u32, [u8; 32])> {
    let mut tokens: BTreeMap<(bool, Vec<u8>), &Added> = BTreeMap::new();
    let mut first_bytes = [0; 32];
    for token in &spec.added {
        let content = sought(spec, token).into_owned().into_bytes();
        let Some(&first) = content.first().filter(|_| content.len() <= MAX_ADDED) else {
            let found = format!("{} bytes", content.len());
            return Err(too_long(spec, &format!("added token {}", token.id), found));
        };
        first_bytes[usize::from(first >> 3)] |= 1 << (first & 7);
        tokens.insert((token.normalized, content), token);
    }
    let flags = |token: &Added| {
        let bits = [
            (token.strip_left, added::STRIP_LEFT),
            (token.strip_right, added::STRIP_RIGHT),
            (token.special, added::SPECIAL),
        ];
        bits.into_iter().filter(|(set, _)| *set).map(|(_, bit)| bit).sum()
    };
    let second = tokens.keys().filter(|(normalized, _)| *normalized).count() as u32;
    let entries = tokens.into_values().flat_map(|token| [token.id, flags(token)]).collect();
    Ok((entries, second, first_bytes))
}

/// The id that stands for each byte.
fn byte_ids(spec: &Spec) -> Vec<u32> {
    let mut ids = vec![NONE; 256];
    let added: BTreeSet<u32> = spec.added.iter().map(|token| token.id).collect();
    for (piece, id) in spec.pieces.iter().zip(0..).filter(|(_, id)| !added.contains(id)) {
        let byte = match (spec.kind, piece.as_slice()) {
            (Kind::Bytes, &[byte]) => Some(byte),
            (Kind::Characters | Kind::Unigram, piece) if spec.byte_fallback => byte_token(piece),
            _ => None,
        };
        if let Some(byte) = byte {
            ids[usize::from(byte)] = id;
        }
    }
    ids
}
