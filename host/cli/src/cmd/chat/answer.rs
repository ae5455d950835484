//! An answer as it is shown: what the model thinks is dimmed on a terminal.

use crate::output;
use omex::Result;
use std::io::IsTerminal;

const DIM: &str = "\x1b[2m";
const PLAIN: &str = "\x1b[0m";
/// What begins and ends thoughts.
const MARKS: [(&str, &str); 3] =
    [("<think>", "</think>"), ("[THINK]", "[/THINK]"), ("<|channel>", "<channel|>")];

/// Shows an answer piece by piece.
pub(super) struct Shown {
    dims: bool,
    thinking: bool,
    text: String,
    /// Bytes in which no mark can begin any more.
    searched: usize,
}

impl Shown {
    /// An answer behind this prompt, which may have begun to think.
    pub(super) fn behind(prompt: &str) -> Self {
        let begun = |(open, _): &&(&str, &str)| prompt.trim_end().ends_with(open);
        let text =
            MARKS.iter().find(begun).map_or_else(String::new, |(open, _)| (*open).to_owned());
        let dims = std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none();
        Self { dims, thinking: false, text, searched: 0 }
    }

    /// Shows a piece.
    pub(super) fn push(&mut self, piece: &str) -> Result<()> {
        self.text.push_str(piece);
        let ended = self.note_marks();
        if !self.dims {
            return output::text(piece);
        }
        let begin = if self.thinking || ended { DIM } else { "" };
        let end = if self.thinking || ended { PLAIN } else { "" };
        output::text(&format!("{begin}{piece}{end}"))
    }

    /// Whether a thought ended in what is new.
    fn note_marks(&mut self) -> bool {
        let before = self.thinking;
        while let Some((at, thinking)) = self.next_mark() {
            (self.searched, self.thinking) = (at + 1, thinking);
        }
        before && !self.thinking
    }

    fn next_mark(&self) -> Option<(usize, bool)> {
        let rest = self.text.get(self.searched..)?;
        let places = MARKS.iter().flat_map(|(open, close)| [(open, true), (close, false)]);
        let found =
            places.filter_map(|(mark, thinks)| Some((self.searched + rest.find(mark)?, thinks)));
        found.min()
    }

    /// The answer with the mark that the prompt ended with.
    pub(super) fn text(self) -> String {
        self.text
    }
}
