//! Text without white space at both ends.

/// Holds white space back until something follows it.
#[derive(Default)]
pub(super) struct Trim {
    begun: bool,
    held: String,
}

impl Trim {
    /// What can be told once a piece has come.
    pub(super) fn push(&mut self, piece: &str) -> String {
        let piece = if self.begun { piece } else { piece.trim_start() };
        let told = piece.trim_end();
        let rest = &piece[told.len()..];
        if told.is_empty() {
            self.held.push_str(rest);
            return String::new();
        }
        self.begun = true;
        let before = std::mem::replace(&mut self.held, rest.to_owned());
        before + told
    }
}
