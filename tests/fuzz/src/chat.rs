//! What goes into a chat, and what comes out of it.

use crate::split_at_zero;
use omex::chat::answer::Reader;
use omex::chat::{Conversation, Moment, Template, Value};

/// A template, a zero byte, and a list of messages in JSON.
pub fn chat_template(data: &[u8]) {
    let (template, messages) = split_at_zero(data);
    let Ok(template) = Template::new("template", &String::from_utf8_lossy(template)) else {
        return;
    };
    let conversation = Conversation {
        messages: serde_json::from_slice(messages).unwrap_or_default(),
        tools: Value::from(()),
        add_generation_prompt: true,
        variables: vec![
            ("bos_token".into(), "<s>".into()),
            ("enable_thinking".into(), true.into()),
        ],
        now: Moment::from_unix(1_782_898_200),
    };
    // A template may refuse a conversation, or come to an end that is none.
    let _ = template.render(&conversation);
}

/// A prompt, a zero byte, and an answer; which is the same in whatever pieces it comes.
pub fn answer(data: &[u8]) {
    let (prompt, answer) = split_at_zero(data);
    let (prompt, answer) = (String::from_utf8_lossy(prompt), String::from_utf8_lossy(answer));
    let tools = Value::from(());
    let mut whole = Reader::behind(&prompt, &tools);
    whole.push(&answer);
    whole.finish();
    let mut pieces = Reader::behind(&prompt, &tools);
    for piece in answer.chars() {
        pieces.push(piece.encode_utf8(&mut [0; 4]));
    }
    pieces.finish();
    assert_eq!(whole.answer(), pieces.answer());
}
