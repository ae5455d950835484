//! Chat templates against what transformers makes of them.

use omex::chat::{Conversation, Moment, NotRendered, Template, Value};
use std::path::{Path, PathBuf};

/// A folder of the test data beside the repository, if it is there.
fn shared(name: &str) -> Option<PathBuf> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared").join(name);
    path.exists().then_some(path)
}

/// What a reference file holds; values keep the order of their keys.
fn references(path: &Path) -> Value {
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

fn pairs(value: &Value) -> Vec<(String, Value)> {
    let keys = value.try_iter().map(Iterator::collect::<Vec<_>>).unwrap_or_default();
    let pair = |key: Value| (key.to_string(), value.get_item(&key).unwrap());
    keys.into_iter().map(pair).collect()
}

fn conversation(file: &Value, case: &Value) -> Conversation {
    let mut variables = pairs(&file.get_attr("special_tokens").unwrap());
    variables.extend(pairs(&case.get_attr("kwargs").unwrap()));
    Conversation {
        messages: case.get_attr("messages").unwrap(),
        tools: case.get_attr("tools").unwrap(),
        add_generation_prompt: case.get_attr("add_generation_prompt").unwrap().is_true(),
        variables,
        now: Moment::parse(file.get_attr("date").unwrap().as_str().unwrap()).unwrap(),
    }
}

/// What is wrong with the rendering of a case; a template's own refusal binds, an error of Python's types does not.
fn difference(template: &Template, file: &Value, case: &Value) -> Option<String> {
    let found = template.render(&conversation(file, case));
    let expected = case.get_attr("output").unwrap();
    if let Some(expected) = expected.as_str() {
        return match found {
            Ok(text) if text == expected => None,
            found => Some(format!("expected {expected:?}\n   found {found:?}")),
        };
    }
    let expected = case.get_attr("error").unwrap();
    let refusal = expected.as_str()?.strip_prefix("TemplateError: ")?;
    match found {
        Err(NotRendered::Refused(text)) if text.starts_with(refusal) => None,
        found => Some(format!("expected the refusal {refusal:?}\n   found {found:?}")),
    }
}

fn check(templates: &Path, references_at: &Path) -> usize {
    let (mut count, mut wrong) = (0, vec![]);
    for entry in std::fs::read_dir(references_at).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|e| e != "json") {
            continue;
        }
        let file = references(&path);
        let name = file.get_attr("template").unwrap().to_string();
        let source = std::fs::read_to_string(templates.join(format!("{name}.jinja"))).unwrap();
        let template = Template::new(&name, &source).unwrap_or_else(|e| panic!("{e}"));
        for case in file.get_attr("cases").unwrap().try_iter().unwrap() {
            count += 1;
            let title = case.get_attr("title").unwrap();
            wrong.extend(
                difference(&template, &file, &case).map(|d| format!("{name}: {title}: {d}")),
            );
        }
    }
    assert!(wrong.is_empty(), "{} of {count} differ:\n{}", wrong.len(), wrong.join("\n"));
    count
}

#[test]
fn published_templates_give_what_transformers_gives() {
    let (Some(templates), Some(references)) =
        (shared("models/chat_templates"), shared("refs/chat"))
    else {
        println!("skipped: the test data models/chat_templates are not beside the repository");
        return;
    };
    assert!(check(&templates, &references) > 400);
    assert!(check(&templates, &references.join("kwargs")) > 150);
}

fn render_with(source: &str, variables: &str) -> Result<String, NotRendered> {
    let conversation = Conversation {
        messages: serde_json::from_str(r#"[{"role": "user", "content": "Hi 'x' é"}]"#).unwrap(),
        tools: Value::from(()),
        add_generation_prompt: true,
        variables: pairs(&serde_json::from_str(variables).unwrap()),
        now: Moment::parse("2026-07-04").unwrap(),
    };
    Template::new("own.jinja", source)?.render(&conversation)
}

fn render(source: &str) -> Result<String, NotRendered> {
    render_with(source, r#"{"bos_token": "<s>"}"#)
}

/// What Jinja2 and Python make of each was looked up there.
#[test]
fn what_python_prints_and_calls_is_the_same_here() {
    let cases = [
        (
            "{{ true }} {{ none }} {{ 1.0 }} {{ 1e20 }} {{ 0.00001 }} {{ -7 // 2 }} {{ -7 % 3 }}",
            "True None 1.0 1e+20 1e-05 -4 2",
        ),
        (r#"{{ messages }}"#, r#"[{'role': 'user', 'content': "Hi 'x' é"}]"#),
        (
            r#"{{ {'b': [1, none], 'a': (1,)} }} {{ ['\n'] | string }}"#,
            r"{'b': [1, None], 'a': (1,)} ['\n']",
        ),
        ("{{ {'b': 1.0, 'a': 'é<'} | tojson }}", r#"{"b": 1.0, "a": "é<"}"#),
        ("{{ [1, {}] | tojson(indent=2) }}", "[\n  1,\n  {}\n]"),
        (
            "{{ {'b': 'é', 'a': []} | tojson(ensure_ascii=true, sort_keys=true, separators=(',', ':')) }}",
            r#"{"a":[],"b":"\u00e9"}"#,
        ),
        (
            "{{ 'a-b-c'.split('-', 1) }} {{ ' a  b '.split() }} {{ 'a-b-c'.rsplit('-', 1)[-1] }}",
            "['a', 'b-c'] ['a', 'b'] c",
        ),
        (
            "{{ 'xxaxx'.strip('x') }} {{ 'ab'.startswith(('b', 'a')) }} {{ 'aé'.find('é') }}",
            "a True 1",
        ),
        ("{{ {'items': 1}.items() | list }} {{ {'a': 1}.get('b', 2) }}", "[('items', 1)] 2"),
        (
            "{{ 'x' is sequence }} {{ none is iterable }} {{ {} is mapping }} {{ true is number }}",
            "True False True True",
        ),
        (
            "{{ 'a\n\nb' | indent(2) }}|{{ '7' | int + 1 }}|{{ '3.7' | int }}|{{ 'x' | int(5) }}",
            "a\n\n  b|8|3|5",
        ),
        (
            "{% for i in range(9) %}{% if i == 1 %}{% continue %}{% endif %}{% if i == 3 %}{% break %}{% endif %}{{ i }}{% endfor %}",
            "02",
        ),
        (
            "{% set ns = namespace(n=1) %}{% for i in [1, 2] %}{% set ns.n = ns.n + i %}{% endfor %}{{ ns.n }}",
            "4",
        ),
        (
            "{% macro f(a, b=2) %}{{ a }}{{ b }}{{ late }}{% endmacro %}{% set late = '!' %}{{ f(1) }}",
            "12!",
        ),
        (
            "{{ strftime_now('%d %b %Y') }}{{ bos_token }}{{ nothing }}{{ tools is none }}",
            "04 Jul 2026<s>True",
        ),
    ];
    for (source, expected) in cases {
        assert_eq!(
            render(source).unwrap_or_else(|e| panic!("{source}: {e}")),
            expected,
            "{source}"
        );
    }
}

#[test]
fn white_space_around_tags_is_as_transformers_sets_it() {
    let cases = [
        ("  {% if true %}\n  a\n  {% endif %}\nb\n", "  a\nb"),
        ("{% if true +%}\nx{% endif %}\r\ny", "\nxy"),
        ("a {%- generation -%} b {%- endgeneration %}\nc", "abc"),
        ("{% raw %}\n{{ x }} {% generation %}{% endraw %}\ny", "\n{{ x }} {% generation %}y"),
        ("{% set x = '%}' %}\n{{ x }}{{ {'a': {}} }}{# {% #}", "%}{'a': {}}"),
        ("{%- for k, v in {'a': 1}.items() -%}\n {{ k }}{{ v }}\n{%- endfor +%}\nz", "a1\nz"),
        ("{%- macro f(a, b=[1,2]) -%}\n {{ a }}{{ b }}\n{%- endmacro %}\n{{ f(1) }}", "1[1, 2]"),
    ];
    for (source, expected) in cases {
        assert_eq!(
            render(source).unwrap_or_else(|e| panic!("{source}: {e}")),
            expected,
            "{source:?}"
        );
    }
}

#[test]
fn errors_name_the_template_the_line_and_a_remedy() {
    let refused = render(
        "{% macro f() %}{{ raise_exception('No ' ~ messages[0].role) }}{% endmacro %}\n{{ f() }}",
    );
    assert_eq!(refused.unwrap_err().to_string(), "No user");
    for (source, line) in [
        ("a\n{% if %}", 2),
        ("\n\n{{ 1 + 'x' }}", 3),
        ("\n{% set x = 1 %}\n{{ x.y.z }}", 3),
        ("\n{{ 'a' | nothing }}", 2),
    ] {
        let text = render(source).unwrap_err().to_string();
        assert!(text.starts_with(&format!("own.jinja: line {line}: ")), "{source}: {text}");
        assert!(text.contains("; ") && text.contains("another"), "{source}: {text}");
    }
}

/// Each would take the memory, the stack or hours, or make a cycle.
#[test]
fn hostile_templates_end_with_an_error() {
    let nest = |open: &str, close: &str| {
        let opened: String = (0..60)
            .map(|i| open.replace('B', &format!("a{}", i + 1)).replace('A', &format!("a{i}")))
            .collect();
        format!("{opened}{{{{ '' ~ a60 }}}}{}", close.repeat(60))
    };
    let spaced = "{% set ns = namespace(x=['a'], s='ab') %}{% for i in range(90000) %}";
    let cases = [
        format!("{spaced}{{% set ns.x = [ns.x] %}}{{% endfor %}}"),
        format!("{spaced}{{% set ns.s = ns.s ~ ns.s %}}{{% endfor %}}"),
        format!("{spaced}{{% set ns.x = [ns.x, ns.x] %}}{{% endfor %}}{{{{ '' ~ ns.x }}}}"),
        format!("{spaced}{{% set ns.x = [ns] %}}{{% endfor %}}{{{{ ns }}}}"),
        "{% macro f(x) %}{{ f([x, x]) }}{% endmacro %}{{ f(1) }}".to_owned(),
        "{% for x in [1] recursive %}{{ loop([[x, x]]) }}{% endfor %}".to_owned(),
        nest("{% for B in [[A, A]] %}", "{% endfor %}"),
        nest("{% with B = [A, A] %}", "{% endwith %}"),
        "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}".to_owned(),
        format!(
            "{{% set x %}}{{% for i in range(99999) %}}{}{{% endfor %}}{{% endset %}}",
            "x".repeat(1000)
        ),
        "{{ 'a' * 1000000000 }}".to_owned(),
        "{{ 'a'.center(1000000000000) }}".to_owned(),
        "{{ '{:>1000000000}'.format(1) }}".to_owned(),
        "{{ ('a' * 10000).replace('a', 'a' * 10000).replace('a', 'b' * 10000) }}".to_owned(),
        "{{ 'a' | indent(1000000000000) }}".to_owned(),
        format!("{{{{ {} }}}}", "[".repeat(5000)),
        format!("{{{{ 1{} }}}}", "+1".repeat(20_000)),
        "{% if 1 %}".repeat(20_000),
        "x".repeat(300_000),
    ];
    for source in &cases {
        let shown: String = source.chars().take(120).collect();
        let error = render(source).map(|text| text.len()).expect_err(&shown);
        assert!(matches!(error, NotRendered::Failed { .. }), "{shown}: {error}");
    }
}

#[test]
fn texts_that_are_no_templates_never_panic() {
    let pieces = [
        "{%",
        "%}",
        "{{",
        "}}",
        "{#",
        "#}",
        "-",
        "+",
        " set ",
        "for",
        " in ",
        "x",
        "=",
        "(",
        ")",
        "'",
        "\"",
        "\\",
        "é",
        "\r",
        "macro f(",
        "with",
        "call",
        "raw",
        "endraw",
        "generation",
        ",",
        "[",
        "|",
        ".",
    ];
    let mut state = 12_345_u32;
    for _ in 0..3_000 {
        let mut source = String::new();
        for _ in 0..12 {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            source.push_str(pieces[(state >> 16) as usize % pieces.len()]);
        }
        if let Err(NotRendered::Failed { reason, .. }) = render(&source) {
            assert!(!reason.contains("engine failed"), "{source:?}");
        }
    }
}
