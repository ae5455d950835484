//! Asked to stop: long work looks here, and cleans up before it ends.

use crate::{Error, Result};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::Duration;

/// Stops work that was given a clone of it, from any thread. The default is never cancelled unless
/// somebody keeps a clone.
#[derive(Clone, Debug, Default)]
pub struct Cancel(Arc<AtomicBool>);

/// How long a reader that waits may leave a cancellation unseen.
const INTERVAL: Duration = Duration::from_millis(50);

impl Cancel {
    /// Asks the work to stop; it can't be taken back.
    pub fn cancel(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    /// Whether the work was asked to stop.
    #[must_use]
    pub fn is_cancelled(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    /// # Errors
    /// [`Error::Interrupted`] once the work was asked to stop.
    pub fn check(&self) -> Result<()> {
        if self.is_cancelled() { Err(Error::Interrupted) } else { Ok(()) }
    }

    /// What asks the work to stop once it is true, as for a signal handler.
    #[must_use]
    pub fn flag(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.0)
    }

    /// Reads what may never come, as from standard input, or stops when asked to. A read is taken up
    /// again after a signal, so it has a thread of its own, which is left behind.
    ///
    /// # Errors
    /// Those of `read`, and [`Error::Interrupted`].
    pub fn or_read<T: Send + 'static>(
        &self,
        read: impl Fn() -> Result<T> + Copy + Send + 'static,
    ) -> Result<T> {
        let (sender, receiver) = channel();
        let send = move || {
            // Nobody waits any more once the work was asked to stop.
            let _ = sender.send(read());
        };
        if std::thread::Builder::new().spawn(send).is_err() {
            return read();
        }
        loop {
            match receiver.recv_timeout(INTERVAL) {
                Ok(result) => return result,
                Err(RecvTimeoutError::Timeout) => self.check()?,
                Err(RecvTimeoutError::Disconnected) => return read(),
            }
        }
    }
}
