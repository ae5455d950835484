//! Messages of protobuf, read where they lie: a file may be larger than memory, and little of it is looked
//! at (<https://protobuf.dev/programming-guides/encoding/>).

use crate::Result;
use crate::import::source_file::SourceFile;
use std::ops::Range;

/// Bytes that are read at once.
const PIECE: u64 = 64 << 10;
/// The longest text that is read.
const MAX_TEXT: u64 = 64 << 10;

/// Where in a file a message, or what is left of it, lies.
pub(super) type Span = Range<u64>;

/// A field's value.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Value {
    /// An integer of any size.
    Number(u64),
    /// 4 or 8 bytes.
    Fixed(Span),
    /// A text, bytes, a message, or numbers one after another.
    Span(Span),
}

/// A file of messages, of which a piece is in memory.
pub(super) struct Reader<'f> {
    pub(super) file: &'f SourceFile,
    piece: Vec<u8>,
    start: u64,
}

impl<'f> Reader<'f> {
    pub(super) fn new(file: &'f SourceFile) -> Self {
        Self { file, piece: vec![], start: 0 }
    }

    /// All of the file.
    pub(super) fn whole(&self) -> Span {
        0..self.file.length
    }

    /// The next field of a message with its number; none behind the last. What is left becomes shorter.
    pub(super) fn field(&mut self, left: &mut Span) -> Result<Option<(u64, Value)>> {
        if left.is_empty() {
            return Ok(None);
        }
        let at = left.start;
        let key = self.number(left)?;
        let value = match key & 7 {
            0 => Value::Number(self.number(left)?),
            1 => Value::Fixed(self.take(left, 8)?),
            2 => {
                let length = self.number(left)?;
                Value::Span(self.take(left, length)?)
            }
            5 => Value::Fixed(self.take(left, 4)?),
            other => return Err(self.damaged(at, format!("a value of type {other}"))),
        };
        Ok(Some((key >> 3, value)))
    }

    /// The next number of variable length.
    pub(super) fn number(&mut self, left: &mut Span) -> Result<u64> {
        let at = left.start;
        let mut number = 0;
        for shift in (0..64).step_by(7) {
            let place = self.take(left, 1)?.start;
            let byte = self.byte(place)?;
            number |= u64::from(byte & 127) << shift;
            if byte < 128 {
                return Ok(number);
            }
        }
        Err(self.damaged(at, "a number of more than 64 bits".into()))
    }

    /// A text; what is no UTF-8 in it is replaced.
    pub(super) fn text(&mut self, span: &Span) -> Result<String> {
        let length = span.end - span.start;
        if length > MAX_TEXT {
            return Err(self.damaged(span.start, format!("a name of {length} bytes")));
        }
        let bytes = self.bytes(span.clone())?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }

    /// The bytes of a short span.
    pub(super) fn bytes(&mut self, span: Span) -> Result<Vec<u8>> {
        let mut bytes = Vec::new();
        for at in span {
            bytes.push(self.byte(at)?);
        }
        Ok(bytes)
    }

    fn byte(&mut self, at: u64) -> Result<u8> {
        let here = |reader: &Self| {
            let place = usize::try_from(at.checked_sub(reader.start)?).ok()?;
            reader.piece.get(place).copied()
        };
        if let Some(byte) = here(self) {
            return Ok(byte);
        }
        self.piece.resize(PIECE.min(self.file.length.saturating_sub(at)) as usize, 0);
        self.start = at;
        self.file.read("a message", at, &mut self.piece)?;
        here(self).ok_or_else(|| self.damaged(at, "the end of the file".into()))
    }

    /// The first bytes of what is left.
    fn take(&self, left: &mut Span, length: u64) -> Result<Span> {
        let start = left.start;
        match start.checked_add(length).filter(|end| *end <= left.end) {
            Some(end) => {
                left.start = end;
                Ok(start..end)
            }
            None => {
                let found = format!("{length} bytes where {} are left", left.end - start);
                Err(self.damaged(start, found))
            }
        }
    }

    /// What is no message, or none that an ONNX file has there.
    pub(super) fn damaged(&self, at: u64, found: String) -> crate::Error {
        let expected = "a protobuf message, as ONNX files are made of";
        let remedy = "the file is damaged or cut short: get it again";
        self.file.malformed(format!("byte {at}"), found, expected, remedy)
    }
}
