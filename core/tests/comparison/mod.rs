//! A table of kernels against the portable one, without an operating system.

use omex_core::quant::{
    FloatGroup, GROUP, PANEL, QuantizedGroup, float16, float32, int4, int8, quantize_group,
};
use omex_core::simd::{Kernels, MAX_COLUMNS, MAX_PANELS, PORTABLE, PanelDot};

/// Blocks a panel, odd and even.
const GROUPS: [usize; 4] = [1, 2, 3, 8];
/// The most bytes of weights, activations and sums of one call.
const MAX_BYTES: usize = MAX_PANELS * 8 * float32::BLOCK_BYTES;
const MAX_X: usize = 8 * MAX_COLUMNS;
const MAX_SUMS: usize = MAX_PANELS * MAX_COLUMNS;

/// Two kernels that differ.
#[derive(Clone, Copy, Debug)]
#[allow(dead_code, reason = "read as far as there is something to show it on")]
pub(crate) struct Difference {
    /// The number of the comparison, from 1.
    pub(crate) number: u32,
    /// The kernel.
    pub(crate) kernel: &'static str,
    /// What it was given.
    pub(crate) panels: usize,
    /// Blocks a panel.
    pub(crate) groups: usize,
    /// Columns.
    pub(crate) columns: usize,
}

/// Compares every kernel of a table with the portable one, bit for bit; NaN is like NaN.
///
/// # Errors
/// The first difference.
pub(crate) fn compare(table: &Kernels) -> Result<(), Difference> {
    let mut comparison = Comparison { random: Random(0x9e37_79b9_7f4a_7c15), number: 0 };
    comparison.quantize(table)?;
    for numbers in [Numbers::Ordinary, Numbers::Largest, Numbers::Any] {
        let integers = |random: &mut Random| random.quantized(numbers);
        let floats = |random: &mut Random| random.floats(numbers);
        let (a, b) = (table, &PORTABLE);
        comparison.dots("int4", [a.int4, b.int4], int4::BLOCK_BYTES, numbers, integers)?;
        comparison.dots("int8", [a.int8, b.int8], int8::BLOCK_BYTES, numbers, integers)?;
        let bytes = float16::BLOCK_BYTES;
        comparison.dots("float16", [a.float16, b.float16], bytes, numbers, floats)?;
        let bytes = float32::BLOCK_BYTES;
        comparison.dots("float32", [a.float32, b.float32], bytes, numbers, floats)?;
    }
    Ok(())
}

/// Which numbers a kernel is given.
#[derive(Clone, Copy, PartialEq)]
enum Numbers {
    /// Small and finite.
    Ordinary,
    /// Integers as large as they come, all of the same sign.
    Largest,
    /// Any bits at all.
    Any,
}

struct Comparison {
    random: Random,
    number: u32,
}

impl Comparison {
    fn dots<X: Copy>(
        &mut self,
        kernel: &'static str,
        [dot, portable]: [PanelDot<X>; 2],
        block_bytes: usize,
        numbers: Numbers,
        x_of: impl Fn(&mut Random) -> X,
    ) -> Result<(), Difference> {
        let mut memory = [0; MAX_BYTES];
        let mut x = [x_of(&mut self.random); MAX_X];
        for panels in 1..=MAX_PANELS {
            for groups in GROUPS {
                for columns in 1..=MAX_COLUMNS {
                    let blocks = &mut memory[..panels * groups * block_bytes];
                    for block in blocks.chunks_mut(block_bytes) {
                        self.random.block(kernel, numbers, block);
                    }
                    let x = &mut x[..groups * columns];
                    x.iter_mut().for_each(|x| *x = x_of(&mut self.random));
                    let mut found = [[0.0; PANEL]; MAX_SUMS];
                    let found = &mut found[..panels * columns];
                    for sum in found.as_flattened_mut() {
                        *sum = self.random.float(Numbers::Ordinary);
                    }
                    let mut expected = [[0.0; PANEL]; MAX_SUMS];
                    let expected = &mut expected[..panels * columns];
                    expected.copy_from_slice(found);
                    dot(blocks, x, columns, found);
                    portable(blocks, x, columns, expected);
                    self.number += 1;
                    let mut pairs = found.as_flattened().iter().zip(expected.as_flattened());
                    if !pairs.all(|(found, expected)| same(*found, *expected)) {
                        let number = self.number;
                        return Err(Difference { number, kernel, panels, groups, columns });
                    }
                }
            }
        }
        Ok(())
    }

    fn quantize(&mut self, table: &Kernels) -> Result<(), Difference> {
        const SPECIAL: [f32; 8] =
            [f32::NAN, -f32::NAN, f32::INFINITY, f32::NEG_INFINITY, 1e-31, -1e-45, -0.0, f32::MAX];
        for round in 0..2000 {
            let mut x = [0.0; GROUP];
            match round % 4 {
                0 => x = self.random.floats(Numbers::Ordinary),
                1 => x = self.random.floats(Numbers::Any),
                // Halves, which round to even.
                2 => {
                    let mut value = || self.random.below(509) as f32 / 2.0 - 127.0;
                    x.iter_mut().for_each(|x| *x = value());
                    x[0] = 127.0;
                }
                // One number that is not like the others.
                _ => {
                    x = self.random.floats(Numbers::Ordinary);
                    x[self.random.below(GROUP)] = SPECIAL[self.random.below(SPECIAL.len())];
                }
            }
            let (found, expected) = ((table.quantize)(&x), quantize_group(&x));
            self.number += 1;
            if found.quads != expected.quads
                || found.int4_offset != expected.int4_offset
                || !same(found.scale, expected.scale)
            {
                let number = self.number;
                let kernel = "quantize";
                return Err(Difference { number, kernel, panels: 0, groups: 1, columns: 1 });
            }
        }
        Ok(())
    }
}

/// Which NaN it is differs from machine to machine.
fn same(a: f32, b: f32) -> bool {
    a.to_bits() == b.to_bits() || a.is_nan() && b.is_nan()
}

/// Numbers from a seed: xorshift.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u32 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 32) as u32
    }

    fn below(&mut self, end: usize) -> usize {
        self.next() as usize % end
    }

    /// Any bits are rarely used: were they always, every sum would be NaN.
    fn float(&mut self, numbers: Numbers) -> f32 {
        let rare = numbers == Numbers::Any && self.below(150) == 0;
        if rare {
            return f32::from_bits(self.next());
        }
        // From -2 to 2, of very different sizes.
        let exponent = 127 - self.below(24) as u32;
        f32::from_bits(self.next() & 0x807f_ffff | exponent << 23)
    }

    fn half(&mut self, numbers: Numbers) -> u16 {
        let rare = numbers == Numbers::Any && self.below(150) == 0;
        // Subnormals among them.
        let exponent = if rare { self.below(32) } else { self.below(16) } as u16;
        self.next() as u16 & 0x83ff | exponent << 10
    }

    fn floats(&mut self, numbers: Numbers) -> FloatGroup {
        let mut group = [0.0; GROUP];
        group.iter_mut().for_each(|x| *x = self.float(numbers));
        group
    }

    fn quantized(&mut self, numbers: Numbers) -> QuantizedGroup {
        let mut group = quantize_group(&self.floats(numbers));
        if numbers == Numbers::Largest {
            group.quads = [[if self.below(2) == 0 { 127 } else { -127 }; 4]; GROUP / 4];
            let sum: i32 = group.quads.as_flattened().iter().map(|q| i32::from(*q)).sum();
            group.int4_offset = -8 * sum;
        }
        group
    }

    /// A block of the format that a kernel reads.
    fn block(&mut self, kernel: &str, numbers: Numbers, block: &mut [u8]) {
        match kernel {
            "float32" => {
                for bytes in block.as_chunks_mut().0 {
                    *bytes = self.float(numbers).to_le_bytes();
                }
            }
            "float16" => self.halves(numbers, block),
            _ => {
                let (scales, integers) = block.split_at_mut(2 * PANEL);
                self.halves(numbers, scales);
                if numbers == Numbers::Largest {
                    // Of int4 the largest nibbles and the smallest, of int8 -128 and -1.
                    integers.fill([0xff, 0x00, 0x80][self.below(3)]);
                } else {
                    integers.iter_mut().for_each(|byte| *byte = self.next() as u8);
                }
            }
        }
    }

    fn halves(&mut self, numbers: Numbers, bytes: &mut [u8]) {
        for bytes in bytes.as_chunks_mut().0 {
            *bytes = self.half(numbers).to_le_bytes();
        }
    }
}
