//! What the board prints: a line for each token or output, and a summary. `cargo xtask board` reads it.

use crate::host::Output;
use crate::memory;
use core::fmt::Write;
use omex_core::simd::PORTABLE;

/// What happened so far.
pub struct Report<'o> {
    output: &'o mut Output,
    /// Tokens, or how often the outputs were printed.
    results: u32,
    /// Of all logits or outputs.
    crc32c: u32,
    /// Bytes read when the first result was there, if pages are read.
    read_at_first: Option<u64>,
    /// Those of the last inference, and those of the first.
    #[cfg(feature = "int8")]
    instructions: Option<[u64; 2]>,
    /// Those of all passes after the first token.
    #[cfg(feature = "text")]
    pass_instructions: Option<u64>,
    /// How long the text is, and how many positions the KV cache holds.
    positions: Option<[u32; 2]>,
    /// Bytes of the arena that hold the image's tables, the engine's memory, and pages.
    tables: u64,
    engine: usize,
    ring: usize,
}

impl<'o> Report<'o> {
    /// Nothing yet, but the image's tables in the arena.
    pub fn new(output: &'o mut Output, tables: u64) -> Self {
        Self {
            output,
            results: 0,
            crc32c: 0,
            read_at_first: None,
            #[cfg(feature = "int8")]
            instructions: None,
            #[cfg(feature = "text")]
            pass_instructions: None,
            positions: None,
            tables,
            engine: 0,
            ring: 0,
        }
    }

    /// Notes how many bytes of the arena the engine and the pages have.
    pub fn memory(&mut self, engine: usize, ring: usize) {
        (self.engine, self.ring) = (engine, ring);
    }

    /// Notes how long the text is, and how many positions the KV cache holds.
    #[cfg(feature = "text")]
    pub fn positions(&mut self, text: u32, cache: u32) {
        self.positions = Some([text, cache]);
    }

    /// Notes how many instructions an inference took.
    #[cfg(feature = "int8")]
    pub fn inference(&mut self, instructions: u64) {
        let first = self.instructions.map_or(instructions, |[_, first]| first);
        self.instructions = Some([instructions, first]);
    }

    /// Notes how many instructions it took to choose a token, and, but for the first one, the pass before.
    #[cfg(feature = "text")]
    pub fn pass(&mut self, instructions: u64) {
        self.pass_instructions = Some(match self.pass_instructions {
            Some(sum) => sum + instructions,
            None => 0,
        });
    }

    /// Counts a result, for which so much was read since the start.
    pub fn count(&mut self, bytes_read: Option<u64>) {
        if self.results == 0 {
            self.read_at_first = bytes_read;
        }
        self.results += 1;
    }

    /// Begins the line of a token that was chosen from `logits`.
    #[cfg(feature = "text")]
    pub fn begin_token(&mut self, token: u32, logits: &[f32], bytes_read: Option<u64>) {
        for logit in logits {
            self.crc32c = (PORTABLE.crc32c)(self.crc32c, &logit.to_le_bytes());
        }
        self.count(bytes_read);
        let _ = write!(self.output, "token {token} ");
    }

    /// A line with an output: the type of its values, their bytes in hexadecimal, and its name.
    #[cfg(feature = "int8")]
    pub fn output<const N: usize>(
        &mut self,
        name: &str,
        dtype: &str,
        values: impl Iterator<Item = [u8; N]>,
    ) {
        let _ = write!(self.output, "output {dtype} ");
        for value in values {
            self.crc32c = (PORTABLE.crc32c)(self.crc32c, &value);
            for byte in value {
                let _ = write!(self.output, "{byte:02x}");
            }
        }
        self.output.write(b" ");
        self.text(name);
        self.end_line();
    }

    /// Writes text on one line: line feeds, carriage returns and backslashes are escaped.
    pub fn text(&mut self, text: &str) {
        let mut rest = text.as_bytes();
        while let Some(place) = rest.iter().position(|b| matches!(b, b'\n' | b'\r' | b'\\')) {
            let (plain, special) = rest.split_at_checked(place).unwrap_or_default();
            self.output.write(plain);
            self.output.write(match special.first() {
                Some(b'\n') => b"\\n",
                Some(b'\r') => b"\\r",
                _ => b"\\\\",
            });
            rest = special.get(1..).unwrap_or_default();
        }
        self.output.write(rest);
    }

    /// Ends a line.
    pub fn end_line(&mut self) {
        self.output.write(b"\n");
    }

    /// Begins the line of what the last token left unfinished.
    #[cfg(feature = "text")]
    pub fn begin_end(&mut self) {
        self.output.write(b"end ");
    }

    /// The last line, without what the board has none of, and with these names for the checksum and for the bytes a result, which are those
    /// of the passes after the first result.
    pub fn summary(&mut self, [checksum, per_result]: [&str; 2], bytes_read: Option<u64>) {
        let (static_bytes, stack_bytes) = (memory::static_bytes(), memory::stack_bytes());
        let passes = u64::from(self.results.saturating_sub(1));
        let after_first = bytes_read.zip(self.read_at_first);
        let bytes_a_result =
            after_first.and_then(|(all, first)| all.saturating_sub(first).checked_div(passes));
        let numbers = [
            (checksum, Some(self.crc32c.into())),
            ("ram_bytes", Some((static_bytes + stack_bytes) as u64)),
            ("stack_bytes", Some(stack_bytes as u64)),
            ("stack_room_bytes", Some(memory::stack_room() as u64)),
            ("static_bytes", Some(static_bytes as u64)),
            ("tables_bytes", Some(self.tables)),
            ("engine_bytes", Some(self.engine as u64)),
            ("ring_bytes", Some(self.ring as u64)),
            #[cfg(feature = "int8")]
            ("instructions_per_inference", self.instructions.map(|[last, _]| last)),
            #[cfg(feature = "int8")]
            ("instructions_of_first_inference", self.instructions.map(|[_, first]| first)),
            #[cfg(feature = "text")]
            (
                "instructions_per_token",
                self.pass_instructions.and_then(|sum| sum.checked_div(passes)),
            ),
            ("positions", self.positions.map(|[used, _]| used.into())),
            ("kv_positions", self.positions.map(|[_, kept]| kept.into())),
            ("sd_bytes", bytes_read),
            (per_result, bytes_a_result),
        ];
        self.output.write(b"summary");
        for (name, number) in numbers {
            if let Some(number) = number {
                let _ = write!(self.output, " {name}={number}");
            }
        }
        self.end_line();
    }
}
