//! No text and no section, however made, makes the tokenizer panic, run long or lose text.

mod common;

use common::{
    bytes, characters, characters_in_words, decode, encode, marking, unigram, word_piece,
};
use omex::tokenizer::{self, Spec, compile, nfc};
use omex_core::token::layout::{HEADER, SECOND_HEADER, field, flag};
use omex_core::token::{
    CachedWord, Decoder, EncodeOptions, SourceError, Symbol, TableSource, Tokenizer,
};
use proptest::prelude::*;
use std::path::Path;
use std::sync::OnceLock;

const PRE_TOKENIZERS: [&str; 4] = ["gpt-2", "smollm", "llama-bpe", "qwen2"];

/// Texts of the characters that the scanners tell apart.
fn texts() -> impl Strategy<Value = String> {
    let parts = prop::sample::select(vec![
        "a", "aa", "hello", " ", "  ", "\n", "\r\n", "\t", "'", "'s", "'LL", "'\u{17F}", "1",
        "12345", "!", "...", "é", "日本", "\u{2581}", "\u{a0}", "\u{3000}", "٣", "½", "🙂",
        "<|end|>", "<|", "\0", "\u{FFFD}",
    ]);
    prop::collection::vec(parts, 0..40).prop_map(|parts| parts.concat())
}

/// Tokenizers of every kind; the last knows neither all characters nor all bytes.
fn all_kinds() -> Vec<Spec> {
    let mut specs = vec![characters(), characters_in_words()];
    specs.extend(PRE_TOKENIZERS.map(bytes));
    let mut unknown = characters_in_words();
    unknown.byte_fallback = false;
    unknown.flags |= flag::FUSE_UNKNOWN;
    unknown.unknown = Some(0);
    specs.push(unknown);
    specs
}

/// Everything one can do with a section.
fn exercise(section: &[u8], text: &str) {
    let Ok(mut tokenizer) = Tokenizer::open(section) else { return };
    let mut scratch = [Symbol::EMPTY; 24];
    let mut ids = [0; 200];
    // Corrupt tables may give errors; that they give no panic is the point.
    let _ = tokenizer.encode_into(text, EncodeOptions::default(), &mut scratch, &mut ids);
    let mut decoder = Decoder::new(true);
    for id in ids.into_iter().chain(0..600).chain([u32::MAX]) {
        let _ = tokenizer.decode(&mut decoder, id, &mut |_| {});
    }
    decoder.finish(&mut |_| {});
}

#[test]
fn every_corrupt_byte_is_survived() {
    for spec in [characters(), bytes("llama-bpe")] {
        let mut section = compile(&spec).unwrap();
        for at in 0..section.len() {
            // The tables are large and alike; the header is not.
            let changes: &[u8] = if at < 128 { &[0x01, 0x10, 0x80, 0xFF] } else { &[0xFF] };
            for change in changes {
                section[at] ^= change;
                exercise(&section, "hello  wéll 12aaaa <|end|> 日本\n\n🙂");
                section[at] ^= change;
            }
        }
    }
}

/// Sections of kinds with a trie, whose tables take a while to make.
fn with_tries() -> &'static [Vec<u8>] {
    static SECTIONS: OnceLock<Vec<Vec<u8>>> = OnceLock::new();
    SECTIONS.get_or_init(|| {
        let unigrams = marking().map(|pre_tokenizer| unigram(&pre_tokenizer, true));
        let unknown = unigram(&marking()[0], false);
        let specs = [word_piece(), unknown].into_iter().chain(unigrams);
        specs.map(|spec| compile(&spec).unwrap()).collect()
    })
}

#[test]
fn every_corrupt_byte_of_two_headers_is_survived() {
    for section in with_tries() {
        let mut section = section.clone();
        for at in 0..HEADER + SECOND_HEADER {
            for change in [0x01, 0x10, 0x80, 0xFF] {
                section[at] ^= change;
                exercise(&section, "hello  wéll 12aaaa [SEP] 日本\n\n한🙂");
                section[at] ^= change;
            }
        }
    }
}

#[test]
fn words_are_normalized_and_cut_into_the_longest_pieces() {
    let mut tokenizer = Tokenizer::open(&with_tries()[0][..]).unwrap();
    let long = "a".repeat(40);
    for (text, expected) in [
        // The longest piece first, even where what is left is then in no piece.
        ("aaaaaa aab", &[6, 5, 4, 0][..]),
        // Capitals, accents, controls and Hangul.
        ("HÉLL\u{0}O\u{301} 11 한", &[10, 15, 16, 20, 21, 22]),
        ("İ \u{130}!", &[23, 23, 11]),
        ("a日\u{3000}!!'s#", &[3, 14, 11, 11, 12, 13, 19]),
        // A longer word than 40 characters is unknown, although all of it is in pieces.
        (&long, &[6, 5, 5, 5, 5, 5, 5, 5, 5, 5, 5, 5, 5, 5, 5, 5, 5, 5, 5, 4]),
        (&format!("{long}a"), &[0]),
        ("b b", &[0, 0]),
    ] {
        assert_eq!(encode(&mut tokenizer, text, 200), (expected.to_vec(), 0), "{text:?}");
    }
    assert_eq!(
        decode(&mut tokenizer, &[7, 8, 9, 11, 1, 12, 13, 4]),
        "hello! [CLS]'sa".replace("]'", "] '").replace("'s", "' s")
    );
}

#[test]
fn words_are_cut_into_the_pieces_of_the_greatest_sum() {
    for (at, text, expected) in [
        // -4 - 4.5 - 3.5 is more than -13; a word by itself is marked, and blanks are none of it.
        (0, "hello\n hello", &[6, 7, 8, 6, 7, 8][..]),
        // Of "a aa" and "aa a", whose sums are equal, the first that is found; "aaa" is less.
        (0, "aaa12", &[2, 3, 4, 12]),
        // Unknown characters are one token, but not across words.
        (0, "xyz xé日", &[2, 0, 2, 0, 11]),
        // Where there are tokens for bytes, they are those.
        (1, "é", &[2, 16 + 0xC3, 16 + 0xA9]),
        // A blank is a mark already, and gets none before it.
        (1, "  hello ", &[2, 6, 7, 8, 2][..]),
        (2, "  hello ", &[2, 6, 7, 8, 2][..]),
        (1, "   hello", &[2, 2, 6, 7, 8][..]),
        (2, "   hello", &[15, 6, 7, 8][..]),
    ] {
        let blanks = [unigram(&marking()[0], false)];
        let others = marking().into_iter().skip(1).map(|pre| unigram(&pre, true));
        let spec = blanks.into_iter().chain(others).nth(at).unwrap();
        let section = compile(&spec).unwrap();
        let mut tokenizer = Tokenizer::open(&section[..]).unwrap();
        assert_eq!(encode(&mut tokenizer, text, 200), (expected.to_vec(), 0), "{at}: {text:?}");
    }
}

#[test]
fn every_short_section_is_refused() {
    let section = compile(&characters()).unwrap();
    for length in 0..section.len() {
        assert!(Tokenizer::open(&section[..length]).is_err(), "{length}");
    }
}

proptest! {
    /// What the cache, another source or less memory than a text takes changes in kinds with a trie.
    #[test]
    fn tries_do_not_depend_on_where_they_are(text in texts(), words in 0..12usize) {
        for section in with_tries() {
            let mut tokenizer = Tokenizer::open(section.as_slice()).unwrap();
            let enough = tokenizer.scratch_for(text.len());
            let (expected, cuts) = encode(&mut tokenizer, &text, enough);
            prop_assert_eq!(cuts, 0);
            prop_assert_eq!(encode(&mut card(section), &text, enough), (expected.clone(), 0));
            let (ids, cuts) = encode(&mut tokenizer, &text, 16);
            prop_assert!(cuts > 0 || ids == expected);
            let options = EncodeOptions { add_special: false, parse_special: false };
            let (mut scratch, mut ids) = (vec![Symbol::EMPTY; enough], vec![]);
            let mut cache = vec![CachedWord::EMPTY; words];
            for _ in 0..2 {
                ids.clear();
                tokenizer.encode_cached(&text, options, &mut scratch, &mut cache, |id| {
                    ids.push(id);
                    Ok(())
                }).unwrap();
                prop_assert_eq!(&ids, &expected);
            }
        }
    }

    #[test]
    fn random_tries_are_survived(
        text in texts(),
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..200),
    ) {
        for section in with_tries() {
            let mut section = section.clone();
            for (at, byte) in &changes {
                let tables = &mut section[HEADER + SECOND_HEADER..];
                let at = at.index(tables.len());
                tables[at] = *byte;
            }
            exercise(&section, &text);
        }
    }

    #[test]
    fn byte_level_text_comes_back(text in texts(), any in ".*", pre in 0..4usize) {
        let section = compile(&bytes(PRE_TOKENIZERS[pre])).unwrap();
        let mut tokenizer = Tokenizer::open(section.as_slice()).unwrap();
        for text in [text, any] {
            let (ids, cuts) = encode(&mut tokenizer, &text, text.len() + 16);
            prop_assert_eq!((decode(&mut tokenizer, &ids), cuts), (text, 0));
        }
    }

    #[test]
    fn character_level_text_comes_back(text in texts()) {
        let section = compile(&characters()).unwrap();
        let mut tokenizer = Tokenizer::open(section.as_slice()).unwrap();
        let (ids, cuts) = encode(&mut tokenizer, &text, text.len() + 16);
        prop_assert_eq!((decode(&mut tokenizer, &ids), cuts), (text.replace('\u{2581}', " "), 0));
    }

    #[test]
    fn cutting_at_spaces_changes_nothing(text in texts()) {
        let section = compile(&characters_in_words()).unwrap();
        let mut uncut = section.clone();
        prop_assert!(section[field::FLAGS] & flag::SPLIT_WORDS as u8 != 0);
        uncut[field::FLAGS] &= !(flag::SPLIT_WORDS as u8);
        let [cut, uncut] = [&section, &uncut].map(|section| {
            encode(&mut Tokenizer::open(section.as_slice()).unwrap(), &text, text.len() + 16)
        });
        prop_assert_eq!(cut, uncut);
    }

    #[test]
    fn a_cache_changes_nothing(texts in prop::collection::vec(texts(), 1..4), words in 0..12usize) {
        for spec in all_kinds() {
            let section = compile(&spec).unwrap();
            let mut tokenizer = Tokenizer::open(section.as_slice()).unwrap();
            // One cache for all the texts: words push each other out of it.
            let mut cache = vec![CachedWord::EMPTY; words];
            for text in &texts {
                let (expected, _) = encode(&mut tokenizer, text, text.len() + 16);
                let mut scratch = vec![Symbol::EMPTY; text.len() + 16];
                let mut ids = vec![];
                let options = EncodeOptions { add_special: false, parse_special: false };
                tokenizer.encode_cached(text, options, &mut scratch, &mut cache, |id| {
                    ids.push(id);
                    Ok(())
                }).unwrap();
                prop_assert_eq!(ids, expected);
            }
        }
    }

    #[test]
    fn the_table_of_words_changes_nothing(text in texts()) {
        for spec in all_kinds().into_iter().filter(|spec| !spec.ignore_merges) {
            let section = compile(&spec).unwrap();
            let mut without = section.clone();
            without[field::WORD_BUCKETS..][..4].fill(0);
            prop_assert_ne!(&section, &without);
            let [with, without] = [&section, &without].map(|section| {
                encode(&mut Tokenizer::open(section.as_slice()).unwrap(), &text, text.len() + 16)
            });
            prop_assert_eq!(with, without);
        }
    }

    #[test]
    fn long_texts_are_encoded_as_a_whole(part in texts(), count in 1..400usize) {
        let text = part.repeat(count);
        for spec in [characters(), characters_in_words(), bytes("gpt-2")] {
            let section = compile(&spec).unwrap();
            let mut tokenizer = Tokenizer::open(section.as_slice()).unwrap();
            let (expected, _) = encode(&mut tokenizer, &text, text.len() + 16);
            let options = EncodeOptions { add_special: false, parse_special: false };
            prop_assert_eq!(tokenizer::encode(&mut tokenizer, &text, options).unwrap(), expected);
        }
    }

    #[test]
    fn normalization_line_by_line_is_that_of_the_text(
        parts in prop::collection::vec(prop::sample::select(vec![
            "e", "\u{301}", "\u{327}", "\u{E9}", "\n", "\r", "\u{1100}", "\u{1161}", "\u{212B}", " ", "x",
        ]), 0..12),
    ) {
        let text = parts.concat();
        let whole: String = unicode_normalization::UnicodeNormalization::nfc(text.as_str()).collect();
        prop_assert_eq!(nfc(&text), whole);
    }

    #[test]
    fn little_memory_loses_no_text(text in texts(), symbols in 16..64usize) {
        for spec in [characters(), characters_in_words(), bytes("gpt-2")] {
            let section = compile(&spec).unwrap();
            let mut tokenizer = Tokenizer::open(section.as_slice()).unwrap();
            let (whole, _) = encode(&mut tokenizer, &text, text.len() + 16);
            let (ids, cuts) = encode(&mut tokenizer, &text, symbols);
            prop_assert_eq!(decode(&mut tokenizer, &ids), decode(&mut tokenizer, &whole));
            prop_assert!(cuts > 0 || ids == whole);
        }
    }

    #[test]
    fn any_ids_decode_as_their_bytes_together(ids in prop::collection::vec(0..256u32, 0..40)) {
        let section = compile(&bytes("gpt-2")).unwrap();
        let mut tokenizer = Tokenizer::open(section.as_slice()).unwrap();
        let all: Vec<u8> = ids.iter().map(|&id| id as u8).collect();
        prop_assert_eq!(decode(&mut tokenizer, &ids), String::from_utf8_lossy(&all));
    }

    #[test]
    fn random_sections_are_survived(tail in prop::collection::vec(any::<u8>(), 124..2000), text in texts()) {
        let mut section = [b"OMTK".as_slice(), &tail].concat();
        exercise(&section, &text);
        // With a header that passes, and random tables.
        let good = compile(&bytes("qwen2")).unwrap();
        section.resize(good.len(), 0xA5);
        section[..128].copy_from_slice(&good[..128]);
        exercise(&section, &text);
    }

    #[test]
    fn random_json_is_refused(json in "[\\[{\"a-z:,0-9\\]}]*") {
        prop_assert!(Spec::from_hf_bytes(Path::new("tokenizer.json"), json.into_bytes()).is_err());
    }
}

/// A card that is read a sector at a time, and counts.
struct Card<'s> {
    section: &'s [u8],
    cached: Option<usize>,
    reads: u64,
    sectors: u64,
}

impl TableSource for Card<'_> {
    fn read(&mut self, offset: u32, out: &mut [u8]) -> Result<(), SourceError> {
        self.reads += 1;
        for (at, byte) in (offset as usize..).zip(out) {
            if self.cached.replace(at / 512) != Some(at / 512) {
                self.sectors += 1;
            }
            *byte = *self.section.get(at).ok_or(SourceError)?;
        }
        Ok(())
    }
}

fn card(section: &[u8]) -> Tokenizer<Card<'_>> {
    Tokenizer::open(Card { section, cached: None, reads: 0, sectors: 0 }).unwrap()
}

#[test]
fn a_paged_section_gives_the_same_ids() {
    let text = "hello  wéll 12aaaa's hello\n\n🙂 日本";
    for spec in [characters(), bytes("llama-bpe")] {
        let section = compile(&spec).unwrap();
        let paged = encode(&mut card(&section), text, 64);
        assert_eq!(paged, encode(&mut Tokenizer::open(section.as_slice()).unwrap(), text, 64));
    }
}

fn work(spec: &Spec, text: &str, cached_words: usize) -> u64 {
    work_in(&compile(spec).unwrap(), text, cached_words)
}

/// Steps on merges and reads of tables for a text.
fn work_in(section: &[u8], text: &str, cached_words: usize) -> u64 {
    let mut reads = Card { section, cached: None, reads: 0, sectors: 0 };
    let mut tokenizer = Tokenizer::open(&mut reads).unwrap();
    let mut scratch = vec![Symbol::EMPTY; tokenizer.scratch_for(text.len())];
    let mut cache = vec![CachedWord::EMPTY; cached_words];
    let options = EncodeOptions::default();
    let encoded =
        tokenizer.encode_cached(text, options, &mut scratch, &mut cache, |_| Ok(())).unwrap();
    encoded.steps + reads.reads
}

#[test]
fn words_that_come_again_cost_nothing() {
    for spec in [characters_in_words(), bytes("gpt-2"), bytes("llama-bpe")] {
        let text = " hello hell".repeat(1000);
        let (once, cached) = (work(&spec, &text[..22], 16), work(&spec, &text, 16));
        // Reading the header and the template goes with the text, not with its words.
        assert_eq!(cached, once);
    }
}

#[test]
fn ten_times_the_text_is_little_more_than_ten_times_the_work() {
    let specs = [
        characters(),
        characters_in_words(),
        bytes("gpt-2"),
        bytes("smollm"),
        bytes("llama-bpe"),
        bytes("qwen2"),
    ];
    let sections: Vec<_> =
        specs.iter().map(|spec| compile(spec).unwrap()).chain(with_tries().to_vec()).collect();
    for part in [
        "a",
        " ",
        "aab",
        "\n",
        " \n",
        "'",
        "<|end|",
        "<|end|>",
        "é",
        "日本",
        "\u{a0}",
        "\u{2581}x",
        "ab",
        "a1",
        "1234567890",
        " hello",
        "'s",
        "٣",
        "🙂",
    ] {
        for section in &sections {
            for cached_words in [0, 64] {
                let [small, large] = [10_000, 100_000].map(|length| {
                    work_in(section, &part.repeat(length / part.len()), cached_words)
                });
                // n log n from 10,000 to 100,000 is 12.5 times as much.
                assert!(large < small * 13, "{part:?}: {small} then {large}");
            }
        }
    }
}
