//! What went wrong, in words.

use std::cell::RefCell;
use std::ffi::{CStr, CString, c_char};
use std::panic::{AssertUnwindSafe, catch_unwind};

/// Why a call failed.
pub(crate) struct Failure(String);

impl<E: std::error::Error> From<E> for Failure {
    fn from(error: E) -> Self {
        Self(error.to_string())
    }
}

/// A failure in these words.
pub(crate) fn failure(text: impl Into<String>) -> Failure {
    Failure(text.into())
}

thread_local! {
    static LAST: RefCell<CString> = RefCell::default();
}

/// Why this thread's last call that failed did so; empty if none has. Valid until the next one fails.
#[unsafe(no_mangle)]
pub extern "C" fn omex_last_error() -> *const c_char {
    LAST.with_borrow(|last| last.as_ptr())
}

/// Does something; a failure, or a panic, is kept in words, and `None` is returned.
pub(crate) fn guarded<T>(action: impl FnOnce() -> Result<T, Failure>) -> Option<T> {
    let result = catch_unwind(AssertUnwindSafe(action)).unwrap_or_else(|_| {
        Err(failure("a fault inside of OMEX, see standard error: close the model"))
    });
    match result {
        Ok(value) => Some(value),
        Err(Failure(text)) => {
            let text = CString::new(text.replace('\0', "?")).unwrap_or_default();
            LAST.set(text);
            None
        }
    }
}

/// A text of the caller's.
///
/// # Safety
/// It is null, or a zero ends it, and it stays.
pub(crate) unsafe fn text<'a>(what: &str, text: *const c_char) -> Result<&'a str, Failure> {
    if text.is_null() {
        return Err(failure(format!("{what}: found null, expected a text")));
    }
    // SAFETY: a zero ends it, as the caller says.
    let text = unsafe { CStr::from_ptr(text) };
    text.to_str().map_err(|_| failure(format!("{what}: found bytes that are not UTF-8")))
}
