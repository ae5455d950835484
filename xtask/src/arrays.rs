//! Arrays that a board takes in and gives out.

use crate::escapes::unescape;
use crate::{Result, json};
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

/// What the firmware calls inputs that it makes itself.
const MADE: [&str; 2] = ["zero", "seeded"];

/// Inputs as the firmware calls them: those that it makes itself, or a temporary file with their plain
/// bytes, removed when dropped.
pub(crate) enum Inputs {
    Made(&'static str),
    File(PathBuf),
}

impl Inputs {
    /// The numbers in a NumPy file, or all of another file.
    ///
    /// # Errors
    /// Files that can't be read or written, or a NumPy file that is damaged.
    pub(crate) fn new(source: &Path) -> Result<Self> {
        if let Some(made) = MADE.into_iter().find(|made| source.as_os_str() == *made) {
            return Ok(Self::Made(made));
        }
        let bytes = fs::read(source).map_err(|e| format!("{}: {e}", source.display()))?;
        let numbers = numbers(&bytes).ok_or(format!("{}: damaged", source.display()))?;
        let name = format!("omex-inputs-{}.bin", std::process::id());
        let path = std::env::temp_dir().join(name);
        fs::write(&path, numbers).map_err(|e| format!("{}: {e}", path.display()))?;
        Ok(Self::File(path))
    }

    /// The word of the firmware's command line.
    pub(crate) fn word(&self) -> String {
        match self {
            Self::Made(made) => (*made).to_owned(),
            Self::File(path) => path.to_string_lossy().into_owned(),
        }
    }
}

impl Drop for Inputs {
    fn drop(&mut self) {
        // Nothing is lost if it stays: it lies in the folder for temporary files.
        if let Self::File(path) = self {
            let _ = fs::remove_file(path);
        }
    }
}

/// What lies behind the header of a NumPy file, if there is one.
fn numbers(bytes: &[u8]) -> Option<&[u8]> {
    let Some(rest) = bytes.strip_prefix(b"\x93NUMPY") else { return Some(bytes) };
    let (version, rest) = rest.split_first_chunk::<2>()?;
    let (length, rest) = match version {
        [1, _] => {
            rest.split_first_chunk().map(|(n, rest)| (u16::from_le_bytes(*n).into(), rest))?
        }
        _ => rest.split_first_chunk().map(|(n, rest)| (u32::from_le_bytes(*n), rest))?,
    };
    rest.get(usize::try_from(length).ok()?..)
}

/// What a board prints of an output.
pub(crate) struct Output {
    name: String,
    values: Values,
}

enum Values {
    I8(Vec<i8>),
    F32(Vec<f32>),
}

impl Output {
    /// Reads the type of the values, their bytes in hexadecimal, and the name.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let (dtype, rest) = text.split_once(' ')?;
        let (digits, escaped) = rest.split_once(' ')?;
        let digit = |byte: &u8| char::from(*byte).to_digit(16);
        let (pairs, []) = digits.as_bytes().as_chunks() else { return None };
        let bytes = pairs.iter().map(|[high, low]| Some((digit(high)? << 4 | digit(low)?) as u8));
        let bytes: Vec<u8> = bytes.collect::<Option<_>>()?;
        let values = match (dtype, bytes.as_chunks()) {
            ("i8", _) => Values::I8(bytes.iter().map(|byte| byte.cast_signed()).collect()),
            ("f32", (words, [])) => {
                Values::F32(words.iter().map(|word| f32::from_le_bytes(*word)).collect())
            }
            _ => return None,
        };
        let mut name = String::new();
        unescape(escaped, &mut name);
        Some(Self { name, values })
    }

    /// The values alone.
    pub(crate) fn values(&self) -> String {
        self.values.to_string()
    }

    /// The name and the values.
    pub(crate) fn to_json(&self) -> String {
        format!("{{\"name\":{},\"values\":{}}}", json::string(&self.name), self.values)
    }
}

impl fmt::Display for Output {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.name, self.values)
    }
}

impl fmt::Display for Values {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let values: Vec<_> = match self {
            Self::I8(values) => values.iter().map(i8::to_string).collect(),
            Self::F32(values) => values.iter().map(f32::to_string).collect(),
        };
        write!(f, "[{}]", values.join(","))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_numbers_of_a_numpy_file_lie_behind_its_header() {
        assert_eq!(numbers(b"abc"), Some(&b"abc"[..]));
        assert_eq!(numbers(b"\x93NUMPY\x01\0\x03\0{ }abc"), Some(&b"abc"[..]));
        assert_eq!(numbers(b"\x93NUMPY\x02\0\x03\0\0\0{ }abc"), Some(&b"abc"[..]));
        assert_eq!(numbers(b"\x93NUMPY\x01\0\x03\0{}"), None);
    }

    #[test]
    fn outputs_are_read() {
        let read = |text| Output::parse(text).map(|output| output.to_string());
        assert_eq!(read("i8 7f80 a\\nb"), Some("a\nb [127,-128]".to_owned()));
        assert_eq!(read("f32 0000803f x"), Some("x [1]".to_owned()));
        assert_eq!(read("f32 000080 x"), None);
        assert_eq!(read("i8 7 x"), None);
        assert_eq!(read("i8 7g x"), None);
    }
}
