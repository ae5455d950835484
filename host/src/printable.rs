//! Text from files in messages.

/// Shortens what a file may have made long, and escapes what it could control a terminal with.
pub(crate) fn printable(text: String) -> String {
    const MAX: usize = 400;
    if text.len() <= MAX && !text.contains(char::is_control) {
        return text;
    }
    let mut shown = String::new();
    for c in text.chars() {
        if shown.len() > MAX {
            shown.push_str("...");
            break;
        }
        if c.is_control() { shown.extend(c.escape_default()) } else { shown.push(c) }
    }
    shown
}
