//! The checksums in `metadata.json`: those of the files that decide what a model says, and its own.
//! A changed bit there would be another valid number, or a field that nobody knows, and so another
//! text that looks as good.

use super::embedding::EMBEDDING;
use super::rerank::RERANK;
use super::{
    CONVERT_AGAIN, HYPERPARAMETERS, Metadata, Package, TEXT_PREPROCESSOR, parse_crc, parse_json,
};
use crate::{Error, Result, durable, input};
use crc32c::{crc32c, crc32c_append};
use serde::de::DeserializeOwned;
use std::ops::Range;
use std::path::Path;

/// The file that holds the checksums.
const HOLDER: &str = "metadata.json";
/// The files that have one, where they are there.
const COVERED: [&str; 7] = [
    "chat.json",
    "graph.json",
    HYPERPARAMETERS,
    "tokenizer/tokenizer.bin",
    "weights/quantization.json",
    EMBEDDING,
    RERANK,
];
/// Its own, while it is computed.
const NO_CRC: &str = "00000000";

/// Whether a file may have a checksum: the others are nobody's but the package's author's.
fn is_covered(name: &str) -> bool {
    COVERED.contains(&name) || super::is_processor(name)
}

const REMEDY: &str = "the file is damaged: copy or convert the package again; if it was changed on \
                      purpose, run omex validate --renew-checksums";

impl Metadata {
    /// Reads `metadata.json`, and checks its own checksum.
    pub(super) fn read(package: &Path) -> Result<Self> {
        let path = package.join(HOLDER);
        let text = input::read_part(package, HOLDER, input::MAX_JSON_BYTES)?;
        let metadata: Self = parse_json(&path, &text, &mut |_| {})?;
        metadata.check_version(&path)?;
        compare(&path, &metadata.crc32c, own_checksum(&path, &text)?)?;
        Ok(metadata)
    }

    fn check_version(&self, path: &Path) -> Result<()> {
        if self.omex_version.starts_with("0.4.") {
            return Ok(());
        }
        let (found, remedy) = (&self.omex_version, "convert the model again with this version");
        Err(Error::malformed(path, "omex_version", found, "0.4.x", remedy))
    }

    /// Reads a file of the package, and checks it against its checksum.
    pub(super) fn read_covered(&self, package: &Path, name: &str, most: u64) -> Result<Vec<u8>> {
        let bytes = input::read_part(package, name, most)?;
        let Some(expected) = self.files.get(name) else {
            let (found, expected) = (format!("no \"{name}\""), "the checksum of every such file");
            return Err(Error::malformed(
                &package.join(HOLDER),
                "files",
                found,
                expected,
                "remove the file, or add its name with eight zeros and run omex validate \
                 --renew-checksums",
            ));
        };
        compare(&package.join(name), expected, crc32c(&bytes))?;
        Ok(bytes)
    }

    /// As [`Self::read_covered`], of JSON.
    pub(super) fn read_json<T: DeserializeOwned>(&self, package: &Path, name: &str) -> Result<T> {
        let text = self.read_covered(package, name, input::MAX_JSON_BYTES)?;
        parse_json(&package.join(name), &text, &mut |_| {})
    }

    /// True if there is such a file, or there should be.
    fn has(&self, package: &Path, name: &str) -> bool {
        // A link that leads nowhere is there, and is refused.
        self.files.contains_key(name) || package.join(name).symlink_metadata().is_ok()
    }

    /// The compiled tokenizer, if there is one.
    pub(super) fn read_tokenizer(&self, package: &Path) -> Result<Option<Vec<u8>>> {
        let name = "tokenizer/tokenizer.bin";
        let read = || self.read_covered(package, name, input::MAX_TOKENIZER_BYTES);
        self.has(package, name).then(read).transpose()
    }

    /// As [`Self::read_json`], if there is such a file.
    pub(super) fn read_optional<T: DeserializeOwned>(
        &self,
        package: &Path,
        name: &str,
    ) -> Result<Option<T>> {
        self.has(package, name).then(|| self.read_json(package, name)).transpose()
    }

    /// A file that the package's author may add by hand: a checksum is checked where there is one.
    pub(super) fn read_own<T: DeserializeOwned>(
        &self,
        package: &Path,
        name: &str,
    ) -> Result<Option<T>> {
        if self.files.contains_key(name) {
            return self.read_json(package, name).map(Some);
        }
        let there = package.join(name).symlink_metadata().is_ok();
        let read = || super::read_part(package, name, &mut |_| {}).map_err(super::by_hand);
        there.then(read).transpose()
    }

    /// Writes `metadata.json` for the files that are in the package.
    pub(crate) fn write(&mut self, package: &Path) -> Result<()> {
        let path = package.join(HOLDER);
        self.files.clear();
        for name in COVERED.into_iter().chain([TEXT_PREPROCESSOR]) {
            if package.join(name).exists() {
                let bytes = input::read_part(package, name, u64::MAX - 1)?;
                self.files.insert(name.to_owned(), digits(crc32c(&bytes)));
            }
        }
        self.crc32c = NO_CRC.to_owned();
        let failed = |e: serde_json::Error| Error::io(&path, "write", e.into());
        let mut text = serde_json::to_vec_pretty(self).map_err(failed)?;
        text.push(b'\n');
        put_own(&path, &mut text)?;
        std::fs::write(&path, text).map_err(|e| Error::io(&path, "write", e))
    }
}

/// Computes the checksums of `metadata.json` anew, for files that were changed on purpose, and opens
/// the package. What is not a checksum stays as it is.
///
/// # Errors
/// A file that is listed and missing, JSON of another shape, or a package that does not hold together.
pub fn renew_checksums(package: &Path) -> Result<Package> {
    let path = package.join(HOLDER);
    let mut text = input::read_part(package, HOLDER, input::MAX_JSON_BYTES)?;
    let metadata: Metadata = parse_json(&path, &text, &mut |_| {})?;
    for name in metadata.files.keys() {
        if !is_covered(name) {
            let expected = COVERED.map(|name| format!("\"{name}\"")).join(", ")
                + ", or a preprocessor or formatter";
            return Err(Error::malformed(&path, "files", name, expected, "remove the name"));
        }
        let crc = digits(crc32c(&input::read_part(package, name, input::MAX_JSON_BYTES)?));
        let place = place(&path, &text, name)?;
        text[place].copy_from_slice(crc.as_bytes());
    }
    put_own(&path, &mut text)?;
    durable::write(&path, &text)?;
    Package::open(package)
}

fn digits(crc: u32) -> String {
    format!("{crc:08x}")
}

fn compare(path: &Path, expected: &str, found: u32) -> Result<()> {
    if parse_crc(expected.as_bytes()) == Some(found) {
        return Ok(());
    }
    let expected = format!("{expected}, as {HOLDER} says");
    Err(Error::malformed(path, "crc32c", digits(found), expected, REMEDY))
}

/// The checksum of `metadata.json` itself: of its bytes, with zeros for the digits of `crc32c`.
fn own_checksum(path: &Path, text: &[u8]) -> Result<u32> {
    let Range { start, end } = place(path, text, "crc32c")?;
    let before = crc32c_append(crc32c(&text[..start]), NO_CRC.as_bytes());
    Ok(crc32c_append(before, &text[end..]))
}

fn put_own(path: &Path, text: &mut [u8]) -> Result<()> {
    let (place, crc) = (place(path, text, "crc32c")?, own_checksum(path, text)?);
    text[place].copy_from_slice(digits(crc).as_bytes());
    Ok(())
}

/// Where the eight digits stand that are the value of `name`: behind the last place in the text that
/// has this name.
fn place(path: &Path, text: &[u8], name: &str) -> Result<Range<usize>> {
    let quoted = format!("\"{name}\"");
    let found = text.windows(quoted.len()).rposition(|bytes| bytes == quoted.as_bytes());
    let digits = found.and_then(|found| value(text, found + quoted.len()));
    digits.ok_or_else(|| {
        let (found, expected) = ("no checksum", "8 hexadecimal digits in quotes");
        Error::malformed(path, name, found, expected, CONVERT_AGAIN)
    })
}

/// Where eight digits stand that are the value behind a name that ends at `at`.
fn value(text: &[u8], mut at: usize) -> Option<Range<usize>> {
    for sign in b":\"" {
        at += text.get(at..)?.iter().position(|byte| !byte.is_ascii_whitespace())?;
        (text[at] == *sign).then_some(())?;
        at += 1;
    }
    let digits = at..at + NO_CRC.len();
    parse_crc(text.get(digits.clone())?)?;
    (text.get(digits.end) == Some(&b'"')).then_some(digits)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checksums_are_found_however_the_text_is_laid_out() {
        let path = Path::new("metadata.json");
        for text in [
            r#"{"name":"the \"crc32c\" of","crc32c":"89abcdef"}"#,
            "{ \"crc32c\" :\n\t\"89abcdef\" , \"other\": 1 }",
        ] {
            let found = place(path, text.as_bytes(), "crc32c").unwrap();
            assert_eq!(&text[found], "89abcdef");
        }
        for text in ["{}", r#"{"crc32c":"89abcde"}"#, r#"{"crc32c":12345678}"#, r#"{"crc32c""#] {
            assert!(place(path, text.as_bytes(), "crc32c").is_err(), "{text}");
        }
    }
}
