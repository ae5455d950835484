//! What pictures are written with.

/// Adds an element, in a line of its own.
pub(crate) fn put(svg: &mut String, element: &str) {
    svg.push_str(element);
    svg.push('\n');
}

/// Adds text at a place.
pub(crate) fn text(svg: &mut String, (x, y): (f64, f64), class: &str, text: &str) {
    put(svg, &format!("<text class=\"{class}\" x=\"{x:.1}\" y=\"{y:.1}\">{text}</text>"));
}

/// Text in which nothing is markup, and without the characters that XML has no way to write.
pub(crate) fn escaped(text: &str) -> String {
    let mut escaped = String::new();
    for c in text.chars() {
        match c {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            c if c.is_control() || matches!(c, '\u{fffe}' | '\u{ffff}') => escaped.push('\u{fffd}'),
            c => escaped.push(c),
        }
    }
    escaped
}
