//! Formatters: what becomes of a text that a model has written, as the library does it.

use omex::format::Formatter;
use omex::package::FormatterSettings;
use proptest::prelude::*;

fn formatted(name: &str, text: &str) -> String {
    Formatter::whole(&FormatterSettings::built_in(name).unwrap(), text).unwrap()
}

const ANSWER: &str = "\n\n# A *title*\n\nSome **bold** text with `code`,\nand a [link](https://example.org).\n\n\
- one\n- two\n  - inner\n\n3. three\n4. four\n\n```rust\nfn main() {\n\n    println!(\"*\");\n}\n```\n\n\
| a | b |\n|---|---|\n| 1 | 2 |\n\n> quoted\n\nThe end.\n";

#[test]
fn plain_text_has_no_marks() {
    let expected = "A title\n\nSome bold text with code,\nand a link (https://example.org).\n\n\
- one\n- two\n  - inner\n\n3. three\n4. four\n\nfn main() {\n\n    println!(\"*\");\n}\n\n\
a\tb\n1\t2\n\nquoted\n\nThe end.";
    assert_eq!(formatted("plain", ANSWER), expected);
}

#[test]
fn code_is_what_stands_in_fenced_blocks() {
    assert_eq!(formatted("code", ANSWER), "fn main() {\n\n    println!(\"*\");\n}");
    let listed = "1. Do\n\n   ~~~~\n   a\n     b\n   ~~~\n   ~~~~\n";
    assert_eq!(formatted("code", listed), "a\n  b\n~~~");
    assert_eq!(formatted("code", "let x = 1;\n"), "let x = 1;");
    // Cut off within a block, or within its last line.
    assert_eq!(formatted("code", "```\na\nb"), "a\nb");
}

#[test]
fn markdown_is_closed_where_it_was_cut_off() {
    assert_eq!(
        formatted("markdown", "Yes:\n\n```rust\nfn a() {"),
        "Yes:\n\n```rust\nfn a() {\n```"
    );
    assert_eq!(formatted("markdown", ANSWER), ANSWER.trim());
}

#[test]
fn json_is_the_first_value_of_a_text() {
    let text = "Sure! [see {this}]: ```json\n{\"a\": [1, {\"b\": \"}\"}]}\n``` {\"c\": 1}";
    assert_eq!(formatted("json", text), r#"{"a": [1, {"b": "}"}]}"#);
    // Neither depth nor size is bounded, and escapes are as the grammar has them.
    let deep = format!("{}1{}", "[".repeat(300), "]".repeat(300));
    for text in [deep.as_str(), r#"{"a": 1e999, "b": {"c": 1}}"#, r#"{"a": "\ud800", "b": [1]}"#] {
        assert_eq!(formatted("json", text), text);
    }
    let settings = FormatterSettings::built_in("json").unwrap();
    // A part of what is broken or cut off is no answer.
    for text in [
        r#"{"a": {"b": 1}, "c": "#,
        r#"{"a": 1, "b": [1,2],}"#,
        "{'a': 1, 'b': [1,2]}",
        r#"{"a": NaN, "b": [1]}"#,
    ] {
        assert!(Formatter::whole(&settings, text).is_err(), "{text}");
    }
    let error = Formatter::whole(&settings, "none { here").unwrap_err();
    assert!(error.to_string().contains("no object or list in JSON"), "{error}");
}

proptest! {
    #[test]
    fn pieces_change_nothing(
        text in "[ab`~#*\\-1.>{}\\[\\]\" \n]{0,80}",
        length in 1_usize..7,
    ) {
        for name in ["text", "plain", "markdown", "code", "json"] {
            let settings = FormatterSettings::built_in(name).unwrap();
            let mut formatter = Formatter::new(&settings);
            let characters: Vec<_> = text.chars().collect();
            let mut told = String::new();
            for piece in characters.chunks(length) {
                told.push_str(&formatter.push(&piece.iter().collect::<String>()));
            }
            let whole = Formatter::whole(&settings, &text).ok();
            let told = formatter.finish().ok().map(|rest| told + &rest);
            prop_assert_eq!(told, whole, "{}", name);
        }
    }
}
