use super::{Answer, Part, Reader, Value};
use serde_json::{Value as Json, json};

fn tools() -> Value {
    serde_json::from_value(json!([{ "type": "function", "function": {
        "name": "weather",
        "parameters": { "type": "object", "properties": {
            "city": { "type": "string" }, "days": { "type": "integer" }, "units": { "type": "array" },
        } },
    } }]))
    .unwrap()
}

/// The answer in one piece; in pieces of one character it is the same.
fn answer_behind(prompt: &str, text: &str, tools: &Value) -> Answer {
    let read = |pieces: &mut dyn Iterator<Item = String>| {
        let (mut reader, mut answer) = (Reader::behind(prompt, tools), Answer::default());
        pieces.for_each(|piece| answer.extend(reader.push(&piece)));
        answer.extend(reader.finish());
        assert_eq!(*reader.answer(), answer);
        answer
    };
    let whole = read(&mut [text.to_owned()].into_iter());
    assert_eq!(read(&mut text.chars().map(String::from)), whole, "{text}");
    whole
}

fn answer(text: &str) -> Answer {
    answer_behind("", text, &tools())
}

/// Names and arguments of the calls in a text, in which nothing else is.
fn calls(text: &str) -> Json {
    let answer = answer(text);
    assert_eq!((answer.content.trim(), answer.thinking.as_str()), ("", ""), "{text}");
    let call = |call: &super::ToolCall| json!([call.function.name, call.function.arguments]);
    answer.tool_calls.iter().map(call).collect()
}

/// That a text has no call, and stays as it is.
fn stays(text: &str) {
    let answer = answer(text);
    assert_eq!((answer.content.as_str(), answer.tool_calls.len()), (text, 0));
}

#[test]
fn json_between_tags() {
    let one = r#"<tool_call>
{"name": "weather", "arguments": {"city": "Paris", "days": 3}}
</tool_call>"#;
    let paris = json!(["weather", { "city": "Paris", "days": 3 }]);
    assert_eq!(calls(one), json!([paris]));
    assert_eq!(calls(&format!("{one}\n{one}")), json!([paris, paris]));
    // The answer may end before the tag does.
    assert_eq!(calls(one.strip_suffix("</tool_call>").unwrap()), json!([paris]));
    assert_eq!(calls(r#"<tool_call>{"name": "now"}</tool_call>"#), json!([["now", {}]]));
    assert_eq!(
        calls(r#"<tool_call>{"name": "f", "arguments": "{\"a\": [1, \"</b>\"]}"}</tool_call>"#),
        json!([["f", { "a": [1, "</b>"] }]])
    );
    let spoken = answer(&format!("I look.\n{one} Done."));
    assert_eq!((spoken.content.as_str(), spoken.tool_calls.len()), ("I look.\n Done.", 1));
}

#[test]
fn malformed_json_stays_text() {
    for body in [
        "",
        "{",
        "[]",
        "null",
        "{}",
        r#"{"name": ""}"#,
        r#"{"name": 7, "arguments": {}}"#,
        r#"{"name": "f", "arguments": [1]}"#,
        r#"{"name": "f", "arguments": "no"}"#,
        r#"{"name": "f", "arguments": {}} and more"#,
        r#"[{"name": "f"}, 7]"#,
    ] {
        stays(&format!("Before <tool_call>{body}</tool_call> behind"));
    }
    stays(r#"<tool_call>{"name": "weather", "argum"#);
    stays("a < b, <tool, </tool_call>, <tool_cal");
    stays(&format!("<tool_call>{}</tool_call>", "[".repeat(100_000)));
}

#[test]
fn tags_for_functions_and_parameters() {
    let body = "<function=weather>\n<parameter=city>\nParis\nand more\n</parameter>\n\
                <parameter=days>\n3\n</parameter>\n<parameter=units>[\"C\"]</parameter>\n</function>";
    let expected = json!([["weather", { "city": "Paris\nand more", "days": 3, "units": ["C"] }]]);
    assert_eq!(calls(&format!("<tool_call>\n{body}\n</tool_call>")), expected);
    assert_eq!(calls(body), expected);
    // A text where the tool asks for one, or asks for nothing; a text, too, where it is not what the tool asks for.
    let one = |tool: &str, name: &str, value: &str| {
        calls(&format!("<function={tool}><parameter={name}>{value}</parameter></function>"))
    };
    assert_eq!(one("weather", "city", "12"), json!([["weather", { "city": "12" }]]));
    assert_eq!(one("weather", "days", "many"), json!([["weather", { "days": "many" }]]));
    assert_eq!(one("other", "days", "3"), json!([["other", { "days": "3" }]]));
    assert_eq!(calls("<function=now></function>"), json!([["now", {}]]));
    assert_eq!(calls(r#"<function=f>{"a": 1}</function>"#), json!([["f", { "a": 1 }]]));
}

#[test]
fn malformed_tags_stay_text() {
    for body in [
        "<function=>\n</function>",
        "<function=a b c",
        "<function=f><parameter=a>1</function>",
        "<function=f>text</function>",
        "<function=f>{\"a\"</function>",
        "<function=f>[1]</function>",
        "<function=f><parameter=a</parameter></function>",
        "<function=\n></function>",
    ] {
        stays(body);
        stays(&format!("<tool_call>{body}</tool_call>"));
    }
    stays("<tool_call><function=f><parameter=a>1</parameter></tool_call>");
}

#[test]
fn mistral_s_lists_and_names() {
    let expected = json!([["weather", { "city": "Paris" }]]);
    assert_eq!(
        calls(r#"[TOOL_CALLS][{"name": "weather", "arguments": {"city": "Paris"}}]"#),
        expected
    );
    assert_eq!(
        calls(r#"[TOOL_CALLS] [{"name": "weather", "arguments": {"city": "Paris"}}]</s>"#),
        expected
    );
    let two =
        r#"[TOOL_CALLS]weather[ARGS]{"city": "Paris"}[TOOL_CALLS]now[CALL_ID]abcdefghi[ARGS]{}"#;
    assert_eq!(calls(two), json!([["weather", { "city": "Paris" }], ["now", {}]]));
    let ids: Vec<String> = answer(two).tool_calls.into_iter().map(|call| call.id).collect();
    assert_eq!(ids, ["call00000", "abcdefghi"]);
    for text in [
        "[TOOL_CALLS]",
        "[TOOL_CALLS]f",
        "[TOOL_CALLS]f[ARGS]",
        "[TOOL_CALLS]f g{}",
        "[TOOL_CALLS]{}",
        "[TOOL_CALLS][{]",
    ] {
        stays(text);
    }
}

#[test]
fn llama_s_tag_and_bare_json() {
    let json = r#"{"name": "weather", "parameters": {"city": "Paris"}}"#;
    let expected = json!(["weather", { "city": "Paris" }]);
    assert_eq!(calls(&format!("<|python_tag|>{json}")), json!([expected]));
    assert_eq!(
        calls(&format!("<|python_tag|>{json}; {json}<|eom_id|>")),
        json!([expected, expected])
    );
    assert_eq!(calls(json), json!([expected]));
    assert_eq!(
        calls(r#"<|python_tag|>brave_search.call(query="a, b", most=3)"#),
        json!([["brave_search", { "query": "a, b", "most": 3 }]])
    );
    assert_eq!(
        calls("<|python_tag|>print(1 + 1)"),
        json!([["python", { "code": "print(1 + 1)" }]])
    );
    for text in [
        r#"{"name": "weather", "#,
        r#"{"a": 1}"#,
        r#"{"name": "f", "parameters": {}} text"#,
        "<|python_tag|>",
        "<|python_tag|>{",
    ] {
        stays(text);
    }
    // Without tools, JSON is an answer.
    let without = answer_behind("", json, &Value::from(()));
    assert_eq!((without.content.as_str(), without.tool_calls.len()), (json, 0));
}

#[test]
fn expressions_of_python() {
    assert_eq!(
        calls(
            r#"<|tool_call_start|>[weather(city='Pa"ris\n', days=-3.5), f.g(a=[True, None, {"b": 1,}]), now()]<|tool_call_end|>"#
        ),
        json!([
            ["weather", { "city": "Pa\"ris\n", "days": -3.5 }],
            ["f.g", { "a": [true, null, { "b": 1 }] }],
            ["now", {}],
        ])
    );
    for body in
        ["[]", "[f(1)]", "[f(a=b)]", "[f(a='x)]", "f(a=1)", "[f(a=1) g()]", "[f(a=1)] x", "[f(a=1"]
    {
        stays(&format!("<|tool_call_start|>{body}<|tool_call_end|>"));
    }
    stays(&format!("<|tool_call_start|>[f(a={})]", "[".repeat(100_000)));
}

const HARMONY: &str = "<|start|>user<|message|>Hi<|end|><|start|>assistant";

#[test]
fn harmony_s_channels() {
    let text = "<|channel|>analysis<|message|>They ask.<|end|><|start|>assistant<|channel|>commentary \
                to=functions.weather <|constrain|>json<|message|>{\"city\": \"Paris\"}<|call|>";
    let called = answer_behind(HARMONY, text, &tools());
    assert_eq!((called.content.as_str(), called.thinking.as_str()), ("", "They ask."));
    assert_eq!(
        serde_json::to_value(&called.tool_calls).unwrap(),
        json!([{ "id": "call00000", "type": "function", "function": { "name": "weather", "arguments": { "city": "Paris" } } }])
    );
    let said = answer_behind(
        HARMONY,
        "<|channel|>analysis<|message|>Hm.<|end|><|start|>assistant<|channel|>final<|message|>Hello <|b|>.<|return|>",
        &tools(),
    );
    assert_eq!((said.content.as_str(), said.thinking.as_str()), ("Hello <|b|>.", "Hm."));
    let python =
        answer_behind(HARMONY, " to=python<|channel|>analysis<|message|>print(1)", &tools());
    assert_eq!(python.tool_calls[0].function.arguments, Value::from("print(1)"));
}

#[test]
fn malformed_harmony_stays_text() {
    for text in [
        "<|channel|>commentary to=functions.f <|constrain|>json<|message|>{\"a\": ",
        "<|channel|>commentary to=functions.f json<|message|>",
        "No header at all.",
    ] {
        let read = answer_behind(HARMONY, text, &tools());
        assert_eq!((read.content.as_str(), read.tool_calls.len()), (text, 0));
    }
    let cut = answer_behind(HARMONY, "<|channel|>fin", &tools());
    assert_eq!(cut, Answer::default());
}

#[test]
fn thoughts_are_told_from_text_and_may_begin_in_the_prompt() {
    let thought = answer("<think>\nHm: <tool_call>.\n</think>\n\nHello.");
    assert_eq!(
        (thought.thinking.as_str(), thought.content.as_str()),
        ("\nHm: <tool_call>.\n", "\n\nHello.")
    );
    let begun = answer_behind("user: Hi\n<think>\n", "Hm.</think>Hello.", &tools());
    assert_eq!((begun.thinking.as_str(), begun.content.as_str()), ("Hm.", "Hello."));
    let endless = answer("[THINK]and so on");
    assert_eq!((endless.thinking.as_str(), endless.content.as_str()), ("and so on", ""));
}

#[test]
fn text_is_passed_on_as_soon_as_it_is_no_mark() {
    let mut reader = Reader::behind("", &tools());
    let text = |text: &str| vec![Part::Text(text.into())];
    assert_eq!(reader.push("Hello <"), text("Hello "));
    assert_eq!(reader.push("b> and <tool"), text("<b> and "));
    assert_eq!(reader.push("_call>{\"name\": \"now\"}"), []);
    assert!(matches!(reader.push("</tool_call>").as_slice(), [Part::Call(_)]));
    assert_eq!(reader.push(" [TOOL"), text(" "));
    assert_eq!(reader.finish(), text("[TOOL"));
}

/// The message that templates get of an answer.
fn message(prompt: &str, text: &str) -> Json {
    let mut reader = Reader::behind(prompt, &tools());
    reader.push(text);
    reader.finish();
    serde_json::to_value(reader.message()).unwrap()
}

#[test]
fn messages_are_as_templates_expect_them() {
    assert_eq!(
        message("<think>", "Hm.</think>\nHello.\n"),
        json!({ "role": "assistant", "content": "<think>Hm.</think>\nHello." })
    );
    let called = message("", "[THINK]Hm.[/THINK][TOOL_CALLS]now[ARGS]{}");
    assert_eq!(
        (&called["content"], called["tool_calls"].as_array().unwrap().len()),
        (&json!("[THINK]Hm.[/THINK]"), 1)
    );
    assert_eq!(
        message(
            HARMONY,
            "<|channel|>analysis<|message|>Hm.<|end|><|start|>assistant<|channel|>final<|message|>Hello."
        ),
        json!({ "role": "assistant", "content": "Hello.", "thinking": "Hm." })
    );
}
