//! The place of a model's one runner.

use crate::error::error;
use omex::runner::Runner;
use pyo3::prelude::*;
use std::sync::{Arc, Mutex};

/// Where a runner is while nobody uses it.
#[derive(Clone)]
pub(crate) struct Slot(Arc<Mutex<Option<Runner>>>);

impl Slot {
    pub(crate) fn new(runner: Runner) -> Self {
        Self(Arc::new(Mutex::new(Some(runner))))
    }

    pub(crate) fn take(&self) -> PyResult<Runner> {
        let runner = self.0.lock().ok().and_then(|mut slot| slot.take());
        runner.ok_or_else(|| {
            error("the model is in use: take the rest of its last text, or close() that, before anything else")
        })
    }

    pub(crate) fn put(&self, runner: Runner) {
        if let Ok(mut slot) = self.0.lock() {
            *slot = Some(runner);
        }
    }
}
