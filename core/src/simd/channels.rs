//! Convolutions of signed bytes with AVX-512 and VNNI: sixteen output channels are the lanes of a vector.

#![expect(clippy::indexing_slicing, reason = "constant lengths only")]

use core::arch::x86_64::*;

/// Output channels that are computed at once.
pub const CHANNELS: usize = 16;
/// Four weights, or four staged numbers, of each of the channels.
pub type Quad = [[u8; 4]; CHANNELS];
/// A sum for each of the channels.
pub type Sums = [i32; CHANNELS];

/// Windows of an image, each some lines of it.
#[derive(Clone, Copy, Debug)]
pub struct Windows {
    /// How many there are.
    pub count: usize,
    /// Bytes from one to the next, in the image and where they are staged.
    pub steps: [usize; 2],
    /// Lines of a window, and the bytes of one.
    pub lines: [usize; 2],
    /// Bytes from a line to the next, in the image and where they are staged.
    pub line_steps: [usize; 2],
}

/// How sums of sixteen channels become bytes.
#[derive(Clone, Debug)]
pub struct Heads {
    /// What is added to the sums.
    pub offsets: Sums,
    /// Each channel's multiplier.
    pub multipliers: Sums,
    /// Bits that sums are shifted to the left before they are multiplied, at most 31.
    pub left: Sums,
    /// Bits that they are shifted to the right then, at most 31.
    pub right: Sums,
    /// What is added to bytes.
    pub zero: i32,
    /// The least and the largest byte.
    pub clamp: [i32; 2],
    /// True if nothing is shifted to the left, and what is shifted to the right stays below 2^30.
    pub small: bool,
}

impl Heads {
    /// Of no channels.
    pub const NONE: Self = Self {
        offsets: [0; CHANNELS],
        multipliers: [0; CHANNELS],
        left: [0; CHANNELS],
        right: [0; CHANNELS],
        zero: 0,
        clamp: [0; 2],
        small: true,
    };
}

/// Pixels of a row of an image, and what is beside it.
#[derive(Clone, Copy, Debug)]
pub struct Row {
    /// Bytes from a pixel to the next.
    pub step: usize,
    /// How many channels are seen.
    pub lanes: usize,
    /// Pixels beside the image, before those on it.
    pub before: usize,
    /// Pixels on the image.
    pub seen: usize,
    /// What is seen beside the image.
    pub zero: i8,
}

/// A product of fixed-point numbers: what it is multiplied with, and then shifted by.
#[derive(Clone, Copy, Debug)]
pub struct Scale {
    /// Taken off before.
    pub zero: i32,
    /// See [`crate::fixed_point::multiply_by_quantized_multiplier`]; not the lowest number.
    pub multiplier: i32,
    /// As above.
    pub shift: i32,
}

/// Kernels for convolutions of signed bytes, and for their sums. What does not fit into the slices they are given is
/// left out.
#[derive(Clone, Copy, Debug)]
pub struct Convolve {
    /// Copies windows; bytes become unsigned, 128 more than they were.
    pub stage: fn(image: &[i8], windows: Windows, staged: &mut [u8]),
    /// Lays weights of at most sixteen channels out, quad by quad; returns their sums.
    pub pack: fn(rows: &[&[u8]], panel: &mut [Quad]) -> Sums,
    /// Multiplies panels of `depth` quads with windows of as many quads: `sums` is `[panels][windows]`.
    pub multiply: fn(panels: &[Quad], depth: usize, windows: &[u8], sums: &mut [Sums]),
    /// Multiplies at most sixteen rows of weights with a staged window, from whose numbers `zero` is taken.
    pub dot: fn(rows: &[&[u8]], window: &[u8], zero: i32) -> Sums,
    /// Stages each pixel of a row, which begins with the first on the image, beside the three behind it; bytes
    /// become unsigned.
    pub quads: fn(image: &[i8], row: Row, quads: &mut [Quad]),
    /// Multiplies weights with what was staged: the number `n` of the sums sees the quads at `places`, `n` · `step`
    /// farther.
    pub depthwise: Depthwise,
    /// Writes a byte for each sum, as TensorFlow Lite's reference kernels round it; `lanes` bytes at each `step`.
    pub rescale: fn(sums: &[Sums], heads: &Heads, out: &mut [i8], step: usize, lanes: usize),
    /// Adds two values as TensorFlow Lite's reference kernels do; [`Scale`]s of both and of their sum, whose zero is
    /// added; the least and the largest result.
    pub add: Add,
}

/// See [`Convolve::depthwise`].
pub type Depthwise =
    fn(quads: &[Quad], places: &[usize], step: usize, weights: &[Quad], sums: &mut [Sums]);
/// See [`Convolve::add`].
pub type Add = fn(values: [&[i8]; 2], scales: [Scale; 3], clamp: [i8; 2], out: &mut [i8]);

/// The kernels.
///
/// # Safety
/// The CPU must have of AVX-512 F, BW, VL and VNNI.
pub(super) const unsafe fn convolve() -> Convolve {
    Convolve {
        // SAFETY: the caller vouches for the instruction sets; so it is for all of these.
        stage: |image, windows, staged| unsafe { stage(image, windows, staged) },
        // SAFETY: as above.
        pack: |rows, panel| unsafe { pack(rows, panel) },
        // SAFETY: as above.
        multiply: |panels, depth, windows, sums| unsafe { multiply(panels, depth, windows, sums) },
        // SAFETY: as above.
        dot: |rows, window, zero| unsafe { dot(rows, window, zero) },
        // SAFETY: as above.
        quads: |image, row, quads| unsafe { stage_quads(image, row, quads) },
        // SAFETY: as above.
        depthwise: |quads, places, step, weights, sums| unsafe {
            depthwise(quads, places, step, weights, sums);
        },
        // SAFETY: as above.
        rescale: |sums, heads, out, step, lanes| unsafe { rescale(sums, heads, out, step, lanes) },
        // SAFETY: as above.
        add: |values, scales, clamp, out| unsafe { add(values, scales, clamp, out) },
    }
}

/// The end of the last of `count` pieces.
fn end(count: usize, step: usize, piece: usize) -> Option<usize> {
    count.checked_sub(1)?.checked_mul(step)?.checked_add(piece)
}

/// True if windows end within what they are read from, and within where they are staged.
fn fit(windows: &Windows, room: [usize; 2]) -> bool {
    let Windows { count, steps, lines: [lines, length], line_steps } = *windows;
    let fits = |step: usize, line_step: usize, room: usize| {
        let piece = end(lines, line_step, length);
        piece.and_then(|piece| end(count, step, piece)).is_some_and(|end| end <= room)
    };
    fits(steps[0], line_steps[0], room[0]) && fits(steps[1], line_steps[1], room[1])
}

#[target_feature(enable = "avx512f,avx512bw")]
fn stage(image: &[i8], windows: Windows, staged: &mut [u8]) {
    if !fit(&windows, [image.len(), staged.len()]) {
        return;
    }
    let Windows { count, steps, lines: [lines, length], line_steps } = windows;
    let high = _mm512_set1_epi8(i8::MIN);
    for window in 0..count {
        for line in 0..lines {
            let mut from = window * steps[0] + line * line_steps[0];
            let mut to = window * steps[1] + line * line_steps[1];
            let mut left = length;
            while left > 0 {
                let mask = first(left);
                // SAFETY: the last line of the last window ends within both slices.
                unsafe {
                    let bytes = _mm512_maskz_loadu_epi8(mask, image.as_ptr().add(from));
                    let bytes = _mm512_xor_si512(bytes, high);
                    _mm512_mask_storeu_epi8(staged.as_mut_ptr().add(to).cast(), mask, bytes);
                }
                (from, to, left) = (from + 64, to + 64, left.saturating_sub(64));
            }
        }
    }
}

/// The first bits of a mask.
fn first(count: usize) -> u64 {
    u64::MAX >> (64 - count.clamp(1, 64))
}

#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
fn pack(rows: &[&[u8]], panel: &mut [Quad]) -> Sums {
    let mut sums = _mm512_setzero_si512();
    for (number, quads) in panel.chunks_mut(16).enumerate() {
        let wanted = first(4 * quads.len());
        let mut block = [_mm512_setzero_si512(); 16];
        for (block, row) in block.iter_mut().zip(rows) {
            let bytes = row.get(64 * number..).unwrap_or_default();
            if !bytes.is_empty() {
                let mask = wanted & first(bytes.len());
                // SAFETY: the row has as many bytes left.
                *block = unsafe { _mm512_maskz_loadu_epi8(mask, bytes.as_ptr().cast()) };
            }
        }
        for (quad, bytes) in quads.iter_mut().zip(turn(block)) {
            sums = _mm512_dpbusd_epi32(sums, _mm512_set1_epi8(1), bytes);
            // SAFETY: a quad is 64 bytes.
            unsafe { _mm512_storeu_si512(quad.as_mut_ptr().cast(), bytes) };
        }
    }
    let mut out = [0; CHANNELS];
    // SAFETY: sixteen numbers of 32 bits.
    unsafe { _mm512_storeu_si512(out.as_mut_ptr().cast(), sums) };
    out
}

/// Rows of sixteen words become columns.
#[target_feature(enable = "avx512f")]
fn turn(rows: [__m512i; 16]) -> [__m512i; 16] {
    let mut twos = rows;
    for i in 0..8 {
        twos[2 * i] = _mm512_unpacklo_epi32(rows[2 * i], rows[2 * i + 1]);
        twos[2 * i + 1] = _mm512_unpackhi_epi32(rows[2 * i], rows[2 * i + 1]);
    }
    // Number 4i + j: column j of each lane of rows 4i to 4i + 3.
    let mut fours = twos;
    for i in 0..4 {
        let [a, b, c, d] = [twos[4 * i], twos[4 * i + 1], twos[4 * i + 2], twos[4 * i + 3]];
        fours[4 * i] = _mm512_unpacklo_epi64(a, c);
        fours[4 * i + 1] = _mm512_unpackhi_epi64(a, c);
        fours[4 * i + 2] = _mm512_unpacklo_epi64(b, d);
        fours[4 * i + 3] = _mm512_unpackhi_epi64(b, d);
    }
    let mut columns = fours;
    for j in 0..4 {
        let [a, b, c, d] = [fours[j], fours[4 + j], fours[8 + j], fours[12 + j]];
        let even = [
            _mm512_shuffle_i32x4::<0b10_00_10_00>(a, b),
            _mm512_shuffle_i32x4::<0b10_00_10_00>(c, d),
        ];
        let odd = [
            _mm512_shuffle_i32x4::<0b11_01_11_01>(a, b),
            _mm512_shuffle_i32x4::<0b11_01_11_01>(c, d),
        ];
        columns[j] = _mm512_shuffle_i32x4::<0b10_00_10_00>(even[0], even[1]);
        columns[8 + j] = _mm512_shuffle_i32x4::<0b11_01_11_01>(even[0], even[1]);
        columns[4 + j] = _mm512_shuffle_i32x4::<0b10_00_10_00>(odd[0], odd[1]);
        columns[12 + j] = _mm512_shuffle_i32x4::<0b11_01_11_01>(odd[0], odd[1]);
    }
    columns
}

/// Windows that are multiplied with panels at once.
const AT_ONCE: usize = 8;

#[target_feature(enable = "avx512f,avx512vnni")]
fn multiply(panels: &[Quad], depth: usize, windows: &[u8], sums: &mut [Sums]) {
    let (depth, (words, _)) = (depth.max(1), windows.as_chunks::<4>());
    let count = words.len() / depth;
    for (panels, sums) in panels.chunks(2 * depth).zip(sums.chunks_mut((2 * count).max(1))) {
        for (number, words) in words.chunks(AT_ONCE * depth).enumerate() {
            let place = [number * AT_ONCE, count];
            let both = panels.len() == 2 * depth && sums.len() == 2 * count;
            macro_rules! tiles {
                ($($windows:literal)*) => {
                    match words.len() / depth {
                        $($windows if both => tile::<2, $windows>(panels, words, depth, sums, place),
                        $windows => tile::<1, $windows>(panels, words, depth, sums, place),)*
                        _ => {}
                    }
                };
            }
            tiles!(1 2 3 4 5 6 7 8);
        }
    }
}

/// Multiplies panels with windows; the sums lie from the first number of `place` on, from a panel to the next so
/// many as the second says.
#[target_feature(enable = "avx512f,avx512vnni")]
fn tile<const PANELS: usize, const WINDOWS: usize>(
    panels: &[Quad],
    words: &[[u8; 4]],
    depth: usize,
    sums: &mut [Sums],
    [at, count]: [usize; 2],
) {
    if panels.len() < PANELS * depth || words.len() < WINDOWS * depth {
        return;
    }
    let mut all = [[_mm512_setzero_si512(); WINDOWS]; PANELS];
    for k in 0..depth {
        let mut quads = [_mm512_setzero_si512(); PANELS];
        for (panel, quad) in quads.iter_mut().enumerate() {
            // SAFETY: there are as many panels, and `k` is below their depth.
            *quad = unsafe { _mm512_loadu_si512(panels.as_ptr().add(panel * depth + k).cast()) };
        }
        for window in 0..WINDOWS {
            // SAFETY: there are as many windows, and `k` is below their depth.
            let word = unsafe { *words.get_unchecked(window * depth + k) };
            let word = _mm512_set1_epi32(i32::from_le_bytes(word));
            for (all, quad) in all.iter_mut().zip(quads) {
                all[window] = _mm512_dpbusd_epi32(all[window], word, quad);
            }
        }
    }
    #[expect(clippy::needless_range_loop, reason = "by reference, all of them would be copied")]
    for panel in 0..PANELS {
        let sums = sums.get_mut(panel * count + at..).unwrap_or_default();
        for (window, sums) in sums.iter_mut().enumerate().take(WINDOWS) {
            // SAFETY: sixteen numbers of 32 bits.
            unsafe { _mm512_storeu_si512(sums.as_mut_ptr().cast(), all[panel][window]) };
        }
    }
}

#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
fn dot(rows: &[&[u8]], window: &[u8], zero: i32) -> Sums {
    let zero = _mm512_set1_epi32(zero.wrapping_add(128));
    let mut all = [_mm512_setzero_si512(); CHANNELS];
    for (all, row) in all.iter_mut().zip(rows) {
        let [mut sums, mut weights] = [_mm512_setzero_si512(); 2];
        for (row, window) in row.chunks(64).zip(window.chunks(64)) {
            let mask = first(row.len().min(window.len()));
            // SAFETY: both have as many bytes.
            let (w, x) = unsafe {
                let weights = _mm512_maskz_loadu_epi8(mask, row.as_ptr().cast());
                (weights, _mm512_maskz_loadu_epi8(mask, window.as_ptr().cast()))
            };
            sums = _mm512_dpbusd_epi32(sums, x, w);
            weights = _mm512_dpbusd_epi32(weights, _mm512_set1_epi8(1), w);
        }
        *all = _mm512_sub_epi32(sums, _mm512_mullo_epi32(weights, zero));
    }
    let mut sums = _mm512_setzero_si512();
    for column in turn(all) {
        sums = _mm512_add_epi32(sums, column);
    }
    let mut out = [0; CHANNELS];
    // SAFETY: sixteen numbers of 32 bits.
    unsafe { _mm512_storeu_si512(out.as_mut_ptr().cast(), sums) };
    out
}

#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
fn stage_quads(image: &[i8], row: Row, quads: &mut [Quad]) {
    let Row { step, lanes, before, seen, zero } = row;
    let lanes = lanes.min(CHANNELS);
    if lanes == 0 || seen > 0 && end(seen, step, lanes).is_none_or(|end| end > image.len()) {
        return;
    }
    let mask = first(lanes) as u16;
    let high = _mm_set1_epi8(i8::MIN);
    let beside = _mm512_cvtepu8_epi32(_mm_xor_si128(_mm_set1_epi8(zero), high));
    let mut all = _mm512_setzero_si512();
    for (column, quad) in quads.iter_mut().enumerate().rev() {
        let pixel = column.wrapping_sub(before);
        let mut number = beside;
        if pixel < seen {
            // SAFETY: the last pixel's bytes end within the image.
            let bytes = unsafe { _mm_maskz_loadu_epi8(mask, image.as_ptr().add(pixel * step)) };
            number = _mm512_cvtepu8_epi32(_mm_xor_si128(bytes, high));
        }
        all = _mm512_or_si512(_mm512_slli_epi32::<8>(all), number);
        // SAFETY: a quad is 64 bytes.
        unsafe { _mm512_storeu_si512(quad.as_mut_ptr().cast(), all) };
    }
}

#[target_feature(enable = "avx512f,avx512vnni")]
fn depthwise(quads: &[Quad], places: &[usize], step: usize, weights: &[Quad], sums: &mut [Sums]) {
    let last = places.iter().max().copied().unwrap_or_default();
    let fits = last.checked_add(1).and_then(|last| end(sums.len(), step, last));
    if fits.is_none_or(|end| end > quads.len()) {
        return;
    }
    let (fours, rest) = sums.as_chunks_mut::<4>();
    let done = fours.len() * 4;
    for (number, sums) in fours.iter_mut().enumerate() {
        // SAFETY: the last pixel's last quad is there.
        unsafe { pixels(quads, [places, &[4 * number * step]], step, weights, sums) };
    }
    for (number, sum) in rest.iter_mut().enumerate() {
        let from = [(done + number) * step];
        // SAFETY: as above.
        unsafe { pixels(quads, [places, &from], step, weights, core::array::from_mut(sum)) };
    }
}

/// Some pixels, whose quads lie from places on, and so much farther.
///
/// # Safety
/// The quads must be there.
#[target_feature(enable = "avx512f,avx512vnni")]
unsafe fn pixels<const N: usize>(
    quads: &[Quad],
    [places, from]: [&[usize]; 2],
    step: usize,
    weights: &[Quad],
    sums: &mut [Sums; N],
) {
    let from = from.iter().sum::<usize>();
    let mut all = [_mm512_setzero_si512(); N];
    for (place, weights) in places.iter().zip(weights) {
        // SAFETY: a quad is 64 bytes.
        let weights = unsafe { _mm512_loadu_si512(weights.as_ptr().cast()) };
        for (number, sum) in all.iter_mut().enumerate() {
            // SAFETY: as the caller promises.
            let seen = unsafe {
                _mm512_loadu_si512(quads.as_ptr().add(place + from + number * step).cast())
            };
            *sum = _mm512_dpbusd_epi32(*sum, seen, weights);
        }
    }
    for (sums, sum) in sums.iter_mut().zip(all) {
        // SAFETY: sixteen numbers of 32 bits.
        unsafe { _mm512_storeu_si512(sums.as_mut_ptr().cast(), sum) };
    }
}

/// Multipliers of sixteen channels.
struct Multipliers {
    even: __m512i,
    odd: __m512i,
    left: __m512i,
    right: __m512i,
    /// The bits that are shifted out, and half of them.
    mask: __m512i,
    threshold: __m512i,
    half: __m512i,
    /// The channels that are shifted to the right.
    shifted: __mmask16,
}

impl Multipliers {
    #[target_feature(enable = "avx512f")]
    fn new([multipliers, left, right]: [__m512i; 3]) -> Self {
        let one = _mm512_set1_epi32(1);
        let mask = _mm512_sub_epi32(_mm512_sllv_epi32(one, right), one);
        let threshold = _mm512_srli_epi32::<1>(mask);
        let half = _mm512_sub_epi32(mask, threshold);
        let odd = _mm512_srli_epi64::<32>(multipliers);
        let shifted = _mm512_test_epi32_mask(right, right);
        Self { even: multipliers, odd, left, right, mask, threshold, half, shifted }
    }

    #[target_feature(enable = "avx512f")]
    fn of(scale: Scale) -> Self {
        let left = scale.shift.clamp(0, 31);
        let right = scale.shift.saturating_neg().clamp(0, 31);
        Self::new([
            _mm512_set1_epi32(scale.multiplier),
            _mm512_set1_epi32(left),
            _mm512_set1_epi32(right),
        ])
    }

    /// See [`crate::fixed_point::multiply_by_quantized_multiplier`].
    #[target_feature(enable = "avx512f")]
    #[inline]
    fn scale(&self, x: __m512i) -> __m512i {
        let x = self.high_product(_mm512_sllv_epi32(x, self.left));
        // Half away from zero.
        let rest = _mm512_and_si512(x, self.mask);
        let threshold = _mm512_sub_epi32(self.threshold, _mm512_srai_epi32::<31>(x));
        let above = _mm512_cmpgt_epi32_mask(rest, threshold);
        let x = _mm512_srav_epi32(x, self.right);
        _mm512_mask_add_epi32(x, above, x, _mm512_set1_epi32(1))
    }

    /// The same, where nothing is shifted to the left, and sums with half of what is shifted out do not overflow.
    #[target_feature(enable = "avx512f")]
    #[inline]
    fn scale_small(&self, x: __m512i) -> __m512i {
        let x = self.high_product(x);
        let nudge = _mm512_add_epi32(self.half, _mm512_srai_epi32::<31>(x));
        // Where nothing is shifted out, nothing is rounded.
        let nudge = _mm512_maskz_mov_epi32(self.shifted, nudge);
        _mm512_srav_epi32(_mm512_add_epi32(x, nudge), self.right)
    }

    /// See [`crate::fixed_point::high_mul`].
    #[target_feature(enable = "avx512f")]
    #[inline]
    fn high_product(&self, x: __m512i) -> __m512i {
        // The high halves of twice the products, rounded.
        let half = _mm512_set1_epi64(1 << 30);
        let evens = _mm512_add_epi64(_mm512_mul_epi32(x, self.even), half);
        let odds = _mm512_mul_epi32(_mm512_srli_epi64::<32>(x), self.odd);
        let odds = _mm512_add_epi64(odds, half);
        let (evens, odds) = (_mm512_srli_epi64::<31>(evens), _mm512_slli_epi64::<1>(odds));
        _mm512_mask_blend_epi32(0xaaaa, evens, odds)
    }
}

/// What numbers become as bytes.
struct Bytes {
    zero: __m512i,
    low: __m512i,
    high: __m512i,
}

impl Bytes {
    #[target_feature(enable = "avx512f")]
    fn new(zero: i32, clamp: [i32; 2]) -> Self {
        let [low, high] = [_mm512_set1_epi32(clamp[0] - zero), _mm512_set1_epi32(clamp[1] - zero)];
        Self { zero: _mm512_set1_epi32(zero), low, high }
    }

    #[target_feature(enable = "avx512f")]
    #[inline]
    fn of(&self, x: __m512i) -> __m128i {
        let x = _mm512_max_epi32(_mm512_min_epi32(x, self.high), self.low);
        _mm512_cvtepi32_epi8(_mm512_add_epi32(x, self.zero))
    }

    /// The same of numbers below 2^30, where any byte will do.
    #[target_feature(enable = "avx512f")]
    #[inline]
    fn of_small(&self, x: __m512i) -> __m128i {
        _mm512_cvtsepi32_epi8(_mm512_add_epi32(x, self.zero))
    }
}

#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
fn rescale(sums: &[Sums], heads: &Heads, out: &mut [i8], step: usize, lanes: usize) {
    let lanes = lanes.min(CHANNELS);
    if lanes == 0 || end(sums.len(), step, lanes).is_none_or(|end| end > out.len()) {
        return;
    }
    // SAFETY: sixteen numbers of 32 bits.
    let load = |numbers: &Sums| unsafe { _mm512_loadu_si512(numbers.as_ptr().cast()) };
    let offsets = load(&heads.offsets);
    let multipliers =
        Multipliers::new([load(&heads.multipliers), load(&heads.left), load(&heads.right)]);
    let bytes = Bytes::new(heads.zero, heads.clamp);
    let kept = first(lanes) as u16;
    let whole = heads.clamp == [i32::from(i8::MIN), i32::from(i8::MAX)];
    for (number, sums) in sums.iter().enumerate() {
        let x = _mm512_add_epi32(load(sums), offsets);
        let x = if heads.small { multipliers.scale_small(x) } else { multipliers.scale(x) };
        let x = if whole && heads.small { bytes.of_small(x) } else { bytes.of(x) };
        // SAFETY: the last sum's bytes end within the slice.
        unsafe { _mm_mask_storeu_epi8(out.as_mut_ptr().add(number * step), kept, x) };
    }
}

#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
fn add(values: [&[i8]; 2], scales: [Scale; 3], clamp: [i8; 2], out: &mut [i8]) {
    let [first_value, second_value] = values;
    let zeros = [_mm512_set1_epi32(scales[0].zero), _mm512_set1_epi32(scales[1].zero)];
    let [one, two, sum] = scales;
    let (one, two, sum) = (Multipliers::of(one), Multipliers::of(two), Multipliers::of(sum));
    let bytes = Bytes::new(scales[2].zero, clamp.map(i32::from));
    let chunks = out.chunks_mut(CHANNELS);
    let inputs = first_value.chunks(CHANNELS).zip(second_value.chunks(CHANNELS));
    for (out, (x, y)) in chunks.zip(inputs) {
        let mask = first(out.len().min(x.len()).min(y.len())) as u16;
        let load = |bytes: &[i8], zero: __m512i| {
            // SAFETY: both have as many bytes as the mask has bits.
            let bytes = unsafe { _mm_maskz_loadu_epi8(mask, bytes.as_ptr()) };
            let number = _mm512_sub_epi32(_mm512_cvtepi8_epi32(bytes), zero);
            _mm512_slli_epi32::<ADD_SHIFT>(number)
        };
        let x = one.scale(load(x, zeros[0]));
        let y = two.scale(load(y, zeros[1]));
        let sum = sum.scale(_mm512_add_epi32(x, y));
        // SAFETY: and so has the output.
        unsafe { _mm_mask_storeu_epi8(out.as_mut_ptr(), mask, bytes.of(sum)) };
    }
}

/// Bits behind the point that inputs of sums get before they are scaled.
const ADD_SHIFT: u32 = 20;
