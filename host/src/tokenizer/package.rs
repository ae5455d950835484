//! The `tokenizer/` folder of a model package.

use super::{Spec, compile, hf_write};
use crate::{Error, Result, input};
use std::fmt::Write;
use std::fs;
use std::path::Path;

impl Spec {
    /// Writes `tokenizer.json` (as it was, if this came from one), `vocab.txt` and `merges.txt` for people to read,
    /// and `tokenizer.bin`, the compiled section. Each file is written beside its place and then renamed.
    ///
    /// # Errors
    /// If the tokenizer does not compile, or the folder cannot be written.
    pub fn write_package(&self, dir: &Path) -> Result<()> {
        let section = compile(self)?;
        let json =
            self.json.clone().unwrap_or_else(|| hf_write::json(self).to_string().into_bytes());
        let read = Self::from_hf_bytes(&self.origin, json.clone())?;
        if compile(&read)? != section {
            return Err(self.malformed(
                "tokenizer.json",
                "a tokenizer that it cannot describe (changed after reading, or with equal pieces)",
                "a tokenizer as it was read, all pieces different",
                "give the tokenizer.json of the model",
            ));
        }
        let line = |id: u32| escaped(&self.pieces[id as usize]);
        let vocabulary: String = self.pieces.iter().map(|piece| escaped(piece) + "\n").collect();
        let merges: String =
            self.merges.iter().map(|m| format!("{} {}\n", line(m.left), line(m.right))).collect();
        fs::create_dir_all(dir).map_err(|e| Error::io(dir, "create", e))?;
        write(&dir.join("tokenizer.json"), &json)?;
        write(&dir.join("vocab.txt"), vocabulary.as_bytes())?;
        if !self.merges.is_empty() {
            write(&dir.join("merges.txt"), merges.as_bytes())?;
        }
        write(&dir.join("tokenizer.bin"), &section)
    }

    /// Reads the tokenizer of a package from its `tokenizer/tokenizer.json`: it compiles to the same
    /// section.
    ///
    /// # Errors
    /// As [`Spec::from_hf_json`].
    pub fn from_package(package: &Path) -> Result<Self> {
        let name = "tokenizer/tokenizer.json";
        let json = input::read_part(package, name, input::MAX_TOKENIZER_BYTES)?;
        Self::from_hf_bytes(&package.join(name), json)
    }
}

fn write(path: &Path, bytes: &[u8]) -> Result<()> {
    let beside = path.with_extension("part");
    fs::write(&beside, bytes).map_err(|e| Error::io(&beside, "write", e))?;
    fs::rename(&beside, path).map_err(|e| Error::io(path, "write", e))
}

/// A piece on one line: `\` and white space escaped, bytes that are no text as `\xNN`.
fn escaped(piece: &[u8]) -> String {
    let mut line = String::new();
    for chunk in piece.utf8_chunks() {
        for c in chunk.valid().chars() {
            if c == '\\' || c.is_whitespace() || c.is_control() {
                line.extend(c.escape_unicode());
            } else {
                line.push(c);
            }
        }
        for byte in chunk.invalid() {
            // Writing to a string does not fail.
            let _ = write!(line, "\\x{byte:02X}");
        }
    }
    line
}
