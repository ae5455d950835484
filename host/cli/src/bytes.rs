//! Numbers of bytes as people write them.

/// Parses `64MB` (powers of 1000), `64MiB` or `64M` (powers of 1024), or plain bytes.
pub(crate) fn parse(text: &str) -> Result<u64, String> {
    let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let factor: u64 = match unit.trim() {
        "" | "B" => 1,
        "KB" | "kB" => 1000,
        "MB" => 1000 * 1000,
        "GB" => 1000 * 1000 * 1000,
        "K" | "k" | "KiB" => 1 << 10,
        "M" | "MiB" => 1 << 20,
        "G" | "GiB" => 1 << 30,
        _ => {
            return Err(format!(
                "unknown unit \"{}\": use KB, MB, GB, KiB, MiB or GiB",
                unit.trim()
            ));
        }
    };
    let number: f64 = number.parse().map_err(|_| format!("\"{text}\" is not a number of bytes"))?;
    let bytes = number * factor as f64;
    if bytes < 1.0 || bytes > 2f64.powi(53) {
        return Err(format!("\"{text}\" is out of range"));
    }
    Ok(bytes as u64)
}

/// Parses bytes a second: `1.2GB/s`, or without the `/s`.
pub(crate) fn parse_rate(text: &str) -> Result<u64, String> {
    parse(text.strip_suffix("/s").unwrap_or(text))
}

/// Bytes with a unit, powers of 1000, three digits.
pub(crate) fn show(bytes: u64) -> String {
    let (mut value, mut unit) = (bytes as f64, "B");
    for larger in ["KB", "MB", "GB", "TB"] {
        if value < 1000.0 {
            break;
        }
        (value, unit) = (value / 1000.0, larger);
    }
    match value {
        _ if unit == "B" => format!("{bytes} B"),
        v if v < 10.0 => format!("{v:.2} {unit}"),
        v if v < 100.0 => format!("{v:.1} {unit}"),
        v => format!("{v:.0} {unit}"),
    }
}

#[cfg(test)]
mod tests {
    use super::{parse, parse_rate, show};

    #[test]
    fn units_are_powers_of_1000_or_1024() {
        assert_eq!(parse("64MB"), Ok(64_000_000));
        assert_eq!(parse("64MiB"), Ok(64 << 20));
        assert_eq!(parse("64K"), Ok(64 << 10));
        assert_eq!(parse("1.5GB"), Ok(1_500_000_000));
        assert_eq!(parse("512"), Ok(512));
        assert_eq!(parse_rate("1.2GB/s"), Ok(1_200_000_000));
        assert!(parse_rate("1GB/h").is_err());
        for wrong in ["", "MB", "-1", "64XB", "0", "1e30", "99999999999GB"] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn three_digits_and_a_unit() {
        assert_eq!(show(999), "999 B");
        assert_eq!(show(1_234), "1.23 KB");
        assert_eq!(show(64_000_000), "64.0 MB");
        assert_eq!(show(4_600_000_000), "4.60 GB");
    }
}
