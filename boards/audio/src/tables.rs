//! Tables that are computed while the program is built, with the functions that this takes.
#![expect(clippy::indexing_slicing, reason = "a wrong index ends the build")]

use crate::{FREQUENCIES, Hearing, POINTS};
use core::f64::consts::{LN_2, PI};

/// Where frequencies lie that no band hears.
const UNHEARD: f32 = 1e6;

/// A window that begins with 0 and would end with it one sample behind its last.
pub const fn hann<const N: usize>() -> [f32; N] {
    let mut window = [0.0; N];
    let mut i = 0;
    while i < N {
        window[i] = (0.5 - 0.5 * cos(2.0 * PI * i as f64 / N as f64)) as f32;
        i += 1;
    }
    window
}

/// Where each frequency lies between the edges of bands, which are evenly spaced on the mel scale.
pub const fn places(hearing: Hearing, bands: usize) -> [f32; FREQUENCIES] {
    let (low, high) = (mel(hearing.lowest), mel(hearing.highest));
    let step = (high - low) / (bands + 1) as f64;
    let mut places = [UNHEARD; FREQUENCIES];
    let mut i = 0;
    while i < FREQUENCIES {
        let place = (mel(hearing.sample_rate * i as f64 / POINTS as f64) - low) / step;
        if place >= 0.0 && place < (bands + 1) as f64 {
            places[i] = place as f32;
        }
        i += 1;
    }
    places
}

/// The first rows of the orthogonal cosine transform, the very first of which is as long as the others.
pub const fn cosines<const BANDS: usize, const ROWS: usize>() -> [[f32; BANDS]; ROWS] {
    let scale = sqrt(2.0 / BANDS as f64);
    let mut rows = [[0.0; BANDS]; ROWS];
    let mut row = 0;
    while row < ROWS {
        let mut band = 0;
        while band < BANDS {
            let angle = PI * (band as f64 + 0.5) * row as f64 / BANDS as f64;
            rows[row][band] = (scale * cos(angle)) as f32;
            band += 1;
        }
        row += 1;
    }
    rows
}

/// A frequency on the mel scale, but for a factor.
const fn mel(hertz: f64) -> f64 {
    ln(1.0 + hertz / 700.0)
}

/// Of angles that are not negative.
const fn cos(angle: f64) -> f64 {
    let turns = (angle / (2.0 * PI) + 0.5) as u64;
    let angle = angle - turns as f64 * 2.0 * PI;
    let (mut sum, mut term, mut n) = (1.0, 1.0, 0.0);
    // The 17th power of PI squared is less than 1e-21 of the factorial.
    while n < 34.0 {
        term *= -angle * angle / ((n + 1.0) * (n + 2.0));
        sum += term;
        n += 2.0;
    }
    sum
}

/// Of 1 and more.
const fn ln(mut x: f64) -> f64 {
    let mut whole = 0.0;
    while x > 1.5 {
        x /= 2.0;
        whole += LN_2;
    }
    // Twice the inverse hyperbolic tangent; a third at most, to the 31st power.
    let ratio = (x - 1.0) / (x + 1.0);
    let (mut sum, mut power, mut n) = (0.0, ratio, 1.0);
    while n < 32.0 {
        sum += power / n;
        power *= ratio * ratio;
        n += 2.0;
    }
    whole + 2.0 * sum
}

/// Of numbers from 1e-4 to 1.
const fn sqrt(x: f64) -> f64 {
    let mut root = 1.0;
    let mut rounds = 0;
    while rounds < 20 {
        root = (root + x / root) / 2.0;
        rounds += 1;
    }
    root
}
