//! Whether a picture is XML.

/// Refuses text that is not well-formed XML, as far as elements, quotes and escapes go.
pub fn check_xml(xml: &str) {
    let mut open = vec![];
    let mut parts = xml.split('<');
    assert_eq!(parts.next(), Some(""));
    for part in parts {
        let (tag, text) = part.split_once('>').unwrap_or_else(|| panic!("<{part} is not closed"));
        assert!(!text.contains('>'), "{text}");
        for escape in text.split('&').skip(1) {
            assert!(
                ["amp;", "lt;", "gt;", "quot;"].iter().any(|e| escape.starts_with(e)),
                "&{escape}"
            );
        }
        if let Some(name) = tag.strip_prefix('/') {
            assert_eq!(open.pop(), Some(name), "{part}");
            continue;
        }
        assert!(tag.matches('"').count().is_multiple_of(2), "{tag}");
        if !tag.ends_with('/') {
            open.push(tag.split(' ').next().unwrap());
        }
        assert!(!open.is_empty(), "{part} outside of the root");
    }
    assert!(open.is_empty(), "{open:?} left open");
}
