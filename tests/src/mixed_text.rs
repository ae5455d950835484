//! Text of every kind that tokenizers meet, the same from the same seed: prose, code, scripts, emoji, white space,
//! random Unicode, and what becomes of bytes that are no text.

use crate::random::Random;

/// Texts of 10 MB together.
pub fn mixed_texts() -> impl Iterator<Item = String> {
    (0..100).map(|seed| mixed_text(seed, 100_000))
}

/// A text of about so many bytes.
#[must_use]
pub fn mixed_text(seed: u64, bytes: usize) -> String {
    let mut writer = Writer { random: Random(seed), text: String::new() };
    while writer.text.len() < bytes {
        writer.stretch();
    }
    writer.text
}

/// Ranges that stretches of one script are drawn from.
const SCRIPTS: [&[(u32, u32)]; 12] = [
    &[(0x4E00, 0x9FFF), (0x3001, 0x3002)],
    &[(0x3041, 0x30FF), (0x4E00, 0x5000), (0xFF01, 0xFF9F)],
    &[(0xAC00, 0xD7A3), (0x1100, 0x11FF), (0x20, 0x20)],
    &[(0x410, 0x44F), (0x20, 0x20), (0x400, 0x40F)],
    &[(0x391, 0x3C9), (0x1F00, 0x1FFC), (0x20, 0x20)],
    &[(0x621, 0x652), (0x660, 0x669), (0x20, 0x20)],
    &[(0x5D0, 0x5EA), (0x591, 0x5C7), (0x20, 0x20)],
    &[(0x904, 0x94D), (0x966, 0x96F), (0x20, 0x20)],
    &[(0xE01, 0xE4E), (0xE50, 0xE59)],
    &[(0xC0, 0x24F), (0x300, 0x36F), (0x61, 0x7A), (0x20, 0x20)],
    &[(0x2150, 0x218B), (0x2460, 0x24FF), (0x2200, 0x22FF), (0x1D400, 0x1D7FF)],
    &[(0x1C4, 0x1CC), (0x1F88, 0x1F8F), (0x2B0, 0x2FF), (0x41, 0x5A), (0x61, 0x7A)],
];

/// Characters that are blank, or look it.
const BLANKS: [&str; 22] = [
    " ", "  ", "    ", "\t", "\n", "\n\n", "\r\n", "\r", "\u{B}", "\u{C}", "\u{1C}", "\u{85}",
    "\u{A0}", "\u{1680}", "\u{180E}", "\u{2003}", "\u{200B}", "\u{2028}", "\u{2029}", "\u{202F}",
    "\u{3000}", "\u{FEFF}",
];

/// What tokenizers treat in ways of their own.
const SPECIAL: [&str; 34] = [
    "<s>",
    "</s>",
    "<unk>",
    "<pad>",
    "<mask>",
    "[CLS]",
    "[SEP]",
    "[MASK]",
    "[UNK]",
    "[PAD]",
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<|begin_of_text|>",
    "<|eot_id|>",
    "<|startoftext|>",
    "[INST]",
    "[/INST]",
    "[TOOL_CALLS]",
    "<0x0A>",
    "<0xFF>",
    "<extra_id_0>",
    "<|user|>",
    "<|end|>",
    "<think>",
    "</think>",
    "<tool_call>",
    "\u{2581}",
    "\u{2581}\u{2581}",
    "##",
    "\u{120}",
    "\u{FFFD}",
    "</w>",
    "\u{2047}",
];

const CONTRACTIONS: [&str; 16] = [
    "'s", "'t", "'re", "'ve", "'m", "'ll", "'d", "'S", "'T", "'RE", "'Ve", "'M", "'lL", "'D",
    "'\u{17F}", "'x",
];

const EMOJI: [&str; 10] = [
    "\u{1F600}",
    "\u{1F44D}\u{1F3FD}",
    "\u{1F468}\u{200D}\u{1F469}\u{200D}\u{1F467}",
    "\u{2764}\u{FE0F}",
    "\u{1F1E9}\u{1F1EA}",
    "3\u{FE0F}\u{20E3}",
    "\u{1F3F3}\u{FE0F}\u{200D}\u{1F308}",
    "\u{231A}",
    "\u{1F9D1}\u{200D}\u{1F4BB}",
    "\u{1F3F4}\u{E0067}\u{E0062}\u{E007F}",
];

const WORDS: [&str; 48] = [
    "the",
    "of",
    "and",
    "to",
    "in",
    "is",
    "that",
    "for",
    "it",
    "was",
    "with",
    "model",
    "memory",
    "weights",
    "tokenizer",
    "inference",
    "hardware",
    "internationalization",
    "antidisestablishmentarianism",
    "quickly",
    "brown",
    "fox",
    "jumps",
    "over",
    "lazy",
    "dog",
    "caf\u{E9}",
    "na\u{EF}ve",
    "Stra\u{DF}e",
    "don",
    "we",
    "I",
    "HTTP",
    "JSON",
    "GPU",
    "iPhone",
    "McDonald",
    "e.g.",
    "i.e.",
    "U.S.A.",
    "co-operate",
    "state-of-the-art",
    "http://example.org/a?b=c&d=%20",
    "user@example.com",
    "C++",
    "x86_64",
    "snake_case_name",
    "camelCaseName",
];

const CODE: [&str; 40] = [
    "fn",
    "let",
    "mut",
    "return",
    "if",
    "else",
    "for",
    "while",
    "class",
    "def",
    "self",
    "import",
    "public static void",
    "const",
    "=>",
    "->",
    "::",
    "==",
    "!=",
    "<=",
    "&&",
    "||",
    "+=",
    "//",
    "/*",
    "*/",
    "#include <stdio.h>",
    "();",
    "[]",
    "{}",
    "\"\\n\"",
    "'\\0'",
    "0x1F",
    "1e-10",
    "3.14159",
    "???",
    "<div class=\"x\">",
    "</div>",
    "@property",
    "$var",
];

struct Writer {
    random: Random,
    text: String,
}

impl Writer {
    /// Writes one stretch of some kind.
    fn stretch(&mut self) {
        match self.random.below(16) {
            0..=3 => self.prose(),
            4..=6 => self.code(),
            7 | 8 => self.script(),
            9 => self.numbers(),
            10 => self.repeat(|writer| writer.one_of(&EMOJI), 6),
            11 => self.repeat(|writer| writer.one_of(&BLANKS), 8),
            12 => self.any_characters(),
            13 => self.any_bytes(),
            14 => self.repeat(|writer| writer.one_of(&SPECIAL), 3),
            _ => self.run(),
        }
        if self.random.below(3) == 0 {
            self.one_of(&BLANKS);
        }
    }

    fn one_of(&mut self, from: &[&str]) {
        let choice = self.random.below(from.len());
        self.text.push_str(from[choice]);
    }

    fn repeat(&mut self, mut write: impl FnMut(&mut Self), most: usize) {
        for _ in 0..=self.random.below(most) {
            write(self);
        }
    }

    fn prose(&mut self) {
        for _ in 0..1 + self.random.below(30) {
            let word = WORDS[self.random.below(WORDS.len())];
            match self.random.below(12) {
                0 => self.text.push_str(&word.to_uppercase()),
                1 => {
                    let mut letters = word.chars();
                    self.text.extend(letters.next().into_iter().flat_map(char::to_uppercase));
                    self.text.push_str(letters.as_str());
                }
                _ => self.text.push_str(word),
            }
            if self.random.below(8) == 0 {
                self.one_of(&CONTRACTIONS);
            }
            self.one_of(&[
                " ",
                " ",
                " ",
                " ",
                " ",
                " ",
                ", ",
                ". ",
                "? ",
                "!",
                "\u{2014}",
                "\u{201C}",
                "\u{201D} ",
                "\n",
                "; ",
                " (",
            ]);
        }
    }

    fn code(&mut self) {
        for _ in 0..1 + self.random.below(12) {
            self.text.push_str(&"    ".repeat(self.random.below(4)));
            for _ in 0..self.random.below(8) {
                self.one_of(&CODE);
                self.one_of(&[" ", "", "", "(", ")", "; ", "\t", "_"]);
                self.one_of(&WORDS);
            }
            self.one_of(&["\n", "\n\n", "\r\n", " \n", ";\n"]);
        }
    }

    fn script(&mut self) {
        let ranges = SCRIPTS[self.random.below(SCRIPTS.len())];
        for _ in 0..1 + self.random.below(40) {
            let (first, last) = ranges[self.random.below(ranges.len())];
            let code = first + self.random.below((last - first + 1) as usize) as u32;
            self.text.extend(char::from_u32(code));
        }
    }

    fn numbers(&mut self) {
        for _ in 0..1 + self.random.below(8) {
            let length = 1 + self.random.below(12) as u32;
            let number = self.random.draw() % 10u64.pow(length);
            self.text.push_str(&number.to_string());
            self.one_of(&[" ", ".", ",", "-", ":", "/", "%", "", "\u{B2}", "\u{BD}", "\u{660}"]);
        }
    }

    /// Any characters at all, of the first planes mostly.
    fn any_characters(&mut self) {
        for _ in 0..1 + self.random.below(20) {
            let limit = [0x80, 0x800, 0x1_0000, 0x2_0000, 0x11_0000][self.random.below(5)];
            self.text.extend(char::from_u32(self.random.below(limit) as u32));
        }
    }

    /// Bytes that are no text, as a program makes text of them.
    fn any_bytes(&mut self) {
        let bytes: Vec<u8> =
            (0..1 + self.random.below(24)).map(|_| self.random.draw() as u8).collect();
        self.text.push_str(&String::from_utf8_lossy(&bytes));
    }

    /// One character many times.
    fn run(&mut self) {
        let run = [
            "a",
            "A",
            " ",
            "\n",
            "=",
            "-",
            "0",
            "!",
            "\u{4E00}",
            "\u{301}",
            "\u{1F600}",
            "\u{2581}",
        ];
        let unit = run[self.random.below(run.len())];
        let most = if self.random.below(20) == 0 { 600 } else { 24 };
        self.text.push_str(&unit.repeat(1 + self.random.below(most)));
    }
}
