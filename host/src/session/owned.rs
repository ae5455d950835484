//! An engine with all that it borrows, to be held where no lifetime reaches: by a server's thread, an
//! object of another language.
#![expect(unsafe_code, reason = "the engine's type does not say that what it borrows may be sent")]

use super::{Model, Session};
use crate::Result;
use omex_core::engine::Engine;
use self_cell::{MutBorrow, self_cell};
use std::sync::Arc;

self_cell! {
    struct Held {
        owner: MutBorrow<Session>,
        #[not_covariant]
        dependent: Engine,
    }
}

/// An engine that owns its session.
pub struct OwnedEngine {
    model: Arc<Model>,
    held: Held,
}

// SAFETY: all that the engine borrows is the session's, which may be sent (`is_send` below), or
// static; what it borrows by `Parallel`, kernels and an observer may be sent by their types. Nobody
// else can reach it: `with` lends it for any lifetime, so nothing can be put into it that does not
// live as long as the session, and its setters take nothing but observers, and parts, which threads
// may share.
unsafe impl Send for OwnedEngine {}

const _: () = is_send::<Session>();

const fn is_send<T: Send>() {}

impl OwnedEngine {
    /// The engine of a session, at the beginning of a text.
    ///
    /// # Errors
    /// Those of [`Session::engine`].
    pub fn new(session: Session) -> Result<Self> {
        let model = session.model();
        let held = Held::try_new(MutBorrow::new(session), |owner| owner.borrow_mut().engine())?;
        Ok(Self { model, held })
    }

    /// The model that is run.
    #[must_use]
    pub fn model(&self) -> &Arc<Model> {
        &self.model
    }

    /// Does something with the engine, which keeps its texts until the next time.
    pub fn with<T>(&mut self, action: impl FnOnce(&mut Engine<'_>) -> T) -> T {
        self.held.with_dependent_mut(|_, engine| action(engine))
    }
}
