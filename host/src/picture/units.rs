//! Numbers as people read them: three digits and a unit.

/// Bytes, in powers of 1000.
pub(super) fn bytes(bytes: u64) -> String {
    scaled(bytes as f64, &["B", "KB", "MB", "GB", "TB"])
}

/// How many.
pub(super) fn count(count: u64) -> String {
    scaled(count as f64, &["", "K", "M", "G", "T"]).trim_end().to_owned()
}

/// Seconds.
pub(super) fn time(seconds: f64) -> String {
    scaled(seconds * 1e9, &["ns", "\u{b5}s", "ms", "s"])
}

/// A part of a whole.
pub(super) fn percent(part: f64) -> String {
    format!("{:.1} %", 100.0 * part)
}

fn scaled(mut value: f64, units: &[&str]) -> String {
    let mut unit = 0;
    // What would be shown as 1000 is 1.00 of the next.
    while value >= 999.5 && unit + 1 < units.len() {
        (value, unit) = (value / 1000.0, unit + 1);
    }
    let digits = match value {
        _ if unit == 0 && value.fract() == 0.0 => 0,
        value if value < 9.995 => 2,
        value if value < 99.95 => 1,
        _ => 0,
    };
    format!("{value:.digits$} {}", units[unit])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_three_digits_and_a_unit() {
        assert_eq!(bytes(0), "0 B");
        assert_eq!(bytes(999), "999 B");
        assert_eq!(bytes(5_570_560), "5.57 MB");
        assert_eq!(bytes(999_700), "1.00 MB");
        assert_eq!(count(12), "12");
        assert_eq!(count(5_242_880), "5.24 M");
        assert_eq!(time(0.0123), "12.3 ms");
        assert_eq!(time(0.000_000_5), "500 ns");
        assert_eq!(percent(0.125), "12.5 %");
    }
}
