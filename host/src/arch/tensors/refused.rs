//! Why something can't be drawn.

/// Why an operation can't be drawn.
#[derive(Clone, Debug, PartialEq)]
pub(in super::super) struct Refused {
    pub(in super::super) found: String,
    pub(in super::super) expected: String,
}

impl Refused {
    pub(in super::super) fn new(found: impl Into<String>, expected: impl Into<String>) -> Self {
        Self { found: found.into(), expected: expected.into() }
    }
}

/// What came of drawing something.
pub(in super::super) type Drawn<T> = std::result::Result<T, Refused>;
