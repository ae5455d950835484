//! The date that a template may ask for, and how it is written: `strftime_now`.

use std::fmt::Write;

/// A date and a time of day.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Moment {
    year: i64,
    month: u32,
    day: u32,
    /// Seconds since midnight.
    second: u32,
}

const MONTHS: [&str; 12] = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
];
const DAYS: [&str; 7] =
    ["Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday"];
const SECONDS_PER_DAY: u64 = 86_400;

impl Moment {
    /// So many seconds after 1970 began.
    #[must_use]
    pub fn from_unix(seconds: u64) -> Self {
        let (mut day, second) =
            ((seconds / SECONDS_PER_DAY) as i64, (seconds % SECONDS_PER_DAY) as u32);
        let mut year = 1970;
        while day >= days_of_year(year) && year < 9999 {
            day -= days_of_year(year);
            year += 1;
        }
        let mut month = 1;
        while month < 12 && day >= i64::from(days_of_month(year, month)) {
            day -= i64::from(days_of_month(year, month));
            month += 1;
        }
        Moment { year, month, day: day as u32 + 1, second }
    }

    /// Reads `YYYY-MM-DD`, and a time behind it: `YYYY-MM-DD HH:MM:SS`.
    ///
    /// # Errors
    /// Anything else, and days that do not exist.
    pub fn parse(text: &str) -> Result<Self, String> {
        let expected =
            || format!("\"{text}\" is no date: expected YYYY-MM-DD, or YYYY-MM-DD HH:MM:SS");
        let (date, time) = text.split_once([' ', 'T']).unwrap_or((text, "00:00:00"));
        let [year, month, day] = numbers(date, '-', [4, 2, 2]).ok_or_else(expected)?;
        let [hour, minute, second] = numbers(time, ':', [2, 2, 2]).ok_or_else(expected)?;
        let year = i64::from(year);
        if !(1..=12).contains(&month) || !(1..=days_of_month(year, month)).contains(&day) {
            return Err(expected());
        }
        if hour > 23 || minute > 59 || second > 59 {
            return Err(expected());
        }
        Ok(Moment { year, month, day, second: (hour * 60 + minute) * 60 + second })
    }

    /// The moment in Python's format, which has a `%` before each code; unknown codes stay as they are.
    #[must_use]
    pub fn format(&self, format: &str) -> String {
        let mut out = String::new();
        let mut chars = format.chars();
        while let Some(c) = chars.next() {
            if c != '%' {
                out.push(c);
                continue;
            }
            let (unpadded, code) = match chars.next() {
                Some('-') => (true, chars.next()),
                code => (false, code),
            };
            self.push_code(&mut out, unpadded, code);
        }
        out
    }

    fn push_code(&self, out: &mut String, unpadded: bool, code: Option<char>) {
        let hour = self.second / 3600;
        let mut number = |value: u32, width: usize| {
            // Writing to a string can't fail.
            let _ = write!(out, "{value:0width$}", width = if unpadded { 1 } else { width });
        };
        match code {
            Some('d') => number(self.day, 2),
            Some('m') => number(self.month, 2),
            Some('y') => number((self.year % 100) as u32, 2),
            Some('Y') => number(self.year as u32, 4),
            Some('H') => number(hour, 2),
            Some('I') => number((hour + 11) % 12 + 1, 2),
            Some('M') => number(self.second / 60 % 60, 2),
            Some('S') => number(self.second % 60, 2),
            Some('j') => number(self.day_of_year(), 3),
            Some('w') => number(self.weekday() as u32, 1),
            Some('f') => number(0, 6),
            _ => out.push_str(&self.name(unpadded, code)),
        }
    }

    /// Codes that stand for words or for other formats.
    fn name(&self, unpadded: bool, code: Option<char>) -> String {
        let month = MONTHS[(self.month as usize).clamp(1, 12) - 1];
        let day = DAYS[self.weekday() % 7];
        match code {
            Some('B') => month.to_owned(),
            Some('b' | 'h') => month[..3].to_owned(),
            Some('A') => day.to_owned(),
            Some('a') => day[..3].to_owned(),
            Some('e') => format!("{:>2}", self.day),
            Some('p') => if self.second / 3600 < 12 { "AM" } else { "PM" }.to_owned(),
            Some('F') => self.format("%Y-%m-%d"),
            Some('T' | 'X') => self.format("%H:%M:%S"),
            Some('D' | 'x') => self.format("%m/%d/%y"),
            Some('R') => self.format("%H:%M"),
            Some('c') => self.format("%a %b %e %H:%M:%S %Y"),
            Some('Z' | 'z') => String::new(),
            Some('n') => "\n".to_owned(),
            Some('t') => "\t".to_owned(),
            Some('%') => "%".to_owned(),
            Some(other) => format!("%{}{other}", if unpadded { "-" } else { "" }),
            None => "%".to_owned(),
        }
    }

    fn day_of_year(&self) -> u32 {
        (1..self.month).map(|month| days_of_month(self.year, month)).sum::<u32>() + self.day
    }

    /// Days since Sunday.
    fn weekday(&self) -> usize {
        let years = self.year - 1;
        let days =
            years * 365 + years / 4 - years / 100 + years / 400 + i64::from(self.day_of_year());
        days.rem_euclid(7) as usize
    }
}

fn days_of_year(year: i64) -> i64 {
    365 + i64::from(is_leap(year))
}

fn is_leap(year: i64) -> bool {
    year % 4 == 0 && (year % 100 != 0 || year % 400 == 0)
}

fn days_of_month(year: i64, month: u32) -> u32 {
    match month {
        2 => 28 + u32::from(is_leap(year)),
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// Three numbers of so many digits each.
fn numbers(text: &str, separator: char, widths: [usize; 3]) -> Option<[u32; 3]> {
    let mut parts = text.split(separator);
    let mut next = |width: usize| {
        let part = parts.next().filter(|part| part.len() == width)?;
        part.bytes().all(|b| b.is_ascii_digit()).then(|| part.parse().ok())?
    };
    let found = [next(widths[0])?, next(widths[1])?, next(widths[2])?];
    parts.next().is_none().then_some(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_python_s() {
        let moment = Moment::parse("2026-07-04 09:05:00").unwrap();
        let cases = [
            ("%d %b %Y", "04 Jul 2026"),
            ("%-d %B %y, %A %a", "4 July 26, Saturday Sat"),
            ("%Y-%m-%dT%H:%M:%S %I %p %j", "2026-07-04T09:05:00 09 AM 185"),
            ("%F %T %% %Q %", "2026-07-04 09:05:00 % %Q %"),
        ];
        for (format, expected) in cases {
            assert_eq!(moment.format(format), expected, "{format}");
        }
    }

    #[test]
    fn days_are_counted_over_leap_years() {
        let cases = [
            (0, "1970-01-01 00:00:00 Thursday"),
            (951_782_399, "2000-02-28 23:59:59 Monday"),
            (951_782_400, "2000-02-29 00:00:00 Tuesday"),
            (1_785_542_400, "2026-08-01 00:00:00 Saturday"),
        ];
        for (seconds, expected) in cases {
            assert_eq!(Moment::from_unix(seconds).format("%F %T %A"), expected, "{seconds}");
        }
    }

    #[test]
    fn days_that_do_not_exist_are_refused() {
        for text in ["2026-02-29", "2026-13-01", "2026-1-1", "today", "2026-01-01 24:00:00", ""] {
            assert!(Moment::parse(text).is_err(), "{text}");
        }
        assert!(Moment::parse("2028-02-29").is_ok());
    }
}
