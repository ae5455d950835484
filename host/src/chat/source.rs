//! What of a template's text is changed before the engine reads it: tags that it does not know, line ends, and checks
//! of every value that a template gives a name to, without which some of a few lines would fill the memory.

use super::bounds::{EACH, FIELD, VALUE};

/// The longest tag: the engine goes down its expressions by recursion.
const MAX_TAG_BYTES: usize = 16 << 10;
/// What the result of a check is named, which no template uses.
const CHECKED: &str = "omex_checked";

/// A template's text as the engine is to read it, line for line; or what is wrong with it, and in which line.
pub(super) fn adapt(source: &str) -> Result<String, (usize, String)> {
    let source = source.replace("\r\n", "\n").replace('\r', "\n");
    let mut out = String::with_capacity(source.len() + source.len() / 4);
    let mut rest = source.as_str();
    while let Some(start) = next_tag(rest) {
        out.push_str(&rest[..start]);
        rest = &rest[start..];
        let length = tag_length(rest);
        if length > MAX_TAG_BYTES && !rest.starts_with("{#") {
            let line = out.matches('\n').count() + 1;
            return Err((line, format!("a tag of more than {MAX_TAG_BYTES} bytes")));
        }
        let (tag, behind) = rest.split_at(length);
        rest = behind;
        if !tag.starts_with("{%") {
            out.push_str(tag);
        } else if let ("raw", Some(opened)) = (word(body(tag)), tag.strip_suffix("%}")) {
            let (text, behind) = rest.split_at(raw_length(rest));
            rest = behind;
            // Jinja2 keeps the line break behind this tag, other than behind all others.
            out.push_str(opened);
            out.push_str(if tag.ends_with("-%}") { "%}" } else { "+%}" });
            out.push_str(text);
        } else {
            out.push_str(&rewritten(tag));
        }
    }
    out.push_str(rest);
    Ok(out)
}

/// Where the next tag or comment begins.
fn next_tag(text: &str) -> Option<usize> {
    let opens = |window: &[u8]| window[0] == b'{' && matches!(window[1], b'{' | b'%' | b'#');
    text.as_bytes().windows(2).position(opens)
}

/// How long the tag or comment is that a text begins with; all of it where it has no end.
fn tag_length(text: &str) -> usize {
    let end = match &text[..2] {
        "{#" => return text.find("#}").map_or(text.len(), |at| at + 2),
        "{{" => "}}",
        _ => "%}",
    };
    let ended = |at: usize, depth: usize| depth == 0 && text[at..].starts_with(end);
    scan(&text[2..], |at, depth| ended(at + 2, depth)).map_or(text.len(), |at| at + 4)
}

/// How long the text is that a raw block holds, with the tag that ends it.
fn raw_length(text: &str) -> usize {
    let mut from = 0;
    while let Some(at) = text[from..].find("{%").map(|at| from + at) {
        let length = tag_length(&text[at..]);
        if word(body(&text[at..at + length])) == "endraw" {
            return at + length;
        }
        from = at + 2;
    }
    text.len()
}

/// The first place outside of strings for which `found` holds, given how many brackets are open there.
fn scan(text: &str, mut found: impl FnMut(usize, usize) -> bool) -> Option<usize> {
    let (mut depth, mut quote, mut escaped) = (0_usize, None, false);
    for (at, c) in text.char_indices() {
        if let Some(mark) = quote {
            match c {
                _ if escaped => escaped = false,
                '\\' => escaped = true,
                _ if c == mark => quote = None,
                _ => {}
            }
            continue;
        }
        if found(at, depth) {
            return Some(at);
        }
        match c {
            '\'' | '"' => quote = Some(c),
            '(' | '[' | '{' => depth += 1,
            ')' | ']' | '}' => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    None
}

/// What lies between a tag's marks and signs.
fn body(tag: &str) -> &str {
    let inner = tag.strip_prefix("{%").unwrap_or(tag);
    let inner = inner.strip_suffix("%}").unwrap_or(inner);
    inner.trim_matches(|c: char| c == '-' || c == '+' || c.is_whitespace())
}

/// The word that a tag's body begins with.
fn word(body: &str) -> &str {
    let end = body.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(body.len());
    &body[..end]
}

/// A statement's tag as the engine is to read it.
fn rewritten(tag: &str) -> String {
    let inner = body(tag);
    let Some(at) = tag.find(inner).filter(|_| !inner.is_empty()) else { return tag.to_owned() };
    let (head, tail) = (&tag[..at], &tag[at + inner.len()..]);
    let rest = &inner[word(inner).len()..];
    match word(inner) {
        "generation" => format!("{head}with{tail}"),
        "endgeneration" => format!("{head}endwith{tail}"),
        "set" => format!("{head}{}{tail}", checked_set(rest).unwrap_or_else(|| inner.to_owned())),
        "for" => with_check(tag, tail, for_targets(rest)),
        "with" => with_check(tag, tail, names(rest)),
        "macro" | "call" => with_check(tag, tail, names(arguments(rest))),
        _ => tag.to_owned(),
    }
}

/// An assignment whose value is checked; none where a block is assigned.
fn checked_set(rest: &str) -> Option<String> {
    let at = scan(rest, |at, depth| depth == 0 && rest[at..].starts_with('='))?;
    let (target, value) = (&rest[..at], &rest[at + 1..]);
    let filter = if target.contains('.') { FIELD } else { VALUE };
    Some(format!("set{target}=({value})|{filter}"))
}

/// A tag, and behind it a check of the names that it gave values to.
fn with_check(tag: &str, tail: &str, names: String) -> String {
    if names.trim().is_empty() {
        return tag.to_owned();
    }
    let spaceless = tag[..tag.len() - tail.len()].to_owned();
    format!("{spaceless} %}}{{% set {CHECKED} = [{names}]|{EACH}{tail}")
}

/// The names that a loop gives its items to.
fn for_targets(rest: &str) -> String {
    let is_in = |at: usize, depth: usize| {
        depth == 0 && word(&rest[at..]) == "in" && rest[..at].ends_with([' ', '\n', '\t', ')'])
    };
    scan(rest, is_in).map_or_else(String::new, |at| rest[..at].trim().to_owned())
}

/// What stands between the first parentheses; of a call without arguments of its own, nothing.
fn arguments(rest: &str) -> &str {
    let is_call = word(rest.trim_start()).is_empty();
    let Some(open) = rest.find('(').filter(|&at| is_call == rest[..at].trim().is_empty()) else {
        return "";
    };
    let inner = &rest[open + 1..];
    let close = scan(inner, |at, depth| depth == 0 && inner[at..].starts_with(')'));
    close.map_or("", |at| &inner[..at])
}

/// The names of `a, b=value`, separated by commas.
fn names(list: &str) -> String {
    let (mut found, mut from) = (vec![], 0);
    while from < list.len() {
        let rest = &list[from..];
        let end = scan(rest, |at, depth| depth == 0 && rest[at..].starts_with(','));
        let end = end.unwrap_or(rest.len());
        let name = rest[..end].split('=').next().unwrap_or_default().trim();
        if !name.is_empty() && word(name).len() == name.len() {
            found.push(name);
        }
        from += end + 1;
    }
    found.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_raw_tag_without_an_end_stays_as_it_is() {
        for source in ["{% raw", "{%- raw �", "a {% raw x ü", "{% raw %}{% endraw ü"] {
            assert!(adapt(source).is_ok_and(|text| text.starts_with(&source[..2])), "{source}");
        }
    }
}
