//! Ctrl-C, SIGTERM and SIGHUP: the first asks the work to stop and clean up, the second ends the
//! process at once.

use omex::cancel::Cancel;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::flag;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, LazyLock};

/// The signal that came; 0 before one did.
static CAME: LazyLock<Arc<AtomicUsize>> = LazyLock::new(Arc::default);

/// The exit code of a command that Ctrl-C interrupted.
pub(crate) const CTRL_C: u8 = 128 + SIGINT as u8;

/// The exit code of a command that was interrupted: 128 and the signal's number.
pub(crate) fn exit_code() -> u8 {
    match CAME.load(Ordering::Relaxed) as u8 {
        0 => 128 + SIGINT as u8,
        signal => 128 + signal,
    }
}

static CANCEL: LazyLock<Cancel> = LazyLock::new(Cancel::default);

/// What a signal cancels.
pub(crate) fn cancel() -> Cancel {
    CANCEL.clone()
}

/// From now on signals are noted instead of ending the process at once.
pub(crate) fn install() {
    let asked = CANCEL.flag();
    for signal in [SIGINT, SIGTERM, SIGHUP] {
        // In this order: the first signal finds the flag unset. Where a handler can't be installed,
        // the signal ends the process as it does by default.
        let _ = flag::register_conditional_shutdown(signal, 128 + signal, Arc::clone(&asked));
        let _ = flag::register_usize(signal, Arc::clone(&CAME), signal as usize);
        let _ = flag::register(signal, Arc::clone(&asked));
    }
}
