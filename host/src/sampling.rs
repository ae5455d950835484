//! What sampling's numbers may be, on the command line and in files.

/// A temperature.
///
/// # Errors
/// What is expected of one.
pub fn temperature(x: f32) -> Result<f32, &'static str> {
    if (0.0..=1e6).contains(&x) { Ok(x) } else { Err("expected a number from 0 to 1000000") }
}

/// A probability, for top-p and min-p.
///
/// # Errors
/// What is expected of one.
pub fn probability(x: f32) -> Result<f32, &'static str> {
    if (0.0..=1.0).contains(&x) { Ok(x) } else { Err("expected a number from 0 to 1") }
}

/// A repetition penalty.
///
/// # Errors
/// What is expected of one.
pub fn penalty(x: f32) -> Result<f32, &'static str> {
    if x > 0.0 && x <= 1e6 { Ok(x) } else { Err("expected a number above 0, at most 1000000") }
}
