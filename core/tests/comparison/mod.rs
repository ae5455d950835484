//! A table of kernels against the portable one, without an operating system.

use core::ops::Range;
use omex_core::quant::{
    FloatGroup, GROUP, PANEL, QuantizedGroup, float16, float32, int4, int8, quantize_group,
};
use omex_core::simd::{
    Attend, FEW_COLUMNS, Kernels, KvHead, LANES, MAX_COLUMNS, MAX_PANELS, MAX_QUERIES, PORTABLE,
    PanelDot, Query, Scaling, Softmax,
};

/// Blocks a panel, odd and even.
const GROUPS: [usize; 5] = [1, 2, 3, 6, 8];
/// The most bytes of weights, activations and sums of one call.
const MAX_BYTES: usize = MAX_PANELS * 8 * float32::BLOCK_BYTES;
const MAX_X: usize = 8 * MAX_COLUMNS;
const MAX_SUMS: usize = MAX_PANELS * MAX_COLUMNS;

/// Numbers a position of a head, multiples of vectors and not.
const WIDTHS: [usize; 5] = [2, 8, 12, 64, 100];
const MAX_WIDTH: usize = 100;
/// Places of a cache: blocks of 32 and a part of one.
const PLACES: usize = 80;
/// What a query is shown, call by call: from and to the edges of panels and blocks, and between.
#[expect(clippy::single_range_in_vec_init, reason = "one call shows one range")]
const SHOWN: [&[Range<usize>]; 12] = [
    &[0..1],
    &[0..PLACES],
    &[0..33],
    &[5..7],
    &[5..5],
    &[7..9],
    &[8..32],
    &[31..33],
    &[40..41],
    &[0..4, 4..PLACES],
    &[0..3, 3..9, 9..64],
    &[0..4, 71..79, 37..38],
];

/// Two kernels that differ.
#[derive(Clone, Copy, Debug)]
#[allow(dead_code, reason = "read as far as there is something to show it on")]
pub(crate) struct Difference {
    /// The number of the comparison, from 1.
    pub(crate) number: u32,
    /// The kernel.
    pub(crate) kernel: &'static str,
    /// What it was given: panels, blocks of each, and columns; or a head's width, which of `SHOWN`,
    /// and queries.
    pub(crate) given: [usize; 3],
}

/// Compares every kernel of a table with the portable one, bit for bit; NaN is like NaN.
///
/// # Errors
/// The first difference.
pub(crate) fn compare(table: &Kernels) -> Result<(), Difference> {
    let mut comparison = Comparison { random: Random(0x9e37_79b9_7f4a_7c15), number: 0, most: 0 };
    comparison.quantize(table)?;
    comparison.elementwise("gelu", table.gelu, PORTABLE.gelu)?;
    comparison.elementwise("gelu_tanh", table.gelu_tanh, PORTABLE.gelu_tanh)?;
    for numbers in [Numbers::Ordinary, Numbers::Largest, Numbers::Any] {
        let integers = |random: &mut Random| random.quantized(numbers);
        let floats = |random: &mut Random| random.floats(numbers);
        let (a, b) = (table, &PORTABLE);
        comparison.most = a.tile(usize::MAX).columns();
        comparison.dots("int4", [a.int4, b.int4], int4::BLOCK_BYTES, numbers, integers)?;
        comparison.dots("int8", [a.int8, b.int8], int8::BLOCK_BYTES, numbers, integers)?;
        comparison.most = FEW_COLUMNS;
        let bytes = float16::BLOCK_BYTES;
        comparison.dots("float16", [a.float16, b.float16], bytes, numbers, floats)?;
        let bytes = float32::BLOCK_BYTES;
        comparison.dots("float32", [a.float32, b.float32], bytes, numbers, floats)?;
    }
    for numbers in [Numbers::Ordinary, Numbers::Any] {
        let (a, b) = (table, &PORTABLE);
        let half = |random: &mut Random| random.half(numbers);
        let attends = [a.attend_half, b.attend_half];
        comparison.attend("attend_half", attends, numbers, [0x7e00, 0xfc00], half)?;
        let single = |random: &mut Random| random.float(numbers);
        let attends = [a.attend_single, b.attend_single];
        comparison.attend("attend_single", attends, numbers, STALE, single)?;
        let int8 = |random: &mut Random| random.next() as i8;
        let attends = [a.attend_int8, b.attend_int8];
        comparison.attend("attend_int8", attends, numbers, [127, -128], int8)?;
    }
    Ok(())
}

/// What places hold that no query may see.
const STALE: [f32; 2] = [f32::NAN, f32::NEG_INFINITY];

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
    /// The most columns of a call.
    most: usize,
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
                for columns in 1..=self.most {
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
                        return Err(Difference {
                            number,
                            kernel,
                            given: [panels, groups, columns],
                        });
                    }
                }
            }
        }
        Ok(())
    }

    fn attend<T: Copy>(
        &mut self,
        kernel: &'static str,
        [attend, portable]: [Attend<T>; 2],
        numbers: Numbers,
        stale: [T; 2],
        number_of: impl Fn(&mut Random) -> T,
    ) -> Result<(), Difference> {
        let mut keys = [[stale[0]; LANES]; PLACES / LANES * MAX_WIDTH];
        let mut values = [stale[0]; PLACES * MAX_WIDTH];
        let mut scales = [[0.0; PLACES]; 2];
        for width in WIDTHS {
            let keys = &mut keys[..PLACES / LANES * width];
            let values = &mut values[..PLACES * width];
            for (case, shown) in SHOWN.iter().enumerate() {
                for place in 0..PLACES {
                    let visible = shown.iter().any(|places| places.contains(&place));
                    let number = |random: &mut Random| {
                        if visible { number_of(random) } else { stale[place % 2] }
                    };
                    for scales in &mut scales {
                        let scale = self.random.float(numbers).abs();
                        scales[place] = if visible { scale } else { STALE[place % 2] };
                    }
                    let panel = &mut keys[place / LANES * width..];
                    for (lanes, value) in
                        panel.iter_mut().zip(&mut values[place * width..]).take(width)
                    {
                        lanes[place % LANES] = number(&mut self.random);
                        *value = number(&mut self.random);
                    }
                }
                let [key_scales, value_scales] = &scales;
                let scales: (&[f32], &[f32]) = match kernel {
                    "attend_int8" => (key_scales, value_scales),
                    _ => (&[], &[]),
                };
                let head = KvHead { width, keys, values, scales };
                for count in 1..=MAX_QUERIES {
                    let mut queries = [[0.0; MAX_WIDTH]; MAX_QUERIES];
                    for x in queries.as_flattened_mut() {
                        *x = self.random.float(Numbers::Ordinary);
                    }
                    let queries = &queries[..count];
                    let (found, totals) = shown_to(queries, attend, &head, shown);
                    let (expected, expected_totals) = shown_to(queries, portable, &head, shown);
                    self.number += 1;
                    let found = found.as_flattened().iter().chain(&totals);
                    let expected = expected.as_flattened().iter().chain(&expected_totals);
                    // What no query may see would make them NaN.
                    let finite = numbers == Numbers::Any || found.clone().all(|x| x.is_finite());
                    if !finite || !found.zip(expected).all(|(a, b)| same(*a, *b)) {
                        let (number, given) = (self.number, [width, case, count]);
                        return Err(Difference { number, kernel, given });
                    }
                }
            }
        }
        Ok(())
    }

    fn elementwise(
        &mut self,
        kernel: &'static str,
        found: fn(&mut [f32]),
        portable: fn(&mut [f32]),
    ) -> Result<(), Difference> {
        let mut numbers = [0.0; 100];
        for length in 0..numbers.len() {
            let numbers = &mut numbers[..length];
            numbers.iter_mut().for_each(|x| *x = 4.0 * self.random.float(Numbers::Any));
            let mut expected = [0.0; 100];
            let expected = &mut expected[..length];
            expected.copy_from_slice(numbers);
            found(numbers);
            portable(expected);
            self.number += 1;
            if !numbers.iter().zip(expected).all(|(found, expected)| same(*found, *expected)) {
                let (number, given) = (self.number, [length, 1, 1]);
                return Err(Difference { number, kernel, given });
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
                return Err(Difference { number, kernel, given: [1; 3] });
            }
        }
        Ok(())
    }
}

/// The outputs and totals of queries after some calls; where there is no query, zeros.
fn shown_to<T: Copy>(
    queries: &[[f32; MAX_WIDTH]],
    attend: Attend<T>,
    head: &KvHead<'_, T>,
    shown: &[Range<usize>],
) -> ([[f32; MAX_WIDTH]; MAX_QUERIES], [f32; MAX_QUERIES]) {
    let mut outs = [[0.0; MAX_WIDTH]; MAX_QUERIES];
    let mut rest = outs.iter_mut();
    let mut tile: [Query<'_>; MAX_QUERIES] = core::array::from_fn(|i| Query {
        query: queries.get(i).map_or(&[], |query| &query[..head.width]),
        out: rest.next().map_or(&mut [], |out| &mut out[..head.width]),
        softmax: Softmax::EMPTY,
    });
    let count = queries.len();
    // Scores of wide heads are capped.
    let scale = Scaling { scale: 0.25, cap: if head.width > 16 { 2.0 } else { 0.0 } };
    for places in shown {
        attend(head, places.clone(), scale, &mut tile[..count]);
    }
    let totals = tile.map(|query| query.softmax.total());
    (outs, totals)
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
