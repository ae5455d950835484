//! `omex chat` as a process: prompts as they are rendered, and talks over a pipe.

use omex_tests::{omex, run, run_in, run_with, shipped_model};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};

const TEMPLATE: &str = "{% for m in messages %}{% if m.role == 'tool' %}{{ raise_exception('No tools here.') }}\
{% endif %}{{ m.role }}: {{ m.content }}\n{% endfor %}{% if tools %}{{ tools | tojson }}{% endif %}\
{% if add_generation_prompt %}assistant{{ mark }}{{ bos_token }}:{% endif %}";

/// A folder with the shipped model, which has this beside it.
fn model(files: &[(&str, Value)]) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let source = folder.path().join("source");
    std::fs::create_dir(&source).unwrap();
    for name in ["config.json", "model.safetensors", "tokenizer.json"] {
        std::fs::copy(shipped_model().join(name), source.join(name)).unwrap();
    }
    for (name, value) in files {
        let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        std::fs::write(source.join(name), text).unwrap();
    }
    folder
}

fn convert(folder: &Path) -> PathBuf {
    let args = ["convert", "--model-path", "source", "--output-dir", "m.omex", "--no-calibration"];
    let finished = run_in(folder, &args);
    assert_eq!(finished.code, Some(0), "{}", finished.err);
    folder.join("m.omex")
}

fn write(folder: &Path, name: &str, value: &Value) -> PathBuf {
    let path = folder.join(name);
    std::fs::write(&path, value.to_string()).unwrap();
    path
}

/// What a chat prints to standard output, and its exit code, when it is told these lines.
fn talk(package: &Path, args: &[&str], lines: &str) -> (String, String, i32) {
    let mut command = omex(["chat"]);
    let said = run_with(command.arg(package).args(args), lines);
    (said.out, said.err, said.code.unwrap())
}

#[test]
fn a_template_comes_into_the_package_and_is_rendered() {
    let settings = json!({
        "bos_token": {"content": "<B>"},
        "chat_template": [{"name": "default", "template": TEMPLATE}, {"name": "short", "template": "{{ messages[0].content }}"}],
    });
    let folder = model(&[("tokenizer_config.json", settings)]);
    let package = convert(folder.path());
    let messages = json!([{"role": "user", "content": "Hi é"}]);
    let messages = write(folder.path(), "messages.json", &messages);
    let tools = folder.path().join("tools.json");
    // Text, as its keys are to stay in this order.
    std::fs::write(&tools, r#"[{"b": 1, "a": 2.0}]"#).unwrap();
    let render = |args: &[&str]| {
        let mut command = omex(["chat", "--render", "--messages"]);
        let finished = run(command.arg(&messages).arg(&package).args(args));
        assert_eq!(finished.code, Some(0), "{}", finished.err);
        finished.out
    };
    assert_eq!(render(&[]), "user: Hi é\nassistant<B>:");
    assert_eq!(render(&["--no-generation-prompt"]), "user: Hi é\n");
    assert_eq!(render(&["--set", "mark=!", "--set", "bos_token="]), "user: Hi é\nassistant!:");
    assert_eq!(render(&["--template-name", "short"]), "Hi é");
    let tools = tools.display().to_string();
    assert!(
        render(&["--tools", &tools, "--no-generation-prompt"]).ends_with(r#"[{"b": 1, "a": 2.0}]"#)
    );
    let valid = run(omex(["validate"]).arg(&package));
    assert_eq!(valid.code, Some(0), "{}", valid.out);

    // It decides what the model says: a changed bit is found.
    let file = package.join("chat.json");
    let changed = std::fs::read_to_string(&file).unwrap().replace("<B>", "<C>");
    std::fs::write(&file, changed).unwrap();
    for command in [["validate"].as_slice(), &["chat", "--render", "--messages", "messages.json"]] {
        let finished = run(omex(command).arg(&package).current_dir(folder.path()));
        assert_eq!(finished.code, Some(1), "{command:?}");
        assert!(format!("{}{}", finished.out, finished.err).contains("chat.json: crc32c"));
    }
}

#[test]
fn a_file_of_its_own_wins_over_the_tokenizer_s_settings() {
    let settings = json!({"chat_template": "old"});
    let folder = model(&[
        ("tokenizer_config.json", settings),
        ("chat_template.jinja", json!("new{{ messages[0].content }}")),
    ]);
    let package = convert(folder.path());
    write(folder.path(), "m.json", &json!({"messages": [{"role": "user", "content": "!"}]}));
    let finished = run(omex(["chat", "--render", "--messages", "m.json"])
        .arg(&package)
        .current_dir(folder.path()));
    assert_eq!(finished.out, "new!", "{}", finished.err);
}

#[test]
fn a_template_alone_has_the_usual_tokens_and_refuses_in_its_own_words() {
    let folder = tempfile::tempdir().unwrap();
    let text = "{{ bos_token }}{{ eos_token }}{{ pad_token }}{{ unk_token }} {{ strftime_now('%d %b %Y') }}\
                {% if messages[0].role == 'tool' %}{{ raise_exception('No tools here.') }}{% endif %}";
    std::fs::write(folder.path().join("t.jinja"), text).unwrap();
    let args = ["chat", "--template", "t.jinja", "--render", "--date", "2026-07-04", "--messages"];
    let render = |role: &str| {
        let messages = write(folder.path(), "m.json", &json!([{"role": role, "content": ""}]));
        run(omex(args).arg(messages).current_dir(folder.path()))
    };
    assert_eq!(render("user").out, "<s></s><pad><unk> 04 Jul 2026");
    let refused = render("tool");
    assert_eq!((refused.code, refused.out.as_str()), (Some(1), ""));
    assert_eq!(refused.err, "error: No tools here.\n");
    let alone = run(omex(["chat", "--template", "t.jinja"]).current_dir(folder.path()));
    assert!(alone.code == Some(2) && alone.err.contains("--render"), "{}", alone.err);
}

#[test]
fn a_talk_over_a_pipe_answers_each_line_and_keeps_what_was_said() {
    let folder = model(&[("tokenizer_config.json", json!({"chat_template": TEMPLATE}))]);
    let package = convert(folder.path());
    let args = ["--max-tokens", "8", "--system", "Be kind."];
    let saved = folder.path().join("saved.json");
    let lines = format!("Once upon a time\n/save {}\nThe cat\n/stats\n", saved.display());
    let (answers, notes, code) = talk(&package, &args, &lines);
    assert_eq!(code, 0, "{notes}");
    let messages: Value = serde_json::from_str(&std::fs::read_to_string(&saved).unwrap()).unwrap();
    assert_eq!(messages[0], json!({"role": "system", "content": "Be kind."}));
    assert_eq!(messages[1]["content"], "Once upon a time");
    let (first, second) = answers.trim_end().split_once('\n').expect("two answers");
    assert_eq!(messages[2]["content"], first.trim_end());
    // What the engine held of the first turn changes nothing, and is not run again.
    let loaded = format!("/load {}\nThe cat\n", saved.display());
    let (again, notes_again, _) = talk(&package, &["--max-tokens", "8", "--stats"], &loaded);
    assert_eq!(again.trim_end(), second);
    let run_tokens = |notes: &str| {
        let words: Vec<&str> = notes.split_whitespace().collect();
        let at = words.windows(2).position(|pair| pair == ["of", "them"]).expect("stats");
        (words[at - 3].parse::<u32>().unwrap(), words[at - 1].parse::<u32>().unwrap())
    };
    let (prompt, of_prompt) = run_tokens(&notes);
    assert!(of_prompt < prompt, "{notes}");
    assert_eq!(run_tokens(&notes_again), (prompt, prompt), "{notes_again}");
}

#[test]
fn what_does_not_fit_the_context_is_said() {
    let folder = model(&[("tokenizer_config.json", json!({"chat_template": TEMPLATE}))]);
    let package = convert(folder.path());
    let lines = "Once upon a time\n\"\"\"The cat\nsat\"\"\"\nThe dog \\\nran\n";
    let args = ["--max-tokens", "8", "--context", "32"];
    let (_, notes, code) = talk(&package, &args, lines);
    assert!(code == 2 && notes.contains("the context 32 positions: raise --context"), "{notes}");
    let forgetting = [&args[..], &["--when-full", "forget-oldest"]].concat();
    let (answers, notes, code) = talk(&package, &forgetting, lines);
    assert!(code == 0 && notes.contains("oldest messages are forgotten"), "{notes}");
    assert!(answers.lines().count() >= 3, "{answers}");
}

#[test]
fn run_takes_a_message_for_the_template() {
    let folder = model(&[("tokenizer_config.json", json!({"chat_template": TEMPLATE}))]);
    let package = convert(folder.path());
    let run_with =
        |args: &[&str]| run(omex(["run"]).arg(&package).args(args).args(["--max-tokens", "8"]));
    let answer = run_with(&["Once", "--chat"]);
    assert_eq!(answer.code, Some(0), "{}", answer.err);
    assert_eq!(answer.out, talk(&package, &["--max-tokens", "8"], "Once\n").0);
    let unused = run_with(&["Once", "--set", "a=1"]);
    assert!(unused.code == Some(2) && unused.err.contains("--chat"), "{}", unused.err);
}

#[test]
fn an_answer_is_told_apart_and_calls_of_tools_are_answered() {
    // The model goes on thinking, since its prompt ends so.
    let thinking = format!("{TEMPLATE}{{% if add_generation_prompt %}}<think>{{% endif %}}");
    let folder = model(&[("tokenizer_config.json", json!({"chat_template": thinking}))]);
    let package = convert(folder.path());
    let answer =
        run(omex(["run"]).arg(&package).args(["Once", "--chat", "--json", "--max-tokens", "8"]));
    let output: Value = serde_json::from_str(&answer.out).unwrap();
    assert_eq!(output["thinking"], output["text"]);
    assert_eq!((&output["content"], &output["tool_calls"]), (&json!(""), &json!([])));
    let saved = folder.path().join("saved.json");
    let lines = format!("Once\n/save {}\n", saved.display());
    let (shown, notes, code) = talk(&package, &["--max-tokens", "8"], &lines);
    assert_eq!(code, 0, "{notes}");
    assert_eq!(shown, format!("<think>{}</think>\n", output["thinking"].as_str().unwrap()));
    let messages: Value = serde_json::from_str(&std::fs::read_to_string(&saved).unwrap()).unwrap();
    assert!(messages[1]["content"].as_str().unwrap().starts_with("<think>"), "{messages}");
    let (_, notes, code) = talk(&package, &[], "/tool 21\n");
    assert!(code == 2 && notes.contains("no tool"), "{notes}");
    let call = |id: &str, name: &str| json!({ "id": id, "type": "function", "function": { "name": name, "arguments": {} } });
    let messages = json!([{ "role": "user", "content": "Hi" }, {
        "role": "assistant", "content": "", "tool_calls": [call("a", "clock"), call("b", "weather")],
    }]);
    let messages = write(folder.path(), "messages.json", &messages);
    let lines = format!("/tool noon\n/save {}\n/tool sun\n", saved.display());
    let (_, notes, code) = talk(&package, &["--messages", messages.to_str().unwrap()], &lines);
    // The second is the last, and this template takes none.
    assert!(
        code == 1 && notes.contains("weather waits") && notes.contains("No tools here."),
        "{notes}"
    );
    let messages: Value = serde_json::from_str(&std::fs::read_to_string(&saved).unwrap()).unwrap();
    let expected =
        json!({ "role": "tool", "content": "noon", "tool_call_id": "a", "name": "clock" });
    assert_eq!(messages[2], expected);
}

#[test]
fn a_package_without_a_template_says_what_to_do() {
    let folder = model(&[]);
    let package = convert(folder.path());
    let (_, notes, code) = talk(&package, &[], "Hi\n");
    assert!(code == 2 && notes.contains("--template FILE"), "{notes}");
    let unknown = talk(&package, &["--template", "/nowhere"], "Hi\n");
    assert!(unknown.2 == 1 && unknown.1.contains("/nowhere"), "{}", unknown.1);
}
