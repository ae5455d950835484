//! How files store numbers.

use half::{bf16, f16};

/// Values in a block of Q8_0 and of Q4_0.
const BLOCK: usize = 32;

/// How a file stores the numbers of a tensor.
///
/// The quantized formats are those of [ggml](https://github.com/ggml-org/ggml/blob/master/src/ggml-common.h).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Encoding {
    /// 32-bit IEEE floats.
    F32,
    /// 16-bit IEEE floats.
    F16,
    /// bfloat16.
    Bf16,
    /// GGUF Q8_0: 32 values a block, f16 scale then 32 signed bytes.
    Q8_0,
    /// GGUF Q4_0: 32 values a block, f16 scale then 16 bytes, value = (nibble - 8) * scale; low
    /// nibbles hold values 0 to 15, high nibbles 16 to 31.
    Q4_0,
    /// Numbers that no weight is stored as, which are not read: the format's name for them, and
    /// their bytes.
    Other(&'static str, u32),
}

impl Encoding {
    /// Values in a block, the smallest unit that can be stored.
    pub const fn block_values(self) -> u32 {
        match self {
            Encoding::F32 | Encoding::F16 | Encoding::Bf16 | Encoding::Other(..) => 1,
            Encoding::Q8_0 | Encoding::Q4_0 => BLOCK as u32,
        }
    }

    /// Bytes of a block.
    pub const fn block_bytes(self) -> u32 {
        match self {
            Encoding::F32 => 4,
            Encoding::F16 | Encoding::Bf16 => 2,
            Encoding::Q8_0 => 2 + BLOCK as u32,
            Encoding::Q4_0 => 2 + BLOCK as u32 / 2,
            Encoding::Other(_, bytes) => bytes,
        }
    }

    /// Bytes of a row, or `None` when `columns` is not a whole number of blocks.
    pub fn row_bytes(self, columns: u32) -> Option<u64> {
        columns
            .is_multiple_of(self.block_values())
            .then(|| u64::from(columns / self.block_values()) * u64::from(self.block_bytes()))
    }

    /// Decodes a stored row.
    ///
    /// # Panics
    ///
    /// When `bytes` is not the length of a row of `out.len()` values, or they are not read.
    pub fn decode(self, bytes: &[u8], out: &mut [f32]) {
        let (block_bytes, values) = (self.block_bytes() as usize, self.block_values() as usize);
        assert!(
            out.len().is_multiple_of(values) && bytes.len() == out.len() / values * block_bytes
        );
        let blocks = bytes.chunks_exact(block_bytes).zip(out.chunks_exact_mut(values));
        match self {
            Encoding::F32 => {
                blocks.for_each(|(b, v)| v[0] = f32::from_le_bytes([b[0], b[1], b[2], b[3]]));
            }
            Encoding::F16 => blocks.for_each(|(b, v)| v[0] = scale(b)),
            Encoding::Bf16 => {
                blocks.for_each(|(b, v)| v[0] = bf16::from_le_bytes([b[0], b[1]]).to_f32());
            }
            Encoding::Q8_0 => blocks.for_each(|(b, v)| decode_q8_0(b, v)),
            Encoding::Q4_0 => blocks.for_each(|(b, v)| decode_q4_0(b, v)),
            Encoding::Other(name, _) => panic!("{name} is not read"),
        }
    }
}

fn scale(block: &[u8]) -> f32 {
    f16::from_le_bytes([block[0], block[1]]).to_f32()
}

fn decode_q8_0(block: &[u8], out: &mut [f32]) {
    let scale = scale(block);
    for (value, &byte) in out.iter_mut().zip(&block[2..]) {
        *value = f32::from(byte.cast_signed()) * scale;
    }
}

fn decode_q4_0(block: &[u8], out: &mut [f32]) {
    let scale = scale(block);
    let (low, high) = out.split_at_mut(BLOCK / 2);
    for ((low, high), &byte) in low.iter_mut().zip(high).zip(&block[2..]) {
        *low = (f32::from(byte & 15) - 8.0) * scale;
        *high = (f32::from(byte >> 4) - 8.0) * scale;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn row_lengths() {
        assert_eq!(Encoding::F32.row_bytes(3), Some(12));
        assert_eq!(Encoding::Bf16.row_bytes(3), Some(6));
        assert_eq!(Encoding::Q8_0.row_bytes(64), Some(68));
        assert_eq!(Encoding::Q4_0.row_bytes(64), Some(36));
        assert_eq!(Encoding::Q4_0.row_bytes(33), None);
        assert_eq!(Encoding::F32.row_bytes(u32::MAX), Some(4 * u64::from(u32::MAX)));
    }

    #[test]
    fn q4_0_nibbles_are_halves_of_the_block() {
        let mut block = f16::from_f32(0.5).to_le_bytes().to_vec();
        block.extend((0..16).map(|i| i | (15 - i) << 4));
        let mut row = [0.0; BLOCK];
        Encoding::Q4_0.decode(&block, &mut row);
        for i in 0..16 {
            assert_eq!(row[i], (i as f32 - 8.0) * 0.5);
            assert_eq!(row[16 + i], (7.0 - i as f32) * 0.5);
        }
    }

    #[test]
    fn q8_0_bytes_are_signed() {
        let mut block = f16::from_f32(2.0).to_le_bytes().to_vec();
        block.extend((0..32u8).map(|i| i.wrapping_sub(16)));
        let mut row = [0.0; BLOCK];
        Encoding::Q8_0.decode(&block, &mut row);
        assert_eq!((row[0], row[16], row[31]), (-32.0, 0.0, 30.0));
    }
}
