//! Asked to stop: long work looks here, and cleans up before it ends.

use crate::{Error, Result};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::sync::{Arc, LazyLock};
use std::time::Duration;

static INTERRUPTED: LazyLock<Arc<AtomicBool>> = LazyLock::new(Arc::default);

/// The flag that stops long work once it is set, as by a signal handler.
#[must_use]
pub fn flag() -> Arc<AtomicBool> {
    Arc::clone(&INTERRUPTED)
}

/// # Errors
/// [`Error::Interrupted`] once the flag is set.
pub fn check() -> Result<()> {
    if INTERRUPTED.load(Ordering::Relaxed) { Err(Error::Interrupted) } else { Ok(()) }
}

/// How long a reader that waits may leave the flag unseen.
const INTERVAL: Duration = Duration::from_millis(50);

/// Reads what may never come, as from standard input, or stops once the flag is set. A read is taken
/// up again after a signal, so it has a thread of its own, which is left behind.
///
/// # Errors
/// Those of `read`, and [`Error::Interrupted`].
pub fn unless_interrupted<T: Send + 'static>(
    read: impl Fn() -> Result<T> + Copy + Send + 'static,
) -> Result<T> {
    let (sender, receiver) = channel();
    let send = move || {
        // Nobody waits any more once the flag is set.
        let _ = sender.send(read());
    };
    if std::thread::Builder::new().spawn(send).is_err() {
        return read();
    }
    loop {
        match receiver.recv_timeout(INTERVAL) {
            Ok(result) => return result,
            Err(RecvTimeoutError::Timeout) => check()?,
            Err(RecvTimeoutError::Disconnected) => return read(),
        }
    }
}
