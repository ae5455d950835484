//! Models that take texts.

use crate::failure::{Failure, failure, text};
use crate::model::{Model, with};
use host::cancel::Cancel;
use host::chat::{Moment, Value};
use host::embed::HIDDEN;
use host::generate::Event;
use host::runner::Continuation;
use host::sampling;
use omex_core::sample::Sampling;
use std::ffi::{c_char, c_void};
use std::time::{SystemTime, UNIX_EPOCH};

/// Takes a piece of a text, whole characters in UTF-8 that no zero ends; returns whether the text goes on.
pub type PieceFn =
    Option<unsafe extern "C" fn(context: *mut c_void, piece: *const c_char, bytes: usize) -> bool>;

/// How a text is gone on with. Null, and all zeros, take the most likely token until the model ends the text.
#[derive(Clone, Copy, Default)]
#[repr(C)]
pub struct Generation {
    /// Tokens at most; 0 for as many as the model writes.
    pub max_tokens: u32,
    /// Randomness; 0 takes the most likely token.
    pub temperature: f32,
    /// Keeps so many of the most likely tokens; 0 keeps all.
    pub top_k: u32,
    /// Keeps the most likely tokens that make up this probability; 0 keeps all.
    pub top_p: f32,
    /// Keeps tokens at least this fraction as likely as the most likely one; 0 keeps all.
    pub min_p: f32,
    /// Makes recent tokens less likely; 0 does nothing, and so does 1.
    pub repetition_penalty: f32,
    /// Where the random numbers begin.
    pub seed: u64,
}

impl Generation {
    fn sampling(&self) -> Result<Sampling, Failure> {
        let named =
            |name: &'static str| move |expected: &str| failure(format!("{name}: {expected}"));
        let or_one = |x: f32| if x == 0.0 { 1.0 } else { x };
        let penalty = sampling::penalty(or_one(self.repetition_penalty));
        Ok(Sampling {
            temperature: sampling::temperature(self.temperature).map_err(named("temperature"))?,
            top_k: self.top_k,
            top_p: sampling::probability(or_one(self.top_p)).map_err(named("top_p"))?,
            min_p: sampling::probability(self.min_p).map_err(named("min_p"))?,
            repetition_penalty: penalty.map_err(named("repetition_penalty"))?,
            seed: self.seed,
        })
    }
}

/// Goes on with a prompt, and gives the text to `piece` as it comes, until that returns false. A prompt that begins as
/// the last text did is run from there on.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn omex_model_generate(
    model: *mut Model,
    prompt: *const c_char,
    options: *const Generation,
    piece: PieceFn,
    context: *mut c_void,
) -> i32 {
    let encode = |model: &Model| -> Result<Vec<u32>, Failure> {
        // SAFETY: it is valid or null, as the caller says.
        let prompt = unsafe { text("prompt", prompt) }?;
        Ok(model.runner.model().encode(prompt)?)
    };
    // SAFETY: all are valid or null, as the caller says.
    unsafe {
        with(model, |model| generate(model, encode(model)?, options.as_ref(), piece, context))
    }
}

/// Answers a conversation by the model's chat template: JSON, a list of objects with role and content, as
/// [{"role": "user", "content": "Name a bird."}]. Else as omex_model_generate.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn omex_model_chat(
    model: *mut Model,
    messages: *const c_char,
    options: *const Generation,
    piece: PieceFn,
    context: *mut c_void,
) -> i32 {
    let encode = |model: &Model| -> Result<Vec<u32>, Failure> {
        // SAFETY: it is valid or null, as the caller says.
        let messages = unsafe { text("messages", messages) }?;
        let messages: Value = serde_json::from_str(messages)
            .map_err(|error| failure(format!("messages: expected JSON: {error}")))?;
        Ok(model.runner.chat_prompt(messages, Value::from(()), today())?)
    };
    // SAFETY: all are valid or null, as the caller says.
    unsafe {
        with(model, |model| generate(model, encode(model)?, options.as_ref(), piece, context))
    }
}

#[allow(clippy::disallowed_methods, reason = "a prompt may name the day, and is written nowhere")]
fn today() -> Moment {
    Moment::from_unix(SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs())
}

/// # Safety
/// `piece` may be called with `context`.
unsafe fn generate(
    model: &mut Model,
    prompt: Vec<u32>,
    options: Option<&Generation>,
    piece: PieceFn,
    context: *mut c_void,
) -> Result<(), Failure> {
    let piece = piece.ok_or_else(|| failure("piece: found null, expected a function"))?;
    let options = options.copied().unwrap_or_default();
    let cancel = Cancel::default();
    let max_tokens = match options.max_tokens {
        0 => usize::MAX - prompt.len(),
        most => most as usize,
    };
    let how = Continuation {
        max_tokens,
        sampling: options.sampling()?,
        stop: &[],
        cancel: cancel.clone(),
    };
    let tell = &mut |event: Event<'_>| {
        if let Event::Token { text, .. } | Event::End { text } = event
            && !text.is_empty()
            && !cancel.is_cancelled()
        {
            // SAFETY: it may be called with its context, as the caller says.
            if !unsafe { piece(context, text.as_ptr().cast(), text.len()) } {
                cancel.cancel();
            }
        }
        Ok(())
    };
    match model.runner.generate(&prompt, how, tell) {
        // The caller has what it wanted.
        Err(host::Error::Interrupted) => Ok(()),
        result => Ok(result?),
    }
}

/// The vector of a text, for models that make them. `width` becomes how many numbers it has; if that is more than
/// `room`, which may be 0 to ask, the result is -1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn omex_model_embed(
    model: *mut Model,
    text: *const c_char,
    vector: *mut f32,
    room: usize,
    width: *mut usize,
) -> i32 {
    let embed = |model: &mut Model| {
        let program = model.runner.model().program()?;
        let hidden = program.outputs().find(|port| port.name == HIDDEN);
        let hidden =
            hidden.ok_or_else(|| failure("the model makes no vectors: take an encoder"))?;
        let needed = hidden.value.width as usize;
        // SAFETY: it is valid or null, as the caller says.
        if let Some(width) = unsafe { width.as_mut() } {
            *width = needed;
        }
        if vector.is_null() || room < needed {
            return Err(failure(format!(
                "vector: found room for {room} numbers, expected {needed}"
            )));
        }
        // SAFETY: it is valid or null, as the caller says.
        let text = unsafe { self::text("text", text) }?;
        let made = model.runner.embed(&[text], None)?.pop().unwrap_or_default();
        // SAFETY: there is room for as many, as the caller says, and it is not the model's.
        let out = unsafe { std::slice::from_raw_parts_mut(vector, needed) };
        if made.len() != needed {
            return Err(failure(format!(
                "found a vector of {} numbers, expected {needed}",
                made.len()
            )));
        }
        out.copy_from_slice(&made);
        Ok(())
    };
    // SAFETY: it is open or null, as the caller says.
    unsafe { with(model, embed) }
}
