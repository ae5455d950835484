//! As much of 32-bit little-endian ELF files as a firmware's sizes need.

use crate::Result;
use std::path::Path;

/// A section that takes flash or memory.
pub(crate) struct Section {
    /// Its name.
    pub(crate) name: String,
    /// Where it lies when the program runs.
    pub(crate) address: u64,
    /// Bytes.
    pub(crate) size: u64,
    /// Its contents are in the file, not zeros or whatever was in memory.
    pub(crate) has_contents: bool,
}

/// A symbol.
pub(crate) struct Symbol {
    /// Its name, as the compiler writes it.
    pub(crate) name: String,
    /// Where it lies.
    pub(crate) address: u64,
    /// Bytes; 0 for what is only an address.
    pub(crate) size: u64,
}

/// The sections, and the symbols.
pub(crate) struct Elf {
    /// Sections that take flash or memory.
    pub(crate) sections: Vec<Section>,
    /// All symbols.
    pub(crate) symbols: Vec<Symbol>,
}

const SECTION_BYTES: usize = 40;
const SYMBOL_BYTES: usize = 16;
const SYMBOL_TABLE: u32 = 2;
const NO_CONTENTS: u32 = 8;
const ALLOCATED: u32 = 2;

impl Elf {
    /// Reads a file.
    ///
    /// # Errors
    /// A file that can't be read, or is none of ours.
    pub(crate) fn read(path: &Path) -> Result<Self> {
        let bytes = std::fs::read(path).map_err(|e| format!("{}: {e}", path.display()))?;
        Self::parse(&bytes).ok_or_else(|| format!("{}: not a 32-bit ELF file", path.display()))
    }

    fn parse(bytes: &[u8]) -> Option<Self> {
        if !bytes.starts_with(b"\x7fELF\x01\x01") {
            return None;
        }
        let headers: Vec<&[u8]> = (0..half(bytes, 48)?)
            .map(|i| bytes.get(word(bytes, 32)? + i * SECTION_BYTES..))
            .collect::<Option<_>>()?;
        let contents = |header: &[u8]| bytes.get(word(header, 16)?..)?.get(..word(header, 20)?);
        let names = contents(headers.get(half(bytes, 50)?)?)?;
        let (mut sections, mut symbols) = (vec![], vec![]);
        for header in &headers {
            let kind = word(header, 4)? as u32;
            if kind == SYMBOL_TABLE {
                let names = contents(headers.get(word(header, 24)?)?)?;
                for symbol in contents(header)?.chunks_exact(SYMBOL_BYTES) {
                    symbols.push(Symbol {
                        name: string(names, word(symbol, 0)?)?,
                        address: word(symbol, 4)? as u64,
                        size: word(symbol, 8)? as u64,
                    });
                }
            }
            let (address, size) = (word(header, 12)? as u64, word(header, 20)? as u64);
            if word(header, 8)? as u32 & ALLOCATED != 0 && size > 0 {
                let name = string(names, word(header, 0)?)?;
                sections.push(Section { name, address, size, has_contents: kind != NO_CONTENTS });
            }
        }
        Some(Self { sections, symbols })
    }

    /// Bytes of flash: code, constants, and the contents of variables.
    pub(crate) fn flash_bytes(&self) -> u64 {
        self.sections
            .iter()
            .filter(|section| section.has_contents)
            .map(|section| section.size)
            .sum()
    }

    /// A symbol's address.
    pub(crate) fn symbol(&self, name: &str) -> Option<u64> {
        self.symbols.iter().find(|symbol| symbol.name == name).map(|symbol| symbol.address)
    }
}

fn half(bytes: &[u8], at: usize) -> Option<usize> {
    Some(u16::from_le_bytes(*bytes.get(at..)?.first_chunk()?).into())
}

fn word(bytes: &[u8], at: usize) -> Option<usize> {
    usize::try_from(u32::from_le_bytes(*bytes.get(at..)?.first_chunk()?)).ok()
}

fn string(names: &[u8], at: usize) -> Option<String> {
    let name = names.get(at..)?.split(|byte| *byte == 0).next()?;
    Some(String::from_utf8_lossy(name).into_owned())
}
