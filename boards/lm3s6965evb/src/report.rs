//! What the board prints: a line for each token, and a summary. `cargo xtask board` reads it.

use crate::host::Output;
use crate::memory;
use core::fmt::Write;
use omex_core::simd::PORTABLE;

/// What happened so far.
pub struct Report<'o> {
    output: &'o mut Output,
    tokens: u32,
    logits_crc32c: u32,
    /// Bytes read when the first token was there.
    read_at_first: u64,
}

impl<'o> Report<'o> {
    /// Nothing yet.
    pub fn new(output: &'o mut Output) -> Self {
        Self { output, tokens: 0, logits_crc32c: 0, read_at_first: 0 }
    }

    /// Begins the line of a token that was chosen from `logits`.
    pub fn token(&mut self, token: u32, logits: &[f32], bytes_read: u64) {
        let crc32c = PORTABLE.crc32c;
        for logit in logits {
            self.logits_crc32c = crc32c(self.logits_crc32c, &logit.to_le_bytes());
        }
        if self.tokens == 0 {
            self.read_at_first = bytes_read;
        }
        self.tokens += 1;
        let _ = write!(self.output, "token {token} ");
    }

    /// Ends the line of a token.
    pub fn end_token(&mut self) {
        self.output.write(b"\n");
    }

    /// The last line. Bytes per token are those of the passes after the first token.
    pub fn summary(&mut self, engine_bytes: usize, ring_bytes: usize, bytes_read: u64) {
        let stack = memory::stack_bytes();
        let passes = u64::from(self.tokens.saturating_sub(1)).max(1);
        let Self { output, tokens, logits_crc32c, .. } = self;
        let _ = writeln!(
            output,
            "summary tokens={tokens} logits_crc32c={logits_crc32c} ram_bytes={} stack_bytes={stack} \
             static_bytes={} arena_bytes={engine_bytes} ring_bytes={ring_bytes} sd_bytes={bytes_read} \
             sd_bytes_per_token={}",
            memory::static_bytes() + stack,
            memory::static_bytes(),
            bytes_read.saturating_sub(self.read_at_first).checked_div(passes).unwrap_or(0),
        );
    }
}
