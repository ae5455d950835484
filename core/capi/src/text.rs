//! Models that take tokens.

use crate::engine::Engine;
use crate::status::{Status, of};
use crate::text_state::{Next, Text};
use core::ffi::{c_char, c_void};
use omex_core::engine::Wanted;
use omex_core::sample::{Sampler, Sampling};
use omex_core::token::{DecodeError, Decoder, EncodeError, EncodeOptions, Symbol};

/// Characters of a word that are looked up at once: a longer one is cut.
const WORD_SYMBOLS: usize = 64;

/// How tokens are chosen. All zeros, the most likely one is taken.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct SamplingOptions {
    /// Logits are divided by it; 0 takes the most likely token.
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

/// Takes a piece of text, whole characters in UTF-8 that no zero ends.
pub type TextFn =
    Option<unsafe extern "C" fn(context: *mut c_void, text: *const c_char, bytes: usize)>;

impl Engine {
    fn feed(&mut self, tokens: &[u32]) -> Result<(), Status> {
        if tokens.is_empty() {
            return Err(Status::Length);
        }
        self.catch_up()?;
        // A pass that fails leaves no logits.
        self.text.next = Next::Nothing;
        let columns = self.engine.plan().columns as usize;
        for tokens in tokens.chunks(columns.max(1)) {
            self.engine.forward(tokens, Wanted::Last)?;
            tokens.iter().for_each(|token| self.text.sampler.observe(*token));
        }
        self.text.next = Next::Logits;
        Ok(())
    }

    /// Runs the token that was chosen last, if it was not.
    fn catch_up(&mut self) -> Result<(), Status> {
        if let Next::Behind(token) = self.text.next {
            self.engine.forward(&[token], Wanted::Last)?;
            self.text.next = Next::Logits;
        }
        Ok(())
    }

    /// The logits that the next token is chosen from.
    fn logits(&mut self) -> Result<&mut [f32], Status> {
        self.catch_up()?;
        if self.text.next == Next::Nothing {
            return Err(Status::Length);
        }
        match self.engine.logits_mut(0) {
            [] => Err(Status::Kind),
            logits => Ok(logits),
        }
    }

    fn next(&mut self) -> Result<Option<u32>, Status> {
        self.logits()?;
        let token = self.text.sampler.sample(self.engine.logits_mut(0));
        let stops = self.engine.program().stop_tokens().any(|stop| stop == token);
        self.text.next = if stops { Next::Nothing } else { Next::Behind(token) };
        Ok((!stops).then_some(token))
    }

    fn encode(&mut self, text: &str, tokens: &mut [u32]) -> Result<usize, Status> {
        let Text { tokenizer, decoder, .. } = &mut self.text;
        let tokenizer = tokenizer.as_mut().ok_or(Status::NoTokenizer)?;
        let mut scratch = [Symbol::EMPTY; WORD_SYMBOLS];
        let (mut count, room) = (0, tokens.len());
        let mut places = tokens.iter_mut();
        tokenizer.encode(text, EncodeOptions::default(), &mut scratch, |id| {
            count += 1;
            if let Some(place) = places.next() {
                *place = id;
            }
            Ok(())
        })?;
        if count <= room {
            *decoder = tokenizer.decoder_after(tokens.get(..count).unwrap_or_default(), false)?;
        }
        Ok(count)
    }
}

/// Begins a new text.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn omex_reset(engine: *mut Engine) -> Status {
    // SAFETY: it is valid or null, as the caller says.
    let Some(engine) = (unsafe { engine.as_mut() }) else { return Status::Argument };
    engine.engine.reset();
    (engine.text.next, engine.text.decoder) = (Next::Nothing, Decoder::new(false));
    Status::Ok
}

/// Chooses tokens in this way from now on.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn omex_set_sampling(
    engine: *mut Engine,
    options: *const SamplingOptions,
) -> Status {
    // SAFETY: both are valid or null, as the caller says.
    let (Some(engine), Some(options)) = (unsafe { (engine.as_mut(), options.as_ref()) }) else {
        return Status::Argument;
    };
    let SamplingOptions { temperature, top_k, top_p, min_p, repetition_penalty, seed } = *options;
    let or_one = |x: f32| if x == 0.0 { 1.0 } else { x };
    let (top_p, repetition_penalty) = (or_one(top_p), or_one(repetition_penalty));
    let probable = |x: f32| (0.0..=1.0).contains(&x);
    let finite = (0.0..=1e6).contains(&temperature) && (0.0..=1e6).contains(&repetition_penalty);
    if !finite || !probable(top_p) || !probable(min_p) {
        return Status::Argument;
    }
    let sampling = Sampling { temperature, top_k, top_p, min_p, repetition_penalty, seed };
    engine.text.sampler = Sampler::new(sampling);
    Status::Ok
}

/// Runs tokens behind those that were run: a prompt, or what follows.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn omex_feed(
    engine: *mut Engine,
    tokens: *const u32,
    count: usize,
) -> Status {
    // SAFETY: it is valid or null, as the caller says.
    let Some(engine) = (unsafe { engine.as_mut() }) else { return Status::Argument };
    // SAFETY: there are so many, as the caller says.
    let Some(tokens) = (unsafe { slice(tokens, count) }) else { return Status::Argument };
    of(engine.feed(tokens))
}

/// Chooses the next token; OMEX_STATUS_END if the model ends the text with it. It is run by the next call that needs
/// what it leads to.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn omex_next(engine: *mut Engine, token: *mut u32) -> Status {
    // SAFETY: both are valid or null, as the caller says.
    let (Some(engine), Some(token)) = (unsafe { (engine.as_mut(), token.as_mut()) }) else {
        return Status::Argument;
    };
    match engine.next() {
        Ok(Some(next)) => {
            *token = next;
            Status::Ok
        }
        Ok(None) => Status::End,
        Err(status) => status,
    }
}

/// The logits that the next token will be chosen from, one for each of the vocabulary, to be read or changed; valid
/// until the next call. Who chooses tokens in another way gives them to omex_feed, and never calls omex_next.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn omex_logits(engine: *mut Engine, logits: *mut *mut f32) -> Status {
    // SAFETY: both are valid or null, as the caller says.
    let (Some(engine), Some(logits)) = (unsafe { (engine.as_mut(), logits.as_mut()) }) else {
        return Status::Argument;
    };
    of(engine.logits().map(|found| *logits = found.as_mut_ptr()))
}

/// The tokens of a text in UTF-8, with those that the tokenizer puts around a text; omex_decode goes on behind
/// them. `count` becomes how many there are; if that is more than `room`, the result is OMEX_STATUS_LENGTH.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn omex_encode(
    engine: *mut Engine,
    text: *const c_char,
    bytes: usize,
    tokens: *mut u32,
    room: usize,
    count: *mut usize,
) -> Status {
    // SAFETY: both are valid or null, as the caller says.
    let (Some(engine), Some(count)) = (unsafe { (engine.as_mut(), count.as_mut()) }) else {
        return Status::Argument;
    };
    // SAFETY: there are so many, as the caller says.
    let Some(text) = (unsafe { slice(text.cast(), bytes) }) else { return Status::Argument };
    let tokens: &mut [u32] = match (tokens.is_null(), room) {
        (true, 0) => &mut [],
        (true, _) => return Status::Argument,
        // SAFETY: there is room for so many, as the caller says.
        (false, room) => unsafe { core::slice::from_raw_parts_mut(tokens, room) },
    };
    let Ok(text) = core::str::from_utf8(text) else { return Status::Encoding };
    let encoded = engine.encode(text, tokens);
    of(encoded.and_then(|found| {
        *count = found;
        if found > room { Err(Status::Length) } else { Ok(()) }
    }))
}

/// Gives the characters that a token completes to `tell`, piece by piece.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn omex_decode(
    engine: *mut Engine,
    token: u32,
    tell: TextFn,
    context: *mut c_void,
) -> Status {
    // SAFETY: it is valid or null, as the caller says.
    let Some(engine) = (unsafe { engine.as_mut() }) else { return Status::Argument };
    let Some(tell) = tell else { return Status::Argument };
    let Text { tokenizer, decoder, .. } = &mut engine.text;
    let Some(tokenizer) = tokenizer else { return Status::NoTokenizer };
    let mut emit = |text: &str| {
        // SAFETY: the caller's function takes a text and its length, with its context.
        unsafe { tell(context, text.as_ptr().cast(), text.len()) }
    };
    of(tokenizer.decode(decoder, token, &mut emit).map_err(Status::from))
}

/// A slice of the caller's; `None` for null, unless it is empty.
///
/// # Safety
/// There are so many elements, and they stay.
unsafe fn slice<'a, T>(first: *const T, count: usize) -> Option<&'a [T]> {
    match (first.is_null(), count) {
        (true, 0) => Some(&[]),
        (true, _) => None,
        // SAFETY: as the caller says.
        (false, count) => Some(unsafe { core::slice::from_raw_parts(first, count) }),
    }
}

impl From<EncodeError> for Status {
    fn from(error: EncodeError) -> Self {
        match error {
            EncodeError::Source => Self::Read,
            EncodeError::Full => Self::Length,
            _ => Self::Damaged,
        }
    }
}

impl From<DecodeError> for Status {
    fn from(error: DecodeError) -> Self {
        match error {
            DecodeError::Source => Self::Read,
            _ => Self::Damaged,
        }
    }
}
