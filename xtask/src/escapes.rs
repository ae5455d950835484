//! Text as boards print it.

/// Appends text whose line feeds, carriage returns and backslashes are escaped.
pub(crate) fn unescape(escaped: &str, text: &mut String) {
    let mut chars = escaped.chars();
    while let Some(c) = chars.next() {
        text.push(match c {
            '\\' => match chars.next() {
                Some('n') => '\n',
                Some('r') => '\r',
                _ => '\\',
            },
            c => c,
        });
    }
}
