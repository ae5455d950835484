//! Arrays in NumPy's `.npy` format (version 1 to 3): f32 and signed bytes, in C order.

use crate::{Error, Result, durable, input};
use std::path::Path;

const MAGIC: &[u8] = b"\x93NUMPY";
/// The longest file that is read.
const MAX_BYTES: u64 = 1 << 30;

/// What an array's elements are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Element {
    /// 32-bit floats.
    F32,
    /// Signed bytes.
    I8,
}

impl Element {
    /// NumPy's name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::F32 => "<f4",
            Self::I8 => "|i1",
        }
    }

    /// Bytes of an element.
    #[must_use]
    pub fn bytes(self) -> usize {
        match self {
            Self::F32 => 4,
            Self::I8 => 1,
        }
    }
}

/// An array: its elements' bytes, little-endian.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Array {
    /// What its elements are.
    pub element: Element,
    /// Its dimensions.
    pub shape: Vec<usize>,
    /// The elements.
    pub bytes: Vec<u8>,
}

impl Array {
    /// Reads a file.
    ///
    /// # Errors
    /// A file that can't be read, or that is not such an array.
    pub fn read(path: &Path) -> Result<Self> {
        let bytes = input::read(path, MAX_BYTES)?;
        Self::parse(&bytes).ok_or_else(|| {
            let expected = "an array of f32 or int8 in C order, as numpy.save writes it";
            let remedy = "numpy.save(file, array.astype(numpy.int8)), or numpy.float32";
            Error::malformed(path, "header", "something else", expected, remedy)
        })
    }

    fn parse(bytes: &[u8]) -> Option<Self> {
        let rest = bytes.strip_prefix(MAGIC)?;
        let (length, rest) = match rest.first()? {
            1 => {
                let (length, rest) = rest.get(2..)?.split_first_chunk()?;
                (usize::from(u16::from_le_bytes(*length)), rest)
            }
            2 | 3 => {
                let (length, rest) = rest.get(2..)?.split_first_chunk()?;
                (u32::from_le_bytes(*length) as usize, rest)
            }
            _ => return None,
        };
        let (header, data) = rest.split_at_checked(length)?;
        let header = std::str::from_utf8(header).ok()?;
        let field = |name: &str| Some(header.split_once(name)?.1.split_once(':')?.1.trim_start());
        let element = match field("'descr'")? {
            text if text.starts_with("'<f4'") => Element::F32,
            text if text.starts_with("'|i1'") => Element::I8,
            _ => return None,
        };
        if !field("'fortran_order'")?.starts_with("False") {
            return None;
        }
        let shape = field("'shape'")?.strip_prefix('(')?.split_once(')')?.0;
        let sides = shape.split(',').map(str::trim).filter(|side| !side.is_empty());
        let shape: Vec<usize> = sides.map(|side| side.parse().ok()).collect::<Option<_>>()?;
        let count = shape.iter().try_fold(1usize, |count, side| count.checked_mul(*side))?;
        (count.checked_mul(element.bytes())? == data.len()).then(|| Self {
            element,
            shape,
            bytes: data.to_vec(),
        })
    }

    /// Writes a file.
    ///
    /// # Errors
    /// A file that can't be written.
    pub fn write(&self, path: &Path) -> Result<()> {
        let sides: String = self.shape.iter().map(|side| format!("{side}, ")).collect();
        let mut header = format!(
            "{{'descr': '{}', 'fortran_order': False, 'shape': ({}), }}",
            self.element.name(),
            sides.trim_end()
        );
        // The data begin on a multiple of 64.
        let before = MAGIC.len() + 4;
        let length = (before + header.len() + 1).next_multiple_of(64) - before;
        header.extend(std::iter::repeat_n(' ', length - 1 - header.len()));
        header.push('\n');
        let mut bytes = MAGIC.to_vec();
        bytes.extend([1, 0]);
        bytes.extend((header.len() as u16).to_le_bytes());
        bytes.extend(header.bytes());
        bytes.extend(&self.bytes);
        durable::write(path, &bytes)
    }
}
