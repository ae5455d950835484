//! Sound as models of speech take it: mel-frequency cepstral coefficients, frame by frame.
//!
//! A frame of samples is weighted by a window of Hann's and transformed; magnitudes are summed up in triangles that
//! overlap on the mel scale, and the logarithms of the sums transformed by cosines. Tables are computed while the
//! program is built and lie in flash; a frame takes 3 KB of the stack.
//!
//! Frames are computed one by one as sound comes in. The order of operations is fixed: every machine gets the same
//! bits.
#![no_std]

mod tables;

use microfft::Complex32;

/// Points of the Fourier transform: a frame, and zeros behind it.
const POINTS: usize = 512;
/// Its frequencies: [`POINTS`] reals make half as many complex numbers, the first of which holds two that are real.
const FREQUENCIES: usize = POINTS / 2;
/// What is added to a band before its logarithm is taken.
const FLOOR: f32 = 1e-6;
/// What the loudest sample can be.
const FULL_SCALE: f32 = 32768.0;

/// What is heard of a frame's spectrum.
#[derive(Clone, Copy)]
pub struct Hearing {
    /// Samples a second.
    pub sample_rate: f64,
    /// Where the first band begins, in hertz.
    pub lowest: f64,
    /// Where the last band ends, in hertz.
    pub highest: f64,
}

/// What computes coefficients of frames of `FRAME` samples, 512 at most, from `BANDS` bands.
pub struct Mfcc<const FRAME: usize, const BANDS: usize, const COEFFICIENTS: usize> {
    window: [f32; FRAME],
    /// Where each frequency lies among the bands: in the middle of band `b` at `b + 1`.
    places: [f32; FREQUENCIES],
    cosines: [[f32; BANDS]; COEFFICIENTS],
}

/// What the models of MLPerf Tiny that spot keywords take: 30 ms of 16 kHz, each 20 ms behind the one before.
pub static KEYWORDS: Mfcc<480, 40, 10> =
    Mfcc::new(Hearing { sample_rate: 16_000.0, lowest: 20.0, highest: 4_000.0 });

impl<const FRAME: usize, const BANDS: usize, const COEFFICIENTS: usize>
    Mfcc<FRAME, BANDS, COEFFICIENTS>
{
    /// The tables; meant for a `static`.
    #[must_use]
    pub const fn new(hearing: Hearing) -> Self {
        const { assert!(FRAME <= POINTS, "a frame has more samples than are transformed") }
        Self {
            window: tables::hann(),
            places: tables::places(hearing, BANDS),
            cosines: tables::cosines(),
        }
    }

    /// The coefficients of a frame; of fewer samples, silence follows them. `gain` makes the sound as loud as the
    /// model is used to: 1 / [`peak`] of all of it, where the loudest sample is to be 1.
    #[must_use]
    pub fn frame(&self, samples: &[i16], gain: f32) -> [f32; COEFFICIENTS] {
        let mut points = [0.0; POINTS];
        for ((point, sample), weight) in points.iter_mut().zip(samples).zip(&self.window) {
            *point = f32::from(*sample) / FULL_SCALE * gain * weight;
        }
        let bands = self.bands(microfft::real::rfft_512(&mut points));
        self.cosines.each_ref().map(|cosines| {
            cosines.iter().zip(&bands).fold(0.0, |sum, (cosine, band)| sum + cosine * band)
        })
    }

    /// Logarithms of what is heard in each band.
    fn bands(&self, spectrum: &[Complex32; FREQUENCIES]) -> [f32; BANDS] {
        let mut bands = [0.0; BANDS];
        // The first has no place in a band.
        for (frequency, place) in spectrum.iter().zip(&self.places).skip(1) {
            let (edge, above) = (*place as usize, *place - libm::floorf(*place));
            let magnitude = libm::sqrtf(frequency.norm_sqr());
            // Between two edges, one triangle falls as the next rises.
            if let Some(band) = bands.get_mut(edge) {
                *band += magnitude * above;
            }
            if let Some(band) = edge.checked_sub(1).and_then(|band| bands.get_mut(band)) {
                *band += magnitude * (1.0 - above);
            }
        }
        bands.map(|band| libm::logf(band + FLOOR))
    }
}

/// The largest sample, in parts of what it can be; at least a trace, so that silence has a gain, too.
#[must_use]
pub fn peak(samples: &[i16]) -> f32 {
    let largest = samples.iter().map(|sample| sample.unsigned_abs()).max().unwrap_or(0);
    (f32::from(largest) / FULL_SCALE).max(1e-9)
}
