//! What a conversion tells while it is under way.

use std::fmt;
use std::path::Path;

/// What people want to know of a conversion.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub enum Note<'n> {
    /// It goes on with what one that was cut off has finished.
    GoesOn {
        /// The layer that it goes on at, counted from 1.
        layer: usize,
        /// Layers in all.
        layers: usize,
        /// What is kept.
        folder: &'n Path,
    },
    /// What one that was cut off has finished is of no use.
    Anew {
        /// What is removed.
        folder: &'n Path,
        /// What is another one now.
        changed: &'n [&'static str],
    },
    /// The model is shown texts, which takes a while.
    Calibrates,
}

impl fmt::Display for Note<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::GoesOn { layer, layers, folder } => {
                write!(
                    f,
                    "goes on at layer {layer} of {layers}, with what is in {}",
                    folder.display()
                )
            }
            Self::Anew { folder, changed } => {
                let (folder, changed) = (folder.display(), changed.join(" and another "));
                write!(f, "starts anew: {folder} is of another {changed}")
            }
            Self::Calibrates => write!(f, "calibrating"),
        }
    }
}

/// Who is told.
#[derive(Clone, Copy, Default)]
pub struct Told<'t>(pub Option<&'t dyn Fn(&Note<'_>)>);

impl Told<'_> {
    pub(super) fn of(self, note: &Note<'_>) {
        if let Some(told) = self.0 {
            told(note);
        }
    }
}

impl fmt::Debug for Told<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_some() { "Told(someone)" } else { "Told(nobody)" })
    }
}
