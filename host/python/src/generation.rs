//! A text that is being generated, as an iterator.

use crate::error::error;
use crate::slot::Slot;
use omex::cancel::Cancel;
use omex::generate::Event;
use omex::runner::{Continuation, Runner};
use omex_core::sample::Sampling;
use pyo3::prelude::*;
use std::sync::Mutex;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::thread::JoinHandle;
use std::time::Duration;

/// How long Ctrl-C may stay unseen.
const INTERVAL: Duration = Duration::from_millis(50);

/// What a text is to be.
pub(crate) struct Request {
    pub(crate) prompt: Vec<u32>,
    pub(crate) max_tokens: Option<usize>,
    pub(crate) sampling: Sampling,
    pub(crate) stop: Vec<String>,
}

/// Pieces of a text, which a thread generates as they are asked for.
#[pyclass(frozen)]
pub(crate) struct Generation {
    pieces: Mutex<Option<Receiver<omex::Result<String>>>>,
    cancel: Cancel,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl Generation {
    /// Has a thread generate with a runner, which it puts back into its slot at the end.
    pub(crate) fn begin(mut runner: Runner, slot: Slot, request: Request) -> PyResult<Self> {
        // A piece is made when the one before was taken.
        let (sender, pieces) = sync_channel(0);
        let cancel = Cancel::default();
        let thread = std::thread::Builder::new().name("omex".to_owned()).spawn({
            let cancel = cancel.clone();
            move || {
                let result = generate(&mut runner, request, &cancel, &sender);
                slot.put(runner);
                match result {
                    Ok(()) | Err(omex::Error::Interrupted) => {}
                    // Nobody may be listening any more.
                    Err(error) => _ = sender.send(Err(error)),
                }
            }
        });
        let thread = Mutex::new(Some(thread.map_err(error)?));
        Ok(Self { pieces: Mutex::new(Some(pieces)), cancel, thread })
    }

    /// Ends the text, and waits for the pass that is under way.
    fn end(&self) {
        self.cancel.cancel();
        if let Ok(mut pieces) = self.pieces.lock() {
            *pieces = None;
        }
        let thread = self.thread.lock().ok().and_then(|mut thread| thread.take());
        // A panic has been told on standard error, and the runner is lost.
        _ = thread.map(JoinHandle::join);
    }

    /// The next piece, or nothing within some time.
    fn wait(&self) -> Result<omex::Result<String>, RecvTimeoutError> {
        let pieces = self.pieces.lock().map_err(|_| RecvTimeoutError::Disconnected)?;
        pieces.as_ref().ok_or(RecvTimeoutError::Disconnected)?.recv_timeout(INTERVAL)
    }
}

fn generate(
    runner: &mut Runner,
    request: Request,
    cancel: &Cancel,
    sender: &SyncSender<omex::Result<String>>,
) -> omex::Result<()> {
    let Request { prompt, max_tokens, sampling, stop } = request;
    let max_tokens = max_tokens.unwrap_or(usize::MAX - prompt.len());
    let how = Continuation { max_tokens, sampling, stop: &stop, cancel: cancel.clone() };
    runner.generate(&prompt, how, &mut |event| {
        if let Event::Token { text, .. } | Event::End { text } = event
            && !text.is_empty()
            && sender.send(Ok(text.to_owned())).is_err()
        {
            cancel.cancel();
        }
        Ok(())
    })
}

impl Drop for Generation {
    fn drop(&mut self) {
        // The thread never asks for Python's lock.
        self.end();
    }
}

#[pymethods]
impl Generation {
    fn __iter__(this: PyRef<'_, Self>) -> PyRef<'_, Self> {
        this
    }

    fn __next__(&self, py: Python<'_>) -> PyResult<Option<String>> {
        loop {
            match py.detach(|| self.wait()) {
                Ok(piece) => return piece.map(Some).map_err(error),
                Err(RecvTimeoutError::Disconnected) => return Ok(None),
                Err(RecvTimeoutError::Timeout) => py.check_signals()?,
            }
        }
    }

    fn close(&self, py: Python<'_>) {
        py.detach(|| self.end());
    }
}
