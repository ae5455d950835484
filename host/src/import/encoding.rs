//! How files store numbers.

use super::blocks;
use half::slice::HalfFloatSliceExt;
use half::{bf16, f16};

/// Values in a block of most formats.
const BLOCK: u32 = 32;
/// Values in a block of the formats whose names have a K or an XS.
const SUPER_BLOCK: u32 = 256;

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
    /// 8-bit floats with 4 bits of exponent, without infinities.
    F8E4m3,
    /// 8-bit floats with 5 bits of exponent: the upper halves of 16-bit IEEE floats.
    F8E5m2,
    /// GGUF Q8_0: 32 values a block, f16 scale then 32 signed bytes.
    Q8_0,
    /// GGUF Q4_0: 32 values a block, f16 scale then 16 bytes, value = (nibble - 8) * scale; low
    /// nibbles hold values 0 to 15, high nibbles 16 to 31.
    Q4_0,
    /// GGUF Q4_1: as Q4_0, with a least value in place of the 8.
    Q4_1,
    /// GGUF Q5_0: as Q4_0, with a fifth bit.
    Q5_0,
    /// GGUF Q5_1: as Q4_1, with a fifth bit.
    Q5_1,
    /// GGUF Q2_K: 256 values a block, in parts of 16 with scales of their own, as all that end in K.
    Q2K,
    /// GGUF Q3_K.
    Q3K,
    /// GGUF Q4_K, in parts of 32.
    Q4K,
    /// GGUF Q5_K, in parts of 32.
    Q5K,
    /// GGUF Q6_K.
    Q6K,
    /// GGUF IQ4_NL: nibbles that stand for uneven steps.
    Iq4Nl,
    /// GGUF IQ4_XS: the same, 256 values a block, in parts of 32.
    Iq4Xs,
    /// GGUF MXFP4: floats of four bits with an exponent.
    Mxfp4,
    /// Numbers that no weight is stored as, which are not read: the format's name for them, and
    /// their bytes.
    Other(&'static str, u32),
}

impl Encoding {
    /// True for floats that are stored one by one.
    pub(super) const fn is_float(self) -> bool {
        self.block_values() == 1 && !matches!(self, Encoding::Other(..))
    }

    /// Values in a block, the smallest unit that can be stored.
    pub const fn block_values(self) -> u32 {
        match self {
            Encoding::F32
            | Encoding::F16
            | Encoding::Bf16
            | Encoding::F8E4m3
            | Encoding::F8E5m2
            | Encoding::Other(..) => 1,
            Encoding::Q2K
            | Encoding::Q3K
            | Encoding::Q4K
            | Encoding::Q5K
            | Encoding::Q6K
            | Encoding::Iq4Xs => SUPER_BLOCK,
            _ => BLOCK,
        }
    }

    /// Bytes of a block.
    pub const fn block_bytes(self) -> u32 {
        match self {
            Encoding::F32 => 4,
            Encoding::F16 | Encoding::Bf16 => 2,
            Encoding::F8E4m3 | Encoding::F8E5m2 => 1,
            Encoding::Q8_0 => 34,
            Encoding::Q4_0 | Encoding::Iq4Nl => 18,
            Encoding::Q4_1 => 20,
            Encoding::Q5_0 => 22,
            Encoding::Q5_1 => 24,
            Encoding::Q2K => 84,
            Encoding::Q3K => 110,
            Encoding::Q4K => 144,
            Encoding::Q5K => 176,
            Encoding::Q6K => 210,
            Encoding::Iq4Xs => 136,
            Encoding::Mxfp4 => 17,
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
        let decode = self.decoder();
        // Numbers that are stored one by one are decoded together.
        let at_once = if values == 1 { out.len().max(1) } else { 1 };
        let blocks = bytes.chunks_exact(block_bytes * at_once);
        let blocks = blocks.zip(out.chunks_exact_mut(values * at_once));
        blocks.for_each(|(block, values)| decode(block, values));
    }

    /// What turns a block into its values, or numbers that are stored one by one.
    fn decoder(self) -> fn(&[u8], &mut [f32]) {
        match self {
            Encoding::F32 => |b, v| one_by_one(b, v, f32::from_le_bytes),
            Encoding::F16 => halves,
            Encoding::Bf16 => |b, v| one_by_one(b, v, |b| bf16::from_le_bytes(b).to_f32()),
            Encoding::F8E4m3 => |b, v| one_by_one(b, v, |[b]| f8_e4m3(b)),
            Encoding::F8E5m2 => |b, v| one_by_one(b, v, |[b]| blocks::half(&[0, b], 0)),
            Encoding::Q8_0 => blocks::q8_0,
            Encoding::Q4_0 => blocks::q4_0,
            Encoding::Q4_1 => blocks::q4_1,
            Encoding::Q5_0 => blocks::q5_0,
            Encoding::Q5_1 => blocks::q5_1,
            Encoding::Q2K => blocks::q2_k,
            Encoding::Q3K => blocks::q3_k,
            Encoding::Q4K => blocks::q4_k,
            Encoding::Q5K => blocks::q5_k,
            Encoding::Q6K => blocks::q6_k,
            Encoding::Iq4Nl => blocks::iq4_nl,
            Encoding::Iq4Xs => blocks::iq4_xs,
            Encoding::Mxfp4 => blocks::mxfp4,
            Encoding::Other(name, _) => panic!("{name} is not read"),
        }
    }
}

fn one_by_one<const N: usize>(bytes: &[u8], out: &mut [f32], decode: impl Fn([u8; N]) -> f32) {
    for (bytes, x) in bytes.as_chunks().0.iter().zip(out) {
        *x = decode(*bytes);
    }
}

/// 16-bit floats, several at once where the processor can.
fn halves(bytes: &[u8], out: &mut [f32]) {
    let mut halves = [f16::ZERO; BLOCK as usize];
    for (bytes, out) in bytes.chunks(2 * halves.len()).zip(out.chunks_mut(BLOCK as usize)) {
        let halves = &mut halves[..out.len()];
        let stored = halves.iter_mut().zip(bytes.as_chunks().0);
        stored.for_each(|(half, bytes)| *half = f16::from_le_bytes(*bytes));
        halves.convert_to_f32_slice(out);
    }
}

/// The number that 8 bits stand for: sign, 4 bits of exponent, 3 of mantissa.
fn f8_e4m3(bits: u8) -> f32 {
    let (exponent, mantissa) = (bits >> 3 & 15, f32::from(bits & 7));
    let magnitude = match exponent {
        15 if bits & 7 == 7 => f32::NAN,
        0 => mantissa / 512.0,
        // A float's exponent has a bias of 127, this one's of 7.
        _ => (1.0 + mantissa / 8.0) * f32::from_bits((u32::from(exponent) + 120) << 23),
    };
    if bits & 0x80 == 0 { magnitude } else { -magnitude }
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
        let mut row = [0.0; BLOCK as usize];
        Encoding::Q4_0.decode(&block, &mut row);
        for i in 0..16 {
            assert_eq!(row[i], (i as f32 - 8.0) * 0.5);
            assert_eq!(row[16 + i], (7.0 - i as f32) * 0.5);
        }
    }

    #[test]
    fn floats_of_eight_bits_are_those_of_their_definition() {
        let decode = |encoding: Encoding, bits: u8| {
            let mut out = [0.0];
            encoding.decode(&[bits], &mut out);
            out[0]
        };
        let e4m3 = [
            (0x00, 0.0),
            (0x01, 1.0 / 512.0),
            (0x07, 7.0 / 512.0),
            (0x08, 1.0 / 64.0),
            (0x38, 1.0),
            (0x3c, 1.5),
            (0x7e, 448.0),
            (0xb9, -1.125),
        ];
        for (bits, value) in e4m3 {
            assert_eq!(decode(Encoding::F8E4m3, bits), value, "{bits:#x}");
        }
        assert!(decode(Encoding::F8E4m3, 0x7f).is_nan() && decode(Encoding::F8E4m3, 0xff).is_nan());
        for (bits, value) in [(0x01, 2f32.powi(-16)), (0x3c, 1.0), (0x7b, 57344.0), (0xc1, -2.5)] {
            assert_eq!(decode(Encoding::F8E5m2, bits), value, "{bits:#x}");
        }
        assert!(decode(Encoding::F8E5m2, 0x7c).is_infinite());
    }

    #[test]
    fn q8_0_bytes_are_signed() {
        let mut block = f16::from_f32(2.0).to_le_bytes().to_vec();
        block.extend((0..32u8).map(|i| i.wrapping_sub(16)));
        let mut row = [0.0; BLOCK as usize];
        Encoding::Q8_0.decode(&block, &mut row);
        assert_eq!((row[0], row[16], row[31]), (-32.0, 0.0, 30.0));
    }
}
