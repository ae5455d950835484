//! Fenced blocks of Markdown (CommonMark 4.5).

/// Follows a text in Markdown line by line, and knows what stands in fenced blocks.
#[derive(Default)]
pub(super) struct Fences {
    /// The last line, which has not ended.
    line: String,
    /// The sign and the number of them that began the block, which is open, and how far it is indented.
    open: Option<(char, usize, usize)>,
    /// Whether there was a block.
    found: bool,
    /// All of the text, as long as there was none.
    before: String,
}

impl Fences {
    /// What of a piece stands in blocks: whole lines.
    pub(super) fn push(&mut self, piece: &str) -> String {
        let mut code = String::new();
        for part in piece.split_inclusive('\n') {
            self.line.push_str(part);
            if part.ends_with('\n') {
                let line = std::mem::take(&mut self.line);
                self.end_line(&line, &mut code);
            }
        }
        code
    }

    fn end_line(&mut self, line: &str, code: &mut String) {
        if !self.found {
            self.before.push_str(line);
        }
        match self.open {
            None => {
                self.open = opening(line);
                if self.open.is_some() {
                    self.found = true;
                    self.before.clear();
                }
            }
            Some((sign, count, _)) if closes(line, sign, count) => self.open = None,
            Some((.., indentation)) => {
                let own = line.len() - line.trim_start_matches(' ').len();
                code.push_str(&line[own.min(indentation)..]);
            }
        }
    }

    /// Whether a block is open behind the last line that ended.
    pub(super) fn is_open(&self) -> bool {
        self.open.is_some()
    }

    /// The rest of what stands in blocks; all of a text that has none.
    pub(super) fn finish(&mut self) -> String {
        let (line, mut code) = (std::mem::take(&mut self.line), String::new());
        self.end_line(&line, &mut code);
        if self.found { code } else { std::mem::take(&mut self.before) }
    }

    /// What closes the last block, if it is open.
    pub(super) fn closing(&mut self) -> String {
        let line = std::mem::take(&mut self.line);
        self.end_line(&line, &mut String::new());
        let ended = line.is_empty() || line.ends_with('\n');
        self.open.map_or_else(String::new, |(sign, count, indentation)| {
            let before = if ended { "" } else { "\n" };
            format!("{before}{}{}\n", " ".repeat(indentation), sign.to_string().repeat(count))
        })
    }
}

/// The sign of a fence, how many there are, and how far it is indented; what follows is for others.
fn fence(line: &str) -> Option<(char, usize, usize, &str)> {
    let text = line.trim_start_matches(' ');
    let sign = text.chars().next().filter(|c| matches!(c, '`' | '~'))?;
    let rest = text.trim_start_matches(sign);
    let (count, indentation) = (text.len() - rest.len(), line.len() - text.len());
    (count >= 3).then_some((sign, count, indentation, rest))
}

/// In lists, fences are indented further than CommonMark's three spaces.
fn opening(line: &str) -> Option<(char, usize, usize)> {
    let (sign, count, indentation, rest) = fence(line)?;
    (sign == '~' || !rest.contains('`')).then_some((sign, count, indentation))
}

fn closes(line: &str, sign: char, count: usize) -> bool {
    fence(line).is_some_and(|(found, number, _, rest)| {
        found == sign && number >= count && rest.trim().is_empty()
    })
}
