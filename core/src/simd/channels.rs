//! Convolutions of signed bytes with AVX-512 and VNNI: sixteen output channels are the lanes of a vector.

#![expect(clippy::indexing_slicing, reason = "constant lengths only")]

use core::arch::x86_64::*;

/// Output channels that are computed at once.
pub const CHANNELS: usize = 16;
/// Four weights of each of the channels.
pub type Quad = [[u8; 4]; CHANNELS];
/// Two weights of each of the channels, in the order in which [`Convolve::depthwise`] wants them.
pub type Pair = [[i16; 2]; CHANNELS];
/// A sum for each of the channels.
pub type Sums = [i32; CHANNELS];
/// Where [`Pair`] has its channels.
pub const PAIR_ORDER: [usize; CHANNELS] = [0, 1, 2, 3, 8, 9, 10, 11, 4, 5, 6, 7, 12, 13, 14, 15];
/// Says that a tap sees nothing of the image.
pub const BESIDE: usize = usize::MAX;

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
#[derive(Clone, Debug, Default)]
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
}

/// Kernels for convolutions of signed bytes. What does not fit into the slices they are given is left out.
#[derive(Clone, Copy, Debug)]
pub struct Convolve {
    /// Copies windows; bytes become unsigned, 128 more than they were.
    pub stage: fn(image: &[i8], windows: Windows, staged: &mut [u8]),
    /// Lays weights of at most sixteen channels out, quad by quad; returns their sums.
    pub pack: fn(rows: &[&[u8]], panel: &mut [Quad]) -> Sums,
    /// Multiplies panels of `depth` quads with windows of as many quads: `sums` is `[panels][windows]`.
    pub multiply: fn(panels: &[Quad], depth: usize, windows: &[u8], sums: &mut [Sums]),
    /// Multiplies what each tap sees, sixteen bytes or `lanes` of them, with its weights: for as many pixels as there
    /// are sums, from one to the next `step` bytes. A tap sees `zero` if it is [`BESIDE`] the image.
    pub depthwise: fn(image: &[i8], seen: Taps<'_>, weights: &[Pair], sums: &mut [Sums]),
    /// Writes a byte for each sum, as TensorFlow Lite's reference kernels round it; `lanes` bytes at each `step`.
    pub rescale: fn(sums: &[Sums], heads: &Heads, out: &mut [i8], step: usize, lanes: usize),
}

/// What the taps of a kernel see.
#[derive(Clone, Copy, Debug)]
pub struct Taps<'a> {
    /// Where each tap's bytes begin in the image, for the first pixel.
    pub places: &'a [usize],
    /// Bytes from a pixel to the next.
    pub step: usize,
    /// How many channels there are.
    pub lanes: usize,
    /// What is seen beside the image.
    pub zero: i8,
}

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
        depthwise: |image, seen, weights, sums| unsafe { depthwise(image, seen, weights, sums) },
        // SAFETY: as above.
        rescale: |sums, heads, out, step, lanes| unsafe { rescale(sums, heads, out, step, lanes) },
    }
}

/// The end of the last of `count` pieces.
fn end(count: usize, step: usize, piece: usize) -> Option<usize> {
    count.checked_sub(1)?.checked_mul(step)?.checked_add(piece)
}

#[target_feature(enable = "avx512f,avx512bw")]
fn stage(image: &[i8], windows: Windows, staged: &mut [u8]) {
    let Windows { count, steps, lines: [lines, length], line_steps } = windows;
    let ends = [0, 1].map(|side| {
        end(lines, line_steps[side], length).and_then(|piece| end(count, steps[side], piece))
    });
    let fits = |end: Option<usize>, room: usize| end.is_some_and(|end| end <= room);
    if !fits(ends[0], image.len()) || !fits(ends[1], staged.len()) {
        return;
    }
    let high = _mm512_set1_epi8(i8::MIN);
    for window in 0..count {
        for line in 0..lines {
            let from = window * steps[0] + line * line_steps[0];
            let to = window * steps[1] + line * line_steps[1];
            for start in (0..length).step_by(64) {
                let mask = first(length - start);
                // SAFETY: the last line of the last window ends within both slices.
                unsafe {
                    let bytes = _mm512_maskz_loadu_epi8(mask, image.as_ptr().add(from + start));
                    let bytes = _mm512_xor_si512(bytes, high);
                    let to = staged.as_mut_ptr().add(to + start).cast();
                    _mm512_mask_storeu_epi8(to, mask, bytes);
                }
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
    for (panel, all) in all.iter().enumerate() {
        let sums = sums.get_mut(panel * count + at..).unwrap_or_default();
        for (sums, vector) in sums.iter_mut().zip(all) {
            // SAFETY: sixteen numbers of 32 bits.
            unsafe { _mm512_storeu_si512(sums.as_mut_ptr().cast(), *vector) };
        }
    }
}

#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
fn depthwise(image: &[i8], seen: Taps<'_>, weights: &[Pair], sums: &mut [Sums]) {
    let Taps { places, step, lanes, zero } = seen;
    let last = places.iter().filter(|place| **place != BESIDE).max();
    let fits = last.is_none_or(|last| {
        let piece = last.checked_add(lanes);
        piece.and_then(|piece| end(sums.len(), step, piece)).is_some_and(|end| end <= image.len())
    });
    if !fits || places.len() > 2 * weights.len() {
        return;
    }
    let (mask, beside) = (first(lanes.min(CHANNELS)) as u16, _mm256_set1_epi16(zero.into()));
    for (pixel, sums) in sums.iter_mut().enumerate() {
        let [mut low, mut high] = [_mm256_setzero_si256(); 2];
        for (pair, places) in weights.iter().zip(places.chunks(2)) {
            let mut numbers = [beside; 2];
            for (numbers, place) in numbers.iter_mut().zip(places) {
                if *place != BESIDE {
                    // SAFETY: the last pixel's bytes end within the image.
                    let bytes = unsafe {
                        _mm_maskz_loadu_epi8(mask, image.as_ptr().add(place + pixel * step))
                    };
                    *numbers = _mm256_cvtepi8_epi16(bytes);
                }
            }
            // SAFETY: a pair is twice as long as a vector.
            let [first, second] = unsafe {
                [0, 1].map(|half| _mm256_loadu_si256(pair.as_ptr().cast::<__m256i>().add(half)))
            };
            low = _mm256_dpwssd_epi32(low, _mm256_unpacklo_epi16(numbers[0], numbers[1]), first);
            high = _mm256_dpwssd_epi32(high, _mm256_unpackhi_epi16(numbers[0], numbers[1]), second);
        }
        // SAFETY: sixteen numbers of 32 bits.
        unsafe {
            let sums = sums.as_mut_ptr().cast::<__m256i>();
            _mm256_storeu_si256(sums, _mm256_permute2x128_si256::<0x20>(low, high));
            _mm256_storeu_si256(sums.add(1), _mm256_permute2x128_si256::<0x31>(low, high));
        }
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
    let [offsets, even, left, right] =
        [&heads.offsets, &heads.multipliers, &heads.left, &heads.right].map(load);
    let odd = _mm512_srli_epi64::<32>(even);
    let half = _mm512_set1_epi64(1 << 30);
    let mask =
        _mm512_sub_epi32(_mm512_sllv_epi32(_mm512_set1_epi32(1), right), _mm512_set1_epi32(1));
    let threshold = _mm512_srli_epi32::<1>(mask);
    let [low, high] = heads.clamp.map(|end| _mm512_set1_epi32(end - heads.zero));
    let zero = _mm512_set1_epi32(heads.zero);
    let kept = first(lanes) as u16;
    for (number, sums) in sums.iter().enumerate() {
        let x = _mm512_sllv_epi32(_mm512_add_epi32(load(sums), offsets), left);
        // The high halves of twice the products, rounded.
        let evens = _mm512_add_epi64(_mm512_mul_epi32(x, even), half);
        let odds = _mm512_add_epi64(_mm512_mul_epi32(_mm512_srli_epi64::<32>(x), odd), half);
        let evens = _mm512_srli_epi64::<31>(evens);
        let x = _mm512_mask_blend_epi32(0xaaaa, evens, _mm512_slli_epi64::<1>(odds));
        // Half away from zero.
        let rest = _mm512_and_si512(x, mask);
        let above =
            _mm512_cmpgt_epi32_mask(rest, _mm512_sub_epi32(threshold, _mm512_srai_epi32::<31>(x)));
        let x = _mm512_srav_epi32(x, right);
        let x = _mm512_mask_add_epi32(x, above, x, _mm512_set1_epi32(1));
        let x = _mm512_add_epi32(_mm512_max_epi32(_mm512_min_epi32(x, high), low), zero);
        // SAFETY: the last sum's bytes end within the slice.
        unsafe {
            let out = out.as_mut_ptr().add(number * step);
            _mm_mask_storeu_epi8(out, kept, _mm512_cvtepi32_epi8(x));
        }
    }
}
