//! Zip archives whose files are stored as they are, which is how PyTorch writes checkpoints.
//!
//! The format is described in PKWARE's APPNOTE.TXT. The `zip` crate is not used because it brings a
//! dozen others for ciphers that it has anyway, and what is read here is where files lie.

use crate::import::source_file::SourceFile;
use crate::{Error, Result};
use std::collections::BTreeMap;
use std::ops::Range;

/// What to do with a file that contradicts itself.
pub(super) const DAMAGED: &str = "the file is damaged: get it again";
pub(super) const MAGIC: [u8; 4] = *b"PK\x03\x04";
/// The longest list of files that is read; that of 100,000 tensors has some 10 MB.
const MAX_DIRECTORY: u64 = 32 << 20;
/// Bytes of the record at the end, and of the comment that may follow.
const END: usize = 22;
const MAX_COMMENT: u64 = 0xffff;

/// A file in an archive.
#[derive(Clone, Copy, Debug)]
struct Member {
    /// How it is compressed, 0 for not at all.
    method: u16,
    flags: u16,
    length: u64,
    /// Where its header lies.
    header: u64,
}

/// An archive's list of files.
pub(super) struct Archive<'f> {
    file: &'f SourceFile,
    members: BTreeMap<String, Member>,
}

impl<'f> Archive<'f> {
    pub(super) fn open(file: &'f SourceFile) -> Result<Self> {
        let place = find_directory(file)?;
        let fits = place.end <= file.length && place.end - place.start <= MAX_DIRECTORY;
        if !fits {
            let found = format!("{} bytes from byte {} on", place.end - place.start, place.start);
            let expected = format!("at most {MAX_DIRECTORY} bytes within the file");
            return Err(file.malformed("zip directory", found, expected, DAMAGED));
        }
        let mut bytes = vec![0; (place.end - place.start) as usize];
        file.read("zip directory", place.start, &mut bytes)?;
        let mut archive = Self { file, members: BTreeMap::new() };
        let mut rest = bytes.as_slice();
        while !rest.is_empty() {
            rest = archive.add(rest)?;
        }
        Ok(archive)
    }

    /// Adds the first file of a list, and returns the rest of the list.
    fn add<'b>(&mut self, list: &'b [u8]) -> Result<&'b [u8]> {
        let bad = |found: &str| {
            self.file.malformed("zip directory", found, "a file's name and place", DAMAGED)
        };
        let Some((name, member, rest)) = member(list) else {
            return Err(bad("an entry that is none"));
        };
        let name = String::from_utf8_lossy(name).into_owned();
        if self.members.contains_key(&name) {
            return Err(bad(&format!("{name} a second time")));
        }
        self.members.insert(name, member);
        Ok(rest)
    }

    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.members.keys().map(String::as_str)
    }

    /// Where the content of a file lies, if there is such a file.
    pub(super) fn find(&self, name: &str) -> Result<Option<Range<u64>>> {
        let Some(member) = self.members.get(name) else { return Ok(None) };
        let encrypted = member.flags & 1 != 0;
        if member.method != 0 || encrypted {
            let found = match encrypted {
                true => "an encrypted file".to_owned(),
                false => format!("a file compressed by method {}", member.method),
            };
            let remedy = "save it again with torch.save, or pack the archive anew with zip -0";
            return Err(self.malformed(name, found, "one that is stored as it is", remedy));
        }
        let mut header = [0; 30];
        let read = self.file.read(name, member.header, &mut header);
        let at = |at: usize| u64::from(u16::from_le_bytes([header[at], header[at + 1]]));
        if read.is_err() || header[..4] != MAGIC {
            let found = format!("no file at byte {}", member.header);
            return Err(self.malformed(name, found, "one there, as the directory says", DAMAGED));
        }
        // Within the file, so that nothing here overflows.
        let start = member.header + 30 + at(26) + at(28);
        let end = start.checked_add(member.length).filter(|end| *end <= self.file.length);
        let end = end.ok_or_else(|| {
            let found = format!("{} bytes from byte {start} on", member.length);
            let expected = format!("an end within the file's {} bytes", self.file.length);
            self.malformed(name, found, expected, "the file is cut short: get it again")
        })?;
        Ok(Some(start..end))
    }

    fn malformed(
        &self,
        name: &str,
        found: String,
        expected: impl Into<String>,
        remedy: &str,
    ) -> Error {
        self.file.malformed(name, found, expected, remedy)
    }
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    bytes.get(at..)?.first_chunk().map(|bytes| u16::from_le_bytes(*bytes))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..)?.first_chunk().map(|bytes| u32::from_le_bytes(*bytes))
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    bytes.get(at..)?.first_chunk().map(|bytes| u64::from_le_bytes(*bytes))
}

/// Where the list of files lies, as the record at the end of the archive says.
fn find_directory(file: &SourceFile) -> Result<Range<u64>> {
    let length = file.length.min(END as u64 + MAX_COMMENT);
    let start = file.length - length;
    let mut bytes = vec![0; length as usize];
    file.read("zip directory", start, &mut bytes)?;
    let ends = |at: &usize| {
        let comment = u16_at(&bytes, at + 20).map(usize::from);
        bytes[*at..].starts_with(b"PK\x05\x06") && comment == Some(bytes.len() - at - END)
    };
    let last = bytes.len().checked_sub(END).and_then(|last| (0..=last).rev().find(ends));
    let record = last.and_then(|at| {
        let (length, offset) = (u32_at(&bytes, at + 12)?, u32_at(&bytes, at + 16)?);
        Some((at, length, offset))
    });
    let Some((at, length, offset)) = record else {
        let (found, remedy) =
            ("no list of files at the end", "the file is cut short: get it again");
        return Err(file.malformed("zip directory", found, "one", remedy));
    };
    if offset != u32::MAX && length != u32::MAX {
        return Ok(offset.into()..u64::from(offset) + u64::from(length));
    }
    let place = long_directory(file, start + at as u64)?;
    place.ok_or_else(|| file.malformed("zip directory", "no ZIP64 record", "one", DAMAGED))
}

/// The same for large archives, which have a second record; `end` is where the first lies.
fn long_directory(file: &SourceFile, end: u64) -> Result<Option<Range<u64>>> {
    let (mut locator, mut record) = ([0; 20], [0; 56]);
    let Some(at) = end.checked_sub(20) else { return Ok(None) };
    file.read("zip directory", at, &mut locator)?;
    let Some(at) = u64_at(&locator, 8).filter(|_| locator.starts_with(b"PK\x06\x07")) else {
        return Ok(None);
    };
    file.read("zip directory", at, &mut record)?;
    let place = u64_at(&record, 40).zip(u64_at(&record, 48));
    let place = place.filter(|_| record.starts_with(b"PK\x06\x06"));
    Ok(place.and_then(|(length, offset)| Some(offset..offset.checked_add(length)?)))
}

/// The first entry of a list: a name, what it stands for, and the rest of the list.
fn member(list: &[u8]) -> Option<(&[u8], Member, &[u8])> {
    if !list.starts_with(b"PK\x01\x02") {
        return None;
    }
    let [name, extra, comment] =
        [u16_at(list, 28)?, u16_at(list, 30)?, u16_at(list, 32)?].map(usize::from);
    let (entry, rest) = list.split_at_checked(46 + name + extra + comment)?;
    let (name, behind) = entry[46..].split_at(name);
    let mut long = long_fields(&behind[..extra]);
    // In this order, each only where 32 bits do not suffice.
    let mut wide = |value: u32| match value {
        u32::MAX => {
            let (value, rest) = long.split_first_chunk()?;
            long = rest;
            Some(u64::from_le_bytes(*value))
        }
        value => Some(value.into()),
    };
    let length = wide(u32_at(entry, 24)?)?;
    let _stored = wide(u32_at(entry, 20)?)?;
    let header = wide(u32_at(entry, 42)?)?;
    let member = Member { method: u16_at(entry, 10)?, flags: u16_at(entry, 8)?, length, header };
    Some((name, member, rest))
}

/// An entry's fields of 64 bits, which lie among what was added to the format later.
fn long_fields(mut extra: &[u8]) -> &[u8] {
    while let (Some(kind), Some(length)) = (u16_at(extra, 0), u16_at(extra, 2)) {
        let Some((field, rest)) = extra[4..].split_at_checked(length.into()) else { break };
        if kind == 1 {
            return field;
        }
        extra = rest;
    }
    &[]
}
