//! How a model is converted.

use super::told::Told;
use crate::cancel::Cancel;
use crate::quantize::Precision;
use std::path::Path;

/// How a model is converted.
#[derive(Clone, Debug, Default)]
pub struct ConvertOptions<'o> {
    /// Precision of the matrices. Without one, those that are quantized already stay as they are,
    /// and the others become int8.
    pub precision: Option<Precision>,
    /// Gives the int4 matrices of the layers a second int4 plane, of what the first got wrong; those
    /// that are int4 already need none.
    pub residual: bool,
    /// Makes the model for texts longer than those that it was trained on at first, where there is another
    /// for them.
    pub long_context: bool,
    /// The tokenizer.
    pub tokenizer: TokenizerChoice<'o>,
    /// How rounding to int4 is calibrated.
    pub calibration: Calibration<'o>,
    /// Bytes that this process may have resident while it converts, if it does nothing else; what does
    /// not fit is refused before anything is written.
    pub memory: Option<u64>,
    /// Replaces an existing package.
    pub force: bool,
    /// Waits where another conversion to the same place is under way, which is refused otherwise.
    pub wait: bool,
    /// Stops the work; nothing of it stays.
    pub cancel: Cancel,
    /// Is told what people want to know meanwhile.
    pub told: Told<'o>,
}

/// Which tokenizer a package gets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TokenizerChoice<'o> {
    /// The model's own.
    #[default]
    Own,
    /// One from a file.
    File(&'o Path),
    /// None: the package takes token ids only.
    None,
}

/// What a model is shown to learn how its weights are best rounded to int4 (GPTQ).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Calibration<'o> {
    /// Texts that it writes itself, up to [`SELF_CALIBRATED`] parameters; larger models are
    /// rounded plainly.
    #[default]
    Auto,
    /// Nothing: weights are rounded plainly.
    Off,
    /// A text file.
    Text(&'o Path),
}

/// The most parameters of a model that is calibrated without being asked: it takes a minute at most.
pub const SELF_CALIBRATED: u64 = 20_000_000;
